// Package drill rebuilds incidents and drawn sites with the lab, and holds the diagnosis against what is expected.
package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/fixtures/lab/testbed"
	"jindan/rules"
)

// Options are the flags of the command.
type Options struct {
	Keep   string // directory that the captures and the truth of runs are kept in; empty: none is kept
	Seed   uint64
	Runs   int // how many seeds, from Seed on
	Jobs   int // runs at a time
	Output string
	Rules  string // directory with rules of one's own
	Agent  string // program that is run as the agent on the captured host; empty: none is
}

// Command is the drill command.
type Command struct{ *cli.App }

// List prints the scenarios.
func List() error {
	table := [][]string{{"SCENARIO", "TAKES", "EXPECTED", "WHAT HAPPENS"}}
	for _, s := range lab.Scenarios() {
		table = append(table, []string{s.ID, fmt.Sprintf("%.0f s", (s.Healthy + s.Faulty).Seconds()), expected(s.Expect), s.Title})
	}
	out := bufio.NewWriter(os.Stdout)
	report.Table(out, table)
	return out.Flush()
}

// Again diagnoses kept runs once more.
func (a Command) Again(ctx context.Context, dirs []string, f Options) error {
	set, err := diagnose.Catalogue(f.Rules)
	if err != nil {
		return a.FailEach(err)
	}
	if err := cli.OneOf("--output", f.Output, "text", "markdown", "ndjson"); err != nil {
		return err
	}
	var records []record
	var scenarios []lab.Scenario
	for _, dir := range dirs {
		truth, err := lab.ReadTruth(dir)
		if err != nil {
			return err
		}
		s, err := lab.Find(truth.Scenario)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		truth.Expected, truth.Elsewhere = s.Expect, s.Elsewhere // as of today
		run, err := diagnoseRun(ctx, set, truth, dir)
		if err == nil {
			err = run.judgeAgents(ctx, nil, truth, dir)
		}
		if err == nil {
			err = run.judgeRecordings(ctx, set, truth, dir) // the rules may be others now
		}
		if err != nil {
			return err
		}
		records = append(records, run.record(s, truth.Seed))
		if !slices.ContainsFunc(scenarios, func(o lab.Scenario) bool { return o.ID == s.ID }) {
			scenarios = append(scenarios, s)
		}
		a.tell(records[len(records)-1], f.Output, len(records), len(dirs))
	}
	if f.Output != "ndjson" {
		if err := writeTable(f.Output == "markdown", scenarios, records); err != nil {
			return err
		}
	}
	return outcome(records)
}

// expected names the root, and the other rules that name the same cause; a dash where nothing must be found.
func expected(e lab.Expectation) string {
	if e.Root == "" {
		return "–"
	}
	return strings.Join(append([]string{e.Root}, e.AlsoRoot...), " or ")
}

// Run plays scenarios, and says whether each is diagnosed as expected.
func (a Command) Run(ctx context.Context, args []string, f Options) error {
	if err := cli.OneOf("--output", f.Output, "text", "markdown", "ndjson"); err != nil {
		return err
	}
	if f.Runs < 1 || f.Jobs < 1 {
		return fmt.Errorf("--runs and --jobs must be at least 1")
	}
	scenarios, err := findScenarios(args)
	if err != nil {
		return err
	}
	set, err := diagnose.Catalogue(f.Rules)
	if err != nil {
		return a.FailEach(err)
	}
	if err := testbed.Missing(); err != nil {
		return err
	}
	if len(scenarios) == 1 && f.Runs == 1 && f.Output == "text" {
		return a.one(ctx, set, scenarios[0], f)
	}
	records := a.many(ctx, set, scenarios, f)
	if ctx.Err() != nil {
		return cli.Exit(int(a.Interrupted.Load()), fmt.Errorf("interrupted after %d of %d runs", len(records), len(scenarios)*f.Runs))
	}
	if f.Output != "ndjson" {
		if err := writeTable(f.Output == "markdown", scenarios, records); err != nil {
			return err
		}
	}
	return outcome(records)
}

// outcome is the exit status of all runs.
func outcome(records []record) error {
	wrong, failed := 0, 0
	for _, r := range records {
		if r.Error != "" {
			failed++
		} else if len(r.Wrong) > 0 {
			wrong++
		}
	}
	return exit(failed, wrong, len(records), "runs could not be made", "diagnoses are not as expected")
}

// exit is the status where of so many some failed and others are wrong; nil where none did or is.
func exit(failed, wrong, of int, notRun, notRight string) error {
	switch {
	case failed > 0:
		return cli.Exit(cli.ExitUnusable, fmt.Errorf("%d of %d %s", failed, of, notRun))
	case wrong > 0:
		return cli.Exit(cli.ExitFailOn, fmt.Errorf("%d of %d %s", wrong, of, notRight))
	}
	return nil
}

// names are those that a scenario may be called by.
func names() (all []string) {
	for _, s := range lab.Scenarios() {
		all = append(append(all, s.ID), s.Aliases...)
	}
	return all
}

func findScenarios(args []string) ([]lab.Scenario, error) {
	var out []lab.Scenario
	for _, name := range args {
		if name == "all" {
			return lab.Scenarios(), nil
		}
		s, err := lab.Find(name)
		if err != nil {
			return nil, fmt.Errorf("%w%s ('jindan drill list' lists them)", err, cli.Near(name, names()))
		}
		out = append(out, s)
	}
	return out, nil
}

// many runs scenarios side by side, and tells of each as it ends.
func (a Command) many(ctx context.Context, set *rules.Set, scenarios []lab.Scenario, f Options) []record {
	type job struct {
		s    lab.Scenario
		seed uint64
	}
	jobs := make(chan job)
	var records []record
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range f.Jobs {
		wait.Go(func() {
			for j := range jobs {
				run, err := a.play(ctx, set, j.s, j.seed, f, func(string, time.Duration) {})
				if ctx.Err() != nil {
					return
				}
				var rec record
				if err != nil {
					rec.Error = cli.OneLine(err)
					rec.name(j.s, j.seed)
				} else {
					rec = run.record(j.s, j.seed)
				}
				mu.Lock()
				records = append(records, rec)
				a.tell(rec, f.Output, len(records), len(scenarios)*f.Runs)
				mu.Unlock()
			}
		})
	}
feed:
	for i := range f.Runs {
		for _, s := range scenarios {
			select {
			case jobs <- job{s, f.Seed + uint64(i)}:
			case <-ctx.Done():
				break feed
			}
		}
	}
	close(jobs)
	wait.Wait()
	return records
}

// tell writes how a run went: a record, or a line of progress.
func (a Command) tell(r record, output string, n, of int) {
	if output == "ndjson" {
		_ = json.NewEncoder(os.Stdout).Encode(r)
		return
	}
	msg := "as expected"
	switch {
	case r.Error != "":
		msg = "could not be run: " + r.Error
	case len(r.Wrong) > 0:
		msg = "NOT AS EXPECTED: " + strings.Join(r.Wrong, "; ")
	}
	a.Log.Info().Msgf("%d of %d: %s, seed %d: %s", n, of, r.Scenario, r.Seed, msg)
}
