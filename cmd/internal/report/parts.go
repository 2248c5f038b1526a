package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
)

// atStart: what begins this soon after the first observation may have begun before it.
const atStart = 500 * time.Millisecond

// input writes what was read, how good it is, and which address is this host.
func (r *text) input() {
	c := &r.d.Coverage
	s := ""
	if c.Packets > 0 {
		s = fmt.Sprintf(r.pick(", %s in %s from %s", ", 패킷 %s개, %s (%s부터)"), r.packets(c.Packets),
			r.span(c.Last.Sub(c.First)), r.second(c.First))
	}
	names := r.files(false)
	if Width(names)+Width(s) > r.width-r.gutter {
		names = r.files(true)
	}
	r.entry(r.pick("Read", "입력"), bold, names+s, plain)
	s = r.quality()
	if c.Packets > 0 {
		s = fmt.Sprintf("%s, %s; %s; %s", r.plural(c.Connections, "connection", "connections", "연결 %s개"),
			r.plural(c.DNS, "DNS query", "DNS queries", "DNS 질의 %s건"), r.local(), s)
	}
	if c.Samples > 0 {
		s = r.plural(c.Samples, "sample", "samples", "표본 %s건") + r.pick(" of sockets and counters, ", "(소켓, 카운터), ") + s
	}
	r.more(s, plain)
	for _, n := range r.notes() {
		if !r.o.Verbose {
			n = clip(n, r.width-r.gutter)
		}
		r.entry(r.pick("  note", "  주의"), yellow, n, plain)
	}
	for _, sink := range sortedKeys(c.Undelivered) {
		n := r.plural(c.Undelivered[sink], "record", "records", "기록 %s건")
		r.entry(r.pick("  note", "  주의"), yellow, fmt.Sprintf(r.pick("%s not delivered to %s", "%s 미전달: %s"), n, sink), plain)
	}
}

func (r *text) packets(n uint64) string {
	if r.Lang == Korean {
		return count(n)
	}
	return r.plural(n, "packet", "packets", "")
}

// files names what was read, in short without the directories.
func (r *text) files(short bool) string {
	fs := r.in.Files
	name := func(i int) string {
		n := Clean(fs[i].Name)
		if i := strings.LastIndexAny(n, `/\\`); short && i > 0 {
			n = "…" + n[i:]
		}
		return n
	}
	switch len(fs) {
	case 0:
		return strings.Join(r.d.Coverage.Sources, ", ")
	case 1:
		return name(0)
	}
	s := name(0) + ", " + name(1)
	if len(fs) > 2 {
		s += ", …"
	}
	return fmt.Sprintf(r.pick("%d files (%s)", "파일 %d개(%s)"), len(fs), s)
}

func (r *text) local() string {
	c := &r.d.Coverage
	how := map[string]string{
		string(analyze.LocalByOption):    r.pick("by --local", "--local 지정"),
		string(analyze.LocalByPoints):    r.pick("the proxy between the points, inferred", "지점 사이의 프록시, 추정"),
		string(analyze.LocalByHost):      r.pick("its own address", "호스트 주소"),
		string(analyze.LocalByDirection): r.pick("as the capture marks it", "캡처의 방향 표시"),
		string(analyze.LocalByLink):      r.pick("by link-layer address", "링크 계층 주소로 판단"),
		string(analyze.LocalByCommon):    r.pick("common address", "공통 주소"),
	}[c.LocalBy]
	if c.Local == "" || how == "" {
		return r.pick("this host unknown (--local ADDR)", "이 호스트 미상(--local ADDR)")
	}
	// Of a host with many addresses these are enough to know it by.
	const most = 3
	names := c.Locals
	if len(names) == 0 {
		names = []string{c.Local}
	}
	all := strings.Join(names[:min(len(names), most)], ", ")
	if n := len(names) - most; n > 0 {
		all += fmt.Sprintf(r.pick(" and %d more", " 외 %d개"), n)
	}
	return fmt.Sprintf(r.pick("this host %s (%s)", "이 호스트 %s(%s)"), all, how)
}

