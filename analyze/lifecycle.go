package analyze

import (
	"slices"
	"time"

	"jindan/capture"
	"jindan/rules"
)

type judged struct {
	rule int // its number in the engine
	key  string
	Symptom
}

// trackKey names a subject of a rule: the rule's number and the subject's key.
type trackKey struct {
	rule    int
	subject string
}

// tracker follows one subject of one rule through its life cycle.
type tracker struct {
	f        *Finding // nil until it opened
	key      trackKey
	onset    capture.Instant
	since    capture.Instant // the condition holds since
	lastHeld capture.Instant
	firing   bool
	shown    capture.Instant // there was a symptom, whether it held or not
	seen     bool            // it held in this window
	unasked  bool            // it would hold still, but nobody tries any more
	refused  bool            // a quota has turned it away, which is counted once
	returned int             // how often it came back right after it was over
}

// judge holds one symptom against its rule.
func (e *Engine) judge(s *judged) {
	r := e.rules[s.rule]
	severity, holds, err := r.Eval(s.Features)
	if err != nil {
		e.refused["rule_error:"+r.ID]++
		return
	}
	key := trackKey{s.rule, s.key}
	t := e.tracked[key]
	if s.Well != 0 && e.w.End.Sub(s.Well) >= wellFor {
		if t != nil && t.firing && !t.f.settled {
			t.f.LastSeen = max(min(t.f.LastSeen, s.Well), t.f.Onset)
		}
		return // nothing is left of it, but numbers
	}
	unasked := s.LastTry != 0 && e.w.End.Sub(s.LastTry) >= unaskedFor
	if t != nil {
		t.shown = e.w.End
		t.unasked = holds && unasked
		if t.unasked && t.firing && !t.f.settled {
			t.f.LastSeen = max(min(t.f.LastSeen, s.LastTry), t.f.Onset)
		}
	}
	holds = holds && !unasked
	if t == nil {
		if !holds {
			return
		}
		limit := maxSubjects
		if severity == "error" {
			limit += maxSubjects / 4
		}
		if e.counts[s.rule] >= limit {
			e.refused["subjects:"+r.ID]++
			return
		}
		e.counts[s.rule]++
		t = &tracker{key: key, since: e.w.End, shown: e.w.End, onset: s.Onset}
		e.tracked[key] = t
		e.order = append(e.order, t)
	}
	if !holds {
		return
	}
	if !t.firing && t.lastHeld != 0 && t.lastHeld < e.w.Start {
		if t.f != nil && e.w.Start.Sub(t.lastHeld) <= Aftermath {
			t.returned++
		}
		t.since, t.onset = e.w.End, s.Onset // it had stopped holding before it opened
	}
	t.seen = true
	t.lastHeld = e.w.End
	if t.firing {
		f := t.f
		if f.LastSeen, f.Features = e.w.End, s.Features; s.Well != 0 {
			f.LastSeen = max(s.Well, f.Onset)
		}
		f.Onset = min(f.Onset, s.Onset)
		e.fill(f, s)
		if rank(severity) > rank(f.Severity) {
			if f.Severity == "info" {
				f.Onset = max(f.Onset, s.Onset) // what was no fault is no part of it
			}
			f.Severity = severity
			e.linked = false
			f.State = Update
		}
		return
	}
	t.onset = min(t.onset, s.Onset)
	if e.w.End.Sub(t.since) < r.For {
		return
	}
	e.open(t, r, s, severity)
}

// wellFor is how long nothing may be left of a fault before it is over: detectors show what is left of one until the same traffic
// has passed for some seconds. What shows, but no longer holds, is kept for as long as its rule says.
const wellFor = 5 * time.Second

// quiet is how long nothing may be left of the fault of t. A fault that comes back right after each end lasts: the second time that it does, and
// each time after that, its end is believed half as soon.
func (t *tracker) quiet() time.Duration { return wellFor << min(max(t.returned-1, 0), 4) }

// tellsEnd is the longest keep_for of a rule whose subjects show whether they are well; others, as slow scans, pause for longer.
const tellsEnd = time.Minute

// unaskedFor is how long nobody has tried before nothing more is known of a fault: who wants a service tries again within a minute.
const unaskedFor = time.Minute

