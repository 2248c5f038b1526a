package detect

import (
	"jindan/analyze/flow"
	"jindan/analyze/stat"
)

// sizes counts segments by size class: those that were sent, those that were lost, and of the rest those that would not have shown,
// had they been lost before the capture point, those of them that arrived at once all the same, and those that most likely were
// lost.
type sizes struct {
	sent, lost, blind, alone, late [flow.Bins]uint32
	resent                         uint32 // SYNs and SYN-ACKs that were seen and sent again: lost after the capture point, or in a full listener
	needless                       uint32 // repetitions whose receiver says, by D-SACK (RFC 2883), that it had what they repeat
}

func (s *sizes) add(o *sizes) {
	for i := range s.sent {
		s.sent[i] += o.sent[i]
		s.lost[i] += o.lost[i]
		s.blind[i] += o.blind[i]
		s.alone[i] += o.alone[i]
		s.late[i] += o.late[i]
	}
	s.resent += o.resent
	s.needless += o.needless
}

// received leaves only what shows where segments are lost before the capture point.
func (s *sizes) received() {
	for i := flow.Bare + 1; i < flow.Bins; i++ {
		s.sent[i] -= min(s.blind[i], s.sent[i]-min(s.lost[i], s.sent[i]))
		s.lost[i] = min(s.lost[i]+s.late[i], s.sent[i])
	}
}

// data sums up the segments with data.
func (s *sizes) data() (p stat.Point) {
	for i := flow.Bare + 1; i < flow.Bins; i++ {
		p.Bad += s.lost[i]
		p.Total += s.sent[i]
	}
	return p
}

// seenFrom leaves what shows from the side of the way where the capture was made.
func (s *sizes) seenFrom(side string) {
	if side == "sender" {
		s.lost[flow.Bare] += min(s.resent, s.sent[flow.Bare]-min(s.lost[flow.Bare], s.sent[flow.Bare]))
		return
	}
	s.received()
}

// without takes out of s, from size class from on, what arrived and is in unsure: whether it was sent before the onset, or has arrived, nobody knows.
func (s *sizes) without(unsure *sizes, from int) {
	for i := from; i < flow.Bins; i++ {
		s.sent[i] -= min(unsure.sent[i]-min(unsure.lost[i], unsure.sent[i]), s.sent[i]-min(s.lost[i], s.sent[i]))
	}
}

// apart is the p-value of the best split of s by size; 1 if there is none.
func apart(s *sizes) float64 {
	cut := cliff(s)
	if cut == 0 {
		return 1
	}
	big, small := s.split(cut)
	return stat.Fisher(big.Bad, big.Total, small.Bad, small.Total)
}

// split sums up the segments of size class cut and above, and those below.
func (s *sizes) split(cut int) (big, small stat.Point) {
	for i := range s.sent {
		p := &small
		if i >= cut {
			p = &big
		}
		p.Bad += s.lost[i]
		p.Total += s.sent[i]
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

// cliff returns the size class from which on losses are more frequent, as the split with
// the greatest likelihood; 0 if no split leaves both sides populated with more loss above. Below the size that every
// path takes, segments with data are compared with one another only: those without differ in more than their size.
func cliff(s *sizes) int {
	high, gain := split(s, flow.SmallBins, flow.Bins)
	data := *s
	data.sent[flow.Bare], data.lost[flow.Bare] = 0, 0
	if low, g := split(&data, flow.Bare+1, flow.SmallBins); low != 0 && g > gain {
		return low
	}
	return high
}

// split is cliff for the classes from from to to, and the gain in log likelihood.
func split(s *sizes, from, to int) (cut int, best float64) {
	var all stat.Point
	for i := range s.sent {
		all.Bad += s.lost[i]
		all.Total += s.sent[i]
	}
	base := stat.LogLik(all.Bad, all.Total)
	var below stat.Point
	for i := 0; i < flow.Bins; i++ {
		if i >= from && i < to && s.sent[i] > 0 && below.Total > 0 {
			above := stat.Point{Bad: all.Bad - below.Bad, Total: all.Total - below.Total}
			if uint64(above.Bad)*uint64(below.Total) > uint64(below.Bad)*uint64(above.Total) {
				if l := stat.LogLik(above.Bad, above.Total) + stat.LogLik(below.Bad, below.Total) - base; l >= best {
					best, cut = l, i
				}
			}
		}
		below.Bad += s.lost[i]
		below.Total += s.sent[i]
	}
	return cut, best
}
