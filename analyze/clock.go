package analyze

import (
	"slices"
	"time"

	"jindan/capture"
)

// clock makes event time from the times that observations state. Detectors and the flow table measure durations, and take 0 for
// "not yet": for them time only goes forward, never jumps by more than maxGap, and is well above 0. What the engine writes
// shows stated times again.
//
// A clock that is set back, a file whose second half is older, an interface with another clock: from there on, stated times are
// moved. A few observations with a time far ahead of what follows them are taken as if they had come with what was before.
type clock struct {
	began bool
	now   capture.Instant // newest event time
	shift time.Duration   // event time less stated time, at present
	lines []time.Duration // shifts in use, newest first, at most maxLines
	moves []move          // in order of event time
	held  []capture.Observation
	steps uint64 // times that stated time began anew
	stray uint64 // observations with a time that nothing before or after bears out
}

// move says that from an event time on, shift applies.
type move struct {
	from  capture.Instant
	shift time.Duration
}

const (
	// slack is how far an observation may be from the one before it and still be merely late, or the next: several
	// queues and sources are emptied one after the other.
	slack = 10 * time.Second
	// maxGap bounds a silence of the input: longer ones are shown as they are, but detectors see no more of them.
	maxGap = 30 * 24 * time.Hour
	// maxHeld is how many observations in a row may be stray. Damage and races hit one; a few leave room.
	maxHeld = 8
	// maxLines is how many clocks may take turns: those of several interfaces.
	maxLines = 4
	// maxMoves bounds what is remembered of them; what comes later takes the newest event time.
	maxMoves = 1024
	// earliest and latest bound the stated times that are event times as they are: a day after 1970, and a century on. Others
	// are moved to the former.
	earliest = capture.Instant(24 * time.Hour)
	latest   = capture.Instant(1 << 62)
)

// distance is a−b for instants that may be far apart, within ±292 years.
func distance(a, b capture.Instant) time.Duration {
	d := a - b
	switch {
	case a >= 0 && b < 0 && d < 0:
		return 1<<63 - 1
	case a < 0 && b >= 0 && d >= 0:
		return -1 << 63
	}
	return time.Duration(d)
}

// seconds rounds d up to full seconds, so that windows begin where those of stated time do.
func seconds(d time.Duration) time.Duration {
	if r := d % time.Second; r > 0 {
		return d - r + time.Second
	} else if r < 0 {
		return d - r
	}
	return d
}

func limit(at capture.Instant) capture.Instant { return min(max(at, -latest), latest) }

// event is the event time of what states at.
func (c *clock) event(at capture.Instant) capture.Instant {
	return limit(at) + capture.Instant(c.shift)
}

// begin takes the first stated time.
func (c *clock) begin(at capture.Instant) {
	c.began = true
	if at < earliest || at >= latest {
		c.turn(earliest, seconds(distance(earliest, limit(at))))
	} else {
		c.turn(at, 0)
	}
	c.now = c.event(at)
}

// turn applies shift from an event time on.
func (c *clock) turn(from capture.Instant, shift time.Duration) {
	c.shift = shift
	if i := slices.Index(c.lines, shift); i >= 0 {
		c.lines = slices.Delete(c.lines, i, i+1)
	}
	c.lines = slices.Insert(c.lines, 0, shift)
	c.lines = c.lines[:min(len(c.lines), maxLines)]
	// Of clocks that take turns within a moment, the one before and after stands.
	if n := len(c.moves); n > 1 && distance(from, c.moves[n-1].from) < slack {
		c.moves = c.moves[:n-1]
	}
	if n := len(c.moves); n == 0 || c.moves[n-1].shift != shift {
		if n == maxMoves {
			c.moves = c.moves[:n-1]
		}
		c.moves = append(c.moves, move{from, shift})
	}
}

// near reports whether an event time is where the next one is expected.
func (c *clock) near(at capture.Instant) bool {
	d := distance(at, c.now)
	return d <= slack && d >= -slack
}

// known turns to a clock that was in use before and by which at is what is expected.
func (c *clock) known(at capture.Instant) bool {
	for _, shift := range c.lines {
		if c.near(limit(at) + capture.Instant(shift)) {
			if shift != c.shift {
				c.turn(c.now, shift)
			}
			return true
		}
	}
	return false
}

// accept accepts a stated time, however far from what is expected, and returns its event time.
func (c *clock) accept(at capture.Instant) capture.Instant {
	switch d := distance(c.event(at), c.now); {
	case d < -slack:
		c.steps++
		c.turn(c.now, c.shift+seconds(-d))
	case d > maxGap:
		c.turn(c.now, c.shift-seconds(d-maxGap))
	}
	c.now = max(c.now, c.event(at))
	return c.event(at)
}

// stated is the time that belongs to an event time, as observations stated it.
func (c *clock) stated(t capture.Instant) capture.Instant {
	i, _ := slices.BinarySearchFunc(c.moves, t, func(m move, t capture.Instant) int {
		if m.from <= t {
			return -1
		}
		return 1
	})
	if i == 0 {
		i = 1 // before the first observation
	}
	if len(c.moves) == 0 || t == 0 {
		return t
	}
	return t - capture.Instant(c.moves[i-1].shift)
}

// plain reports whether event time is stated time, all the way.
func (c *clock) plain() bool { return len(c.moves) == 0 || len(c.moves) == 1 && c.moves[0].shift == 0 }

// keep holds an observation back whose time is far ahead: what follows tells whether it is right.
func (c *clock) keep(o *capture.Observation) {
	k := *o
	k.Packet.Data = slices.Clone(k.Packet.Data)
	c.held = append(c.held, k)
}
