package detect

import (
	"net/netip"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
	"jindan/rules"
)

// SlowServer are the features of slow-server. Times in seconds.
type SlowServer struct {
	Requests        int     `json:"requests"`
	Answered        int     `json:"answered"`
	Unanswered      int     `json:"unanswered"`
	UnansweredShare float64 `json:"unanswered_share"`
	Slow            int     `json:"slow"`
	GaveUp          int     `json:"gave_up"`
	Flows           int     `json:"flows"`
	FlowsTotal      int     `json:"flows_total"`
	P50             float64 `json:"p50"`
	P95             float64 `json:"p95"`
	P50Before       float64 `json:"p50_before"`
	P95Before       float64 `json:"p95_before"`
	Factor          float64 `json:"factor"`
	FastRate        float64 `json:"fast_rate"`
	FastRateBefore  float64 `json:"fast_rate_before"`
	Baseline        float64 `json:"baseline"`
	Stage           string  `json:"stage"`
	StageShare      float64 `json:"stage_share"`
	QueueShare      float64 `json:"queue_share"`
	StagePeer       string  `json:"stage_peer"`
	StagePort       int     `json:"stage_port"`
	NotCalled       string  `json:"not_called"`
	Awaited         int     `json:"awaited"`
	AwaitedOf       int     `json:"awaited_of"`
	Stalled         int     `json:"stalled"`
	Stops           int     `json:"stops"`
	Stopped         float64 `json:"stopped"`
	StoppedFlows    int     `json:"stopped_flows"`
	Left            int     `json:"left"`
	Served          int     `json:"served"`
	Unclosed        int     `json:"unclosed"`
	Greeting        bool    `json:"greeting"`
	Greetings       int     `json:"greetings"`
	LateGreetings   int     `json:"late_greetings"`
	GreetWait       float64 `json:"greet_wait"`
	Clients         int     `json:"clients"`
	BrokenOff       int     `json:"broken_off"`
	Earlier         int     `json:"earlier"`
	Process         string  `json:"process"`
	State           string  `json:"state"`
	Threads         int     `json:"threads"`
	Held            int     `json:"held"`
	Limit           float64 `json:"limit"`
	Limited         int     `json:"limited"`
	Class           string  `json:"class"`
}

// slowServer measures, per listener, the time from a request to the first byte of its
// answer, and finds requests that wait although their like are answered in time.
//
// Waiting is not slowness: a long poll, BLPOP or a consumer of a queue waits on purpose. So a request counts as slow only
// if its kind is usually fast (kinds), and is set against the requests of the same time that are as
// fast as ever. A request counts in the time in which it began: as slow as soon as it waits for slow_after, as
// fast when the window that it began in is that old; otherwise those that take long would begin as a rise.
type slowServer struct {
	*measure.Dials
	services   measure.Services[serverState]
	slowAfter  time.Duration
	greetAfter time.Duration
	patience   time.Duration
	factor     float64
	began      capture.Instant // first event
	habit      habit
	sockets    *measure.HostSockets
	owner      measure.Inquiry
	where      *measure.Stages
	// awaited are the calls in which requests of slow services were in the last window, next those of this one.
	awaited, next map[capture.Endpoint]awaitedCall
}

// awaitedCall counts the slow requests of services that spend the extra time waiting for one server, and all requests of these.
type awaitedCall struct{ slow, of int }

const (
	// maxPending bounds the requests, connections with missing data and answers in transfer that one
	// listener remembers.
	maxPending = 4096
	// maxServers bounds the listeners, at some 10 kB each.
	maxServers = 1024
	// maxStops bounds the stops that are remembered, maxSlowAfter the windows that slow_after may last.
	maxStops     = 64
	maxSlowAfter = 64
)

func newSlowServer() analyze.Detector {
	return &slowServer{Dials: measure.NewDials(), sockets: measure.NewHostSockets(), services: measure.NewServices[serverState](maxServers), where: measure.NewStages(),
		awaited: make(map[capture.Endpoint]awaitedCall), next: make(map[capture.Endpoint]awaitedCall)}
}

