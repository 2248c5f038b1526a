package socket

import (
	"time"

	"jindan/analyze/stat"
	"jindan/capture"
)

// Dumps are the times of dumps of one kind. How far apart they are is the source's affair: it makes those of all sockets more often
// when it is asked to.
type Dumps struct {
	First capture.Instant // 0: there is none yet

	at    [stat.SeriesLen + 1]capture.Instant // the newest last
	n     int
	apart time.Duration // the longest time between two of them
}

func (d *Dumps) add(at capture.Instant) {
	if d.n == 0 {
		d.First = at
	}
	if d.n == len(d.at) {
		copy(d.at[:], d.at[1:])
		d.n--
	}
	d.at[d.n] = at
	d.n++
	d.apart = 0
	for i := range d.n - 1 {
		d.apart = max(d.apart, d.at[i+1].Sub(d.at[i]))
	}
}

// Newest is the time of the newest one; 0 if there is none.
func (d *Dumps) Newest() capture.Instant { return d.at[max(d.n, 1)-1] }

// Previous is the newest one before at; at itself where none is known.
func (d *Dumps) Previous(at capture.Instant) capture.Instant {
	for i := d.n - 1; i >= 0; i-- {
		if d.at[i] < at {
			return d.at[i]
		}
	}
	return at
}

// Fresh reports whether the next one is not overdue: what the newest one shows is believed to hold still.
func (d *Dumps) Fresh(now capture.Instant) bool {
	return d.n > 0 && now.Sub(d.Newest()) <= max(d.apart, stat.Window)+stat.Window
}
