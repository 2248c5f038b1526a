// Package metric lists what the agent measures of itself and of what it found, in one place: /metrics, the alert rules and the
// dashboard of the packages are made from the list.
package metric

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// Kind is the type of a metric in Prometheus' text format.
type Kind string

// The kinds.
const (
	Gauge   Kind = "gauge"
	Counter Kind = "counter"
)

// A Metric is one name, with its series.
type Metric struct {
	Name   string
	Kind   Kind
	Help   string
	Labels []string // bounded: rules, severities, sinks, sources, namespaces, and 64 ports of a namespace
	Unit   string   // of the dashboard's axis, as Grafana names it; empty: it is not drawn
}

// All are the metrics, in the order of the dashboard.
var All = []Metric{
	{Name: "jindan_info", Kind: Gauge, Labels: []string{"version", "go"}, Help: "Version of the agent."},
	{Name: "jindan_roots_open", Kind: Gauge, Labels: []string{"rule", "severity"}, Unit: "short", Help: "Open findings that are causes: what to mend first."},
	{Name: "jindan_findings_open", Kind: Gauge, Labels: []string{"rule", "severity"}, Unit: "short", Help: "Findings that are open, by rule and severity."},
	{Name: "jindan_findings_total", Kind: Counter, Labels: []string{"rule", "severity"}, Unit: "short", Help: "Findings opened since the start, by rule and severity."},
	{Name: "jindan_input_up", Kind: Gauge, Labels: []string{"netns", "input"}, Unit: "bool_on_off", Help: "1 if the input is there; without it the steps that need it are not assessable."},
	{Name: "jindan_lost_segments_ratio", Kind: Gauge, Labels: []string{"netns"}, Unit: "percentunit", Help: "Share of the TCP segments of the last minute that were lost."},
	{Name: "jindan_dns_p95_seconds", Kind: Gauge, Labels: []string{"netns"}, Unit: "s", Help: "95th percentile of the time to a DNS answer in the last minute."},
	{Name: "jindan_dns_unanswered_ratio", Kind: Gauge, Labels: []string{"netns"}, Unit: "percentunit", Help: "Share of the DNS queries of the last minute without an answer."},
	{Name: "jindan_accept_queue", Kind: Gauge, Labels: []string{"netns", "port"}, Unit: "short", Help: "Connections that wait to be accepted, by listening port."},
	{Name: "jindan_accept_queue_limit", Kind: Gauge, Labels: []string{"netns", "port"}, Unit: "short", Help: "Connections that may wait to be accepted, by listening port."},
	{Name: "jindan_close_wait", Kind: Gauge, Labels: []string{"netns", "port", "held_by"}, Unit: "short", Help: "Sockets in CLOSE_WAIT by listening port: held by a process, or in its queue and not accepted."},
	{Name: "jindan_answers_per_second", Kind: Gauge, Labels: []string{"netns", "port"}, Unit: "reqps", Help: "Requests answered a second, by listening port."},
	{Name: "jindan_connections_total", Kind: Counter, Labels: []string{"netns"}, Unit: "ops", Help: "TCP connections that the analysis has seen."},
	{Name: "jindan_steps_not_assessable", Kind: Gauge, Labels: []string{"netns"}, Unit: "short", Help: "Diagnostic steps that cannot be judged from what was seen so far."},
	{Name: "jindan_packets_total", Kind: Counter, Labels: []string{"netns"}, Unit: "pps", Help: "Packets that the capture delivered."},
	{Name: "jindan_packets_dropped_total", Kind: Counter, Labels: []string{"netns"}, Unit: "pps", Help: "Packets that the kernel dropped because the capture was not read in time."},
	{Name: "jindan_source_failures_total", Kind: Counter, Labels: []string{"netns", "source"}, Unit: "ops", Help: "Times that a source could not read what it watches."},
	{Name: "jindan_window_age_seconds", Kind: Gauge, Labels: []string{"netns"}, Unit: "s", Help: "Age of the newest window that the analysis has judged."},
	{Name: "jindan_engine_failures_total", Kind: Counter, Labels: []string{"netns"}, Unit: "short", Help: "Times that the analysis failed and began anew."},
	{Name: "jindan_stdout_dropped_total", Kind: Counter, Unit: "ops", Help: "Records that nobody read from standard output in time."},
	{Name: "jindan_sink_sent_total", Kind: Counter, Labels: []string{"sink"}, Unit: "ops", Help: "Records that a sink has delivered."},
	{Name: "jindan_sink_retries_total", Kind: Counter, Labels: []string{"sink"}, Unit: "ops", Help: "Deliveries that were tried again."},
	{Name: "jindan_sink_rejected_total", Kind: Counter, Labels: []string{"sink"}, Unit: "ops", Help: "Records that the receiver of a sink refused for good."},
	{Name: "jindan_sink_dropped_total", Kind: Counter, Labels: []string{"sink"}, Unit: "ops", Help: "Records that were lost before a sink had delivered them."},
	{Name: "jindan_sink_lag", Kind: Gauge, Labels: []string{"sink"}, Unit: "short", Help: "Records that wait for a sink."},
	{Name: "jindan_spool_bytes", Kind: Gauge, Unit: "bytes", Help: "Size of the spool."},
	{Name: "jindan_spool_resets_total", Kind: Counter, Unit: "short", Help: "Times that a damaged spool was set aside."},
	{Name: "jindan_spool_lost_total", Kind: Counter, Unit: "short", Help: "Records that a damaged spool lost."},
}

