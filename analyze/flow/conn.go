package flow

import (
	"time"

	"jindan/capture"
)

// ClientBy says how the client of a connection was told.
type ClientBy uint8

// The ways, best first.
const (
	BySYN    ClientBy = iota // it sent the SYN
	BySYNACK                 // the other side sent the SYN-ACK
	ByPort                   // the other port is the lower one, a listener's
)

// Sequence flags of a side.
const (
	known    uint16 = 1 << iota // next is valid
	ackKnown                    // acked is valid
	synSeen                     // its SYN or SYN-ACK was seen
	finSent                     // finSeq and finAt are valid
	finAcked                    // the other side acknowledged the FIN
	tsSeen                      // its SYN offered timestamps, or a segment carried them
	unseen                      // the newest that it sent was acknowledged and is not in the capture: it may have been its FIN
	zeroWin                     // it announces a window of 0 since trouble.zeroAt
	probed                      // next was advanced by a one-byte window probe
	shut                        // it announced a window of 0, and has not taken all that was sent until then
	midWrite                    // its last data was a full segment without PSH: there is more to come
	sackSeen                    // it reported a gap by SACK since its last cumulative ACK moved
	saSeen                      // its SYN-ACK was seen
	odd                         // its newest data lay outside any window: trouble.odd says where
	oddACK                      // so did its newest acknowledgement
	listed                      // of the client: the connection is in Table.writing
)

// side is what is known of one sender. Sequence numbers are compared modulo 2^32.
type side struct {
	next    uint32 // highest sequence number seen, plus one
	acked   uint32 // highest acknowledgement that this side sent
	isn     uint32
	stallPk uint32 // dataPk when the last stall ended, plus one; 0: there was none
	nextAt  capture.Instant
	lastAt  capture.Instant
	finAt   capture.Instant
	bytes   uint64 // payload, first transmissions only
	packets uint32
	dataPk  uint32 // segments with new data, super-packets counted as what they stand for
	finSeq  uint32 // sequence number after the FIN
	maxLen  uint16 // largest payload of one packet that fits a frame
	flags   uint16
	window  uint16
	mss     uint16 // MSS option, 0 if not seen
	nextID  uint16 // IP-ID of the segment that set next
	wscale  uint8  // its SYN's shift of the window, plus one; 0: it offered none
	dup     uint8  // duplicate ACKs in a row
	ttl     uint8
	hidden  uint8  // transmissions that the present stall has already been said to have cost
	widest  uint16 // largest window that it announced outside a SYN, unscaled
	synData uint16 // payload of its SYN that nobody has acknowledged yet (RFC 7413)
	// turn: of the client, payload of the first segment of its newest request; of the server, the low bits of
	// bytes when its newest answer began, of which Conn.answer is the rest.
	turn uint16
}

// lack is how a request ended that got no answer.
type lack uint8

const (
	answered lack = iota // or it waits
	givenUp              // by the client, who closed
	closedOn             // by the server, who closed
)

// Conn is one TCP connection. It is pointer-free, of 360 bytes; at most MaxConns are
// kept. All fields but the exported ones belong to the tracker.
type Conn struct {
	Client, Server capture.Endpoint
	Stream         uint32 // counts connections from 0, as Wireshark's tcp.stream

	// From here to side: what each packet reads.
	path       uint32
	trouble    uint32 // index+1 into the trouble slab, 0: none so far
	ClientBy   ClientBy
	aSide      Side  // who is Path.A
	halfSide   Side  // who sent the FIN that halfAt is about
	closer     uint8 // who sent the first FIN, or the RST, plus one; 0: nobody
	close      Class
	closed     bool
	unanswered lack // how a request ended that got no answer
	inUse      bool
	farewell   uint8 // payload of the server's newest segment, if it may be a farewell (maxFarewell); else 0
	writes     [2]writing
	answer     uint16 // see side.turn
	Last       capture.Instant
	estAt      capture.Instant
	reqAt      capture.Instant // request outstanding since; 0: none
	reqLast    capture.Instant
	halfAt     capture.Instant // in CLOSE_WAIT since; 0: not
	synAckAt   capture.Instant
	side       [2]side

	First capture.Instant
	// HandshakeRTT is the time from the last SYN to the first segment after it that
	// has ACK and no SYN; 0 if unknown.
	HandshakeRTT time.Duration
	// FirstResponse is the time from the last byte of the first request to the first byte of its
	// answer; 0 if there was none.
	FirstResponse time.Duration
	synAt         capture.Instant
	synAgain      capture.Instant // the newest SYN
	idleEnd       capture.Instant // when the last silence of at least idleGap ended
	idleFor       time.Duration
	firstSeen     uint64 // frame of the first packet
	index         uint32 // of this record in the slab
	service       uint32
	requests      uint32
	answers       uint32
	synTries      uint16 // SYN repeats
	saTries       uint16 // SYN-ACK repeats
	// challenged: the newest SYN was answered with the acknowledgement of something older.
	challenged challenge
	challenges uint8 // how many SYNs were; 255: that or more
}

