package measure

import (
	"math"
	"net/netip"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Table says where the time of the requests to k went before the onset and since; nil if nothing is known of them. Without an onset
// (0) all of it is before.
func (d *Stages) Table(k capture.Endpoint, onset capture.Instant) *analyze.Stages {
	if s := d.Service(k); s != nil {
		return s.table(onset)
	}
	return nil
}

// Calm takes that nothing is wrong with k: what was after an onset belongs to the past of whatever comes next.
func (d *Stages) Calm(k capture.Endpoint) {
	if s := d.Service(k); s != nil {
		s.since(0)
	}
}

func (s *stageService) since(onset capture.Instant) {
	if onset == 0 {
		s.before.add(&s.after)
	}
	if (onset == 0) != (s.onset == 0) {
		s.after = stageRow{}
	}
	s.onset = onset
}

// Service returns what is known of the requests to k; nil if nothing is.
func (d *Stages) Service(k capture.Endpoint) (s *stageService) {
	for key, x := range d.services.All {
		if key == k {
			return x
		}
	}
	return nil
}

// IsHere reports whether a stage of k is a call to its own host.
func (d *Stages) IsHere(k capture.Endpoint, x *analyze.Stage) bool {
	ip, err := netip.ParseAddr(x.Peer)
	return err == nil && (ip.IsLoopback() || d.hostOf(capture.AddrFrom(ip)) == d.hostOf(k.Addr))
}

// Busiest is the table of the service whose requests took most time. To ask for it changes nothing.
func (d *Stages) Busiest() *analyze.Stages {
	var most *stageService
	var wait time.Duration
	d.services.Each(func(_ capture.Endpoint, s *stageService) bool {
		sum := s.before
		for i := range s.rows {
			sum.add(&s.rows[i])
		}
		if sum.wait > wait {
			most, wait = s, sum.wait
		}
		return true
	})
	if most == nil {
		return nil
	}
	asked := *most // table notes the onset
	return asked.table(0)
}

func (s *stageService) table(onset capture.Instant) *analyze.Stages {
	s.since(onset)
	sums := struct{ Before, After stageRow }{s.before, s.after}
	var seconds struct{ Before, After []*stageRow }
	for i := range s.rows {
		r := &s.rows[i]
		if onset != 0 && r.second >= second(onset) {
			sums.After.add(r)
			seconds.After = append(seconds.After, r)
		} else {
			sums.Before.add(r)
			seconds.Before = append(seconds.Before, r)
		}
	}
	t := &analyze.Stages{Host: s.key.Addr.String(), Port: s.key.Port, Since: onset, Shared: int(s.shared)}
	before, after := s.parts(&sums.Before, seconds.Before), s.parts(&sums.After, seconds.After)
	t.Requests = analyze.Counts{Before: before.requests, After: after.requests}
	t.Time = analyze.Times{Before: before.all(), After: after.all()}
	extra := 0.0
	both := t.Requests.Before > 0 && t.Requests.After > 0
	for i := range before.list {
		b, a := before.list[i], after.list[i]
		if b.time == 0 && a.time == 0 {
			continue
		}
		x := analyze.Stage{Stage: b.stage, Time: analyze.Times{Before: b.time, After: a.time}, Reached: analyze.Counts{Before: b.reached, After: a.reached}}
		if b.peer != nil {
			x.Peer, x.Port = b.peer.Addr.String(), b.peer.Port
		}
		switch {
		case both:
			x.Share = max(a.time-b.time, 0)
		case t.Requests.After > 0:
			x.Share = a.time
		default:
			x.Share = b.time
		}
		extra += x.Share
		t.Stages = append(t.Stages, x)
	}
	for i := range t.Stages {
		if extra > 0 {
			t.Stages[i].Share /= extra
		}
	}
	return t
}

// stageParts is what requests of one time took in each stage, in seconds for each of them.
type stageParts struct {
	requests int
	list     []stagePart // the same stages for any two times of a service
}

type stagePart struct {
	stage   string
	peer    *capture.Endpoint
	time    float64
	reached int
}

func (p *stageParts) all() (sum float64) {
	for i := range p.list {
		sum += p.list[i].time
	}
	return sum
}

var callStageNames = [callStages]string{analyze.StageDNS, analyze.StageConnect, analyze.StageFirstByte, analyze.StageTransfer}

// parts divides the time of r, of which seconds are known one by one.
func (s *stageService) parts(r *stageRow, seconds []*stageRow) stageParts {
	// In a stop nobody asks, and those that wait asked before: they are as many as wait at a time. None waits for longer than the time is.
	p := stageParts{requests: int(max(r.requests, r.answered))}
	for _, x := range seconds {
		p.requests = max(p.requests, int((x.wait+time.Second-1)/time.Second))
	}
	if p.requests == 0 && r.wait > 0 {
		p.requests = 1
	}
	each := func(d time.Duration) float64 { return max(d, 0).Seconds() / float64(max(p.requests, 1)) }
	calls := time.Duration(0)
	var mine [maxStageCallees]float64
	for k := range r.calls {
		mine[k] = s.mine(uint8(k))
		for i := range r.calls[k] {
			calls += time.Duration(mine[k] * float64(r.calls[k][i].d))
		}
	}
	// A handler that makes its calls one after the other is in one place at a time. What is more than the time there is overlaps:
	// an answer that is sent on as it comes in, then calls beside each other.
	own, sending, part := r.wait-r.arriving-calls, r.sending, 1.0
	if own < 0 {
		both := min(-own, sending)
		sending -= both
		if own += both; own < 0 {
			part = float64(calls+own) / float64(calls)
			own = 0
		} else {
			own = 0
		}
	}
	queue := min(s.queue(r, seconds), own)
	shut := min(r.shut, sending)
	add := func(stage string, peer *capture.Endpoint, d time.Duration, n uint32) {
		p.list = append(p.list, stagePart{stage, peer, each(d), int(n)})
	}
	add(analyze.StageArriving, nil, r.arriving, r.requests)
	add(analyze.StageAccept, nil, queue, r.requests)
	for k := range r.calls {
		for i, a := range r.calls[k] {
			add(callStageNames[i], &s.callees[k], time.Duration(part*mine[k]*float64(a.d)), a.n)
		}
	}
	add(analyze.StageOwn, nil, own-queue, r.requests)
	add(analyze.StageSending, nil, sending-shut, r.answered)
	add(analyze.StageNotReading, nil, shut, r.answered)
	return p
}

// mine is the part of the calls to the callee at a place that are made for s: not those that would have begun while it was in work
// even if it had nothing to do with them, as many as begin in as much time in which nothing is in work.
func (s *stageService) mine(slot uint8) float64 {
	h := s.host
	if h == nil || h.idle < knownAlone || s.alone < knownAlone {
		return 1
	}
	c := h.callees.Peek(s.callees[slot])
	if c == nil || c.alone[s.index] == 0 {
		return 1
	}
	return max(1-float64(c.idle)/h.idle.Seconds()*s.alone.Seconds()/float64(c.alone[s.index]), 0)
}

// queue is for how long the requests of r waited until the program took them up. From sockets it is known. From packets it follows from how
// many the program serves at a time, if there is a limit: the others wait. There is one if requests wait that no call
// accounts for, and the number of calls varies less than that of independent requests would: n workers of which each calls for a part p of its
// time make n·p calls on average, with the variance n·p·(1-p). Without a limit it is as large as the mean.
func (s *stageService) queue(r *stageRow, seconds []*stageRow) time.Duration {
	var sampled time.Duration
	if r.sampled > 0 && r.sampled >= r.busy/2 {
		sampled = r.queued
	}
	// Only the seconds in which there was as much to do as ever: the number of calls varies when that does.
	var most, load, load2, busy time.Duration
	calls := 0.0
	for _, x := range seconds {
		most = max(most, x.wait)
	}
	for _, x := range seconds {
		if 4*x.wait >= 3*most {
			load, load2, busy = load+x.load, load2+x.load2, busy+x.busy
			for k := range x.calls {
				calls += float64(x.calls[k][stageDNS].n + x.calls[k][stageFirst].n)
			}
		}
	}
	if busy == 0 || load == 0 {
		return sampled
	}
	mean := load.Seconds() / busy.Seconds()
	part := 1 - (load2.Seconds()/busy.Seconds()-mean*mean)/mean
	if part < leastPart {
		return sampled
	}
	limit := mean / part
	// The number of calls is a new one when as many have begun as there are at a time; of n such numbers the variance is known
	// to a factor of sqrt(2/n).
	unsure := 2 * (1 - part) / part * math.Sqrt(2*mean/max(calls, 1))
	var queue, wait time.Duration
	for _, x := range seconds {
		wait += x.wait
		queue += max(x.wait-time.Duration(limit*float64(x.open)), 0)
	}
	if queue.Seconds() < max(0.1, unsure)*wait.Seconds() { // the limit is not known so well
		return sampled
	}
	if wait > 0 {
		queue = time.Duration(float64(queue) / float64(wait) * float64(r.wait))
	}
	return max(queue, sampled)
}

// leastPart: where the number of calls varies nearly as much as if nothing bounded it, nothing does.
const leastPart = 0.2
