package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/analyze/points"
	"jindan/capture"
	"jindan/rules"
)

// Points draws the way through several capture points: what each segment between two of them lost and added, by direction.
func Points(r *points.Report, d *analyze.Diagnosis, set *rules.Set, o Options) string {
	o = o.withDefaults()
	p := drawing{page{width: o.Width, color: o.Color, gutter: 12}, o.Lang, r, d, set, 0}
	p.draw()
	p.lines = append(p.lines, "")
	for _, e := range r.Edges {
		p.heads = max(p.heads, Width(p.head(e))+2)
	}
	for i, way := range []string{p.pick("there →", "가는 방향 →"), p.pick("back ←", "오는 방향 ←")} {
		label := way
		for k := range len(r.Points) {
			for l := range len(r.Points) {
				if e := p.edge(k, l, i == 1); e != nil && (l == k+1 || e.In.All() >= few) {
					p.segment(label, e)
					label = ""
				}
			}
		}
	}
	p.rest()
	p.lines = append(p.lines, "")
	return p.String()
}

// few packets that went another way than from neighbour to neighbour are those of a capture that saw only a part of their connection.
const few = 20

// drawing is a text that is made of a comparison of points.
type drawing struct {
	page
	Lang
	r   *points.Report
	d   *analyze.Diagnosis
	set *rules.Set
	// heads is how wide the names of the segments are.
	heads int
}

func (p *drawing) head(e *points.Edge) string { return p.name(e.From) + " → " + p.name(e.To) }

// edge finds the segment between two points, in the order of the path or against it.
func (p *drawing) edge(k, l int, back bool) *points.Edge {
	if k >= l {
		return nil
	}
	if back {
		k, l = l, k
	}
	for _, e := range p.r.Edges {
		if e.From == k && e.To == l {
			return e
		}
	}
	return nil
}

// draw shows the points in a row, and marks what is between them.
func (p *drawing) draw() {
	var names, marks strings.Builder
	for i, x := range p.r.Points {
		names.WriteString(Clean(x.Name))
		marks.WriteString(strings.Repeat(" ", Width(Clean(x.Name))))
		if i+1 == len(p.r.Points) {
			break
		}
		there, back := p.edge(i, i+1, false), p.edge(i, i+1, true)
		line, mark := " ─────── ", ""
		switch {
		case there == nil && back == nil && p.border(i) != nil:
			line, mark = " ──╢╟── ", p.pick("proxy", "프록시")
		case there == nil && back == nil && slices.Contains(p.r.Apart, [2]int{i, i + 1}):
			line, mark = " ··?··· ", "?"
		case there == nil && back == nil: // packets go between them by way of other points
			line = " ─ ─ ─ ─ "
			mark = p.mark(p.r.Over(i, 0), "→") + p.mark(p.r.Over(i, 1), "←")
		default: // a capture may hold one direction only
			if there == nil {
				there = p.r.Over(i, 0)
			}
			if back == nil {
				back = p.r.Over(i, 1)
			}
			mark = p.mark(there, "→") + p.mark(back, "←")
		}
		names.WriteString(line)
		w := Width(line)
		left := max((w-Width(mark))/2, 0)
		marks.WriteString(strings.Repeat(" ", left) + mark + strings.Repeat(" ", max(w-left-Width(mark), 0)))
	}
	p.lines = append(p.lines, p.style(bold, p.pick("Path", "경로"))+strings.Repeat(" ", p.gutter-Width(p.pick("Path", "경로")))+names.String())
	p.lines = append(p.lines, strings.TrimRight(strings.Repeat(" ", p.gutter)+marks.String(), " "))
}

// mark is the verdict on a segment in a character: lost, cleared or not assessable.
func (p *drawing) mark(e *points.Edge, arrow string) string {
	if e == nil {
		return ""
	}
	switch v, _, _ := p.verdict(e); v {
	case analyze.Confirmed:
		return arrow + "✗"
	case analyze.RuledOut:
		return arrow + "✓"
	}
	return arrow + "?"
}

