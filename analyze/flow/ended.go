package flow

import (
	"encoding/binary"
	"time"

	"jindan/capture"
)

// challenge is what became of the newest SYN that was answered with an acknowledgement of something older.
type challenge uint8

const (
	unchallenged challenge = iota
	challenged             // the caller has not said anything to it
	rejected               // the caller reset it, and will ask again at once
)

// echoes are acknowledgements that answer one another.
type echoes struct {
	since, newest capture.Instant
	rounds        uint32
}

// leastEchoes is from how many rounds on two sides that acknowledge each other's acknowledgements do not agree about what was sent. Nobody
// acknowledges an acceptable acknowledgement (RFC 9293 §3.10.7.4); windows and repetitions cross a few times.
const leastEchoes = 16

// echo follows bare acknowledgements that say nothing new and answer one another, sooner than any timer of either side; last is when the packet
// before p came.
func (t *Table) echo(c *Conn, s Side, p *capture.Packet, at, last capture.Instant) {
	d, o := &c.side[s], s.Other()
	answers := c.writes[o]&bareACK != 0 && at.Sub(last) < minRTO
	c.writes[Client] &^= bareACK
	c.writes[Server] &^= bareACK
	if p.Len > 0 || p.Flags&(capture.SYN|capture.FIN|capture.ACK) != capture.ACK || d.flags&ackKnown == 0 || before(d.acked, p.Ack) {
		return
	}
	c.writes[s] |= bareACK
	if !answers {
		return
	}
	x := &t.trouble(c).echoes
	if x.since == 0 || last.Sub(x.newest) >= minRTO {
		*x = echoes{since: last}
	}
	x.newest = at
	if x.rounds++; x.rounds >= leastEchoes && powerOfTwo(x.rounds) && t.wants(AckLoop) {
		t.ev = Event{Kind: AckLoop, Conn: c, Side: s, At: at, N: x.rounds, Since: x.since, Dur: at.Sub(x.since), Frame: p.Frame}
		t.send(&t.ev)
	}
}

// loop is the exchange of a reset and what answers it, again and again.
type loop struct {
	since  capture.Instant // the connection's end: its first RST
	rounds uint32          // resets that followed an answer to the one before
	ack    uint32          // of the answer
	by     uint8           // who resets, plus one; 0: nobody so far
	answer bool            // the newest RST was answered
}

// ignores reports whether the receiver of a RST of s drops it. In SYN-SENT it heeds only one that
// acknowledges its SYN (RFC 9293 §3.10.7.3); later, only one inside its window (§3.10.7.4).
func (c *Conn) ignores(s Side, p *capture.Packet) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	if c.estAt == 0 && c.synAckAt == 0 && s == Server && r.flags&synSeen != 0 && r.bytes == 0 {
		return p.Flags&capture.ACK == 0 || p.Ack-r.isn-1 > uint32(r.synData)
	}
	return c.estAt != 0 && d.flags&known != 0 && r.flags&ackKnown != 0 && p.Seq != 0 &&
		!near(r.acked, p.Seq, c.reach(s)) && !near(d.next, p.Seq, c.reach(s))
}

// ignoredReset reports a RST that has no effect.
func (t *Table) ignoredReset(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	x := &t.trouble(c).side[s]
	x.Ignored++
	if t.wants(ResetIgnored) {
		t.ev = Event{Kind: ResetIgnored, Conn: c, Side: s, At: at, N: x.Ignored, Frame: p.Frame, Since: c.synAgain}
		if c.synAgain != 0 {
			t.ev.Dur = at.Sub(c.synAgain)
		}
		t.send(&t.ev)
	}
}

// older is an open connection on whose ports a SYN begins another: what the sender of the SYN, and its peer, would have sent next.
type older struct {
	next [2]uint32
	open bool
}

// older is what c leaves behind as the SYN p of side s begins another connection on its ports.
func (c *Conn) older(s Side, p *capture.Packet) older {
	d, o := &c.side[s], &c.side[s.Other()]
	return older{[2]uint32{d.next, o.next}, p.Flags&(capture.SYN|capture.ACK) == capture.SYN && !c.closed && c.IsEstablished() &&
		(d.flags|o.flags)&finSent == 0 && d.flags&o.flags&known != 0}
}

// ofOlder reports whether p belongs to the older connection on the ports of c, which its host has kept: it answers the SYN of c by an
// acknowledgement of that, and goes on with it (RFC 5961 §4.2). Two callers may have got the same ports of a NAT. While the SYN is tried,
// the older connection is not followed.
func (t *Table) ofOlder(c *Conn, s Side, p *capture.Packet) bool {
	if c.trouble == 0 || c.synAckAt != 0 || p.Flags&(capture.SYN|capture.RST) != 0 ||
		s == Server && p.Len == 0 && c.challenged != challenged { // each SYN draws one
		return false
	}
	x := &t.trouble(c).older
	if !x.open || !near(p.Seq, x.next[s], maxFirstWrite) {
		return false
	}
	if end := p.Seq + seqLen(p); before(x.next[s], end) {
		x.next[s] = end
	}
	return true
}

// givenUp reports whether the SYN of c would have come again by now, twice over (RFC 6298 §5.5: the time-out doubles).
func (c *Conn) givenUp(at capture.Instant) bool {
	return at.Sub(c.synAgain) > 2*(c.synAgain.Sub(c.synAt)+time.Second)
}

