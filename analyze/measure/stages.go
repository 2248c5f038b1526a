package measure

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// Stages measures where the time of a service's requests goes: in which of its host's own calls, in its queue, in its own work, or
// with the client. Nothing in the packets says which call was made for which request, and nothing need say it: by Little's law
// the time that requests spend in a place is the area under the number of them that are in it, so that the area of the calls over
// the area of the requests is the calls' share, however many requests are served at a time. It takes one thing: that a
// call is made for the service whose requests are in work when it begins (pick).
//
// Areas are kept by second, so that the time before an onset can be told from the time since when the onset is known.
type Stages struct {
	services Services[stageService]
	hosts    Subjects[capture.Addr, stageHost]
	calls    map[flow.Ref]stageCall
	sending  Conns[stageAnswer]
	names    map[uint64]stageCall  // questions for names without an answer, by number; no service: given up
	asking   []stageQuestion       // the same, oldest first, and some that were answered
	again    [len(DNSPatience)]int // for each time-out: questions that came that long after one in vain, more than by chance
	Lookups  *Lookups
	local    analyze.Local
	sampled  capture.Instant // newest table of listeners
	refused  uint64          // calls and lookups beyond the caps
}

const (
	// maxStageServices bounds the services, at 16 kB each; maxStageCallees whom each of them calls: the last place is for
	// all others together.
	maxStageServices = 128
	maxStageCallees  = 6
	// maxStageHosts bounds the hosts that serve.
	maxStageHosts = 64
	// maxHostServices bounds the services of one host that may have made a call.
	maxHostServices = 16
	maxHostCallees  = 256
	// maxStageCalls bounds the calls and lookups that are under way, maxStageAnswers the answers.
	maxStageCalls   = 8192
	maxStageAnswers = 1 << 15
	// stageSeconds is how long seconds are kept apart: onsets are known within some seconds; slow-server's within slow_after.
	stageSeconds = 32
)

// callStage is a stage of a call.
type callStage uint8

const (
	stageDNS callStage = iota
	stageConnect
	stageFirst
	stageTransfer
	callStages
	stageIdle // none: the caller has not asked yet, or the answer is complete
)

// area is time that was spent in a stage, by all requests together, and how often it was entered.
type area struct {
	d time.Duration
	n uint32
}

// stageRow is what one second, or a longer time, adds up to.
type stageRow struct {
	second   int64
	requests uint32
	answered uint32
	wait     time.Duration // from the first byte of a request to the first byte of its answer
	arriving time.Duration // of that, until the request was complete
	sending  time.Duration // from the first byte of the answer to the last
	shut     time.Duration // of that, with the client's window closed
	queued   time.Duration // connections in the accept queue, from samples
	sampled  time.Duration // for which they are known
	calls    [maxStageCallees][callStages]area
	// The number of calls that wait for an answer, and its square, over the time in which a request waits that no call
	// accounts for: their mean and variance say how many calls there can be (limit).
	load, load2, busy time.Duration
	open              time.Duration // with requests in work
}

func (r *stageRow) add(o *stageRow) {
	r.requests += o.requests
	r.answered += o.answered
	for _, x := range [...][2]*time.Duration{{&r.wait, &o.wait}, {&r.arriving, &o.arriving}, {&r.sending, &o.sending}, {&r.shut, &o.shut},
		{&r.queued, &o.queued}, {&r.sampled, &o.sampled}, {&r.load, &o.load}, {&r.load2, &o.load2}, {&r.busy, &o.busy}, {&r.open, &o.open}} {
		*x[0] += *x[1]
	}
	for k := range r.calls {
		for s := range r.calls[k] {
			r.calls[k][s].d += o.calls[k][s].d
			r.calls[k][s].n += o.calls[k][s].n
		}
	}
}

// stageService is a service.
type stageService struct {
	key     capture.Endpoint
	host    *stageHost // nil: it has too many services
	on      capture.Addr
	index   int   // among the host's services
	waiting int32 // requests without an answer
	calls   int32 // calls that wait for an answer
	at      capture.Instant
	newest  capture.Instant // when a request last began
	alone   time.Duration   // with requests in work while no other service of the host had any
	asked   uint32          // requests that came while no other service of the host had any
	shared  uint32          // calls that began while it had requests in work, of which nobody can tell whether they are its own
	callees [maxStageCallees]capture.Endpoint
	known   int
	rows    [stageSeconds]stageRow
	top     int64 // newest second
	// before and after are the seconds that are no longer kept apart; after: since the onset, while there is one.
	before, after stageRow
	onset         capture.Instant
}

