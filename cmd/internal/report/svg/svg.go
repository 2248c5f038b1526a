// Package svg draws pictures as lists of marks in a fixed coordinate system, with scales, ticks and texts that fit. A template writes
// them, so that no text of a capture can become an element.
package svg

import (
	"math"
	"strconv"
	"strings"
	"unicode"

	"jindan/analyze"
)

// Num is a coordinate. What is no number, or absurdly far out, is not drawn there but at the border of what a picture can hold.
type Num float64

// String is the coordinate with one decimal, which is finer than a pixel.
func (n Num) String() string {
	const far = 100_000
	f := float64(n)
	if math.IsNaN(f) {
		f = 0
	}
	f = max(min(f, far), -far)
	s := strconv.FormatFloat(f, 'f', 1, 64)
	s = strings.TrimSuffix(s, ".0")
	if s == "-0" {
		s = "0"
	}
	return s
}

// Kind of a mark.
type Kind uint8

// The kinds.
const (
	Line Kind = iota
	Rect
	Circle
	Path
	Text
)

// Mark is one shape or one text. Class says what it means; the style sheet gives it a look.
type Mark struct {
	Kind       Kind
	Class      string
	X, Y, W, H Num // of a Line: its ends X, Y and W, H; of a Circle: centre and radius W
	D          string
	Anchor     string // of a text: start, middle or end
	Text       analyze.Text
	Size       float64 // of a text, in pixels
}

// Same reports whether a text is the same in both languages.
func (m Mark) Same() bool { return m.Text.En == m.Text.Ko }

// Is reports whether the mark is of a kind; templates ask it.
func (m Mark) Is(k int) bool { return int(m.Kind) == k }

// Picture is a list of marks on a canvas.
type Picture struct {
	ID    string
	W, H  Num
	Marks []Mark
	// Left is how many marks the cap has turned away.
	Left int
}

// MaxMarks bounds the marks of a picture; a page of seven pictures stays below 15,000 elements.
const MaxMarks = 1800

func (p *Picture) add(m Mark) {
	if len(p.Marks) >= MaxMarks {
		p.Left++
		return
	}
	p.Marks = append(p.Marks, m)
}

// Line draws a line.
func (p *Picture) Line(class string, x1, y1, x2, y2 float64) {
	p.add(Mark{Kind: Line, Class: class, X: Num(x1), Y: Num(y1), W: Num(x2), H: Num(y2)})
}

// Rect draws a rectangle; one without a size is not drawn.
func (p *Picture) Rect(class string, x, y, w, h float64) {
	if w <= 0 || h <= 0 || math.IsNaN(w+h) {
		return
	}
	p.add(Mark{Kind: Rect, Class: class, X: Num(x), Y: Num(y), W: Num(w), H: Num(h)})
}

// Circle draws a circle.
func (p *Picture) Circle(class string, x, y, r float64) {
	p.add(Mark{Kind: Circle, Class: class, X: Num(x), Y: Num(y), W: Num(r)})
}

// Diamond draws a diamond.
func (p *Picture) Diamond(class string, x, y, r float64) {
	p.Poly(class, true, x, y-r, x+r, y, x, y+r, x-r, y)
}

// Cross draws a cross.
func (p *Picture) Cross(class string, x, y, r float64) {
	p.add(Mark{Kind: Path, Class: class, D: "M" + at(x-r, y-r) + "L" + at(x+r, y+r) + "M" + at(x-r, y+r) + "L" + at(x+r, y-r)})
}

// Arrow draws an arrow head that points to x, y from the left (dx 1) or the right (dx -1).
func (p *Picture) Arrow(class string, x, y, dx float64) {
	p.Poly(class, true, x, y, x-8*dx, y-4.5, x-8*dx, y+4.5)
}

