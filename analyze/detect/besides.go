package detect

import (
	"slices"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// besides are the calls that went well, of each caller and of each of its peers, by how many windows ago.
type besides struct {
	ok     map[capture.Addr]*newest
	byPeer map[peerKey]*newest
	peers  map[capture.Addr]*newest // peers with one
}

// newest counts by windows: [n] within the newest n.
type newest [stat.SeriesLen + 1]uint32

func of[K comparable](m map[K]*newest, k K) *newest {
	if m[k] == nil {
		m[k] = new(newest)
	}
	return m[k]
}

// accumulate makes sums of counts of single windows.
func accumulate[K comparable](m map[K]*newest) {
	for _, v := range m {
		for i := 1; i < len(v); i++ {
			v[i] += v[i-1]
		}
	}
}

// newBesides sums them up once a window, when it is first needed.
func newBesides(states *measure.Subjects[measure.CallKey, upstreamState]) *besides {
	b := &besides{ok: make(map[capture.Addr]*newest), byPeer: make(map[peerKey]*newest), peers: make(map[capture.Addr]*newest)}
	// Called while states are gone through: the list of keys is being rewritten, the map is whole. Sums do not depend on its order.
	for k, st := range states.M {
		recent := st.connects.Recent()
		for i, p := range recent {
			if n := p.Total - min(p.Bad, p.Total); n > 0 {
				of(b.ok, k.Client)[len(recent)-i] += n
				of(b.byPeer, peerKey{k.Client, k.Server.Addr})[len(recent)-i] += n
			}
		}
	}
	for k, one := range b.byPeer {
		newestOne := slices.IndexFunc(one[:], func(n uint32) bool { return n > 0 })
		of(b.peers, k.host)[newestOne]++
	}
	accumulate(b.ok)
	accumulate(b.byPeer)
	accumulate(b.peers)
	return b
}

// others counts the calls of the same host that went well meanwhile.
func (d *deadUpstream) others(w *analyze.Window, k measure.CallKey, onset capture.Instant, f *DeadUpstream) {
	if d.beside == nil {
		d.beside = newBesides(&d.states)
	}
	all := d.beside.ok[k.Client]
	if all == nil {
		return
	}
	n := min(int(w.End.Sub(onset)/analyze.WindowLength)+1, stat.SeriesLen)
	f.OthersOK, f.OthersPeers = int(all[n]), int(d.beside.peers[k.Client][n])
	if one := d.beside.byPeer[peerKey{k.Client, k.Server.Addr}]; one != nil && one[n] > 0 {
		f.OthersOK -= int(one[n])
		f.OthersPeers--
		own := uint32(0)
		recent := d.states.M[k].connects.Recent()
		for _, p := range recent[max(len(recent)-n, 0):] {
			own += p.Total - min(p.Bad, p.Total)
		}
		f.SameHostOK = int(one[n] - own)
	}
}
