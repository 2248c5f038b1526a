package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// wanted picks the connections whose story is told.
type wanted struct {
	ill, all bool
	streams  []uint32
	ends     []netip.AddrPort // without an address: any; with port 0: any
}

// illness is what makes a connection one that fared ill.
var illness = flow.Ill{Still: 5 * time.Second, Shut: 10 * time.Second, Unanswered: 3 * time.Second}

func parseWanted(s string) (*wanted, error) {
	w := &wanted{}
	if s == "" {
		return w, nil
	}
	for _, f := range strings.Split(s, ",") {
		f = strings.TrimSpace(f)
		n, errN := strconv.ParseUint(f, 10, 32)
		a, errA := netip.ParseAddr(f)
		e, errE := netip.ParseAddrPort(f)
		p, errP := strconv.ParseUint(strings.TrimPrefix(f, ":"), 10, 16)
		switch {
		case f == "ill":
			w.ill = true
		case f == "all":
			w.all = true
		case errN == nil:
			w.streams = append(w.streams, uint32(n))
		case errA == nil:
			w.ends = append(w.ends, netip.AddrPortFrom(a, 0))
		case errE == nil:
			w.ends = append(w.ends, e)
		case errP == nil && f[0] == ':':
			w.ends = append(w.ends, netip.AddrPortFrom(netip.Addr{}, uint16(p)))
		default:
			return nil, fmt.Errorf("--explain %q: use all, ill, a stream number, ADDRESS, :PORT or ADDRESS:PORT", f)
		}
	}
	return w, nil
}

func (w *wanted) has(c *flow.Conn, st *flow.Story) bool {
	if w.all || w.ill && fared(st) || slices.Contains(w.streams, c.Stream) {
		return true
	}
	for _, x := range w.ends {
		for _, e := range [2]capture.Endpoint{c.Client, c.Server} {
			if (!x.Addr().IsValid() || e.Addr.Netip().Unmap() == x.Addr().Unmap()) && (x.Port() == 0 || e.Port == x.Port()) {
				return true
			}
		}
	}
	return false
}

// fared reports whether there is something to tell that its owner would want to know.
func fared(st *flow.Story) bool {
	return st.Fared(illness) != nil || slices.ContainsFunc(st.Chapters, func(c flow.Chapter) bool {
		return c.Kind == flow.RefusedOpening || c.Kind == flow.Challenged || c.Kind == flow.AfterRST && c.N > 1 && c.Heard > 1 ||
			c.Kind == flow.Rejected && byABox(&c) || c.Kind == flow.Opening && c.Length() > illness.Unanswered
	})
}

// byABox reports a RST whose TTL is far from that of its sender's other packets: a box between sent it. A route may
// change by a hop or two.
func byABox(c *flow.Chapter) bool {
	d := int(c.TTL) - int(c.UsualTTL)
	return c.UsualTTL != 0 && (d > 2 || d < -2)
}

// story is a connection and what happened to it.
type story struct {
	row   flow.Row
	told  *flow.Story
	first capture.Instant
}

// line is a chapter in words.
type line struct {
	From   capture.Instant `json:"from"`
	To     capture.Instant `json:"to"`
	Frames []uint64        `json:"frames"`
	Text   analyze.Text    `json:"text"`
}

// storyRow is a story as a record.
type storyRow struct {
	flow.Row
	Story   []line `json:"story"`
	Skipped uint32 `json:"story_skipped"`
}

func newStories(out io.Writer, format string, lang report.Lang) *rows {
	r := &rows{}
	told := 0
	enc := report.NewEncoder(out)
	r.write = func(row any) {
		if r.err != nil {
			return
		}
		s := row.(*story)
		lines := s.lines()
		if format == "ndjson" {
			r.err = enc.Encode(&storyRow{s.row, lines, s.told.Skipped})
			return
		}
		if told++; told > 1 {
			fmt.Fprintln(out)
		}
		_, r.err = io.WriteString(out, s.text(lang, lines))
	}
	return r
}

