package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/rules"
)

func newRulesTest(a *app) *cobra.Command {
	var dir string
	var update bool
	c := &cobra.Command{
		Use:   "test CASE_DIR…",
		Short: "Run the rules on recorded cases",
		Long: `Diagnoses recorded cases and compares the result with what is expected of them. A case is a
directory with

  packets.pcapng   the capture, or packets.pcap, either with .gz or .zst
  samples.jsonl    with it: the case is a recording (jindan record), either file with .gz or .zst
  case.yaml        what is expected
  want.ndjson      the findings and verdicts in full, if they are to be compared, too

A directory without case.yaml stands for the cases in it. case.yaml has the keys

  title: The port loses 90 % of the big packets
  local: 10.77.2.2              # optional, as --local
  points: [client=client.pcap, server=server.pcap]   # optional, as --point; instead of packets.pcapng
  expect:
    roots: [size-dependent-loss]         # exactly these rules find causes; [] is none
    consequences: [close-wait]           # these follow from a cause; more may
    must_not: [surge]                    # these find nothing above info
    silent: [scan]                       # these find nothing
    none_at: warn                        # nothing has this severity or a higher one

each key of expect being optional. --update writes want.ndjson anew. Exit status: 1 if a case
fails, 2 if one cannot be run.`,
		Args: someArgs("directories with cases"),
		RunE: func(c *cobra.Command, args []string) error {
			set, err := diagnose.Catalogue(dir)
			if err != nil {
				return a.FailEach(err)
			}
			cases, err := findCases(args)
			if err != nil {
				return a.FailEach(err)
			}
			return a.testCases(c.Context(), set, cases, update)
		},
	}
	c.Flags().StringVar(&dir, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	c.Flags().BoolVar(&update, "update", false, "write want.ndjson from the result")
	return c
}

// testCases runs the cases one by one and prints a line for each, and under it what differs.
func (a *app) testCases(ctx context.Context, set *rules.Set, cases []testCase, update bool) error {
	failed, broken := 0, 0
	for i := range cases {
		c := &cases[i]
		begin := time.Now()
		d, err := c.run(ctx, a, set)
		if ctx.Err() != nil {
			return cli.Exit(int(a.Interrupted.Load()), fmt.Errorf("interrupted after %d of %d cases", i, len(cases)))
		}
		if err != nil {
			a.Log.Error().Msg(cli.OneLine(err))
			broken++
			continue
		}
		wrong := c.Expect.check(set, d)
		got := reduce(d)
		if update {
			err = c.save(got)
		} else {
			var diff []string
			diff, err = c.compare(got)
			wrong = append(wrong, diff...)
		}
		if err != nil {
			return err
		}
		verdict := "ok  "
		if len(wrong) > 0 {
			verdict = "FAIL"
			failed++
		}
		fmt.Printf("%s  %s  %s (%.1f s)\n", verdict, c.name, c.Title, time.Since(begin).Seconds())
		for _, w := range wrong {
			fmt.Println("      " + w)
		}
	}
	switch {
	case broken > 0:
		return cli.Exit(cli.ExitUnusable, fmt.Errorf("%d of %d cases could not be run", broken, len(cases)))
	case failed > 0:
		return cli.Exit(cli.ExitFailOn, fmt.Errorf("%d of %d cases failed", failed, len(cases)))
	}
	return nil
}

// run diagnoses the case.
func (c *testCase) run(ctx context.Context, a *app, set *rules.Set) (*analyze.Diagnosis, error) {
	local, err := diagnose.Hosts(diagnose.Words(c.Local))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(c.dir, caseFile), err)
	}
	in, err := c.open(ctx, a)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	d, inErr, err := diagnose.Run(ctx, in, set, local, func(*analyze.Finding) error { return nil })
	if err == nil {
		err = inErr
	}
	return d, err
}

// open opens what the case is read from; of captures at several points those that are looked at closer.
func (c *testCase) open(ctx context.Context, a *app) (*diagnose.Input, error) {
	if len(c.Points) > 0 {
		points := make([]string, len(c.Points))
		for i, p := range c.Points {
			name, file, _ := strings.Cut(p, "=")
			points[i] = name + "=" + filepath.Join(c.dir, file)
		}
		cmp, err := a.comparePoints(ctx, points, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.dir, err)
		}
		return cmp.open()
	}
	if recording.IsRecording(c.dir) {
		return diagnose.Open([]string{c.dir})
	}
	files, err := filepath.Glob(filepath.Join(c.dir, "packets.*"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("%s: the case needs one capture, packets.pcapng or packets.pcap, plain or with .gz or .zst; it has %d", c.dir, len(files))
	}
	return diagnose.Open(files)
}

// check returns what of the expectations is not met.
func (e *expectation) check(set *rules.Set, d *analyze.Diagnosis) []string {
	var wrong []string
	by := func(role analyze.Role) []string {
		var ids []string
		for _, f := range d.Findings {
			if f.Role == role && f.Severity != "info" && !slices.Contains(ids, f.Rule) {
				ids = append(ids, f.Rule)
			}
		}
		slices.Sort(ids)
		return ids
	}
	for _, id := range slices.Concat(e.Consequences, e.MustNot, e.Silent, deref(e.Roots)) {
		if set.Rule(id) == nil {
			wrong = append(wrong, fmt.Sprintf("case.yaml: there is no rule %q", id))
		}
	}
	if got := by(analyze.Root); e.Roots != nil && !slices.Equal(got, slices.Sorted(slices.Values(*e.Roots))) {
		wrong = append(wrong, fmt.Sprintf("causes: want %v, got %v", *e.Roots, got))
	}
	followed := by(analyze.Consequence)
	for _, id := range e.Consequences {
		if !slices.Contains(followed, id) {
			wrong = append(wrong, fmt.Sprintf("consequences: want %s, got %v", id, followed))
		}
	}
	for _, f := range d.Findings {
		if slices.Contains(e.MustNot, f.Rule) && f.Severity != "info" {
			wrong = append(wrong, fmt.Sprintf("must not be found: %s (%s)", f.Rule, f.Subject.Key()))
		}
		if slices.Contains(e.Silent, f.Rule) {
			wrong = append(wrong, fmt.Sprintf("finds nothing here: %s (%s)", f.Rule, f.Subject.Key()))
		}
		if e.NoneAt != "" && slices.Index(severities, f.Severity) >= slices.Index(severities, e.NoneAt) {
			wrong = append(wrong, fmt.Sprintf("nothing at %s or above: got %s, %s (%s)", e.NoneAt, f.Severity, f.Rule, f.Subject.Key()))
		}
	}
	return wrong
}

func deref(s *[]string) []string {
	if s == nil {
		return nil
	}
	return *s
}
