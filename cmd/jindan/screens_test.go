package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

// screens are what analyze/README.md shows, by recorded case.
var screens = []struct{ dir, scenario string }{
	{"gpki-2023-11-17", "S1"}, {"slow-dns", "S1c"}, {"load-balancer", "S1d"}, {"surge-one-source", "S4"}, {"dead-upstream-silent", "S5a"},
	{"two-faults", "two faults at the same time"},
}

// TestScreens: what a person reads of an incident fits a terminal of 80 columns and 40 lines, and analyze/README.md shows it as it is today.
func TestScreens(t *testing.T) {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, s := range screens {
		for i, screen := range screen(t, set, s.dir) {
			name := [...]string{"English", "한국어"}[i]
			if n := strings.Count(screen, "\n"); n > 40 {
				t.Errorf("%s, %s: %d lines", s.dir, name, n)
			}
			fmt.Fprintf(&all, "\n<details><summary>%s, %s (fixtures/%s)</summary>\n\n```\n%s```\n</details>\n", s.scenario, name, s.dir, screen)
		}
	}
	const file, begin, end = "../../analyze/README.md", "<!-- screens -->\n", "\n<!-- end of screens -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	shown, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	if shown == all.String() {
		return
	}
	if !*update {
		t.Errorf("%s shows other screens; -update writes them", file)
		return
	}
	if err := os.WriteFile(file, []byte(before+begin+all.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// screen is what jindan analyze says of a recorded case in English and in Korean.
func screen(t *testing.T, set *rules.Set, dir string) (out [2]string) {
	t.Helper()
	files, err := filepath.Glob("../../fixtures/" + dir + "/packets.pcap*")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	in, err := diagnose.Open(files)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d, inErr, err := diagnose.Run(t.Context(), in, set, nil, func(*analyze.Finding) error { return nil })
	if err != nil || inErr != nil {
		t.Fatal(err, inErr)
	}
	for i, lang := range []report.Lang{report.English, report.Korean} {
		var b bytes.Buffer
		o := report.Options{Lang: lang, Width: 80, Zone: time.UTC, Catalogue: report.Rules(set, inputsOf(d)...)}
		if err := report.Text(&b, in.Report(nil), d, o); err != nil {
			t.Fatal(err)
		}
		out[i] = b.String()
	}
	return out
}
