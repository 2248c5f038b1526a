package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
	"jindan/cmd/internal/top"
)

// clearLine goes back to the beginning of a line of a terminal and empties it (ECMA-48 EL).
const clearLine = "\r\x1b[K"

// tell writes text for people to standard output: where the line of life stands, in its place.
func (ag *agent) tell(text []byte) {
	if ag.lives.Load() && len(text) > 0 {
		text = append([]byte(clearLine), text...)
	}
	_, _ = ag.stdout.Write(text) // never fails
}

// showLife shows on a terminal that the agent lives: one line that is written anew each second.
func (ag *agent) showLife(ctx context.Context) {
	if ag.output != "text" || ag.direct == nil || !cli.IsTerminal(os.Stdout) || os.Getenv("TERM") == "dumb" {
		return
	}
	ag.lives.Store(true)
	ag.app.OverLine.Store(cli.IsTerminal(os.Stderr))
	tick := time.NewTicker(top.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_, _ = ag.stdout.Write([]byte(clearLine))
			ag.lives.Store(false)
			ag.app.OverLine.Store(false)
			return
		case <-tick.C:
		}
		w := ag.watches[0]
		w.states.want()
		s := w.states.last()
		if s == nil {
			continue
		}
		open := 0
		ag.lock.Lock()
		for _, f := range ag.found {
			if f.State != analyze.Resolved && f.Severity != "info" {
				open++
			}
		}
		ag.lock.Unlock()
		line := lifeLine(s, open, report.Lang(ag.app.Lang))
		if n := len(ag.watches); n > 1 {
			line += fmt.Sprintf(" (%s + %d netns)", w.Describe(), n-1)
		}
		// The terminal echoes Ctrl-C behind it, which must not begin another line.
		_, _ = ag.stdout.Write([]byte(clearLine + cutLine(line, cli.Columns(os.Stdout)-len("^C")-1)))
	}
}

// lifeLine tells in one line what is seen.
func lifeLine(s *top.State, open int, lang report.Lang) string {
	ko := lang == report.Korean
	pick := func(en, korean string) string {
		if ko {
			return korean
		}
		return en
	}
	var rate float64
	for _, l := range s.Listeners {
		rate += l.Rate
	}
	lost, dns := "-", "-"
	if s.Segments > 0 {
		lost = fmt.Sprintf("%.1f %%", 100*float64(s.Missing)/float64(s.Segments))
	}
	if s.Names.P95 >= 0 {
		dns = s.Names.P95.Round(10 * time.Microsecond).String()
	}
	return strings.Join([]string{
		s.At.Time().Local().Format("15:04:05"),
		fmt.Sprintf(pick("findings open: %d", "미해결 %d건"), open),
		fmt.Sprintf(pick("%d listeners", "서비스 포트 %d개"), s.Listening),
		fmt.Sprintf(pick("%d connections seen", "연결 %d개 관측"), s.Coverage.Connections),
		fmt.Sprintf(pick("%.0f answers/s", "응답 초당 %.0f건"), rate),
		fmt.Sprintf(pick("lost %s", "유실 %s"), lost),
		fmt.Sprintf(pick("DNS p95 %s", "DNS p95 %s"), dns),
		fmt.Sprintf(pick("%d dropped", "버림 %d개"), s.Coverage.Lost["kernel_drop"]),
	}, "  ")
}

// cutLine cuts a line to w columns, so that it does not wrap.
func cutLine(s string, w int) string {
	n := 0
	for i, r := range s {
		if n += report.Width(string(r)); n > max(w, 1) {
			return s[:i]
		}
	}
	return s
}
