package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// longestCommand is what is still taken for a command: a name with a backtick in it must not make a line of all that follows.
const longestCommand = 160

// Width is how many columns s takes on a terminal: Hangul and other wide characters two,
// combining marks none. What the standard calls ambiguous (→ … ·) counts as one, as
// terminals draw it unless told otherwise (UAX #11 §5).
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case r >= 0x1160 && r <= 0x11ff: // conjoining vowels and finals of Hangul
		return 0
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Wrap breaks s into lines of at most w columns, at spaces. What stands between
// backticks is a command: it stays on one line, of its own if it is longer than w, for
// what is copied from two lines does something else. Another word that is too long for a
// line is broken where the line ends.
func Wrap(s string, w int) []string {
	w = max(w, 8)
	var lines []string
	line, n := "", 0
	for _, word := range words(Clean(s)) {
		k := Width(word)
		if line != "" && n+1+k <= w {
			line, n = line+" "+word, n+1+k
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		for k > w && (strings.Count(word, "`") < 2 || k > longestCommand) {
			head, tail := cut(word, w)
			lines = append(lines, head)
			word, k = tail, Width(tail)
		}
		line, n = word, k
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// words splits s at spaces, but not inside backticks.
func words(s string) []string {
	var out []string
	for len(s) > 0 {
		n := strings.IndexByte(s, ' ')
		if n < 0 {
			n = len(s)
		}
		for ticks := strings.Count(s[:n], "`"); ticks%2 == 1 && n < len(s); {
			end := strings.IndexByte(s[n:], '`')
			if end < 0 {
				break
			}
			m := n + end + 1
			if k := strings.IndexByte(s[m:], ' '); k >= 0 {
				m += k
			} else {
				m = len(s)
			}
			if Width(s[:m]) > longestCommand {
				break
			}
			ticks += strings.Count(s[n:m], "`")
			n = m
		}
		switch {
		case n == 0:
		case len(out) > 0 && isUnit(s[:n]) && endsInDigit(out[len(out)-1]):
			out[len(out)-1] += " " + s[:n] // a number and its unit are one word
		default:
			out = append(out, s[:n])
		}
		s = strings.TrimPrefix(s[n:], " ")
	}
	return out
}

func isUnit(s string) bool {
	switch strings.TrimRight(s, ".,;:)") {
	case "%", "s", "ms", "µs", "bytes", "MB":
		return true
	}
	return false
}

func endsInDigit(s string) bool { return s[len(s)-1] >= '0' && s[len(s)-1] <= '9' }

// cut splits s after at most w columns, but after one character at least.
func cut(s string, w int) (head, tail string) {
	n := 0
	for i, r := range s {
		k := runeWidth(r)
		if i > 0 && n+k > w {
			return s[:i], s[i:]
		}
		n += k
	}
	return s, ""
}

// clip shortens s to w columns; an ellipsis marks that it did.
func clip(s string, w int) string {
	s = Clean(s)
	if Width(s) <= w {
		return s
	}
	head, _ := cut(s, w-2)
	if i := strings.LastIndexByte(head, ' '); i > len(head)*2/3 {
		head = head[:i]
	}
	head = strings.TrimRight(head, " ,;:(")
	if strings.Count(head, "`")%2 == 1 {
		head += "`"
	}
	return head + " …"
}

// clipLines shortens s so that it wraps into n lines of w columns.
func clipLines(s string, w, n int) string {
	lines := Wrap(s, w)
	if len(lines) <= n {
		return strings.Join(lines, " ")
	}
	return strings.Join(lines[:n-1], " ") + " " + clip(strings.Join(lines[n-1:], " "), w)
}

// pad fills s up with spaces to w columns.
func pad(s string, w int) string {
	return s + strings.Repeat(" ", max(w-Width(s), 0))
}

// sentences returns the first sentence of s, and those after it as long as fits holds.
func sentences(s string, fits func(string) bool) string {
	s = Clean(s)
	n := sentenceEnd(s, 0)
	for n < len(s) {
		m := sentenceEnd(s, n)
		if !fits(s[:m]) {
			break
		}
		n = m
	}
	return s[:n]
}

// sentenceEnd is where the sentence ends that begins at or after from.
func sentenceEnd(s string, from int) int {
	for i := from + 1; i+1 < len(s); i++ {
		if s[i] == '.' && s[i+1] == ' ' && (i+2 == len(s) || !isLower(s[i+2])) {
			return i + 1
		}
	}
	return len(s)
}

func isLower(b byte) bool { return b >= 'a' && b <= 'z' }

// Table writes rows with columns as wide as their widest cell; the last one is open.
func Table(w io.Writer, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(c))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			if i < len(r)-1 {
				c = pad(c, widths[i]+2)
			}
			b.WriteString(c)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
