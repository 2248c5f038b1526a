package analyze

import (
	"cmp"
	"fmt"
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
	Netns   string       // the network namespace that is watched; empty: the agent's own, or offline
	Flow    flow.Options // caps; Mask and Emit are the engine's
	Causes  Causes
	// Retain is how long a finding that has resolved stays in the diagnosis; 0: to the end.
	Retain time.Duration
	Ask    func(Ask) // see Window.Ask; called while the engine observes, must not block
	// Beside, if there is one, runs detectors while the flow table goes on: less time, for some more CPU. The records are the same.
	Beside Beside
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
	blind     blind
	table     *flow.Table
	handover  handover
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
		if x, ok := d.(Configured); ok {
			x.Configure(r.Params)
		}
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
	if o.Beside != nil {
		e.handover = handover{o.Beside, e.deliver, make([]kept, 0, handful), make([]kept, 0, handful)}
	}
	e.table = flow.New(o.Flow)
	e.w.Flows = e.table
	e.w.Ask = o.Ask
	return e, nil
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
		if h := s.Host; h.Has != 0 || h.ConntrackMax > 0 || h.FilesMax > 0 || h.PortRange[1] > 0 {
			e.heard[2] = at // else procfs could not be read: what is 0 in h is not known
		}
		e.local.addresses(s.Host.Addrs)
	case s.Change != nil && s.Change.Kind == capture.ChangeFilter:
		e.cov.Captured = s.Change.What
		return // of the agent, not of the host
	case s.Change != nil && s.Change.Kind == capture.ChangeCapture:
		e.blinded(at, s.Change)
		return // likewise
	}
	e.meet()
	for _, d := range e.samplers {
		d.Sample(at, s)
	}
}

// freshness is how long an input counts as there after it last spoke: samples come every second, and a
// busy host may delay some. Of packets it is not asked: a quiet network has none; their source says when it ends.
const freshness = 10 * time.Second

// have is the set of inputs that speak.
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
	e.meet()
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
