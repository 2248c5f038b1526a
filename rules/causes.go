package rules

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Identity is what a cause and its effect must share. Package analyze/cause compares
// the subjects.
type Identity string

// The identities. Host, peer and port are those of the findings' subjects; an empty peer or
// port 0 of one side matches any of the other.
const (
	SamePath     Identity = "same-path"     // the same two addresses, in either order
	SameNet      Identity = "same-net"      // the same host, and peers in one /24 (IPv4) or /64 (IPv6)
	SameService  Identity = "same-service"  // the same listener; of two findings about calls also the same caller
	SameUpstream Identity = "same-upstream" // the same host, peer and port
	SameHost     Identity = "same-host"     // the same host; a path, or what lies between two capture points, concerns all its ends
	Serves       Identity = "serves"        // whom the effect calls is the cause's host, and the port the cause's where both have one
	Within       Identity = "within"        // the cause is a host towards all its peers, the effect it and one of them in the same direction
	ReversePath  Identity = "reverse-path"  // the same two hosts, in the opposite direction
)

// Identities are all of them.
var Identities = []Identity{SamePath, SameNet, SameService, SameUpstream, SameHost, Serves, Within, ReversePath}

// Selector picks the findings of a rule, or of some classes of it: "close-wait" or
// "retransmission[syn,syn-ack]".
type Selector struct {
	Rule    string
	Classes []string // values of the feature class; nil for all
}

// String is the selector as written.
func (s Selector) String() string {
	if len(s.Classes) == 0 {
		return s.Rule
	}
	return s.Rule + "[" + strings.Join(s.Classes, ",") + "]"
}

// Edge says that one finding can cause another, and how to test it.
type Edge struct {
	// Link is the number of the entry of causes.yaml, from 1: a mechanism that shows in several findings gives an edge
	// for each pair of them.
	Link     int
	From, To Selector
	Identity Identity
	// Slack is how much later than the effect's onset the cause's own first
	// evidence may be, and SlackSource why.
	Slack       time.Duration
	SlackSource string
	Requires    string // condition without which there is no edge; may be empty
	// Through is what of the cause must hold for the effect to be taken as there without having been seen; may be empty.
	Through string
	// Experiment is a condition that, when it holds, proves the edge beyond order and identity; may be empty. Where it
	// does not hold but Known does, the edge is refuted; Known may stand alone.
	Experiment, Known string
	Proof             Text // what the experiment proves, in words
	Why               Text // with the measured onsets

	node, fromNode, toNode               *node
	untried                              bool // the link has an experiment, of another effect
	requires, through, experiment, known *condition
	from, to                             *Rule
	reported                             *reportedOnce // of the link
}

// Unseen is a finding that may stand between a cause and its effect without having been seen.
type Unseen struct {
	Selector
	Subject string // the kind of its subject

	node *node
}

// The kinds of subject that what is unseen may have.
var unseenSubjects = []string{"path", "resolver", "upstream", "service"}

// Party is a finding as edges see it. It keeps what was read of the features: many edges ask for it.
type Party struct {
	Rule     string
	Features any            // of the rule's detector
	Subject  map[string]any // fields of [SubjectFields]; may lack some

	values map[string]any
	class  string
	knows  bool // class was read
	err    error
}

// read reads the features, which are of rule r.
func (p *Party) read(r *Rule) (map[string]any, error) {
	if p.values == nil && p.err == nil {
		p.values, p.err = r.ask(p.Features, p.Subject)
	}
	return p.values, p.err
}

// is reports whether p, of rule r, is what s picks.
func (p *Party) is(s Selector, r *Rule) bool {
	if p.Rule != s.Rule {
		return false
	}
	class := p.Class(r)
	return p.err == nil && s.picks(class)
}

// Class is the class of the finding, which is of rule r; empty: it has none.
func (p *Party) Class(r *Rule) string {
	if !p.knows {
		p.knows = true
		p.class, p.err = r.class(p.Features)
	}
	return p.class
}

// HasPast reports whether anything was seen of the finding, which is of rule r, before its onset; it has none if it has been there for as
// long as the input lasts. Rules that have no feature baseline do not tell.
func (p *Party) HasPast(r *Rule) bool {
	before, _ := r.feature(p.Features, "baseline")
	return !before.IsValid() || !before.CanFloat() || before.Float() > 0
}

// NotCalled are the servers that the service which the finding is about does not call (the feature not_called of its rule r); empty:
// nothing is known.
func (p *Party) NotCalled(r *Rule) string {
	if v, err := r.feature(p.Features, "not_called"); err == nil && v.Kind() == reflect.String {
		return v.String()
	}
	return ""
}

// Peers are those that the path of the finding, which is of rule r, leads to where they are several (the feature addresses).
func (p *Party) Peers(r *Rule) []string {
	if v, err := r.feature(p.Features, "addresses"); err == nil && v.Kind() == reflect.String {
		return strings.Fields(v.String())
	}
	return nil
}

