package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
)

//go:embed page.css
var pageStyle string

//go:embed page.tmpl
var pageTemplate string

// pageParts writes a page. Every text of an input goes through it, and nothing else does.
var pageParts = template.Must(template.New("page").Funcs(template.FuncMap{
	"code": codeSpans, "inc": func(i int) int { return i + 1 }, "style": func() template.CSS { return template.CSS(pageStyle) },
}).Parse(pageTemplate))

const (
	// maxIncidents bounds the causes that are drawn; the others are listed.
	maxIncidents = 4
	// maxEvidence bounds the findings of the list of evidence.
	maxEvidence = 40
	// longest is how many characters of one text are shown.
	longest = 1200
)

// htmlPage is what the template sees.
type htmlPage struct {
	Lang      Lang
	Title     string
	Read      analyze.Text
	Quality   analyze.Text
	Notes     []analyze.Text
	Heading   analyze.Text
	Boxes     []box
	Healthy   bool
	List      []analyze.Text // of incidents, when there are several
	Incidents []incident
	More      []analyze.Text // causes that are not drawn
	Sections  []section      // of a healthy capture
	Steps     []stepRow
	Rivals    []analyze.Text
	First     analyze.Text // what to do first
	Doubts    []doubt
	Next      []analyze.Text
	NotYet    []analyze.Text
	Evidence  []evidenceRow
	Left      analyze.Text
	Made      analyze.Text
}

// incident is a cause with what follows from it.
type incident struct {
	ID       string
	Heading  analyze.Text
	Boxes    []box
	Sections []section
}

// box answers one of the four questions.
type box struct {
	ID     string
	Name   analyze.Text
	Answer analyze.Text
	Detail analyze.Text
	Bad    bool
}

// doubt says how far the fault and the verdict go: who is harmed, how sure it is, what fits nearly as well, what was excluded and what
// was not judged.
type doubt struct {
	Name, Text analyze.Text
}

// section is a picture with the claim that it proves, and its data as a table.
type section struct {
	ID      string
	Name    analyze.Text
	Claim   analyze.Text
	Picture *svg.Picture
	Without analyze.Text // why there is no picture
	Notes   []analyze.Text
	Filter  string
	Legend  []legend
	Table   table
}

type legend struct {
	Class string
	Shape string
	Text  analyze.Text
}

type table struct {
	Head []analyze.Text
	Rows [][]analyze.Text
}

type stepRow struct {
	Sign, Class     string
	Title, Verdict  analyze.Text
	Reason, Missing analyze.Text
}

type evidenceRow struct {
	Title, Place, When analyze.Text
	Role, Summary      analyze.Text
	Filter             string
	Lines              []string
}

// same is a text that needs no translation.
func same(s string) analyze.Text { return analyze.Text{En: s, Ko: s} }

// both writes a text in both languages.
func both(f func(Lang) string) analyze.Text { return analyze.Text{En: f(English), Ko: f(Korean)} }

// texts is both, formatted with the same arguments; an argument that is a text itself is put in in its language.
func texts(en, ko string, args ...any) analyze.Text {
	in := func(l Lang) []any {
		out := slices.Clone(args)
		for i, a := range out {
			if t, ok := a.(analyze.Text); ok {
				out[i] = l.pick(t.En, t.Ko)
			}
		}
		return out
	}
	return analyze.Text{En: fmt.Sprintf(en, in(English)...), Ko: fmt.Sprintf(ko, in(Korean)...)}
}

// HTML writes the diagnosis as one page for a browser: no script, no request, the same bytes for the same input. v may be nil: then
// the page has no picture that needs more than the findings.
func HTML(w io.Writer, in Input, d *analyze.Diagnosis, v *view.View, o Options) error {
	o = o.withDefaults()
	if v == nil {
		v = &view.View{Width: 1, Start: d.Coverage.First, First: d.Coverage.First, Last: d.Coverage.Last}
	}
	in, d, v = shown(in, d, v, visible)
	b := &builder{in: in, d: d, v: v, o: o, en: wordsOf(in, d, o, English), ko: wordsOf(in, d, o, Korean)}
	return pageParts.Execute(w, b.page())
}

// wordsOf is a text report that is not written: pages borrow its phrases.
func wordsOf(in Input, d *analyze.Diagnosis, o Options, l Lang) *text {
	o.Lang, o.Verbose = l, false
	r := &text{page: page{width: all, gutter: 12}, detail: details[0], Lang: l, clock: clock{o.Zone}, o: o, in: in, d: d,
		byID: episodesOf(d.Findings), shown: map[string]bool{}}
	return r
}

