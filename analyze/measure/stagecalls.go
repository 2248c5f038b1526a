package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// stageClaims are the calls to one server, by which services had requests in work when they began.
type stageClaims struct {
	alone [maxHostServices]uint32 // one service, no other
	idle  uint32                  // none
	all   uint32
}

// stageCall is a call under way.
type stageCall struct {
	service *stageService
	slot    uint8
	stage   callStage
	stuck   bool            // an answer that has begun, and of which data has been missing for long: it is waited for
	since   capture.Instant // up to here it is counted
}

// call takes what happens to a call of a host that serves.
func (d *Stages) call(e *flow.Event) {
	c := e.Conn
	switch e.Kind {
	case flow.SynSent:
		d.begin(c, stageCall{}, stageConnect, e.At)
		return
	case flow.Request:
		x := d.calls[c.Ref()]
		if x.service == nil || c.Requests() > 1 { // another request may have it now
			d.end(c, x, e.At)
			x = stageCall{}
		}
		d.begin(c, x, stageFirst, e.At)
		return
	}
	x, ok := d.calls[c.Ref()]
	if !ok {
		return
	}
	switch e.Kind {
	case flow.Established:
		x.move(e.At, e.At, stageIdle)
	case flow.Greeting:
		slot := x.slot
		x.service.spread(e.Since, e.At, func(r *stageRow, d time.Duration) { r.calls[slot][stageFirst].d += d })
		x.service.row(second(e.At)).calls[slot][stageFirst].n++
		x.move(e.At, e.At, stageTransfer)
	case flow.Response:
		x.move(e.At, e.At, stageTransfer)
	case flow.Closed:
		d.end(c, x, e.At)
		return
	}
	d.calls[c.Ref()] = x
}

// end takes the end of a call.
func (d *Stages) end(c *flow.Conn, x stageCall, at capture.Instant) {
	if x.service == nil {
		return
	}
	until := at
	if x.stage == stageTransfer && !x.stuck {
		until = answerEnd(c, x.since)
	}
	x.move(until, at, stageIdle)
	delete(d.calls, c.Ref())
}

// begin lets a call enter a stage. If nobody knows yet for whom it is made, that is told first.
func (d *Stages) begin(c *flow.Conn, x stageCall, stage callStage, at capture.Instant) {
	if x.service == nil {
		if x.service = d.pick(c.Client.Addr, c.Server, at); x.service == nil {
			return
		}
		if len(d.calls) >= maxStageCalls {
			d.refused++
			return
		}
		x.slot, x.stage = x.service.slot(c.Server), stageIdle
	}
	x.move(at, at, stage)
	d.calls[c.Ref()] = x
}

// move counts the stage that a call is in until then, and lets it enter another.
func (x *stageCall) move(until, at capture.Instant, to callStage) {
	x.count(until)
	s := x.service
	waits := func(c callStage) bool { return c < stageTransfer }
	if waits(x.stage) || x.stuck {
		s.wait(at, -1)
		x.stuck = false
	}
	if x.stage, x.since = to, at; to == stageIdle {
		return
	}
	if waits(to) {
		s.wait(at, 1)
	}
	s.row(second(at)).calls[x.slot][to].n++
}

// count counts the stage that a call is in up to then.
func (x *stageCall) count(until capture.Instant) {
	if x.stage == stageIdle || until <= x.since {
		return
	}
	slot, stage := x.slot, x.stage
	x.service.spread(x.since, until, func(r *stageRow, d time.Duration) { r.calls[slot][stage].d += d })
	x.since = until
}

// wait notes that so many calls more wait for an answer.
func (s *stageService) wait(at capture.Instant, n int32) {
	s.advance(at)
	s.calls = max(s.calls+n, 0)
}

// stageQuestion is a question for a name.
type stageQuestion struct {
	number uint64
	at     capture.Instant
}

// name takes a question for a name. The A and the AAAA of one lookup are one wait; each try is one of its own, until it is answered or
// the program's time-out ends: which of several programs that ask for the same name tries again cannot be told.
func (d *Stages) name(e *flow.Event) {
	q := e.DNS
	if e.Kind == flow.DNSAnswer {
		if x, ok := d.names[q.Number]; ok {
			if x.service != nil {
				x.move(e.At, e.At, stageIdle)
			}
			delete(d.names, q.Number)
		}
		return
	}
	if _, ok := d.names[q.Number]; ok {
		return // the same packet, or again under the same id
	}
	if l := d.Lookups; l != nil && l.Newest != nil && l.Newest.Group != nil {
		g := l.Newest.Group
		if g.Types&(g.Types-1) != 0 && e.At != g.asked && e.At.Sub(g.asked) <= askAtOnce {
			return // beside the question of another type
		}
		g.asked = e.At
	}
	s := d.pick(q.Client.Addr, q.Server, e.At)
	if s == nil {
		return
	}
	if len(d.names) >= maxStageCalls || len(d.asking) >= 2*maxStageCalls {
		d.refused++
		return
	}
	x := stageCall{service: s, slot: s.slot(q.Server), stage: stageIdle}
	x.move(e.At, e.At, stageDNS)
	d.names[q.Number] = x
	for i, t := range DNSPatience {
		// Beside it, what chance gives.
		d.again[i] += d.waitedAt(e.At.Add(-t)) - d.waitedAt(e.At.Add(-t*9/10))
	}
	d.asking = append(d.asking, stageQuestion{q.Number, e.At})
}

