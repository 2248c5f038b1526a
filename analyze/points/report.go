package points

import (
	"cmp"
	"math"
	"slices"
	"time"

	"jindan/capture"
)

// Report is what the comparison of points found.
type Report struct {
	Points  []Point
	At      []At
	Edges   []*Edge  // those over which something passed, in the order of the points
	Clocks  []Offset // of neighbours
	Borders []Border
	Apart   [][2]int // neighbours that have nothing in common
	// Lead is how much later the times of the first point are than those of the one that is looked at closer.
	Lead    capture.Instant
	Refused uint64 // packets of connections beyond what is followed at a time
	Early   uint64 // segments judged before their time
}

// Offset is how far the clock of To is ahead of that of From, in the middle of the time that both saw.
type Offset struct {
	From, To      int
	Offset, Bound time.Duration
	Skew          float64 // seconds a second
	SkewBound     float64
	Known         bool // packets passed in both directions
	Stepped       bool
}

// Delays are the times that packets took over an edge.
type Delays struct {
	Times
	// Least, Median and P99 are by the clocks as estimated; Bound is how far all of them may be off together.
	Least, Median, P99, Bound float64 // s
	Known                     bool
	// MedianBefore and MedianSince are before and since RoseAt; 0: they did not rise.
	MedianBefore, MedianSince float64
	RoseAt                    capture.Instant
}

// Border is a pair of neighbours between which connections end and others begin: a proxy. They are joined by time and volume.
type Border struct {
	From, To        int
	Front, Back     int // connections on either side
	Joined          int
	Delay, DelayP99 float64 // s, from the opening of one to that of the other, by their own clocks
}

// leg is one connection, for borders.
type leg struct {
	pts   uint8
	ends  [2]capture.Endpoint
	first capture.Instant
	bytes [2]uint64
}

// maxLegs bounds the connections that are remembered for borders.
const maxLegs = 1 << 16

func appendLeg(legs []leg, c *conv) []leg {
	if c.proto != capture.ProtoTCP || !c.began || c.bytes == [2]uint64{} || len(legs) >= maxLegs {
		return legs
	}
	return append(legs, leg{c.pts, c.ends, c.first, c.bytes})
}

// sum makes the report.
func (a *Analysis) sum() *Report {
	r := a.report
	n := len(r.Points)
	for p := range n {
		for q := p + 1; q < n; q++ {
			there, back := a.edges[p][q], a.edges[q][p]
			if there == nil && back == nil {
				continue
			}
			var c Clock
			if e := a.clocks[p][q]; e != nil {
				c = e.clock()
				r.Clocks = append(r.Clocks, a.offset(p, q, &c))
			}
			for _, e := range []*Edge{there, back} {
				if e == nil {
					continue
				}
				e.sum(&c)
				r.Edges = append(r.Edges, e)
			}
		}
		if p+1 < n && a.shared[p]>>(p+1)&1 == 0 {
			a.apart(p, p+1)
		}
	}
	return r
}

func (a *Analysis) offset(p, q int, c *Clock) Offset {
	x, y := &a.report.Points[p], &a.report.Points[q]
	mid := max(x.First, y.First)/2 + min(x.Last, y.Last)/2
	o := Offset{From: p, To: q, Known: c.Known(), Stepped: c.Stepped}
	o.Offset, o.Bound = c.At(mid)
	o.Offset += x.Shift - y.Shift
	o.Skew, o.SkewBound = c.Skew()
	return o
}

// sum completes an edge. c is the clock of the later point against the earlier one, in the order of the points.
func (e *Edge) sum(c *Clock) {
	for _, p := range e.pairs {
		e.Peers++
		if p.Lost > 0 {
			e.PeersHit++
		}
	}
	all := make([]*Pair, 0, len(e.pairs))
	for _, p := range e.pairs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(x, y *Pair) int {
		return cmp.Or(cmp.Compare(y.Lost, x.Lost), cmp.Compare(y.In, x.In), slices.Compare(x.Src[:], y.Src[:]), slices.Compare(x.Dst[:], y.Dst[:]))
	})
	if len(all) > 0 {
		e.Worst = *all[0]
	}
	if e.ways[1] > e.ways[0] {
		e.Way = 1
	}
	if e.OddAt != 0 {
		e.OddIn = e.series.passed(e.OddAt, e.OddEnd)
	}
	e.Delays.sum(c, e.From > e.To)
}

