package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/analyze/detect"
	"jindan/cmd/internal/cli"
	"jindan/rules"
)

var update = flag.Bool("update", false, "rewrite the want.ndjson of the bundled cases")

// The bundled cases: their causes, their consequences, and what must stay unsaid.
func TestBundledCases(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../fixtures/*/" + caseFile)
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for i, file := range files {
		if testing.Short() && i%8 != 0 {
			continue // the race detector needs the ways through the program, not each verdict
		}
		c, err := readCase(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, err := c.run(t.Context(), &app{App: cli.App{Log: cli.NewLog("text", false)}}, set)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range c.Expect.check(set, d) {
				t.Error(problem)
			}
			got := reduce(d)
			if *update {
				if err := c.save(got); err != nil {
					t.Fatal(err)
				}
			}
			diff, err := c.compare(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range diff {
				t.Error(line)
			}
		})
	}
}

// unrecorded are the rules that no recorded case can show, with the reason.
var unrecorded = map[string]string{
	"port-error": "virtual interfaces are left out, and a recording with errors of a wire needs one that is broken",
}

// Every rule has a recorded case in which it finds something, and one in which it finds nothing.
func TestBundledCasesOfEachRule(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	cases, err := findCases([]string{"../../fixtures"})
	if err != nil {
		t.Fatal(err)
	}
	found, silent := map[string]bool{}, map[string]bool{}
	for _, c := range cases {
		for _, id := range c.Expect.Silent {
			silent[id] = true
		}
		b, err := os.ReadFile(c.want())
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			var f wantFinding
			if err := json.Unmarshal([]byte(l), &f); err != nil {
				t.Fatal(err)
			}
			found[f.Rule] = true
		}
	}
	for _, r := range set.Rules {
		if why := unrecorded[r.ID]; why != "" {
			t.Logf("%s: no case finds it: %s", r.ID, why)
		} else if !found[r.ID] {
			t.Errorf("%s: no recorded case in which it finds anything", r.ID)
		}
		if !silent[r.ID] {
			t.Errorf("%s: no recorded case in which it is expected to find nothing", r.ID)
		}
	}
}
