package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Nagle are the features of nagle. Times in seconds.
type Nagle struct {
	Class    string  `json:"class"`
	Held     int     `json:"held"`
	Late     int     `json:"late"`
	Share    float64 `json:"share"`
	Flows    int     `json:"flows"`
	Wait     float64 `json:"wait"`
	Longest  float64 `json:"longest"`
	Total    float64 `json:"total"`
	Requests int     `json:"requests"`
	Part     float64 `json:"part"`
	Checked  int     `json:"checked"`
}

// nagle finds senders that hold back the rest of what they have to say until a delayed acknowledgement comes: Nagle's algorithm at one
// end, delayed acknowledgements at the other, and a program that writes one message in two pieces.
type nagle struct {
	states measure.Services[nagleState]
	sum    Nagle // of all listeners
}

type nagleState struct {
	requests int // since the first one that was held
	sides    [2]nagleSide
	asked    capture.Instant // newest request
}

// nagleSide is what the clients of a listener send, or the listener.
type nagleSide struct {
	held, late    int
	wait, longest time.Duration
	conns         measure.Subjects[uint32, struct{}]
	first, last   capture.Instant
	evidence      []analyze.Evidence
	before        int // requests before the first one that was held
}

func newNagle() analyze.Detector {
	return &nagle{states: measure.NewServices[nagleState](measure.MaxPerDetector)}
}

func (d *nagle) Spec() analyze.Spec {
	return analyze.Spec{Rule: "nagle", Features: Nagle{}, Events: flow.Of(flow.LateAck, flow.Request)}
}

func (d *nagle) Event(e *flow.Event) {
	if e.Kind == flow.Request {
		d.sum.Requests++
		if st := d.states.Peek(e.Conn); st != nil {
			st.requests++
			st.asked = e.At
		}
		return
	}
	d.sum.Late++
	st := d.states.Get(e.Conn)
	if st == nil {
		return
	}
	x := &st.sides[e.Side]
	if x.late++; !e.AtOnce() {
		return
	}
	d.sum.Held++
	if x.held++; x.held == 1 {
		x.conns, x.first, x.before = measure.NewSubjects[uint32, struct{}](maxReceiverConns), e.Since, st.requests-1
	}
	x.last = e.At
	x.wait += e.Dur
	x.longest = max(x.longest, e.Dur)
	x.conns.Get(e.Conn.Stream)
	if len(x.evidence) < analyze.MaxEvidence {
		x.evidence = append(x.evidence, analyze.Evidence{At: e.At, Flow: e.Conn.String(), Frames: []uint64{e.Frame},
			Note: "sent as soon as the delayed acknowledgement had come"})
	}
}

func (d *nagle) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.states.Each(func(k capture.Endpoint, st *nagleState) bool {
		worst, class := &st.sides[flow.Server], "server"
		if c := &st.sides[flow.Client]; c.held > worst.held {
			worst, class = c, "client"
		}
		if worst.held == 0 {
			return st.sides[0].late+st.sides[1].late < measure.MaxFails // it does not wait: counted anew from time to time
		}
		if w.End.Sub(worst.last) > measure.IdleState {
			return false
		}
		f := Nagle{Class: class, Held: worst.held, Late: worst.late, Share: stat.Ratio(worst.held, worst.late), Flows: len(worst.conns.Keys),
			Wait: worst.wait.Seconds() / float64(worst.held), Longest: worst.longest.Seconds(), Total: worst.wait.Seconds(),
			Requests: max(st.requests-worst.before, worst.held)}
		f.Part = stat.Ratio(f.Held, f.Requests)
		well := worst.last
		if st.asked <= well || !stat.Ceased(f.Held, well.Sub(worst.first), w.End.Sub(well)) {
			well = 0
		}
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: worst.first, Features: f, Evidence: worst.evidence,
			Filter: measure.ServiceFilter(k), LastTry: max(st.asked, worst.last), Well: well})
		return true
	})
}

func (d *nagle) Assess(w *analyze.Window) analyze.Assessment {
	f := d.sum
	f.Checked = int(min(w.Flows.Stats.Conns, 1<<31-1))
	return analyze.Assessment{Assessable: f.Checked > 0, Features: f}
}
