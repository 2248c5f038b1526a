package detect

import (
	"time"

	"jindan/analyze/stat"
	"jindan/capture"
)

// timed is one measurement with its time.
type timed struct {
	at capture.Instant
	d  time.Duration
}

// timings keeps the newest measurements one by one, up to a bound.
type timings struct{ stat.Ring[timed] }

// maxTimings bounds them; p99 of 512 still rests on five.
const maxTimings = 512

func (t *timings) add(at capture.Instant, d time.Duration) { t.Ring.Add(timed{at, d}, maxTimings) }

// since returns those not older than at, in seconds.
func (t *timings) since(at capture.Instant) []float64 {
	var v []float64
	for x := range t.All {
		if x.at >= at {
			v = append(v, x.d.Seconds())
		}
	}
	return v
}