// challengeSYN reports that the newest SYN met something older.
func (t *Table) challengeSYN(c *Conn, p *capture.Packet, at capture.Instant) {
	c.challenged = challenged
	if c.challenges < 255 {
		c.challenges++
	}
	if t.wants(SynChallenged) {
		t.ev = Event{Kind: SynChallenged, Conn: c, Side: Server, At: at, N: uint32(c.challenges), Frame: p.Frame,
			Since: c.synAgain, Dur: at.Sub(c.synAgain)}
		t.send(&t.ev)
	}
}

// afterReset follows a connection that a RST has ended: what is still sent, and a RST that is answered again and again.
func (t *Table) afterReset(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	tr := t.trouble(c)
	l := &tr.loop
	if l.by == 0 {
		l.since, l.by = c.Last, uint8(c.closedBy())+1
	}
	if p.Flags&capture.RST != 0 {
		if l.answer && l.by == uint8(s)+1 {
			l.rounds++
			if l.rounds >= leastLoop && powerOfTwo(l.rounds) && t.wants(ResetLoop) {
				t.ev = Event{Kind: ResetLoop, Conn: c, Side: s, At: at, N: l.rounds, Since: l.since, Dur: at.Sub(l.since), Frame: p.Frame}
				t.send(&t.ev)
			}
		}
		l.by, l.answer = uint8(s)+1, false
		return
	}
	// An answer to a RST repeats what was acknowledged; what was on its way when the connection ended acknowledges more.
	if l.by == uint8(s.Other())+1 && p.Len == 0 && p.Flags&(capture.SYN|capture.FIN|capture.ACK) == capture.ACK {
		l.answer = l.rounds == 0 || p.Ack == l.ack
		l.ack = p.Ack
	}
	x := &tr.side[s]
	x.After++
	if powerOfTwo(x.After) && t.wants(AfterReset) {
		t.ev = Event{Kind: AfterReset, Conn: c, Side: s, At: at, N: x.After, Len: p.Len, flag: p.Len > 0, Since: l.since,
			Dur: at.Sub(l.since), Frame: p.Frame}
		t.send(&t.ev)
	}
}

// leastLoop is the number of rounds from which an exchange of resets is worth an event: what was on its way when a
// connection ended is answered by a few.
const leastLoop = 4

func powerOfTwo(n uint32) bool { return n&(n-1) == 0 }

// askSlots is how many of the newest connection requests are remembered.
const askSlots = 1 << 12

// asks remembers the newest SYNs by their numbers, so that the answer from another address than asked is known for one.
type asks struct{ refs [askSlots]Ref }

func (a *asks) slot(isn uint32) *Ref { return &a.refs[isn*0x9e3779b1>>20] }

// elsewhere reports that the SYN-ACK that began c answers a SYN to another address.
func (t *Table) elsewhere(c *Conn, p *capture.Packet, at capture.Instant) {
	asked := t.Lookup(*t.asks.slot(p.Ack - 1))
	if asked == nil || asked == c || asked.Client != c.Client || asked.side[Client].isn != p.Ack-1 || asked.synAt == 0 ||
		asked.synAckAt != 0 || at.Sub(asked.synAgain) > answerWithin {
		return
	}
	t.ev = Event{Kind: SynAckElsewhere, Conn: asked, Side: Server, At: at, Since: asked.synAt, Dur: at.Sub(asked.synAt),
		From: c.Server, N: 1, Frame: p.Frame}
	t.send(&t.ev)
}

// callers remembers the newest connection of each caller's address and port.
type callers struct{ refs [askSlots]Ref }

func (a *callers) slot(e *capture.Endpoint) *Ref {
	return &a.refs[(binary.BigEndian.Uint32(e.Addr[12:])*0x9e3779b1^uint32(e.Port)*0x85ebca6b)>>20]
}

// maxStrange is how many packets of a connection may have come from elsewhere before the first is reset: those of a window.
const maxStrange = 64

// strange reports that what s resets without knowing it, as c, is data of the newest connection of the same caller that came from another address than
// that connection's: both numbers fit, of which by chance one of a thousand does.
func (t *Table) strange(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d, r := &c.side[s], &c.side[s.Other()]
	if c.SynSeen() || d.packets != 1 || r.packets > maxStrange || r.bytes == 0 || p.Flags&capture.ACK != 0 || !t.wants(DataElsewhere) {
		return
	}
	e := c.Endpoint(s)
	asked := t.Lookup(*t.callers.slot(&e))
	if asked == nil || asked == c || asked.Client != e || asked.closed || asked.side[Server].flags&known == 0 ||
		!near(asked.side[Server].next, r.isn, asked.reach(Server)) || !near(asked.side[Client].next, p.Seq, asked.reach(Client)) {
		return
	}
	t.ev = Event{Kind: DataElsewhere, Conn: asked, Side: Server, At: at, From: c.Endpoint(s.Other()), N: 1, Frame: p.Frame}
	t.send(&t.ev)
}

// answerWithin is how long after a SYN the SYN-ACK from elsewhere may come: half the 63 s for which Linux repeats its
// SYN-ACK (tcp_synack_retries 5).
const answerWithin = 30 * time.Second
