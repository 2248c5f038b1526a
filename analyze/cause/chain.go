package cause

import (
	"cmp"
	"fmt"
	"slices"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// maxUnseen is how many findings in a row may stand unseen between a cause and its effect. The longest chain of the
// rebuilt incident leads from a loss through the slow upstream, the slow service and the full accept queue to the SYNs
// that nobody answers.
const maxUnseen = 3

// step of a chain, from an effect towards its cause: what stands at the near end of edge, and is seen or free.
type step struct {
	edge  *rules.Edge // leads to the step before
	place place       // of what the edge leads from
	class string      // of what the edge leads from
}

// explain finds the parents of node i: by a link, else through what could not be seen.
func (w *linking) explain(i int) {
	n := &w.nodes[i]
	w.round++
	w.back(i, &n.place, func(e *rules.Edge) bool { return e.Follows(&n.party) }, n.f.Rule, w.chain[:0])
	// What is still there explains it; what was over before need not, too.
	if slices.ContainsFunc(n.parents, func(p parent) bool { return !w.over(p.from, n.f) }) {
		n.parents = slices.DeleteFunc(n.parents, func(p parent) bool { return w.over(p.from, n.f) })
	}
	// Nor need what has only begun before, somewhere on the host, where more speaks for another.
	if slices.ContainsFunc(n.parents, func(p parent) bool { return !p.weak }) {
		n.parents = slices.DeleteFunc(n.parents, func(p parent) bool { return p.weak })
	}
	slices.SortFunc(n.parents, func(a, b parent) int { return cmp.Compare(a.from, b.from) })
}

// over reports whether cause j had ended when f began.
func (w *linking) over(j int, f *analyze.Finding) bool {
	c := w.nodes[j].f
	return c.State == analyze.Resolved && c.LastSeen < f.Onset
}

// back looks for causes of what is at p, of rule, by the edges that lead there; chain leads on from there to node i.
func (w *linking) back(i int, p *place, leads func(*rules.Edge) bool, rule string, chain []step) {
	n := &w.nodes[i]
	var refuted []int
	for _, e := range w.to[rule] {
		if !w.present[e.From.Rule] || !leads(e) {
			continue
		}
		found, tried := 0, 0
		for _, list := range w.candidates(e, p, n.f.Onset) {
			for _, j := range list {
				if found == maxCauses || tried == maxTried || w.nodes[j].begins > n.f.Onset.Add(e.Slack) {
					break
				}
				tried++
				if j == i || w.explains[j] == w.round || w.refuted[j] == w.round || !w.may(e, j, p, i) {
					continue
				}
				switch result, weak, ok := w.try(e, j, chain, i); {
				case ok:
					n.parents = append(n.parents, parent{j, w.route(e, chain), result, weak})
					w.explains[j] = w.round
					found++
				case result == rules.Refuted && len(chain) == 0:
					// No way around, through what was not seen, makes good what an experiment denies of the two.
					refuted = append(refuted, j)
				}
			}
		}
	}
	for _, j := range refuted { // now that all links from it were tried
		w.refuted[j] = w.round
	}
	if len(chain) == maxUnseen || len(n.parents) >= maxCauses {
		return
	}
	if len(chain) == 0 && slices.ContainsFunc(n.parents, func(p parent) bool { return !p.weak }) {
		return // what was seen explains it
	}
	for _, e := range w.to[rule] {
		for _, u := range w.set.Unseen {
			if u.Rule != e.From.Rule || !leads(e) || !w.reachable(u.Rule) || slices.ContainsFunc(chain, func(s step) bool { return s.edge.From.Rule == u.Rule }) {
				continue
			}
			classes, ok := u.Selector.Meets(e.From)
			if !ok || w.isClear(u.Rule) {
				continue
			}
			if len(classes) == 0 {
				classes = anyClass
			}
			places, count := before(u.Subject, e.Identity, p)
			for k := range places[:count] {
				b := &places[k]
				if w.seen(u.Selector, e, b, p, n.f.Onset) {
					continue
				}
				for _, class := range classes {
					w.back(i, b, func(up *rules.Edge) bool { return picks(up.To, class) },
						u.Rule, append(chain, step{e, *b, class})) // its place is free again when that is done
				}
			}
		}
	}
}

// route is the edges from e to the effect at the other end of chain.
func (w *linking) route(e *rules.Edge, chain []step) []*rules.Edge {
	if len(chain) == 0 {
		return w.alone[e]
	}
	edges := []*rules.Edge{e}
	for _, s := range slices.Backward(chain) {
		edges = append(edges, s.edge)
	}
	return edges
}

var anyClass = []string{""}

func picks(s rules.Selector, class string) bool {
	return len(s.Classes) == 0 || slices.Contains(s.Classes, class)
}

// reachable reports whether a finding is there from which links lead to rule.
func (w *linking) reachable(rule string) bool {
	return slices.ContainsFunc(w.into[rule], func(r string) bool { return w.present[r] })
}

// isClear reports whether a rule is ruled out. What was found anywhere is not, however little it is of all that the rule has seen.
func (w *linking) isClear(rule string) bool {
	if w.cleared == nil || w.present[rule] {
		return false
	}
	is, known := w.clear[rule]
	if !known {
		is = w.cleared(rule)
		w.clear[rule] = is
	}
	return is
}

// seen reports whether what s picks was found at b, from where e leads to p, in time: then it is a cause itself, or none. What was found
// later says nothing of the time before it, when it may have been there below its threshold.
func (w *linking) seen(s rules.Selector, e *rules.Edge, b, p *place, onset capture.Instant) bool {
	if !w.present[s.Rule] {
		return false
	}
	for _, list := range w.candidates(e, p, onset) {
		for _, j := range list[:min(len(list), maxTried)] {
			m := &w.nodes[j]
			if m.begins > onset.Add(e.Slack) {
				break // in the order of their beginnings
			}
			if e.Is(&m.party) && (b.called() == m.place.called()) && shared(e.Identity, &m.place, p) {
				return true
			}
		}
	}
	return false
}

// may reports whether node j can be the cause, by e, of what is at p and leads to node i: time and place.
func (w *linking) may(e *rules.Edge, j int, p *place, i int) bool {
	c := &w.nodes[j]
	return c.f.LastSeen.Add(analyze.Aftermath) >= w.nodes[i].f.Onset && shared(e.Identity, &c.place, p) && e.Is(&c.party) && !w.healed(c.f, w.nodes[i].f)
}

// healed reports whether the effect was there before in the time of the cause, and both were well again before it came back: then it
// came back for another reason.
func (w *linking) healed(c, f *analyze.Finding) bool {
	if c.State != analyze.Resolved || c.LastSeen >= f.Onset {
		return false
	}
	return slices.ContainsFunc(w.ended[f.ID], func(e *analyze.Finding) bool {
		return e != f && e.LastSeen >= c.Onset && e.LastSeen < f.Onset
	})
}

// try tests whether node j, which may be, is the cause, by e and then by chain, of node i. It returns
// what the last experiment gave and whether nothing but order and the host speaks for it; not ok if a test refutes it.
func (w *linking) try(e *rules.Edge, j int, chain []step, i int) (result rules.Result, weak, ok bool) {
	edge, from, place := e, &w.nodes[j].party, w.nodes[j].place
	for k := len(chain) - 1; k >= 0; k-- {
		s := &chain[k]
		place = s.place.settled(edge.Identity, &place)
		to := &rules.Party{Rule: edge.To.Rule, Subject: place.fields()}
		if features := w.unseen(s, &place, i); len(features) > 0 {
			to.Features = features
		}
		if ok, err := edge.Leads(from); !ok || err != nil {
			return "", false, false
		}
		// Whom it called may be not known: then the link's conditions cannot be asked.
		if !place.called() || place.peer != none {
			if _, ok := holds(edge, from, to); !ok {
				return "", false, false
			}
		}
		weak = weak || edge.Identity == rules.SameHost
		edge, from = s.edge, to
	}
	result, ok = holds(edge, from, &w.nodes[i].party)
	return result, weak || edge.Identity == rules.SameHost && result != rules.Proven, ok
}

// unseen are the features of what stands at p, unseen, as s of a chain to node i: if it is of the same service, it calls no more servers.
func (w *linking) unseen(s *step, p *place, i int) map[string]any {
	var features map[string]any
	if s.class != "" {
		features = map[string]any{"class": s.class}
	}
	n := &w.nodes[i]
	if p.kind != analyze.SubjectService || n.place.kind != p.kind || p.host != n.place.host || p.port != n.place.port {
		return features
	}
	if list := n.party.NotCalled(w.set.Rule(n.f.Rule)); list != "" {
		if features == nil {
			features = make(map[string]any, 1)
		}
		features["not_called"] = list
	}
	return features
}

// holds makes the tests of an edge between two parties.
func holds(e *rules.Edge, cause, effect *rules.Party) (rules.Result, bool) {
	// The edge reports its own arithmetic errors once; here an edge that cannot be computed is none.
	if ok, err := e.Matches(cause, effect); !ok || err != nil {
		return "", false
	}
	r, err := e.Try(cause, effect)
	return r, err == nil && r != rules.Refuted
}

// tests are those that say that c caused n as p has it.
func (n *node) tests(p *parent, c *node) []analyze.Tried {
	first, last := p.edges[0], p.edges[len(p.edges)-1]
	order := analyze.Tried{Test: "order", Result: string(rules.Proven), Note: fmt.Sprintf("%.2f s before", n.f.Onset.Sub(c.f.Onset).Seconds())}
	if c.f.Onset > n.f.Onset {
		order.Result = string(rules.NotObservable)
		order.Note = fmt.Sprintf("first evidence %.2f s later, of %.0f s within which the two cannot be told apart",
			c.f.Onset.Sub(n.f.Onset).Seconds(), (first.Slack + c.f.Onset.Sub(c.begins)).Seconds())
	}
	identity := analyze.Tried{Test: "identity", Result: string(rules.Proven), Note: string(first.Identity)}
	if first.Identity == rules.SameHost {
		identity.Result = string(rules.NotObservable)
		identity.Note += ": nothing narrower was seen"
	}
	out := []analyze.Tried{order, identity}
	if last.Experiment != "" || last.Known != "" {
		x := analyze.Tried{Test: "experiment", Result: string(p.experiment)}
		if p.experiment == rules.Proven {
			x.Note = last.Proof.En
		}
		out = append(out, x)
	}
	return out
}