// Configure takes the thresholds that divide slow from fast as requests come.
func (d *slowServer) Configure(p rules.Params) {
	d.slowAfter, d.patience, d.greetAfter = p.Duration("slow_after"), p.Duration("patience"), p.Duration("greet_after")
	d.factor, d.habit = p.Float("min_factor"), habit{uint32(p.Int("min_known")), p.Duration("min_habit")}
}

func (d *slowServer) Spec() analyze.Spec {
	return analyze.Spec{Rule: "slow-server", Features: SlowServer{}, Events: serverEvents}
}

var serverEvents = flow.Of(flow.Established, flow.Greeting, flow.Request, flow.Response, flow.Abandoned, flow.Closed, flow.HalfClosed, flow.HoleOpened)

// Measures implements analyze.Measurer.
func (d *slowServer) Measures() []analyze.Measure {
	return slices.Concat(d.Dials.Measures(), d.sockets.Measures(), d.where.Measures())
}

// Sample takes the accept queues.
func (d *slowServer) Sample(at capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		d.where.Sample(at, d.sockets.Listening)
	}
}

func (d *slowServer) Event(e *flow.Event) {
	st := d.services.Get(e.Conn)
	if st == nil {
		return
	}
	if st.overdue.M == nil {
		st.overdue = measure.NewSubjects[flow.Ref, overdueRequest](maxPending)
		st.holes = measure.NewSubjects[flow.Ref, capture.Instant](maxPending)
		st.paused = measure.NewSubjects[flow.Ref, capture.Instant](maxPending)
	}
	c := e.Conn
	if d.began == 0 {
		d.began = e.At
	}
	switch e.Kind {
	case flow.Established:
		if st.series.Locked {
			st.stages[0] += e.At.Sub(c.SynAt())
		}
		if k := st.kinds.greeting(); k != nil && k.usual && len(st.open) < maxPending {
			st.open = append(st.open, openRequest{ref: c.Ref(), at: e.At, size: greetingKind})
		}
	case flow.HoleOpened:
		if e.Side == flow.Server {
			if at := st.holes.Get(c.Ref()); at != nil && *at == 0 {
				*at = e.At
			}
		}
	case flow.Greeting:
		late := 0
		if e.Dur >= d.greetAfter {
			late = 1
		}
		st.greets[late].add(e)
		d.answer(st, c, e, greetingKind)
	case flow.Request:
		d.earlier(st, c, 1)
		if c.Answers() > 0 && st.paused.Peek(c.Ref()) == nil {
			st.kinds.of(c.RequestLen()).whole(c.AnswerBytes())
		}
		if len(st.open) < maxPending {
			st.open = append(st.open, openRequest{c.Ref(), e.At, e.Len, uint32(c.Bytes(flow.Client)), c.Segments(flow.Client)})
		}
	case flow.Response:
		d.answer(st, c, e, request(c, e.Since))
		if len(st.answers) < maxPending {
			st.answers = append(st.answers, openAnswer{c.Ref(), e.At, c.RequestLen(), c.Requests()})
		}
	case flow.Abandoned:
		d.abandoned(st, c, e)
	case flow.HalfClosed:
		if e.Side == flow.Client && c.Requests() == 1 && c.Answers() == 1 && e.At.Sub(c.LastData(flow.Server)) >= d.patience {
			st.broken++
		}
	case flow.Closed:
		d.earlier(st, c, 0)
		d.closed(st, c, e)
	}
}

// greeting is the kind of who waits to be greeted; nil if nobody ever was.
func (k *kinds) greeting() *kind {
	x, _ := k.known(greetingKind)
	return x
}

