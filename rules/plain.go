package rules

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// The embedded files are written in a plain style of YAML, which is read here in a hundredth of the time that the
// full parser takes: block mappings and lists, block scalars, and on one line plain and quoted scalars, [lists] and {mappings}.
// Whatever else a file has is left to the full parser, whose result is the same (TestPlain).

// A plainReader reads a file of that style.
type plainReader struct {
	src  *source
	line int // of src.lines, from 0
	at   int // byte in the line
	odd  bool
}

// readPlain reads src; false if it is not in the plain style.
func readPlain(src *source) (*node, bool) {
	r := plainReader{src: src, line: -1}
	if !r.next() || r.at != 0 {
		return nil, false
	}
	n := r.block()
	return n, !r.odd && n.kind == mapping && r.line == len(src.lines)
}

// next goes to the next line that has something.
func (r *plainReader) next() bool {
	for r.line++; r.line < len(r.src.lines); r.line++ {
		l := r.src.lines[r.line]
		body := strings.TrimLeft(l, " ")
		if body == "" || body[0] == '#' {
			continue
		}
		r.at = len(l) - len(body)
		if r.odd = r.odd || body[0] == '\t' || r.at == 0 && (strings.HasPrefix(l, "---") || strings.HasPrefix(l, "...") || l[0] == '%'); r.odd {
			return false
		}
		return true
	}
	r.at = -1
	return false
}

func (r *plainReader) rest() string { return r.src.lines[r.line][r.at:] }

// node is a new node at the place of the reader.
func (r *plainReader) node(kind nodeKind) *node {
	return &node{file: r.src, line: r.line + 1, col: utf8.RuneCountInString(r.src.lines[r.line][:r.at]) + 1, kind: kind}
}

// block reads the block mapping or list that begins here. It ends with the reader on the line after it.
func (r *plainReader) block() *node {
	line, col := r.line, r.at
	list := isItem(r.rest())
	n := r.node(mapping)
	if list {
		n.kind = sequence
	}
	for !r.odd {
		if list {
			r.item(n)
		} else {
			r.pair(n, col)
		}
		if r.line == line { // nothing read: what follows would be read for ever
			r.odd = true
		}
		if line = r.line; r.at < col {
			break
		}
		if r.odd = r.odd || r.at > col; !r.odd && isItem(r.rest()) != list {
			if !list {
				r.odd = true // a mapping that goes on as a list
			}
			break
		}
	}
	return n
}

func isItem(s string) bool { return s == "-" || strings.HasPrefix(s, "- ") }

// item reads one item of a block list.
func (r *plainReader) item(n *node) {
	col, l := r.at, r.src.lines[r.line]
	for r.at++; r.at < len(l) && l[r.at] == ' '; r.at++ {
	}
	if r.at == len(l) || l[r.at] == '#' {
		r.odd = true
		return
	}
	if _, ok := r.key(); ok || isItem(r.rest()) {
		n.items = append(n.items, r.block())
		return
	}
	n.items = append(n.items, r.value(col))
}

// key is the key that begins here, if one does.
func (r *plainReader) key() (string, bool) {
	s := r.rest()
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9' && i > 0 || s[i] == '_' || s[i] == '-' && i > 0) {
		i++
	}
	if i == 0 || i == len(s) || s[i] != ':' || i+1 < len(s) && s[i+1] != ' ' {
		return "", false
	}
	return s[:i], true
}

// pair reads one pair of a mapping whose keys stand at byte col.
func (r *plainReader) pair(n *node, col int) {
	name, ok := r.key()
	if !ok || n.get(name) != nil {
		r.odd = true
		return
	}
	k := r.node(scalar)
	k.text = name
	l := r.src.lines[r.line]
	for r.at += len(name) + 1; r.at < len(l) && l[r.at] == ' '; r.at++ {
	}
	var v *node
	if r.at < len(l) && l[r.at] != '#' {
		v = r.value(col)
	} else if r.next() && (r.at > col || r.at == col && isItem(r.rest())) {
		v = r.block()
	} else {
		r.odd = true
		return
	}
	n.keys, n.items = append(n.keys, k), append(n.items, v)
}

