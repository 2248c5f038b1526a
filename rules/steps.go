package rules

import (
	"regexp"
	"slices"
	"strings"
)

// Inputs are the kinds of observation that a step can need.
var Inputs = []string{"packets", "sockets", "counters", "several-points", "changes", "test"}

// Step is a diagnostic step of the cause-analysis team of November 2023, or one that was
// added beside it.
type Step struct {
	ID    string
	Ref   string // T1 … T19, Q0: its number in the team's list
	Title Text
	Team  Text   // what the team did, or why the step is there
	Quote string // the Korean sentence that it comes from, exactly; may be empty
	// Source of the quotation and of what Team says.
	Source     string
	Confirms   Text
	RulesOut   Text
	LookAlikes Text
	Next       Text
	// Needs are the inputs without which the step cannot be judged: all of them, each by
	// one of its alternatives.
	Needs         [][]string
	NotAssessable Text     // said when an input is missing
	Rules         []string // rules that work on the step, in the order of the catalogue
}

// Missing is what the step needs and have lacks, alternatives joined by "or".
func (s *Step) Missing(have ...string) []string {
	var out []string
	for _, n := range s.Needs {
		if !slices.ContainsFunc(n, func(i string) bool { return slices.Contains(have, i) }) {
			out = append(out, strings.Join(n, " or "))
		}
	}
	return out
}

var stepRef = regexp.MustCompile(`^(T[1-9][0-9]?|Q0)$`)

// steps reads steps.yaml.
func (d *decoder) steps(n *node) []*Step {
	d.fields(n, "steps")
	var out []*Step
	for _, i := range d.list(d.need(n, "steps")) {
		if !d.fields(i, "id", "ref", "title", "team", "quote", "source", "confirms", "rules_out", "look_alikes",
			"next", "needs", "not_assessable") {
			continue
		}
		id, ref := d.need(i, "id"), d.need(i, "ref")
		s := &Step{
			ID: d.ident(id), Ref: d.str(ref), Source: d.str(d.need(i, "source")),
			Title: d.both(d.need(i, "title")), Team: d.both(d.need(i, "team")),
			Confirms: d.both(d.need(i, "confirms")), RulesOut: d.both(d.need(i, "rules_out")),
			LookAlikes: d.both(d.need(i, "look_alikes")), Next: d.both(d.need(i, "next")),
			NotAssessable: d.both(d.need(i, "not_assessable")),
		}
		if q := i.get("quote"); q != nil {
			s.Quote = d.str(q)
		}
		if s.Ref != "" && !stepRef.MatchString(s.Ref) {
			d.fail(ref.errorf("ref is T1 to T19 or Q0, not %q", s.Ref))
		}
		for _, need := range d.list(d.need(i, "needs")) {
			alternatives := strings.Split(d.str(need), " or ")
			for _, a := range alternatives {
				if !slices.Contains(Inputs, a) {
					d.fail(need.errorf("unknown input %q; known are %s", a, strings.Join(Inputs, ", ")))
				}
			}
			s.Needs = append(s.Needs, alternatives)
		}
		if s.ID != "" && slices.ContainsFunc(out, func(o *Step) bool { return o.ID == s.ID }) {
			d.fail(id.errorf("step %q is given twice", s.ID))
		}
		out = append(out, s)
	}
	return out
}
