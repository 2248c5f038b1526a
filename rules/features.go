package rules

import (
	"regexp"
	"strings"
)

// Feature is a number, text or truth value that the detector of a rule measures, as the comment at the top of the rule's file
// describes it.
type Feature struct {
	Names   []string // those that share a line
	Type    string   // int, float, string or bool
	Unit    string   // s, or empty
	Meaning Text     // may be empty where a line has several names
}

var (
	featureLine     = regexp.MustCompile(`^#   ([a-z][a-z0-9_]*(?:, [a-z][a-z0-9_]*)*) +(int|float|string|bool)\b(?: +(s)(?: {2,}|$))? *(.*)$`)
	featureContinue = regexp.MustCompile(`^# {8,}(\S.*)$`)
)

// Features are what the conditions and texts of the rule can name, beside its thresholds. A file of a user's own may describe none.
func (r *Rule) Features() []Feature {
	var out []Feature
	var into *string // what the next line goes on with
	for _, l := range r.nodes.id.file.lines {
		switch {
		case !strings.HasPrefix(l, "#"):
			return out
		case featureLine.MatchString(l):
			m := featureLine.FindStringSubmatch(l)
			out = append(out, Feature{strings.Split(m[1], ", "), m[2], m[3], Text{En: m[4]}})
			into = &out[len(out)-1].Meaning.En
		case len(out) > 0 && featureContinue.MatchString(l):
			text, korean := strings.CutPrefix(featureContinue.FindStringSubmatch(l)[1], "ko: ")
			if korean {
				into = &out[len(out)-1].Meaning.Ko
			}
			*into = strings.TrimSpace(*into + " " + text)
		}
	}
	return out
}
