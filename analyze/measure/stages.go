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

// stageAnswer is an answer under way.
type stageAnswer struct {
	since capture.Instant // up to here it is counted
	shut  capture.Instant // the client's window is closed since, counted up to here; 0: it is open
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
