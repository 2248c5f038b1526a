package flow

import (
	"math"
	"time"

	"jindan/capture"
)

const (
	// idleGap is a silence after which a reset counts as an idle time-out of some box between:
	// the shortest idle time-outs in use are 30–60 s for UDP-like NAT and 60 s and more for
	// TCP (RFC 5382 REQ-5 wants 2 h 4 min); 10 s is below all of them and above any client time-out
	// retry pattern.
	idleGap = 10 * time.Second
	// idleEcho is how soon after the end of such a silence the reset must come to be
	// an answer to it: a few round trips.
	idleEcho = 2 * time.Second
	// minRTO: no retransmission time-out fires earlier (Linux TCP_RTO_MIN, include/net/tcp.h).
	minRTO = 200 * time.Millisecond
	// reorderLimit is the time within which late data counts as reordered when
	// nothing better tells (Wireshark User's Guide §7.5: 3 ms without a known RTT).
	reorderLimit = 3 * time.Millisecond
	// overflowWithin: a listener that resets because its accept queue is full
	// (tcp_abort_on_overflow) does so on the client's ACK or first data.
	overflowWithin = 100 * time.Millisecond
)

// GiveUp is the least patience: a client that closes sooner than this after its request did not lose patience: it
// half-closes by design (RFC 9293 §3.6), or the user cancelled. The shortest time-outs in use are 1 s.
const GiveUp = 500 * time.Millisecond

// leastPatience is less than the least time-out in use (0.3 s of impatient callers of services that answer in milliseconds). A client that
// closes sooner after its request did not want the answer.
const leastPatience = 100 * time.Millisecond

// segment advances c by one packet of side s.
func (t *Table) segment(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d, r := &c.side[s], &c.side[s.Other()]
	path := t.Path(c)
	if path != nil {
		t.touch(path, at)
		if p.Flags&(capture.SYN|capture.ACK) != capture.SYN { // a lone SYN may be forged
			i := c.dir(s)
			path.Heard[i] = max(path.Heard[i], at)
		}
	}
	if path != nil {
		path.Side[c.dir(s)].Packets++
	}
	if t.copies.seen(c, s, p, at) || passedOn(d, p, at) || (at < d.lastAt && t.now.Sub(at) >= disorder || t.twice(d, at)) && alreadySeen(d, p) {
		t.copied(c, s, p, at, path)
		return
	}
	if at < d.lastAt {
		t.Stats.Backward++
		if alreadySeen(d, p) {
			d.packets++
			return // overtaken by what was captured after it: it says nothing any more
		}
	}
	if gap := at.Sub(c.Last); gap >= idleGap {
		c.idleEnd, c.idleFor = at, gap
	}
	if c.close != ClassNone && c.close != ResetRefused {
		t.afterReset(c, s, p, at)
	}
	d.packets++
	if c.trouble != 0 && p.IPID == d.nextID+1 {
		t.trouble(c).side[s].followed = d.nextID
	}
	d.lastAt = max(d.lastAt, at)
	last := c.Last
	c.Last = max(c.Last, at)
	if d.ttl == 0 {
		d.ttl = p.TTL
	}

	if c.isChallenge(s, p) {
		t.challengeSYN(c, p, at)
		return
	}
	if p.Flags&capture.RST != 0 {
		switch {
		case c.challenged != unchallenged && s == Client && c.synAckAt == 0:
			c.challenged = rejected
		case !c.closed && c.ignores(s, p):
			t.ignoredReset(c, s, p, at)
		default:
			// What it acknowledges was received before it was sent: a health check that has read its answer leaves nothing unread.
			if p.Flags&capture.ACK != 0 && d.flags&ackKnown != 0 && before(d.acked, p.Ack) && !before(r.next, p.Ack) {
				d.acked = p.Ack
			}
			t.reset(c, s, p, at)
		}
		return
	}
	t.echo(c, s, p, at, last)
	if p.Flags&capture.SYN != 0 {
		t.syn(c, s, p, at, path)
	} else if p.Flags&capture.ACK != 0 && c.estAt == 0 && c.synAt != 0 {
		c.estAt = at
		if at > c.synAgain {
			c.HandshakeRTT = at.Sub(c.synAgain)
		}
		if t.wants(Established) {
			t.ev = Event{Kind: Established, Conn: c, Side: s, At: at, Dur: c.HandshakeRTT, Frame: p.Frame}
			t.send(&t.ev)
		}
	}
	if p.Opts&capture.OptTimestamps != 0 {
		d.flags |= tsSeen
	}
	if p.Flags&capture.ACK != 0 {
		if r.flags&known != 0 && before(r.next, p.Ack) && p.Ack-r.next > c.reach(s.Other()) && t.outsideACK(c, s, p) {
			return
		}
		t.ack(c, s, p, at, path)
	}
	if p.Flags&capture.SYN == 0 || p.Flags&capture.ACK != 0 && p.Window == 0 {
		t.window(c, s, p, at) // a box that answers for the server until that does keeps the window closed meanwhile
	}
	if p.Flags&(capture.SYN|capture.FIN) == 0 && p.Len == 0 {
		t.sentUnseen(c, s, p, at)
	}
	if p.Len <= 1 && t.wants(Probe) && c.probes(s, p) {
		t.ev = Event{Kind: Probe, Conn: c, Side: s, At: at, Frame: p.Frame}
		t.send(&t.ev)
	}
	if (p.Len > 0 || p.Flags&capture.FIN != 0) && p.Flags&capture.SYN == 0 && !t.data(c, s, p, at, path) {
		return
	}
	if p.Flags&capture.FIN != 0 {
		t.fin(c, s, p, at)
	}
	if !c.closed && d.flags&r.flags&finSent != 0 && d.flags&r.flags&finAcked != 0 {
		t.finish(c, at, true)
	}
}

