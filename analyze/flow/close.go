package flow

import (
	"time"

	"jindan/capture"
)

func (t *Table) fin(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d, r := &c.side[s], &c.side[s.Other()]
	if d.flags&finSent != 0 {
		return
	}
	d.flags |= finSent
	d.finSeq, d.finAt = p.Seq+p.Len+1, at
	if c.closer == 0 {
		c.closer = uint8(s) + 1
	}
	if p.Flags&capture.ACK != 0 && r.flags&finSent != 0 && !before(p.Ack, r.finSeq) {
		r.flags |= finAcked
	}
	if c.halfAt != 0 && c.halfSide == s.Other() {
		t.halfCloseEnd(c, at)
	}
	if s == Server && c.reqAt != 0 && p.Len == 0 && r.flags&finSent == 0 && c.unanswered == answered && !c.mayBeFarewell() && (c.trouble == 0 || t.trouble(c).side[s].n == 0) {
		t.unanswered(c, p, at)
	}
	if s == Client && c.reqAt != 0 && c.unanswered == answered {
		t.abandon(c, at, false, p.Frame)
	}
}

// maxFarewell is the longest message with which a client says that it will close and expects no answer: a TLS close alert
// of 24 to 85 bytes (RFC 8446 §6.1; RFC 5246 §6.2.3.2 with SHA-384 and padding), an HTTP/2 GOAWAY, a QUIT.
const maxFarewell = 85

// mayBeFarewell reports whether the newest request is short enough to be a farewell, and comes after an exchange.
func (c *Conn) mayBeFarewell() bool { return c.answers > 0 && c.RequestLen() <= maxFarewell }

// unanswered reports that the server's FIN p leaves the request without an answer.
func (t *Table) unanswered(c *Conn, p *capture.Packet, at capture.Instant) {
	class := ClosedUnanswered
	if p.Flags&capture.ACK != 0 && before(p.Ack, c.side[Client].next) {
		if !c.crossed(at) {
			return // it has waited for the rest of the request, which was lost
		}
		class = ResetLateRequest
	}
	c.unanswered = closedOn
	if t.wants(Unanswered) {
		t.ev = Event{Kind: Unanswered, Conn: c, Side: Server, Class: class, At: at, Since: c.reqAt, Dur: at.Sub(c.reqLast), Frame: p.Frame}
		t.send(&t.ev)
	}
}

func (t *Table) abandon(c *Conn, at capture.Instant, rst bool, frame uint64) {
	c.unanswered = givenUp
	if t.wants(Abandoned) {
		t.ev = Event{Kind: Abandoned, Conn: c, Side: Client, At: at, flag: rst,
			Since: c.reqLast, Dur: at.Sub(c.reqLast), Frame: frame}
		t.send(&t.ev)
	}
}

func (t *Table) halfCloseEnd(c *Conn, at capture.Instant) {
	since := c.halfAt
	if since == 0 {
		return
	}
	c.halfAt = 0
	if t.wants(HalfCloseEnd) {
		t.ev = Event{Kind: HalfCloseEnd, Conn: c, Side: c.halfSide, At: at, Since: since, Dur: at.Sub(since)}
		t.send(&t.ev)
	}
}

func (t *Table) reset(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	if c.closed {
		return
	}
	d, r := &c.side[s], &c.side[s.Other()]
	if p.Flags&capture.ACK != 0 && r.flags&known != 0 && before(r.next, p.Ack) && p.TTL == d.ttl {
		r.flags |= unseen // its sender had received more than the capture has (RFC 9293 §3.5.2)
	}
	class := t.resetClass(c, s, p, at)
	switch {
	case class == ResetAbort && (d.flags|r.flags)&unseen != 0:
		class = ResetComplete // the end of the exchange is not in the capture
	case c.Unheard(s.Other()) && (class == ResetAbort || class == ResetIdle):
		class = ResetComplete // the other half of the exchange is not
	}
	if s == Client && c.reqAt != 0 && c.unanswered == answered {
		t.abandon(c, at, true, p.Frame)
	}
	e := Event{Kind: Reset, Conn: c, Side: s, At: at, Class: class, Frame: p.Frame, N: 1,
		flag: d.ttl != 0 && p.TTL != d.ttl, Proven: true, Bare: p.Flags&capture.ACK == 0}
	switch class {
	case ResetRefused:
		e.Kind, e.Since = Refused, c.synAgain
	case ResetIdle:
		e.Since = at.Add(-max(c.idleFor, 0))
	default:
		e.Since = c.side[s.Other()].lastAt
	}
	e.Dur = at.Sub(e.Since)
	if t.wants(e.Kind) {
		t.ev = e
		t.send(&t.ev)
	}
	t.unsettled(c, s)
	t.unsettled(c, s.Other())
	t.strange(c, s, p, at)
	c.close, c.closer = class, uint8(s)+1
	t.finish(c, at, true)
}

