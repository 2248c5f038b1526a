package detect

import (
	"math"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// PoolExhausted are the features of pool-exhausted. Times in seconds.
type PoolExhausted struct {
	Level             int     `json:"level"`
	Spread            int     `json:"spread"`
	Plateau           float64 `json:"plateau"`
	Outstanding       int     `json:"outstanding"`
	Queued            int     `json:"queued"`
	OutstandingBefore int     `json:"outstanding_before"`
	Baseline          float64 `json:"baseline"`
	QueueGrowth       float64 `json:"queue_growth"`
	Throughput        float64 `json:"throughput"`
	ThroughputBefore  float64 `json:"throughput_before"`
	OldestWait        float64 `json:"oldest_wait"`
	Abandoned         int     `json:"abandoned"`
	SynUnanswered     int     `json:"syn_unanswered"`
	OutboundShare     float64 `json:"outbound_share"`
	OutboundPeer      string  `json:"outbound_peer"`
	OutboundPort      int     `json:"outbound_port"`
	OutboundKind      string  `json:"outbound_kind"`
	Served            int     `json:"served"`
	Sampled           bool    `json:"sampled"`
	Waits             string  `json:"waits"`
	NotCalled         string  `json:"not_called"`
}

// poolExhausted infers a used-up worker pool of a service that calls others: the number of its
// calls in flight is flat, because each worker holds one, while requests to it pile up unanswered
// and their clients lose patience. Calls of its host count unless they are known to be made for another service (stages).
type poolExhausted struct {
	hosts measure.Subjects[capture.Addr, poolHost]
	ports measure.Services[servicePort] // where a listener's state is in hosts
	socks poolSockets
	owner measure.Inquiry // of a listener
	where *measure.Stages
	most  PoolExhausted // the worst of each, over all services, for the assessment
}

type poolHost struct {
	ports measure.Subjects[uint16, poolPort]
	calls measure.Subjects[flow.Ref, struct{}] // TCP connections that the host opened
	asked measure.Subjects[uint64, askedName]  // DNS queries without an answer, by transaction
	n     int
}

// servicePort points to a listener's state; nil if the host has too many.
type servicePort struct{ port *poolPort }

// poolPort is one listener of the host.
type poolPort struct {
	levels     [len(measure.DNSPatience)][stat.SeriesLen]int32
	abandoned  [stat.SeriesLen]uint32
	answers    [stat.SeriesLen]uint32
	synAgain   [stat.SeriesLen]uint32
	queue      [stat.SeriesLen]uint32
	begins     [stat.SeriesLen]capture.Instant // when a second request last began to wait beside a first
	curAband   uint32
	curAnswers uint32
	curSyn     uint32
	curBegin   capture.Instant
	waiting    measure.Cohorts // requests without an answer
	lastTry    capture.Instant // newest request, answer or end of one
}

// maxCalls bounds the calls in flight of one host, maxPoolHosts the hosts.
const (
	maxCalls     = 8192
	maxPoolHosts = 64
)

// askedName is a DNS query.
type askedName struct {
	server capture.Endpoint
	at     capture.Instant // newest
}

func newPoolExhausted() analyze.Detector {
	return &poolExhausted{hosts: measure.NewSubjects[capture.Addr, poolHost](maxPoolHosts), ports: measure.NewServices[servicePort](1 << 16), socks: newPoolSockets(), where: measure.NewStages()}
}

// Measures implements analyze.Measurer.
func (d *poolExhausted) Measures() []analyze.Measure {
	return append(d.where.Measures(), d.socks.Measures()...)
}

// Sample takes the socket tables, and what threads wait for.
func (d *poolExhausted) Sample(at capture.Instant, s *capture.Sample) {
	d.socks.sample(at, s)
}

func (d *poolExhausted) Spec() analyze.Spec {
	return analyze.Spec{Rule: "pool-exhausted", Features: PoolExhausted{},
		Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.Request, flow.Response, flow.Abandoned, flow.Closed,
			flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer)}
}

func (d *poolExhausted) host(a capture.Addr) *poolHost {
	h := d.hosts.Get(a)
	if h != nil && h.ports.M == nil {
		h.ports = measure.NewSubjects[uint16, poolPort](64)
		h.calls = measure.NewSubjects[flow.Ref, struct{}](maxCalls)
		h.asked = measure.NewSubjects[uint64, askedName](maxCalls)
	}
	return h
}

