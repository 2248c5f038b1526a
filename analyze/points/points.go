// Package points compares captures of the same traffic at several points: between which two of them packets were lost,
// delayed, doubled or made, and what the captures themselves missed.
//
// It works in two readings. The first keeps a [Sketch] of each point, from which [Align] learns how far the clocks of the
// points are apart and in which order packets pass them. The second gives the packets of all points, in the order of the
// aligned time, to an [Analysis].
//
// What the path leaves alone tells which packets of two points are the same: sequence numbers, counted from the beginning of
// the connection where a device on the way rewrites them, time stamps and IP identification. A connection whose addresses
// were translated is known by its SYN. A packet is followed as the segments that it was on the wire, so that one point may
// show them joined (GRO, TSO) and another one not.
//
// A segment that is absent at a point is lost only if it was sent again and nobody had acknowledged it. If the receiver did,
// or a point behind saw it, the capture missed it. Otherwise it is absent, and no more is said.
package points

import (
	"time"

	"jindan/capture"
)

// MaxPoints is how many points can be compared: bits of a byte.
const MaxPoints = 8

const (
	// horizon is how long a segment waits for what becomes of it: its way, and the time-out after which it is sent again, which
	// begins with 1 s (RFC 6298 §2) and is 200 ms and more in Linux; two that back off are seen, too.
	horizon = 10 * time.Second
	// maxRecords bounds the segments that wait, of about 100 bytes each. Where they are more, the oldest are judged sooner.
	maxRecords = 1 << 20
	// maxConvs bounds the connections that are followed at a time, of about 600 bytes each.
	maxConvs = 1 << 17
	// idle is how long a connection may be silent before it is forgotten: longer than the time-outs that back off, up to 120 s
	// (TCP_RTO_MAX, include/net/tcp.h).
	idle = 130 * time.Second
	// closing is how long after its last packet one that was closed or reset is remembered.
	closing = 15 * time.Second
	// copyGap: an equal packet of the same point within it was captured twice; nobody sends data again sooner of its own accord
	// (TCP_TIMEOUT_MIN, two ticks of 1 ms, include/net/tcp.h).
	copyGap = 2 * time.Millisecond
	// rejection is how long after a packet the reset may come with which a device refuses it: the longest round trip to a device that is not
	// broken, as the first time-out of TCP assumes (RFC 6298 §2).
	rejection = time.Second
	// ends is how close to the end of one capture what only others show may still have been on its way.
	ends = time.Second
)

// Point is a place where a capture was taken.
type Point struct {
	Name string
	// Shift is added to a time of this point to make it one of the first point. See Alignment.
	Shift time.Duration
	// Joined is false where nothing tells how this point's clock stands to that of the first one.
	Joined bool
	// Holds is how many times the point holds each packet; 0: once. See Sketch.
	Holds int
	// Lacks are the directions of which the point shows nothing, a bit each. See Sketch.
	Lacks uint8
	// First and Last are the times of its first and last packet, aligned.
	First, Last capture.Instant
	// Until is until when it would have shown what passed it, aligned. See Alignment.
	Until capture.Instant
}

// Bins of sizes of IP packets, in steps of BinBytes; the last one holds all that is longer.
const (
	Bins     = 32
	BinBytes = 64
)

// Sizes counts segments by the size of their IP packets.
type Sizes [Bins]uint64

func bin(size uint32) int { return int(min(size/BinBytes, Bins-1)) }

// Sum adds up the bins from one on, up to and without another one.
func (s *Sizes) Sum(from, to int) (n uint64) {
	for _, x := range s[from:to] {
		n += x
	}
	return n
}

// All is the sum of all bins.
func (s *Sizes) All() uint64 { return s.Sum(0, Bins) }

