package stat

import (
	"math"
	"slices"
	"time"
)

// Median of v, which it sorts; 0 for none.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile of v, which it sorts: the value below which a share q lies; 0 for none.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

// Latencies is a histogram of durations with bins of 2^(1/8), so that a quantile is right to 9 %,
// from 100 µs to about 100 s.
type Latencies struct {
	bins [160]uint32
	n    uint32
}

const (
	latencyMin     = 100 * time.Microsecond
	binsPerDoubled = 8
)

// Add takes a duration.
func (l *Latencies) Add(d time.Duration) {
	i := 0
	if d > latencyMin {
		i = int(math.Log2(float64(d)/float64(latencyMin))*binsPerDoubled) + 1
	}
	l.bins[min(i, len(l.bins)-1)]++
	l.n++
}

// Empty reports whether there is no measurement.
func (l *Latencies) Empty() bool { return l.n == 0 }

// Quantile in seconds; 0 if empty.
func (l *Latencies) Quantile(q float64) float64 {
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
