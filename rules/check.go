package rules

import (
	"maps"
	"regexp"
	"slices"
	"sync"

	"github.com/expr-lang/expr/types"
)

// compile checks a rule against its features and makes its conditions and texts.
func (d *decoder) compile(r *Rule, features any) {
	p, err := newPlan(features)
	if err != nil {
		d.fail(r.nodes.id.errorf("rule %s: %v", r.ID, err))
		return
	}
	r.features = p
	r.zero = make(map[string]any)
	for i, name := range p.names {
		if _, ok := SubjectFields[name]; ok {
			d.fail(r.nodes.id.errorf("rule %s: feature %q has the name of a subject's field", r.ID, name))
		}
		r.zero[name] = p.zero[i]
	}
	for _, t := range r.Thresholds {
		_, feature := r.zero[t.Name]
		if _, subject := SubjectFields[t.Name]; feature || subject {
			d.fail(t.node.errorf("threshold %q has the name of a feature or of a subject's field", t.Name))
		}
	}
	for name, v := range r.Params {
		r.zero[name] = v
	}
	if _, ok := r.zero["class"].(string); ok != (len(r.Classes) > 0) {
		d.fail(r.nodes.id.errorf("rule %s: classes lists the values of the feature class, and is needed exactly when there is one", r.ID))
	}
	zero, ours := r.zero, r.ours()
	env := sync.OnceValue(func() types.Map { return typesOf(zero) })
	r.when = d.condition(r.nodes.when, ours, env)
	r.clear = d.condition(r.nodes.clear, ours, env)
	for i := range r.SeverityWhen {
		w := &r.SeverityWhen[i]
		w.cond = d.condition(w.node, ours, env)
	}
	withSubject := maps.Clone(zero)
	maps.Copy(withSubject, SubjectFields)
	if r.Own() {
		d.unused(r)
	}
	r.texts = make(map[string]*texts)
	for _, lang := range Languages {
		t := &texts{one: make(map[string]*text), lists: make(map[string][]*text)}
		n := r.nodes.text[lang]
		for _, which := range textKeys {
			names := withSubject
			if which == "ruled_out" || which == "not_assessable" {
				names = zero // these speak about no particular subject
			}
			at := n.get(which)
			switch {
			case at == nil: // a user's own rule may lack it
				continue
			case !slices.Contains(listKeys, which):
				t.one[which] = d.text(at, lang, names)
				continue
			}
			for _, i := range at.items {
				t.lists[which] = append(t.lists[which], d.text(i, lang, names))
			}
		}
		r.texts[lang] = t
	}
	r.zero = withSubject
}

// unused finds the thresholds that no condition and no text of a user's own rule names: nothing else reads them.
func (d *decoder) unused(r *Rule) {
	read := r.When + " " + r.Clear
	for _, w := range r.SeverityWhen {
		read += " " + w.When
	}
	for _, lang := range Languages {
		for _, item := range r.nodes.text[lang].items {
			read += " " + item.text
			for _, i := range item.items {
				read += " " + i.text
			}
		}
	}
	names := identifiers.FindAllString(read, -1)
	for _, t := range r.Thresholds {
		if !slices.Contains(names, t.Name) {
			d.fail(t.node.errorf("nothing reads the threshold %q", t.Name))
		}
	}
}

var identifiers = regexp.MustCompile(`[a-z][a-z0-9_]*`)

var parties = regexp.MustCompile(`\b(cause|effect)\.([a-z][a-z0-9_]*)`)

// ours reports whether the rule is the embedded one, but for numbers that an override may have changed.
func (r *Rule) ours() bool { return r.nodes.id.file.ours }

// try checks one condition or text; none is no mistake.
func (d *decoder) try(c interface{ check() error }) {
	if err := c.check(); err != nil {
		d.fail(err)
	}
}

// checkEdges checks the causal graph: known rules and classes, typed conditions, no cycle.
func (d *decoder) checkEdges(s *Set) {
	for _, e := range s.Edges {
		from, to := d.selected(s, e.From, e.fromNode), d.selected(s, e.To, e.toNode)
		if from == nil || to == nil {
			continue
		}
		env := func() types.Map {
			return types.Map{"cause": typesOf(from.zero), "effect": typesOf(to.zero)}
		}
		ours := from.ours() && to.ours()
		e.requires = d.condition(e.node.get("requires"), ours, env)
		e.through = d.condition(e.node.get("through"), ours, env)
		if n := e.node.get("experiment"); n != nil && n.kind == mapping && !e.untried {
			e.experiment = d.condition(n.get("when"), ours, env)
			e.known = d.condition(n.get("known"), ours, env)
		}
		e.from, e.to = from, to
		for _, text := range []string{e.Requires, e.Through, e.Experiment, e.Known} {
			for _, m := range parties.FindAllStringSubmatch(text, -1) {
				r := map[string]*Rule{"cause": from, "effect": to}[m[1]]
				if !slices.Contains(r.asked, m[2]) {
					r.asked = append(r.asked, m[2])
				}
			}
		}
	}
	for _, p := range s.signs {
		d.selected(s, p.Selector, p.node)
	}
	for _, u := range s.Unseen {
		d.selected(s, u.Selector, u.node)
	}
	if len(d.errs) == 0 {
		d.checkAcyclic(s)
	}
}

func (d *decoder) selected(s *Set, sel Selector, n *node) *Rule {
	r := s.Rule(sel.Rule)
	if r == nil {
		d.fail(n.errorf("unknown rule %q", sel.Rule))
		return nil
	}
	for _, c := range sel.Classes {
		if !slices.Contains(r.Classes, c) {
			d.fail(n.errorf("rule %s has no class %q", r.ID, c))
		}
	}
	return r
}

// checkAcyclic follows the edges from (rule, class) to (rule, class). A selector without
// classes stands for all of them. Edges from who is called to who calls (serves) lead to another host with each
// step, and so do not come back: a name server passes on what its own upstream does.
func (d *decoder) checkAcyclic(s *Set) {
	type atom struct{ rule, class string }
	atoms := func(sel Selector) []atom {
		classes := sel.Classes
		if len(classes) == 0 {
			classes = s.Rule(sel.Rule).Classes
		}
		if len(classes) == 0 {
			return []atom{{sel.Rule, ""}}
		}
		out := make([]atom, len(classes))
		for i, c := range classes {
			out[i] = atom{sel.Rule, c}
		}
		return out
	}
	out := make(map[atom][]*Edge)
	for _, e := range s.Edges {
		if e.Identity == Serves || e.Identity == Within {
			continue
		}
		for _, a := range atoms(e.From) {
			out[a] = append(out[a], e)
		}
	}
	const open, done = 1, 2
	state := make(map[atom]int)
	var visit func(a atom) *Edge
	visit = func(a atom) *Edge {
		state[a] = open
		for _, e := range out[a] {
			for _, b := range atoms(e.To) {
				if state[b] == open {
					return e
				}
				if state[b] == 0 {
					if e := visit(b); e != nil {
						return e
					}
				}
			}
		}
		state[a] = done
		return nil
	}
	for _, e := range s.Edges {
		for _, a := range atoms(e.From) {
			if state[a] != 0 {
				continue
			}
			if e := visit(a); e != nil {
				d.fail(e.node.errorf("the edge %v to %v closes a cycle", e.From, e.To))
				return
			}
		}
	}
}
