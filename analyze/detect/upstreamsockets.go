package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/stat"
	"jindan/capture"
)

// openingSockets follows the host's sockets in SYN_SENT: calls whose connection request has no answer yet.
type openingSockets struct {
	calls   subjects[callKey, openingCalls]
	sockets subjects[uint64, openingSocket] // by cookie
	tables  uint32
}

type openingSocket struct {
	call    *openingCalls
	since   capture.Instant
	retries uint8
	table   uint32
	counted bool
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

// synPatience is how long a SYN waits before its call counts as failed: the first repetition comes after 1 s,
// the second after 3 s (RFC 6298 §2, §5.5).
const synPatience = 3 * time.Second

func newOpeningSockets() openingSockets {
	return openingSockets{calls: newSubjects[callKey, openingCalls](maxPerDetector), sockets: newSubjects[uint64, openingSocket](maxWaiting)}
}

func (d *openingSockets) sample(at capture.Instant, t *capture.SocketTable) {
	if t.States&capture.SynSent.Mask() == 0 {
		return
	}
	d.tables++
	for i := range t.Sockets {
		s := &t.Sockets[i]
		if s.State != capture.SynSent {
			continue
		}
		x := d.sockets.get(s.Cookie)
		if x == nil {
			continue
		}
		if x.call == nil {
			if x.call = d.calls.get(callKey{s.Local.Addr, s.Remote}); x.call == nil {
				x.call = new(openingCalls) // there are too many
			}
			x.since = at
		}
		x.table, x.call.seen = d.tables, at
		if s.Retries > x.retries {
			x.call.repeats += uint32(s.Retries - x.retries)
			x.retries = s.Retries
		}
		if wait := at.Sub(x.since); wait >= synPatience && !x.counted {
			x.counted = true
			x.call.failed++
			if x.call.onset == 0 {
				x.call.onset = x.since
			}
			x.call.last, x.call.longest = at, max(x.call.longest, wait)
		}
	}
	if t.Interrupted {
		return
	}
	d.sockets.each(func(_ uint64, x *openingSocket) bool {
		if x.table != d.tables && !x.counted {
			x.call.opened++
		}
		return x.table == d.tables
	})
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
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectUpstream, Host: k.client.String(), Peer: k.server.Addr.String(), Port: k.server.Port},
			Onset: c.onset, Features: f})
		return true
	})
}
