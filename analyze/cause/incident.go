package cause

import (
	"cmp"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// together is how far apart two visible starts of one fault may begin: a router that loses what goes to two upstreams shows
// at each when it is next called, and by an unanswered query after its time-out, 5 s and its double (resolv.conf(5)).
const together = 10 * time.Second

// parts are disjoint sets of nodes: what belongs to one incident.
type parts []int

func (p parts) of(i int) int {
	for p[i] != i {
		p[i] = p[p[i]]
		i = p[i]
	}
	return i
}

// join makes one part of those of i and j.
func (p parts) join(i, j int) { p[p.of(i)] = p.of(j) }

// group tells incidents apart: findings that explain each other, and visible starts of one fault.
func (w *linking) group() {
	p := w.parts
	for i := range w.nodes {
		parents := w.nodes[i].parents
		if len(parents) > 1 && parents[0].weak { // none of them is more than suspected: they do not become one for that
			first := slices.MinFunc(parents, func(a, b parent) int { return cmp.Compare(w.nodes[a.from].f.Onset, w.nodes[b.from].f.Onset) })
			parents = []parent{first}
		}
		for _, c := range parents {
			p.join(i, c.from)
		}
	}
	w.starts()
	// What was found first names the incident, so that it keeps its name while more is found.
	order := make([]int, 0, len(w.nodes))
	for i := range w.nodes {
		if !weak(w.nodes[i].f) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := w.nodes[a].f, w.nodes[b].f
		return cmp.Or(cmp.Compare(x.Detected, y.Detected), cmp.Compare(x.Onset, y.Onset), cmp.Compare(x.ID, y.ID))
	})
	names := make(map[int]string) // by part
	taken := make(map[string]bool)
	for _, i := range order {
		f := w.nodes[i].f
		name, ok := names[p.of(i)]
		if !ok {
			if name = f.Incident; name == "" || taken[name] {
				name = analyze.IncidentID(f)
			}
			names[p.of(i)], taken[name] = name, true
		}
		f.Incident = name
	}
}

// start is what visible starts of one fault have in common.
type start struct {
	rule, class string
	host        capture.Addr
}

// starts joins the roots of one kind that begin together on the paths of one host. Two services of a host are two: what they
// share is not known. So are two hosts that refuse: each of them said so itself, over a path that is well.
func (w *linking) starts() {
	last := make(map[start]int)
	order := make([]int, 0, len(w.nodes))
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.f.Role == analyze.Root && n.class != "refused" && (n.place.called() || n.place.kind == analyze.SubjectPath) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(w.nodes[a].f.Onset, w.nodes[b].f.Onset) })
	for _, i := range order {
		n := &w.nodes[i]
		for _, h := range n.place.ends() {
			k := start{n.f.Rule, n.class, h}
			if j, ok := last[k]; ok && n.f.Onset.Sub(w.nodes[j].f.Onset) <= together && w.nodes[j].f.LastSeen >= n.f.Onset {
				w.parts.join(i, j)
			}
			last[k] = i
		}
	}
}
