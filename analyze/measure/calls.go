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

// attempt is a connection request.
type attempt struct {
	key   callKey
	at    capture.Instant // first SYN
	frame uint64
	port  uint16
	over  bool
	of    askers
}

// maxAttempts bounds the connection requests that wait for their outcome, and those that nothing
// has answered.
const maxAttempts = 1 << 15

// dials are the connection requests of an engine: on whose behalf they are made, and what became of them.
type dials struct {
	callers  callers
	requests requests
	sealed   capture.Instant // end of the newest window that was judged
}

func newDials() *dials { return &dials{callers: newCallers(), requests: newRequests()} }

// Measures implements analyze.Measurer for the detectors that read them.
func (d *dials) Measures() []analyze.Measure { return []analyze.Measure{d} }

// Events implements analyze.Measure.
func (d *dials) Events() flow.Mask {
	events := flow.Of(flow.SynAckSent, flow.SynAckRepeat, flow.Response)
	if len(d.requests.askers) > 0 {
		events |= requestEvents
	}
	return events
}

// Event implements analyze.Measure.
func (d *dials) Event(e *flow.Event) {
	if e.Conn == nil {
		return
	}
	switch e.Kind {
	case flow.SynAckRepeat, flow.Response:
		d.callers.serving(e.Conn.Server.Addr)
		return
	case flow.SynAckSent:
		d.callers.serving(e.Conn.Server.Addr)
	}
	d.requests.event(e)
}

// judge ends the window, once, however many detectors call it.
func (d *dials) judge(w *analyze.Window) {
	if d.sealed == w.End && d.callers.judged {
		return
	}
	d.sealed = w.End
	d.callers.judge(w)
	d.requests.judge(w)
}

// requests finds out what became of connection requests, so that it is the same for all detectors that
// ask "does it answer?". Only those that are not answered are remembered one by one: most are,
// within a round trip.
type requests struct {
	young  []askedRequest // not old enough to be called ignored, in order of time
	open   subjects[flow.Ref, attempt]
	askers []asker
	shared attempt // scratch: the attempt that is reported to askers
}

// asker is a detector to which outcomes are reported.
type asker struct {
	outcomes uint8                    // those that are reported to it, a bit each
	mine     func(e *flow.Event) bool // whether it asks about the connection of e; nil: about all
	report   func(c *flow.Conn, o outcome, a *attempt, e *flow.Event)
}

// askers is a set of askers, by their place in the list.
type askers uint8

type youngRequest struct {
	ref flow.Ref
	at  capture.Instant
}

// askedRequest is one with those who ask about it.
type askedRequest struct {
	youngRequest
	of askers
}

func newRequests() requests {
	return requests{open: newSubjects[flow.Ref, attempt](maxAttempts)}
}

// tell makes report be called for these outcomes of the requests that mine names, of all if it is nil. e is
// nil when the passing of time decides. It returns what ignoredOnes knows the asker by.
func (r *requests) tell(report func(c *flow.Conn, o outcome, a *attempt, e *flow.Event), mine func(*flow.Event) bool, os ...outcome) askers {
	x := asker{mine: mine, report: report}
	for _, o := range os {
		x.outcomes |= 1 << o
	}
	r.askers = append(r.askers, x)
	return 1 << (len(r.askers) - 1)
}

// requestEvents wake requests.
var requestEvents = flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.ICMPError)

func attemptOf(c *flow.Conn, of askers) attempt {
	return attempt{key: callKey{c.Client.Addr, c.Server}, at: c.SynAt(), frame: c.FirstFrame(), port: c.Client.Port, of: of}
}

// of are those who ask about the connection of e.
func (r *requests) of(e *flow.Event) (of askers) {
	for i := range r.askers {
		if x := &r.askers[i]; x.mine == nil || x.mine(e) {
			of |= 1 << i
		}
	}
	return of
}

// report reports o to those of a.of that asked for it.
func (r *requests) report(c *flow.Conn, o outcome, a *attempt, e *flow.Event) {
	for i := range r.askers {
		if x := &r.askers[i]; x.outcomes>>o&1 == 1 && a.of>>i&1 == 1 && (e == nil || x.mine == nil || x.mine(e)) {
			x.report(c, o, a, e)
		}
	}
}