// verdict is what the rules say of a segment, and which one holds; else whether so much passed that a loss would have shown.
func (p *drawing) verdict(e *points.Edge) (v analyze.Verdict, rule string, f detect.Segment) {
	f = detect.SegmentOf(p.r, e)
	losses := []string{"segment-size-loss", "segment-loss"}
	for _, id := range losses {
		if _, holds, err := p.set.Rule(id).Eval(f); holds && err == nil {
			return analyze.Confirmed, id, f
		}
	}
	for _, x := range p.d.Findings {
		if x.Subject.Kind == analyze.SubjectSegment && x.Subject.Segment == f.From+" → "+f.To {
			return analyze.Confirmed, x.Rule, f
		}
	}
	for _, id := range losses {
		if ok, err := p.set.Rule(id).IsClear(f); !ok || err != nil {
			return analyze.NotAssessable, "", f
		}
	}
	return analyze.RuledOut, "", f
}

// segment tells what happened between two points, in one direction.
func (p *drawing) segment(label string, e *points.Edge) {
	verdict, rule, f := p.verdict(e)
	head := p.head(e)
	var style string
	var s string
	bound := p.percent(rules.AtMost(f.Lost, f.In))
	switch {
	case rule == "segment-size-loss":
		style = red
		s = fmt.Sprintf(p.pick("LOST %s of %s of %s bytes and more", "유실: %[3]s바이트 이상 %[2]s개 중 %[1]s개"), count(f.BigLost), count(f.BigIn), count(f.Cliff))
		if f.SinceIn < f.BigIn {
			s += fmt.Sprintf(p.pick(" (%s of %s since the onset)", "(시작 이후 %[2]s개 중 %[1]s개)"), count(f.SinceLost), count(f.SinceIn))
		}
		s += fmt.Sprintf(p.pick("; %s of %s smaller ones", ", 더 작은 %[2]s개 중 %[1]s개"), count(f.SmallLost), count(f.SmallIn))
	case rule == "segment-loss":
		style = red
		s = fmt.Sprintf(p.pick("LOST %s of %s packets", "유실: %[2]s개 중 %[1]s개"), count(f.Lost), count(f.In))
	case verdict == analyze.RuledOut || verdict == analyze.Confirmed:
		style = green
		s = fmt.Sprintf(p.pick("cleared: lost %s of %s, at most %s", "배제: %[2]s개 중 %[1]s개 유실, 많아야 %[3]s"), count(f.Lost), count(f.In), bound)
	default:
		style = yellow
		s = fmt.Sprintf(p.pick("not assessable: lost %s of %s", "판정 불가: %[2]s개 중 %[1]s개 유실"), count(f.Lost), count(f.In))
	}
	if f.Absent > 0 {
		s += fmt.Sprintf(p.pick(", %s not accounted for", ", %s개 확인 불가"), count(f.Absent))
	}
	if e.Delays.Known {
		bound := time.Duration(e.Delays.Bound * 1e9)
		s += fmt.Sprintf(p.pick("; adds %s (p99 %s, ±%s)", "; 지연 %s(p99 %s, ±%s)"), p.delay(e.Delays.Median), p.delay(e.Delays.P99), p.span(bound))
		if rose := e.Delays.MedianSince - e.Delays.MedianBefore; rose > 0 && rose > 2*e.Delays.Bound {
			s += fmt.Sprintf(p.pick(", %s before and %s since %s", ", 이전 %s, %[3]s부터 %[2]s"), p.delay(e.Delays.MedianBefore), p.delay(e.Delays.MedianSince),
				(e.Delays.RoseAt - p.r.Closer(e.From).Lead).Time().Format("15:04:05.000"))
		}
	}
	add := func(n uint64, en, ko string) {
		if n > 0 {
			s += "; " + fmt.Sprintf(p.pick(en, ko), count(n))
		}
	}
	add(e.Resets, "%s resets made here", "여기서 만들어진 RST %s개")
	add(e.Rejected, "%s refused by a reset", "RST로 거부된 패킷 %s개")
	add(e.Doubled, "%s packets doubled", "중복된 패킷 %s개")
	add(e.Reordered, "%s overtaken", "순서가 바뀐 패킷 %s개")
	add(e.Changed.MSS, "MSS changed in %s", "MSS 변경 %s건")
	add(e.Changed.WScale, "window scale removed in %s", "윈도 배율 제거 %s건")
	add(e.Changed.SACK, "SACK removed in %s", "SACK 제거 %s건")
	add(e.Changed.Stamps, "time stamps removed in %s", "타임스탬프 제거 %s건")
	add(e.Changed.Numbers, "sequence numbers rewritten in %s", "시퀀스 번호 변경 %s건")
	add(e.Changed.ECN, "ECN bits changed in %s", "ECN 비트 변경 %s건")
	p.row(label, bold, head, style, p.heads, s)
}

