package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/cmd/internal/agent"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

func newCheck(a *app) *cobra.Command {
	var f runFlags
	var span time.Duration
	var failOn string
	var verbose bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Look at this host for a while and say what is wrong",
		Long: `Watches the packets, sockets and counters of this host for some seconds, then says in words what is wrong,
what is ruled out and what cannot be judged. Exit status: 0 done, 1 with --fail-on reached, 2 if an interface that
is named cannot be captured on, or if with --fail-on an input could not be read: what was not looked at has not passed.`,
		Example: `  sudo jindan check
  sudo jindan check --for 60s --fail-on error`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.check(c.Context(), &f, span, failOn, verbose) },
	}
	agentFlags(c, &f)
	c.Flags().DurationVar(&span, "for", 10*time.Second, "how long to look")
	c.Flags().StringVar(&failOn, "fail-on", "", "exit with 1 if a finding has this `severity` or a higher one: info, warn or error")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "add evidence, remarks and all steps")
	fixed(c, "fail-on", severities...)
	return c
}

func (a *app) check(ctx context.Context, f *runFlags, span time.Duration, failOn string, verbose bool) error {
	if failOn != "" {
		if err := cli.OneOf("--fail-on", failOn, severities...); err != nil {
			return err
		}
	}
	if span < 2*analyze.WindowLength {
		return fmt.Errorf("--for %s: look for at least %s", span, 2*analyze.WindowLength)
	}
	cfg, err := f.configuration()
	if err != nil {
		return err
	}
	set, err := diagnose.Catalogue(cfg.Rules)
	if err != nil {
		return a.FailEach(err)
	}
	if n := len(cfg.Netns); n > 1 {
		return fmt.Errorf("check looks at one network namespace at a time; --netns names %d", n)
	}
	w, err := agent.Look(cfg, set, nil)
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // what was seen is told; the process ends
	if len(f.ifaces) > 0 && w.NoPackets != "" {
		return fmt.Errorf("--interface %s: %s", strings.Join(f.ifaces, ","), w.NoPackets) // whoever names one wants its packets
	}
	for _, b := range w.Blind {
		a.Log.Warn().Msgf("cannot see %s", b)
	}
	if err := w.Confine(); err != nil {
		a.Log.Warn().Msgf("the agent keeps more rights than it needs: %s", cli.OneLine(err))
	}
	defer a.EndWithin(ctx)()
	looking, stop := context.WithTimeout(ctx, span)
	defer stop()
	d, err := w.Run(looking, nil)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	in := report.Input{Files: []report.File{{Name: w.Describe(), Packets: d.Coverage.Packets}}, Blind: w.UnseenInputs()}
	err = report.Text(out, in, d, report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout), Zone: time.Local, Verbose: verbose,
		Color: a.WantColor(os.Stdout), Catalogue: report.Rules(set, w.Inputs()...)})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, x := range d.Findings {
		if failOn != "" && slices.Index(severities, x.Severity) >= slices.Index(severities, failOn) {
			return cli.Exit(cli.ExitFailOn, nil)
		}
	}
	if failOn != "" && len(in.Blind) > 0 && !f.noCapture {
		return cli.Exit(cli.ExitUnusable, fmt.Errorf("no finding of severity %s, but not everything could be looked at: %s", failOn, strings.Join(in.Blind, "; ")))
	}
	return nil
}

func newRecord(a *app) *cobra.Command {
	var f runFlags
	var span time.Duration
	c := &cobra.Command{
		Use:   "record DIR",
		Short: "Keep what the agent would see, to diagnose it elsewhere",
		Long: `Watches like 'jindan run' and keeps what it sees in DIR: packets.pcapng (headers, DNS and ICMP errors; no
payload) and samples.jsonl (sockets, counters, changes). 'jindan analyze DIR' finds in it what the agent found,
also after 'zstd --rm DIR/*', which makes it a small part of its size. The limits are
record.max_bytes and record.max_time of the configuration.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give one directory for the recording")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.record, f.output = args[0], "text"
			ctx := c.Context()
			if span > 0 {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, span)
				defer stop()
			}
			return a.run(ctx, &f)
		},
	}
	agentFlags(c, &f)
	c.Flags().DurationVar(&span, "for", 0, "how long to watch (default until interrupted)")
	return c
}
