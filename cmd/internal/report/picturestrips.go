package report

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
)

// bandHeight is the height of a band with its gap, maxBars how many bars one has at most: wider than three pixels each.
const (
	bandHeight = 78
	maxBars    = 200
	// sampling is for how long a sample of the host speaks: they come every second, on a busy host some later.
	sampling = 2 * time.Second
)

// stripsID names the picture of the first cause.
const stripsID = "strips"

// strips draws what was counted over the time of the input as bands on one axis, with the onset through all of them.
func (b *builder) strips(suffix string, root *analyze.Finding, onset capture.Instant) section {
	s := section{ID: stripsID + suffix, Name: analyze.Text{En: "Over time", Ko: "시간에 따라"}}
	n := b.v.Buckets()
	if n == 0 {
		s.Claim = analyze.Text{En: "Nothing was observed over time.", Ko: "시간에 따라 관측된 것이 없습니다."}
		s.Without = analyze.Text{En: "No picture: the input holds no observation.", Ko: "입력에 관측이 없어 그림이 없습니다."}
		return s
	}
	w := &bands{builder: b, n: n, merge: (n + maxBars - 1) / maxBars, onset: onset, begin: b.v.Bucket(onset)}
	w.p = &svg.Picture{ID: s.ID, W: picWidth}
	w.x = svg.Scale{V0: seconds(b.v.Start, onset), V1: seconds(b.v.At(n), onset), X0: 200, X1: 985}

	service := b.busiest(root)
	w.requests(service)
	w.dns(b.resolver(root))
	w.progress(service)
	w.queue(service)
	w.closeWait(service)
	w.lost()
	w.resets()

	p := w.p
	p.H = svg.Num(w.y + 6)
	bands := p.Marks
	p.Marks = nil // the grid lies below everything
	for _, t := range svg.Ticks(w.x.V0, w.x.V1, 9) {
		label := tick(t)
		p.Text("muted", "middle", svg.Small, min(w.x.At(t), picWidth-svg.Width(label.Ko, svg.Small)/2-2), 14, 0, label)
		p.Line("grid", w.x.At(t), 22, w.x.At(t), w.y)
	}
	p.Marks = append(p.Marks, bands...)
	if root != nil {
		p.Line("onset", w.x.At(0), 20, w.x.At(0), w.y)
	}
	for _, c := range b.v.Changes {
		if t := seconds(c.At, onset); t >= w.x.V0 && t <= w.x.V1 {
			p.Poly("flag", true, w.x.At(t), 18, w.x.At(t), 26, w.x.At(t)+8, 22)
		}
	}
	s.Picture, s.Table, s.Legend = p, w.table, []legend{
		{"ok", "▮", analyze.Text{En: "answered", Ko: "응답"}},
		{"hatched", "▨", analyze.Text{En: "given up by the client; lost before it came here; CLOSE_WAIT not accepted", Ko: "클라이언트가 포기, 여기 오기 전 유실, 수락되지 않은 CLOSE_WAIT"}},
		{"crossed", "▩", analyze.Text{En: "lost after it left here", Ko: "여기를 지난 뒤 유실"}},
		{"dotted", "▒", analyze.Text{En: "connections that did not come about; SYN sent again", Ko: "성립하지 않은 연결, 재전송된 SYN"}},
		{"open", "▯", analyze.Text{En: "SYN-ACK sent again", Ko: "재전송된 SYN-ACK"}},
		{"bad", "✕", analyze.Text{En: "DNS query without an answer", Ko: "응답 없는 DNS 질의"}},
		{"onset", "¦", analyze.Text{En: "onset of the cause", Ko: "원인의 시작"}}}
	s.Notes = append(s.Notes, b.say(func(r *text) string {
		return fmt.Sprintf(r.pick("A bar or step is %s wide; levels show their highest value in it. Where nothing was measured nothing is drawn.",
			"막대 하나의 폭은 %s이며 수준은 그 안의 최댓값입니다. 측정이 없는 곳은 비워 둡니다."), r.span(time.Duration(b.v.Width)*time.Duration(w.merge)))
	}))
	s.Claim = w.claim(service, root)
	return s
}