// stageAnswer is an answer under way.
type stageAnswer struct {
	since capture.Instant // up to here it is counted
	shut  capture.Instant // the client's window is closed since, counted up to here; 0: it is open
}

// stageHost is a host that serves.
type stageHost struct {
	services []*stageService
	busy     int // services with requests in work
	at       capture.Instant
	idle     time.Duration // without any
	callees  Subjects[capture.Endpoint, stageClaims]
}

// NewStages returns stages of no service.
func NewStages() *Stages {
	return &Stages{services: NewServices[stageService](maxStageServices), hosts: NewSubjects[capture.Addr, stageHost](maxStageHosts),
		calls: make(map[flow.Ref]stageCall), sending: NewConns[stageAnswer](maxStageAnswers), names: make(map[uint64]stageCall)}
}

// Events implements analyze.Measure.
func (d *Stages) Events() flow.Mask {
	return flow.Of(flow.SynSent, flow.Established, flow.Greeting, flow.Request, flow.Response, flow.Closed, flow.ZeroWindow,
		flow.ZeroWindowEnd, flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer)
}

// Measures implements analyze.Measurer for the detectors that read them: what they read themselves comes first.
func (d *Stages) Measures() []analyze.Measure {
	if d.Lookups == nil {
		return []analyze.Measure{d}
	}
	return append(d.Lookups.Measures(), d)
}

// Event implements analyze.Measure.
func (d *Stages) Event(e *flow.Event) {
	c := e.Conn
	switch e.Kind {
	case flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer:
		d.name(e)
		return
	case flow.Request:
		d.asked(e)
	case flow.Response:
		if s := d.services.Peek(c); s != nil {
			d.answered(s, e)
		}
	case flow.Closed:
		if s := d.services.Peek(c); s != nil {
			d.closed(s, e)
		}
	case flow.ZeroWindow, flow.ZeroWindowEnd:
		if s := d.services.Peek(c); s != nil && e.Side == flow.Client {
			d.window(s, e)
		}
		return
	}
	d.call(e)
}

// asked takes a request to a service.
func (d *Stages) asked(e *flow.Event) {
	c := e.Conn
	s := d.services.Peek(c)
	if s == nil {
		if d.local.Known() && !d.local.Is(c.Server.Addr) {
			return
		}
		if s = d.services.Get(c); s == nil {
			return
		}
		s.key, s.at, s.top = c.Server, e.At, second(e.At)
		d.settle(s)
	}
	d.sent(s, c)
	s.work(e.At, 1)
	if s.host != nil && s.host.busy == 1 {
		s.asked++
	}
	s.newest = e.At
	s.row(second(e.At)).requests++
}

// hostOf is one address for all of a host; for this host it does not depend on which of its addresses is used most.
func (d *Stages) hostOf(a capture.Addr) capture.Addr {
	if d.local.Is(a) {
		return capture.Addr{}
	}
	return d.local.Host(a)
}

// settle gives a service its host.
func (d *Stages) settle(s *stageService) {
	s.on, s.host, s.alone, s.asked = d.hostOf(s.key.Addr), nil, 0, 0
	h := d.hosts.Get(s.on)
	if h == nil {
		return
	}
	if h.callees.M == nil {
		h.callees, h.at = NewSubjects[capture.Endpoint, stageClaims](maxHostCallees), s.at
	}
	if s.index = slices.Index(h.services, nil); s.index < 0 {
		if s.index = len(h.services); s.index == maxHostServices {
			return
		}
		h.services = append(h.services, nil)
	}
	h.services[s.index], s.host = s, h
	if s.waiting > 0 {
		h.busy++
	}
}

// leave forgets a service.
func (s *stageService) leave() {
	if h := s.host; h != nil {
		h.services[s.index] = nil
		h.callees.Each(func(_ capture.Endpoint, c *stageClaims) bool {
			c.alone[s.index] = 0
			return true
		})
	}
}

