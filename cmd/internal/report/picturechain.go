package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
	"jindan/rules"
)

// Sizes that all pictures share: they are drawn for a column of this width and scroll in their own box where there is less.
const (
	picWidth  = 1000
	rowHeight = 36
)

// together: onsets that are no further apart than this have no order: two threads of a host, or two packets of one burst.
const together = time.Millisecond

// maxChainRows bounds the findings of the causal chain.
const maxChainRows = 16

// chain draws the root and what followed in the order of their onsets, with an elbow from each cause to its effect.
func (b *builder) chain(suffix string, root *analyze.Finding, after []*analyze.Finding) section {
	s := section{ID: "chain" + suffix, Name: analyze.Text{En: "Cause and consequences", Ko: "원인과 결과"}}
	rows := append([]*analyze.Finding{root}, after...)
	hidden := max(len(rows)-maxChainRows, 0)
	rows = rows[:len(rows)-hidden]
	last := 0.0
	for _, f := range rows {
		last = max(last, seconds(f.Onset, root.Onset))
	}
	switch {
	case len(after) == 0:
		s.Claim = texts("%s stands alone: no other finding followed from it.", "%s: 이것에서 뒤따른 다른 발견은 없습니다.", root.Title)
	default:
		s.Claim = texts("%s came first; %d findings followed within %s.", "%s 다음에 발견 사항 %d건이 %s 안에 뒤따랐습니다.",
			root.Title, len(after), both(func(l Lang) string { return l.span(time.Duration(last * 1e9)) }))
		if first := rows[1].Onset; first < root.Onset-capture.Instant(together) {
			s.Claim = texts("%s explains %d findings, the first of which showed %s before it did.", "%s: 발견 사항 %d건을 설명합니다. 그중 첫 건은 %s 먼저 드러났습니다.",
				root.Title, len(after), both(func(l Lang) string { return l.span(root.Onset.Sub(first)) }))
		}
		if root.Role != analyze.Root {
			s.Claim = texts("%s came first; %d more findings, not linked to one cause.", "%s 다음에 발견 사항 %d건. 하나의 원인으로 이어지지 않습니다.", root.Title, len(after))
		}
	}

	const left, right, top, labels = 300.0, 820.0, 44.0, 286.0
	h := top + float64(len(rows))*rowHeight + 34
	p := &svg.Picture{ID: s.ID, W: picWidth, H: svg.Num(h)}
	// What began with a sample began at any time since the sample before it.
	earliest, doubt := 0.0, false
	for _, f := range rows {
		if at, ok := b.v.Sampled[f.ID]; ok {
			earliest, doubt = min(earliest, seconds(at, root.Onset)), true
		}
	}
	lead := max(last*0.1, 0.2, min(-earliest*1.1, last+10))
	x := svg.Scale{V0: -lead, V1: max(last*1.2, 2), X0: left, X1: right}
	for _, t := range svg.Ticks(x.V0, x.V1, 8) {
		p.Line("grid", x.At(t), top-8, x.At(t), h-30)
		p.Text("muted", "middle", svg.Small, x.At(t), top-16, 0, tick(t))
	}
	p.Line("onset", x.At(0), top-8, x.At(0), h-30)
	// The time of the onset stands at its line, unless the left border is too near.
	p.Text("muted", "middle", svg.Small, max(x.At(0), left+70), h-12, 0,
		b.say(func(r *text) string {
			return r.pick("first affected event ", "첫 영향 시각 ") + r.short(root.Onset)
		}))
	for _, c := range b.v.Changes {
		if t := seconds(c.At, root.Onset); t >= x.V0 && t <= x.V1 {
			p.Poly("flag", true, x.At(t), top-10, x.At(t), top-2, x.At(t)+8, top-6)
		}
	}
	at := map[string]int{} // a cause may have its row below that of its effect: it began in the same moment
	for i, f := range rows {
		at[f.ID] = i
	}
	y := func(i int) float64 { return top + float64(i)*rowHeight + 12 }
	tied, loose := false, false
	s.Table.Head = []analyze.Text{{En: "finding", Ko: "발견"}, {En: "where", Ko: "위치"}, {En: "not before", Ko: "이보다 앞서지 않음"}, {En: "first affected event", Ko: "첫 영향 시각"},
		{En: "last seen", Ko: "마지막 관측"}, {En: "role", Ko: "역할"}, {En: "tests", Ko: "검증"}}
	for i, f := range rows {
		class, role := "effect", analyze.Text{En: "consequence", Ko: "결과"}
		switch f.Role {
		case analyze.Root:
			class, role = "bad", analyze.Text{En: "ROOT", Ko: "근본 원인"}
		case analyze.Independent:
			role = analyze.Text{En: "by itself", Ko: "독립"}
		case analyze.Pending:
			role = analyze.Text{En: "cause open", Ko: "원인 확인 중"}
		}
		p.Text("strong", "start", svg.Normal, 0, y(i)+1, labels, short(f.Title))
		p.Text("muted", "start", svg.Small, 0, y(i)+15, labels, b.say(func(r *text) string { return r.place(f.Subject) }))
		t, end := seconds(f.Onset, root.Onset), seconds(f.LastSeen, root.Onset)
		bar := "bar"
		if class == "bad" {
			bar = "bar hatched"
		}
		p.Rect(bar, x.At(t), y(i)-5, max(x.At(end)-x.At(t), 2), 10)
		if end > x.V1 {
			p.Arrow(class, right+6, y(i), 1)
		}
		first := f.Onset
		if at, ok := b.v.Sampled[f.ID]; ok {
			first = at
		}
		link, tests, proven := surest(f)
		if j, ok := at[link]; ok && j != i {
			// Which of two began first is not drawn where nobody can tell.
			elbow := "elbow"
			if !proven || first.Sub(rows[j].Onset) <= together {
				elbow, loose = "elbow loose", true
			}
			from := x.At(seconds(rows[j].Onset, root.Onset))
			to := x.At(t)
			// Where cause and effect begin at the same place of the picture, the elbow goes round on the left.
			turn := from
			if to-from < 14 || j > i {
				turn = min(from, to) - 12 - 3*math.Abs(float64(i-j))
				p.Poly(elbow, false, from-6, y(j), turn, y(j), turn, y(i), to-7, y(i))
			} else {
				p.Poly(elbow, false, from, y(j)+7, turn, y(i), to-7, y(i))
			}
			p.Arrow("elbow-head", to-6, y(i), 1)
		}
		if first != f.Onset {
			from := x.At(seconds(first, root.Onset))
			p.Line("whisker", from, y(i), x.At(t), y(i))
			p.Line("whisker", from, y(i)-5, from, y(i)+5)
		}
		if class == "bad" {
			p.Diamond(class, x.At(t), y(i), 7)
		} else {
			p.Circle(class, x.At(t), y(i), 5)
		}
		when := both(func(l Lang) string { return l.offset(f.Onset.Sub(root.Onset)) })
		// Rows are in the order of their onsets: what may have begun before the row above has no order with it.
		if i > 0 && first.Sub(rows[i-1].Onset) <= together {
			when, tied = analyze.Text{En: "unordered", Ko: "선후 불명"}, true
		}
		p.Text(class+"-text", "start", svg.Small, right+20, y(i), 158, role)
		if tests.En != "" {
			when = texts("%s, %s", "%s, %s", when, tests)
		}
		p.Text("muted", "start", svg.Small, right+20, y(i)+14, 158, when)
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{f.Title, b.place(f.Subject), b.say(func(r *text) string { return r.full(first) }),
			b.say(func(r *text) string { return r.full(f.Onset) }), b.say(func(r *text) string { return r.full(f.LastSeen) }), role, b.say(func(r *text) string { return r.tests(f.Confidence.Tests) })})
	}
	s.Picture = p
	s.Legend = []legend{{"bad", "◆", analyze.Text{En: "root: first affected event", Ko: "근본 원인: 첫 영향 시각"}},
		{"effect", "●", analyze.Text{En: "consequence; the bar lasts as long as it was seen", Ko: "결과. 막대는 관측된 기간"}}}
	if loose {
		s.Legend = append(s.Legend, legend{"elbow loose", "⇠", analyze.Text{En: "from a cause to its effect; which began first cannot be told", Ko: "원인에서 결과로. 어느 쪽이 먼저인지는 알 수 없음"}})
	}
	if doubt {
		s.Legend = append(s.Legend, legend{"whisker", "⊢", analyze.Text{En: "sampled: it began after the sample before, somewhere on this line",
			Ko: "표본 관측: 앞선 표본 뒤, 이 선 위 어딘가에서 시작"}})
	}
	if len(after) > 0 {
		s.Notes = append(s.Notes, analyze.Text{
			En: "An arrow leads from a cause to its effect. “2 of 3 tests”: of the tests of that arrow (order in time, same place, what else would be seen) two hold; the third could not be made from this input.",
			Ko: "화살표는 원인에서 결과로 갑니다. “검증 3건 중 2건”: 그 화살표의 검증(시간 순서, 같은 위치, 함께 보여야 할 것) 가운데 둘이 성립하고, 나머지는 이 입력으로 해 볼 수 없었습니다."})
	}
	if tied {
		s.Notes = append(s.Notes, analyze.Text{En: "Unordered: it began with the row above, within a millisecond or between the same samples. Nobody can tell which came first.",
			Ko: "선후 불명: 윗줄과 1ms 안에, 또는 같은 표본 사이에 시작했습니다. 어느 쪽이 먼저인지 알 수 없습니다."})
	}
	if len(b.v.Changes) > 0 {
		s.Legend = append(s.Legend, legend{"flag", "⚑", analyze.Text{En: "a change on the host", Ko: "호스트의 변경"}})
		for i, c := range b.v.Changes {
			if i == 6 {
				break
			}
			side := analyze.Text{En: "after", Ko: "뒤"}
			if c.At < root.Onset {
				side = analyze.Text{En: "before", Ko: "앞"}
			}
			s.Notes = append(s.Notes, texts("Change %[1]s the onset, %[2]s: %[3]s %[4]s", "시작 %[1]s의 변경, %[2]s: %[3]s %[4]s", side,
				both(func(l Lang) string { return l.offset(c.At.Sub(root.Onset)) }), c.Kind, c.What))
		}
	}
	if hidden > 0 {
		s.Notes = append(s.Notes, texts("%d more findings are in the list of evidence.", "%d건은 증거 목록에 있습니다.", hidden))
	}
	return s
}