func (d *poolExhausted) Event(e *flow.Event) {
	switch e.Kind {
	case flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer:
		d.dns(e)
		return
	}
	c := e.Conn
	// Only hosts that serve somebody have a pool worth watching.
	var p *poolPort
	if at := d.ports.Peek(c); at != nil {
		p = at.port
	} else if e.Kind == flow.Request {
		if h := d.host(c.Server.Addr); h != nil {
			p = h.ports.Get(c.Server.Port)
		}
		if at := d.ports.Get(c); at != nil {
			at.port = p
		}
	}
	if p != nil {
		p.lastTry = max(p.lastTry, e.At)
	}
	switch e.Kind {
	case flow.SynSent:
		if h := d.hosts.Peek(c.Client.Addr); h != nil {
			h.calls.Get(c.Ref())
		}
	case flow.Request:
		if h := d.hosts.Peek(c.Client.Addr); h != nil {
			h.calls.Get(c.Ref())
		}
		if p != nil {
			if p.waiting.Add(e.At); p.waiting.Total == 2 {
				p.curBegin = e.At
			}
		}
	case flow.SynRepeat:
		if p != nil && !c.SynAnswered() {
			p.curSyn++
		}
	case flow.Response:
		if p != nil {
			p.curAnswers++
			p.waiting.Remove(e.Since)
		}
	case flow.Abandoned:
		if p != nil && (e.Dur >= flow.GiveUp || e.ByReset()) {
			p.curAband++
		}
	case flow.Closed:
		if at := c.Outstanding(); p != nil && at != 0 {
			p.waiting.Remove(at)
		}
	}
}

func (d *poolExhausted) dns(e *flow.Event) {
	h := d.hosts.Peek(e.DNS.Client.Addr)
	if h == nil {
		return
	}
	if e.Kind == flow.DNSAnswer {
		h.asked.Drop(e.DNS.Number)
		return
	}
	if q := h.asked.Get(e.DNS.Number); q != nil {
		*q = askedName{e.DNS.Server, e.At}
	}
}

// callTarget counts calls in flight by whom they wait for.
type callTarget struct {
	to   capture.Endpoint
	kind string
}

func (d *poolExhausted) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if w.Have.Has(analyze.Sockets) {
		told := make(map[string]bool)
		say := emit
		emit = func(s analyze.Symptom) {
			f := s.Features.(PoolExhausted)
			f.Waits = d.socks.waiting(f.OutboundPeer)
			s.Features = f
			told[s.Subject.Key()] = true
			say(s)
		}
		defer func() { d.socks.judge(w, told, say) }()
	}
	d.hosts.Each(func(a capture.Addr, h *poolHost) bool {
		targets := measure.NewSubjects[callTarget, poolCalls](256)
		h.inFlight(w, &targets)
		h.dnsInFlight(w, &targets)
		full := h.n == stat.SeriesLen
		h.n = min(h.n+1, stat.SeriesLen)
		h.ports.Each(func(port uint16, p *poolPort) bool {
			if full {
				p.shift()
			}
			d.judge(w, capture.Endpoint{Addr: a, Port: port}, h, p, &targets, emit)
			return true
		})
		return true
	})
}

// poolCalls is how many they are, by each patience that the callers may have.
type poolCalls [len(measure.DNSPatience)]int32

// inFlight counts the host's TCP calls that wait for something now.
func (h *poolHost) inFlight(w *analyze.Window, targets *measure.Subjects[callTarget, poolCalls]) {
	h.calls.Each(func(r flow.Ref, _ *struct{}) bool {
		c := w.Flows.Lookup(r)
		if c == nil || c.Closed() {
			return false
		}
		kind := ""
		switch {
		case !c.IsEstablished():
			kind = "connect"
		case c.Outstanding() != 0, w.Flows.HasHole(c), w.End.Sub(c.Last) < analyze.WindowLength && c.Answers() > 0 && c.Requests() == 1:
			kind = "tcp"
		default:
			return true // idle
		}
		if t := targets.Get(callTarget{c.Server, kind}); t != nil {
			for i := range t {
				t[i]++
			}
		}
		return true
	})
}

func (h *poolHost) dnsInFlight(w *analyze.Window, targets *measure.Subjects[callTarget, poolCalls]) {
	h.asked.Each(func(_ uint64, q *askedName) bool {
		age := w.End.Sub(q.at)
		if age > measure.DNSPatience[len(measure.DNSPatience)-1] {
			return false
		}
		if t := targets.Get(callTarget{q.server, "dns"}); t != nil {
			for i, limit := range measure.DNSPatience {
				if age <= limit {
					t[i]++
				}
			}
		}
		return true
	})
}

// shift makes room for another window.
func (p *poolPort) shift() {
	for _, r := range []*[stat.SeriesLen]uint32{&p.abandoned, &p.answers, &p.synAgain, &p.queue} {
		copy(r[:], r[1:])
	}
	copy(p.begins[:], p.begins[1:])
	for i := range p.levels {
		copy(p.levels[i][:], p.levels[i][1:])
	}
}