// work notes that so many requests more are in work.
func (s *stageService) work(at capture.Instant, n int32) {
	s.advance(at)
	was := s.waiting > 0
	s.waiting = max(s.waiting+n, 0)
	if is := s.waiting > 0; s.host != nil && is != was {
		s.host.advance(at)
		if is {
			s.host.busy++
		} else {
			s.host.busy--
		}
	}
}

func (h *stageHost) advance(at capture.Instant) {
	dt := at.Sub(h.at)
	if dt <= 0 {
		return
	}
	h.at = at
	switch h.busy {
	case 0:
		h.idle += dt
	case 1:
		for _, s := range h.services {
			if s != nil && s.waiting > 0 {
				s.alone += dt
			}
		}
	}
}

// answered takes the first byte of an answer.
func (d *Stages) answered(s *stageService, e *flow.Event) {
	s.work(e.At, -1)
	if complete := e.At.Add(-e.Dur); complete > e.Since {
		s.spread(e.Since, complete, func(r *stageRow, d time.Duration) { r.arriving += d })
	}
	s.row(second(e.At)).answered++
	if a := d.sending.Get(e.Conn.Ref()); a != nil {
		*a = stageAnswer{since: e.At}
	}
}

// answerEnd is when the answer on c, which began at since, ended: with the last byte of the server, or when the client closed, for the
// server's FIN may come much later.
func answerEnd(c *flow.Conn, since capture.Instant) capture.Instant {
	end := c.LastData(flow.Server)
	if fin := c.FinAt(flow.Client); fin > since {
		return min(end, fin)
	}
	return end
}

// sent counts an answer that has ended.
func (d *Stages) sent(s *stageService, c *flow.Conn) {
	a := d.sending.Peek(c.Ref())
	if a == nil {
		return
	}
	d.sending.Drop(c.Ref())
	end := answerEnd(c, a.since)
	if end > a.since {
		s.spread(a.since, end, func(r *stageRow, d time.Duration) { r.sending += d })
	}
	if a.shut != 0 && end > a.shut {
		s.spread(a.shut, end, func(r *stageRow, d time.Duration) { r.shut += d })
	}
}

func (d *Stages) window(s *stageService, e *flow.Event) {
	a := d.sending.Peek(e.Conn.Ref())
	if a == nil {
		return
	}
	if e.Kind == flow.ZeroWindow {
		a.shut = max(e.At, a.since)
	} else if a.shut != 0 {
		s.spread(a.shut, e.At, func(r *stageRow, d time.Duration) { r.shut += d })
		a.shut = 0
	}
}

func (d *Stages) closed(s *stageService, e *flow.Event) {
	d.sent(s, e.Conn)
	if e.Conn.Outstanding() != 0 {
		s.work(e.At, -1)
	}
}

// row is that of a second; one that is no longer kept apart belongs to the time before or since the onset.
func (s *stageService) row(sec int64) *stageRow {
	if sec > s.top {
		for t := max(s.top+1, sec-stageSeconds+1); t <= sec; t++ {
			r := &s.rows[uint64(t)%stageSeconds]
			s.older(r.second).add(r)
			*r = stageRow{second: t}
		}
		s.top = sec
	}
	if sec <= s.top-stageSeconds {
		return s.older(sec)
	}
	r := &s.rows[uint64(sec)%stageSeconds]
	if r.second != sec { // of the time before the first request
		r.second = sec
	}
	return r
}

func (s *stageService) older(sec int64) *stageRow {
	if s.onset != 0 && sec >= second(s.onset) {
		return &s.after
	}
	return &s.before
}

// spread adds a span of time to the seconds that it covers.
func (s *stageService) spread(from, to capture.Instant, add func(*stageRow, time.Duration)) {
	first, last := second(from), second(to)
	s.row(last)
	if oldest := s.top - stageSeconds + 1; first < oldest {
		cut := min(to, capture.Instant(oldest)*capture.Instant(analyze.WindowLength))
		add(s.older(first), cut.Sub(from))
		from, first = cut, oldest
	}
	for sec := first; sec <= last && from < to; sec++ {
		end := min(to, capture.Instant(sec+1)*capture.Instant(analyze.WindowLength))
		add(s.row(sec), end.Sub(from))
		from = end
	}
}