// Poly draws a line through points, given as x and y in turn.
func (p *Picture) Poly(class string, closed bool, xy ...float64) {
	var b strings.Builder
	for i := 0; i+1 < len(xy); i += 2 {
		if i == 0 {
			b.WriteByte('M')
		} else {
			b.WriteByte('L')
		}
		b.WriteString(at(xy[i], xy[i+1]))
	}
	if closed {
		b.WriteByte('Z')
	}
	p.add(Mark{Kind: Path, Class: class, D: b.String()})
}

func at(x, y float64) string { return Num(x).String() + " " + Num(y).String() }

// Text sizes in pixels.
const (
	Normal = 13
	Small  = 11.5
)

// Text writes a text of a size; anchor is start, middle or end. It is cut to width, if that is not 0.
func (p *Picture) Text(class, anchor string, size, x, y, width float64, t analyze.Text) {
	if t.Ko == "" {
		t.Ko = t.En
	}
	if width > 0 {
		t = analyze.Text{En: Fit(t.En, width, size), Ko: Fit(t.Ko, width, size)}
	}
	if t.En == "" && t.Ko == "" {
		return
	}
	p.add(Mark{Kind: Text, Class: class, Anchor: anchor, X: Num(x), Y: Num(y), Size: size, Text: t})
}

// Width estimates how wide a text is, rather too wide: fonts differ from reader to reader.
func Width(s string, size float64) float64 {
	w := 0.0
	for _, r := range s {
		switch {
		case r >= 0x1100 && (unicode.Is(unicode.Hangul, r) || unicode.Is(unicode.Han, r) || r >= 0x3000):
			w++
		case strings.ContainsRune("il.,:;|!'()[] ", r):
			w += 0.36
		case strings.ContainsRune("mwMW%—", r):
			w += 0.95
		case unicode.IsUpper(r):
			w += 0.72
		default:
			w += 0.62
		}
	}
	return w * size
}

// Fit cuts a text to a width, with "…" at its end.
func Fit(s string, width, size float64) string {
	if Width(s, size) <= width {
		return s
	}
	runes := []rune(s)
	for n := len(runes) - 1; n > 0; n-- {
		if t := strings.TrimRight(string(runes[:n]), " ,.;:(") + "…"; Width(t, size) <= width {
			return t
		}
	}
	return "…"
}

// Scale maps values to coordinates.
type Scale struct {
	V0, V1 float64
	X0, X1 float64
	Log    bool
}

// At is the coordinate of a value, within the scale.
func (s Scale) At(v float64) float64 {
	v0, v1 := s.V0, s.V1
	if s.Log {
		v0, v1, v = math.Log10(v0), math.Log10(v1), math.Log10(max(v, 1e-300))
	}
	if v1 <= v0 || math.IsNaN(v) {
		return s.X0
	}
	f := max(0, min(1, (v-v0)/(v1-v0)))
	return s.X0 + f*(s.X1-s.X0)
}

// Ceil is the next number of the form 1, 2 or 5 times a power of ten, at least 1: the top of an axis that begins at zero.
func Ceil(v float64) float64 {
	if !(v > 1) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*p*(1+1e-9) {
			return m * p
		}
	}
	return v
}

// timeSteps are distances of ticks in seconds that people count in.
var timeSteps = []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600,
	7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000, 2592000, 7776000, 31536000, 63072000, 157680000}

// Ticks are times in seconds between from and to, at most n of them, zero among them if it lies between.
func Ticks(from, to float64, n int) (at []float64) {
	if !(to > from) || n < 1 {
		return nil
	}
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if (to-from)/s <= float64(n) {
			step = s
			break
		}
	}
	for (to-from)/step > float64(n) {
		step *= 2
	}
	for k := math.Ceil(from / step); k*step <= to*(1+1e-12) && len(at) <= n+1; k++ {
		at = append(at, k*step)
	}
	return at
}

// Shape draws a path of many parts as one mark; an empty one is not drawn.
func (p *Picture) Shape(class, d string) {
	if d != "" {
		p.add(Mark{Kind: Path, Class: class, D: d})
	}
}
