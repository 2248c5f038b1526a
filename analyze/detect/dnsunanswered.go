package detect

import (
	"math"
	"math/bits"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// DNSUnanswered are the features of dns-unanswered.
type DNSUnanswered struct {
	Queries         int     `json:"queries"`
	Unanswered      int     `json:"unanswered"`
	Share           float64 `json:"share"`
	ShareBefore     float64 `json:"share_before"`
	Baseline        float64 `json:"baseline"`
	Chance          float64 `json:"chance"`
	Tries           int     `json:"tries"`
	Retried         int     `json:"retried"`
	Names           int     `json:"names"`
	Answered        int     `json:"answered"`
	LargestAnswered int     `json:"largest_answered"`
	ExpectedSize    int     `json:"expected_size"`
	BigUnanswered   int     `json:"big_unanswered"`
	TCPAnswered     int     `json:"tcp_answered"`
	Unreachable     int     `json:"unreachable"`
	Elsewhere       int     `json:"elsewhere"`
	ElsewhereAfter  float64 `json:"elsewhere_after"`
	Strays          int     `json:"strays"`
	StrayFrom       string  `json:"stray_from"`
	TCPRefused      int     `json:"tcp_refused"`
	TCPSilent       int     `json:"tcp_silent"`
	Type            string  `json:"type"`
	Examples        string  `json:"examples"`
	OneWay          bool    `json:"one_way"`
	CaptureLoss     float64 `json:"capture_loss"`
	Silence         float64 `json:"silence"`
}

// dnsUnanswered counts, per asking host and server, the questions that nobody answers. A question
// counts in the second in which it was first asked, once all of that second are decided.
type dnsUnanswered struct {
	*dials
	lookups  *lookups
	states   resolvers[unansweredState]
	answered subjects[capture.Addr, struct{}]
	cut      subjects[callKey, []tcpFailure] // who got truncated answers from whom, and cannot ask over TCP
	gone     stat.Worst                      // of the states that were dropped
}

// tcpFailure is a connection to a DNS server that did not come about.
type tcpFailure struct {
	at      capture.Instant
	refused bool // else the SYN got no answer
}

type unansweredState struct {
	tally                     // of lookups that are decided; bad: unanswered
	bins     []dnsBin         // seconds that are not settled, and the settled ones of the series
	notes    []unansweredQ    // newest unanswered
	answers  []answerSize     // newest answers over UDP
	asking   capture.Instant  // first question since the last answer
	silence  time.Duration    // longest such time since the onset
	began    capture.Instant  // second of the first question
	asked    int              // questions in them
	answered bool             // ever
	stray    capture.Endpoint // newest address that answered in place of the server
	same     int              // of those lost, asked again under the same id
	insists  bool             // an unanswered question was asked again, here or elsewhere, or ICMP answered it
}

// dnsBin is a second, by the time of the question.
type dnsBin struct {
	start capture.Instant
	stat.Point
	retried, tcp, unreachable, late, refused, silent, strays uint32
	rolled                                                   bool
}

type unansweredQ struct {
	at        capture.Instant
	name      uint64
	text      string // the name
	qtype     uint16
	tries     int
	expected  uint32
	elsewhere time.Duration
	evidence  analyze.Evidence
}

type answerSize struct {
	at    capture.Instant
	size  uint32
	qtype uint16
}

// maxDNSNotes bounds the questions and answers that one subject remembers one by one.
const maxDNSNotes = 512

func newDNSUnanswered() analyze.Detector {
	d := &dnsUnanswered{lookups: newLookups(), states: newResolvers[unansweredState](),
		answered: newSubjects[capture.Addr, struct{}](maxPerDetector),
		cut:      newSubjects[callKey, []tcpFailure](maxPerDetector)}
	d.lookups.decided = d.decided
	d.share(newDials())
	return d
}

// Measures implements analyze.Measurer.
func (d *dnsUnanswered) Measures() []analyze.Measure { return []analyze.Measure{d.dials, d.lookups} }

// share makes d read x, which others may read, too.
func (d *dnsUnanswered) share(x *dials) {
	d.dials = x
	x.requests.tell(d.connected, d.isCut, refused, ignored)
}

// isCut reports whether the server of the connection of e gave its client an answer that did not fit.
func (d *dnsUnanswered) isCut(e *flow.Event) bool {
	c := e.Conn
	return len(d.cut.keys) > 0 && d.cut.peek(callKey{c.Client.Addr, c.Server}) != nil
}

func (d *dnsUnanswered) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-unanswered", Features: DNSUnanswered{}, Events: lookupEvents}
}

