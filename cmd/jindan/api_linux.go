package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/net/netutil"

	"jindan/analyze"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/report"
)

// serve answers /metrics, /healthz, /findings and /incidents where the configuration wants it, until ctx ends.
func (ag *agent) serve(ctx context.Context) error {
	where := ag.cfg.HTTP.Listen
	if where == "" {
		return nil
	}
	l, err := listen(where)
	if err != nil {
		return fmt.Errorf("metrics and findings are not served: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { ag.metrics(w) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if why := ag.unwell(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /findings", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := report.NewEncoder(w)
		for _, f := range ag.newest() {
			if enc.Encode(f) != nil {
				return // the reader has gone
			}
		}
	})
	mux.HandleFunc("GET /incidents", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := report.NewEncoder(w)
		for _, x := range ag.incidents() {
			if enc.Encode(x) != nil {
				return // the reader has gone
			}
		}
	})
	mux.HandleFunc("POST /ack/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !ag.ack(r.PathValue("id")) {
			http.Error(w, "no open finding has this id", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	var h http.Handler = mux
	if !strings.HasPrefix(where, "/") {
		h = sameSite(where, mux)
	}
	// Readers are local and ask for one thing: seconds are plenty.
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10}
	l = netutil.LimitListener(l, maxClients)
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			ag.app.log.Warn().Msgf("metrics and findings are not served any more: %s", oneLine(err))
		}
	}()
	ag.closing = append(ag.closing, func() error {
		down, stop := context.WithTimeout(context.WithoutCancel(ctx), 300*time.Millisecond)
		defer stop()
		if err := s.Shutdown(down); err != nil {
			return s.Close() // of those who linger
		}
		return nil
	})
	return nil
}

// ack acknowledges an open finding, and reports whether there is one. Without sinks nothing is repeated, and that is all.
func (ag *agent) ack(id string) bool {
	ag.lock.Lock()
	defer ag.lock.Unlock()
	if ag.delivery != nil && ag.delivery.Ack(id) {
		return true
	}
	for _, f := range ag.found {
		if f.ID == id && f.State != analyze.Resolved {
			return true
		}
	}
	return false
}

// maxClients is how many connections are served at a time: a handful of scrapers and people; the rest waits.
const maxClients = 64

