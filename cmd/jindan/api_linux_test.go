package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/cmd/internal/config"
)

func TestMetrics(t *testing.T) {
	set, err := catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	ag, err := newAgent(&app{log: newLog("text", false)}, config.Default(), set, "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	ag.found["/a"] = &analyze.Finding{ID: "a", Rule: "surge", Severity: "error", State: analyze.Open, Onset: 5}
	ag.found["/b"] = &analyze.Finding{ID: "b", Rule: "surge", Severity: "error", State: analyze.Resolved, Onset: 9}
	ag.found["/c"] = &analyze.Finding{ID: "c", Rule: "leak", Severity: "warn", State: analyze.Update, Onset: 7}
	ag.counts[countKey{"surge", "error"}] = 3
	var b bytes.Buffer
	ag.metrics(&b)
	for _, want := range []string{
		"jindan_findings_open{rule=\"surge\",severity=\"error\"} 1\n",
		"jindan_findings_total{rule=\"surge\",severity=\"error\"} 3\n",
		"process_resident_memory_bytes",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	var ids []string
	for _, f := range ag.newest() {
		ids = append(ids, f.ID)
	}
	if got := strings.Join(ids, " "); got != "c a b" {
		t.Errorf("order %s", got)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "another agent serves it") {
		t.Errorf("a socket that is served was taken: %v", err)
	}
	l.Close()
	again, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
