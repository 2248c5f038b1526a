package detect

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
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
	OneWay          bool    `json:"one_way"`
	CaptureLoss     float64 `json:"capture_loss"`
	Silence         float64 `json:"silence"`
}

// dnsUnanswered counts, per asking host and server, the questions that nobody answers. A question
// counts in the second in which it was first asked, once all of that second are decided.
type dnsUnanswered struct {
	lookups  lookups
	states   resolvers[unansweredState]
	sizes    subjects[question, uint32] // IP length of the largest answer over UDP
	answered subjects[capture.Addr, struct{}]
	queries  int
	lost     int
}

type unansweredState struct {
	series   series
	bins     []dnsBin        // seconds that are not settled, and the settled ones of the series
	notes    []unansweredQ   // newest unanswered
	answers  []answerSize    // newest answers over UDP
	asking   capture.Instant // first question since the last answer
	silence  time.Duration   // longest such time since the onset
	began    capture.Instant // second of the first question
	lastAt   capture.Instant
	answered bool // ever
}

// dnsBin is a second, by the time of the question.
type dnsBin struct {
	start capture.Instant
	point
	retried, tcp, unreachable, late uint32
	rolled                          bool
}

type unansweredQ struct {
	at        capture.Instant
	name      uint64
	tries     int
	expected  uint32
	elsewhere time.Duration
	evidence  analyze.Evidence
}

type answerSize struct {
	at   capture.Instant
	size uint32
}

// maxDNSNotes bounds the questions and answers that one subject remembers one by one.
const maxDNSNotes = 512

func newDNSUnanswered() analyze.Detector {
	return &dnsUnanswered{lookups: newLookups(), states: newResolvers[unansweredState](),
		sizes: newSubjects[question, uint32](maxPerDetector), answered: newSubjects[capture.Addr, struct{}](maxPerDetector)}
}

func (d *dnsUnanswered) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-unanswered", Features: DNSUnanswered{}, Events: lookupEvents}
}

func (d *dnsUnanswered) Event(e *flow.Event) {
	if e.DNS == nil {
		return
	}
	at, l := d.lookups.event(e)
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
		if l != nil && l.first == e.At && !l.again {
			d.queries++
		}
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
			if n := d.sizes.get(questionOf(e.DNS)); n != nil {
				*n = max(*n, e.DNS.AnswerIPLen)
			}
			st.answers = appendBounded(st.answers, answerSize{at, e.DNS.AnswerIPLen}, maxDNSNotes)
		}
		switch {
		case l == nil && e.Kind == flow.DNSLate && !e.Flag:
			st.bin(at).late++
		case l != nil && l.over && !l.again:
			b := st.bin(l.first)
			b.total++
			if l.tries > 1 {
				b.retried++
			}
			if e.DNS.Proto == capture.ProtoTCP {
				b.tcp++
			}
		}
	}
}

func (d *dnsUnanswered) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.lookups.judge(w.End, func(l *lookup) {
		st := d.states.numbered.get(l.resolver, &l.resolverKey)
		if st == nil {
			return
		}
		d.lost++
		b := st.bin(l.first)
		b.total++
		b.bad++
		if b.first == 0 || l.first < b.first {
			b.first = l.first
		}
		if l.tries > 1 {
			b.retried++
		}
		if l.unreachable {
			b.unreachable++
		}
		q := unansweredQ{at: l.first, name: l.name, tries: int(l.tries), elsewhere: l.elsewhere, evidence: l.evidence("no answer")}
		if n := d.sizes.peek(question{l.server.Addr, nameAndType(l.name, l.qtype)}); n != nil {
			q.expected = *n
		}
		st.notes = appendBounded(st.notes, q, maxDNSNotes)
	})
	lossy := w.Flows.Stats.CaptureLossShare()
	var hear map[capture.Addr]struct{}
	d.states.each(func(k resolverKey, st *unansweredState) bool {
		st.roll(w.End)
		s := &st.series
		if s.since.bad == 0 {
			st.silence = 0
			return w.End.Sub(st.lastAt) < idleState
		}
		if s.over() {
			return true
		}
		f := DNSUnanswered{Queries: int(s.since.total), Unanswered: int(s.since.bad), Share: s.since.share(),
			ShareBefore: s.before.share(), Baseline: s.beforeSpan, CaptureLoss: lossy}
		// Without any answer in the capture, nothing tells silence from a direction that was not
		// captured, unless the host is seen to receive something else.
		if !st.answered && d.answered.peek(k.client) == nil {
			if hear == nil {
				hear = hearing(w)
			}
			_, hears := hear[k.client]
			f.OneWay = !hears
		}
		silence := st.silence
		if st.asking != 0 {
			silence = max(silence, w.End.Sub(max(st.asking, s.onset)))
		}
		f.Silence = silence.Seconds()
		most := st.since(s.onset, &f)
		// Many tries of one lookup are independent, too.
		tolerated := max(w.Params.Float("min_share"), lossy) // the capture loses answers, too
		f.Chance = min(atLeast(f.Unanswered, f.Queries, tolerated), math.Pow(tolerated, float64(most)))
		emit(analyze.Symptom{Subject: k.subject(), Onset: s.onset, Features: f, Evidence: st.evidence(s.onset)})
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
			hear[p.A], hear[p.B] = struct{}{}, struct{}{}
		}
	})
	return hear
}

// appendBounded appends x. When there are limit, the oldest quarter goes, so that the cost of moving
// the others is shared.
func appendBounded[T any](v []T, x T, limit int) []T {
	if len(v) >= limit {
		v = v[:copy(v, v[limit/4:])]
	}
	return append(v, x)
}

func (d *dnsUnanswered) Assess(w *analyze.Window) analyze.Assessment {
	one := w.Flows.DNSStats().OneWay()
	return analyze.Assessment{Assessable: d.queries > 0 && !one, Features: DNSUnanswered{Queries: d.queries,
		Unanswered: d.lost, Share: ratio(d.lost, d.queries), OneWay: one}}
}
