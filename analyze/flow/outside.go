package flow

import "jindan/capture"

// A sequence number that no window can contain is that of a damaged or forged segment, or of an older connection on the same
// ports; its receiver drops it (RFC 9293 §3.4). Taken at its word, it would open a gap of a million segments. But what the
// tracker knows may be old, too: of a capture that has missed some seconds. So such a number is believed as soon as a
// second one bears it out: data that goes on from there, or an acknowledgement of it.

// within reports whether b is a, or at most n after it.
func within32(a, b, n uint32) bool { return b-a <= n }

// near reports whether a and b are at most n apart.
func near(a, b, n uint32) bool { return within32(a, b, n) || within32(b, a, n) }

// longRepeat is how far behind what was sent last a repetition may begin where no acknowledgement tells: 16 MiB, which few paths
// hold (1 Gbit/s over 130 ms). It counts as one segment whatever its number, so there is no harm in more.
const longRepeat = 1 << 24

// plausible reports whether s may send data from seq on: no further ahead than the window reaches, and no further behind
// than what was not acknowledged, or was so a moment ago.
func (c *Conn) plausible(s Side, seq uint32) bool {
	d, o := &c.side[s], &c.side[s.Other()]
	if !before(seq, d.next) {
		return seq-d.next <= c.reach(s)
	}
	return d.next-seq <= longRepeat || o.flags&ackKnown != 0 && !before(seq, o.acked-c.reach(s))
}

// outside takes data of s that begins so far from what is next that no window holds both. It reports whether the
// segment has no effect; if not, the segment is the next one, or opens a hole that it returns by its begin.
func (t *Table) outside(c *Conn, s Side, p *capture.Packet, at capture.Instant, end uint32) bool {
	d, o := &c.side[s], &c.side[s.Other()]
	x := &t.trouble(c).side[s]
	reach := c.reach(s)
	if d.flags&odd != 0 && p.Seq != x.odd.from && within32(x.odd.from, p.Seq, reach) {
		t.believe(c, s, x)
		return false
	}
	if o.flags&oddACK != 0 && near(t.trouble(c).side[s.Other()].oddACK, p.Seq, reach) {
		// Acknowledgements had come as far before.
		o.flags &^= oddACK
		t.uncount(&t.trouble(c).side[s.Other()])
		x.odd = hole{from: p.Seq, to: p.Seq, at: at, ts: p.TSVal, id: p.IPID, hasTS: p.Opts&capture.OptTimestamps != 0}
		t.count(x)
		t.believe(c, s, x)
		return false
	}
	t.count(x)
	d.flags |= odd
	x.odd = hole{from: p.Seq, to: end, at: at, ts: p.TSVal, id: p.IPID, hasTS: p.Opts&capture.OptTimestamps != 0}
	return true
}

// outsideACK takes an acknowledgement of s for more than s can have got. It reports whether it has no effect.
func (t *Table) outsideACK(c *Conn, s Side, p *capture.Packet) bool {
	d, o := &c.side[s], &c.side[s.Other()]
	tr := t.trouble(c)
	x, y := &tr.side[s], &tr.side[s.Other()]
	reach := c.reach(s.Other())
	if o.flags&odd != 0 && within32(y.odd.from, p.Ack, reach+(y.odd.to-y.odd.from)) {
		t.believe(c, s.Other(), y)
		return false
	}
	if d.flags&oddACK != 0 && p.Ack != x.oddACK && within32(x.oddACK, p.Ack, reach) {
		d.flags &^= oddACK
		t.uncount(x)
		return false
	}
	t.count(x)
	d.flags |= oddACK
	x.oddACK = p.Ack
	return true
}

// believe takes the data outside any window that s sent last for what it says after all: what lies before it is missing.
func (t *Table) believe(c *Conn, s Side, x *trouble) {
	d := &c.side[s]
	d.flags &^= odd
	t.uncount(x)
	h := x.odd
	if before(d.next, h.from) {
		t.addHole(c, s, hole{from: d.next, to: h.from, at: h.at, ts: h.ts, id: h.id, hasTS: h.hasTS}, 0, 0)
	} else {
		x.n = 0 // the numbering began anew
	}
	n := h.to - h.from
	if n > 0 {
		d.dataPk += segments(n, c.MSS(s))
		d.bytes += uint64(n)
	}
	d.next, d.nextAt, d.nextID = h.to, h.at, h.id
}

func (t *Table) count(x *trouble) {
	x.OutOfWindow++
	t.Stats.OutOfWindow++
}

func (t *Table) uncount(x *trouble) {
	x.OutOfWindow--
	t.Stats.OutOfWindow--
}
