package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/fixtures/mutilate"
	"jindan/rules"
)

type sitesFlags struct {
	drillFlags
	set    []string
	damage bool
}

func newDrillSites(a *app) *cobra.Command {
	var f sitesFlags
	c := &cobra.Command{
		Use:   "sites [DIR…]",
		Short: "Draw sites and faults from a seed, run them, and say how often the diagnosis is right",
		Long: `Draws sites that the scenarios do not look like: addresses, programs, protocols, what stands before
and behind the service, how it is captured, what goes wrong and what else happens. Runs each in
network namespaces, with real programs, and holds the diagnosis against the truth. Prints a table
of faults and verdicts, false alarms, true causes that were ruled out, and the share that is right
by shape. With directories, diagnoses the sites again that were kept there, without root.

Exit status: 1 if a diagnosis is wrong, 2 if a site could not be run.`,
		Example: `  sudo jindan drill sites --runs 200 --seed 100000 --jobs 4
  sudo jindan drill sites --runs 20 --set fault:slow-dns --keep DIR
  jindan drill sites DIR/*`,
		RunE: func(c *cobra.Command, args []string) error { return a.sites(c.Context(), args, f) },
	}
	c.Flags().StringVar(&f.keep, "keep", "", "`directory` in which captures and truth are kept, in SEED-shape-fault")
	_ = c.MarkFlagDirname("keep")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "first `number` from which a site is drawn")
	c.Flags().IntVar(&f.runs, "runs", 1, "draw `N` sites")
	c.Flags().BoolVar(&f.agent, "agent", false, "run the agent on the server too, and judge every root that it names")
	c.Flags().IntVar(&f.jobs, "jobs", 1, "run `N` at a time")
	c.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text, markdown (the tables) or ndjson (a record a site)")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own")
	c.Flags().StringArrayVar(&f.set, "set", nil, "leave something not to chance: `key:value`, as fault:slow-dns or engine:nginx")
	c.Flags().BoolVar(&f.damage, "damage", false, "diagnose the kept sites again from damaged captures: does a right root become a wrong one?")
	fixed(c, "output", "text", "markdown", "ndjson")
	return c
}

// sites draws sites, or judges kept ones again, and sums up.
func (a *app) sites(ctx context.Context, dirs []string, f sitesFlags) error {
	if err := oneOf("--output", f.output, "text", "markdown", "ndjson"); err != nil {
		return err
	}
	set, err := catalogue(f.rules)
	if err != nil {
		return a.failEach(err)
	}
	if f.damage {
		return a.damage(ctx, set, dirs, f.output)
	}
	if len(dirs) == 0 {
		if _, err := lab.NewDraw(f.seed, f.set...); err != nil {
			return err
		}
		if err := lab.MissingForSites(); err != nil {
			return err
		}
	}
	type job struct {
		seed uint64
		dir  string
	}
	jobs := make(chan job)
	var mu sync.Mutex
	var records []lab.SiteRecord
	of := f.runs
	if len(dirs) > 0 {
		of = len(dirs)
	}
	var wait sync.WaitGroup
	for range f.jobs {
		wait.Go(func() {
			for j := range jobs {
				var r lab.SiteRecord
				if j.dir != "" {
					r = a.siteAgain(ctx, set, j.dir)
				} else {
					r = a.site(ctx, set, j.seed, f)
				}
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				records = append(records, r)
				a.tellSite(r, f.output, len(records), of)
				mu.Unlock()
			}
		})
	}
feed:
	for i := range of {
		j := job{seed: f.seed + uint64(i)}
		if len(dirs) > 0 {
			j.dir = dirs[i]
		}
		select {
		case jobs <- j:
		case <-ctx.Done():
			break feed
		}
	}
	close(jobs)
	wait.Wait()
	if ctx.Err() != nil {
		return &status{int(a.interrupted.Load()), fmt.Errorf("interrupted after %d of %d sites", len(records), of)}
	}
	if f.output != "ndjson" {
		out := bufio.NewWriter(os.Stdout)
		writeAccuracy(out, f.output == "markdown", lab.SumUp(records))
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return sitesOutcome(records)
}

// sitesOutcome is the exit status.
func sitesOutcome(records []lab.SiteRecord) error {
	failed, wrong := 0, 0
	for _, r := range records {
		switch {
		case r.Error != "":
			failed++
		case !r.Right():
			wrong++
		}
	}
	switch {
	case failed > 0:
		return &status{exitUnusable, fmt.Errorf("%d of %d sites could not be run", failed, len(records))}
	case wrong > 0:
		return &status{exitFailOn, fmt.Errorf("%d of %d diagnoses are wrong", wrong, len(records))}
	}
	return nil
}

// site runs a site and judges its diagnosis.
func (a *app) site(ctx context.Context, set *rules.Set, seed uint64, f sitesFlags) lab.SiteRecord {
	d, err := lab.NewDraw(seed, f.set...)
	if err != nil {
		return lab.SiteRecord{Seed: seed, Error: oneLine(err)}
	}
	dir := filepath.Join(f.keep, d.Name())
	if f.keep == "" {
		temporary, err := os.MkdirTemp("", "jindan-site-")
		if err != nil {
			return lab.NewSiteRecord(d, err)
		}
		defer func() { _ = os.RemoveAll(temporary) }()
		dir = temporary
	}
	agent := ""
	if f.agent {
		if agent, err = selfPath(); err != nil {
			return lab.NewSiteRecord(d, err)
		}
	}
	for again := 0; ; again++ {
		truth, err := lab.Run(ctx, d.Scenario(), lab.Options{Keep: dir, Seed: seed, Agent: agent,
			Log: func(format string, args ...any) { a.log.Debug().Msgf(format, args...) }})
		if err == nil && truth.Disturbed != "" {
			err = fmt.Errorf("it proves nothing: %s", truth.Disturbed)
		}
		if err == nil {
			r := judgeSite(ctx, set, d, truth, dir, nil)
			if f.agent && r.Error == "" {
				if err := r.JudgeLive(truth, filepath.Join(dir, lab.AgentFile)); err != nil {
					r.Error = oneLine(err)
				}
			}
			return r
		}
		_ = os.RemoveAll(dir)
		if ctx.Err() != nil || again > 0 {
			return lab.NewSiteRecord(d, err)
		}
		if d, err = lab.NewDraw(seed, f.set...); err != nil {
			return lab.NewSiteRecord(d, err)
		}
	}
}

// siteAgain judges a kept site once more, as its fault is judged today.
func (a *app) siteAgain(ctx context.Context, set *rules.Set, dir string) lab.SiteRecord {
	d, truth, err := keptSite(dir)
	if err != nil {
		return lab.SiteRecord{Name: filepath.Base(dir), Error: oneLine(err)}
	}
	r := judgeSite(ctx, set, d, truth, dir, nil)
	if _, err := os.Stat(filepath.Join(dir, lab.RecordingName)); err == nil && r.Error == "" {
		if err := judgeLiveAgain(ctx, set, &r, truth, dir); err != nil {
			r.Error = oneLine(err)
		}
	}
	return r
}

// judgeLiveAgain judges what the agent would say today, from its recording.
func judgeLiveAgain(ctx context.Context, set *rules.Set, r *lab.SiteRecord, truth *lab.Truth, dir string) error {
	b, err := replay(ctx, set, filepath.Join(dir, lab.RecordingName))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "replay.ndjson")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	return errors.Join(r.JudgeLive(truth, file), os.Remove(file))
}