// busiest is the service that a finding is about, or that of this host with most requests. What an upstream does not answer is felt in
// the service that calls it; where this host serves nobody, the upstream's own requests tell.
func (b *builder) busiest(root *analyze.Finding) *view.Service {
	match := func(f func(*view.Service) bool) *view.Service {
		for i := range b.v.Services {
			if f(&b.v.Services[i]) {
				return &b.v.Services[i]
			}
		}
		return nil
	}
	of := func(addr string) *view.Service {
		return match(func(s *view.Service) bool { return s.Addr == addr && s.Port == root.Subject.Port })
	}
	upstream := root != nil && root.Subject.Kind == analyze.SubjectUpstream
	if root != nil && root.Subject.Port != 0 && !upstream {
		if s := of(root.Subject.Host); s != nil {
			return s
		}
	}
	if s := match(func(s *view.Service) bool { return b.local(s.Addr) }); s != nil {
		return s
	}
	if upstream {
		if s := of(root.Subject.Peer); s != nil {
			return s
		}
	}
	return match(func(*view.Service) bool { return true })
}

// resolver is the one that a finding is about, or the one with most unanswered queries.
func (b *builder) resolver(root *analyze.Finding) *view.Resolver {
	var best *view.Resolver
	worst := uint64(0)
	for i := range b.v.Resolvers {
		r := &b.v.Resolvers[i]
		if root != nil && root.Subject.Peer != "" && r.Server == root.Subject.Peer && r.Client == root.Subject.Host {
			return r
		}
		if n := r.Unanswered.Sum(0, view.MaxBuckets); best == nil || n > worst {
			best, worst = r, n
		}
	}
	return best
}

// bands draws one band after the other.
type bands struct {
	*builder
	p     *svg.Picture
	x     svg.Scale
	y     float64 // lower end of the bands drawn so far
	n     int     // buckets
	merge int     // buckets to a bar
	onset capture.Instant
	begin int // bucket of the onset
	table table
}

// band begins a band and returns the coordinates of its top and its base line.
func (w *bands) band(name, detail analyze.Text) (top, base float64) {
	if w.y == 0 {
		w.y = 26
	}
	top, base = w.y+12, w.y+bandHeight-10
	w.y += bandHeight
	w.p.Text("strong", "start", svg.Normal, 0, top+12, 150, name)
	w.p.Text("muted", "start", svg.Small, 0, top+28, 158, detail)
	w.p.Line("axis", w.x.X0, base, w.x.X1, base)
	return top, base
}

// without says in a band why it is empty: no source is not zero.
func (w *bands) without(top, base float64, why analyze.Text) {
	w.p.Rect("nothing", w.x.X0, top, w.x.X1-w.x.X0, base-top)
	// Beside the line of the onset, where there is more room.
	x0, x1 := w.x.X0, w.x.X1
	if at := w.x.At(0); at > x0 && at < x1 {
		if at-x0 > x1-at {
			x1 = at
		} else {
			x0 = at
		}
	}
	w.p.Text("muted", "middle", svg.Small, (x0+x1)/2, (top+base)/2+4, x1-x0-20, why)
}

// scale writes the numbers of a vertical axis from zero.
func (w *bands) scale(top, base, most float64) svg.Scale {
	m := svg.Ceil(most)
	w.p.Text("muted", "end", svg.Small, w.x.X0-6, top+6, 0, same(count(uint64(m))))
	w.p.Text("muted", "end", svg.Small, w.x.X0-6, base+2, 0, same("0"))
	return svg.Scale{V0: 0, V1: m, X0: base, X1: top}
}

// at is the coordinate of the left border of bucket i.
func (w *bands) at(i int) float64 { return w.x.At(seconds(w.v.At(min(i, w.n)), w.onset)) }

