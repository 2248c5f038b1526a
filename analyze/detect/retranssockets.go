package detect

import (
	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// resentSockets counts, by peer, what the host's own sockets have sent again (tcp_info), for when no packets are
// captured. It sees outbound loss only: a receiver's socket does not know what was lost on its way.
type resentSockets struct {
	*measure.HostSockets
	paths measure.Subjects[measure.Way, resentPath]
}

type resentPath struct {
	series   stat.Series
	mss      uint32
	resent   measure.Subjects[uint64, struct{}] // sockets that have sent again since
	evidence analyze.Evidence
	last     capture.Instant
	before   capture.Instant // the dump before the first of its sockets was seen
	since    capture.Instant // the dump before the onset: what has been sent again was sent after it
	onset    capture.Instant // the series', of which since is
}

func newResentSockets() resentSockets {
	return resentSockets{HostSockets: measure.NewHostSockets(), paths: measure.NewSubjects[measure.Way, resentPath](measure.MaxPerDetector)}
}

// sample takes a dump of all sockets with tcp_info.
func (d *resentSockets) sample(at capture.Instant) {
	if !d.Dump.Info || d.Dump.States&capture.Established.Mask() == 0 {
		return
	}
	for s, k := range d.Shown {
		if k == nil || k.Sent == 0 && k.Resent == 0 {
			continue
		}
		p := d.paths.Get(measure.Way{From: s.Local.Addr, To: s.Remote.Addr})
		if p == nil {
			continue
		}
		if p.resent.M == nil {
			p.resent = measure.NewSubjects[uint64, struct{}](measure.MaxTroubled)
			p.before = d.Full.Previous(at)
		}
		p.last, p.mss = at, s.Info.SndMSS
		p.series.Add(min(k.Resent, k.Sent+k.Resent), k.Sent, at)
		if k.Resent > 0 {
			p.resent.Get(s.Cookie)
			p.evidence = analyze.Evidence{At: at, Flow: s.Local.String() + " > " + s.Remote.String(), Note: "tcp_info: segments sent again"}
		}
	}
	d.paths.Each(func(_ measure.Way, p *resentPath) bool {
		p.series.Roll()
		if p.series.Since.Bad == 0 {
			p.resent = measure.NewSubjects[uint64, struct{}](measure.MaxTroubled)
		} else if p.series.Onset != p.onset {
			p.onset, p.since = p.series.Onset, d.Full.Previous(p.series.Onset)
		}
		return at.Sub(p.last) < measure.IdleState
	})
}

func (d *resentSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.paths.Each(func(k measure.Way, p *resentPath) bool {
		s := &p.series
		if s.Since.Bad == 0 || s.Over() {
			return true
		}
		f := Retransmission{Class: "data", Segments: int(s.Since.Total), Retransmitted: int(s.Since.Bad), Share: s.Since.Share(),
			ShareBefore: s.Before.Share(), Flows: len(p.resent.Keys), FlowsTotal: len(p.resent.Keys), SeenOriginal: 1,
			MeanSize: float64(p.mss), Sampled: true}
		f.Chance = stat.AtLeast(f.Retransmitted, f.Segments, w.Params.Float("tolerated"))
		if s.BeforeSpan > 0 { // the series counts dumps; how far apart they are, their times say
			f.Baseline = p.since.Sub(p.before).Seconds()
		}
		emit(analyze.Symptom{Subject: k.Subject(w.Local, "data"), Onset: max(p.since, w.First), Features: f,
			Evidence: []analyze.Evidence{p.evidence}})
		return true
	})
}
