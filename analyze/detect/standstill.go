package detect

import (
	"fmt"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/rules"
)

// Standstill are the features of standstill. Times in seconds.
type Standstill struct {
	Connections int     `json:"connections"`
	Still       int     `json:"still"`
	LongStill   float64 `json:"long_still"`
	Unanswered  int     `json:"unanswered"`
	LongWait    float64 `json:"long_wait"`
	Late        int     `json:"late"`
	LongLate    float64 `json:"long_late"`
	Shut        int     `json:"shut"`
	LongShut    float64 `json:"long_shut"`
}

// standstill notes connections that fared ill one by one, whatever the other rules make of them: that stood still with data
// outstanding, were never answered or only at a late repetition of their SYN, or closed their window for long. No input in which
// one did is healthy without a remark.
type standstill struct {
	scanners *scanners // whose attempts do not count; nil: nobody's
	requests requests
	still    subjects[stillSide, stillData]
	shut     subjects[stillSide, shutWindow]
	sum      Standstill
	some     bool // onset and newest are valid
	onset    capture.Instant
	newest   capture.Instant
	evidence []analyze.Evidence

	minStill, minShut time.Duration
}

// stillSide is who sends the data that stands still, or who has closed its window.
type stillSide struct {
	ref  flow.Ref
	side flow.Side
}

type stillData struct {
	since capture.Instant
	acked uint64
	frame uint64
	name  string
	told  bool
}

type shutWindow struct {
	since capture.Instant
	name  string
	told  bool
}

func newStandstill() analyze.Detector {
	d := &standstill{still: newSubjects[stillSide, stillData](maxTrying), shut: newSubjects[stillSide, shutWindow](maxTrying)}
	d.requests = newRequests(d.outcome)
	return d
}

func (d *standstill) Configure(p rules.Params) {
	d.minStill, d.minShut = p.Duration("min_still"), p.Duration("min_shut")
}

func (d *standstill) Spec() analyze.Spec {
	return analyze.Spec{Rule: "standstill", Features: Standstill{},
		Events: requestEvents | flow.Of(flow.Retransmit, flow.Recovered, flow.ZeroWindow, flow.ZeroWindowEnd)}
}

func (d *standstill) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	d.requests.event(e)
	k := stillSide{c.Ref(), e.Side}
	switch e.Kind {
	case flow.Retransmit:
		if e.Class == flow.Spurious || e.Class == flow.ClosedWindow || e.Len == 0 || c.Closed() || c.OneWay() {
			return
		}
		x := d.still.get(k)
		switch acked := c.Acked(e.Side); {
		case x == nil:
			return
		case x.since == 0:
			*x = stillData{since: e.Since, acked: acked, frame: e.Frame, name: c.String()}
		case acked > x.acked: // the one before was told at the end of the last window, or was short
			d.stood(x, c.Heard(e.Side.Other()))
			*x = stillData{since: max(e.Since, c.Heard(e.Side.Other())), acked: acked, frame: e.Frame, name: x.name}
		}
	case flow.Recovered:
		if x := d.still.peek(k); x != nil && x.since != 0 {
			d.stood(x, e.At)
			*x = stillData{}
		}
	case flow.ZeroWindow:
		if x := d.shut.get(k); x != nil {
			*x = shutWindow{since: e.At, name: c.String()}
		}
	case flow.ZeroWindowEnd:
		if x := d.shut.peek(k); x != nil && x.since != 0 {
			d.closed(x, e.At)
			*x = shutWindow{}
		}
	}
}

// stood notes that x stands still at at.
func (d *standstill) stood(x *stillData, at capture.Instant) {
	dur := at.Sub(x.since)
	if dur < d.minStill {
		return
	}
	d.sum.LongStill = max(d.sum.LongStill, dur.Seconds())
	d.touch(at)
	if !x.told {
		x.told = true
		d.sum.Still++
		d.note(x.since, x.name, x.frame, "stands still: data outstanding, nothing of it is acknowledged")
	}
}

