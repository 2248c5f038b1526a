package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
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
}

// sizeLoss tells loss that depends on the size of the packet from other loss. It learns where the
// cliff lies: the size that best divides what was lost from what passed.
//
// It needs no idea of which end this host is. Where the segments are missing before their
// retransmission, they were lost before the capture point; where they were seen and sent
// again, after it.
type sizeLoss struct {
	ways ways
	dns  bigAnswers
	best SizeLoss // of what did not amount to a finding, the one with most large segments
}

func newSizeLoss() analyze.Detector { return &sizeLoss{ways: newWays(), dns: newBigAnswers()} }

func (d *sizeLoss) Spec() analyze.Spec {
	return analyze.Spec{Rule: "size-dependent-loss",
		Events: lossEvents | flow.Of(flow.DNSAnswer, flow.DNSUnanswered), Features: SizeLoss{}}
}

func (d *sizeLoss) Event(e *flow.Event) {
	if e.DNS != nil {
		d.dns.event(e)
		return
	}
	d.ways.event(e)
}

func (d *sizeLoss) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.ways.roll(w)
	d.ways.states.each(func(k way, st *wayState) bool {
		if st.series.since.bad == 0 {
			return true
		}
		s, acks, conns := st.recent()
		if !bothSizes(&s, int(w.Params.Float("min_small"))) {
			// What went well before the first sign gives more to compare with, or drowns what little was lost since.
			if x, a, n := st.fromOnset(w.End); apart(&x) < apart(&s) {
				s, acks, conns = x, a, n
			}
		}
		f := SizeLoss{Kind: "partial", Side: "receiver", Baseline: st.series.beforeSpan, ICMPTooBig: st.tooBig}
		s.sent[flow.Bin(ackSize)] += acks.total
		s.lost[flow.Bin(ackSize)] += acks.bad
		cut := cliff(&s)
		if answers := d.dns.since(k, flow.SmallSize, st.series.onset); answers.lost.bad > 0 {
			// They say where the cliff is, too: now and then a segment gets through. That some came says nothing of the
			// path, for those that are missing are known only some seconds later.
			all := s
			all.add(&answers.sizes)
			c := cliff(&all)
			if big, _ := s.split(c); c != 0 && answers.alike(big) {
				cut = c
			}
		}
		if cut == 0 {
			return true
		}
		big, small := s.split(cut)
		fs := st.flowStats(k, st.series.onset, w.End, w.Params.Duration("stall_age"))
		p := w.Flows.PathAt(st.index)
		ps, _ := p.From(k.from)
		if ps.Retransmits > ps.Lost {
			f.Side = "sender"
		} else if big.bad > small.bad {
			// The receiver's side sees a repetition only when it arrives. Those that time-outs tell of
			// were lost, too, and were as large as what they repeated.
			big.bad += fs.failed
			big.total += fs.failed
		}
		for i := cut - 1; i >= 0; i-- {
			if s.sent[i] > s.lost[i] {
				f.LargestPassed = max(int(st.maxSeen[i]), ackSize)
				break
			}
		}
		onset := st.series.onset
		dns := d.dns.since(k, f.LargestPassed, onset)
		if f.Side == "sender" || !dns.alike(big) {
			dns = bigLoss{} // seen before they could be lost; or their server is silent, and not the path
		}
		big.bad += dns.lost.bad
		big.total += dns.lost.total
		f.BigSent, f.BigLost, f.SmallSent, f.SmallLost = int(big.total), int(big.bad), int(small.total), int(small.bad)
		f.BigLoss, f.SmallLoss = big.share(), small.share()
		f.PValue = fisher(big.bad, big.total, small.bad, small.total)
		f.BigLossBefore = st.series.before.share()
		for i := cut; i < flow.Bins; i++ {
			if s.lost[i] > 0 && st.minLost[i] > 0 {
				f.SmallestLost = int(st.minLost[i])
				break
			}
		}
		f.Cliff = f.SmallestLost
		f.Hit, f.CopyShare = fs.flows+int(dns.lost.bad), copyShare(p)
		f.Flows, f.StalledFlows = max(fs.flows, conns), fs.stalled
		f.StalledShare = ratio(f.StalledFlows, f.Flows)
		f.RetrySent, f.RetryLost, f.RepeatFailures = int(fs.retries), int(fs.failed), fs.repeat
		f.RetryLoss = ratio(f.RetryLost, f.RetrySent)
		if fs.passed == 0 && f.RetryLost >= 6 && f.BigLoss > 0.5 {
			f.Kind = "black-hole"
		}
		if f.PValue < 0.001 {
			f.ElsewherePassed, f.ElsewherePeers = st.elsewhere(w, k, cut)
		}
		f.DNSBigUnanswered = int(dns.lost.bad)
		if dns.lost.bad > 0 {
			f.Cliff = min(f.Cliff, dns.smallest)
			// Big answers of the same peer are lost a little before the first segment.
			onset = min(onset, dns.first)
		}
		if f.BigSent > d.best.BigSent {
			d.best = f
		}
		subject := pathSubject(k, w.Local, "")
		f.Opened = fs.opened(subject)
		emit(analyze.Symptom{Subject: subject, Onset: onset, Features: f, Evidence: fs.evidence})
		return true
	})
}

