package detect

import (
	"time"

	"jindan/capture"
)

// stretch tells an outage from a restart: it knows the runs of seconds in which attempts failed. A
// second in which some succeed and none fails ends a run; a second without attempts does not.
type stretch struct {
	list    []run // finished and running, oldest first
	curGood bool
	curBad  capture.Instant // first failure of this window
	lastBad capture.Instant
	open    bool // the newest run goes on
}

type run struct{ from, to capture.Instant }

// maxRuns bounds the runs that are remembered.
const maxRuns = 64

func (s *stretch) good() { s.curGood = true }

func (s *stretch) bad(at capture.Instant) {
	if s.curBad == 0 || at < s.curBad {
		s.curBad = at
	}
	s.lastBad = max(s.lastBad, at)
}

func (s *stretch) roll() {
	switch {
	case s.curBad != 0:
		if !s.open {
			s.list = appendBounded(s.list, run{s.curBad, s.lastBad}, maxRuns)
			s.open = true
		}
		s.list[len(s.list)-1].to = s.lastBad
	case s.curGood:
		s.open = false
	}
	s.curBad, s.curGood = 0, false
}

// longest is the length of the longest run since at.
func (s *stretch) longest(at capture.Instant) (d time.Duration) {
	for _, r := range s.list {
		if r.to >= at {
			d = max(d, r.to.Sub(max(r.from, at)))
		}
	}
	return d
}

// over is after how many windows without a failure, or back at the old rate, a fault is over. Its
// finding is kept for longer, in case that it comes back; its last time is right.
const over = 5

// over reports whether attempts have gone well for a while, without a failure.
func (s *series) over() bool {
	quiet := 0
	for i := s.n - 1; i >= 0 && s.ring[i].bad == 0; i-- {
		if s.ring[i].total > 0 {
			quiet++
		}
	}
	return quiet >= over
}
