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
			if (a.Role == analyze.Root) != (b.Role == analyze.Root) {
				return rank(a) - rank(b)
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

func (f *Frame) incident(s *State) (out []line) {
	fs, _ := f.Rows(s)
	if len(fs) == 0 {
		n, blind := 0, 0
		for _, x := range s.Steps {
			switch x.Verdict {
			case analyze.RuledOut:
				n++
			case analyze.NotAssessable:
				blind++
			}
		}
		if c := &s.Coverage; n == 0 || c.Packets == 0 || len(s.Blind) > 0 { // what was not looked at may be ill
			return append(out, line{}, line{yellow, fmt.Sprintf(f.pick("?  nothing wrong seen, but too little to call it healthy; %d ruled out, %d not assessable",
				"?  이상은 보이지 않으나 정상이라고 하기에는 본 것이 적음. %d개 배제, %d개 판정 불가"), n, blind)})
		}
		return append(out, line{}, line{green, fmt.Sprintf(f.pick("ok  no fault found; %d suspects ruled out, %d not assessable so far",
			"정상  장애 징후 없음. 의심 항목 %d개 배제, %d개 아직 판정 불가"), n, blind)})
	}
	if f.Open {
		return f.evidence(fs[min(f.Selected, len(fs)-1)], s)
	}
	root := fs[0]
	sign, style := f.sign(root.Severity)
	word := f.pick("NO ROOT", "원인 미상")
	if root.Role == analyze.Root {
		word = f.pick("CAUSE", "원인")
	}
	if root.Role == analyze.Pending {
		word = f.pick("CAUSE OPEN", "원인 확인 중")
	}
	out = append(out, line{style, sign + word + "  " + f.text(root.Title)})
	out = f.wrap(out, f.pick("what", "무엇이"), plain, f.text(root.Summary), 3)
	out = f.wrap(out, f.pick("where", "어디서"), plain, f.place(root), 1)
	out = f.wrap(out, f.pick("since", "언제부터"), plain, fmt.Sprintf("%s, %s", f.clock(root.Onset), f.age(s.At.Sub(root.Onset))), 1)
	after := 0
	for _, x := range fs {
		if x.Role == analyze.Consequence {
			after++
		}
	}
	if len(root.MayFollow) > 0 {
		out = f.wrap(out, f.pick("may be", "후보"), plain, f.pick("itself, or what follows from ", "그 자체, 또는 다음의 결과: ")+strings.Join(root.MayFollow, ", "), 2)
	}
	out = f.wrap(out, f.pick("effects", "결과"), plain, fmt.Sprintf(f.pick("%d findings follow from it, %d stand by themselves", "뒤따른 발견 %d건, 별도 %d건"), after, len(fs)-1-after), 1)
	out = append(out, line{})
	for i, x := range fs {
		sign, style := f.sign(x.Severity)
		if x.State == analyze.Resolved {
			style, sign = dim, "ok"
		}
		mark := " "
		if i == f.Selected {
			mark = ">"
		}
		role := map[analyze.Role]string{analyze.Root: f.pick("root", "원인"), analyze.Consequence: f.pick("effect", "결과"), analyze.Pending: f.pick("open", "확인 중")}[x.Role]
		out = append(out, line{style, fmt.Sprintf("%s%s %s %s %s  %s", mark, sign, fit(f.offset(x.Onset.Sub(root.Onset)), 9), fit(role, 7), fit(f.text(x.Title), 28), f.place(x))})
	}
	return out
}

func (f *Frame) offset(d time.Duration) string {
	if d <= -5*time.Millisecond {
		return fmt.Sprintf("-%.2f s", -d.Seconds())
	}
	d = max(d, 0)
	return fmt.Sprintf("+%.2f s", d.Seconds())
}

func (f *Frame) age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf(f.pick("%.0f s ago", "%.0f초 전"), d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf(f.pick("%.0f min ago", "%.0f분 전"), d.Minutes())
	}
	return fmt.Sprintf(f.pick("%.0f h ago", "%.0f시간 전"), d.Hours())
}

