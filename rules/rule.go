package rules

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keys of a rule file, those of a user's own rule, which has the classes of the one whose features it reads, and those that
// an override may change without replacing the rule.
var (
	ruleKeys = []string{"id", "order", "enabled", "steps", "classes", "against", "params", "when", "clear", "both_ways", "for", "keep_for",
		"severity", "severity_when", "citation", "look_alikes", "text"}
	ownKeys = []string{"id", "features", "order", "enabled", "steps", "params", "when", "clear", "both_ways", "for", "keep_for",
		"severity", "severity_when", "citation", "look_alikes", "text"}
	changeable = []string{"id", "enabled", "params", "for", "keep_for", "severity", "severity_when"}
	textKeys   = []string{"title", "summary", "next", "rivals", "ruled_out", "not_assessable"}
	// listKeys are those that hold a list; each text of it that a finding's features leave empty is left out.
	listKeys = []string{"next", "rivals"}
)

var identifier = regexp.MustCompile(`^[a-z][a-z0-9]*([-_][a-z0-9]+)*$`)

// ruleNodes are the places that later checks refer to.
type ruleNodes struct {
	id, features, steps, when, clear *node
	text                             map[string]*node // by language
}

// rule reads a whole rule. What it lacks is a mistake; the rule is returned in any case. A rule of a user's own may lack what
// the catalogue owes its readers: steps, citations, look-alikes, and the texts of one language.
func (d *decoder) rule(n *node) *Rule {
	r := &Rule{File: n.file.name, Enabled: true, Params: Params{}}
	if d.own {
		d.fields(n, ownKeys...)
	} else {
		d.fields(n, ruleKeys...)
	}
	r.nodes.id = d.need(n, "id")
	r.ID = d.ident(r.nodes.id)
	r.FeaturesOf = r.ID
	if d.own {
		r.nodes.features = d.need(n, "features")
		r.FeaturesOf = d.str(r.nodes.features)
	}
	if o := n.get("order"); o != nil {
		v, err := strconv.Atoi(o.text)
		if err != nil || o.kind != scalar {
			d.fail(o.errorf("order is a whole number, not %q", o.text))
		}
		r.Order = v
	}
	r.nodes.steps = d.owed(n, "steps")
	r.Steps = d.strs(r.nodes.steps)
	if c := n.get("classes"); c != nil {
		r.Classes = d.strs(c)
	}
	if c := n.get("against"); c != nil {
		r.Against = d.strs(c)
		for _, a := range r.Against {
			if !slices.Contains(r.Classes, a) {
				d.fail(c.errorf("against: %q is not among the classes", a))
			}
		}
	}
	if p := n.get("params"); p != nil && d.mapping(p) {
		for i, k := range p.keys {
			if t, ok := d.threshold(k, p.items[i]); ok {
				r.Thresholds = append(r.Thresholds, t)
				r.Params[t.Name] = t.Value
			}
		}
	}
	if r.nodes.when = d.need(n, "when"); r.nodes.when != nil {
		r.When = d.str(r.nodes.when)
	}
	if r.nodes.clear = n.get("clear"); r.nodes.clear != nil {
		r.Clear = d.str(r.nodes.clear)
	}
	if len(r.Steps) > 0 && r.Own() && r.Clear == "" {
		d.fail(r.nodes.steps.errorf("rule %s has no condition clear: it would never be ruled out, and these steps neither", r.ID))
	}
	if v := n.get("both_ways"); v != nil {
		r.BothWays = d.flag(v, "both_ways")
	}
	d.need(n, "for")
	d.need(n, "keep_for")
	d.need(n, "severity")
	d.common(r, n)
	r.Citation = d.strs(d.owed(n, "citation"))
	for _, l := range d.list(d.owed(n, "look_alikes")) {
		r.LookAlikes = append(r.LookAlikes, d.both(l))
	}
	r.nodes.text = make(map[string]*node)
	if t := d.need(n, "text"); t != nil && d.fields(t, Languages...) {
		d.ruleTexts(r, t)
	}
	return r
}

