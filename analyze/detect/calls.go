package detect

import (
	"iter"
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
	accepted  outcome = iota
	refused           // RST, or ICMP unreachable
	ignored           // no answer of any kind for ignoredAfter
	answered          // ignored, and answered later all the same
	unreached         // flow.Unreached
)

// ignoredAfter is how long a SYN has no answer before it counts as ignored: by then it has been repeated
// after 1 s and again after 2 s more (RFC 6298 §2, §5.5), so that losing one or two packets on
// a path does not make a server look dead; or the program has given up before.
const ignoredAfter = 3 * time.Second

// attempt is a connection request.
type attempt struct {
	key   callKey
	at    capture.Instant // first SYN
	frame uint64
	port  uint16
	over  bool
}

// maxAttempts bounds the connection requests that wait for their outcome, and those that nothing
// has answered.
const maxAttempts = 1 << 15

// requests finds out what became of connection requests. The rule that each tells to is the
// same for all detectors that ask "does it answer?". Only those that are not answered are
// remembered one by one: most are, within a round trip.
type requests struct {
	young  []youngRequest // not old enough to be called ignored, in order of time
	open   subjects[flow.Ref, attempt]
	report func(c *flow.Conn, o outcome, a *attempt, e *flow.Event)
	told   attempt // scratch: what report is shown
}

type youngRequest struct {
	ref flow.Ref
	at  capture.Instant
}

func newRequests(report func(*flow.Conn, outcome, *attempt, *flow.Event)) requests {
	return requests{open: newSubjects[flow.Ref, attempt](maxAttempts), report: report}
}

// requestEvents wake requests.
var requestEvents = flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.ICMPError)

func attemptOf(c *flow.Conn) attempt {
	return attempt{key: callKey{c.Client.Addr, c.Server}, at: c.SynAt(), frame: c.FirstFrame(), port: c.Client.Port}
}

// event takes an event of requestEvents; others are ignored. e is passed on to report, which gets nil
// when the passing of time decides.
func (r *requests) event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	o := accepted
	switch e.Kind {
	case flow.SynSent:
		if len(r.young) < maxAttempts {
			r.young = append(r.young, youngRequest{c.Ref(), e.At})
		} else {
			r.open.refused++
		}
		return
	case flow.SynAckSent:
	case flow.Established:
		// A client that goes on after its SYN has seen the SYN-ACK, even if the capture has not.
		if c.SynAnswered() {
			return
		}
	case flow.Refused:
		o = refused
	case flow.ICMPError:
		if c.SynAnswered() || c.Closed() || !flow.Unreachable(e.N, !c.Client.Addr.Netip().Is4()) {
			return
		}
		o = refused
	default:
		return
	}
	a := r.open.peek(c.Ref())
	switch {
	case a != nil && a.over:
		return
	case a != nil:
		a.over = true
		if o == accepted {
			r.report(c, answered, a, e)
		}
		return
	case e.Kind == flow.ICMPError:
		// The SYN may be repeated and refused again, which is no other request.
		if a = r.open.get(c.Ref()); a == nil {
			return
		}
		*a = attemptOf(c)
		a.over = true
	}
	r.told = attemptOf(c)
	r.report(c, o, &r.told, e)
}

// judge reports the requests that nothing has answered.
func (r *requests) judge(w *analyze.Window) {
	n := 0
	for ; n < len(r.young) && w.End.Sub(r.young[n].at) >= ignoredAfter; n++ {
		c := w.Flows.Lookup(r.young[n].ref)
		if c == nil || c.Closed() || c.SynAnswered() || c.IsEstablished() || r.open.peek(c.Ref()) != nil {
			continue
		}
		if a := r.open.get(c.Ref()); a != nil {
			*a = attemptOf(c)
			r.report(c, ignored, a, nil)
		}
	}
	r.young = r.young[:copy(r.young, r.young[n:])]
	r.open.each(func(ref flow.Ref, a *attempt) bool {
		c := w.Flows.Lookup(ref)
		// tcp_syn_retries 6: connect() fails after 127 s (tcp(7)).
		return c != nil && !c.Closed() && !c.SynAnswered() && !c.IsEstablished() && w.End.Sub(a.at) < 130*time.Second
	})
}

// ignoredOnes calls f for each request that nothing has answered so far, with how often its SYN was repeated, and
// for how long it has waited.
func (r *requests) ignoredOnes(w *analyze.Window, f func(a *attempt, repeats int, wait time.Duration)) {
	for _, ref := range r.open.keys {
		a := r.open.m[ref]
		if a.over {
			continue
		}
		if c := w.Flows.Lookup(ref); c != nil {
			f(a, c.SynTries(), c.Last.Sub(a.at))
		}
	}
}

// direction tells whether the capture holds what a listener sends. From one without it nobody knows whom the listener
// answers.
type direction struct{ opened, unheard uint32 }

// event takes a connection that has come about.
func (d *direction) event(e *flow.Event) {
	if d.opened++; e.Conn.Packets(flow.Server) == 0 {
		d.unheard++
	}
}

// missing reports whether most connections came about without a packet of the listener in the capture. A capture that loses
// packets misses some SYN-ACKs, too.
func (d *direction) missing() bool { return 2*d.unheard > d.opened }

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
	newest capture.Addr // that was put into serve
}

func newCallers() callers { return callers{serve: newSubjects[capture.Addr, struct{}](maxPerDetector)} }

// serving notes that a listens, and with it the host that it belongs to.
func (c *callers) serving(a capture.Addr) {
	if a != c.newest {
		c.newest = a
		c.serve.get(a)
		if h := c.local.Host(a); h != a {
			c.serve.get(h)
		}
	}
}

// is reports whether the calls from client to server are an upstream's.
func (c *callers) is(client, server capture.Addr) bool {
	switch {
	case c.local.Is(client):
		return true
	case c.local.Is(server):
		return false
	}
	return c.serve.peek(client) != nil || c.serve.peek(c.local.Host(client)) != nil
}

// slowClients yields who has made the slow requests not older than since.
func slowClients(slow *ring[slowRequest], since capture.Instant) iter.Seq[capture.Addr] {
	return func(yield func(capture.Addr) bool) {
		for r := range slow.all {
			if r.at >= since && !yield(r.client) {
				return
			}
		}
	}
}

// whose is the host whose upstream a listener is that these clients ask: this host, or, where no address counts as this host,
// the one host that they are, if it serves others itself. Of several addresses of this host that call it is the lowest.
func (c *callers) whose(listener capture.Endpoint, clients iter.Seq[capture.Addr]) (who capture.Addr, ok bool) {
	if c.local.By != analyze.LocalNone {
		who = c.local.Addr
		for a := range clients {
			if c.local.Is(a) && (!ok || a.Compare(who) < 0) {
				who, ok = a, true
			}
		}
		return who, !c.local.Is(listener.Addr)
	}
	for a := range clients {
		switch {
		case !c.is(a, listener.Addr) || ok && c.local.Host(a) != c.local.Host(who):
			return who, false
		case !ok:
			who, ok = a, true
		}
	}
	return who, ok
}

// may is the same before the first window is judged: then anybody may be this host.
func (c *callers) may(client, server capture.Addr) bool { return !c.judged || c.is(client, server) }

func (c *callers) judge(w *analyze.Window) {
	c.local, c.judged, c.newest = w.Local, true, capture.Addr{} // which host an address belongs to may be known now
}

// slowAnswer divides answers that are called slow from others where no rule has a threshold for it: a third of the
// 3 s after which the clients of the rebuilt incident gave up.
const slowAnswer = time.Second
