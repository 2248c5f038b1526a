package measure

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// CallKey is who opens connections to which listener.
type CallKey struct {
	Client capture.Addr
	Server capture.Endpoint
}

// CallOf is who opened c to whom.
func CallOf(c *flow.Conn) CallKey { return CallKey{c.Client.Addr, c.Server} }

// Outcome of a connection request.
type Outcome uint8

// The outcomes of a connection request.
const (
	Accepted  Outcome = iota
	Refused           // RST, or ICMP unreachable
	Ignored           // no answer of any kind for IgnoredAfter
	Answered          // ignored, and answered later all the same
	Unreached         // flow.Unreached
)

// Attempt is a connection request.
type Attempt struct {
	Key   CallKey
	At    capture.Instant // first SYN
	Frame uint64
	Port  uint16
	over  bool
	of    Askers
}

// MaxAttempts bounds the connection requests that wait for their outcome, and those that nothing
// has answered.
const MaxAttempts = 1 << 15

// Dials are the connection requests of an engine: on whose behalf they are made, and what became of them.
type Dials struct {
	Callers  callers
	Requests requests
	sealed   capture.Instant // end of the newest window that was judged
}

// NewDials returns dials that nobody asks about yet.
func NewDials() *Dials { return &Dials{Callers: newCallers(), Requests: newRequests()} }

// Measures implements analyze.Measurer for the detectors that read them.
func (d *Dials) Measures() []analyze.Measure { return []analyze.Measure{d} }

// Events implements analyze.Measure.
func (d *Dials) Events() flow.Mask {
	events := flow.Of(flow.SynAckSent, flow.SynAckRepeat, flow.Response)
	if len(d.Requests.askers) > 0 {
		events |= RequestEvents
	}
	return events
}

// Event implements analyze.Measure.
func (d *Dials) Event(e *flow.Event) {
	if e.Conn == nil {
		return
	}
	switch e.Kind {
	case flow.SynAckRepeat, flow.Response:
		d.Callers.Serving(e.Conn.Server.Addr)
		return
	case flow.SynAckSent:
		d.Callers.Serving(e.Conn.Server.Addr)
	}
	d.Requests.event(e)
}

// Judge ends the window, once, however many detectors call it.
func (d *Dials) Judge(w *analyze.Window) {
	if d.sealed == w.End && d.Callers.Judged {
		return
	}
	d.sealed = w.End
	d.Callers.judge(w)
	d.Requests.judge(w)
}

// requests finds out what became of connection requests, so that it is the same for all detectors that
// ask "does it answer?". Only those that are not answered are remembered one by one: most are,
// within a round trip.
type requests struct {
	young  []askedRequest // not old enough to be called ignored, in order of time
	open   Subjects[flow.Ref, Attempt]
	askers []asker
	shared Attempt // scratch: the attempt that is reported to askers
}

// asker is a detector to which outcomes are reported.
type asker struct {
	outcomes uint8                    // those that are reported to it, a bit each
	mine     func(e *flow.Event) bool // whether it asks about the connection of e; nil: about all
	report   func(c *flow.Conn, o Outcome, a *Attempt, e *flow.Event)
}

// Askers is a set of askers, by their place in the list.
type Askers uint8

// YoungRequest is a connection request and when it was made.
type YoungRequest struct {
	Ref flow.Ref
	At  capture.Instant
}

// askedRequest is one with those who ask about it.
type askedRequest struct {
	YoungRequest
	of Askers
}

func newRequests() requests {
	return requests{open: NewSubjects[flow.Ref, Attempt](MaxAttempts)}
}

// Tell makes report be called for these outcomes of the requests that mine names, of all if it is nil. e is
// nil when the passing of time decides. It returns what ignoredOnes knows the asker by.
func (r *requests) Tell(report func(c *flow.Conn, o Outcome, a *Attempt, e *flow.Event), mine func(*flow.Event) bool, os ...Outcome) Askers {
	x := asker{mine: mine, report: report}
	for _, o := range os {
		x.outcomes |= 1 << o
	}
	r.askers = append(r.askers, x)
	return 1 << (len(r.askers) - 1)
}

// RequestEvents wake requests.
var RequestEvents = flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.ICMPError)

func attemptOf(c *flow.Conn, of Askers) Attempt {
	return Attempt{Key: CallKey{c.Client.Addr, c.Server}, At: c.SynAt(), Frame: c.FirstFrame(), Port: c.Client.Port, of: of}
}

// of are those who ask about the connection of e.
func (r *requests) of(e *flow.Event) (of Askers) {
	for i := range r.askers {
		if x := &r.askers[i]; x.mine == nil || x.mine(e) {
			of |= 1 << i
		}
	}
	return of
}

// report reports o to those of a.of that asked for it.
func (r *requests) report(c *flow.Conn, o Outcome, a *Attempt, e *flow.Event) {
	for i := range r.askers {
		if x := &r.askers[i]; x.outcomes>>o&1 == 1 && a.of>>i&1 == 1 && (e == nil || x.mine == nil || x.mine(e)) {
			x.report(c, o, a, e)
		}
	}
}

