package flow

import (
	"time"

	"jindan/capture"
)

const (
	// delayedAck is the least time for which receivers delay an acknowledgement, with some room for the granularity of their clocks (Linux
	// TCP_DELACK_MIN 40 ms; Windows 40 or 200 ms, BSD 100 ms), longestDelay the longest that is allowed (RFC 9293 §3.8.6.3).
	delayedAck   = 35 * time.Millisecond
	longestDelay = 500 * time.Millisecond
	// atOnce is how soon after an acknowledgement a kernel sends what waits for it. A round trip is added where it is short: the
	// capture may be made at the other end.
	atOnce     = 2 * time.Millisecond
	shortTrips = 10 * time.Millisecond
)

// write takes new data of s, before it is counted.
func (t *Table) write(c *Conn, s Side, p *capture.Packet, at capture.Instant, mss uint32) {
	d, r := &c.side[s], &c.side[s.Other()]
	x := &c.writes[s]
	was := *x&smallOut != 0
	if s == Server {
		c.farewell = 0
		if p.Len <= maxFarewell {
			c.farewell = uint8(p.Len)
		}
	}
	if *x &^= smallOut; p.Len >= mss {
		if d.dataPk > 0 && before(r.acked, d.next) || p.Len > mss {
			*x |= several
		}
		return
	}
	*x |= smallOut
	if !was && *x&several == 0 || p.Seq != d.next {
		return
	}
	free := noDelay
	if !was { // the end of a write
		free = freeEnd
	}
	if r.acked != d.next {
		*x |= free
		return
	}
	late := r.lastAt.Sub(d.nextAt) - c.HandshakeRTT
	if *x&free != 0 || c.HandshakeRTT == 0 || late < delayedAck || late > longestDelay || r.nextAt > d.nextAt || d.dataPk == 0 || !t.wants(LateAck) {
		return
	}
	t.ev = Event{Kind: LateAck, Conn: c, Side: s, At: at, Since: d.nextAt, Dur: late, Len: p.Len, N: 1, Frame: p.Frame,
		flag: at.Sub(r.lastAt) <= c.promptly()}
	t.send(&t.ev)
}

// promptly is how soon after an acknowledgement what waits for it is seen.
func (c *Conn) promptly() time.Duration { return atOnce + min(c.HandshakeRTT, shortTrips) }
