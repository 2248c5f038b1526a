package analyze

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"jindan/analyze/flow"
	"jindan/analyze/points"
	"jindan/analyze/stat"
	"jindan/capture"
	"jindan/rules"
)

const (
	// WindowLength is the period of judgement. One second resolves the order of the links of
	// the causal chain as measured (pool full +0.8 s, first client gives up +3 s, overflow +5 s).
	WindowLength = stat.Window
	// quietWindows is how many empty windows are judged one by one in a gap without
	// observations; the longest keep_for and for of the catalogue are shorter. The rest of the gap is skipped.
	quietWindows = 120
	// quietInAll bounds them over all gaps of a run, so that an input of gaps does not cost 120 judgements a packet; then it is
	// quietLater in each. It is a thousand gaps of a minute: what a day of one keep-alive a minute has.
	quietInAll = 60_000
	quietLater = 10
	// maxSubjects bounds the subjects that one rule tracks at a time.
	maxSubjects = 1024
	// maxFindings bounds the findings that one run keeps; information fills a quarter of it, with warnings half.
	maxFindings = 10_000
	// maxOpensPerMinute bounds how many findings of each severity are opened per minute of event time, and maxOpensPerRule those
	// of one rule: no rule has them all.
	maxOpensPerMinute = 120
	maxOpensPerRule   = 60
)

// Causes ranks findings: package cause implements it.
type Causes interface {
	// Link sets Role, Because, Links, Confidence and Incident of every finding; l says which addresses belong to one host, cleared
	// whether a rule was assessed and is ruled out. What could be a root and began less than RootAfter before at may be pending; at the
	// end of the input, at is math.MaxInt64.
	Link(fs []*Finding, l Local, cleared func(rule string) bool, at capture.Instant)
	// Diagnose gives a verdict on each step of the catalogue.
	Diagnose(fs []*Finding, assessed map[string]Assessed) *Diagnosis
}

// Assessed is a detector's Assessment with its rule.
type Assessed struct {
	Rule *rules.Rule
	Assessment
	OneSided int // connections of which the input lacks a direction
}

// Clear reports whether the rule's steps are ruled out, as far as the rule knows.
func (a *Assessed) Clear() bool { return a.well() && !a.blind() }

// Blind reports whether they would be, if the fault could not have happened where the input cannot show it.
func (a *Assessed) Blind() bool { return a.well() && a.blind() }

// well reports whether what was seen clears the rule. A condition that cannot be computed clears nothing; the rule counts it.
func (a *Assessed) well() bool {
	if a.Rule == nil || !a.Assessable {
		return false
	}
	ok, err := a.Rule.IsClear(a.Features)
	return ok && err == nil
}

func (a *Assessed) blind() bool { return a.Rule.BothWays && a.OneSided > 0 }

// Options of an Engine.
type Options struct {
	Local   []netip.Prefix // --local: addresses and prefixes of this host; none: found from the observations
	LocalBy LocalBy        // who says so; empty: --local
	Sources []string
	Host    string // where jindan runs; empty offline
	Agent   string
	Netns   string       // the network namespace that is watched; empty: the agent's own, or offline
	Flow    flow.Options // caps; Mask and Emit are the engine's
	Causes  Causes
	// Retain is how long a finding that has resolved stays in the diagnosis; 0: to the end.
	Retain time.Duration
	Ask    func(Ask) // see Window.Ask; called while the engine observes, must not block
	// Points is what the comparison of several capture points found, of which the input is one.
	Points *points.Report
	// Beside, if there is one, runs detectors while the flow table goes on: less time, for some more CPU. The records are the same.
	Beside Beside
	// Watch, if there is one, looks on. The records are the same.
	Watch Watcher
}

