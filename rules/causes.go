package rules

import (
	"fmt"
	"slices"
	"strings"
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
	SameService  Identity = "same-service"  // the same host and port
	SameUpstream Identity = "same-upstream" // the same host, peer and port
	SameHost     Identity = "same-host"     // the same host
	Serves       Identity = "serves"        // the effect's peer is the cause's host, and its port the cause's where both have one
	Within       Identity = "within"        // the cause is a host towards all its peers, the effect it and one of them in the same direction
)

// Identities are all of them.
var Identities = []Identity{SamePath, SameNet, SameService, SameUpstream, SameHost, Serves, Within}

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
	From, To Selector
	Identity Identity
	// Slack is how much later than the effect's onset the cause's own first
	// evidence may be, and SlackSource why.
	Slack       time.Duration
	SlackSource string
	Requires    string // condition without which there is no edge; may be empty
	Experiment  string // condition that, when it holds, proves the edge beyond order and identity; may be empty
	Proof       Text   // what it proves, in words
	Why         Text   // with the measured onsets

	node                 *node
	requires, experiment *condition
	from, to             *Rule
	reported             reportedOnce
}

// Party is a finding as edges see it. It keeps what was read of the features: many edges ask for it.
type Party struct {
	Rule     string
	Features any            // of the rule's detector
	Subject  map[string]any // fields of [SubjectFields]; may lack some

	values map[string]any
	class  string
	err    error
}

// read reads the features, which are of rule r.
func (p *Party) read(r *Rule) (map[string]any, error) {
	if p.values == nil && p.err == nil {
		p.values, p.err = r.values(p.Features, p.Subject)
		p.class, _ = p.values["class"].(string)
	}
	return p.values, p.err
}

// HasPast reports whether anything was seen of the finding, which is of rule r, before its onset; it has none if it has been there for as
// long as the input lasts. Rules that have no feature baseline do not tell.
func (p *Party) HasPast(r *Rule) bool {
	v, _ := p.read(r)
	before, ok := v["baseline"].(float64)
	return !ok || before > 0
}

// Class is the class of the finding, which is of rule r; empty: it has none.
func (p *Party) Class(r *Rule) string {
	_, _ = p.read(r) // whoever matches it tells the failure
	return p.class
}

// Matches reports whether the edge can lead from cause to effect: rules, classes and the
// condition Requires. The first failure to compute it is returned.
func (e *Edge) Matches(cause, effect *Party) (bool, error) {
	if cause.Rule != e.From.Rule || effect.Rule != e.To.Rule {
		return false, nil
	}
	c, err := cause.read(e.from)
	if err != nil {
		return false, e.wrap(err)
	}
	f, err := effect.read(e.to)
	ok := err == nil && e.From.picks(cause.class) && e.To.picks(effect.class)
	if ok && e.requires != nil {
		ok, err = run(e.requires, map[string]any{"cause": c, "effect": f})
	}
	return ok && err == nil, e.wrap(err)
}

// Proven reports whether the natural experiment holds; false where there is none.
func (e *Edge) Proven(cause, effect *Party) (bool, error) {
	if e.experiment == nil {
		return false, nil
	}
	env, err := e.env(cause, effect)
	ok := false
	if err == nil {
		ok, err = run(e.experiment, env)
	}
	return ok && err == nil, e.wrap(err)
}

func (e *Edge) wrap(err error) error {
	if err == nil {
		return nil
	}
	return e.reported.report(fmt.Errorf("%s:%d: edge %v to %v: %w", causesFile, e.node.line, e.From, e.To, err))
}

func (e *Edge) env(cause, effect *Party) (map[string]any, error) {
	c, err := cause.read(e.from)
	if err != nil {
		return nil, err
	}
	f, err := effect.read(e.to)
	return map[string]any{"cause": c, "effect": f}, err
}

func (s Selector) equal(o Selector) bool {
	return s.Rule == o.Rule && slices.Equal(s.Classes, o.Classes)
}

// picks reports whether class is one that s wants.
func (s Selector) picks(class string) bool {
	return len(s.Classes) == 0 || slices.Contains(s.Classes, class)
}

// edges reads causes.yaml.
func (d *decoder) edges(n *node) []*Edge {
	d.fields(n, "edges")
	var out []*Edge
	for _, i := range d.list(d.need(n, "edges")) {
		if !d.fields(i, "from", "to", "identity", "slack", "requires", "experiment", "why") {
			continue
		}
		e := &Edge{node: i, From: d.selector(d.need(i, "from")), To: d.selector(d.need(i, "to")), Why: d.both(d.need(i, "why"))}
		if id := d.need(i, "identity"); id != nil {
			if e.Identity = Identity(d.str(id)); !slices.Contains(Identities, e.Identity) {
				d.fail(id.errorf("unknown identity %q; known are %v", id.text, Identities))
			}
		}
		if s := d.need(i, "slack"); s != nil && d.fields(s, "value", "source") {
			if v := d.need(s, "value"); v != nil {
				e.Slack = d.duration(v)
			}
			e.SlackSource = d.str(d.need(s, "source"))
		}
		if r := i.get("requires"); r != nil {
			e.Requires = d.str(r)
		}
		if x := i.get("experiment"); x != nil && d.fields(x, "when", "en", "ko") {
			e.Experiment = d.str(d.need(x, "when"))
			proof := node{file: x.file, line: x.line, col: x.col, kind: mapping}
			for at, k := range x.keys {
				if slices.Contains(Languages, k.text) {
					proof.keys, proof.items = append(proof.keys, k), append(proof.items, x.items[at])
				}
			}
			e.Proof = d.both(&proof)
		}
		if slices.ContainsFunc(out, func(o *Edge) bool {
			return o.From.equal(e.From) && o.To.equal(e.To) && o.Identity == e.Identity && o.Requires == e.Requires
		}) {
			d.fail(i.errorf("the edge %v to %v by %s is given twice", e.From, e.To, e.Identity))
		}
		out = append(out, e)
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
