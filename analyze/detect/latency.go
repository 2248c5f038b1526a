package detect

import (
	"math"
	"time"

	"jindan/capture"
)

// latencies is a histogram of durations with bins of 2^(1/8), so that a quantile is right to 9 %,
// from 100 µs to about 100 s.
type latencies struct {
	bins [160]uint32
	n    uint32
}

const (
	latencyMin     = 100 * time.Microsecond
	binsPerDoubled = 8
)

func (l *latencies) add(d time.Duration) {
	i := 0
	if d > latencyMin {
		i = int(math.Log2(float64(d)/float64(latencyMin))*binsPerDoubled) + 1
	}
	l.bins[min(i, len(l.bins)-1)]++
	l.n++
}

// quantile in seconds; 0 if empty.
func (l *latencies) quantile(q float64) float64 {
	if l.n == 0 {
		return 0
	}
	want := uint32(math.Ceil(q * float64(l.n)))
	var sum uint32
	for i, k := range l.bins {
		if sum += k; sum >= max(want, 1) {
			if i == 0 {
				return latencyMin.Seconds()
			}
			return latencyMin.Seconds() * math.Pow(2, (float64(i)-0.5)/binsPerDoubled)
		}
	}
	return 0
}

// timed is one measurement with its time.
type timed struct {
	at capture.Instant
	d  time.Duration
}

// timings keeps the newest measurements one by one, up to a bound.
type timings struct{ ring[timed] }

// maxTimings bounds them; p99 of 512 still rests on five.
const maxTimings = 512

func (t *timings) add(at capture.Instant, d time.Duration) { t.ring.add(timed{at, d}, maxTimings) }

// since returns those not older than at, in seconds.
func (t *timings) since(at capture.Instant) []float64 {
	var v []float64
	for x := range t.all {
		if x.at >= at {
			v = append(v, x.d.Seconds())
		}
	}
	return v
}