// closed notes that the window x is closed at at.
func (d *standstill) closed(x *shutWindow, at capture.Instant) {
	dur := at.Sub(x.since)
	if dur < d.minShut {
		return
	}
	d.sum.LongShut = max(d.sum.LongShut, dur.Seconds())
	d.touch(at)
	if !x.told {
		x.told = true
		d.sum.Shut++
		d.note(x.since, x.name, 0, "a receive window stays closed")
	}
}

// touch notes that something still goes on at at.
func (d *standstill) touch(at capture.Instant) {
	if !d.some {
		d.some, d.onset, d.newest = true, at, at
	}
	d.newest = max(d.newest, at)
}

func (d *standstill) note(at capture.Instant, name string, frame uint64, what string) {
	d.onset = min(d.onset, at)
	if len(d.evidence) < analyze.MaxEvidence {
		e := analyze.Evidence{At: at, Flow: name, Note: what}
		if frame != 0 {
			e.Frames = []uint64{frame}
		}
		d.evidence = append(d.evidence, e)
	}
}

func (d *standstill) outcome(_ *flow.Conn, o outcome, a *attempt, e *flow.Event) {
	if d.scanners.is(a.key.client) {
		return
	}
	switch o {
	case ignored:
		d.sum.Unanswered++
		d.touch(a.at)
		d.note(a.at, a.evidence(0, "").Flow, a.frame, "a SYN without an answer")
	case answered:
		wait := e.At.Sub(a.at)
		d.sum.Unanswered = max(d.sum.Unanswered-1, 0)
		d.sum.Late++
		d.sum.LongLate = max(d.sum.LongLate, wait.Seconds())
		d.touch(e.At)
		d.note(a.at, a.evidence(0, "").Flow, a.frame, fmt.Sprintf("the SYN was answered after %.0f s", wait.Seconds()))
	}
}

func (d *standstill) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.requests.judge(w)
	d.requests.ignoredOnes(w, func(a *attempt, _ int, wait time.Duration) {
		if !d.scanners.is(a.key.client) {
			d.sum.LongWait = max(d.sum.LongWait, wait.Seconds())
		}
	})
	d.still.each(func(k stillSide, x *stillData) bool {
		c := w.Flows.Lookup(k.ref)
		switch {
		case c == nil || x.since == 0:
			return false
		case c.Acked(k.side) > x.acked:
			d.stood(x, c.Heard(k.side.Other()))
			return false
		}
		d.stood(x, c.Last)
		return !c.Closed()
	})
	d.shut.each(func(k stillSide, x *shutWindow) bool {
		if c := w.Flows.Lookup(k.ref); c == nil || c.Closed() || x.since == 0 {
			return false
		}
		d.closed(x, w.End)
		return true
	})
	if w.Final {
		d.unrepeated(w)
	}
	d.sum.Connections = int(min(w.Flows.Stats.Conns, 1<<31-1))
	if !d.some {
		return
	}
	if w.End.Sub(d.newest) > idleState {
		d.sum, d.some, d.evidence = Standstill{}, false, nil
		return
	}
	emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectCapture}, Onset: d.onset, Features: d.sum, Evidence: d.evidence})
}

// unrepeated notes data that nothing acknowledges to the end, although nobody repeats it in this capture.
func (d *standstill) unrepeated(w *analyze.Window) {
	w.Flows.Live(func(c *flow.Conn) {
		if c.Closed() || c.OneWay() {
			return
		}
		for _, s := range [2]flow.Side{flow.Client, flow.Server} {
			k := stillSide{c.Ref(), s}
			if x := d.still.peek(k); x != nil || d.shut.peek(stillSide{c.Ref(), s.Other()}) != nil || c.Acked(s) >= c.Bytes(s) {
				continue
			}
			x := stillData{since: c.Last, name: c.String()}
			d.stood(&x, w.End)
		}
	})
}

func (d *standstill) Assess(w *analyze.Window) analyze.Assessment {
	f := d.sum
	f.Connections = int(min(w.Flows.Stats.Conns, 1<<31-1))
	return analyze.Assessment{Assessable: f.Connections > 0, Features: f}
}
