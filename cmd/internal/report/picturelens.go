package report

import (
	"fmt"
	"math"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report/svg"
)

const (
	// silence is the gap between two segments from which on its length is written: on a healthy local network no answer of a
	// stack takes as long (the shortest retransmission time-out of Linux, TCP_RTO_MIN).
	silence = 200 * time.Millisecond
	// maxHolesDrawn bounds the hatched areas.
	maxHolesDrawn = 60
)

// lens draws one connection that shows the fault: bytes over time, with bursts stretched and silences shortened.
func (b *builder) lens(suffix string, root *analyze.Finding, after []*analyze.Finding) section {
	s := section{ID: "lens" + suffix, Name: analyze.Text{En: "One connection under the lens", Ko: "연결 하나를 자세히"}}
	var c *view.Connection
	for _, f := range append([]*analyze.Finding{root}, after...) {
		if e := b.v.Example(f.ID); e != nil && (c == nil || len(c.Segments) == 0 && len(e.Segments) > 0) {
			c = e
			if len(c.Segments) > 0 {
				break
			}
		}
	}
	switch {
	case c == nil:
		s.Claim = analyze.Text{En: "No connection in this input shows the fault by itself.", Ko: "이 입력에는 이 장애를 홀로 보여 주는 연결이 없습니다."}
		s.Without = analyze.Text{En: "No picture: it takes a TCP connection, captured as packets, to which it happened.", Ko: "장애를 겪은 TCP 연결의 패킷이 없어 그림이 없습니다."}
		return s
	case len(c.Segments) == 0:
		s.Claim = texts("%s → %s shows the fault; its packets could not be read a second time.", "%s → %s 연결이 장애를 보이지만 패킷을 다시 읽을 수 없었습니다.", c.Client, c.Server)
		s.Without = analyze.Text{En: "No picture: standard input and live packets cannot be read twice.", Ko: "표준 입력과 실시간 패킷은 다시 읽을 수 없어 그림이 없습니다."}
		return s
	}
	by := map[string]analyze.Text{
		"lost": {En: "segments lost", Ko: "유실된 세그먼트 수"}, "reset": {En: "resets", Ko: "RST 수"}, "waited": {En: "longest wait", Ko: "가장 긴 대기"},
		"half_closed": {En: "half-closes", Ko: "반만 닫힘"}, "unopened": {En: "repeated SYNs", Ko: "SYN 재전송 수"}}[c.By]
	s.Notes = append(s.Notes, texts("Chosen by rule, not for its looks: number %d of %d affected connections in the order of %s.",
		"규칙으로 고른 연결: 영향받은 연결 %[2]d개 중 %[3]s 순서로 %[1]d번째.", c.Rank, c.Of, by))
	if c.Left > 0 {
		s.Notes = append(s.Notes, texts("%s of its segments are left out.", "세그먼트 %s개는 생략했습니다.", count(uint64(c.Left))))
	}
	s.Filter = fmt.Sprintf("tcp.stream eq %d", c.Stream)

	g := &lens{builder: b, c: c, server: senderOf(c)}
	s.Picture, s.Claim = g.draw(s.ID)
	s.Legend = g.legend()
	if g.note.En != "" {
		s.Notes = append(s.Notes, g.note)
	}
	s.Table.Head = []analyze.Text{{En: "seconds", Ko: "초"}, {En: "frame", Ko: "프레임"}, {En: "from", Ko: "보낸 쪽"}, {En: "flags", Ko: "플래그"},
		{En: "first byte", Ko: "첫 바이트"}, {En: "bytes", Ko: "바이트"}, {En: "acknowledges", Ko: "확인 응답"}, {En: "remark", Ko: "비고"}}
	for i := range c.Segments {
		if i == maxTable {
			break
		}
		k := &c.Segments[i]
		from, ack, remark := analyze.Text{En: "client", Ko: "클라이언트"}, "", analyze.Text{}
		if k.Server {
			from = analyze.Text{En: "server", Ko: "서버"}
		}
		if k.Ack >= 0 {
			ack = count(uint64(k.Ack))
		}
		switch {
		case k.Fills:
			remark = analyze.Text{En: "fills a hole", Ko: "누락 구간을 메움"}
		case k.Again:
			remark = analyze.Text{En: "sent again", Ko: "재전송"}
		}
		seq := ""
		if k.Len > 0 {
			seq = fmt.Sprint(k.Seq)
		}
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{same(fmt.Sprintf("%+.6f", k.At.Sub(c.First).Seconds())), same(count(k.Frame)), from,
			same(flagNames(k.Flags)), same(seq), same(count(k.Len)), same(ack), remark})
	}
	return s
}

// maxTable bounds the rows of the table beside the picture.
const maxTable = 120

