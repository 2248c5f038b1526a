// Package cause tells roots from consequences among findings and gives a verdict on each
// diagnostic step.
//
// The links, who can cause whom, are data (rules/causes.yaml): direct mechanisms only. A finding is the consequence of
// another when a link joins their rules and none of its tests refutes it: their subjects share the identity that the
// link demands; the cause's first affected event does not come later than the effect's, bar the link's slack; a natural
// experiment, where the link names one, does not speak against it. Chains lead through findings that could not be seen
// (chain.go), never through one that was assessed and cleared, or found and does not fit. What has no such predecessor
// is a root. The time of detection plays no part.
package cause

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// pastUnknown is how much earlier than its onset a finding may have begun that has no past: it was there when the input began, and
// showed when it could. The first SYN of a connection comes again after 1, 3, 7 s (RFC 6298 §5.5), a query after 5 s
// (resolv.conf(5)), and clients give up after some seconds.
const pastUnknown = 10 * time.Second

// Graph implements analyze.Causes over the links of a catalogue.
type Graph struct {
	set  *rules.Set
	to   map[string][]*rules.Edge // by the effect's rule
	into map[string][]string      // rules from which links lead to a rule, by any number of steps
	// alone holds each edge as a route of its own.
	alone map[*rules.Edge][]*rules.Edge
}

// New returns the graph of set.
func New(set *rules.Set) *Graph {
	g := &Graph{set: set, to: make(map[string][]*rules.Edge), into: make(map[string][]string), alone: make(map[*rules.Edge][]*rules.Edge)}
	for _, e := range set.Edges {
		g.to[e.To.Rule] = append(g.to[e.To.Rule], e)
		g.alone[e] = []*rules.Edge{e}
	}
	for rule := range g.to {
		from := []string{rule}
		for i := 0; i < len(from); i++ {
			for _, e := range g.to[from[i]] {
				if !slices.Contains(from, e.From.Rule) {
					from = append(from, e.From.Rule)
				}
			}
		}
		g.into[rule] = from[1:]
	}
	return g
}

// maxCauses bounds how many causes of one finding by one edge are looked for. The first explain it; what more there
// are says little, and large outages have thousands of findings.
const maxCauses = 16

// maxTried bounds how many findings of one rule and place are looked at that had not all ended before, the first to be affected first:
// what comes after so many is one of a flood. Measured (TestCost): 9,600 findings of one host cost 1.0 times as much each as 600.
const maxTried = 160

// node is a finding with its place.
type node struct {
	f       *analyze.Finding
	party   rules.Party
	place   place
	class   string
	begins  capture.Instant // its onset, or earlier: as a cause
	parents []parent        // in the order of their findings
	effects int             // that more than order and the host join to this
	all     int             // effects, those of its effects included
	named   bool            // it was called a root before
}

// parent is a finding that explains another.
type parent struct {
	from       int
	edges      []*rules.Edge // from the cause to the effect; all but the last lead to what was not seen
	experiment rules.Result  // of the last of them
	weak       bool          // nothing but order and the host speaks for it
}

// at finds the findings of a rule and, where class is not empty, of that class that concern a host, and, where port is
// not 0 or peer not zero, a port or peer of theirs.
type at struct {
	rule, class string
	host, peer  capture.Addr
	port        uint16
}

// concerned are the findings of a rule that concern a host.
type concerned struct {
	nodes []int             // in the order of their beginnings
	last  []capture.Instant // when those up to here were last seen
}

func (c *concerned) sort(nodes []node) {
	slices.SortStableFunc(c.nodes, func(a, b int) int { return cmp.Compare(nodes[a].begins, nodes[b].begins) })
	var last capture.Instant
	for _, i := range c.nodes {
		last = max(last, nodes[i].f.LastSeen)
		c.last = append(c.last, last)
	}
}

// since are those from the first on that may still explain an effect that begins at onset.
func (c *concerned) since(onset capture.Instant) []int {
	if c == nil {
		return nil
	}
	first, _ := slices.BinarySearchFunc(c.last, onset, func(last, onset capture.Instant) int { return cmp.Compare(last.Add(analyze.Aftermath), onset) })
	return c.nodes[first:]
}

