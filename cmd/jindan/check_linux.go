package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jindan/analyze"
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
	ns := ""
	switch len(cfg.Netns) {
	case 0:
	case 1:
		ns = cfg.Netns[0]
	default:
		return fmt.Errorf("check looks at one network namespace at a time; --netns names %d", len(cfg.Netns))
	}
	cfg.Recorder.Enabled = false
	share := divide(cfg, 1)
	cli.LimitHeap(share.heap)
	w, err := openWatch(cfg, ns, share)
	if err != nil {
		return err
	}
	defer w.close() //nolint:errcheck // what was seen is told; the process ends
	if len(f.ifaces) > 0 && w.noPackets != "" {
		return fmt.Errorf("--interface %s: %s", strings.Join(f.ifaces, ","), w.noPackets) // whoever names one wants its packets
	}
	if err := w.prepare(set, cfg, func(*analyze.Finding) error { return nil }); err != nil {
		return err
	}
	for _, b := range w.blind {
		a.Log.Warn().Msgf("cannot see %s", b)
	}
	if err := dropPrivileges(needed(ns != "", false)); err != nil {
		a.Log.Warn().Msgf("the agent keeps more rights than it needs: %s", cli.OneLine(err))
	}
	defer a.EndWithin(ctx)()
	looking, stop := context.WithTimeout(ctx, span)
	defer stop()
	d, err := w.run(looking, nil)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	in := report.Input{Files: []report.File{{Name: w.describe(), Packets: d.Coverage.Packets}}, Blind: w.unseenInputs()}
	err = report.Text(out, in, d, report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout), Zone: time.Local, Verbose: verbose,
		Color: a.WantColor(os.Stdout), Catalogue: report.Rules(set, w.inputs()...)})
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

// unseenInputs are the inputs that could not be read, with the reason; owners of sockets are none.
func (w *watch) unseenInputs() []string {
	var list []string
	if w.noPackets != "" {
		list = append(list, "packets: "+w.noPackets)
	}
	if w.sockets == nil {
		list = append(list, "sockets")
	} else if n, err := w.sockets.Failures(); n > 0 {
		list = append(list, "sockets: "+cli.OneLine(err))
	}
	if errs := w.host.Untold(); len(errs) > 0 {
		more := ""
		if len(errs) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(errs)-1)
		}
		list = append(list, "counters: "+cli.OneLine(errs[0])+more)
	}
	return list
}

// describe names what is watched, for the first line of a report.
func (w *watch) describe() string {
	host, err := os.Hostname()
	if err != nil {
		host = "this host"
	}
	if w.ns != "" {
		host += " [" + filepath.Base(w.ns) + "]"
	}
	return host
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