// sum corrects the delays by the clock.
func (d *Delays) sum(c *Clock, back bool) {
	kept := slices.Clone(d.kept)
	for i := range kept {
		off, bound := c.At(kept[i].at)
		if back {
			off = -off
		}
		kept[i].took -= off.Seconds()
		if c.Known() {
			d.Bound = max(d.Bound, bound.Seconds())
		}
	}
	d.Known = c.Known() && len(kept) > 0
	d.Least, d.Median, d.P99 = quantile(kept, 0), quantile(kept, 0.5), quantile(kept, 0.99)
	d.rise(kept)
}

// rise looks for a lasting rise of the delay: the time that parts the kept ones into those of a low median and of a high one.
func (d *Delays) rise(kept []timed) {
	const least = 20 // on either side
	if !d.Known || len(kept) < 2*least {
		return
	}
	slices.SortFunc(kept, func(x, y timed) int { return cmp.Compare(x.at, y.at) })
	// The cut that parts the values above the middle of their range from those below it best.
	lo, hi := quantile(kept, 0.05), quantile(kept, 0.95)
	mid := (lo + hi) / 2
	sum, worst, at := 0, 0, 0
	above := func(k timed) int {
		if k.took > mid {
			return 1
		}
		return -1
	}
	for i, k := range kept {
		if sum += above(k); sum < worst {
			worst, at = sum, i+1
		}
	}
	// It may have ended before the capture did.
	most, end := 0, len(kept)
	sum = 0
	for i, k := range kept[at:] {
		if sum += above(k); sum >= most {
			most, end = sum, at+i+1
		}
	}
	if at < least || end-at < least {
		return
	}
	before, since := quantile(kept[:at], 0.5), quantile(kept[at:end], 0.5)
	if since > before {
		d.MedianBefore, d.MedianSince, d.RoseAt = before, since, kept[at].at
	}
}

// series counts what was lost, and all, by time and size.
type series struct {
	base, width capture.Instant
	ring        [][Bins]counts
}

type counts struct{ lost, absent, in uint32 }

func (s *series) add(at capture.Instant, bin int, c counts) {
	if s.width == 0 {
		s.base, s.width = at, capture.Instant(100*time.Millisecond)
	}
	k := max(0, int((at-s.base)/s.width))
	for k >= maxBuckets {
		s.width *= 2
		for i, x := range s.ring {
			if i%2 == 0 {
				s.ring[i/2] = x
				continue
			}
			for b := range x {
				s.ring[i/2][b].add(x[b])
			}
		}
		s.ring = s.ring[:(len(s.ring)+1)/2]
		k = int((at - s.base) / s.width)
	}
	for len(s.ring) <= k {
		s.ring = append(s.ring, [Bins]counts{})
	}
	s.ring[k][bin].add(c)
}

func (c *counts) add(d counts) {
	c.lost += d.lost
	c.absent += d.absent
	c.in += d.in
}

// passed is how many were counted from one time to another.
func (s *series) passed(from, to capture.Instant) (n uint64) {
	for i := range s.ring {
		if at := s.base + capture.Instant(i)*s.width; at+s.width > from && at <= to {
			n += s.share(i, i+1, 0, Bins, false).In
		}
	}
	return n
}

// share is of what was counted in some spans of time and bins of sizes; absent: what is absent is lost.
func (s *series) share(from, to, least, most int, absent bool) (sum Share) {
	for i := from; i < to; i++ {
		for _, x := range s.ring[i][least:most] {
			sum.Lost += uint64(x.lost)
			if absent {
				sum.Lost += uint64(x.absent)
			}
			sum.In += uint64(x.in)
		}
	}
	return sum
}

// Change is when more was lost than before and after.
type Change struct {
	At            capture.Instant
	Before, Since Share
	Smaller       Share // at the same time, of smaller ones
}

