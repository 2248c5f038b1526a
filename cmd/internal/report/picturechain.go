package report

import (
	"fmt"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/report/svg"
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
		if root.Role != analyze.Root {
			s.Claim = texts("%s came first; %d more findings, not linked to one cause.", "%s 다음에 발견 사항 %d건. 하나의 원인으로 이어지지 않습니다.", root.Title, len(after))
		}
	}

	const left, right, top, labels = 300.0, 820.0, 44.0, 286.0
	h := top + float64(len(rows))*rowHeight + 34
	p := &svg.Picture{ID: s.ID, W: picWidth, H: svg.Num(h)}
	lead := max(last*0.1, 0.2)
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
	at := map[string]int{}
	y := func(i int) float64 { return top + float64(i)*rowHeight + 12 }
	s.Table.Head = []analyze.Text{{En: "finding", Ko: "발견"}, {En: "where", Ko: "위치"}, {En: "first affected event", Ko: "첫 영향 시각"},
		{En: "last seen", Ko: "마지막 관측"}, {En: "role", Ko: "역할"}, {En: "tests", Ko: "검증"}}
	for i, f := range rows {
		at[f.ID] = i
		class, role := "effect", analyze.Text{En: "consequence", Ko: "결과"}
		switch f.Role {
		case analyze.Root:
			class, role = "bad", analyze.Text{En: "ROOT", Ko: "근본 원인"}
		case analyze.Independent:
			role = analyze.Text{En: "by itself", Ko: "독립"}
		case analyze.Pending:
			role = analyze.Text{En: "cause open", Ko: "원인 확인 중"}
		}
		p.Text("strong", "start", svg.Normal, 0, y(i)+1, labels, f.Title)
		p.Text("muted", "start", svg.Small, 0, y(i)+15, labels, b.place(f.Subject))
		t, end := seconds(f.Onset, root.Onset), seconds(f.LastSeen, root.Onset)
		bar := "bar"
		if class == "bad" {
			bar = "bar hatched"
		}
		p.Rect(bar, x.At(t), y(i)-5, max(x.At(end)-x.At(t), 2), 10)
		if end > x.V1 {
			p.Arrow(class, right+6, y(i), 1)
		}
		for _, cause := range f.Because {
			j, ok := at[cause]
			if !ok || j == i {
				continue
			}
			from := x.At(seconds(rows[j].Onset, root.Onset))
			to := x.At(t)
			// Where cause and effect begin at the same place of the picture, the elbow goes round on the left.
			turn := from
			if to-from < 14 {
				turn = min(from, to) - 12 - 3*float64(i-j)
				p.Poly("elbow", false, from-6, y(j), turn, y(j), turn, y(i), to-7, y(i))
			} else {
				p.Poly("elbow", false, from, y(j)+7, turn, y(i), to-7, y(i))
			}
			p.Arrow("elbow-head", to-6, y(i), 1)
			break
		}
		if class == "bad" {
			p.Diamond(class, x.At(t), y(i), 7)
		} else {
			p.Circle(class, x.At(t), y(i), 5)
		}
		when := both(func(l Lang) string { return l.offset(f.Onset.Sub(root.Onset)) })
		if d := f.Onset.Sub(root.Onset); i > 0 && d >= -together && d <= together {
			when = analyze.Text{En: "same moment", Ko: "같은 순간"}
		}
		p.Text(class+"-text", "start", svg.Small, right+20, y(i), 158, role)
		p.Text("muted", "start", svg.Small, right+20, y(i)+14, 158, texts("%s, %s", "%s, %s", when, testsOf(f)))
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{f.Title, b.place(f.Subject), b.say(func(r *text) string { return r.full(f.Onset) }),
			b.say(func(r *text) string { return r.full(f.LastSeen) }), role, b.say(func(r *text) string { return r.tests(f.Confidence.Tests) })})
	}
	s.Picture = p
	s.Legend = []legend{{"bad", "◆", analyze.Text{En: "root: first affected event", Ko: "근본 원인: 첫 영향 시각"}},
		{"effect", "●", analyze.Text{En: "consequence; the bar lasts as long as it was seen", Ko: "결과. 막대는 관측된 기간"}}}
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

func testsOf(f *analyze.Finding) analyze.Text {
	if len(f.Confidence.Tests) == 1 {
		return analyze.Text{En: "1 test", Ko: "검증 1건"}
	}
	return texts("%d tests", "검증 %d건", len(f.Confidence.Tests))
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
