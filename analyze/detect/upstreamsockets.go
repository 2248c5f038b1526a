package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// openingSockets follows the host's sockets in SYN_SENT: calls whose connection request has no answer yet.
type openingSockets struct {
	*measure.HostSockets
	calls measure.Subjects[measure.CallKey, openingCalls]
}

// openingCalls are those to one server.
type openingCalls struct {
	onset   capture.Instant // first request that went unanswered
	last    capture.Instant // newest that failed
	seen    capture.Instant // newest of all
	failed  uint32
	repeats uint32
	opened  uint32 // requests that were answered after all
	longest time.Duration
}

func newOpeningSockets() openingSockets {
	return openingSockets{HostSockets: measure.NewHostSockets(), calls: measure.NewSubjects[measure.CallKey, openingCalls](measure.MaxPerDetector)}
}

// sample takes the calls that are still being opened, and those that are not any more.
func (d *openingSockets) sample(at capture.Instant) {
	for _, s := range d.In(capture.SynSent) {
		c := d.calls.Get(measure.CallKey{Client: s.Local.Addr, Server: s.Remote})
		if c == nil || s.Seen != at {
			continue
		}
		c.seen = at
		c.repeats += uint32(s.Again)
		if s.Before.Sub(s.Since) < measure.IgnoredAfter && at.Sub(s.Since) >= measure.IgnoredAfter {
			c.failed++
			if c.onset == 0 {
				c.onset = s.Since
			}
			c.last, c.longest = at, max(c.longest, at.Sub(s.Since))
		}
	}
	for _, s := range d.Left {
		if c := d.calls.Peek(measure.CallKey{Client: s.Local.Addr, Server: s.Remote}); c != nil && s.From == capture.SynSent && s.Seen.Sub(s.Since) < measure.IgnoredAfter {
			c.opened++
		}
	}
}

// failPause ends a fault: no call has failed for that long.
const failPause = 30 * time.Second

func (d *openingSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.calls.Each(func(k measure.CallKey, c *openingCalls) bool {
		if c.failed == 0 || w.End.Sub(c.last) > failPause {
			return w.End.Sub(c.seen) <= failPause // its sockets point here
		}
		n := int(c.failed)
		f := DeadUpstream{Attempts: n + int(c.opened), Failed: n, SynUnanswered: n, SynRepeats: int(c.repeats), Class: classSilent,
			Wait: c.longest.Seconds(), Lasting: c.last.Sub(c.onset).Seconds(), Baseline: max(c.onset.Sub(w.First).Seconds(), 0), SucceededBefore: int(c.opened)}
		f.Share = stat.Ratio(f.Failed, f.Attempts)
		emit(analyze.Symptom{Subject: measure.Upstream(k.Client, k.Server), Onset: c.onset, Features: f})
		return true
	})
}
