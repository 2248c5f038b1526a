package detect

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// DeadUpstream are the features of dead-upstream. Times in seconds.
type DeadUpstream struct {
	Attempts        int     `json:"attempts"`
	Failed          int     `json:"failed"`
	Share           float64 `json:"share"`
	ShareBefore     float64 `json:"share_before"`
	Baseline        float64 `json:"baseline"`
	SynUnanswered   int     `json:"syn_unanswered"`
	SynRepeats      int     `json:"syn_repeats"`
	Refused         int     `json:"refused"`
	NoAnswer        int     `json:"no_answer"`
	Class           string  `json:"class"`
	Wait            float64 `json:"wait"`
	RefuseDelay     float64 `json:"refuse_delay"`
	Lasting         float64 `json:"lasting"`
	SucceededBefore int     `json:"succeeded_before"`
	Silence         float64 `json:"silence"`
	OthersOK        int     `json:"others_ok"`
	OthersPeers     int     `json:"others_peers"`
	SameHostOK      int     `json:"same_host_ok"`
}

// The classes of dead-upstream.
const (
	classSilent  = "silent"
	classRefused = "refused"
	classHung    = "hung"
	classFull    = "full"
)

// deadUpstream follows the calls of this host, or of a host that serves others itself, to each server:
// whether connection requests are answered, and whether connections that are open get a byte.
type deadUpstream struct {
	callers  callers
	scanners *scanners // whose attempts are no calls; nil: nobody's
	requests requests
	states   subjects[callKey, upstreamState]
	opening  openingSockets
	calls    int
	failed   int
}

type upstreamState struct {
	connects series // bad: refused or ignored; total: connection requests
	fails    []failedCall
	stretch  stretch
	lastOK   capture.Instant
	heard    []capture.Instant // when the server sent a packet, other than RST: one a window, the newest
	ok       uint32            // calls that succeeded, ever
	late     []capture.Instant // requests that were answered after all, by their time
	hung     hungCalls
	lastAt   capture.Instant
}

// failedCall is a connection request that failed.
type failedCall struct {
	at       capture.Instant
	delay    time.Duration // SYN to RST
	ok       uint32        // calls that had succeeded by then
	refused  bool
	evidence analyze.Evidence
}

// maxFails bounds the failures that one subject remembers one by one: the first ones since the onset.
const maxFails = 512

// appendFirst appends x unless there are enough.
func appendFirst[T any](v []T, x T) []T {
	if len(v) >= maxFails {
		return v
	}
	return append(v, x)
}

func newDeadUpstream() analyze.Detector {
	d := &deadUpstream{callers: newCallers(), states: newSubjects[callKey, upstreamState](maxPerDetector), opening: newOpeningSockets()}
	d.requests = newRequests(d.outcome)
	return d
}

// Sample takes the socket tables.
func (d *deadUpstream) Sample(at capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		d.opening.sample(at, s.Sockets)
	}
}

func (d *deadUpstream) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dead-upstream", Features: DeadUpstream{},
		Events: requestEvents | hungEvents | heardEvents | flow.Of(flow.DNSAnswer)}
}

func (d *deadUpstream) Event(e *flow.Event) {
	if e.Kind == flow.DNSAnswer {
		// A name server that answers is a peer that is well, on its host's other ports too.
		if st := d.states.peek(callKey{e.DNS.Client.Addr, e.DNS.Server}); st != nil || d.callers.may(e.DNS.Client.Addr, e.DNS.Server.Addr) {
			if st = d.states.get(callKey{e.DNS.Client.Addr, e.DNS.Server}); st != nil {
				st.connects.add(0, 1, 0)
				st.lastAt = e.At
			}
		}
		return
	}
	c := e.Conn
	if c == nil {
		return
	}
	if e.Kind == flow.SynAckSent || e.Kind == flow.Response {
		d.callers.serving(c.Server.Addr)
	}
	if !d.callers.may(c.Client.Addr, c.Server.Addr) {
		return
	}
	d.requests.event(e)
	if fromServer(e) {
		if st := d.states.peek(callKey{c.Client.Addr, c.Server}); st != nil {
			if n := len(st.heard); n == 0 || e.At.Sub(st.heard[n-1]) >= analyze.WindowLength {
				st.heard = appendBounded(st.heard, e.At, seriesLen)
			}
		}
	}
	if hungEvents.Has(e.Kind) {
		if st := d.states.get(callKey{c.Client.Addr, c.Server}); st != nil {
			st.hung.event(e)
			st.lastAt = e.At
			if e.Kind == flow.Response {
				st.lastOK = e.At
			}
		}
	}
}

func (d *deadUpstream) outcome(_ *flow.Conn, o outcome, a *attempt, e *flow.Event) {
	k := a.key
	if d.scanners.aimed(k.client, k.server) {
		return
	}
	st := d.states.get(k)
	if st == nil {
		return
	}
	if e != nil {
		st.lastAt = e.At
	}
	switch o {
	case accepted:
		st.connects.add(0, 1, 0)
		st.stretch.good()
		st.lastOK = e.At
		st.ok++
		d.calls++
		return
	case answered:
		st.late = appendBounded(st.late, a.at, maxFails)
		st.lastOK = e.At
		return
	}
	f := failedCall{at: a.at, ok: st.ok, refused: o == refused}
	if f.refused {
		f.delay = e.At.Sub(a.at)
		f.evidence = a.evidence(e.Frame, "refused")
	} else {
		f.evidence = a.evidence(0, "no answer to the SYN")
	}
	d.calls++
	d.failed++
	st.connects.add(1, 1, a.at)
	st.stretch.bad(a.at)
	st.fails = appendFirst(st.fails, f)
}