// answer takes the first byte of an answer to a request of the given size.
func (d *slowServer) answer(st *serverState, c *flow.Conn, e *flow.Event, size uint32) {
	k := st.kinds.of(size)
	if size&(moreSegments|greetingKind) == moreSegments {
		st.kinds.of(size &^ moreSegments).ignored()
	}
	since, last := e.Since, st.lastAt
	st.lastAt = e.At
	st.total++
	st.stages[1] += e.Dur
	o := st.overdue.Peek(c.Ref())
	if o != nil && o.at != since {
		o = nil
	}
	wait := e.Dur
	if c.Answers() == 1 {
		wait = max(wait-c.SlowOpening(), 0) // a path that is slow to open a connection is slow to carry a request, too
	}
	switch {
	case o != nil:
		wait = max(wait, e.At.Sub(o.at))
	case wait < d.slowAfter:
		if !e.ToNobody() { // else its client had left, and that is what counts
			k.answered(d.habit, e.At)
			st.fastCur++
		}
		st.time(since, wait, false)
		return
	}
	if size&greetingKind == 0 {
		st.waits.add(wait)
	}
	unusual := false
	if o != nil {
		unusual = o.usual
		st.overdue.Drop(c.Ref())
	} else if unusual = k.waits(); unusual {
		st.late(since, c, size)
	}
	if !unusual {
		st.bad++ // not a sign of trouble, but nothing is ruled out by it
		return
	}
	st.time(since, wait, true)
	// Many that wait are answered at once when a service goes on. Nothing was answered in between.
	if e.At.Sub(last) >= d.slowAfter {
		st.ended = stop{since: last, from: max(last, since), to: e.At}
	}
	if st.ended.to != 0 && since < st.ended.to && e.At.Sub(st.ended.to) < d.slowAfter {
		st.ended.flows++
		if st.ended.flows > 1 {
			st.stop(st.ended)
		}
	}
}

// abandoned takes a client that closed before it got an answer. It gave up if it waited longer than
// its like had to before; where nothing is known of them, longer than what no program calls a time-out.
func (d *slowServer) abandoned(st *serverState, c *flow.Conn, e *flow.Event) {
	if c.Unacked(flow.Client) || c.Unheard(flow.Server) {
		return // nobody knows whether the request arrived, or whether it was answered
	}
	if e.Dur >= d.patience {
		if st.left++; st.leftAt == 0 {
			st.leftAt = c.Outstanding()
		}
		st.leftTo = e.At
		if !e.ByReset() && len(st.half) < maxPending {
			st.half = append(st.half, leftBehind{c.Ref(), e.At})
		}
	}
	size := request(c, c.Outstanding())
	if o := st.overdue.Peek(c.Ref()); o != nil && o.at == c.Outstanding() {
		size = o.size // it has sent more since, and waits all the same
	}
	k := st.kinds.of(size)
	if !k.usual || st.before.Empty() || e.Dur.Seconds() <= max(d.factor*st.before.Quantile(0.95), st.before.Quantile(0.99)) {
		return
	}
	o := st.overdue.Get(c.Ref())
	if o == nil {
		return
	}
	if o.at != c.Outstanding() {
		*o = overdueRequest{at: c.Outstanding(), size: k.size, usual: true}
		st.late(o.at, c, k.size)
	}
	o.gaveUp = true
	st.gaveUp.Add(1, 0, o.at)
	st.time(o.at, e.Dur, true)
	st.stages[1] += e.Dur
}

// closed takes the end of a connection.
func (d *slowServer) closed(st *serverState, c *flow.Conn, e *flow.Event) {
	ref := c.Ref()
	if c.Answers() > 0 && c.Outstanding() == 0 && st.paused.Peek(ref) == nil && e.At.Sub(c.LastData(flow.Server)) < d.slowAfter {
		// An end says less than a next request: what was cut short ends as well.
		if k := st.kinds.of(c.RequestLen()); k.complete < d.habit.answers || !k.cut(c) {
			k.whole(c.AnswerBytes())
		}
	}
	if o := st.overdue.Peek(ref); o != nil && o.usual && !o.gaveUp && o.size == greetingKind {
		st.unmet(c, o, e.At)
	}
}

