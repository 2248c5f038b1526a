package main

import (
	"flag"
	"path/filepath"
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
	for _, file := range files {
		c, err := readCase(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, err := c.run(t.Context(), &app{cli.App{Log: cli.NewLog("text", false)}}, set)
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