// apart is the p-value of the best split of s by size; 1 if there is none.
func apart(s *sizes) float64 {
	cut := cliff(s)
	if cut == 0 {
		return 1
	}
	big, small := s.split(cut)
	return fisher(big.bad, big.total, small.bad, small.total)
}

// split sums up the segments of size class cut and above, and those below.
func (s *sizes) split(cut int) (big, small point) {
	for i := range s.sent {
		p := &small
		if i >= cut {
			p = &big
		}
		p.bad += s.lost[i]
		p.total += s.sent[i]
	}
	return big, small
}

// bothSizes reports whether s holds segments of several sizes that arrived, to compare the lost ones with.
func bothSizes(s *sizes, enough int) bool {
	cut := cliff(s)
	n := 0
	for i := range cut {
		n += int(s.sent[i] - min(s.lost[i], s.sent[i]))
	}
	return n >= enough
}

// ackSize is the IP length of a pure ACK in bytes: 20 + 20 + 12 of timestamps.
const ackSize = 52

// elsewhere counts the large segments that went the same way, to or from the same end, between it and other
// peers since the loss was recognised, and was not lost: opportunities to fail that were not taken.
func (st *wayState) elsewhere(w *analyze.Window, k way, cut int) (passed, peers int) {
	if st.elseCut != cut {
		st.elseCut, st.elseBase = cut, make(map[uint32]uint32)
	}
	w.Flows.Paths(func(p *flow.Path) {
		if p.Index == st.index {
			return
		}
		for i := range p.Side {
			from, to := p.Host(i), p.Host(1-i)
			if (to != k.to || !w.Local.Is(k.to)) && (from != k.from || !w.Local.Is(k.from)) {
				continue
			}
			var n uint32
			for _, b := range p.Side[i].Bin[cut:] {
				n += b.Seen - min(b.Again, b.Seen)
			}
			base, ok := st.elseBase[p.Index]
			if !ok {
				if len(st.elseBase) < maxElsewhere {
					st.elseBase[p.Index] = n
				}
				return
			}
			if n > base {
				passed += int(n - base)
				peers++
			}
		}
	})
	return passed, peers
}

// maxElsewhere bounds the other paths that serve as comparison.
const maxElsewhere = 256

func (d *sizeLoss) Assess(w *analyze.Window) analyze.Assessment {
	// Paths without any loss have no state of their own: take the largest classes of the busiest one.
	if d.best.BigSent == 0 {
		w.Flows.Paths(func(p *flow.Path) {
			for i := range p.Side {
				var s sizes
				for b := range s.sent {
					s.sent[b] = p.Side[i].Bin[b].Seen
				}
				top := flow.Bins - 1
				for top > 0 && s.sent[top] == 0 {
					top--
				}
				big := int(s.sent[top])
				if big > d.best.BigSent {
					d.best = SizeLoss{BigSent: big, SmallSent: int(p.Side[i].Segments) - big, Flows: int(p.Conns)}
				}
			}
		})
	}
	enough := d.best.BigSent >= int(w.Params.Float("min_big")) && d.best.SmallSent >= int(w.Params.Float("min_small"))
	return analyze.Assessment{Assessable: enough, Features: d.best}
}

// cliff returns the size class from which on losses are more frequent, as the split with
// the greatest likelihood; 0 if no split leaves both sides populated with more loss above.
func cliff(s *sizes) int {
	var all point
	for i := range s.sent {
		all.bad += s.lost[i]
		all.total += s.sent[i]
	}
	base := logLik(all.bad, all.total)
	best, cut := 0.0, 0
	var below point
	for i := 0; i < flow.Bins; i++ {
		if i > 0 && s.sent[i] > 0 && below.total > 0 {
			above := point{bad: all.bad - below.bad, total: all.total - below.total}
			if uint64(above.bad)*uint64(below.total) > uint64(below.bad)*uint64(above.total) {
				if l := logLik(above.bad, above.total) + logLik(below.bad, below.total) - base; l >= best {
					best, cut = l, i
				}
			}
		}
		below.bad += s.lost[i]
		below.total += s.sent[i]
	}
	return cut
}
