package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
)

func TestMetrics(t *testing.T) {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	ag, err := newAgent(&cli.App{Log: cli.NewLog("text", false)}, config.Default(), set, "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	ag.found[foundKey{"", "a", 0}] = &analyze.Finding{ID: "a", Rule: "surge", Severity: "error", State: analyze.Open, Onset: 5, Role: analyze.Root}
	ag.found[foundKey{"", "b", 0}] = &analyze.Finding{ID: "b", Rule: "surge", Severity: "error", State: analyze.Resolved, Onset: 9}
	ag.found[foundKey{"", "c", 0}] = &analyze.Finding{ID: "c", Rule: "leak", Severity: "warn", State: analyze.Update, Onset: 7}
	ag.counts[countKey{"surge", "error"}] = 3
	var b bytes.Buffer
	ag.metrics(&b)
	for _, want := range []string{
		"jindan_findings_open{rule=\"surge\",severity=\"error\"} 1\n",
		"jindan_findings_total{rule=\"surge\",severity=\"error\"} 3\n",
		"jindan_roots_open{rule=\"surge\",severity=\"error\"} 1\n",
		"process_resident_memory_bytes",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	var ids []string
	for _, f := range ag.newest() {
		ids = append(ids, f.ID)
	}
	if got := strings.Join(ids, " "); got != "c a b" {
		t.Errorf("order %s", got)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "another agent serves it") {
		t.Errorf("a socket that is served was taken: %v", err)
	}
	l.Close()
	again, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestSameSite: a TCP port answers who asks by address, not a web page that a browser was led to.
func TestSameSite(t *testing.T) {
	h := sameSite("127.0.0.1:9746", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"127.0.0.1:9746", "", 204}, {"localhost:9746", "", 204}, {"[::1]:9746", "", 204}, {"10.1.2.3:9746", "", 204}, {"::1", "", 204},
		{"evil.example:9746", "", 403}, {"127.0.0.1.evil.example", "", 403}, {"", "", 403},
		{"127.0.0.1:9746", "http://evil.example", 403}, {"localhost", "null", 403},
	} {
		r := httptest.NewRequest(http.MethodPost, "/ack/x", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("Host %q, Origin %q: %d, want %d", c.host, c.origin, w.Code, c.want)
		}
	}
}

// TestAPI: without sinks a finding can be acknowledged all the same; clients without end and bodies without end hold up nobody.
func TestAPI(t *testing.T) {
	cfg := config.Default()
	cfg.Recorder.Enabled, cfg.Sinks = false, nil
	ag := faultyAgent(t, cfg, io.Discard, func(int) {})
	cfg.HTTP.Listen = filepath.Join(t.TempDir(), "s")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := ag.serve(ctx); err != nil {
		t.Fatal(err)
	}
	ag.found[foundKey{"", "a", 0}] = &analyze.Finding{ID: "a", State: analyze.Open}
	ag.found[foundKey{"", "b", 0}] = &analyze.Finding{ID: "b", State: analyze.Resolved}
	if err := Ack(ctx, cfg.HTTP.Listen, "a"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"b", "c", "../healthz", "a/b"} {
		if err := Ack(ctx, cfg.HTTP.Listen, id); err == nil {
			t.Errorf("%s was acknowledged", id)
		}
	}
	// A body without end: the answer comes, and the connection ends.
	c, err := net.Dial("unix", cfg.HTTP.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(c, "POST /ack/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
	begun := time.Now()
	for err == nil {
		_, err = c.Write(make([]byte, 1024))
		time.Sleep(time.Millisecond)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body without end is read for %v", time.Since(begun))
	}
	// Idle clients, more than are served at a time, do not hold up the end.
	for range 2 * maxClients {
		c, err := net.Dial("unix", cfg.HTTP.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	begun = time.Now()
	ag.close()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the end took %v", took)
	}
}