// Engine turns observations into findings. It is not safe for concurrent use.
type Engine struct {
	o         Options
	set       *rules.Set
	detectors []Detector
	rules     []*rules.Rule // those of the detectors in their order, then a user's own
	judges    [][]int       // rules by detector, its own first
	byKind    [64][]taker   // by flow.Kind: measures, then detectors
	samplers  []Sampler
	watched   flow.Mask          // of Options.Watch
	heard     [3]capture.Instant // newest observation by input, in the order of their bits
	blind     blind
	table     *flow.Table
	handover  handover
	emit      func(*Finding) error
	err       error

	w        Window
	clock    clock
	shift    time.Duration // of the clock that the flow table knows
	quiet    int           // empty windows that may still be judged in gaps, see advance
	local    localFinder
	cov      Coverage
	lost     [capture.LossReasonCount]uint64
	tracked  map[trackKey]*tracker
	order    []*tracker // in order of first symptom
	counts   []int      // tracked subjects by rule
	findings []*Finding
	symptoms []judged
	seq      uint64
	quota    quota
	refused  map[string]uint64
	began    bool
	linked   bool // roles are up to date
}

// New returns an engine that feeds ds, whose rules must be in set, and calls emit for each
// record. emit's first error ends the run.
func New(set *rules.Set, ds []Detector, o Options, emit func(*Finding) error) (*Engine, error) {
	e := &Engine{o: o, detectors: ds, emit: emit, tracked: make(map[trackKey]*tracker),
		refused: make(map[string]uint64)}
	if err := e.judgeBy(set); err != nil {
		return nil, err
	}
	var mask flow.Mask
	wake := func(events flow.Mask, t taker) {
		if x, ok := t.(Sampler); ok {
			e.samplers = append(e.samplers, x)
		}
		mask |= events
		for k := range e.byKind {
			if events.Has(flow.Kind(k)) {
				e.byKind[k] = append(e.byKind[k], t)
			}
		}
	}
	for _, d := range ds {
		if x, ok := d.(Informed); ok && o.Points != nil {
			x.Inform(o.Points)
		}
	}
	for _, m := range measures(ds) {
		wake(m.Events(), m)
	}
	for _, d := range ds {
		wake(d.Spec().Events, d)
	}
	if o.Watch != nil {
		e.watched = o.Watch.Events()
		mask |= e.watched
	}
	e.local.init(o.Local, o.LocalBy)
	o.Flow.Mask, o.Flow.Emit = mask, e.event
	if o.Beside != nil {
		e.handover = handover{o.Beside, e.deliver, make([]kept, 0, firstHandful), make([]kept, 0, firstHandful)}
	}
	e.table = flow.New(o.Flow)
	e.w.Flows = e.table
	e.w.Ask, e.w.Points = o.Ask, o.Points
	return e, nil
}

// taker is a measure or a detector.
type taker interface{ Event(e *flow.Event) }

// measures are those that ds read, each once.
func measures(ds []Detector) (all []Measure) {
	for _, d := range ds {
		if x, ok := d.(Measurer); ok {
			for _, m := range x.Measures() {
				if !slices.Contains(all, m) {
					all = append(all, m)
				}
			}
		}
	}
	return all
}

// judgeBy makes the rules of set those that detectors serve.
func (e *Engine) judgeBy(set *rules.Set) error {
	var rs []*rules.Rule
	for _, d := range e.detectors {
		r := set.Rule(d.Spec().Rule)
		if r == nil {
			return fmt.Errorf("detector %s has no rule in the catalogue", d.Spec().Rule)
		}
		rs = append(rs, r)
	}
	e.judges = e.judges[:0]
	for i, d := range e.detectors {
		if x, ok := d.(Configured); ok {
			x.Configure(rs[i].Params)
		}
		e.judges = append(e.judges, []int{i})
		for _, r := range set.Rules {
			if r.Own() && r.FeaturesOf == d.Spec().Rule {
				e.judges[i] = append(e.judges[i], len(rs))
				rs = append(rs, r)
			}
		}
	}
	e.set, e.rules, e.counts = set, rs, make([]int, len(rs))
	return nil
}

