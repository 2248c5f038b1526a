package report

import (
	"fmt"
	"strings"

	"jindan/analyze"
)

// after is what follows from a root, in the order of the onsets.
func (b *builder) after(root *analyze.Finding) []*analyze.Finding {
	return b.en.byID.chainOf(b.d, root)
}

// firstSentence is the beginning of a text up to its first full stop.
func firstSentence(t analyze.Text) analyze.Text {
	cut := func(s string) string { return sentences(s, func(string) bool { return false }) }
	return analyze.Text{En: cut(t.En), Ko: cut(t.Ko)}
}

// incident is the part of the page on one cause. The first one's ids have no number: there is always one.
func (b *builder) incident(i int, root *analyze.Finding, after []*analyze.Finding) incident {
	suffix := ""
	if i > 0 {
		suffix = fmt.Sprintf("-%d", i+1)
	}
	x := incident{ID: "incident" + suffix, Heading: firstSentence(root.Summary)}
	effects := analyze.Text{En: "Root cause; nothing followed from it", Ko: "근본 원인. 뒤따른 현상 없음"}
	if len(after) > 0 {
		effects = texts("Root cause of %d findings", "발견 사항 %d건의 근본 원인", len(after))
	}
	x.Boxes = []box{
		{ID: "what" + suffix, Name: analyze.Text{En: "What", Ko: "무엇이"}, Answer: root.Title, Detail: b.level(root), Bad: true},
		{ID: "where" + suffix, Name: analyze.Text{En: "Where", Ko: "어디서"}, Answer: b.place(root.Subject), Detail: b.between(root.Subject)},
		{ID: "since" + suffix, Name: analyze.Text{En: "Since when", Ko: "언제부터"},
			Answer: b.say(func(r *text) string { return r.short(root.Onset) + " " + r.zoneAt(root.Onset) }),
			Detail: b.say(func(r *text) string { return r.day(root.Onset) + r.lasting(root) })},
		{ID: "cause" + suffix, Name: analyze.Text{En: "Cause or consequence", Ko: "원인인가 결과인가"}, Answer: effects, Detail: b.titles(after)},
	}
	x.Sections = b.pictures(suffix, root, after)
	return x
}

func (b *builder) titles(fs []*analyze.Finding) analyze.Text {
	const most = 5
	t := b.say(func(r *text) string { return r.titles(fs[:min(len(fs), most)]) })
	if n := len(fs) - most; n > 0 {
		t = texts("%s and %d more", "%s 외 %d건", t, n)
	}
	return t
}

// level says how bad a finding is.
func (b *builder) level(f *analyze.Finding) analyze.Text {
	return b.say(func(r *text) string {
		word, _ := r.severity(f)
		return word
	})
}

// between says of a path how much of it is meant.
func (b *builder) between(s analyze.Subject) analyze.Text {
	if s.Kind != analyze.SubjectPath || s.Peer == "" || !b.local(s.Host) {
		return analyze.Text{}
	}
	return analyze.Text{En: "somewhere between the two, their own ports included", Ko: "두 호스트의 포트를 포함한 그 사이 어딘가"}
}

// doubts are those about the verdict on a finding. The harm is what the picture of the service over time shows.
func (b *builder) doubts(f *analyze.Finding, pictures []section) (ds []doubt) {
	for _, s := range pictures {
		if s.ID == stripsID && s.Picture != nil {
			ds = append(ds, doubt{analyze.Text{En: "Harm", Ko: "피해"}, s.Claim})
		}
	}
	if level := f.Confidence.Level; level != "" {
		t := texts("confidence %s", "확신도 %s", analyze.Text{En: level, Ko: map[string]string{"high": "높음", "medium": "보통", "low": "낮음"}[level]})
		if why := b.say(func(r *text) string { return r.tests(f.Confidence.Tests) }); why.En != "" {
			t = texts("%s: %s", "%s: %s", t, why)
		}
		ds = append(ds, doubt{analyze.Text{En: "How sure", Ko: "확신도"}, t})
	}
	if len(f.Rivals) > 0 {
		ds = append(ds, doubt{analyze.Text{En: "Looks alike", Ko: "비슷한 원인"}, f.Rivals[0]})
	}
	for _, v := range []struct {
		verdict analyze.Verdict
		name    analyze.Text
	}{{analyze.RuledOut, analyze.Text{En: "Ruled out", Ko: "배제"}}, {analyze.NotAssessable, analyze.Text{En: "Not judged", Ko: "판정 불가"}}} {
		var en, ko []string
		for _, s := range b.d.Steps {
			if s.Verdict == v.verdict && s.Step != qualityStep {
				en, ko = append(en, b.en.stepTitle(s.Step)), append(ko, b.ko.stepTitle(s.Step))
			}
		}
		if len(en) > 0 {
			ds = append(ds, doubt{v.name, analyze.Text{En: strings.Join(en, ", "), Ko: strings.Join(ko, ", ")}})
		}
	}
	return ds
}