// builder makes the parts of a page.
type builder struct {
	in     Input
	d      *analyze.Diagnosis
	v      *view.View
	o      Options
	en, ko *text
}

// say is a phrase of the text report in both languages.
func (b *builder) say(f func(*text) string) analyze.Text {
	return analyze.Text{En: f(b.en), Ko: f(b.ko)}
}

func (b *builder) place(s analyze.Subject) analyze.Text {
	return b.say(func(r *text) string { return r.place(s, b.d.Coverage.Locals...) })
}

// local reports whether an address is this host's.
func (b *builder) local(addr string) bool {
	c := &b.d.Coverage
	return addr != "" && (addr == c.Local || slices.Contains(c.Locals, addr))
}

func (b *builder) page() *htmlPage {
	p := &htmlPage{Lang: b.o.Lang, Title: "jindan"}
	c := &b.d.Coverage
	p.Read = b.say(func(r *text) string {
		s := r.files(true)
		if c.Packets > 0 || c.Samples > 0 {
			s += fmt.Sprintf(r.pick(", %s to %s", ", %s ~ %s"), r.second(c.First), r.second(c.Last))
		}
		return s
	})
	p.Quality = b.say(func(r *text) string {
		return fmt.Sprintf("%s, %s, %s; %s; %s", r.plural(c.Packets, "packet", "packets", "패킷 %s개"),
			r.plural(c.Connections, "connection", "connections", "연결 %s개"), r.plural(c.DNS, "DNS query", "DNS queries", "DNS 질의 %s건"),
			r.local(), r.quality())
	})
	en, ko := b.en.notes(), b.ko.notes()
	for i := range en {
		p.Notes = append(p.Notes, analyze.Text{En: en[i], Ko: ko[i]})
	}
	roots, others := b.en.byID.rootsOf(b.d), b.en.others()
	told := roots // in the order of the page
	switch {
	case len(roots) > 0:
		b.en.roots = maxIncidents
		drawn, hidden := b.en.foremost(roots)
		// The one that explains most comes first, as the one to read.
		slices.SortStableFunc(drawn, func(x, y *analyze.Finding) int {
			return cmp.Or(cmp.Compare(len(b.after(y)), len(b.after(x))), cmp.Compare(x.Onset, y.Onset))
		})
		told = slices.Concat(drawn, hidden)
		for i, f := range drawn {
			p.Incidents = append(p.Incidents, b.incident(i, f, b.after(f)))
			if len(drawn)+len(hidden) > 1 {
				p.List = append(p.List, texts("%s: %s", "%s: %s", f.Title, b.place(f.Subject)))
			}
		}
		for _, f := range hidden {
			p.More = append(p.More, texts("%s: %s", "%s: %s", f.Title, b.place(f.Subject)))
		}
	case len(others) > 0:
		p.Incidents = append(p.Incidents, b.rootless(others))
	default:
		b.healthy(p)
	}
	if len(p.Incidents) > 0 {
		p.Heading, p.Boxes = p.Incidents[0].Heading, p.Incidents[0].Boxes
		p.Doubts = b.doubts(slices.Concat(told, others)[0], p.Incidents[0].Sections)
	}
	p.Steps = b.steps()
	for _, f := range told {
		p.Rivals = append(p.Rivals, f.Rivals...)
	}
	p.Rivals = p.Rivals[:min(len(p.Rivals), maxRivals)]
	p.Next, p.NotYet = b.next(slices.Concat(told, others))
	if len(p.Next) > 0 {
		p.First = p.Next[0]
	}
	p.Evidence = b.evidence()
	p.Made = b.made()
	if n := left(b.v); n != "" {
		p.Left = texts("Bounds of the pictures that were reached: %s.", "그림의 한도에 도달: %s.", n)
	}
	return p
}

func left(v *view.View) string {
	var s []string
	for _, k := range sortedKeys(v.Left) {
		s = append(s, fmt.Sprintf("%s %s", strings.ReplaceAll(k, "_", " "), count(v.Left[k])))
	}
	return strings.Join(s, ", ")
}

