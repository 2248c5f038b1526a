package measure

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Cohorts counts things that are going on by the second in which they began, so that their number
// and age are known without a list of them.
type Cohorts struct {
	counts [64]int32 // by second, of the newest 64
	Older  int32     // begun before
	Total  int32
	now    int64 // newest second seen
	began  bool  // now is valid
}

// second is the one that holds at, before 1970 as well as after.
func second(at capture.Instant) int64 {
	n := int64(analyze.WindowLength)
	s := int64(at) / n
	if int64(at)%n < 0 {
		s--
	}
	return s
}

// of returns the place of second s.
func (c *Cohorts) of(s int64) *int32 { return &c.counts[uint64(s)%uint64(len(c.counts))] }

func (c *Cohorts) slot(at capture.Instant) *int32 {
	s := second(at)
	c.advance(s)
	if s <= c.now-int64(len(c.counts)) {
		return &c.Older
	}
	return c.of(s)
}

// advance makes room for second s: what is 64 seconds old joins the older ones.
func (c *Cohorts) advance(s int64) {
	if !c.began {
		c.began, c.now = true, s
	}
	if s-c.now >= int64(len(c.counts)) {
		for i := range c.counts {
			c.Older += c.counts[i]
			c.counts[i] = 0
		}
		c.now = s
	}
	for c.now < s {
		c.now++
		n := c.of(c.now)
		c.Older += *n
		*n = 0
	}
}

// Add counts one that began at at.
func (c *Cohorts) Add(at capture.Instant) {
	*c.slot(at)++
	c.Total++
}

// Remove takes one back that began at at.
func (c *Cohorts) Remove(at capture.Instant) {
	*c.slot(at)--
	c.Total--
}

// Roll ends the second before now.
func (c *Cohorts) Roll(now capture.Instant) { c.advance(second(now)) }

// Oldest is the age of the oldest at now, to the second and at most 64 s; 0 if there is none.
func (c *Cohorts) Oldest(now capture.Instant) time.Duration {
	if c.Older > 0 {
		return time.Duration(len(c.counts)) * time.Second
	}
	for s := c.now - int64(len(c.counts)) + 1; s <= c.now; s++ {
		if *c.of(s) > 0 {
			return now.Sub(capture.Instant(s) * capture.Instant(analyze.WindowLength))
		}
	}
	return 0
}
