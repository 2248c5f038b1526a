package view

import (
	"cmp"
	"slices"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// What is kept while an analysis runs, together below 20 MB.
const (
	maxServices   = 256  // at 15 kB
	maxResolvers  = 64   // at 40 kB
	maxListeners  = 64   // at 17 kB
	maxDirections = 1024 // at 6 kB
	maxChanges    = 64
)

// What the record holds of them.
const (
	shownServices   = 16
	shownResolvers  = 8
	shownListeners  = 16
	shownDirections = 200
)

// service is a Service that is being collected.
type service struct {
	end  capture.Endpoint
	s    Service
	open carried
	half carried
	// trying are the connections whose SYN has been sent again and whose end is not known, at the time of their first SYN.
	trying Count
}

type resolver struct {
	ends [2]capture.Addr
	r    Resolver
}

type direction struct {
	from, to capture.Addr
	n        uint64
	d        Direction
}

// Collector collects a View while an engine runs.
type Collector struct {
	axis
	now       [2]capture.Instant // where the bucket of the last event begins and ends
	current   int                // that bucket
	recent    bool               // older buckets are dropped, not merged
	began     bool
	host      HostSeries
	services  []*service
	byNumber  []*service // by the number that the flow table gives to the listener
	resolvers []*resolver
	byPair    map[[2]capture.Addr]*resolver
	listeners map[uint16]*Listener
	flows     []*direction
	byFlow    map[[2]capture.Addr]*direction
	changes   []Change
	sampled   []sampled
	latest    map[sampleKind]capture.Instant
	examples  examples
	left      map[string]uint64
	table     *flow.Table
}

// New returns an empty Collector.
func New() *Collector {
	return &Collector{byPair: map[[2]capture.Addr]*resolver{}, listeners: map[uint16]*Listener{}, byFlow: map[[2]capture.Addr]*direction{},
		left: map[string]uint64{}, examples: newExamples(), latest: map[sampleKind]capture.Instant{}}
}

// Events implements analyze.Watcher.
func (c *Collector) Events() flow.Mask {
	return flow.Of(flow.Established, flow.SynRepeat, flow.SynAckRepeat, flow.Refused, flow.Request, flow.Response, flow.Abandoned, flow.HalfClosed,
		flow.HalfCloseEnd, flow.Reset, flow.Closed, flow.Retransmit, flow.HoleFilled, flow.HoleOpened, flow.DNSAnswer,
		flow.DNSUnanswered, flow.DNSRepeat)
}

// at is the bucket of a time, which is covered from now on. Most events fall into the bucket of the one before.
func (c *Collector) at(at capture.Instant) int {
	if at < c.now[0] || at >= c.now[1] {
		c.current = c.cover(at)
		c.now[0] = c.start + capture.Instant(c.current)*c.width
		c.now[1] = c.now[0] + c.width
	}
	return c.current
}

// cover makes room for a time, and says in which bucket it lies.
func (c *Collector) cover(at capture.Instant) int {
	if !c.began {
		// A start at a whole second puts bucket borders where windows end.
		c.began = true
		c.width = capture.Instant(finest)
		if c.recent {
			c.width = recentWidth
		}
		c.start = at - at%capture.Instant(analyze.WindowLength)
	}
	if c.recent {
		c.forget(at)
	}
	for range c.folds(at) {
		c.fold()
	}
	return c.bucket(at)
}

func (c *Collector) fold() {
	c.width *= 2
	for _, n := range []Count{c.host.Before, c.host.After, c.host.SYN, c.host.SYNACK} {
		n.fold()
	}
	for _, n := range c.host.Resets {
		n.fold()
	}
	for _, s := range c.services {
		for _, n := range []Count{s.s.Requests, s.s.Answered, s.s.GaveUp, s.s.Unopened, s.trying} {
			n.fold()
		}
		s.open.fold()
		s.half.fold()
	}
	for _, r := range c.resolvers {
		r.r.fold()
	}
	for _, l := range c.listeners {
		l.Queue.fold()
		l.Unaccepted.fold()
		l.Held.fold()
	}
	for _, d := range c.flows {
		d.d.fold()
	}
}

// service is the one of a connection, nil if there are too many.
func (c *Collector) service(conn *flow.Conn) *service {
	n := int(conn.Service())
	if n == 0 || n > maxServices*4 {
		c.left["services"]++
		return nil
	}
	for len(c.byNumber) < n {
		c.byNumber = append(c.byNumber, nil)
	}
	if s := c.byNumber[n-1]; s != nil && s.end == conn.Server {
		return s
	}
	if len(c.services) == maxServices {
		c.left["services"]++
		return nil
	}
	s := &service{end: conn.Server, s: Service{Addr: conn.Server.Addr.String(), Port: conn.Server.Port}}
	c.services, c.byNumber[n-1] = append(c.services, s), s
	return s
}

// Event implements analyze.Watcher.
func (c *Collector) Event(e *flow.Event) {
	i := c.at(e.At)
	switch e.Kind {
	case flow.SynRepeat:
		c.host.SYN.add(i, 1)
	case flow.SynAckRepeat:
		c.host.SYNACK.add(i, 1)
	case flow.Retransmit:
		if e.Class.OfPath() {
			c.host.After.add(i, max(e.N, 1))
		}
	case flow.HoleFilled:
		c.host.Before.add(i, max(e.N, 1))
	case flow.Reset:
		if e.Class != flow.ResetComplete {
			c.reset(i, e.Class.String())
		}
	case flow.DNSAnswer, flow.DNSUnanswered, flow.DNSRepeat:
		c.dns(e)
		return
	}
	if e.Conn == nil {
		return
	}
	if e.Kind == flow.Established && e.Conn.SynTries() < 2 {
		return
	}
	c.example(e)
	s := c.service(e.Conn)
	if s == nil {
		return
	}
	switch e.Kind {
	case flow.SynRepeat:
		if e.N == 1 {
			s.trying.add(c.at(e.Conn.SynAt()), 1)
		}
	case flow.Established:
		s.trying.take(c.at(e.Conn.SynAt()))
	case flow.Request:
		s.s.Requests.add(i, 1)
		s.open.change(i, 1)
	case flow.Response:
		s.s.Answered.add(i, 1)
		s.open.change(i, -1)
	case flow.Abandoned:
		s.s.GaveUp.add(i, 1)
		s.open.change(i, -1)
	case flow.HalfClosed:
		if e.Side == flow.Client {
			s.half.change(i, 1)
		}
	case flow.HalfCloseEnd:
		if e.Side == flow.Client {
			s.half.change(i, -1)
		}
	case flow.Closed:
		if at := e.Conn.SynAt(); at != 0 && !e.Conn.IsEstablished() {
			s.s.Unopened.add(c.at(at), 1)
			if e.Conn.SynTries() > 1 {
				s.trying.take(c.at(at))
			}
		}
	}
}

func (c *Collector) reset(i int, class string) {
	if c.host.Resets == nil {
		c.host.Resets = map[string]Count{}
	}
	n := c.host.Resets[class]
	n.add(i, 1)
	c.host.Resets[class] = n
}

func (c *Collector) dns(e *flow.Event) {
	d := e.DNS
	k := [2]capture.Addr{d.Client.Addr, d.Server.Addr}
	r := c.byPair[k]
	if r == nil {
		if len(c.resolvers) == maxResolvers {
			c.left["resolvers"]++
			return
		}
		r = &resolver{ends: k, r: Resolver{Client: d.Client.Addr.String(), Server: d.Server.Addr.String(),
			Latency: make([][LatencySteps]uint16, MaxBuckets)}}
		c.resolvers, c.byPair[k] = append(c.resolvers, r), r
	}
	switch e.Kind {
	case flow.DNSAnswer:
		i := c.at(d.First)
		r.r.Answered.add(i, 1)
		if n := &r.r.Latency[i][LatencyStep(e.Dur)]; *n < 0xffff {
			*n++
		}
	case flow.DNSUnanswered:
		r.r.Unanswered.add(c.at(d.First), 1)
	case flow.DNSRepeat:
		r.r.Again.add(c.at(e.At), 1)
	}
}

// Sample implements analyze.Watcher.
func (c *Collector) Sample(at capture.Instant, s *capture.Sample) {
	i := c.at(at)
	if s.Change == nil {
		c.remember(at, s)
	}
	switch {
	case s.Sockets != nil:
		c.sockets(i, s.Sockets)
	case s.Change != nil:
		if len(c.changes) == maxChanges {
			c.left["changes"]++
			return
		}
		if s.Change.When != 0 {
			at = s.Change.When
		}
		c.changes = append(c.changes, Change{at, string(s.Change.Kind), s.Change.What})
	}
}

func (c *Collector) sockets(i int, t *capture.SocketTable) {
	if t.States&capture.Listen.Mask() != 0 {
		for k := range t.Sockets {
			if s := &t.Sockets[k]; s.State == capture.Listen {
				l := c.listeners[s.Local.Port]
				if l == nil {
					if len(c.listeners) == maxListeners {
						c.left["listeners"]++
						continue
					}
					l = &Listener{Port: s.Local.Port}
					c.listeners[s.Local.Port] = l
				}
				l.Queue.set(i, s.RecvQ)
				l.Backlog = max(l.Backlog, s.SendQ)
			}
		}
	}
	if t.States&capture.CloseWait.Mask() == 0 {
		return
	}
	var waiting map[uint16][2]uint32
	for k := range t.Sockets {
		s := &t.Sockets[k]
		if s.State != capture.CloseWait || c.listeners[s.Local.Port] == nil {
			continue
		}
		if waiting == nil {
			waiting = map[uint16][2]uint32{}
		}
		n := waiting[s.Local.Port]
		if s.Inode == 0 {
			n[0]++
		} else {
			n[1]++
		}
		waiting[s.Local.Port] = n
	}
	for port, l := range c.listeners {
		l.Unaccepted.set(i, waiting[port][0])
		l.Held.set(i, waiting[port][1])
	}
}

// Seal implements analyze.Watcher.
func (c *Collector) Seal(w *analyze.Window) {
	c.table = w.Flows
	i := c.at(max(w.Start, w.First))
	w.Flows.Active(func(p *flow.Path) {
		before := w.Flows.Before(p)
		for side := range 2 {
			now := &p.Side[side]
			var was flow.PathSide
			if before != nil {
				was = before.Side[side]
			}
			if now.Segments != was.Segments || now.Lost != was.Lost || now.Retransmits != was.Retransmits {
				c.path(i/perSlot, p.Host(side), p.Host(1-side), now, &was)
			}
		}
	})
}

func (c *Collector) path(slot int, from, to capture.Addr, now, was *flow.PathSide) {
	k := [2]capture.Addr{from, to}
	d := c.byFlow[k]
	if d == nil {
		if len(c.flows) == maxDirections {
			c.left["directions"]++
			return
		}
		d = &direction{from: from, to: to, d: Direction{From: from.String(), To: to.String()}}
		c.flows, c.byFlow[k] = append(c.flows, d), d
	}
	for b := range flow.Bins {
		n, o := &now.Bin()[b], &was.Bin()[b]
		// A counter that went back was set right: what was counted before is not taken away from a slot that never had it.
		missing, class := less(n.Missing, o.Missing), classOf(b)
		sent := less(n.Seen, o.Seen) + missing
		d.d.Sent[slot][class] += sent
		d.d.Missing[slot][class] += missing
		d.d.Again[slot][class] += less(n.Again, o.Again)
		d.n += uint64(sent)
	}
}

func less(a, b uint32) uint32 { return a - min(a, b) }

// classOf is the class of Direction that a bin of the flow table belongs to.
func classOf(bin int) int {
	switch {
	case bin == flow.Bare:
		return 0
	case bin < flow.SmallBins:
		return 1
	case bin < 20:
		return 2
	case bin < 24:
		return bin - 17
	}
	return 7
}

// Record is the view of what was seen so far, for a diagnosis of the same engine.
func (c *Collector) Record(d *analyze.Diagnosis) *View {
	v := &View{Schema: Schema, Start: c.start, Width: int64(max(c.width, 1)), First: d.Coverage.First, Last: d.Coverage.Last, Host: c.host,
		Changes: c.changes, Sampled: c.since(d.Findings), Left: c.left}
	if !c.began {
		v.Start = v.First
		return v
	}
	end := c.bucket(max(v.Last, c.start))
	for _, s := range c.services {
		for level, to := range map[*carried]*Level{&s.open: &s.s.Open, &s.half: &s.s.Half} {
			if level.level.Max != nil && end < MaxBuckets {
				level.to(max(end, level.since))
			}
			*to = level.level
		}
	}
	weigh := func(s *service) uint64 {
		return s.s.Requests.Sum(0, MaxBuckets) + s.s.Unopened.Sum(0, MaxBuckets) + s.trying.Sum(0, MaxBuckets)
	}
	for _, s := range top(c.services, shownServices, v.Left, "services", weigh, func(a, b *service) int { return a.end.Compare(b.end) }) {
		r := s.s
		r.Unopened = r.Unopened.plus(s.trying)
		v.Services = append(v.Services, r)
	}
	asked := func(r *resolver) uint64 { return r.r.Answered.Sum(0, MaxBuckets) + r.r.Unanswered.Sum(0, MaxBuckets) }
	pair := func(a, b *resolver) int {
		return cmp.Or(slices.Compare(a.ends[0][:], b.ends[0][:]), slices.Compare(a.ends[1][:], b.ends[1][:]))
	}
	for _, r := range top(c.resolvers, shownResolvers, v.Left, "resolvers", asked, pair) {
		v.Resolvers = append(v.Resolvers, r.r)
	}
	var ls []*Listener
	for _, l := range c.listeners {
		ls = append(ls, l)
	}
	waits := func(l *Listener) uint64 {
		a, _ := l.Unaccepted.Peak(0, MaxBuckets)
		b, _ := l.Held.Peak(0, MaxBuckets)
		q, _ := l.Queue.Peak(0, MaxBuckets)
		return uint64(a) + uint64(b) + uint64(q)
	}
	for _, l := range top(ls, shownListeners, v.Left, "listeners", waits, func(a, b *Listener) int { return cmp.Compare(a.Port, b.Port) }) {
		v.Listeners = append(v.Listeners, *l)
	}
	ends := func(a, b *direction) int {
		return cmp.Or(slices.Compare(a.from[:], b.from[:]), slices.Compare(a.to[:], b.to[:]))
	}
	for _, f := range top(c.flows, shownDirections, v.Left, "directions", func(f *direction) uint64 { return f.n }, ends) {
		v.Flows = append(v.Flows, f.d)
	}
	v.Connections = c.examples.choose(d, c.table)
	return v
}

// top is the n of all with most weight, ties in the order of compare. The others are counted.
func top[T any](all []T, n int, left map[string]uint64, name string, weight func(T) uint64, compare func(a, b T) int) []T {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b T) int { return cmp.Or(cmp.Compare(weight(b), weight(a)), compare(a, b)) })
	delete(left, name+"_not_shown") // of an earlier record
	if len(all) > n {
		left[name+"_not_shown"] = uint64(len(all) - n)
		all = all[:n]
	}
	return all
}
