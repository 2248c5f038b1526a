package flow

import "jindan/capture"

// Bins is the number of size classes of an IP packet.
const Bins = 32

// Bare is the class of SYN and SYN-ACK. They differ from data in more than their size.
const Bare = 0

// Bin returns the size class of an IP packet of n bytes that carries data: 64 bytes wide up to 1,536, the lowest one
// 128, wider for jumbo frames. Classes only sort the sizes; where a cliff lies is
// told by the exact sizes kept beside them.
func Bin(n uint32) int {
	switch {
	case n < 1536:
		return max(int(n/64), Bare+1)
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

// SizeBin counts the segments of one size class, each once, however often it was sent: repetitions of one segment
// are not independent of one another.
type SizeBin struct {
	Seen    uint32 // seen when they were first sent
	Again   uint32 // of these, sent again, and not for nothing: lost after the capture point
	Damaged uint32 // of Again, seen with a wrong checksum at first: lost before the capture point
	Missing uint32 // not seen when they were first sent: lost before the capture point
	// Of Seen, those that the capture would have missed, had they been lost before it: full segments, what overtook missing
	// data, and the end of a write of several. What is sent alone leaves no gap: its repetition looks like the first.
	Shown   uint32
	Alone   uint32 // of what was sent alone, that which came before it could have been repeated: it was not lost
	Unsure  uint32 // of Seen, neither acknowledged nor sent again when a reset ended the connection: nobody knows whether they arrived
	Late    uint32 // ends of writes that came a time-out after the rest: lost at first, most likely, before the capture point
	MinLost uint16 // smallest IP length among Again and Missing, 0: none
	MaxSeen uint16 // largest IP length among Seen
}

// PathSide counts, by size class, the segments that one host sent to another and
// whose fate the sequence numbers tell: data, SYN-ACK, and SYN that was answered in the end.
//
// Loss shows in two places. A segment that was seen and is sent again was lost
// after the capture point (Again). A segment that was never seen before its
// retransmission, or is still missing, was lost before it (Missing).
type PathSide struct {
	bins *[Bins]SizeBin // nil: nothing was counted

	Packets     uint32 // TCP packets of any kind, copies included
	Segments    uint32 // sum of Seen
	Retransmits uint32 // sum of Again
	Lost        uint32 // sum of Missing
	Spurious    uint32
	Overtaken   uint32 // of Lost, segments that came after all, later than what was sent in their place
	Copies      uint32
	CaptureLost uint32
	Reordered   uint32
	// full is the largest payload of a segment that certainly fits one frame: of a connection whose handshake is not in the
	// capture it tells the MSS better than the few segments that are.
	full  uint16
	Bytes uint64 // payload
	Acked uint64 // of what it sent, bytes that were acknowledged, each once; SYN and FIN count as one
}

var noBins [Bins]SizeBin

// Bin is the counts by size class, which are not to be changed.
func (ps *PathSide) Bin() *[Bins]SizeBin {
	if ps.bins == nil {
		return &noBins
	}
	return ps.bins
}

// bin is the counts of a class. Their memory is taken when the first is counted: of the pairs of hosts that a scan or a flood from forged
// addresses makes, most count nothing.
func (ps *PathSide) bin(class int) *SizeBin {
	if ps.bins == nil {
		ps.bins = new([Bins]SizeBin)
	}
	return &ps.bins[class]
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
	slot  uint32 // of that window, in before; begun: it is new in that window
	Last  capture.Instant
	inUse bool
	Side  [2]PathSide
}

// SmallSize is the size of an IP packet, in bytes, that every host must be prepared to accept (RFC 791 §3.1). The
// classes below it are the first SmallBins.
const (
	SmallSize = 576
	SmallBins = SmallSize / 64
)

// Before is what a path had counted when the window began.
type Before struct {
	Side  [2]PathSide
	Conns uint32
	bins  [2][Bins]SizeBin // of Side
}

// Before returns what p had counted when the open window began, nil if nothing has changed since.
func (t *Table) Before(p *Path) *Before {
	if p.win != t.win {
		return nil
	}
	if p.slot == begun {
		return &nothing
	}
	return t.before.at(p.slot)
}

// begun stands for the slot of a path that had counted nothing when the window began.
const begun = ^uint32(0)

var nothing Before

// enter notes that p changes in the open window.
func (t *Table) enter(p *Path) {
	if p.win == t.win {
		return
	}
	p.win = t.win
	t.active = append(t.active, p.Index)
	if p.Conns == 0 {
		p.slot = begun
		return
	}
	i, before := t.before.next()
	p.slot, before.Side, before.Conns = i, p.Side, p.Conns
	for i := range p.Side {
		if bins := p.Side[i].bins; bins != nil {
			before.bins[i] = *bins
			before.Side[i].bins = &before.bins[i]
		}
	}
}

// leave forgets what the paths had counted when the window began. Of the memory for it, a chunk more than what the window needed
// is kept for those to come.
func (t *Table) leave() {
	t.active = t.active[:0]
	t.before.reset()
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

// Took reports whether a segment of ip bytes or more was acknowledged for certain: more bytes were than all smaller ones held.
func (ps *PathSide) Took(ip uint32) bool {
	var smaller uint64
	for _, b := range ps.Bin()[:Bin(ip)] {
		smaller += uint64(b.Seen+b.Missing) * uint64(b.MaxSeen)
	}
	return ps.Acked > smaller
}

// Host returns who sends Side[i].
func (p *Path) Host(i int) capture.Addr {
	if i == 0 {
		return p.A
	}
	return p.B
}

func (ps *PathSide) seen(ip, n uint32)    { ps.count(Bin(ip), ip, n) }
func (ps *PathSide) again(ip, n uint32)   { ps.repeat(Bin(ip), ip, n) }
func (ps *PathSide) missing(ip, n uint32) { ps.lose(Bin(ip), ip, n) }

func (ps *PathSide) count(class int, ip, n uint32) {
	b := ps.bin(class)
	b.Seen += n
	ps.Segments += n
	b.MaxSeen = max(b.MaxSeen, uint16(min(ip, 0xffff)))
}

func (ps *PathSide) repeat(class int, ip, n uint32) {
	b := ps.bin(class)
	b.Again += n
	ps.Retransmits += n
	b.lost(ip)
}

func (ps *PathSide) lose(class int, ip, n uint32) {
	b := ps.bin(class)
	b.Missing += n
	ps.Lost += n
	b.lost(ip)
}

func (b *SizeBin) lost(ip uint32) {
	if ip16 := uint16(min(ip, 0xffff)); b.MinLost == 0 || ip16 < b.MinLost {
		b.MinLost = ip16
	}
}