// writing is what is known of the writes of a side.
type writing uint8

const (
	smallOut  writing = 1 << iota // its newest data was less than a full segment
	askedMore                     // of the client: its first SYN asked for ECN (RFC 3168 §6.1.1) or carried data (RFC 7413)
	bareACK                       // the connection's newest packet is its bare acknowledgement, which says nothing new
	noDelay                       // it sent less than a full segment while another one was not acknowledged: RFC 896 (Nagle) does not hold it back
	several                       // it sent a full segment while another one was not acknowledged: it waits for no acknowledgement of each
	freeEnd                       // it sent the short end of a write while full segments were not acknowledged: nothing holds ends back, as in Linux (Minshall)
)

// Endpoint returns the address of side s.
func (c *Conn) Endpoint(s Side) capture.Endpoint {
	if s == Client {
		return c.Client
	}
	return c.Server
}

// TTL is the TTL, or hop limit, of the first packet of s; 0: there was none.
func (c *Conn) TTL(s Side) uint8 { return c.side[s].ttl }

// Troubled reports whether c has a loss record.
func (c *Conn) Troubled() bool { return c.trouble != 0 }

// Service is the number of the connection's listener, from 1; 0 if there were too many.
func (c *Conn) Service() uint32 { return c.service }

// SynSeen reports whether the connection's start was seen.
func (c *Conn) SynSeen() bool { return (c.side[0].flags|c.side[1].flags)&synSeen != 0 }

// OneWay reports whether packets of one side only were seen.
func (c *Conn) OneWay() bool { return c.side[0].packets == 0 || c.side[1].packets == 0 }

// Unheard reports whether the capture shows s to have answered the other side, but not one packet of s: then it lacks that
// direction, and what s did not do, or when it did it, is not known. What completes the handshake tells (RFC 9293 §3.5).
func (c *Conn) Unheard(s Side) bool {
	return c.side[s].packets == 0 && c.side[s.Other()].flags&(synSeen|ackKnown) == synSeen|ackKnown
}

// IsEstablished reports whether the handshake was seen to complete, or data was seen.
func (c *Conn) IsEstablished() bool {
	return c.estAt != 0 || c.side[0].bytes+c.side[1].bytes > 0
}

// SlowOpening is how long the handshake took, at most one round trip, if that is longer than any time-out; else 0. A kernel answers a SYN at
// once or not at all, so that an answer that comes longer after the newest SYN than the least time-out was on its way: the
// path is slow, or a queue on it is long, and none of the SYNs need have been lost.
func (c *Conn) SlowOpening() time.Duration {
	if c.HandshakeRTT < minRTO || c.synAt == 0 {
		return 0
	}
	return c.estAt.Sub(c.synAt)
}

// Established is when the handshake completed; 0 if that was not seen.
func (c *Conn) Established() capture.Instant { return c.estAt }

// Closed reports whether the connection has ended.
func (c *Conn) Closed() bool { return c.closed }

// AskedMore reports whether the first SYN asked for ECN or carried data, which some boxes drop.
func (c *Conn) AskedMore() bool { return c.writes[Client]&askedMore != 0 }

