package detect

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// resentSockets counts, by peer, what the host's own sockets have sent again (tcp_info), for when no packets are
// captured: outbound only, for a receiver's socket does not know what was lost on its way.
type resentSockets struct {
	sockets subjects[uint64, resentSocket] // by cookie
	paths   subjects[way, resentPath]
	table   uint32
}

type resentSocket struct {
	retrans, sent uint32
	table         uint32
}

type resentPath struct {
	series   series
	mss      uint32
	resent   subjects[uint64, struct{}] // sockets that have sent again since
	evidence analyze.Evidence
	last     capture.Instant
}

func newResentSockets() resentSockets {
	return resentSockets{sockets: newSubjects[uint64, resentSocket](maxWaiting), paths: newSubjects[way, resentPath](maxPerDetector)}
}

// sample takes a dump of all sockets with tcp_info.
func (d *resentSockets) sample(at capture.Instant, t *capture.SocketTable) {
	if !t.Info || t.States&capture.Established.Mask() == 0 {
		return
	}
	d.table++
	for i := range t.Sockets {
		s := &t.Sockets[i]
		if !s.HasInfo || s.State == capture.Listen {
			continue
		}
		x := d.sockets.get(s.Cookie)
		if x == nil {
			continue
		}
		fresh := x.table == 0
		resent, sent := s.Info.TotalRetrans-x.retrans, s.Info.DataSegsOut-x.sent
		x.retrans, x.sent, x.table = s.Info.TotalRetrans, s.Info.DataSegsOut, d.table
		if fresh && d.table == 1 || sent == 0 && resent == 0 {
			continue // of the time before the agent
		}
		p := d.paths.get(way{from: s.Local.Addr, to: s.Remote.Addr})
		if p == nil {
			continue
		}
		if p.resent.m == nil {
			p.resent = newSubjects[uint64, struct{}](maxTroubled)
			p.series.began = at
		}
		p.last, p.mss = at, s.Info.SndMSS
		p.series.add(min(resent, sent+resent), sent, at)
		if resent > 0 {
			p.resent.get(s.Cookie)
			p.evidence = analyze.Evidence{At: at, Flow: s.Local.String() + " > " + s.Remote.String(), Note: "tcp_info: segments sent again"}
		}
	}
	d.sockets.each(func(_ uint64, x *resentSocket) bool { return x.table == d.table })
	d.paths.each(func(_ way, p *resentPath) bool {
		p.series.roll()
		if p.series.since.bad == 0 {
			p.resent = newSubjects[uint64, struct{}](maxTroubled)
		}
		return at.Sub(p.last) < idleState
	})
}

// sampleSlack is how much earlier than the dump that shows it a retransmission may have been: the interval between
// full dumps.
const sampleSlack = 15 * time.Second

func (d *resentSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.paths.each(func(k way, p *resentPath) bool {
		s := &p.series
		if s.since.bad == 0 || s.over() {
			return true
		}
		f := Retransmission{Class: "data", Segments: int(s.since.total), Retransmitted: int(s.since.bad), Share: s.since.share(),
			ShareBefore: s.before.share(), Baseline: s.beforeSpan, Flows: len(p.resent.keys), FlowsTotal: len(p.resent.keys), SeenOriginal: 1,
			MeanSize: float64(p.mss), Sampled: true}
		emit(analyze.Symptom{Subject: k.subject(w.Local, "data"), Onset: max(s.onset.Add(-sampleSlack), w.First), Features: f,
			Evidence: []analyze.Evidence{p.evidence}})
		return true
	})
}
