package rules

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

//go:embed *.yaml
var embedded embed.FS

// Files of the catalogue that are not rules.
const (
	stepsFile  = "steps.yaml"
	causesFile = "causes.yaml"
)

// Override is a directory of a user's own rule files. A file that names a rule of the
// catalogue and has only the keys id, enabled, params, severity, severity_when, for and
// keep_for changes these; a file with more replaces the rule. A file with another name and the key features adds a rule
// over the features of the one that it names; causes.yaml adds edges.
type Override struct {
	Name string // stands before the file names in errors
	FS   fs.FS
}

// Load reads and checks the catalogue. features holds for every rule id a zero value
// of the struct that its detector measures (or a map of zero values by name). Later
// overrides win. The error joins every mistake that was found, each an [*Error] in the order
// of files and lines.
//
// Conditions and texts of the embedded catalogue are compiled when they are first needed: most runs need few of them. The
// tests have compiled them all ([Set.Compile]). Those of overrides are checked at once.
func Load(features map[string]any, overrides ...Override) (*Set, error) {
	return load(embedded, features, overrides)
}

func load(base fs.FS, features map[string]any, overrides []Override) (*Set, error) {
	var d decoder
	s := new(Set)
	for _, n := range d.readDir(Override{FS: base}) {
		switch path.Base(n.file.name) {
		case stepsFile:
			s.Steps = d.steps(n)
		case causesFile:
			d.causes(s, n)
		default:
			r := d.rule(n)
			if r.ID != "" && n.file.name != r.ID+".yaml" {
				d.fail(n.get("id").errorf("rule %q belongs into %s.yaml", r.ID, r.ID))
			}
			s.Rules = append(s.Rules, r)
		}
	}
	for _, o := range overrides {
		for _, n := range d.readDir(o) {
			d.override(s, n)
		}
	}
	slices.SortStableFunc(s.Rules, func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.ID, b.ID))
	})
	if len(d.errs) == 0 { // what follows would only repeat them
		d.check(s, features)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// err joins the mistakes that were found, in the order of their places.
func (d *decoder) err() error {
	slices.SortStableFunc(d.errs, byPlace)
	return errors.Join(slices.CompactFunc(d.errs, func(a, b error) bool { return a.Error() == b.Error() })...)
}

func byPlace(a, b error) int {
	var x, y *Error
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return cmp.Compare(a.Error(), b.Error())
	}
	return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Col, y.Col))
}

// readDir parses the .yaml files at the top of o, by name.
func (d *decoder) readDir(o Override) []*node {
	files, err := fs.ReadDir(o.FS, ".")
	if err != nil {
		d.fail(fmt.Errorf("read rules in %s: %w", o.Name, err))
		return nil
	}
	if len(files) > maxFiles {
		d.fail(fmt.Errorf("read rules in %s: %d files; at most %d are read", o.Name, len(files), maxFiles))
		return nil
	}
	var out []*node
	for _, f := range files {
		name := path.Join(o.Name, f.Name())
		switch {
		case f.IsDir():
			continue
		case path.Ext(f.Name()) == ".yml":
			d.fail(&Error{name, 1, 1, "rule files are named *.yaml"})
			continue
		case path.Ext(f.Name()) != ".yaml" || strings.HasPrefix(f.Name(), "."):
			continue
		}
		data, err := readFile(o.FS, f.Name())
		if err != nil {
			d.fail(fmt.Errorf("read rule %s: %w", name, err))
			continue
		}
		n, err := readNode(o, name, data)
		if err != nil {
			d.fail(err)
			continue
		}
		out = append(out, n)
	}
	return out
}

// readNode reads a file of o.
func readNode(o Override, name string, data []byte) (*node, error) {
	if o.FS == fs.FS(embedded) {
		src := &source{name: name, lines: strings.Split(string(data), "\n"), ours: true}
		if n, ok := readPlain(src); ok {
			return n, nil
		}
	}
	return parseYAML(name, data)
}

// readFile reads a file whose end must come: a FIFO or a device may have none, and a file under /proc does not say its size.
func readFile(dir fs.FS, name string) ([]byte, error) {
	st, err := fs.Stat(dir, name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	b.Grow(int(min(st.Size(), maxFile)) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, maxFile+1)) // parseYAML refuses what is longer
	return b.Bytes(), err
}

// override applies a user's file to s.
func (d *decoder) override(s *Set, n *node) {
	switch path.Base(n.file.name) {
	case stepsFile:
		d.fail(n.errorf("%s cannot be overridden", stepsFile))
		return
	case causesFile:
		if d.fields(n, "edges") {
			d.own = true
			d.edges(s, d.need(n, "edges"))
			d.own = false
		}
		return
	}
	id := d.need(n, "id")
	if id == nil {
		return
	}
	i := slices.IndexFunc(s.Rules, func(r *Rule) bool { return r.ID == d.str(id) })
	of := n.get("features")
	switch {
	case i < 0 && of == nil:
		d.fail(id.errorf("no rule %q to override; a rule of your own names in features the rule whose features it reads", id.text))
		return
	case i < 0:
		d.own = true
		s.Rules = append(s.Rules, d.rule(n))
		d.own = false
		return
	case of != nil:
		d.fail(of.errorf("there is a rule %s already; a rule of your own has another id", id.text))
		return
	}
	if slices.ContainsFunc(n.keys, func(k *node) bool { return !slices.Contains(changeable, k.text) }) {
		s.Rules[i] = d.rule(n)
		return
	}
	d.change(s.Rules[i], n)
}

// check links the parts of s with each other and with the detectors.
func (d *decoder) check(s *Set, features map[string]any) {
	for _, r := range s.Rules {
		for _, step := range d.list(r.nodes.steps) {
			if s.Step(step.text) == nil {
				d.fail(step.errorf("unknown step %q; steps.yaml has %s", step.text, stepIDs(s)))
			}
		}
		f, ok := features[r.FeaturesOf]
		switch {
		case ok:
			if base := s.Rule(r.FeaturesOf); r.Own() && base != nil {
				r.Classes = base.Classes
			}
			d.compile(r, f)
		case r.Own():
			d.fail(r.nodes.features.errorf("no detector measures for rule %q; known are %s", r.FeaturesOf,
				strings.Join(slices.Sorted(maps.Keys(features)), ", ")))
		default:
			d.fail(r.nodes.id.errorf("no detector measures for rule %q", r.ID))
		}
	}
	for _, t := range s.Steps {
		for _, r := range s.Rules {
			if slices.Contains(r.Steps, t.ID) {
				t.Rules = append(t.Rules, r.ID)
			}
		}
	}
	known := make([]string, 0, len(features))
	for id := range features {
		if s.Rule(id) == nil {
			known = append(known, id)
		}
	}
	slices.Sort(known)
	for _, id := range known {
		d.fail(fmt.Errorf("detector %q has no rule: %s.yaml is missing", id, id))
	}
	if len(d.errs) == 0 { // conditions of edges name what the rules have
		d.checkEdges(s)
	}
}

func stepIDs(s *Set) string {
	ids := make([]string, len(s.Steps))
	for i, t := range s.Steps {
		ids[i] = t.ID
	}
	return strings.Join(ids, ", ")
}