// SynTries is how often the SYN was repeated.
func (c *Conn) SynTries() int { return int(c.synTries) }

// SynAckTries is how often the SYN-ACK was repeated.
func (c *Conn) SynAckTries() int { return int(c.saTries) }

// SynAnswered reports whether a SYN-ACK was seen.
func (c *Conn) SynAnswered() bool { return c.synAckAt != 0 }

// Challenges is how many SYNs the server answered with an acknowledgement of something older, at most 255.
func (c *Conn) Challenges() int { return int(c.challenges) }

// SynAt is the time of the first SYN; 0 if it was not seen.
func (c *Conn) SynAt() capture.Instant { return c.synAt }

// Outstanding is since when a request of the client waits for its answer; 0 if none does.
func (c *Conn) Outstanding() capture.Instant { return c.reqAt }

// RequestLast is when the last byte of the newest request was sent; 0 if there was none.
func (c *Conn) RequestLast() capture.Instant { return c.reqLast }

// Unacked reports whether the other side has not acknowledged all that s sent, its FIN aside.
func (c *Conn) Unacked(s Side) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	next := d.next
	if d.flags&finSent != 0 && d.finSeq == next {
		next--
	}
	return d.flags&known != 0 && r.flags&ackKnown != 0 && before(r.acked, next) && d.bytes > 0
}

// InFlight is how many segments of s the other side has not acknowledged: what was sent last, cut to the MSS and bounded by the window.
func (c *Conn) InFlight(s Side) uint32 {
	if !c.Unacked(s) {
		return 0
	}
	mss := c.MSS(s)
	return (c.flight(s, c.side[s].next-c.side[s.Other()].acked) + mss - 1) / mss
}

// Heard is when s last sent a packet; 0: never.
func (c *Conn) Heard(s Side) capture.Instant { return c.side[s].lastAt }

// Acked is how much of the payload of s the other side has acknowledged.
func (c *Conn) Acked(s Side) uint64 {
	d, r := &c.side[s], &c.side[s.Other()]
	if d.flags&known == 0 || r.flags&ackKnown == 0 {
		return 0
	}
	if open := uint64(d.next - r.acked); before(r.acked, d.next) {
		return d.bytes - min(open, d.bytes)
	}
	return d.bytes
}

// Closing reports whether s has sent its FIN.
func (c *Conn) Closing(s Side) bool { return c.side[s].flags&finSent != 0 }

// Idle is the newest silence of both sides that lasted 10 s and more: when it ended, and how long it was.
func (c *Conn) Idle() (end capture.Instant, d time.Duration) { return c.idleEnd, c.idleFor }

// closedBy is who sent the first FIN, or the RST; the client if nobody did.
func (c *Conn) closedBy() Side { return Side(max(c.closer, 1) - 1) }

// GaveUpAfter is how long the client waited for an answer before it closed; 0 if it got one.
func (c *Conn) GaveUpAfter() time.Duration {
	d := &c.side[Client]
	if c.unanswered != givenUp || d.flags&finSent == 0 || d.finAt < c.reqLast {
		return 0
	}
	return d.finAt.Sub(c.reqLast)
}

// Bytes is the payload that s sent, without retransmissions.
func (c *Conn) Bytes(s Side) uint64 { return c.side[s].bytes }

// Packets is the number of packets of s, copies excluded.
func (c *Conn) Packets(s Side) uint32 { return c.side[s].packets }

// Requests and Answers count request/answer turns.
func (c *Conn) Requests() uint32 { return c.requests }

// Answers counts the answered turns.
func (c *Conn) Answers() uint32 { return c.answers }

// RequestLen is the payload of the first segment of the newest request: programs that ask the same thing
// again send as many bytes again.
func (c *Conn) RequestLen() uint32 { return uint32(c.side[Client].turn) }

// AnswerBytes is how much of its newest answer the server has sent, modulo 4 GiB.
func (c *Conn) AnswerBytes() uint32 {
	d := &c.side[Server]
	return uint32(d.bytes) - (uint32(c.answer)<<16 | uint32(d.turn))
}