// event takes an event of requestEvents; others are ignored.
func (r *requests) event(e *flow.Event) {
	c := e.Conn
	o := Accepted
	switch e.Kind {
	case flow.SynSent:
		if len(r.young) < MaxAttempts {
			r.young = append(r.young, askedRequest{YoungRequest{c.Ref(), e.At}, r.of(e)})
		} else {
			r.open.Refused++
		}
		return
	case flow.SynAckSent:
	case flow.Established:
		// A client that goes on after its SYN has seen the SYN-ACK, even if the capture has not.
		if c.SynAnswered() {
			return
		}
	case flow.Refused:
		o = Refused
	case flow.ICMPError:
		if c.SynAnswered() || c.Closed() || !e.Unreachable() {
			return
		}
		o = Refused
	default:
		return
	}
	const all = ^Askers(0)
	a := r.open.Peek(c.Ref())
	switch {
	case a != nil && a.over:
		return
	case a != nil:
		a.over = true
		if o == Accepted {
			r.report(c, Answered, a, e)
		}
		return
	case e.Kind == flow.ICMPError:
		// The SYN may be repeated and refused again, which is no other request.
		if a = r.open.Get(c.Ref()); a == nil {
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
	for ; n < len(r.young) && w.End.Sub(r.young[n].At) >= IgnoredAfter; n++ {
		c := w.Flows.Lookup(r.young[n].Ref)
		if c == nil || c.Closed() || c.SynAnswered() || c.IsEstablished() || r.open.Peek(c.Ref()) != nil {
			continue
		}
		if a := r.open.Get(c.Ref()); a != nil {
			*a = attemptOf(c, r.young[n].of)
			r.report(c, Ignored, a, nil)
		}
	}
	r.young = r.young[:copy(r.young, r.young[n:])]
	r.open.Each(func(ref flow.Ref, a *Attempt) bool {
		c := w.Flows.Lookup(ref)
		// tcp_syn_retries 6: connect() fails after 127 s (tcp(7)).
		return c != nil && !c.Closed() && !c.SynAnswered() && !c.IsEstablished() && w.End.Sub(a.At) < 130*time.Second
	})
}

// IgnoredOnes calls f for each request of one asker that nothing has answered so far, with how often its SYN was repeated, and
// for how long it has waited.
func (r *requests) IgnoredOnes(w *analyze.Window, of Askers, f func(a *Attempt, repeats int, wait time.Duration)) {
	for ref, a := range r.open.All {
		if a.over || a.of&of == 0 {
			continue
		}
		if c := w.Flows.Lookup(ref); c != nil {
			f(a, c.SynTries(), c.Last.Sub(a.At))
		}
	}
}

// Direction tells whether the capture holds what a listener sends. From one without it nobody knows whom the listener
// answers.
type Direction struct{ opened, unheard uint32 }

// Event takes a connection that has come about.
func (d *Direction) Event(e *flow.Event) {
	if d.opened++; e.Conn.Packets(flow.Server) == 0 {
		d.unheard++
	}
}

// Missing reports whether most connections came about without a packet of the listener in the capture. A capture that loses
// packets misses some SYN-ACKs, too.
func (d *Direction) Missing() bool { return 2*d.unheard > d.opened }

// Evidence of an attempt.
func (a *Attempt) Evidence(frame uint64, what string) analyze.Evidence {
	return analyze.Evidence{At: a.At, Note: what, Frames: Frames(a.Frame, frame),
		Flow: capture.Endpoint{Addr: a.Key.Client, Port: a.Port}.String() + " > " + a.Key.Server.String()}
}

// Failure is a connection request that failed.
type Failure struct {
	At       capture.Instant
	Delay    time.Duration // SYN to RST
	Before   uint32        // requests that had succeeded by then
	Refused  bool
	Evidence analyze.Evidence
}

// FailureOf describes an attempt that came to o; e is what said so, nil for the passing of time. before is how many had succeeded by then.
func FailureOf(a *Attempt, o Outcome, e *flow.Event, before uint32) Failure {
	f := Failure{At: a.At, Before: before, Refused: o == Refused}
	switch o {
	case Refused:
		f.Delay, f.Evidence = e.At.Sub(a.At), a.Evidence(e.Frame, "refused")
	case Unreached:
		f.Evidence = a.Evidence(e.Frame, "ICMP: unreachable")
	default:
		f.Evidence = a.Evidence(0, "no answer to the SYN")
	}
	return f
}

// MaxFails bounds the failures that one subject remembers one by one: the first ones since the onset.
const MaxFails = 512

// AppendFirst appends x unless there are enough.
func AppendFirst[T any](v []T, x T) []T {
	if len(v) >= MaxFails {
		return v
	}
	return append(v, x)
}

// OfAll is how many of all that failed were refused, and how many not answered, where so many of the first maxFails were.
func OfAll(refused, unanswered int, all uint32) (int, int) {
	n := refused + unanswered
	if n < MaxFails || int(all) <= n {
		return refused, unanswered
	}
	refused = refused * int(all) / n
	return refused, int(all) - refused
}
