package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
	"jindan/rules"
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
	// Of lookups: the questions for one name that are asked together.
	Lookups       int     `json:"lookups"`
	TimedOut      int     `json:"timed_out"`
	TimeoutShare  float64 `json:"timeout_share"`
	TimeoutChance float64 `json:"timeout_chance"`
	Timeout       float64 `json:"timeout"`
	Paired        float64 `json:"paired"`
	Second        float64 `json:"second"`
	Type          string  `json:"type"`
	Examples      string  `json:"examples"`
	PathDelay     float64 `json:"path_delay"`
	PathOpenings  int     `json:"path_openings"`
	PathPeers     int     `json:"path_peers"`
}

// dnsDelay measures, per asking host and server, how long a program waits for the answer to a
// name: from its first query to the answer, all tries at that server included.
type dnsDelay struct {
	*measure.Lookups
	states measure.Resolvers[delayState]
	chains measure.Subjects[uint64, capture.Instant] // lookups, by number, that were answered, and when lately
	slow   time.Duration                             // the rule's threshold, as of the last window
	served stat.Latencies                            // all answers, for the assessment
	gone   stat.Worst                                // of the states that were dropped
	opens  openings
}

type delayState struct {
	measure.Tally             // of all measured answers; bad: slow
	cold          stat.Series // of the answers to names that the server had not answered before
	waits         stat.Series // of lookups; bad: those that took a time-out of the asker's or more
	recent        []answerTime
	before        stat.Latencies
	late          []capture.Instant // when those questions were asked
	lateN         int               // of them, those since onset
	onset         capture.Instant
	noise         []capture.Instant
}

// answerTime is one answer.
type answerTime struct {
	at      capture.Instant // asked
	wait    time.Duration
	name    uint64
	cold    bool // the first answer to that name
	retried bool
	// repeated: it came at once after the question was asked again: the first was lost. At once is what chance does not
	// explain: the repetition was a time-out's, and a quarter of that has not passed.
	repeated bool
	timedOut bool // the same, and counted for its lookup
	paired   bool // another question of the lookup had been answered at once
	second   bool // it was asked after another question of the lookup
	qtype    uint16
	record   uint64
	text     string // the name, of slow ones
	evidence analyze.Evidence
}

const (
	// slowDNS is the threshold of the rule until its own value is known, which is with the first window.
	slowDNS = 200 * time.Millisecond
	// rcodeNameError is NXDOMAIN (RFC 1035 §4.1.1).
	rcodeNameError = 3
)

func newDNSDelay() analyze.Detector {
	return &dnsDelay{Lookups: measure.NewLookups(), states: measure.NewResolvers[delayState](),
		chains: measure.NewSubjects[uint64, capture.Instant](measure.MaxLookups),
		slow:   slowDNS, opens: newOpenings()}
}

func (d *dnsDelay) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-delay", Features: DNSDelay{}, Events: measure.LookupEvents | flow.Of(flow.Established)}
}