func (d *dnsUnanswered) Event(e *flow.Event) {
	if e.DNS == nil {
		return
	}
	at, l := d.lookups.newestAt, d.lookups.newest
	st := d.states.get(e.DNS)
	if st == nil {
		return
	}
	st.lastAt = max(st.lastAt, e.At)
	switch e.Kind {
	case flow.DNSQuery:
		if st.asking == 0 {
			st.asking = e.At
		}
	case flow.DNSStray, flow.ICMPError: // the capture shows what the asker receives
		d.answered.get(e.DNS.Client.Addr)
	case flow.DNSAnswer, flow.DNSLate:
		if !st.answered {
			st.answered = true
			d.answered.get(e.DNS.Client.Addr)
		}
		if st.asking != 0 {
			st.silence = max(st.silence, e.At.Sub(st.asking))
			st.asking = 0
		}
		if e.DNS.Proto == capture.ProtoUDP && !e.DNS.Truncated {
			st.answers = stat.AppendBounded(st.answers, answerSize{at, e.DNS.AnswerIPLen, e.DNS.QType}, maxDNSNotes)
		} else if e.DNS.Truncated {
			d.cut.get(callKey{e.DNS.Client.Addr, e.DNS.Server})
		}
		switch {
		case l == nil && e.Kind == flow.DNSLate && !e.Rejected():
			st.bin(at).late++
		case l != nil && l.over && !l.again:
			b := st.bin(l.began())
			st.count(l, b)
			if l.tries > 1 {
				b.retried++
			}
			if e.DNS.Proto == capture.ProtoTCP {
				b.tcp++
			}
		}
	}
}

// count counts the group of l among all, once.
func (st *unansweredState) count(l *lookup, b *dnsBin) {
	if g := l.group; g != nil {
		if g.counted {
			return
		}
		g.counted = true
	}
	b.Total++
	st.total++
	st.asked++
	if l.group != nil {
		st.asked += max(bits.OnesCount8(l.group.types), 1) - 1
	}
}

// missed is the share of lookups of which a capture that loses that share of the packets lacks an answer: it takes one for
// each of the questions that are asked together.
func (st *unansweredState) missed(share float64) float64 {
	return 1 - math.Pow(1-share, max(stat.Ratio(st.asked, st.total), 1))
}

// fail counts the group of l among those that fail, once; it reports whether it did so now.
func (st *unansweredState) fail(l *lookup, b *dnsBin) bool {
	st.count(l, b)
	if g := l.group; g != nil {
		if g.failed {
			return false
		}
		g.failed = true
	}
	b.Bad++
	st.bad++
	return true
}

// connected takes what became of a connection to a server whose answers are too large for UDP.
func (d *dnsUnanswered) connected(_ *flow.Conn, o outcome, a *attempt, _ *flow.Event) {
	if fs := d.cut.peek(a.key); fs != nil {
		*fs = stat.AppendBounded(*fs, tcpFailure{a.at, o == refused}, maxDNSNotes)
	}
}

// cutOff returns the connection by which the asker of l tried to get the answer that did not fit UDP; nil if it did
// not try, or was not turned away.
func (d *dnsUnanswered) cutOff(l *lookup) *tcpFailure {
	fs := d.cut.peek(callKey{l.client, l.server})
	if fs == nil {
		return nil
	}
	for i := len(*fs) - 1; i >= 0 && (*fs)[i].at >= l.cutAt; i-- {
		if (*fs)[i].at.Sub(l.cutAt) <= askTogether {
			return &(*fs)[i]
		}
	}
	return nil
}

// decided takes a lookup that ends without an answer.
func (d *dnsUnanswered) decided(w *analyze.Window, l *lookup) {
	st := d.states.numbered.get(l.resolver, &l.resolverKey)
	if st == nil {
		return
	}
	b := st.bin(l.began())
	note := "no answer"
	var why *uint32 // counts those that fail for that reason
	switch {
	case l.served, l.stray.Port != 0 && l.tries == 1 && l.elsewhere == 0:
		st.count(l, b) // nobody waits, or whoever asked takes what it gets from anybody: it does not ask again
		return
	case l.stray.Port != 0:
		st.stray, why = l.stray, &b.strays
		note = "answered by " + l.stray.String() + ", which was not asked"
	case l.truncated && l.proto == capture.ProtoUDP:
		f := d.cutOff(l)
		if f == nil {
			st.count(l, b) // what fits is enough for its asker
			return
		}
		if note, why = "answer truncated, TCP not answered", &b.silent; f.refused {
			note, why = "answer truncated, TCP refused", &b.refused
		}
	case l.unreachable:
		why = &b.unreachable
	}
	counted := st.fail(l, b)
	if b.First == 0 || l.first < b.First {
		b.First = l.first
	}
	if counted && why != nil {
		*why++
	}
	if counted && l.tries > 1 {
		b.retried++
	}
	if counted && l.same {
		st.same++
	}
	st.insists = st.insists || l.tries > 1 || l.elsewhere > 0 || l.unreachable || l.stray.Port != 0
	q := unansweredQ{at: l.first, name: l.name, text: w.Flows.DNSNameOf(l.record, l.name), qtype: l.qtype,
		tries: int(l.tries)}
	if counted {
		q.elsewhere = l.elsewhere
	}
	if q.text != "" {
		note = flow.DNSType(l.qtype) + " " + q.text + ": " + note
	}
	q.evidence = l.evidence(note)
	if n := d.lookups.known.peek(question{l.server.Addr, nameAndType(l.name, l.qtype)}); n != nil {
		q.expected = n.whole
	}
	st.notes = stat.AppendBounded(st.notes, q, maxDNSNotes)
}

