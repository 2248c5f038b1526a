// Package cause tells roots from consequences among findings and gives a verdict on each
// diagnostic step.
//
// The edges, who can cause whom, are data (rules/causes.yaml). A finding is the consequence of
// another when an edge joins their rules and at least the first two of three tests pass: their
// subjects share the identity that the edge demands; the cause's first affected event does not come later
// than the effect's, bar the edge's slack; a natural experiment, where the edge names one. What has no such
// predecessor is a root. The time of detection plays no part.
package cause

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/rules"
)

// memory is how long after its end a cause may still explain an effect that begins: a backlog of
// requests outlives the fault by the clients' time-outs.
const memory = time.Minute

// Graph implements analyze.Causes over the edges of a catalogue.
type Graph struct{ set *rules.Set }

// New returns the graph of set.
func New(set *rules.Set) *Graph { return &Graph{set} }

// Link sets Role, Because and Confidence of every finding.
func (g *Graph) Link(fs []*analyze.Finding) {
	parents := make([][]int, len(fs))
	tests := make([][]string, len(fs))
	effects := make([]int, len(fs))
	for i, effect := range fs {
		for j, c := range fs {
			if i == j || weak(effect) || weak(c) {
				continue
			}
			if t := g.causes(c, effect); t != nil {
				parents[i] = append(parents[i], j)
				tests[i] = append(tests[i], t...)
			}
		}
	}
	breakCycles(fs, parents)
	for i := range fs {
		for _, j := range parents[i] {
			effects[j]++
		}
	}
	some := slices.ContainsFunc(effects, func(n int) bool { return n > 0 })
	for i, f := range fs {
		f.Because = []string{}
		for _, j := range direct(parents, i) {
			f.Because = append(f.Because, fs[j].ID)
		}
		slices.Sort(f.Because)
		switch {
		case weak(f):
			f.Role = analyze.Independent
		case len(parents[i]) > 0:
			f.Role = analyze.Consequence
		case effects[i] > 0 || !some:
			f.Role = analyze.Root
		default:
			f.Role = analyze.Independent
		}
		f.Confidence = confidence(f, tests[i], effects[i])
	}
}

// weak findings are information: they neither cause nor follow.
func weak(f *analyze.Finding) bool { return f.Severity == "info" }

// causes returns the tests that say that c caused f, nil if it did not.
func (g *Graph) causes(c, f *analyze.Finding) []string {
	cp, fp := party(c), party(f)
	for _, e := range g.set.Edges {
		// The edge reports its own arithmetic errors once; here an edge that cannot be computed is none.
		if ok, err := e.Matches(cp, fp); !ok || err != nil {
			continue
		}
		if !shared(e.Identity, c.Subject, f.Subject) {
			continue
		}
		if c.Onset > f.Onset.Add(e.Slack) || c.LastSeen.Add(memory) < f.Onset {
			continue
		}
		t := []string{"order", "identity:" + string(e.Identity)}
		if ok, err := e.Proven(cp, fp); ok && err == nil {
			t = append(t, "experiment:"+e.From.Rule+">"+e.To.Rule)
		}
		return t
	}
	return nil
}

func party(f *analyze.Finding) rules.Party {
	return rules.Party{Rule: f.Rule, Features: f.Features, Subject: analyze.SubjectFields(f.Subject)}
}

// breakCycles drops, where two findings explain each other, the explanation of the earlier by the later.
func breakCycles(fs []*analyze.Finding, parents [][]int) {
	reaches := func(from, to int) bool {
		seen := make([]bool, len(fs))
		var walk func(int) bool
		walk = func(i int) bool {
			if i == to {
				return true
			}
			if seen[i] {
				return false
			}
			seen[i] = true
			return slices.ContainsFunc(parents[i], walk)
		}
		return walk(from)
	}
	for i := range fs {
		parents[i] = slices.DeleteFunc(parents[i], func(j int) bool {
			return reaches(j, i) && cmp.Or(cmp.Compare(fs[j].Onset, fs[i].Onset), cmp.Compare(j, i)) > 0
		})
	}
}

// direct are the parents of i that are no ancestors of another of its parents.
func direct(parents [][]int, i int) []int {
	var up func(from, to int, depth int) bool
	up = func(from, to, depth int) bool {
		if depth > len(parents) {
			return false
		}
		return slices.ContainsFunc(parents[from], func(k int) bool { return k == to || up(k, to, depth+1) })
	}
	var out []int
	for _, j := range parents[i] {
		if !slices.ContainsFunc(parents[i], func(k int) bool { return k != j && up(k, j, 0) }) {
			out = append(out, j)
		}
	}
	return out
}

func confidence(f *analyze.Finding, tests []string, effects int) analyze.Confidence {
	slices.Sort(tests)
	tests = slices.Compact(tests)
	c := analyze.Confidence{Level: "low", Tests: tests}
	if c.Tests == nil {
		c.Tests = []string{}
	}
	switch f.Role {
	case analyze.Root:
		if effects > 0 {
			c.Tests = append(c.Tests, fmt.Sprintf("explains:%d", effects))
		}
		c.Level = "medium"
		if effects >= 2 || f.Severity == "error" && effects > 0 {
			c.Level = "high"
		}
	case analyze.Consequence:
		c.Level = "medium"
		if len(tests) >= 3 {
			c.Level = "high"
		}
	default:
		c.Level = "low"
	}
	return c
}

