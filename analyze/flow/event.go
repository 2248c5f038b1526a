// Package flow tracks TCP connections and DNS transactions segment by segment and
// says what happened to them as typed events.
//
// It is pure: packets with their times go in, events come out, nothing reads a
// clock. Records are pointer-free, bounded in number and evicted by window
// generation.
package flow

import (
	"time"

	"jindan/capture"
)

// Kind is the kind of an Event.
type Kind uint8

// The events. "Side" is the side of the connection that Event.Side names.
const (
	// ConnNew: first packet of a connection. Side sent it.
	ConnNew Kind = iota
	// SynSent: first SYN of a connection (Side = Client).
	SynSent
	// SynRepeat: the SYN again. N counts the repeats of this connection so far, Dur
	// is the time since the first SYN.
	SynRepeat
	// SynAckSent, SynAckRepeat: the same for the SYN-ACK (Side = Server).
	SynAckSent
	SynAckRepeat
	// Established: handshake complete; Dur is the handshake RTT (SYN to first ACK
	// without SYN, Wireshark's tcp.analysis.initial_rtt).
	Established
	// Refused: RST in answer to a SYN. Dur is the time since the last SYN.
	Refused
	// Request: the client sends data when no request was outstanding.
	Request
	// Response: first byte of the server after a request. Dur is the time since the
	// last byte of the request.
	Response
	// Greeting: the server speaks first, as those of mail, FTP, SSH and MySQL do. Dur is the time since the handshake.
	Greeting
	// Abandoned: the client closes or resets while its request has no answer. Dur
	// is the time since the request's last byte. See ByReset.
	Abandoned
	// Unanswered: the server closes although a request has no answer, and none can come after its FIN. Class says whether
	// it had received the request. Dur is the time since the request's last byte, Since when the request began.
	Unanswered
	// HalfClosed: Side's FIN was acknowledged by the other side, which has not sent a
	// FIN: the other side's socket is in CLOSE_WAIT. At is the time of the ACK. See StillAsked.
	HalfClosed
	// HalfCloseEnd: the other side's FIN or any RST ended that, or the connection was
	// evicted (Evicted). Dur is how long it lasted; Since = At−Dur is the At of HalfClosed.
	HalfCloseEnd
	// Reset: a RST that ends a connection; Class says which kind. Side sent it.
	Reset
	// SynChallenged: the server answers a SYN with the acknowledgement of something older: of a connection on the same ports
	// that it still has, in TIME_WAIT or LAST_ACK (RFC 5961 §4). Side = Server. N counts them in this connection,
	// Dur is the time since that SYN. The connect has failed if no Established follows; Conn.Challenges counts them.
	SynChallenged
	// SynAckElsewhere: a SYN-ACK to this connection's SYN comes from another address or port, From; the caller does not know it.
	// Conn is the connection that was asked for, Dur the time since its first SYN.
	SynAckElsewhere
	// Unreached: an ICMP error says that the SYN that it quotes reached nobody, and the capture does not hold it: a host sends
	// none to a neighbour that does not answer, and sends itself the error. From asked To; there is no Conn.
	Unreached
	// ResetIgnored: a RST of Side that its receiver has to ignore: it does not acknowledge the SYN, or lies outside the
	// window. N counts them in this connection.
	ResetIgnored
	// ResetLoop: Side sends a RST again and again, and the other side answers each with the same acknowledgement. N is the rounds
	// so far, Since the first RST, Dur the time since then. It comes at 4 rounds, 8, 16 and so on.
	ResetLoop
	// AfterReset: Side sends although a RST has ended the connection: what was on its way, or a side that has not heard of the end. N is
	// how many such packets, Dur the time since the RST, See HasData. It comes for 1, 2, 4, 8 and so on.
	AfterReset
	// DataElsewhere: data of the server came to the client from another address or port, From, and was reset: the client's host knows of no
	// such connection. Conn is the one whose data it is by its numbers.
	DataElsewhere
	// AckLoop: each side answers the other's bare acknowledgement with one of its own, and none says anything new. N is the rounds so
	// far, Since the first, Dur the time since then. It comes at 16 rounds, 32, 64 and so on.
	AckLoop
	// Closed: the connection ended by FINs, RST, or eviction: once per connection.
	// Dur is its length.
	Closed
	// Retransmit: Side sent data again that was seen before. N is the number of
	// segments (in MSS), Len the payload bytes, Class how it was triggered, Proven false if it may
	// be a copy or a stack's re-use of the IP-ID. Dur: since the original was seen. See Again.
	Retransmit
	// Recovered: the other side acknowledges data that Side had sent again Try times. Dur is the time
	// since its last repetition.
	Recovered
	// Stalled: Side stopped for Dur in the middle of a write: after a full segment without PSH, with
	// everything acknowledged and the window open. Had the segments in between been seen, there would be
	// no gap: N transmissions of the next segment were lost before the capture point, as the back-off of the
	// retransmission time-out shows (RFC 6298 §5.5). A first stall is not reported: it may be the sender's own. See Standing.
	Stalled
	// HoleOpened: data of Side is missing before this segment. Len is the bytes missing,
	// N the segments that they stand for.
	HoleOpened
	// HoleFilled: missing data arrived as a retransmission (the original was lost before
	// the capture point). Dur is how long the sender tried: since the data was found missing, or
	// since other missing data last arrived.
	HoleFilled
	// Reordered: missing data arrived late but was sent before what overtook it.
	Reordered
	// HoleAcked: the receiver acknowledged data that was never seen: the capture
	// lost it, not the network. Len bytes, N segments.
	HoleAcked
	// HoleLost: missing data is taken for lost: its receiver has asked for it, and it has been missing for StallAge or until the
	// end. Since is when it was found missing.
	HoleLost
	// LateAck: Side goes on with less than a full segment after its data before, of less than a full segment as well, or the
	// full segments of the same write, was acknowledged late, and by nothing but an acknowledgement: its receiver delayed it (RFC 9293 §3.8.6.3). Dur is how long the data was not
	// acknowledged, a round trip left out. See AtOnce.
	LateAck
	// ZeroWindow: Side announces a receive window of 0. ZeroWindowEnd: it opens again after Dur.
	ZeroWindow
	ZeroWindowEnd
	// Squeezed: Side cuts what it sends to fit a window that has room for less than a segment. See Window.
	Squeezed
	// Copy: the same packet captured twice. See Hops.
	Copy
	// Probe: Side asks whether the other side is still there: a keep-alive or a probe of a closed window (RFC 9293 §3.8.4,
	// §3.8.6.1), at most one byte just below what is next. A peer that is there acknowledges it at once.
	Probe
	// SpuriousRepeat: the receiver of Side's data reports by D-SACK that a retransmission was unneeded.
	SpuriousRepeat
	// DNSQuery: a new DNS transaction. DNSRepeat: the client asks again (N = tries so far).
	DNSQuery
	DNSRepeat
	// DNSAnswer: the transaction's first answer. Dur is the time since its first query.
	DNSAnswer
	// DNSUnanswered: no answer came within the time-out, or until the end of the run. At is
	// the time of the decision, Dur the time since the first query.
	DNSUnanswered
	// DNSLate: an answer after DNSUnanswered, or one that the client's host refused with an
	// ICMP port unreachable.
	DNSLate
	// DNSStray: an answer to the query came from another address or port than the one that was asked. Its asker takes
	// no notice (RFC 5452 §9.1): the query stays without an answer. From is who answered.
	DNSStray
	// ICMPError: destination unreachable, packet too big or time exceeded about a packet of
	// a known connection or query; see TimeExceeded, TooBig and Unreachable.
	ICMPError
	kinds
)