func (d *deadUpstream) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !w.Have.Has(analyze.Packets) {
		d.opening.judge(w, emit) // with packets, they tell more
	}
	d.callers.judge(w)
	d.requests.judge(w)
	hungAfter := w.Params.Duration("hung_after")
	d.states.each(func(k callKey, st *upstreamState) bool {
		st.connects.roll()
		st.stretch.roll()
		st.hung.judge(w)
		if !d.callers.is(k.client, k.server.Addr) {
			return false
		}
		f, onset, evidence := st.measure(d, w, k)
		if f.Failed == 0 {
			if f, onset, evidence = st.hung.measure(w, hungAfter); f.Failed == 0 {
				return len(st.hung.waiting) > 0 || st.connects.since.bad > 0 || w.End.Sub(st.lastAt) < idleState
			}
		}
		if st.lastOK != 0 {
			f.Silence = w.End.Sub(st.lastOK).Seconds()
		}
		d.others(w, k, onset, &f)
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectUpstream, Host: k.client.String(),
			Peer: k.server.Addr.String(), Port: k.server.Port}, Onset: onset, Features: f, Evidence: evidence})
		return true
	})
}

// measure sums up the connection requests that failed.
func (st *upstreamState) measure(d *deadUpstream, w *analyze.Window, k callKey) (f DeadUpstream, onset capture.Instant, evidence []analyze.Evidence) {
	s := &st.connects
	onset = s.onset
	st.fails = slices.DeleteFunc(st.fails, func(f failedCall) bool { return f.at < onset || s.since.bad == 0 })
	if s.since.bad == 0 || s.over() {
		return f, 0, nil
	}
	f = DeadUpstream{Attempts: int(s.since.total), ShareBefore: s.before.share(), Baseline: s.beforeSpan,
		SucceededBefore: int(st.ok)}
	var delays []float64
	for i := range st.fails {
		x := &st.fails[i]
		f.SucceededBefore = min(f.SucceededBefore, int(x.ok))
		if x.refused {
			f.Refused++
			delays = append(delays, x.delay.Seconds())
		} else {
			f.SynUnanswered++
		}
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, x.evidence)
		}
	}
	// The list is bounded, the series is not.
	if n := f.Refused + f.SynUnanswered; n == maxFails && int(s.since.bad) > n {
		f.Refused = f.Refused * int(s.since.bad) / n
		f.SynUnanswered = int(s.since.bad) - f.Refused
	}
	// A request that is answered at a later try was held up, by loss or by a full
	// accept queue; its server is there.
	late := countSince(st.late, onset)
	f.SynUnanswered = max(f.SynUnanswered-late, 0)
	if late*5 > f.SynUnanswered {
		f.SynUnanswered = 0
	}
	f.Failed = f.Refused + f.SynUnanswered
	f.Share = ratio(f.Failed, f.Attempts)
	f.RefuseDelay = median(delays)
	f.Lasting = st.stretch.longest(onset).Seconds()
	f.Class = classRefused
	if f.SynUnanswered > f.Refused {
		f.Class = classSilent
		if st.heardBetween(onset) {
			f.Class = classFull
		}
	}
	if f.SynUnanswered > 0 {
		n, wait := d.requests.repeats(w, k, onset)
		f.SynRepeats, f.Wait = n, wait.Seconds()
	}
	return f, onset, evidence
}

// heardBetween reports whether the server was heard of after the first connection request that it ignored
// and before the last one.
func (st *upstreamState) heardBetween(onset capture.Instant) bool {
	var last capture.Instant
	for i := range st.fails {
		last = max(last, st.fails[i].at)
	}
	return slices.ContainsFunc(st.heard, func(h capture.Instant) bool { return h > onset.Add(heardSlack) && h < last })
}

// others counts the calls of the same host that went well meanwhile.
func (d *deadUpstream) others(w *analyze.Window, k callKey, onset capture.Instant, f *DeadUpstream) {
	windows := int(w.End.Sub(onset)/analyze.WindowLength) + 1
	peers := newSubjects[capture.Addr, struct{}](maxFails)
	// Called while states are gone through: the list of keys is being rewritten, the map is whole. Sums do not depend
	// on its order.
	for o, st := range d.states.m {
		if o.client != k.client || o == k {
			continue
		}
		ok := 0
		s := &st.connects
		for i := max(s.n-windows, 0); i < s.n; i++ {
			ok += int(s.ring[i].total - min(s.ring[i].bad, s.ring[i].total))
		}
		switch {
		case ok == 0:
		case o.server.Addr == k.server.Addr:
			f.SameHostOK += ok
		default:
			f.OthersOK += ok
			peers.get(o.server.Addr)
		}
	}
	f.OthersPeers = len(peers.keys)
}

func (d *deadUpstream) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.calls > 0 || d.opening.tables > 0, Features: DeadUpstream{Attempts: d.calls, Failed: d.failed,
		Share: ratio(d.failed, d.calls), Class: classSilent}}
}