// event takes an event of requestEvents; others are ignored.
func (r *requests) event(e *flow.Event) {
	c := e.Conn
	o := accepted
	switch e.Kind {
	case flow.SynSent:
		if len(r.young) < maxAttempts {
			r.young = append(r.young, askedRequest{youngRequest{c.Ref(), e.At}, r.of(e)})
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
		if c.SynAnswered() || c.Closed() || !e.Unreachable() {
			return
		}
		o = refused
	default:
		return
	}
	const all = ^askers(0)
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
		*a = attemptOf(c, all)
		a.over = true
	}
	r.shared = attemptOf(c, all)
	r.report(c, o, &r.shared, e)
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
			*a = attemptOf(c, r.young[n].of)
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

// ignoredOnes calls f for each request of one asker that nothing has answered so far, with how often its SYN was repeated, and
// for how long it has waited.
func (r *requests) ignoredOnes(w *analyze.Window, of askers, f func(a *attempt, repeats int, wait time.Duration)) {
	for ref, a := range r.open.all {
		if a.over || a.of&of == 0 {
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
func (a *attempt) evidence(frame uint64, what string) analyze.Evidence {
	return analyze.Evidence{At: a.at, Note: what, Frames: frames(a.frame, frame),
		Flow: capture.Endpoint{Addr: a.key.client, Port: a.port}.String() + " > " + a.key.server.String()}
}

// failure is a connection request that failed.
type failure struct {
	at       capture.Instant
	delay    time.Duration // SYN to RST
	before   uint32        // requests that had succeeded by then
	refused  bool
	evidence analyze.Evidence
}

func failureOf(a *attempt, o outcome, e *flow.Event, before uint32) failure {
	f := failure{at: a.at, before: before, refused: o == refused}
	switch o {
	case refused:
		f.delay, f.evidence = e.At.Sub(a.at), a.evidence(e.Frame, "refused")
	case unreached:
		f.evidence = a.evidence(e.Frame, "ICMP: unreachable")
	default:
		f.evidence = a.evidence(0, "no answer to the SYN")
	}
	return f
}

// maxFails bounds the failures that one subject remembers one by one: the first ones since the onset.
const maxFails = 512

// appendFirst appends x unless there are enough.
func appendFirst[T any](v []T, x T) []T {
	if len(v) >= maxFails {
		return v
	}
	return append(v, x)
}

// ofAll is how many of all that failed were refused, and how many not answered, where so many of the first maxFails were.
func ofAll(refused, unanswered int, all uint32) (int, int) {
	n := refused + unanswered
	if n < maxFails || int(all) <= n {
		return refused, unanswered
	}
	refused = refused * int(all) / n
	return refused, int(all) - refused
}

// callers tells which hosts' calls are made on behalf of somebody: those of this host, or, where no
// address counts as this host or neither end is, those of hosts that serve others themselves.
type callers struct {
	local  analyze.Local
	judged bool // local is known, in so far as it is
	serve  subjects[capture.Addr, struct{}]
	newest capture.Addr // that was put into serve
	// verdicts are those of may on pairs of hosts, by the low bits of their number in the flow table. They hold for as long as
	// round stays, which moves on when there is more to know.
	verdicts *[callerPairs]callerVerdict
	round    uint32
}

// callerPairs is how many pairs of hosts can be told apart at a time without finding out once more.
const callerPairs = 1024

// callerVerdict is what may says of a client and a server.
type callerVerdict struct {
	client, server capture.Addr
	round          uint32
	may            bool
}

func newCallers() callers {
	return callers{serve: newSubjects[capture.Addr, struct{}](maxPerDetector), round: 1}
}

// serving notes that a listens, and with it the host that it belongs to.
func (c *callers) serving(a capture.Addr) {
	if a != c.newest {
		c.newest = a
		n := len(c.serve.keys)
		c.serve.get(a)
		if h := c.local.Host(a); h != a {
			c.serve.get(h)
		}
		if len(c.serve.keys) != n {
			c.round++
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

// whose is the host whose upstream a listener is that these clients ask: this host, or, where none of them is this host (a box
// that forwards sees the calls of others), the one host that they are, if it serves others itself. Of several addresses of
// this host that call it is the lowest.
func (c *callers) whose(listener capture.Endpoint, clients iter.Seq[capture.Addr]) (who capture.Addr, ok bool) {
	if c.local.Is(listener.Addr) {
		return who, false
	}
	for a := range clients {
		if c.local.Is(a) && (!ok || a.Compare(who) < 0) {
			who, ok = a, true
		}
	}
	if ok {
		return who, true
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

// mayEvent is may for the ends of the connection of e.
func (c *callers) mayEvent(e *flow.Event) bool {
	client, server := &e.Conn.Client.Addr, &e.Conn.Server.Addr
	if e.Path == nil {
		return c.may(*client, *server)
	}
	if c.verdicts == nil {
		c.verdicts = new([callerPairs]callerVerdict)
	}
	v := &c.verdicts[e.Path.Index%callerPairs]
	if v.round != c.round || v.client != *client || v.server != *server {
		*v = callerVerdict{*client, *server, c.round, c.may(*client, *server)}
	}
	return v.may
}

func (c *callers) judge(w *analyze.Window) {
	c.round++
	c.local, c.judged, c.newest = w.Local, true, capture.Addr{} // which host an address belongs to may be known now
}
