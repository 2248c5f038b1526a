package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// text is a report being written.
type text struct {
	page
	detail
	Lang
	clock
	o     Options
	in    Input
	d     *analyze.Diagnosis
	byID  episodes
	past  []analyze.Incident // told in a line
	all   bool               // past are all incidents, those that are told in full among them
	shown map[string]bool    // findings already written
}

// newText writes the report in the given detail.
func newText(in Input, d *analyze.Diagnosis, o Options, dt detail) *text {
	everything := d.Findings
	d, over := past(d, o.Now)
	r := &text{page: page{width: o.Width, color: o.Color, gutter: 12}, detail: dt, Lang: o.Lang,
		clock: clock{o.Zone}, o: o, in: in, d: d, byID: episodesOf(d.Findings), past: over, shown: map[string]bool{}}
	r.input()
	roots := r.byID.rootsOf(d)
	others := r.others()
	if len(roots)+len(others) == 0 {
		r.healthy()
	} else {
		r.ended()
		r.causes(roots, others)
	}
	if !o.Summary && (o.Verbose || len(roots)+len(others) > 0) {
		r.suspects()
		r.next(roots, others)
	}
	r.over()
	if o.Verbose && !o.Summary {
		r.evidence(everything)
	}
	return r
}

// ended says that nothing is wrong any more at the end, where that is so.
func (r *text) ended() {
	n, last := 0, capture.Instant(0)
	for _, x := range r.d.Incidents {
		switch {
		case x.Severity == "info":
			continue
		case x.State != analyze.Resolved:
			return
		}
		n, last = n+1, max(last, x.End)
	}
	if n == 0 {
		return
	}
	s := r.plural(uint64(n), "incident, which was", "incidents, all", "장애 %s건 모두") + fmt.Sprintf(r.pick(" over at the end; last seen %s", " 끝났음. 마지막 관측 %s"), r.short(last))
	r.entry(r.pick("Over", "종료"), green, s, plain)
}

// others are the findings above info that are neither a root nor follow from one.
func (r *text) others() []*analyze.Finding {
	var fs []*analyze.Finding
	for _, f := range r.d.Findings {
		if f.Severity != "info" && !slices.Contains(r.d.Roots, f.ID) && f.Role != analyze.Consequence {
			fs = append(fs, f)
		}
	}
	slices.SortStableFunc(fs, func(a, b *analyze.Finding) int { return cmp.Compare(a.Onset, b.Onset) })
	return fs
}

// standstill is the rule of remarks on single connections that fared ill: nothing is called healthy without them.
const standstill = "standstill"

func (r *text) healthy() {
	c := &r.d.Coverage
	if c.Samples == 0 && (c.Packets == 0 || c.Connections+c.DNS == 0) {
		r.entry(r.pick("Nothing", "진단 불가"), yellow, r.pick("to diagnose: no TCP connection and no DNS query in this input.",
			"이 입력에는 TCP 연결도 DNS 질의도 없습니다."), plain)
		return
	}
	var info, out, blind int
	for _, f := range r.d.Findings {
		if f.Severity == "info" {
			info++
		}
	}
	for _, s := range r.d.Steps {
		switch s.Verdict {
		case analyze.RuledOut:
			out++
		case analyze.NotAssessable:
			blind++
		}
	}
	what := r.pick("no fault found", "장애 징후 없음")
	if n := len(r.past); n > 0 {
		what = r.plural(uint64(n), "incident is over and shows no more", "incidents are over and show no more", "장애 %s건은 끝났고 더 나타나지 않음")
	}
	s := what + r.pick("; ", ". ") + r.plural(uint64(out), "suspect", "suspects", "의심 항목 %s개") +
		fmt.Sprintf(r.pick(" ruled out, %d not assessable", " 배제, %d개는 이 입력으로 판정 불가"), blind)
	if info > 0 {
		s += ", " + r.plural(uint64(info), "remark", "remarks", "참고 사항 %s건")
	}
	if !r.o.Verbose {
		s += r.pick(" (-v lists them).", "(-v로 확인).")
	} else {
		s += "."
	}
	if out == 0 || c.Packets == 0 || len(r.in.Blind)+len(r.in.Strangers) > 0 { // what was not looked at may be ill
		r.entry(r.pick("Unclear", "판단 유보"), yellow, s, plain)
		return
	}
	r.entry(r.pick("Healthy", "정상"), green, s, plain)
	for _, f := range r.d.Findings {
		if f.Rule == standstill {
			r.entry(r.pick("Remark", "참고"), yellow, r.Text(f.Summary)+r.pick(" `jindan flows --explain` tells of each.", " `jindan flows --explain`이 하나씩 설명합니다."), plain)
		}
	}
}