// ruleTexts reads the texts at t. One language stands for the other where that is not owed.
func (d *decoder) ruleTexts(r *Rule, t *node) {
	texts := r.nodes.text
	for _, lang := range Languages {
		if l := d.owed(t, lang); l != nil {
			texts[lang] = l
			d.ruleText(lang, l)
		}
	}
	d.sameLength(texts)
	if len(texts) == 0 && d.own {
		d.fail(t.errorf("there is no text: en or ko is needed, or both"))
	}
	for _, lang := range Languages {
		for _, other := range Languages {
			if texts[lang] == nil && texts[other] != nil {
				texts[lang] = texts[other]
			}
		}
	}
}

// common reads the keys that a rule and a partial override share, where they are given.
func (d *decoder) common(r *Rule, n *node) {
	if v := n.get("enabled"); v != nil {
		r.Enabled = d.flag(v, "enabled")
	}
	if v := n.get("for"); v != nil {
		r.For = d.duration(v)
	}
	if v := n.get("keep_for"); v != nil {
		r.KeepFor = d.duration(v)
	}
	if v := n.get("severity"); v != nil {
		r.Severity = d.severity(v)
	}
	if v := n.get("severity_when"); v != nil {
		r.SeverityWhen = nil
		for _, i := range d.list(v) {
			if !d.fields(i, "severity", "when") {
				continue
			}
			w := SeverityWhen{node: d.need(i, "when"), Severity: d.severity(d.need(i, "severity"))}
			w.When = d.str(w.node)
			r.SeverityWhen = append(r.SeverityWhen, w)
		}
	}
}

// change applies a partial override.
func (d *decoder) change(r *Rule, n *node) {
	d.common(r, n)
	p := n.get("params")
	if p == nil || !d.mapping(p) {
		return
	}
	r.Thresholds = slices.Clone(r.Thresholds)
	r.Params = maps.Clone(r.Params)
	for i, k := range p.keys {
		at := slices.IndexFunc(r.Thresholds, func(t Threshold) bool { return t.Name == k.text })
		if at < 0 {
			d.fail(k.errorf("rule %s has no threshold %q; it has %s", r.ID, k.text, strings.Join(slices.Sorted(maps.Keys(r.Params)), ", ")))
			continue
		}
		old := &r.Thresholds[at]
		v, source := p.items[i], "override in "+n.file.name
		if v.kind == mapping {
			d.fields(v, "value", "source")
			if s := v.get("source"); s != nil {
				source = d.str(s)
			}
			v = d.need(v, "value")
		}
		value, kind, ok := d.number(v)
		if !ok {
			continue
		}
		if kind != old.kind {
			d.fail(v.errorf("%s is %v, as %s; %q is %v", k.text, old.kind, old.Text, v.text, kind))
			continue
		}
		old.Value, old.Text, old.Source, old.Korean, old.node = value, v.text, source, "", k
		r.Params[k.text] = value
	}
}

type thresholdKind uint8

const (
	plainNumber thresholdKind = iota
	durationNumber
	shareNumber
)

func (k thresholdKind) String() string {
	return [...]string{"a number", "a duration", "a percentage"}[k]
}

func (d *decoder) threshold(k, n *node) (Threshold, bool) {
	t := Threshold{Name: d.ident(k), node: k}
	if n.kind != mapping {
		d.fail(n.errorf("threshold %s needs {value, unit, source}", k.text))
		return t, false
	}
	d.fields(n, "value", "unit", "source", "ko")
	v := d.need(n, "value")
	var ok bool
	if t.Value, t.kind, ok = d.number(v); !ok {
		return t, false
	}
	t.Text = v.text
	unit := n.get("unit")
	switch {
	case t.kind == plainNumber && unit == nil:
		d.fail(n.errorf("threshold %s has no unit", k.text))
	case t.kind == plainNumber:
		t.Unit = d.str(unit)
	case unit != nil:
		d.fail(unit.errorf("the unit of %s stands in its value already: %s", k.text, t.Text))
	case t.kind == durationNumber:
		t.Unit = "s"
	default:
		t.Unit = "share"
	}
	source := n.get("source")
	if source == nil {
		d.fail(n.errorf("threshold %s has no source", k.text))
	}
	t.Source = d.str(source)
	if ko := n.get("ko"); ko != nil {
		t.Korean = d.str(ko)
	}
	return t, true
}