// unsettled counts what s has sent and nobody has acknowledged when a reset ends the connection. It is not sent again, whether it was
// lost or not: a close alert before the reset of who closes with data unread (RFC 2525 §2.17), an answer that nobody waits for.
func (t *Table) unsettled(c *Conn, s Side) {
	path := t.Path(c)
	if path == nil || !c.Unacked(s) || c.trouble != 0 && t.trouble(c).side[s].repeatedFrom(c.side[s.Other()].acked) {
		return
	}
	ps, d := &path.Side[c.dir(s)], &c.side[s]
	n := d.next - c.side[s.Other()].acked
	if d.flags&finSent != 0 && d.finSeq == d.next {
		n--
	}
	eachSize(c.flight(s, n), headerOf(c), c.MSS(s), func(ip, n uint32) { ps.bin(Bin(ip)).Unsure += n })
}

// resetClass tells what p, a RST of side s, means from what went before.
func (t *Table) resetClass(c *Conn, s Side, p *capture.Packet, at capture.Instant) Class {
	d, r := &c.side[s], &c.side[s.Other()]
	bare := p.Flags&capture.ACK == 0 // it acknowledges nothing
	switch {
	case c.synAckAt == 0 && c.synAt != 0 && s == Server && r.bytes == 0:
		return ResetRefused
	case s == Client && c.GaveUpAfter() >= leastPatience && r.nextAt > d.finAt && r.bytes > 0:
		// The client had lost patience and closed; then its answer came.
		return ResetLateAnswer
	case s == Server && d.flags&finSent != 0 && r.flags&finSent == 0 && c.reqAt != 0 && c.unanswered == answered && c.tooLate(at):
		return ResetLateRequest
	case s == Client && d.flags&finSent != 0 && c.answers == 1 && c.idleEnd != 0 && c.reqLast.Add(c.FirstResponse) == c.idleEnd && at.Sub(c.idleEnd) <= idleEcho:
		// It closed with its request, to wait for the answer (RFC 9293 §3.6), and after a long silence does not know of it any more.
		return ResetIdle
	case d.flags&finSent != 0:
		// Both had closed, or one that had closed rejects what crossed its FIN: a TLS close alert,
		// the rest of an answer that nobody wants any more.
		return ResetComplete
	case s == Client && c.reqAt != 0 && c.idleEnd == at && c.reqAt <= at.Add(-c.idleFor):
		return ResetAbort // all this time it has waited for its answer: it gives up
	case s == Client && c.reqLast != 0 && c.idleEnd < at && c.reqLast <= c.idleEnd.Add(-c.idleFor) && r.nextAt >= c.idleEnd &&
		d.flags&ackKnown != 0 && !before(d.acked+1, r.next):
		return ResetComplete // it has taken the answer, or the FIN, that ended the silence
	case c.idleEnd == at && !bare && p.TTL == d.ttl && c.reqAt == 0 && d.acked == r.next && r.acked == d.next:
		return ResetComplete // it ends what it has not used for long, and rejects nothing (RFC 9293 §3.10.5: ABORT)
	case c.idleEnd != 0 && at.Sub(c.idleEnd) <= idleEcho && !t.repeating(c, s.Other(), c.idleEnd) && !(d.nextAt > c.idleEnd && r.nextAt >= c.idleEnd):
		// Who has had an answer since the silence, or has given one, knows of the connection.
		return ResetIdle
	case c.side[0].bytes+c.side[1].bytes == 0:
		if s == Server && c.estAt != 0 && at.Sub(c.estAt) <= overflowWithin {
			return ResetOverflow
		}
		return ResetComplete
	case s == Server && c.answers == 0 && c.estAt != 0 && at.Sub(c.estAt) <= overflowWithin && d.bytes == 0 && d.flags&finSent == 0 && d.acked == r.isn+1:
		// The request was never acknowledged: reset before the listener took the connection.
		return ResetOverflow
	case r.flags&ackKnown != 0 && d.flags&known != 0 && before(r.acked, d.next) && at.Sub(max(r.lastAt, d.nextAt)) >= minRTO*3:
		// Own data unacknowledged for more than two time-outs; what was sent just now had no time to be.
		return ResetTimeout
	case s == Server && r.flags&finSent != 0 && c.mayBeFarewell() && r.finAt.Sub(c.reqLast) < time.Millisecond:
		return ResetComplete // it closes, the client's farewell unread: a RST in place of its FIN (RFC 2525 §2.17)
	case s == Server && c.repliesInKind():
		return ResetComplete // both have said farewell; the reset is in place of its FIN
	case c.reqAt != 0:
		return ResetAbort
	case r.flags&known != 0 && d.flags&ackKnown != 0 && before(d.acked, r.next) && r.flags&finSent == 0:
		// Data of the other side was still unread.
		return ResetAbort
	case r.flags&midWrite != 0 && r.flags&finSent == 0:
		return ResetAbort // there was more to come
	case bare && s == Server && d.flags&midWrite != 0 && r.flags&finSent == 0:
		return ResetAbort // its own answer is not at its end, and its host knows no such connection any more (RFC 9293 §3.10.7.1)
	}
	return ResetComplete
}

