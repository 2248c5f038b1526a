package top

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = capture.Instant(time.Date(2023, 11, 16, 23, 40, 3, 0, time.UTC).UnixNano())

func after(s float64) capture.Instant { return start.Add(time.Duration(s * 1e9)) }

// outage is a server whose name server has died.
func outage(at float64) *State {
	dns := &analyze.Finding{ID: "dns-1", Rule: "dns-unanswered", Severity: "error", Role: analyze.Root, State: analyze.Update, Onset: after(14), LastSeen: after(30),
		Steps: []string{"slow-dns"}, Subject: analyze.Subject{Kind: analyze.SubjectResolver, Host: "10.77.2.2", Peer: "10.77.3.2", Port: 53},
		Title:    analyze.Text{En: "DNS queries unanswered", Ko: "DNS 무응답"},
		Summary:  analyze.Text{En: "10.77.2.2 asked 10.77.3.2:53 in 133 lookups, and 118 got no answer → nobody waits that long.", Ko: "10.77.2.2의 질의 133건 중 118건에 10.77.3.2:53이 응답하지 않습니다."},
		Evidence: []analyze.Evidence{{At: after(14.5), Flow: "10.77.2.2:40112 > 10.77.3.2:53", Note: "A crl.npki.test, never answered"}},
		Next:     []analyze.Text{{En: "Ask it: `dig @10.77.3.2 NAME`.", Ko: "직접 질의: `dig @10.77.3.2 NAME`."}}, Filter: "dns && ip.addr == 10.77.3.2"}
	queue := &analyze.Finding{ID: "cw-1", Rule: "close-wait", Severity: "warn", Role: analyze.Consequence, State: analyze.Update, Onset: after(17.1), LastSeen: after(31),
		Because: []string{"dns-1"}, Steps: []string{"close-wait"}, Subject: analyze.Subject{Kind: analyze.SubjectService, Host: "10.77.2.2", Port: 8080},
		Title: analyze.Text{En: "CLOSE_WAIT accumulation", Ko: "CLOSE_WAIT 적체"}, Summary: analyze.Text{En: "72 connections wait.", Ko: "연결 72개가 대기 중입니다."}}
	d := &analyze.Diagnosis{Roots: []string{"dns-1"}, Chain: []string{"dns-1", "cw-1"}, Findings: []*analyze.Finding{dns, queue},
		Coverage: analyze.Coverage{First: start, Last: after(at), Packets: 24512, Samples: 92, Local: "10.77.2.2", Locals: []string{"10.77.2.2"}, Lost: map[string]uint64{"kernel_drop": 7}},
		Steps: []analyze.StepVerdict{{Step: "slow-dns", Verdict: analyze.Confirmed, Reason: dns.Summary, Findings: []string{"dns-1"}},
			{Step: "close-wait", Verdict: analyze.IsConsequence, Reason: queue.Summary}, {Step: "surge", Verdict: analyze.RuledOut, Reason: analyze.Text{En: "one source of 2.1 %", Ko: "출발지 2.1%"}},
			{Step: "port-error", Verdict: analyze.NotAssessable, Reason: analyze.Text{En: "needs counters", Ko: "카운터 필요"}}}}
	v := &view.View{Start: start, Width: int64(100 * time.Millisecond), First: start, Last: after(at)}
	count := make(view.Count, view.MaxBuckets)
	level := view.Level{Max: make([]uint32, view.MaxBuckets), Min: make([]uint32, view.MaxBuckets), Seen: make([]bool, view.MaxBuckets)}
	latency := make([][view.LatencySteps]uint16, view.MaxBuckets)
	for i := range count {
		count[i], level.Max[i], level.Seen[i], latency[i][4] = 2, 40, i%10 == 0, 2
	}
	v.Services = []view.Service{{Addr: "10.77.2.2", Port: 8080, Answered: count, GaveUp: count, Open: level}}
	v.Listeners = []view.Listener{{Port: 8080, Queue: level, Backlog: 65, Held: level, Unaccepted: level}, {Port: 22, Queue: view.Level{}, Backlog: 128}}
	v.Resolvers = []view.Resolver{{Client: "10.77.2.2", Server: "10.77.3.2", Answered: count, Unanswered: count, Again: count, Latency: latency}}
	down := view.Direction{From: "10.77.3.2", To: "10.77.2.2"}
	for i := range 40 {
		down.Sent[i][6], down.Missing[i][6], down.Sent[i][1] = 10, 4, 3
	}
	v.Flows = []view.Direction{down, {From: "10.77.2.2", To: "10.77.3.2"}}
	s := Take(after(at), d, v)
	s.Blind = []string{"counters: /proc is not mounted"}
	return s
}

