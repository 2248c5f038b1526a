package analyze

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/rules"
)

const (
	// WindowLength is the period of judgement. One second resolves the order of the links of
	// the causal chain as measured (pool full +0.8 s, first client gives up +3 s, overflow +5 s).
	WindowLength = time.Second
	// quietWindows is how many empty windows are judged one by one in a gap without
	// observations; the longest keep_for and for of the catalogue are shorter. The rest of the gap is skipped.
	quietWindows = 120
	// maxSubjects bounds the subjects that one rule tracks at a time.
	maxSubjects = 1024
	// maxFindings bounds the findings that one run keeps.
	maxFindings = 10_000
	// maxOpensPerMinute bounds how many findings are opened per minute of event time.
	maxOpensPerMinute = 120
)

// Causes ranks findings: package cause implements it.
type Causes interface {
	// Link sets Role, Because and Confidence of every finding.
	Link([]*Finding)
	// Diagnose gives a verdict on each step of the catalogue.
	Diagnose(fs []*Finding, assessed map[string]Assessed) *Diagnosis
}

// Assessed is a detector's Assessment with its rule.
type Assessed struct {
	Rule *rules.Rule
	Assessment
}

// Options of an Engine.
type Options struct {
	Local   *capture.Addr // --local; nil: found from the observations
	Sources []string
	Host    string // where jindan runs; empty offline
	Agent   string
	Flow    flow.Options // caps; Mask and Emit are the engine's
	Causes  Causes
	// Retain is how long a finding that has resolved stays in the diagnosis; 0: to the end.
	Retain time.Duration
	Ask    func(Ask) // see Window.Ask; called while the engine observes, must not block
}

// Engine turns observations into findings. It is not safe for concurrent use.
type Engine struct {
	o         Options
	set       *rules.Set
	detectors []Detector
	rules     []*rules.Rule
	byKind    [64][]int // detectors by flow.Kind
	samplers  []Sampler
	heard     [3]capture.Instant // newest observation by input, in the order of their bits
	table     *flow.Table
	emit      func(*Finding) error
	err       error

	w        Window
	local    localFinder
	cov      Coverage
	lost     [capture.LossReasonCount]uint64
	tracked  map[string]*tracker // by finding id
	order    []*tracker          // in order of first symptom
	counts   []int               // tracked subjects by detector
	findings []*Finding
	symptoms []judged
	seq      uint64
	opens    int
	openMin  capture.Instant
	refused  map[string]uint64
	began    bool
	linked   bool // roles are up to date
}

type judged struct {
	d   int
	key string
	Symptom
}

// tracker follows one subject of one rule through its life cycle.
type tracker struct {
	f        *Finding // nil until it opened
	d        int
	onset    capture.Instant
	since    capture.Instant // the condition holds since
	lastHeld capture.Instant
	firing   bool
	seen     bool // a symptom in this window
	role     string
}

// New returns an engine that feeds ds, whose rules must be in set, and calls emit for each
// record. emit's first error ends the run.
func New(set *rules.Set, ds []Detector, o Options, emit func(*Finding) error) (*Engine, error) {
	e := &Engine{o: o, set: set, detectors: ds, emit: emit, tracked: make(map[string]*tracker),
		refused: make(map[string]uint64), counts: make([]int, len(ds))}
	var mask flow.Mask
	for i, d := range ds {
		s := d.Spec()
		r := set.Rule(s.Rule)
		if r == nil {
			return nil, fmt.Errorf("detector %s has no rule in the catalogue", s.Rule)
		}
		e.rules = append(e.rules, r)
		mask |= s.Events
		if x, ok := d.(Sampler); ok {
			e.samplers = append(e.samplers, x)
		}
		for k := range e.byKind {
			if s.Events.Has(flow.Kind(k)) {
				e.byKind[k] = append(e.byKind[k], i)
			}
		}
	}
	e.local.init(o.Local)
	mask |= flow.Of(flow.ConnNew)
	o.Flow.Mask, o.Flow.Emit = mask, e.event
	e.table = flow.New(o.Flow)
	e.w.Flows = e.table
	e.w.Ask = o.Ask
	return e, nil
}

