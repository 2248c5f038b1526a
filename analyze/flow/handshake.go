package flow

import "jindan/capture"

// tookSYN takes what ack says of data in the SYN of s: acknowledged, it was sent then; if not, the listener did not want
// it, and it will come again as if it were new (RFC 7413 §4.2).
func (t *Table) tookSYN(c *Conn, s Side, ack uint32, at capture.Instant) {
	d := &c.side[s]
	n := uint32(d.synData)
	d.synData = 0
	if ack-d.isn-1 < n || d.next != d.isn+1 || ack-d.isn-1 > c.reach(s) {
		return
	}
	d.next += n
	d.dataPk += segments(n, c.MSS(s))
	d.bytes += uint64(n)
	sent := at
	if s == Client {
		sent = c.synAgain
	}
	t.turn(c, s, &capture.Packet{Len: n, Frame: c.firstSeen}, sent)
}

// maxFirstWrite is far more than a client sends before its server is first heard of in a capture that has
// lost the SYN-ACK: 64 KiB, a window without scaling.
const maxFirstWrite = 1 << 16

func (t *Table) syn(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) {
	d := &c.side[s]
	repeat := d.flags&synSeen != 0
	if p.Flags&capture.ACK != 0 {
		repeat = d.flags&saSeen != 0 // after a SYN of its own, both sides opened at once (RFC 9293 §3.5)
		d.flags |= saSeen
	}
	if p.Flags&capture.ACK == 0 && s == Client {
		c.synAgain = at
		if c.synAt == 0 {
			c.synAt = at
		}
	}
	if d.flags&synSeen == 0 {
		if p.Flags&capture.ACK == 0 {
			if s == Client && asksMore(p) {
				c.writes[Client] |= askedMore
			}
			*t.asks.slot(p.Seq) = c.Ref()
			if s == Client {
				*t.callers.slot(&c.Client) = c.Ref()
			}
		}
		d.flags |= synSeen | known
		d.synData = uint16(min(p.Len, 0xffff))
		d.isn = p.Seq
		d.next, d.nextAt, d.nextID = p.Seq+1, at, p.IPID
		if p.Opts&capture.OptMSS != 0 {
			d.mss = p.MSS
		}
		if p.Opts&capture.OptWScale != 0 {
			d.wscale = min(p.WScale, 14) + 1 // RFC 7323 §2.3
		}
	}
	if repeat && s == Client {
		was := c.challenged
		if c.challenged = unchallenged; was == rejected {
			c.synAt = at
			return
		}
	}
	e := Event{Conn: c, Side: s, At: at, Frame: p.Frame, N: 1, IPLen: p.IPLen, Damaged: p.Damaged,
		flag: c.AskedMore() && !asksMore(p)}
	if p.Flags&capture.ACK == 0 {
		e.Kind = SynSent
		if repeat && s == Client {
			c.synTries++
			e.Kind, e.N, e.Dur = SynRepeat, uint32(c.synTries), at.Sub(c.synAt)
		}
	} else {
		e.Kind = SynAckSent
		if repeat {
			if c.saTries++; path != nil && c.saTries == 1 && c.synAgain > c.synAckAt {
				path.Side[c.dir(s)].repeat(Bare, p.IPLen, 1) // the client had not got it
			}
			if c.estAt != 0 || c.side[Client].bytes > 0 {
				t.droppedHandshake(c, at)
			}
			e.Kind, e.N, e.Dur = SynAckRepeat, uint32(c.saTries), at.Sub(c.synAckAt)
			if c.ClientBy == BySYNACK && t.wants(SynAckElsewhere) {
				t.elsewhere(c, p, at) // each SYN of the caller draws one
			}
		} else if s == Server {
			c.synAckAt = at
			if path != nil {
				t.answered(c, path, p.IPLen)
			}
		}
	}
	if t.wants(e.Kind) {
		t.ev = e
		t.send(&t.ev)
	}
}

// asksMore reports whether the SYN p asks for ECN or carries data.
func asksMore(p *capture.Packet) bool {
	const ecn = capture.ECE | capture.CWR
	return p.Flags&ecn == ecn || p.Len > 0
}

// answered counts a SYN and its answer on their path. How a SYN fared that nobody answers is not known: it may have arrived.
// Of one that came again before its first answer was seen, either may have been lost.
func (t *Table) answered(c *Conn, path *Path, ip uint32) {
	path.Side[c.dir(Server)].count(Bare, ip, 1)
	if c.synTries > 0 {
		path.Side[c.dir(Server)].lose(Bare, ip, 1)
	}
	if c.side[Client].flags&synSeen == 0 {
		return
	}
	ps := &path.Side[c.dir(Client)]
	if ps.count(Bare, ip, 1); c.synTries > 0 {
		ps.repeat(Bare, ip, 1)
	}
}
