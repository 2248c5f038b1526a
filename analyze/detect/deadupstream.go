package detect

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
	"jindan/rules"
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
	Spread          float64 `json:"spread"`
	SucceededBefore int     `json:"succeeded_before"`
	Silence         float64 `json:"silence"`
	OthersOK        int     `json:"others_ok"`
	OthersPeers     int     `json:"others_peers"`
	SameHostOK      int     `json:"same_host_ok"`
	Fallback        int     `json:"fallback"`
	Unreached       int     `json:"unreached"`
	Small           bool    `json:"small"`
	Looped          int     `json:"looped"`
	Expired         int     `json:"expired"`
	Peers           int     `json:"peers"`
}

// The classes of dead-upstream.
const (
	classSilent  = "silent"
	classGone    = "gone"
	classRefused = "refused"
	classHung    = "hung"
	classFull    = "full"
)

// deadUpstream follows the calls of this host, or of a host that serves others itself, to each server:
// whether connection requests are answered, and whether connections that are open get a byte.
type deadUpstream struct {
	*measure.Dials
	asks     measure.Askers    // whom dials knows it by
	scanners *measure.Scanners // whose attempts are no calls; nil: nobody's
	states   measure.Subjects[measure.CallKey, upstreamState]
	opening  openingSockets
	habit    habit
	calls    int
	failed   int
	worst    float64      // share of failed calls of the worst upstream that has been forgotten
	accepted []acceptedV4 // newest calls over IPv4 that were accepted
	beside   *besides     // of the window that is being judged
}

// acceptedV4 is a call over IPv4 that was accepted.
type acceptedV4 struct {
	port uint16
	at   capture.Instant
}

type upstreamState struct {
	connects   stat.Series // bad: refused or ignored; total: connection requests
	fails      []failedCall
	stretch    stat.Runs
	lastOK     capture.Instant
	acceptedAt capture.Instant   // newest call that was accepted
	heard      []capture.Instant // when the server sent a packet, other than RST: one a window, the newest
	ok         uint32            // calls that succeeded, ever
	answers    measure.Direction
	late       []capture.Instant // requests that were answered after all, by their time
	hung       hungCalls
	hungTo     capture.Instant // all calls hung until then
	lastAt     capture.Instant
	all        stat.Point    // calls that failed, of all
	looped     int           // packets that came by again and again, with a falling TTL
	expired    int           // ICMP said that the TTL was used up
	repeats    int           // of the SYNs that nothing has answered since the onset
	wait       time.Duration // the longest wait of these
}

type failedCall struct {
	measure.Failure
	unreached bool // the SYN is known from an ICMP error only
	fallback  bool // over IPv6, and the same port was reached over IPv4 meanwhile (RFC 8305)
}

// maxAccepted bounds the calls over IPv4 that are remembered: those of the last seconds count.
const maxAccepted = 64

func newDeadUpstream() analyze.Detector {
	d := &deadUpstream{states: measure.NewSubjects[measure.CallKey, upstreamState](measure.MaxPerDetector), opening: newOpeningSockets()}
	d.share(measure.NewDials())
	return d
}

// share makes d read x, which others may read, too.
func (d *deadUpstream) share(x *measure.Dials) {
	d.Dials = x
	d.asks = x.Requests.Tell(d.outcome, d.mine, measure.Accepted, measure.Answered, measure.Refused, measure.Ignored)
}

// mine is may for the ends of the connection of e.
func (d *deadUpstream) mine(e *flow.Event) bool {
	return d.Callers.MayEvent(e) || !d.Callers.Local.Known()
}

// Measures implements analyze.Measurer.
func (d *deadUpstream) Measures() []analyze.Measure {
	return append(d.Dials.Measures(), d.opening.Measures()...)
}

// Sample takes the socket tables.
func (d *deadUpstream) Sample(at capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		d.opening.sample(at)
	}
}

// Configure takes what makes a kind of request usual.
func (d *deadUpstream) Configure(p rules.Params) {
	d.habit = habit{uint32(p.Int("min_answered")), p.Duration("min_habit")}
}

