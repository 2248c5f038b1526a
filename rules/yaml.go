package rules

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on one file of the catalogue; the parser's time grows with the square
// of its size and nesting. The largest file of ours has 27 kB.
const (
	maxFiles    = 1000 // in a directory: the catalogue has some thirty
	maxFile     = 64 << 10
	maxLine     = 2000 // bytes
	maxBrackets = 4000 // opening [ and {
)

// Error is a mistake in a file of the catalogue, with its place.
type Error struct {
	File      string
	Line, Col int // 1-based; columns count characters
	Msg       string
}

// Error formats e as file:line:column: message.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// A node is a YAML value and where it stands. Only what the catalogue needs:
// mappings, sequences and scalars; no anchors, aliases, tags or null.
type node struct {
	file      *source
	line, col int
	kind      nodeKind
	text      string  // of a scalar
	block     int     // of a block scalar: its indentation, else 0
	keys      []*node // of a mapping; items are its values
	items     []*node
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	mapping
	sequence
)

func (k nodeKind) String() string {
	return [...]string{"a single value", "a mapping", "a list"}[k]
}

type source struct {
	name  string
	lines []string
	ours  bool // of the embedded catalogue, which the tests have checked: see Load
}

// errorf is an error at n.
func (n *node) errorf(format string, args ...any) *Error {
	return &Error{n.file.name, n.line, n.col, fmt.Sprintf(format, args...)}
}

// errorAt is an error at a line and column (1-based) of n's text.
func (n *node) errorAt(line, col int, format string, args ...any) *Error {
	e := n.errorf(format, args...)
	if n.block > 0 {
		e.Line, e.Col = n.line+line, n.block+col
	} else if line == 1 && n.verbatim() {
		e.Col += col - 1
	} else if line == 1 && n.quotedVerbatim() {
		e.Col += col
	}
	return e
}

// verbatim reports whether n's text stands in the file as it is, on one line.
func (n *node) verbatim() bool { return strings.HasPrefix(n.rest(), n.text) }

func (n *node) quotedVerbatim() bool {
	r := n.rest()
	return r != "" && strings.HasPrefix(r[1:], n.text)
}

// rest is the file's line from n on.
func (n *node) rest() string {
	if n.line < 1 || n.line > len(n.file.lines) {
		return ""
	}
	l := n.file.lines[n.line-1]
	for range n.col - 1 {
		_, w := utf8.DecodeRuneInString(l)
		l = l[w:]
	}
	return l
}