// HasSACKed reports whether s has acknowledged selectively what overtook missing data (RFC 2018).
func (c *Conn) HasSACKed(s Side) bool { return c.side[s].flags&sackSeen != 0 }

// Duplicates is how many acknowledgements of the same s sent last, in a row, the first one aside.
func (c *Conn) Duplicates(s Side) uint32 { return uint32(c.side[s].dup) }

// Segments is the number of segments with new data that s sent, super-packets counted as what they stand for.
func (c *Conn) Segments(s Side) uint32 { return c.side[s].dataPk }

// LastData is when s last sent something new; 0: never.
func (c *Conn) LastData(s Side) capture.Instant { return c.side[s].nextAt }

// FinAt is when s sent its FIN; 0: it has sent none.
func (c *Conn) FinAt(s Side) capture.Instant {
	if c.side[s].flags&finSent == 0 {
		return 0
	}
	return c.side[s].finAt
}

// WindowClosed reports whether s announces a receive window of 0.
func (c *Conn) WindowClosed(s Side) bool { return c.side[s].flags&(zeroWin|shut) != 0 }

// FirstFrame is the frame number of the connection's first packet.
func (c *Conn) FirstFrame() uint64 { return c.firstSeen }

// String is "client:port > server:port".
func (c *Conn) String() string { return c.Client.String() + " > " + c.Server.String() }

// MSS is the largest payload that s puts into one segment: the smaller MSS option of the
// two sides less the timestamps option (RFC 9293 §3.7.1, RFC 7323 §3.2), or, when
// the handshake was not seen, the largest payload seen in a plain frame, or fallbackMSS.
func (c *Conn) MSS(s Side) uint32 {
	d, r := &c.side[s], &c.side[s.Other()]
	var m uint32
	switch {
	case d.mss != 0 && r.mss != 0:
		m = uint32(min(d.mss, r.mss))
	case r.mss != 0:
		m = uint32(r.mss)
	case d.maxLen != 0:
		return max(uint32(d.maxLen), minMSS)
	default:
		return fallbackMSS
	}
	if d.flags&r.flags&tsSeen != 0 && m > minMSS+tsOption {
		m -= tsOption
	}
	return max(m, minMSS)
}

// room is the window that the other side announces to s; 0 if it is closed, or if its scale is not known.
func (c *Conn) room(s Side) uint32 {
	d, r := &c.side[s], &c.side[s.Other()]
	if d.flags&(synSeen|saSeen) == 0 || r.flags&(synSeen|saSeen) == 0 || r.flags&ackKnown == 0 {
		return 0
	}
	return uint32(r.window) << c.shift(s)
}

// cut is the window, with room for less than a segment, that n bytes of s up to end just fill; 0: they do not. unread says that it is the
// window as it stands in the header, though a scale was agreed upon: s has not got it. As messages may be as long by chance, that takes one
// that follows at once on a mere acknowledgement.
func (c *Conn) cut(s Side, n, end uint32, at capture.Instant) (w uint32, unread bool) {
	mss, d, r := c.MSS(s), &c.side[s], &c.side[s.Other()]
	if w = c.room(s); n >= mss || w == 0 {
		return 0, false
	}
	if w < mss && end == r.acked+w {
		return w, false
	}
	if w = uint32(r.window); c.shift(s) > 0 && w < mss && end == r.acked+w && r.nextAt < d.nextAt && at.Sub(r.lastAt) <= c.HandshakeRTT+atOnce {
		return w, true
	}
	return 0, false
}

// Unscaled reports whether both SYNs were seen, and no scale of windows was agreed upon.
func (c *Conn) Unscaled() bool {
	d, r := &c.side[0], &c.side[1]
	return d.flags&(synSeen|saSeen) != 0 && r.flags&(synSeen|saSeen) != 0 && (d.wscale == 0 || r.wscale == 0)
}

// shift is the scale of the windows that are announced to s, as far as it is known.
func (c *Conn) shift(s Side) uint8 {
	d, r := &c.side[s], &c.side[s.Other()]
	if d.wscale != 0 && r.wscale != 0 {
		return r.wscale - 1
	}
	return 0
}