// bars draws counts as bars that stand on one another, each of a class of its own.
func (w *bands) bars(top, base float64, counts []view.Count, classes []string) {
	most := 0.0
	sum := func(c view.Count, i int) float64 { return float64(c.Sum(i, min(i+w.merge, w.n))) }
	for i := 0; i < w.n; i += w.merge {
		h := 0.0
		for _, c := range counts {
			h += sum(c, i)
		}
		most = max(most, h)
	}
	y := w.scale(top, base, most)
	for k := range counts {
		var d strings.Builder
		for i := 0; i < w.n; i += w.merge {
			below := 0.0
			for _, c := range counts[:k] {
				below += sum(c, i)
			}
			v := sum(counts[k], i)
			if v == 0 {
				continue
			}
			x0, x1 := w.at(i), max(w.at(i+w.merge)-0.6, w.at(i)+0.8)
			y0, y1 := y.At(below), min(y.At(below+v), y.At(below)-0.7)
			fmt.Fprintf(&d, "M%s %sH%sV%sH%sZ", svg.Num(x0), svg.Num(y0), svg.Num(x1), svg.Num(y1), svg.Num(x0))
		}
		w.p.Shape(classes[k], d.String())
	}
}

// step draws a level as an area of steps, with a gap where nothing was measured.
func (w *bands) step(class string, y svg.Scale, l *view.Level, below *view.Level) {
	var d strings.Builder
	open := false
	var v uint32
	held := 0 // bars since the last measurement
	for i := 0; i < w.n; i += w.merge {
		now, seen := l.Peak(i, min(i+w.merge, w.n))
		if seen {
			v, held = now, 0
		} else if held++; open && time.Duration(held*w.merge)*time.Duration(w.v.Width) < sampling {
			seen = true // a sample stands for the time until the next one
		}
		if !seen {
			if open {
				fmt.Fprintf(&d, "V%sZ", svg.Num(y.X0))
			}
			open = false
			continue
		}
		h := float64(v)
		if below != nil {
			u, _ := below.Peak(max(i-held*w.merge, 0), min(i+w.merge, w.n))
			h += float64(u)
		}
		if !open {
			fmt.Fprintf(&d, "M%s %s", svg.Num(w.at(i)), svg.Num(y.X0))
		}
		fmt.Fprintf(&d, "V%sH%s", svg.Num(y.At(h)), svg.Num(w.at(i+w.merge)))
		open = true
	}
	if open {
		fmt.Fprintf(&d, "V%sZ", svg.Num(y.X0))
	}
	w.p.Shape(class, d.String())
}

// row adds a row to the table: what there was before the onset and since.
func (w *bands) row(name analyze.Text, before, since string) {
	if w.table.Head == nil {
		w.table.Head = []analyze.Text{{En: "what", Ko: "항목"}, {En: "before the onset", Ko: "시작 전"}, {En: "since", Ko: "이후"}}
	}
	w.table.Rows = append(w.table.Rows, []analyze.Text{name, same(before), same(since)})
}

func (w *bands) counted(name analyze.Text, c view.Count) {
	w.row(name, count(c.Sum(0, w.begin)), count(c.Sum(w.begin, w.n)))
}

func (w *bands) peaked(name analyze.Text, l *view.Level) {
	peak := func(i, j int) string {
		v, ok := l.Peak(i, j)
		if !ok {
			return "–"
		}
		return "≤ " + count(uint64(v))
	}
	w.row(name, peak(0, w.begin), peak(w.begin, w.n))
}

func endpoint(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + strconv.Itoa(int(port))
	}
	return addr + ":" + strconv.Itoa(int(port))
}

func (w *bands) requests(s *view.Service) {
	name := analyze.Text{En: "Requests", Ko: "요청"}
	if s == nil {
		top, base := w.band(name, analyze.Text{})
		w.without(top, base, analyze.Text{En: "no connection of a service in this input", Ko: "이 입력에 서비스 연결이 없음"})
		return
	}
	top, base := w.band(name, same(endpoint(s.Addr, s.Port)))
	w.bars(top, base, []view.Count{s.Answered, s.GaveUp, s.Unopened}, []string{"fill ok", "fill hatched", "fill dotted"})
	w.counted(analyze.Text{En: "requests answered", Ko: "응답한 요청"}, s.Answered)
	w.counted(analyze.Text{En: "requests given up by the client", Ko: "클라이언트가 포기한 요청"}, s.GaveUp)
	w.counted(analyze.Text{En: "connections that did not come about", Ko: "성립하지 않은 연결"}, s.Unopened)
}

