package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

// A Korean reader reads no English beside a finding: every note that a detector writes has its words in Korean, too.
func TestNotesInKorean(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: analyses every bundled capture")
	}
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("../../fixtures/*/packets.pcap*")
	if err != nil || len(dirs) < 10 {
		t.Fatalf("%d cases, %v", len(dirs), err)
	}
	hangul, seen := regexp.MustCompile(`\p{Hangul}`), 0
	check := func(f *analyze.Finding) {
		for _, e := range f.Evidence {
			seen++
			if ko := report.Korean.Note(e.Note); e.Note != "" && !hangul.MatchString(ko) {
				t.Errorf("%s: %q is %q in Korean", f.Rule, e.Note, ko)
			}
		}
	}
	for _, d := range dirs {
		in, err := diagnose.Open([]string{filepath.Dir(d)})
		if err != nil {
			t.Fatal(err)
		}
		diagnosis, inErr, err := diagnose.Run(t.Context(), in, set, nil, func(f *analyze.Finding) error { check(f); return nil })
		in.Close()
		if err != nil || inErr != nil {
			t.Fatal(d, err, inErr)
		}
		for _, f := range diagnosis.Findings {
			check(f)
		}
	}
	if seen < 100 {
		t.Errorf("%d notes", seen)
	}
	// Those that no case has stand as they are in the source of the detectors and of what they measure.
	note := regexp.MustCompile(`Note: "([a-zA-Z][^"]*)"|Note\{[^}\n]*, "([^"]*)"\}|NoteOf\(e, "([^"]*)"\)|NoteAt\([^"\n]*, "([^"]*)"\)|\.evidence\([^"()\n]*, "([^"]+)"\)|t\.mark\(e, "([^"]*)"\)|(?:note|what) :?= "([^"]{6,})"`)
	files, err := filepath.Glob("../../analyze/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range note.FindAllStringSubmatch(string(b), -1) {
			en := strings.Join(m[1:], "")
			if strings.HasSuffix(en, " ") { // what follows is not known here
				continue
			}
			if !hangul.MatchString(report.Korean.Note(en)) {
				t.Errorf("%s: %q has no Korean", filepath.Base(file), en)
			}
		}
	}
}

// The pages of the rules have severities, times and the units of thresholds in Korean.
func TestThresholdsInKorean(t *testing.T) {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Rules {
		var b bytes.Buffer
		if err := report.RulePage(&b, set, r, report.Options{Lang: report.Korean, Width: 400}); err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`심각도 (error|warn|info)|[0-9]m[0-9]+s 동안`).MatchString(b.String()) {
			t.Errorf("%s: severities or times of the program", r.ID)
		}
		for _, x := range r.Thresholds {
			if !regexp.MustCompile(`\p{Hangul}`).MatchString(x.Korean) || strings.Contains(b.String(), " "+x.Source+"\n") {
				t.Errorf("%s: the source of %s is English: %q", r.ID, x.Name, x.Source)
			}
			if len(x.Unit) > 3 && x.Unit != "share" && strings.Contains(b.String(), x.Text+" "+x.Unit+". ") {
				t.Errorf("%s: %s is in %q", r.ID, x.Name, x.Unit)
			}
		}
	}
}
