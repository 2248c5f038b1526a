package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// DNSDelay are the features of dns-delay. Times in seconds.
type DNSDelay struct {
	Queries   int     `json:"queries"`
	Answered  int     `json:"answered"`
	P50       float64 `json:"p50"`
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
	P50Before float64 `json:"p50_before"`
	P95Before float64 `json:"p95_before"`
	Baseline  float64 `json:"baseline"`
	Slow      int     `json:"slow"`
	Cold      int     `json:"cold"`
	Chance    float64 `json:"chance"`
	Lasting   float64 `json:"lasting"`
	Late      int     `json:"late"`
	Retried   int     `json:"retried"`
	Quantised float64 `json:"quantised"`
	Names     int     `json:"names"`
	Noise     int     `json:"noise"`
}

// dnsDelay measures, per asking host and server, how long a program waits for the answer to a
// name: from its first query to the answer, all tries at that server included.
type dnsDelay struct {
	states resolvers[delayState]
	known  subjects[question, bool]          // names that a server has answered before
	chains subjects[uint64, capture.Instant] // lookups, by number, that were answered, and when lately
	slow   time.Duration                     // the rule's threshold, as of the last window
	served latencies                         // all answers, for the assessment
}

type delayState struct {
	series series // of all measured answers; bad: slow
	cold   series // of the answers to names that the server had not answered before
	recent []answerTime
	before latencies
	late   []capture.Instant // when those questions were asked
	lateN  int               // of them, those since onset
	onset  capture.Instant
	noise  []capture.Instant
	lastAt capture.Instant
}

// answerTime is one answer.
type answerTime struct {
	at       capture.Instant // asked
	wait     time.Duration
	name     uint64
	cold     bool // the first answer to that name
	retried  bool
	repeated bool // came at once after the question was asked again: the first was lost
	evidence analyze.Evidence
}

const (
	// slowDNS is the threshold of the rule until its own value is known, which is with the first window.
	slowDNS = 200 * time.Millisecond
	// coldBaseline is how many answers to new names must have been seen before the onset
	// for slow ones to count: a recursive server is slow with what it does not know.
	coldBaseline = 10
	// slowTolerated is the share of slow answers at which p95 is the threshold.
	slowTolerated = 0.05
	// rcodeNameError is NXDOMAIN (RFC 1035 §4.1.1).
	rcodeNameError = 3
)

func newDNSDelay() analyze.Detector {
	return &dnsDelay{states: newResolvers[delayState](),
		known: newSubjects[question, bool](maxPerDetector), chains: newSubjects[uint64, capture.Instant](maxLookups),
		slow: slowDNS}
}

func (d *dnsDelay) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-delay", Features: DNSDelay{}, Events: flow.Of(flow.DNSAnswer, flow.DNSLate)}
}

func (d *dnsDelay) Event(e *flow.Event) {
	q := e.DNS
	if q == nil {
		return
	}
	st := d.states.get(q)
	if st == nil {
		return
	}
	st.lastAt = max(st.lastAt, e.At)
	if e.Kind == flow.DNSLate {
		st.late = appendBounded(st.late, q.First, maxDNSNotes)
		st.lateN++
		if e.Flag {
			return // its answer is counted; now the asker's host says that nobody waits for it any more
		}
	}
	if q.Truncated && q.Proto == capture.ProtoUDP {
		return // the answer proper comes over TCP
	}
	asked, tries := q.LookupAt, q.Tries
	if at := d.chains.get(q.Lookup); at != nil {
		if *at != 0 {
			// The lookup has got its answer: what looked like another try was somebody else's question.
			asked, tries = q.First, q.Repeats+1
		}
		*at = e.At
	}
	wait := e.At.Sub(asked)
	slow := wait >= d.slow
	if !slow && (q.Rcode == rcodeNameError || q.Rcode == 0 && q.Records == 0) {
		// Names of the search list and types that a name has not got: asked along with
		// the real question, and fast.
		st.noise = appendBounded(st.noise, asked, maxDNSNotes)
		return
	}
	cold := true
	if known := d.known.get(questionOf(q)); known != nil {
		cold, *known = !*known, true
	}
	d.served.add(wait)
	a := answerTime{at: asked, wait: wait, name: q.NameHash, cold: cold, retried: tries > 1,
		repeated: tries > 1 && e.At.Sub(q.Last) < d.slow}
	bad := uint32(0)
	if slow {
		bad = 1
		a.evidence = analyze.Evidence{At: asked, Flow: q.Client.String() + " > " + q.Server.String(),
			Note: "answered after " + wait.Round(time.Millisecond).String()}
		if q.QueryFrame != 0 && e.Frame != 0 {
			a.evidence.Frames = []uint64{q.QueryFrame, e.Frame}
		}
	}
	if cold {
		st.cold.add(bad, 1, a.at)
	}
	st.series.add(bad, 1, a.at)
	if len(st.recent) == maxDNSNotes {
		for i := range maxDNSNotes / 4 { // that appendBounded drops
			if old := &st.recent[i]; !st.series.locked || old.at < st.series.onset {
				st.before.add(old.wait)
			}
		}
	}
	st.recent = appendBounded(st.recent, a, maxDNSNotes)
}

