package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Retransmission are the features of the rule of that name.
type Retransmission struct {
	Class         string  `json:"class"`
	Segments      int     `json:"segments"`
	Retransmitted int     `json:"retransmitted"`
	Spurious      int     `json:"spurious"`
	Fast          int     `json:"fast"`
	RTO           int     `json:"rto"`
	TailProbe     int     `json:"tail_probe"`
	Share         float64 `json:"share"`
	ShareBefore   float64 `json:"share_before"`
	Baseline      float64 `json:"baseline"`
	Flows         int     `json:"flows"`
	FlowsTotal    int     `json:"flows_total"`
	StalledFlows  int     `json:"stalled_flows"`
	MeanSize      float64 `json:"mean_size"`
	SeenOriginal  float64 `json:"seen_original"`
	Damaged       int     `json:"damaged"`
	Unanswered    int     `json:"unanswered"`
	Needless      bool    `json:"needless"`
	Echoed        int     `json:"echoed"`
	OwnListener   bool    `json:"own_listener"`
	Held          int     `json:"held"`
	Plain         int     `json:"plain"`
	Longest       float64 `json:"longest"`
	Opened        int     `json:"opened"`
	CopyShare     float64 `json:"copy_share"`
	Chance        float64 `json:"chance"`
	Sampled       bool    `json:"sampled"`
	Peers         int     `json:"peers"`
	PeersHit      int     `json:"peers_hit"`
	Prefix        string  `json:"prefix"`
	Mute          int     `json:"mute"`
	Others        int     `json:"others"`
	Part          float64 `json:"part"`
	AllSegments   int     `json:"all_segments"`
	AllResent     int     `json:"all_resent"`
	LateEnds      int     `json:"late_ends"`
	AllEnds       int     `json:"all_ends"`
	Requests      int     `json:"requests"`
	Repeated      int     `json:"repeated"`
}

// retransmission counts, per direction between two hosts, data that had to be sent again, and apart
// from it, per listener, connection requests that had to be repeated.
type retransmission struct {
	*measure.Ways
	syns   measure.Services[synState]
	resent resentSockets
	best   Retransmission
}

// synState is one listener's handshakes.
type synState struct {
	requests stat.Series // bad: connections whose SYN was repeated; total: connections
	answers  stat.Series // the same for SYN-ACKs
	again    measure.Subjects[uint32, synAgain]
	heard    measure.Direction
	more     uint32 // SYNs that asked for ECN or carried data, and were answered
}

type synAgain struct {
	at       capture.Instant
	tries    uint32
	answered bool
	wait     time.Duration // of its client, for the answer
	slow     bool          // the answer came so late that it must have been on its way meanwhile
	saTries  uint32
	damaged  uint32 // repetitions with a wrong checksum
	plain    bool   // it asked for less when it came again
	note     measure.Note
}

// maxAgain bounds the connections with repeated SYNs that one listener remembers.
const maxAgain = 1024

func newRetransmission() analyze.Detector {
	return &retransmission{Ways: measure.NewWays(), syns: measure.NewServices[synState](measure.MaxPerDetector), resent: newResentSockets()}
}

// Measures implements analyze.Measurer.
func (d *retransmission) Measures() []analyze.Measure {
	return append(d.Ways.Measures(), d.resent.Measures()...)
}

// Sample takes the socket tables.
func (d *retransmission) Sample(at capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		d.resent.sample(at)
	}
}

func (d *retransmission) Spec() analyze.Spec {
	return analyze.Spec{Rule: "retransmission", Features: Retransmission{},
		Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.SynAckRepeat, flow.SynAckSent, flow.Established)}
}

