package filter

import (
	"fmt"
	"strings"
)

// Supported is what Parse knows, in one line, for messages.
const Supported = "ip, ip6, arp, rarp, tcp, udp, sctp, icmp, icmp6, vlan [ID], [src|dst] host, net, port and portrange with numbers, " +
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0, and, or, not, parentheses"

// maxExpr bounds an expression in bytes: what a program of MaxLength instructions can come from.
const maxExpr = 64 << 10

// SyntaxError says where and why an expression could not be read.
type SyntaxError struct {
	Expr string
	Pos  int    // byte offset in Expr
	What string // what is wrong there, and what to write instead
}

// Error names the column, from 1, the text there and what is supported.
func (e *SyntaxError) Error() string {
	near := "its end"
	if e.Pos < len(e.Expr) {
		near, _, _ = strings.Cut(e.Expr[e.Pos:], " ")
		near = fmt.Sprintf("%.40q", near)
	}
	return fmt.Sprintf("filter expression, column %d, at %s: %s (supported: %s)", e.Pos+1, near, e.What, Supported)
}

// Parse reads an expression; an empty one accepts every packet. The error is a *SyntaxError.
func Parse(text string) (*Expr, error) {
	if len(text) > maxExpr {
		return nil, &SyntaxError{Expr: text, Pos: maxExpr, What: fmt.Sprintf("longer than %d bytes", maxExpr)}
	}
	p := &parser{text: text}
	if err := p.lex(); err != nil {
		return nil, err
	}
	if p.peek().kind == tokenEnd {
		return nil, nil
	}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, p.errorf(t, "expected and, or, or the end")
	}
	return &Expr{build: n.build, vlan: p.vlans > 0}, nil
}

// node is a part that has been read, with the qualifiers that a bare number or address after it inherits.
type node struct {
	build func(layout) *cond
	qual  qualifiers
}

// qualifiers are those of one primitive.
type qualifiers struct {
	known bool   // there is something to inherit
	proto string // empty: any
	dir   direction
	kind  string // host, net, port, portrange; empty: host
}

type parser struct {
	text   string
	tokens []token
	next   int
	vlans  uint32 // "vlan" so far
}

func (p *parser) peek() token { return p.tokens[p.next] }

// ahead looks n tokens further.
func (p *parser) ahead(n int) token { return p.tokens[min(p.next+n, len(p.tokens)-1)] }

func (p *parser) take() token {
	t := p.tokens[p.next]
	if t.kind != tokenEnd {
		p.next++
	}
	return t
}

// accept takes the next token if it is one of these.
func (p *parser) accept(texts ...string) bool {
	for _, s := range texts {
		if p.peek().is(s) {
			p.next++
			return true
		}
	}
	return false
}

func (p *parser) errorf(t token, format string, args ...any) error {
	return &SyntaxError{Expr: p.text, Pos: t.pos, What: fmt.Sprintf(format, args...)}
}

// expression reads operands joined by "and" and "or", which bind equally, from left to right.
func (p *parser) expression() (node, error) { return p.joined(p.operand, qualifiers{}) }

// identifiers reads the same of numbers and addresses alone.
func (p *parser) identifiers(q qualifiers) (node, error) { return p.joined(p.identifier, q) }

func (p *parser) joined(operand func(qualifiers) (node, error), q qualifiers) (node, error) {
	left, err := operand(q)
	for err == nil {
		join := and
		switch {
		case p.accept("and", "&&"):
		case p.accept("or", "||"):
			join = or
		default:
			return left, nil
		}
		var right node
		if right, err = operand(left.qual); err == nil {
			a, b := left.build, right.build
			left = node{func(l layout) *cond { return join(a(l), b(l)) }, right.qual}
		}
	}
	return node{}, err
}

func negated(n node, err error) (node, error) {
	if err != nil {
		return node{}, err
	}
	build := n.build
	n.build = func(l layout) *cond { return not(build(l)) }
	return n, nil
}

// operand reads a primitive, an expression in parentheses, or, where there are qualifiers to inherit, a bare number or address.
func (p *parser) operand(q qualifiers) (node, error) {
	switch t := p.peek(); {
	case p.accept("not", "!"):
		return negated(p.operand(q))
	case t.is("("):
		if t.bare {
			return p.identifier(q)
		}
		p.take()
		return p.closed(p.expression())
	case t.kind == tokenWord && !keywords[t.text]:
		return p.identifier(q)
	}
	return p.primitive()
}

func (p *parser) closed(n node, err error) (node, error) {
	if err != nil {
		return node{}, err
	}
	if !p.accept(")") {
		return node{}, p.errorf(p.peek(), "expected and, or, or a closing parenthesis")
	}
	return n, nil
}

// identifier reads numbers and addresses that the qualifiers apply to.
func (p *parser) identifier(q qualifiers) (node, error) {
	switch t := p.peek(); {
	case p.accept("not", "!"):
		return negated(p.identifier(q))
	case p.accept("("):
		return p.closed(p.identifiers(q))
	case t.kind != tokenWord || keywords[t.text]:
		return node{}, p.errorf(t, "expected a number or an address")
	case !q.known && !isNumber(t.text) && !isAddress(t.text):
		return node{}, p.errorf(t, "unknown word")
	case !q.known:
		return node{}, p.errorf(t, "say what this is: put host, net or port before it")
	}
	return p.value(q)
}

// primitive reads what begins with a keyword.
func (p *parser) primitive() (node, error) {
	t := p.peek()
	if t.is("vlan") {
		return p.vlan()
	}
	q := qualifiers{known: true}
	if protocols[t.text] != nil && t.kind == tokenWord {
		p.take()
		if p.peek().is("[") {
			return p.bytes(t)
		}
		q.proto = t.text
	}
	qualified := p.direction(&q)
	if w := p.peek(); kinds[w.text] && w.kind == tokenWord {
		p.take()
		q.kind, qualified = w.text, true
	}
	switch {
	case qualified:
		return p.identifier(q)
	case q.proto != "":
		build, vlans := protocols[q.proto], p.vlans
		return node{build: func(l layout) *cond { return build(l.after(vlans)) }}, nil
	}
	return node{}, p.errorf(t, "expected a condition")
}

// direction reads "src", "dst" and their combinations.
func (p *parser) direction(q *qualifiers) bool {
	first := p.peek().text
	if !p.accept("src", "dst") {
		return false
	}
	q.dir = source
	if first == "dst" {
		q.dir = destination
	}
	second := p.ahead(1)
	if !second.is("src") && !second.is("dst") || second.text == first {
		return true
	}
	switch {
	case p.accept("or", "||"):
		q.dir = either
		p.take()
	case p.accept("and", "&&"):
		q.dir = both
		p.take()
	}
	return true
}

func (p *parser) vlan() (node, error) {
	p.take()
	id := -1
	if t := p.peek(); t.kind == tokenWord && isNumber(t.text) {
		n, ok := number(t.text, 0xfff)
		if !ok {
			return node{}, p.errorf(t, "a VLAN is a number from 0 to 4095")
		}
		p.take()
		id = int(n)
	}
	before := p.vlans
	p.vlans++
	return node{build: func(l layout) *cond { return vlan(l, before, id) }}, nil
}
