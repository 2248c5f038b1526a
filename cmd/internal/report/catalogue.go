package report

import (
	"strings"

	"jindan/analyze"
	"jindan/rules"
)

// Rules makes a catalogue of reports out of the rules, for input that holds packets and
// what else have names (rules.Inputs).
func Rules(set *rules.Set, have ...string) Catalogue {
	return ruleBook{set, append([]string{"packets"}, have...)}
}

type ruleBook struct {
	set  *rules.Set
	have []string
}

func (b ruleBook) StepTitle(step string) analyze.Text {
	if s := b.set.Step(step); s != nil {
		return analyze.Text(s.Title)
	}
	return analyze.Text{}
}

func (b ruleBook) LookAlikes(rule string) []analyze.Text {
	r := b.set.Rule(rule)
	if r == nil {
		return nil
	}
	var out []analyze.Text
	for _, t := range r.LookAlikes {
		out = append(out, analyze.Text(t))
	}
	return out
}

// inputNames are the inputs of steps in words.
var inputNames = map[string]analyze.Text{
	"packets":        {En: "packets", Ko: "패킷"},
	"sockets":        {En: "the host's sockets", Ko: "호스트의 소켓 상태"},
	"counters":       {En: "the host's counters", Ko: "호스트의 카운터"},
	"several-points": {En: "captures from several points", Ko: "여러 지점의 캡처"},
	"changes":        {En: "the times of changes", Ko: "변경 작업의 시각"},
	"test":           {En: "a test of your own", Ko: "운영자의 시험"},
}

func (b ruleBook) Needs(step string) analyze.Text {
	s := b.set.Step(step)
	if s == nil {
		return analyze.Text{}
	}
	missing := s.Missing(b.have...)
	if len(missing) == 0 {
		return analyze.Text{}
	}
	return analyze.Text{En: inputList(missing, English), Ko: inputList(missing, Korean)}
}

// inputList names inputs; each may be alternatives joined by " or ".
func inputList(inputs []string, l Lang) string {
	var parts []string
	for _, m := range inputs {
		var alts []string
		for a := range strings.SplitSeq(m, " or ") {
			if t, ok := inputNames[a]; ok {
				a = l.Text(t)
			}
			alts = append(alts, a)
		}
		parts = append(parts, strings.Join(alts, l.pick(" or ", " 또는 ")))
	}
	return strings.Join(parts, l.pick(" and ", ", "))
}