func (w *bands) dns(r *view.Resolver) {
	name := analyze.Text{En: "DNS answer time", Ko: "DNS 응답 시간"}
	if r == nil {
		top, base := w.band(name, analyze.Text{})
		w.without(top, base, analyze.Text{En: "no DNS query in this input", Ko: "이 입력에 DNS 질의가 없음"})
		return
	}
	top, base := w.band(name, same(r.Server))
	lane := top + 5 // of the queries without an answer: they have no latency
	y := svg.Scale{V0: 0, V1: view.LatencySteps, X0: base, X1: top + 14}
	for _, mark := range []time.Duration{time.Millisecond, time.Second} {
		yy := y.At(float64(view.LatencyStep(mark)))
		w.p.Line("grid", w.x.X0, yy, w.x.X1, yy)
		w.p.Text("muted", "end", svg.Small, w.x.X0-6, yy+4, 0, both(func(l Lang) string {
			if mark < time.Second {
				return "1" + l.pick(" ms", "ms")
			}
			return "1" + l.pick(" s", "초")
		}))
	}
	var dots, crosses strings.Builder
	for i := 0; i < w.n; i += w.merge {
		end := min(i+w.merge, w.n)
		x := (w.at(i) + w.at(end)) / 2
		for step := range view.LatencySteps {
			n := uint32(0)
			for j := i; j < end && j < len(r.Latency); j++ {
				n += uint32(r.Latency[j][step])
			}
			if n > 0 {
				fmt.Fprintf(&dots, "M%s %sh0", svg.Num(x), svg.Num(y.At(float64(step))))
			}
		}
		if r.Unanswered.Sum(i, end) > 0 {
			const k = 2.4
			fmt.Fprintf(&crosses, "M%s %sl%g %gm0 %gl%g %g", svg.Num(x-k), svg.Num(lane-k), 2*k, 2*k, -2*k, -2*k, 2*k)
		}
	}
	w.p.Shape("dots", dots.String())
	w.p.Shape("cross", crosses.String())
	w.counted(analyze.Text{En: "DNS queries answered", Ko: "응답받은 DNS 질의"}, r.Answered)
	w.counted(analyze.Text{En: "DNS queries never answered", Ko: "응답 없는 DNS 질의"}, r.Unanswered)
}

func (w *bands) progress(s *view.Service) {
	name := analyze.Text{En: "Waiting requests", Ko: "대기 중인 요청"}
	if s == nil || s.Open.Max == nil {
		top, base := w.band(name, analyze.Text{})
		w.without(top, base, analyze.Text{En: "no request in this input", Ko: "이 입력에 요청이 없음"})
		return
	}
	top, base := w.band(name, analyze.Text{En: "the client still waits", Ko: "클라이언트가 응답 대기 중"})
	most, _ := s.Open.Peak(0, w.n)
	w.step("area", w.scale(top, base, float64(most)), &s.Open, nil)
	w.peaked(analyze.Text{En: "requests that wait for their answer", Ko: "응답을 기다리는 요청"}, &s.Open)
}

// listener is that of a service, or the one of which most connections wait.
func (w *bands) listener(s *view.Service) *view.Listener {
	for i := range w.v.Listeners {
		if s != nil && w.v.Listeners[i].Port == s.Port && w.local(s.Addr) {
			return &w.v.Listeners[i]
		}
	}
	if len(w.v.Listeners) > 0 && (s == nil || !w.local(s.Addr)) {
		return &w.v.Listeners[0]
	}
	return nil
}

