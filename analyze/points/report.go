package points

import (
	"cmp"
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
	// Looks are the captures that are looked at closer: of each leg that proxies join to the others one, in the order of the path. Together they
	// show what the proxies do.
	Looks []Look
	// Members are servers behind a device that translates addresses, by what they are asked as before it: a load balancer.
	Members map[capture.Endpoint]capture.Endpoint
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
	RoseFor                   time.Duration
	FellAt                    capture.Instant // 0: they did not fall again
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
	}
	for p := range n - 1 {
		if r.Over(p, 0) == nil && r.Over(p, 1) == nil {
			a.apart(p, p+1)
		}
	}
	r.look()
	return r
}

// Over is the edge by which most packets went from a point, or one before it, to the next one or one behind it; way 1: the other way. nil: none did.
func (r *Report) Over(p, way int) (most *Edge) {
	for _, e := range r.Edges {
		from, to := e.From, e.To
		if way == 1 {
			from, to = to, from
		}
		if from <= p && to > p && (most == nil || e.In.All() > most.In.All()) {
			most = e
		}
	}
	return most
}

// Blind is between how many neighbouring points nothing can be said of a direction, each direction for itself: they have no packet of it in common,
// or a proxy lies between them.
func (r *Report) Blind() (n int) {
	for p := range len(r.Points) - 1 {
		for way := range 2 {
			if r.Over(p, way) == nil {
				n++
			}
		}
	}
	return n
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

// maxPairsTold is how many pairs of hosts are told of an edge.
const maxPairsTold = 64

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
		return cmp.Or(cmp.Compare(y.Lost+y.Absent+y.Resets, x.Lost+x.Absent+x.Resets), cmp.Compare(y.In, x.In), slices.Compare(x.Src[:], y.Src[:]), slices.Compare(x.Dst[:], y.Dst[:]))
	})
	for _, p := range all[:min(len(all), maxPairsTold)] {
		e.Pairs = append(e.Pairs, *p)
	}
	if len(all) > 0 {
		e.Worst, e.Hit = *all[0], *all[0]
	}
	for _, p := range all {
		if n := p.Lost + p.Absent; n >= fewDead && float64(n)*float64(e.Hit.In) > float64(e.Hit.Lost+e.Hit.Absent)*float64(p.In) {
			e.Hit = *p
		}
	}
	for _, d := range e.dead {
		if d.quiet > e.survived {
			if e.Forgotten++; e.Idle == 0 || d.quiet < e.Idle {
				e.Idle = d.quiet
			}
			e.ForgottenLost += uint64(d.lost)
		}
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
		if d.RoseFor = kept[end-1].at.Sub(d.RoseAt); end < len(kept) {
			d.FellAt = kept[end].at
		}
	}
}

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
