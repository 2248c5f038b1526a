package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// SizeLoss are the features of size-dependent-loss. Sizes are IP lengths in bytes.
type SizeLoss struct {
	Cliff            int     `json:"cliff"`
	SmallestLost     int     `json:"smallest_lost"`
	LargestPassed    int     `json:"largest_passed"`
	BigSent          int     `json:"big_sent"`
	BigLost          int     `json:"big_lost"`
	SmallSent        int     `json:"small_sent"`
	SmallLost        int     `json:"small_lost"`
	BigLoss          float64 `json:"big_loss"`
	SmallLoss        float64 `json:"small_loss"`
	BigLossBefore    float64 `json:"big_loss_before"`
	Baseline         float64 `json:"baseline"`
	PValue           float64 `json:"p_value"`
	Flows            int     `json:"flows"`
	StalledFlows     int     `json:"stalled_flows"`
	StalledShare     float64 `json:"stalled_share"`
	Abandoned        int     `json:"abandoned"`
	AbandonedShare   float64 `json:"abandoned_share"`
	AbandonedLoss    float64 `json:"abandoned_loss"`
	RetrySent        int     `json:"retry_sent"`
	RetryLost        int     `json:"retry_lost"`
	RetryLoss        float64 `json:"retry_loss"`
	RepeatFailures   int     `json:"repeat_failures"`
	Side             string  `json:"side"`
	Kind             string  `json:"kind"`
	ICMPTooBig       int     `json:"icmp_too_big"`
	DNSBigUnanswered int     `json:"dns_big_unanswered"`
	ElsewherePassed  int     `json:"elsewhere_passed"`
	ElsewherePeers   int     `json:"elsewhere_peers"`
	Opened           int     `json:"opened"`
	Hit              int     `json:"hit"`
	CopyShare        float64 `json:"copy_share"`
	Peers            int     `json:"peers"`
	PeersHit         int     `json:"peers_hit"`
	Prefix           string  `json:"prefix"`
	Others           int     `json:"others"`
	Part             float64 `json:"part"`
	Mute             int     `json:"mute"`
	SmallData        int     `json:"small_data"`
	Unanswered       int     `json:"unanswered"`
	AllBig           int     `json:"all_big"`
	AllBigLost       int     `json:"all_big_lost"`
	Single           int     `json:"single"`
	Tries            int     `json:"tries"`
	Still            float64 `json:"still"`
	Beside           bool    `json:"beside"`
	Heard            bool    `json:"heard"`
	Lone             bool    `json:"lone"`
	Passed           int     `json:"passed"`
	Coalesced        int     `json:"coalesced"`
	Singles          int     `json:"singles"`
	Goodput          float64 `json:"goodput"`
	GoodputBefore    float64 `json:"goodput_before"`
	GoodputSpread    float64 `json:"goodput_spread"`
	GoodputWindows   int     `json:"goodput_windows"`
}

// sizeLoss tells loss that depends on the size of the packet from other loss. It learns where the
// cliff lies: the size that best divides what was lost from what passed.
//
// It needs no idea of which end this host is. Where the segments are missing before their
// retransmission, they were lost before the capture point; where they were seen and sent
// again, after it.
type sizeLoss struct {
	*measure.Ways
	large largeStill
	dns   bigAnswers
	// Requests that the client gave up: what is lost as a whole at the side of its receiver leaves no other trace.
	unanswered int
	greets     measure.Subjects[capture.Addr, struct{}] // hosts that speak first
	mute       int                                      // most connections of a way that nothing passes any more, and on which something large is repeated
	best       SizeLoss                                 // of what did not amount to a finding, the one with most large segments
}

func newSizeLoss() analyze.Detector {
	return &sizeLoss{Ways: measure.NewWays(), large: newLargeStill(), dns: newBigAnswers(), greets: measure.NewSubjects[capture.Addr, struct{}](measure.MaxPerDetector)}
}

// Measures implements analyze.Measurer.
func (d *sizeLoss) Measures() []analyze.Measure { return []analyze.Measure{d.Ways, d.dns.lookups} }

func (d *sizeLoss) Spec() analyze.Spec {
	return analyze.Spec{Rule: "size-dependent-loss",
		Events: stillEvents | flow.Of(flow.DNSAnswer, flow.DNSUnanswered, flow.Abandoned, flow.Greeting, flow.Closed), Features: SizeLoss{}}
}

func (d *sizeLoss) Event(e *flow.Event) {
	if e.DNS != nil {
		d.dns.event(e)
		return
	}
	switch e.Kind {
	case flow.Abandoned:
		if e.Dur >= flow.GiveUp {
			d.unanswered++
		}
	case flow.Greeting:
		d.greets.Get(e.Conn.Server.Addr)
	case flow.Closed:
		if d.unmet(e.Conn, e.At) {
			d.unanswered++
		}
	default:
		d.large.event(e)
	}
}

