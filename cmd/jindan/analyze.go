package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

// analyzeFlags are the flags of `jindan analyze`.
type analyzeFlags struct {
	output  string
	local   []string
	failOn  string
	rules   string
	zone    string
	verbose bool
	summary bool
	report  string
	redact  bool
	points  []string
	diagnose.Narrow
}

func newAnalyze(a *app) *cobra.Command {
	var f analyzeFlags
	c := &cobra.Command{
		Use:   "analyze FILE|DIR|-…",
		Short: "Diagnose captures: the cause, its consequences, and what it is not",
		Long: `Reads captures (pcap, pcapng, snoop; plain, gzip or zstd), several of them merged in
the order of time, and diagnoses them. A directory stands for all captures in it, "-" for standard
input. The order of the arguments makes no difference.

On a terminal the result is a text of one screen: what was read, the cause, what followed from
it, what it is not, what cannot be told from this input, and what to do. Otherwise it is NDJSON: a
finding on each line, as it opens, changes or ends (schema jindan.finding/v1), and one
diagnosis at the end (jindan.diagnosis/v1). "ecs" gives the same in the fields of the
Elastic Common Schema.

--report writes the same as one HTML page with pictures, to read in a browser, to mail or to print: it holds no script and
asks for nothing. "-" writes it to standard output, and nothing else. --lang says in which language it opens; the
page has both. --redact replaces addresses and names by labels that are the same throughout the page.

"This host" is the address given by --local, else the one that the capture marks as sending or
receiving, else the one that nearly all connections have in common; the text says which.

--point NAME=FILE compares captures of the same traffic at several points: between which two of them, and in
which direction, packets are lost, delayed, doubled or made. Points may be given in any order; their clocks are told
from the traffic. The rest of the diagnosis is that of one of them, the nearest to the services.

Exit status: 0 done, whatever was found; 1 a finding reached --fail-on; 2 unusable arguments or
input, or a damaged file (diagnosed up to the damage all the same); 130 interrupted (diagnosed up
to there). A file that merely ends in its last packet is no error.`,
		Example: `  jindan analyze server.pcap
  jindan analyze --lang ko -v --tz +09:00 server.pcap
  jindan analyze --since 2m --until 10:30:00 --filter 'host 10.0.0.7' server.pcap
  jindan analyze --local 10.77.2.2 --fail-on error -o ndjson captures/ >findings.ndjson
  jindan analyze --report incident.html --redact server.pcap
  jindan analyze --point client=c.pcap --point l4=l.pcap --point server=s.pcap
  ssh host tcpdump -U -s 256 -w - | jindan analyze -`,
		Args: pointArgs(&f.points),
		RunE: func(c *cobra.Command, args []string) error { return a.analyze(c.Context(), args, f) },
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "output `format`: text, ndjson or ecs (default text on a terminal, else ndjson)")
	c.Flags().StringSliceVar(&f.local, "local", nil, "`address` or prefix of the host that the capture was made on, repeatable")
	c.Flags().StringVar(&f.failOn, "fail-on", "", "exit with 1 if a finding has this `severity` or a higher one: warn or error")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own (see 'jindan rules check --help')")
	_ = c.MarkFlagDirname("rules")
	c.Flags().StringVar(&f.zone, "tz", "UTC", "`zone` of the times in the text: UTC, local, +09:00 or Asia/Seoul")
	narrowFlags(c, &f.Narrow)
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "text: add evidence with frame numbers and Wireshark filters, remarks, all steps")
	c.Flags().BoolVar(&f.summary, "summary", false, "only the cause (text) or only the diagnosis record (ndjson, ecs)")
	c.Flags().StringVar(&f.report, "report", "", "also write a page with pictures to this `file`; - for standard output")
	c.Flags().BoolVar(&f.redact, "redact", false, "in the page: labels instead of addresses and names")
	c.Flags().StringArrayVar(&f.points, "point", nil,
		"`NAME=FILE`: a capture, or a recording, of one of several points on the path; FILE#INTERFACE takes one interface of a pcapng file; repeatable")
	fixed(c, "output", "text", "ndjson", "ecs")
	fixed(c, "fail-on", "warn", "error")
	return c
}

// errNarrowPoints: what is left out at one point would be taken for lost there.
var errNarrowPoints = errors.New("--since, --until and --filter do not go with --point: what is left out at one point would count as lost; " +
	"cut the captures beforehand, all in the same way")

// narrowFlags are the flags that leave out a part of the input.
func narrowFlags(c *cobra.Command, n *diagnose.Narrow) {
	c.Flags().StringVar(&n.Since, "since", "", "leave out what is before this `time`: 30s into the input, 15:04:05 on its first day, or RFC 3339")
	c.Flags().StringVar(&n.Until, "until", "", "leave out what is at or after this `time`, written likewise")
	c.Flags().StringVar(&n.Filter, "filter", "", "look only at packets that match `filter` in tcpdump's syntax")
}

