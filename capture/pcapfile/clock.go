package pcapfile

import (
	"math/bits"

	"jindan/capture"
)

// clock converts the time units of a pcapng interface (if_tsresol, if_tsoffset) to
// nanoseconds since the epoch: time × mul / div >> shift + offset, rounded down.
type clock struct {
	mul, div uint64
	shift    uint
	offset   int64  // seconds
	easy     uint64 // times below it need nothing but mul
}

// newClock takes the octet of if_tsresol: a negative power of 10, or of 2 if its top
// bit is set; and if_tsoffset in seconds.
func newClock(resolution byte, offset int64) clock {
	c := clock{mul: 1, div: 1, offset: offset}
	exp := uint(resolution & 0x7f)
	switch {
	case resolution&0x80 != 0:
		c.mul, c.shift = 1e9, exp
	case exp <= 9:
		for range 9 - exp {
			c.mul *= 10
		}
	case exp <= 9+19:
		for range exp - 9 {
			c.div *= 10
		}
	default: // a whole uint64 of such units is less than a nanosecond
		c.mul = 0
	}
	if c.div == 1 && c.shift == 0 && c.offset == 0 && c.mul > 0 {
		c.easy = maxInstant / c.mul
	}
	return c
}

// instant converts t, clamping to ±maxInstant.
func (c *clock) instant(t uint64) capture.Instant {
	if t < c.easy {
		return capture.Instant(t * c.mul)
	}
	return c.convert(t)
}

func (c *clock) convert(t uint64) capture.Instant {
	hi, lo := bits.Mul64(t, c.mul)
	if c.div != 1 {
		lo /= c.div // then mul is 1, hence hi 0
	}
	if s := c.shift; s > 0 {
		if s < 64 {
			lo = lo>>s | hi<<(64-s)
			hi >>= s
		} else {
			hi, lo = 0, hi>>(s-64)
		}
	}
	if hi != 0 || lo > maxInstant {
		lo = maxInstant
	}
	const most = maxInstant / 1_000_000_000
	ns := int64(lo) + min(max(c.offset, -most), most)*1e9 // both within ±2^62
	return capture.Instant(min(max(ns, -maxInstant), maxInstant))
}
