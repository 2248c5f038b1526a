package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"jindan/analyze"
)

const (
	caseFile = "case.yaml"
	wantFile = "want.ndjson"
)

// testCase is a recorded case with what is expected of it.
type testCase struct {
	Title  string      `yaml:"title"`
	Local  string      `yaml:"local"`
	Points []string    `yaml:"points"` // NAME=FILE, as --point
	Expect expectation `yaml:"expect"`

	dir, name string
}

type expectation struct {
	Roots        *[]string `yaml:"roots"` // nil: not looked at
	Consequences []string  `yaml:"consequences"`
	MustNot      []string  `yaml:"must_not"`
	Silent       []string  `yaml:"silent"`
	NoneAt       string    `yaml:"none_at"`
}

func (c *testCase) want() string { return filepath.Join(c.dir, wantFile) }

// findCases reads the cases that args name: directories with a case.yaml, or directories of such.
func findCases(args []string) ([]testCase, error) {
	var cases []testCase
	var errs []error
	for _, dir := range args {
		dirs := []string{dir}
		if _, err := os.Stat(filepath.Join(dir, caseFile)); err != nil {
			files, _ := filepath.Glob(filepath.Join(dir, "*", caseFile)) // sorted
			if len(files) == 0 {
				errs = append(errs, fmt.Errorf("%s: has no %s, nor has a directory in it", dir, caseFile))
			}
			dirs = dirs[:0]
			for _, f := range files {
				dirs = append(dirs, filepath.Dir(f))
			}
		}
		for _, d := range dirs {
			c, err := readCase(d)
			if err != nil {
				errs = append(errs, err)
			}
			cases = append(cases, c)
		}
	}
	return cases, errors.Join(errs...)
}

func readCase(dir string) (testCase, error) {
	c := testCase{dir: dir, name: filepath.Base(dir)}
	file := filepath.Join(dir, caseFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			p := y.GetToken().Position
			return c, fmt.Errorf("%s:%d:%d: %s", file, p.Line, p.Column, y.GetMessage())
		}
		return c, fmt.Errorf("%s: %w", file, err)
	}
	if n := c.Expect.NoneAt; n != "" && !slices.Contains(severities, n) {
		return c, fmt.Errorf("%s: none_at is %s, not %q", file, strings.Join(severities, ", "), n)
	}
	return c, nil
}

// The lines of want.ndjson: what must not change unnoticed, without times and measurements.
type (
	wantFinding struct {
		Rule     string          `json:"rule"`
		Subject  analyze.Subject `json:"subject"`
		Severity string          `json:"severity"`
		State    analyze.State   `json:"state"`
		Role     analyze.Role    `json:"role"`
		Because  []string        `json:"because,omitempty"` // rules
	}
	wantStep struct {
		Step    string          `json:"step"`
		Verdict analyze.Verdict `json:"verdict"`
	}
)

// reduce returns the lines of want.ndjson for a diagnosis: its findings, sorted, and its verdicts.
func reduce(d *analyze.Diagnosis) []string {
	rule := map[string]string{}
	for _, f := range d.Findings {
		rule[f.ID] = f.Rule
	}
	var lines []string
	add := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings only
		}
		lines = append(lines, string(b))
	}
	for _, f := range d.Findings {
		w := wantFinding{Rule: f.Rule, Subject: f.Subject, Severity: f.Severity, State: f.State, Role: f.Role}
		for _, id := range f.Because {
			if !slices.Contains(w.Because, rule[id]) {
				w.Because = append(w.Because, rule[id])
			}
		}
		slices.Sort(w.Because)
		add(w)
	}
	slices.Sort(lines)
	for _, s := range d.Steps {
		add(wantStep{s.Step, s.Verdict})
	}
	return lines
}

// save makes got what is wanted.
func (c *testCase) save(got []string) error {
	return os.WriteFile(c.want(), []byte(strings.Join(got, "\n")+"\n"), 0o666)
}

// compare holds lines against want.ndjson, if there is one, and returns those that differ.
func (c *testCase) compare(got []string) ([]string, error) {
	data, err := os.ReadFile(c.want())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	want := strings.Split(strings.TrimSpace(string(data)), "\n")
	var diff []string
	for _, l := range want {
		if l = strings.TrimSpace(l); l != "" && !slices.Contains(got, l) {
			diff = append(diff, "- "+l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			diff = append(diff, "+ "+l)
		}
	}
	return diff, nil
}