// unmet reports whether nothing was said on c, open for long now, by a host that speaks first elsewhere: that may have been too large for the way.
func (d *sizeLoss) unmet(c *flow.Conn, now capture.Instant) bool {
	return unsaid(c, now, flow.GiveUp) && d.greets.Peek(c.Server.Addr) != nil
}

// unsaid reports whether nobody has said anything on c, open for so long now. What its client said first may have been lost before this
// capture, each time that it came again; its FIN would have waited behind that.
func unsaid(c *flow.Conn, now capture.Instant, long time.Duration) bool {
	at := c.Established()
	return at != 0 && now.Sub(at) >= long && c.Bytes(flow.Client)+c.Bytes(flow.Server) == 0
}

func (d *sizeLoss) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Ways.Roll(w)
	still := d.large.find(w)
	for _, x := range d.Ways.Speaking {
		if d.judge(w, &x, still.Peek(x.K), emit) {
			still.Drop(x.K)
		}
	}
	still.Each(func(k measure.Way, g *standing) bool {
		emit(g.symptom(k, w))
		return true
	})
}

// judge reports what x shows, if it shows anything; still, if not nil, is what stands still there.
func (d *sizeLoss) judge(w *analyze.Window, x *measure.Speaker, still *standing, emit func(analyze.Symptom)) bool {
	k, st := x.K, x.St
	fs := st.FlowStats(k, st.Series.Onset, w.End, w.Params.Duration("stall_age"))
	span := st.Series.Windows()
	side := "receiver"
	if st.All.After > st.All.Before {
		side = "sender"
	}
	s, conns := st.Sum(span)
	x.Without(&s, span)
	s.SeenFrom(side)
	d.Ways.Aside(w, k, st, &fs, &s, span)
	if !measure.BothSizes(&s, w.Params.Int("min_small")) {
		// What went well before the first sign gives more to compare with, or drowns what little was lost since.
		span := st.SinceOnset(w.End)
		y, n := st.Sum(span)
		x.Without(&y, span)
		y.SeenFrom(side)
		if d.Ways.Aside(w, k, st, &fs, &y, span); measure.Apart(&y) < measure.Apart(&s) {
			s, conns = y, n
		}
	}
	f := SizeLoss{Kind: "partial", Side: side, Baseline: st.Series.BeforeSpan, ICMPTooBig: st.TooBig, Mute: fs.Mute, Prefix: k.Prefix()}
	d.mute = max(d.mute, fs.MuteLarge)
	cut := measure.Cliff(&s)
	var dns bigLoss
	if k.Scope == measure.OnePair {
		if answers := d.dns.since(k, flow.SmallSize, st.Series.Onset); answers.lost.Bad > 0 {
			// They say where the cliff is, too: now and then a segment gets through. That some came says nothing of the
			// path, for those that are missing are known only some seconds later.
			all := s
			all.Add(&answers.sizes)
			c := measure.Cliff(&all)
			if big, _ := s.Split(c); c != 0 && answers.alike(big) {
				cut = c
			}
		}
	}
	if cut == 0 {
		return false
	}
	big, small := s.Split(cut)
	if side == "receiver" {
		// What is sent alone shows its loss only if something else comes before its repetition. Those that came at once were
		// not lost: without them a few give-ups (the FIN comes, the request never did) would be all that was sent.
		for i := cut; i < flow.Bins; i++ {
			big.Total += s.Alone[i]
		}
	}
	for i := cut - 1; i >= 0; i-- {
		if s.Sent[i] > s.Lost[i] {
			f.LargestPassed = max(int(st.MaxSeen[i]), ackSize)
			break
		}
	}
	onset := st.Series.Onset
	if k.Scope == measure.OnePair {
		dns = d.dns.since(k, f.LargestPassed, onset)
	}
	if f.Side == "sender" || !dns.alike(big) {
		dns = bigLoss{} // seen before they could be lost; or their server is silent, and not the path
	}
	if f.Side == "sender" {
		big.Bad -= min(s.Needless, big.Bad) // its acknowledgement was lost, or late
		big.Total -= min(fs.Unsettled, big.Total-big.Bad)
	}
	big.Bad += dns.lost.Bad
	big.Total += dns.lost.Total
	f.BigSent, f.BigLost, f.SmallSent, f.SmallLost = int(big.Total), int(big.Bad), int(small.Total), int(small.Bad)
	f.SmallData = f.SmallSent - int(s.Sent[flow.Bare])
	f.BigLoss, f.SmallLoss = big.Share(), small.Share()
	f.PValue = stat.Fisher(big.Bad, big.Total, small.Bad, small.Total)
	f.BigLossBefore = st.Series.Before.Share()
	for i := cut; i < flow.Bins; i++ {
		if s.Lost[i] > 0 && st.MinLost[i] > 0 {
			f.SmallestLost = int(st.MinLost[i])
			break
		}
	}
	f.Cliff = f.SmallestLost
	f.Hit, f.CopyShare = fs.Flows+int(dns.lost.Bad), st.All.CopyShare()
	f.Flows, f.StalledFlows = max(fs.Flows, conns), fs.Stalled
	f.StalledShare = stat.Ratio(f.StalledFlows, f.Flows)
	f.Abandoned, f.AbandonedShare = fs.Abandoned, stat.Ratio(fs.Abandoned, fs.Abandoned+fs.Passed)
	f.AbandonedLoss = stat.Ratio(fs.Lacking, fs.Lacking+fs.Arrived)
	f.RetrySent, f.RetryLost, f.RepeatFailures = int(fs.Retries), int(fs.Failed), fs.Repeat
	f.RetryLoss = stat.Ratio(f.RetryLost, f.RetrySent)
	if f.Coalesced = fs.Again.OnlyCoalesced(uint32(w.Params.Int("min_coalesced"))); f.Coalesced > 0 {
		f.Singles = int(fs.Again.Single)
	}
	f.Peers, f.PeersHit = measure.PeersSince(w, k, onset), len(fs.Ends)
	f.Others, f.Part = measure.Crowd(w, k)
	if fs.Passed == 0 && f.RetryLost >= w.Params.Int("min_hole_retries") && f.BigLoss > w.Params.Float("min_hole_loss") {
		f.Kind = "black-hole"
	}
	if f.PValue < w.Params.Float("sure_p_value") {
		f.ElsewherePassed, f.ElsewherePeers = st.Elsewhere(w, k, cut)
	}
	g := d.Ways.Goodput(w, k, st.Series.Onset)
	f.Goodput, f.GoodputBefore, f.GoodputSpread, f.GoodputWindows = g.Rate, g.Before, g.Spread, g.Windows
	f.DNSBigUnanswered = int(dns.lost.Bad)
	if dns.lost.Bad > 0 {
		f.Cliff = min(f.Cliff, dns.smallest)
		// Big answers of the same peer are lost a little before the first segment.
		onset = min(onset, dns.first)
	}
	if f.BigLost > d.best.BigLost {
		d.best = f
	}
	lastTry := st.Series.LastTry(w.End)
	if still != nil {
		lastTry = still.lastTry(w)
		f.Single, f.Tries, f.Still, f.Beside, f.Heard, f.Passed = still.f.Single, still.f.Tries, still.f.Still, still.f.Beside, still.f.Heard, still.f.Passed
		f.Lone = f.Hit < w.Params.Int("min_hit") || f.PValue >= w.Params.Float("max_p_value")
		if f.Lone || measure.FewConns(w) {
			onset = min(onset, still.onset)
			f.Peers, f.PeersHit = measure.PeersSince(w, k, onset), len(still.peers)
		}
	}
	subject := k.Subject(w.Local, "")
	f.Opened = fs.Opened(subject)
	if st.Series.Passes() {
		return false
	}
	emit(analyze.Symptom{Subject: subject, Onset: onset, Features: f, Evidence: fs.Evidence, LastTry: lastTry})
	return true
}