func (w *bands) queue(s *view.Service) {
	name := analyze.Text{En: "Accept queue", Ko: "accept 대기열"}
	l := w.listener(s)
	if l == nil || l.Queue.Max == nil {
		top, base := w.band(name, analyze.Text{})
		w.without(top, base, analyze.Text{En: "needs the host's sockets: a recording, or the agent", Ko: "호스트의 소켓 필요: 기록 또는 에이전트"})
		return
	}
	top, base := w.band(name, texts("port %d, backlog %s", "포트 %d, backlog %s", l.Port, count(l.Backlog)))
	most, _ := l.Queue.Peak(0, w.n)
	y := w.scale(top, base, float64(max(most, l.Backlog)))
	w.step("area", y, &l.Queue, nil)
	if l.Backlog > 0 {
		w.p.Line("limit", w.x.X0, y.At(float64(l.Backlog)), w.x.X1, y.At(float64(l.Backlog)))
	}
	w.peaked(texts("connections that wait to be accepted (backlog %s)", "accept 대기 연결(backlog %s)", count(l.Backlog)), &l.Queue)
}

func (w *bands) closeWait(s *view.Service) {
	name := same("CLOSE_WAIT")
	if l := w.listener(s); l != nil && l.Held.Max != nil {
		top, base := w.band(name, texts("port %d", "포트 %d", l.Port))
		most := uint32(0)
		for i := range w.n {
			a, _ := l.Held.Peak(i, i+1)
			c, _ := l.Unaccepted.Peak(i, i+1)
			most = max(most, a+c)
		}
		y := w.scale(top, base, float64(most))
		w.step("fill hatched", y, &l.Unaccepted, &l.Held)
		w.step("area", y, &l.Held, nil)
		w.peaked(analyze.Text{En: "CLOSE_WAIT held by a process", Ko: "프로세스가 쥔 CLOSE_WAIT"}, &l.Held)
		w.peaked(analyze.Text{En: "CLOSE_WAIT not accepted", Ko: "수락되지 않은 CLOSE_WAIT"}, &l.Unaccepted)
		return
	}
	if s == nil || s.Open.Max == nil && s.Half.Max == nil {
		top, base := w.band(name, analyze.Text{})
		w.without(top, base, analyze.Text{En: "no connection of a service in this input", Ko: "이 입력에 서비스 연결이 없음"})
		return
	}
	top, base := w.band(name, analyze.Text{En: "inferred from packets", Ko: "패킷으로 추정"})
	most, seen := s.Half.Peak(0, w.n)
	if !seen {
		w.without(top, base, texts("none: no client of %s closed before the server", "없음: %s의 어떤 클라이언트도 서버보다 먼저 닫지 않음", endpoint(s.Addr, s.Port)))
		return
	}
	w.step("area", w.scale(top, base, float64(most)), &s.Half, nil)
	w.peaked(analyze.Text{En: "connections in CLOSE_WAIT, inferred", Ko: "CLOSE_WAIT 연결(추정)"}, &s.Half)
}

func (w *bands) lost() {
	top, base := w.band(analyze.Text{En: "Sent again", Ko: "재전송"}, analyze.Text{En: "data, SYN, SYN-ACK", Ko: "데이터, SYN, SYN-ACK"})
	h := &w.v.Host
	if w.d.Coverage.Packets == 0 {
		w.without(top, base, analyze.Text{En: "needs packets", Ko: "패킷 필요"})
		return
	}
	w.bars(top, base, []view.Count{h.Before, h.After, h.SYN, h.SYNACK}, []string{"fill hatched", "fill crossed", "fill dotted", "fill open"})
	w.counted(analyze.Text{En: "segments lost before the capture point", Ko: "캡처 지점 앞에서 유실된 세그먼트"}, h.Before)
	w.counted(analyze.Text{En: "segments lost behind the capture point", Ko: "캡처 지점 뒤에서 유실된 세그먼트"}, h.After)
	w.counted(analyze.Text{En: "SYN sent again", Ko: "재전송된 SYN"}, h.SYN)
	w.counted(analyze.Text{En: "SYN-ACK sent again", Ko: "재전송된 SYN-ACK"}, h.SYNACK)
}

// resetsInKorean are the classes of resets (flow.Class).
var resetsInKorean = map[string]string{
	"refused": "연결 거부", "late_answer": "늦은 응답", "abort": "주고받는 도중", "idle": "오랜 침묵 뒤",
	"overflow": "accept 대기열 포화", "timeout": "재전송 포기", "late_request": "닫힌 뒤에 온 요청", "no_answer": "응답 없음",
	"complete": "응답이 끝난 뒤",
}