// linking is the work of one call of Link.
type linking struct {
	*Graph
	now     capture.Instant
	nodes   []node
	concern map[at]*concerned
	present map[string]bool // rules that have findings
	cleared func(rule string) bool
	clear   map[string]bool // what cleared said
	// explains holds for each node the last round, one for each effect, in which it was found to be a cause.
	explains []int
	refuted  []int // the last round in which an experiment refuted it
	round    int
	up       []int // ancestors that are still to be visited
	parts    parts
	chain    [maxUnseen]step               // of the effect that is being explained
	lists    [][]int                       // what candidates returned last
	ended    map[string][]*analyze.Finding // by id: earlier times that what comes back was there
}

// Link sets Role, Because, Links, Confidence and Incident of every finding. l says which addresses belong to one host, cleared
// whether a rule was assessed and is ruled out; nil: none is.
func (g *Graph) Link(fs []*analyze.Finding, l analyze.Local, cleared func(rule string) bool, now capture.Instant) {
	w := &linking{Graph: g, now: now, nodes: make([]node, len(fs)), concern: make(map[at]*concerned), present: make(map[string]bool),
		cleared: cleared, clear: make(map[string]bool), explains: make([]int, len(fs)), refuted: make([]int, len(fs)), parts: make(parts, len(fs)), ended: make(map[string][]*analyze.Finding)}
	for i, f := range fs {
		w.parts[i] = i
		if f.State == analyze.Resolved {
			w.ended[f.ID] = append(w.ended[f.ID], f)
		}
		n := &w.nodes[i]
		*n = node{f: f, named: f.Role == analyze.Root, party: rules.Party{Rule: f.Rule, Features: f.Features, Subject: analyze.SubjectFields(f.Subject)}, place: placeOf(f.Subject, l)}
		r := g.set.Rule(f.Rule)
		if peer, port := n.party.WaitsFor(r); n.place.kind == analyze.SubjectService {
			if ip, err := netip.ParseAddr(peer); err == nil {
				n.place.calls, n.place.callsPort = l.Host(capture.AddrFrom(ip)), port
			}
		}
		for _, a := range n.party.Peers(r) {
			if ip, err := netip.ParseAddr(a); err == nil {
				n.place.peers = append(n.place.peers, l.Host(capture.AddrFrom(ip)))
			}
		}
		for _, pair := range n.party.Pairs(r) {
			n.place.pairs = append(n.place.pairs, placeOf(analyze.Subject{Kind: f.Subject.Kind, Direction: f.Subject.Direction, Peer: pair[0], Host: pair[1]}, l))
		}
		n.class, n.begins = n.party.Class(r), f.Onset
		if !n.party.HasPast(r) {
			n.begins = f.Onset.Add(-pastUnknown)
		}
		w.present[f.Rule] = true
		if !weak(f) {
			w.index(i)
		}
	}
	for _, list := range w.concern { // the first to be affected first: what begins later than an effect is not looked at
		list.sort(w.nodes)
	}
	for i := range w.nodes {
		if !weak(w.nodes[i].f) {
			w.explain(i)
		}
	}
	breakCycles(w.nodes)
	for i := range w.nodes {
		for _, p := range w.nodes[i].parents {
			if !p.weak {
				w.nodes[p.from].effects++
			}
		}
		w.credit(i)
	}
	w.roles()
	w.group()
	w.wait()
	for i := range w.nodes {
		w.nodes[i].conclude(w.nodes, w.direct(i))
	}
}

// credit counts node i once for each finding that explains it, directly or through others.
func (w *linking) credit(i int) {
	w.round++
	w.explains[i] = w.round
	w.up = append(w.up[:0], i)
	up := w.up
	for len(up) > 0 {
		n := &w.nodes[up[len(up)-1]]
		up = up[:len(up)-1]
		for _, p := range n.parents {
			if w.explains[p.from] != w.round {
				w.explains[p.from] = w.round
				w.nodes[p.from].all++
				up = append(up, p.from)
			}
		}
	}
	w.up = up
}

