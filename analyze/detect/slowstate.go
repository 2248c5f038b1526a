package detect

import (
	"iter"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

type serverState struct {
	kinds    kinds
	series   stat.Series // bad: slow or given up; total: these and those answered in time
	fast     stat.Ring[uint32]
	fastCur  uint32
	gaveUp   stat.Series
	before   stat.Latencies
	recent   timings
	open     []openRequest                               // begun, and not yet known to be fast or slow
	overdue  measure.Subjects[flow.Ref, overdueRequest]  // without an answer for slow_after
	half     []leftBehind                                // left by clients that gave up
	answers  []openAnswer                                // begun lately
	paused   measure.Subjects[flow.Ref, capture.Instant] // answers that stand still, though the client has all that was sent
	slow     stat.Ring[slowRequest]
	holes    measure.Subjects[flow.Ref, capture.Instant]
	stages   [3]time.Duration // spent since something was slow: connecting, waiting, with data missing
	stops    []stop
	ended    stop            // the stop whose requests are being answered
	lastAt   capture.Instant // newest answer
	total    uint32          // answered, ever
	bad      uint32          // not answered in time, ever, of whatever kind
	left     uint32          // clients that gave up, whatever the kind
	leftAt   capture.Instant // first of them
	leftTo   capture.Instant // newest
	apartTo  capture.Instant // newest of those that the series does not count
	fared    capture.Instant // end of the stops after which requests were answered in time again
	unclosed uint32          // of these, connections that the server did not close either
	broken   uint32          // clients that closed long after the last data of the only answer that they had: idle, or it broke off
	earlier  uint32          // answers to what was asked before the input, and waited for long
	greets   [2]greetings    // in time, and late
	waits    lateWaits       // of the newest slow answers
	greeted  bool            // the newest slow request was a client that waits for a greeting
}

// greetings are clients that were greeted: how many, the first and the newest of them, and how long they waited at least and at most.
type greetings struct {
	n           int
	first, last capture.Instant
	least, most time.Duration
}

func (g *greetings) add(e *flow.Event) {
	if g.n++; g.n == 1 {
		g.first, g.least = e.At.Add(-e.Dur), e.Dur
	}
	g.last, g.least, g.most = e.At, min(g.least, e.Dur), max(g.most, e.Dur)
}

// lateWaits are how long the newest slow answers took.
type lateWaits struct {
	list [16]time.Duration
	n    int
}

func (x *lateWaits) add(d time.Duration) {
	x.list[x.n%len(x.list)] = d
	x.n++
}

const (
	// A time limit is set in whole seconds; leastLimit is the shortest that is told from a delay that happens to be even. It is kept to within
	// limitSlack, the time for the answer that says so, and a few such answers are no chance.
	leastLimit = 3 * time.Second
	limitSlack = 100 * time.Millisecond
	fewLimited = 3
)

// limit is the whole number of seconds after which most of them came, and how many did; 0: there is none.
func (x *lateWaits) limit() (limit time.Duration, n int) {
	list := slices.Clone(x.list[:min(x.n, len(x.list))])
	if len(list) < fewLimited {
		return 0, 0
	}
	slices.Sort(list)
	limit = list[len(list)/2].Truncate(time.Second)
	for _, d := range list {
		if d >= limit && d-limit <= limitSlack {
			n++
		}
	}
	if limit < leastLimit || n < fewLimited || 4*n < 3*len(list) {
		return 0, 0
	}
	return limit, n
}

// openRequest is a request whose answer has not been waited for in vain yet.
type openRequest struct {
	ref      flow.Ref
	at       capture.Instant
	size     uint32 // its kind
	bytes    uint32 // of the client so far, and the segments
	segments uint32
}

type overdueRequest struct {
	at     capture.Instant
	size   uint32
	usual  bool // its like are answered in time
	gaveUp bool
}

type leftBehind struct {
	ref flow.Ref
	at  capture.Instant
}

type openAnswer struct {
	ref  flow.Ref
	at   capture.Instant
	size uint32 // kind of the request
	n    uint32 // requests of the connection
	rest bool   // nothing more came of it within slow_after
}

type slowRequest struct {
	at     capture.Instant
	ref    flow.Ref
	client capture.Addr
}

// stop is a time in which a service answered nobody, although it owed answers on several connections.
type stop struct {
	since capture.Instant // newest answer before
	from  capture.Instant // some request waits since
	to    capture.Instant
	flows int
	cut   bool // some of what it owed were answers that stood still
}

// stop notes a stop, or that it lasts.
func (st *serverState) stop(s stop) {
	if n := len(st.stops); n > 0 && st.stops[n-1].since == s.since {
		x := &st.stops[n-1]
		x.to, x.flows, x.cut = max(x.to, s.to), max(x.flows, s.flows), x.cut || s.cut
		return
	}
	st.stops = stat.AppendBounded(st.stops, s, maxStops)
}

// asksAgain takes the next request on a connection whose answer stands still: it had come to its end, and was short. What was told by it is taken back.
func (st *serverState) asksAgain(c *flow.Conn) {
	at := st.paused.Peek(c.Ref())
	if at == nil || c.LastData(flow.Server) != *at {
		return
	}
	since := *at
	st.paused.Drop(c.Ref())
	st.bad--
	st.stops = slices.DeleteFunc(st.stops, func(x stop) bool { return x.cut && x.to >= since })
}

// late counts a request that is not answered although its like are.
func (st *serverState) late(at capture.Instant, c *flow.Conn, size uint32) {
	st.bad++
	st.series.Add(1, 1, at)
	st.slow.Add(slowRequest{at, c.Ref(), c.Client.Addr}, maxTimings)
	if st.greeted = size == greetingKind; !st.greeted {
		st.kinds.of(size).lateAgain(at, st.total)
	}
}

// time keeps how long a request took.
func (st *serverState) time(at capture.Instant, wait time.Duration, slow bool) {
	if st.series.Locked || slow || st.recent.Len() > 0 {
		st.recent.add(at, wait)
	} else {
		st.before.Add(wait)
	}
}

// unmet takes a client that left without having been greeted.
func (st *serverState) unmet(c *flow.Conn, o *overdueRequest, now capture.Instant) {
	o.gaveUp = true
	st.gaveUp.Add(1, 0, o.at)
	st.time(o.at, min(now, c.Last).Sub(o.at), true)
}

// age is how long a request has waited: since its last byte, or since its first if the client goes on to send
// small messages, which are other requests on the same connection.
func (o *openRequest) age(c *flow.Conn, now capture.Instant) time.Duration {
	if n := c.Segments(flow.Client) - o.segments; n > 0 && 2*(uint32(c.Bytes(flow.Client))-o.bytes) < n*c.MSS(flow.Client) {
		return now.Sub(o.at)
	}
	return now.Sub(c.RequestLast())
}

// stopped notes a stop that goes on: requests wait on several connections, and none has been answered since.
func (st *serverState) stopped(w *analyze.Window, slowAfter time.Duration) {
	s := stop{since: st.lastAt, to: w.End}
	for _, o := range st.overdue.All {
		if o.usual && !o.gaveUp { // who has left does not wait
			s.flows++
			if s.from == 0 || o.at < s.from {
				s.from = o.at
			}
		}
	}
	for _, at := range st.paused.All {
		s.flows++
		s.cut = true
		if s.from == 0 || *at < s.from {
			s.from = *at
		}
	}
	if s.from = max(s.from, st.lastAt); s.flows > 1 && w.End.Sub(s.from) >= slowAfter {
		st.stop(s)
	}
	if n := len(st.stops); n > 0 && w.End.Sub(st.stops[n-1].to) >= measure.Episode {
		st.stops = st.stops[:0]
	}
}

// lastTry is the last time that anybody waited for an answer; now if somebody does.
func (st *serverState) lastTry(now capture.Instant) capture.Instant {
	if len(st.overdue.Keys)+len(st.paused.Keys)+len(st.open) > 0 {
		return now
	}
	return max(st.series.LastTry(now), st.lastAt, st.leftTo)
}

// fares reports whether requests are answered in time again, of whatever stood still before.
func (st *serverState) fares(w *analyze.Window) bool {
	since := max(st.apartTo, st.greets[1].last)
	if n := len(st.stops); n > 0 {
		since = max(since, st.stops[n-1].to)
	}
	return w.End.Sub(since) >= stat.Over*analyze.WindowLength && st.lastAt > since && len(st.paused.Keys) == 0 && (st.series.Since.Bad == 0 || st.series.Over())
}

// stage takes the stage of a service's requests with most of the extra time.
func (f *SlowServer) stage(t *analyze.Stages) {
	if t == nil {
		return
	}
	f.Stage, f.StageShare, f.QueueShare = "", 0, t.Queue()
	if top, part := t.Top(); top != nil {
		f.Stage, f.StageShare, f.StagePeer, f.StagePort = top.Stage, part, top.Peer, int(top.Port)
	}
}

// measure compares the time since the onset with the time before.
func (st *serverState) measure(w *analyze.Window) (f SlowServer, onset capture.Instant) {
	s := &st.series
	f = SlowServer{Requests: int(s.Since.Total), Baseline: s.BeforeSpan, P50Before: st.before.Quantile(0.5), P95Before: st.before.Quantile(0.95),
		Slow: int(s.Since.Bad), GaveUp: int(st.gaveUp.Since.Bad), Left: int(st.left), Served: int(st.total), Unclosed: int(st.unclosed), Greeting: st.greeted}
	onset = s.Onset
	// What came before it was over counts only together with what came since, and is no beginning.
	latest := slices.IndexFunc(st.stops, func(x stop) bool { return x.from >= st.fared })
	stops := st.stops
	switch {
	case latest < 0:
		stops = nil
	case length(stops[latest:]) >= w.Params.Duration("min_stopped"):
		stops = stops[latest:] // they alone are trouble
	}
	for _, x := range stops {
		f.Stops++
		f.Stopped += x.to.Sub(x.from).Seconds()
		f.StoppedFlows = max(f.StoppedFlows, x.flows)
	}
	if f.Stops > 0 && (s.Since.Bad == 0 || s.BeforeSpan == 0) {
		onset = st.stops[latest].from
	}
	if s.Since.Bad == 0 && f.Stops == 0 {
		onset = st.leftAt
	}
	// Nobody waits on purpose before he says who he is; a time that is the same each time is a time-out.
	if late := &st.greets[1]; late.n > 0 && late.most-late.least <= late.least/4 && w.End.Sub(late.last) < measure.Episode {
		f.LateGreetings, f.Greetings, f.GreetWait = late.n, late.n+st.greets[0].n, late.least.Seconds()
		if onset == 0 {
			onset, f.Greeting = late.first, true
		}
	}
	if since := st.lateKinds(w, &f); onset == 0 {
		onset = since
	}
	recent := st.recent.since(onset)
	oldest := w.End
	stages := st.stages
	for _, o := range st.overdue.All {
		if !o.usual || o.gaveUp {
			continue
		}
		if f.Unanswered++; w.End.Sub(o.at) >= w.Params.Duration("hung_after") {
			f.Held++
		}
		recent = append(recent, w.End.Sub(o.at).Seconds())
		stages[1] += w.End.Sub(o.at) // an unfinished request counts in the stage in which it stands
		oldest = min(oldest, o.at)
	}
	f.Unanswered += f.GaveUp
	if s.Since.Bad == 0 && f.Stops == 0 { // nothing is known of the usual: what the clients did must tell
		f.Requests, f.GaveUp, f.Unanswered = int(st.left+st.total), int(st.left), int(st.left)
	}
	f.P50, f.P95 = stat.Quantile(recent, 0.5), stat.Quantile(recent, 0.95)
	if f.P95Before > 0 {
		f.Factor = f.P95 / f.P95Before
	}
	f.Flows, f.Clients = st.slowSince(onset)
	f.Requests = max(f.Requests, f.Unanswered)
	f.Answered = max(f.Requests-f.Unanswered, 0)
	limit, n := st.waits.limit()
	f.Limit, f.Limited = limit.Seconds(), n
	f.UnansweredShare = stat.Ratio(f.Unanswered, f.Requests)
	if s.BeforeSpan > 0 {
		f.FastRateBefore = float64(s.Before.Total-s.Before.Bad) / s.BeforeSpan
	}
	f.FastRate = float64(s.Since.Total-s.Since.Bad) / float64(max(s.Windows(), 1))
	var all time.Duration
	most := 0
	for i, d := range stages {
		if all += d; d > stages[most] {
			most = i
		}
	}
	if all > 0 {
		f.Stage = [...]string{"connect", "first-byte", "transfer"}[most]
		f.StageShare = stages[most].Seconds() / all.Seconds()
	}
	return f, onset
}

// length is how long stops lasted, in all.
func length(stops []stop) (d time.Duration) {
	for _, x := range stops {
		d += x.to.Sub(x.from)
	}
	return d
}

// calm forgets what is over: then the time before begins anew.
func (st *serverState) calm(w *analyze.Window, slowAfter time.Duration) {
	if st.left > 0 && w.End.Sub(st.leftTo) >= measure.Episode {
		st.left, st.unclosed, st.leftAt = 0, 0, 0
	}
	if st.series.Since.Bad == 0 && st.recent.Len() > 0 {
		for x := range st.recent.All {
			if x.d < slowAfter { // what was slow is no part of what is usual
				st.before.Add(x.d)
			}
		}
		st.recent = timings{}
	}
}

// served counts the open connections to k on which something was answered. It takes a walk through all.
func served(w *analyze.Window, k capture.Endpoint) (n int) {
	w.Flows.Live(func(c *flow.Conn) {
		if c.Server == k && !c.Closed() && c.Answers() > 0 {
			n++
		}
	})
	return n
}

// slowSince counts the distinct connections and clients with slow requests not older than at.
func (st *serverState) slowSince(at capture.Instant) (flows, clients int) {
	conns := make(map[flow.Ref]struct{})
	addrs := make(map[capture.Addr]struct{})
	for r := range st.slow.All {
		if r.at >= at {
			conns[r.ref], addrs[r.client] = struct{}{}, struct{}{}
		}
	}
	return len(conns), len(addrs)
}

// earlier counts a connection that is older than the input and whose first packet in it is an answer, a while after the beginning: what
// it answers was asked before, and has waited for so long at least. requests is how many have been seen on it by now.
func (d *slowServer) earlier(st *serverState, c *flow.Conn, requests uint32) {
	if c.Requests() == requests && c.Bytes(flow.Server) > 0 && !c.SynSeen() && c.First.Sub(d.began) >= d.slowAfter {
		st.earlier++
	}
}

// slowClients yields who has made the slow requests not older than since.
func slowClients(slow *stat.Ring[slowRequest], since capture.Instant) iter.Seq[capture.Addr] {
	return func(yield func(capture.Addr) bool) {
		for r := range slow.All {
			if r.at >= since && !yield(r.client) {
				return
			}
		}
	}
}
