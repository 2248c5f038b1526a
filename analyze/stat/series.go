// Package stat is what detectors count with: series by window of event time with their change point, rates, quantiles, tests.
package stat

import (
	"math"
	"time"

	"jindan/capture"
)

// Window is what one roll of a series stands for.
const Window = time.Second

// SeriesLen is how many windows (seconds) a series remembers one by one. It bounds how far back
// an onset can be found: the longest chain measured in the rebuilt incident, fault to full CLOSE_WAIT
// plateau, takes half a minute.
const SeriesLen = 128

// minSplit is the log likelihood ratio (nats) from which a change of rate counts as one: a
// likelihood ratio of e^6 ≈ 400 makes up for looking at seriesLen possible places.
const minSplit = 6

// Point is one window: how many went wrong of how many.
type Point struct {
	Bad, Total uint32
	First      capture.Instant // first bad one
}

// Series finds since when something goes wrong, and how often before and since. The moment is
// the change point of a binomial rate (maximum likelihood), not the first bad
// event: sporadic failures before a fault belong to the time before.
type Series struct {
	ring [SeriesLen]Point
	n    int // windows stored, the newest last
	cur  Point
	Old  Point // windows that left the ring, and what preceded the series; no fault that is over
	// Once a change is found it holds until no more goes wrong than before it for recovered windows.
	Locked      bool
	at          int // windows since the change, incl. the first
	Onset       capture.Instant
	Before      Point
	BeforeSpan  float64 // seconds
	Since       Point
	calm        int // the newest windows in which nothing went wrong
	back        int // the newest windows in which no more went wrong than before the change
	idle        int // windows without anything
	windowsSeen int
}

const (
	// Recovered is after how many windows with activity, but no more failures than are usual, a fault is forgotten, wellAgain if nothing fails and
	// so many attempts in a row would hardly pass while it lasts.
	Recovered = 30
	wellAgain = 10
	// maxLuck is the probability below which what passes passes not by chance.
	maxLuck = 0.01
)

// usual is the share that went wrong before the change, and does so still when the fault is over.
func (s *Series) usual() float64 {
	if !s.Locked {
		return 0
	}
	return s.Before.Share()
}

// end finds for how many windows no more has gone wrong than is usual: since the last failure; where some always fail, since the place that
// divides the windows since the change into a time at a share of its own and one at the usual share, if that is more likely by as much as luck
// is not, and what has failed since does not speak against it.
func (s *Series) end() (back int) {
	back = min(s.calm, s.n)
	usual := s.usual()
	if usual == 0 {
		return back
	}
	fault, now := s.Since, Point{}
	best := LogLik(fault.Bad, fault.Total) - math.Log(maxLuck)
	for i := 1; i < min(s.at, s.n); i++ {
		p := &s.ring[s.n-i]
		fault.less(p)
		now.Bad += p.Bad
		now.Total += p.Total
		ok := now.Total - min(now.Bad, now.Total)
		l := LogLik(fault.Bad, fault.Total) + float64(now.Bad)*math.Log(usual) + float64(ok)*math.Log1p(-usual)
		if l >= best && now.is(usual) {
			best, back = l, max(i, back)
		}
	}
	return back
}

// less takes away a part.
func (p *Point) less(q *Point) {
	p.Bad -= min(q.Bad, p.Bad)
	p.Total -= min(q.Total, p.Total)
}

// sinceEnd is what was tried since the end, and of it what failed.
func (s *Series) sinceEnd() (p Point) {
	for i := s.n - s.back; i < s.n; i++ {
		p.Bad += s.ring[i].Bad
		p.Total += s.ring[i].Total
	}
	p.Total = min(p.Total, s.Since.Total)
	return p
}

// luck is the probability that no more attempts fail than have since the end, if the share that failed until then still did.
func (s *Series) luck() float64 {
	now, fault := s.sinceEnd(), s.Since
	fault.less(&now)
	if now.Bad == 0 {
		return math.Pow(1-min(fault.Share(), 1), float64(now.Total))
	}
	return 1 - AtLeast(int(now.Bad)+1, int(now.Total), min(fault.Share(), 1))
}

// is reports whether what fails may be the usual share: more would not fail by chance.
func (p *Point) is(usual float64) bool {
	return float64(p.Bad) <= usual*float64(p.Total) || AtLeast(int(p.Bad), int(p.Total), usual) >= maxLuck
}