func (e *Engine) event(ev *flow.Event) {
	if ev.Kind == flow.ConnNew {
		e.local.conn(ev.Conn)
	}
	for _, i := range e.byKind[ev.Kind] {
		e.detectors[i].Event(ev)
	}
}

// Observe takes a batch. Windows that it passes are judged.
func (e *Engine) Observe(b *capture.Batch) error {
	fetched := 0
	for i := range b.Obs {
		if i == fetched {
			fetched += e.table.Prefetch(b.Obs[i:])
		}
		o := &b.Obs[i]
		if !e.began {
			e.begin(o.At)
		}
		if o.At >= e.w.End {
			if err := e.advance(o.At); err != nil {
				return err
			}
		} else if o.At < e.w.Start {
			e.cov.Late++
		}
		if o.Kind == capture.KindLoss {
			if o.Reason < capture.LossReasonCount {
				e.lost[o.Reason] += o.Lost
			}
			continue
		}
		if o.Kind == capture.KindSample {
			e.sample(o.At, o.Sample)
			continue
		}
		e.heard[0] = o.At
		e.cov.Packets++
		e.cov.First, e.cov.Last = min(e.cov.First, o.At), max(e.cov.Last, o.At)
		if o.Packet.Dir != capture.DirUnknown {
			e.local.packet(&o.Packet)
		}
		e.table.Observe(o)
	}
	if e.began && b.Until >= e.w.End {
		return e.advance(b.Until)
	}
	return e.err
}

// sample shows a sample of the host to those who read it.
func (e *Engine) sample(at capture.Instant, s *capture.Sample) {
	e.cov.Samples++
	e.cov.First, e.cov.Last = min(e.cov.First, at), max(e.cov.Last, at)
	switch {
	case s.Sockets != nil:
		e.heard[1] = at
		e.local.sockets(s.Sockets)
	case s.Host != nil:
		e.heard[2] = at
	}
	for _, d := range e.samplers {
		d.Sample(at, s)
	}
}

// freshness is how long an input counts as there after it last spoke: samples come every second, and a
// busy host may delay some. Of packets it is not asked: a quiet network has none.
const freshness = 10 * time.Second

// have is the set of inputs that speak.
func (e *Engine) have() (i Inputs) {
	for bit, at := range e.heard {
		if at != 0 && (bit == 0 || e.w.End.Sub(at) <= freshness) {
			i |= 1 << bit
		}
	}
	return i
}

func (e *Engine) begin(at capture.Instant) {
	e.began = true
	e.w.First = at
	e.w.Start = floor(at)
	e.w.End = e.w.Start.Add(WindowLength)
	e.cov.First, e.cov.Last = at, at
}

// floor is the start of the window that holds at.
func floor(at capture.Instant) capture.Instant {
	n := capture.Instant(WindowLength)
	q := at / n
	if at%n < 0 {
		q--
	}
	return q * n
}

// advance seals windows until the open one holds at.
func (e *Engine) advance(at capture.Instant) error {
	for n := 0; at >= e.w.End; n++ {
		if err := e.seal(); err != nil {
			return err
		}
		next := e.w.End
		if n == quietWindows {
			next = max(next, floor(at))
		}
		e.w.Start, e.w.End = next, next.Add(WindowLength)
	}
	return nil
}

// seal judges the open window.
func (e *Engine) seal() error {
	if e.err != nil {
		return e.err
	}
	e.table.Expire(e.w.End)
	e.w.Local = e.local.get()
	e.symptoms = e.symptoms[:0]
	e.w.Packets, e.w.Late, e.w.Lost = e.cov.Packets, e.cov.Late, &e.lost
	e.w.Have = e.have()
	for i, d := range e.detectors {
		w := e.w
		w.Params = e.rules[i].Params
		d.Judge(&w, func(s Symptom) {
			e.symptoms = append(e.symptoms, judged{i, s.Subject.Key(), s})
		})
	}
	slices.SortStableFunc(e.symptoms, func(a, b judged) int {
		return cmp.Or(cmp.Compare(a.d, b.d), cmp.Compare(a.key, b.key))
	})
	for i := range e.symptoms {
		e.judge(&e.symptoms[i])
	}
	e.settle()
	e.table.Seal(e.w.End)
	return e.err
}

