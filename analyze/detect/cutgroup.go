package detect

import (
	"iter"
	"math"
	"slices"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/capture"
)

// byHost yields hosts and those of the peers that are theirs, in order of the first of each.
func byHost(peers []peerKey) iter.Seq2[capture.Addr, []peerKey] {
	hosts := measure.NewSubjects[capture.Addr, []peerKey](measure.MaxPerDetector)
	for _, k := range peers {
		if list := hosts.Get(k.host); list != nil {
			*list = append(*list, k)
		}
	}
	return func(yield func(capture.Addr, []peerKey) bool) {
		for host, list := range hosts.All {
			if !yield(host, *list) {
				return
			}
		}
	}
}

// several keeps the suspects of hosts that have two of them over TCP, or an outage in progress.
func (d *pathCut) several(suspects []peerKey) []peerKey {
	hosts := measure.NewSubjects[capture.Addr, int](measure.MaxPerDetector)
	for _, k := range suspects {
		if n := hosts.Get(k.host); n != nil && d.peers.M[k].tcp {
			*n++
		}
	}
	return slices.DeleteFunc(suspects, func(k peerKey) bool {
		n := hosts.Peek(k.host)
		return d.groups.Peek(k.host) == nil && (n == nil || *n < 2)
	})
}

// gather opens a group of those of a host's suspects that fell silent together, or adds to
// the group that there is.
func (d *pathCut) gather(w *analyze.Window, host capture.Addr, suspects []peerKey) {
	if g := d.groups.Peek(host); g != nil {
		for _, k := range suspects {
			if d.peers.M[k].heard <= g.onset.Add(together) && !slices.Contains(g.peers, k.peer) {
				g.add(w, k.peer, d.peers.M[k])
				g.chance = d.chance(w, host, g)
			}
		}
		return
	}
	var best []peerKey
	for _, k := range suspects {
		// The moment of a peer's cut lies between its last packet and the first one that it left
		// unanswered. Take the group whose spans hold the last packet of k.
		at := d.peers.M[k].heard
		var group []peerKey
		tcp := 0
		for _, o := range suspects {
			if st := d.peers.M[o]; st.heard <= at.Add(together) && st.asked.Add(together) >= at {
				group = append(group, o)
				if st.tcp {
					tcp++
				}
			}
		}
		// Name servers that do not answer are no proof that their hosts are out of reach: a
		// kernel answers SYNs, but not queries.
		if tcp >= 2 && len(group) > len(best) {
			best = group
		}
	}
	if len(best) < w.Params.Int("min_peers") {
		return
	}
	if g := d.groups.Get(host); g != nil {
		for _, k := range best {
			g.add(w, k.peer, d.peers.M[k])
		}
		g.chance = d.chance(w, host, g)
	}
}

func (g *cutGroup) add(w *analyze.Window, peer capture.Addr, st *peerState) {
	g.peers = append(g.peers, peer)
	g.before += st.rateBefore(w)
	if g.onset == 0 || st.asked < g.onset {
		g.onset = st.asked
	}
}

// chance is the probability that so many of the host's peers fall silent within the
// tolerance by accident, going by how often others did so lately.
func (d *pathCut) chance(w *analyze.Window, host capture.Addr, g *cutGroup) float64 {
	single := 0.5 // none seen in a minute is not never
	for k, st := range d.peers.All {
		if k.host == host && st.fellAt != 0 && w.End.Sub(st.fellAt) < measure.Lonely && st.fellAt.Sub(g.onset).Abs() > together && !slices.Contains(g.peers, k.peer) {
			single++
		}
	}
	mean := single * together.Seconds() / measure.Lonely.Seconds()
	p, term := 1.0, math.Exp(-mean)
	for i := range g.peers {
		p -= term
		term *= mean / float64(i+1)
	}
	return max(p, 0)
}
