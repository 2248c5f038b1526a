package cause

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/rules"
)

// Diagnose gives a verdict on each step of the catalogue.
func (g *Graph) Diagnose(fs []*analyze.Finding, assessed map[string]analyze.Assessed) *analyze.Diagnosis {
	d := &analyze.Diagnosis{Roots: []string{}, Chain: []string{}}
	byOnset := slices.Clone(fs)
	slices.SortStableFunc(byOnset, func(a, b *analyze.Finding) int { return cmp.Compare(a.Onset, b.Onset) })
	links := 0
	listed := map[string]bool{} // a fault that comes back has one id and several findings
	for _, f := range byOnset {
		if f.Role == analyze.Root && !listed[f.ID] {
			listed[f.ID] = true
			d.Roots = append(d.Roots, f.ID)
			d.Chain = append(d.Chain, f.ID)
		}
	}
	for _, f := range byOnset {
		if f.Role == analyze.Consequence {
			if links += len(f.Because); !listed[f.ID] {
				listed[f.ID] = true
				d.Chain = append(d.Chain, f.ID)
			}
		}
	}
	for _, s := range g.set.Steps {
		d.Steps = append(d.Steps, g.verdict(s, byOnset, assessed, links))
	}
	d.Summary = summary(byOnset, d.Steps)
	d.Incidents = analyze.Incidents(fs)
	return d
}

// verdict on one step: what its findings say, else what its detectors assessed, else what is missing.
func (g *Graph) verdict(s *rules.Step, fs []*analyze.Finding, assessed map[string]analyze.Assessed, links int) analyze.StepVerdict {
	v := analyze.StepVerdict{Step: s.ID, Verdict: analyze.NotAssessable}
	var said, against []*analyze.Finding
	for _, f := range fs {
		switch {
		case weak(f) || !slices.Contains(f.Steps, s.ID):
		case g.set.Rule(f.Rule).IsAgainst(f.Features):
			against = append(against, f)
		default:
			said = append(said, f)
		}
	}
	if len(said) > 0 {
		v.Verdict = analyze.Suspected
		best := said[0]
		for _, f := range said {
			v.Findings = append(v.Findings, f.ID)
			if verdictOf(f) < verdictOf(best) {
				best = f
			}
			if v.Stages == nil && s.ID == stagesStep {
				v.Stages = f.Stages
			}
		}
		v.Verdict = [...]analyze.Verdict{analyze.Confirmed, analyze.IsConsequence, analyze.Suspected}[verdictOf(best)]
		v.Reason = best.Summary
		return v
	}
	if len(against) > 0 {
		v.Verdict, v.Reason = analyze.RuledOut, against[0].Summary
		return v
	}
	if s.ID == linkageStep && links > 0 {
		v.Verdict = analyze.Confirmed
		v.Reason = analyze.Text{
			En: fmt.Sprintf("%d links between findings verified by order of onset and shared identity.", links),
			Ko: fmt.Sprintf("발견 사이의 연결 %d개를 발생 순서와 공통 대상으로 확인했습니다.", links),
		}
		return v
	}
	if s.ID == changeStep {
		if v, ok := correlate(v, fs); ok {
			return v
		}
	}
	var clear, open, unseen []analyze.Text
	for _, r := range g.set.Rules {
		a, ok := assessed[r.ID]
		if !ok || !slices.Contains(r.Steps, s.ID) {
			continue
		}
		if a.Stages != nil {
			v.Stages = a.Stages
		}
		switch {
		case !a.Assessable:
			unseen = append(unseen, text(r, "not_assessable", a.Features))
		case a.Blind():
			if t := oneSided(a.OneSided); !slices.Contains(open, t) {
				open = append(open, t)
			}
		case a.Clear():
			clear = append(clear, text(r, "ruled_out", a.Features))
		default:
			open = append(open, text(r, "not_assessable", a.Features))
		}
	}
	switch {
	case len(open) > 0: // one rule of the step that is not cleared leaves the step open, whatever the others say
		v.Reason = join(open)
	case len(clear) > 0 && len(unseen) > 0: // what one of them looks at was not there to be seen
		v.Reason = join(unseen)
	case len(clear) > 0:
		v.Verdict = analyze.RuledOut
		v.Reason = join(clear)
	case len(unseen) > 0:
		v.Reason = join(unseen)
	default:
		v.Reason = analyze.Text(s.NotAssessable)
	}
	return v
}

// oneSided says why a step is not cleared although nothing speaks for it.
func oneSided(conns int) analyze.Text {
	return analyze.Text{
		En: fmt.Sprintf("Not judged: of %d connections only one direction is in this input; what the other one did would not show.", conns),
		Ko: fmt.Sprintf("판정 불가: 연결 %d개는 한 방향만 입력에 있어, 다른 방향에서 일어난 일은 드러나지 않습니다.", conns),
	}
}