func flagNames(f uint8) (s string) {
	for i, n := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			if s != "" {
				s += " "
			}
			s += n
		}
	}
	return s
}

// senderOf says whose bytes are drawn: of the side that was troubled, else of the one that sent more.
func senderOf(c *view.Connection) bool {
	var bytes, again [2]int64
	for i := range c.Segments {
		k, side := &c.Segments[i], 0
		if k.Server {
			side = 1
		}
		bytes[side] += int64(k.Len)
		if k.Again && k.Len > 0 {
			again[side]++
		}
	}
	if again[0] != again[1] {
		return again[1] > again[0]
	}
	return bytes[1] > bytes[0]
}

// lens draws one connection.
type lens struct {
	*builder
	c      *view.Connection
	server bool // whose bytes are drawn
	p      *svg.Picture
	times  []capture.Instant
	xs     []float64
	quiet  time.Duration // longest silence
	narrow bool          // the receiver's window ends within the picture
	note   analyze.Text
}

const lensLeft, lensRight = 90.0, 985.0

// axis gives each segment a place: a gap takes the room of its logarithm, so that a burst can be seen beside a silence, and silences
// together leave each of the other gaps the room of roomOfGap, up to half of the picture.
func (g *lens) axis() {
	const roomOfGap = 40
	for i := range g.c.Segments {
		g.times = append(g.times, g.c.Segments[i].At)
	}
	// What the connection did not say until it ended, or the capture did, is a silence like any other.
	if n := len(g.times); n > 0 && g.c.Last.Sub(g.times[n-1]) >= silence {
		g.times = append(g.times, g.c.Last)
	}
	weight := func(d time.Duration) float64 {
		return math.Log1p(float64(max(d, 0))/float64(200*time.Microsecond)) + 0.15
	}
	var busy, still, gaps float64
	for i := 1; i < len(g.times); i++ {
		if d := g.times[i].Sub(g.times[i-1]); d < silence {
			busy, gaps = busy+weight(d), gaps+1
		} else {
			still, g.quiet = still+weight(d), max(g.quiet, d)
		}
	}
	stretch := 1.0 // of the bursts
	if part := min(gaps*roomOfGap/(lensRight-lensLeft), 0.5); busy > 0 && busy < part*(busy+still) {
		stretch = part / (1 - part) * still / busy
	}
	sum := 0.0
	for i := range g.times {
		if i > 0 {
			d := g.times[i].Sub(g.times[i-1])
			w := weight(d)
			if d < silence {
				g.quiet, w = max(g.quiet, d), w*stretch
			}
			sum += w
		}
		g.xs = append(g.xs, sum)
	}
	if sum == 0 {
		sum = 1
	}
	for i := range g.xs {
		g.xs[i] = lensLeft + 14 + (lensRight-lensLeft-28)*g.xs[i]/sum
	}
}

