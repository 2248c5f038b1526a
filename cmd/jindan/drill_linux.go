package main

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

	"github.com/spf13/cobra"

	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/fixtures/lab/program"
	"jindan/fixtures/lab/testbed"
	"jindan/rules"
)

// runProgram ends the process if it was started as one of the lab's own programs.
func runProgram() { program.Main() }

// selfPath is the path of this program; tests put another in its place.
var selfPath = os.Executable

type drillFlags struct {
	keep   string
	seed   uint64
	runs   int
	jobs   int
	output string
	rules  string
	agent  bool
}

func newDrill(a *app) *cobra.Command {
	var f drillFlags
	c := &cobra.Command{
		Use:   "drill SCENARIO…",
		Short: "Rebuild an incident in network namespaces and show the diagnosis",
		Long: `Builds a small network out of network namespaces, starts real servers and clients in it, breaks
it at a known time, captures the packets and diagnoses them. One scenario is shown with its time
line, the expected diagnosis and the diagnosis found; several, or "all", as a table. What takes
place stays inside namespaces of its own and is taken down at the end; what an interrupted drill
left behind is removed by the next.

Needs root, and the programs ip, ss, tc, sysctl, nft, ethtool, tcpdump, nginx, unbound, dnsmasq.
Exit status: 1 if a diagnosis is not as expected, 2 if a scenario cannot be run.`,
		Example: `  jindan drill list
  sudo jindan drill S1                       the incident of 17 November 2023
  sudo jindan drill S1 --keep DIR            keep captures, socket counts and the truth
  sudo jindan drill all --jobs 4 --runs 3    everything, with three seeds`,
		Args: someArgs("a scenario, or all ('jindan drill list' lists them)"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			ids := []string{"all"}
			for _, s := range lab.Scenarios() {
				ids = append(ids, s.ID)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error { return a.drill(c.Context(), args, f) },
	}
	c.Flags().StringVar(&f.keep, "keep", "", "`directory` in which captures, samples and truth are kept, in SCENARIO-SEED")
	_ = c.MarkFlagDirname("keep")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "`number` that decides what is left to chance, as far as the kernel lets it")
	c.Flags().IntVar(&f.runs, "runs", 1, "run each scenario with `N` seeds, beginning with --seed")
	c.Flags().IntVar(&f.jobs, "jobs", 1, "run `N` scenarios at a time")
	c.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text, markdown (the table) or ndjson (a record a run)")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	c.Flags().BoolVar(&f.agent, "agent", false, "also run the agent on the captured host, with packets and without, and replay its recording")
	fixed(c, "output", "text", "markdown", "ndjson")
	c.AddCommand(newDrillList(), newDrillAgain(a), newDrillSites(a))
	return c
}

func newDrillList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the scenarios",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			table := [][]string{{"SCENARIO", "TAKES", "EXPECTED", "WHAT HAPPENS"}}
			for _, s := range lab.Scenarios() {
				table = append(table, []string{s.ID, fmt.Sprintf("%.0f s", (s.Healthy + s.Faulty).Seconds()), expected(s.Expect), s.Title})
			}
			out := bufio.NewWriter(os.Stdout)
			report.Table(out, table)
			return out.Flush()
		},
	}
}

func newDrillAgain(a *app) *cobra.Command {
	var f drillFlags
	c := &cobra.Command{
		Use:   "again DIR…",
		Short: "Diagnose drills once more that were kept with --keep",
		Long: `Diagnoses what 'jindan drill --keep' has kept, and holds it against what is expected: after a
change to a rule, without waiting for the drills, and without root. Exit status: 1 if a diagnosis
is not as expected.`,
		Args: someArgs("directories of kept drills"),
		RunE: func(c *cobra.Command, args []string) error {
			set, err := catalogue(f.rules)
			if err != nil {
				return a.failEach(err)
			}
			if err := oneOf("--output", f.output, "text", "markdown", "ndjson"); err != nil {
				return err
			}
			var records []drillRecord
			var scenarios []lab.Scenario
			for _, dir := range args {
				truth, err := lab.ReadTruth(dir)
				if err != nil {
					return err
				}
				s, err := lab.Find(truth.Scenario)
				if err != nil {
					return fmt.Errorf("%s: %w", dir, err)
				}
				truth.Expected, truth.Elsewhere = s.Expect, s.Elsewhere // as of today
				run, err := diagnoseDrill(c.Context(), set, truth, dir)
				if err == nil {
					err = run.judgeAgents(c.Context(), nil, truth, dir)
				}
				if err == nil {
					err = run.judgeRecordings(c.Context(), set, truth, dir) // the rules may be others now
				}
				if err != nil {
					return err
				}
				records = append(records, run.record(s, truth.Seed))
				if !slices.ContainsFunc(scenarios, func(o lab.Scenario) bool { return o.ID == s.ID }) {
					scenarios = append(scenarios, s)
				}
				a.tell(records[len(records)-1], f.output, len(records), len(args))
			}
			if f.output != "ndjson" {
				if err := writeDrillTable(f.output == "markdown", scenarios, records); err != nil {
					return err
				}
			}
			return outcome(records)
		},
	}
	c.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text, markdown (the table) or ndjson (a record a run)")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	fixed(c, "output", "text", "markdown", "ndjson")
	return c
}

