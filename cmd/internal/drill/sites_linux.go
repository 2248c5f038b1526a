package drill

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

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/fixtures/mutilate"
	"jindan/rules"
)

// SiteOptions are the flags of drawn sites.
type SiteOptions struct {
	Options
	Set    []string // what is not left to chance, as key:value
	Damage bool     // diagnose kept sites again from damaged captures
}

// Sites draws sites, or judges kept ones again, and sums up.
func (a Command) Sites(ctx context.Context, dirs []string, f SiteOptions) error {
	if err := cli.OneOf("--output", f.Output, "text", "markdown", "ndjson"); err != nil {
		return err
	}
	set, err := diagnose.Catalogue(f.Rules)
	if err != nil {
		return a.FailEach(err)
	}
	if f.Damage {
		return a.damage(ctx, set, dirs, f.Output)
	}
	if len(dirs) == 0 {
		if _, err := lab.NewDraw(f.Seed, f.Set...); err != nil {
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
	of := f.Runs
	if len(dirs) > 0 {
		of = len(dirs)
	}
	var wait sync.WaitGroup
	for range f.Jobs {
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
				a.tellSite(r, f.Output, len(records), of)
				mu.Unlock()
			}
		})
	}
feed:
	for i := range of {
		j := job{seed: f.Seed + uint64(i)}
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
		return cli.Exit(int(a.Interrupted.Load()), fmt.Errorf("interrupted after %d of %d sites", len(records), of))
	}
	if f.Output != "ndjson" {
		out := bufio.NewWriter(os.Stdout)
		writeAccuracy(out, f.Output == "markdown", lab.SumUp(records))
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
	return exit(failed, wrong, len(records), "sites could not be run", "diagnoses are wrong")
}

// site runs a site and judges its diagnosis.
func (a Command) site(ctx context.Context, set *rules.Set, seed uint64, f SiteOptions) lab.SiteRecord {
	d, err := lab.NewDraw(seed, f.Set...)
	if err != nil {
		return lab.SiteRecord{Seed: seed, Error: cli.OneLine(err)}
	}
	dir := filepath.Join(f.Keep, d.Name())
	if f.Keep == "" {
		temporary, err := os.MkdirTemp("", "jindan-site-")
		if err != nil {
			return lab.NewSiteRecord(d, err)
		}
		defer func() { _ = os.RemoveAll(temporary) }()
		dir = temporary
	}
	for again := 0; ; again++ {
		truth, err := lab.Run(ctx, d.Scenario(), lab.Options{Keep: dir, Seed: seed, Agent: f.Agent,
			Log: func(format string, args ...any) { a.Log.Debug().Msgf(format, args...) }})
		if err == nil && truth.Disturbed != "" {
			err = fmt.Errorf("it proves nothing: %s", truth.Disturbed)
		}
		if err == nil {
			r := judgeSite(ctx, set, d, truth, dir, nil)
			if f.Agent != "" && r.Error == "" {
				if err := r.JudgeLive(truth, filepath.Join(dir, lab.AgentFile)); err != nil {
					r.Error = cli.OneLine(err)
				}
			}
			return r
		}
		_ = os.RemoveAll(dir)
		if ctx.Err() != nil || again > 0 {
			return lab.NewSiteRecord(d, err)
		}
		if d, err = lab.NewDraw(seed, f.Set...); err != nil {
			return lab.NewSiteRecord(d, err)
		}
	}
}

// siteAgain judges a kept site once more, as its fault is judged today.
func (a Command) siteAgain(ctx context.Context, set *rules.Set, dir string) lab.SiteRecord {
	d, truth, err := keptSite(dir)
	if err != nil {
		return lab.SiteRecord{Name: filepath.Base(dir), Error: cli.OneLine(err)}
	}
	r := judgeSite(ctx, set, d, truth, dir, nil)
	if _, err := os.Stat(filepath.Join(dir, lab.RecordingName)); err == nil && r.Error == "" {
		if err := judgeLiveAgain(ctx, set, &r, truth, dir); err != nil {
			r.Error = cli.OneLine(err)
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
func (a Command) damage(ctx context.Context, set *rules.Set, dirs []string, output string) error {
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
				a.Log.Warn().Msgf("%s, %s: WRONG: %s", r.Name, way.Name, strings.Join(r.Wrong, "; "))
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
		return cli.Exit(cli.ExitFailOn, fmt.Errorf("%d right roots became wrong ones, %d true causes were ruled out", wrong, out))
	}
	return nil
}

// judgeSite judges the diagnosis of a site's capture, damaged in a way unless that is nil.
func judgeSite(ctx context.Context, set *rules.Set, d *lab.Draw, truth *lab.Truth, dir string, way *mutilate.Way) lab.SiteRecord {
	in, err := diagnose.Open([]string{filepath.Join(dir, truth.Point)})
	if err != nil {
		return lab.NewSiteRecord(d, err)
	}
	defer in.Close()
	if way != nil {
		damaged, err := way.Source(ctx, in.Sources[0], d.Seed)
		if err != nil {
			return lab.NewSiteRecord(d, err)
		}
		in.Sources[0] = damaged
	}
	diagnosis, inErr, err := diagnose.Run(ctx, in, set, nil, func(*analyze.Finding) error { return nil })
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
func (a Command) tellSite(r lab.SiteRecord, output string, n, of int) {
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
	a.Log.Info().Msgf("%d of %d: %s: %s", n, of, r.Name, msg)
	if l := r.Live; l != nil && (!l.First || len(l.Wrong) > 0) {
		a.Log.Warn().Msgf("%s, live: named %s; %s", r.Name, cmp.Or(strings.Join(l.Named, "; then "), "nothing"), strings.Join(l.Wrong, "; "))
	}
}

// writeAccuracy prints how often the diagnosis was right, and how it was wrong.
func writeAccuracy(w io.Writer, markdown bool, s lab.Accuracy) {
	write := func(rows [][]string) {
		table(w, markdown, rows)
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
		write(rows)
		rows = [][]string{{"Nothing wrong, or nobody harmed", "Runs", "Right", "False alarms", "Rules"}}
		for _, name := range slices.Sorted(maps.Keys(part.Quiet)) {
			c := part.Quiet[name]
			rows = append(rows, []string{name, fmt.Sprint(c.Runs), fmt.Sprint(c.Right), fmt.Sprint(c.Runs - c.Right), counts(c.Roots)})
		}
		write(rows)
		rows = [][]string{{"Shape", "Runs", "Right", "Share"}}
		for _, name := range slices.Sorted(maps.Keys(part.Shapes)) {
			c := part.Shapes[name]
			rows = append(rows, []string{name, fmt.Sprint(c.Runs), fmt.Sprint(c.Right), fmt.Sprintf("%.0f %%", 100*float64(c.Right)/float64(c.Runs))})
		}
		write(rows)
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
