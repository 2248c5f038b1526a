package detect

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// seriesLen is how many windows (seconds) a series remembers one by one. It bounds how far back
// an onset can be found: the longest chain measured in the rebuilt incident, fault to full CLOSE_WAIT
// plateau, takes half a minute.
const seriesLen = 128

// minSplit is the log likelihood ratio (nats) from which a change of rate counts as one: a
// likelihood ratio of e^6 ≈ 400 makes up for looking at seriesLen possible places.
const minSplit = 6

// point is one window: how many went wrong of how many.
type point struct {
	bad, total uint32
	first      capture.Instant // first bad one
}

// series finds since when something goes wrong, and how often before and since. The moment is
// the change point of a binomial rate (maximum likelihood), not the first bad
// event: sporadic failures before a fault belong to the time before.
type series struct {
	ring  [seriesLen]point
	n     int // windows stored, the newest last
	cur   point
	began capture.Instant
	old   point // windows that left the ring, and what preceded the series; no fault that is over
	// Once a change is found it holds until nothing goes wrong for recovered windows.
	locked      bool
	at          int // windows since the change, incl. the first
	onset       capture.Instant
	before      point
	beforeSpan  float64 // seconds
	since       point
	quiet       int
	idle        int // windows without anything
	windowsSeen int
}

const (
	// recovered is after how many windows with activity but nothing bad a fault is forgotten, wellAgain if so many attempts in a row would
	// hardly pass while it lasts.
	recovered = 30
	wellAgain = 10
	// maxLuck is the probability below which what passes passes not by chance.
	maxLuck = 0.01
)

// passed is how many attempts have passed since the last failure.
func (s *series) passed() (n uint32) {
	for i := s.n - 1; i >= 0 && s.ring[i].bad == 0; i-- {
		n += s.ring[i].total
	}
	return min(n, s.since.total)
}

// luck is the probability that all attempts since the last failure pass if the share that failed until then still did.
func (s *series) luck() float64 {
	passed := s.passed()
	bad := point{bad: s.since.bad, total: s.since.total - passed}
	return math.Pow(1-min(bad.share(), 1), float64(passed))
}

// add counts total events of the current window, bad of them bad, the first bad one at first.
func (s *series) add(bad, total uint32, first capture.Instant) {
	if bad > 0 && (s.cur.first == 0 || first < s.cur.first) {
		s.cur.first = first
	}
	s.cur.bad += bad
	s.cur.total += total
}

// borrow moves n of the totals of earlier windows to the open one: that they went wrong is known only now.
func (s *series) borrow(n uint32) {
	s.cur.total += n
	for i := s.n - 1; i >= 0 && n > 0; i-- {
		p := &s.ring[i]
		k := min(n, p.total-min(p.bad, p.total))
		p.total -= k
		n -= k
		switch {
		case s.locked && i >= s.n-s.at:
			s.since.total -= min(k, s.since.total)
		case s.locked:
			s.before.total -= min(k, s.before.total)
		}
	}
	s.old.total -= min(n, s.old.total-min(s.old.bad, s.old.total))
}

// lastTry is the end of the last window in which anything was tried; end is that of the newest.
func (s *series) lastTry(end capture.Instant) capture.Instant {
	return end.Add(-time.Duration(s.idle) * analyze.WindowLength)
}

// passes reports whether what failed has passed for a while, and not by chance.
func (s *series) passes() bool { return s.over() && s.luck() < maxLuck }

// roll ends the window.
func (s *series) roll() {
	p := s.cur
	s.cur = point{}
	s.windowsSeen++
	if s.idle++; p.total > 0 {
		s.idle = 0
	}
	if s.n == seriesLen {
		s.old.bad += s.ring[0].bad
		s.old.total += s.ring[0].total
		copy(s.ring[:], s.ring[1:])
		s.n--
	}
	s.ring[s.n] = p
	s.n++
	if s.locked {
		s.since.bad += p.bad
		s.since.total += p.total
		s.at++
		switch {
		case p.bad > 0:
			s.quiet = 0
		case p.total > 0:
			s.quiet++
		}
		if s.quiet >= recovered || s.quiet >= wellAgain && s.luck() < maxLuck {
			// The next fault is held against what is usual: the time before this one, and what has passed since its end.
			s.locked = false
			s.old = s.before
			s.old.total += s.passed()
			s.n = 0
		} else if s.at > settled {
			s.worsen()
			return
		}
	}
	s.split()
}