// made says by what the page was made and from what, so that it can be made again.
func (b *builder) made() analyze.Text {
	agent := "jindan"
	for _, f := range b.d.Findings {
		if f.Agent != "" {
			agent = f.Agent
			break
		}
	}
	s := texts("Made by %s from %s.", "%s(으)로 작성. 입력: %s.", agent, strings.Join(b.d.Coverage.Sources, ", "))
	if b.in.Digest != "" {
		s = texts("%s SHA-256 of the input: %s.", "%s 입력의 SHA-256: %s.", s, b.in.Digest)
	}
	if b.in.Rules != "" {
		s = texts("%s Rules: %s.", "%s 규칙: %s.", s, b.in.Rules)
	}
	return s
}

// pictures are the sections on one cause.
func (b *builder) pictures(suffix string, root *analyze.Finding, after []*analyze.Finding) []section {
	return []section{
		b.chain(suffix, root, after),
		b.where(suffix, root),
		b.sizes(suffix, root),
		b.strips(suffix, root, root.Onset),
		b.lens(suffix, root, after),
		b.stages(suffix, root, after),
	}
}

var verdicts = map[analyze.Verdict]struct {
	sign, class string
	word        analyze.Text
}{
	analyze.Confirmed:     {"◆", "confirmed", analyze.Text{En: "confirmed", Ko: "확인"}},
	analyze.IsConsequence: {"●", "consequence", analyze.Text{En: "consequence", Ko: "결과"}},
	analyze.Suspected:     {"◐", "suspected", analyze.Text{En: "suspected", Ko: "의심"}},
	analyze.RuledOut:      {"○", "ruled-out", analyze.Text{En: "ruled out", Ko: "배제"}},
	analyze.NotAssessable: {"?", "not-assessable", analyze.Text{En: "not assessable", Ko: "판정 불가"}},
}

// steps is every step of the catalogue: what was found first, what cannot be told last.
func (b *builder) steps() (rows []stepRow) {
	order := []analyze.Verdict{analyze.Confirmed, analyze.IsConsequence, analyze.Suspected, analyze.RuledOut, analyze.NotAssessable}
	for _, v := range order {
		for _, s := range b.d.Steps {
			if s.Verdict != v {
				continue
			}
			r := stepRow{Sign: verdicts[v].sign, Class: verdicts[v].class, Verdict: verdicts[v].word, Reason: s.Reason,
				Title: b.say(func(r *text) string { return r.stepTitle(s.Step) })}
			if v == analyze.NotAssessable && b.o.Catalogue != nil {
				if need := b.o.Catalogue.Needs(s.Step); need.En != "" {
					r.Missing = texts("needs %s", "%s 필요", need)
				}
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// maxRivals bounds the other explanations that a page names.
const maxRivals = 12

// next is what to do, the first cause's first; what is said not to be done yet stands by itself.
func (b *builder) next(fs []*analyze.Finding) (do, not []analyze.Text) {
	const most = 12
	var seen []string
	for _, f := range fs {
		for _, t := range f.Next {
			if t.En == "" || slices.Contains(seen, t.En) || len(seen) == most {
				continue
			}
			seen = append(seen, t.En)
			if low := strings.ToLower(t.En); strings.HasPrefix(low, "do not ") || strings.HasPrefix(low, "don't ") {
				not = append(not, t)
			} else {
				do = append(do, t)
			}
		}
	}
	return do, not
}

func (b *builder) evidence() (rows []evidenceRow) {
	fs := slices.Clone(b.d.Findings)
	slices.SortStableFunc(fs, func(x, y *analyze.Finding) int {
		return cmp.Or(cmp.Compare(x.Onset, y.Onset), cmp.Compare(x.ID, y.ID))
	})
	for _, f := range fs {
		if len(rows) == maxEvidence {
			break
		}
		r := evidenceRow{Title: f.Title, Place: b.place(f.Subject), Filter: f.Filter, When: b.say(func(r *text) string { return r.full(f.Onset) }),
			Role: b.say(func(r *text) string { return r.Role(f.Role) }), Summary: f.Summary}
		for _, e := range f.Evidence {
			r.Lines = append(r.Lines, fmt.Sprintf("%s  %s", b.en.offset(e.At.Sub(f.Onset)), b.en.evidenceLine(e)))
		}
		rows = append(rows, r)
	}
	return rows
}

// textPart is one part of a text: plain, or a command.
type textPart struct {
	Code bool
	Text string
}

// codeSpans cuts a text at its backticks.
func codeSpans(s string) (parts []textPart) {
	for i, p := range strings.Split(s, "`") {
		if p != "" {
			parts = append(parts, textPart{i%2 == 1, p})
		}
	}
	return parts
}

// seconds is the time of at in seconds after the onset.
func seconds(at, onset capture.Instant) float64 { return at.Sub(onset).Seconds() }
