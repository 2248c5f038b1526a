package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/points"
	"jindan/capture"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

type flowsFlags struct {
	output  string
	local   []string
	dns     bool
	explain string
	points  []string
	sort    string
	top     int
	zone    string
	diagnose.Narrow
}

func newFlows(a *app) *cobra.Command {
	var f flowsFlags
	c := &cobra.Command{
		Use:   "flows FILE|DIR|-…",
		Short: "List connections and DNS transactions, one row each",
		Long: `Lists every TCP connection: who, when, how it ended and who ended it, packets, bytes,
handshake round trip, time to the first byte, what was sent again and why, what is missing, zero
windows, half-close age. --dns adds the DNS transactions.

NDJSON rows have a "kind", tcp or dns. Times are RFC 3339 in UTC, durations in seconds, null where
unknown. Names ending in _client and _server are about what that side sent. Beside jindan's own
classes, "wireshark" holds the counts that Wireshark gives (tcp.analysis.*, 4.0, default
preferences), so that the two can be held against each other: jindan leaves out copies, tells
reordering from loss, and counts super-packets as what they stand for.

Rows come in the order in which the connections began, but for those whose addresses and ports
were used again and those dropped from a full table (500,000 connections): these come at once.
CSV and text hold one kind of rows: DNS if --dns is given, else TCP. On a terminal, columns that do
not fit are left out.

--sort gives the rows in the order of a column, the largest first (start: the earliest), at the end of the input;
--top only the first of them. The columns of connections: start, duration, packets, bytes, resent, lost, handshake, first-byte.
Of DNS: start, latency, tries.

--explain tells the story of connections in words instead, with frame numbers: what was sent in vain, how
long nothing passed, whose window was closed, who ended it. Alone it tells of those that fared ill;
--explain=FILTER of those that match: all, a number of tcp.stream, ADDRESS, :PORT or ADDRESS:PORT, several
joined by commas.`,
		Example: `  jindan flows server.pcap
  jindan flows -o ndjson server.pcap | jq 'select(.retransmit_server > 0)'
  jindan flows --sort resent --top 20 --since 2m --filter 'port 443' server.pcap
  jindan flows -o csv --dns server.pcap >dns.csv
  jindan flows --explain stuck.pcap
  jindan flows --explain=10.0.0.7:443 --lang ko server.pcap`,
		Args: pointArgs(&f.points),
		RunE: func(c *cobra.Command, args []string) error { return a.flows(c.Context(), args, f) },
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "output `format`: ndjson, csv or text (default text on a terminal, else ndjson)")
	c.Flags().StringSliceVar(&f.local, "local", nil, "`address` or prefix of the host that the capture was made on, repeatable; says which side it is")
	c.Flags().BoolVar(&f.dns, "dns", false, "also list DNS transactions (csv and text: instead)")
	c.Flags().StringVar(&f.explain, "explain", "", "tell the story of the connections that match `filter`, in words (alone: those that fared ill)")
	c.Flags().Lookup("explain").NoOptDefVal = "ill"
	c.Flags().StringArrayVar(&f.points, "point", nil, "`NAME=FILE`: a row for each connection with its packets at each of several points; repeatable")
	c.Flags().StringVar(&f.sort, "sort", "", "order by `column`, see above (default the order in which they began)")
	c.Flags().IntVar(&f.top, "top", 0, "only the first `n` rows of that order (without --sort: of bytes, or latency)")
	c.Flags().StringVar(&f.zone, "tz", "UTC", "`zone` of clock times in --since and --until: UTC, local, +09:00 or Asia/Seoul")
	narrowFlags(c, &f.Narrow)
	fixed(c, "output", "ndjson", "csv", "text")
	fixed(c, "sort", slices.Concat(sortColumns(false), sortColumns(true))...)
	return c
}

