package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// callKey is who opens connections to which listener.
type callKey struct {
	client capture.Addr
	server capture.Endpoint
}

// outcome of a connection request.
type outcome uint8

const (
	accepted outcome = iota
	refused          // RST, or ICMP unreachable
	ignored          // no answer of any kind for ignoredAfter
	answered         // ignored, and answered later all the same
)

// ignoredAfter is how long a SYN has no answer before it counts as ignored: by then it has been repeated
// after 1 s and again after 2 s more (RFC 6298 §2, §5.5), so that losing one or two packets on
// a path does not make a server look dead; or the program has given up before.
const ignoredAfter = 3 * time.Second

// attempt is a connection request without an outcome, or one that was ignored so far.
type attempt struct {
	key     callKey
	at      capture.Instant // first SYN
	frame   uint64
	port    uint16
	over    bool
	ignored bool
}

// maxAttempts bounds the connection requests that wait for their outcome.
const maxAttempts = 1 << 15

// requests follows connection requests until it is known what became of them. The rule
// that each tells to is the same for all detectors that ask "does it answer?".
type requests struct {
	open   subjects[flow.Ref, attempt]
	report func(k callKey, o outcome, a *attempt, e *flow.Event)
}

func newRequests(report func(callKey, outcome, *attempt, *flow.Event)) requests {
	return requests{newSubjects[flow.Ref, attempt](maxAttempts), report}
}

// requestEvents wake requests.
var requestEvents = flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.ICMPError, flow.Closed)

// event takes an event of requestEvents; others are ignored. e is passed on to report, which gets nil
// when the passing of time decides.
func (r *requests) event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	switch e.Kind {
	case flow.SynSent:
		if a := r.open.get(c.Ref()); a != nil {
			*a = attempt{key: callKey{c.Client.Addr, c.Server}, at: e.At, frame: e.Frame, port: c.Client.Port}
		}
		return
	case flow.SynAckSent, flow.Established, flow.Refused, flow.ICMPError, flow.Closed:
	default:
		return
	}
	a := r.open.peek(c.Ref())
	if a == nil || a.over {
		return
	}
	switch {
	case e.Kind == flow.SynAckSent || e.Kind == flow.Established:
		// A client that goes on after its SYN has seen the SYN-ACK, even if the capture has not.
		a.over = true
		if a.ignored {
			r.report(a.key, answered, a, e)
		} else {
			r.report(a.key, accepted, a, e)
		}
	case e.Kind == flow.Refused, e.Kind == flow.ICMPError && unreachable(e) && !c.SynAnswered():
		a.over = true
		if !a.ignored {
			r.report(a.key, refused, a, e)
		}
	case e.Kind == flow.Closed:
		a.over = true
	}
}

// unreachable reports an ICMP error that makes connect() fail: destination unreachable other than
// "fragmentation needed" (RFC 1122 §4.2.3.9; RFC 4443 §3.1).
func unreachable(e *flow.Event) bool {
	kind, code := e.N>>8, e.N&0xff
	if e.Conn.Client.Addr.Netip().Is4() {
		return kind == 3 && code != 4
	}
	return kind == 1
}

// judge reports the requests that nothing has answered.
func (r *requests) judge(w *analyze.Window) {
	r.open.each(func(ref flow.Ref, a *attempt) bool {
		if a.over {
			return false
		}
		c := w.Flows.Lookup(ref)
		if c == nil || c.Closed() {
			return false
		}
		if c.SynAnswered() || c.IsEstablished() {
			return false
		}
		if !a.ignored && w.End.Sub(a.at) >= ignoredAfter {
			a.ignored = true
			r.report(a.key, ignored, a, nil)
		}
		// tcp_syn_retries 6: connect() fails after 127 s (tcp(7)).
		return w.End.Sub(a.at) < 130*time.Second
	})
}

// repeats sums up the requests of k that are ignored: how often their SYNs were
// repeated, and for how long the oldest has waited.
func (r *requests) repeats(w *analyze.Window, k callKey, since capture.Instant) (n int, wait time.Duration) {
	for _, ref := range r.open.keys {
		a := r.open.m[ref]
		if a.key != k || !a.ignored || a.at < since {
			continue
		}
		if c := w.Flows.Lookup(ref); c != nil {
			n += c.SynTries()
			wait = max(wait, c.Last.Sub(a.at))
		}
	}
	return n, wait
}

// evidence of an attempt.
func (a *attempt) evidence(frame uint64, note string) analyze.Evidence {
	e := analyze.Evidence{At: a.at, Note: note,
		Flow: capture.Endpoint{Addr: a.key.client, Port: a.port}.String() + " > " + a.key.server.String()}
	for _, f := range [2]uint64{a.frame, frame} {
		if f != 0 {
			e.Frames = append(e.Frames, f)
		}
	}
	return e
}

// callers tells which hosts' calls are made on behalf of somebody: those of this host, or, where no
// address counts as this host or neither end is, those of hosts that serve others themselves.
type callers struct {
	local  analyze.Local
	judged bool // local is known, in so far as it is
	serve  subjects[capture.Addr, struct{}]
}

func newCallers() callers { return callers{serve: newSubjects[capture.Addr, struct{}](maxPerDetector)} }

// serving notes that a listens.
func (c *callers) serving(a capture.Addr) { c.serve.get(a) }

// is reports whether the calls from client to server are an upstream's.
func (c *callers) is(client, server capture.Addr) bool {
	switch {
	case c.local.Is(client):
		return true
	case c.local.Is(server):
		return false
	}
	return c.serve.peek(client) != nil
}

// may is the same before the first window is judged: then anybody may be this host.
func (c *callers) may(client, server capture.Addr) bool { return !c.judged || c.is(client, server) }

func (c *callers) judge(w *analyze.Window) { c.local, c.judged = w.Local, true }
