package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// DeadConnection are the features of dead-connection. Times in seconds.
type DeadConnection struct {
	Class       string  `json:"class"`
	Connections int     `json:"connections"`
	Alive       int     `json:"alive"`
	Fresh       int     `json:"fresh"`
	Share       float64 `json:"share"`
	Clients     int     `json:"clients"`
	To          string  `json:"to"`
	Repeats     int     `json:"repeats"`
	Probes      int     `json:"probes"`
	Smallest    int     `json:"smallest"`
	Silent      float64 `json:"silent"`
	Idle        float64 `json:"idle"`
	Survived    float64 `json:"survived"`
	Healed      int     `json:"healed"`
	Discarded   int     `json:"discarded"`
	OtherLoss   float64 `json:"other_loss"`
	Checked     int     `json:"checked"`
	Unheard     int     `json:"unheard"`
	Opened      int     `json:"opened"`
	SynAcks     int     `json:"syn_acks"`
	Away        float64 `json:"away"`
	Pause       float64 `json:"pause"`
}

// The classes of dead-connection.
const (
	deadGone      = "gone"
	deadForgotten = "forgotten"
	deadSome      = "some"
	deadVanished  = "vanished"
	deadOutage    = "outage"
	deadDiscarded = "discarded"
	deadUnreached = "unreached"
)

// deadConnection looks for connections on which nothing is acknowledged from a moment on, and on which
// nothing else comes from the silent side.
//
// Repetitions of one segment are one event, however many there are: what counts are connections. A side that says
// anything at all, be it a bare acknowledgement, is no dead one, unless each repetition draws the same acknowledgement
// again: then its host gets what is sent, and discards it; its own repetitions of what was acknowledged
// long ago are no answer, for they tell that it has not seen that acknowledgement.
type deadConnection struct {
	*measure.Dials
	trying   measure.Subjects[deadSide, deadTry]
	groups   measure.Subjects[deadKey, deadGroup]
	survived measure.Subjects[measure.CallKey, survivor]
	checked  int // connections whose data was acknowledged
	unheard  int // connections that ended while data was repeated to a side that was never seen
}

// deadSide is the side of a connection that does not answer.
type deadSide struct {
	ref    flow.Ref
	silent flow.Side
}

// deadTry is a side whose peer's data is being repeated, or which is being probed.
type deadTry struct {
	since   capture.Instant // first transmission of what is repeated, or first probe
	began   capture.Instant // the same, before the capture began as well, as far as time-outs tell
	last    capture.Instant // newest repetition
	heard   uint32          // packets of the silent side, when the first repetition came
	acked   uint64          // and what it had acknowledged
	repeats uint32
	probes  uint32        // of these, that carried no data
	idle    time.Duration // how long both sides had said nothing before
	frames  [2]uint64     // first and newest repetition
	early   bool          // nothing was ever acknowledged: perhaps the listener has not taken the connection
	pause   time.Duration // the longest between two transmissions
	unheard bool          // the silent side was never seen: it said nothing, or the capture shows this direction only
	begun   bool          // before the capture: it may have been repeated before
	sent    uint32        // packets of the side that repeats itself, with the newest repetition
	late    bool          // there had been acknowledgements of the same: later data may have come, and only this be missing
	size    int           // IP length of the smallest segment repeated since; 0: none, only probes
	synAcks bool          // the listener repeats its SYN-ACK: it has not seen the handshake end
	echoes  uint32        // repetitions that drew the acknowledgement of what came before, and nothing else
}

const (
	// maxDead bounds the dead connections that one group remembers one by one, maxTrying those whose data is being repeated.
	maxDead   = 512
	maxTrying = 8192
	// deadLinger is how long a connection without a further repetition still counts as dead: longer than the
	// longest pause between two (Linux TCP_RTO_MAX 120 s, include/net/tcp.h).
	deadLinger = 125 * time.Second
	// deadShown is how long one still shows for which nobody waits any more.
	deadShown = 2 * time.Second
)

