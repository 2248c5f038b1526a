package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// Screens by number.
const (
	Incident = iota + 1
	Listeners
	Peers
	Names
	Steps
	Events
)

// The smallest terminal that a frame fits.
const (
	MinWidth  = 60
	MinHeight = 16
)

// Frame is how a State is shown.
type Frame struct {
	Width, Height int
	Screen        int
	Lang          report.Lang
	UTF8          bool // bars and signs beyond ASCII
	Color         bool
	Zone          *time.Location
	Source        string // what is watched
	Filter        string
	Selected      int
	Open          bool // of the selected finding or step: its evidence
	Help          bool
	Frozen        bool
	Back          time.Duration // how long before the newest state; 0: it is the newest
	Gone          string        // why no newer state comes; empty: they come
	Note          string        // what the last key has done
	ByRate        bool          // tables in the order of rates, not of trouble
	Title         func(step string) analyze.Text
}

func (f *Frame) pick(en, ko string) string {
	if f.Lang == report.Korean {
		return ko
	}
	return en
}

func (f *Frame) text(t analyze.Text) string { return report.Clean(f.pick(t.En, t.Ko)) }

// Styles of the 16 colours of every terminal; its own background and foreground stay.
const (
	plain  = ""
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	dim    = "\x1b[2m"
	invert = "\x1b[7m"
)

func (f *Frame) style(style, s string) string {
	if !f.Color || style == plain { // words and signs say it, too
		return s
	}
	return style + s + "\x1b[0m"
}

// ascii replaces what texts have beyond ASCII, names and Korean aside, for locales without UTF-8.
var ascii = strings.NewReplacer("→", ">", "↔", "<>", "−", "-", "µ", "u", "…", "~", "≈", "~", "≤", "<=", "≥", ">=", "×", "x", "–", "-", "’", "'", "·", "-")

// line is one row of a frame before it is cut to the width.
type line struct {
	style string
	s     string
}

// fit cuts or fills s to w columns.
func fit(s string, w int) string {
	n := report.Width(s)
	if n <= w {
		return s + strings.Repeat(" ", w-n)
	}
	var b strings.Builder
	n = 0
	for _, r := range s {
		k := report.Width(string(r))
		if n+k > w-1 {
			break
		}
		b.WriteRune(r)
		n += k
	}
	return b.String() + "~" + strings.Repeat(" ", max(w-1-n, 0))
}

// String is the frame: Height lines of at most Width columns.
func (f *Frame) String(s *State) string {
	if f.Width < MinWidth || f.Height < MinHeight {
		return fmt.Sprintf(f.pick("needs %d x %d, has %d x %d", "%d x %d 필요, 현재 %d x %d"), MinWidth, MinHeight, f.Width, f.Height)
	}
	if f.Zone == nil {
		f.Zone = time.UTC
	}
	var lines []line
	lines = append(lines, f.head(s))
	switch {
	case f.Help:
		lines = append(lines, f.help()...)
	case s == nil:
		lines = append(lines, line{plain, f.pick("Nothing seen yet.", "아직 관측된 것이 없습니다.")})
	default:
		lines = append(lines, f.body(s)...)
	}
	for len(lines) < f.Height-1 {
		lines = append(lines, line{})
	}
	lines = append(lines[:f.Height-1], f.foot(s))
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		s := l.s
		if !f.UTF8 {
			s = ascii.Replace(s)
		}
		s = fit(s, f.Width)
		if l.style != invert || !f.Color {
			s = strings.TrimRight(s, " ")
		}
		b.WriteString(f.style(l.style, s))
	}
	return b.String()
}

var screens = [...]analyze.Text{{}, {En: "incident", Ko: "장애"}, {En: "listeners", Ko: "서비스"}, {En: "peers", Ko: "상대"}, {En: "DNS", Ko: "DNS"},
	{En: "steps", Ko: "항목"}, {En: "events", Ko: "기록"}}

func (f *Frame) head(s *State) line {
	var b strings.Builder
	b.WriteString("jindan ")
	for i := 1; i < len(screens); i++ {
		name := fmt.Sprintf("%d %s", i, f.text(screens[i]))
		if i == f.Screen {
			name = "[" + name + "]"
		} else {
			name = " " + name + " "
		}
		b.WriteString(name)
	}
	left := b.String()
	right := ""
	if s != nil {
		right = f.clock(s.At)
		if f.Back > 0 {
			right = fmt.Sprintf(f.pick("%.0f s ago ", "%.0f초 전 "), f.Back.Seconds()) + right
		} else if f.Frozen {
			right = f.pick("frozen ", "정지 ") + right
		}
	}
	if n := f.Width - report.Width(left) - report.Width(right); n > 0 {
		left += strings.Repeat(" ", n)
	}
	return line{invert, left + right}
}

