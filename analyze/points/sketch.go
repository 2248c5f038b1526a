package points

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"jindan/capture"
)

// maxMarks is how many packets a sketch keeps. Which ones, their content decides: the same at every point.
const maxMarks = 1 << 15

// Sketch is what the first reading of a point keeps.
type Sketch struct {
	First, Last capture.Instant
	Packets     uint64
	limit       uint64 // packets whose identity is below it are kept
	marks       map[uint64]mark
}

// Holds is how many times the point holds each packet: once, or as often as it shows many of them at once: an eighth and more, where networks
// that double packets double a few.
func (s *Sketch) Holds() int {
	var shown [mostCopies + 1]int
	for _, m := range s.marks {
		shown[m.copies]++
	}
	holds, n := 1, 0
	for k := mostCopies; k > 0 && holds == 1; k-- {
		if n += shown[k]; n*8 > len(s.marks) {
			holds = 1 + k
		}
	}
	return holds
}

// mostCopies is how many copies of a packet are counted.
const mostCopies = 3

type mark struct {
	at     capture.Instant
	ttl    uint8
	way    int8  // 1: sent by whoever opened the connection; -1: to it
	copies uint8 // how many times it was shown again at once
}

// Observe takes what the point saw.
func (s *Sketch) Observe(o *capture.Observation) {
	if o.Kind != capture.KindPacket {
		return
	}
	if s.marks == nil {
		s.limit, s.marks = ^uint64(0), make(map[uint64]mark)
		s.First, s.Last = o.At, o.At
	}
	s.Packets++
	s.First, s.Last = min(s.First, o.At), max(s.Last, o.At)
	p := &o.Packet
	if p.Proto != capture.ProtoTCP && p.Proto != capture.ProtoUDP {
		return
	}
	s.mark(identity(p), o)
	if p.Proto == capture.ProtoTCP && p.Flags&capture.SYN != 0 {
		// A device that rewrites sequence numbers leaves ports and time stamps.
		s.mark(mix(uint64(p.Src.Port)<<48|uint64(p.Dst.Port)<<32|uint64(p.TSVal), uint64(p.Flags)<<32|uint64(p.TSEcr)), o)
	}
}

func (s *Sketch) mark(h uint64, o *capture.Observation) {
	if h > s.limit {
		return
	}
	p := &o.Packet
	if was, ok := s.marks[h]; ok {
		if o.At.Sub(was.at) < copyGap && p.Flags&capture.RST == 0 && (p.Len > 0 || p.Flags&(capture.SYN|capture.FIN) != 0) {
			was.copies = min(was.copies+1, mostCopies)
			s.marks[h] = was
		}
		return // sent again, or a copy: the first one counts
	}
	m := mark{at: o.At, ttl: p.TTL, way: 1}
	switch {
	case p.Proto == capture.ProtoTCP && p.Flags&capture.SYN != 0:
		if p.Flags&capture.ACK != 0 {
			m.way = -1
		}
	case p.Src.Port < p.Dst.Port: // services have the lower ports (RFC 6335 §6)
		m.way = -1
	}
	s.marks[h] = m
	if len(s.marks) > maxMarks {
		s.limit /= 2
		for h := range s.marks {
			if h > s.limit {
				delete(s.marks, h)
			}
		}
	}
}

// identity hashes what the path leaves alone, even where it translates addresses.
func identity(p *capture.Packet) uint64 {
	if p.Proto == capture.ProtoUDP {
		h := mix(uint64(p.Len)<<32|uint64(p.IPID), uint64(p.Src.Port)<<16|uint64(p.Dst.Port))
		return mix(h, digest(p.Data))
	}
	return mix(uint64(p.Seq)<<32|uint64(p.Ack), uint64(p.TSVal)<<32|uint64(p.Len)<<8|uint64(p.Flags&^(capture.ECE|capture.CWR)))
}

