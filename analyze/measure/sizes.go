package measure

import (
	"jindan/analyze/flow"
	"jindan/analyze/stat"
)

// Sizes counts segments by size class: those that were sent, those that were lost, and of the rest those that would not have shown,
// had they been lost before the capture point, those of them that arrived at once all the same, those that most likely were
// lost, and those that nobody has acknowledged.
type Sizes struct {
	Sent, Lost, blind, Alone, late, unsure [flow.Bins]uint32
	resent                                 uint32 // SYNs and SYN-ACKs that were seen and sent again: lost after the capture point, or in a full listener
	Needless                               uint32 // repetitions whose receiver says, by D-SACK (RFC 2883), that it had what they repeat
}

// Add adds o.
func (s *Sizes) Add(o *Sizes) {
	for i := range s.Sent {
		s.Sent[i] += o.Sent[i]
		s.Lost[i] += o.Lost[i]
		s.blind[i] += o.blind[i]
		s.Alone[i] += o.Alone[i]
		s.late[i] += o.late[i]
		s.unsure[i] += o.unsure[i]
	}
	s.resent += o.resent
	s.Needless += o.Needless
}

// received leaves only what shows where segments are lost before the capture point.
func (s *Sizes) received() {
	for i := flow.Bare + 1; i < flow.Bins; i++ {
		s.Sent[i] -= min(s.blind[i], s.Sent[i]-min(s.Lost[i], s.Sent[i]))
		s.Lost[i] = min(s.Lost[i]+s.late[i], s.Sent[i])
	}
}

// Data sums up the segments with data.
func (s *Sizes) Data() (p stat.Point) {
	for i := flow.Bare + 1; i < flow.Bins; i++ {
		p.Bad += s.Lost[i]
		p.Total += s.Sent[i]
	}
	return p
}

// SeenFrom leaves what shows from the side of the way where the capture was made.
func (s *Sizes) SeenFrom(side string) {
	if side == "sender" {
		s.Lost[flow.Bare] += min(s.resent, s.Sent[flow.Bare]-min(s.Lost[flow.Bare], s.Sent[flow.Bare]))
		for i := flow.Bare + 1; i < flow.Bins; i++ {
			s.Sent[i] -= min(s.unsure[i], s.Sent[i]-min(s.Lost[i], s.Sent[i]))
		}
		return
	}
	s.received()
}

// without takes out of s, from size class from on, what arrived and is in unsure: whether it was sent before the onset, or has arrived, nobody knows.
func (s *Sizes) without(unsure *Sizes, from int) {
	for i := from; i < flow.Bins; i++ {
		s.Sent[i] -= min(unsure.Sent[i]-min(unsure.Lost[i], unsure.Sent[i]), s.Sent[i]-min(s.Lost[i], s.Sent[i]))
	}
}

// Apart is the p-value of the best split of s by size; 1 if there is none.
func Apart(s *Sizes) float64 {
	cut := Cliff(s)
	if cut == 0 {
		return 1
	}
	big, small := s.Split(cut)
	return stat.Fisher(big.Bad, big.Total, small.Bad, small.Total)
}

// Split sums up the segments of size class cut and above, and those below.
func (s *Sizes) Split(cut int) (big, small stat.Point) {
	for i := range s.Sent {
		p := &small
		if i >= cut {
			p = &big
		}
		p.Bad += s.Lost[i]
		p.Total += s.Sent[i]
	}
	return big, small
}

// BothSizes reports whether s holds segments of several sizes that arrived, to compare the lost ones with.
func BothSizes(s *Sizes, enough int) bool {
	cut := Cliff(s)
	n := 0
	for i := range cut {
		n += int(s.Sent[i] - min(s.Lost[i], s.Sent[i]))
	}
	return n >= enough
}

// Cliff returns the size class from which on losses are more frequent, as the split with
// the greatest likelihood; 0 if no split leaves both sides populated with more loss above. Below the size that every
// path takes, segments with data are compared with one another only: those without differ in more than their size.
func Cliff(s *Sizes) int {
	high, gain := split(s, flow.SmallBins, flow.Bins)
	data := *s
	data.Sent[flow.Bare], data.Lost[flow.Bare] = 0, 0
	if low, g := split(&data, flow.Bare+1, flow.SmallBins); low != 0 && g > gain {
		return low
	}
	return high
}

// split is cliff for the classes from from to to, and the gain in log likelihood.
func split(s *Sizes, from, to int) (cut int, best float64) {
	var all stat.Point
	for i := range s.Sent {
		all.Bad += s.Lost[i]
		all.Total += s.Sent[i]
	}
	base := stat.LogLik(all.Bad, all.Total)
	var below stat.Point
	for i := 0; i < flow.Bins; i++ {
		if i >= from && i < to && s.Sent[i] > 0 && below.Total > 0 {
			above := stat.Point{Bad: all.Bad - below.Bad, Total: all.Total - below.Total}
			if uint64(above.Bad)*uint64(below.Total) > uint64(below.Bad)*uint64(above.Total) {
				if l := stat.LogLik(above.Bad, above.Total) + stat.LogLik(below.Bad, below.Total) - base; l >= best {
					best, cut = l, i
				}
			}
		}
		below.Bad += s.Lost[i]
		below.Total += s.Sent[i]
	}
	return cut, best
}