// look finds the requests that have waited for too long by now, and forgets those that have been answered.
func (d *slowServer) look(w *analyze.Window, st *serverState) {
	st.overdue.Each(func(r flow.Ref, o *overdueRequest) bool {
		c := w.Flows.Lookup(r)
		if o.size == greetingKind {
			if c != nil && o.usual && !o.gaveUp && c.Closing(flow.Client) {
				st.unmet(c, o, w.End)
			}
			return c != nil && !c.Closed() && c.Bytes(flow.Client)+c.Bytes(flow.Server) == 0
		}
		return c != nil && !c.Closed() && c.Outstanding() == o.at // nobody waits on a connection that has ended
	})
	keep := st.open[:0]
	for i := range st.open {
		x := &st.open[i]
		c := w.Flows.Lookup(x.ref)
		if c == nil {
			continue
		}
		age := w.End.Sub(x.at)
		switch {
		case x.at < w.Flows.Restated(): // how long it has waited is not known
			continue
		case x.size == greetingKind:
			if c.Closed() || c.Bytes(flow.Client)+c.Bytes(flow.Server) > 0 {
				continue
			}
		case c.Outstanding() != x.at:
			continue
		default:
			age = x.age(c, w.End)
		}
		// What has not arrived is not the program's to answer; what it answers shows only if the capture holds its side.
		if age < d.slowAfter || c.Unacked(flow.Client) || c.Unheard(flow.Server) {
			keep = append(keep, *x)
			continue
		}
		if o := st.overdue.Get(x.ref); o != nil && o.at != x.at {
			size := x.size
			if size != greetingKind {
				size = request(c, x.at)
			}
			*o = overdueRequest{at: x.at, size: size, usual: st.kinds.late(size)}
			if o.usual {
				st.late(x.at, c, size)
			}
		}
	}
	st.open = keep
	n := 0
	for _, x := range st.half {
		c := w.Flows.Lookup(x.ref)
		switch {
		case c == nil || c.Closed():
		case w.End.Sub(x.at) < d.slowAfter:
			st.half[n] = x
			n++
		default:
			st.unclosed++
		}
	}
	st.half = st.half[:n]
	d.transfers(w, st)
}

// transfers finds answers that stand still in the middle: shorter than every answer to such a request
// before, all of it acknowledged, the client ready for more.
func (d *slowServer) transfers(w *analyze.Window, st *serverState) {
	n := 0
	for _, x := range st.answers {
		c := w.Flows.Lookup(x.ref)
		switch {
		case c == nil, c.Closed(), c.Requests() != x.n, c.LastData(flow.Server) <= w.Flows.Restated():
		case w.End.Sub(c.LastData(flow.Server)) < d.slowAfter:
			st.answers[n] = x
			n++
		default:
			k := st.kinds.of(x.size)
			if k.complete < d.habit.answers || !k.cut(c) || c.Unacked(flow.Server) || c.WindowClosed(flow.Client) {
				continue
			}
			if at := st.paused.Get(x.ref); at != nil && *at == 0 {
				*at = c.LastData(flow.Server)
				st.late(*at, c, x.size)
			}
		}
	}
	st.answers = st.answers[:n]
	st.paused.Each(func(r flow.Ref, at *capture.Instant) bool {
		c := w.Flows.Lookup(r)
		stands := c != nil && !c.Closed() && c.LastData(flow.Server) == *at
		if !stands {
			st.recent.add(*at, w.End.Sub(*at))
		}
		return stands
	})
	st.stages[2] += time.Duration(len(st.paused.Keys)) * analyze.WindowLength
}

