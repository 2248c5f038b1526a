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
	ways        [2]uint64 // packets of those who open connections, and to them
	talk        [2]uint64 // of these, those that nobody sends who hears nothing of the other side: data, and what acknowledges it
}

// Lacks has a bit set for each direction of which the point shows nothing, though it shows that this direction passed.
func (s *Sketch) Lacks() (dirs uint8) {
	for d := range 2 {
		if s.ways[d] == 0 && s.talk[1-d] >= fewTalk {
			dirs |= 1 << d
		}
	}
	return dirs
}

// fewTalk: so many packets of a conversation, and none of the other direction, are no accident.
const fewTalk = 20

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
	src    uint32 // a digest of the sender's address
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
	d := way(p)
	s.ways[d]++
	if p.Proto == capture.ProtoTCP && p.Flags&(capture.SYN|capture.RST|capture.ACK) == capture.ACK {
		s.talk[d]++
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
	s.marks[h] = mark{at: o.At, src: uint32(mix(digest(p.Src.Addr[:]), 0)), ttl: p.TTL, way: int8(1 - 2*way(p))}
	if len(s.marks) > maxMarks {
		s.limit /= 2
		for h := range s.marks {
			if h > s.limit {
				delete(s.marks, h)
			}
		}
	}
}

// way is 0 for what is sent by whoever opens a connection, as far as one packet tells, and 1 for the other direction.
func way(p *capture.Packet) int {
	answers := p.Src.Port < p.Dst.Port // services have the lower ports (RFC 6335 §6)
	if p.Proto == capture.ProtoTCP && p.Flags&capture.SYN != 0 {
		answers = p.Flags&capture.ACK != 0
	}
	if answers {
		return 1
	}
	return 0
}

// senders counts the packets of those who open connections (way 1) or answer (way -1), by the digest of their address.
func (s *Sketch) senders(way int8) map[uint32]int {
	n := make(map[uint32]int)
	for _, m := range s.marks {
		if m.way == way {
			n[m.src]++
		}
	}
	return n
}

// identity hashes what the path leaves alone, even where it translates addresses, and what all captures hold, even those that cut options.
func identity(p *capture.Packet) uint64 {
	if p.Proto == capture.ProtoUDP {
		return mix(uint64(p.Len)<<32|uint64(p.IPID), digest(p.Data))
	}
	return mix(uint64(p.Seq)<<32|uint64(p.Ack), uint64(p.Len)<<8|uint64(p.Flags&^(capture.ECE|capture.CWR)))
}

