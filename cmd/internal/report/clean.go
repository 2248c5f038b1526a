package report

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hostile reports whether r must not reach a terminal, a log or a person: names of files, hosts, processes and DNS come
// from strangers, and a control character (C0, DEL, C1), a line or paragraph separator or a mark that turns the text around
// (Unicode Bidi_Control) makes them say something else.
func Hostile(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// Clean makes s harmless to print: what is hostile becomes a question mark, white space single spaces.
func Clean(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.Map(func(r rune) rune {
		if Hostile(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// CleanCell is Clean for a table that a spreadsheet opens: a text that begins like a formula there gets an apostrophe before
// it, which spreadsheets take for "this is text" (OWASP, CSV Injection).
func CleanCell(s string) string {
	s = Clean(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

// CleanJSON is Clean for the texts in a JSON value, which it returns in the memory of b. White space in them stays as it is but for
// line breaks: a reader that decodes and prints them gets one line.
func CleanJSON(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == '\\' && i+1 < len(b):
			n, r := 2, rune(0)
			switch b[i+1] {
			case 'n', 'r', 't':
				r = ' '
			case 'b', 'f':
				r = '?'
			case 'u':
				if i+6 <= len(b) {
					n = 6
					if x, err := strconv.ParseUint(string(b[i+2:i+6]), 16, 16); err == nil && Hostile(rune(x)) {
						r = '?'
					}
				}
			}
			if r != 0 {
				out = append(out, byte(r))
			} else {
				out = append(out, b[i:i+n]...)
			}
			i += n
		case c < utf8.RuneSelf:
			if c == 0x7f {
				c = '?'
			}
			out = append(out, c) // a raw C0 is white space between values, nothing else is JSON
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if Hostile(r) {
				out = append(out, '?')
			} else {
				out = append(out, b[i:i+n]...)
			}
			i += n
		}
	}
	return out
}

// Encoder writes values as JSON, one a line, with harmless texts.
type Encoder struct {
	w   io.Writer
	b   lineBuffer
	enc *json.Encoder
}

type lineBuffer []byte

func (l *lineBuffer) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	return len(p), nil
}

// NewEncoder returns an Encoder to w.
func NewEncoder(w io.Writer) *Encoder {
	e := &Encoder{w: w}
	e.enc = json.NewEncoder(&e.b)
	e.enc.SetEscapeHTML(false)
	return e
}

// Encode writes v.
func (e *Encoder) Encode(v any) error {
	e.b = e.b[:0]
	if err := e.enc.Encode(v); err != nil {
		return err
	}
	_, err := e.w.Write(CleanJSON(e.b))
	return err
}