func (a *app) flows(ctx context.Context, args []string, f flowsFlags) error {
	if f.output == "" {
		f.output = "ndjson"
		if cli.IsTerminal(os.Stdout) {
			f.output = "text"
		}
	}
	if err := cli.OneOf("--output", f.output, "ndjson", "csv", "text"); err != nil {
		return err
	}
	if f.explain != "" && (f.dns || f.output == "csv") {
		return errors.New("--explain tells of connections, as text or ndjson: it goes with neither --dns nor -o csv")
	}
	wanted, err := parseWanted(f.explain)
	if err != nil {
		return err
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
	if err := f.Compile(tz); err != nil {
		return err
	}
	cli.LimitHeap(offlineMemory)
	if len(f.points) > 0 {
		if f.Set() {
			return errNarrowPoints
		}
		return a.flowsOfPoints(ctx, f)
	}
	in, err := diagnose.Open(args)
	if err != nil {
		return a.FailEach(err)
	}
	defer in.Close()
	in.Given, in.Only = slices.Clone(local), &f.Narrow
	p := startProgress(in)
	defer p.stop()

	width := 0 // of a file or pipe there is none
	if cli.IsTerminal(os.Stdout) {
		width = cli.Columns(os.Stdout)
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	var w *rows
	if f.explain != "" {
		w = newStories(out, f.output, report.Lang(a.Lang))
	} else {
		w = newRows(out, f.output, f.dns, width)
	}
	sorted, err := sortRows(w, &f)
	if err != nil {
		return err
	}
	t := newTracker(w, f, local, wanted)
	inErr := in.Read(ctx, t.observe)
	if w.err == nil {
		t.table.Close()
		sorted.flush()
	}
	p.stop()
	if note := f.Note(report.Lang(a.Lang)); note != "" {
		a.Log.Info().Msg(note)
	}
	if err := errors.Join(w.err, out.Flush()); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	if code := a.complain(in, in.Report(inErr), inErr); code != cli.ExitDone {
		return cli.Exit(code, nil)
	}
	return nil
}

// flowsOfPoints lists connections with what each of several points saw of them.
func (a *app) flowsOfPoints(ctx context.Context, f flowsFlags) error {
	if f.dns || f.explain != "" || f.output == "csv" {
		return errors.New("--point goes with text and ndjson, and with neither --dns nor --explain")
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	var failed error
	enc := json.NewEncoder(out)
	if f.output == "text" {
		_, failed = fmt.Fprintf(out, "%-15s  %-5s  %-21s  %-21s  %s\n", "START (UTC)", "PROTO", "CLIENT", "SERVER", "PACKETS AT EACH POINT (client/server), LOST BEHIND IT, MISSED BY IT")
	}
	_, err := a.comparePoints(ctx, f.points, func(r *points.Row) {
		if failed != nil {
			return
		}
		if f.output != "text" {
			failed = enc.Encode(r)
			return
		}
		var at []string
		for i, name := range r.Way {
			s := fmt.Sprintf("%s %d/%d", name, r.ClientPackets[i], r.ServerPackets[i])
			if n, m := r.ClientLost[i], r.ServerLost[i]; n+m > 0 {
				s += fmt.Sprintf(" lost %d/%d", n, m)
			}
			if n := r.Missed[i]; n > 0 {
				s += fmt.Sprintf(" missed %d", n)
			}
			at = append(at, s)
		}
		_, failed = fmt.Fprintf(out, "%-15s  %-5s  %-21s  %-21s  %s\n", hour(r.First), r.Proto, r.Client, r.Server, report.Clean(strings.Join(at, " | ")))
	})
	if err != nil {
		return a.FailEach(err)
	}
	if err := errors.Join(failed, out.Flush()); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	return nil
}

// tracker is a flow table outside of the engine: it seals its windows by the packets' time.
type tracker struct {
	table *flow.Table
	rows  *rows
	first capture.Instant // of the first packet
	now   capture.Instant
	end   capture.Instant // of the open window
	row   flow.Row
	dns   flow.DNSRow
}

func newTracker(w *rows, f flowsFlags, own []netip.Prefix, wanted *wanted) *tracker {
	t := &tracker{rows: w}
	local := func(a capture.Addr) bool {
		return slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a.Netip()) })
	}
	o := flow.Options{Wireshark: true, KeepClosed: true}
	if f.explain != "" {
		o = flow.Options{Story: true, KeepClosed: true}
		o.Row = func(c *flow.Conn, tr *flow.Trouble, _ *flow.WiresharkCounts) {
			st := t.table.Story(c)
			st.Close(t.now)
			if wanted.has(c, st) {
				c.Row(&t.row, tr, nil, t.now, local)
				w.write(&story{t.row, st, t.first})
			}
		}
		t.table = flow.New(o)
		return t
	}
	if f.output == "ndjson" || !f.dns {
		o.Row = func(c *flow.Conn, tr *flow.Trouble, ws *flow.WiresharkCounts) {
			c.Row(&t.row, tr, ws, t.now, local)
			w.write(&t.row)
		}
	}
	if f.dns {
		o.DNSRow = func(d *flow.DNS) {
			t.table.DNSRow(&t.dns, d, local)
			w.write(&t.dns)
		}
	}
	t.table = flow.New(o)
	return t
}

func (t *tracker) observe(b *capture.Batch) error {
	for i := range b.Obs {
		o := &b.Obs[i]
		if o.At >= t.end {
			if t.end != 0 {
				t.table.Expire(t.end)
				t.table.Seal(t.end)
			}
			const n = capture.Instant(analyze.WindowLength)
			t.end = o.At - (o.At%n+n)%n + n
		}
		if t.first == 0 {
			t.first, t.now = o.At, o.At
		}
		t.now = max(t.now, o.At)
		t.table.Observe(o)
	}
	return t.rows.err
}
