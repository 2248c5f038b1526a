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
// answer. A request without an answer counts with its age.
type slowServer struct {
	services subjects[capture.Endpoint, serverState]
	best     SlowServer
}

type serverState struct {
	series  series // bad: slow or given up; total: requests that were answered or given up
	before  latencies
	recent  timings
	pending subjects[flow.Ref, pendingRequest]
	clients subjects[capture.Addr, struct{}]
	gaveUp  series
	slow    timedRefs // connections with slow answers
	served  latencies // all, for the assessment
	holes   subjects[flow.Ref, capture.Instant]
	stages  [3]time.Duration // spent since something was slow: connecting, waiting, with data missing
}

// timedRefs are connections with a time, the newest maxTimings.
type timedRefs []struct {
	at  capture.Instant
	ref flow.Ref
}

func (t *timedRefs) add(at capture.Instant, r flow.Ref) {
	if len(*t) == maxTimings {
		copy(*t, (*t)[1:])
		*t = (*t)[:maxTimings-1]
	}
	*t = append(*t, struct {
		at  capture.Instant
		ref flow.Ref
	}{at, r})
}

// since counts the distinct connections not older than at.
func (t timedRefs) since(at capture.Instant) int {
	seen := make(map[flow.Ref]struct{})
	for _, x := range t {
		if x.at >= at {
			seen[x.ref] = struct{}{}
		}
	}
	return len(seen)
}

type pendingRequest struct {
	at     capture.Instant
	gaveUp bool
	done   bool
	slow   bool
}

const (
	// maxPending bounds the requests without an answer that one listener remembers.
	maxPending = 4096
	// slowAnswer divides slow from fast before the rule's own thresholds are asked: a third of the
	// 3 s after which the clients of the rebuilt incident gave up.
	slowAnswer = time.Second
)

func newSlowServer() analyze.Detector {
	return &slowServer{services: newSubjects[capture.Endpoint, serverState](1024)}
}

func (d *slowServer) Spec() analyze.Spec {
	return analyze.Spec{Rule: "slow-server", Features: SlowServer{},
		Events: flow.Of(flow.Established, flow.Request, flow.Response, flow.Abandoned, flow.Closed, flow.HoleOpened)}
}

func (d *slowServer) Event(e *flow.Event) {
	st := d.services.get(e.Conn.Server)
	if st == nil {
		return
	}
	if st.pending.m == nil {
		st.pending = newSubjects[flow.Ref, pendingRequest](maxPending)
		st.clients = newSubjects[capture.Addr, struct{}](maxPending)
		st.holes = newSubjects[flow.Ref, capture.Instant](maxPending)
	}
	switch e.Kind {
	case flow.Established:
		if st.series.locked {
			st.stages[0] += e.At.Sub(e.Conn.SynAt())
		}
	case flow.HoleOpened:
		if at := st.holes.get(e.Conn.Ref()); at != nil && *at == 0 && e.Side == flow.Server {
			*at = e.At
		}
	case flow.Request:
		if p := st.pending.get(e.Conn.Ref()); p != nil {
			*p = pendingRequest{at: e.At}
		}
		st.clients.get(e.Conn.Client.Addr)
	case flow.Response:
		st.finish(e.Conn.Ref(), e.Dur, true)
	case flow.Abandoned:
		if p := st.pending.peek(e.Conn.Ref()); p != nil && !p.done {
			// A client that half-closes at once and waits did not give up.
			p.gaveUp = e.Dur >= flow.GiveUp || e.Flag
		}
	case flow.Closed:
		if p := st.pending.peek(e.Conn.Ref()); p != nil && !p.done {
			st.finish(e.Conn.Ref(), e.At.Sub(p.at), false)
		}
	}
}

func (st *serverState) finish(r flow.Ref, wait time.Duration, answered bool) {
	p := st.pending.peek(r)
	if p == nil || p.done {
		return
	}
	p.done = true
	if !answered && !p.gaveUp {
		return // closed by the server without a word: abnormal-termination's business
	}
	st.served.add(wait)
	st.stages[1] += wait
	bad := uint32(0)
	if wait >= slowAnswer || p.gaveUp {
		bad = 1
		st.slow.add(p.at, r)
	}
	switch {
	case p.slow:
		// counted as slow while it was pending
	default:
		st.series.add(bad, 1, p.at)
		if p.gaveUp {
			st.gaveUp.add(1, 0, p.at)
		}
	}
	if st.series.locked || bad == 1 || len(st.recent.list) > 0 {
		st.recent.add(p.at, wait)
	} else {
		st.before.add(wait)
	}
}

func (d *slowServer) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	slowAfter := w.Params.Duration("slow_after")
	d.services.each(func(k capture.Endpoint, st *serverState) bool {
		open := 0
		st.pending.each(func(r flow.Ref, p *pendingRequest) bool {
			if p.done {
				return false
			}
			age := w.End.Sub(p.at)
			if age >= slowAfter && p.gaveUp {
				if !p.slow {
					p.slow = true
					st.slow.add(p.at, r)
					st.series.add(1, 1, p.at)
					st.gaveUp.add(1, 0, p.at)
					st.recent.add(p.at, age)
				}
			}
			if age >= slowAfter {
				open++
			}
			return true
		})
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
			P95Before: st.before.quantile(0.95), Clients: len(st.clients.keys)}
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
		f.Flows = st.slow.since(s.onset)
		f.Slow = int(s.since.bad)
		f.GaveUp = int(st.gaveUp.since.bad)
		f.Unanswered = open
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