// Pairs are the pairs of hosts between which the finding, which is of rule r, was met on what lies between two capture points, who sends first (the
// feature pairs).
func (p *Party) Pairs(r *Rule) (pairs [][2]string) {
	if v, err := r.feature(p.Features, "pairs"); err == nil && v.Kind() == reflect.String {
		for _, s := range strings.Fields(v.String()) {
			if src, dst, ok := strings.Cut(s, ">"); ok {
				pairs = append(pairs, [2]string{src, dst})
			}
		}
	}
	return pairs
}

// WaitsFor is whom the service of the finding, which is of rule r, waits for, as its features say; empty: nobody, or several.
func (p *Party) WaitsFor(r *Rule) (peer string, port uint16) {
	for _, calls := range []string{"stage", "outbound"} {
		a, _ := r.feature(p.Features, calls+"_peer")
		if n, _ := r.feature(p.Features, calls+"_port"); a.IsValid() && a.Kind() == reflect.String && n.IsValid() && n.CanInt() {
			peer, port = a.String(), uint16(n.Int())
		}
	}
	return peer, port
}

// Is reports whether p is what the edge leads from.
func (e *Edge) Is(p *Party) bool { return p.is(e.From, e.from) }

// Follows reports whether p is what the edge leads to.
func (e *Edge) Follows(p *Party) bool { return p.is(e.To, e.to) }

// Matches reports whether the edge can lead from cause to effect: rules, classes and the
// condition Requires. The first failure to compute it is returned.
func (e *Edge) Matches(cause, effect *Party) (bool, error) {
	if !e.Is(cause) || !e.Follows(effect) {
		return false, e.wrap(cmp.Or(cause.err, effect.err))
	}
	if e.requires == nil {
		return true, nil
	}
	return e.run(e.requires, cause, effect)
}

// Sign reports whether p only says that something else is wrong.
func (s *Set) Sign(p *Party) bool {
	return slices.ContainsFunc(s.Signs, func(sel Selector) bool { return p.Rule == sel.Rule && p.is(sel, s.Rule(sel.Rule)) })
}

// Leads reports whether the edge leads from cause to its effect where that was not seen.
func (e *Edge) Leads(cause *Party) (bool, error) {
	if e.through == nil {
		return true, nil
	}
	return e.run(e.through, cause, &Party{Rule: e.To.Rule})
}

// Result is what a test of an edge gave.
type Result string

// The results.
const (
	Proven        Result = "proven"
	Refuted       Result = "refuted"
	NotObservable Result = "not_observable"
)

// Try makes the natural experiment; not observable where there is none.
func (e *Edge) Try(cause, effect *Party) (Result, error) {
	var ok bool
	var err error
	if e.experiment != nil {
		if ok, err = e.run(e.experiment, cause, effect); ok && err == nil {
			return Proven, nil
		}
	}
	if err == nil && e.known != nil {
		if ok, err = e.run(e.known, cause, effect); ok && err == nil {
			return Refuted, nil
		}
	}
	return NotObservable, err
}

// pairs are what conditions of edges see.
var pairs sync.Pool

// run computes a condition of the edge.
func (e *Edge) run(p *condition, cause, effect *Party) (bool, error) {
	c, err := cause.read(e.from)
	if err != nil {
		return false, e.wrap(err)
	}
	f, err := effect.read(e.to)
	ok := false
	if err == nil {
		env, _ := pairs.Get().(map[string]any)
		if env == nil {
			env = make(map[string]any, 2)
		}
		env["cause"], env["effect"] = c, f
		ok, err = run(p, env)
		clear(env)
		pairs.Put(env)
	}
	return ok && err == nil, e.wrap(err)
}

func (e *Edge) wrap(err error) error {
	if err == nil {
		return nil
	}
	return e.reported.report(fmt.Errorf("%s:%d: edge %v to %v: %w", e.node.file.name, e.node.line, e.From, e.To, err))
}

func (s Selector) equal(o Selector) bool {
	return s.Rule == o.Rule && slices.Equal(s.Classes, o.Classes)
}

// picks reports whether class is one that s wants.
func (s Selector) picks(class string) bool {
	return len(s.Classes) == 0 || slices.Contains(s.Classes, class)
}

// Meets returns the classes that both s and o pick; nil and true if both pick all.
func (s Selector) Meets(o Selector) ([]string, bool) {
	switch {
	case s.Rule != o.Rule:
		return nil, false
	case len(s.Classes) == 0:
		return o.Classes, true
	case len(o.Classes) == 0:
		return s.Classes, true
	}
	var both []string
	for _, c := range s.Classes {
		if slices.Contains(o.Classes, c) {
			both = append(both, c)
		}
	}
	return both, len(both) > 0
}