// causes writes each root with what follows from it, then what stands by itself.
func (r *text) causes(roots, others []*analyze.Finding) {
	if len(roots) == 0 {
		r.blank()
		r.entry(r.pick("NO ROOT", "원인 미상"), yellow, r.pick(
			"No single cause can be told from this input; what was found stands below in the order of its first event.",
			"이 입력만으로는 하나의 원인을 특정할 수 없습니다. 발견 사항을 최초 발생 순서대로 적습니다."), bold)
	}
	shown, hidden := r.foremost(roots)
	for i, f := range shown {
		label := r.pick("CAUSE", "원인")
		if len(shown) > 1 {
			label = fmt.Sprintf("%s %d", label, i+1)
		}
		r.cause(label, f)
		if r.o.Summary {
			r.chain(f)
		} else {
			r.consequencesOf(f)
		}
	}
	if len(hidden) > 0 && len(r.past) == 0 && len(r.d.Incidents) > 1 {
		r.past, r.all = r.d.Incidents, true // a line for each tells more than their titles
	} else if len(hidden) > 0 {
		r.blank()
		r.entry(r.pick("And", "그 밖에"), plain, fmt.Sprintf(r.pick("%s (-v tells more): %s", "%s(-v로 확인): %s"),
			r.plural(uint64(len(hidden)), "more cause", "more causes", "원인 %s건 더"), r.titles(hidden)), plain)
	}
	if len(others) > 0 && !r.o.Summary {
		r.blank()
		label := r.pick("Also", "별도 발견")
		for i, f := range others {
			if i >= r.consequences {
				r.more(fmt.Sprintf(r.pick("and %d more: %s", "외 %d건: %s"), len(others)-i, r.titles(others[i:])), plain)
				break
			}
			when := r.short(f.Onset)
			r.finding(label, when[:len(when)-4], f)
			label = ""
		}
	}
}

// foremost picks the roots that are written in full, those with most consequences, in
// the order of their onsets.
func (r *text) foremost(roots []*analyze.Finding) (shown, hidden []*analyze.Finding) {
	weight := func(f *analyze.Finding) int {
		n := 0
		for _, g := range r.d.Findings {
			if g.Role == analyze.Consequence && r.byID.follows(g, f, 0) {
				n++
			}
		}
		return n
	}
	ranked := slices.Clone(roots)
	slices.SortStableFunc(ranked, func(a, b *analyze.Finding) int { return weight(b) - weight(a) })
	for _, f := range roots {
		if slices.Index(ranked, f) < r.roots {
			shown = append(shown, f)
		} else {
			hidden = append(hidden, f)
		}
	}
	return shown, hidden
}

func (r *text) titles(fs []*analyze.Finding) string {
	var ts []string
	for _, f := range fs {
		if t := r.Text(f.Title); !slices.Contains(ts, t) {
			ts = append(ts, t)
		}
	}
	return strings.Join(ts, "; ")
}

func (r *text) severity(f *analyze.Finding) (word, style string) {
	switch f.Severity {
	case "error":
		return r.Severity(f.Severity), red
	case "warn":
		return r.Severity(f.Severity), yellow
	}
	return r.Severity(f.Severity), dim
}

// cause writes one root in full.
func (r *text) cause(label string, f *analyze.Finding) {
	r.shown[f.ID] = true
	r.blank()
	word, style := r.severity(f)
	level := map[string]string{"high": r.pick("high", "높음"), "medium": r.pick("medium", "보통"), "low": r.pick("low", "낮음")}[f.Confidence.Level]
	if level != "" {
		word += r.pick(", confidence ", ", 확신도 ") + level
	}
	r.entry(label, style, r.Text(f.Title)+" ("+word+")", bold)
	r.entry(r.pick("  where", "  위치"), dim, r.place(f.Subject, r.d.Coverage.Locals...), plain)
	r.entry(r.pick("  since", "  시점"), dim, r.since(f), plain)
	r.entry(r.pick("  what", "  내용"), dim, r.Text(f.Summary), plain)
	if why := r.tests(f.Confidence.Tests); why != "" && r.lookAlikes > 0 {
		r.entry(r.pick("  why", "  근거"), dim, why, plain)
	}
	if r.o.Summary {
		return
	}
	label, others := r.pick("  rivals", "  다른 가설"), f.Rivals
	if len(others) == 0 && r.o.Catalogue != nil {
		label, others = r.pick("  unlike", "  유사 현상"), r.o.Catalogue.LookAlikes(f.Rule)
	}
	for i, t := range others {
		if i >= r.lookAlikes {
			break
		}
		r.entry(label, dim, r.Text(t), plain)
		label = ""
	}
}

// overAfter: what was not seen for this long before the end of the capture is not called lasting.
const overAfter = 5 * time.Second

// since says when a finding began, on the clock and in the capture, and whether it ended.
func (r *text) since(f *analyze.Finding) string { return r.full(f.Onset) + r.lasting(f) }

// lasting is since without the clock.
func (r *text) lasting(f *analyze.Finding) (s string) {
	c := &r.d.Coverage
	if into := f.Onset.Sub(c.First); into < atStart {
		s += r.pick(", when the capture began or earlier", ", 캡처 시작 시점 또는 그 이전")
	} else {
		s += fmt.Sprintf(r.pick(", %s into the capture", ", 캡처 시작 %s 뒤"), r.span(into))
	}
	if f.State == analyze.Resolved || c.Last.Sub(f.LastSeen) > overAfter {
		return s + fmt.Sprintf(r.pick("; last seen %s", ", 마지막 관측 %s"), r.short(min(f.LastSeen, c.Last)))
	}
	return s + r.pick("; still so at its end", ", 캡처 끝까지 지속")
}
