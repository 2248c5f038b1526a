package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/capture/host"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

// ticking is a source that says every 20 ms that a second has passed.
type ticking struct{ now capture.Instant }

func (*ticking) Name() string { return "ticking" }
func (*ticking) Close() error { return nil }
func (s *ticking) Read(ctx context.Context, b *capture.Batch) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
	}
	if s.now == 0 {
		s.now = capture.Instant(time.Now().UnixNano())
	}
	s.now = s.now.Add(time.Second)
	b.Obs = append(b.Obs[:0], capture.Observation{At: s.now, Kind: capture.KindLoss, Reason: capture.LossNotIP, Lost: 1})
	b.Until = s.now
	return nil
}

// faulty is a detector that does what it is told in its n-th window.
type faulty struct {
	n  *int
	do func(n int)
}

func (d faulty) Spec() analyze.Spec                               { return analyze.Spec{Rule: "surge", Features: detect.Surge{}} }
func (d faulty) Assess(*analyze.Window) analyze.Assessment        { return analyze.Assessment{} }
func (d faulty) Event(*flow.Event)                                {}
func (d faulty) Judge(_ *analyze.Window, _ func(analyze.Symptom)) { *d.n++; d.do(*d.n) }

// faultyAgent is an agent with one watch, whose detectors are those of the catalogue and one that misbehaves.
func faultyAgent(t *testing.T, cfg *config.Config, out io.Writer, do func(n int)) *agent {
	t.Helper()
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	cfg.HTTP.Listen = ""
	ag, err := newAgent(&cli.App{Log: cli.NewLog("text", false), Lang: "en"}, cfg, set, "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	ag.stdout = cli.NewOutlet(out)
	if ag.direct, err = direct(cfg, "ndjson", ag.stdout); err != nil {
		t.Fatal(err)
	}
	w := &Watch{sources: []capture.Source{new(ticking)}, host: host.NewSource(host.Options{Netns: netns.None()}),
		handle: netns.None(), share: divide(cfg, 1)}
	w.states = newStates(w)
	t.Cleanup(func() { _ = w.host.Close() })
	n := new(int)
	w.renew = func() (err error) {
		ds := slices.DeleteFunc(detect.All(), func(d analyze.Detector) bool { return d.Spec().Rule == "surge" })
		w.engine, err = analyze.New(set, append(ds, faulty{n, do}), analyze.Options{Causes: cause.New(set)},
			func(f *analyze.Finding) error { return ag.finding(w, f) })
		return err
	}
	if err := w.renew(); err != nil {
		t.Fatal(err)
	}
	tp, err := newTape(ag, w, "")
	if err != nil {
		t.Fatal(err)
	}
	ag.watches, ag.tapes = []*Watch{w}, []*tape{tp}
	return ag
}

// TestEngineHangs: an engine that never comes back cannot hold up a stop, and nothing says meanwhile that the agent is alive.
func TestEngineHangs(t *testing.T) {
	cfg := config.Default()
	cfg.Recorder.Enabled = false
	hang := make(chan struct{})
	defer close(hang)
	ag := faultyAgent(t, cfg, io.Discard, func(n int) {
		if n == 3 {
			<-hang
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- ag.run(ctx) }()
	time.Sleep(300 * time.Millisecond)
	before := []uint64{0}
	if ag.moved(before); before[0] == 0 {
		t.Fatal("the engine was never shown anything")
	}
	if ag.unwell() != "" {
		t.Errorf("after 300 ms: %s", ag.unwell())
	}
	time.Sleep(100 * time.Millisecond)
	if ag.moved(before) {
		t.Error("the watchdog hears of progress while the engine hangs")
	}
	p := &ag.watches[0].progress
	p.at.Store(p.at.Load() - int64(allowed(cfg))) // as if it had hung for so long
	if !strings.Contains(ag.unwell(), "stands still") {
		t.Errorf("/healthz and heartbeats of an engine that hangs say %q", ag.unwell())
	}
	begun := time.Now()
	stop()
	select {
	case err := <-ended:
		if !errors.Is(err, errUnstoppable) || time.Since(begun) > stopWithin+time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the agent does not stop")
	}
	ag.close()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestEngineFails: a panic of the engine costs what it knew, not the agent; the next window is judged, the diagnosis says that
// it has a gap, and what led to it is kept.
func TestEngineFails(t *testing.T) {
	cfg := config.Default()
	cfg.Recorder.Dir = t.TempDir()
	var out bytes.Buffer
	ag := faultyAgent(t, cfg, &out, func(n int) {
		if n == 3 || n == 6 {
			panic("index out of range [-63]")
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer stop()
	if err := ag.run(ctx); err != nil {
		t.Fatal(err)
	}
	ag.close()
	if n := ag.watches[0].progress.failures.Load(); n != 2 {
		t.Errorf("%d failures were counted, want 2", n)
	}
	for _, want := range []string{`"engine_failure":2`, `the analysis failed 2 times`, `"schema":"jindan.diagnosis/v1"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, out.String())
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(cfg.Recorder.Dir, "failure-*", "samples.jsonl")); len(kept) != 1 {
		t.Errorf("%d recordings of what led to it, want 1", len(kept))
	}
}

// TestStdoutUnread: a reader that does not read holds up neither the engine nor the end.
func TestStdoutUnread(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cfg := config.Default()
	cfg.Recorder.Enabled = false
	ag := faultyAgent(t, cfg, w, func(int) {})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f := &analyze.Finding{ID: "a", Rule: "surge", Severity: "warn", State: analyze.Open,
			Summary: analyze.Text{En: strings.Repeat("x", 2000)}}
		for range 5000 {
			_ = ag.finding(ag.watches[0], f)
		}
		var b bytes.Buffer
		ag.metrics(&b)
		if !strings.Contains(b.String(), "jindan_stdout_dropped_total ") || strings.Contains(b.String(), "jindan_stdout_dropped_total 0\n") {
			t.Errorf("what standard output lost is not counted:\n%s", b.String())
		}
		ag.close()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the engine waits for the reader of standard output")
	}
}

// TestHostileLine: a process cannot write to the terminal of who watches it.
func TestHostileLine(t *testing.T) {
	cfg := config.Default()
	cfg.Recorder.Enabled = false
	ag := faultyAgent(t, cfg, io.Discard, func(int) {})
	const evil = "java\x1b[2J\u009b1m\u202e\nx"
	b := ag.line(ag.watches[0], &analyze.Finding{State: analyze.Open, Severity: "warn", Title: analyze.Text{En: evil}, Summary: analyze.Text{En: evil},
		Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: evil}}, nil)
	if s := strings.ReplaceAll(string(b), "\n", ""); strings.ContainsFunc(s, report.Hostile) || strings.Count(string(b), "\n") > 2 {
		t.Errorf("%q", b)
	}
}