// shared reports whether the subjects of a cause and its effect share what id demands.
func shared(id rules.Identity, a, b analyze.Subject) bool {
	switch id {
	case rules.SamePath:
		return a.Host == b.Host && a.Peer == b.Peer || a.Host == b.Peer && a.Peer == b.Host
	case rules.SameNet:
		return a.Host == b.Host && a.Peer == b.Peer || sameNet(a, b)
	case rules.SameService:
		return a.Port == b.Port && service(a) == service(b) && service(a) != ""
	case rules.SameUpstream:
		return a.Host == b.Host && a.Peer == b.Peer && (a.Port == b.Port || a.Port == 0 || b.Port == 0)
	case rules.SameHost:
		// A path concerns both its ends.
		return a.Host != "" && (a.Host == b.Host || a.Direction != "" && a.Peer == b.Host)
	case rules.Serves:
		return a.Host != "" && a.Host == b.Peer && (a.Port == b.Port || a.Port == 0 || b.Port == 0)
	}
	return false
}

// service is the host that listens in s.
func service(s analyze.Subject) string {
	switch s.Kind {
	case analyze.SubjectService, analyze.SubjectSource:
		return s.Host
	case analyze.SubjectUpstream, analyze.SubjectResolver:
		return s.Peer
	}
	return ""
}

// sameNet reports whether the two peers, seen from a common host, are in the same /24 or /64.
func sameNet(a, b analyze.Subject) bool {
	near := func(x, y string) bool {
		p, err1 := netip.ParseAddr(x)
		q, err2 := netip.ParseAddr(y)
		if err1 != nil || err2 != nil || p.Is4() != q.Is4() {
			return false
		}
		bits := 24
		if !p.Is4() {
			bits = 64
		}
		n, _ := p.Prefix(bits)
		return n.Contains(q)
	}
	return a.Host != "" && a.Host == b.Host && near(a.Peer, b.Peer)
}

// Diagnose gives a verdict on each step of the catalogue.
func (g *Graph) Diagnose(fs []*analyze.Finding, assessed map[string]analyze.Assessed) *analyze.Diagnosis {
	d := &analyze.Diagnosis{Roots: []string{}, Chain: []string{}}
	byOnset := slices.Clone(fs)
	slices.SortStableFunc(byOnset, func(a, b *analyze.Finding) int { return cmp.Compare(a.Onset, b.Onset) })
	links := 0
	for _, f := range byOnset {
		if f.Role == analyze.Root {
			d.Roots = append(d.Roots, f.ID)
			d.Chain = append(d.Chain, f.ID)
		}
	}
	for _, f := range byOnset {
		if f.Role == analyze.Consequence {
			d.Chain = append(d.Chain, f.ID)
			links += len(f.Because)
		}
	}
	for _, s := range g.set.Steps {
		d.Steps = append(d.Steps, g.verdict(s, byOnset, assessed, links))
	}
	d.Summary = summary(byOnset)
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
		// A condition that cannot be computed clears nothing; the rule counts it.
		switch ok, err := r.IsClear(a.Features); {
		case !a.Assessable:
			unseen = append(unseen, text(r, "not_assessable", a.Features))
		case ok && err == nil:
			clear = append(clear, text(r, "ruled_out", a.Features))
		default:
			open = append(open, text(r, "not_assessable", a.Features))
		}
	}
	switch {
	case len(open) > 0: // one rule of the step that is not cleared leaves the step open, whatever the others say
		v.Reason = join(open)
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
		for _, r := range fs {
			if r.Role != analyze.Root {
				continue
			}
			if lead := r.Onset.Sub(c.Onset); lead >= -changeSlack && lead <= changeWithin {
				v.Findings = append(v.Findings, c.ID)
				suspects = append(suspects, analyze.Text{
					En: fmt.Sprintf("%s: %.0f s before the onset.", strings.TrimSuffix(c.Summary.En, "."), max(lead.Seconds(), 0)),
					Ko: fmt.Sprintf("%s: 시작 %.0f초 전.", strings.TrimSuffix(c.Summary.Ko, "."), max(lead.Seconds(), 0)),
				})
				break
			}
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

// text renders a text that needs no subject; a text that cannot be computed is empty.
func text(r *rules.Rule, which string, features any) analyze.Text {
	t, _ := r.Text(which, features, nil)
	return analyze.Text(t)
}

// linkageStep is the step that asks whether the factors are connected.
const linkageStep = "linkage"

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

func summary(fs []*analyze.Finding) analyze.Text {
	var roots []analyze.Text
	n := 0
	for _, f := range fs {
		switch f.Role {
		case analyze.Root:
			roots = append(roots, f.Summary)
		case analyze.Consequence:
			n++
		}
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