// get is the value of key, nil if it is absent.
func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// parseYAML reads one document, a mapping.
func parseYAML(name string, data []byte) (n *node, err error) {
	src := &source{name: name, lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")}
	root := &node{file: src, line: 1, col: 1}
	if len(data) > maxFile {
		return nil, root.errorf("the file has more than %d bytes", maxFile)
	}
	if !utf8.Valid(data) {
		return nil, root.errorf("the file is not UTF-8")
	}
	for i, l := range src.lines {
		if len(l) > maxLine {
			return nil, (&node{file: src, line: i + 1, col: 1}).errorf("the line has %d bytes; at most %d are read", len(l), maxLine)
		}
	}
	if strings.Count(string(data), "[")+strings.Count(string(data), "{") > maxBrackets {
		return nil, root.errorf("the file has more than %d opening brackets", maxBrackets)
	}
	defer func() { // the parser is not ours: what it cannot bear is the file's fault
		if p := recover(); p != nil {
			n, err = nil, root.errorf("this is not YAML: %v", p)
		}
	}()
	f, err := parser.ParseBytes([]byte(strings.Join(src.lines, "\n")), 0)
	if err != nil {
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.GetToken() != nil {
			p := se.GetToken().Position
			root.line, root.col = max(p.Line, 1), max(p.Column, 1)
			return nil, root.errorf("%s", se.Message)
		}
		return nil, root.errorf("%v", err)
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return nil, root.errorf("the file is empty")
	}
	if len(f.Docs) > 1 {
		return nil, src.place(f.Docs[1].GetToken()).errorf("one document a file")
	}
	n, err = src.convert(f.Docs[0].Body)
	if err == nil && n.kind != mapping {
		err = n.errorf("expected a mapping, found %v", n.kind)
	}
	return n, err
}

func (s *source) place(t *token.Token) *node {
	n := &node{file: s, line: 1, col: 1}
	if t != nil && t.Position != nil {
		n.line, n.col = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return n
}

func (s *source) convert(a ast.Node) (*node, error) {
	n := s.place(a.GetToken())
	switch a := a.(type) {
	case *ast.MappingNode:
		n.kind = mapping
		for i, v := range a.Values {
			if i == 0 && !a.IsFlowStyle {
				n.line, n.col = s.place(v.Key.GetToken()).line, s.place(v.Key.GetToken()).col
			}
			if err := s.pair(n, v); err != nil {
				return nil, err
			}
		}
		return n, nil
	case *ast.MappingValueNode:
		n = s.place(a.Key.GetToken())
		n.kind = mapping
		return n, s.pair(n, a)
	case *ast.SequenceNode:
		n.kind = sequence
		for _, v := range a.Values {
			item, err := s.convert(v)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case *ast.LiteralNode:
		n.text = a.Value.GetToken().Value
		s.unfold(n)
		return n, nil
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		n.text = a.GetToken().Value
		return n, nil
	case *ast.NullNode:
		return nil, n.errorf("a value is missing")
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return nil, n.errorf("anchors, aliases and merge keys are not supported")
	case *ast.TagNode:
		return nil, n.errorf("tags are not supported")
	}
	return nil, n.errorf("this YAML construct is not supported")
}

func (s *source) pair(n *node, v *ast.MappingValueNode) error {
	switch v.Key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.BoolNode: // "on:" may be read as a truth value
	default:
		return s.place(v.Key.GetToken()).errorf("this kind of key is not supported")
	}
	k := s.place(v.Key.GetToken())
	k.text = v.Key.GetToken().Value
	if n.get(k.text) != nil {
		return k.errorf("key %q is given twice", k.text)
	}
	val, err := s.convert(v.Value)
	if err != nil {
		return err
	}
	n.keys, n.items = append(n.keys, k), append(n.items, val)
	return nil
}

// unfold restores the lines of a block scalar from the file, so that places in its
// text are places in the file. Runs of white space mean the same in both: texts are
// collapsed when they are rendered.
func (s *source) unfold(n *node) {
	text, indent, _ := s.indented(n.line)
	if slices.Equal(strings.Fields(text), strings.Fields(n.text)) {
		n.text, n.block = text, indent
	}
}

// indented is the text of the block scalar below line (from 1), its indentation, and how many lines it takes.
func (s *source) indented(line int) (text string, indent, n int) {
	var lines []string
	for _, l := range s.lines[min(line, len(s.lines)):] {
		body := strings.TrimLeft(l, " ")
		if body != "" && indent == 0 {
			indent = len(l) - len(body)
		}
		if body != "" && len(l)-len(body) < indent || indent == 0 && body != "" {
			break
		}
		lines = append(lines, l[min(indent, len(l)):])
	}
	return strings.TrimRight(strings.Join(lines, "\n"), " \n"), indent, len(lines)
}

// A decoder reads typed values from nodes and collects the mistakes.
type decoder struct {
	errs []error
	own  bool // what is read adds to the catalogue, and is a user's own
}

func (d *decoder) fail(err error) { d.errs = append(d.errs, err) }

// fields checks that n is a mapping with no other keys than these.
func (d *decoder) fields(n *node, known ...string) bool {
	if n.kind != mapping {
		d.fail(n.errorf("expected a mapping, found %v", n.kind))
		return false
	}
	for _, k := range n.keys {
		if !slices.Contains(known, k.text) {
			d.fail(k.errorf("unknown key %q; known are %s", k.text, strings.Join(known, ", ")))
		}
	}
	return true
}

// need is the value of key, an error if it is absent.
func (d *decoder) need(n *node, key string) *node {
	v := n.get(key)
	if v == nil {
		d.fail(n.errorf("key %q is missing", key))
	}
	return v
}

// owed is the value of a key that the catalogue owes its readers, and a user's own rule or edge does not.
func (d *decoder) owed(n *node, key string) *node {
	if d.own {
		return n.get(key)
	}
	return d.need(n, key)
}

// str is the text of the scalar n; empty, with an error, if it is none.
func (d *decoder) str(n *node) string {
	if n == nil {
		return ""
	}
	if n.kind != scalar {
		d.fail(n.errorf("expected a text, found %v", n.kind))
		return ""
	}
	s := collapse(n.text)
	if s == "" {
		d.fail(n.errorf("the text is empty"))
	}
	return s
}

// collapse makes all white space single blanks, and none at the ends. Most texts are read and never shown, so that it goes
// through bytes: of the characters beyond ASCII, only those that begin with one of four can be white space (White_Space of
// PropList.txt), and Korean syllables do not.
func collapse(s string) string {
	var out []byte // s up to from, once that is not a part of s
	from, blank := 0, true
	for i := 0; i < len(s); {
		c, size, space := s[i], 1, false
		switch {
		case c <= ' ':
			space = c == ' ' || c >= '\t' && c <= '\r'
		case c == 0xc2 || c >= 0xe1 && c <= 0xe3:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			space = unicode.IsSpace(r)
		}
		if space && (blank || c != ' ') {
			out = append(out, s[from:i]...)
			if !blank {
				out = append(out, ' ')
			}
			from = i + size
		}
		blank = space
		i += size
	}
	if out == nil {
		return strings.TrimSuffix(s[from:], " ")
	}
	return strings.TrimSuffix(string(append(out, s[from:]...)), " ")
}

// list is the items of n, an error if there are none.
func (d *decoder) list(n *node) []*node {
	if n == nil {
		return nil
	}
	if n.kind != sequence {
		d.fail(n.errorf("expected a list, found %v", n.kind))
		return nil
	}
	if len(n.items) == 0 {
		d.fail(n.errorf("the list is empty"))
	}
	return n.items
}

func (d *decoder) strs(n *node) []string {
	var out []string
	for _, i := range d.list(n) {
		out = append(out, d.str(i))
	}
	return out
}

// both reads {en: …, ko: …}. One of them stands for the other where that is not owed.
func (d *decoder) both(n *node) Text {
	if n == nil || !d.fields(n, Languages...) {
		return Text{}
	}
	t := Text{En: d.str(d.owed(n, "en")), Ko: d.str(d.owed(n, "ko"))}
	if ko := n.get("ko"); ko != nil && t.Ko != "" && !hasKorean(t.Ko) {
		d.fail(ko.errorf("the Korean text has no Korean in it"))
	}
	if d.own && t == (Text{}) {
		d.fail(n.errorf("there is no text: en or ko is needed, or both"))
	}
	return Text{En: cmp.Or(t.En, t.Ko), Ko: cmp.Or(t.Ko, t.En)}
}

func hasKorean(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return unicode.Is(unicode.Hangul, c) })
}
