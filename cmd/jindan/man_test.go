package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each command has a page with the sections that an operator looks for.
func TestManuals(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(&app{})
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{".SH NAME", ".SH SYNOPSIS", ".SH EXIT STATUS", ".SH ENVIRONMENT"}
		switch filepath.Base(p) {
		case "jindan-run.1":
			want = append(want, ".SH FILES", "/etc/jindan/jindan.yaml", ".SH SIGNALS", "SIGHUP", "SIGUSR1")
		case "jindan-analyze.1":
			want = append(want, ".SH SIGNALS", "\\-\\-fail\\-on.")
		case "jindan-config-check.1":
			want = append(want, ".SH FILES")
		}
		for _, w := range want {
			if strings.Count(string(text), w) == 0 {
				t.Errorf("%s lacks %q", filepath.Base(p), w)
			}
		}
	}
}
