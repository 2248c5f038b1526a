package detect

import (
	"math"
	"math/bits"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
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
	*measure.Dials
	lookups  *measure.Lookups
	states   measure.Resolvers[unansweredState]
	answered measure.Subjects[capture.Addr, struct{}]
	cut      measure.Subjects[measure.CallKey, []tcpFailure] // who got truncated answers from whom, and cannot ask over TCP
	gone     stat.Worst                                      // of the states that were dropped
}

// tcpFailure is a connection to a DNS server that did not come about.
type tcpFailure struct {
	at      capture.Instant
	refused bool // else the SYN got no answer
}

type unansweredState struct {
	measure.Tally                  // of lookups that are decided; bad: unanswered
	bins          []dnsBin         // seconds that are not settled, and the settled ones of the series
	notes         []unansweredQ    // newest unanswered
	answers       []answerSize     // newest answers over UDP
	asking        capture.Instant  // first question since the last answer
	silence       time.Duration    // longest such time since the onset
	began         capture.Instant  // second of the first question
	asked         int              // questions in them
	answered      bool             // ever
	stray         capture.Endpoint // newest address that answered in place of the server
	same          int              // of those lost, asked again under the same id
	insists       bool             // an unanswered question was asked again, here or elsewhere, or ICMP answered it
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
	d := &dnsUnanswered{lookups: measure.NewLookups(), states: measure.NewResolvers[unansweredState](),
		answered: measure.NewSubjects[capture.Addr, struct{}](measure.MaxPerDetector),
		cut:      measure.NewSubjects[measure.CallKey, []tcpFailure](measure.MaxPerDetector)}
	d.lookups.Decided = d.decided
	d.share(measure.NewDials())
	return d
}

// Measures implements analyze.Measurer.
func (d *dnsUnanswered) Measures() []analyze.Measure { return []analyze.Measure{d.Dials, d.lookups} }

// share makes d read x, which others may read, too.
func (d *dnsUnanswered) share(x *measure.Dials) {
	d.Dials = x
	x.Requests.Tell(d.connected, d.isCut, measure.Refused, measure.Ignored)
}

// isCut reports whether the server of the connection of e gave its client an answer that did not fit.
func (d *dnsUnanswered) isCut(e *flow.Event) bool {
	c := e.Conn
	return len(d.cut.Keys) > 0 && d.cut.Peek(measure.CallOf(c)) != nil
}

func (d *dnsUnanswered) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-unanswered", Features: DNSUnanswered{}, Events: measure.LookupEvents}
}

func (d *dnsUnanswered) Event(e *flow.Event) {
	if e.DNS == nil {
		return
	}
	at, l := d.lookups.NewestAt, d.lookups.Newest
	st := d.states.Get(e.DNS)
	if st == nil {
		return
	}
	st.LastAt = max(st.LastAt, e.At)
	switch e.Kind {
	case flow.DNSQuery:
		if st.asking == 0 {
			st.asking = e.At
		}
	case flow.DNSStray, flow.ICMPError: // the capture shows what the asker receives
		d.answered.Get(e.DNS.Client.Addr)
	case flow.DNSAnswer, flow.DNSLate:
		if !st.answered {
			st.answered = true
			d.answered.Get(e.DNS.Client.Addr)
		}
		if st.asking != 0 {
			st.silence = max(st.silence, e.At.Sub(st.asking))
			st.asking = 0
		}
		if e.DNS.Proto == capture.ProtoUDP && !e.DNS.Truncated {
			st.answers = stat.AppendBounded(st.answers, answerSize{at, e.DNS.AnswerIPLen, e.DNS.QType}, maxDNSNotes)
		} else if e.DNS.Truncated {
			d.cut.Get(measure.CallKey{Client: e.DNS.Client.Addr, Server: e.DNS.Server})
		}
		switch {
		case l == nil && e.Kind == flow.DNSLate && !e.Rejected():
			st.bin(at).late++
		case l != nil && l.Over && !l.Again:
			b := st.bin(l.Began())
			st.count(l, b)
			if l.Tries > 1 {
				b.retried++
			}
			if e.DNS.Proto == capture.ProtoTCP {
				b.tcp++
			}
		}
	}
}

// count counts the group of l among all, once.
func (st *unansweredState) count(l *measure.Lookup, b *dnsBin) {
	if g := l.Group; g != nil {
		if g.Counted {
			return
		}
		g.Counted = true
	}
	b.Total++
	st.Total++
	st.asked++
	if l.Group != nil {
		st.asked += max(bits.OnesCount8(l.Group.Types), 1) - 1
	}
}

// missed is the share of lookups of which a capture that loses that share of the packets lacks an answer: it takes one for
// each of the questions that are asked together.
func (st *unansweredState) missed(share float64) float64 {
	return 1 - math.Pow(1-share, max(stat.Ratio(st.asked, st.Total), 1))
}

// fail counts the group of l among those that fail, once; it reports whether it did so now.
func (st *unansweredState) fail(l *measure.Lookup, b *dnsBin) bool {
	st.count(l, b)
	if g := l.Group; g != nil {
		if g.Failed {
			return false
		}
		g.Failed = true
	}
	b.Bad++
	st.Bad++
	return true
}

// connected takes what became of a connection to a server whose answers are too large for UDP.
func (d *dnsUnanswered) connected(_ *flow.Conn, o measure.Outcome, a *measure.Attempt, _ *flow.Event) {
	if fs := d.cut.Peek(a.Key); fs != nil {
		*fs = stat.AppendBounded(*fs, tcpFailure{a.At, o == measure.Refused}, maxDNSNotes)
	}
}

