package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
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
	NewShare      float64 `json:"new_share"`
	HalfOpen      int     `json:"half_open"`
	HalfOpenShare float64 `json:"half_open_share"`
	HalfOpenRate  float64 `json:"half_open_rate"`
	Answered      int     `json:"answered"`
	More          bool    `json:"more"`
	Unanswered    int     `json:"unanswered"`
	Mute          int     `json:"mute"`
	OthersFailed  float64 `json:"others_failed"`
	FailedBefore  float64 `json:"failed_before"`
	AskedBefore   float64 `json:"asked_before"`
	Class         string  `json:"class"`
	// Sampled says that sockets and counters told it, not packets: rates are those of the first seconds, RateBefore is that of all
	// sources, and Unanswered what was turned away in those seconds.
	Sampled bool `json:"sampled"`
}

// The classes of surge.
const (
	classSingle = "single"
	classSpread = "spread"
	// classHalfOpen: the handshakes are not completed, by one source or by many; no demand, but a flood.
	classHalfOpen = "half-open"
)

// surge compares, per listener, how many new connections are asked for with how many were before, in
// all and by source. Repeated SYNs are not new requests: they are an effect of the surge, or of
// something else.
type surge struct {
	states  measure.Services[demandState]
	sockets surgeSockets
	unended measure.Unended
	best    Surge // the busiest source seen, for the assessment
	syns    int
	left    int // handshakes that were left open
}

type demandState struct {
	// Of this window:
	curSYN  uint32
	curFail uint32

	sources measure.Subjects[capture.Addr, sourceState]
	open    leftOpen
	ignored uint32 // SYNs left without an answer, since the onset
	rate    stat.Rates
	failed  [stat.SeriesLen]uint32 // attempts that failed, by window, the newest last
	curAsk  uint32
	asked   [stat.SeriesLen]uint32 // requests, on whatever connections
}

// sourceState is one source of requests to one listener.
type sourceState struct {
	cur    uint32                // of this window
	recent [sourceWindows]uint16 // by window, the newest last
	before uint32                // requests until the onset, while there is none: all
	since  uint32
	failed uint32 // since the onset
	idle   int    // windows without a request
	opened uint32 // handshakes that it completed, and
	spoke  bool   // it sent data on any, both since it was first seen
	known  bool   // was there before the onset, be it on connections that it had opened long ago
	note   measure.Note
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
	return &surge{states: measure.NewServices[demandState](maxListeners), sockets: newSurgeSockets()}
}

func (d *surge) Spec() analyze.Spec {
	return analyze.Spec{Rule: "surge", Features: Surge{},
		Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.Established, flow.Request, flow.Refused, flow.Abandoned)}
}

func (d *surge) Event(e *flow.Event) {
	d.unended.Event(e)
	c := e.Conn
	var st *demandState
	switch e.Kind {
	case flow.SynSent:
		st = d.states.Get(c)
	default:
		st = d.states.Peek(c)
	}
	if e.Kind == flow.SynSent {
		d.syns++
	}
	if st == nil {
		return
	}
	if st.sources.M == nil {
		st.sources = measure.NewSubjects[capture.Addr, sourceState](maxSources)
	}
	fail := false
	switch e.Kind {
	case flow.SynSent:
		st.curSYN++
		if src := st.sources.Get(c.Client.Addr); src != nil {
			if src.cur++; src.cur == 1 {
				src.note = measure.NoteOf(e, "new connection")
			}
		}
	case flow.Established:
		if src := st.sources.Peek(c.Client.Addr); src != nil {
			src.opened++
		}
	case flow.Request:
		st.curAsk++
		if src := st.sources.Peek(c.Client.Addr); src != nil {
			src.spoke = true
		}
	case flow.SynRepeat:
		fail = e.N == 1 && !c.SynAnswered()
		if fail {
			st.ignored++
		}
	case flow.Refused:
		// A listener that is closed has no demand to bear: whoever is refused comes again at once.
		st.curSYN -= min(st.curSYN, 1)
		if src := st.sources.Peek(c.Client.Addr); src != nil {
			src.cur -= min(src.cur, 1)
		}
	case flow.Abandoned:
		fail = e.Dur >= flow.GiveUp && c.SynTries() == 0 // else it is counted already
	}
	if fail {
		st.curFail++
		// Who fails on a connection from before the rise, or before the capture, is a source that was there before.
		if src := st.sources.Get(c.Client.Addr); src != nil {
			src.failed++
			src.known = src.known || c.First < st.rate.Onset || !st.rate.Locked
		}
	}
}

