package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
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

func render(t *testing.T, in Input, d *analyze.Diagnosis, o Options) string {
	t.Helper()
	var b strings.Builder
	o.Catalogue = fakeCatalogue{}
	if err := Text(&b, in, d, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	seoul := time.FixedZone("+09:00", 9*3600)
	for _, lang := range []Lang{English, Korean} {
		in, d := outage()
		golden(t, "outage."+string(lang)+".txt", render(t, in, d, Options{Lang: lang, Zone: seoul}))
		golden(t, "outage-verbose."+string(lang)+".txt", render(t, in, d, Options{Lang: lang, Verbose: true}))
		golden(t, "outage-narrow."+string(lang)+".txt", render(t, in, d, Options{Lang: lang, Width: 72}))
		golden(t, "outage-summary."+string(lang)+".txt", render(t, in, d, Options{Lang: lang, Summary: true}))
		in, d = poor()
		golden(t, "poor."+string(lang)+".txt", render(t, in, d, Options{Lang: lang}))
		in, d = healthy()
		golden(t, "healthy."+string(lang)+".txt", render(t, in, d, Options{Lang: lang}))
	}
	in, d := outage()
	golden(t, "outage-color.en.txt", render(t, in, d, Options{Color: true}))
}

// poor is two causes in a capture of bad quality, cut short and interrupted.
func poor() (Input, *analyze.Diagnosis) {
	in, d := outage()
	in.Files = []File{{Name: "a.pcap", Damage: "a packet record of 4,325,376 bytes, at byte 812"}, {Name: "b.pcap", Cut: true, CutOffset: 123456}, {Name: "c.txt", Unread: true}}
	in.Interrupted = true
	c := &d.Coverage
	c.Copies, c.CaptureLoss, c.OneWay, c.LocalBy, c.Local = 4896, 374, 1, string(analyze.LocalNone), ""
	c.Lost = map[string]uint64{"not_ip": 12, "truncated": 3, "malformed": 1, "kernel_drop": 88}
	other := fakeFinding("surge", analyze.Subject{Kind: analyze.SubjectSource, Host: server, Peer: "2001:db8::7", Port: 443}, 3,
		"Surge from one source", "접속 폭주", "2001:db8::7 opens 300 connections per second, 89 % of all. They are held.", "2001:db8::7이 초당 300개, 전체의 89%를 엽니다.")
	other.Role, other.State, other.LastSeen = analyze.Root, analyze.Resolved, after(9)
	lone := fakeFinding("slow-receiver", analyze.Subject{Kind: analyze.SubjectUpstream, Host: server, Peer: "10.77.9.9", Port: 5432}, 8,
		"Slow receiver", "느린 수신 측", "10.77.9.9 closes its window for 3 s.", "10.77.9.9가 수신 창을 3초간 닫습니다.")
	lone.Severity = "warn"
	d.Findings = append(d.Findings, other, lone)
	d.Roots = append([]string{other.ID}, d.Roots...)
	d.Chain = append([]string{other.ID}, d.Chain...)
	return in, d
}

func TestFirstScreen(t *testing.T) {
	for _, lang := range []Lang{English, Korean} {
		for _, width := range []int{60, 80, 100, 200} {
			for name, build := range map[string]func() (Input, *analyze.Diagnosis){"outage": outage, "poor": poor} {
				in, d := build()
				s := render(t, in, d, Options{Lang: lang, Width: width})
				lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
				limit := map[string]int{"outage": firstScreen, "poor": firstScreen + 3}[name]
				if width >= 100 && len(lines) > limit {
					t.Errorf("%s, %s, %d columns: %d lines", name, lang, width, len(lines))
				}
				for _, l := range lines {
					if strings.HasPrefix(strings.TrimSpace(l), "`") {
						continue // a command is never wrapped
					}
					if Width(l) > width || Width(l) > maxWidth {
						t.Errorf("%s, %s: %d columns, want at most %d: %q", name, lang, Width(l), width, l)
					}
				}
			}
		}
		in, d := healthy()
		if n := strings.Count(render(t, in, d, Options{Lang: lang}), "\n"); n != 3 {
			t.Errorf("%s: a healthy capture takes %d lines", lang, n)
		}
	}
}

func TestNothingToDiagnose(t *testing.T) {
	s := render(t, Input{Files: []File{{Name: "arp.pcap"}}}, &analyze.Diagnosis{}, Options{})
	if !strings.Contains(s, "no TCP connection and no DNS query") || strings.Contains(s, "Healthy") {
		t.Errorf("got:\n%s", s)
	}
}

func TestHostileNames(t *testing.T) {
	in, d := outage()
	in.Files[0].Name = "a\x1b[2J\u202eb\n\x9b31mc"
	d.Findings[0].Title.En = "x\x1b]0;owned\a"
	s := render(t, in, d, Options{})
	if strings.ContainsAny(s, "\x1b\a\u202e\u009b") {
		t.Errorf("control characters pass: %q", s)
	}
}

func TestColorOff(t *testing.T) {
	in, d := outage()
	if s := render(t, in, d, Options{Verbose: true}); strings.Contains(s, "\x1b") {
		t.Error("colours without Options.Color")
	}
}

func TestRecords(t *testing.T) {
	_, d := outage()
	for _, ecs := range []bool{false, true} {
		var b bytes.Buffer
		r := NewRecords(&b, ecs)
		for _, f := range d.Findings {
			if err := r.Finding(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Diagnosis(d); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != len(d.Findings)+1 {
			t.Errorf("ecs=%t: %d lines for %d records", ecs, len(lines), len(d.Findings)+1)
		}
		for _, l := range lines {
			if !json.Valid([]byte(l)) {
				t.Errorf("ecs=%t: not JSON: %s", ecs, l)
			}
		}
		if ecs {
			var pretty bytes.Buffer
			for _, i := range []int{0, 2, len(lines) - 1} {
				_ = json.Indent(&pretty, []byte(lines[i]), "", "  ")
				pretty.WriteByte('\n')
			}
			golden(t, "ecs.json", pretty.String())
		}
	}
}

func TestECSEnds(t *testing.T) {
	for _, c := range []struct {
		s        analyze.Subject
		src, dst string
		dir      string
	}{
		{analyze.Subject{Kind: analyze.SubjectPath, Host: "h", Peer: "p", Direction: "inbound"}, "p:0", "h:0", "ingress"},
		{analyze.Subject{Kind: analyze.SubjectPath, Host: "h", Peer: "p", Direction: "outbound"}, "h:0", "p:0", "egress"},
		{analyze.Subject{Kind: analyze.SubjectService, Host: "h", Port: 80}, "", "h:80", "ingress"},
		{analyze.Subject{Kind: analyze.SubjectUpstream, Host: "h", Peer: "p", Port: 80}, "h:0", "p:80", "egress"},
		{analyze.Subject{Kind: analyze.SubjectResolver, Host: "h", Peer: "p", Port: 53}, "h:0", "p:53", "egress"},
		{analyze.Subject{Kind: analyze.SubjectSource, Host: "h", Peer: "p", Port: 80}, "p:0", "h:80", "ingress"},
		{analyze.Subject{Kind: analyze.SubjectHost, Host: "h"}, "", "h:0", ""},
		{analyze.Subject{Kind: analyze.SubjectHost, Host: "10.0.0.1"}, "", "ip 10.0.0.1:0", ""},
		{analyze.Subject{Kind: analyze.SubjectCapture}, "", "", ""},
	} {
		e := ECSFinding(&analyze.Finding{Subject: c.s, Severity: "warn"})
		str := func(p *ecsPoint) string {
			if p == nil {
				return ""
			}
			if p.IP != "" { // the field ip takes addresses only
				return "ip " + p.IP + ":" + count(uint64(p.Port))
			}
			return p.Address + ":" + count(uint64(p.Port))
		}
		dir := ""
		if e.Network != nil {
			dir = e.Network.Direction
		}
		if str(e.Source) != c.src || str(e.Destination) != c.dst || dir != c.dir {
			t.Errorf("%s: %s > %s, %s; want %s > %s, %s", c.s.Kind, str(e.Source), str(e.Destination), dir, c.src, c.dst, c.dir)
		}
		if !slices.Contains([]int{21, 47, 73}, e.Event.Severity) {
			t.Errorf("event.severity %d", e.Event.Severity)
		}
	}
}

// A host without traffic says what was looked at all the same.
func TestSamplesTold(t *testing.T) {
	in, d := healthy()
	d.Coverage.Samples = 37
	for lang, want := range map[Lang]string{English: "37 samples of sockets and counters", Korean: "표본 37건(소켓, 카운터)"} {
		if s := render(t, in, d, Options{Lang: lang}); !strings.Contains(s, want) {
			t.Errorf("%q is missing:\n%s", want, s)
		}
	}
}

// The things to do bear the number of their cause, and each cause has its first before any has its second.
func TestNextByCause(t *testing.T) {
	in, d := poor()
	for i, id := range d.Roots {
		for _, f := range d.Findings {
			if f.ID == id {
				f.Next = []analyze.Text{{En: fmt.Sprintf("first of %d", i+1)}, {En: fmt.Sprintf("second of %d", i+1)}}
			}
		}
	}
	s := render(t, in, d, Options{Lang: English, Verbose: true})
	last := -1
	for _, want := range []string{"1.1 first of 1", "1.2 second of 1", "2.1 first of 2", "2.2 second of 2"} {
		at := strings.Index(s, want)
		if at <= last {
			t.Errorf("%q is missing, or before its turn:\n%s", want, s)
		}
		last = at
	}
	if s := render(t, in, d, Options{Lang: English, Width: 100}); strings.Contains(s, "second of 1") && !strings.Contains(s, "first of 2") {
		t.Errorf("the second cause has nothing:\n%s", s)
	}
}

// TCP's flags are written in capitals, names as they are.
func TestPlace(t *testing.T) {
	for segment, want := range map[string]string{
		"syn": "192.0.2.9:443, SYN", "data": "192.0.2.9:443", "python3 (pid 7)": "192.0.2.9:443, python3 (pid 7)", "eth0": "192.0.2.9:443, eth0",
	} {
		s := analyze.Subject{Kind: analyze.SubjectService, Host: "192.0.2.9", Port: 443, Segment: segment}
		if got := English.place(s); got != want {
			t.Errorf("%q is at %q, want %q", segment, got, want)
		}
	}
}

// A screen on faults that are all over says so first; one that is not over takes that back.
func TestOverIsSaid(t *testing.T) {
	screen := func(states ...analyze.State) string {
		in, d := outage()
		for i, s := range states {
			d.Incidents = append(d.Incidents, analyze.Incident{ID: fmt.Sprint(i), State: s, Severity: "error", Begin: after(0), End: after(float64(i))})
		}
		var b bytes.Buffer
		if err := Text(&b, in, d, Options{}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if s := screen(analyze.Resolved, analyze.Resolved); !strings.Contains(s, "Over        2 incidents, all over at the end; last seen 23:40:04.000") {
		t.Errorf("two that are over:\n%s", s)
	}
	if s := screen(analyze.Resolved); !strings.Contains(s, "Over        1 incident, which was over at the end") {
		t.Errorf("one that is over:\n%s", s)
	}
	if s := screen(analyze.Open, analyze.Resolved); strings.Contains(s, "Over ") {
		t.Errorf("one of two:\n%s", s)
	}
}
