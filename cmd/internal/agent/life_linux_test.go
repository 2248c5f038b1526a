package agent

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"
	"jindan/cmd/internal/top"
)

func TestLifeLine(t *testing.T) {
	s := &top.State{At: capture.Instant(time.Date(2023, 11, 17, 8, 40, 3, 0, time.Local).UnixNano()), Segments: 1000, Missing: 4, Listening: 5,
		Listeners: []top.Listener{{Port: 80, Rate: 40}, {Port: 81, Rate: 22.4}}, Names: top.Resolver{P95: 1234567 * time.Nanosecond},
		Coverage: analyze.Coverage{Connections: 1234, Lost: map[string]uint64{"kernel_drop": 7}}}
	for lang, want := range map[report.Lang]string{
		report.English: "08:40:03  findings open: 2  5 listeners  1234 connections seen  62 answers/s  lost 0.4 %  DNS p95 1.23ms  7 dropped",
		report.Korean:  "08:40:03  미해결 2건  서비스 포트 5개  연결 1234개 관측  응답 초당 62건  유실 0.4 %  DNS p95 1.23ms  버림 7개",
	} {
		got := lifeLine(s, 2, lang)
		if got != want {
			t.Errorf("%s", got)
		}
		if n := report.Width(cutLine(got, 40)); n < 39 || n > 40 {
			t.Errorf("cut to %d columns", n)
		}
	}
}
