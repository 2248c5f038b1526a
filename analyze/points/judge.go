package points

import (
	"math/bits"
	"slices"

	"jindan/capture"
)

// retire judges the oldest record.
func (a *Analysis) retire() {
	r := a.rec(a.tail)
	if c := a.convs[r.conv]; c != nil {
		a.judge(c, r)
	}
	a.tail++
}

// edge is the one between two points.
func (a *Analysis) edge(from, to uint8) *Edge {
	e := a.edges[from][to]
	if e == nil {
		e = &Edge{From: int(from), To: int(to), pairs: make(map[[2]capture.Addr]*Pair)}
		a.edges[from][to] = e
	}
	return e
}

// judge says where a segment came by and where it was lost.
func (a *Analysis) judge(c *conv, r *record) {
	var room [MaxPoints]uint8
	way := room[:0]
	for _, p := range a.way(c) {
		if (a.covers(int(p), r.at) && a.report.Points[p].Lacks>>r.dir&1 == 0) || r.mask>>p&1 != 0 {
			way = append(way, p)
		}
	}
	if r.dir == 1 {
		slices.Reverse(way)
	}
	first, last := -1, -1
	for i, p := range way {
		if r.mask>>p&1 != 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if r.kind == reset {
		a.reset(c, r, way, first, last)
		return
	}
	// What looks like another one may have been taken for it, and a datagram has nothing that tells it from others.
	plain := r.marks&vague == 0
	blurred := r.id == 0 && r.kind == bare || !plain
	acked := r.kind == data && r.marks&old == 0 && c.hasAcked[r.dir] && int32(r.seq+r.n-c.acked[r.dir]) <= 0
	reached := last
	switch {
	case last == len(way)-1:
		if r.marks&repeated != 0 {
			a.spares(a.tail)
		}
	case acked && r.marks&(repeated|vague|spare) == 0:
		reached = len(way) - 1 // the receiver has it: the captures behind missed it
	}
	begins := 0
	if r.kind != data || blurred {
		begins = first // nothing says that the points before ought to have it
	}
	if r.marks&twin != 0 && first > 0 {
		begins = first // the network has made a second one of it: nobody had asked for it
		e := a.edge(way[first-1], way[first])
		e.Doubled++
		e.odd(r.at)
	}
	if !blurred {
		// Whether a point missed it is known where the receiver has it, or where points on both sides show it.
		from, to := begins, reached
		if r.kind != data {
			from, to = first+1, last-1
		}
		for i := from; i <= to; i++ {
			w := &a.report.At[way[i]]
			if r.mask>>way[i]&1 != 0 {
				w.Seen++
				w.SeenDir[r.dir]++
			} else {
				w.Missed++
				w.MissedDir[r.dir]++
				c.missed[way[i]]++
			}
		}
	}
	for i := begins; i < reached; i++ {
		a.passed(c, r, way, i)
	}
	if reached == len(way)-1 {
		if r.marks&(repeated|spare) == repeated {
			a.beyond(int(way[reached]), r)
		}
		return
	}
	e := a.edge(way[reached], way[reached+1])
	if a.underWay(e, r) {
		return
	}
	b := bin(uint32(r.size))
	pair, kind := a.enter(e, c, r)
	switch {
	case a.rejected(c, r, way[reached], way[reached+1]):
		e.Rejected++
		e.series.add(r.at, bin(uint32(r.size)), counts{in: 1})
	case r.marks&repeated != 0 || acked && r.marks&spare == 0: // what looks just like it came instead
		e.Lost[b]++
		pair.Lost++
		kind.Lost++
		c.lost[r.dir]++
		c.lostAt[r.dir][way[reached]]++
		if e.First == 0 || r.at < e.First {
			e.First = r.at
		}
		e.series.add(r.at, b, counts{lost: 1, in: 1})
		e.spacing.add(r.at, b, true)
	default:
		e.Absent[b]++
		pair.Absent++
		kind.Absent++
		e.absent(r.at, b)
	}
	if c.stuck[r.dir][way[reached]]++; c.stuck[r.dir][way[reached]] == 1 {
		c.quiet[r.dir] = r.at.Sub(c.passedAt[min(way[reached], way[reached+1])])
	}
}

// beyond notes that a segment was sent again that had passed all points whose captures cover its time. The next one on its way may be one that it would
// have been the first of its connection to pass: points are in the order of the path.
func (a *Analysis) beyond(last int, r *record) {
	for p := last + 1 - 2*int(r.dir); p >= 0 && p < len(a.report.Points); p += 1 - 2*int(r.dir) {
		if e := a.edges[last][p]; e != nil {
			if !a.covers(p, r.at) {
				e.Beyond++
			}
			return
		}
	}
}

// underWay reports whether a segment may still have been on its way over e when the capture behind it ended.
func (a *Analysis) underWay(e *Edge, r *record) bool {
	at := r.at
	if r.mask>>e.From&1 != 0 {
		at = r.when(e.From)
	}
	return at.Add(seconds(e.Delays.most)) > a.limit[e.To]
}

// enter counts a segment that left the first point of an edge.
func (a *Analysis) enter(e *Edge, c *conv, r *record) (*Pair, *Kind) {
	e.In[bin(uint32(r.size))]++
	if r.kind != data {
		e.Bare[bin(uint32(r.size))]++
	}
	e.ways[r.dir]++
	pair := a.pair(e, c, r.dir)
	pair.In++
	kind := new(Kind) // of no interest
	switch {
	case r.kind == datagram:
		kind = &e.Datagrams
	case r.flags&capture.SYN != 0:
		kind = &e.Opening
	}
	kind.In++
	return pair, kind
}

// rejected reports whether what went on from one point and did not reach the next was answered by a reset that was made between them: it
// was not lost, but refused by a device.
func (a *Analysis) rejected(c *conv, r *record, from, to uint8) bool {
	for _, no := range c.resets[1-r.dir] {
		if !a.live(no) {
			continue
		}
		x := a.rec(no)
		if x.mask>>from&1 == 0 || x.mask>>to&1 != 0 {
			continue
		}
		took := x.when(int(from)).Sub(r.at)
		if r.mask>>from&1 != 0 {
			took = x.when(int(from)).Sub(r.when(int(from)))
		}
		// RFC 9293 §3.10.7.1: the reset bears the number that the segment acknowledged.
		if took >= 0 && took < rejection && (r.kind != data || r.flags&capture.ACK == 0 || x.seq == r.extra) {
			return true
		}
	}
	return false
}

// passed notes that a segment went from one point of its way to the next.
func (a *Analysis) passed(c *conv, r *record, way []uint8, i int) {
	p, q := way[i], way[i+1]
	e := a.edge(p, q)
	a.enter(e, c, r)
	e.series.add(r.at, bin(uint32(r.size)), counts{in: 1})
	e.spacing.add(r.at, bin(uint32(r.size)), false)
	last := &c.passedAt[min(p, q)]
	if *last != 0 {
		e.survived = max(e.survived, r.at.Sub(*last))
	}
	*last, c.stuck[r.dir][p] = max(*last, r.at), 0
	if r.mask>>q&1 != 0 && r.marks&repeated != 0 {
		e.Again++
	}
	if r.mask>>p&1 == 0 || r.mask>>q&1 == 0 {
		return
	}
	if r.late>>q&1 != 0 && r.late>>p&1 == 0 {
		e.Reordered++
		e.odd(r.at)
		if r.marks&repeated != 0 {
			e.Needless++
		}
	}
	if (r.odd>>p^r.odd>>q)&1 != 0 {
		e.Changed.ECN++
	}
	double := func(p uint8) bool { return int(r.again(int(p))) >= max(1, a.report.Points[p].Holds) }
	switch {
	case r.again(int(q)) == 0:
	case a.report.Points[q].Holds > 1 && double(q) && !double(p):
		e.Doubled++ // q shows it more often than it shows the others
		e.odd(r.at)
	case r.again(int(p)) != 0:
		if r.kind == data && i+2 == len(way) {
			c.twice[r.dir]++
		}
	case i+2 == len(way):
		e.Copies++
		if r.kind == data {
			c.twins[r.dir]++
		}
	default:
		doubled := false
		for _, behind := range way[i+2:] {
			if r.mask>>behind&1 != 0 {
				if doubled = r.again(int(behind)) != 0; !doubled {
					break
				}
			}
		}
		if doubled {
			e.Doubled++
			e.odd(r.at)
		}
	}
	// What was joined to what follows bears its time.
	if r.marks&vague != 0 || r.kind == datagram && r.id == 0 || (r.inner>>p|r.inner>>q)&1 != 0 {
		return
	}
	took := float64(r.off[q]-r.off[p]) / 1e6
	e.Delays.add(r.at, took)
	a.clock(p, q, r.when(int(p)), took)
}

// clock bounds the clocks of two points by a packet that passed both.
func (a *Analysis) clock(p, q uint8, at capture.Instant, took float64) {
	back := p > q
	if back {
		p, q, took = q, p, -took
	}
	e := a.clocks[p][q]
	if e == nil {
		e = new(envelope)
		a.clocks[p][q] = e
	}
	e.add(at, took, back)
}

// reset says where a RST appeared.
func (a *Analysis) reset(c *conv, r *record, way []uint8, first, last int) {
	if first < 0 {
		return
	}
	if first > 0 && r.marks&twin != 0 {
		e := a.edge(way[first-1], way[first])
		e.Doubled++
		e.odd(r.at)
		return
	}
	if first == 0 {
		a.report.At[way[0]].Resets++
	} else {
		e := a.edge(way[first-1], way[first])
		e.resets(r.at, 1)
		a.pair(e, c, r.dir).Resets++
		if t := c.ttl[r.dir][way[first]]; t != 0 && t != r.ttl {
			e.Foreign++
		}
	}
	for i := first; i < last; i++ {
		a.passed(c, r, way, i)
	}
	if last < len(way)-1 {
		e := a.edge(way[last], way[last+1])
		if a.underWay(e, r) {
			return
		}
		a.enter(e, c, r)
		if a.rejected(c, r, way[last], way[last+1]) {
			e.Rejected++
			e.series.add(r.at, bin(uint32(r.size)), counts{in: 1})
		} else {
			e.Absent[bin(uint32(r.size))]++
			e.absent(r.at, bin(uint32(r.size)))
		}
	}
}

// maxPairs bounds the pairs of hosts that are told apart.
const maxPairs = 1024

// pair is that of the hosts of c, in a direction.
func (a *Analysis) pair(e *Edge, c *conv, dir uint8) *Pair {
	k := [2]capture.Addr{c.ends[dir].Addr, c.ends[1-dir].Addr}
	p := e.pairs[k]
	if p == nil {
		if len(e.pairs) >= maxPairs {
			k = [2]capture.Addr{}
			if p = e.pairs[k]; p != nil {
				return p
			}
		}
		p = &Pair{Src: k[0], Dst: k[1]}
		if c.translated {
			for pts := c.pts; pts != 0; pts &= pts - 1 {
				pt := bits.TrailingZeros8(pts)
				p.shown[pt] = c.shown(int(dir), pt)
			}
		}
		e.pairs[k] = p
	}
	return p
}

// conclude takes what a connection that is over tells beside its segments.
func (a *Analysis) conclude(c *conv) {
	s := service{c.ends[1], c.proto}
	k := a.services[s]
	if k == nil {
		if len(a.services) >= maxServices {
			s = service{} // of none in particular
		}
		if k = a.services[s]; k == nil {
			k = &asked{vain: make(map[vainKey]*vain)}
			a.services[s] = k
		}
	}
	switch {
	case c.dirPts[1] != 0 && (c.hasSyn[1] != 0 || !c.began):
		for p := range a.report.Points {
			if a.covers(p, c.first) && a.covers(p, c.last) {
				k.answered[p]++
				k.seen[p] += uint32(c.pts >> p & 1)
			}
		}
		if w := a.way(c); len(w) > int(k.wayLen) {
			k.wayLen = uint8(copy(k.way[:], w))
		}
	case c.requests > 0 && (c.began || c.proto == capture.ProtoUDP):
		key := vainKey{c.pts, c.dirPts[1] != 0}
		v := k.vain[key]
		if v == nil {
			size := 60 // of a SYN with options
			v = &vain{first: c.first, size: size, conv: c}
			k.vain[key] = v
		}
		v.requests += uint64(c.requests)
		v.first, v.last = min(v.first, c.first), max(v.last, c.last)
		for i := range min(int(c.requests), maxVain-len(v.times)) { // as if they were repeated at even intervals
			v.times = append(v.times, c.first+(c.last-c.first)*capture.Instant(i)/capture.Instant(max(1, c.requests-1)))
		}
	}
	if way := a.way(c); len(way) > 1 {
		a.member(c, way)
		a.compareSyns(c, way)
		a.twins(c, way)
		a.dead(c, way)
	}
	a.legs = appendLeg(a.legs, c)
	if a.o.Row != nil {
		a.o.Row(a.row(c))
	}
}

// twins counts as doubled of what only the last point shows twice as much as the receiver says that it had twice (RFC 2883 §4), beside what
// came to that point twice.
func (a *Analysis) twins(c *conv, way []uint8) {
	n := len(way)
	for dir, k := range c.twins {
		told := c.dsack[dir] - min(c.dsack[dir], c.twice[dir])
		if k = min(k, told); k == 0 {
			continue
		}
		e := a.edge(way[n-2], way[n-1])
		if dir == 1 {
			e = a.edge(way[1], way[0])
		}
		e.Doubled += uint64(k)
		e.Copies -= min(e.Copies, uint64(k))
		e.odd(c.first)
		e.odd(c.last)
	}
}

// fewDead: so many packets of a connection, and nothing behind them, are no accident: at 10 % of loss once in 1,000.
const fewDead = 3

// maxDead bounds the dead connections of an edge that are remembered.
const maxDead = 4096

// dead notes that a connection had been silent and nothing of a direction came to a point any more.
func (a *Analysis) dead(c *conv, way []uint8) {
	for i := 1; i < len(way); i++ {
		for dir, ends := range [2][2]uint8{{way[i-1], way[i]}, {way[i], way[i-1]}} {
			if n := c.stuck[dir][ends[0]]; n >= fewDead && c.quiet[dir] >= rejection && c.passedAt[min(ends[0], ends[1])] != 0 {
				if e := a.edge(ends[0], ends[1]); len(e.dead) < maxDead {
					e.dead = append(e.dead, dead{c.quiet[dir], n})
				}
			}
		}
	}
}

// maxMembers bounds the servers behind load balancers that are remembered.
const maxMembers = 1024

// member notes which server a connection was passed on to.
func (a *Analysis) member(c *conv, way []uint8) {
	if !c.translated || c.proto != capture.ProtoTCP {
		return
	}
	front, back := c.server(int(way[0])), c.server(int(way[len(way)-1]))
	if m := a.report.Members; front != back && (len(m) < maxMembers || m[back] != (capture.Endpoint{})) {
		m[back] = front
	}
}

// compareSyns notes what a device between two points did to the options of a connection.
func (a *Analysis) compareSyns(c *conv, way []uint8) {
	for i := 1; i < len(way); i++ {
		for dir := range 2 {
			p, q := way[i-1], way[i]
			if dir == 1 {
				p, q = q, p
			}
			if c.hasSyn[dir]>>p&1 == 0 || c.hasSyn[dir]>>q&1 == 0 {
				continue
			}
			x, y := c.syn[dir][p], c.syn[dir][q]
			if (x.opts|y.opts)&capture.OptCut != 0 {
				continue
			}
			n := &a.edge(p, q).Changed
			n.Seen++
			if x.mss != y.mss {
				n.MSS++
				n.MSSFrom, n.MSSTo = x.mss, y.mss
			}
			gone := x.opts ^ y.opts
			n.WScale += uint64(gone / capture.OptWScale & 1)
			n.SACK += uint64(gone / capture.OptSACKPermitted & 1)
			n.Stamps += uint64(gone / capture.OptTimestamps & 1)
			if c.base[dir][p] != c.base[dir][q] {
				n.Numbers++
			}
		}
	}
}

// absent notes when a packet is absent.
func (e *Edge) absent(at capture.Instant, bin int) {
	e.series.add(at, bin, counts{absent: 1, in: 1})
	if e.firstAbsent == 0 || at < e.firstAbsent {
		e.firstAbsent = at
	}
}

// odd notes when the first packet was overtaken or doubled, and the last one.
func (e *Edge) odd(at capture.Instant) {
	if e.OddAt == 0 || at < e.OddAt {
		e.OddAt = at
	}
	e.OddEnd = max(e.OddEnd, at)
}

// resets notes resets that were made on an edge.
func (e *Edge) resets(at capture.Instant, n uint64) {
	e.Resets += n
	if e.ResetAt == 0 || at < e.ResetAt {
		e.ResetAt = at
	}
}