// A Writer collects series by metric: the format wants those of one name together, behind their HELP and TYPE. Its zero value is
// ready.
type Writer struct {
	names []string
	text  map[string]*bytes.Buffer
}

// Set writes the value of a series, whose labels have these values, in the order of the list. A name that the list has not got, or
// another number of labels, is a mistake of the caller, which panics.
func (w *Writer) Set(name string, v float64, labels ...string) {
	i := slices.IndexFunc(All, func(m Metric) bool { return m.Name == name })
	if i < 0 || len(All[i].Labels) != len(labels) {
		panic(fmt.Sprintf("metric %s with %d labels is not in the list", name, len(labels)))
	}
	m := &All[i]
	b := w.text[name]
	if b == nil {
		if w.text == nil {
			w.text = make(map[string]*bytes.Buffer)
		}
		b = new(bytes.Buffer)
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, m.Help, name, m.Kind)
		w.text[name] = b
		w.names = append(w.names, name)
	}
	if m.Kind == Counter {
		metrics.WriteCounterUint64(b, series(m, labels), uint64(v))
		return
	}
	metrics.WriteGaugeFloat64(b, series(m, labels), v)
}

// WriteTo writes what was set, in Prometheus' text format 0.0.4.
func (w *Writer) WriteTo(to io.Writer) (n int64, err error) {
	for _, name := range w.names {
		m, err := w.text[name].WriteTo(to)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func series(m *Metric, labels []string) string {
	if len(labels) == 0 {
		return m.Name
	}
	var b strings.Builder
	for i, v := range labels {
		fmt.Fprintf(&b, ",%s=%q", m.Labels[i], v)
	}
	return m.Name + "{" + b.String()[1:] + "}"
}

// WriteProcess writes what the Go runtime and the kernel tell of the agent's own process, with HELP and TYPE like the others. What Prometheus
// would refuse for its name, gauges that are called a count, is left out.
func WriteProcess(to io.Writer) error {
	var b bytes.Buffer
	metrics.ExposeMetadata(true)
	metrics.WriteProcessMetrics(&b)
	help, told, left := "", map[string]bool{}, ""
	for line := range strings.Lines(b.String()) {
		switch f := strings.Fields(line); {
		case len(f) > 1 && f[1] == "HELP":
			if help = "Of the agent's process, from /proc/self."; strings.HasPrefix(f[2], "go_") {
				help = "Of the Go runtime, as its package runtime/metrics describes it."
			}
			continue
		case len(f) > 1 && f[1] == "TYPE":
			name, kind := f[2], f[3]
			if strings.HasSuffix(name, "_count") {
				left = name
				continue
			}
			if told[name] {
				continue // the format has one of each for a name
			}
			told[name] = true
			if strings.HasSuffix(name, "_total") {
				kind = string(Counter)
			}
			line = fmt.Sprintf("# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		case len(f) > 0 && f[0] == left:
			continue
		}
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
	}
	return nil
}
