package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"jindan/analyze"
)

// suspects writes which steps of the catalogue are ruled out, and which cannot be judged
// from this input and what that would need.
func (r *text) suspects() {
	r.ruledOutSteps()
	r.blindSteps()
	var weak []string
	for _, s := range r.d.Steps {
		if s.Verdict == analyze.Suspected && !r.told(s) {
			weak = append(weak, r.stepTitle(s.Step)+": "+r.Text(s.Reason))
		}
	}
	label := r.pick("Suspected", "의심")
	for _, w := range weak {
		r.entry(label, bold, w, plain)
		label = ""
	}
}

// told reports whether a finding above has already said what a step says.
func (r *text) told(s analyze.StepVerdict) bool {
	for _, id := range s.Findings {
		if f := r.byID.of(id, ""); f != nil && f.Severity != "info" {
			return true
		}
	}
	return false
}

func (r *text) stepTitle(step string) string {
	if r.o.Catalogue != nil {
		if t := r.Text(r.o.Catalogue.StepTitle(step)); t != "" {
			return t
		}
	}
	return step
}

// qualityStep is told by the first lines of the report.
const qualityStep = "capture-quality"

func (r *text) ruledOutSteps() {
	var steps []analyze.StepVerdict
	for _, s := range r.d.Steps {
		if s.Verdict == analyze.RuledOut && (r.o.Verbose || s.Step != qualityStep) {
			steps = append(steps, s)
		}
	}
	if len(steps) == 0 {
		return
	}
	r.blank()
	label := r.pick("RULED OUT", "배제")
	n := min(r.ruledOut, len(steps))
	if len(steps)-n == 1 && n > 0 {
		n++ // one more line is no longer than its name alone
	}
	for _, s := range steps[:n] {
		line := r.stepTitle(s.Step) + ": " + r.Text(s.Reason)
		if !r.o.Verbose {
			line = clip(line, r.width-r.gutter)
		}
		r.entry(label, bold, line, plain)
		label = ""
	}
	if n < len(steps) {
		var names []string
		for _, s := range steps[n:] {
			names = append(names, r.stepTitle(s.Step))
		}
		also := ""
		if n > 0 {
			also = r.pick("also: ", "그 밖에: ")
		}
		r.entry(label, bold, r.list(also, names), plain)
	}
}

// blindSteps groups the steps that cannot be judged by what they would need.
func (r *text) blindSteps() {
	type group struct {
		need  string
		steps []string
	}
	var groups []group
	for _, s := range r.d.Steps {
		if s.Verdict != analyze.NotAssessable {
			continue
		}
		need := ""
		if r.o.Catalogue != nil {
			need = r.Text(r.o.Catalogue.Needs(s.Step))
		}
		if need == r.Text(inputNames["test"]) && !r.o.Verbose {
			continue // what to do next is such a test
		}
		title := r.stepTitle(s.Step)
		if r.o.Verbose || need == "" {
			reason := strings.TrimPrefix(r.Text(s.Reason), r.pick("Not judged: ", "판정 불가: "))
			need, title = "", title+": "+reason
		}
		i := slices.IndexFunc(groups, func(g group) bool { return need != "" && g.need == need })
		if i < 0 {
			groups = append(groups, group{need: need})
			i = len(groups) - 1
		}
		groups[i].steps = append(groups[i].steps, title)
	}
	if len(groups) == 0 {
		return
	}
	r.blank()
	label := r.pick("NOT JUDGED", "판정 불가")
	slices.SortStableFunc(groups, func(a, b group) int { return len(b.steps) - len(a.steps) })
	var few []string
	for _, g := range groups {
		switch {
		case g.need != "":
			r.entry(label, bold, r.list(fmt.Sprintf(r.pick("needs %s: ", "%s 필요: "), g.need), g.steps), plain)
		case r.o.Verbose:
			r.entry(label, bold, g.steps[0], plain)
		default:
			name, _, _ := strings.Cut(g.steps[0], ": ")
			few = append(few, name)
			continue
		}
		label = ""
	}
	if len(few) > 0 {
		r.entry(label, bold, r.list(r.pick("too little of it here: ", "이 입력에 표본 부족: "), few), plain)
	}
}