func rank(severity string) int {
	switch severity {
	case "error":
		return 2
	case "warn":
		return 1
	}
	return 0
}

// quota is how much of a flood of findings is let through, so that it hides nothing else: each rule and severity has its
// own part of a minute's openings and of the findings that are kept, and errors have room that nothing else takes.
type quota struct {
	minute capture.Instant
	opens  [3]int         // of this minute, by rank
	rules  map[[2]int]int // of this minute, by rule and rank
	kept   [3]int         // findings, by the rank with which they were opened
}

// admits reports whether a finding of that rule and rank may open; fresh: one that was not there before.
func (q *quota) admits(at capture.Instant, rule, rank int, fresh bool) bool {
	if minute := floor(at, time.Minute); minute != q.minute || q.rules == nil {
		*q = quota{minute: minute, rules: make(map[[2]int]int), kept: q.kept}
	}
	of := [2]int{rule, rank}
	all := 0
	for _, n := range q.kept[:rank+1] { // information leaves room for warnings, and these for errors
		all += n
	}
	if q.opens[rank] >= maxOpensPerMinute || q.rules[of] >= maxOpensPerRule || fresh && all >= maxFindings>>(2-rank) {
		return false
	}
	q.opens[rank]++
	q.rules[of]++
	if fresh {
		q.kept[rank]++
	}
	return true
}

func (e *Engine) open(t *tracker, r *rules.Rule, s *judged, severity string) {
	if t.f != nil && t.f.State == Resolved && (t.f.settled || t.onset > t.f.LastSeen) {
		t.f = nil // it was well, and this has a beginning of its own
	}
	if !e.quota.admits(e.w.Start, t.key.rule, rank(severity), t.f == nil) {
		if !t.refused {
			t.refused = true
			e.refused["findings:"+r.ID]++
		}
		return
	}
	t.firing = true
	if t.f == nil {
		t.f = &Finding{rule: r, Schema: FindingSchema, ID: FindingID(r.ID, s.Subject), Rule: r.ID, Steps: r.Steps, Subject: s.Subject,
			Onset: t.onset, Host: e.o.Host, Agent: e.o.Agent, Netns: e.o.Netns, Because: []string{}, Links: []Link{}}
		e.findings = append(e.findings, t.f)
		t.f.Detected = e.w.End
	}
	f := t.f
	f.State, f.Severity, f.Ended = Open, severity, ""
	if f.LastSeen = e.w.End; s.Until != 0 {
		f.LastSeen = max(min(f.LastSeen, s.Until), f.Onset)
	}
	e.fill(f, s)
	f.told = ""
	e.linked = false
}

// fill renders what follows from the symptom.
func (e *Engine) fill(f *Finding, s *judged) {
	f.Features = s.Features
	f.Stages = s.Stages
	if len(s.Evidence) > 0 {
		f.Evidence = slices.Clone(s.Evidence[:min(len(s.Evidence), MaxEvidence)])
	}
	if f.Evidence == nil {
		f.Evidence = []Evidence{}
	}
	f.Filter = s.Filter
	if f.Filter == "" {
		f.Filter = filterOf(s.Subject)
	}
	f.Coverage = e.findingCoverage()
}

func (e *Engine) findingCoverage() FindingCoverage {
	return FindingCoverage{Sources: e.o.Sources, Lost: e.lost[capture.LossKernelDrop],
		CaptureLoss: e.table.Stats.CaptureLost, Copies: e.table.Stats.Copies}
}

