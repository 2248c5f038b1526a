package points

import (
	"math/bits"
	"time"

	"jindan/capture"
)

// spacing counts what was lost by how long before the last packet that is at least half as large had passed. A device that limits a rate (a policer, a
// queue) passes what comes alone; one that fails by size does not care. Only the time from the first loss to the last one counts.
type spacing struct {
	last       [Bins]capture.Instant
	began      bool
	all, since gaps // since the first loss, since the last one
}

// gaps are in powers of two of a microsecond, up to half a second and more; by size.
type gaps [Bins][Gaps]struct{ lost, in uint32 }

// Gaps are how many times, in powers of two, packets are told apart by.
const Gaps = 20

func (s *spacing) add(at capture.Instant, bin int, lost bool) {
	if lost {
		s.began = true
	}
	if s.began {
		var last capture.Instant
		for _, t := range s.last[bin/2:] {
			last = max(last, t)
		}
		g := min(bits.Len64(uint64(max(0, at.Sub(last)/time.Microsecond))), Gaps-1)
		s.all[bin][g].in++
		s.since[bin][g].in++
		if lost {
			s.all[bin][g].lost++
			s.since = gaps{}
		}
	}
	if !lost {
		s.last[bin] = max(s.last[bin], at)
	}
}

// Spaced is what was lost of the packets from a size on that came close behind one that had passed, and of those that came at least so much later: 2^(gap-1)
// microseconds.
func (e *Edge) Spaced(least, gap int) (close, apart Share) {
	for b := least; b < Bins; b++ {
		for g, n := range e.spacing.all[b] {
			s := &close
			if g >= gap {
				s = &apart
			}
			s.Lost, s.In = s.Lost+uint64(n.lost), s.In+uint64(n.in-e.spacing.since[b][g].in)
		}
	}
	return close, apart
}
