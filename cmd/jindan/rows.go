package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
)

// rows writes flow.Row and flow.DNSRow. The first error stays in err.
type rows struct {
	write func(row any)
	err   error
}

// newRows writes in a format; text is as wide as its terminal.
func newRows(w io.Writer, format string, dns bool, width int) *rows {
	r := &rows{}
	var write func(any) error
	switch format {
	case "csv":
		write = csvRows(w, dns)
	case "text":
		write = textRows(w, dns, width)
	default:
		write = report.NewEncoder(w).Encode
	}
	r.write = func(row any) {
		if r.err == nil {
			r.err = write(row)
		}
	}
	return r
}

// csvRows writes the fields of a row under their JSON names; those of "wireshark" with
// that prefix.
func csvRows(out io.Writer, dns bool) func(any) error {
	w := csv.NewWriter(out)
	var zero any = flow.Row{}
	if dns {
		zero = flow.DNSRow{}
	}
	var names []string
	fieldNames(reflect.TypeOf(zero), "", &names)
	err := w.Write(names)
	record := make([]string, 0, len(names))
	return func(row any) error {
		if err != nil {
			return err
		}
		record = cells(reflect.ValueOf(row).Elem(), record[:0])
		err = w.Write(record)
		w.Flush() // into out, which is buffered
		return err
	}
}

func fieldNames(t reflect.Type, prefix string, names *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Type.Kind() == reflect.Struct:
			fieldNames(f.Type, prefix+name+"_", names)
		default:
			*names = append(*names, prefix+name)
		}
	}
}

func cells(v reflect.Value, out []string) []string {
	t := v.Type()
	for i := range t.NumField() {
		f := v.Field(i)
		if t.Field(i).Tag.Get("json") == "-" {
			continue
		}
		switch x := f.Interface().(type) {
		case string:
			out = append(out, report.CleanCell(x))
		case bool:
			out = append(out, strconv.FormatBool(x))
		case fmt.Stringer: // capture.Instant, flow.Seconds
			out = append(out, x.String())
		default:
			if f.Kind() == reflect.Struct {
				out = cells(f, out)
			} else {
				out = append(out, strconv.FormatUint(f.Uint(), 10))
			}
		}
	}
	return out
}

// column of the table for people. A narrow terminal loses those that are given up first.
type column struct {
	head  string
	width int // on the left of it if negative, as fmt has it
	give  int // when it is given up; 0: never
	cell  func(row any) string
}

func ofTCP(f func(*flow.Row) string) func(any) string {
	return func(row any) string { return f(row.(*flow.Row)) }
}

func ofDNS(f func(*flow.DNSRow) string) func(any) string {
	return func(row any) string { return f(row.(*flow.DNSRow)) }
}

var tcpColumns = []column{
	{"START (UTC)", -15, 6, ofTCP(func(r *flow.Row) string { return hour(r.Start) })},
	{"CLIENT", -21, 0, ofTCP(func(r *flow.Row) string { return end(r.Client, r.ClientPort) })},
	{"SERVER", -21, 0, ofTCP(func(r *flow.Row) string { return end(r.Server, r.ServerPort) })},
	{"ENDED", -17, 4, ofTCP(func(r *flow.Row) string {
		switch {
		case r.Reset != "":
			return r.Ended + " " + r.Reset
		case r.EndedBy != "":
			return r.Ended + " by " + r.EndedBy
		}
		return r.Ended
	})},
	{"DURATION", 9, 0, ofTCP(func(r *flow.Row) string { return short(r.Duration) })},
	{"PACKETS", 8, 1, ofTCP(func(r *flow.Row) string {
		return strconv.FormatUint(uint64(r.PacketsClient)+uint64(r.PacketsServer), 10)
	})},
	{"BYTES", 9, 3, ofTCP(func(r *flow.Row) string { return strconv.FormatUint(r.BytesClient+r.BytesServer, 10) })},
	{"HANDSHAKE", 9, 2, ofTCP(func(r *flow.Row) string { return short(r.HandshakeRTT) })},
	{"1ST BYTE", 9, 5, ofTCP(func(r *flow.Row) string { return short(r.FirstByte) })},
	{"TROUBLE (client/server)", 0, 0, ofTCP(trouble)},
}