// roles tells roots from consequences. What only says that something else is wrong is no root beside one, nor beside what follows from one.
func (w *linking) roles() {
	wrong := make(map[capture.Addr][]int) // by host
	var signs []int
	for i := range w.nodes {
		n := &w.nodes[i]
		switch {
		case weak(n.f):
			n.f.Role = analyze.Independent
		case len(n.parents) > 0:
			n.f.Role = analyze.Consequence
		default:
			n.f.Role = analyze.Root
			if n.all == 0 && w.set.Sign(&n.party) {
				signs = append(signs, i)
				continue
			}
		}
		if n.f.Role != analyze.Independent {
			for _, h := range n.place.ends() {
				wrong[h] = append(wrong[h], i)
			}
		}
	}
	for _, i := range signs {
		n := &w.nodes[i]
		for _, h := range n.place.ends() {
			at := slices.IndexFunc(wrong[h], func(j int) bool {
				r := w.nodes[j].f
				return r.Onset <= n.f.Onset.Add(together) && n.f.Onset <= r.LastSeen.Add(analyze.Aftermath)
			})
			if at >= 0 {
				n.f.Role = analyze.Independent
				w.parts.join(i, wrong[h][at])
				break
			}
		}
	}
}

// wait makes roots pending that links lead to, while what these lead from may not have shown yet. What was once called a root stays one.
func (w *linking) wait() {
	for i := range w.nodes {
		n := &w.nodes[i]
		n.f.MayFollow = nil
		if n.f.Role != analyze.Root || n.named || w.now.Sub(n.f.Onset) >= analyze.RootAfter {
			continue
		}
		for _, e := range w.to[n.f.Rule] {
			if e.Follows(&n.party) && !slices.Contains(n.f.MayFollow, e.From.Rule) {
				n.f.Role = analyze.Pending
				n.f.MayFollow = append(n.f.MayFollow, e.From.Rule)
			}
		}
	}
}

// index enters node i under all that it concerns.
func (w *linking) index(i int) {
	n := &w.nodes[i]
	add := func(k at) {
		if w.concern[k] == nil {
			w.concern[k] = new(concerned)
		}
		w.concern[k].nodes = append(w.concern[k].nodes, i)
	}
	enter := func(k at) {
		add(k)
		if k.class = n.class; n.class != "" {
			add(k)
		}
	}
	for _, host := range n.place.peers {
		enter(at{rule: n.f.Rule, host: host})
	}
	n.place.enter(n.f.Rule, enter)
	for k := range n.place.pairs {
		n.place.pairs[k].enter(n.f.Rule, enter)
	}
}

// enter enters something of a rule under the hosts that p concerns.
func (p *place) enter(rule string, enter func(at)) {
	ends := p.ends()
	for k, host := range ends {
		enter(at{rule: rule, host: host})
		if p.port != 0 {
			enter(at{rule: rule, host: host, port: p.port})
		}
		switch {
		case len(ends) == 2:
			enter(at{rule: rule, host: host, peer: ends[1-k]})
		case p.all():
			enter(at{rule: rule, host: host, peer: host}) // to all its peers
		}
	}
}

// candidates are the findings that may cause an effect at f, affected from onset on, by way of e, each list in the order of their
// onsets. The next call takes the lists away.
func (w *linking) candidates(e *rules.Edge, f *place, onset capture.Instant) [][]int {
	k := at{rule: e.From.Rule, host: f.host}
	lists := w.lists[:0]
	add := func(k at) {
		if len(e.From.Classes) == 0 {
			lists = append(lists, w.concern[k].since(onset))
		}
		for _, k.class = range e.From.Classes {
			lists = append(lists, w.concern[k].since(onset))
		}
	}
	switch {
	case e.Identity == rules.SameService && f.port != 0:
		k.host, k.port = f.service(), f.port
		if k.host == none {
			k.host = f.host
		}
		add(k)
	case e.Identity == rules.Serves:
		k.host, _ = f.callee()
		add(k)
	case (e.Identity == rules.SamePath || e.Identity == rules.SameUpstream) && f.host != none && (f.peer != none || !f.free):
		if k.peer = f.peer; f.peer != none {
			add(k)
			add(at{rule: k.rule, host: f.peer, peer: f.peer})
		}
		add(at{rule: k.rule, host: f.host, peer: f.host})
		if f.all() { // a segment that its path crosses
			add(k)
		}
	default:
		add(k)
		if f.peer != f.host && f.peer != none {
			k.host = f.peer
			add(k)
		}
	}
	w.lists = lists
	return lists
}

