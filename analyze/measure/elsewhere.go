package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// aside takes the segments out of s, the newest span windows of k, of connections that nothing passes any more: whether they were lost for their size
// they do not say, for nothing smaller was sent after them there. Two things do: that of the other connections' segments of that size
// as large a share as min_mute_share is lost; or that none of that size gets through at all, while smaller ones do, to the same
// peers: what others get says nothing of a path that is not theirs. Then each of these connections counts as one loss.
func (ws *ways) aside(w *analyze.Window, k way, st *wayState, f *flowStats, s *sizes, span int) {
	if f.mute == 0 {
		return
	}
	for i := range f.muted.sent {
		s.lost[i] -= min(f.muted.lost[i], s.lost[i])
		s.sent[i] -= min(f.muted.sent[i], s.sent[i]-min(s.lost[i], s.sent[i]))
	}
	unsure := st.unsure(span)
	s.without(&unsure, f.muteClass)
	big, small := s.split(f.muteClass)
	if big.Total > 0 {
		if big.Share() < w.Params.Float("min_mute_share") {
			return
		}
	} else if k.scope != onePair {
		_, small = ws.near(f.muteEnds, span).split(f.muteClass)
	}
	if small.Total == small.Bad {
		return
	}
	s.sent[f.muteClass] += uint32(f.mute)
	s.lost[f.muteClass] += uint32(f.mute)
	f.merge(&f.dead)
	f.dead = suffered{}
}

// near sums up what is known to have passed between these pairs of hosts in the newest span windows.
func (ws *ways) near(pairs map[[2]capture.Addr]struct{}, span int) *sizes {
	sum := new(sizes)
	for p := range pairs {
		if st := ws.states[onePair].peek(way{from: p[0], to: p[1]}); st != nil {
			s, _ := st.sum(span)
			unsure := st.unsure(span)
			s.without(&unsure, 0)
			sum.add(&s)
		}
	}
	return sum
}

// elsewhere counts the large segments that went the same way, to or from the same end, between it and other
// peers since the loss was recognised, and was not lost: opportunities to fail that were not taken.
func (st *wayState) elsewhere(w *analyze.Window, k way, cut int) (passed, peers int) {
	if st.elseCut != cut {
		st.elseCut, st.elseBase = cut, make(map[uint32]uint32)
	}
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			pk := way{from: p.Host(i), to: p.Host(1 - i)}
			if k.covers(pk) || (pk.to != k.to || !w.Local.Is(k.to)) && (pk.from != k.from || !w.Local.Is(k.from)) {
				continue
			}
			var n uint32
			for _, b := range p.Side[i].Bin()[cut:] {
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