func (f *Frame) clock(at capture.Instant) string { return at.Time().In(f.Zone).Format("15:04:05") }

// foot names the coverage always: what was seen, and what was not.
func (f *Frame) foot(s *State) line {
	if f.Note != "" {
		return line{invert, f.Note}
	}
	if f.Gone != "" {
		return line{invert, f.Gone}
	}
	if s == nil {
		return line{invert, f.Source}
	}
	c := &s.Coverage
	source := f.Source
	if s.Agent != "" {
		source = f.pick("agent on ", "에이전트 ") + report.Clean(s.Agent)
	}
	parts := []string{source, fmt.Sprintf(f.pick("%d packets", "패킷 %d개"), c.Packets), fmt.Sprintf(f.pick("%d samples", "표본 %d건"), c.Samples)}
	if n := c.Lost["kernel_drop"]; n > 0 {
		parts = append(parts, fmt.Sprintf(f.pick("%d dropped", "버림 %d개"), n))
	}
	if c.CaptureLoss > 0 {
		parts = append(parts, fmt.Sprintf(f.pick("%d not captured", "미캡처 %d개"), c.CaptureLoss))
	}
	if c.Captured != "" {
		parts = append(parts, c.Captured)
	}
	for _, b := range s.Blind {
		parts = append(parts, f.pick("cannot see ", "볼 수 없음: ")+report.Clean(b))
	}
	return line{invert, strings.Join(parts, ", ") + f.pick("  ? help", "  ? 도움말")}
}

func (f *Frame) body(s *State) []line {
	switch f.Screen {
	case Listeners:
		return f.listeners(s)
	case Peers:
		return f.peers(s)
	case Names:
		return f.names(s)
	case Steps:
		return f.steps(s)
	case Events:
		return f.events(s)
	}
	return f.incident(s)
}

func (f *Frame) matches(parts ...string) bool {
	return f.Filter == "" || strings.Contains(strings.ToLower(strings.Join(parts, " ")), strings.ToLower(f.Filter))
}

// signs of severities and verdicts, before any colour.
func (f *Frame) sign(severity string) (string, string) {
	switch severity {
	case "error":
		return "!!", red
	case "warn":
		return "! ", yellow
	}
	return "  ", plain
}

// Rows are the findings or steps of the screen that can be selected.
func (f *Frame) Rows(s *State) (fs []*analyze.Finding, steps []analyze.StepVerdict) {
	switch f.Screen {
	case Steps:
		for _, v := range []analyze.Verdict{analyze.Confirmed, analyze.IsConsequence, analyze.Suspected, analyze.RuledOut, analyze.NotAssessable} {
			for _, x := range s.Steps {
				if x.Verdict == v && f.matches(x.Step, f.text(x.Reason), f.stepTitle(x.Step)) {
					steps = append(steps, x)
				}
			}
		}
	case Events:
		fs = slices.Clone(s.Findings)
		slices.SortStableFunc(fs, func(a, b *analyze.Finding) int { return int(max(min(b.LastSeen-a.LastSeen, 1), -1)) })
	default:
		for _, x := range s.Findings {
			if x.Severity != "info" {
				fs = append(fs, x)
			}
		}
		slices.SortStableFunc(fs, func(a, b *analyze.Finding) int {
			// What may be the cause stands before what follows from others, however early that began.
			if d := rank(a) - rank(b); d != 0 {
				return d
			}
			return int(max(min(a.Onset-b.Onset, 1), -1))
		})
	}
	fs = slices.DeleteFunc(fs, func(x *analyze.Finding) bool {
		return !f.matches(f.text(x.Title), f.text(x.Summary), x.Rule, f.place(x))
	})
	return fs, steps
}

func (f *Frame) stepTitle(step string) string {
	if f.Title != nil {
		if t := f.text(f.Title(step)); t != "" {
			return t
		}
	}
	return step
}

func (f *Frame) place(x *analyze.Finding) string { return f.Lang.Place(x.Subject) }

// wrap adds a text in lines of the frame's width behind a label.
func (f *Frame) wrap(out []line, label, style, s string, most int) []line {
	const gutter = 10
	for i, t := range report.Wrap(s, f.Width-gutter-1) {
		if i == most {
			break
		}
		if i > 0 && report.Width(t) > f.Width-gutter { // a command: what is copied has no gutter in it
			rest := []rune(t)
			for n := 0; len(rest) > 0; rest, n = rest[n:], 0 {
				for n < len(rest) && report.Width(string(rest[:n+1])) <= f.Width {
					n++
				}
				out = append(out, line{style, string(rest[:n])})
			}
			continue
		}
		head := ""
		if i == 0 {
			head = label
		}
		out = append(out, line{style, fit(head, gutter) + t})
	}
	return out
}
