package stat

import (
	"math"
	"time"

	"jindan/capture"
)

// Rates finds since when something happens more often: the change point of a Poisson rate
// (maximum likelihood), as series does for a share.
type Rates struct {
	ring [SeriesLen]uint32 // by window, the newest last
	n    int
	Seen int    // windows
	old  uint64 // events in windows that left the ring
	// Once a rise is found it holds until the rate is back for recovered windows.
	Locked     bool
	at         int             // windows since the rise
	Onset      capture.Instant // interpolated within its window
	Before     float64         // rate per window
	BeforeSpan float64         // windows = seconds
	Since      uint32
	Low        int // windows in a row below the middle of the two rates
	Quiet      int // windows in a row without an event
}

const (
	// MinRise is the least factor between the two rates.
	MinRise = 2
	// MinRate is the number of events in a window below which nobody looks for a rise: far below the
	// least rate that is called a surge.
	MinRate = 10
)

// Roll ends the window that ends at end, with n events.
func (r *Rates) Roll(n uint32, end capture.Instant) {
	r.Seen++
	if r.n == SeriesLen {
		r.old += uint64(r.ring[0])
		copy(r.ring[:], r.ring[1:])
		r.n--
	}
	r.ring[r.n] = n
	r.n++
	if r.Quiet++; n > 0 {
		r.Quiet = 0
	}
	if r.Locked {
		r.at++
		r.Since += n
		if r.Low++; float64(n) >= (r.Before+float64(r.Since)/float64(r.at))/2 {
			r.Low = 0
		}
		if r.Low >= Recovered {
			r.Locked, r.Low = false, 0
			return
		}
	}
	// While the rise is well within the ring, a greater one that follows it takes its place.
	if n >= MinRate && (r.at <= SeriesLen*3/4 || !r.Locked) {
		r.split(end)
	}
}

// Found reports whether there is a rise whose second window is complete: the first one tells
// when in it the rise began only when the new rate is known.
func (r *Rates) Found() bool { return r.Locked && r.at >= 2 }

// split looks for the window with which a higher rate begins.
func (r *Rates) split(end capture.Instant) {
	oldSpan := r.Seen - r.n
	sum0, total := r.old, r.Total()
	base := poissonLik(float64(total), float64(r.Seen))
	best, at := float64(minSplit), -1
	for i := range r.ring[:r.n] {
		span0 := oldSpan + i
		if span0 > 0 && r.ring[i] > 0 {
			n0, n1 := float64(sum0), float64(uint64(total)-sum0)
			s0, s1 := float64(span0), float64(r.n-i)
			if n1/s1 >= MinRise*n0/s0 {
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
	for at > 0 && oldSpan+at > 1 && r.ring[at-1] >= MinRate {
		n0 := float64(total)
		for _, k := range r.ring[at-1 : r.n] {
			n0 -= float64(k)
		}
		if float64(r.ring[at-1]) < MinRise*n0/float64(oldSpan+at-1) {
			break
		}
		at--
	}
	if !r.Locked {
		r.Low = 0
	}
	r.Locked, r.at = true, r.n-at
	r.Since = 0
	for _, k := range r.ring[at:r.n] {
		r.Since += k
	}
	r.BeforeSpan = float64(r.Seen - r.at)
	r.Before = float64(uint64(total)-uint64(r.Since)) / r.BeforeSpan
	// The part of the first window at the new rate.
	part := 1.0
	if n := float64(r.ring[at]); r.at >= 2 {
		after := float64(r.Since-r.ring[at]) / float64(r.at-1)
		part = min(max((n-r.Before)/max(after-r.Before, 1), 0), 1)
	}
	r.Onset = end.Add(-time.Duration((float64(r.at-1) + part) * float64(Window)))
}

// poissonLik is the log likelihood of n events in a span at their own rate, less what
// is common to all splits.
func poissonLik(n, span float64) float64 {
	if n == 0 {
		return 0
	}
	return n * math.Log(n/span)
}

// Total is the number of all events.
func (r *Rates) Total() uint32 {
	t := r.old
	for _, k := range r.ring[:r.n] {
		t += uint64(k)
	}
	return uint32(min(t, math.MaxUint32))
}

// Windows is how many windows have passed since the rise.
func (r *Rates) Windows() int {
	if r.Locked {
		return r.at
	}
	return 0
}

// Back is the number of events i windows ago; 0 if it is no longer known.
func (r *Rates) Back(i int) uint32 {
	if i < 0 || i >= r.n {
		return 0
	}
	return r.ring[r.n-1-i]
}