// Edge is what happened between two points, on the way from one to the other.
type Edge struct {
	From, To int
	Way      int // 0: mostly of whoever opened the connection; 1: to it
	// In are the segments that left From or passed it unseen, Lost those of them that did not reach To, Absent those that To does
	// not show while nothing tells whether they passed.
	In, Lost, Absent Sizes
	// Rejected are those of In that a device between the points answered with a reset: neither lost nor passed.
	Rejected uint64
	// Again are those of In that To shows and that were sent again all the same: lost behind, or not acknowledged in time.
	Again uint64
	// Bare are the packets without data among In, which nobody acknowledges.
	Bare Sizes
	// Beyond are segments that were lost behind From after the capture of To had ended, or before it began.
	Beyond uint64
	// Requests are the SYNs among In of which neither To nor anybody behind saw one of the whole connection; they count as lost where all
	// answered connections to the same service passed To.
	Requests uint64
	First    capture.Instant // the first that was lost
	// Elsewhere: of hosts that lost nothing, the segments that passed; Peers and PeersHit count pairs of hosts.
	Peers, PeersHit int
	Worst           Pair   // the pair of hosts that lost most
	Hit             Pair   // of those that lost some, the one that lost most of what it sent
	Pairs           []Pair // those that lost most
	// Opening are SYNs and the answers to them, Datagrams UDP.
	Opening, Datagrams Kind
	// Forgotten are connections of which nothing passed any more after they had been silent for longer than any that lived on: Idle and longer.
	Forgotten, ForgottenLost uint64
	Idle                     time.Duration
	dead                     []dead
	survived                 time.Duration // the longest silence after which something passed
	Reordered                uint64
	Doubled                  uint64 // that To and all points behind saw twice and From once
	// Copies are packets that To saw twice and From once, where no point is behind to tell whether the capture made the second one.
	Copies uint64
	// Needless are those of Reordered that were sent again though they came; OddAt is the first that was overtaken or doubled,
	// OddEnd the last one, and OddIn what passed between.
	Needless, OddIn uint64
	OddAt, OddEnd   capture.Instant
	// Resets first appear at To, Foreign of them with another TTL than the other packets of their supposed sender.
	Resets, Foreign uint64
	ResetAt         capture.Instant // the first of them
	Changed         Changes
	Delays          Delays
	series          series
	spacing         spacing
	firstAbsent     capture.Instant
	ways            [2]uint64
	pairs           map[[2]capture.Addr]*Pair
}

// Share counts something of something.
type Share struct{ Lost, In uint64 }

// Kind counts packets of one kind.
type Kind struct{ In, Lost, Absent uint64 }

// Pair counts what two hosts lost, and the resets between them.
type Pair struct {
	Src, Dst capture.Addr // as the first point shows them
	Share
	Absent, Resets uint64
	shown          [MaxPoints][2]capture.Addr
}

// At is the pair as a point shows it, behind address translation; as the first point shows it if that one does not.
func (p *Pair) At(pt int) (src, dst capture.Addr) {
	if s := p.shown[pt]; s != [2]capture.Addr{} {
		return s[0], s[1]
	}
	return p.Src, p.Dst
}

// dead is a connection of which nothing passed any more.
type dead struct {
	quiet time.Duration
	lost  uint32
}

// Changes count connection requests, and answers to them, that To shows otherwise than From.
type Changes struct {
	Seen                      uint64 // SYNs and SYN-ACKs that both show
	MSS, WScale, SACK, Stamps uint64
	Address, Numbers          uint64 // connections whose addresses or sequence numbers are translated
	MSSFrom, MSSTo            uint16 // of the last one
	ECN                       uint64 // segments that lost or got ECN bits of the TCP header
}

// At is what one point saw.
type At struct {
	Packets uint64
	Conns   uint64
	Copies  uint64 // packets that it holds twice
	// Missed are segments that must have passed and that it does not hold, Seen those that it holds.
	Missed, Seen uint64
	// MissedFrom are those of Missed that came from whoever opened the connection, to tell captures of one direction.
	MissedDir, SeenDir [2]uint64
	Dropped            uint64 // what the capture itself says it lost
	Resets             uint64 // that come from the end before this point, or from what is before it
	Answers            Times  // from the last byte of a request to the first of its answer, at this point
}

// MissShare is the share of the segments that the capture missed, at most, with 95 % confidence.
func (a *At) MissShare() float64 { return atMost(a.Missed, a.Missed+a.Seen) }

// MissedOf is the share of the segments of a direction that the capture missed: near 1 where it holds one direction only.
func (a *At) MissedOf(dir int) float64 {
	return float64(a.MissedDir[dir]) / float64(max(1, a.MissedDir[dir]+a.SeenDir[dir]))
}