func (g *lens) draw(id string) (*svg.Picture, analyze.Text) {
	const top, bottom = 34.0, 300.0
	g.p = &svg.Picture{ID: id, W: picWidth, H: 356}
	p := g.p
	g.axis()
	// Silences are shaded and have their length written on them, those that have room for it.
	free := 0.0
	for i := 1; i < len(g.times); i++ {
		d := g.times[i].Sub(g.times[i-1])
		if d < silence {
			continue
		}
		x0, x1 := g.xs[i-1]+2, g.xs[i]-2
		p.Rect("silence", x0, top, x1-x0, bottom-top)
		if t := both(func(l Lang) string { return l.span(d) }); (x0+x1)/2-svg.Width(t.En, svg.Small)/2 > free && x1-x0 > 16 {
			p.Text("muted", "middle", svg.Small, (x0+x1)/2, bottom+16, 0, t)
			free = (x0+x1)/2 + svg.Width(t.En, svg.Small)/2 + 8
		}
	}
	p.Line("axis", lensLeft, bottom, lensRight, bottom)
	p.Text("muted", "start", svg.Small, lensLeft, bottom+36, 0, texts("+0 s: %s", "+0초: %s", g.say(func(r *text) string { return r.short(g.c.First) })))
	last := g.times[len(g.times)-1]
	p.Text("muted", "end", svg.Small, lensRight, bottom+36, 0, both(func(l Lang) string { return l.offset(last.Sub(g.c.First)) }))

	most, data := int64(0), 0
	for i := range g.c.Segments {
		if k := &g.c.Segments[i]; k.Server == g.server && k.Len > 0 {
			most, data = max(most, k.Seq+int64(k.Len)), data+1
		}
	}
	if data < 2 {
		return p, g.lanes(top, bottom)
	}
	y := svg.Scale{V0: 0, V1: float64(most), X0: bottom - 6, X1: top + 6}
	who := analyze.Text{En: "bytes of the client", Ko: "클라이언트가 보낸 바이트"}
	if g.server {
		who = analyze.Text{En: "bytes of the server", Ko: "서버가 보낸 바이트"}
	}
	p.Text("muted", "start", svg.Small, 0, 14, 0, who)
	for i := range 5 {
		v := float64(most) * float64(i) / 4
		p.Line("grid", lensLeft, y.At(v), lensRight, y.At(v))
		p.Text("muted", "end", svg.Small, lensLeft-6, y.At(v)+4, 0, same(count(uint64(v))))
	}
	holes, open := g.holes(y)
	var acked, window []float64
	edge := int64(-1) // how far the receiver allows to send
	ack := int64(-1)
	for i := range g.c.Segments {
		k, x := &g.c.Segments[i], g.xs[i]
		if k.Server != g.server {
			if k.Flags&capture.RST != 0 {
				p.Cross("cross", x, y.At(float64(max(ack, 0))), 6)
			}
			if k.Ack >= 0 && k.Ack <= most+1 {
				v := float64(min(k.Ack, most))
				if ack >= 0 {
					acked = append(acked, x, y.At(float64(ack)))
				}
				acked = append(acked, x, y.At(v))
				ack = int64(v)
				if k.Window >= 0 {
					if edge >= 0 {
						window = append(window, x, y.At(float64(min(edge, most))))
					}
					edge = max(edge, k.Ack+k.Window)
					g.narrow = g.narrow || edge < most
					window = append(window, x, y.At(float64(min(edge, most))))
				}
			}
			for _, q := range k.SACK {
				p.Line("sack", x, y.At(float64(q[0])), x, y.At(float64(q[1])))
			}
			continue
		}
		if k.Flags&capture.RST != 0 {
			p.Cross("cross", x, y.At(float64(k.Seq)), 6)
		}
		if k.Len == 0 {
			continue
		}
		lo, hi := y.At(float64(k.Seq)), y.At(float64(k.Seq+int64(k.Len)))
		hi = min(hi, lo-2)
		switch {
		case k.Again:
			p.Line("again", x, lo, x, hi)
			p.Diamond("again-head", x, (lo+hi)/2, 4.5)
		default:
			p.Poly("sent", false, x-3, lo, x+3, lo, x, lo, x, hi, x-3, hi, x+3, hi)
		}
	}
	if len(acked) > 2 {
		if end := lensRight - 14; acked[len(acked)-2] < end {
			acked = append(acked, end, acked[len(acked)-1])
		}
		p.Poly("acked", false, acked...)
	}
	g.window(window)
	longest := g.longest()
	switch {
	case holes > 0:
		return p, texts("%s → %s: %s of %s bytes acknowledged; holes opened: %d, never filled: %d; the longest silence lasted %s.",
			"%s → %s: %[4]s바이트 중 %[3]s바이트가 확인됐고 누락 구간 %[5]d개가 생겨 %[6]d개는 메워지지 않았습니다. 가장 긴 침묵 %[7]s.",
			g.c.Client, g.c.Server, count(uint64(max(ack, 0))), count(uint64(most)), holes, open, longest)
	default:
		again := 0
		for i := range g.c.Segments {
			if k := &g.c.Segments[i]; k.Again && k.Len > 0 && k.Server == g.server {
				again++
			}
		}
		return p, texts("%s → %s: %s of %s bytes acknowledged, %d segments sent again; the longest silence lasted %s.",
			"%s → %s: %[4]s바이트 중 %[3]s바이트가 확인됐고 세그먼트 %[5]d개가 재전송됐습니다. 가장 긴 침묵 %[6]s.",
			g.c.Client, g.c.Server, count(uint64(max(ack, 0))), count(uint64(most)), again, longest)
	}
}

// longest names the longest silence.
func (g *lens) longest() analyze.Text {
	t := both(func(l Lang) string { return l.span(g.quiet) })
	n := len(g.times)
	switch {
	case n == len(g.c.Segments) || g.times[n-1].Sub(g.times[n-2]) != g.quiet:
	case g.c.Last >= g.v.Last:
		t = texts("%s, up to the end of the capture", "%s(캡처가 끝날 때까지)", t)
	default:
		t = texts("%s, until nothing more is known of it", "%s(연결의 마지막 기록까지)", t)
	}
	return t
}

