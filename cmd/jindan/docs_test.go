package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

// TestDocs: what the pages link to is there, and the README stays a page that a stranger finishes.
func TestDocs(t *testing.T) {
	pages := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, dir := range []string{"analyze", "cmd", "fixtures", "packaging", "rules"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(name string, _ os.DirEntry, err error) error {
			if filepath.Base(name) == "node_modules" { // not ours
				return filepath.SkipDir
			}
			if filepath.Base(name) == "README.md" {
				rel, _ := filepath.Rel("../..", name)
				pages = append(pages, rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(page), -1) {
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			found := m[2] == ""
			if !found {
				for _, h := range heading.FindAllStringSubmatch(read(target), -1) {
					found = found || strings.ReplaceAll(strings.ToLower(h[1]), " ", "-") == m[2]
				}
			}
			if !found {
				t.Errorf("%s links to %s#%s, and there is no such heading", page, target, m[2])
			}
		}
	}
	if n := strings.Count(read("README.md"), "\n"); n > 220 {
		t.Errorf("README.md has %d lines, more than 220: longer texts belong to the README of the folder that they speak of", n)
	}
}

// TestReadmeSamples: what the README shows of two captures is what is said of them today.
func TestReadmeSamples(t *testing.T) {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```")
	for i, dir := range map[int]string{1: "gpki-2023-11-17", 3: "quiet-healthy"} {
		files, err := filepath.Glob("../../fixtures/" + dir + "/packets.pcap*")
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		in, err := diagnose.Open(files)
		if err != nil {
			t.Fatal(err)
		}
		d, inErr, err := diagnose.Run(t.Context(), in, set, nil, func(*analyze.Finding) error { return nil })
		in.Close()
		if err != nil || inErr != nil {
			t.Fatal(err, inErr)
		}
		var out bytes.Buffer
		o := report.Options{Lang: report.English, Width: 100, Zone: time.UTC, Catalogue: report.Rules(set, inputsOf(d)...)}
		if err := report.Text(&out, in.Report(nil), d, o); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		for line := range strings.Lines(blocks[i]) {
			line = strings.TrimRight(line, "\n")
			if !slices.Contains(lines, line) && strings.TrimSpace(line) != "…" {
				t.Errorf("README, of %s: nothing says %q today", dir, line)
			}
		}
	}
}