func (d *retransmission) Event(e *flow.Event) {
	st := d.syns.Get(e.Conn)
	if st == nil {
		return
	}
	if st.again.M == nil {
		st.again = measure.NewSubjects[uint32, synAgain](maxAgain)
	}
	switch e.Kind {
	case flow.Established:
		st.heard.Event(e)
		if e.Conn.SlowOpening() > 0 {
			if a := st.again.Peek(e.Conn.Stream); a != nil {
				a.slow = true
			}
		}
	case flow.SynSent:
		st.requests.Add(0, 1, 0)
	case flow.SynAckSent:
		st.answers.Add(0, 1, 0)
		st.more += uint32(measure.Count(e.Conn.AskedMore() && e.Conn.SynTries() == 0))
		if e.Conn.SynTries()+e.Conn.SynAckTries() == 0 {
			return // nothing of it came again so far
		}
		if a := st.again.Peek(e.Conn.Stream); a != nil {
			a.answered = true
			a.wait = e.At.Sub(a.at)
		}
	case flow.SynRepeat:
		// A SYN that was answered and comes again means that the answer was lost, or that the
		// listener dropped the handshake's end: the SYN itself arrived here.
		at := e.At.Add(-e.Dur)
		if e.N == 1 {
			st.requests.Add(1, 0, at)
		}
		if e.N == 1 && e.Conn.SynAckTries() > 0 && e.Conn.Established() == 0 {
			st.answers.Add(1, 0, at) // as it turns out, the client did not get them
		}
		a := st.again.Get(e.Conn.Stream)
		if a == nil {
			return
		}
		if a.tries == 0 {
			a.at = at
			a.note = measure.NoteOf(e, "SYN repeated")
		}
		a.plain = e.Plainer()
		a.damaged += uint32(measure.Count(e.Damaged))
		a.tries, a.saTries = e.N, uint32(e.Conn.SynAckTries())
		a.answered = e.Conn.SynAnswered()
	case flow.SynAckRepeat:
		if !wanted(e.Conn) {
			return
		}
		at := e.At.Add(-e.Dur)
		first := e.N == 1 // of those that count
		a := st.again.Get(e.Conn.Stream)
		if a != nil {
			first = a.saTries == 0
			if a.at == 0 {
				a.at = at
				a.note = measure.NoteOf(e, "SYN-ACK repeated")
			}
			a.saTries, a.answered = e.N, true
		}
		if first {
			st.answers.Add(1, 0, at)
		}
	}
}

// wanted reports whether the client of c shows that it wants the connection and waits: it has sent its SYN again, or data. Whoever
// does not go on with the handshake scans, forges addresses or is gone: nothing was lost (a client that does not get the
// SYN-ACK repeats its SYN, RFC 9293 §3.8.1). Whoever has acknowledged the SYN-ACK and says nothing is not waited for either: a
// listener that takes connections with their first data only repeats it meanwhile (tcp(7), TCP_DEFER_ACCEPT).
func wanted(c *flow.Conn) bool {
	return c.SynTries() > 0 || c.IsEstablished() && c.Bytes(flow.Client)+c.Bytes(flow.Server) > 0
}

func (d *retransmission) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !w.Have.Has(analyze.Packets) {
		d.resent.judge(w, emit) // packets tell more
	}
	d.Ways.Roll(w)
	for _, x := range d.Ways.Speaking {
		d.judgeData(w, &x, emit)
	}
	d.syns.Each(func(k capture.Endpoint, st *synState) bool {
		st.requests.Roll()
		st.answers.Roll()
		d.judgeSyn(w, k, st, emit)
		return true
	})
}

// judgeData judges the data segments of one way.
func (d *retransmission) judgeData(w *analyze.Window, x *measure.Speaker, emit func(analyze.Symptom)) {
	k, st := x.K, x.St
	s := &st.Series
	fs := st.FlowStats(k, s.Onset, w.End, measure.StalledAfter)
	lost := x.Lost()
	// What nothing passes any more loses everything: that is no share of anything.
	muted := fs.Muted.Data()
	lost.Bad -= min(muted.Bad, lost.Bad)
	lost.Total -= min(muted.Total, lost.Total-lost.Bad)
	f := Retransmission{Class: "data", Segments: int(lost.Total), Retransmitted: int(lost.Bad),
		ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan, Fast: int(st.Fast), RTO: int(st.Rto), TailProbe: int(st.Tail),
		Flows: fs.Flows, StalledFlows: fs.Stalled, Longest: fs.Longest.Seconds(), Mute: fs.Mute,
		Peers: measure.PeersSince(w, k, s.Onset), PeersHit: len(fs.Ends), Prefix: k.Prefix()}
	f.Spurious = int(st.All.Unneeded())
	f.CopyShare = st.All.CopyShare()
	recent, conns := st.Recent()
	f.FlowsTotal = max(conns, fs.Flows)
	f.MeanSize = meanLost(&recent)
	f.SeenOriginal = stat.Ratio(st.All.After-st.All.Damaged, st.All.After+st.All.Before)
	f.Damaged = min(int(st.All.Damaged), f.Retransmitted)
	// D-SACKs say that some repetitions were not needed: those are no losses.
	f.Share = stat.Ratio(max(f.Retransmitted-f.Spurious, 0), f.Segments)
	f.Others, f.Part = measure.Crowd(w, k)
	f.Chance = stat.AtLeast(max(f.Retransmitted-f.Spurious, 0), f.Segments, w.Params.Float("tolerated"))
	if f.Retransmitted > d.best.Retransmitted {
		d.best = f
	}
	subject := k.Subject(w.Local, "data")
	f.Opened = fs.Opened(subject)
	if !s.Passes() {
		emit(analyze.Symptom{Subject: subject, Onset: s.Onset, Features: f, Evidence: fs.Evidence, LastTry: s.LastTry(w.End)})
	}
}