// probes reports whether p of side s only asks for an acknowledgement: all that it sent has been acknowledged, and its number lies just
// below that. Whether it sent anything need not have been captured.
func (c *Conn) probes(s Side, p *capture.Packet) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	return r.flags&ackKnown != 0 && p.Seq+1 == r.acked && (d.flags&known == 0 || d.next == r.acked) &&
		d.flags&finSent == 0 && p.Flags&(capture.SYN|capture.FIN) == 0
}

// sentUnseen takes what a bare acknowledgement tells of its own sender: its sequence number is that of what s will send next
// (RFC 9293 §3.10.7.4), so that what lies below has been sent. Where every segment is too large for the path, nothing else
// tells of them here. One sequence number may be a FIN.
func (t *Table) sentUnseen(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d := &c.side[s]
	if d.flags&(known|finSent) == known && before(d.next, p.Seq) && p.Seq-d.next > 1 && !c.closed && d.synData == 0 && c.plausible(s, p.Seq) {
		t.openHole(c, s, p, at)
		d.next = p.Seq
		if x := &t.trouble(c).side[s.Other()]; x.vain == d.packets && isDSACK(p) {
			t.lostUnasked(c, s, p)
		}
	}
}

// lostUnasked takes what s has sent and p alone tells of, where the other side can ask for it no more clearly: it has heard nothing, and
// has sent its data again after a time-out; p says by D-SACK that s had it. A kernel acknowledges within 200 ms what its program does not
// answer (Linux TCP_DELACK_MAX; RFC 9293 §3.8.6.3: less than 500 ms), so what came in return was lost. p itself has arrived; had it not,
// the data would have come once more.
func (t *Table) lostUnasked(c *Conn, s Side, p *capture.Packet) {
	x := &t.trouble(c).side[s]
	x.holes[x.n-1].asked = true
	if path := t.Path(c); path != nil {
		path.Side[c.dir(s)].count(Bare, p.IPLen, 1)
	}
}

// isChallenge reports whether p is the acknowledgement of something older that answers a SYN: from a
// TIME_WAIT socket of a previous connection, for example. The client resets that and sends its SYN
// again at once; the SYN was not lost (RFC 9293 §3.10.7.3, RFC 5961 §4).
func (c *Conn) isChallenge(s Side, p *capture.Packet) bool {
	r := &c.side[Client]
	return s == Server && p.Flags&(capture.SYN|capture.RST|capture.FIN|capture.ACK) == capture.ACK && p.Len == 0 &&
		c.synAckAt == 0 && c.estAt == 0 && r.flags&(synSeen|ackKnown) == synSeen && r.bytes == 0 && p.Ack-r.isn > maxFirstWrite
}

// hopBlind is far less than a sender waits before it repeats anything, and far more than a box takes to pass a packet
// on: at a router with offload (veth, this machine) the parts of a super-packet leave 8 to 9 µs after it has come.
const hopBlind = time.Millisecond

// passedOn reports whether p, with another TTL than its sender's packets were first seen with, says nothing new right
// after that was said: a box that is captured on both sides splits what came as one packet, or joins what came in
// several. These are no copies by length and identification, but by their data.
func passedOn(d *side, p *capture.Packet, at capture.Instant) bool {
	return p.Len > 0 && d.flags&known != 0 && d.ttl != 0 && p.TTL != d.ttl && at.Sub(d.nextAt) < hopBlind &&
		!before(d.next, p.Seq+seqLen(p))
}

