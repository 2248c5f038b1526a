package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

// The page of each bundled case gives the answers of its diagnosis; who looks on changes no record; two runs give the same bytes.
func TestPageOfCases(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	cases := pageCases(t)
	for i, name := range slices.Sorted(maps.Keys(cases)) {
		if testing.Short() && i%8 != 0 {
			continue // as in TestBundledCases
		}
		file := cases[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := func(page *pageFile) (*analyze.Diagnosis, string) {
				in, err := diagnose.Open([]string{file})
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				var records bytes.Buffer
				enc := json.NewEncoder(&records)
				d, inErr, err := diagnose.Watched(t.Context(), in, set, nil, page.watch(), func(f *analyze.Finding) error { return enc.Encode(f) })
				if inErr != nil || err != nil {
					t.Fatal(inErr, err)
				}
				o := report.Options{Catalogue: report.Rules(set)}
				if err := page.write(t.Context(), []string{file}, openerOf([]string{file}), in.Report(nil), d, o, false); err != nil {
					t.Fatal(err)
				}
				return d, records.String()
			}
			var pages [2]string
			var records [2]string
			var d *analyze.Diagnosis
			for i := range pages {
				name := filepath.Join(t.TempDir(), "page.html")
				p, err := openPage(name)
				if err != nil {
					t.Fatal(err)
				}
				d, records[i] = run(p)
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				pages[i] = string(b)
			}
			if _, alone := run(nil); records[0] != alone {
				t.Error("the records are not those of a run without a page")
			}
			if pages[0] != pages[1] {
				t.Error("two runs give different pages")
			}
			if n := strings.Count(pages[0], "<"); n > 2*15_000 || len(pages[0]) > 2<<20 {
				t.Errorf("%d tags, %d bytes", n, len(pages[0]))
			}
			for _, bad := range []string{"NaN", "%!", "<script", "ZgotmplZ"} {
				if strings.Contains(pages[0], bad) {
					t.Errorf("the page has %q", bad)
				}
			}
			answers(t, pages[0], d)
			if name == socketsOnly && (d.Coverage.Packets > 0 || len(d.Roots) == 0) {
				t.Errorf("%d packets, roots %v: this case is to have none, and one", d.Coverage.Packets, d.Roots)
			}
		})
	}
}

const socketsOnly = "sockets-only"

// pageCases are the bundled captures and recordings by name, and the samples of one of these without its packets.
func pageCases(t *testing.T) map[string]string {
	t.Helper()
	cases := map[string]string{}
	for _, pattern := range []string{"packets.pcap.zst", "samples.jsonl.zst"} {
		files, err := filepath.Glob("../../fixtures/*/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			dir := filepath.Dir(file)
			if cases[filepath.Base(dir)] = file; pattern == "samples.jsonl.zst" {
				cases[filepath.Base(dir)] = dir
			}
		}
	}
	cases[socketsOnly] = t.TempDir()
	b, err := os.ReadFile(filepath.Join(cases["exhausted-descriptors"], "samples.jsonl.zst"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cases[socketsOnly], "samples.jsonl.zst"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var empty bytes.Buffer
	w, err := pcapgo.NewNgWriter(&empty, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), os.WriteFile(filepath.Join(cases[socketsOnly], "packets.pcapng"), empty.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return cases
}

// answers compares the four boxes with the diagnosis.
func answers(t *testing.T, page string, d *analyze.Diagnosis) {
	t.Helper()
	if len(d.Roots) == 0 {
		return
	}
	box := func(id string) string {
		m := regexp.MustCompile(`(?s)id="` + id + `">.*?class="answer">(.*?)</p>`).FindStringSubmatch(page)
		if m == nil {
			return ""
		}
		return m[1]
	}
	for _, f := range d.Findings {
		if f.Role != analyze.Root || !strings.Contains(box("what"), f.Title.En) || !strings.Contains(box("what"), f.Title.Ko) {
			continue
		}
		since := f.Onset.Time().Format("15:04:05.000")
		if strings.Contains(box("where"), f.Subject.Host) && strings.Contains(box("where"), f.Subject.Peer) && strings.Contains(box("since"), since) &&
			strings.Contains(box("cause"), "Root cause") {
			return
		}
	}
	t.Errorf("no root of the diagnosis has these answers: %q, %q, %q, %q", box("what"), box("where"), box("since"), box("cause"))
}

// A place that cannot be written is refused before the analysis, and what was not finished leaves nothing behind.
func TestPagePlace(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir, filepath.Join(dir, "missing", "page.html")} {
		if p, err := openPage(name); err == nil {
			p.discard()
			t.Errorf("%s is accepted", name)
		}
	}
	p, err := openPage(filepath.Join(dir, "page.html"))
	if err != nil {
		t.Fatal(err)
	}
	p.discard()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}
