package stat

import (
	"time"

	"jindan/capture"
)

// Runs tells an outage from a restart: it knows the runs of seconds in which attempts failed. A
// second in which some succeed and none fails ends a run; a second without attempts does not.
type Runs struct {
	list    []run // finished and running, oldest first
	curGood bool
	curBad  capture.Instant // first failure of this window
	lastBad capture.Instant
	open    bool // the newest run goes on
}

type run struct{ from, to capture.Instant }

// maxRuns bounds the runs that are remembered.
const maxRuns = 64

// Good takes an attempt that succeeded.
func (s *Runs) Good() { s.curGood = true }

// Bad takes one that failed at at.
func (s *Runs) Bad(at capture.Instant) {
	if s.curBad == 0 || at < s.curBad {
		s.curBad = at
	}
	s.lastBad = max(s.lastBad, at)
}

// Roll ends the window.
func (s *Runs) Roll() {
	switch {
	case s.curBad != 0:
		if !s.open {
			s.list = AppendBounded(s.list, run{s.curBad, s.lastBad}, maxRuns)
			s.open = true
		}
		s.list[len(s.list)-1].to = s.lastBad
	case s.curGood:
		s.open = false
	}
	s.curBad, s.curGood = 0, false
}

// Longest is the length of the longest run since at.
func (s *Runs) Longest(at capture.Instant) (d time.Duration) {
	for _, r := range s.list {
		if r.to >= at {
			d = max(d, r.to.Sub(max(r.from, at)))
		}
	}
	return d
}

// AppendBounded appends x. When there are limit, the oldest quarter goes, so that the cost of moving
// the others is shared.
func AppendBounded[T any](v []T, x T, limit int) []T {
	if len(v) >= limit {
		v = v[:copy(v, v[limit/4:])]
	}
	return append(v, x)
}
