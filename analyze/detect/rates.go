package detect

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// rates finds since when something happens more often: the change point of a Poisson rate
// (maximum likelihood), as series does for a share.
type rates struct {
	ring [seriesLen]uint32 // by window, the newest last
	n    int
	seen int    // windows
	old  uint64 // events in windows that left the ring
	// Once a rise is found it holds until the rate is back for recovered windows.
	locked     bool
	at         int             // windows since the rise
	onset      capture.Instant // interpolated within its window
	before     float64         // rate per window
	beforeSpan float64         // windows = seconds
	since      uint32
	low        int // windows in a row below the middle of the two rates
	quiet      int // windows in a row without an event
}

const (
	// minRise is the least factor between the two rates.
	minRise = 2
	// minRate is the number of events in a window below which nobody looks for a rise: far below the
	// least rate that is called a surge.
	minRate = 10
)

// roll ends the window that ends at end, with n events.
func (r *rates) roll(n uint32, end capture.Instant) {
	r.seen++
	if r.n == seriesLen {
		r.old += uint64(r.ring[0])
		copy(r.ring[:], r.ring[1:])
		r.n--
	}
	r.ring[r.n] = n
	r.n++
	if r.quiet++; n > 0 {
		r.quiet = 0
	}
	if r.locked {
		r.at++
		r.since += n
		if r.low++; float64(n) >= (r.before+float64(r.since)/float64(r.at))/2 {
			r.low = 0
		}
		if r.low >= recovered {
			r.locked, r.low = false, 0
			return
		}
	}
	// While the rise is well within the ring, a greater one that follows it takes its place.
	if n >= minRate && (r.at <= seriesLen*3/4 || !r.locked) {
		r.split(end)
	}
}

// found reports whether there is a rise whose second window is complete: the first one tells
// when in it the rise began only when the new rate is known.
func (r *rates) found() bool { return r.locked && r.at >= 2 }

// split looks for the window with which a higher rate begins.
func (r *rates) split(end capture.Instant) {
	oldSpan := r.seen - r.n
	sum0, total := r.old, r.total()
	base := poissonLik(float64(total), float64(r.seen))
	best, at := float64(minSplit), -1
	for i := range r.ring[:r.n] {
		span0 := oldSpan + i
		if span0 > 0 && r.ring[i] > 0 {
			n0, n1 := float64(sum0), float64(uint64(total)-sum0)
			s0, s1 := float64(span0), float64(r.n-i)
			if n1/s1 >= minRise*n0/s0 {
				if l := poissonLik(n0, s0) + poissonLik(n1, s1) - base; l > best {
					best, at = l, i
				}
			}
		}
		sum0 += uint64(r.ring[i])
	}
	if at < 0 {
		return
	}
	// A rise that takes seconds began with its first window that stands out, not with the one from which on it is steepest.
	for at > 0 && oldSpan+at > 1 && r.ring[at-1] >= minRate {
		n0 := float64(total)
		for _, k := range r.ring[at-1 : r.n] {
			n0 -= float64(k)
		}
		if float64(r.ring[at-1]) < minRise*n0/float64(oldSpan+at-1) {
			break
		}
		at--
	}
	if !r.locked {
		r.low = 0
	}
	r.locked, r.at = true, r.n-at
	r.since = 0
	for _, k := range r.ring[at:r.n] {
		r.since += k
	}
	r.beforeSpan = float64(r.seen - r.at)
	r.before = float64(uint64(total)-uint64(r.since)) / r.beforeSpan
	// The part of the first window at the new rate.
	part := 1.0
	if n := float64(r.ring[at]); r.at >= 2 {
		after := float64(r.since-r.ring[at]) / float64(r.at-1)
		part = min(max((n-r.before)/max(after-r.before, 1), 0), 1)
	}
	r.onset = end.Add(-time.Duration((float64(r.at-1) + part) * float64(analyze.WindowLength)))
}

// poissonLik is the log likelihood of n events in a span at their own rate, less what
// is common to all splits.
func poissonLik(n, span float64) float64 {
	if n == 0 {
		return 0
	}
	return n * math.Log(n/span)
}

// total is the number of all events.
func (r *rates) total() uint32 {
	t := r.old
	for _, k := range r.ring[:r.n] {
		t += uint64(k)
	}
	return uint32(min(t, math.MaxUint32))
}

// windows is how many windows have passed since the rise.
func (r *rates) windows() int {
	if r.locked {
		return r.at
	}
	return 0
}

// back is the number of events i windows ago; 0 if it is no longer known.
func (r *rates) back(i int) uint32 {
	if i < 0 || i >= r.n {
		return 0
	}
	return r.ring[r.n-1-i]
}