// rest says what is to be known of the points beside.
func (p *drawing) rest() {
	for _, b := range p.r.Borders {
		if b.Joined == 0 {
			p.entry(p.pick("Proxy", "프록시"), bold, fmt.Sprintf(p.pick("between %s and %s connections end and others begin: those behind are opened by whom those before are opened to (inferred).",
				"%s와 %s 사이에서 연결이 끝나고 새로 시작됩니다. 앞쪽 연결이 향하는 주소에서 뒤쪽 연결이 시작됩니다(추정)."), p.name(b.From), p.name(b.To)), plain)
			continue
		}
		p.entry(p.pick("Proxy", "프록시"), bold, fmt.Sprintf(p.pick("between %s and %s connections end and others begin: %s of %s joined by time and volume (inferred); the next one begins %s later (p99 %s) by the clocks of both.",
			"%s와 %s 사이에서 연결이 끝나고 새로 시작됩니다. %[4]s개 중 %[3]s개를 시각과 크기로 이었습니다(추정). 다음 연결은 양쪽 시계로 %[5]s 뒤에 시작됩니다(p99 %[6]s)."),
			p.name(b.From), p.name(b.To), count(b.Joined), count(b.Front), p.delay(b.Delay), p.delay(b.DelayP99)), plain)
	}
	for _, a := range p.r.Apart {
		p.entry(p.pick("Not compared", "비교 불가"), yellow, p.apart(a[0], a[1]), plain)
	}
	var captures, clocks []string
	for i := range p.r.At {
		a := &p.r.At[i]
		s := fmt.Sprintf(p.pick("%s %s packets", "%s 패킷 %s개"), p.name(i), count(a.Packets))
		s += p.covers(&p.r.Points[i])
		if a.Missed > 0 {
			s += fmt.Sprintf(p.pick(", missed %s of %s", ", %[2]s개 중 %[1]s개 누락"), count(a.Missed), count(a.Missed+a.Seen))
		}
		if a.Copies > 0 {
			s += fmt.Sprintf(p.pick(", %s twice", ", %s개는 두 번"), count(a.Copies))
		}
		switch p.r.Points[i].Lacks {
		case 1:
			s += p.pick(", only what servers send", ", 서버가 보낸 것만 있음")
		case 2:
			s += p.pick(", only what clients send", ", 클라이언트가 보낸 것만 있음")
		}
		if a.Answers.N() > 0 {
			s += fmt.Sprintf(p.pick(", answers %s (p99 %s)", ", 응답 %s(p99 %s)"), p.delay(a.Answers.Quantile(0.5)), p.delay(a.Answers.Quantile(0.99)))
		}
		captures = append(captures, s)
	}
	p.entry(p.pick("Captures", "캡처"), bold, strings.Join(captures, "; "), plain)
	for _, c := range p.r.Clocks {
		switch {
		case c.Stepped:
			clocks = append(clocks, fmt.Sprintf(p.pick("%s and %s were set during the capture: no one-way times", "%s와 %s의 시계가 캡처 중 조정됨: 편도 시간 없음"), p.name(c.From), p.name(c.To)))
		case c.Known:
			clocks = append(clocks, fmt.Sprintf(p.pick("%s %s ahead of %s (±%s)", "%[1]s 시계가 %[3]s보다 %[2]s 앞섬(±%[4]s)"), p.name(c.To), p.span(c.Offset), p.name(c.From), p.span(c.Bound)))
		default:
			clocks = append(clocks, fmt.Sprintf(p.pick("%s and %s not known: one direction only", "%s와 %s: 한 방향뿐이라 알 수 없음"), p.name(c.From), p.name(c.To)))
		}
	}
	if len(clocks) > 0 {
		p.entry(p.pick("Clocks", "시계"), bold, strings.Join(clocks, "; "), plain)
	}
	var closer []string
	for _, l := range p.r.Looks {
		closer = append(closer, p.name(l.Point))
	}
	below := p.pick("what %s shows by itself.", "%s 지점 하나만 본 진단입니다.")
	if len(closer) > 1 {
		below = p.pick("what %s show together: both sides of the proxy.", "%s 지점을 함께 본, 프록시 양쪽의 진단입니다.")
	}
	p.entry(p.pick("Below", "아래"), dim, fmt.Sprintf(below, strings.Join(closer, p.pick(" and ", ", "))), plain)
}