func (d *deadUpstream) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dead-upstream", Features: DeadUpstream{},
		Events: hungEvents | heardEvents | flow.Of(flow.SynAckSent, flow.DNSAnswer, flow.Unreached, flow.Copy, flow.ICMPError)}
}

func (d *deadUpstream) Event(e *flow.Event) {
	if e.Kind == flow.DNSAnswer {
		// A name server that answers is a peer that is well, on its host's other ports too.
		if st := d.states.Peek(measure.CallKey{Client: e.DNS.Client.Addr, Server: e.DNS.Server}); st != nil || d.Callers.May(e.DNS.Client.Addr, e.DNS.Server.Addr) {
			if st = d.states.Get(measure.CallKey{Client: e.DNS.Client.Addr, Server: e.DNS.Server}); st != nil {
				st.connects.Add(0, 1, 0)
				st.lastAt = e.At
			}
		}
		return
	}
	c := e.Conn
	if c == nil {
		if e.Kind == flow.Unreached && d.may(e.From.Addr, e.To.Addr) {
			d.outcome(nil, measure.Unreached, &measure.Attempt{Key: measure.CallKey{Client: e.From.Addr, Server: e.To}, At: e.At, Port: e.From.Port}, e)
		}
		return
	}
	if e.Kind == flow.SynAckSent && c.Server.Addr.Netip().Is4() && !d.Callers.Local.Is(c.Server.Addr) {
		// The host may call from another address there than the one that is known to be its own.
		d.accepted = stat.AppendBounded(d.accepted, acceptedV4{c.Server.Port, c.SynAt()}, maxAccepted)
	}
	if !d.mine(e) {
		return
	}
	if loops, expired := e.Hops() >= loopHops, e.TimeExceeded(); loops || expired {
		if st := d.states.Get(measure.CallOf(c)); st != nil {
			st.looped += measure.Count(loops)
			st.expired += measure.Count(expired)
		}
	}
	if fromServer(e) {
		if st := d.states.Peek(measure.CallOf(c)); st != nil {
			if n := len(st.heard); n == 0 || e.At.Sub(st.heard[n-1]) >= analyze.WindowLength {
				st.heard = stat.AppendBounded(st.heard, e.At, stat.SeriesLen)
			}
		}
	}
	if hungEvents.Has(e.Kind) {
		if st := d.states.Get(measure.CallOf(c)); st != nil {
			st.hung.habit = d.habit
			st.hung.event(e)
			st.lastAt = e.At
			if e.Kind == flow.Response {
				st.lastOK = e.At
			}
		}
	}
}

// loopHops is by how much the TTL of a packet has to fall between two times that it is captured to say that it goes round in a circle: no
// host that captures on several interfaces passes it on so often.
const loopHops = 16

func (d *deadUpstream) outcome(_ *flow.Conn, o measure.Outcome, a *measure.Attempt, e *flow.Event) {
	k := a.Key
	if d.scanners.Aimed(k.Client, k.Server) {
		return
	}
	st := d.states.Get(k)
	if st == nil {
		return
	}
	if st.lastAt = max(st.lastAt, a.At); e != nil {
		st.lastAt = e.At
	}
	switch o {
	case measure.Accepted:
		st.answers.Event(e)
		st.connects.Add(0, 1, 0)
		st.stretch.Good()
		st.lastOK, st.acceptedAt = e.At, e.At
		st.ok++
		st.all.Total++
		d.calls++
		return
	case measure.Answered:
		st.late = stat.AppendBounded(st.late, a.At, measure.MaxFails)
		st.lastOK = e.At
		return
	}
	f := failedCall{Failure: measure.FailureOf(a, o, e, st.ok), unreached: o == measure.Unreached}
	if !a.Key.Server.Addr.Netip().Is4() {
		f.fallback = slices.ContainsFunc(d.accepted, func(x acceptedV4) bool {
			return x.port == a.Key.Server.Port && x.at >= a.At && x.at.Sub(a.At) < measure.IgnoredAfter
		})
	}
	d.calls++
	d.failed++
	st.all.Total++
	st.all.Bad++
	st.connects.Add(1, 1, a.At)
	st.stretch.Bad(a.At)
	st.fails = measure.AppendFirst(st.fails, f)
}