// text is the story for people.
func (s *story) text(lang report.Lang, lines []line) string {
	r := &s.row
	var b strings.Builder
	head := analyze.Text{
		En: fmt.Sprintf("Connection %d: %s > %s, %d packets, %d bytes to the server and %d back, from %s", r.Stream, end(r.Client, r.ClientPort),
			end(r.Server, r.ServerPort), r.PacketsClient+r.PacketsServer, r.BytesClient, r.BytesServer, r.Start),
		Ko: fmt.Sprintf("연결 %d: %s > %s, 패킷 %d개, 서버로 %d바이트, 서버에서 %d바이트, 시작 %s", r.Stream, end(r.Client, r.ClientPort),
			end(r.Server, r.ServerPort), r.PacketsClient+r.PacketsServer, r.BytesClient, r.BytesServer, r.Start),
	}
	fmt.Fprintln(&b, lang.Text(head))
	for i := range lines {
		l := &lines[i]
		frames := ""
		switch {
		case len(l.Frames) == 2 && l.Frames[0] != l.Frames[1]:
			frames = fmt.Sprintf("%d-%d", l.Frames[0], l.Frames[1])
		case len(l.Frames) > 0:
			frames = strconv.FormatUint(l.Frames[0], 10)
		}
		fmt.Fprintf(&b, "  %11.3f s  %-13s %s\n", l.From.Sub(s.first).Seconds(), frames, lang.Text(l.Text))
	}
	if n := s.told.Skipped; n > 0 {
		fmt.Fprintln(&b, "  "+lang.Text(analyze.Text{En: fmt.Sprintf("and %d more", n), Ko: fmt.Sprintf("그 밖에 %d건", n)}))
	}
	return b.String()
}

// lines are the chapters and the end.
func (s *story) lines() []line {
	var out []line
	for i := range s.told.Chapters {
		c := &s.told.Chapters[i]
		l := line{From: c.From, To: c.To, Text: chapterText(c)}
		for _, f := range c.Frames {
			if f != 0 && !slices.Contains(l.Frames, f) {
				l.Frames = append(l.Frames, f)
			}
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b line) int { return int(max(min(a.From-b.From, 1), -1)) })
	return append(out, line{From: s.row.End, To: s.row.End, Frames: []uint64{}, Text: ending(&s.row)})
}

// who are the sides in both languages.
var who = [2]analyze.Text{{En: "the client", Ko: "클라이언트"}, {En: "the server", Ko: "서버"}}

// span is a duration in both languages.
func span(d time.Duration) (en, ko string) {
	switch s := d.Seconds(); {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds()), fmt.Sprintf("%dµs", d.Microseconds())
	case s < 1:
		return fmt.Sprintf("%.3g ms", s*1000), fmt.Sprintf("%.3gms", s*1000)
	case s < 100:
		return fmt.Sprintf("%.3g s", s), fmt.Sprintf("%.3g초", s)
	default:
		return fmt.Sprintf("%d min %d s", int(s)/60, int(s)%60), fmt.Sprintf("%d분 %d초", int(s)/60, int(s)%60)
	}
}

