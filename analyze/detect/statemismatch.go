package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// StateMismatch are the features of state-mismatch. Times in seconds.
type StateMismatch struct {
	Class    string  `json:"class"`
	Failed   int     `json:"failed"`
	Attempts int     `json:"attempts"`
	Share    float64 `json:"share"`
	Clients  int     `json:"clients"`
	Answers  int     `json:"answers"`
	From     string  `json:"from"`
	Rounds   int     `json:"rounds"`
	Lasting  float64 `json:"lasting"`
	Checked  int     `json:"checked"`
}

// The classes of state-mismatch.
const (
	mismatchOld       = "old"
	mismatchElsewhere = "elsewhere"
	mismatchLoop      = "loop"
	mismatchEcho      = "echo"
	mismatchAstray    = "astray"
)

// stateMismatch follows connections about which the two ends, or a box between, do not agree: a SYN that meets an older
// connection on the same ports, a SYN-ACK, or data, that comes from another address than asked, a reset that its
// receiver does not believe and answers, or acknowledgements that both sides answer, again and again.
type stateMismatch struct {
	states  measure.Services[mismatchState]
	checked int // connections that were opened
}

type mismatchState struct {
	requests stat.Series                            // bad: those that failed; total: connection requests
	made     measure.Subjects[capture.Addr, uint32] // by client, since a time at which none had failed for long
	madeFrom capture.Instant
	astray   measure.Subjects[flow.Ref, strayRequest]
	loops    measure.Subjects[flow.Ref, resetLoop]
	torn     measure.Subjects[flow.Ref, strayRequest] // open connections whose data came from elsewhere
	lastAt   capture.Instant
}

// strayRequest is a connection request that got an answer which is none.
type strayRequest struct {
	at      capture.Instant // its SYN
	last    capture.Instant // newest such answer
	class   string
	client  capture.Endpoint
	answers uint32
	from    capture.Endpoint
	frame   uint64
	failed  bool
}

type resetLoop struct {
	since, last    capture.Instant
	vain           capture.Instant // since when nothing of the side that is reset was taken any more
	rounds         uint32
	acks           bool // no resets: acknowledgements
	client, server capture.Endpoint
	frame          uint64
}

// maxStray bounds the requests, and the loops, that one service remembers one by one.
const maxStray = 512

func newStateMismatch() analyze.Detector {
	return &stateMismatch{states: measure.NewServices[mismatchState](measure.MaxPerDetector)}
}

func (d *stateMismatch) Spec() analyze.Spec {
	return analyze.Spec{Rule: "state-mismatch", Features: StateMismatch{},
		Events: flow.Of(flow.SynSent, flow.SynAckSent, flow.Refused, flow.SynChallenged, flow.SynAckElsewhere, flow.ResetLoop, flow.AckLoop,
			flow.DataElsewhere)}
}

func (d *stateMismatch) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	switch e.Kind {
	case flow.SynSent:
		if st := d.states.Get(c); st != nil {
			st.requests.Add(0, 1, 0)
			st.lastAt = e.At
			if st.made.M == nil {
				st.made, st.madeFrom = measure.NewSubjects[capture.Addr, uint32](maxStray), e.At
			}
			if n := st.made.Get(c.Client.Addr); n != nil {
				*n++
			}
		}
		return
	case flow.SynAckSent, flow.Refused:
		if e.Kind == flow.SynAckSent {
			d.checked++
		}
		if st := d.states.Peek(c); st != nil && st.astray.M != nil {
			st.astray.Drop(c.Ref()) // it was opened after all, or refused as any other
		}
		return
	}
	st := d.states.Get(c)
	if st == nil {
		return
	}
	st.lastAt = e.At
	if st.astray.M == nil {
		st.astray, st.loops = measure.NewSubjects[flow.Ref, strayRequest](maxStray), measure.NewSubjects[flow.Ref, resetLoop](maxStray)
		st.torn = measure.NewSubjects[flow.Ref, strayRequest](maxStray)
	}
	switch e.Kind {
	case flow.DataElsewhere:
		if x := st.torn.Get(c.Ref()); x != nil && x.answers == 0 {
			*x = strayRequest{at: e.At, class: mismatchAstray, client: c.Client, from: e.From, frame: e.Frame, answers: 1}
			st.requests.Add(1, 0, e.At)
		}
		return
	case flow.ResetLoop, flow.AckLoop:
		if l := st.loops.Get(c.Ref()); l != nil {
			*l = resetLoop{since: e.Since, vain: e.Since, last: e.At, rounds: e.N, acks: e.Kind == flow.AckLoop, client: c.Client, server: c.Server, frame: e.Frame}
			if o := e.Side.Other(); !l.acks && c.Unacked(o) {
				l.vain = min(l.vain, c.LastData(o)) // its peer had lost the connection by then
			}
		}
		return
	}
	x := st.astray.Get(c.Ref())
	if x == nil {
		return
	}
	if x.answers == 0 {
		*x = strayRequest{at: c.SynAt(), class: mismatchOld, client: c.Client, frame: e.Frame}
		if e.Kind == flow.SynAckElsewhere {
			x.class, x.from = mismatchElsewhere, e.From
		}
	}
	x.answers++
	x.last = e.At
}