// short is a title without what it says beside its name, which the line below it and the table tell.
func short(t analyze.Text) analyze.Text {
	en, _, _ := strings.Cut(t.En, ": ")
	ko, _, _ := strings.Cut(t.Ko, ": ")
	return analyze.Text{En: en, Ko: ko}
}

// surest is the cause of a finding whose link has passed most tests, how many of those that were tried, and whether order in time is
// among them; the others were not observable.
func surest(f *analyze.Finding) (cause string, tests analyze.Text, ordered bool) {
	most := -1
	for _, l := range f.Links {
		n, first := 0, false
		for _, t := range l.Tests {
			if t.Result == string(rules.Proven) {
				n++
				first = first || t.Test == "order"
			}
		}
		if n > most {
			cause, most, ordered = l.ID, n, first
			tests = texts("%d of %d tests", "검증 %[2]d건 중 %[1]d건", n, len(l.Tests))
		}
	}
	return cause, tests, ordered
}

// tick names a time on an axis.
func tick(t float64) analyze.Text {
	sign := ""
	switch {
	case t == 0:
		return analyze.Text{En: "0 s", Ko: "0초"}
	case t < 0:
		sign, t = "−", -t
	default:
		sign = "+"
	}
	switch {
	case t < 1:
		return texts("%s%g ms", "%s%gms", sign, round(t*1000))
	case t < 120:
		return texts("%s%g s", "%s%g초", sign, round(t))
	case t < 7200:
		return texts("%s%g min", "%s%g분", sign, round(t/60))
	case t < 172800:
		return texts("%s%g h", "%s%g시간", sign, round(t/3600))
	}
	return texts("%s%g d", "%s%g일", sign, round(t/86400))
}

func round(v float64) float64 {
	var r float64
	_, _ = fmt.Sscanf(fmt.Sprintf("%.4g", v), "%g", &r)
	return r
}
