package points

import (
	"slices"
	"time"

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
		if a.covers(int(p), r.at) || r.mask>>p&1 != 0 {
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
	if last < len(way)-1 && acked && r.marks&repeated == 0 {
		reached = len(way) - 1 // the receiver has it: the captures behind missed it
	}
	begins := 0
	if r.kind != data || blurred {
		begins = first // nothing says that the points before ought to have it
	}
	if !blurred {
		for i := begins; i <= reached; i++ {
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
		return
	}
	e := a.edge(way[reached], way[reached+1])
	b := bin(uint32(r.size))
	e.In[b]++
	if r.kind == bare {
		e.Bare++
	}
	e.ways[r.dir]++
	pair := e.pair(c, r.dir)
	pair.In++
	switch {
	case r.marks&repeated != 0:
		e.Lost[b]++
		pair.Lost++
		c.lost[r.dir]++
		c.lostAt[r.dir][way[reached]]++
		if e.First == 0 || r.at < e.First {
			e.First = r.at
		}
		e.series.add(r.at, 1)
	default:
		e.Absent[b]++
		e.series.add(r.at, 0)
		if r.kind == bare {
			e.BareAbsent++
		}
	}
}

// passed notes that a segment went from one point of its way to the next.
func (a *Analysis) passed(c *conv, r *record, way []uint8, i int) {
	p, q := way[i], way[i+1]
	e := a.edge(p, q)
	e.In[bin(uint32(r.size))]++
	if r.kind == bare {
		e.Bare++
	}
	e.ways[r.dir]++
	e.pair(c, r.dir).In++
	e.series.add(r.at, 0)
	if r.mask>>p&1 == 0 || r.mask>>q&1 == 0 {
		return
	}
	if r.late>>q&1 != 0 && r.late>>p&1 == 0 {
		e.Reordered++
	}
	if (r.odd>>p^r.odd>>q)&1 != 0 {
		e.Changed.ECN++
	}
	if r.twice>>q&1 != 0 && r.twice>>p&1 == 0 && i+2 < len(way) {
		doubled := true
		for _, behind := range way[i+2:] {
			doubled = doubled && (r.twice>>behind&1 != 0 || r.mask>>behind&1 == 0)
		}
		if doubled {
			e.Doubled++
		}
	}
	if r.marks&vague != 0 || r.kind == datagram && r.id == 0 {
		return
	}
	took := float64(r.off[q]-r.off[p]) / 1e6
	e.Delays.add(r.at, took)
	a.clock(p, q, r.at.Add(time.Duration(r.off[p])*time.Microsecond), took)
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
	if first == 0 {
		a.report.At[way[0]].Resets++
	} else {
		e := a.edge(way[first-1], way[first])
		e.Resets++
		if t := c.ttl[r.dir][way[first]]; t != 0 && t != r.ttl {
			e.Foreign++
		}
		if e.ResetAt == 0 || r.at < e.ResetAt {
			e.ResetAt = r.at
		}
	}
	for i := first; i < last; i++ {
		a.passed(c, r, way, i)
	}
}

// maxPairs bounds the pairs of hosts that are told apart.
const maxPairs = 1024

func (e *Edge) pair(c *conv, dir uint8) *Pair {
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
		e.pairs[k] = p
	}
	return p
}

// service is what connections are opened to.
type service struct {
	end   capture.Endpoint
	proto uint8
}

// asked is how a service fared at each point, to tell whether what does not reach a point would have passed it.
type asked struct {
	answered, seen [MaxPoints]uint32 // answered connections in the time of a point, and those that it saw
	way            [MaxPoints]uint8  // of one that many points saw
	wayLen         uint8
	translated     bool
	vain           map[uint8]*vain // unanswered ones, by the points that saw them
}

type vain struct {
	requests    uint64
	first, last capture.Instant
	size        int
	ends        [2]capture.Endpoint
}

const (
	maxServices = 4096
	// fewAnswered: so many answered connections must all have passed a point before others to the same service are missed there.
	fewAnswered = 3
)

// conclude takes what a connection that is over tells beside its segments.
func (a *Analysis) conclude(c *conv) {
	s := service{c.ends[1], c.proto}
	k := a.services[s]
	if k == nil {
		if len(a.services) >= maxServices {
			s = service{}
		}
		k = &asked{vain: make(map[uint8]*vain)}
		a.services[s] = k
	}
	k.translated = k.translated || c.translated || s == service{}
	switch {
	case c.dirPts[1] != 0:
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
		v := k.vain[c.pts]
		if v == nil {
			size := 60 // of a SYN with options
			v = &vain{first: c.first, size: size, ends: c.ends}
			k.vain[c.pts] = v
		}
		v.requests += uint64(c.requests)
		v.first, v.last = min(v.first, c.first), max(v.last, c.last)
	}
	if way := a.way(c); len(way) > 1 {
		for _, p := range way {
			a.shared[p] |= c.pts
		}
		a.compareSyns(c, way)
	}
	a.legs = appendLeg(a.legs, c)
	if a.o.Row != nil {
		a.o.Row(a.row(c))
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

// unheard counts as lost the requests of connections that a point saw nothing of, though all that were answered passed it.
func (a *Analysis) unheard() {
	for s, k := range a.services {
		if k.translated {
			continue
		}
		for pts, v := range k.vain {
			way := k.way[:k.wayLen]
			last := -1
			for i, p := range way {
				if pts>>p&1 != 0 {
					last = i
				}
			}
			if last < 0 || last == len(way)-1 {
				continue
			}
			n := way[last+1]
			if k.answered[n] < fewAnswered || k.seen[n] < k.answered[n] || !a.covers(int(n), v.first) || !a.covers(int(n), v.last) {
				continue
			}
			e := a.edge(way[last], n)
			b := bin(uint32(v.size))
			e.Requests += v.requests
			e.In[b] += v.requests
			e.Lost[b] += v.requests
			if e.First == 0 || v.first < e.First {
				e.First = v.first
			}
			for range min(v.requests, 1000) {
				e.series.add(v.first, 1)
			}
			p := e.pair(&conv{ends: v.ends}, 0)
			p.In += v.requests
			p.Lost += v.requests
			_ = s
		}
	}
}