// maxRestated bounds how often the connections are gone through because the clock was set.
const maxRestated = 16

// Restate says that the clock of the input was set back by back at the event time from: an input that was written
// twice says the same again, with the same times. How long anything has waited across such a step is not known.
func (t *Table) Restate(from capture.Instant, back time.Duration) {
	t.restated, t.back = from, back
	if t.restates++; t.restates > maxRestated {
		return
	}
	t.Live(func(c *Conn) {
		c.reqAt = 0
		c.side[0].nextAt, c.side[1].nextAt = max(c.side[0].nextAt, from), max(c.side[1].nextAt, from)
	})
}

// Restated is the event time at which the clock of the input was last set back; the least time if it never was.
func (t *Table) Restated() capture.Instant {
	if t.restates == 0 {
		return math.MinInt64
	}
	return t.restated
}

// twice reports whether a packet of event time at has, by the clock before it was set back, the time of one that d
// sent before, or an earlier one.
func (t *Table) twice(d *side, at capture.Instant) bool {
	return t.back > 0 && d.packets > 0 && d.lastAt < t.restated && at.Add(-t.back) <= d.lastAt
}

// alreadySeen reports whether p says nothing new: then, with a time before its sender's
// last packet, the capture went back in time over the same packets.
func alreadySeen(d *side, p *capture.Packet) bool {
	if d.flags&known == 0 {
		return false
	}
	end := p.Seq + seqLen(p)
	return !before(d.next, end) && (p.Flags&capture.ACK == 0 || !before(d.acked, p.Ack))
}

// seqLen is the sequence space that p occupies (RFC 9293 §3.4).
func seqLen(p *capture.Packet) uint32 {
	n := p.Len
	if p.Flags&capture.SYN != 0 {
		n++
	}
	if p.Flags&capture.FIN != 0 {
		n++
	}
	return n
}

// fallen is by how much a TTL is below another.
func fallen(from, to uint8) uint8 { return from - min(from, to) }

func (t *Table) copied(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) {
	t.Stats.Copies++
	t.trouble(c).side[s].Copies++
	if path != nil {
		path.Side[c.dir(s)].Copies++
	}
	if t.wants(Copy) {
		t.ev = Event{Kind: Copy, Conn: c, Side: s, At: at, Len: p.Len, N: uint32(fallen(c.side[s].ttl, p.TTL)), Frame: p.Frame}
		t.send(&t.ev)
	}
}

// dir is the index of the path side that side s of c sends on.
func (c *Conn) dir(s Side) int { return int(s ^ c.aSide) }

func (t *Table) ack(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) {
	o := s.Other()
	d, r := &c.side[s], &c.side[o]
	if s == Client && c.reqAt != 0 && c.ackedUnseen(p.Ack) {
		// Its answer came, and the capture has missed it: when, nobody knows.
		c.reqAt = 0
	}
	if r.flags&known != 0 {
		if r.synData > 0 {
			t.tookSYN(c, o, p.Ack, at)
		}
		if before(r.next, p.Ack) {
			// Acknowledged but never seen. One sequence number may be a FIN that was not
			// captured; it counts as a segment all the same.
			if t.captureLost(c, o, p.Ack-r.next, at, path); c.halfAt != 0 && c.halfSide == s {
				// Half-closed, and the side that closed acknowledges more: most likely the FIN
				// that everybody waits for, and the capture lost it.
				r.flags |= finSent | finAcked
				r.finSeq, r.finAt = p.Ack, at
				t.halfCloseEnd(c, at)
			}
			r.next, r.nextAt = p.Ack, at
			r.flags |= unseen
		}
		if c.trouble != 0 {
			t.ackHoles(c, o, p.Ack, at, path)
		}
	}
	switch {
	case d.flags&ackKnown == 0 || before(d.acked, p.Ack):
		if path != nil && d.flags&ackKnown != 0 {
			path.Side[c.dir(o)].Acked += uint64(p.Ack - d.acked)
		}
		d.acked = p.Ack
		d.flags |= ackKnown
		d.flags &^= sackSeen
		if d.flags&shut != 0 && p.Window != 0 && !before(p.Ack, t.trouble(c).side[s].shutSeq) {
			d.flags &^= shut
		}
		d.dup = 0
		if c.trouble != 0 {
			t.recovered(c, o, p.Ack, at)
		}
		if r.flags&finSent != 0 && r.flags&finAcked == 0 && !before(p.Ack, r.finSeq) {
			r.flags |= finAcked
			// A listener that repeats its SYN-ACK has not taken the connection: it dropped the FIN with the handshake's last ACK (Unaccepted).
			if c.trouble != 0 && path != nil && t.trouble(c).side[o].Retransmits[Closing] > 0 && (o == Server || c.saTries == 0) {
				path.Side[c.dir(o)].again(headerOf(c), 1) // the peer is there: one of the FINs was lost
			}
			// Of a side whose newest bytes the capture has missed nobody knows whether it closed first.
			if d.flags&finSent == 0 && p.Flags&capture.FIN == 0 && !c.closed && d.flags&unseen == 0 {
				c.halfAt, c.halfSide = at, o
				if t.wants(HalfClosed) {
					t.ev = Event{Kind: HalfClosed, Conn: c, Side: o, At: at, Frame: p.Frame, flag: c.unanswered == givenUp}
					t.send(&t.ev)
				}
			}
		}
	case d.acked == p.Ack && p.Len == 0 && p.Flags&(capture.SYN|capture.FIN) == 0 &&
		p.Window == d.window && before(p.Ack, r.next):
		if d.dup < 255 {
			d.dup++
		}
	}
	if p.SACKs > 0 {
		t.sack(c, s, p, at, path)
	}
}