// Add counts total events of the current window, bad of them bad, the first bad one at first.
func (s *Series) Add(bad, total uint32, first capture.Instant) {
	if bad > 0 && (s.cur.First == 0 || first < s.cur.First) {
		s.cur.First = first
	}
	s.cur.Bad += bad
	s.cur.Total += total
}

// Borrow moves n of the totals of earlier windows to the open one: that they went wrong is known only now.
func (s *Series) Borrow(n uint32) {
	s.cur.Total += n
	for i := s.n - 1; i >= 0 && n > 0; i-- {
		p := &s.ring[i]
		k := min(n, p.Total-min(p.Bad, p.Total))
		p.Total -= k
		n -= k
		switch {
		case s.Locked && i >= s.n-s.at:
			s.Since.Total -= min(k, s.Since.Total)
		case s.Locked:
			s.Before.Total -= min(k, s.Before.Total)
		}
	}
	s.Old.Total -= min(n, s.Old.Total-min(s.Old.Bad, s.Old.Total))
}

// Cover makes the total of the open window no smaller than what went wrong in it.
func (s *Series) Cover() { s.cur.Total = max(s.cur.Total, s.cur.Bad) }

// Skip ends the window as a part of the time before: nothing has gone wrong so far.
func (s *Series) Skip() {
	s.Old.Total += s.cur.Total
	s.cur = Point{}
	s.windowsSeen++
}

// Precede says that n windows came before the first one that is counted.
func (s *Series) Precede(n int) { s.windowsSeen = n }

// Recent are the windows that are remembered one by one, the oldest first.
func (s *Series) Recent() []Point { return s.ring[:s.n] }

// Ever is how many events were counted since the series began.
func (s *Series) Ever() uint32 {
	all := s.Old.Total + s.cur.Total
	for i := range s.ring[:s.n] {
		all += s.ring[i].Total
	}
	return all
}

// LastTry is the end of the last window in which anything was tried; end is that of the newest.
func (s *Series) LastTry(end capture.Instant) capture.Instant {
	return end.Add(-time.Duration(s.idle) * Window)
}

// Passes reports whether what failed has passed for a while as it usually does, and not by chance.
func (s *Series) Passes() bool {
	_, tried := s.passing()
	return tried >= Over && s.luck() < maxLuck
}

// Roll ends the window.
func (s *Series) Roll() {
	p := s.cur
	s.cur = Point{}
	s.windowsSeen++
	if s.idle++; p.Total > 0 {
		s.idle = 0
	}
	if s.n == SeriesLen {
		s.Old.Bad += s.ring[0].Bad
		s.Old.Total += s.ring[0].Total
		copy(s.ring[:], s.ring[1:])
		s.n--
	}
	s.ring[s.n] = p
	s.n++
	if s.calm++; p.Bad > 0 {
		s.calm = 0
	}
	if s.Locked {
		s.Since.Bad += p.Bad
		s.Since.Total += p.Total
		s.at++
		if s.back = s.end(); s.recovered() {
			s.forget()
		} else if s.at > settled {
			s.worsen()
			s.back = s.end()
			return
		}
	}
	s.split()
	s.back = s.end()
}

// recovered reports whether the fault has been over for so long that it is forgotten.
func (s *Series) recovered() bool {
	_, tried := s.passing()
	return tried >= Recovered && s.tells(tried) || tried >= wellAgain && s.sinceEnd().Bad == 0 && s.luck() < maxLuck
}

// forget takes the fault out: the next one is held against what is usual, the time before this one and what came since its end.
func (s *Series) forget() {
	s.Old = s.Before
	s.n = copy(s.ring[:], s.ring[s.n-s.back:s.n])
	s.Locked = false
}

const (
	// settled is for how many windows a change is looked for anew with each window; after that it stands.
	settled = 32
	// worse: a later, second change counts when the share of failures is this many times as high
	// as since the first: a fault that begins during a small disturbance has its own onset.
	worse = 3
)

// worsen looks for a second change within the time since the first.
func (s *Series) worsen() {
	from := s.n - min(s.at, s.n)
	at, before, since := best(s.ring[from:s.n], Point{})
	if at < 0 || since.Share() < worse*before.Share() {
		return
	}
	at += from
	s.Before.Bad += before.Bad
	s.Before.Total += before.Total
	s.change(at, since)
}