// times is "n times" in English; nothing for one.
func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// chapterText tells a chapter.
func chapterText(c *flow.Chapter) analyze.Text {
	me, other := who[c.Side], who[c.Side.Other()]
	en, ko := span(c.Length())
	more := func(e, k string) {
		en += e
		ko += k
	}
	switch c.Kind {
	case flow.Opening:
		en, ko = fmt.Sprintf("the SYN of %s was answered after %s", me.En, en), fmt.Sprintf("%s의 SYN에 %s 만에 응답", me.Ko, ko)
		if c.N > 0 {
			more(fmt.Sprintf(", having been repeated %s", times(c.N)), fmt.Sprintf("(SYN 반복 %d번 뒤)", c.N))
		}
	case flow.Unopened:
		e, k := en, ko
		if en, ko = "the SYN of "+me.En+" got no SYN-ACK", me.Ko+"의 SYN에 SYN-ACK가 없음"; c.N > 0 {
			more(fmt.Sprintf(": it was repeated %s in %s", times(c.N), e), fmt.Sprintf(": %s 동안 %d번 반복", k, c.N))
		}
	case flow.RefusedOpening:
		en, ko = fmt.Sprintf("the SYN of %s was refused by a RST after %s", me.En, en), fmt.Sprintf("%s의 SYN이 %s 만에 RST로 거부됨", me.Ko, ko)
	case flow.Challenged:
		en = me.En + " answered the SYN " + times(c.N) + " by an acknowledgement of something older: an earlier connection on the same ports (challenge ACK, RFC 5961)"
		ko = me.Ko + fmt.Sprintf("가 SYN에 예전 확인응답으로 답함(%d번): ", c.N) + "같은 포트의 이전 연결이 남아 있음(challenge ACK, RFC 5961)"
	case flow.StoodStill:
		en = fmt.Sprintf("%s in which nothing that %s sent was acknowledged", en, me.En)
		ko = fmt.Sprintf("%s 동안 %s가 보낸 데이터에 확인응답이 없음", ko, me.Ko)
		switch {
		case c.N > 0:
			more(fmt.Sprintf("; it was sent again %s (up to %d bytes)", times(c.N), c.Len), fmt.Sprintf(", %d번 재전송(최대 %d바이트)", c.N, c.Len))
		case !c.Open:
			more("; it was not sent again, so the capture may lack the acknowledgement", ", 재전송이 없으므로 캡처에서 확인응답이 빠졌을 수 있음")
		}
		if c.Heard == 0 {
			more(fmt.Sprintf("; nothing came from %s", other.En), fmt.Sprintf(", %s에서 온 패킷 없음", other.Ko))
		} else {
			more(fmt.Sprintf("; %d packets came from %s", c.Heard, other.En), fmt.Sprintf(", %s에서 온 패킷 %d개", other.Ko, c.Heard))
		}
		if c.N > 0 && c.Len > c.Passed && c.Passed > 0 {
			more(fmt.Sprintf("; no segment larger than %d bytes was ever acknowledged", c.Passed),
				fmt.Sprintf(", %d바이트보다 큰 세그먼트는 확인응답된 적이 없음", c.Passed))
		}
		if c.Open {
			more("; so to the end", ", 끝까지 그대로")
		}
	case flow.WindowShut:
		en = fmt.Sprintf("%s took nothing more for %s: its window was closed", me.En, en)
		ko = fmt.Sprintf("%s가 %s 동안 더 받지 않음: 수신 윈도 0", me.Ko, ko)
		if c.N > 0 {
			more(fmt.Sprintf(", %d probes", c.N), fmt.Sprintf(", 윈도 탐침 %d번", c.N))
		} else {
			more(", and no probe", ", 윈도 탐침 없음")
		}
		if c.Open {
			more("; so to the end", ", 끝까지 그대로")
		}
	case flow.Waited:
		en, ko = fmt.Sprintf("%s took %s to answer; all was acknowledged", me.En, en), fmt.Sprintf("%s가 %s 만에 응답, 그동안 모두 확인응답됨", me.Ko, ko)
	case flow.Silence:
		e, k := en, ko
		if en, ko = "nobody said anything for "+e, "양쪽 모두 "+k+" 동안 침묵"; c.N > 0 {
			more(fmt.Sprintf(" but %d keep-alives", c.N), fmt.Sprintf("(keep-alive %d번)", c.N))
		}
	case flow.Finned:
		if en, ko = me.En+" closed (FIN)", me.Ko+"가 닫음(FIN)"; c.N > 0 {
			more(fmt.Sprintf("; its FIN was repeated %s", times(c.N)), fmt.Sprintf(", FIN 반복 %d번", c.N))
		}
	case flow.Rejected:
		if en, ko = "RST of "+me.En, me.Ko+"의 RST"; byABox(c) {
			more(fmt.Sprintf(", with TTL %d where its other packets have %d: a box between sent it", c.TTL, c.UsualTTL),
				fmt.Sprintf(", TTL %d(다른 패킷은 %d): 중간 장비가 보냄", c.TTL, c.UsualTTL))
		}
	case flow.AfterRST:
		e, k := en, ko
		en, ko = fmt.Sprintf("after the RST of %s: %d more, and %d other packets, in %s", me.En, c.N, c.Heard, e),
			fmt.Sprintf("%s의 RST 뒤 %s 동안 RST %d번 더, 다른 패킷 %d개", me.Ko, k, c.N, c.Heard)
		if c.N > 2 && c.Heard > 2 {
			more(": a loop of resets and answers to them (RFC 5961 §3)", ": RST와 그 응답이 끝없이 되풀이됨(RFC 5961 §3)")
		}
	}
	return analyze.Text{En: en, Ko: ko}
}

// ending tells how the row's connection ended.
func ending(r *flow.Row) analyze.Text {
	by := map[string]analyze.Text{"client": who[flow.Client], "server": who[flow.Server]}[r.EndedBy]
	switch r.Ended {
	case flow.EndedFIN:
		return analyze.Text{En: "closed by both; " + by.En + " first", Ko: by.Ko + "가 먼저 닫고 양쪽 모두 닫음"}
	case flow.EndedRST:
		return analyze.Text{En: "ended by a RST of " + by.En + " (" + r.Reset + ")", Ko: by.Ko + "의 RST로 끝남(" + r.Reset + ")"}
	case flow.EndedHalf:
		return analyze.Text{En: by.En + " closed, the other side never did", Ko: by.Ko + "만 닫고 다른 쪽은 닫지 않음"}
	case flow.EndedUnanswered:
		return analyze.Text{En: "never opened", Ko: "열리지 않음"}
	}
	return analyze.Text{En: "the last packet; it was never closed", Ko: "마지막 패킷. 닫히지 않음"}
}
