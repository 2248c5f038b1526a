package points

import (
	"math"
	"time"

	"jindan/capture"
)

// series counts what was lost, and all, by time and size.
type series struct {
	base, width capture.Instant
	ring        [][Bins]counts
}

type counts struct{ lost, absent, in uint32 }

func (s *series) add(at capture.Instant, bin int, c counts) {
	if s.width == 0 {
		s.base, s.width = at, capture.Instant(100*time.Millisecond)
	}
	k := max(0, int((at-s.base)/s.width))
	for k >= maxBuckets {
		s.width *= 2
		for i, x := range s.ring {
			if i%2 == 0 {
				s.ring[i/2] = x
				continue
			}
			for b := range x {
				s.ring[i/2][b].add(x[b])
			}
		}
		s.ring = s.ring[:(len(s.ring)+1)/2]
		k = int((at - s.base) / s.width)
	}
	for len(s.ring) <= k {
		s.ring = append(s.ring, [Bins]counts{})
	}
	s.ring[k][bin].add(c)
}

func (c *counts) add(d counts) {
	c.lost += d.lost
	c.absent += d.absent
	c.in += d.in
}

// passed is how many were counted from one time to another.
func (s *series) passed(from, to capture.Instant) (n uint64) {
	for i := range s.ring {
		if at := s.base + capture.Instant(i)*s.width; at+s.width > from && at <= to {
			n += s.share(i, i+1, 0, Bins, false).In
		}
	}
	return n
}

// share is of what was counted in some spans of time and bins of sizes; absent: what is absent is lost.
func (s *series) share(from, to, least, most int, absent bool) (sum Share) {
	for i := from; i < to; i++ {
		for _, x := range s.ring[i][least:most] {
			sum.Lost += uint64(x.lost)
			if absent {
				sum.Lost += uint64(x.absent)
			}
			sum.In += uint64(x.in)
		}
	}
	return sum
}

// Change is when more was lost than before and after.
type Change struct {
	At            capture.Instant
	End           capture.Instant // when it changed back; 0: it lasts
	Before, Since Share
	Smaller       Share // at the same time, of smaller ones
	SmallerAbsent Share // the same, as if what is absent were lost
}

// endCost: chance makes a change that ends, or begins, inside of a capture likelier by so much at one of so many places (log of maxBuckets), in nats.
const endCost = 6

// changeCost is what a change must be worth beside its ends: one in 1,000 by chance (log of 1,000), in nats.
const changeCost = 7

// Change is when the share of what is lost of the sizes from a bin on changed, and maybe changed back, by maximum likelihood.
// absent: what is absent is lost.
func (e *Edge) Change(least int, absent bool) Change {
	s := &e.series
	n := len(s.ring)
	sums := make([]Share, n+1)
	for i := range n {
		x := s.share(i, i+1, least, Bins, absent)
		sums[i+1] = Share{sums[i].Lost + x.Lost, sums[i].In + x.In}
	}
	all := sums[n]
	// The best span of time, and the best of those that last.
	type span struct {
		from, to   int
		gain, cost float64
	}
	var best, lasting span
	for i := range n {
		if sums[i+1].Lost == sums[i].Lost {
			continue
		}
		for k := i + 1; k <= n; k++ {
			if k < n && sums[k].Lost == sums[k-1].Lost || k-i == n {
				continue
			}
			in := sums[k].less(sums[i])
			out := all.less(in)
			x := span{i, k, logLik(in) + logLik(out) - logLik(all), changeCost}
			if i > 0 {
				x.cost += endCost
			}
			if k < n {
				x.cost += endCost
			}
			if x.gain-x.cost > best.gain-best.cost && in.Rate() > out.Rate() {
				best = x
			}
			if k == n && x.gain > lasting.gain && in.Rate() > out.Rate() {
				lasting = x
			}
		}
	}
	from, to := 0, n
	for _, x := range []span{best, lasting} {
		if x.gain > x.cost*clumped(sums, x.from, x.to) {
			from, to = x.from, x.to
			break
		}
	}
	c := Change{At: s.base + capture.Instant(from)*s.width, Before: sums[from], Since: sums[to].less(sums[from]), Smaller: s.share(from, to, 0, least, absent),
		SmallerAbsent: s.share(from, to, 0, least, true)}
	first := e.First
	if absent && e.firstAbsent != 0 && (first == 0 || e.firstAbsent < first) {
		first = e.firstAbsent
	}
	c.At = max(c.At, first) // the first one lost may be later in its span of time
	if to < n {
		c.End = s.base + capture.Instant(to)*s.width
	}
	return c
}

// clumped is how many times more the losses vary from one span of time to the next than those of single packets, each by its own chance, would: Pearson's
// statistic by its degrees of freedom, with a share of its own between from and to. Loss comes in bursts, and of one kind of packets more than of
// another one.
func clumped(sums []Share, from, to int) float64 {
	n := len(sums) - 1
	in := sums[to].less(sums[from])
	out := sums[n].less(in)
	sum, free := 0.0, 0
	for i, p := range []float64{out.Rate(), in.Rate()} {
		if p <= 0 || p >= 1 {
			continue
		}
		free--
		for k := range n {
			if x := sums[k+1].less(sums[k]); x.In > 0 && (k >= from && k < to) == (i == 1) {
				d := float64(x.Lost) - p*float64(x.In)
				sum += d * d / (p * (1 - p) * float64(x.In))
				free++
			}
		}
	}
	if free <= 0 {
		return 1
	}
	return max(1, sum/float64(free))
}

func (s Share) less(t Share) Share { return Share{s.Lost - t.Lost, s.In - t.In} }

// Rate is the share lost.
func (s Share) Rate() float64 { return float64(s.Lost) / float64(max(1, s.In)) }

func logLik(s Share) float64 {
	p := s.Rate()
	if p <= 0 || p >= 1 {
		return 0
	}
	return float64(s.Lost)*math.Log(p) + float64(s.In-s.Lost)*math.Log1p(-p)
}

// atMost is the share that may be bad, with 95 % confidence, where k of n were: Wilson's upper limit (JASA 22:209, 1927).
func atMost(k, n uint64) float64 {
	if n == 0 {
		return 1
	}
	const z = 1.645
	p, m := float64(k)/float64(n), float64(n)
	return min(1, (p+z*z/(2*m)+z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m)))/(1+z*z/m))
}
