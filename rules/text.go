package rules

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
	"unicode/utf8"
)

// texts are the templates of a rule in one language.
type texts struct {
	one   map[string]*text
	lists map[string][]*text
}

// A text is parsed when it is first needed, or when it is checked.
type text struct {
	node  *node
	lang  string
	names map[string]any // that it may use, with their zero values
	once  sync.Once
	tmpl  *template.Template
	err   error
}

// Builtin functions of text/template that a text may use; the others print raw values,
// call or index.
var templateBuiltins = []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge"}

var templateError = regexp.MustCompile(`(?s)^template: [^:]*:([0-9]+)(?::([0-9]+))?: (.*)$`)

// text is the one at n. It is checked at once unless it is ours.
func (d *decoder) text(n *node, lang string, names map[string]any) *text {
	t := &text{node: n, lang: lang, names: names}
	if !n.file.ours {
		d.try(t)
	}
	return t
}

// template is the parsed text.
func (t *text) template() (*template.Template, error) {
	t.once.Do(func() {
		if t.tmpl, t.err = template.New(t.lang).Option("missingkey=error").Funcs(funcs[t.lang]).Parse(t.node.text); t.err != nil {
			t.err = templateErrorAt(t.node, t.err)
		}
	})
	return t.tmpl, t.err
}

// check tries every branch of the text with zero and with other values of its names.
func (t *text) check() error {
	tmpl, err := t.template()
	if err != nil {
		return err
	}
	if len(tmpl.Templates()) > 1 {
		return t.node.errorf("a text defines no templates")
	}
	c := textChecker{node: t.node, names: t.names}
	var flat parse.ListNode
	flat.NodeType = parse.NodeList
	if tmpl.Tree != nil && tmpl.Root != nil {
		c.list(tmpl.Root, &flat)
	}
	if c.err != nil {
		return c.err
	}
	all, err := template.New(t.lang).Funcs(funcs[t.lang]).AddParseTree(t.lang, &parse.Tree{Name: t.lang, ParseName: t.lang, Root: &flat})
	if err != nil {
		return t.node.errorf("%v", err)
	}
	for _, values := range []map[string]any{t.names, sample(t.names)} {
		if err := all.Execute(io.Discard, values); err != nil {
			return templateErrorAt(t.node, err)
		}
	}
	return nil
}

// templateErrorAt gives an error of text/template its place in the file.
func templateErrorAt(n *node, err error) error {
	m := templateError.FindStringSubmatch(err.Error())
	if m == nil {
		return n.errorf("%v", err)
	}
	line, _ := strconv.Atoi(m[1])
	col, _ := strconv.Atoi(m[2])
	msg := m[3]
	if i := strings.LastIndex(msg, ">: "); strings.HasPrefix(msg, "executing ") && i >= 0 {
		msg = msg[i+3:]
	}
	return n.errorAt(line, col+1, "%s", msg)
}

// sample is values other than zero of the same types.
func sample(zero map[string]any) map[string]any {
	out := make(map[string]any, len(zero))
	for name, v := range zero {
		switch v.(type) {
		case bool:
			out[name] = true
		case int:
			out[name] = 1234
		case float64:
			out[name] = 0.5
		default:
			out[name] = "10.0.0.1"
		}
	}
	return out
}

// A textChecker allows in a template: names that exist, functions of ours, if. It collects
// the actions of all branches, so that one execution tries them all.
type textChecker struct {
	node  *node
	names map[string]any
	err   error
}

func (c *textChecker) fail(n parse.Node, format string, args ...any) {
	if c.err != nil {
		return
	}
	before := c.node.text[:min(int(n.Position()), len(c.node.text))]
	line := strings.Count(before, "\n") + 1
	col := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	c.err = c.node.errorAt(line, col, format, args...)
}

func (c *textChecker) list(l *parse.ListNode, flat *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode, *parse.CommentNode:
		case *parse.ActionNode:
			c.pipe(n.Pipe)
			flat.Nodes = append(flat.Nodes, n)
		case *parse.IfNode:
			c.pipe(n.Pipe)
			flat.Nodes = append(flat.Nodes, &parse.ActionNode{NodeType: parse.NodeAction, Pos: n.Pos, Line: n.Line, Pipe: n.Pipe})
			c.list(n.List, flat)
			c.list(n.ElseList, flat)
		default:
			c.fail(n, "a text has only values and if")
		}
	}
}

