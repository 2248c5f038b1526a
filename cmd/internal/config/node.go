package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on one file; the parser's time grows with the square of its size and nesting.
const (
	maxFile     = 64 << 10 // bytes
	maxLine     = 10_000   // bytes
	maxText     = 4096     // bytes of one value: printed with its escapes it still fits on a line
	maxBrackets = 4000     // opening [ and {
)

// Error is a mistake in the configuration, with its place.
type Error struct {
	File      string // or the environment variable, or the flag
	Line, Col int    // 1-based, columns count characters; 0: not in a file
	Msg       string
}

// Error formats e as file:line:column: message.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// A node is a YAML value and where it stands: a mapping, a list or a single value.
type node struct {
	file      *source
	line, col int
	kind      nodeKind
	text      string // of a single value, references as they are written
	quoted    bool
	keys      []*node // of a mapping; items are its values
	items     []*node
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	mapping
	sequence
	broken // a mistake that is reported already
)

func (k nodeKind) String() string {
	return [...]string{"a single value", "a mapping", "a list", "a mistake"}[k]
}

// source is a file, an environment variable or a flag (no lines).
type source struct {
	name  string
	lines []string
}

func (n *node) errorf(format string, args ...any) *Error {
	return &Error{n.file.name, n.line, n.col, fmt.Sprintf(format, args...)}
}

// errorAt is an error at byte at of n's text.
func (n *node) errorAt(at int, format string, args ...any) *Error {
	e := n.errorf(format, args...)
	if n.line < 1 || n.line > len(n.file.lines) || at < 0 || at > len(n.text) {
		return e
	}
	rest := n.file.lines[n.line-1]
	for range n.col - 1 {
		_, w := utf8.DecodeRuneInString(rest)
		rest = rest[w:]
	}
	if n.quoted && rest != "" {
		rest = rest[1:]
		e.Col++
	}
	if !strings.HasPrefix(rest, n.text) { // escapes, or more than one line
		return n.errorf(format, args...)
	}
	e.Col += utf8.RuneCountInString(n.text[:at])
	return e
}

// What a URL may hold of secrets.
var (
	userInfo = regexp.MustCompile(`//[^/@]*@`)
	urlQuery = regexp.MustCompile(`(://[^?]*\?).+`)
)

// quote is n as messages show it: without credentials, and not endless.
func (n *node) quote() string {
	if n.kind != scalar {
		return n.kind.String()
	}
	s := userInfo.ReplaceAllString(n.text, "//"+masked+"@")
	s = urlQuery.ReplaceAllString(s, "${1}"+masked)
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", s)
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

// parseYAML reads one document, a mapping; one without content is an empty mapping. Mistakes go to
// fail; nil: nothing could be read.
func parseYAML(name string, data []byte, fail func(*Error)) (n *node) {
	src := &source{name, strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")}
	root := &node{file: src, line: 1, col: 1, kind: mapping}
	if len(data) > maxFile {
		fail(root.errorf("the file has more than %d bytes", maxFile))
		return nil
	}
	if !utf8.Valid(data) {
		fail(root.errorf("the file is not UTF-8"))
		return nil
	}
	for i, l := range src.lines {
		if len(l) > maxLine {
			fail(&Error{name, i + 1, 1, fmt.Sprintf("the line has %d bytes; at most %d are read", len(l), maxLine)})
			return nil
		}
	}
	if strings.Count(string(data), "[")+strings.Count(string(data), "{") > maxBrackets {
		fail(root.errorf("the file has more than %d opening brackets", maxBrackets))
		return nil
	}
	defer func() { // the parser is not ours: what it cannot bear is the file's fault
		if p := recover(); p != nil {
			fail(root.errorf("this is not YAML: %v", p))
			n = nil
		}
	}()
	f, err := parser.ParseBytes([]byte(strings.Join(src.lines, "\n")), 0)
	if err != nil {
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.GetToken() != nil {
			fail(src.place(se.GetToken()).errorf("%s", se.Message))
		} else {
			fail(root.errorf("this is not YAML"))
		}
		return nil
	}
	if len(f.Docs) > 1 {
		fail(src.place(f.Docs[1].Start).errorf("one document a file"))
		return nil
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return root
	}
	switch f.Docs[0].Body.(type) {
	case *ast.NullNode, *ast.CommentGroupNode:
		return root
	}
	c := converter{src, fail}
	return c.convert(f.Docs[0].Body)
}

func (s *source) place(t *token.Token) *node {
	n := &node{file: s, line: 1, col: 1}
	if t != nil && t.Position != nil {
		n.line, n.col = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return n
}

// converter turns the parser's tree into nodes; what the configuration does not need is a mistake.
type converter struct {
	src  *source
	fail func(*Error)
}

func (c *converter) convert(a ast.Node) *node {
	n := c.src.place(a.GetToken())
	switch a := a.(type) {
	case *ast.MappingNode:
		n.kind = mapping
		for i, v := range a.Values {
			if i == 0 && !a.IsFlowStyle {
				first := c.src.place(v.Key.GetToken())
				n.line, n.col = first.line, first.col
			}
			c.pair(n, v)
		}
		return n
	case *ast.MappingValueNode:
		n = c.src.place(a.Key.GetToken())
		n.kind = mapping
		c.pair(n, a)
		return n
	case *ast.SequenceNode:
		n.kind = sequence
		for _, v := range a.Values {
			if item := c.convert(v); item.kind != broken {
				n.items = append(n.items, item)
			}
		}
		return n
	case *ast.LiteralNode:
		n.text = strings.ReplaceAll(strings.TrimRight(a.Value.GetToken().Value, "\n"), "\n", " ") // a long filter, say
		return n
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		t := a.GetToken()
		n.text, n.quoted = t.Value, t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType
		return n
	case *ast.NullNode:
		c.fail(n.errorf("a value is missing"))
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		c.fail(n.errorf("anchors, aliases and merge keys are not supported"))
	case *ast.TagNode:
		c.fail(n.errorf("tags are not supported"))
	default:
		c.fail(n.errorf("this YAML construct is not supported"))
	}
	n.kind = broken
	return n
}

func (c *converter) pair(n *node, v *ast.MappingValueNode) {
	k := c.src.place(v.Key.GetToken())
	switch v.Key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.BoolNode: // "on:" may be read as a truth value
	default:
		c.fail(k.errorf("this kind of key is not supported"))
		return
	}
	k.text = v.Key.GetToken().Value
	if n.get(k.text) != nil {
		c.fail(k.errorf("key %q is given twice", k.text))
		return
	}
	val := &node{kind: broken}
	if _, null := v.Value.(*ast.NullNode); null {
		c.fail(k.errorf("key %q has no value", k.text))
	} else {
		val = c.convert(v.Value)
	}
	n.keys, n.items = append(n.keys, k), append(n.items, val)
}
