// Package rules is jindan's catalogue: one YAML file for each diagnosis with its
// thresholds, condition, citations and texts; steps.yaml, the diagnostic steps of the
// cause-analysis team; and causes.yaml, which diagnosis can cause which.
//
// [Load] reads the embedded catalogue and a user's overrides and checks everything that
// can be checked before the first packet: every mistake is an [Error] with file, line
// and column. What has been loaded does not fail later, except for arithmetic.
//
// The package imports nothing of jindan's. Detectors hand it their measurements
// ("features") as flat structs; a feature's name is its JSON name.
package rules

import (
	"slices"
	"sync"
	"time"
)

// Languages are the languages that every text has.
var Languages = []string{"en", "ko"}

// Severities are the levels of a finding, mildest first.
var Severities = []string{"info", "warn", "error"}

// Text is a sentence in both languages.
type Text struct {
	En string `json:"en"`
	Ko string `json:"ko"`
}

// Set is a loaded catalogue. It is safe for concurrent use.
type Set struct {
	Rules []*Rule // in the order of the catalogue
	Steps []*Step // in the order of steps.yaml
	Edges []*Edge // in the order of causes.yaml
	// Unseen are the findings that may stand unseen between a cause and its effect.
	Unseen []Unseen
	// Signs are the findings that only say that something else is wrong.
	Signs []Selector

	signs []placed
}

// Compile compiles and tries what [Load] has left for later, and returns the mistakes in it. There are none in a
// catalogue that has passed the tests.
func (s *Set) Compile() error {
	var d decoder
	for _, r := range s.Rules {
		d.try(r.when)
		d.try(r.clear)
		for _, w := range r.SeverityWhen {
			d.try(w.cond)
		}
		for _, lang := range Languages {
			for _, t := range r.texts[lang].one {
				d.try(t)
			}
			for _, list := range r.texts[lang].lists {
				for _, t := range list {
					d.try(t)
				}
			}
		}
	}
	for _, e := range s.Edges {
		d.try(e.requires)
		d.try(e.experiment)
	}
	return d.err()
}

// Rule is the rule with this id, nil if there is none.
func (s *Set) Rule(id string) *Rule {
	for _, r := range s.Rules {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// Links is the number of mechanisms by which findings cause others, each of which gives one edge or several.
func (s *Set) Links() int {
	if len(s.Edges) == 0 {
		return 0
	}
	return s.Edges[len(s.Edges)-1].Link
}

// Step is the step with this id, nil if there is none.
func (s *Set) Step(id string) *Step {
	for _, t := range s.Steps {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// Rule is one diagnosis.
type Rule struct {
	ID         string
	FeaturesOf string // the rule whose detector measures for it; ID, but for a rule of a user's own
	File       string // where it was defined
	Order      int    // in lists; equal orders by id
	Enabled    bool
	Steps      []string // ids of steps.yaml
	Classes    []string // values of the feature "class"; nil if it has none
	Against    []string // classes that explain the same signs otherwise: they rule the steps out
	Thresholds []Threshold
	Params     Params // their values, for detectors
	When       string // the condition, as written
	// Clear is the condition under which the rule's steps are ruled out, over the same features, as written: there
	// were enough opportunities to have seen the fault, and it was not there. Empty: they never are.
	Clear string
	// BothWays: where a direction of the connections is not in the input, the steps are never ruled out, whatever Clear says.
	BothWays     bool
	For          time.Duration
	KeepFor      time.Duration
	Severity     string // unless a condition of SeverityWhen holds
	SeverityWhen []SeverityWhen
	Citation     []string
	LookAlikes   []Text

	nodes    ruleNodes
	zero     map[string]any // a zero value of every name that texts and conditions may use
	asked    []string       // of these, what conditions of edges speak of
	features *plan
	when     *condition
	clear    *condition        // nil without Clear
	texts    map[string]*texts // by language
	envs     sync.Pool         // of *map[string]any
	reported reportedOnce
}

// SeverityWhen is a severity and its condition.
type SeverityWhen struct {
	Severity string
	When     string
	cond     *condition
	node     *node
}

// Threshold is a number that a rule compares with, and why it is this number.
type Threshold struct {
	Name   string
	Value  float64 // durations in seconds, percentages as a share
	Text   string  // as written: 10, 10s, 3%
	Unit   string
	Source string
	Korean string // the source in Korean; empty: it has none, as that of a user's own
	kind   thresholdKind
	node   *node
}

// Params are the values of a rule's thresholds by name, durations in seconds.
// A name that the rule has not got is 0; a test of the detectors compares the names that
// they use with the catalogue.
type Params map[string]float64

// Float is the threshold name as a number.
func (p Params) Float(name string) float64 { return p[name] }

// Int is the threshold name, rounded towards zero.
func (p Params) Int(name string) int { return int(p[name]) }

// Duration is the threshold name, which is in seconds.
func (p Params) Duration(name string) time.Duration {
	return time.Duration(p[name] * float64(time.Second))
}

// Own reports whether the rule is one of a user's own, over the features of another.
func (r *Rule) Own() bool { return r.FeaturesOf != r.ID }

// Name is the rule's title in a list: the title of a finding without features.
func (r *Rule) Name(lang string) string {
	s, err := r.Render(lang, "title", nil, nil)
	if err != nil {
		return r.ID
	}
	return s
}

// Threshold is the threshold with this name.
func (r *Rule) Threshold(name string) (Threshold, bool) {
	i := slices.IndexFunc(r.Thresholds, func(t Threshold) bool { return t.Name == name })
	if i < 0 {
		return Threshold{}, false
	}
	return r.Thresholds[i], true
}

// IsAgainst reports whether features, those of a finding of the rule, are of a class that rules the
// rule's steps out.
func (r *Rule) IsAgainst(features any) bool {
	if len(r.Against) == 0 {
		return false
	}
	v, err := r.values(features, nil)
	class, _ := v["class"].(string)
	return err == nil && slices.Contains(r.Against, class)
}
