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
	"jindan/capture"
	"jindan/rules"
)

// memory is how long after its end a cause may still explain an effect that begins: a backlog of
// requests outlives the fault by the clients' time-outs.
const memory = time.Minute

// Graph implements analyze.Causes over the edges of a catalogue.
type Graph struct{ set *rules.Set }

// New returns the graph of set.
func New(set *rules.Set) *Graph { return &Graph{set} }

// pastUnknown is how much earlier than its onset a finding may have begun that has no past: it was there when the input began, and
// showed when it could. The first SYN of a connection comes again after 1, 3, 7 s (RFC 6298 §5.5), a query after 5 s
// (resolv.conf(5)), and clients give up after some seconds.
const pastUnknown = 10 * time.Second

// maxCauses bounds how many causes of one finding by one edge are looked for. The first explain it; what more there
// are says little, and large outages have thousands of findings.
const maxCauses = 16

// node is a finding with the hosts of its subject: addresses, each of which stands for a whole host.
type node struct {
	f          *analyze.Finding
	party      rules.Party
	class      string
	host, peer capture.Addr // zero: there is none
	parents    []int
	effects    int
	tests      []string
	begins     capture.Instant // its onset, or earlier: as a cause
}

// at finds the findings of a rule that concern a host, and, where they are not zero, are of a class and concern a port of
// theirs: what an edge cannot start from is not looked at.
type at struct {
	rule, class string
	host        capture.Addr
	port        uint16
}

// anyClass are the classes of an edge that starts from all of them.
var anyClass = []string{""}

// Link sets Role, Because and Confidence of every finding. l says which addresses belong to one host.
func (g *Graph) Link(fs []*analyze.Finding, l analyze.Local) {
	nodes := make([]node, len(fs))
	concern := make(map[at][]int)
	for i, f := range fs {
		n := &nodes[i]
		*n = node{f: f, party: rules.Party{Rule: f.Rule, Features: f.Features, Subject: analyze.SubjectFields(f.Subject)},
			host: hostOf(f.Subject.Host, l), peer: hostOf(f.Subject.Peer, l)}
		if weak(f) {
			continue
		}
		hosts := []capture.Addr{n.host, n.peer}
		if n.peer == n.host {
			hosts = hosts[:1]
		}
		n.class, n.begins = n.party.Class(g.set.Rule(f.Rule)), f.Onset
		if !n.party.HasPast(g.set.Rule(f.Rule)) {
			n.begins = f.Onset.Add(-pastUnknown)
		}
		keys := make(map[at]bool)
		for _, h := range hosts {
			for _, class := range []string{"", n.class} {
				keys[at{f.Rule, class, h, 0}] = true
				keys[at{f.Rule, class, h, f.Subject.Port}] = true
			}
		}
		for k := range keys { // each once; the lists are sorted below
			concern[k] = append(concern[k], i)
		}
	}
	for _, list := range concern { // the first to be affected first: what begins later than an effect is not looked at
		slices.SortStableFunc(list, func(a, b int) int { return cmp.Compare(nodes[a].begins, nodes[b].begins) })
	}
	edges := make(map[string][]*rules.Edge)
	for _, e := range g.set.Edges {
		edges[e.To.Rule] = append(edges[e.To.Rule], e)
	}
	for i := range nodes {
		if !weak(nodes[i].f) {
			explain(nodes, i, edges[nodes[i].f.Rule], concern)
		}
	}
	breakCycles(nodes)
	some := false
	for i := range nodes {
		for _, j := range nodes[i].parents {
			nodes[j].effects++
			some = true
		}
	}
	for i := range nodes {
		n := &nodes[i]
		n.f.Because = []string{}
		for _, j := range direct(nodes, i) {
			n.f.Because = append(n.f.Because, fs[j].ID)
		}
		slices.Sort(n.f.Because)
		switch {
		case weak(n.f):
			n.f.Role = analyze.Independent
		case len(n.parents) > 0:
			n.f.Role = analyze.Consequence
		case n.effects > 0 || !some:
			n.f.Role = analyze.Root
		default:
			n.f.Role = analyze.Independent
		}
		n.f.Confidence = confidence(n.f, n.tests, n.effects)
	}
}

// hostOf is the host of an address as it stands in a subject; zero if it is none.
func hostOf(s string, l analyze.Local) capture.Addr {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return capture.Addr{}
	}
	return l.Host(capture.AddrFrom(ip))
}

// weak findings are information: they neither cause nor follow.
func weak(f *analyze.Finding) bool { return f.Severity == "info" }