func (d *poolExhausted) judge(w *analyze.Window, k capture.Endpoint, h *poolHost, p *poolPort,
	targets *measure.Subjects[callTarget, poolCalls], emit func(analyze.Symptom)) {
	p.waiting.Roll(w.End)
	outstanding := int(p.waiting.Total)
	i := h.n - 1
	var most callTarget
	var waits int32 // for it
	for l := range p.levels {
		p.levels[l][i] = 0
	}
	s := d.where.Service(k)
	for t, n := range targets.All {
		if s != nil && s.Strange(t.to) {
			continue
		}
		for l := range n {
			p.levels[l][i] += n[l]
		}
		if all := n[len(n)-1]; all > waits {
			most, waits = t, all
		}
	}
	p.queue[i], p.abandoned[i], p.answers[i], p.synAgain[i] = uint32(outstanding), p.curAband, p.curAnswers, p.curSyn
	p.begins[i] = p.curBegin
	p.curAband, p.curAnswers, p.curSyn = 0, 0, 0
	d.most.Served += int(p.answers[i])
	d.most.Abandoned += int(p.abandoned[i])
	d.most.SynUnanswered += int(p.synAgain[i])
	d.most.Outstanding = max(d.most.Outstanding, outstanding)
	d.most.Queued = max(d.most.Queued, outstanding-int(p.levels[0][i]))
	if outstanding < 2 {
		return
	}
	rampUp := int(w.Params.Duration("ramp_up") / analyze.WindowLength)
	f := PoolExhausted{Outstanding: outstanding, OldestWait: p.waiting.Oldest(w.End).Seconds()}
	// The time in which requests wait, up to now; the level must be flat in it once it had
	// rampUp to fill the pool.
	start := h.n
	for start > 0 && p.queue[start-1] > uint32(p.levels[0][start-1]) && p.queue[start-1] > 1 {
		start--
	}
	steady := 0
	if j := jump(p.queue[start:h.n]); j > 0 {
		// What the calls in flight do not explain was work of its own until then: nobody waited.
		steady = int(slices.Max(p.queue[start : start+j]))
		start += j
	}
	run := h.n - start
	if run <= rampUp {
		return
	}
	f.Spread = math.MaxInt
	for _, l := range p.levels {
		lo, hi := slices.Min(l[start+rampUp:h.n]), slices.Max(l[start+rampUp:h.n])
		if spread := int(hi - lo); spread < f.Spread {
			f.Level, f.Spread = int(hi), spread
		}
	}
	f.Plateau = (time.Duration(run-rampUp) * analyze.WindowLength).Seconds()
	f.Level = max(f.Level, steady)
	f.Queued = max(outstanding-f.Level, 0)
	before := slices.Clone(p.queue[:start])
	slices.Sort(before)
	if len(before) > 0 {
		f.OutstandingBefore = int(before[len(before)/2])
		f.Baseline = (time.Duration(len(before)) * analyze.WindowLength).Seconds()
	}
	var answered, answeredBefore uint32
	for j := range h.n {
		if j >= start {
			f.Abandoned += int(p.abandoned[j])
			f.SynUnanswered += int(p.synAgain[j])
			answered += p.answers[j]
		} else {
			answeredBefore += p.answers[j]
		}
	}
	f.Throughput = float64(answered) / float64(run)
	if start > 0 {
		f.ThroughputBefore = float64(answeredBefore) / float64(start)
	}
	f.QueueGrowth = (float64(p.queue[i]) - float64(p.queue[start])) / f.Plateau
	if waits > 0 {
		f.OutboundPeer, f.OutboundPort, f.OutboundKind = most.to.Addr.String(), int(most.to.Port), most.kind
		f.OutboundShare = min(stat.Ratio(int(waits), f.Level), 1)
	}
	f.NotCalled = d.where.Strangers(k)
	if w.Local.Is(k.Addr) {
		if _, state, _ := d.socks.Stopped(w, k.Port, &d.owner); state != "" {
			return // a program that is stopped, not its pool: slow-server's
		}
	}
	onset := w.End.Add(-time.Duration(run) * analyze.WindowLength)
	emit(analyze.Symptom{Subject: measure.Service(k), Onset: max(onset, p.begins[start], w.First), Features: f, LastTry: p.lastTry})
}

// jump returns the first window from which on a queue is twice as long and more as in all windows before it, of which there are
// enough to call it steady; 0: there is none.
func jump(queue []uint32) int {
	const steady = 10 // windows: longer than a queue takes to fill a pool (the rebuilt incident: 1 to 6 s)
	if len(queue) <= steady {
		return 0
	}
	most := slices.Max(queue[:steady])
	for j := steady; j < len(queue); j++ {
		if slices.Min(queue[j:]) >= 2*most {
			return j
		}
		most = max(most, queue[j])
	}
	return 0
}

func (d *poolExhausted) Assess(*analyze.Window) analyze.Assessment {
	calls := false
	d.hosts.Each(func(_ capture.Addr, h *poolHost) bool {
		calls = calls || len(h.calls.Keys)+len(h.asked.Keys) > 0
		return true
	})
	return analyze.Assessment{Assessable: calls || d.socks.Full.First != 0, Features: d.most}
}
