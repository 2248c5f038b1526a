package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/stat"
	"jindan/capture"
)

// resentSockets counts, by peer, what the host's own sockets have sent again (tcp_info), for when no packets are
// captured: outbound only, for a receiver's socket does not know what was lost on its way.
type resentSockets struct {
	sockets subjects[uint64, resentSocket] // by cookie
	paths   subjects[way, resentPath]
	table   uint32
	dumps   dumps
}

type resentSocket struct {
	retrans, sent uint32
	table         uint32
}

type resentPath struct {
	series   stat.Series
	mss      uint32
	resent   subjects[uint64, struct{}] // sockets that have sent again since
	evidence analyze.Evidence
	last     capture.Instant
	before   capture.Instant // the dump before the first of its sockets was seen
	since    capture.Instant // the dump before the onset: what has been sent again was sent after it
	onset    capture.Instant // the series', of which since is
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
	d.dumps.add(at)
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
			p.before = d.dumps.previous(at)
		}
		p.last, p.mss = at, s.Info.SndMSS
		p.series.Add(min(resent, sent+resent), sent, at)
		if resent > 0 {
			p.resent.get(s.Cookie)
			p.evidence = analyze.Evidence{At: at, Flow: s.Local.String() + " > " + s.Remote.String(), Note: "tcp_info: segments sent again"}
		}
	}
	d.sockets.each(func(_ uint64, x *resentSocket) bool { return x.table == d.table })
	d.paths.each(func(_ way, p *resentPath) bool {
		p.series.Roll()
		if p.series.Since.Bad == 0 {
			p.resent = newSubjects[uint64, struct{}](maxTroubled)
		} else if p.series.Onset != p.onset {
			p.onset, p.since = p.series.Onset, d.dumps.previous(p.series.Onset)
		}
		return at.Sub(p.last) < idleState
	})
}

func (d *resentSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.paths.each(func(k way, p *resentPath) bool {
		s := &p.series
		if s.Since.Bad == 0 || s.Over() {
			return true
		}
		f := Retransmission{Class: "data", Segments: int(s.Since.Total), Retransmitted: int(s.Since.Bad), Share: s.Since.Share(),
			ShareBefore: s.Before.Share(), Flows: len(p.resent.keys), FlowsTotal: len(p.resent.keys), SeenOriginal: 1,
			MeanSize: float64(p.mss), Sampled: true}
		if s.BeforeSpan > 0 { // the series counts dumps, which are as far apart as their source is told
			f.Baseline = p.since.Sub(p.before).Seconds()
		}
		emit(analyze.Symptom{Subject: k.subject(w.Local, "data"), Onset: max(p.since, w.First), Features: f,
			Evidence: []analyze.Evidence{p.evidence}})
		return true
	})
}

// dumps are the times of the newest dumps of all sockets. How far apart they are is the source's affair.
type dumps struct {
	at    [stat.SeriesLen + 1]capture.Instant // the newest last
	n     int
	apart time.Duration // the longest time between two of them
}

func (d *dumps) add(at capture.Instant) {
	if d.n > 0 {
		d.apart = max(d.apart, at.Sub(d.newest()))
	}
	if d.n == len(d.at) {
		copy(d.at[:], d.at[1:])
		d.n--
	}
	d.at[d.n] = at
	d.n++
}

func (d *dumps) newest() capture.Instant { return d.at[max(d.n, 1)-1] }

// previous is the newest dump before at; at itself where none is known.
func (d *dumps) previous(at capture.Instant) capture.Instant {
	for i := d.n - 1; i >= 0; i-- {
		if d.at[i] < at {
			return d.at[i]
		}
	}
	return at
}