func newDeadConnection() analyze.Detector {
	return &deadConnection{Dials: measure.NewDials(), trying: measure.NewSubjects[deadSide, deadTry](maxTrying),
		groups: measure.NewSubjects[deadKey, deadGroup](measure.MaxPerDetector), survived: measure.NewSubjects[measure.CallKey, survivor](measure.MaxPerDetector)}
}

func (d *deadConnection) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dead-connection", Features: DeadConnection{},
		Events: flow.Of(flow.Retransmit, flow.Recovered, flow.Probe, flow.SynAckRepeat, flow.Response, flow.Closed)}
}

func (d *deadConnection) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	switch e.Kind {
	case flow.SynAckRepeat: // the server has not seen what ends the handshake, and says nothing new
		if x := d.trying.Peek(deadSide{c.Ref(), flow.Server}); x != nil && x.early && c.Packets(flow.Server) == x.heard+1 {
			x.heard++
			x.synAcks = true
		}
	case flow.Response:
		if end, idle := c.Idle(); end != 0 && end == e.Since {
			if s := d.survived.Get(measure.CallOf(c)); s != nil {
				s.longest, s.at = max(s.longest, idle), e.At
			}
		}
	case flow.Closed:
		if c.Acked(flow.Client)+c.Acked(flow.Server) > 0 {
			d.checked++
		}
	case flow.Retransmit:
		d.repeated(c, e)
	case flow.Recovered:
		s := deadSide{c.Ref(), e.Side.Other()}
		if g := d.groups.Peek(d.key(c, s.silent)); g != nil {
			if r := g.list.Peek(s); r != nil && !r.healed {
				r.healed, r.until = true, e.At
			}
		}
	case flow.Probe:
		if o := e.Side.Other(); !c.Closed() && !c.Closing(o) {
			d.inVain(c, e, o, e.At, false, false)
		}
	}
}

// repeated takes a repetition of data.
func (d *deadConnection) repeated(c *flow.Conn, e *flow.Event) {
	if c.Closed() {
		return
	}
	// A side that repeats itself says nothing new: it has not seen what came since.
	if x := d.trying.Peek(deadSide{c.Ref(), e.Side}); x != nil && c.Packets(e.Side) == x.heard+1 && c.Acked(e.Side.Other()) == x.acked {
		x.heard++
	}
	// Only a time-out tells that nothing at all came back. A FIN alone is no data; what is sent to a side that has
	// closed may meet nobody.
	o := e.Side.Other()
	k := deadSide{c.Ref(), o}
	// After two acknowledgements of the same, what is repeated upon a time-out looks like a fast repetition.
	x := d.trying.Peek(k)
	echoed := x != nil && x.repeats > 0 && x.echoed(c, o) && c.Packets(e.Side) == x.sent+1
	late := e.Class == flow.Fast && (echoed || e.At.Sub(c.Heard(o)) >= measure.ShortestTimeout)
	if e.Class != flow.RTO && e.Class != flow.Unaccepted && !late || e.Len == 0 || c.Closing(o) {
		return
	}
	// What was never seen to fit the path may be too large for it: that is loss by size.
	if e.IPLen > flow.SmallSize && c.Acked(e.Side) < sizeProof*uint64(e.Len) {
		return
	}
	d.inVain(c, e, o, e.Since, echoed, late)
}

// inVain counts what was sent to side o, first at a time, and asked for an acknowledgement: a repetition, or a probe. echoed: it drew
// what came before. late: there had been acknowledgements of the same.
func (d *deadConnection) inVain(c *flow.Conn, e *flow.Event, o flow.Side, first capture.Instant, echoed, late bool) {
	x := d.trying.Get(deadSide{c.Ref(), o})
	if x == nil {
		return
	}
	if echoed {
		x.echoes++ // nothing else was sent that could have drawn it
		x.heard++
	}
	if x.repeats == 0 || c.Packets(o) != x.heard {
		*x = deadTry{since: max(first, c.Heard(o)), heard: c.Packets(o), acked: c.Acked(e.Side),
			early: e.Kind != flow.Probe && c.SynSeen() && c.Acked(e.Side) == 0 && c.Bytes(o) == 0, unheard: c.OneWay(), begun: !c.SynSeen()}
		x.last, x.late, x.began = first, late, x.since
		if x.begun && c.Packets(e.Side) <= 2 {
			// Its side had said nothing else in this capture: it may be a repetition itself. Time-outs double
			// (RFC 6298 §5.5), so that those before took together as long as this one.
			x.began = x.since.Add(-e.At.Sub(first))
		}
		x.frames[0] = e.Frame
		if end, idle := c.Idle(); end != 0 && end <= first && first.Sub(end) < analyze.WindowLength {
			x.idle = idle
		}
	}
	x.repeats++
	switch {
	case e.Kind == flow.Probe:
		x.probes++
	case x.size == 0 || int(e.IPLen) < x.size:
		x.size = int(e.IPLen)
	}
	x.sent = c.Packets(e.Side)
	x.pause = max(x.pause, e.At.Sub(x.last))
	x.last, x.frames[1] = e.At, e.Frame
}

