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
	narrow
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
	f.narrow.flags(c)
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "text: add evidence with frame numbers and Wireshark filters, remarks, all steps")
	c.Flags().BoolVar(&f.summary, "summary", false, "only the cause (text) or only the diagnosis record (ndjson, ecs)")
	c.Flags().StringVar(&f.report, "report", "", "also write a page with pictures to this `file`; - for standard output")
	c.Flags().BoolVar(&f.redact, "redact", false, "in the page: labels instead of addresses and names")
	c.Flags().StringArrayVar(&f.points, "point", nil, "`NAME=FILE`: a capture, or a recording, of one of several points on the path; repeatable")
	fixed(c, "output", "text", "ndjson", "ecs")
	fixed(c, "fail-on", "warn", "error")
	return c
}

// fixed offers the values of a flag to the shell's completion.
func fixed(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// severities in rising order.
var severities = []string{"info", "warn", "error"}

func (a *app) analyze(ctx context.Context, args []string, f analyzeFlags) error {
	if f.output == "" {
		f.output = "ndjson"
		if isTerminal(os.Stdout) {
			f.output = "text"
		}
	}
	if err := oneOf("--output", f.output, "text", "ndjson", "ecs"); err != nil {
		return err
	}
	if f.failOn != "" {
		if err := oneOf("--fail-on", f.failOn, severities...); err != nil {
			return err
		}
	}
	if f.redact && f.report == "" {
		return errors.New("--redact is about the page that --report writes")
	}
	local, err := hosts(f.local)
	if err != nil {
		return err
	}
	tz, err := zone(f.zone)
	if err != nil {
		return err
	}
	set, err := catalogue(f.rules)
	if err != nil {
		return a.failEach(err)
	}
	if err := f.compile(tz); err != nil {
		return err
	}
	limitHeap(offlineMemory)
	var cmp *compared
	if len(f.points) > 0 {
		if f.set() {
			return errNarrowPoints
		}
		if cmp, err = a.comparePoints(ctx, f.points, nil); err != nil {
			return a.failEach(err)
		}
		args = cmp.main
	}
	in, err := openInput(args)
	defer in.close()
	if err != nil {
		return a.failEach(err)
	}
	in.given, in.only = slices.Clone(local), &f.narrow
	page, err := openPage(f.report)
	if err != nil {
		return err
	}
	defer page.discard()
	if cmp != nil {
		in.points = cmp.report
	}

	out := bufio.NewWriter(os.Stdout)
	records := report.NewRecords(out, f.output == "ecs")
	reached := false
	p := startProgress(in)
	defer p.stop()
	d, inErr, err := diagnoseWatched(ctx, in, set, local, page.watch(), func(x *analyze.Finding) error {
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
	got := in.report(inErr)
	got.Part = f.note(report.Lang(a.lang))
	if err := page.write(ctx, args, got, d, report.Options{Lang: report.Lang(a.lang), Zone: tz, Catalogue: report.Rules(set, inputsOf(d)...)}, f.redact); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if f.report == "-" {
		// The page is what was asked for.
	} else if f.output == "text" {
		if cmp != nil {
			_, err = out.WriteString(report.Points(cmp.report, cmp.closer, d, set, report.Options{Lang: report.Lang(a.lang), Width: columns(os.Stdout), Color: a.wantColor(os.Stdout)}))
		}
		err = errors.Join(err, report.Text(out, got, d, report.Options{Lang: report.Lang(a.lang), Width: columns(os.Stdout),
			Color: a.wantColor(os.Stdout), Verbose: f.verbose, Summary: f.summary, Zone: tz, Catalogue: report.Rules(set, inputsOf(d)...)}))
	} else {
		err = records.Diagnosis(d)
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	code := a.complain(in, got, inErr)
	if code == exitDone && reached {
		code = exitFailOn
	}
	if code != exitDone {
		return &status{code: code}
	}
	return nil
}

// failEach tells each of several joined errors on a line of its own.
func (a *app) failEach(err error) error {
	es := splitErrors(err)
	for _, e := range es[:len(es)-1] {
		a.log.Error().Msg(oneLine(e))
	}
	return es[len(es)-1]
}

// complain tells what was wrong with the input, and returns the exit code for it.
func (a *app) complain(in *input, got report.Input, inErr error) int {
	code := exitDone
	for _, err := range in.unusable {
		a.log.Error().Msg(oneLine(err))
		code = exitUnusable
	}
	for _, f := range got.Files {
		switch {
		case f.Damage != "":
			what := "what stands before that was read"
			if f.Resumed {
				what = "what stands before and behind that was read"
			}
			a.log.Error().Msgf("%s: %s; %s", f.Name, f.Damage, what)
			code = exitUnusable
		case f.LinkType != "":
			a.log.Error().Msgf("%s: none of its %d packets can be decoded: they are of link type %s, which is not known here", f.Name, f.Packets, f.LinkType)
			code = exitUnusable
		case f.Cut:
			a.log.Warn().Msgf("%s: is cut short in its last packet, at byte %d; what stands before that was read", f.Name, f.CutOffset)
		}
	}
	for _, l := range got.Strangers {
		a.log.Warn().Msgf("--local %s: no packet of the input comes from it or goes to it; what was judged is seen from a host that was not there", l)
	}
	if got.Interrupted {
		a.log.Warn().Msg("interrupted: the result is about what was read so far")
		return int(a.interrupted.Load())
	}
	if inErr != nil && code == exitDone { // nothing of the above
		a.log.Error().Msg(oneLine(inErr))
		code = exitUnusable
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
