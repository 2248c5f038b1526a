package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/stat"
	"jindan/capture"
)

// openingSockets follows the host's sockets in SYN_SENT: calls whose connection request has no answer yet.
type openingSockets struct {
	*hostSockets
	calls subjects[callKey, openingCalls]
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
	return openingSockets{hostSockets: newHostSockets(), calls: newSubjects[callKey, openingCalls](maxPerDetector)}
}

// sample takes the calls that are still being opened, and those that are not any more.
func (d *openingSockets) sample(at capture.Instant) {
	for _, s := range d.In(capture.SynSent) {
		c := d.calls.get(callKey{s.Local.Addr, s.Remote})
		if c == nil || s.Seen != at {
			continue
		}
		c.seen = at
		c.repeats += uint32(s.Again)
		if s.Before.Sub(s.Since) < ignoredAfter && at.Sub(s.Since) >= ignoredAfter {
			c.failed++
			if c.onset == 0 {
				c.onset = s.Since
			}
			c.last, c.longest = at, max(c.longest, at.Sub(s.Since))
		}
	}
	for _, s := range d.Left {
		if c := d.calls.peek(callKey{s.Local.Addr, s.Remote}); c != nil && s.From == capture.SynSent && s.Seen.Sub(s.Since) < ignoredAfter {
			c.opened++
		}
	}
}

// failPause ends a fault: no call has failed for that long.
const failPause = 30 * time.Second

func (d *openingSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.calls.each(func(k callKey, c *openingCalls) bool {
		if c.failed == 0 || w.End.Sub(c.last) > failPause {
			return w.End.Sub(c.seen) <= failPause // its sockets point here
		}
		n := int(c.failed)
		f := DeadUpstream{Attempts: n + int(c.opened), Failed: n, SynUnanswered: n, SynRepeats: int(c.repeats), Class: classSilent,
			Wait: c.longest.Seconds(), Lasting: c.last.Sub(c.onset).Seconds(), Baseline: max(c.onset.Sub(w.First).Seconds(), 0), SucceededBefore: int(c.opened)}
		f.Share = stat.Ratio(f.Failed, f.Attempts)
		emit(analyze.Symptom{Subject: upstream(k.client, k.server), Onset: c.onset, Features: f})
		return true
	})
}