// window draws how far the receiver allows to send, if that lies within the picture at any time.
func (g *lens) window(line []float64) {
	switch {
	case len(line) == 0:
		g.note = analyze.Text{En: "The receiver's window is not drawn: without the handshake its scale is not known.",
			Ko: "핸드셰이크가 없어 윈도 배율을 모르므로 수신 윈도는 그리지 않았습니다."}
	case !g.narrow:
		g.note = analyze.Text{En: "The receiver's window is not drawn: at all times it left room for more than was sent.",
			Ko: "수신 윈도는 늘 보낸 것보다 여유가 있어 그리지 않았습니다."}
	default:
		if end := lensRight - 14; line[len(line)-2] < end {
			line = append(line, end, line[len(line)-1])
		}
		g.p.Poly("window", false, line...)
	}
}

// holes draws what is missing for as long as it is, and returns how many holes there were and how many were never filled.
func (g *lens) holes(y svg.Scale) (all, open int) {
	type hole struct {
		from, to int64
		x        float64
	}
	var hs []hole
	next := int64(0)
	end := lensRight - 14
	area := func(h hole, from, to int64, x float64) {
		if all <= maxHolesDrawn {
			g.p.Rect("hole", h.x, y.At(float64(to)), x-h.x, max(y.At(float64(from))-y.At(float64(to)), 1.5))
		}
	}
	for i := range g.c.Segments {
		k := &g.c.Segments[i]
		if k.Server != g.server || k.Len == 0 {
			continue
		}
		from, to := k.Seq, k.Seq+int64(k.Len)
		if from > next {
			hs = append(hs, hole{next, from, g.xs[i]})
			all++
		}
		next = max(next, to)
		var rest []hole
		for _, h := range hs {
			if from >= h.to || to <= h.from {
				rest = append(rest, h)
				continue
			}
			area(h, max(h.from, from), min(h.to, to), g.xs[i])
			if h.from < from {
				rest = append(rest, hole{h.from, from, h.x})
			}
			if to < h.to {
				rest = append(rest, hole{to, h.to, h.x})
			}
		}
		hs = rest
	}
	for _, h := range hs {
		area(h, h.from, h.to, end)
	}
	return all, len(hs)
}

// lanes draws a connection without data as packets of either side.
func (g *lens) lanes(top, bottom float64) analyze.Text {
	p := g.p
	ys := [2]float64{top + 80, bottom - 80}
	names := [2]analyze.Text{{En: "client", Ko: "클라이언트"}, {En: "server", Ko: "서버"}}
	var free [2]float64
	var n [2]int
	syn := 0
	for side, y := range ys {
		p.Line("grid", lensLeft, y, lensRight, y)
		p.Text("strong", "start", svg.Normal, 0, y+4, lensLeft-6, names[side])
	}
	for i := range g.c.Segments {
		k, side := &g.c.Segments[i], 0
		if k.Server {
			side = 1
		}
		n[side]++
		if k.Flags&capture.SYN != 0 && !k.Server {
			syn++
		}
		x, y := g.xs[i], ys[side]
		switch {
		case k.Flags&capture.RST != 0:
			p.Cross("cross", x, y, 6)
		case k.Again || k.Flags&capture.SYN != 0 && !k.Server && syn > 1:
			p.Diamond("again-head", x, y, 5.5)
		default:
			p.Circle("sent-dot", x, y, 4.5)
		}
		label := flagNames(k.Flags)
		if k.Len > 0 {
			label = fmt.Sprintf("%d B", k.Len)
		}
		if w := svg.Width(label, svg.Small); x-w/2 > free[side] && x+w/2 < picWidth {
			p.Text("muted", "middle", svg.Small, x, y-14+float64(side)*34, 0, same(label))
			free[side] = x + w/2 + 6
		}
	}
	longest := g.longest()
	return texts("%s → %s: %d packets of the client, %d of the server; the longest silence lasted %s.",
		"%s → %s: 클라이언트 패킷 %d개, 서버 패킷 %d개. 가장 긴 침묵 %s.", g.c.Client, g.c.Server, n[0], n[1], longest)
}

func (g *lens) legend() []legend {
	l := []legend{{"sent", "I", analyze.Text{En: "segment, sent for the first time", Ko: "처음 보낸 세그먼트"}},
		{"again-head", "◆", analyze.Text{En: "sent again", Ko: "재전송"}},
		{"hatched", "▨", analyze.Text{En: "hole: missing for this long", Ko: "누락 구간: 빠져 있던 기간"}},
		{"acked", "⌐", analyze.Text{En: "acknowledged up to here", Ko: "여기까지 확인 응답"}},
		{"sack", "|", analyze.Text{En: "SACK: held behind a hole", Ko: "SACK: 누락 구간 뒤에 보관"}},
		{"silence", "▢", analyze.Text{En: "silence, shortened", Ko: "침묵(줄여 그림)"}}}
	if g.narrow {
		l = append(l, legend{"window", "┄", analyze.Text{En: "window: the receiver takes bytes up to here", Ko: "윈도: 수신 측이 받을 수 있는 끝"}})
	}
	return l
}