// cutOff returns the connection by which the asker of l tried to get the answer that did not fit UDP; nil if it did
// not try, or was not turned away.
func (d *dnsUnanswered) cutOff(l *measure.Lookup) *tcpFailure {
	fs := d.cut.Peek(measure.CallKey{Client: l.Client, Server: l.Server})
	if fs == nil {
		return nil
	}
	for i := len(*fs) - 1; i >= 0 && (*fs)[i].at >= l.CutAt; i-- {
		if (*fs)[i].at.Sub(l.CutAt) <= measure.AskTogether {
			return &(*fs)[i]
		}
	}
	return nil
}

// decided takes a lookup that ends without an answer.
func (d *dnsUnanswered) decided(w *analyze.Window, l *measure.Lookup) {
	st := d.states.Of(l)
	if st == nil {
		return
	}
	b := st.bin(l.Began())
	note := "no answer"
	var why *uint32 // counts those that fail for that reason
	switch {
	case l.Served, l.Stray.Port != 0 && l.Tries == 1 && l.Elsewhere == 0:
		st.count(l, b) // nobody waits, or whoever asked takes what it gets from anybody: it does not ask again
		return
	case l.Stray.Port != 0:
		st.stray, why = l.Stray, &b.strays
		note = "answered by " + l.Stray.String() + ", which was not asked"
	case l.Truncated && l.Proto == capture.ProtoUDP:
		f := d.cutOff(l)
		if f == nil {
			st.count(l, b) // what fits is enough for its asker
			return
		}
		if note, why = "answer truncated, TCP not answered", &b.silent; f.refused {
			note, why = "answer truncated, TCP refused", &b.refused
		}
	case l.Unreachable:
		why = &b.unreachable
	}
	counted := st.fail(l, b)
	if b.First == 0 || l.First < b.First {
		b.First = l.First
	}
	if counted && why != nil {
		*why++
	}
	if counted && l.Tries > 1 {
		b.retried++
	}
	if counted && l.Same {
		st.same++
	}
	st.insists = st.insists || l.Tries > 1 || l.Elsewhere > 0 || l.Unreachable
	q := unansweredQ{at: l.First, name: l.Name, text: w.Flows.DNSNameOf(l.Record, l.Name), qtype: l.Qtype,
		tries: int(l.Tries)}
	if counted {
		q.elsewhere = l.Elsewhere
	}
	if q.text != "" {
		note = flow.DNSType(l.Qtype) + " " + q.text + ": " + note
	}
	q.evidence = l.Evidence(note)
	if n := d.lookups.Known.Peek(measure.Question{Server: l.Server.Addr, Name: measure.NameAndType(l.Name, l.Qtype)}); n != nil {
		q.expected = n.Whole
	}
	st.notes = stat.AppendBounded(st.notes, q, maxDNSNotes)
}

func (d *dnsUnanswered) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	d.lookups.Judge(w)
	d.cut.Each(func(_ measure.CallKey, fs *[]tcpFailure) bool {
		return len(*fs) == 0 || w.End.Sub((*fs)[len(*fs)-1].at) < measure.IdleState
	})
	lossy := w.Flows.Stats.CaptureLossShare()
	var hear map[capture.Addr]struct{}
	d.states.Each(func(k measure.ResolverKey, st *unansweredState) bool {
		st.roll(w.End)
		s := &st.Series
		if s.Since.Bad == 0 {
			st.silence = 0
		}
		if quiet, keep := st.Quiet(w, &d.gone); quiet {
			return keep
		}
		f := DNSUnanswered{Queries: int(s.Since.Total), Unanswered: int(s.Since.Bad), Share: s.Since.Share(),
			ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan, CaptureLoss: st.missed(lossy)}
		// Without any answer in the capture, the server may be silent, or that direction was not captured. It was captured where
		// the host is seen to receive something else. And the server is silent where the asker asks again under the same id
		// most of the time: it does that when it has no answer.
		if !st.answered && 2*st.same < st.Bad && d.answered.Peek(k.Client) == nil {
			if hear == nil {
				hear = hearing(w)
			}
			_, hears := hear[w.Local.Host(k.Client)]
			f.OneWay = !hears
		}
		f.OneWay = f.OneWay || !st.answered && !w.Local.Is(k.Client) && !st.insists
		silence := st.silence
		if st.asking != 0 {
			silence = max(silence, w.End.Sub(max(st.asking, s.Onset)))
		}
		f.Silence = silence.Seconds()
		most := st.since(s.Onset, &f)
		// Many tries of one lookup are independent, too.
		tolerated := max(w.Params.Float("tolerated"), f.CaptureLoss) // the capture loses answers, too
		f.Chance = min(stat.AtLeast(f.Unanswered, f.Queries, tolerated), math.Pow(tolerated, float64(most)))
		emit(analyze.Symptom{Subject: k.Subject(), Onset: s.Onset, Features: f, Evidence: st.evidence(s.Onset), LastTry: s.LastTry(w.End), Well: s.Well(w.End.Add(-measure.DNSSettled))})
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
	d.states.Each(func(_ measure.ResolverKey, st *unansweredState) bool {
		x.Add(st.Bad, st.Total)
		same += st.same
		return true
	})
	f := DNSUnanswered{OneWay: w.Flows.DNSStats().OneWay() && same == 0}
	f.Unanswered, f.Queries = x.Of()
	f.Share = stat.Ratio(f.Unanswered, f.Queries)
	return analyze.Assessment{Assessable: f.Queries > 0 && !f.OneWay, Features: f}
}