// advance adds the time since the last change.
func (s *stageService) advance(at capture.Instant) {
	if at <= s.at {
		return
	}
	if s.waiting > 0 {
		n, c := time.Duration(s.waiting), time.Duration(s.calls)
		s.spread(s.at, at, func(r *stageRow, d time.Duration) {
			r.wait += n * d
			r.open += d
			if n > c {
				r.busy += d
				r.load += c * d
				r.load2 += c * c * d
			}
		})
	}
	s.at = at
}

// Sample takes the accept queues of listeners.
func (d *Stages) Sample(at capture.Instant, listening []*capture.Socket) {
	apart := at.Sub(d.sampled)
	d.sampled = at
	if apart <= 0 || apart > 5*analyze.WindowLength {
		return // what was between is not known
	}
	d.services.Each(func(k capture.Endpoint, s *stageService) bool {
		for _, l := range listening {
			if l.Local.Port == k.Port && (l.Local.Addr == k.Addr || l.Local.Addr.Netip().IsUnspecified()) {
				n := time.Duration(l.RecvQ)
				s.spread(at.Add(-apart), at, func(r *stageRow, d time.Duration) {
					r.queued += n * d
					r.sampled += d
				})
			}
		}
		return true
	})
}

// Standing notes that so many answers of k stood still in the second up to now.
func (d *Stages) Standing(k capture.Endpoint, now capture.Instant, n int) {
	if n == 0 {
		return
	}
	if s := d.Service(k); s != nil {
		s.spread(now.Add(-analyze.WindowLength), now, func(r *stageRow, d time.Duration) { r.sending += time.Duration(n) * d })
	}
}

// Judge counts what is under way up to now, and forgets what has ended.
func (d *Stages) Judge(w *analyze.Window) {
	d.local = w.Local
	moved := false
	d.services.Each(func(_ capture.Endpoint, s *stageService) bool {
		if d.local.Known() && !d.local.Is(s.key.Addr) || s.waiting == 0 && w.End.Sub(s.newest) >= IdleState {
			s.leave()
			return false
		}
		moved = moved || s.on != d.hostOf(s.key.Addr)
		return true
	})
	if moved { // more is known of which addresses are one host
		d.hosts = NewSubjects[capture.Addr, stageHost](maxStageHosts)
		d.services.Each(func(_ capture.Endpoint, s *stageService) bool {
			d.settle(s)
			return true
		})
	}
	d.services.Each(func(_ capture.Endpoint, s *stageService) bool {
		s.advance(w.End)
		s.row(second(w.End - 1))
		return true
	})
	d.sending.Each(func(ref flow.Ref, a *stageAnswer) bool {
		c := w.Flows.Lookup(ref)
		if c == nil || c.Closed() {
			return false
		}
		s := d.services.Peek(c)
		switch {
		case s == nil:
			return false
		case c.WindowClosed(flow.Client) || w.Flows.HasHole(c):
			s.spread(a.since, w.End, func(r *stageRow, d time.Duration) { r.sending += d })
			a.since = w.End
		case w.End.Sub(c.LastData(flow.Server)) >= analyze.WindowLength && a.shut == 0:
			d.sent(s, c)
			return false
		default:
			end := max(a.since, answerEnd(c, a.since))
			s.spread(a.since, end, func(r *stageRow, d time.Duration) { r.sending += d })
			a.since = end
		}
		if a.shut != 0 {
			s.spread(a.shut, w.End, func(r *stageRow, d time.Duration) { r.shut += d })
			a.shut = w.End
		}
		return true
	})
	for ref, x := range d.calls {
		c := w.Flows.Lookup(ref)
		switch {
		case c == nil:
			x.move(x.since, w.End, stageIdle)
			delete(d.calls, ref)
			continue
		case c.Closing(flow.Client): // whoever called waits no longer
			d.end(c, x, max(c.FinAt(flow.Client), x.since))
			continue
		case x.stage != stageTransfer:
			x.count(w.End)
		case w.Flows.HasHole(c):
			x.count(w.End)
			if !x.stuck {
				x.stuck = true
				x.service.wait(w.End, 1)
			}
		case w.End.Sub(c.LastData(flow.Server)) >= analyze.WindowLength:
			d.end(c, x, w.End)
			continue
		default:
			x.count(answerEnd(c, x.since))
		}
		d.calls[ref] = x
	}
	d.forget(w.End)
}
