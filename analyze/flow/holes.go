package flow

import (
	"jindan/capture"
)

func (t *Table) openHole(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	if c.untaken(s) && (c.saTries > 0 || t.dropsHandshakes(c, at)) {
		return // who would acknowledge it has no such connection: that the capture has missed it would not show
	}
	t.addHole(c, s, hole{from: c.side[s].next, to: p.Seq, at: at, ts: p.TSVal, id: p.IPID,
		hasTS: p.Opts&capture.OptTimestamps != 0}, p.IPLen, p.Frame)
}

// addHole adds a hole that shows before a packet of that IP length and number.
func (t *Table) addHole(c *Conn, s Side, h hole, ip uint32, frame uint64) {
	tr := t.trouble(c)
	x := &tr.side[s]
	x.Holes++
	if x.n < maxHoles {
		x.holes[x.n] = h
		x.n++
	} else {
		x.holes[maxHoles-1].to = h.to
		t.Stats.MergedHoles++
	}
	if !tr.open {
		tr.open, tr.at = true, len(t.holed)
		t.holed = append(t.holed, c.trouble-1)
	}
	if t.wants(HoleOpened) {
		n := c.flight(s, h.to-h.from)
		t.ev = Event{Kind: HoleOpened, Conn: c, Side: s, At: h.at, Len: n, N: segments(n, c.MSS(s)), IPLen: ip, Frame: frame}
		t.send(&t.ev)
	}
}

// fill closes the holes that p covers, in part or whole, and tells lost data from reordered.
func (t *Table) fill(c *Conn, s Side, x *trouble, p *capture.Packet, at capture.Instant, path *Path, header, mss, end uint32) bool {
	filled := false
	for i := 0; i < int(x.n); i++ {
		h := &x.holes[i]
		if !before(p.Seq, h.to) || !before(h.from, end) {
			continue
		}
		filled = true
		from, to := h.from, h.to
		if before(from, p.Seq) {
			from = p.Seq
		}
		if before(end, to) {
			to = end
		}
		n := segments(to-from, mss)
		late := t.wasOvertaken(c, h, p, at)
		kind := HoleFilled
		if late {
			kind = Reordered
			x.Reordered += n
		} else {
			x.Filled += n
		}
		if path != nil {
			ps := &path.Side[c.dir(s)]
			if late {
				ps.Reordered += n
				eachSize(to-from, header, mss, ps.seen)
			} else if !h.counted {
				eachSize(to-from, header, mss, ps.missing)
			}
		}
		if t.wants(kind) {
			t.ev = Event{Kind: kind, Conn: c, Side: s, At: at, Len: to - from, N: n, Proven: true,
				IPLen: header + min(p.Len, mss), Since: h.at, Dur: at.Sub(max(h.at, x.lastFill)), Frame: p.Frame}
			t.send(&t.ev)
		}
		if !late {
			x.lastFill = at
			x.filled[x.fills%maxHoles] = hole{from: p.Seq, to: end, at: at, ts: p.TSVal, id: p.IPID, hasTS: p.Opts&capture.OptTimestamps != 0}
			x.fills++
		}
		switch {
		case from == h.from && to == h.to:
			x.holes[i] = x.holes[x.n-1]
			x.n--
			i--
		case from == h.from:
			h.from = to
		case to == h.to:
			h.to = from
		case x.n < maxHoles:
			x.holes[x.n] = *h
			x.holes[x.n].from = to
			x.n++
			h.to = from
		default:
			h.from = to // the list is full: the lower part is given up
		}
	}
	return filled
}

// wasOvertaken reports whether p was sent before the segment that opened h, so that the
// network only changed their order. The sender's clock tells best (TSval), then its IP-ID
// counter, then the time: a retransmission cannot come sooner than a round trip.
func (t *Table) wasOvertaken(c *Conn, h *hole, p *capture.Packet, at capture.Instant) bool {
	if h.hasTS && p.Opts&capture.OptTimestamps != 0 && h.ts != p.TSVal {
		return before(p.TSVal, h.ts)
	}
	if d := int16(p.IPID - h.id); p.IPID != 0 && h.id != 0 && d > -256 && d < 256 && d != 0 {
		return d < 0
	}
	limit := reorderLimit
	if c.HandshakeRTT != 0 {
		limit = c.HandshakeRTT
	}
	return at.Sub(h.at) < limit
}

// wasReplaced reports whether p is a segment that was missing here, was sent anew for that, and arrives after all: the network has only
// changed the order.
func (t *Table) wasReplaced(c *Conn, x *trouble, p *capture.Packet, at capture.Instant, end uint32) bool {
	for i := range x.filled {
		if f := &x.filled[i]; f.at != 0 && f.from == p.Seq && f.to == end && t.wasOvertaken(c, f, p, at) {
			f.at = 0
			return true
		}
	}
	return false
}

// ackHoles closes the holes of side s below ack: the receiver has that data, so the
// capture lost it and not the network.
func (t *Table) ackHoles(c *Conn, s Side, ack uint32, at capture.Instant, path *Path) {
	x := &t.trouble(c).side[s]
	for i := 0; i < int(x.n); i++ {
		h := &x.holes[i]
		if !before(h.from, ack) {
			h.asked = h.asked || h.from == ack
			continue
		}
		to := h.to
		if before(ack, to) {
			to = ack
		}
		t.captureLost(c, s, to-h.from, at, path)
		if to == h.to {
			x.holes[i] = x.holes[x.n-1]
			x.n--
			i--
		} else {
			h.from = to
		}
	}
}

func (t *Table) captureLost(c *Conn, s Side, n uint32, at capture.Instant, path *Path) {
	n = c.flight(s, n)
	segs := segments(n, c.MSS(s))
	t.Stats.CaptureLost += uint64(segs)
	t.trouble(c).side[s].CaptureLost += segs
	if path != nil {
		path.Side[c.dir(s)].CaptureLost += segs
	}
	if t.wants(HoleAcked) {
		t.ev = Event{Kind: HoleAcked, Conn: c, Side: s, At: at, Len: n, N: segs}
		t.send(&t.ev)
	}
}

// holeMSS is the MSS of s for segments that were not seen, where the handshake that says it was not seen either.
func (c *Conn) holeMSS(s Side, path *Path) uint32 {
	m := c.MSS(s)
	if path == nil || c.side[s.Other()].mss != 0 {
		return m
	}
	return max(m, uint32(path.Side[c.dir(s)].full))
}