// Mask is a set of kinds.
type Mask uint64

// Of makes a mask.
func Of(ks ...Kind) Mask {
	var m Mask
	for _, k := range ks {
		m |= 1 << k
	}
	return m
}

// Has reports whether k is in m.
func (m Mask) Has(k Kind) bool { return m>>k&1 == 1 }

// Side is a side of a connection.
type Side uint8

// The sides. Client is who sent the SYN, or who is taken for it (see Conn.ClientBy).
const (
	Client Side = 0
	Server Side = 1
)

// Other is the opposite side.
func (s Side) Other() Side { return 1 - s }

// Class refines Retransmit, Reset and Unanswered.
type Class uint8

// The classes.
const (
	ClassNone Class = iota
	// Of Retransmit.
	Fast     // after duplicate ACKs, before a time-out
	RTO      // after the retransmission time-out (≥ 200 ms, Linux TCP_RTO_MIN)
	TailLoss // tail loss probe (RFC 8985 §7): the last segment again, after about 2 RTT
	Spurious // the receiver had acknowledged it before
	// Unaccepted: the client's first data again, on a connection that the listener has not taken
	// over because its accept queue is full: it drops the handshake's last ACK and the data with it,
	// and repeats its SYN-ACK. No loss on the path.
	Unaccepted
	// ClosedWindow: data again that the receiver had no room for: it had announced a window of 0
	// since. No loss on the path.
	ClosedWindow
	// Closing: a FIN without data again. It is no data; a peer that has gone hears none of them. Once it is acknowledged, it
	// counts on the path as one small segment that was lost.
	Closing
	// Of Reset.
	ResetRefused    // answer to a SYN
	ResetLateAnswer // client closed first, the server answered, the client's host rejects the answer
	ResetAbort      // in the middle of an exchange: by a side that had sent no FIN
	ResetIdle       // after a long silence of both sides
	ResetOverflow   // by the server, right after the handshake
	ResetTimeout    // by a side whose retransmissions stayed unanswered
	// ResetLateRequest: of a request that came when the server had closed already, or that crossed its FIN: it is lost.
	ResetLateRequest
	// ClosedUnanswered: the server had received the request, and closed without a byte in answer. Of Unanswered only.
	ClosedUnanswered
	ResetComplete // after a complete exchange, or a connection without data: harmless
	classes
)