func (d *deadUpstream) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !w.Have.Has(analyze.Packets) {
		d.opening.judge(w, emit) // with packets, they tell more
	}
	d.Dials.Judge(w)
	hungAfter := w.Params.Duration("hung_after")
	d.Requests.IgnoredOnes(w, d.asks, func(a *measure.Attempt, repeats int, wait time.Duration) {
		if st := d.states.Peek(a.Key); st != nil && a.At >= st.connects.Onset {
			st.lastAt = max(st.lastAt, a.At.Add(wait))
			st.repeats += repeats
			st.wait = max(st.wait, wait)
		}
	})
	d.beside = nil
	d.states.Each(func(_ measure.CallKey, st *upstreamState) bool {
		st.connects.Roll()
		st.stretch.Roll()
		st.hung.judge(w)
		return true
	})
	small := measure.FewConns(w)
	var list []upstreamSymptom
	d.states.Each(func(k measure.CallKey, st *upstreamState) bool {
		repeats, wait := st.repeats, st.wait
		st.repeats, st.wait = 0, 0
		if !d.Callers.Is(k.Client, k.Server.Addr) && !(small && d.may(k.Client, k.Server.Addr)) {
			return !w.Final && d.may(k.Client, k.Server.Addr) && w.End.Sub(st.lastAt) < measure.IdleState
		}
		f, onset, evidence := st.measure(w, repeats, wait)
		if f.Failed == 0 || f.Class == classFull {
			// A program that stands still fills its queue: what is full is then the effect.
			if h, since, calls := st.hung.measure(w, hungAfter); h.Failed > 0 {
				f, onset, evidence = h, since, calls
				st.hungTo = w.End
			} else if f.Failed == 0 || !st.failedAfter(st.hungTo) {
				if len(st.hung.waiting) > 0 || st.connects.Since.Bad > 0 || w.End.Sub(st.lastAt) < measure.IdleState {
					return true
				}
				d.worst = max(d.worst, st.all.Share())
				return false
			}
		}
		if st.lastOK != 0 {
			f.Silence = w.End.Sub(st.lastOK).Seconds()
		}
		d.others(w, k, onset, &f)
		f.Small, f.Looped, f.Expired = small, st.looped, st.expired
		list = append(list, upstreamSymptom{k, f, onset, st.lastOK, evidence, st.lastTry(&f), st.well(w, &f, onset)})
		return true
	})
	for _, x := range d.outbound(w, list, emit) {
		emit(analyze.Symptom{Subject: measure.Upstream(x.k.Client, x.k.Server), Onset: x.onset, Features: x.f, Evidence: x.evidence, LastTry: x.lastTry, Well: x.well})
	}
}

// lastTry is when the server was last tried; 0: somebody waits for it.
func (st *upstreamState) lastTry(f *DeadUpstream) capture.Instant {
	if f.Class == classHung || len(st.hung.waiting) > 0 {
		return 0
	}
	return st.lastAt
}

// well is since when the server takes connections again and answers on them; 0: it does not, or may do so by chance. Who keeps
// a connection does not ask for another to say so.
func (st *upstreamState) well(w *analyze.Window, f *DeadUpstream, onset capture.Instant) capture.Instant {
	if f.Class == classHung || len(st.fails) == 0 {
		return 0
	}
	var last capture.Instant
	for i := range st.fails {
		last = max(last, st.fails[i].At)
	}
	if st.acceptedAt > last && st.lastOK > st.acceptedAt && stat.Ceased(f.Failed, last.Sub(onset), w.End.Sub(last)) {
		return last
	}
	return st.connects.Well(w.End)
}

