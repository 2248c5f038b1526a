package detect

import (
	"jindan/analyze"
	"jindan/analyze/stat"
	"jindan/capture"
)

// rollSources ends the window for the sources. When a change has just been found, what they
// asked for since the onset is no longer the time before.
func (st *demandState) rollSources(found bool) {
	n := min(st.rate.Windows(), sourceWindows)
	st.sources.Each(func(_ capture.Addr, x *sourceState) bool {
		copy(x.recent[:], x.recent[1:])
		x.recent[sourceWindows-1] = uint16(min(x.cur, 1<<16-1))
		if x.idle++; x.cur > 0 {
			x.idle = 0
		}
		switch {
		case found:
			x.before += x.since + x.cur
			x.since, x.failed = 0, min(x.failed, x.cur)
			for _, k := range x.recent[sourceWindows-n:] {
				x.since += uint32(k)
			}
			// The rise begins within a window; the one before its first full one is neither before nor since.
			mixed := uint32(0)
			if n < sourceWindows {
				mixed = uint32(x.recent[sourceWindows-n-1])
			}
			x.before -= min(x.since+mixed, x.before)
		case st.rate.Locked:
			x.since += x.cur
		default:
			x.before += x.since + x.cur
			x.since, x.failed = 0, 0
		}
		x.cur = 0
		return x.idle < forgetSource || x.since > 0
	})
}

// measure compares the time since the onset with the time before; without an onset, everything.
func (st *demandState) measure(w *analyze.Window) (f Surge, busiest capture.Addr) {
	r := &st.rate
	total := r.Since
	span := max(float64(r.Windows()), 1)
	if !r.Locked {
		total, span = r.Total(), max(float64(r.Seen), 1)
	}
	of := func(x *sourceState) uint32 {
		if r.Locked {
			return x.since
		}
		return x.before
	}
	var first, next, active uint32
	var beforeTotal, failed, others uint32
	var top *sourceState
	for a, x := range st.sources.All {
		n := of(x)
		beforeTotal += x.before
		if n > 0 {
			active++
		}
		if n > first {
			first, next, busiest, top = n, first, a, x
		} else if n > next {
			next = n
		}
	}
	if top == nil {
		return f, busiest
	}
	var known uint32
	for a, x := range st.sources.All {
		if x.known || x.before > 0 {
			known += of(x)
		}
		if a != busiest {
			others += of(x)
			failed += x.failed
		}
	}
	f = Surge{SYNs: int(first), TotalSYNs: int(total), Share: stat.Ratio(first, max(total, first)), Rate: float64(first) / span,
		RateNext: float64(next) / span, Unanswered: int(st.ignored), Sources: int(active),
		OthersFailed: min(stat.Ratio(failed, others), 1), Class: classSingle}
	if !top.spoke && int(top.opened) >= w.Params.Int("min_seen") {
		f.Mute = int(top.opened)
	}
	if !r.Locked {
		return f, busiest
	}
	f.Baseline = r.BeforeSpan
	f.ShareBefore = stat.Ratio(top.before, max(beforeTotal, 1))
	if r.BeforeSpan > 0 {
		f.RateBefore = float64(top.before) / r.BeforeSpan
	}
	f.NewShare = 1 - min(stat.Ratio(known, max(total, 1)), 1)
	f.SourcesBefore, f.FailedBefore = st.timeBefore()
	f.AskedBefore = st.askedBefore()
	// One source stands out only if its share has grown: the proxy, through which everybody
	// comes, always had it all.
	if f.Share < w.Params.Float("min_share") || f.Share < w.Params.Float("min_share_growth")*f.ShareBefore {
		f.Class = classSpread
		f.SYNs, f.Rate, f.RateBefore = int(total), float64(total)/span, r.Before
		f.OthersFailed = min(stat.Ratio(failed+top.failed, max(total, 1)), 1)
	}
	return f, busiest
}

// askedBefore is how many requests a second came before the onset, on new connections or on those that there were. Who used to ask
// on connections that it kept, and now opens one for each request, asks no more than before.
func (st *demandState) askedBefore() float64 {
	n := st.rate.Windows()
	to := min(max(st.rate.Seen, n), stat.SeriesLen)
	var sum uint32
	for i := n; i < to; i++ {
		sum += st.asked[stat.SeriesLen-1-i]
	}
	return float64(sum) / max(float64(to-n)*analyze.WindowLength.Seconds(), 1)
}

// timeBefore looks at the windows before the onset: how many sources asked, in as many windows as have
// passed since, and the share of attempts that failed. The first window of the rise
// counts: clients that come back at once after a time-out fail and ask again together, while a
// surge brings no failure before its first requests have timed out.
func (st *demandState) timeBefore() (sources int, failedShare float64) {
	n := st.rate.Windows()
	k := min(n, sourceWindows/2)
	for _, x := range st.sources.All {
		if n+k <= sourceWindows {
			for _, c := range x.recent[sourceWindows-n-k : sourceWindows-n] {
				if c > 0 {
					sources++
					break
				}
			}
		} else if x.before > 0 {
			sources++
		}
	}
	var failed, all uint32
	for i := max(n-1, 0); i < min(n+failuresLook, stat.SeriesLen); i++ {
		failed += st.failed[stat.SeriesLen-1-i]
		all += st.rate.Back(i)
	}
	return sources, min(stat.Ratio(failed, max(all, 1)), 1)
}