// list writes names after head, as many as fit on one line, and the number of the others.
func (r *text) list(head string, names []string) string {
	for n := len(names); n > 1; n-- {
		s := head + strings.Join(names[:n], ", ")
		if n < len(names) {
			s += fmt.Sprintf(r.pick(" and %d more", " 외 %d건"), len(names)-n)
		}
		if Width(s) <= r.width-r.gutter || r.o.Verbose {
			return s
		}
	}
	if len(names) == 1 {
		return head + names[0]
	}
	return head + names[0] + fmt.Sprintf(r.pick(" and %d more", " 외 %d건"), len(names)-1)
}

// next writes what to do: the commands of the first cause, then of the others. Where there are several causes the numbers are
// theirs, 2.1 is the first thing to do about cause 2, and each has its first before any has its second.
func (r *text) next(roots, others []*analyze.Finding) {
	shown, hidden := r.foremost(roots)
	fs := slices.Concat(shown, hidden, others)
	actions, all := make([][]string, len(fs)), map[string]bool{}
	for i, f := range fs {
		for _, t := range f.Next {
			if s := r.Text(t); s != "" && !all[s] {
				actions[i], all[s] = append(actions[i], s), true
			}
		}
	}
	if len(all) == 0 {
		return
	}
	left, taken := min(len(all), r.detail.next), make([]int, len(fs))
	for left > 0 {
		for i := range actions {
			for left > 0 && taken[i] < len(actions[i]) {
				taken[i]++
				left--
				if len(shown) > 1 {
					break
				}
			}
		}
	}
	r.blank()
	label, n := r.pick("DO NEXT", "다음 조치"), 0
	for i := range actions {
		for k, s := range actions[i][:taken[i]] {
			n++
			number := fmt.Sprintf("%d.", n)
			if len(shown) > 1 {
				number = "-"
				if i < len(shown) {
					number = fmt.Sprintf("%d.%d", i+1, k+1)
				}
			}
			r.row(label, bold, number, plain, len(number)+1, s)
			label = ""
		}
	}
	if n := len(all) - n; n > 0 {
		r.more(fmt.Sprintf(r.pick("%d more with -v", "-v로 %d건 더"), n), dim)
	}
}

// evidence lists every finding with frames and filters, for -v.
func (r *text) evidence(fs []*analyze.Finding) {
	if len(fs) == 0 {
		return
	}
	fs, byID := slices.Clone(fs), episodesOf(fs)
	slices.SortStableFunc(fs, func(a, b *analyze.Finding) int {
		first := func(f *analyze.Finding) int { // of those that begin together
			if f.Role == analyze.Root {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Onset, b.Onset), first(a)-first(b))
	})
	r.blank()
	r.lines = append(r.lines, r.style(bold, r.pick("EVIDENCE, every finding in the order of its first event", "증거: 모든 발견 사항(최초 발생 순)")))
	for _, f := range fs {
		r.blank()
		word, style := r.severity(f)
		r.entry(r.short(f.Onset), style, fmt.Sprintf("%s (%s, %s), %s", r.Text(f.Title), word, r.Role(f.Role), r.place(f.Subject)), bold)
		if !r.shown[f.ID] || f.Role != analyze.Root {
			r.more(r.Text(f.Summary), plain)
		}
		for _, id := range f.Because {
			if b := byID.of(id, f.Incident); b != nil {
				r.entry(r.pick("  because", "  원인"), dim, r.Text(b.Title), plain)
			}
		}
		r.entry("  id", dim, f.ID, plain)
		if f.Filter != "" {
			r.entry(r.pick("  wireshark", "  필터"), dim, f.Filter, cyan)
		}
		r.stages(f.Stages)
		for _, e := range f.Evidence {
			r.entry("  "+r.offset(e.At.Sub(f.Onset)), dim, r.evidenceLine(e), plain)
		}
	}
}

func (r *text) evidenceLine(e analyze.Evidence) string {
	var b strings.Builder
	if e.Flow != "" {
		b.WriteString(e.Flow)
	}
	if e.Note != "" {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(r.Note(e.Note))
	}
	if len(e.Frames) > 0 {
		frame := r.pick("frame", "프레임")
		if len(e.Frames) > 1 {
			frame = r.pick("frames", "프레임")
		}
		b.WriteString(" (" + frame)
		for i, n := range e.Frames {
			sep := ", "
			if i == 0 {
				sep = " "
			}
			fmt.Fprintf(&b, "%s%d", sep, n)
		}
		b.WriteByte(')')
	}
	return b.String()
}