var decimalNumber = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,15})?(e-?[0-9]{1,2})?$`)

// number reads 10, 0.5, 3% or 1m30s; durations in seconds, percentages as a share.
func (d *decoder) number(n *node) (float64, thresholdKind, bool) {
	if n == nil {
		return 0, 0, false
	}
	if n.kind != scalar {
		d.fail(n.errorf("expected a number, a duration or a percentage, found %v", n.kind))
		return 0, 0, false
	}
	text, kind := n.text, plainNumber
	if s, ok := strings.CutSuffix(text, "%"); ok {
		text, kind = s, shareNumber
	}
	if decimalNumber.MatchString(text) {
		v, err := strconv.ParseFloat(text, 64)
		if err == nil && kind == shareNumber {
			v /= 100
		}
		return v, kind, err == nil
	}
	if t, err := time.ParseDuration(text); err == nil && t >= 0 && kind == plainNumber {
		return t.Seconds(), durationNumber, true
	}
	d.fail(n.errorf("%q is no number (10), duration (10s) or percentage (3%%) of zero or more", n.text))
	return 0, 0, false
}

func (d *decoder) duration(n *node) time.Duration {
	t, err := time.ParseDuration(n.text)
	if n.kind != scalar || err != nil || t < 0 {
		d.fail(n.errorf("%q is no duration, such as 5s or 1m30s", n.text))
	}
	return t
}

// flag reads true or false.
func (d *decoder) flag(n *node, key string) bool {
	if n.text != "true" && n.text != "false" {
		d.fail(n.errorf("%s is true or false, not %q", key, n.text))
	}
	return n.text == "true"
}

func (d *decoder) severity(n *node) string {
	if n == nil {
		return ""
	}
	if !slices.Contains(Severities, n.text) {
		d.fail(n.errorf("severity is %s, not %q", strings.Join(Severities, ", "), n.text))
	}
	return n.text
}

func (d *decoder) ident(n *node) string {
	s := d.str(n)
	if s != "" && !identifier.MatchString(s) {
		d.fail(n.errorf("%q is no name: lower-case letters, digits, - and _", s))
	}
	return s
}

func (d *decoder) mapping(n *node) bool {
	if n.kind != mapping {
		d.fail(n.errorf("expected a mapping, found %v", n.kind))
	}
	return n.kind == mapping
}

// ruleText checks the shape of a language's texts; compile reads them.
func (d *decoder) ruleText(lang string, n *node) {
	if !d.fields(n, textKeys...) {
		return
	}
	for _, k := range textKeys {
		if k == "rivals" && n.get(k) == nil {
			continue // not every rule has any
		}
		v := d.owed(n, k)
		if v == nil {
			if d.own && (k == "title" || k == "summary") {
				d.need(n, k)
			}
			continue
		}
		all := []*node{v}
		if slices.Contains(listKeys, k) {
			all = d.list(v)
		}
		for _, t := range all {
			if s := d.str(t); lang == "ko" && s != "" && !hasKorean(s) {
				d.fail(t.errorf("the Korean text has no Korean in it"))
			}
		}
	}
}

func (d *decoder) sameLength(langs map[string]*node) {
	en, ko := langs["en"], langs["ko"]
	if en == nil || ko == nil {
		return
	}
	for _, k := range listKeys {
		var a, b int
		if n := en.get(k); n != nil {
			a = len(n.items)
		}
		at := ko
		if n := ko.get(k); n != nil {
			at, b = n, len(n.items)
		}
		if a != b {
			d.fail(at.errorf("%d texts of %q in Korean, %d in English; they stand for each other one by one", b, k, a))
		}
	}
}