// Measures implements analyze.Measurer.
func (d *surge) Measures() []analyze.Measure { return d.sockets.Measures() }

// Sample takes what speaks when no packets are captured.
func (d *surge) Sample(at capture.Instant, s *capture.Sample) { d.sockets.sample(at, s) }

func (d *surge) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !w.Have.Has(analyze.Packets) {
		d.sockets.judge(w, emit) // packets tell more
	}
	d.unended.Judge(w, func(c *flow.Conn, answered bool) {
		if st := d.states.Peek(c); st != nil {
			st.open.add(c, answered)
		}
		if answered {
			d.left++
		}
	})
	crowded := d.states.Len() > maxListeners*3/4 // by a scan: its ports make room
	d.states.Each(func(k capture.Endpoint, st *demandState) bool {
		began := st.rate.Seen - st.rate.Windows()
		if !st.rate.Locked {
			began = -1
		}
		if st.rate.Seen == 0 && w.Local.Is(k.Addr) {
			// Where the host listens at another address, nobody has asked at this one since.
			for idle := min(d.known(w, k, st), stat.SeriesLen/2); idle > 0; idle-- {
				st.rate.Roll(0, w.End.Add(-time.Duration(idle)*analyze.WindowLength))
			}
		}
		st.rate.Roll(st.curSYN, w.End)
		copy(st.failed[:], st.failed[1:])
		st.failed[stat.SeriesLen-1] = st.curFail
		copy(st.asked[:], st.asked[1:])
		st.asked[stat.SeriesLen-1] = st.curAsk
		st.open.roll(&st.rate)
		st.curSYN, st.curFail, st.curAsk = 0, 0, 0
		st.rollSources(st.rate.Locked && st.rate.Seen-st.rate.Windows() != began)
		if st.rate.Quiet > int(measure.IdleState/analyze.WindowLength) || crowded && st.rate.Quiet > 0 && st.rate.Total() < stat.MinRate {
			return false
		}
		f, busiest := st.measure(w)
		if f.SYNs > d.best.SYNs {
			d.best = f
			d.best.TotalSYNs = max(f.TotalSYNs, f.SYNs)
		}
		if st.flood(w, k, emit) {
			return true
		}
		if !st.rate.Locked {
			st.ignored = 0
			return true
		}
		if st.rate.Low >= stat.Over || !st.rate.Found() || w.Local.Is(busiest) && !w.Local.Is(k.Addr) {
			return true // over, too young to tell, or this host is the one who asks
		}
		s := measure.Service(k)
		var evidence []analyze.Evidence
		if f.Class == classSingle {
			s.Kind, s.Peer = analyze.SubjectSource, busiest.String()
			evidence = append(evidence, st.sources.Peek(busiest).note.Evidence())
		} else {
			for i := 0; i < len(st.sources.Keys) && len(evidence) < analyze.MaxEvidence; i++ {
				if x := st.sources.M[st.sources.Keys[i]]; x.since > 0 && x.note.At >= st.rate.Onset {
					evidence = append(evidence, x.note.Evidence())
				}
			}
		}
		emit(analyze.Symptom{Subject: s, Onset: st.rate.Onset, Features: f, Evidence: evidence})
		return true
	})
}

// known is for how many windows before this one a port of this host has been asked for at another of its addresses. Clients that move from
// one address to another are no news: then it is 0.
func (d *surge) known(w *analyze.Window, k capture.Endpoint, st *demandState) (windows int) {
	for other, o := range d.states.All {
		if other.Port != k.Port || other == k || !w.Local.Is(other.Addr) {
			continue
		}
		for _, a := range st.sources.Keys {
			if o.sources.Peek(a) != nil {
				return 0
			}
		}
		windows = max(windows, o.rate.Seen-1)
	}
	return windows
}

func (d *surge) Assess(w *analyze.Window) analyze.Assessment {
	f := d.best
	if f.Class == "" {
		f.Class = classSingle
	}
	f.TotalSYNs, f.HalfOpen, f.HalfOpenShare = d.syns, d.left, stat.Ratio(d.left, d.syns)
	f.Baseline = w.End.Sub(w.First).Seconds()
	return analyze.Assessment{Assessable: d.syns >= 10 && f.Baseline >= w.Params.Float("min_baseline"), Features: f}
}