// reach is how far s can be ahead of what it was last known to have sent, or behind it: no more than the largest window that the
// other side has announced (RFC 9293 §3.4). Where their scale is not known, it is taken for 1: what lies beyond needs a second
// witness, no more.
func (c *Conn) reach(s Side) uint32 {
	return max(uint32(c.side[s.Other()].widest)<<c.shift(s), leastReach)
}

// flight is how many of n missing bytes of s can have been on their way at a time: estimates of segments that nobody has seen are
// bounded by it.
func (c *Conn) flight(s Side, n uint32) uint32 { return min(n, c.reach(s)) }

const (
	leastReach  = 1 << 16 // bytes: a window without scaling
	fallbackMSS = 1460    // bytes: 1,500 of Ethernet less 40 of headers (RFC 6691 §2)
	minMSS      = 48      // bytes: Linux TCP_MIN_MSS is 88 with options; 48 bounds the division
	tsOption    = 12      // bytes of the timestamps option with padding (RFC 7323 App. A)
	plainFrame  = 1500    // bytes of IP packet that certainly fit one frame when no MSS is known
)

// hole is data of one sender that has not been seen: [from, to).
type hole struct {
	from, to uint32
	at       capture.Instant // when the segment after it was seen
	ts       uint32          // that segment's TSval
	id       uint16          // and IP-ID
	hasTS    bool
	counted  bool // already counted as missing, because it stayed open
	asked    bool // the receiver acknowledged up to it since: it lacks the data, not only the capture
}

// maxHoles bounds the list of open holes of a sender; more are merged into the last.
const maxHoles = 4

// maxRepeated bounds how many segments of a sender are remembered as sent again: what comes a third time without
// another eight in between is one loss, not two.
const maxRepeated = 8

// trouble holds what only connections with losses need, for one sender's data.
type trouble struct {
	Retransmits [Closing + 1]uint32 // segments, by Class
	Unproven    uint32              // segments of them that may be copies
	Holes       uint32              // holes opened
	Filled      uint32              // segments that filled holes: lost before the capture point
	Missing     uint32              // segments in holes that stayed open
	Reordered   uint32
	CaptureLost uint32 // segments acknowledged but never seen
	Copies      uint32
	OutOfWindow uint32 // segments and acknowledgements with a number that no window can contain
	After       uint32 // packets, RSTs left out, since a RST ended the connection
	Ignored     uint32 // resets that the other side has to ignore
	DSACKs      uint32
	ZeroWindows uint32
	zeroAt      capture.Instant
	shutSeq     uint32 // what the other side had sent when this one shut its window
	againSeq    uint32 // newest retransmission, and how often it was repeated
	again       uint32
	againAt     capture.Instant
	heldIP      uint32 // IP length, payload and number of repeated first segments that may be Unaccepted
	heldLen     uint32
	held        uint32
	lastFill    capture.Instant     // when missing data last arrived
	vain        uint32              // packets of the other side, and one, when its newest data was sent again unheard; 0: it was heard
	odd         hole                // data outside any window: [from, to), see Table.outOfWindow
	oddACK      uint32              // acknowledgement outside any window
	repeated    [maxRepeated]uint32 // where the newest segments begin that were sent again
	repeats     uint32              // segments that were sent again, each once
	refused     refused             // for its size, by a router
	damaged     [maxRepeated]uint32 // where the newest segments begin that were seen damaged
	damages     uint32              // how many were
	followed    uint16              // IP-ID of the segment that had set next when the packet that was sent right after it arrived
	n           uint8
	holes       [maxHoles]hole
	filled      [maxHoles]hole // the newest segments that filled holes, as if a hole had opened with them
	fills       uint8          // how many did, modulo 256
}

// Trouble is the loss record of a connection's two senders.
type Trouble struct {
	conn uint32
	open bool // may have open holes: it is in Table.holed
	at   int  // its place there
	side [2]trouble
	loop loop

	echoes echoes
	older  older
}

func before(a, b uint32) bool { return int32(a-b) < 0 }
