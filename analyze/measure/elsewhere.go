package measure

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// Aside takes the segments out of s, the newest span windows of k, of connections that nothing passes any more: whether they were lost for their size
// they do not say, for nothing smaller was sent after them there. Two things do: that of the other connections' segments of that size
// as large a share as min_mute_share is lost; or that none of that size gets through at all, while smaller ones do, to the same
// peers: what others get says nothing of a path that is not theirs. Then each of these connections counts as one loss.
func (ws *Ways) Aside(w *analyze.Window, k Way, st *wayState, f *flowStats, s *Sizes, span int) {
	if f.Mute == 0 {
		return
	}
	for i := range f.Muted.Sent {
		s.Lost[i] -= min(f.Muted.Lost[i], s.Lost[i])
		s.Sent[i] -= min(f.Muted.Sent[i], s.Sent[i]-min(s.Lost[i], s.Sent[i]))
	}
	unsure := st.unsure(span)
	s.without(&unsure, f.muteClass)
	big, small := s.Split(f.muteClass)
	if big.Total > 0 {
		if big.Share() < w.Params.Float("min_mute_share") {
			return
		}
	} else if k.Scope != OnePair {
		_, small = ws.near(f.muteEnds, span).Split(f.muteClass)
	}
	if small.Total == small.Bad {
		return
	}
	s.Sent[f.muteClass] += uint32(f.Mute)
	s.Lost[f.muteClass] += uint32(f.Mute)
	f.merge(&f.dead)
	f.dead = suffered{}
}

// near sums up what is known to have passed between these pairs of hosts in the newest span windows.
func (ws *Ways) near(pairs map[[2]capture.Addr]struct{}, span int) *Sizes {
	sum := new(Sizes)
	for p := range pairs {
		if st := ws.states[OnePair].Peek(Way{From: p[0], To: p[1]}); st != nil {
			s, _ := st.Sum(span)
			unsure := st.unsure(span)
			s.without(&unsure, 0)
			sum.Add(&s)
		}
	}
	return sum
}

// Elsewhere counts the large segments that went the same way, to or from the same end, between it and other
// peers since the loss was recognised, and was not lost: opportunities to fail that were not taken.
func (st *wayState) Elsewhere(w *analyze.Window, k Way, cut int) (passed, peers int) {
	if st.elseCut != cut {
		st.elseCut, st.elseBase = cut, make(map[uint32]uint32)
	}
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			pk := Way{From: p.Host(i), To: p.Host(1 - i)}
			if k.covers(pk) || (pk.To != k.To || !w.Local.Is(k.To)) && (pk.From != k.From || !w.Local.Is(k.From)) {
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

// BothWays calls f with each path of which the input holds both directions: of one alone nobody knows what the other end got.
func BothWays(w *analyze.Window, f func(p *flow.Path)) {
	w.Flows.Paths(func(p *flow.Path) {
		if p.Side[0].Packets > 0 && p.Side[1].Packets > 0 {
			f(p)
		}
	})
}

// maxElsewhere bounds the other paths that serve as comparison.
const maxElsewhere = 256
