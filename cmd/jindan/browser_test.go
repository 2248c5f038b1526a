package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

// What only a browser can tell of pages: no request, no text outside its picture or over another one, the languages, the width of a
// telephone, axe's rules of WCAG 2.2 A and AA, print. `make test-browser` fetches what it needs.
func TestBrowser(t *testing.T) {
	t.Parallel()
	const dir = "../internal/report/browser"
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		chromium = "/usr/bin/chromium"
	}
	if _, err := os.Stat(chromium); err != nil {
		t.Skipf("no browser: %v (apt-get install chromium fonts-nanum, or set CHROMIUM)", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Skipf("no node: %v", err)
	}
	// Debian 12 has Node.js 18; playwright-core needs 20.
	if err := exec.CommandContext(t.Context(), "node", "-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)").Run(); err != nil {
		t.Skip("Node.js is older than 20")
	}
	if _, err := os.Stat(dir + "/node_modules/playwright-core"); err != nil {
		t.Skip("playwright-core and axe-core are not installed: make test-browser does it")
	}
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	args := []string{dir + "/check.mjs"}
	cases := pageCases(t)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		file := cases[name]
		page, err := openPage(filepath.Join(t.TempDir(), name+".html"))
		if err != nil {
			t.Fatal(err)
		}
		in, err := diagnose.Open([]string{file})
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := diagnose.Watched(t.Context(), in, set, nil, page.watch(), func(*analyze.Finding) error { return nil })
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := page.write(t.Context(), []string{file}, openerOf([]string{file}), in.Report(nil), d, report.Options{Catalogue: report.Rules(set)}, false); err != nil {
			t.Fatal(err)
		}
		// The others are looked at once: their first screen, the layout of their texts, and what they ask for.
		if !slices.Contains([]string{"gpki-2023-11-17", "connection-refused", "quiet-healthy", socketsOnly}, name) {
			args = append(args, "--once")
		}
		args = append(args, page.name)
	}
	if out, err := exec.CommandContext(t.Context(), "node", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