// weak findings are information: they neither cause nor follow.
func weak(f *analyze.Finding) bool { return f.Severity == "info" }

// conclude sets what follows for the finding from its parents, of which these are the direct ones.
func (n *node) conclude(nodes []node, parents []parent) {
	f := n.f
	f.Because, f.Links = []string{}, []analyze.Link{}
	slices.SortFunc(parents, func(a, b parent) int { return cmp.Compare(nodes[a.from].f.ID, nodes[b.from].f.ID) })
	for _, p := range parents {
		f.Because = append(f.Because, nodes[p.from].f.ID)
		link := analyze.Link{ID: nodes[p.from].f.ID, Tests: n.tests(&p, &nodes[p.from])}
		for _, e := range p.edges[:len(p.edges)-1] {
			link.Through = append(link.Through, e.To.String()+", not seen")
		}
		f.Links = append(f.Links, link)
	}
	f.Confidence = n.confidence()
}

func (n *node) confidence() analyze.Confidence {
	c := analyze.Confidence{Level: "low", Tests: []string{}}
	proven, strong := false, false
	for _, p := range n.parents {
		last := p.edges[len(p.edges)-1]
		c.Tests = append(c.Tests, "order", "identity:"+string(p.edges[0].Identity))
		if p.experiment == rules.Proven {
			c.Tests = append(c.Tests, "experiment:"+last.From.Rule+">"+last.To.Rule)
			proven = proven || !p.weak
		}
		strong = strong || !p.weak
	}
	slices.Sort(c.Tests)
	c.Tests = slices.Compact(c.Tests)
	switch n.f.Role {
	case analyze.Root:
		if n.all > 0 {
			c.Tests = append(c.Tests, fmt.Sprintf("explains:%d", n.all))
		}
		c.Level = "medium"
		if n.effects >= 2 || n.f.Severity == "error" && n.effects > 0 {
			c.Level = "high"
		}
	case analyze.Consequence:
		if strong {
			c.Level = "medium"
		}
		if proven {
			c.Level = "high"
		}
	}
	return c
}

// breakCycles drops, of findings that explain each other in a circle, the explanations by those that come later. The
// links of the catalogue close no circle of rules and classes, so that there is seldom anything to do.
func breakCycles(nodes []node) {
	const open, done = 1, 2
	state := make([]uint8, len(nodes))
	var visit func(int)
	visit = func(i int) {
		state[i] = open
		nodes[i].parents = slices.DeleteFunc(nodes[i].parents, func(p parent) bool {
			if state[p.from] == 0 {
				visit(p.from)
			}
			return state[p.from] == open // an ancestor of its own
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
func (w *linking) direct(i int) []parent {
	parents := w.nodes[i].parents
	if len(parents) < 2 {
		return parents
	}
	w.round++
	up := w.up[:0]
	for _, p := range parents {
		up = append(up, p.from)
	}
	for found := 0; len(up) > 0 && found < maxAncestors; {
		j := up[len(up)-1]
		up = up[:len(up)-1]
		for _, p := range w.nodes[j].parents {
			if w.explains[p.from] != w.round {
				w.explains[p.from] = w.round
				up = append(up, p.from)
				found++
			}
		}
	}
	w.up = up
	var out []parent
	for _, p := range parents {
		if w.explains[p.from] != w.round {
			out = append(out, p)
		}
	}
	return out
}