func (f *Frame) evidence(x *analyze.Finding, s *State) (out []line) {
	sign, style := f.sign(x.Severity)
	out = append(out, line{style, sign + " " + f.text(x.Title)})
	out = f.wrap(out, f.pick("what", "무엇이"), plain, f.text(x.Summary), 5)
	out = f.wrap(out, f.pick("where", "어디서"), plain, f.place(x), 1)
	out = f.wrap(out, f.pick("since", "언제부터"), plain, f.clock(x.Onset)+", "+f.age(s.At.Sub(x.Onset)), 1)
	out = f.wrap(out, "wireshark", plain, report.Clean(x.Filter), 2)
	for _, e := range x.Evidence {
		out = f.wrap(out, f.offset(e.At.Sub(x.Onset)), plain, report.Clean(e.Flow+" "+f.Lang.Note(e.Note)), 2)
	}
	for _, n := range x.Next {
		out = f.wrap(out, f.pick("next", "조치"), plain, f.text(n), 3)
	}
	return out
}

// bar is how full something is, in eight columns.
func (f *Frame) bar(v, most float64) string {
	const w = 8
	full := " .:=#"
	if f.UTF8 {
		full = " ▁▂▃▄▅▆▇█"
	}
	levels := []rune(full)
	n := len(levels) - 1
	k := 0
	if most > 0 {
		k = int(max(min(v/most, 1), 0) * float64(w*n))
	}
	var b strings.Builder
	for range w {
		b.WriteRune(levels[max(min(k, n), 0)])
		k -= n
	}
	return b.String()
}

func (f *Frame) table(out []line, head string, rows []line) []line {
	if len(rows) == 0 {
		return append(out, line{}, line{plain, f.pick("  none seen", "  관측된 것 없음")})
	}
	return append(append(out, line{bold, head}), rows...)
}

func (f *Frame) listeners(s *State) []line {
	var rows []line
	list := slices.Clone(s.Listeners)
	if f.ByRate {
		slices.SortStableFunc(list, func(a, b Listener) int { return int(max(min((b.Rate-a.Rate)*1e6, 1), -1)) })
	}
	for _, l := range list {
		addr := fmt.Sprintf("%s:%d", l.Addr, l.Port)
		if !f.matches(addr) {
			continue
		}
		queue, wait, style := "-", fmt.Sprintf("%d?", l.Held), plain
		if l.Sampled {
			queue = fmt.Sprintf("%d/%d", l.Queue, l.Backlog)
			wait = fmt.Sprintf("%d+%d", l.Held, l.Unaccepted)
			if l.Backlog > 0 && l.Queue >= l.Backlog {
				style = red
			}
		}
		rows = append(rows, line{style, fmt.Sprintf("%s %7.1f %7.1f %7d %9s %s %9s", fit(addr, 24), l.Rate, l.Failed, l.Waiting, queue,
			f.bar(float64(l.Queue), float64(l.Backlog)), wait)})
	}
	return f.table(nil, fit(f.pick("listener", "서비스"), 24)+f.pick("  ans./s  fail/s waiting     queue          CLOSE_WAIT", "  응답/s  실패/s    대기    대기열          CLOSE_WAIT"), rows)
}

func (f *Frame) peers(s *State) []line {
	var rows []line
	loss := func(lost, of uint64) string {
		if of == 0 {
			return "       -"
		}
		return fmt.Sprintf("%d/%d", lost, of)
	}
	for _, p := range s.Peers {
		for i, w := range p.Ways {
			from, to := p.A, p.B
			if i == 1 {
				from, to = p.B, p.A
			}
			if !f.matches(from, to) {
				continue
			}
			style := plain
			if w.SmallLost+w.LargeLost > 0 {
				style = yellow
			}
			rows = append(rows, line{style, fmt.Sprintf("%s %14s %14s %s", fit(from+" > "+to, 36), loss(w.SmallLost, w.Small), loss(w.LargeLost, w.Large),
				f.bar(float64(w.SmallLost+w.LargeLost), float64(w.Small+w.Large)))})
		}
	}
	return f.table(nil, fit(f.pick("direction, last minute", "방향(최근 1분)"), 36)+f.pick("   lost, small    lost, large", "     작은 유실      큰 유실"), rows)
}