// quality says in one phrase how far the capture can be trusted.
func (r *text) quality() string {
	c := &r.d.Coverage
	var bad []string
	add := func(n uint64, one, many, ko string) {
		if n > 0 {
			bad = append(bad, r.plural(n, one, many, ko))
		}
	}
	add(c.Copies, "copy", "copies", "중복 패킷 %s개")
	add(c.Lost["kernel_drop"], "packet dropped by the capture", "packets dropped by the capture", "캡처 중 버려진 패킷 %s개")
	add(c.Lost["engine_failure"], "gap: the analysis failed and began anew", "gaps: the analysis failed and began anew", "분석 오류로 다시 시작해 생긴 공백 %s회")
	add(c.CaptureLoss, "segment not captured", "segments not captured", "캡처되지 않은 세그먼트 %s개")
	add(c.OneWay, "connection one-way", "connections one-way", "한 방향만 보인 연결 %s개")
	add(c.MidStream, "connection begun before", "connections begun before", "시작 전에 열린 연결 %s개")
	if c.Captured != "" {
		bad = append(bad, r.captured(c.Captured))
	}
	var undecoded uint64
	var reasons []string
	for _, k := range sortedKeys(c.Lost) {
		if w := r.reason(k); w != "" {
			undecoded += c.Lost[k]
			reasons = append(reasons, fmt.Sprintf("%s %s", w, count(c.Lost[k])))
		}
	}
	if undecoded > 0 {
		bad = append(bad, fmt.Sprintf("%s (%s)", r.plural(undecoded, "packet not decodable", "packets not decodable", "해독 불가 %s개"), strings.Join(reasons, ", ")))
	}
	add(c.Late, "packet far out of order", "packets far out of order", "순서가 크게 뒤바뀐 패킷 %s개")
	add(c.ClockSteps, "step of the clock back", "steps of the clock back", "시계가 뒤로 간 횟수 %s번")
	add(c.Stray, "packet with a time far off", "packets with a time far off", "시각이 크게 벗어난 패킷 %s개")
	add(c.OutOfWindow, "segment with an impossible number", "segments with impossible numbers", "번호가 있을 수 없는 세그먼트 %s개")
	add(c.Evicted, "connection dropped from the full table", "connections dropped from the full table", "표가 가득 차 버린 연결 %s개")
	for _, k := range sortedKeys(c.Refused) {
		if k == "holes" && !r.o.Verbose {
			continue // gaps of one connection that were merged: nothing is lost by it
		}
		bad = append(bad, fmt.Sprintf(r.pick("limit reached: %s (%s)", "한도 도달: %s(%s)"), r.limit(k), count(c.Refused[k])))
	}
	if c.Packets == 0 {
		bad = append(bad, r.pick("no packets", "패킷 없음"))
	}
	if len(bad) == 0 {
		return r.pick("quality good", "품질 양호")
	}
	return strings.Join(bad, ", ")
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// reason names why a packet could not be decoded; empty for what is harmless or told elsewhere.
func (r *text) reason(k string) string {
	switch k {
	case "link_type":
		return r.pick("unknown link type", "알 수 없는 링크 종류")
	case "truncated":
		return r.pick("cut by the snap length", "스냅 길이로 잘림")
	case "malformed":
		return r.pick("malformed", "형식 오류")
	case "orphan_fragment":
		return r.pick("fragments without a first one", "첫 조각 없는 단편")
	case "nesting":
		return r.pick("nested too deep", "과도한 캡슐화")
	}
	return ""
}

// notes are what the user must know of the files before trusting the rest.
func (r *text) notes() []string {
	var ns []string
	if r.in.Part != "" {
		ns = append(ns, r.in.Part)
	}
	for _, a := range r.in.Strangers {
		ns = append(ns, fmt.Sprintf(r.pick("%s, given as this host, is nowhere in this input: what was judged is seen from a host that was not there.",
			"이 호스트로 지정한 %s 주소가 입력에 없습니다. 존재하지 않는 호스트의 관점에서 판정했습니다."), a))
	}
	for _, b := range r.in.Blind {
		ns = append(ns, fmt.Sprintf(r.pick("not seen: %s", "보지 못한 것: %s"), b))
	}
	for _, f := range r.in.Files {
		switch {
		case f.Unread:
			ns = append(ns, fmt.Sprintf(r.pick("%s could not be read at all.", "%s 파일은 전혀 읽지 못했습니다."), f.Name))
		case f.Damage != "":
			ns = append(ns, fmt.Sprintf(r.pick("%s is damaged: %s. Diagnosed up to there.", "%s 파일 손상: %s. 그 앞까지만 진단했습니다."), f.Name, strings.TrimSuffix(f.Damage, ".")))
		case f.Cut:
			ns = append(ns, fmt.Sprintf(r.pick("%s is cut short in its last packet (byte %s); complete up to there.",
				"%s 파일이 마지막 패킷(%s바이트 위치)에서 잘렸습니다. 그 앞까지는 온전합니다."), f.Name, count(uint64(f.CutOffset))))
		}
		if f.NoTime > 0 {
			ns = append(ns, fmt.Sprintf(r.pick("%s of %s carry no time; durations there mean nothing.", "%[2]s의 %[1]s에 시각이 없어 그 구간의 시간은 의미가 없습니다."),
				r.plural(f.NoTime, "packet", "packets", "패킷 %s개"), f.Name))
		}
	}
	if len(ns) > 3 && !r.o.Verbose {
		ns = append(ns[:2:2], fmt.Sprintf(r.pick("and %d more notes on files (-v lists them).", "파일 관련 주의 %d건 더(-v로 확인)."), len(ns)-2))
	}
	if r.in.Interrupted {
		ns = append(ns, r.pick("interrupted: this is the diagnosis of what was read so far.", "중단됨: 지금까지 읽은 부분의 진단입니다."))
	}
	return ns
}

// tests says in words why a root is held for one.
func (r *text) tests(tests []string) string {
	var out []string
	for _, t := range tests {
		kind, arg, _ := strings.Cut(t, ":")
		arg = strings.ReplaceAll(arg, "-", " ")
		switch kind {
		case "order":
			out = append(out, r.pick("nothing else began before it", "이보다 먼저 시작된 이상이 없음"))
		case "explains":
			out = append(out, fmt.Sprintf(r.pick("explains %s of the other findings", "다른 발견 사항 %s건을 설명함"), arg))
		case "identity":
			out = append(out, fmt.Sprintf(r.pick("shares its place with what followed (%s)", "뒤따른 현상과 위치가 같음(%s)"), arg))
		case "experiment":
			out = append(out, fmt.Sprintf(r.pick("natural experiment: %s", "자연 실험: %s"), arg))
		default:
			out = append(out, strings.ReplaceAll(t, "-", " "))
		}
	}
	return strings.Join(out, "; ")
}

// chainOf is what follows from a root, in the order of the first affected events, without what has
// been told with another root.
func (r *text) chainOf(root *analyze.Finding) (fs []*analyze.Finding) {
	for _, f := range r.byID.chainOf(r.d, root) {
		if key := f.ID + f.Incident; !r.shown[key] {
			fs = append(fs, f)
			r.shown[key] = true
		}
	}
	return fs
}

// chain names what follows from a root, in one paragraph.
func (r *text) chain(root *analyze.Finding) {
	var steps []string
	for _, f := range r.chainOf(root) {
		steps = append(steps, r.Text(f.Title)+" ("+r.offset(f.Onset.Sub(root.Onset))+")")
	}
	if len(steps) > 0 {
		r.entry(r.pick("  then", "  파급"), dim, strings.Join(steps, ", "), plain)
	}
}

// consequencesOf writes what follows from a root as a chain in time order.
func (r *text) consequencesOf(root *analyze.Finding) {
	fs := r.chainOf(root)
	if len(fs) == 0 {
		return
	}
	r.blank()
	label := r.pick("THEN", "파급 순서")
	for i, f := range fs {
		if i >= r.consequences {
			r.entry(label, bold, fmt.Sprintf(r.pick("and %d more: %s", "외 %d건: %s"), len(fs)-i, r.titles(fs[i:])), plain)
			break
		}
		r.finding(label, r.offset(f.Onset.Sub(root.Onset)), f)
		label = ""
	}
}

// finding writes one on a few lines, beside the time when it began.
func (r *text) finding(label, when string, f *analyze.Finding) {
	const whenWidth = 10
	w := r.width - r.gutter - whenWidth
	title := r.Text(f.Title)
	var body string
	switch r.words {
	case 1:
		body = clip(title+": "+r.Text(f.Summary), w)
	case 2:
		fits := func(s string) bool { return len(Wrap(title+": "+s, w)) <= 2 }
		body = clipLines(title+": "+sentences(r.Text(f.Summary), fits), w, 2)
	default:
		body = title + ": " + r.Text(f.Summary)
	}
	if f.State == analyze.Resolved && r.words > 1 {
		body += r.pick(" (over by the end)", " (끝나기 전 해소)")
	}
	r.row(label, bold, when, plain, whenWidth, body)
}

// captured says which part of the connections was captured; what stands in records is English.
func (r *text) captured(what string) string {
	var n, of int
	if _, err := fmt.Sscanf(what, "%d of %d connections", &n, &of); err == nil && r.Lang == Korean {
		return fmt.Sprintf("연결 %d개 중 %d개만 캡처", of, n)
	}
	return fmt.Sprintf(r.pick("captured: %s", "캡처 범위: %s"), what)
}

// limit names what was too much of: a key of Coverage.Refused.
func (r *text) limit(key string) string {
	what, rule, _ := strings.Cut(key, ":")
	words := map[string][2]string{
		"connections": {"connections followed", "추적하는 연결"},
		"paths":       {"paths followed", "추적하는 경로"},
		"holes":       {"gaps of one connection, merged", "합쳐진 누락 구간"},
		"dns":         {"DNS queries followed", "추적하는 DNS 질의"},
		"dns_streams": {"DNS connections followed", "추적하는 DNS 연결"},
		"subjects":    {"subjects of", "판정 대상:"},
		"findings":    {"findings of", "발견 사항:"},
		"rule_error":  {"rule that cannot be computed:", "계산할 수 없는 규칙:"},
		"text_error":  {"text that cannot be written:", "작성할 수 없는 문구:"},
	}
	w, ok := words[what]
	if !ok {
		return key
	}
	return strings.TrimSpace(r.pick(w[0], w[1]) + " " + rule)
}