func (c *textChecker) pipe(p *parse.PipeNode) {
	if len(p.Decl) > 0 {
		c.fail(p, "a text has no variables")
	}
	for _, cmd := range p.Cmds {
		for _, a := range cmd.Args {
			switch a := a.(type) {
			case *parse.PipeNode:
				c.pipe(a)
			case *parse.FieldNode:
				if _, ok := c.names[a.Ident[0]]; !ok {
					c.fail(a, "unknown name .%s; known are %s", a.Ident[0], strings.Join(slices.Sorted(maps.Keys(c.names)), ", "))
				} else if len(a.Ident) > 1 {
					c.fail(a, ".%s has no fields", a.Ident[0])
				}
			case *parse.IdentifierNode:
				if _, ours := funcs["en"][a.Ident]; !ours && !slices.Contains(templateBuiltins, a.Ident) {
					c.fail(a, "function %q is not for texts", a.Ident)
				}
			case *parse.StringNode, *parse.NumberNode, *parse.BoolNode:
			default:
				c.fail(a, "%q is not for texts", a)
			}
		}
	}
}

// render executes the template and makes all white space single blanks.
func (t *text) render(values map[string]any) (string, error) {
	tmpl, err := t.template()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, values); err != nil {
		return "", err
	}
	return collapse(b.String()), nil
}

// values is everything that a text may name.
func (r *Rule) values(features any, subject map[string]any) (map[string]any, error) {
	v := maps.Clone(r.zero)
	for name, zero := range SubjectFields {
		if s, ok := subject[name]; ok {
			if v[name] = plainValue(reflect.ValueOf(s)); reflect.TypeOf(v[name]) != reflect.TypeOf(zero) {
				return nil, fmt.Errorf("subject field %s is %T, not %T", name, s, zero)
			}
		}
	}
	return v, r.features.fill(v, features)
}

// ask is what conditions of edges ask of a finding.
func (r *Rule) ask(features any, subject map[string]any) (map[string]any, error) {
	v := make(map[string]any, len(r.asked))
	for _, name := range r.asked {
		zero := r.zero[name]
		v[name] = zero
		var is reflect.Value
		if _, ok := SubjectFields[name]; ok {
			is = reflect.ValueOf(subject[name])
		} else {
			var err error
			if is, err = r.feature(features, name); err != nil {
				return nil, err
			}
		}
		if !is.IsValid() {
			continue
		}
		if v[name] = plainValue(is); reflect.TypeOf(v[name]) != reflect.TypeOf(zero) {
			return nil, fmt.Errorf("%s is %v, not %T", name, is.Type(), zero)
		}
	}
	return v, nil
}

// Render is one text of a rule: title, summary, ruled_out or not_assessable. The features
// are of the detector's type, a map by name, or nil for zeros; the subject's
// fields are those of [SubjectFields] and may be absent.
func (r *Rule) Render(lang, which string, features any, subject map[string]any) (string, error) {
	l := r.texts[lang]
	if l != nil && l.one[which] == nil && r.Own() && slices.Contains(textKeys, which) {
		return "", nil
	}
	if l == nil || l.one[which] == nil {
		return "", fmt.Errorf("rule %s has no text %q in language %q", r.ID, which, lang)
	}
	v, err := r.values(features, subject)
	if err == nil {
		var s string
		if s, err = l.one[which].render(v); err == nil {
			return s, nil
		}
	}
	return "", fmt.Errorf("rule %s (%s): render %s: %w", r.ID, r.File, which, err)
}

// Text is Render in both languages.
func (r *Rule) Text(which string, features any, subject map[string]any) (Text, error) {
	en, err := r.Render("en", which, features, subject)
	ko, err2 := r.Render("ko", which, features, subject)
	return Text{en, ko}, errors.Join(err, err2)
}

// Next is what to do next.
func (r *Rule) Next(features any, subject map[string]any) ([]Text, error) {
	return r.list("next", features, subject)
}

// Rivals are other explanations that fit nearly as well: what speaks against each in numbers, or which measurement would tell.
func (r *Rule) Rivals(features any, subject map[string]any) ([]Text, error) {
	return r.list("rivals", features, subject)
}

// list is the texts of a list that fit the features: those that are empty in both languages are left out.
func (r *Rule) list(which string, features any, subject map[string]any) ([]Text, error) {
	v, err := r.values(features, subject)
	if err != nil {
		return nil, fmt.Errorf("rule %s (%s): render %s: %w", r.ID, r.File, which, err)
	}
	var out []Text
	for i := range r.texts["en"].lists[which] {
		en, err := r.texts["en"].lists[which][i].render(v)
		ko, err2 := r.texts["ko"].lists[which][i].render(v)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("rule %s (%s): render %s %d: %w", r.ID, r.File, which, i+1, err)
		}
		if en != "" || ko != "" {
			out = append(out, Text{en, ko})
		}
	}
	return out, nil
}
