package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/metric"
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
		for _, x := range ag.watches {
			x.states.want() // who asks will ask again
		}
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
	mux.HandleFunc("GET /states", ag.serveStates)
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
			ag.app.Log.Warn().Msgf("metrics and findings are not served any more: %s", cli.OneLine(err))
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
	if d := ag.delivery.Load(); d != nil && d.Ack(id) {
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

// MaxLate is how far the engine of an agent that is well may be behind: sources speak every second unless they are
// told to speak less often.
const MaxLate = 10 * time.Second

// allowed is that for a configuration: three times the longest interval of a source that always speaks.
func allowed(cfg *config.Config) time.Duration {
	return max(MaxLate, 3*min(cfg.Sockets.GateEvery, cfg.Host.Every))
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

// metrics writes the agent's own state and what it found in Prometheus' text format.
func (ag *agent) metrics(to io.Writer) {
	open, roots := make(map[countKey]uint64), make(map[countKey]uint64)
	ag.lock.Lock()
	for _, f := range ag.found {
		if f.State == analyze.Resolved {
			continue
		}
		open[countKey{f.Rule, f.Severity}]++
		if f.Role == analyze.Root {
			roots[countKey{f.Rule, f.Severity}]++
		}
	}
	counts, direct := maps.Clone(ag.counts), ag.direct != nil
	ag.lock.Unlock()
	var w metric.Writer
	by := func(name string, m map[countKey]uint64) {
		for _, k := range sortedCounts(m) {
			w.Set(name, float64(m[k]), k.rule, k.severity)
		}
	}
	w.Set("jindan_info", 1, cli.Version, runtime.Version())
	by("jindan_roots_open", roots)
	by("jindan_findings_open", open)
	by("jindan_findings_total", counts)
	for _, y := range ag.watches {
		y.metrics(&w)
	}
	if _, lost, _ := ag.stdout.Pending(); direct {
		w.Set("jindan_stdout_dropped_total", float64(lost))
	}
	if d := ag.delivery.Load(); d != nil {
		for _, s := range d.Status() {
			w.Set("jindan_sink_sent_total", float64(s.Sent), s.Name)
			w.Set("jindan_sink_retries_total", float64(s.Retried), s.Name)
			w.Set("jindan_sink_rejected_total", float64(s.Rejected), s.Name)
			w.Set("jindan_sink_dropped_total", float64(s.Dropped), s.Name)
			w.Set("jindan_sink_lag", float64(s.Lag), s.Name)
		}
		st := d.Spool()
		w.Set("jindan_spool_bytes", float64(st.Bytes))
		w.Set("jindan_spool_resets_total", float64(st.Resets))
		w.Set("jindan_spool_lost_total", float64(st.Damaged))
	}
	if _, err := w.WriteTo(to); err != nil {
		return // the reader has gone
	}
	_ = metric.WriteProcess(to) // as above
}

// metrics writes what w sees, and how far its analysis is.
func (w *Watch) metrics(to *metric.Writer) {
	packets := 0.0
	if w.live != nil {
		st := w.live.Stats()
		if len(st.Missing) == 0 {
			packets = 1
		}
		to.Set("jindan_packets_total", float64(st.Packets), w.ns)
		to.Set("jindan_packets_dropped_total", float64(st.Dropped), w.ns)
	}
	to.Set("jindan_input_up", packets, w.ns, "packets")
	sockets := 0.0
	if w.sockets != nil {
		sockets = 1
	}
	to.Set("jindan_input_up", sockets, w.ns, "sockets")
	failures := w.failures()
	for _, source := range slices.Sorted(maps.Keys(failures)) {
		to.Set("jindan_source_failures_total", float64(failures[source]), w.ns, source)
	}
	to.Set("jindan_window_age_seconds", w.progress.late().Seconds(), w.ns)
	to.Set("jindan_engine_failures_total", float64(w.progress.failures.Load()), w.ns)
	if s := w.states.last(); s != nil {
		w.states.metrics(to, s)
	}
}

func sortedCounts[V any](m map[countKey]V) []countKey {
	var keys []countKey
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b countKey) int { return strings.Compare(a.rule+"/"+a.severity, b.rule+"/"+b.severity) })
	return keys
}
