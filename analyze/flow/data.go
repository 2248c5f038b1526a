package flow

import (
	"time"

	"jindan/capture"
)

// halfCloseRefresh bounds how often data on a half-closed connection renews its age.
const halfCloseRefresh = time.Second

// data takes a segment of side s that carries payload or a FIN. It reports whether the segment may have an effect.
func (t *Table) data(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	end := p.Seq + seqLen(p)
	header := p.IPLen - min(p.Len, p.IPLen)
	mss := c.MSS(s)
	if d.flags&known == 0 {
		// Mid-stream: the first data seen sets the base, whatever was acknowledged before.
		d.flags |= known
		d.next, d.isn = p.Seq, p.Seq-1
	}

	// Keep-alive: at most one byte, just below what is next (RFC 9293 §3.8.4).
	if p.Len <= 1 && p.Flags&(capture.SYN|capture.FIN) == 0 && p.Seq == d.next-1 {
		return true
	}
	// Window probe: one byte beyond a closed window (RFC 9293 §3.8.6.1). It may or may not
	// be accepted; what follows decides.
	if p.Len == 1 && p.Seq == d.next && r.flags&zeroWin != 0 {
		d.next++
		d.flags |= probed
		return true
	}
	if d.flags&probed != 0 {
		d.flags &^= probed
		if p.Len > 1 && p.Seq == d.next-1 {
			d.next--
		}
	}

	if p.Seq != d.next {
		if d.synData > 0 && p.Seq-d.next == uint32(d.synData) {
			t.tookSYN(c, s, p.Seq, at) // the capture lacks what acknowledged it
		}
		if !c.plausible(s, p.Seq) && t.outside(c, s, p, at, end) {
			return false
		}
	}
	d.flags &^= odd // it goes on where it was, or was believed
	if p.Len > mss {
		t.Stats.SuperPackets++
	}
	if p.Len > 0 {
		t.Stats.Data += uint64(segments(p.Len, mss))
	}
	if p.IPLen <= plainFrame || p.Len <= mss {
		d.maxLen = max(d.maxLen, uint16(min(p.Len, 1<<16-1)))
		if path != nil {
			ps := &path.Side[c.dir(s)]
			ps.full = max(ps.full, uint16(min(p.Len, 1<<16-1)))
		}
	}
	switch {
	case p.Seq == d.next:
		if d.flags&midWrite != 0 {
			t.stalled(c, s, at, true)
		}
	case before(d.next, p.Seq):
		t.openHole(c, s, p, at)
	default:
		t.again(c, s, p, at, path, header, mss, end)
	}
	if path != nil {
		path.Side[c.dir(s)].Bytes += uint64(p.Len)
	}
	if before(d.next, end) {
		if path != nil {
			fresh := p.Len
			if before(p.Seq, d.next) {
				fresh = min(end-d.next, p.Len)
			}
			if fresh > 0 {
				ps := &path.Side[c.dir(s)]
				eachSize(fresh, header, mss, ps.seen)
				t.shown(c, s, p, at, ps, header, mss)
			}
		}
		n := segments(p.Len, mss)
		if p.Len > 0 {
			if p.Damaged {
				x := &t.trouble(c).side[s]
				x.damaged[x.damages%maxRepeated] = p.Seq
				x.damages++
			}
			d.flags &^= unseen
			if r.flags&zeroWin != 0 {
				t.trouble(c).side[s.Other()].shutSeq = end // a probe of the closed window: that it is not taken is no loss
			}
			t.write(c, s, p, at, mss)
			if w, unread := c.cut(s, p.Len, end, at); w > 0 && t.wants(Squeezed) {
				t.ev = Event{Kind: Squeezed, Conn: c, Side: s, At: at, Len: w, N: 1, Frame: p.Frame, flag: unread}
				t.send(&t.ev)
			}
			d.dataPk += n
			d.bytes += uint64(p.Len)
			t.turn(c, s, p, at)
			if c.halfAt != 0 && c.halfSide != s && at.Sub(c.halfAt) >= halfCloseRefresh {
				// It still sends: half-closed on purpose. The age counts from its last byte.
				t.halfCloseEnd(c, at)
				c.halfAt = at
				if t.wants(HalfClosed) {
					t.ev = Event{Kind: HalfClosed, Conn: c, Side: c.halfSide, At: at, Frame: p.Frame}
					t.send(&t.ev)
				}
			}
		}
		d.next, d.nextAt, d.nextID = end, at, p.IPID
		d.flags &^= midWrite
		d.hidden = 0
		if p.Len >= mss && p.Flags&(capture.PSH|capture.FIN) == 0 {
			d.flags |= midWrite
			if c.side[Client].flags&listed == 0 {
				c.side[Client].flags |= listed
				t.writing = append(t.writing, c.Ref())
			}
		}
	}
	return true
}