// Change is when the share of what is lost of the sizes from a bin on changed, and maybe changed back, by maximum likelihood.
// absent: what is absent is lost.
func (e *Edge) Change(least int, absent bool) Change {
	s := &e.series
	n := len(s.ring)
	sums := make([]Share, n+1)
	for i := range n {
		x := s.share(i, i+1, least, Bins, absent)
		sums[i+1] = Share{sums[i].Lost + x.Lost, sums[i].In + x.In}
	}
	all := sums[n]
	from, to, best := 0, n, logLik(all)
	for i := range n {
		if sums[i+1].Lost == sums[i].Lost {
			continue
		}
		for k := i + 1; k <= n; k++ {
			if k < n && sums[k].Lost == sums[k-1].Lost || k-i == n {
				continue
			}
			in := Share{sums[k].Lost - sums[i].Lost, sums[k].In - sums[i].In}
			out := Share{all.Lost - in.Lost, all.In - in.In}
			// Six nats for each end of it that is not one of the capture: chance makes such changes seldom in so many places (log of maxBuckets).
			l := logLik(in) + logLik(out)
			if i > 0 {
				l -= 6
			}
			if k < n {
				l -= 6
			}
			if l > best && in.Rate() > out.Rate() {
				from, to, best = i, k, l
			}
		}
	}
	c := Change{At: s.base + capture.Instant(from)*s.width, Before: sums[from], Smaller: s.share(from, to, 0, least, absent)}
	c.Since = Share{sums[to].Lost - sums[from].Lost, sums[to].In - sums[from].In}
	first := e.First
	if absent && e.firstAbsent != 0 && (first == 0 || e.firstAbsent < first) {
		first = e.firstAbsent
	}
	c.At = max(c.At, first) // the first one lost may be later in its span of time
	return c
}

// Rate is the share lost.
func (s Share) Rate() float64 { return float64(s.Lost) / float64(max(1, s.In)) }

func logLik(s Share) float64 {
	p := s.Rate()
	if p <= 0 || p >= 1 {
		return 0
	}
	return float64(s.Lost)*math.Log(p) + float64(s.In-s.Lost)*math.Log1p(-p)
}

// atMost is the share that may be bad, with 95 % confidence, where k of n were: Wilson's upper limit (JASA 22:209, 1927).
func atMost(k, n uint64) float64 {
	if n == 0 {
		return 1
	}
	const z = 1.645
	p, m := float64(k)/float64(n), float64(n)
	return min(1, (p+z*z/(2*m)+z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m)))/(1+z*z/m))
}

// apart looks whether two neighbours without a packet in common are the sides of a proxy.
func (a *Analysis) apart(p, q int) {
	var front, back []leg
	for _, l := range a.legs {
		switch {
		case l.pts>>p&1 != 0 && l.pts>>q&1 == 0:
			front = append(front, l)
		case l.pts>>q&1 != 0 && l.pts>>p&1 == 0:
			back = append(back, l)
		}
	}
	byTime := func(x, y leg) int { return cmp.Compare(x.first, y.first) }
	slices.SortFunc(front, byTime)
	slices.SortFunc(back, byTime)
	b := Border{From: p, To: q, Front: len(front), Back: len(back)}
	var lags []capture.Instant
	eachPair(front, back, -borderLate, borderLate, func(f, k int) bool {
		lags = append(lags, back[k].first-front[f].first)
		return len(lags) < maxPairsOfLegs
	})
	slices.Sort(lags)
	from, most := densest(lags)
	if most >= fewAnswered {
		// A proxy opens its connections the same time after those that it is asked by. By chance as many would begin another time after them.
		least := lags[from]
		before, _ := slices.BinarySearch(lags, least-capture.Instant(borderWidth))
		behind, _ := slices.BinarySearch(lags, least+2*capture.Instant(borderWidth))
		_, second := densest(lags[:before])
		_, third := densest(lags[behind:])
		if most > 2*max(second, third) {
			b.join(front, back, time.Duration(least), time.Duration(least)+borderWidth)
		}
	}
	if b.Joined*2 > min(b.Front, b.Back) {
		a.report.Borders = append(a.report.Borders, b)
	} else {
		a.report.Apart = append(a.report.Apart, [2]int{p, q})
	}
}