// echoed reports whether the only packet of o since the newest repetition acknowledges no more than before: what is repeated
// has reached its host, which does not take it.
func (x *deadTry) echoed(c *flow.Conn, o flow.Side) bool {
	return c.Packets(o) == x.heard+1 && c.Acked(o.Other()) == x.acked && c.LastData(o) <= x.since
}

// discarded reports whether the repetitions reach the other host in vain.
func (x *deadTry) discarded() bool { return 2*x.echoes >= x.repeats && x.echoes > 1 }

// sizeProof is how many times the length of a segment must have been acknowledged on its connection to say that
// segments of this length get through.
const sizeProof = 4

func (d *deadConnection) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	minSilent, minRepeats, minPause := w.Params.Duration("min_silent"), uint32(w.Params.Int("min_repeats")), w.Params.Duration("min_pause")
	d.trying.Each(func(s deadSide, x *deadTry) bool {
		c := w.Flows.Lookup(s.ref)
		if c == nil {
			return false
		}
		echo := x.probes == 0 && x.echoed(c, s.silent)
		answered := c.Packets(s.silent) != x.heard && !echo
		vain := !answered && (!x.late && !echo || x.discarded())
		often := x.repeats >= minRepeats || x.begun && x.pause >= minPause
		if vain && often && x.last.Sub(x.since) >= minSilent && (!x.unheard || heardElse(w, c, s.silent, x.since)) {
			d.bury(c, s, x)
		}
		if !answered && x.unheard && c.Closed() {
			d.unheard++
		}
		return !answered && !c.Closed() && w.End.Sub(x.last) < deadLinger
	})
	d.survived.Each(func(_ measure.CallKey, s *survivor) bool { return w.End.Sub(s.at) < measure.IdleState })
	if len(d.groups.Keys) == 0 {
		return
	}
	d.lookAround(w)
	d.groups.Each(func(k deadKey, g *deadGroup) bool {
		f, onset, evidence := d.measure(w, k, g)
		if f.Connections == 0 {
			return false
		}
		if g.over(w.End) {
			return true
		}
		emit(analyze.Symptom{Subject: k.subject(), Onset: onset, Features: f, Evidence: evidence})
		return true
	})
}

// heardElse reports whether the host of side s was heard on another connection between the same hosts since a time: then
// the capture shows that direction, and a side that was never seen has said nothing.
func heardElse(w *analyze.Window, c *flow.Conn, s flow.Side, since capture.Instant) bool {
	p := w.Flows.Path(c)
	if p == nil {
		return false
	}
	i := 0
	if p.B == c.Endpoint(s).Addr {
		i = 1
	}
	return p.Heard[i] > since
}

func (d *deadConnection) Assess(w *analyze.Window) analyze.Assessment {
	n := d.checked
	w.Flows.Live(func(c *flow.Conn) {
		if !c.Closed() && c.Acked(flow.Client)+c.Acked(flow.Server) > 0 {
			n++
		}
	})
	f := DeadConnection{Class: deadGone, Checked: n, Unheard: d.unheard}
	for _, x := range d.trying.All {
		if x.unheard {
			f.Unheard++
		}
	}
	return analyze.Assessment{Assessable: n > 0 || f.Unheard > 0, Features: f}
}