func (d *slowServer) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	d.where.Judge(w)
	d.awaited, d.next = d.next, d.awaited
	clear(d.next)
	lag := min(int((d.slowAfter+analyze.WindowLength-1)/analyze.WindowLength), maxSlowAfter)
	d.services.Each(func(k capture.Endpoint, st *serverState) bool {
		if st.total > 0 {
			d.Callers.Serving(k.Addr)
		}
		d.look(w, st)
		d.where.Standing(k, w.End, len(st.paused.Keys))
		st.stopped(w, d.slowAfter)
		stalled := len(st.paused.Keys)
		st.holes.Each(func(r flow.Ref, at *capture.Instant) bool {
			c := w.Flows.Lookup(r)
			if c == nil || !w.Flows.HasHole(c) {
				return false
			}
			if c.Closed() {
				return true
			}
			st.stages[2] += analyze.WindowLength
			if w.End.Sub(*at) >= d.slowAfter {
				stalled++
			}
			return true
		})
		s := &st.series
		if st.fast.Len() == lag {
			s.Add(0, *st.fast.Nth(0), 0)
		}
		st.fast.Add(st.fastCur, lag)
		st.fastCur = 0
		s.Roll()
		st.gaveUp.Roll()
		st.calm(w, d.slowAfter)
		f, onset := st.measure(w)
		f.Stalled = stalled
		f.FlowsTotal = f.Flows
		if n := w.Params.Int("min_flows"); f.Stops > 0 && f.StoppedFlows < n || f.Held >= n {
			f.FlowsTotal = served(w, k)
		}
		if s.Since.Bad == 0 && stalled == 0 && len(st.stops) == 0 && st.left == 0 && f.LateGreetings == 0 {
			st.stages = [3]time.Duration{}
			d.where.Calm(k)
			return true
		}
		if f.Held == 0 && st.fares(w) {
			if n := len(st.stops); n > 0 {
				st.fared = st.stops[n-1].to
			}
			return true // what is kept is for the next time
		}
		f.Class = "served"
		subject := measure.Service(k)
		if caller, ok := d.Callers.Whose(k, slowClients(&st.slow, onset)); ok {
			f.Class = "called"
			f.Awaited, f.AwaitedOf = d.awaited[k].slow, d.awaited[k].of
			subject = measure.Upstream(caller, k)
		}
		if f.Class == "served" && w.Local.Is(k.Addr) && f.Stops > 0 {
			f.Process, f.State, f.Threads = d.sockets.Stopped(w, k.Port, &d.owner)
		}
		x := analyze.Symptom{Subject: subject, Onset: onset, LastTry: st.lastTry(w.End)}
		if f.Class == "served" && (f.LateGreetings == 0 || f.Slow > 0) { // a greeting is no request
			x.Stages = d.where.Table(k, onset)
			f.stage(x.Stages)
			if !f.Greeting { // what a service calls before it greets it calls while nobody has asked for anything
				f.NotCalled = d.where.Strangers(k)
			}
			if top, _ := x.Stages.Top(); top != nil && d.where.IsHere(k, top) {
				f.StagePeer, f.StagePort = "", 0 // another service of the host, which has calls of its own
			} else if top != nil {
				d.waits(w, &f)
			}
		}
		x.Features = f
		emit(x)
		return true
	})
}

// waits notes for which server the slow requests of a service wait.
func (d *slowServer) waits(w *analyze.Window, f *SlowServer) {
	ip, err := netip.ParseAddr(f.StagePeer)
	if err != nil || f.StageShare < w.Params.Float("min_stage") {
		return
	}
	k := capture.Endpoint{Addr: capture.AddrFrom(ip), Port: uint16(f.StagePort)}
	x := d.next[k]
	d.next[k] = awaitedCall{x.slow + f.Slow, x.of + f.Requests}
}

// Assess describes the service with the largest share of requests that were not answered in time, with
// the largest p95 of all.
func (d *slowServer) Assess(w *analyze.Window) analyze.Assessment {
	enough := uint32(w.Params.Int("min_requests"))
	f := SlowServer{Class: "served"}
	worst, p95 := -1.0, 0.0
	d.services.Each(func(_ capture.Endpoint, st *serverState) bool {
		waiting := len(st.overdue.M)
		n := st.total + st.left + st.earlier + uint32(waiting)
		if n >= enough {
			p95 = max(p95, st.before.Quantile(0.95), stat.Quantile(st.recent.since(0), 0.95))
		}
		if share := stat.Ratio(min(st.bad+st.left+st.broken+st.earlier+uint32(waiting), n), n); n >= enough && share > worst {
			worst = share
			f = SlowServer{Class: "served", Requests: int(n), Answered: int(st.total), Slow: int(st.bad), Left: int(st.left), GaveUp: int(st.left),
				Unanswered: waiting + int(st.left), BrokenOff: int(st.broken), Earlier: int(st.earlier), P50: st.before.Quantile(0.5), Stops: len(st.stops), Stalled: len(st.paused.Keys)}
		}
		return true
	})
	f.P95 = p95
	return analyze.Assessment{Assessable: worst >= 0, Features: f, Stages: d.where.Busiest()}
}