var dnsColumns = []column{
	{"START (UTC)", -15, 2, ofDNS(func(r *flow.DNSRow) string { return hour(r.Start) })},
	{"CLIENT", -21, 3, ofDNS(func(r *flow.DNSRow) string { return end(r.Client, r.ClientPort) })},
	{"SERVER", -21, 0, ofDNS(func(r *flow.DNSRow) string { return end(r.Server, r.ServerPort) })},
	{"TYPE", -5, 0, ofDNS(func(r *flow.DNSRow) string { return r.Type })},
	{"LATENCY", 9, 0, ofDNS(func(r *flow.DNSRow) string { return short(r.Latency) })},
	{"TRIES", 5, 1, ofDNS(func(r *flow.DNSRow) string { return strconv.Itoa(int(r.Tries)) })},
	{"STATE", -10, 0, ofDNS(func(r *flow.DNSRow) string {
		if r.Rcode != "" && r.Rcode != "NOERROR" {
			return r.State + " " + r.Rcode
		}
		return r.State
	})},
	{"NAME", 0, 0, ofDNS(func(r *flow.DNSRow) string { return report.Clean(r.Name) })},
}

// textRows writes a table for people. Its columns have fixed widths, because rows are written as they come: those that fit
// into so many characters; 0: all.
func textRows(w io.Writer, dns bool, width int) func(any) error {
	cs := tcpColumns
	if dns {
		cs = dnsColumns
	}
	cs = fitting(cs, width)
	var heads []string
	for _, c := range cs {
		heads = append(heads, fmt.Sprintf("%*s", c.width, c.head))
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(heads, "  "), " "))
	return func(row any) error {
		if err != nil {
			return err
		}
		var cells []string
		for _, c := range cs {
			cells = append(cells, fmt.Sprintf("%*s", c.width, c.cell(row)))
		}
		_, err = fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "  "), " "))
		return err
	}
}

// lastColumn is the room that the last column, which has no width of its own, is left.
const lastColumn = 16

// fitting are the columns of cs that fit into a width; 0: all.
func fitting(cs []column, width int) []column {
	cs = slices.Clone(cs)
	for give := 1; width > 0; give++ {
		need := lastColumn
		for _, c := range cs[:len(cs)-1] {
			need += max(c.width, -c.width) + 2
		}
		if need <= width || !slices.ContainsFunc(cs, func(c column) bool { return c.give >= give }) {
			break
		}
		cs = slices.DeleteFunc(cs, func(c column) bool { return c.give == give })
	}
	return cs
}

// order is by what rows are sorted; the largest comes first.
var order = map[string]func(row any) int64{
	"start":    func(row any) int64 { return -int64(startOf(row)) },
	"duration": byTCP(func(r *flow.Row) int64 { return int64(r.Duration) }),
	"packets":  byTCP(func(r *flow.Row) int64 { return int64(r.PacketsClient) + int64(r.PacketsServer) }),
	"bytes":    byTCP(func(r *flow.Row) int64 { return int64(r.BytesClient + r.BytesServer) }),
	"resent":   byTCP(func(r *flow.Row) int64 { return int64(r.RetransmitClient) + int64(r.RetransmitServer) }),
	"lost": byTCP(func(r *flow.Row) int64 {
		return int64(r.FilledClient) + int64(r.MissingClient) + int64(r.FilledServer) + int64(r.MissingServer)
	}),
	"handshake":  byTCP(func(r *flow.Row) int64 { return int64(r.HandshakeRTT) }),
	"first-byte": byTCP(func(r *flow.Row) int64 { return int64(r.FirstByte) }),
	"latency":    byDNS(func(r *flow.DNSRow) int64 { return int64(r.Latency) }),
	"tries":      byDNS(func(r *flow.DNSRow) int64 { return int64(r.Tries) }),
}