// judge holds one symptom against its rule.
func (e *Engine) judge(s *judged) {
	r := e.rules[s.d]
	severity, holds, err := r.Eval(s.Features)
	if err != nil {
		e.refused["rule_error:"+r.ID]++
		return
	}
	id := FindingID(r.ID, s.Subject)
	t := e.tracked[id]
	if t == nil {
		if !holds {
			return
		}
		if e.counts[s.d] >= maxSubjects {
			e.refused["subjects:"+r.ID]++
			return
		}
		e.counts[s.d]++
		t = &tracker{d: s.d, since: e.w.End, onset: s.Onset}
		e.tracked[id] = t
		e.order = append(e.order, t)
	}
	if !holds {
		return
	}
	if !t.firing && t.lastHeld != 0 && t.lastHeld < e.w.Start {
		t.since, t.onset = e.w.End, s.Onset // it had stopped holding before it opened
	}
	t.seen = true
	t.lastHeld = e.w.End
	if t.firing {
		f := t.f
		f.LastSeen, f.Features = e.w.End, s.Features
		f.Onset = min(f.Onset, s.Onset)
		e.fill(f, s)
		if rank(severity) > rank(f.Severity) {
			f.Severity = severity
			e.linked = false
			t.role = "" // forces an update record
		}
		return
	}
	t.onset = min(t.onset, s.Onset)
	if e.w.End.Sub(t.since) < r.For {
		return
	}
	e.open(t, id, r, s, severity)
}

func rank(severity string) int {
	switch severity {
	case "error":
		return 2
	case "warn":
		return 1
	}
	return 0
}

func (e *Engine) open(t *tracker, id string, r *rules.Rule, s *judged, severity string) {
	minute := e.w.Start - e.w.Start%capture.Instant(time.Minute)
	if minute != e.openMin {
		e.openMin, e.opens = minute, 0
	}
	if e.opens >= maxOpensPerMinute || len(e.findings) >= maxFindings && t.f == nil {
		e.refused["findings"]++
		return
	}
	e.opens++
	t.firing = true
	if t.f == nil {
		t.f = &Finding{Schema: FindingSchema, ID: id, Rule: r.ID, Steps: r.Steps, Subject: s.Subject,
			Onset: t.onset, Host: e.o.Host, Agent: e.o.Agent, Because: []string{}}
		e.findings = append(e.findings, t.f)
	} else if t.f.State == Resolved {
		t.f.Onset = t.onset
	}
	f := t.f
	f.State, f.Severity = Open, severity
	f.Detected, f.LastSeen = e.w.End, e.w.End
	e.fill(f, s)
	t.role = ""
	e.linked = false
}

// fill renders what follows from the symptom.
func (e *Engine) fill(f *Finding, s *judged) {
	f.Features = s.Features
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
		r := e.rules[t.d]
		quiet := e.w.End.Sub(t.lastHeld)
		switch {
		case t.firing && !t.seen && quiet >= r.KeepFor:
			t.firing = false
			t.f.State = Resolved
			e.linked = false
			keep = append(keep, t)
		case !t.firing && !t.seen && quiet >= max(r.KeepFor, time.Minute):
			// Forgotten. Its finding, if there was one, stays in the diagnosis.
			e.counts[t.d]--
			id := ""
			if t.f != nil {
				id = t.f.ID
			}
			e.forget(id, t)
		default:
			keep = append(keep, t)
		}
		t.seen = false
	}
	e.order = keep
	e.retire()
	if !e.linked && e.o.Causes != nil {
		e.o.Causes.Link(e.findings)
	}
	e.linked = true
	for _, t := range e.order {
		if t.f == nil {
			continue
		}
		role := roleKey(t.f)
		if role == t.role {
			continue
		}
		if t.role != "" && t.f.State == Open {
			t.f.State = Update
		}
		t.role = role
		e.write(t.f, e.rules[t.d])
	}
}

// retire forgets findings that have been over for long.
func (e *Engine) retire() {
	if e.o.Retain == 0 {
		return
	}
	n := len(e.findings)
	e.findings = slices.DeleteFunc(e.findings, func(f *Finding) bool {
		return f.State == Resolved && e.w.End.Sub(f.LastSeen) > e.o.Retain && e.tracked[f.ID] == nil
	})
	e.linked = e.linked && n == len(e.findings)
}