// split looks for the place that best divides the windows into a better and a worse time.
func (s *Series) split() {
	at, before, since := best(s.ring[:s.n], s.Old)
	if before.Bad+since.Bad == s.Old.Bad {
		s.Locked, s.Since = false, Point{} // nothing in living memory
		return
	}
	if at < 0 && s.Locked && s.isBack() {
		return // what is usual again would hide the change
	}
	s.Before, s.Since = Point{}, Point{}
	if at < 0 {
		// No change: it has been so for as long as is known.
		s.Locked = false
		s.Onset = s.firstBad(0)
		s.Since = since
		s.BeforeSpan = 0
		return
	}
	s.Before = before
	s.change(at, since)
}

// change sets the onset at window at of the ring.
func (s *Series) change(at int, since Point) {
	s.Since = since
	s.Onset = s.firstBad(at)
	s.BeforeSpan = float64(s.windowsSeen - (s.n - at))
	s.at = s.n - at
	s.Locked = true
}

// firstBad is when the first of what is bad from window at on began, 0 if nothing is. What was decided late stands in a later window.
func (s *Series) firstBad(at int) (first capture.Instant) {
	for i := range s.ring[at:s.n] {
		if p := &s.ring[at+i]; p.Bad > 0 && (first == 0 || p.First < first) {
			first = p.First
		}
	}
	return first
}

// best divides windows, which old precedes, where the likelihood gains most. Without a gain of
// minSplit at is -1, and since holds everything.
func best(ring []Point, old Point) (at int, before, since Point) {
	all := old
	for i := range ring {
		all.Bad += ring[i].Bad
		all.Total += ring[i].Total
	}
	base := LogLik(all.Bad, all.Total)
	gain, sum := 0.0, old
	at = -1
	for i := range ring {
		rest := Point{Bad: all.Bad - sum.Bad, Total: all.Total - sum.Total}
		if ring[i].Bad > 0 && sum.Total > 0 && uint64(rest.Bad)*uint64(sum.Total) > uint64(sum.Bad)*uint64(rest.Total) {
			if l := LogLik(sum.Bad, sum.Total) + LogLik(rest.Bad, rest.Total) - base; l > gain {
				gain, at, before, since = l, i, sum, rest
			}
		}
		sum.Bad += ring[i].Bad
		sum.Total += ring[i].Total
	}
	if gain < minSplit {
		return -1, Point{}, all
	}
	return at, before, since
}

// Windows is how many of the newest windows belong to the time since the onset, at most seriesLen.
func (s *Series) Windows() int {
	if s.Locked {
		return min(s.at, s.n)
	}
	return s.n
}

// LogLik is the log likelihood of bad of total at their own share, less what is common to all splits.
func LogLik(bad, total uint32) float64 {
	if bad == 0 || bad >= total {
		return 0
	}
	b, n := float64(bad), float64(total)
	return b*math.Log(b/n) + (n-b)*math.Log(1-b/n)
}

// Share is how many of all went wrong.
func (p Point) Share() float64 { return Ratio(p.Bad, p.Total) }

// Over is after how many windows without a failure, or back at the old rate, a fault is over. Its
// finding is kept for longer, in case that it comes back; its last time is right.
const Over = 5

// isBack reports whether no more fails than before the change, where some always do.
func (s *Series) isBack() bool {
	_, tried := s.passing()
	return s.usual() > 0 && s.tells(tried)
}

// Over reports whether attempts have gone well for a while, with no more failures than are usual.
func (s *Series) Over() bool {
	quiet, tried := s.passing()
	return quiet >= Over && s.tells(tried)
}

// Well is since when attempts go well, 0 if they do not, or may do so by chance; end is that of the newest window.
func (s *Series) Well(end capture.Instant) capture.Instant {
	if quiet, tried := s.passing(); s.tells(tried) {
		return end.Add(-time.Duration(quiet) * Window)
	}
	return 0
}

// passing is how many windows have gone by since the end, and in how many of them something was tried.
func (s *Series) passing() (quiet, tried int) {
	for i := s.n - s.back; i < s.n; i++ {
		if s.ring[i].Total > 0 {
			tried++
		}
	}
	return s.back, tried
}

// tells reports whether something was tried in so many windows, or so often, that it tells. Where some have failed since the end, a few windows
// with no more than are usual may be luck: nothing but the number of attempts tells.
func (s *Series) tells(tried int) bool {
	return tried >= Over && s.sinceEnd().Bad == 0 || tried > 0 && s.luck() < maxLuck
}

// Ceased reports whether what happened n times within span would hardly pause for that long by chance, if it went on (Poisson).
func Ceased(n int, span, pause time.Duration) bool {
	return n > 0 && float64(n)*pause.Seconds() > -math.Log(maxLuck)*max(span, Window).Seconds()
}