// Golden frames of every screen, and what must hold of every frame.
func TestFrames(t *testing.T) {
	s := outage(31)
	for _, size := range [][2]int{{80, 24}, {120, 40}, {60, 16}} {
		for _, lang := range []report.Lang{report.English, report.Korean} {
			for _, utf8 := range []bool{true, false} {
				var all strings.Builder
				for screen := Incident; screen <= Events; screen++ {
					for _, open := range []bool{false, true} {
						f := Frame{Width: size[0], Height: size[1], Screen: screen, Lang: lang, UTF8: utf8, Source: "server", Open: open}
						frame := f.String(s)
						fits(t, frame, size[0], size[1], utf8)
						f.Color = true
						if got := strip(f.String(s)); trimmed(got) != trimmed(frame) {
							t.Errorf("screen %d says other things in colour", screen)
						}
						if !open || screen == Incident {
							fmt.Fprintf(&all, "%s\n%s\n", frame, strings.Repeat("#", size[0]))
						}
					}
				}
				f := Frame{Width: size[0], Height: size[1], Screen: Incident, Lang: lang, UTF8: utf8, Help: true}
				fits(t, f.String(nil), size[0], size[1], utf8)
				golden(t, fmt.Sprintf("frames-%dx%d-%s-%v.txt", size[0], size[1], lang, map[bool]string{true: "utf8", false: "ascii"}[utf8]), all.String())
			}
		}
	}
	if got := (&Frame{Width: 50, Height: 10}).String(s); !strings.Contains(got, "needs 60 x 16") {
		t.Errorf("too small: %q", got)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", file, got)
	}
}

func strip(s string) string {
	for _, style := range []string{bold, red, yellow, green, dim, invert, "\x1b[0m"} {
		s = strings.ReplaceAll(s, style, "")
	}
	return s
}

func trimmed(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// fits checks that a frame is of its size, without characters that consoles lack or draw at another width.
func fits(t *testing.T, frame string, w, h int, utf8 bool) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != h {
		t.Errorf("%d lines, want %d", len(lines), h)
	}
	for _, l := range lines {
		if report.Width(l) > w {
			t.Errorf("%d columns, want at most %d: %q", report.Width(l), w, l)
		}
		for _, r := range l {
			switch {
			case r >= 0x2500 && r < 0x2580, r >= 0x2800 && r < 0x2900:
				t.Errorf("%q in %q", r, l)
			case !utf8 && r > 0x7e && (r < 0x1100 || r > 0xd7a3 || r >= 0x2000 && r < 0x3000):
				t.Errorf("%q beyond ASCII in %q", r, l)
			}
		}
	}
}

// A state stays as it was when the engine goes on.
func TestTakeSharesNothing(t *testing.T) {
	d := &analyze.Diagnosis{Findings: []*analyze.Finding{{ID: "a", Severity: "warn"}}, Steps: []analyze.StepVerdict{{Step: "x"}}}
	s := Take(start, d, &view.View{Width: 1, Start: start})
	before, _ := json.Marshal(s)
	d.Findings[0].Severity, d.Steps[0].Step = "error", "y"
	if now, _ := json.Marshal(s); string(now) != string(before) {
		t.Error("the state has changed")
	}
}

func press(m *Model, keys ...string) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k}
		switch k {
		case "left":
			msg = tea.KeyPressMsg{Code: tea.KeyLeft}
		case "right":
			msg = tea.KeyPressMsg{Code: tea.KeyRight}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "space":
			msg = tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
		default:
			msg.Code = rune(k[0])
		}
		if _, cmd := m.Update(msg); cmd != nil {
			m.Update(cmd())
		}
	}
}

func TestKeys(t *testing.T) {
	var acked, explained string
	m := NewModel(Frame{UTF8: true, Source: "server"}, Actions{Ack: func(id string) string { acked = id; return "done" },
		Explain: func(step string) string { explained = step; return "page of " + step }, Write: func() string { return "page.html" }})
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	if !strings.Contains(m.Text(), "Nothing seen yet") {
		t.Error("the frame before anything is seen")
	}
	for i := range 700 {
		m.Update(outage(20 + float64(i)))
	}
	packed := 0
	for _, p := range m.past {
		packed += len(p.json)
	}
	if n := len(m.past) + 1; n != history || packed > n*4096 {
		t.Errorf("%d states are kept, %d bytes", n, packed)
	}
	has := func(what string) {
		t.Helper()
		if !strings.Contains(m.Text(), what) {
			t.Errorf("the frame lacks %q:\n%s", what, m.Text())
		}
	}
	has("CAUSE  DNS queries unanswered")
	press(m, "2")
	has("[2 listeners]")
	press(m, "1", "down", "a")
	if acked != "cw-1" {
		t.Errorf("acknowledged %q", acked)
	}
	has("done")
	press(m, "e")
	if explained != "close-wait" || m.Text() != "page of close-wait" {
		t.Errorf("explained %q: %q", explained, m.Text())
	}
	press(m, "x", "enter")
	has("72 connections wait.")
	press(m, "enter", "l")
	has("DNS 무응답")
	press(m, "l", "left", "left")
	has("2 s ago")
	m.Update(outage(720)) // the moment that is looked at stays
	has("3 s ago")
	m.Update(Gone{Since: 12 * time.Second, Why: "connection refused"})
	has("agent gone since 12 s: connection refused")
	m.Update(outage(722)) // it is back
	if strings.Contains(m.Text(), "gone") {
		t.Errorf("gone for ever:\n%s", m.Text())
	}
	has("5 s ago")
	press(m, "right", "right", "right", "right", "space")
	has("frozen")
	press(m, "space", "/", "c", "l", "o", "s", "e", "enter")
	if s := m.Text(); strings.Contains(s, "DNS queries") || !strings.Contains(s, "CLOSE_WAIT") {
		t.Errorf("filtered:\n%s", s)
	}
	press(m, "?")
	has("acknowledge, through the agent")
	if _, cmd := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil {
		t.Error("q does not quit")
	}
}