// causes reads causes.yaml.
func (d *decoder) causes(s *Set, n *node) {
	if !d.fields(n, "unseen", "signs", "edges") {
		return
	}
	d.edges(s, d.need(n, "edges"))
	if k := n.get("signs"); k != nil {
		s.signs = d.either(k)
		for _, p := range s.signs {
			s.Signs = append(s.Signs, p.Selector)
		}
	}
	if n.get("unseen") == nil {
		return
	}
	for _, i := range d.list(n.get("unseen")) {
		if !d.fields(i, "finding", "subject") {
			continue
		}
		u := Unseen{Selector: d.selector(d.need(i, "finding")), Subject: d.str(d.need(i, "subject")), node: i.get("finding")}
		if k := i.get("subject"); k != nil && !slices.Contains(unseenSubjects, u.Subject) {
			d.fail(k.errorf("unknown kind of subject %q; known are %s", u.Subject, strings.Join(unseenSubjects, ", ")))
		}
		s.Unseen = append(s.Unseen, u)
	}
}

// edges reads links into s, each of which may lead from and to several findings.
func (d *decoder) edges(s *Set, n *node) {
	before := s.Links()
	for at, i := range d.list(n) {
		if !d.fields(i, "from", "to", "identity", "slack", "requires", "through", "experiment", "why") {
			continue
		}
		link := Edge{Link: before + at + 1, node: i, Why: d.both(d.need(i, "why")), reported: new(reportedOnce)}
		if id := d.need(i, "identity"); id != nil {
			if link.Identity = Identity(d.str(id)); !slices.Contains(Identities, link.Identity) {
				d.fail(id.errorf("unknown identity %q; known are %v", id.text, Identities))
			}
		}
		if k := d.need(i, "slack"); k != nil && d.fields(k, "value", "source") {
			if v := d.need(k, "value"); v != nil {
				link.Slack = d.duration(v)
			}
			link.SlackSource = d.str(d.need(k, "source"))
		}
		if r := i.get("requires"); r != nil {
			link.Requires = d.str(r)
		}
		if t := i.get("through"); t != nil {
			link.Through = d.str(t)
		}
		if x := i.get("experiment"); x != nil && d.fields(x, "of", "when", "known", "en", "ko") {
			if k := x.get("known"); k != nil {
				link.Known = d.str(k)
			}
			if x.get("when") != nil || link.Known == "" { // else it can only refute
				link.Experiment = d.str(d.need(x, "when"))
				proof := node{file: x.file, line: x.line, col: x.col, kind: mapping}
				for at, k := range x.keys {
					if slices.Contains(Languages, k.text) {
						proof.keys, proof.items = append(proof.keys, k), append(proof.items, x.items[at])
					}
				}
				link.Proof = d.both(&proof)
			}
		}
		of := ""
		if x := i.get("experiment"); x != nil && x.get("of") != nil {
			of = d.str(x.get("of"))
		}
		froms, tos := d.either(d.need(i, "from")), d.either(d.need(i, "to"))
		if of != "" && !slices.ContainsFunc(tos, func(to placed) bool { return to.Rule == of }) {
			d.fail(i.errorf("the experiment is of %q, to which the edge does not lead", of))
		}
		for _, from := range froms {
			for _, to := range tos {
				e := link
				e.From, e.To, e.fromNode, e.toNode = from.Selector, to.Selector, from.node, to.node
				if e.untried = of != "" && to.Rule != of; e.untried {
					e.Experiment, e.Known, e.Proof = "", "", Text{}
				}
				if slices.ContainsFunc(s.Edges, func(o *Edge) bool {
					return o.From.equal(e.From) && o.To.equal(e.To) && o.Identity == e.Identity && o.Requires == e.Requires
				}) {
					d.fail(i.errorf("the edge %v to %v by %s is given twice", e.From, e.To, e.Identity))
				}
				s.Edges = append(s.Edges, &e)
			}
		}
	}
}

// placed is a selector and where it stands.
type placed struct {
	Selector
	node *node
}

// either is the one selector n, or those of the list n.
func (d *decoder) either(n *node) []placed {
	nodes := []*node{n}
	if n != nil && n.kind == sequence {
		nodes = d.list(n)
	}
	var out []placed
	for _, i := range nodes {
		out = append(out, placed{d.selector(i), i})
	}
	return out
}

// selector reads rule or rule[class,class].
func (d *decoder) selector(n *node) Selector {
	s := d.str(n)
	rule, rest, found := strings.Cut(s, "[")
	if !found {
		return Selector{Rule: s}
	}
	inner, ok := strings.CutSuffix(rest, "]")
	classes := strings.Split(strings.ReplaceAll(inner, " ", ""), ",")
	if !ok || slices.Contains(classes, "") {
		d.fail(n.errorf("%q is no rule or rule[class,class]", s))
	}
	return Selector{rule, classes}
}