// digest is of the first bytes of a payload that was kept: as many as a DNS header and a short name have.
func digest(b []byte) (h uint64) {
	for i, x := range b[:min(len(b), 48)] {
		h = h<<7 ^ h>>57 ^ uint64(x)
		if i%8 == 7 {
			h = mix(h, uint64(i))
		}
	}
	return h
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	h := (hi ^ lo) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// Alignment says how the points lie to each other.
type Alignment struct {
	// Shift is added to the times of a point to make them those of the first one, to about a round trip.
	Shift []time.Duration
	// Common counts the packets of the sketches that two points both have.
	Common [][]int
	// Before is 1 where packets from those who open connections pass the first point before the second one, by TTL or time; 0: not known.
	Before [][]int8
	// Joined is false for a point that shares no packet with those that the first one is joined to: how its clock stands is not known.
	Joined []bool
}

// fewMarks: below so many packets in common the order in which they pass two points is not told.
const fewMarks = 4

// Align compares the sketches of points.
func Align(sketches []*Sketch) Alignment {
	n := len(sketches)
	a := Alignment{Shift: make([]time.Duration, n), Joined: make([]bool, n)}
	apart := make([][]time.Duration, n) // how much later the clock of the second point is
	for i := range n {
		a.Common, a.Before = append(a.Common, make([]int, n)), append(a.Before, make([]int8, n))
		apart[i] = make([]time.Duration, n)
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			common, before, d := compare(sketches[i], sketches[j])
			a.Common[i][j], a.Common[j][i] = common, common
			a.Before[i][j], a.Before[j][i] = before, -before
			apart[i][j], apart[j][i] = d, -d
		}
	}
	// A point is joined through those with which it has most in common.
	a.Joined[0] = true
	for range n {
		from, to := -1, -1
		for i := range n {
			for j := range n {
				if a.Joined[i] && !a.Joined[j] && a.Common[i][j] > 0 && (from < 0 || a.Common[i][j] > a.Common[from][to]) {
					from, to = i, j
				}
			}
		}
		if from < 0 {
			break
		}
		a.Joined[to] = true
		a.Shift[to] = a.Shift[from] - apart[from][to]
	}
	return a
}

// compare tells what two points have in common, whether the first one comes before, and how far the clock of the second one is ahead.
func compare(x, y *Sketch) (common int, before int8, ahead time.Duration) {
	var all []time.Duration
	var ways [2][]time.Duration
	hops := 0
	for h, m := range x.marks {
		k, ok := y.marks[h]
		if !ok {
			continue
		}
		d := k.at.Sub(m.at)
		all = append(all, d)
		w := 0
		if m.way < 0 {
			w = 1
		}
		ways[w] = append(ways[w], d)
		hops += cmp.Compare(m.ttl, k.ttl) * int(m.way)
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	there, back := median(ways[0]), median(ways[1])
	ahead = median(all)
	if len(ways[0]) > 0 && len(ways[1]) > 0 {
		ahead = (there + back) / 2
	}
	switch {
	case len(all) < fewMarks:
	case hops > len(all)/2:
		before = 1
	case hops < -len(all)/2:
		before = -1
	case len(ways[0]) >= fewMarks && len(ways[1]) >= fewMarks && there > 0 && back < 0:
		// Whatever the clocks show: if the second point were before the first one, this could not be.
		before = 1
	case len(ways[0]) >= fewMarks && len(ways[1]) >= fewMarks && there < 0 && back > 0:
		before = -1
	}
	return len(all), before, ahead
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// Order puts points into the order in which packets pass them, as far as that can be told; the rest stays as it was. same is false
// if that is another order than the given one.
func (a *Alignment) Order() (order []int, same bool) {
	for i := range a.Shift {
		at := len(order)
		for k := range order { // before the first of those that come behind it
			if a.Before[i][order[k]] > 0 {
				at = k
				break
			}
		}
		order = slices.Insert(order, at, i)
	}
	return order, slices.IsSorted(order)
}