// maxIDStep is how far identifications of one connection may be apart to be those of one counter: more than a window of
// repetitions, less than chance among 65,536.
const maxIDStep = 256

// shown counts a segment whose loss before the capture point would have shown.
func (t *Table) shown(c *Conn, s Side, p *capture.Packet, at capture.Instant, ps *PathSide, header, mss uint32) {
	d, r := &c.side[s], &c.side[s.Other()]
	if p.Len >= mss {
		ps.bin(Bin(header + mss)).Shown += p.Len / mss
		return
	}
	b := ps.bin(Bin(header + p.Len))
	if d.flags&midWrite == 0 && p.Seq == d.next && at.Sub(max(d.nextAt, r.lastAt)) < minRTO {
		b.Alone++
	}
	switch {
	case before(d.next, p.Seq):
		b.Shown++
	case p.Seq == d.next && d.flags&midWrite != 0:
		last := d.nextAt
		if c.trouble != 0 {
			x := &t.trouble(c).side[s]
			if step := p.IPID - d.nextID; x.lastFill > last && p.IPID != 0 && d.nextID != 0 && step != 1 && step < maxIDStep {
				// What was missing before it has come first. By the identifications, which Linux counts by connection, the packet
				// sent right after the one before it is missing as well, and was this, most likely; or it has arrived, and was another.
				if x.followed != d.nextID {
					b.Shown++
					b.Late++
				}
				return
			}
			last = max(last, x.lastFill)
		}
		b.Shown++
		// What goes out as soon as the acknowledgement is there was held back for it (RFC 896).
		if at.Sub(last) >= minRTO && at.Sub(r.lastAt) > c.promptly() && r.acked == d.next && r.flags&(zeroWin|shut) == 0 {
			b.Late++
		}
	}
}

// segments is how many segments a payload of n bytes stands for: super-packets of GRO and TSO
// hold several.
func segments(n, mss uint32) uint32 {
	if n <= mss {
		return 1
	}
	return (n + mss - 1) / mss
}

// eachSize calls f with the IP length and number of the segments that a payload of n bytes stands for.
func eachSize(n, header, mss uint32, f func(ip, n uint32)) {
	if n <= mss {
		f(header+n, 1)
		return
	}
	f(header+mss, n/mss)
	if rest := n % mss; rest > 0 {
		f(header+rest, 1)
	}
}

// turn follows requests and their answers.
func (t *Table) turn(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	if s == Client {
		c.reqLast = at
		if c.reqAt == 0 && !c.closed {
			c.reqAt = at
			c.requests++
			if t.wants(Request) {
				t.ev = Event{Kind: Request, Conn: c, Side: s, At: at, Len: p.Len, Frame: p.Frame}
				t.send(&t.ev)
			}
			c.side[Client].turn = uint16(min(p.Len, 1<<16-1)) // only now: the event shows what the answer before was an answer to
		}
		return
	}
	if c.reqAt == 0 {
		if c.estAt != 0 && c.side[Client].bytes == 0 && c.side[Server].bytes == uint64(p.Len) && t.wants(Greeting) {
			t.ev = Event{Kind: Greeting, Conn: c, Side: s, At: at, Len: p.Len, Since: c.estAt, Dur: at.Sub(c.estAt), Frame: p.Frame}
			t.send(&t.ev)
		}
		return
	}
	from := uint32(c.side[Server].bytes) - p.Len
	c.side[Server].turn, c.answer = uint16(from), uint16(from>>16)
	wait := at.Sub(c.reqLast)
	since := c.reqAt
	c.reqAt = 0
	c.answers++
	if c.FirstResponse == 0 {
		c.FirstResponse = max(wait, 1)
	}
	if t.wants(Response) {
		t.ev = Event{Kind: Response, Conn: c, Side: s, At: at, Len: p.Len, Dur: wait, Since: since,
			flag: c.unanswered == givenUp, Frame: p.Frame}
		t.send(&t.ev)
	}
}

// headerOf is the usual length of IP and TCP headers on c, for segments that were not seen.
func headerOf(c *Conn) uint32 {
	n := uint32(20 + 20)
	if a := c.Client.Addr; !a.Netip().Is4() {
		n = 40 + 20
	}
	if c.side[0].flags&c.side[1].flags&tsSeen != 0 {
		n += tsOption
	}
	return n
}
