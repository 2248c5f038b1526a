package view

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"jindan/capture"
)

const (
	// MaxBuckets is about one bucket for each two pixels of a picture on a wide screen.
	MaxBuckets = 600
	// perSlot is how many buckets make a slot of a Direction.
	perSlot = MaxBuckets / Slots
	// finest is the width of a bucket at first: a tenth of the window of judgement, finer than any onset is told.
	finest = 100 * time.Millisecond
	// LatencySteps is the number of classes of a latency, four for each factor of ten from 0.1 ms on: a dot of a log scale.
	LatencySteps = 26
)

// LatencyStep is the class of a latency.
func LatencyStep(d time.Duration) int {
	if d < 100*time.Microsecond {
		return 0
	}
	return min(1+int(4*math.Log10(float64(d)/float64(100*time.Microsecond))), LatencySteps-1)
}

// StepLatency is the latency in the middle of a class.
func StepLatency(step int) time.Duration {
	return time.Duration(float64(100*time.Microsecond) * math.Pow(10, (float64(step)-0.5)/4))
}

// axis is the time that the buckets cover.
type axis struct {
	start capture.Instant
	width capture.Instant
}

// bucket is where at lies; what is earlier than the start lies in the first.
func (a *axis) bucket(at capture.Instant) int { return int(max(at-a.start, 0) / a.width) }

// folds is how often buckets must be merged before at is covered.
func (a *axis) folds(at capture.Instant) int {
	return bits.Len(uint(a.bucket(at) / MaxBuckets))
}

func (c *Count) add(i int, n uint32) {
	if *c == nil {
		*c = make(Count, MaxBuckets)
	}
	(*c)[i] += n
}

// take takes one away again from bucket i, if there is one.
func (c Count) take(i int) {
	if i < len(c) && c[i] > 0 {
		c[i]--
	}
}

// plus is the sum of both.
func (c Count) plus(d Count) Count {
	if d == nil {
		return c
	}
	sum := slices.Clone(d)
	for i, n := range c {
		sum[i] += n
	}
	return sum
}

func (c Count) fold() {
	for i := range c {
		if j := 2 * i; j < len(c) {
			c[i] = c[j] + c[j+1]
		} else {
			c[i] = 0
		}
	}
}

// Sum adds up the buckets from i to before j.
func (c Count) Sum(i, j int) (n uint64) {
	i, j = max(i, 0), min(j, len(c))
	for ; i < j; i++ {
		n += uint64(c[i])
	}
	return n
}

func (l *Level) set(i int, v uint32) {
	if l.Max == nil {
		*l = Level{make([]uint32, MaxBuckets), make([]uint32, MaxBuckets), make([]bool, MaxBuckets)}
	}
	if !l.Seen[i] {
		l.Max[i], l.Min[i], l.Seen[i] = v, v, true
		return
	}
	l.Max[i], l.Min[i] = max(l.Max[i], v), min(l.Min[i], v)
}

func (l *Level) fold() {
	for i := range l.Max {
		j := 2 * i
		switch {
		case j >= len(l.Max):
			l.Max[i], l.Min[i], l.Seen[i] = 0, 0, false
		case l.Seen[j] && l.Seen[j+1]:
			l.Max[i], l.Min[i], l.Seen[i] = max(l.Max[j], l.Max[j+1]), min(l.Min[j], l.Min[j+1]), true
		case l.Seen[j+1]:
			l.Max[i], l.Min[i], l.Seen[i] = l.Max[j+1], l.Min[j+1], true
		default:
			l.Max[i], l.Min[i], l.Seen[i] = l.Max[j], l.Min[j], l.Seen[j]
		}
	}
}

// Peak is the highest value between two buckets, and whether anything was measured.
func (l *Level) Peak(i, j int) (v uint32, seen bool) {
	i, j = max(i, 0), min(j, len(l.Max))
	for ; i < j; i++ {
		if l.Seen[i] {
			v, seen = max(v, l.Max[i]), true
		}
	}
	return v, seen
}

// carried is a level that stays as it is until it is said to change: what stood between two changes was measured.
type carried struct {
	level Level
	now   uint32
	since int // bucket up to which it is written; -1: never
}

// to writes what the level was until bucket i, for which it holds from then on.
func (c *carried) to(i int) {
	for ; c.since < i; c.since++ {
		c.level.set(c.since, c.now)
	}
	c.level.set(i, c.now)
}

func (c *carried) change(i int, d int) {
	i = max(i, c.since) // an event that is told late changes what is known now
	c.to(i)
	if d < 0 {
		c.now -= min(c.now, uint32(-d))
	} else {
		c.now += uint32(d)
	}
	c.level.set(i, c.now)
}

func (c *carried) fold() { c.level.fold(); c.since /= 2 }

func (r *Resolver) fold() {
	r.Answered.fold()
	r.Unanswered.fold()
	r.Again.fold()
	for i := range r.Latency {
		j := 2 * i
		if j >= len(r.Latency) {
			r.Latency[i] = [LatencySteps]uint16{}
			continue
		}
		for k := range LatencySteps {
			r.Latency[i][k] = uint16(min(uint32(r.Latency[j][k])+uint32(r.Latency[j+1][k]), math.MaxUint16))
		}
	}
}

func (d *Direction) fold() {
	for i := range Slots {
		j := 2 * i
		for k := range Classes {
			if j < Slots {
				d.Sent[i][k] = d.Sent[j][k] + d.Sent[j+1][k]
				d.Missing[i][k] = d.Missing[j][k] + d.Missing[j+1][k]
				d.Again[i][k] = d.Again[j][k] + d.Again[j+1][k]
			} else {
				d.Sent[i][k], d.Missing[i][k], d.Again[i][k] = 0, 0, 0
			}
		}
	}
}