// value reads a value that begins and, but for a block scalar, ends on this line. What it belongs to stands at byte col.
func (r *plainReader) value(col int) *node {
	n := r.node(scalar)
	switch s := r.rest(); s {
	case "|", ">-":
		var lines int
		n.text, n.block, lines = r.src.indented(n.line)
		r.odd = r.odd || n.block <= col
		r.line += lines
		r.next()
		return n
	}
	if n = r.flow(""); r.odd {
		return n
	}
	if s := r.rest(); strings.TrimLeft(s, " ") != "" && !strings.HasPrefix(strings.TrimLeft(s, " "), "#") {
		r.odd = true
	}
	if r.next() && r.at > col {
		r.odd = true // the scalar goes on
	}
	return n
}

// flow reads a scalar, [list] or {mapping}. A plain scalar ends before a byte of end, too.
func (r *plainReader) flow(end string) *node {
	n, s := r.node(scalar), r.rest()
	if s == "" || r.odd {
		r.odd = true
		return n
	}
	switch s[0] {
	case '"', '\'':
		r.quoted(n, s)
	case '[', '{':
		r.collection(n, s[0] == '{')
	default:
		i := len(s)
		if end != "" {
			if j := strings.IndexAny(s, end); j >= 0 {
				i = j
			}
		}
		if j := strings.Index(s, " #"); j >= 0 && j < i {
			i = j
		}
		n.text = strings.TrimRight(s[:i], " ")
		r.at += i
		r.odd = n.text == "" || strings.Contains(n.text, ": ") || strings.HasSuffix(n.text, ":") || strings.ContainsAny(n.text, "\t") ||
			strings.IndexByte("-?:,[]{}#&*!|>'\"%@`~.+=<", n.text[0]) >= 0 || slices.Contains([]string{"null", "Null", "NULL"}, n.text)
	}
	return n
}

// quoted reads the scalar that s begins with into n. Of escapes it knows \" and \\, and ” between single quotes.
func (r *plainReader) quoted(n *node, s string) {
	double := s[0] == '"'
	from := 1
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] && s[i] != '\\' {
			continue
		}
		more := s[i+1:]
		switch {
		case double && s[i] == '\\' && (strings.HasPrefix(more, `"`) || strings.HasPrefix(more, `\`)),
			!double && s[i] == '\'' && strings.HasPrefix(more, "'"):
			n.text += s[from:i]
			i++
			from = i
		case s[i] == s[0]:
			n.text += s[from:i]
			r.at += i + 1
			return
		case double && s[i] == '\\':
			r.odd = true
			return
		}
	}
	r.odd = true // it goes on on the next line
}

// collection reads the items of a [list] or {mapping} into n.
func (r *plainReader) collection(n *node, isMap bool) {
	n.kind = sequence
	closing := byte(']')
	if isMap {
		n.kind, closing = mapping, '}'
	}
	l := r.src.lines[r.line]
	skip := func() byte {
		for ; r.at < len(l) && l[r.at] == ' '; r.at++ {
		}
		if r.at == len(l) {
			r.odd = true
			return 0
		}
		return l[r.at]
	}
	r.at++
	for !r.odd {
		if skip() == closing {
			r.odd = len(n.items) == 0
			break
		}
		if isMap {
			name, ok := r.key()
			if !ok || n.get(name) != nil {
				r.odd = true
				return
			}
			k := r.node(scalar)
			k.text = name
			n.keys = append(n.keys, k)
			r.at += len(name) + 1
			skip()
		}
		if r.odd {
			return
		}
		n.items = append(n.items, r.flow(",[]{}"))
		if c := skip(); c == ',' {
			r.at++
			if skip() == closing {
				r.odd = true
			}
		} else if c != closing {
			r.odd = true
		}
	}
	r.at++
}