func (f *Frame) names(s *State) []line {
	var rows []line
	ms := func(d time.Duration) string {
		if d < 0 {
			return "-"
		}
		if d < 10*time.Millisecond {
			return fmt.Sprintf("%.1f ms", float64(d)/1e6)
		}
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	for _, r := range s.Resolvers {
		if !f.matches(r.Client, r.Server) {
			continue
		}
		style := plain
		if r.Unanswered > 0 {
			style = yellow
		}
		rows = append(rows, line{style, fmt.Sprintf("%s %6.1f %10s %10s %8d %7d", fit(r.Client+" > "+r.Server, 34), r.Rate, ms(r.P50), ms(r.P99), r.Unanswered, r.Again)})
	}
	return f.table(nil, fit(f.pick("resolver, last minute", "DNS 서버(최근 1분)"), 34)+f.pick("    q/s        p50        p99  unansw. retried", "   질의/s       p50        p99   무응답  재시도"), rows)
}

func (f *Frame) steps(s *State) (out []line) {
	_, steps := f.Rows(s)
	signs := map[analyze.Verdict]string{analyze.Confirmed: "!! ", analyze.IsConsequence: "!  ", analyze.Suspected: "?! ", analyze.RuledOut: "ok ", analyze.NotAssessable: "?  "}
	words := map[analyze.Verdict]string{analyze.Confirmed: f.pick("confirmed", "확인"), analyze.IsConsequence: f.pick("consequence", "결과"),
		analyze.Suspected: f.pick("suspected", "의심"), analyze.RuledOut: f.pick("ruled out", "배제"), analyze.NotAssessable: f.pick("not assessable", "판정 불가")}
	styles := map[analyze.Verdict]string{analyze.Confirmed: red, analyze.IsConsequence: yellow, analyze.RuledOut: green, analyze.NotAssessable: dim}
	for i, x := range steps {
		mark := " "
		if i == f.Selected {
			mark = ">"
		}
		out = append(out, line{styles[x.Verdict], mark + signs[x.Verdict] + fit(words[x.Verdict], 15) + fit(f.stepTitle(x.Step), 28) + " " + f.text(x.Reason)})
		if f.Open && i == f.Selected {
			out = f.wrap(out, "", plain, f.text(x.Reason), 6)
		}
	}
	// The selected one is in sight.
	if room := f.Height - 3; f.Selected > room {
		out = out[min(f.Selected-room, len(out)):]
	}
	return f.table(nil, f.pick("    verdict        step", "    판정           항목"), out)
}

func (f *Frame) events(s *State) (out []line) {
	fs, _ := f.Rows(s)
	if f.Open && len(fs) > 0 {
		return f.evidence(fs[min(f.Selected, len(fs)-1)], s)
	}
	for i, x := range fs {
		sign, style := f.sign(x.Severity)
		mark := " "
		if i == f.Selected {
			mark = ">"
		}
		state := string(x.State)
		if f.Lang == report.Korean {
			state = map[analyze.State]string{analyze.Open: "발생", analyze.Update: "지속", analyze.Resolved: "해소"}[x.State]
		}
		out = append(out, line{style, fmt.Sprintf("%s%s %s %s %s  %s", mark, sign, f.clock(x.Onset), fit(state, 8), fit(f.text(x.Title), 28), f.place(x))})
	}
	return f.table(nil, f.pick("    since    state    finding", "    시작     상태     발견"), out)
}

func (f *Frame) help() []line {
	out := []line{{}}
	for _, k := range [][3]string{
		{"1-6", "screens", "화면"}, {"up/down", "select", "선택"}, {"enter", "evidence of the selected one", "선택 항목의 증거"},
		{"/", "filter", "걸러 보기"}, {"s", "sort by trouble, or by rate", "정렬: 문제순, 빈도순"}, {"space", "freeze", "멈춤"},
		{"left/right", "back and forth through the last ten minutes", "최근 10분 앞뒤로"}, {"a", "acknowledge, through the agent", "에이전트에 확인 통보"},
		{"e", "explain the step", "항목 설명"}, {"w", "write the report page", "보고서 페이지 저장"}, {"y", "copy the Wireshark filter", "Wireshark 필터 복사"},
		{"l", "language", "언어"}, {"q", "quit", "종료"},
	} {
		out = append(out, line{plain, "  " + fit(k[0], 12) + f.pick(k[1], k[2])})
	}
	return out
}