// resetClass is a class of resets in words.
func resetClass(class string) analyze.Text {
	return analyze.Text{En: strings.ReplaceAll(class, "_", " "), Ko: cmp.Or(resetsInKorean[class], class)}
}

func (w *bands) resets() {
	var names, namesKo []string
	var all view.Count
	for _, k := range sortedKeys(w.v.Host.Resets) {
		class := resetClass(k)
		names, namesKo = append(names, class.En), append(namesKo, class.Ko)
		for len(all) < len(w.v.Host.Resets[k]) {
			all = append(all, 0)
		}
		for i, n := range w.v.Host.Resets[k] {
			all[i] += n
		}
	}
	name := analyze.Text{En: "Resets", Ko: "RST"}
	top, base := w.band(name, analyze.Text{En: strings.Join(names, ", "), Ko: strings.Join(namesKo, ", ")})
	switch {
	case w.d.Coverage.Packets == 0:
		w.without(top, base, analyze.Text{En: "needs packets", Ko: "패킷 필요"})
	case all == nil:
		w.without(top, base, texts("none on %s connections", "연결 %s개에서 없음", count(w.d.Coverage.Connections)))
	default:
		w.bars(top, base, []view.Count{all}, []string{"fill bad"})
		for _, k := range sortedKeys(w.v.Host.Resets) {
			w.counted(texts("resets: %s", "RST: %s", resetClass(k)), w.v.Host.Resets[k])
		}
	}
}

// claim says what the bands show of the service, before and since.
func (w *bands) claim(s *view.Service, root *analyze.Finding) analyze.Text {
	if s == nil {
		return analyze.Text{En: "No service was seen at work in this input.", Ko: "이 입력에서 동작 중인 서비스가 보이지 않습니다."}
	}
	failed := func(i, j int) uint64 { return s.GaveUp.Sum(i, j) + s.Unopened.Sum(i, j) }
	name := endpoint(s.Addr, s.Port)
	if root == nil {
		return texts("%s answered %s requests and failed %s.", "%s: 요청 %s건 응답, %s건 실패.", name, count(s.Answered.Sum(0, w.n)), count(failed(0, w.n)))
	}
	rate := func(i, j int) string {
		if i = max(i, 0); j <= i {
			return "–"
		}
		d := time.Duration(int64(j-i) * w.v.Width).Seconds()
		return strconv.FormatFloat(math.Round(float64(s.Answered.Sum(i, j))/d*10)/10, 'f', -1, 64)
	}
	since := w.since(w.v.At(w.begin), w.onset)
	if w.begin <= 0 {
		before := analyze.Text{En: "nothing was seen before", Ko: "그 전은 관측되지 않음"}
		if since = w.since(w.v.Start, max(w.onset, w.v.Start)); w.onset.Sub(w.v.Start) > 100*time.Millisecond {
			before = analyze.Text{En: "what came before the onset cannot be told from it", Ko: "시작 전후를 나눌 수 없음"}
		}
		return texts("%s: %[4]s %[2]s answers a second, and %[3]s requests or connections failed; %[5]s.",
			"%s: %[4]s 초당 응답 %[2]s건, 요청 또는 연결 실패 %[3]s건. %[5]s.", name, rate(0, w.n), count(failed(0, w.n)), since, before)
	}
	t := texts("%s: %s answers a second before, %s %[6]s; requests or connections that failed: %[4]s before, %[5]s since.",
		"%s: 초당 응답 이전 %s건, %[6]s %[3]s건. 실패한 요청 또는 연결: 이전 %[4]s건, 이후 %[5]s건.", name, rate(0, w.begin), rate(w.begin, w.n),
		count(failed(0, w.begin)), count(failed(w.begin, w.n)), since)
	if of := root.Subject; of.Kind == analyze.SubjectSource && of.Peer != "" && of.Host == s.Addr {
		// Most of them may be its own: nobody should take them for harmed users.
		t = texts("%s Those of %s itself are among them.", "%s %s 자신의 것도 포함합니다.", t, of.Peer)
	}
	return t
}