func startOf(row any) capture.Instant {
	switch r := row.(type) {
	case *flow.Row:
		return r.Start
	case *flow.DNSRow:
		return r.Start
	}
	return 0
}

func byTCP(f func(*flow.Row) int64) func(any) int64 {
	return func(row any) int64 {
		if r, ok := row.(*flow.Row); ok {
			return f(r)
		}
		return 0
	}
}

func byDNS(f func(*flow.DNSRow) int64) func(any) int64 {
	return func(row any) int64 {
		if r, ok := row.(*flow.DNSRow); ok {
			return f(r)
		}
		return 0
	}
}

// sortColumns are the columns by which connections, or DNS rows, can be sorted.
func sortColumns(dns bool) []string {
	if dns {
		return []string{"start", "latency", "tries"}
	}
	return []string{"start", "duration", "packets", "bytes", "resent", "lost", "handshake", "first-byte"}
}

// sortedRows holds rows back until all have come.
type sortedRows struct {
	write func(any)
	key   func(any) int64
	top   int // 0: all
	rows  []any
}

// sortRows puts an order between w and those who write to it, if f wants one.
func sortRows(w *rows, f *flowsFlags) (*sortedRows, error) {
	if f.top < 0 {
		return nil, fmt.Errorf("--top %d: give a number of rows", f.top)
	}
	s := &sortedRows{write: w.write, top: f.top}
	by := f.sort
	switch {
	case by == "" && f.top == 0:
		return s, nil
	case f.explain != "" || f.dns && f.output == "ndjson":
		return nil, errors.New("--sort and --top order rows of one kind: they go neither with --explain nor with --dns -o ndjson")
	case by == "" && f.dns:
		by = "latency"
	case by == "":
		by = "bytes"
	}
	if err := cli.OneOf("--sort", by, sortColumns(f.dns)...); err != nil {
		return nil, err
	}
	s.key = order[by]
	w.write = s.take
	return s, nil
}

// take keeps a copy: who writes rows uses one over and over.
func (s *sortedRows) take(row any) {
	switch r := row.(type) {
	case *flow.Row:
		x := *r
		s.rows = append(s.rows, &x)
	case *flow.DNSRow:
		x := *r
		s.rows = append(s.rows, &x)
	}
	if s.top > 0 && len(s.rows) >= 2*max(s.top, 1000) {
		s.cut()
	}
}

func (s *sortedRows) cut() {
	slices.SortStableFunc(s.rows, func(a, b any) int {
		return cmp.Or(cmp.Compare(s.key(b), s.key(a)), cmp.Compare(startOf(a), startOf(b)))
	})
	if s.top > 0 && len(s.rows) > s.top {
		clear(s.rows[s.top:])
		s.rows = s.rows[:s.top]
	}
}

func (s *sortedRows) flush() {
	if s.key == nil {
		return
	}
	s.cut()
	for _, r := range s.rows {
		s.write(r)
	}
}

func hour(t capture.Instant) string { return t.Time().Format("15:04:05.000000") }

func end(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		return fmt.Sprintf("[%s]:%d", addr, port)
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// short is a duration with three digits; "-" if it is unknown.
func short(s flow.Seconds) string {
	d := time.Duration(s)
	switch {
	case d < 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f us", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// trouble names what is not 0.
func trouble(r *flow.Row) string {
	var out []string
	add := func(name string, client, server uint32) {
		if client+server > 0 {
			out = append(out, fmt.Sprintf("%s %d/%d", name, client, server))
		}
	}
	add("syn", uint32(r.SynRepeats), uint32(r.SynAckRepeats))
	add("resent", r.RetransmitClient, r.RetransmitServer)
	add("lost", r.FilledClient+r.MissingClient, r.FilledServer+r.MissingServer)
	add("reordered", r.ReorderedClient, r.ReorderedServer)
	add("zero-window", r.ZeroWindowsClient, r.ZeroWindowsServer)
	add("not-captured", r.CaptureLossClient, r.CaptureLossServer)
	add("copies", r.CopiesClient, r.CopiesServer)
	return strings.Join(out, ", ")
}
