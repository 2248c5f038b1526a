package flow

import (
	"cmp"
	"time"

	"jindan/capture"
)

// again takes a segment that begins below what is next: it fills a hole, or repeats
// what was seen.
func (t *Table) again(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path, header, mss, end uint32) {
	d, r := &c.side[s], &c.side[s.Other()]
	if c.trouble != 0 {
		if x := &t.trouble(c).side[s]; x.n > 0 && t.fill(c, s, x, p, at, path, header, mss, end) {
			return
		}
	}
	// A FIN that comes again without data repeats one sequence number; count it like
	// a segment. A segment that reaches beyond next is new data from there on.
	x := &t.trouble(c).side[s]
	class := RTO
	switch {
	case r.flags&ackKnown != 0 && !before(r.acked, end):
		class = Spurious
	case r.flags&shut != 0 && before(p.Seq, t.trouble(c).side[s.Other()].shutSeq):
		class = ClosedWindow
	case p.Seq == r.acked && r.dup >= 2 || r.flags&sackSeen != 0:
		class = Fast
	case end == d.next && at.Sub(d.nextAt) < minRTO:
		class = TailLoss
	}
	n := segments(p.Len, mss)
	if p.Len == 0 {
		class = Closing
	}
	damaged := class.OfPath() && !p.Damaged && x.wasDamaged(p.Seq)
	if class.OfPath() && !damaged && t.unaccepted(c, s, p, at) {
		class = Unaccepted
		x.held += n
		x.heldLen = min(p.Len, mss)
		x.heldIP = header + x.heldLen
	} else {
		t.release(c, s, x, path, at)
	}
	// Nobody can know of a loss before a round trip is over; and where the acknowledgements are not seen, nobody knows of a closed window.
	soon := end == d.next && at.Sub(d.nextAt) < c.HandshakeRTT/2
	proven := class == Spurious || class == Closing || !t.copies.doubtful && !soon && r.packets > 0 && !x.refused.cut(p)
	x.Retransmits[class] += n
	if class == Spurious && path != nil && t.wasReplaced(c, x, p, at, end) {
		path.Side[c.dir(s)].Overtaken += n
	}
	if x.vain = 0; (class == RTO || class == Unaccepted) && end == d.next && r.lastAt < d.nextAt {
		x.vain = r.packets + 1
	}
	if !proven {
		x.Unproven += n
	}
	if x.again > 0 && x.againSeq == p.Seq {
		x.again++
	} else {
		x.againSeq, x.again = p.Seq, 1
	}
	x.againAt = at
	first := false
	if proven && class.OfPath() {
		if first = x.firstTime(p.Seq); first && path != nil {
			if p.Len > 0 {
				eachSize(p.Len, header, mss, path.Side[c.dir(s)].again)
				if damaged {
					path.Side[c.dir(s)].Bin()[Bin(header+min(p.Len, mss))].Damaged++
				}
			}
		}
	}
	if t.wants(Retransmit) {
		t.ev = Event{Kind: Retransmit, Conn: c, Side: s, At: at, Class: class, Proven: proven, flag: first, Len: p.Len, N: n,
			Try: x.again, IPLen: header + min(p.Len, mss), Since: d.nextAt, Dur: at.Sub(d.nextAt), Frame: p.Frame}
		t.send(&t.ev)
	}
}

// firstTime reports whether the segment at seq has not come again before, as far as is remembered, and notes that it has.
func (x *trouble) firstTime(seq uint32) bool {
	for _, s := range x.repeated[:min(x.repeats, maxRepeated)] {
		if s == seq {
			return false
		}
	}
	x.repeated[x.repeats%maxRepeated] = seq
	x.repeats++
	return true
}

// repeatedFrom reports whether a segment at seq or behind it has come again, as far as is remembered.
func (x *trouble) repeatedFrom(seq uint32) bool {
	for _, s := range x.repeated[:min(x.repeats, maxRepeated)] {
		if !before(s, seq) {
			return true
		}
	}
	return false
}

// wasDamaged reports whether the segment at seq was seen with a wrong checksum. Its receiver has dropped it then, as it is sent again.
func (x *trouble) wasDamaged(seq uint32) bool {
	for _, s := range x.damaged[:min(x.damages, maxRepeated)] {
		if s == seq {
			return true
		}
	}
	return false
}

// acceptPatience is how long after the handshake a listener that dropped its last ACK has
// certainly repeated its SYN-ACK: after 1 s (Linux TCP_TIMEOUT_INIT, RFC 6298 §2.1), plus a margin.
const acceptPatience = 2 * time.Second

// unaccepted reports whether a repetition of s may be due to a full accept queue: first data
// of the client, nothing of it acknowledged, and the SYN-ACK came again or may still do so.
func (t *Table) unaccepted(c *Conn, s Side, p *capture.Packet, at capture.Instant) bool {
	if !c.untaken(s) {
		return false
	}
	return c.saTries > 0 || at.Sub(c.opened()) < acceptPatience || p.Len*5 < c.MSS(s)*4 || t.dropsHandshakes(c, at)
}

// untaken reports whether s is a client of whom the server has acknowledged nothing but its SYN.
func (c *Conn) untaken(s Side) bool {
	return s == Client && c.synAckAt != 0 && c.side[Server].acked == c.side[Client].isn+1
}

// opened is when the handshake of c ended, as far as it was seen.
func (c *Conn) opened() capture.Instant { return cmp.Or(c.estAt, c.synAckAt) }

// droppedHandshake notes that the listener of c has repeated a SYN-ACK that its client had acknowledged: it drops what completes
// handshakes (tcp_v4_syn_recv_sock: sk_acceptq_is_full).
func (t *Table) droppedHandshake(c *Conn, at capture.Instant) {
	if c.service == 0 {
		return
	}
	for len(t.dropped) < int(c.service) {
		t.dropped = append(t.dropped, [2]capture.Instant{})
	}
	d := &t.dropped[c.service-1]
	d[0], d[1] = d[1], at
}

// dropsHandshakes reports whether the listener of c has dropped the ends of two handshakes lately: one alone may have been lost on the way.
// What it takes within a second leaves no trace of its own.
func (t *Table) dropsHandshakes(c *Conn, at capture.Instant) bool {
	if c.service == 0 || int(c.service) > len(t.dropped) {
		return false
	}
	second := t.dropped[c.service-1][0]
	return second != 0 && at.Sub(second) <= acceptPatience
}

// release counts repetitions held back as lost after all: the listener had the connection.
func (t *Table) release(c *Conn, s Side, x *trouble, path *Path, at capture.Instant) {
	if x.held == 0 {
		return
	}
	n := x.held
	x.held = 0
	// With SYN cookies no SYN-ACK comes again. Then only a soon recovery, or a segment so large that
	// it may be lost for its size, speaks for loss.
	if c.saTries > 0 || at.Sub(c.opened()) >= acceptPatience && x.heldLen*5 < c.MSS(s)*4 || t.dropsHandshakes(c, at) {
		return
	}
	x.Retransmits[Unaccepted] -= n
	x.Retransmits[RTO] += n
	first := x.firstTime(c.side[s].isn + 1)
	if first && path != nil {
		path.Side[c.dir(s)].again(x.heldIP, 1) // one segment, however often it came
	}
	if t.wants(Retransmit) {
		t.ev = Event{Kind: Retransmit, Conn: c, Side: s, At: at, Class: RTO, Proven: true, flag: first, N: n, Try: x.again,
			Len: x.heldLen, IPLen: x.heldIP, Since: c.opened(), Dur: at.Sub(c.opened())}
		t.send(&t.ev)
	}
}
