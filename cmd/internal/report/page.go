package report

import (
	"strings"
)

// Styles of text on a terminal (ECMA-48 SGR).
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	red    = "1;31"
	yellow = "1;33"
	green  = "1;32"
	cyan   = "36"
)

// page collects the lines of a report: labels in a gutter on the left, text beside them.
type page struct {
	width  int
	gutter int
	color  bool
	lines  []string
}

func (p *page) style(code, s string) string {
	if !p.color || code == plain || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) blank() {
	if len(p.lines) > 0 && p.lines[len(p.lines)-1] != "" {
		p.lines = append(p.lines, "")
	}
}

// entry writes label into the gutter and text beside it.
func (p *page) entry(label, labelStyle, text, textStyle string) {
	p.put(p.style(labelStyle, label), Width(label), p.gutter, text, textStyle)
}

// more writes text beside an empty gutter.
func (p *page) more(text, textStyle string) { p.put("", 0, p.gutter, text, textStyle) }

// row writes label into the gutter, and text that hangs from a head of its own beside it.
func (p *page) row(label, labelStyle, head, headStyle string, headWidth int, text string) {
	left := p.style(labelStyle, label) + strings.Repeat(" ", max(p.gutter-Width(label), 0)) + p.style(headStyle, head)
	p.put(left, max(p.gutter, Width(label))+Width(head), p.gutter+headWidth, text, plain)
}

// put writes head, which takes n columns, then text from column indent on.
func (p *page) put(head string, n, indent int, text, textStyle string) {
	lines := Wrap(text, p.width-indent)
	code := false
	for i, l := range lines {
		left := strings.Repeat(" ", indent)
		if i == 0 {
			if n >= indent {
				indent, left = n+1, head+" "
			} else {
				left = head + strings.Repeat(" ", indent-n)
			}
		}
		if l, code = p.commands(l, code, textStyle); l == "" {
			left = strings.TrimRight(left, " ")
		}
		p.lines = append(p.lines, left+l)
	}
}

// commands colours what stands between backticks. open tells whether the line
// begins inside of them.
func (p *page) commands(l string, open bool, textStyle string) (string, bool) {
	if !p.color {
		return l, false
	}
	var b strings.Builder
	for i, part := range strings.Split(l, "`") {
		if i > 0 {
			open = !open
		}
		if open {
			b.WriteString(p.style(cyan, part))
		} else {
			b.WriteString(p.style(textStyle, part))
		}
	}
	return b.String(), open
}

func (p *page) String() string {
	if len(p.lines) == 0 {
		return ""
	}
	return strings.Join(p.lines, "\n") + "\n"
}
