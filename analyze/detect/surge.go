package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// Surge are the features of surge. Rates per second, times in seconds.
type Surge struct {
	SYNs          int     `json:"syns"`
	TotalSYNs     int     `json:"total_syns"`
	Share         float64 `json:"share"`
	ShareBefore   float64 `json:"share_before"`
	Rate          float64 `json:"rate"`
	RateBefore    float64 `json:"rate_before"`
	RateNext      float64 `json:"rate_next"`
	Baseline      float64 `json:"baseline"`
	Sources       int     `json:"sources"`
	SourcesBefore int     `json:"sources_before"`
	HalfOpen      int     `json:"half_open"`
	Unanswered    int     `json:"unanswered"`
	OthersFailed  float64 `json:"others_failed"`
	FailedBefore  float64 `json:"failed_before"`
	Class         string  `json:"class"`
	// Sampled says that sockets and counters told it, not packets: rates are those of the first seconds, RateBefore is that of all
	// sources, and Unanswered what was turned away in those seconds.
	Sampled bool `json:"sampled"`
}

// The classes of surge.
const (
	classSingle = "single"
	classSpread = "spread"
)

// surge compares, per listener, how many new connections are asked for with how many were before, in
// all and by source. Repeated SYNs are not new requests: they are an effect of the surge, or of
// something else.
type surge struct {
	states  services[demandState]
	sockets surgeSockets
	best    Surge // the busiest source seen, for the assessment
	syns    int
}

type demandState struct {
	// Of this window:
	curSYN  uint32
	curFail uint32

	sources subjects[capture.Addr, sourceState]
	half    uint32 // handshakes not completed by their source, since the onset
	ignored uint32 // SYNs left without an answer, since the onset
	rate    rates
	failed  [seriesLen]uint32 // attempts that failed, by window, the newest last
}

// firstSYN is a connection request; it becomes evidence when it is needed.
type firstSYN struct {
	at     capture.Instant
	client capture.Endpoint
	frame  uint64
}

func (f *firstSYN) evidence(server capture.Endpoint) analyze.Evidence {
	e := analyze.Evidence{At: f.at, Flow: f.client.String() + " > " + server.String(), Note: "new connection"}
	if f.frame != 0 {
		e.Frames = []uint64{f.frame}
	}
	return e
}

// sourceState is one source of requests to one listener.
type sourceState struct {
	cur    uint32                // of this window
	recent [sourceWindows]uint16 // by window, the newest last
	before uint32                // requests until the onset, while there is none: all
	since  uint32
	failed uint32 // since the onset
	idle   int    // windows without a request
	note   firstSYN
}

const (
	// sourceWindows is how far back requests are remembered by source. A surge that matters is
	// found within two or three windows.
	sourceWindows = 16
	// maxSources bounds the sources that are told apart per listener; a flood with forged
	// addresses has more, and is spread by nature.
	maxSources = 2048
	// maxListeners bounds the listeners.
	maxListeners = 512
	// failuresLook is over how many windows before the onset failures are counted: as long as
	// the patience of clients that come back after a time-out (3 to 10 s).
	failuresLook = 10
	// forgetSource is after how many windows without a request a source is dropped.
	forgetSource = 60
)

func newSurge() analyze.Detector {
	return &surge{states: newServices[demandState](maxListeners), sockets: newSurgeSockets()}
}

func (d *surge) Spec() analyze.Spec {
	return analyze.Spec{Rule: "surge", Features: Surge{},
		Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.SynAckRepeat, flow.Refused, flow.Abandoned)}
}

func (d *surge) Event(e *flow.Event) {
	c := e.Conn
	var st *demandState
	if e.Kind == flow.SynSent {
		st = d.states.get(c)
	} else {
		st = d.states.peek(c)
	}
	if st == nil {
		return
	}
	if st.sources.m == nil {
		st.sources = newSubjects[capture.Addr, sourceState](maxSources)
	}
	fail := false
	switch e.Kind {
	case flow.SynSent:
		d.syns++
		st.curSYN++
		if src := st.sources.get(c.Client.Addr); src != nil {
			if src.cur++; src.cur == 1 {
				src.note = firstSYN{e.At, c.Client, e.Frame}
			}
		}
	case flow.SynRepeat:
		fail = e.N == 1 && !c.SynAnswered()
		if fail {
			st.ignored++
		}
	case flow.SynAckRepeat:
		// A listener with a full accept queue repeats its SYN-ACK although the client has completed
		// the handshake; only when it has not, the connection is half open.
		if e.N == 1 && c.Established() == 0 {
			st.half++
		}
	case flow.Refused:
		fail = true
	case flow.Abandoned:
		fail = e.Dur >= flow.GiveUp && c.SynTries() == 0 // else it is counted already
	}
	if fail {
		st.curFail++
		if src := st.sources.peek(c.Client.Addr); src != nil {
			src.failed++
		}
	}
}

// Sample takes what speaks when no packets are captured.
func (d *surge) Sample(at capture.Instant, s *capture.Sample) { d.sockets.sample(at, s) }

func (d *surge) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !w.Have.Has(analyze.Packets) {
		d.sockets.judge(w, emit) // packets tell more
	}
	d.states.each(func(k capture.Endpoint, st *demandState) bool {
		began := st.rate.seen - st.rate.windows()
		if !st.rate.locked {
			began = -1
		}
		st.rate.roll(st.curSYN, w.End)
		copy(st.failed[:], st.failed[1:])
		st.failed[seriesLen-1] = st.curFail
		st.curSYN, st.curFail = 0, 0
		st.rollSources(st.rate.locked && st.rate.seen-st.rate.windows() != began)
		if st.rate.quiet > int(idleState/analyze.WindowLength) {
			return false
		}
		f, busiest := st.measure(w)
		if f.SYNs > d.best.SYNs && f.Rate > 0 {
			d.best = f
			d.best.TotalSYNs = max(f.TotalSYNs, f.SYNs)
		}
		if !st.rate.locked {
			st.half, st.ignored = 0, 0
			return true
		}
		if st.rate.low >= over || !st.rate.found() || w.Local.Is(busiest) && !w.Local.Is(k.Addr) {
			return true // over, too young to tell, or this host is the one who asks
		}
		s := analyze.Subject{Kind: analyze.SubjectService, Host: k.Addr.String(), Port: k.Port}
		var evidence []analyze.Evidence
		if f.Class == classSingle {
			s.Kind, s.Peer = analyze.SubjectSource, busiest.String()
			evidence = append(evidence, st.sources.peek(busiest).note.evidence(k))
		} else {
			for i := 0; i < len(st.sources.keys) && len(evidence) < analyze.MaxEvidence; i++ {
				if x := st.sources.m[st.sources.keys[i]]; x.since > 0 && x.note.at >= st.rate.onset {
					evidence = append(evidence, x.note.evidence(k))
				}
			}
		}
		emit(analyze.Symptom{Subject: s, Onset: st.rate.onset, Features: f, Evidence: evidence})
		return true
	})
}

func (d *surge) Assess(w *analyze.Window) analyze.Assessment {
	f := d.best
	if f.Class == "" {
		f.Class = classSingle
	}
	f.TotalSYNs = d.syns
	f.Baseline = w.End.Sub(w.First).Seconds()
	return analyze.Assessment{Assessable: d.syns >= 10 && f.Baseline >= w.Params.Float("min_baseline"), Features: f}
}
