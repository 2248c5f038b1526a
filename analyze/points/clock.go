package points

import (
	"math"
	"time"

	"jindan/capture"
)

const (
	// maxSkew bounds how much faster one clock runs than another: the kernel slews by 500 ppm at most (MAXFREQ,
	// include/linux/timex.h), and crystals are better than that.
	maxSkew = 1000e-6
	// maxBuckets is how many spans of time the envelope keeps; they grow with the capture.
	maxBuckets = 512
	// grain is how wrong a time stamp may be beside the clock: they are often of whole microseconds, and are taken before or behind a
	// queue of the capturing host.
	grain = 2e-6 // s
)

// envelope keeps, span by span, the least time that packets took from one point to another by the points' own clocks, and back. The
// offset of the clocks lies between: a packet cannot arrive before it was sent.
type envelope struct {
	base    capture.Instant
	width   capture.Instant
	buckets []span
}

type span [2]struct {
	at   capture.Instant
	took float64 // s
	ok   bool
}

// add takes a packet that passed at the time at: took is the second point's time less the first one's, back says that it came from
// the second one.
func (e *envelope) add(at capture.Instant, took float64, back bool) {
	if e.width == 0 {
		e.base, e.width = at, capture.Instant(100*time.Millisecond)
	}
	w := 0
	if back {
		w, took = 1, -took
	}
	k := max(0, int((at-e.base)/e.width))
	for k >= maxBuckets {
		e.width *= 2
		for i, s := range e.buckets {
			if i%2 == 0 {
				e.buckets[i/2] = s
			} else {
				e.buckets[i/2].merge(s)
			}
		}
		e.buckets = e.buckets[:(len(e.buckets)+1)/2]
		k = int((at - e.base) / e.width)
	}
	for len(e.buckets) <= k {
		e.buckets = append(e.buckets, span{})
	}
	if b := &e.buckets[k][w]; !b.ok || took < b.took {
		b.at, b.took, b.ok = at, took, true
	}
}

func (s *span) merge(t span) {
	for w := range s {
		if t[w].ok && (!s[w].ok || t[w].took < s[w].took) {
			s[w] = t[w]
		}
	}
}

// Clock says how far the clock of one point is ahead of another's. The zero value is a clock of which nothing is known.
type Clock struct {
	lines []line // the corners of all that is possible
	base  capture.Instant
	// Stepped: no steady pair of clocks can have shown these times.
	Stepped bool
}

// line is an offset at the time base, in seconds, and how it grows, in seconds a second.
type line struct{ offset, skew float64 }

// Known reports whether packets in both directions have bound the clock.
func (c *Clock) Known() bool { return len(c.lines) > 0 }

// At is the offset at a time, in the middle of what is possible, and how far it may be off.
func (c *Clock) At(at capture.Instant) (offset, bound time.Duration) {
	if len(c.lines) == 0 {
		return 0, math.MaxInt64
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	t := at.Sub(c.base).Seconds()
	for _, l := range c.lines {
		v := l.offset + l.skew*t
		lo, hi = min(lo, v), max(hi, v)
	}
	return seconds((lo + hi) / 2), seconds((hi - lo) / 2)
}

// Skew is how much faster the clock runs, in seconds a second, and how far that may be off.
func (c *Clock) Skew() (skew, bound float64) {
	if len(c.lines) == 0 {
		return 0, maxSkew
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, l := range c.lines {
		lo, hi = min(lo, l.skew), max(hi, l.skew)
	}
	return (lo + hi) / 2, (hi - lo) / 2
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// clock finds all pairs of offset and skew that no packet contradicts: each one takes away a half-plane.
func (e *envelope) clock() Clock {
	c := Clock{base: e.base}
	least := [2]float64{math.Inf(1), math.Inf(1)}
	for _, b := range e.buckets {
		for w := range b {
			if b[w].ok {
				least[w] = min(least[w], b[w].took)
			}
		}
	}
	if math.IsInf(least[0], 1) || math.IsInf(least[1], 1) {
		return c
	}
	length := time.Duration(e.width).Seconds() * float64(len(e.buckets))
	lo, hi := -least[1]-1-length*maxSkew, least[0]+1+length*maxSkew
	if lo > hi {
		lo, hi = hi, lo
	}
	lines := []line{{lo, -maxSkew}, {hi, -maxSkew}, {hi, maxSkew}, {lo, maxSkew}}
	for _, b := range e.buckets {
		for w := range b {
			if b[w].ok {
				lines = cut(lines, b[w].at.Sub(e.base).Seconds(), b[w].took+grain, w == 1)
			}
		}
	}
	c.lines, c.Stepped = lines, len(lines) == 0
	return c
}

// cut keeps of a convex set of lines those that at time t are not above most (below −most for the way back).
func cut(set []line, t, most float64, back bool) []line {
	over := func(l line) float64 {
		v := l.offset + l.skew*t
		if back {
			v = -v
		}
		return v - most
	}
	var kept []line
	for i, l := range set {
		m := set[(i+1)%len(set)]
		a, b := over(l), over(m)
		if a <= 0 {
			kept = append(kept, l)
		}
		if (a < 0) != (b < 0) && a != 0 && b != 0 {
			f := a / (a - b)
			kept = append(kept, line{l.offset + f*(m.offset-l.offset), l.skew + f*(m.skew-l.skew)})
		}
	}
	return kept
}
