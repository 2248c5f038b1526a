package view

import (
	"slices"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
)

// recentWidth is the width of a bucket of a Recent collector: a window of judgement. The buckets cover five to ten minutes then.
const recentWidth = capture.Instant(time.Second)

// Recent returns a Collector that forgets: where New merges buckets as time grows, it drops the older half of them. For engines that
// run for months, of which the last minutes are asked for. It has no examples.
func Recent() *Collector {
	c := New()
	c.recent = true
	return c
}

// forget drops what is so old that at has no room, at least half of the buckets, and what nothing was heard of since.
func (c *Collector) forget(at capture.Instant) {
	i := c.bucket(at)
	if i < MaxBuckets {
		return
	}
	n := (i - MaxBuckets/2) / perSlot * perSlot
	c.start += capture.Instant(n) * c.width
	n = min(n, MaxBuckets) // of what is kept
	drop(c.host.Before, n)
	drop(c.host.After, n)
	drop(c.host.SYN, n)
	drop(c.host.SYNACK, n)
	for _, r := range c.host.Resets {
		drop(r, n)
	}
	c.services = slices.DeleteFunc(c.services, func(s *service) bool {
		heard := s.open.now > 0 || s.half.now > 0
		for _, x := range []Count{s.s.Requests, s.s.Answered, s.s.GaveUp, s.s.Unopened, s.trying} {
			heard = drop(x, n) || heard
		}
		s.open.drop(n)
		s.half.drop(n)
		return !heard
	})
	for i, s := range c.byNumber {
		if s != nil && !slices.Contains(c.services, s) {
			c.byNumber[i] = nil
		}
	}
	c.resolvers = slices.DeleteFunc(c.resolvers, func(r *resolver) bool {
		heard := false
		for _, x := range []Count{r.r.Answered, r.r.Unanswered, r.r.Again} {
			heard = drop(x, n) || heard
		}
		drop(r.r.Latency, n)
		if !heard {
			delete(c.byPair, r.ends)
		}
		return !heard
	})
	for port, l := range c.listeners {
		l.Unaccepted.drop(n)
		l.Held.drop(n)
		if !l.Queue.drop(n) {
			delete(c.listeners, port)
		}
	}
	c.flows = slices.DeleteFunc(c.flows, func(d *direction) bool {
		slots, heard := n/perSlot, false
		for _, x := range []*[Slots][Classes]uint32{&d.d.Sent, &d.d.Missing, &d.d.Again} {
			heard = drop(x[:], slots) || heard
		}
		if !heard {
			delete(c.byFlow, [2]capture.Addr{d.from, d.to})
		}
		return !heard
	})
	c.changes = slices.DeleteFunc(c.changes, func(x Change) bool { return x.At < c.start })
}

// drop moves a series n buckets to the front, and reports whether anything is left in it.
func drop[T comparable](series []T, n int) (left bool) {
	if len(series) == 0 {
		return false
	}
	clear(series[copy(series, series[n:]):])
	var zero T
	return slices.ContainsFunc(series, func(x T) bool { return x != zero })
}

func (l *Level) drop(n int) (left bool) {
	if l.Max == nil {
		return false
	}
	drop(l.Max, n)
	drop(l.Min, n)
	return drop(l.Seen, n)
}

func (c *carried) drop(n int) {
	c.level.drop(n)
	c.since = max(c.since-n, 0)
}

// example shows an event to what keeps examples.
func (c *Collector) example(e *flow.Event) {
	if !c.recent {
		c.examples.event(e)
	}
}
