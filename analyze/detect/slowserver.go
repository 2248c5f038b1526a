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
	KindLate        int     `json:"kind_late"`
	KindFast        int     `json:"kind_fast"`
	KindBefore      int     `json:"kind_before"`
	KindOf          int     `json:"kind_of"`
	KindShare       float64 `json:"kind_share"`
	KindWait        float64 `json:"kind_wait"`
	KindSpan        float64 `json:"kind_span"`
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
		if c.Answers() > 0 {
			st.kinds.of(c.RequestLen()).whole(c.AnswerBytes())
			st.asksAgain(c)
		}
		if len(st.open) < maxPending {
			st.open = append(st.open, openRequest{c.Ref(), e.At, e.Len, uint32(c.Bytes(flow.Client)), c.Segments(flow.Client)})
		}
	case flow.Response:
		d.answer(st, c, e, request(c, e.Since))
		// What was said so long before the request asked for nothing, and is none of its kind: a SETTINGS ACK of HTTP/2 (RFC 9113 §6.5.3).
		if len(st.answers) < maxPending && c.RequestLast().Sub(e.Since) < d.slowAfter {
			st.answers = append(st.answers, openAnswer{ref: c.Ref(), at: e.At, size: c.RequestLen(), n: c.Requests()})
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
		if s.Since.Bad == 0 && stalled == 0 && len(st.stops) == 0 && st.left == 0 && f.LateGreetings == 0 && f.KindLate == 0 {
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