// Reload judges by other rules from now on; causes rank what they find. What is known stays. What is open stays as long as its rule
// still says so; the findings of a rule that is no more are resolved, and no more is known of them.
func (e *Engine) Reload(set *rules.Set, causes Causes) error {
	old := e.rules
	if err := e.judgeBy(set); err != nil {
		return err
	}
	e.o.Causes, e.linked = causes, false
	clear(e.tracked)
	e.order = slices.DeleteFunc(e.order, func(t *tracker) bool {
		i := slices.IndexFunc(e.rules, func(r *rules.Rule) bool { return r.ID == old[t.key.rule].ID })
		if i < 0 {
			if t.firing {
				t.f.State, t.f.Ended = Resolved, EndedUnasked
				e.write(t.f)
				t.f.settled = true
			}
			return true
		}
		if t.key.rule = i; t.f != nil {
			t.f.rule = e.rules[i]
		}
		e.tracked[t.key] = t
		e.counts[i]++
		return false
	})
	return e.err
}

// event takes an event of the flow table.
func (e *Engine) event(ev *flow.Event) {
	if e.handover.beside != nil {
		e.keep(ev)
		return
	}
	e.show(ev)
}

// show shows an event to the detectors that it wakes.
func (e *Engine) show(ev *flow.Event) {
	for _, d := range e.byKind[ev.Kind] {
		d.Event(ev)
	}
	if e.watched.Has(ev.Kind) {
		e.o.Watch.Event(ev)
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
		at := e.clock.event(o.At)
		if d := at - e.clock.now; d < 0 || d > capture.Instant(slack) || len(e.clock.held) > 0 || !e.clock.began {
			var now bool
			var err error
			if at, now, err = e.when(o); err != nil {
				return err
			} else if !now {
				continue
			}
		} else {
			e.clock.now = at
		}
		if err := e.take(o, at); err != nil {
			return err
		}
	}
	// Where the time of an observation was not believed, what follows from it is not, either.
	if until := e.clock.event(b.Until); e.began && until >= e.w.End && len(e.clock.held) == 0 && e.clock.near(until) {
		e.clock.now = max(e.clock.now, until)
		return e.advance(until)
	}
	return e.err
}

// when is the event time of an observation whose stated time is not simply the next. now is false if that cannot be told
// before the next ones have come.
func (e *Engine) when(o *capture.Observation) (at capture.Instant, now bool, err error) {
	c := &e.clock
	if !c.began {
		c.begin(o.At)
		e.quiet = quietInAll
		e.begin(c.now)
		e.cov.First, e.cov.Last = o.At, o.At
		return c.now, true, nil
	}
	if c.known(o.At) {
		if len(c.held) > 0 {
			c.stray += uint64(len(c.held))
			err = e.release(func(capture.Instant) capture.Instant { return c.now })
		}
		at = c.event(o.At)
		c.now = max(c.now, at)
		return at, true, err
	}
	if o.Kind == capture.KindLoss {
		return c.now, true, nil // it has no time of its own
	}
	if distance(c.event(o.At), c.now) < 0 {
		// Time begins anew here. What was held was the end of what came before.
		err = e.release(c.accept)
		return c.accept(o.At), true, err
	}
	if o.Kind == capture.KindPacket && len(c.held) < maxHeld {
		c.keep(o)
		return 0, false, nil
	}
	err = e.release(c.accept)
	return c.accept(o.At), true, err
}

// release takes what the clock has held, at the event times that when gives for the stated ones.
func (e *Engine) release(when func(capture.Instant) capture.Instant) error {
	held := e.clock.held
	e.clock.held = held[:0]
	for i := range held {
		o := &held[i]
		if err := e.take(o, when(o.At)); err != nil {
			return err
		}
	}
	return nil
}

// take takes an observation at an event time.
func (e *Engine) take(o *capture.Observation, at capture.Instant) error {
	if at >= e.w.End {
		if err := e.advance(at); err != nil {
			return err
		}
	} else if at < e.w.Start {
		e.cov.Late++
	}
	if o.Kind == capture.KindLoss {
		if o.Reason < capture.LossReasonCount {
			e.lost[o.Reason] += o.Lost
		}
		return nil
	}
	stated := o.At
	if e.clock.stray == 0 || e.clock.near(e.clock.event(stated)) {
		e.cov.First, e.cov.Last = min(e.cov.First, stated), max(e.cov.Last, stated)
	}
	if o.Kind == capture.KindSample {
		e.sample(at, o.Sample)
		return nil
	}
	e.heard[0] = at
	e.cov.Packets++
	e.local.packet(&o.Packet)
	if e.shift != e.clock.shift {
		e.table.Restate(at, e.clock.shift-e.shift)
		e.shift = e.clock.shift
	}
	o.At = at
	e.table.Observe(o)
	o.At = stated // whoever made the batch may still read it
	return nil
}