// explain finds the parents of node i among those that concern one of its hosts.
func explain(nodes []node, i int, edges []*rules.Edge, concern map[at][]int) {
	n := &nodes[i]
	hosts := []capture.Addr{n.host, n.peer}
	if n.peer == n.host {
		hosts = hosts[:1]
	}
	for _, e := range edges {
		if len(e.To.Classes) > 0 && !slices.Contains(e.To.Classes, n.class) {
			continue
		}
		from := e.From.Classes
		if len(from) == 0 {
			from = anyClass
		}
		found := 0
		for _, host := range hosts {
			for _, c := range from {
				where := at{e.From.Rule, c, host, 0}
				if e.Identity == rules.SameService {
					where.port = n.f.Subject.Port
				}
				for _, j := range concern[where] {
					if found == maxCauses || nodes[j].begins > n.f.Onset.Add(e.Slack) {
						break
					}
					if j == i || slices.Contains(n.parents, j) {
						continue
					}
					if t := causes(e, &nodes[j], n); t != nil {
						n.parents = append(n.parents, j)
						n.tests = append(n.tests, t...)
						found++
					}
				}
			}
		}
	}
	slices.Sort(n.parents)
}

// causes returns the tests that say that c caused f by way of e, nil if it did not.
func causes(e *rules.Edge, c, f *node) []string {
	if c.f.LastSeen.Add(memory) < f.f.Onset || !shared(e.Identity, c, f) {
		return nil
	}
	// The edge reports its own arithmetic errors once; here an edge that cannot be computed is none.
	if ok, err := e.Matches(&c.party, &f.party); !ok || err != nil {
		return nil
	}
	t := []string{"order", "identity:" + string(e.Identity)}
	if ok, err := e.Proven(&c.party, &f.party); ok && err == nil {
		t = append(t, "experiment:"+e.From.Rule+">"+e.To.Rule)
	}
	return t
}

// breakCycles drops, of findings that explain each other in a circle, the explanations by those that come later. The
// edges of the catalogue close no circle of rules and classes, so that there is seldom anything to do.
func breakCycles(nodes []node) {
	const open, done = 1, 2
	state := make([]uint8, len(nodes))
	var visit func(int)
	visit = func(i int) {
		state[i] = open
		nodes[i].parents = slices.DeleteFunc(nodes[i].parents, func(j int) bool {
			if state[j] == 0 {
				visit(j)
			}
			return state[j] == open // an ancestor of its own
		})
		state[i] = done
	}
	byOnset := make([]int, len(nodes))
	for i := range byOnset {
		byOnset[i] = i
	}
	// Who is visited first keeps its causes: the latest.
	slices.SortStableFunc(byOnset, func(a, b int) int { return cmp.Compare(nodes[b].f.Onset, nodes[a].f.Onset) })
	for _, i := range byOnset {
		if state[i] == 0 {
			visit(i)
		}
	}
}

// maxAncestors bounds how many ancestors of a finding are looked through for parents that are indirect.
const maxAncestors = 256

// direct are the parents of i that are no ancestors of another of its parents.
func direct(nodes []node, i int) []int {
	if len(nodes[i].parents) < 2 {
		return nodes[i].parents
	}
	indirect := make(map[int]bool)
	todo := slices.Clone(nodes[i].parents)
	for len(todo) > 0 && len(indirect) < maxAncestors {
		j := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, k := range nodes[j].parents {
			if !indirect[k] {
				indirect[k] = true
				todo = append(todo, k)
			}
		}
	}
	var out []int
	for _, j := range nodes[i].parents {
		if !indirect[j] {
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

// shared reports whether the subjects of a cause and its effect share what id demands. A path without a peer is that
// to all peers of its host.
func shared(id rules.Identity, c, f *node) bool {
	none := capture.Addr{}
	all := c.f.Subject.Kind == analyze.SubjectPath && c.peer == none && c.host != none && (c.host == f.host || c.host == f.peer)
	a, b := c.f.Subject, f.f.Subject
	switch id {
	case rules.SamePath:
		return all || c.host == f.host && c.peer == f.peer || c.host == f.peer && c.peer == f.host
	case rules.SameNet:
		return all || c.host == f.host && c.peer == f.peer || c.host != none && c.host == f.host && sameNet(a.Peer, b.Peer)
	case rules.SameService:
		return a.Port == b.Port && c.service() == f.service() && c.service() != none
	case rules.SameUpstream:
		return c.host == f.host && c.peer == f.peer && (a.Port == b.Port || a.Port == 0 || b.Port == 0)
	case rules.SameHost:
		// A path concerns both its ends.
		return c.host != none && (c.host == f.host || a.Direction != "" && c.peer == f.host)
	case rules.Within:
		return all && f.peer != none && (c.host == f.host) == (a.Direction == b.Direction)
	case rules.Serves:
		return c.host != none && c.host == f.peer && (a.Port == b.Port || a.Port == 0 || b.Port == 0)
	}
	return false
}

// service is the host that listens.
func (n *node) service() capture.Addr {
	switch n.f.Subject.Kind {
	case analyze.SubjectService, analyze.SubjectSource:
		return n.host
	case analyze.SubjectUpstream, analyze.SubjectResolver:
		return n.peer
	}
	return capture.Addr{}
}

// sameNet reports whether two addresses are in the same /24 or /64.
func sameNet(x, y string) bool {
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
