package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
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
	P50             float64 `json:"p50"`
	P95             float64 `json:"p95"`
	P50Before       float64 `json:"p50_before"`
	P95Before       float64 `json:"p95_before"`
	Factor          float64 `json:"factor"`
	Baseline        float64 `json:"baseline"`
	Stage           string  `json:"stage"`
	StageShare      float64 `json:"stage_share"`
	Stalled         int     `json:"stalled"`
	Clients         int     `json:"clients"`
	Class           string  `json:"class"`
}

// slowServer measures, per listener, the time from a request to the first byte of its
// answer. A request that its client gave up counts with its age.
type slowServer struct {
	services services[serverState]
	best     SlowServer
}

type serverState struct {
	series  series // bad: slow or given up; total: requests that were answered or given up
	gaveUp  series
	before  latencies
	recent  timings
	served  latencies                            // all, for the assessment
	waiting cohorts                              // requests without an answer
	gone    subjects[flow.Ref, abandonedRequest] // of these, those whose client gave up
	slow    ring[slowRequest]
	holes   subjects[flow.Ref, capture.Instant]
	stages  [3]time.Duration // spent since something was slow: connecting, waiting, with data missing
}

type slowRequest struct {
	at     capture.Instant
	ref    flow.Ref
	client capture.Addr
}

type abandonedRequest struct {
	at      capture.Instant
	counted bool // as slow, while it was still open
	done    bool
}

const (
	// maxPending bounds the abandoned requests, and the connections with missing data, that one
	// listener remembers.
	maxPending = 4096
	// maxServers bounds the listeners, at some 10 kB each.
	maxServers = 1024
	// slowAnswer divides slow from fast before the rule's own thresholds are asked: a third of the
	// 3 s after which the clients of the rebuilt incident gave up.
	slowAnswer = time.Second
)

func newSlowServer() analyze.Detector {
	return &slowServer{services: newServices[serverState](maxServers)}
}

func (d *slowServer) Spec() analyze.Spec {
	return analyze.Spec{Rule: "slow-server", Features: SlowServer{},
		Events: flow.Of(flow.Established, flow.Request, flow.Response, flow.Abandoned, flow.Closed, flow.HoleOpened)}
}

func (d *slowServer) Event(e *flow.Event) {
	st := d.services.get(e.Conn)
	if st == nil {
		return
	}
	if st.gone.m == nil {
		st.gone = newSubjects[flow.Ref, abandonedRequest](maxPending)
		st.holes = newSubjects[flow.Ref, capture.Instant](maxPending)
	}
	switch e.Kind {
	case flow.Established:
		if st.series.locked {
			st.stages[0] += e.At.Sub(e.Conn.SynAt())
		}
	case flow.HoleOpened:
		if e.Side == flow.Server {
			if at := st.holes.get(e.Conn.Ref()); at != nil && *at == 0 {
				*at = e.At
			}
		}
	case flow.Request:
		st.waiting.add(e.At)
	case flow.Response:
		st.waiting.remove(e.Since)
		st.finish(e.Conn, e.Since, e.Dur)
	case flow.Abandoned:
		// A client that half-closes at once and waits did not give up.
		if e.Dur >= flow.GiveUp || e.Flag {
			if a := st.gone.get(e.Conn.Ref()); a != nil {
				*a = abandonedRequest{at: e.Conn.Outstanding()}
			}
		}
	case flow.Closed:
		if at := e.Conn.Outstanding(); at != 0 {
			st.waiting.remove(at)
			if a := st.gone.peek(e.Conn.Ref()); a != nil && !a.done {
				st.finish(e.Conn, at, e.At.Sub(at))
			} // else closed by the server without a word: abnormal-termination's business
		}
	}
}

// finish counts a request that began at at, once.
func (st *serverState) finish(c *flow.Conn, at capture.Instant, wait time.Duration) {
	a := (*abandonedRequest)(nil)
	if len(st.gone.keys) > 0 {
		if a = st.gone.peek(c.Ref()); a != nil && a.done {
			a = nil
		}
	}
	st.served.add(wait)
	st.stages[1] += wait
	bad := uint32(0)
	if wait >= slowAnswer || a != nil {
		bad = 1
	}
	if a == nil || !a.counted {
		st.series.add(bad, 1, at)
		if bad == 1 {
			st.slow.add(slowRequest{at, c.Ref(), c.Client.Addr}, maxTimings)
		}
		if a != nil {
			st.gaveUp.add(1, 0, at)
		}
	}
	if a != nil {
		a.done = true
	}
	if st.series.locked || bad == 1 || len(st.recent.list) > 0 {
		st.recent.add(at, wait)
	} else {
		st.before.add(wait)
	}
}

