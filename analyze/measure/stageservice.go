package measure

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
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

// stageHost is a host that serves.
type stageHost struct {
	services []*stageService
	busy     int // services with requests in work
	at       capture.Instant
	idle     time.Duration // without any
	callees  Subjects[capture.Endpoint, stageClaims]
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