func (d *dnsDelay) Event(e *flow.Event) {
	q := e.DNS
	if q == nil {
		if e.Kind == flow.Established {
			d.opens.event(e)
		}
		return
	}
	d.opens.asks(q.Client.Addr)
	l := d.Lookups.Newest
	if e.Kind != flow.DNSAnswer && e.Kind != flow.DNSLate {
		return
	}
	st := d.states.Get(q)
	if st == nil {
		return
	}
	st.LastAt = max(st.LastAt, e.At)
	if e.Kind == flow.DNSLate {
		st.late = stat.AppendBounded(st.late, q.First, maxDNSNotes)
		st.lateN++
		if e.Rejected() {
			return // its answer is counted; now the asker's host says that nobody waits for it any more
		}
	}
	if q.Truncated && q.Proto == capture.ProtoUDP {
		return // the answer proper comes over TCP
	}
	asked, tries := q.LookupAt, q.Tries
	if at := d.chains.Get(q.Lookup); at != nil {
		if *at != 0 {
			// The lookup has been answered already: what looked like another try was somebody else's question.
			asked, tries = q.First, q.Repeats+1
		}
		*at = e.At
	}
	wait := e.At.Sub(asked)
	slow := wait >= d.slow
	repeated := tries > 1 && q.Gap >= measure.AskElsewhere && e.At.Sub(q.Last) < min(d.slow, q.Gap/4)
	var g *measure.Group
	if l != nil {
		g = l.Group
	}
	paired, second := g != nil && g.Fast, g != nil && l.First > g.At
	timedOut := st.took(g, asked, slow && repeated)
	if !slow && (q.Rcode == rcodeNameError || q.Rcode == 0 && q.Records == 0) {
		// Names of the search list and types that a name has not got: asked along with
		// the real question, and fast.
		st.noise = stat.AppendBounded(st.noise, asked, maxDNSNotes)
		return
	}
	cold := true
	if known := d.Lookups.Question; known != nil {
		// What was asked before the first answer waited for the same as that did.
		if cold = known.At == 0 || asked < known.At; known.At == 0 {
			known.At = e.At
		}
	}
	// A recursive server may be slow with what it does not know. Not when it answers at last as soon as it is asked
	// again, nor when it is asked not to recurse.
	cold = cold && tries <= 1 && !q.Iterative
	d.served.Add(wait)
	st.Total++
	a := answerTime{at: asked, wait: wait, name: q.NameHash, qtype: q.QType, cold: cold, retried: tries > 1,
		repeated: repeated, timedOut: timedOut, paired: paired, second: second, record: q.Record}
	bad := uint32(0)
	if slow {
		bad = 1
		st.Bad++
		a.evidence = analyze.Evidence{At: asked, Flow: q.Client.String() + " > " + q.Server.String(),
			Note: "answered after " + wait.Round(time.Millisecond).String()}
		if q.QueryFrame != 0 && e.Frame != 0 {
			a.evidence.Frames = []uint64{q.QueryFrame, e.Frame}
		}
	}
	if cold {
		st.cold.Add(bad, 1, a.at)
	}
	st.Series.Add(bad, 1, a.at)
	if len(st.recent) == maxDNSNotes {
		for i := range maxDNSNotes / 4 { // that appendBounded drops
			if old := &st.recent[i]; !st.Series.Locked || old.at < st.Series.Onset {
				st.before.Add(old.wait)
			}
		}
	}
	st.recent = stat.AppendBounded(st.recent, a, maxDNSNotes)
}

// took notes how the lookup that g is fares, asked at asked, and counts it once all its questions are answered. It
// reports whether this answer is its first to take a time-out.
func (st *delayState) took(g *measure.Group, asked capture.Instant, timedOut bool) bool {
	bad := timedOut
	if g != nil {
		timedOut = timedOut && !g.Late
		g.Late, g.Fast = g.Late || timedOut, g.Fast || !timedOut
		if g.Open > 0 || g.Waited {
			return timedOut
		}
		g.Waited, bad, asked = true, g.Late, min(asked, g.At)
	}
	if bad {
		st.waits.Add(1, 1, asked)
	} else {
		st.waits.Add(0, 1, 0)
	}
	return timedOut
}

func (d *dnsDelay) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.slow = w.Params.Duration("warn_p95")
	d.Lookups.Judge(w)
	d.chains.Each(func(_ uint64, at *capture.Instant) bool { return w.End.Sub(*at) < measure.Episode })
	d.states.Each(func(k measure.ResolverKey, st *delayState) bool {
		st.Series.Roll()
		st.cold.Roll()
		st.waits.Roll()
		st.name(w)
		if quiet, keep := st.Quiet(w, &d.gone); quiet {
			return keep
		}
		s := &st.Series
		f, evidence := st.measure(d.slow, w.Params)
		onset := s.Onset
		wait, n, peers := d.opens.delay(k.Client, k.Server.Addr, onset)
		if n >= w.Params.Int("min_answered") && peers > 1 && wait.Seconds() >= w.Params.Float("path_part")*f.P50 {
			f.PathDelay, f.PathOpenings, f.PathPeers = wait.Seconds(), n, peers
		}
		// Where only some lookups are slow, the time-outs tell since when.
		if x := &st.waits; f.P95 < d.slow.Seconds() && f.TimedOut > 0 {
			onset = x.Onset
		}
		emit(analyze.Symptom{Subject: k.Subject(), Onset: onset, Features: f, Evidence: evidence, LastTry: s.LastTry(w.End), Well: s.Well(w.End)})
		return true
	})
}

