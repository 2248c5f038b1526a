package flow

import "jindan/capture"

// Bins is the number of size classes of an IP packet.
const Bins = 32

// Bin returns the size class of an IP packet of n bytes: 64 bytes wide up to 1,536,
// wider for jumbo frames. Classes only sort the sizes; where a cliff lies is
// told by the exact sizes kept beside them.
func Bin(n uint32) int {
	switch {
	case n < 1536:
		return int(n / 64)
	case n < 2048:
		return 24
	case n < 3072:
		return 25
	case n < 4096:
		return 26
	case n < 6144:
		return 27
	case n < 8192:
		return 28
	case n < 9300:
		return 29
	case n < 16384:
		return 30
	}
	return 31
}

// SizeBin counts the segments of one size class.
type SizeBin struct {
	Seen    uint32 // every segment seen, first transmissions and repeats
	Again   uint32 // of these, repeats of a segment that was seen before, less spurious ones
	Missing uint32 // segments lost before the capture point
	MinLost uint16 // smallest IP length among Again and Missing, 0: none
	MaxSeen uint16 // largest IP length among Seen
}

// PathSide counts, by size class, the segments that one host sent to another and
// whose fate the sequence numbers tell: data, SYN-ACK and FIN.
//
// Loss shows in two places. A segment that was seen and is sent again was lost
// after the capture point (Again). A segment that was never seen before its
// retransmission, or is still missing, was lost before it (Missing).
type PathSide struct {
	Bin [Bins]SizeBin

	Packets     uint32 // TCP packets of any kind, copies included
	Segments    uint32 // sum of Seen
	Retransmits uint32 // sum of Again
	Lost        uint32 // sum of Missing
	Spurious    uint32
	Copies      uint32
	CaptureLost uint32
	Reordered   uint32
	// Acks are pure ACKs for all that the other side had sent so far. Had one been lost, the other
	// side would have repeated its data: small packets whose fate is known.
	Acks  uint32
	Bytes uint64 // payload
}

// Pair is a pair of hosts, with A < B.
type Pair struct {
	A, B  capture.Addr
	Index uint32
	First capture.Instant
	Heard [2]capture.Instant // newest TCP packet of A and B, of any kind but a lone SYN
}

// Path is what a pair of hosts say to one another. Side[0] is what A sends, Side[1] what B sends.
type Path struct {
	Pair
	Conns uint32 // connections so far
	live  uint32 // connections in the table
	win   uint32 // last window in which it was touched
	Last  capture.Instant
	start [2]tally // of the sides when the window began
	inUse bool
	Side  [2]PathSide
}

// SmallSize is the size of an IP packet, in bytes, that every host must be prepared to accept (RFC 791 §3.1). The
// classes below it are the first SmallBins.
const (
	SmallSize = 576
	SmallBins = SmallSize / 64
)

// tally counts segments, and those of SmallBins.
type tally struct{ all, small uint32 }

func (ps *PathSide) tally() tally {
	n := tally{all: ps.Segments}
	for i := range SmallBins {
		n.small += ps.Bin[i].Seen
	}
	return n
}

// InWindow is how many segments of Side[i] were seen in the open window, if there were any, and how many of SmallBins.
func (p *Path) InWindow(i int) (all, small uint32) {
	now := p.Side[i].tally()
	return now.all - p.start[i].all, now.small - p.start[i].small
}

// From returns the counts of what a sends, and whether a is a host of p.
func (p *Path) From(a capture.Addr) (*PathSide, bool) {
	switch a {
	case p.A:
		return &p.Side[0], true
	case p.B:
		return &p.Side[1], true
	}
	return nil, false
}

// Host returns who sends Side[i].
func (p *Path) Host(i int) capture.Addr {
	if i == 0 {
		return p.A
	}
	return p.B
}

func (ps *PathSide) seen(ip, n uint32) {
	b := &ps.Bin[Bin(ip)]
	b.Seen += n
	ps.Segments += n
	b.MaxSeen = max(b.MaxSeen, uint16(min(ip, 0xffff)))
}

func (ps *PathSide) again(ip, n uint32) {
	b := &ps.Bin[Bin(ip)]
	b.Again += n
	ps.Retransmits += n
	b.lost(ip)
}

func (ps *PathSide) missing(ip, n uint32) {
	b := &ps.Bin[Bin(ip)]
	b.Missing += n
	ps.Lost += n
	b.lost(ip)
}

func (b *SizeBin) lost(ip uint32) {
	if ip16 := uint16(min(ip, 0xffff)); b.MinLost == 0 || ip16 < b.MinLost {
		b.MinLost = ip16
	}
}