// covers says which part of the time of all captures one lacks.
func (p *drawing) covers(pt *points.Point) (s string) {
	const near = capture.Instant(time.Second)
	first, last := pt.First, pt.Until
	for i := range p.r.Points {
		if x := &p.r.Points[i]; x.Joined == pt.Joined {
			first, last = min(first, x.First), max(last, x.Until)
		}
	}
	if d := pt.First - first; d > near {
		s += fmt.Sprintf(p.pick(", begins %s late", ", %s 늦게 시작"), p.span(time.Duration(d)))
	}
	if d := last - pt.Until; d > near {
		s += fmt.Sprintf(p.pick(", ends %s early", ", %s 일찍 끝남"), p.span(time.Duration(d)))
	}
	return s
}

// apart says why two points could not be compared.
func (p *drawing) apart(i, k int) string {
	x, y := &p.r.Points[i], &p.r.Points[k]
	if p.r.At[i].Packets == 0 {
		return fmt.Sprintf(p.pick("%s holds no packet.", "%s에 패킷이 없습니다."), p.name(i))
	}
	if p.r.At[k].Packets == 0 {
		return fmt.Sprintf(p.pick("%s holds no packet.", "%s에 패킷이 없습니다."), p.name(k))
	}
	why := fmt.Sprintf(p.pick("%s and %s have no packet in common, and their connections cannot be joined: nothing is said of what lies between.",
		"%s와 %s에는 공통 패킷이 없고 연결도 이을 수 없어, 그 사이는 판정하지 않습니다."), p.name(i), p.name(k))
	if x.Last < y.First || y.Last < x.First {
		if y.Last < x.First {
			i, k, x, y = k, i, y, x
		}
		clock := func(at capture.Instant, shift time.Duration) string {
			return (at - capture.Instant(shift)).Time().Format("15:04:05.000")
		}
		why += fmt.Sprintf(p.pick(" They were not captured at the same time: %s ends at %s, %s begins at %s (UTC, by their own clocks).",
			" 같은 시간에 캡처되지 않았습니다. %s 캡처는 %s에 끝나고 %s 캡처는 %s에 시작합니다(UTC, 각자의 시계)."), p.name(i), clock(x.Last, x.Shift),
			p.name(k), clock(y.First, y.Shift))
	}
	return why
}

func (p *drawing) border(i int) *points.Border {
	k := slices.IndexFunc(p.r.Borders, func(b points.Border) bool { return b.From == i && b.To == i+1 })
	if k < 0 {
		return nil
	}
	return &p.r.Borders[k]
}

func (p *drawing) name(i int) string { return Clean(p.r.Points[i].Name) }

func (p *drawing) delay(s float64) string { return p.span(time.Duration(s * 1e9)) }

// percent writes a share with two significant digits.
func (p *drawing) percent(s float64) string { return fmt.Sprintf("%.2g", 100*s) + p.pick(" %", "%") }