// expected names the root, and the other rules that name the same cause; a dash where nothing must be found.
func expected(e lab.Expectation) string {
	if e.Root == "" {
		return "–"
	}
	return strings.Join(append([]string{e.Root}, e.AlsoRoot...), " or ")
}

func (a *app) drill(ctx context.Context, args []string, f drillFlags) error {
	if err := oneOf("--output", f.output, "text", "markdown", "ndjson"); err != nil {
		return err
	}
	if f.runs < 1 || f.jobs < 1 {
		return fmt.Errorf("--runs and --jobs must be at least 1")
	}
	scenarios, err := findScenarios(args)
	if err != nil {
		return err
	}
	set, err := catalogue(f.rules)
	if err != nil {
		return a.failEach(err)
	}
	if err := testbed.Missing(); err != nil {
		return err
	}
	if len(scenarios) == 1 && f.runs == 1 && f.output == "text" {
		return a.drillOne(ctx, set, scenarios[0], f)
	}
	records := a.drillMany(ctx, set, scenarios, f)
	if ctx.Err() != nil {
		return &status{int(a.interrupted.Load()), fmt.Errorf("interrupted after %d of %d runs", len(records), len(scenarios)*f.runs)}
	}
	if f.output != "ndjson" {
		if err := writeDrillTable(f.output == "markdown", scenarios, records); err != nil {
			return err
		}
	}
	return outcome(records)
}

// outcome is the exit status of all runs.
func outcome(records []drillRecord) error {
	wrong, failed := 0, 0
	for _, r := range records {
		if r.Error != "" {
			failed++
		} else if len(r.Wrong) > 0 {
			wrong++
		}
	}
	switch {
	case failed > 0:
		return &status{exitUnusable, fmt.Errorf("%d of %d runs could not be made", failed, len(records))}
	case wrong > 0:
		return &status{exitFailOn, fmt.Errorf("%d of %d diagnoses are not as expected", wrong, len(records))}
	}
	return nil
}

func findScenarios(args []string) ([]lab.Scenario, error) {
	var out []lab.Scenario
	for _, name := range args {
		if name == "all" {
			return lab.Scenarios(), nil
		}
		s, err := lab.Find(name)
		if err != nil {
			return nil, fmt.Errorf("%w; 'jindan drill list' lists them", err)
		}
		out = append(out, s)
	}
	return out, nil
}

// drillMany runs scenarios side by side, and tells of each as it ends.
func (a *app) drillMany(ctx context.Context, set *rules.Set, scenarios []lab.Scenario, f drillFlags) []drillRecord {
	type job struct {
		s    lab.Scenario
		seed uint64
	}
	jobs := make(chan job)
	var records []drillRecord
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range f.jobs {
		wait.Go(func() {
			for j := range jobs {
				run, err := a.runDrill(ctx, set, j.s, j.seed, f, func(string, time.Duration) {})
				if ctx.Err() != nil {
					return
				}
				var rec drillRecord
				if err != nil {
					rec.Error = oneLine(err)
					rec.name(j.s, j.seed)
				} else {
					rec = run.record(j.s, j.seed)
				}
				mu.Lock()
				records = append(records, rec)
				a.tell(rec, f.output, len(records), len(scenarios)*f.runs)
				mu.Unlock()
			}
		})
	}
feed:
	for i := range f.runs {
		for _, s := range scenarios {
			select {
			case jobs <- job{s, f.seed + uint64(i)}:
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
func (a *app) tell(r drillRecord, output string, n, of int) {
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
	a.log.Info().Msgf("%d of %d: %s, seed %d: %s", n, of, r.Scenario, r.Seed, msg)
}