// ackedUnseen reports whether the client's acknowledgement covers what the server sent and the capture has not seen. Of a
// server that was never seen, any advance of the acknowledgement does.
func (c *Conn) ackedUnseen(ack uint32) bool {
	d, r := &c.side[Client], &c.side[Server]
	if r.flags&known != 0 {
		return before(r.next, ack) && (r.synData == 0 || ack-r.isn-1 != uint32(r.synData))
	}
	return d.flags&ackKnown != 0 && before(d.acked, ack)
}

// recovered ends a run of repetitions of side s: they were acknowledged.
func (t *Table) recovered(c *Conn, s Side, ack uint32, at capture.Instant) {
	x := &t.trouble(c).side[s]
	if x.again == 0 || !before(x.againSeq, ack) {
		return
	}
	t.release(c, s, x, t.Path(c), at)
	if t.wants(Recovered) {
		t.ev = Event{Kind: Recovered, Conn: c, Side: s, At: at, Try: x.again, Since: x.againAt, Dur: at.Sub(x.againAt)}
		t.send(&t.ev)
	}
	x.again = 0
}

// isDSACK reports whether p says that something came twice (RFC 2883 §4): the first block lies below the cumulative ACK, or inside
// the second block.
func isDSACK(p *capture.Packet) bool {
	if p.SACKs == 0 {
		return false
	}
	b := p.SACK[0]
	if !before(p.Ack, b[1]) && before(b[0], p.Ack) {
		return true
	}
	q := p.SACK[1]
	return p.SACKs > 1 && !before(b[0], q[0]) && !before(q[1], b[1])
}

// sack takes what p reports as received, or as received twice.
func (t *Table) sack(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) {
	if !isDSACK(p) {
		c.side[s].flags |= sackSeen
		return
	}
	b := p.SACK[0]
	o := s.Other()
	t.trouble(c).side[o].DSACKs++
	if path != nil {
		path.Side[c.dir(o)].Spurious++
	}
	if t.wants(SpuriousRepeat) {
		t.ev = Event{Kind: SpuriousRepeat, Conn: c, Side: o, At: at, Len: b[1] - b[0], N: 1, Frame: p.Frame}
		t.send(&t.ev)
	}
}

func (t *Table) window(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d := &c.side[s]
	d.window = p.Window
	d.widest = max(d.widest, p.Window)
	switch {
	case p.Window == 0 && d.flags&zeroWin == 0 && p.Flags&capture.FIN == 0:
		d.flags |= zeroWin | shut
		x := &t.trouble(c).side[s]
		x.ZeroWindows++
		x.shutSeq, x.zeroAt = c.side[s.Other()].next, at
		t.event(ZeroWindow, c, s, at)
	case p.Window != 0 && d.flags&zeroWin != 0:
		t.zeroWindowEnd(c, s, at)
	}
}

func (t *Table) zeroWindowEnd(c *Conn, s Side, at capture.Instant) {
	d := &c.side[s]
	if d.flags&zeroWin == 0 {
		return
	}
	d.flags &^= zeroWin
	if t.wants(ZeroWindowEnd) {
		since := t.trouble(c).side[s].zeroAt
		t.ev = Event{Kind: ZeroWindowEnd, Conn: c, Side: s, At: at, Since: since, Dur: at.Sub(since)}
		t.send(&t.ev)
	}
}