// settle resolves what no longer holds, ranks causes when the set of findings changed, and
// writes records.
func (e *Engine) settle() {
	keep := e.order[:0]
	for _, t := range e.order {
		r := e.rules[t.key.rule]
		quiet := e.w.End.Sub(t.lastHeld)
		switch {
		case t.firing && !t.seen && (quiet >= r.KeepFor || r.KeepFor <= tellsEnd && quiet >= t.quiet() && (t.unasked || e.w.End.Sub(t.shown) >= t.quiet())):
			t.firing = false
			t.f.State, t.f.Ended = Resolved, EndedWell
			if t.unasked {
				t.f.Ended = EndedUnasked
			}
			e.linked = false
			keep = append(keep, t)
		case !t.firing && !t.seen && quiet >= max(r.KeepFor, time.Minute):
			// Forgotten. Its finding, if there was one, stays in the diagnosis.
			e.counts[t.key.rule]--
			delete(e.tracked, t.key)
		default:
			keep = append(keep, t)
		}
		t.seen = false
	}
	e.order = keep
	e.retire()
	if slices.ContainsFunc(e.findings, func(f *Finding) bool { return f.Role == Pending && e.w.End.Sub(f.Onset) >= RootAfter }) {
		e.linked = false
	}
	if !e.linked {
		e.link(e.cleared, e.w.End)
		for _, f := range e.findings {
			if !f.settled {
				e.tell(f)
			}
		}
	}
	e.linked = true
	e.bury()
}

// link ranks the findings whose incidents are not long over: what ended then has the role that it had.
func (e *Engine) link(cleared func(rule string) bool, at capture.Instant) {
	if e.o.Causes == nil {
		return
	}
	live := make([]*Finding, 0, len(e.findings))
	for _, f := range e.findings {
		if !f.settled {
			live = append(live, f)
		}
	}
	e.o.Causes.Link(live, e.w.Local, cleared, at)
}

// tell writes a record if there is news of f.
func (e *Engine) tell(f *Finding) {
	key := roleKey(f)
	if key == f.told {
		return
	}
	if f.told != "" && f.State == Open {
		f.State = Update
	}
	f.told = key
	e.write(f)
}

// bury settles the incidents that nothing new can belong to.
func (e *Engine) bury() {
	over := func(f *Finding) bool { return f.State == Resolved && e.w.End.Sub(f.LastSeen) > 2*Aftermath }
	if !slices.ContainsFunc(e.findings, func(f *Finding) bool { return !f.settled && over(f) }) {
		return
	}
	lasts := make(map[string]bool) // by incident
	for _, f := range e.findings {
		lasts[f.Incident] = lasts[f.Incident] || f.Incident != "" && !over(f)
	}
	for _, f := range e.findings {
		f.settled = f.settled || over(f) && !lasts[f.Incident]
	}
}

// retire forgets findings that have been over for long.
func (e *Engine) retire() {
	if e.o.Retain == 0 {
		return
	}
	n := len(e.findings)
	e.findings = slices.DeleteFunc(e.findings, func(f *Finding) bool {
		return f.settled && e.w.End.Sub(f.LastSeen) > e.o.Retain
	})
	if n == len(e.findings) {
		return
	}
	e.linked = false
	e.quota.kept = [3]int{}
	for _, f := range e.findings {
		e.quota.kept[rank(f.Severity)]++
	}
}

// roleKey is what of a finding is worth a new record when it changes.
func roleKey(f *Finding) string {
	s := string(f.Role) + f.Severity + f.Incident
	if f.State == Resolved {
		s += "resolved"
	}
	for _, b := range f.Because {
		s += "|" + b
	}
	return s
}

func (e *Engine) write(f *Finding) {
	if e.err != nil {
		return
	}
	e.seq++
	f.Seq, f.Time = e.seq, e.w.End
	e.render(f)
	e.err = e.emit(e.stated([]*Finding{f})[0])
}

func (e *Engine) render(f *Finding) {
	r, subject := f.rule, SubjectFields(f.Subject)
	text := func(which string) Text {
		t, err := r.Text(which, f.Features, subject)
		if err != nil {
			e.refused["text_error:"+r.ID]++
		}
		return Text(t)
	}
	f.Title, f.Summary = text("title"), text("summary")
	f.Next = []Text{}
	next, err := r.Next(f.Features, subject)
	if err != nil {
		e.refused["text_error:"+r.ID]++
	}
	for _, n := range next {
		f.Next = append(f.Next, Text(n))
	}
	f.Rivals = nil
	rivals, err := r.Rivals(f.Features, subject)
	if err != nil {
		e.refused["text_error:"+r.ID]++
	}
	for _, n := range rivals {
		f.Rivals = append(f.Rivals, Text(n))
	}
}