// fixed offers the values of a flag to the shell's completion.
func fixed(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// severities in rising order.
var severities = []string{"info", "warn", "error"}

// offlineMemory is where reading captures begins to collect garbage sooner: the flow table alone may take 305 MB.
const offlineMemory = 768 << 20

func (a *app) analyze(ctx context.Context, args []string, f analyzeFlags) error {
	if f.output == "" {
		f.output = "ndjson"
		if cli.IsTerminal(os.Stdout) {
			f.output = "text"
		}
	}
	if err := cli.OneOf("--output", f.output, "text", "ndjson", "ecs"); err != nil {
		return err
	}
	if f.failOn != "" {
		if err := cli.OneOf("--fail-on", f.failOn, severities...); err != nil {
			return err
		}
	}
	if f.redact && f.report == "" {
		return errors.New("--redact is about the page that --report writes")
	}
	cli.LateHeap()
	local, err := diagnose.Hosts(f.local)
	if err != nil {
		return err
	}
	tz, err := cli.Zone(f.zone)
	if err != nil {
		return err
	}
	set, err := diagnose.Catalogue(f.rules)
	if err != nil {
		return a.FailEach(err)
	}
	if err := f.Compile(tz); err != nil {
		return err
	}
	cli.LimitHeap(offlineMemory)
	var cmp *compared
	reopen := openerOf(args)
	open := func() (*diagnose.Input, error) { return diagnose.Open(args) }
	if len(f.points) > 0 {
		if f.Set() {
			return errNarrowPoints
		}
		if cmp, err = a.comparePoints(ctx, f.points, nil); err != nil {
			return a.FailEach(err)
		}
		args, open, reopen = cmp.files(), cmp.open, cmp.reopen
	}
	in, err := open()
	if err != nil {
		return a.FailEach(err)
	}
	defer in.Close()
	in.Given, in.Only = slices.Clone(local), &f.Narrow
	page, err := openPage(f.report)
	if err != nil {
		return err
	}
	defer page.discard()

	out := bufio.NewWriter(os.Stdout)
	records := report.NewRecords(out, f.output == "ecs")
	reached := false
	p := startProgress(in)
	defer p.stop()
	d, inErr, err := diagnose.Watched(ctx, in, set, local, page.watch(), func(x *analyze.Finding) error {
		reached = reached || f.failOn != "" && slices.Index(severities, x.Severity) >= slices.Index(severities, f.failOn)
		if f.output == "text" || f.summary || f.report == "-" {
			return nil
		}
		if err := records.Finding(x); err != nil {
			return err
		}
		return out.Flush() // findings stream
	})
	p.stop()
	if err != nil {
		return err
	}
	got := in.Report(inErr)
	got.Part = f.Note(report.Lang(a.Lang))
	if err := page.write(ctx, args, reopen, got, d, report.Options{Lang: report.Lang(a.Lang), Zone: tz, Catalogue: report.Rules(set, inputsOf(d)...)}, f.redact); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if f.report == "-" {
		// The page is what was asked for.
	} else if f.output == "text" {
		if cmp != nil {
			_, err = out.WriteString(report.Points(cmp.report, d, set, report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout), Color: a.WantColor(os.Stdout)}))
		}
		err = errors.Join(err, report.Text(out, got, d, report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout),
			Color: a.WantColor(os.Stdout), Verbose: f.verbose, Summary: f.summary, Zone: tz, Catalogue: report.Rules(set, inputsOf(d)...)}))
	} else {
		err = records.Diagnosis(d)
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	code := a.complain(in, got, inErr)
	if code == cli.ExitDone && reached {
		code = cli.ExitFailOn
	}
	if code != cli.ExitDone {
		return cli.Exit(code, nil)
	}
	return nil
}

// complain tells what was wrong with the input, and returns the exit code for it.
func (a *app) complain(in *diagnose.Input, got report.Input, inErr error) int {
	code := cli.ExitDone
	for _, err := range in.Unusable {
		a.Log.Error().Msg(cli.OneLine(err))
		code = cli.ExitUnusable
	}
	for _, f := range got.Files {
		switch {
		case f.Damage != "":
			what := "what stands before that was read"
			if f.Resumed {
				what = "what stands before and behind that was read"
			}
			a.Log.Error().Msgf("%s: %s; %s", f.Name, f.Damage, what)
			code = cli.ExitUnusable
		case f.LinkType != "":
			a.Log.Error().Msgf("%s: none of its %d packets can be decoded: they are of link type %s, which is not known here", f.Name, f.Packets, f.LinkType)
			code = cli.ExitUnusable
		case f.Cut:
			a.Log.Warn().Msgf("%s: is cut short in its last packet, at byte %d; what stands before that was read", f.Name, f.CutOffset)
		}
	}
	for _, l := range got.Strangers {
		a.Log.Warn().Msgf("--local %s: no packet of the input comes from it or goes to it; what was judged is seen from a host that was not there", l)
	}
	if got.Interrupted {
		a.Log.Warn().Msg("interrupted: the result is about what was read so far")
		return int(a.Interrupted.Load())
	}
	if inErr != nil && code == cli.ExitDone { // nothing of the above
		a.Log.Error().Msg(cli.OneLine(inErr))
		code = cli.ExitUnusable
	}
	return code
}

// inputsOf are what d was made of beside packets, as steps name it.
func inputsOf(d *analyze.Diagnosis) []string {
	if d.Coverage.Samples == 0 {
		return nil
	}
	return []string{"sockets", "counters", "changes"}
}