// waitedAt is 1 if a question without an answer was asked then, give or take what a busy host is late by.
func (d *Stages) waitedAt(at capture.Instant) int {
	const late = 10 * time.Millisecond
	i, _ := slices.BinarySearchFunc(d.asking, at.Add(-late), func(q stageQuestion, at capture.Instant) int { return cmp.Compare(q.at, at) })
	for ; i < len(d.asking) && d.asking[i].at <= at.Add(late); i++ {
		if _, ok := d.names[d.asking[i].number]; ok {
			return 1
		}
	}
	return 0
}

// timeout is for how long the programs of this input wait for an answer that does not come.
func (d *Stages) timeout() time.Duration {
	best := len(DNSPatience) - 1 // resolv.conf(5)
	for i := range d.again {
		if d.again[i] > d.again[best] {
			best = i
		}
	}
	return DNSPatience[best]
}

// slot is the place of a server among those that s calls.
func (s *stageService) slot(k capture.Endpoint) uint8 {
	for i := range s.callees[:s.known] {
		if s.callees[i] == k {
			return uint8(i)
		}
	}
	if s.known == maxStageCallees-1 {
		return maxStageCallees - 1
	}
	s.callees[s.known] = k
	s.known++
	return uint8(s.known - 1)
}

// knownAlone is how long a service must have been in work alone, without a call to a server, to be taken for one that does not
// call it: some requests at least have been served in that time.
const knownAlone = 100 * time.Millisecond

// pick tells for which service of a host a call to k is made that begins now; nil: for none, or nobody can tell. Where one has requests
// in work it is that one. Of several it is the one that calls k most often, for the time in which it is alone in work; one that never does then
// is none. Where all have been in work together at all times nothing tells them apart.
func (d *Stages) pick(from capture.Addr, k capture.Endpoint, at capture.Instant) *stageService {
	h := d.hosts.Peek(d.hostOf(from))
	if h == nil {
		return nil
	}
	claims := h.callees.Get(k)
	if claims == nil {
		return nil
	}
	h.advance(at)
	claims.all++
	var best *stageService
	most, n, open := -1.0, 0, 0
	for _, s := range h.services {
		if s == nil || s.waiting == 0 || s.key == k {
			continue
		}
		n++
		rate := 0.0
		if s.alone > 0 {
			rate = float64(claims.alone[s.index]) / s.alone.Seconds()
		}
		if rate == 0 && s.alone >= knownAlone {
			if best == nil {
				best = s
			}
			continue
		}
		open++
		if rate > most {
			best, most = s, rate
		}
	}
	switch {
	case n == 0:
		claims.idle++
	case n == 1:
		claims.alone[best.index]++
		return best
	case open == 1 || most > 0:
		return best
	}
	for _, s := range h.services {
		if s != nil && s.waiting > 0 && s.key != k {
			s.shared++
		}
	}
	return nil
}

const (
	// noneOf is how many calls there may be although none was seen: 3 of n, with 95 % (the rule of three).
	noneOf = 3
	// strangeTo is of how many requests one at most may make the call without our knowing it: what fewer wait for is no stage of the
	// requests (proposal). Two standard deviations count as not known.
	strangeTo = 10
	// countedOf is of how many requests one is counted at least: of those that overlap on a connection (HTTP/2) only the first is.
	countedOf = 2
)

// Strange reports whether calls to k are made by its host, but not for s: those that begin while requests of s alone are in work are no
// more than chance gives. Nothing is strange before enough was served alone.
func (s *stageService) Strange(k capture.Endpoint) bool {
	h := s.host
	if h == nil {
		return false
	}
	c := h.callees.Peek(k)
	if c == nil {
		return false
	}
	mine := float64(c.alone[s.index])
	// As many begin in as much time in which nothing is in work, give or take.
	chance, unsure := 0.0, 0.0
	if h.idle >= knownAlone {
		part := s.alone.Seconds() / h.idle.Seconds()
		chance, unsure = float64(c.idle)*part, float64(c.idle)*part*part
	}
	deviation := math.Sqrt(mine + unsure)
	excess := mine - chance
	return c.all > c.alone[s.index] && excess <= deviation &&
		strangeTo*(max(excess, 0)+2*deviation+noneOf) <= float64(s.asked) && countedOf*mine <= float64(s.asked)
}

// Strangers are the servers that the host of k calls, but not for k: " address port address port ", in the order in which they were
// first called; port 0 where it calls no other port of the address for k.
func (d *Stages) Strangers(k capture.Endpoint) string {
	s := d.Service(k)
	if s == nil || s.host == nil {
		return ""
	}
	var b strings.Builder
	called := make(map[capture.Addr]bool)
	for callee := range s.host.callees.All {
		called[callee.Addr] = called[callee.Addr] || !s.Strange(callee)
	}
	for callee := range s.host.callees.All {
		if callee == k || !s.Strange(callee) || b.Len() >= maxStrangers {
			continue
		}
		fmt.Fprintf(&b, " %s %d", callee.Addr, callee.Port)
		if !called[callee.Addr] {
			fmt.Fprintf(&b, " %s 0", callee.Addr)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	return b.String()
}

// maxStrangers bounds the list, in bytes: some 16 servers.
const maxStrangers = 400

// forget ends the waits for names that are over.
func (d *Stages) forget(now capture.Instant) {
	timeout, longest, n := d.timeout(), DNSPatience[len(DNSPatience)-1]+analyze.WindowLength, 0
	for _, q := range d.asking {
		x, ok := d.names[q.number]
		if !ok {
			continue
		}
		if x.service != nil {
			if end := q.at.Add(timeout); end <= now {
				x.move(max(end, x.since), now, stageIdle)
				x.service = nil
			} else {
				x.count(now)
			}
			d.names[q.number] = x
		}
		if now.Sub(q.at) >= longest {
			delete(d.names, q.number)
			continue
		}
		d.asking[n] = q
		n++
	}
	d.asking = d.asking[:n]
}
