package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/report"
)

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
		return append(out, line{}, line{green, fmt.Sprintf(f.pick("ok  no fault found; %d ruled out, %d not assessable so far",
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