// densest is where most of the sorted lags are within borderWidth, and how many.
func densest(lags []capture.Instant) (from, most int) {
	for i, n := 0, 0; i < len(lags); i++ {
		for n < len(lags) && lags[n] <= lags[i]+capture.Instant(borderWidth) {
			n++
		}
		if n-i > most {
			from, most = i, n-i
		}
	}
	return from, most
}

// join joins each connection to one that began so much later.
func (b *Border) join(front, back []leg, least, most time.Duration) {
	joined, taken := make([]bool, len(front)), make([]bool, len(back))
	var delays Times
	eachPair(front, back, least, most, func(f, k int) bool {
		if !joined[f] && !taken[k] {
			joined[f], taken[k] = true, true
			b.Joined++
			delays.add(front[f].first, back[k].first.Sub(front[f].first).Seconds())
		}
		return true
	})
	b.Delay, b.DelayP99 = delays.Quantile(0.5), delays.Quantile(0.99)
}

// eachPair calls do for connections of two points, in the order of time, that may be the two sides of one that a proxy passes on: the second
// one begins so much later, and bears about as much. It ends where do says so.
func eachPair(front, back []leg, least, most time.Duration, do func(f, k int) bool) {
	begin := 0
	for i, f := range front {
		for begin < len(back) && back[begin].first < f.first.Add(least) {
			begin++
		}
		for k := begin; k < len(back) && back[k].first <= f.first.Add(most); k++ {
			if b := &back[k]; (b.ends[0].Addr != f.ends[0].Addr || b.ends[1] != f.ends[1]) && alike(b.bytes[0], f.bytes[0]) && alike(b.bytes[1], f.bytes[1]) &&
				!do(i, k) {
				return
			}
		}
	}
}

// alike: a proxy adds headers and ends TLS, whose handshake with certificates takes some kilobytes.
func alike(x, y uint64) bool {
	x, y = min(x, y), max(x, y)
	return y-x <= 8<<10+x/8
}

const (
	// borderLate is for clocks of the two sides that are not known to each other but set, and for a proxy that asks late.
	borderLate = 5 * time.Second
	// borderWidth is how much the time varies after which a proxy that is not overloaded opens its own connection.
	borderWidth = 10 * time.Millisecond
	// maxPairsOfLegs bounds the pairs of connections that are looked at.
	maxPairsOfLegs = 1 << 20
)

// Row is one connection with what each point saw of it.
type Row struct {
	Kind          string          `json:"kind"` // points
	Client        string          `json:"client"`
	Server        string          `json:"server"`
	Proto         string          `json:"proto"`
	First         capture.Instant `json:"first"`
	Last          capture.Instant `json:"last"`
	Way           []string        `json:"way"`            // points in the order in which the client's packets pass them
	ClientPackets []uint32        `json:"client_packets"` // at each of them
	ServerPackets []uint32        `json:"server_packets"`
	ClientLost    []uint32        `json:"client_lost"` // of the client's segments, behind each of them
	ServerLost    []uint32        `json:"server_lost"`
	Missed        []uint32        `json:"missed"` // passed and not captured, at each of them
	Bytes         [2]uint64       `json:"bytes"`  // sent by the client, by the server
	NAT           bool            `json:"translated"`
}

func (a *Analysis) row(c *conv) *Row {
	r := &Row{Kind: "points", Client: c.ends[0].String(), Server: c.ends[1].String(), Proto: "tcp", First: c.first, Last: c.last, Bytes: c.bytes, NAT: c.translated}
	if c.proto == capture.ProtoUDP {
		r.Proto = "udp"
	}
	for _, p := range a.way(c) {
		r.Way = append(r.Way, a.report.Points[p].Name)
		r.ClientPackets, r.ServerPackets = append(r.ClientPackets, c.seen[0][p]), append(r.ServerPackets, c.seen[1][p])
		r.ClientLost, r.ServerLost = append(r.ClientLost, c.lostAt[0][p]), append(r.ServerLost, c.lostAt[1][p])
		r.Missed = append(r.Missed, c.missed[p])
	}
	return r
}
