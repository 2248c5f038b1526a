package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/sinktest"
)

// TestSinksAway starts the agent with 10,000 records in its spool, one receiver that never reads and one that is absent. It samples as
// ever, within its memory; a third sink gets everything, with the word on the other two.
func TestSinksAway(t *testing.T) {
	t.Parallel() // waits for most of its time
	if testing.Short() {
		t.Skip("-short: waits for the time limit of a request, takes about 15 s")
	}
	dir := t.TempDir()
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	absent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	absent.Close()

	// An agent that could deliver nothing has left its spool behind.
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	spool, err := sink.OpenSpool(sink.SpoolOptions{Path: filepath.Join(dir, "spool", "spool.db"), Sinks: []string{"deaf", "absent", "file"}})
	if err != nil {
		t.Fatal(err)
	}
	s := sinktest.NewStream(t)
	for range 50 {
		s.Feed(t, 0, func(f *analyze.Finding) error {
			r, err := sink.FindingRecord(f)
			return errors.Join(err, spool.Append(r))
		})
	}
	if err := errors.Join(spool.Sync(t.Context()), spool.Close()); err != nil {
		t.Fatal(err)
	}

	file, api, record := filepath.Join(dir, "jindan.yaml"), filepath.Join(dir, "api"), filepath.Join(dir, "recording")
	err = os.WriteFile(file, fmt.Appendf(nil, `
spool: {dir: %s/spool}
recorder: {enabled: false}
http: {listen: %s}
heartbeat: 10s
sinks:
  - {type: webhook, name: deaf, url: "http://%s/"}
  - {type: syslog, name: absent, address: "tcp://%s"}
  - {type: file, name: file, path: %s/findings.ndjson}
`, dir, api, deaf.Addr(), absent.Addr(), dir), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var messages bytes.Buffer
	agent := exec.Command(self, "run", "--config", file, "--no-capture", "--record", record)
	agent.Env = append(os.Environ(), asProgram+"=1")
	agent.Stderr = &messages
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill() }() // it has ended unless the test failed

	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", api)
		}}}
	metrics := func() map[string]float64 {
		r, err := client.Get("http://agent/metrics")
		if err != nil {
			return nil // not yet
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		all := make(map[string]float64)
		for line := range strings.Lines(string(b)) {
			var v float64
			if at := strings.LastIndexByte(line, ' '); at > 0 {
				_, _ = fmt.Sscan(line[at:], &v)
				all[line[:at]] = v
			}
		}
		return all
	}
	const (
		most    = 128 << 20 // bytes of memory, of a process that samples and delivers
		timeout = 10        // seconds of a request, see sink.Output
	)
	begun := time.Now()
	var rss float64
	for {
		m := metrics()
		rss = max(rss, m["process_resident_memory_bytes"])
		if age := m[`jindan_window_age_seconds{netns=""}`]; time.Since(begun) > 3*time.Second && (m == nil || age > 3) {
			t.Errorf("after %v the newest window is %.1f s old", time.Since(begun), age)
		}
		if m[`jindan_sink_retries_total{sink="deaf"}`] >= 1 && m[`jindan_sink_lag{sink="file"}`] == 0 && time.Since(begun) > (timeout+3)*time.Second {
			for _, name := range []string{"deaf", "absent"} {
				of := func(what string) float64 { return m[fmt.Sprintf("jindan_sink_%s{sink=%q}", what, name)] }
				if of("lag") < float64(s.Len()) || of("sent_total") != 0 || of("rejected_total") != 0 || of("dropped_total") != 0 || of("retries_total") == 0 {
					t.Errorf("%s: %v", name, m)
				}
			}
			if sent := m[`jindan_sink_sent_total{sink="file"}`]; sent < float64(s.Len()) {
				t.Errorf("the file has %v of %d", sent, s.Len())
			}
			break
		}
		if time.Since(begun) > 40*time.Second {
			t.Fatalf("the failures do not show: %v; %s", m, messages.String())
		}
		time.Sleep(200 * time.Millisecond)
	}
	took := time.Since(begun)
	if rss == 0 || rss > most {
		t.Errorf("%.0f MB of memory", rss/1e6)
	}
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if code := agent.ProcessState.ExitCode(); code != 0 && code != cli.ExitTerminate {
		t.Errorf("exit code %d: %s", code, messages.String())
	}

	// Every second a look at the sockets and the counters.
	r, err := recording.Open(record, func(string) (capture.Source, error) { return nil, os.ErrNotExist })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	seen, last, gap := map[string]int{}, map[string]capture.Instant{}, map[string]time.Duration{}
	for b := new(capture.Batch); err == nil; {
		err = r.Read(t.Context(), b)
		for i := range b.Obs {
			o := &b.Obs[i]
			kind := "sockets"
			switch {
			case o.Kind != capture.KindSample || o.Sample.Sockets == nil && o.Sample.Host == nil:
				continue
			case o.Sample.Host != nil:
				kind = "host"
			}
			if seen[kind]++; seen[kind] > 1 {
				gap[kind] = max(gap[kind], o.At.Sub(last[kind]))
			}
			last[kind] = o.At
		}
		b.Obs = b.Obs[:0]
	}
	for _, kind := range []string{"sockets", "host"} {
		if n := seen[kind]; n < int(took.Seconds())-2 || gap[kind] > 2500*time.Millisecond { // starting up takes a part of a second
			t.Errorf("%s: %d samples in %v, at most %v apart", kind, n, took, gap[kind])
		}
	}
	t.Logf("%v: %v samples, at most %v apart, %.0f MB, %d records in the spool", took, seen, gap, rss/1e6, s.Len())

	b, err := os.ReadFile(filepath.Join(dir, "findings.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	words, missing := map[string]string{}, map[string]uint64{}
	for line := range bytes.Lines(b) {
		var h struct {
			Schema, Host string
			Coverage     struct{ Undelivered map[string]uint64 }
			Sinks        []struct {
				Name, LastError string
				Connected       bool
				Lag             uint64
			}
		}
		if err := json.Unmarshal(bytes.ReplaceAll(line, []byte(`"last_error"`), []byte(`"LastError"`)), &h); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case h.Host == sinktest.Host:
			s.Take(t, "", "", line)
		case h.Schema == analyze.DiagnosisSchema:
			missing = h.Coverage.Undelivered
		case h.Schema == sink.HeartbeatSchema:
			for _, x := range h.Sinks {
				if x.Name != "file" && (x.Connected || x.Lag == 0) {
					t.Errorf("%+v", x)
				}
				words[x.Name] = x.LastError
			}
		}
	}
	s.Done(t)
	if n := uint64(s.Len()); len(missing) != 2 || missing["deaf"] < n || missing["absent"] < n {
		t.Errorf("the diagnosis says that %v are not delivered", missing)
	}
	if !strings.Contains(words["absent"], "connection refused") {
		t.Errorf("the heartbeat says %q", words)
	}
}
