package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// rows writes flow.Row and flow.DNSRow. The first error stays in err.
type rows struct {
	write func(row any)
	err   error
}

func newRows(w io.Writer, format string, dns bool) *rows {
	r := &rows{}
	var write func(any) error
	switch format {
	case "csv":
		write = csvRows(w, dns)
	case "text":
		write = textRows(w, dns)
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

// textRows writes a table for people. Its columns have fixed widths, because rows are
// written as they come.
func textRows(w io.Writer, dns bool) func(any) error {
	var err error
	if dns {
		_, err = fmt.Fprintf(w, "%-15s  %-21s  %-21s  %-5s  %9s  %5s  %-10s  %s\n",
			"START (UTC)", "CLIENT", "SERVER", "TYPE", "LATENCY", "TRIES", "STATE", "NAME")
	} else {
		_, err = fmt.Fprintf(w, "%-15s  %-21s  %-21s  %-17s  %9s  %8s  %9s  %9s  %9s  %s\n",
			"START (UTC)", "CLIENT", "SERVER", "ENDED", "DURATION", "PACKETS", "BYTES", "HANDSHAKE", "1ST BYTE", "TROUBLE (client/server)")
	}
	return func(row any) error {
		if err != nil {
			return err
		}
		line := ""
		switch r := row.(type) {
		case *flow.Row:
			ended := r.Ended
			if r.Reset != "" {
				ended += " " + r.Reset
			} else if r.EndedBy != "" {
				ended += " by " + r.EndedBy
			}
			line = fmt.Sprintf("%-15s  %-21s  %-21s  %-17s  %9s  %8d  %9d  %9s  %9s  %s", hour(r.Start), end(r.Client, r.ClientPort),
				end(r.Server, r.ServerPort), ended, short(r.Duration), r.PacketsClient+r.PacketsServer, r.BytesClient+r.BytesServer,
				short(r.HandshakeRTT), short(r.FirstByte), trouble(r))
		case *flow.DNSRow:
			state := r.State
			if r.Rcode != "" && r.Rcode != "NOERROR" {
				state += " " + r.Rcode
			}
			line = fmt.Sprintf("%-15s  %-21s  %-21s  %-5s  %9s  %5d  %-10s  %s", hour(r.Start), end(r.Client, r.ClientPort),
				end(r.Server, r.ServerPort), r.Type, short(r.Latency), r.Tries, state, report.Clean(r.Name))
		}
		_, err = fmt.Fprintln(w, strings.TrimRight(line, " "))
		return err
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