// digest is of the first bytes of a payload, fewer than short captures keep (68 bytes of a frame, tcpdump's old -s, are 26 of them).
func digest(b []byte) (h uint64) {
	for i, x := range b[:min(len(b), 24)] {
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
	// Same is set for two points that show the same packets at the same times, in both directions: there is nothing between them.
	Same [][]bool
	// Until is until when a point would have shown what passed it, by its own clock: as long as others show something, unless they show what must have
	// passed it and that it does not show: then its capture had ended.
	Until []capture.Instant
	// Joined is false for a point that shares no packet with those that the first one is joined to: how its clock stands is not known.
	Joined []bool
	// timed is set for two points between which packets went there and back, if only in turns: each connection tells its own order then.
	timed [][]bool
	// behind counts packets of the second point that were sent by those who ask there and are asked at the first one.
	behind [][]int
}

// fewMarks: below so many packets in common the order in which they pass two points is not told.
const fewMarks = 4

// Align compares the sketches of points.
func Align(sketches []*Sketch) Alignment {
	n := len(sketches)
	a := Alignment{Shift: make([]time.Duration, n), Joined: make([]bool, n), Until: make([]capture.Instant, n)}
	apart := make([][]time.Duration, n) // how much later the clock of the second point is
	for i := range n {
		a.Common, a.Before, a.Same = append(a.Common, make([]int, n)), append(a.Before, make([]int8, n)), append(a.Same, make([]bool, n))
		a.timed = append(a.timed, make([]bool, n))
		apart[i] = make([]time.Duration, n)
	}
	var asking []map[uint32]int
	for _, s := range sketches {
		asking = append(asking, s.senders(1))
	}
	for i, s := range sketches {
		asked := s.senders(-1)
		a.behind = append(a.behind, make([]int, n))
		for j := range sketches {
			for src, k := range asking[j] {
				if asked[src] > 0 {
					a.behind[i][j] += k
				}
			}
		}
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			common, before, d, timed, same := compare(sketches[i], sketches[j])
			a.timed[i][j], a.timed[j][i] = timed, timed
			a.Same[i][j], a.Same[j][i] = same, same
			a.Common[i][j], a.Common[j][i] = common, common
			a.Before[i][j], a.Before[j][i] = before, -before
			apart[i][j], apart[j][i] = d, -d
		}
	}
	// A point is joined through those with which it has most in common. Those that have nothing in common with the first one are joined to each other.
	placed := make([]bool, n)
	for range n {
		from, to := -1, -1
		for i := range n {
			for j := range n {
				if placed[i] && !placed[j] && a.Common[i][j] > 0 && (from < 0 || a.Common[i][j] > a.Common[from][to]) {
					from, to = i, j
				}
			}
		}
		if from < 0 {
			to = slices.Index(placed, false)
			a.Joined[to] = to == 0
		} else {
			a.Joined[to] = a.Joined[from]
			a.Shift[to] = a.Shift[from] - apart[from][to]
		}
		placed[to] = true
	}
	for i, s := range sketches {
		ended, last := false, s.Last
		for j, o := range sketches {
			until := o.Last.Add(apart[j][i])
			if a.Common[i][j] == 0 || until.Sub(s.Last) <= ends {
				continue
			}
			last = max(last, until)
			ended = ended || a.Before[i][j] == 0 || outlived(s, o, a.Before[i][j], apart[j][i])
		}
		if ended {
			last = s.Last
		}
		a.Until[i] = last
	}
	return a
}

// outlived reports whether y shows, after the last packet of x, what comes from a sender whose packets pass x before y: the capture of x had ended. by is
// added to times of y to make them those of x; before is 1 where packets from those who open connections pass x first.
func outlived(x, y *Sketch, before int8, by time.Duration) bool {
	past := make(map[uint32]bool)
	for h, m := range x.marks {
		if k, ok := y.marks[h]; ok && m.way == before {
			past[k.src] = true
		}
	}
	for h, k := range y.marks {
		if _, ok := x.marks[h]; !ok && past[k.src] && k.way == before && k.at.Add(by).Sub(x.Last) > ends {
			return true
		}
	}
	return false
}

// compare tells what two points have in common, whether the first one comes before, how far the clock of the second one is ahead, and
// whether packets were seen to go there and back, and whether both show the same capture.
func compare(x, y *Sketch) (common int, before int8, ahead time.Duration, timed, same bool) {
	var all []passage
	var ways [2][]time.Duration
	hops := 0
	for h, m := range x.marks {
		k, ok := y.marks[h]
		if !ok {
			continue
		}
		w := 0
		if m.way < 0 {
			w = 1
		}
		d := k.at.Sub(m.at)
		all = append(all, passage{m.at, d, w})
		ways[w] = append(ways[w], d)
		hops += cmp.Compare(m.ttl, k.ttl) * int(m.way)
	}
	if len(all) == 0 {
		return 0, 0, 0, false, false
	}
	slices.SortFunc(all, func(a, b passage) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.way, b.way), cmp.Compare(a.took, b.took))
	})
	there, back := median(ways[0]), median(ways[1])
	switch {
	case len(ways[1]) == 0:
		ahead = there
	case len(ways[0]) == 0:
		ahead = back
	default:
		ahead = (there + back) / 2
	}
	round, timed := rounds(all)
	switch {
	case len(all) < fewMarks:
	case round != 0:
		before = round
	case hops > len(all)/2:
		before = 1
	case hops < -len(all)/2:
		before = -1
	}
	least, most := slices.MinFunc(all, byTook), slices.MaxFunc(all, byTook)
	same = hops == 0 && len(ways[0]) >= fewMarks && len(ways[1]) >= fewMarks && least.took == most.took
	return len(all), before, ahead, timed, same
}