// sample shows a sample of the host to those who read it.
func (e *Engine) sample(at capture.Instant, s *capture.Sample) {
	e.cov.Samples++
	switch {
	case s.Sockets != nil:
		e.heard[1] = at
		e.local.sockets(s.Sockets)
	case s.Host != nil:
		if h := s.Host; h.Has != 0 || h.ConntrackMax > 0 || h.FilesMax > 0 || h.PortRange[1] > 0 {
			e.heard[2] = at // else procfs could not be read: what is 0 in h is not known
		}
		e.local.addresses(s.Host.Addrs)
	case s.Change != nil && s.Change.Kind == capture.ChangeFilter:
		e.cov.Captured = s.Change.What
		return // of the agent, not of the host
	case s.Change != nil && s.Change.Kind == capture.ChangeCapture:
		e.blinded(at, s.Change)
		return // of the agent, too
	}
	e.meet()
	if c := s.Change; c != nil && c.When != 0 && e.clock.shift != 0 {
		moved, change := *s, *c
		change.When = e.clock.event(c.When)
		moved.Change = &change
		s = &moved
	}
	for _, d := range e.samplers {
		d.Sample(at, s)
	}
	if e.o.Watch != nil {
		e.o.Watch.Sample(at, s)
	}
}

// freshness is how long an input counts as there after it last spoke: samples come every second, and a
// busy host may delay some. Of packets it is not asked: a quiet network has none; their source says when it ends.
const freshness = 10 * time.Second

// have is the set of inputs that have sent something lately.
func (e *Engine) have() (i Inputs) {
	for bit, at := range e.heard {
		if at != 0 && (bit == 0 && e.blind.why == "" || bit > 0 && e.w.End.Sub(at) <= freshness) {
			i |= 1 << bit
		}
	}
	return i
}

func (e *Engine) begin(at capture.Instant) {
	e.began = true
	e.w.First = at
	e.w.Start = floor(at, WindowLength)
	e.w.End = e.w.Start.Add(WindowLength)
}

// floor is the start of the span of length d that holds at.
func floor(at capture.Instant, d time.Duration) capture.Instant {
	n := capture.Instant(d)
	q := at / n
	if at%n < 0 {
		q--
	}
	return q * n
}

// advance seals windows until the open one holds at.
func (e *Engine) advance(at capture.Instant) error {
	most := quietWindows
	if e.quiet <= 0 {
		most = quietLater
	}
	for n := 0; at >= e.w.End; n++ {
		if err := e.seal(); err != nil {
			return err
		}
		if n > 0 {
			e.quiet--
		}
		next := e.w.End
		if n == most {
			next = max(next, floor(at, WindowLength))
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
	e.meet()
	e.w.Local = e.local.get()
	e.symptoms = e.symptoms[:0]
	e.w.Packets, e.w.Late, e.w.Lost = e.cov.Packets, e.cov.Late, &e.lost
	e.w.Have = e.have()
	for i, d := range e.detectors {
		w := e.w
		w.Params = e.rules[i].Params
		d.Judge(&w, func(s Symptom) {
			key := s.Subject.Key()
			for _, r := range e.judges[i] {
				e.symptoms = append(e.symptoms, judged{r, key, s})
			}
		})
	}
	if e.o.Watch != nil {
		e.o.Watch.Seal(&e.w)
	}
	slices.SortStableFunc(e.symptoms, func(a, b judged) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.key, b.key))
	})
	for i := range e.symptoms {
		e.judge(&e.symptoms[i])
	}
	e.settle()
	e.table.Seal(e.w.End)
	return e.err
}