func (e *Engine) forget(id string, t *tracker) {
	if id != "" {
		delete(e.tracked, id)
		return
	}
	maps.DeleteFunc(e.tracked, func(_ string, u *tracker) bool { return u == t })
}

// roleKey is what of a finding is worth a new record when it changes.
func roleKey(f *Finding) string {
	s := string(f.Role) + f.Severity
	if f.State == Resolved {
		s += "resolved"
	}
	for _, b := range f.Because {
		s += "|" + b
	}
	return s
}

func (e *Engine) write(f *Finding, r *rules.Rule) {
	if e.err != nil {
		return
	}
	e.seq++
	f.Seq, f.Time = e.seq, e.w.End
	e.render(f, r)
	e.err = e.emit(f)
}

func (e *Engine) render(f *Finding, r *rules.Rule) {
	subject := SubjectFields(f.Subject)
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
}

// Close judges the open window, ends the run and returns the diagnosis. Findings are
// written once more in their last state.
func (e *Engine) Close() (*Diagnosis, error) {
	if e.began {
		e.w.Final = true
		e.table.End()
		if err := e.seal(); err != nil {
			return nil, err
		}
	}
	assessed := e.assess()
	e.table.Close()
	if e.o.Causes != nil {
		e.o.Causes.Link(e.findings)
	}
	for _, f := range e.findings {
		f.Coverage = e.findingCoverage()
		if f.State == Open {
			f.State = Update
		}
		e.write(f, e.set.Rule(f.Rule))
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.diagnose(assessed), nil
}

// Diagnosis is the verdict on what was seen so far; of windows that are not over it knows nothing.
func (e *Engine) Diagnosis() *Diagnosis {
	if e.o.Causes != nil {
		e.o.Causes.Link(e.findings)
	}
	return e.diagnose(e.assess())
}

// assess asks every detector what it has to say about its step.
func (e *Engine) assess() map[string]Assessed {
	e.w.Local = e.local.get()
	e.w.Packets, e.w.Late, e.w.Lost = e.cov.Packets, e.cov.Late, &e.lost
	assessed := make(map[string]Assessed)
	for i, d := range e.detectors {
		w := e.w
		w.Params = e.rules[i].Params
		assessed[e.rules[i].ID] = Assessed{e.rules[i], d.Assess(&w)}
	}
	return assessed
}

func (e *Engine) diagnose(assessed map[string]Assessed) *Diagnosis {
	d := &Diagnosis{}
	if e.o.Causes != nil {
		d = e.o.Causes.Diagnose(e.findings, assessed)
	}
	d.Schema, d.Time, d.Coverage, d.Findings = DiagnosisSchema, e.w.End, e.coverage(), e.findings
	return d
}

func (e *Engine) coverage() Coverage {
	c := e.cov
	s := &e.table.Stats
	c.Sources = e.o.Sources
	c.Connections, c.Copies, c.CaptureLoss = s.Conns, s.Copies, s.CaptureLost
	c.OneWay, c.MidStream, c.Evicted = s.OneWay, s.MidStream, s.Evicted
	c.DNS = e.table.DNSStats().Transactions
	c.Lost = make(map[string]uint64)
	for r, n := range e.lost {
		if n > 0 {
			c.Lost[capture.LossReason(r).String()] = n
		}
	}
	c.Refused = e.refused
	for k, n := range map[string]uint64{"connections": s.RefusedConns, "paths": s.RefusedPaths, "holes": s.MergedHoles} {
		if n > 0 {
			c.Refused[k] = n
		}
	}
	c.LocalBy = string(e.w.Local.By)
	if e.w.Local.By != LocalNone {
		c.Local = e.w.Local.Addr.String()
	}
	return c
}

// SubjectFields are the fields of s that texts and causal edges refer to (rules.SubjectFields).
func SubjectFields(s Subject) map[string]any {
	return map[string]any{"host": s.Host, "peer": s.Peer, "port": int(s.Port), "direction": s.Direction, "segment": s.Segment}
}