// ackSize is the IP length of a pure ACK in bytes: 20 + 20 + 12 of timestamps.
const ackSize = 52

func (d *sizeLoss) Assess(w *analyze.Window) analyze.Assessment {
	f := d.best
	f.Unanswered, f.Mute = d.unanswered, d.mute
	stall := w.Params.Duration("stall_age")
	w.Flows.Live(func(c *flow.Conn) {
		if at := c.Outstanding(); at != 0 && w.End.Sub(c.RequestLast()) >= stall || !c.Closed() && !c.Closing(flow.Client) && unsaid(c, w.End, stall) ||
			!c.Closed() && d.unmet(c, w.End) {
			f.Unanswered++
		}
	})
	measure.BothWays(w, func(p *flow.Path) {
		for i := range p.Side {
			var sum measure.Traffic
			sum.Add(&p.Side[i], &flow.PathSide{}, 0, w.Local.Receives(p.Host(1-i)))
			big, small := sum.Split(flow.SmallBins)
			f.AllBig += int(big.Total)
			f.AllBigLost += int(big.Bad)
			if d.best.BigSent == 0 {
				f.SmallSent += int(small.Total)
				f.SmallLost += int(small.Bad)
			}
		}
	})
	return analyze.Assessment{Assessable: f.AllBig > 0, Features: f}
}