func (d *retransmission) judgeSyn(w *analyze.Window, k capture.Endpoint, st *synState, emit func(analyze.Symptom)) {
	subject := measure.Service(k)
	for _, s := range []struct {
		segment string
		*stat.Series
	}{{"syn", &st.requests}, {"syn-ack", &st.answers}} {
		if s.Since.Bad == 0 || s.Passes() || st.heard.Missing() {
			continue
		}
		f := Retransmission{Class: s.segment, Segments: int(max(s.Since.Total, s.Since.Bad)), Retransmitted: int(s.Since.Bad),
			ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan, FlowsTotal: int(s.Since.Total)}
		f.Share = stat.Ratio(f.Retransmitted, f.Segments)
		f.Chance = stat.AtLeast(f.Retransmitted, f.Segments, w.Params.Float("tolerated"))
		var evidence []analyze.Evidence
		slow, caller := 0, w.Local.Addr
		st.again.Each(func(_ uint32, a *synAgain) bool {
			if w.End.Sub(a.at) > stat.SeriesLen*analyze.WindowLength {
				return false
			}
			if a.at < s.Onset || s.segment == "syn-ack" && a.saTries == 0 || s.segment == "syn" && a.tries == 0 {
				return true
			}
			f.Flows++
			if !a.answered {
				f.Unanswered++
				f.Damaged += measure.Count(a.damaged == a.tries)
			}
			if a := a.note.Client.Addr; w.Local.Is(a) && (!w.Local.Is(caller) || f.Flows == 1 || a.Compare(caller) < 0) {
				caller = a
			}
			slow += measure.Count(a.slow)
			if s.segment == "syn" && a.answered && a.wait >= measure.IgnoredAfter {
				f.Held++
				f.Longest = max(f.Longest, a.wait.Seconds())
			}
			f.Plain += measure.Count(a.plain && a.answered && st.more == 0)
			f.Echoed += measure.Count(a.tries > 0 && a.saTries > 0)
			if len(evidence) < analyze.MaxEvidence {
				evidence = append(evidence, a.note.Evidence())
			}
			return true
		})
		if f.Plain < w.Params.Int("min_syn") {
			f.Plain = 0
		}
		f.Needless = 2*slow > f.Flows
		// The capture is on the listener's side when it is this host, or when the listener answered
		// other requests meanwhile and the unanswered ones are in the capture all the same.
		f.OwnListener = w.Local.Is(k.Addr)
		f.SeenOriginal = 1
		if w.Local.By != analyze.LocalNone && !w.Local.Is(k.Addr) {
			subject = measure.Upstream(caller, k)
		}
		subject.Segment = s.segment
		emit(analyze.Symptom{Subject: subject, Onset: s.Onset, Features: f, Evidence: evidence, LastTry: s.LastTry(w.End)})
	}
}

func meanLost(s *measure.Sizes) float64 {
	var n, sum float64
	for i, k := range s.Lost {
		n += float64(k)
		sum += float64(k) * binSize(i)
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// binSize is the middle of a size class in bytes of IP length.
func binSize(i int) float64 {
	if i < 24 {
		return float64(i)*64 + 32
	}
	return [...]float64{1792, 2560, 3584, 5120, 7168, 8746, 12842, 16384}[i-24]
}

func (d *retransmission) Assess(w *analyze.Window) analyze.Assessment {
	f := d.best
	if f.Segments == 0 {
		f.Class = "data"
	}
	measure.BothWays(w, func(p *flow.Path) {
		var sum measure.Traffic
		for i := range p.Side {
			sum.Add(&p.Side[i], &flow.PathSide{}, 0, false)
		}
		all := sum.Data()
		f.AllSegments += int(all.Total)
		f.AllResent += int(all.Bad)
	})
	f.LateEnds, f.AllEnds = lateEnds(w)
	d.syns.Each(func(_ capture.Endpoint, st *synState) bool {
		f.Requests += int(st.requests.Since.Total + st.requests.Old.Total)
		f.Repeated += int(st.requests.Since.Bad)
		return true
	})
	return analyze.Assessment{Assessable: f.AllSegments > 0 || d.resent.Full.Newest() != d.resent.Full.First, Features: f}
}
