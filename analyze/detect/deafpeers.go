package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// deafPeers looks for peers of a host that go on sending while nothing that it answers is acknowledged any more: the way to them is cut,
// the way from them is not. They are not silent, so that pathCut does not see it.
type deafPeers struct {
	peers measure.Subjects[peerKey, deafPeer]
}

type deafPeer struct {
	progress    capture.Instant // something of the host was acknowledged; 0: never seen
	asked, last capture.Instant // first and newest of what came again since; 0: none
	sent        uint32          // how much that was
	wants       bool            // the peer has sent its SYN again, or data: it is there, and waits
	acked       uint64          // of the path, at the last window
	note        measure.Note
}

func newDeafPeers() deafPeers {
	return deafPeers{measure.NewSubjects[peerKey, deafPeer](measure.MaxPerDetector)}
}

// deafEvents wake deafPeers.
var deafEvents = flow.Of(flow.Established, flow.SynAckRepeat, flow.Retransmit)

func (d *deafPeers) event(e *flow.Event) {
	c := e.Conn
	k := peerKey{c.Server.Addr, c.Client.Addr}
	switch {
	case e.Kind == flow.Established:
		if x := d.peers.Get(k); x != nil {
			x.heed(e.At)
		}
	case e.Kind == flow.SynAckRepeat && wanted(c), e.Kind == flow.Retransmit && e.Side == flow.Server && e.Class == flow.RTO && e.Proven:
		x := d.peers.Get(k)
		if x == nil {
			return
		}
		first := e.At.Add(-e.Dur)
		if first <= x.progress {
			return
		}
		if x.asked == 0 {
			x.asked, x.note = first, measure.NoteOf(e, "sent again; its receiver goes on asking")
		}
		x.asked, x.last = min(x.asked, first), e.At
		x.sent++
		x.wants = x.wants || e.Kind == flow.SynAckRepeat
	}
}

// heed notes that something of the host was acknowledged.
func (x *deafPeer) heed(at capture.Instant) {
	if x.progress = max(x.progress, at); x.asked != 0 && x.asked <= at {
		*x = deafPeer{progress: x.progress, acked: x.acked}
	}
}

func (d *deafPeers) roll(w *analyze.Window) {
	w.Flows.Active(func(p *flow.Path) {
		for i := range p.Side {
			if x := d.peers.Peek(peerKey{p.Host(i), p.Host(1 - i)}); x != nil && p.Side[i].Acked != x.acked {
				x.acked = p.Side[i].Acked
				x.heed(w.Start) // or later in this window: what was asked in it counts until the next
			}
		}
	})
	d.peers.Each(func(_ peerKey, x *deafPeer) bool { return w.End.Sub(max(x.progress, x.last)) < measure.IdleState })
}

// judge emits, for each host that nobody is silent to (cuts), the peers that what it sends has ceased to reach at the same time.
func (d *deafPeers) judge(w *analyze.Window, cuts *pathCut, emit func(analyze.Symptom)) {
	d.roll(w)
	var deaf []peerKey
	minSilent, minSent := w.Params.Duration("min_silent"), uint32(w.Params.Int("min_sent"))
	for k, x := range d.peers.All {
		if x.asked != 0 && x.wants && x.sent >= minSent && x.last.Sub(x.asked) >= minSilent && w.End.Sub(x.last) <= unasked {
			deaf = append(deaf, k)
		}
	}
	for host, list := range byHost(deaf) {
		if cuts.groups.Peek(host) == nil {
			d.emit(w, host, list, cuts, emit)
		}
	}
}

func (d *deafPeers) emit(w *analyze.Window, host capture.Addr, list []peerKey, cuts *pathCut, emit func(analyze.Symptom)) {
	g := cutGroup{onset: d.peers.M[list[0]].asked}
	for _, k := range list {
		g.onset = min(g.onset, d.peers.M[k].asked)
	}
	f := PathCut{Addresses: " "}
	var evidence []analyze.Evidence
	var last capture.Instant
	for _, k := range list {
		x := d.peers.M[k]
		if x.progress > g.onset.Add(together) {
			continue // another time, another reason
		}
		if g.peers = append(g.peers, k.peer); len(g.peers) <= maxAddresses {
			f.Addresses += k.peer.String() + " "
		}
		if x.progress == 0 {
			f.Older++
		}
		f.Sent += int(x.sent)
		last = max(last, x.last)
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, x.note.Evidence())
		}
	}
	f.Peers, f.OneWay = len(g.peers), len(g.peers)
	for k, x := range d.peers.All {
		if k.host == host && x.progress > g.onset.Add(together) && w.End.Sub(x.progress) < measure.Lonely {
			f.OthersAlive++
		}
	}
	if f.Peers < 2 || f.Older > 0 && f.OthersAlive == 0 {
		return
	}
	f.PeersTotal = f.Peers + f.OthersAlive
	f.Silent, f.Chance = last.Sub(g.onset).Seconds(), cuts.chance(w, host, &g)
	emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: host.String(), Direction: "outbound"},
		Onset: g.onset, Features: f, Evidence: evidence, Filter: cutFilter(host, g.peers)})
}