const (
	// changeStep is the step that asks whether the fault followed a change.
	changeStep = "change-correlation"
	// changeWithin is how long before an onset a change is a suspect, changeSlack how much later its marker may come:
	// hosts are sampled once a second.
	changeWithin = 10 * time.Minute
	changeSlack  = time.Second
)

// correlate holds the changes on the host against the onsets of the roots.
func correlate(v analyze.StepVerdict, fs []*analyze.Finding) (analyze.StepVerdict, bool) {
	var suspects []analyze.Text
	changes := false
	for _, c := range fs {
		if !slices.Contains(c.Steps, changeStep) {
			continue
		}
		changes = true
		// Of several faults the first one that followed.
		var next *analyze.Finding
		for _, r := range fs {
			lead := r.Onset.Sub(c.Onset)
			if r.Role == analyze.Root && lead >= -changeSlack && lead <= changeWithin && (next == nil || r.Onset < next.Onset) {
				next = r
			}
		}
		if next != nil {
			lead := max(next.Onset.Sub(c.Onset), 0).Round(time.Second)
			v.Findings = append(v.Findings, c.ID)
			suspects = append(suspects, analyze.Text{
				En: fmt.Sprintf("%s: %s before “%s” began.", strings.TrimSuffix(c.Summary.En, "."), spanOf(lead, "%d min %d s", "%d s"), next.Title.En),
				Ko: fmt.Sprintf("%s: “%s” 시작 %s 전.", strings.TrimSuffix(c.Summary.Ko, "."), next.Title.Ko, spanOf(lead, "%d분 %d초", "%d초")),
			})
		}
	}
	switch {
	case len(suspects) > 0:
		v.Verdict, v.Reason = analyze.Suspected, join(suspects)
	case changes:
		v.Verdict = analyze.RuledOut
		v.Reason = analyze.Text{En: "The changes on this host came after the onset, or more than ten minutes before it.", Ko: "이 호스트의 변경은 시작 이후이거나 10분보다 전에 있었습니다."}
	default:
		return v, false
	}
	return v, true
}

// spanOf is a time of at most some minutes in words.
func spanOf(d time.Duration, minutes, seconds string) string {
	if s := int(d.Seconds()); s >= 120 {
		return fmt.Sprintf(minutes, s/60, s%60)
	}
	return fmt.Sprintf(seconds, int(d.Seconds()))
}

// text renders a text that needs no subject; a text that cannot be computed is empty.
func text(r *rules.Rule, which string, features any) analyze.Text {
	t, _ := r.Text(which, features, nil)
	return analyze.Text(t)
}

// linkageStep is the step that asks whether the factors are connected.
const (
	linkageStep = "linkage"
	stagesStep  = "stage-by-stage"
)

func verdictOf(f *analyze.Finding) int {
	switch f.Role {
	case analyze.Root:
		return 0
	case analyze.Consequence:
		return 1
	}
	return 2
}

func join(ts []analyze.Text) (t analyze.Text) {
	var en, ko []string
	for _, x := range ts {
		en, ko = append(en, x.En), append(ko, x.Ko)
	}
	return analyze.Text{En: strings.Join(en, " "), Ko: strings.Join(ko, " ")}
}

func summary(fs []*analyze.Finding, steps []analyze.StepVerdict) analyze.Text {
	var roots, pending []analyze.Text
	n := 0
	for _, f := range fs {
		switch f.Role {
		case analyze.Root:
			roots = append(roots, f.Summary)
		case analyze.Consequence:
			n++
		case analyze.Pending:
			pending = append(pending, f.Summary)
		}
	}
	if len(roots) == 0 && len(pending) > 0 {
		t := join(pending)
		return analyze.Text{En: "Cause open: " + t.En, Ko: "원인 확인 중: " + t.Ko}
	}
	if len(roots) == 0 && !slices.ContainsFunc(steps, func(v analyze.StepVerdict) bool { return v.Verdict != analyze.NotAssessable }) {
		return analyze.Text{En: "Nothing can be told from this input: no suspect could be judged.", Ko: "이 입력으로는 아무것도 판정할 수 없습니다."}
	}
	if len(roots) == 0 {
		return analyze.Text{En: "Nothing wrong was found in what this input shows.", Ko: "이 입력에서 볼 수 있는 범위에서는 이상이 없습니다."}
	}
	t := join(roots)
	if n > 0 {
		t.En += fmt.Sprintf(" Consequences: %d.", n)
		t.Ko += fmt.Sprintf(" 그 결과로 나타난 현상 %d건.", n)
	}
	return t
}