// keptSite reads a site that was kept, with the truth as it is judged today.
func keptSite(dir string) (*lab.Draw, *lab.Truth, error) {
	truth, err := lab.ReadTruth(dir)
	if err != nil {
		return nil, nil, err
	}
	d, err := truth.Draw()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	truth.Expected = d.Scenario().Expect
	return d, truth, nil
}

// damage judges kept sites from damaged captures: those that are right from the whole one.
func (a *app) damage(ctx context.Context, set *rules.Set, dirs []string, output string) error {
	type count struct{ runs, right, less, wrong, out int }
	counts := map[string]*count{}
	wrong, out := 0, 0
	for _, dir := range dirs {
		d, truth, err := keptSite(dir)
		if err != nil {
			return err
		}
		if whole := judgeSite(ctx, set, d, truth, dir, nil); !whole.Right() {
			continue
		}
		for _, way := range mutilate.Ways() {
			r := judgeSite(ctx, set, d, truth, dir, &way)
			if ctx.Err() != nil || r.Error != "" {
				return cmp.Or(ctx.Err(), errors.New(r.Error))
			}
			if counts[way.Name] == nil {
				counts[way.Name] = &count{}
			}
			c := counts[way.Name]
			c.runs++
			if output == "ndjson" {
				r.Damage = way.Name
				_ = json.NewEncoder(os.Stdout).Encode(r)
			}
			if len(r.RuledOut) > 0 {
				c.out++
				out++
			}
			if r.WrongRoot || len(r.RuledOut) > 0 {
				a.log.Warn().Msgf("%s, %s: WRONG: %s", r.Name, way.Name, strings.Join(r.Wrong, "; "))
			}
			switch {
			case r.WrongRoot:
				c.wrong++
				wrong++
			case r.Harmed && !r.Found:
				c.less++
			default:
				c.right++
			}
		}
	}
	rows := [][]string{{"Damage", "Runs", "Still right", "Root not named", "Wrong root", "Ruled out"}}
	for _, way := range mutilate.Ways() {
		if c := counts[way.Name]; c != nil {
			rows = append(rows, []string{way.Name, fmt.Sprint(c.runs), fmt.Sprint(c.right), fmt.Sprint(c.less), fmt.Sprint(c.wrong), fmt.Sprint(c.out)})
		}
	}
	if output != "ndjson" {
		w := bufio.NewWriter(os.Stdout)
		report.Table(w, rows)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if wrong > 0 || out > 0 {
		return &status{exitFailOn, fmt.Errorf("%d right roots became wrong ones, %d true causes were ruled out", wrong, out)}
	}
	return nil
}

// judgeSite judges the diagnosis of a site's capture, damaged in a way unless that is nil.
func judgeSite(ctx context.Context, set *rules.Set, d *lab.Draw, truth *lab.Truth, dir string, way *mutilate.Way) lab.SiteRecord {
	in, err := openInput([]string{filepath.Join(dir, truth.Point)})
	defer in.close()
	if err == nil && way != nil {
		in.sources[0], err = way.Source(ctx, in.sources[0], d.Seed)
	}
	if err != nil {
		return lab.NewSiteRecord(d, err)
	}
	diagnosis, inErr, err := diagnose(ctx, in, set, nil, func(*analyze.Finding) error { return nil })
	if err = errors.Join(err, inErr); err != nil {
		return lab.NewSiteRecord(d, err)
	}
	r := lab.NewSiteRecord(d, nil)
	r.Judge(truth, diagnosis, func(rule string) []string {
		for _, known := range set.Rules {
			if known.ID == rule {
				return known.Steps
			}
		}
		return nil
	})
	return r
}

// tellSite writes how a site went.
func (a *app) tellSite(r lab.SiteRecord, output string, n, of int) {
	if output == "ndjson" {
		_ = json.NewEncoder(os.Stdout).Encode(r)
		return
	}
	msg := "right"
	switch {
	case r.Error != "":
		msg = "could not be run: " + r.Error
	case !r.Right():
		msg = "WRONG: " + strings.Join(r.Wrong, "; ")
	}
	a.log.Info().Msgf("%d of %d: %s: %s", n, of, r.Name, msg)
	if l := r.Live; l != nil && (!l.First || len(l.Wrong) > 0) {
		a.log.Warn().Msgf("%s, live: named %s; %s", r.Name, cmp.Or(strings.Join(l.Named, "; then "), "nothing"), strings.Join(l.Wrong, "; "))
	}
}

// writeAccuracy prints how often the diagnosis was right, and how it was wrong.
func writeAccuracy(w io.Writer, markdown bool, s lab.Accuracy) {
	table := func(rows [][]string) {
		if !markdown {
			report.Table(w, rows)
			fmt.Fprintln(w)
			return
		}
		for i, row := range rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintln(w, strings.Repeat("|---", len(row))+"|")
			}
		}
		fmt.Fprintln(w)
	}
	for _, part := range s.Parts {
		fmt.Fprintf(w, "%s: %d sites, %d could not be run\n\n", part.Name, part.Sites, part.Failed)
		rows := [][]string{{"Harmful fault", "Runs", "Right", "Missed", "False beside", "Wrong root", "Ruled out", "Roots named"}}
		for _, fault := range slices.Sorted(maps.Keys(part.Faults)) {
			c := part.Faults[fault]
			rows = append(rows, []string{fault, fmt.Sprint(c.Runs), fmt.Sprint(c.Right), fmt.Sprint(c.Missed), fmt.Sprint(c.Beside),
				fmt.Sprint(c.WrongRoot), fmt.Sprint(c.RuledOut), counts(c.Roots)})
		}
		table(rows)
		rows = [][]string{{"Nothing wrong, or nobody harmed", "Runs", "Right", "False alarms", "Rules"}}
		for _, name := range slices.Sorted(maps.Keys(part.Quiet)) {
			c := part.Quiet[name]
			rows = append(rows, []string{name, fmt.Sprint(c.Runs), fmt.Sprint(c.Right), fmt.Sprint(c.Runs - c.Right), counts(c.Roots)})
		}
		table(rows)
		rows = [][]string{{"Shape", "Runs", "Right", "Share"}}
		for _, name := range slices.Sorted(maps.Keys(part.Shapes)) {
			c := part.Shapes[name]
			rows = append(rows, []string{name, fmt.Sprint(c.Runs), fmt.Sprint(c.Right), fmt.Sprintf("%.0f %%", 100*float64(c.Right)/float64(c.Runs))})
		}
		table(rows)
		t := part.Total
		fmt.Fprintf(w, "Right root %d of %d; false alarms in %d of %d quiet runs; true cause ruled out in %d; wrong root named in %d\n\n",
			t.Found, t.Runs, part.Alarms, part.QuietRuns, t.RuledOut, t.WrongRoot)
		if l := part.Live; l.Runs+l.Quiet > 0 {
			fmt.Fprintf(w, "Live agent: right root %d of %d, never another one in %d; a root named in %d of %d quiet runs\n\n",
				l.Found, l.Runs, l.First, l.Alarms, l.Quiet)
		}
	}
}

// counts lists rules with how often each was named, the most frequent first.
func counts(of map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(of), func(x, y string) int { return cmp.Or(of[y]-of[x], strings.Compare(x, y)) })
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %d", k, of[k])
	}
	return cmp.Or(strings.Join(keys, ", "), "–")
}