// tooLate reports whether what the client sent to a server that had closed is a request that it waits for an answer to. Who
// says farewell sends its FIN at once: a millisecond is more than that takes, and so is half of the server's part of the round
// trip where it is the larger one, for nearer to the client no reset can come so soon. Of more than an initial window (RFC 6928) on its way it is the rest of something that was answered early.
func (c *Conn) tooLate(at capture.Instant) bool {
	return c.crossed(c.side[Server].finAt) && c.side[Client].next-c.side[Server].acked <= 10*c.MSS(Client) &&
		(!c.mayBeFarewell() || !c.repliesToFIN() && at.Sub(c.reqLast) >= min(time.Millisecond, max(c.serverLeg()/2, leastFIN)))
}

// leastFIN is what a client needs at least for the FIN that follows its farewell: two system calls of a busy host.
const leastFIN = 200 * time.Microsecond

// finReply is how long a program takes at most to answer the end of the other side with a farewell of its own; a request that finds its
// pooled connection closed comes at any time.
const finReply = 10 * time.Millisecond

// repliesToFIN reports whether the newest request was sent by who had just got the server's FIN: it acknowledges it.
func (c *Conn) repliesToFIN() bool {
	return c.side[Server].flags&finAcked != 0 && c.reqAt.Sub(c.side[Server].finAt) <= c.HandshakeRTT+finReply
}

// repliesInKind reports whether the newest request is the client's farewell in reply to the server's: as long, at once, and the server's
// came after an answer. The close alerts of one TLS connection have one length, for it has one cipher (RFC 8446 §6.1), while who asks
// again sends another length than the end of the answer, or all messages have the same and none is beyond the answer.
func (c *Conn) repliesInKind() bool {
	said := c.side[Server].nextAt
	return c.farewell != 0 && c.RequestLen() == uint32(c.farewell) && c.AnswerBytes() > uint32(c.farewell) &&
		c.reqAt != 0 && c.reqAt == c.reqLast && said <= c.reqAt && c.reqAt.Sub(said) <= c.HandshakeRTT+finReply
}

// serverLeg is the time from the capture point to the server and back, if that is the larger part of the round trip; else, or if the
// handshake is not in the capture, more than any.
func (c *Conn) serverLeg() time.Duration {
	leg := c.synAckAt.Sub(c.synAt)
	if c.synAt == 0 || c.synAckAt == 0 || leg <= 0 || leg < c.estAt.Sub(c.synAckAt) {
		return time.Hour
	}
	return leg
}

// crossed reports whether the newest request began after the server's FIN, which was seen at fin, or so short before that it
// cannot have arrived: by a round trip, or a millisecond where that is less.
func (c *Conn) crossed(fin capture.Instant) bool {
	return fin.Sub(c.reqAt) <= max(c.HandshakeRTT, time.Millisecond)
}

// repeating reports whether what s sent at the time at, or later, repeats what it had sent before.
func (t *Table) repeating(c *Conn, s Side, at capture.Instant) bool {
	if c.trouble == 0 {
		return false
	}
	x := &t.trouble(c).side[s]
	return x.again > 0 && x.againAt >= at
}

// finish ends c once; ended says that FINs or a RST did, not the table's caps.
func (t *Table) finish(c *Conn, at capture.Instant, ended bool) {
	if c.closed {
		return
	}
	c.closed = true
	t.halfCloseEnd(c, at)
	t.zeroWindowEnd(c, Client, at)
	t.zeroWindowEnd(c, Server, at)
	if c.trouble != 0 {
		tr := t.trouble(c)
		t.countStalled(c, tr, Client, at, 0)
		t.countStalled(c, tr, Server, at, 0)
	}
	if t.wants(Closed) {
		t.ev = Event{Kind: Closed, Conn: c, Side: c.closedBy(), Class: c.close, At: at, flag: ended,
			Since: c.First, Dur: at.Sub(c.First)}
		t.send(&t.ev)
	}
	c.reqAt = 0
}
