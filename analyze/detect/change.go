package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// Change are the features of change.
type Change struct {
	Kind   string  `json:"kind"`
	What   string  `json:"what"`
	Detail string  `json:"detail"`
	Count  int     `json:"count"`
	Step   float64 `json:"step"`
}

// change keeps the markers of what changed on the host, so that the onset of a fault can be held against them.
type change struct {
	recent measure.Subjects[changeKey, changeState]
	sees   bool
}

type changeKey struct{ kind, what string }

type changeState struct {
	first, last capture.Instant
	detail      string
	step        time.Duration
	count       int
}

// maxChanges bounds the changes that are remembered.
const maxChanges = 256

func newChange() analyze.Detector {
	return &change{recent: measure.NewSubjects[changeKey, changeState](maxChanges)}
}

func (d *change) Spec() analyze.Spec { return analyze.Spec{Rule: "change", Features: Change{}} }

// Event is never called: packets do not show changes.
func (d *change) Event(*flow.Event) {}

func (d *change) Sample(at capture.Instant, s *capture.Sample) {
	d.sees = d.sees || s.Host != nil && s.Host.Has != 0 // without procfs there are no processes either
	if s.Change == nil {
		return
	}
	if s.Change.When != 0 {
		at = s.Change.When
	}
	c := d.recent.Get(changeKey{string(s.Change.Kind), s.Change.What})
	if c == nil {
		return
	}
	if c.count == 0 {
		c.first = at
	}
	c.last, c.detail, c.step = max(c.last, at), s.Change.Detail, s.Change.Step
	c.count++
}

func (d *change) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	memory := w.Params.Duration("memory")
	d.recent.Each(func(k changeKey, c *changeState) bool {
		if w.End.Sub(c.last) > memory {
			return false
		}
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: w.Local.String(), Segment: k.kind + " " + k.what},
			Onset: c.first, Features: Change{Kind: k.kind, What: k.what, Detail: c.detail, Count: c.count, Step: c.step.Seconds()}})
		return true
	})
}

func (d *change) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.sees, Features: Change{}}
}