// rootless is the incident of findings without a cause.
func (b *builder) rootless(fs []*analyze.Finding) incident {
	first := fs[0]
	x := incident{ID: "incident", Heading: analyze.Text{En: "No single cause can be told from this input. First came: " + firstSentence(first.Summary).En,
		Ko: "이 입력만으로는 하나의 원인을 특정할 수 없습니다. 먼저 나타난 것: " + firstSentence(first.Summary).Ko}}
	x.Boxes = []box{
		{ID: "what", Name: analyze.Text{En: "What", Ko: "무엇이"}, Answer: b.titles(fs), Detail: b.level(first), Bad: true},
		{ID: "where", Name: analyze.Text{En: "Where", Ko: "어디서"}, Answer: b.place(first.Subject), Detail: b.between(first.Subject)},
		{ID: "since", Name: analyze.Text{En: "Since when", Ko: "언제부터"},
			Answer: b.say(func(r *text) string { return r.short(first.Onset) + " " + r.zoneAt(first.Onset) }),
			Detail: b.say(func(r *text) string { return r.day(first.Onset) + r.lasting(first) })},
		{ID: "cause", Name: analyze.Text{En: "Cause or consequence", Ko: "원인인가 결과인가"},
			Answer: analyze.Text{En: "Not to be told from this input", Ko: "이 입력으로 판정 불가"}},
	}
	x.Sections = b.pictures("", first, fs[1:])
	return x
}

// healthy is the page of a capture in which nothing was found.
func (b *builder) healthy(p *htmlPage) {
	c := &b.d.Coverage
	var out, blind int
	var ruled [2][]string
	for _, s := range b.d.Steps {
		switch s.Verdict {
		case analyze.RuledOut:
			out++
			ruled[0], ruled[1] = append(ruled[0], b.en.stepTitle(s.Step)), append(ruled[1], b.ko.stepTitle(s.Step))
		case analyze.NotAssessable:
			blind++
		}
	}
	unclear := out == 0 || c.Packets == 0 || len(b.in.Blind)+len(b.in.Strangers) > 0
	p.Healthy = !unclear
	switch {
	case c.Samples == 0 && (c.Packets == 0 || c.Connections+c.DNS == 0):
		p.Heading = analyze.Text{En: "Nothing to diagnose: no TCP connection and no DNS query in this input.", Ko: "이 입력에는 TCP 연결도 DNS 질의도 없습니다."}
	case unclear:
		p.Heading = texts("No fault found, but too little was seen to call it healthy: %s ruled out, %d not assessable.",
			"장애 징후가 없으나 정상이라고 하기에는 본 것이 적습니다. %s 배제, %d개 판정 불가.", suspects(out), blind)
	default:
		p.Heading = texts("No fault found: %s ruled out, %d not assessable from this input.",
			"장애 징후 없음. %s 배제, %d개는 이 입력으로 판정 불가.", suspects(out), blind)
	}
	var remarks analyze.Text
	for _, f := range b.d.Findings {
		if f.Rule == standstill {
			remarks = f.Summary
		}
	}
	none := analyze.Text{En: "Nothing above information", Ko: "정보 수준을 넘는 것 없음"}
	p.Boxes = []box{
		{ID: "what", Name: analyze.Text{En: "What", Ko: "무엇이"}, Answer: none, Detail: remarks},
		{ID: "where", Name: analyze.Text{En: "Where", Ko: "어디서"}, Answer: b.say(func(r *text) string { return r.local() }),
			Detail: b.say(func(r *text) string {
				return fmt.Sprintf("%s, %s", r.plural(c.Connections, "connection", "connections", "연결 %s개"), r.plural(c.DNS, "DNS query", "DNS queries", "DNS 질의 %s건"))
			})},
		{ID: "since", Name: analyze.Text{En: "Watched", Ko: "관찰 시간"}, Answer: b.say(func(r *text) string { return r.span(c.Last.Sub(c.First)) }),
			Detail: b.say(func(r *text) string { return r.second(c.First) })},
		{ID: "cause", Name: analyze.Text{En: "Ruled out", Ko: "배제"}, Answer: texts("%d suspects", "의심 항목 %d개", out),
			Detail: analyze.Text{En: strings.Join(ruled[0], ", "), Ko: strings.Join(ruled[1], ", ")}},
	}
	p.Sections = []section{b.strips("", nil, c.First)}
}

func suspects(n int) analyze.Text {
	in := func(l Lang) string { return l.plural(uint64(n), "suspect", "suspects", "의심 항목 %s개") }
	return analyze.Text{En: in(English), Ko: in(Korean)}
}
