package rules

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// SubjectFields are the names of a finding's subject in texts and in the conditions of
// causes, with their zero values.
var SubjectFields = map[string]any{"host": "", "peer": "", "port": 0, "direction": "", "segment": ""}

// maxExpr bounds a condition, in bytes.
const maxExpr = 4096

// A plan reads the features of one rule: from a struct by field index, or
// from a map by name.
type plan struct {
	typ    reflect.Type // of the struct; nil for a map
	names  []string
	fields []int
	zero   []any
}

// newPlan reads the names and types of a zero value.
func newPlan(features any) (*plan, error) {
	p := new(plan)
	if m, ok := features.(map[string]any); ok {
		for name, v := range m {
			if err := p.add(name, 0, reflect.TypeOf(v)); err != nil {
				return nil, err
			}
		}
		return p, nil
	}
	t := reflect.TypeOf(features)
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the features are %v, not a struct", t)
	}
	p.typ = t
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			return nil, fmt.Errorf("feature %s.%s has no JSON name", t.Name(), f.Name)
		}
		if err := p.add(name, i, f.Type); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *plan) add(name string, field int, t reflect.Type) error {
	if t == nil || t.PkgPath() == "time" {
		return fmt.Errorf("feature %s is a %v; times and durations are float64 seconds", name, t)
	}
	v := plainValue(reflect.Zero(t))
	if v == nil {
		return fmt.Errorf("feature %s is a %v, not a truth value, text or number", name, t)
	}
	p.names, p.fields, p.zero = append(p.names, name), append(p.fields, field), append(p.zero, v)
	return nil
}

// plainValue is v as bool, string, int or float64; nil if it is nothing of these.
func plainValue(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Bool:
		return v.Bool()
	case v.Kind() == reflect.String:
		return v.String()
	case v.CanInt():
		return int(v.Int())
	case v.CanUint():
		return int(v.Uint())
	case v.CanFloat():
		return v.Float()
	}
	return nil
}

// feature is the feature of that name; invalid if there is none.
func (r *Rule) feature(features any, name string) (reflect.Value, error) {
	if m, ok := features.(map[string]any); ok || features == nil {
		return reflect.ValueOf(m[name]), nil
	}
	p := r.features
	v := reflect.Indirect(reflect.ValueOf(features))
	if p.typ == nil || !v.IsValid() || v.Type() != p.typ {
		return v, fmt.Errorf("the features are %T, not %v", features, p.typ)
	}
	if i := slices.Index(p.names, name); i >= 0 {
		return v.Field(p.fields[i]), nil
	}
	return reflect.Value{}, nil
}

// class is the feature class; empty if there is none.
func (r *Rule) class(features any) (string, error) {
	v, err := r.feature(features, "class")
	if err != nil || len(r.Classes) == 0 || v.Kind() != reflect.String {
		return "", err
	}
	return v.String(), nil
}

// fill writes the features into env. Nil features and, in a map, absent ones are zero.
func (p *plan) fill(env map[string]any, features any) error {
	if m, ok := features.(map[string]any); ok || features == nil {
		for i, name := range p.names {
			env[name] = p.zero[i]
			if v, ok := m[name]; ok {
				plain := plainValue(reflect.ValueOf(v))
				if reflect.TypeOf(plain) != reflect.TypeOf(p.zero[i]) {
					return fmt.Errorf("feature %s is %T, not %T", name, v, p.zero[i])
				}
				env[name] = plain
			}
		}
		return nil
	}
	v := reflect.Indirect(reflect.ValueOf(features))
	if p.typ == nil || !v.IsValid() || v.Type() != p.typ {
		return fmt.Errorf("the features are %T, not %v", features, p.typ)
	}
	for i, name := range p.names {
		env[name] = plainValue(v.Field(p.fields[i]))
	}
	return nil
}

// A condition is compiled when it is first needed, or when it is checked.
type condition struct {
	node *node
	env  func() types.Map
	once sync.Once
	prog *vm.Program
	err  error
}

// condition is the one that stands at n; nil if n is. It is checked at once unless it and all that it speaks of is ours.
func (d *decoder) condition(n *node, ours bool, env func() types.Map) *condition {
	if n == nil {
		return nil
	}
	c := &condition{node: n, env: env}
	if !ours || !n.file.ours {
		d.try(c)
	}
	return c
}

// program is the compiled condition.
func (c *condition) program() (*vm.Program, error) {
	c.once.Do(c.compile)
	return c.prog, c.err
}

func (c *condition) check() error {
	if c == nil {
		return nil
	}
	_, err := c.program()
	return err
}