// may reports whether the calls from client to server may be an upstream's: where no address counts as this host,
// anybody's, as long as there are few.
func (d *deadUpstream) may(client, server capture.Addr) bool {
	return d.Callers.May(client, server) || !d.Callers.Local.Known()
}

// measure sums up the connection requests that failed.
func (st *upstreamState) measure(w *analyze.Window, repeats int, wait time.Duration) (f DeadUpstream, onset capture.Instant, evidence []analyze.Evidence) {
	s := &st.connects
	onset = s.Onset
	st.fails = slices.DeleteFunc(st.fails, func(f failedCall) bool { return f.At < onset || s.Since.Bad == 0 })
	if s.Since.Bad == 0 || s.Over() {
		return f, 0, nil
	}
	f = DeadUpstream{Attempts: int(s.Since.Total), ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan,
		SucceededBefore: int(st.ok)}
	var delays []float64
	for i := range st.fails {
		x := &st.fails[i]
		f.SucceededBefore = min(f.SucceededBefore, int(x.Before))
		if x.Refused {
			f.Refused++
			delays = append(delays, x.Delay.Seconds())
		} else {
			f.SynUnanswered++
			f.Unreached += measure.Count(x.unreached)
		}
		f.Fallback += measure.Count(x.fallback)
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, x.Evidence)
		}
	}
	f.Refused, f.SynUnanswered = measure.OfAll(f.Refused, f.SynUnanswered, s.Since.Bad)
	// A request that is answered at a later try was held up, by loss or by a full
	// accept queue; its server is there.
	late := countSince(st.late, onset)
	f.SynUnanswered = max(f.SynUnanswered-late, 0)
	if st.answers.Missing() || float64(late) > w.Params.Float("max_late")*float64(f.SynUnanswered) {
		f.SynUnanswered = 0
	}
	f.Failed = f.Refused + f.SynUnanswered
	f.Share = stat.Ratio(f.Failed, f.Attempts)
	f.RefuseDelay = stat.Median(delays)
	f.Lasting = st.stretch.Longest(onset).Seconds()
	for i := range st.fails {
		f.Spread = max(f.Spread, st.fails[i].At.Sub(onset).Seconds())
	}
	f.Class = classRefused
	if f.SynUnanswered > f.Refused {
		switch f.Class = classSilent; {
		case st.heardBetween(onset):
			f.Class = classFull
		case st.hung.unheard(w, measure.IgnoredAfter):
			f.Class = classGone
		}
	}
	if 2*f.Fallback < f.Failed {
		f.Fallback = 0 // some other call over IPv4 begins by chance within that time
	}
	if f.SynUnanswered > 0 {
		f.SynRepeats, f.Wait = repeats, wait.Seconds()
	}
	return f, onset, evidence
}

// failedAfter reports whether a connection request failed later than t.
func (st *upstreamState) failedAfter(t capture.Instant) bool {
	return slices.ContainsFunc(st.fails, func(f failedCall) bool { return f.At > t })
}

// heardBetween reports whether the server was heard of after the first connection request that it ignored
// and before the last one.
func (st *upstreamState) heardBetween(onset capture.Instant) bool {
	var last capture.Instant
	for i := range st.fails {
		last = max(last, st.fails[i].At)
	}
	return slices.ContainsFunc(st.heard, func(h capture.Instant) bool { return h > onset.Add(heardSlack) && h < last })
}

func (d *deadUpstream) Assess(w *analyze.Window) analyze.Assessment {
	f := DeadUpstream{Attempts: d.calls, Failed: d.failed, Share: d.worst, Class: classSilent}
	after := w.Params.Duration("hung_after")
	for k, st := range d.states.All {
		if d.Callers.Is(k.Client, k.Server.Addr) || measure.FewConns(w) {
			f.Share = max(f.Share, st.all.Share())
			f.NoAnswer += st.hung.unanswered(w, after)
		}
	}
	return analyze.Assessment{Assessable: d.calls > 0 || d.opening.Every.First != 0, Features: f}
}