func (d *dnsDelay) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.slow = w.Params.Duration("warn_p95")
	d.chains.each(func(_ uint64, at *capture.Instant) bool { return w.End.Sub(*at) < stallPause })
	d.states.each(func(k resolverKey, st *delayState) bool {
		st.series.roll()
		st.cold.roll()
		s := &st.series
		if s.since.bad == 0 {
			return w.End.Sub(st.lastAt) < idleState
		}
		if s.over() {
			return true
		}
		f, evidence := st.measure(d.slow)
		emit(analyze.Symptom{Subject: k.subject(), Onset: s.onset, Features: f, Evidence: evidence})
		return true
	})
}

func (st *delayState) measure(slow time.Duration) (f DNSDelay, evidence []analyze.Evidence) {
	s := &st.series
	f = DNSDelay{Queries: int(s.since.total), Answered: int(s.since.total), Baseline: s.beforeSpan}
	// New names count when answers to new names were fast before; or when half of all answers
	// take a second, which no recursive server needs.
	var all, waits []float64
	for i := range st.recent {
		if a := &st.recent[i]; a.at >= s.onset {
			all = append(all, a.wait.Seconds())
		}
	}
	coldCounts := st.cold.locked && st.cold.before.total >= coldBaseline || median(all) >= slowAnswer.Seconds()
	names := newSubjects[uint64, struct{}](maxDNSNotes)
	repeated, slowAll := 0, 0
	var first, last capture.Instant // slow ones
	before := st.before
	for i := range st.recent {
		a := &st.recent[i]
		if a.at < s.onset {
			before.add(a.wait)
			continue
		}
		f.Max = max(f.Max, a.wait.Seconds())
		if a.retried {
			f.Retried++
		}
		if a.wait >= slow {
			slowAll++
			if a.cold {
				f.Cold++
			}
		}
		if a.cold && !coldCounts {
			continue
		}
		waits = append(waits, a.wait.Seconds())
		if a.wait < slow {
			continue
		}
		f.Slow++
		if first == 0 || a.at < first {
			first = a.at
		}
		last = max(last, a.at)
		names.get(a.name)
		if a.repeated {
			repeated++
		}
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, a.evidence)
		}
	}
	f.P50, f.P95, f.P99 = quantile(waits, 0.5), quantile(waits, 0.95), quantile(waits, 0.99)
	f.P50Before, f.P95Before = before.quantile(0.5), before.quantile(0.95)
	f.Names, f.Quantised = len(names.keys), ratio(repeated, f.Slow) // before f.Slow is scaled
	f.Lasting = last.Sub(first).Seconds()
	if st.onset != s.onset {
		st.onset, st.lateN = s.onset, countSince(st.late, s.onset)
	}
	f.Late, f.Noise = st.lateN, countSince(st.noise, s.onset)
	f.Chance = atLeast(f.Slow, len(waits), slowTolerated)
	// The list is bounded, the series is not.
	if slowAll > 0 && len(all) > 0 {
		f.Slow = f.Slow * int(s.since.bad) / slowAll
		f.Answered = len(waits) * int(s.since.total) / len(all)
	}
	return f, evidence
}

// countSince counts the instants that are not before at.
func countSince(v []capture.Instant, at capture.Instant) (n int) {
	for _, x := range v {
		if x >= at {
			n++
		}
	}
	return n
}

func (d *dnsDelay) Assess(w *analyze.Window) analyze.Assessment {
	n := int(d.served.n)
	return analyze.Assessment{Assessable: n >= w.Params.Int("min_answered"), Features: DNSDelay{Queries: n, Answered: n,
		P50: d.served.quantile(0.5), P95: d.served.quantile(0.95), P99: d.served.quantile(0.99)}}
}