// slowSince counts the distinct connections and clients with slow requests not older than at.
func (st *serverState) slowSince(at capture.Instant) (flows, clients int) {
	conns := make(map[flow.Ref]struct{})
	addrs := make(map[capture.Addr]struct{})
	for r := range st.slow.all {
		if r.at >= at {
			conns[r.ref], addrs[r.client] = struct{}{}, struct{}{}
		}
	}
	return len(conns), len(addrs)
}

func (d *slowServer) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	slowAfter := w.Params.Duration("slow_after")
	d.services.each(func(k capture.Endpoint, st *serverState) bool {
		st.gone.each(func(r flow.Ref, a *abandonedRequest) bool {
			if a.done {
				return false
			}
			c := w.Flows.Lookup(r)
			if age := w.End.Sub(a.at); c != nil && age >= slowAfter && !a.counted {
				a.counted = true
				st.series.add(1, 1, a.at)
				st.gaveUp.add(1, 0, a.at)
				st.recent.add(a.at, age)
				st.slow.add(slowRequest{a.at, r, c.Client.Addr}, maxTimings)
			}
			return c != nil
		})
		st.waiting.roll(w.End)
		stalled := 0
		st.holes.each(func(r flow.Ref, at *capture.Instant) bool {
			c := w.Flows.Lookup(r)
			if c == nil || *at == 0 || !w.Flows.HasHole(c) {
				return false
			}
			if c.Closed() {
				return true
			}
			st.stages[2] += analyze.WindowLength
			if w.End.Sub(*at) >= slowAfter {
				stalled++
			}
			return true
		})
		s := &st.series
		s.roll()
		st.gaveUp.roll()
		f := SlowServer{Class: "served", Stalled: stalled, Requests: int(s.since.total), Baseline: s.beforeSpan, P50Before: st.before.quantile(0.5),
			P95Before: st.before.quantile(0.95)}
		if w.Local.By != analyze.LocalNone && !w.Local.Is(k.Addr) {
			f.Class = "called"
		}
		if s.since.bad == 0 && stalled == 0 {
			st.stages = [3]time.Duration{}
			if int(st.served.n) > d.best.Answered {
				d.best = SlowServer{Class: "served", Requests: int(st.served.n), Answered: int(st.served.n), P50: st.served.quantile(0.5), P95: st.served.quantile(0.95)}
			}
			return true
		}
		recent := st.recent.since(s.onset)
		f.P50, f.P95 = quantile(recent, 0.5), quantile(recent, 0.95)
		if f.P95Before > 0 {
			f.Factor = f.P95 / f.P95Before
		}
		f.Flows, f.Clients = st.slowSince(s.onset)
		f.Slow = int(s.since.bad)
		f.GaveUp = int(st.gaveUp.since.bad)
		f.Unanswered = st.waiting.olderThan(w.End, slowAfter)
		f.Requests = max(f.Requests, f.Unanswered)
		f.Answered = max(f.Requests-f.GaveUp, 0)
		f.UnansweredShare = ratio(f.GaveUp, f.Requests)
		var all time.Duration
		most := 0
		for i, d := range st.stages {
			if all += d; d > st.stages[most] {
				most = i
			}
		}
		if all > 0 {
			f.Stage = [...]string{"connect", "first-byte", "transfer"}[most]
			f.StageShare = st.stages[most].Seconds() / all.Seconds()
		}
		subject := analyze.Subject{Kind: analyze.SubjectService, Host: k.Addr.String(), Port: k.Port}
		if f.Class == "called" {
			subject = analyze.Subject{Kind: analyze.SubjectUpstream, Host: w.Local.Addr.String(), Peer: k.Addr.String(), Port: k.Port}
		}
		emit(analyze.Symptom{Subject: subject, Onset: s.onset, Features: f})
		return true
	})
}

func (d *slowServer) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.best.Answered >= int(w.Params.Float("min_requests")), Features: d.best}
}