func (c *condition) compile() {
	n := c.node
	if len(n.text) > maxExpr {
		c.err = n.errorf("the condition has %d bytes; at most %d are read", len(n.text), maxExpr)
		return
	}
	p, err := expr.Compile(n.text, expr.Env(c.env()), expr.AsBool(), expr.Function("at_most", atMost, new(func(int, int) float64)),
		expr.DisableAllBuiltins(), expr.EnableBuiltin("min"), expr.EnableBuiltin("max"), expr.EnableBuiltin("abs"), expr.EnableBuiltin("string"))
	var fe *file.Error
	switch {
	case errors.As(err, &fe):
		c.err = n.errorAt(fe.Line, fe.Column+1, "%s", fe.Message)
	case err != nil:
		c.err = n.errorf("%v", err)
	}
	c.prog = p
}

// typesOf is the type declaration of values by name.
func typesOf(zero map[string]any) types.Map {
	m := make(types.Map, len(zero))
	for name, v := range zero {
		m[name] = types.TypeOf(v)
	}
	return m
}

// reportedOnce lets the first failure of a rule be reported and counts all.
type reportedOnce struct{ n atomic.Uint64 }

func (o *reportedOnce) report(err error) error {
	if err == nil || o.n.Add(1) > 1 {
		return nil
	}
	return err
}

// Failures counts evaluations that failed, reported or not.
func (r *Rule) Failures() uint64 { return r.reported.n.Load() }

// Eval says whether the rule holds for these features and how severe it is. A condition
// that cannot be computed (a division by zero) does not hold; the first such
// failure of a rule is returned, later ones are only counted.
func (r *Rule) Eval(features any) (severity string, holds bool, err error) {
	if !r.Enabled {
		return "", false, nil
	}
	env := r.env()
	defer r.envs.Put(env)
	if err = r.features.fill(*env, features); err == nil {
		holds, err = run(r.when, *env)
	}
	if err != nil || !holds {
		return "", false, r.reported.report(r.wrap("when", err))
	}
	for i, w := range r.SeverityWhen {
		ok, err := run(w.cond, *env)
		if err != nil {
			return r.Severity, true, r.reported.report(r.wrap(fmt.Sprintf("severity_when %d", i+1), err))
		}
		if ok {
			return w.Severity, true, nil
		}
	}
	return r.Severity, true, nil
}

// IsClear reports whether these features rule the fault out: Clear holds, and When does not. A condition that cannot
// be computed clears nothing.
func (r *Rule) IsClear(features any) (bool, error) {
	if r.clear == nil && !r.Own() { // information rules nothing out, and hinders nothing
		return true, nil
	}
	if !r.Enabled || r.clear == nil {
		return false, nil
	}
	env := r.env()
	defer r.envs.Put(env)
	err := r.features.fill(*env, features)
	var clear, holds bool
	if err == nil {
		clear, err = run(r.clear, *env)
	}
	if err == nil && clear {
		holds, err = run(r.when, *env)
	}
	return err == nil && clear && !holds, r.reported.report(r.wrap("clear", err))
}

// atMost is at_most of conditions and texts: the share of all that may be bad although only bad of n were, with a
// confidence of 95 %: the upper end of Wilson's score interval, one-sided. Of nothing anything may be bad.
func atMost(args ...any) (any, error) {
	bad, n := args[0].(int), args[1].(int)
	return AtMost(bad, n), nil
}

// AtMost is the one-sided upper 95 % bound of a share of which bad of n were seen (Wilson 1927, score interval); 1
// where n is 0.
func AtMost(bad, n int) float64 {
	if n <= 0 {
		return 1
	}
	const z = 1.6449 // 95 % quantile of the normal distribution
	p, m := min(max(float64(bad)/float64(n), 0), 1), float64(n)
	return min((p+z*z/(2*m)+z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m)))/(1+z*z/m), 1)
}

func (r *Rule) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("rule %s (%s): evaluate %s: %w", r.ID, r.File, what, err)
}

// env is a used or new map with the thresholds; filling in the features overwrites the
// old ones. A pointer, so that the pool does not allocate.
func (r *Rule) env() *map[string]any {
	if env, ok := r.envs.Get().(*map[string]any); ok {
		return env
	}
	env := make(map[string]any, len(r.zero))
	for name, v := range r.Params {
		env[name] = v
	}
	return &env
}

// machines keep their stacks.
var machines sync.Pool

func run(c *condition, env map[string]any) (bool, error) {
	p, err := c.program()
	if err != nil {
		return false, err
	}
	m, _ := machines.Get().(*vm.VM)
	if m == nil {
		m = new(vm.VM)
	}
	out, err := m.Run(p, env)
	machines.Put(m)
	if err != nil {
		return false, firstLine(err)
	}
	b, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("the condition gave %T", out)
	}
	return b, nil
}

// firstLine cuts the picture off an expr error.
func firstLine(err error) error {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(s)
}