// sameSite refuses what a web page could make a browser ask of a TCP port that has no authentication: a request from another
// origin, and one under a name that was made to lead here (DNS rebinding).
func sameSite(where string, h http.Handler) http.Handler {
	own, _, _ := net.SplitHostPort(where)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		known := net.ParseIP(strings.Trim(host, "[]")) != nil || strings.EqualFold(host, "localhost") || own != "" && strings.EqualFold(host, own)
		if !known || r.Header.Get("Origin") != "" {
			http.Error(w, "ask by address, and not from a web page", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// listen opens a Unix socket for a path, readable by the owner's group, or a TCP port.
func listen(where string) (net.Listener, error) {
	if !strings.HasPrefix(where, "/") {
		return net.Listen("tcp", where)
	}
	if err := os.MkdirAll(filepath.Dir(where), 0o755); err != nil {
		return nil, err
	}
	// A socket that an agent left behind when it was killed is in the way; one that is served is not ours to take.
	if c, err := net.DialTimeout("unix", where, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another agent serves it (http.listen names another place)", where)
	}
	_ = os.Remove(where)
	l, err := net.Listen("unix", where)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(where, 0o660)
}

// maxLate is how far the engine of an agent that is well may be behind: sources speak every second unless they are
// told to speak less often.
const maxLate = 10 * time.Second

// allowed is that for a configuration: three times the longest interval of a source that always speaks.
func allowed(cfg *config.Config) time.Duration {
	return max(maxLate, 3*min(cfg.Sockets.GateEvery, cfg.Host.Every))
}

// unwell says why the agent cannot be said to be alive; empty: its engines keep up.
func (ag *agent) unwell() string {
	if !ag.started.Load() {
		return ""
	}
	for _, w := range ag.watches {
		if late := w.progress.late(); late > allowed(ag.cfg) && !w.gone.Load() {
			where := ""
			if w.ns != "" {
				where = " of " + w.ns
			}
			return fmt.Sprintf("the analysis%s stands still: its newest window is %.0f s old", where, late.Seconds())
		}
	}
	return ""
}

// metrics writes the agent's own state in Prometheus' text format. Labels are bounded: rules, severities, sources
// and namespaces.
func (ag *agent) metrics(w io.Writer) {
	ag.lock.Lock()
	open := make(map[countKey]int)
	for _, f := range ag.found {
		if f.State != analyze.Resolved {
			open[countKey{f.Rule, f.Severity}]++
		}
	}
	counts := make(map[countKey]uint64, len(ag.counts))
	for k, n := range ag.counts {
		counts[k] = n
	}
	ag.lock.Unlock()
	var x exposition
	gauge := func(name string, v float64, labels ...string) {
		metrics.WriteGaugeFloat64(x.of(name, "gauge"), series(name, labels), v)
	}
	counter := func(name string, v uint64, labels ...string) {
		metrics.WriteCounterUint64(x.of(name, "counter"), series(name, labels), v)
	}
	gauge("jindan_info", 1, "version", version, "go", runtime.Version())
	for _, k := range sortedCounts(open) {
		gauge("jindan_findings_open", float64(open[k]), "rule", k.rule, "severity", k.severity)
	}
	for _, k := range sortedCounts(counts) {
		counter("jindan_findings_total", counts[k], "rule", k.rule, "severity", k.severity)
	}
	for _, y := range ag.watches {
		for _, source := range []string{"sockets", "host", "capture"} {
			if n, ok := y.failures()[source]; ok {
				counter("jindan_source_failures_total", n, "netns", y.ns, "source", source)
			}
		}
		if y.live != nil {
			st := y.live.Stats()
			counter("jindan_packets_total", st.Packets, "netns", y.ns)
			counter("jindan_packets_dropped_total", st.Dropped, "netns", y.ns)
		}
		gauge("jindan_window_age_seconds", y.progress.late().Seconds(), "netns", y.ns)
		counter("jindan_engine_failures_total", y.progress.failures.Load(), "netns", y.ns)
	}
	if _, lost, _ := ag.stdout.state(); ag.direct != nil {
		counter("jindan_stdout_dropped_total", lost)
	}
	if ag.delivery != nil {
		for _, s := range ag.delivery.Status() {
			counter("jindan_sink_sent_total", s.Sent, "sink", s.Name)
			counter("jindan_sink_retries_total", s.Retried, "sink", s.Name)
			counter("jindan_sink_rejected_total", s.Rejected, "sink", s.Name)
			counter("jindan_sink_dropped_total", s.Dropped, "sink", s.Name)
			gauge("jindan_sink_lag", float64(s.Lag), "sink", s.Name)
		}
		st := ag.delivery.Spool()
		gauge("jindan_spool_bytes", float64(st.Bytes))
		counter("jindan_spool_resets_total", st.Resets)
		counter("jindan_spool_lost_total", st.Damaged)
	}
	x.write(w)
	metrics.WriteProcessMetrics(w)
}

// help is what each metric means, for the HELP line.
var help = map[string]string{
	"jindan_info":                  "Version of the agent.",
	"jindan_findings_open":         "Findings that are open, by rule and severity.",
	"jindan_findings_total":        "Findings opened since the start, by rule and severity.",
	"jindan_source_failures_total": "Times that a source could not read what it watches.",
	"jindan_packets_total":         "Packets that the capture delivered.",
	"jindan_packets_dropped_total": "Packets that the kernel dropped because the capture was not read in time.",
	"jindan_window_age_seconds":    "Age of the newest window that the analysis has judged.",
	"jindan_engine_failures_total": "Times that the analysis failed and began anew.",
	"jindan_stdout_dropped_total":  "Records that nobody read from standard output in time.",
	"jindan_sink_sent_total":       "Records that a sink has delivered.",
	"jindan_sink_retries_total":    "Deliveries that were tried again.",
	"jindan_sink_rejected_total":   "Records that the receiver of a sink refused for good.",
	"jindan_sink_dropped_total":    "Records that were lost before a sink had delivered them.",
	"jindan_sink_lag":              "Records that wait for a sink.",
	"jindan_spool_bytes":           "Size of the spool.",
	"jindan_spool_resets_total":    "Times that a damaged spool was set aside.",
	"jindan_spool_lost_total":      "Records that a damaged spool lost.",
}

// exposition collects series by metric: the format wants those of one name together, behind their HELP and TYPE.
type exposition struct {
	names []string
	text  map[string]*bytes.Buffer
}

func (x *exposition) of(name, kind string) io.Writer {
	if x.text == nil {
		x.text = make(map[string]*bytes.Buffer)
	}
	b := x.text[name]
	if b == nil {
		b = new(bytes.Buffer)
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help[name], name, kind)
		x.text[name] = b
		x.names = append(x.names, name)
	}
	return b
}

func (x *exposition) write(w io.Writer) {
	for _, name := range x.names {
		if _, err := x.text[name].WriteTo(w); err != nil {
			return // the reader has gone
		}
	}
}

func series(name string, labels []string) string {
	if len(labels) == 0 {
		return name
	}
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		fmt.Fprintf(&b, ",%s=%q", labels[i], labels[i+1])
	}
	return name + "{" + b.String()[1:] + "}"
}

func sortedCounts[V any](m map[countKey]V) []countKey {
	var keys []countKey
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b countKey) int { return strings.Compare(a.rule+"/"+a.severity, b.rule+"/"+b.severity) })
	return keys
}