// name names the slow answers since the last window, while the table still knows.
func (st *delayState) name(w *analyze.Window) {
	for i := len(st.recent) - 1; i >= 0 && st.recent[i].record != named; i-- {
		a := &st.recent[i]
		if a.evidence.At != 0 {
			if a.text = w.Flows.DNSNameOf(a.record, a.name); a.text != "" {
				a.evidence.Note = flow.DNSType(a.qtype) + " " + a.text + ": " + a.evidence.Note
			}
		}
		a.record = named
	}
}

// named stands for the record of an answer that name has seen.
const named = ^uint64(0)

func (st *delayState) measure(slow time.Duration, params rules.Params) (f DNSDelay, evidence []analyze.Evidence) {
	s, x := &st.Series, &st.waits
	f = DNSDelay{Queries: int(s.Since.Total), Answered: int(s.Since.Total), Baseline: s.BeforeSpan,
		Lookups: int(x.Since.Total), TimedOut: int(x.Since.Bad), TimeoutShare: x.Since.Share()}
	f.TimeoutChance = stat.AtLeast(f.TimedOut, f.Lookups, params.Float("timeout_tolerated"))
	// New names count when answers to new names were fast before; or when half of all answers
	// take a second, which no recursive server needs.
	var all, waits []float64
	for i := range st.recent {
		if a := &st.recent[i]; a.at >= s.Onset {
			all = append(all, a.wait.Seconds())
		}
	}
	coldCounts := st.cold.Locked && int(st.cold.Before.Total) >= params.Int("cold_baseline") || stat.Median(all) >= params.Duration("cold_limit").Seconds()
	var asked examples
	var timeouts []float64
	others, paired, second := false, 0, 0
	names := measure.NewSubjects[uint64, struct{}](maxDNSNotes)
	repeated, slowAll := 0, 0
	var first, last capture.Instant // slow ones
	before := st.before
	for i := range st.recent {
		a := &st.recent[i]
		if a.at < s.Onset {
			before.Add(a.wait)
			continue
		}
		f.Max = max(f.Max, a.wait.Seconds())
		others = others || a.wait < slow && asked.n > 0 && a.qtype != asked.qtype
		if a.timedOut {
			timeouts = append(timeouts, a.wait.Seconds())
			if a.paired {
				paired++
				if a.second {
					second++
				}
			}
		}
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
		names.Get(a.name)
		asked.add(a.qtype, a.text)
		if a.repeated {
			repeated++
		}
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, a.evidence)
		}
	}
	f.P50, f.P95, f.P99 = stat.Quantile(waits, 0.5), stat.Quantile(waits, 0.95), stat.Quantile(waits, 0.99)
	f.P50Before, f.P95Before = before.Quantile(0.5), before.Quantile(0.95)
	f.Names, f.Quantised = len(names.Keys), stat.Ratio(repeated, f.Slow) // before f.Slow is scaled
	f.Lasting = last.Sub(first).Seconds()
	if st.onset != s.Onset {
		st.onset, st.lateN = s.Onset, countSince(st.late, s.Onset)
	}
	f.Late, f.Noise = st.lateN, countSince(st.noise, s.Onset)
	f.Chance = stat.AtLeast(f.Slow, len(waits), params.Float("slow_share"))
	f.Timeout, f.Paired, f.Second = stat.Median(timeouts), stat.Ratio(paired, len(timeouts)), stat.Ratio(second, len(timeouts))
	if f.Examples = asked.String(); others && !asked.mixed {
		f.Type = flow.DNSType(asked.qtype)
	}
	// The list is bounded, the series is not.
	if slowAll > 0 {
		f.Slow = f.Slow * int(s.Since.Bad) / slowAll
		f.Answered = len(waits) * int(s.Since.Total) / len(all)
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

func (d *dnsDelay) Assess(*analyze.Window) analyze.Assessment {
	x := d.gone
	d.states.Each(func(_ measure.ResolverKey, st *delayState) bool {
		x.Add(st.Bad, st.Total)
		return true
	})
	f := DNSDelay{P50: d.served.Quantile(0.5), P95: d.served.Quantile(0.95), P99: d.served.Quantile(0.99)}
	f.Slow, f.Answered = x.Of()
	f.Queries = f.Answered
	return analyze.Assessment{Assessable: f.Answered > 0, Features: f}
}
