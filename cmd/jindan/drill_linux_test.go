package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/fixtures/lab"
	"jindan/fixtures/lab/testbed"
)

// TestIntegrationDrill drives a part of the lab live: incidents of each kind, and what must stay silent.
func TestIntegrationDrill(t *testing.T) {
	if err := testbed.Missing(); err != nil {
		t.Skip(err)
	}
	scenarios, err := findScenarios(strings.Fields("five-short S7 S1 S1c ports leak loss5 S5b S6a N17 healthy N7"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	// The test program can be jindan, too.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(t.TempDir(), "jindan")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\nexec env "+asProgram+"=1 "+self+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	selfPath = func() (string, error) { return agent, nil }
	defer func() { selfPath = os.Executable }()
	a := &app{log: newLog("text", false)}
	records := a.drillMany(context.Background(), set, scenarios, drillFlags{seed: 5, runs: 1, jobs: 6, output: "text", agent: true})
	if len(records) != len(scenarios) {
		t.Errorf("%d of %d runs", len(records), len(scenarios))
	}
	for _, r := range records {
		if r.Error != "" || len(r.Wrong) > 0 {
			t.Errorf("%s, seed %d: %s %s", r.Scenario, r.Seed, r.Error, strings.Join(r.Wrong, "; "))
		}
	}
}

func TestDrillTable(t *testing.T) {
	s := lab.Scenario{ID: "x", Title: "t", Expect: lab.Expectation{Root: "surge"}}
	rec := drillRecord{Roots: []string{"surge[single]"}, First: 1, Root: 2.5}
	rec.name(s, 1)
	if rec.Schema != "jindan.drill/v1" || rec.Wrong == nil || rec.Expected != "surge" {
		t.Errorf("%+v", rec)
	}
	if err := outcome([]drillRecord{rec}); err != nil {
		t.Error(err)
	}
	wrong := rec
	wrong.Wrong = []string{"so"}
	var got *status
	if err := outcome([]drillRecord{rec, wrong}); !errors.As(err, &got) || got.code != exitFailOn {
		t.Errorf("%v", err)
	}
	wrong.Error = "no"
	if err := outcome([]drillRecord{rec, wrong}); !errors.As(err, &got) || got.code != exitUnusable {
		t.Errorf("%v", err)
	}
	if got := seconds([]float64{1, 3.04, 2}); got != "1.0–3.0 s" {
		t.Error(got)
	}
}