const (
	// settled is for how many windows a change is looked for anew with each window; after that it stands.
	settled = 32
	// worse: a later, second change counts when the share of failures is this many times as high
	// as since the first: a fault that begins during a small disturbance has its own onset.
	worse = 3
)

// worsen looks for a second change within the time since the first.
func (s *series) worsen() {
	from := s.n - min(s.at, s.n)
	at, before, since := best(s.ring[from:s.n], point{})
	if at < 0 || since.share() < worse*before.share() {
		return
	}
	at += from
	s.before.bad += before.bad
	s.before.total += before.total
	s.change(at, since)
}

// split looks for the place that best divides the windows into a better and a worse time.
func (s *series) split() {
	at, before, since := best(s.ring[:s.n], s.old)
	if before.bad+since.bad == s.old.bad {
		s.locked, s.since = false, point{} // nothing in living memory
		return
	}
	s.before, s.since = point{}, point{}
	if at < 0 {
		// No change: it has been so for as long as is known.
		if s.locked {
			s.locked = false
		}
		s.onset = 0
		for i := range s.ring[:s.n] {
			if s.ring[i].bad > 0 {
				s.onset = s.ring[i].first
				break
			}
		}
		s.since = since
		s.beforeSpan = 0
		return
	}
	s.before = before
	s.change(at, since)
}

// change sets the onset at window at of the ring.
func (s *series) change(at int, since point) {
	s.since = since
	s.onset = s.ring[at].first
	s.beforeSpan = float64(s.windowsSeen - (s.n - at))
	s.at = s.n - at
	s.locked = true
	s.quiet = 0
	for i := s.n - 1; i >= at && s.ring[i].bad == 0; i-- {
		if s.ring[i].total > 0 {
			s.quiet++
		}
	}
}

// best divides windows, which old precedes, where the likelihood gains most. Without a gain of
// minSplit at is -1, and since holds everything.
func best(ring []point, old point) (at int, before, since point) {
	all := old
	for i := range ring {
		all.bad += ring[i].bad
		all.total += ring[i].total
	}
	base := logLik(all.bad, all.total)
	gain, sum := 0.0, old
	at = -1
	for i := range ring {
		rest := point{bad: all.bad - sum.bad, total: all.total - sum.total}
		if ring[i].bad > 0 && sum.total > 0 && uint64(rest.bad)*uint64(sum.total) > uint64(sum.bad)*uint64(rest.total) {
			if l := logLik(sum.bad, sum.total) + logLik(rest.bad, rest.total) - base; l > gain {
				gain, at, before, since = l, i, sum, rest
			}
		}
		sum.bad += ring[i].bad
		sum.total += ring[i].total
	}
	if gain < minSplit {
		return -1, point{}, all
	}
	return at, before, since
}

// windows is how many of the newest windows belong to the time since the onset, at most seriesLen.
func (s *series) windows() int {
	if s.locked {
		return min(s.at, s.n)
	}
	return s.n
}

func logLik(bad, total uint32) float64 {
	if bad == 0 || bad >= total {
		return 0
	}
	b, n := float64(bad), float64(total)
	return b*math.Log(b/n) + (n-b)*math.Log(1-b/n)
}

func (p point) share() float64 { return ratio(p.bad, p.total) }

func ratio[N uint32 | uint64 | int](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// fisher is the one-sided p-value of Fisher's exact test that the first of two groups fails
// more often: a of n against b of m.
func fisher(a, n, b, m uint32) float64 {
	lg := func(x uint32) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	choose := func(n, k uint32) float64 { return lg(n) - lg(k) - lg(n-k) }
	k := a + b
	if a > n || b > m || k == 0 {
		return 1
	}
	denom := choose(n+m, k)
	p := 0.0
	for x := a; x <= min(n, k); x++ {
		if k-x > m {
			continue
		}
		p += math.Exp(choose(n, x) + choose(m, k-x) - denom)
	}
	return min(p, 1)
}