// passage is a packet that two points show: how much later the second one does.
type passage struct {
	at   capture.Instant
	took time.Duration
	way  int
}

func byTook(a, b passage) int { return cmp.Compare(a.took, b.took) }

// rounds is 1 where packets go from the first point to the second one and back, -1 where they go the other way round, 0 where that is not
// clear. Whatever the clocks show, and however many hops are counted: a way there and one back soon after it take some time together. some: there
// were such ways, be it that some connections pass the points in one order and others in the other.
func rounds(all []passage) (before int8, some bool) {
	up, down := 0, 0
	for i := range all[1:] {
		a, b := &all[i], &all[i+1]
		if a.way == b.way {
			continue
		}
		if a.way == 1 {
			a, b = b, a
		}
		switch d := a.took - b.took; {
		case d > 0:
			up++
		case d < 0:
			down++
		}
	}
	switch {
	case up >= fewMarks && up > 3*down:
		return 1, true
	case down >= fewMarks && down > 3*up:
		return -1, true
	}
	return 0, up+down >= fewMarks
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// Order puts points into the order in which packets pass them, as far as that can be told; the rest stays as it was. same is false
// if that is another order than the given one. guessed are neighbours that show the same packets while nothing tells which comes first.
func (a *Alignment) Order() (order []int, guessed [][2]int, same bool) {
	order = sorted(len(a.Shift), func(i, k int) bool { return a.Before[i][k] > 0 })
	// Points that have packets in common stay together.
	var legs [][]int
	for len(order) > 0 {
		leg := []int{order[0]}
		for k := 0; k < len(leg); k++ {
			for _, i := range order {
				if a.Common[leg[k]][i] > 0 && !slices.Contains(leg, i) {
					leg = append(leg, i)
				}
			}
		}
		legs = append(legs, slices.DeleteFunc(slices.Clone(order), func(i int) bool { return !slices.Contains(leg, i) }))
		order = slices.DeleteFunc(order, func(i int) bool { return slices.Contains(leg, i) })
	}
	for _, l := range sorted(len(legs), func(i, k int) bool { return a.asks(legs[i], legs[k]) }) {
		order = append(order, legs[l]...)
	}
	for i, q := range order[1:] {
		if p := order[i]; a.Common[p][q] > 0 && a.Before[p][q] == 0 && !a.timed[p][q] {
			guessed = append(guessed, [2]int{p, q})
		}
	}
	return order, guessed, slices.IsSorted(order)
}

// sorted puts n things into an order in which none stands behind one that it comes before, each as early as it was otherwise. What contradicts
// itself stays as it was.
func sorted(n int, before func(i, k int) bool) (order []int) {
	left := make([]int, n)
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		at := max(0, slices.IndexFunc(left, func(i int) bool {
			return !slices.ContainsFunc(left, func(k int) bool { return k != i && before(k, i) })
		}))
		order, left = append(order, left[at]), slices.Delete(left, at, at+1)
	}
	return order
}

// asks reports whether the hosts that are asked on one leg are those that ask on another one: a proxy, with one address on both sides.
func (a *Alignment) asks(front, back []int) bool {
	there, reverse := 0, 0
	for _, i := range front {
		for _, k := range back {
			there, reverse = there+a.behind[i][k], reverse+a.behind[k][i]
		}
	}
	return there >= fewMarks && there > 3*reverse
}