// leftOpen follows the handshakes that a listener's clients do not complete.
type leftOpen struct {
	series   stat.Series // bad: left open; total: connection requests
	cur      uint32      // left open, as found in this window
	answered uint32      // since the onset; the others got no answer and did not ask again
	first    capture.Instant
	last     capture.Instant                        // newest of them
	clients  measure.Subjects[capture.Addr, uint32] // of them, since the onset
	evidence []measure.Note
}

// maxOpeners bounds the clients that are told apart.
const maxOpeners = 2048

func (o *leftOpen) add(c *flow.Conn, answered bool) {
	if answered {
		o.answered++
	}
	o.last = max(o.last, c.SynAt())
	if o.cur++; o.first == 0 || c.SynAt() < o.first {
		o.first = c.SynAt()
	}
	if o.clients.M == nil {
		o.clients = measure.NewSubjects[capture.Addr, uint32](maxOpeners)
	}
	if n := o.clients.Get(c.Client.Addr); n != nil {
		*n++
	}
	if len(o.evidence) < analyze.MaxEvidence {
		o.evidence = append(o.evidence, measure.FirstSYN(c))
	}
}

// roll ends the window. What is found to be left open now was asked for ignoredAfter ago: it is held against the requests of then.
func (o *leftOpen) roll(asked *stat.Rates) {
	o.series.Add(o.cur, max(asked.Back(int(measure.IgnoredAfter/analyze.WindowLength)), o.cur), o.first)
	o.cur, o.first = 0, 0
	o.series.Roll()
	if o.series.Since.Bad == 0 {
		o.clients, o.evidence, o.answered = measure.Subjects[capture.Addr, uint32]{}, nil, 0
	}
}

// flood emits the symptom of a flood of handshakes that are left open, if there is one.
func (st *demandState) flood(w *analyze.Window, k capture.Endpoint, emit func(analyze.Symptom)) bool {
	o := &st.open
	s := &o.series
	if s.Since.Bad == 0 || s.Over() {
		return false
	}
	f := Surge{Class: classHalfOpen, HalfOpen: int(s.Since.Bad), TotalSYNs: int(s.Since.Total), HalfOpenShare: s.Since.Share(),
		HalfOpenRate: float64(s.Since.Bad) / max(o.last.Sub(s.Onset), analyze.WindowLength).Seconds(),
		Baseline:     max(s.BeforeSpan-measure.IgnoredAfter.Seconds(), 0), Sources: len(o.clients.Keys), More: o.clients.Refused > 0,
		Answered: int(min(o.answered, s.Since.Bad))}
	f.Rate = f.HalfOpenRate / f.HalfOpenShare
	if s.BeforeSpan > 0 {
		f.RateBefore = float64(s.Before.Total) / s.BeforeSpan
	}
	if f.HalfOpen < w.Params.Int("min_half_open") || f.Answered < w.Params.Int("min_answered") || f.HalfOpenShare < w.Params.Float("min_half_open_share") || f.HalfOpenRate < w.Params.Float("min_half_open_rate") {
		return false
	}
	var busiest capture.Addr
	for a, n := range o.clients.All {
		if int(*n) > f.SYNs {
			f.SYNs, busiest = int(*n), a
		}
	}
	f.Share = stat.Ratio(f.SYNs, f.HalfOpen)
	if w.Local.Is(busiest) && !w.Local.Is(k.Addr) {
		return false // it is this host that does not complete them
	}
	for i := range min(int(w.End.Sub(s.Onset)/analyze.WindowLength)+1, stat.SeriesLen) {
		f.Unanswered += int(st.failed[stat.SeriesLen-1-i])
	}
	f.OthersFailed = min(stat.Ratio(f.Unanswered, max(f.TotalSYNs-f.HalfOpen, f.Unanswered)), 1)
	subject := measure.Service(k)
	if f.Share >= w.Params.Float("min_share") {
		subject.Kind, subject.Peer = analyze.SubjectSource, busiest.String()
	}
	var evidence []analyze.Evidence
	for i := range o.evidence {
		if e := &o.evidence[i]; e.At >= s.Onset {
			evidence = append(evidence, e.Evidence())
		}
	}
	emit(analyze.Symptom{Subject: subject, Onset: s.Onset, Features: f, Evidence: evidence})
	return true
}
