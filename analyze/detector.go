// Package analyze turns observations into findings: an Engine cuts event time into windows,
// wakes detectors with flow events, lets them judge at the end of each window, holds their symptoms against
// the rules of the catalogue, follows findings from open to resolved and gives a diagnosis at the end.
//
// It has no clock, does no I/O, writes no log and starts no goroutine (Options.Beside lends it one): the same observations give the
// same records, live or from a file.
package analyze

import (
	"jindan/analyze/flow"
	"jindan/analyze/points"
	"jindan/capture"
	"jindan/rules"
)

// Spec says which rule a detector serves and which flow events wake it.
type Spec struct {
	Rule   string
	Events flow.Mask
	// Features is a zero value of the struct that the detector puts into
	// Symptom.Features; the rule's conditions are type-checked against its JSON names
	// when the rules are loaded.
	Features any
}

// Detector is one diagnosis: a pure function of flow events, samples and windows. It has no clock, does no I/O and its state is
// bounded. An engine owns its detectors; they are never shared.
type Detector interface {
	Spec() Spec
	// Event is called for each event of the mask, in stream order. e and what it points to are valid during the call only.
	Event(e *flow.Event)
	// Judge is called once per sealed window, in order, and emits the symptoms that
	// hold at its end, whether or not they reach the rule's threshold.
	Judge(w *Window, emit func(Symptom))
	// Assess says, at any time, what the detector has to say about its step when no
	// finding speaks: ruled out in numbers, or not assessable.
	Assess(w *Window) Assessment
}

// Measure is what several detectors make of the same events, or of the same samples. It is bounded, as they are.
type Measure interface {
	Events() flow.Mask
	// Event is called for each event of the mask, once and before any detector is.
	Event(e *flow.Event)
}

// Measurer is a Detector that reads measures. Those of one engine may share them.
type Measurer interface {
	Detector
	Measures() []Measure
}

// Configured is a Detector that needs thresholds of its rule already when events come, not only to judge.
type Configured interface {
	Detector
	Configure(p rules.Params)
}

// Sampler is a Measure or a Detector that also reads samples of the host itself. Measures get each sample before detectors do.
type Sampler interface {
	// Sample is called for each sample, in stream order. s is valid during the call only.
	Sample(at capture.Instant, s *capture.Sample)
}

// Watcher gets what detectors get, and changes nothing.
type Watcher interface {
	// Events are those that it wants.
	Events() flow.Mask
	// Event, Sample and Seal are called as Event, Sample and Judge of a Detector; the window is to be read only.
	Event(e *flow.Event)
	Sample(at capture.Instant, s *capture.Sample)
	Seal(w *Window)
}

// Comparer is a Detector that looks at what several capture points saw: where there is one point only, it has no say.
type Comparer interface {
	Detector
	Compares()
}

// Informed is a Detector that is told, before the first event, what several capture points showed.
type Informed interface {
	Detector
	Inform(p *points.Report)
}

// Ask is what the engine would like to see more of. The answer, if there is one, comes as an
// observation like any other.
type Ask struct {
	Full   bool     // a dump of all sockets, with tcp_info
	Inodes []uint32 // the processes that own these sockets, and what their threads wait for
}

// Symptom is a detector's measurement of one subject at the end of a window. The
// rule decides whether it is a finding.
type Symptom struct {
	Subject  Subject
	Onset    capture.Instant // first affected event
	Features any             // of the type of Spec.Features
	Evidence []Evidence      // at most MaxEvidence are kept
	Filter   string          // Wireshark display filter; empty: built from the subject
	// LastTry is the end of the last window in which anything was tried that could have failed, or passed; 0: the symptom does not
	// depend on that.
	LastTry capture.Instant
	// Well is since when the same passes again, if so much does not pass by chance; 0: it does not, or the symptom itself ends with the fault.
	Well   capture.Instant
	Until  capture.Instant // when it ended, of what is judged once, at the end of the run; 0: it lasts
	Stages *Stages         // where the requests' time goes, if the subject is a service; the engine keeps it
}

// MaxEvidence bounds Finding.Evidence.
const MaxEvidence = 8

// Assessment is what a detector says of its step when no finding speaks. The rule's clear decides, over the
// features, between its texts ruled_out and not_assessable.
type Assessment struct {
	// Assessable: the input has what the rule looks at, be it ever so little. Otherwise the step is not assessable,
	// whatever other rules say of it.
	Assessable bool
	// Features describe the worst subject that was seen and all opportunities to see it: those that a fault, if there
	// were one, would show in. Of the type of Spec.Features.
	Features any
	// Stages, if there are any, are of the service whose requests took most time.
	Stages *Stages
}

// Window is what a detector sees of the world at a seal.
type Window struct {
	Start, End capture.Instant // [Start, End)
	Flows      *flow.Table     // connections and paths; read only
	Local      Local
	Params     rules.Params // of the detector's own rule
	// Packets, Late and Lost are the run's totals so far: packets taken, observations older than their
	// window, and what is missing by reason.
	Packets, Late uint64
	Lost          *[capture.LossReasonCount]uint64
	// First is the time of the first observation of the run: what began in the first
	// moments may have begun before.
	First capture.Instant
	// Points is what the comparison of several capture points found; nil where there is one.
	Points *points.Report
	// Final is set for the last window of a run.
	Final bool
	// Have says which inputs have spoken in the last seconds.
	Have Inputs
	// Ask asks for a closer look; nil where nobody can give one.
	Ask func(Ask)
}

// Inputs is a set of kinds of observation.
type Inputs uint8

// The inputs.
const (
	Packets Inputs = 1 << iota
	Sockets
	Counters
)

// Has reports whether i holds all of x.
func (i Inputs) Has(x Inputs) bool { return i&x == x }