func (d *stateMismatch) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.states.Each(func(k capture.Endpoint, st *mismatchState) bool {
		st.astray.Each(func(ref flow.Ref, x *strayRequest) bool {
			if c := w.Flows.Lookup(ref); c != nil && (c.SynAnswered() || c.IsEstablished()) {
				return false
			}
			// Where a SYN went without such an answer, it is that silence which made the request fail.
			if c := w.Flows.Lookup(ref); !x.failed && w.End.Sub(x.at) >= measure.IgnoredAfter && c != nil && int(x.answers) > c.SynTries() {
				x.failed = true
				st.requests.Add(1, 0, x.at)
			}
			return w.End.Sub(x.last) < stat.SeriesLen*analyze.WindowLength
		})
		st.torn.Each(func(_ flow.Ref, x *strayRequest) bool { return w.End.Sub(x.at) < stat.SeriesLen*analyze.WindowLength })
		st.requests.Roll()
		if st.requests.Since.Bad == 0 && len(st.astray.Keys) == 0 && w.End.Sub(st.madeFrom) >= loopLinger {
			st.made = measure.Subjects[capture.Addr, uint32]{}
		}
		if f, onset, evidence := st.measure(w); f.Class != "" {
			emit(analyze.Symptom{Subject: measure.Service(k), Onset: onset, Features: f, Evidence: evidence, LastTry: st.lastAt, Well: st.well(w, &f)})
		}
		return w.End.Sub(st.lastAt) < measure.IdleState
	})
}

// well is since when no request meets what is older; 0: some do. That one does is known only when it is given up.
func (st *mismatchState) well(w *analyze.Window, f *StateMismatch) (last capture.Instant) {
	if f.Rounds > 0 || st.requests.Well(w.End) == 0 {
		return 0
	}
	for _, x := range st.stray() {
		last = max(last, x.at)
	}
	return last
}

// loopLinger is for how long a loop is told after its newest round that was reported: rounds are reported when they have doubled.
const loopLinger = time.Minute

// measure sums up the worse of the two kinds: a loop, which has no end by itself, before requests that fail.
func (st *mismatchState) measure(w *analyze.Window) (f StateMismatch, onset capture.Instant, evidence []analyze.Evidence) {
	st.loops.Each(func(_ flow.Ref, l *resetLoop) bool {
		if w.End.Sub(l.last) > max(loopLinger, l.last.Sub(l.since)) {
			return false
		}
		f.Class = mismatchLoop
		what := "a RST and its answer, again and again"
		if l.acks {
			f.Class, what = mismatchEcho, "an acknowledgement and one in answer, again and again"
		}
		f.Failed++
		if f.Rounds = max(f.Rounds, int(l.rounds)); onset == 0 || l.vain < onset {
			onset = l.vain
		}
		f.Lasting = max(f.Lasting, l.last.Sub(l.since).Seconds())
		if len(evidence) < analyze.MaxEvidence {
			n := measure.NoteAt(l.since, l.client, l.server, l.frame, what)
			evidence = append(evidence, n.Evidence())
		}
		return true
	})
	if f.Class != "" {
		f.Clients, f.Attempts = f.Failed, f.Failed
		return f, onset, evidence
	}
	s := &st.requests
	if s.Since.Bad == 0 {
		return f, 0, nil
	}
	clients := measure.NewSubjects[capture.Addr, struct{}](maxStray)
	elsewhere, torn := 0, 0
	for _, x := range st.stray() {
		if x.at < s.Onset {
			continue
		}
		f.Failed++
		f.Answers += int(x.answers)
		clients.Get(x.client.Addr)
		f.Lasting = max(f.Lasting, x.last.Sub(x.at).Seconds())
		what := "the SYN is answered by an acknowledgement of something older"
		switch x.class {
		case mismatchElsewhere:
			elsewhere++
			f.From = x.from.String()
			what = "the SYN is answered from " + f.From
		case mismatchAstray:
			torn++
			f.From = x.from.String()
			what = "data comes from " + f.From + ", and is reset"
		}
		if len(evidence) < analyze.MaxEvidence {
			n := measure.NoteAt(x.at, x.client, capture.Endpoint{}, x.frame, what)
			e := n.Evidence()
			e.Flow = x.client.String()
			evidence = append(evidence, e)
		}
	}
	if f.Failed == 0 {
		return f, 0, nil
	}
	f.Class, f.Clients = mismatchOld, len(clients.Keys)
	for _, a := range clients.Keys { // what others ask for says nothing about the ports of these
		if n := st.made.Peek(a); n != nil {
			f.Attempts += int(*n)
		}
	}
	f.Attempts = max(f.Attempts, f.Failed)
	switch {
	case 2*torn > f.Failed:
		f.Class = mismatchAstray
	case 2*elsewhere > f.Failed:
		f.Class = mismatchElsewhere
	}
	f.Share = stat.Ratio(f.Failed, f.Attempts)
	return f, s.Onset, evidence
}

// stray are the requests that failed so, and the connections whose data came from elsewhere.
func (st *mismatchState) stray() (all []*strayRequest) {
	for _, x := range st.astray.All {
		if x.failed {
			all = append(all, x)
		}
	}
	for _, x := range st.torn.All {
		all = append(all, x)
	}
	return all
}

func (d *stateMismatch) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.checked > 0, Features: StateMismatch{Class: mismatchOld, Checked: d.checked}}
}