func (d *dnsUnanswered) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.dials.judge(w)
	d.lookups.judge(w)
	d.cut.each(func(_ callKey, fs *[]tcpFailure) bool {
		return len(*fs) == 0 || w.End.Sub((*fs)[len(*fs)-1].at) < idleState
	})
	lossy := w.Flows.Stats.CaptureLossShare()
	var hear map[capture.Addr]struct{}
	d.states.each(func(k resolverKey, st *unansweredState) bool {
		st.roll(w.End)
		s := &st.series
		if s.Since.Bad == 0 {
			st.silence = 0
		}
		if quiet, keep := st.quiet(w, &d.gone); quiet {
			return keep
		}
		f := DNSUnanswered{Queries: int(s.Since.Total), Unanswered: int(s.Since.Bad), Share: s.Since.Share(),
			ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan, CaptureLoss: st.missed(lossy)}
		// Without any answer in the capture, the server may be silent, or that direction was not captured. It was captured where
		// the host is seen to receive something else. And the server is silent where the asker asks again under the same id
		// most of the time: it does that when it has no answer.
		if !st.answered && 2*st.same < st.bad && d.answered.peek(k.client) == nil {
			if hear == nil {
				hear = hearing(w)
			}
			_, hears := hear[w.Local.Host(k.client)]
			f.OneWay = !hears
		}
		f.OneWay = f.OneWay || !st.answered && !w.Local.Is(k.client) && !st.insists
		silence := st.silence
		if st.asking != 0 {
			silence = max(silence, w.End.Sub(max(st.asking, s.Onset)))
		}
		f.Silence = silence.Seconds()
		most := st.since(s.Onset, &f)
		// Many tries of one lookup are independent, too.
		tolerated := max(w.Params.Float("tolerated"), f.CaptureLoss) // the capture loses answers, too
		f.Chance = min(stat.AtLeast(f.Unanswered, f.Queries, tolerated), math.Pow(tolerated, float64(most)))
		emit(analyze.Symptom{Subject: k.subject(), Onset: s.Onset, Features: f, Evidence: st.evidence(s.Onset), LastTry: s.LastTry(w.End)})
		return true
	})
}

func (st *unansweredState) evidence(onset capture.Instant) (out []analyze.Evidence) {
	for i := range st.notes {
		if q := &st.notes[i]; q.at >= onset && len(out) < analyze.MaxEvidence {
			out = append(out, q.evidence)
		}
	}
	return out
}

// hearing are the hosts that are seen to receive data over TCP from a host to which they send: of them
// the capture shows both directions. One walk over the paths, and that only where a resolver is silent.
func hearing(w *analyze.Window) map[capture.Addr]struct{} {
	hear := make(map[capture.Addr]struct{})
	w.Flows.Paths(func(p *flow.Path) {
		if p.Side[0].Segments > 0 && p.Side[1].Segments > 0 {
			hear[w.Local.Host(p.A)], hear[w.Local.Host(p.B)] = struct{}{}, struct{}{}
		}
	})
	return hear
}

func (d *dnsUnanswered) Assess(w *analyze.Window) analyze.Assessment {
	x, same := d.gone, 0
	d.states.each(func(_ resolverKey, st *unansweredState) bool {
		x.Add(st.bad, st.total)
		same += st.same
		return true
	})
	f := DNSUnanswered{OneWay: w.Flows.DNSStats().OneWay() && same == 0}
	f.Unanswered, f.Queries = x.Of()
	f.Share = stat.Ratio(f.Unanswered, f.Queries)
	return analyze.Assessment{Assessable: f.Queries > 0 && !f.OneWay, Features: f}
}