var classNames = [classes]string{"", "fast", "rto", "tail_loss_probe", "spurious", "unaccepted", "closed_window", "closing",
	"refused", "late_answer", "abort", "idle", "overflow", "timeout", "late_request", "no_answer", "complete"}

// String is the class's name in findings and flow rows.
func (c Class) String() string {
	if c < classes {
		return classNames[c]
	}
	return "unknown"
}

// OfPath reports whether a repetition of class c means loss on the path.
func (c Class) OfPath() bool { return c == Fast || c == RTO || c == TailLoss }

// Event is one thing that happened to a connection or DNS transaction. It is
// borrowed: valid during the call only.
type Event struct {
	Kind   Kind
	Side   Side
	Class  Class
	Proven bool
	flag   bool // read by the methods in read.go
	Bare   bool // Reset: it acknowledges nothing, as a host resets that knows no such connection (RFC 9293 §3.10.7.1); one that aborts its own acknowledges
	// Damaged: SynRepeat: the SYN has a wrong checksum, see capture.Packet.
	Damaged bool
	At      capture.Instant
	Since   capture.Instant // when the ended state began; At−Dur
	Dur     time.Duration
	Len     uint32 // payload bytes
	IPLen   uint32 // IP length of one full segment of this event (header + min(Len, MSS)): its size class
	N       uint32
	Try     uint32 // Retransmit: how often these bytes were sent again so far without progress
	Frame   uint64
	From    capture.Endpoint // SynAckElsewhere, Unreached
	To      capture.Endpoint // Unreached
	Conn    *Conn            // nil for DNS over UDP
	DNS     *DNS             // DNS… events
	Path    *Pair            // the hosts
}
