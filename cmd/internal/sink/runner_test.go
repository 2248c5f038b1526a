package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jindan/analyze"
)

func TestRunnerRetriesInOrder(t *testing.T) {
	f := &fakeSink{send: func(n int, batch []Message, out []Outcome) error {
		switch {
		case n < 3:
			return errAway
		case n == 3: // a part in the middle
			for i := range out {
				if i%2 == 0 {
					out[i] = Accepted
				}
			}
			return nil
		}
		fill(out, Accepted)
		return nil
	}}
	s := openSpool(t, 0, "x")
	for i := range 10 {
		put(t, s, record(t, i, analyze.Open, "warn"))
	}
	r, err := NewRunner(s, Output{Name: "x", Sink: f, Batch: 4, MinWait: time.Millisecond, MaxWait: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Run(ctx)
	eventually(t, "all arrive", func() bool { return len(f.seqs()) == 10 })
	eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
	if st := r.Status(); st.Sent != 10 || st.Retried < 4 || st.LastError == "" || !st.Connected {
		t.Errorf("%+v", st)
	}
}

func TestRunnerRejects(t *testing.T) {
	// The receiver refuses any request in which record 3 or 8 is, as a whole.
	f := &fakeSink{send: func(_ int, batch []Message, out []Outcome) error {
		for _, m := range batch {
			if m.Seq == 3 || m.Seq == 8 {
				return &RefusedError{errors.New("400")}
			}
		}
		fill(out, Accepted)
		return nil
	}}
	s := openSpool(t, 0, "x")
	for i := range 12 {
		put(t, s, record(t, i, analyze.Open, "warn"))
	}
	r, err := NewRunner(s, Output{Name: "x", Sink: f})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Run(ctx)
	eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
	if st := r.Status(); st.Sent != 10 || st.Rejected != 2 || st.Retried != 0 {
		t.Errorf("%+v", st)
	}
	if !equal(f.seqs(), 1, 2, 4, 5, 6, 7, 9, 10, 11, 12) {
		t.Errorf("arrived: %v", f.seqs())
	}
}

func TestRunnerSurvivesPanicAndHang(t *testing.T) {
	f := &fakeSink{send: func(n int, batch []Message, out []Outcome) error {
		if n == 0 {
			panic("nil map")
		}
		fill(out, Accepted)
		return nil
	}}
	s, r := deliver(t, Output{Sink: f})
	put(t, s, record(t, 0, analyze.Open, "warn"))
	eventually(t, "the panic is counted", func() bool { return r.Status().Rejected == 1 })
	put(t, s, record(t, 1, analyze.Open, "warn"))
	eventually(t, "the next arrives", func() bool { return equal(f.seqs(), 2) })
}

func TestFilter(t *testing.T) {
	f := &fakeSink{}
	s, r := deliver(t, Output{Sink: f, Filter: Filter{Severity: "warn"}})
	put(t, s, record(t, 0, analyze.Open, "info"), record(t, 1, analyze.Open, "warn"), record(t, 0, analyze.Resolved, "info"),
		record(t, 1, analyze.Resolved, "info")) // its opening was shown, so is its end
	eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
	if !equal(f.seqs(), 2, 2) || r.Status().Filtered != 2 {
		t.Errorf("%v %+v", f.seqs(), r.Status())
	}
	rec := record(t, 0, analyze.Open, "error")
	beat := Record{Kind: KindHeartbeat, Severity: "info"}
	for _, c := range []struct {
		f    Filter
		r    Record
		want bool
	}{
		{Filter{}, rec, true},
		{Filter{Rules: []string{"dead-upstream"}}, rec, true},
		{Filter{Rules: []string{"surge"}}, rec, false},
		{Filter{States: []analyze.State{analyze.Resolved}}, rec, false},
		{Filter{Severity: "error"}, beat, true}, // silence is not health
	} {
		if got := c.f.pass(&c.r, nil); got != c.want {
			t.Errorf("%+v %s: %v", c.f, c.r.Kind, got)
		}
	}
	for _, bad := range []Filter{{Severity: "critical"}, {States: []analyze.State{"closed"}}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

func TestPause(t *testing.T) {
	r := &Runner{o: Output{MinWait: time.Second, MaxWait: time.Minute}}
	for n := 1; n < 80; n++ {
		full := time.Minute
		if n < 7 {
			full = min(time.Minute, time.Second<<(n-1))
		}
		if d := r.pause(n, nil); d < full/2 || d > full {
			t.Errorf("failure %d: %v, want %v to %v", n, d, full/2, full)
		}
	}
	if d := r.pause(1, &LaterError{errAway, 7 * time.Second}); d != 7*time.Second {
		t.Error(d)
	}
	if d := r.pause(1, fmt.Errorf("x: %w", &LaterError{errAway, time.Hour})); d != time.Minute {
		t.Error(d)
	}
}

// TestOneSinkStuck: a sink that never returns holds up neither the others nor the producer.
func TestOneSinkStuck(t *testing.T) {
	good := &fakeSink{}
	release := make(chan struct{})
	stuck := &fakeSink{send: func(int, []Message, []Outcome) error { <-release; return errAway }}
	d, err := Start(Options{Spool: SpoolOptions{Path: t.TempDir() + "/s"}, Outputs: []Output{{Name: "good", Sink: good}, {Name: "stuck", Sink: stuck}},
		Host: "web01", Agent: "jindan/1"})
	if err != nil {
		t.Fatal(err)
	}
	defer close(release)
	records := make([]*analyze.Finding, 2000)
	for i := range records {
		records[i] = aFinding(i, analyze.Open, "warn")
	}
	start := time.Now()
	for i := range records {
		if err := d.Finding(records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("2,000 findings took the producer %v", took)
	}
	eventually(t, "the good sink has all", func() bool { return len(good.seqs()) == 2000 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestLossIsTold: what leaves a full spool while a sink is away is told as soon as it is back, even by the next
// agent, once, with the number of records that the sink has not got.
func TestLossIsTold(t *testing.T) {
	path := t.TempDir() + "/s"
	var away atomic.Bool
	away.Store(true)
	k := &fakeSink{send: func(_ int, _ []Message, out []Outcome) error {
		if away.Load() {
			return errAway
		}
		fill(out, Accepted)
		return nil
	}}
	start := func() *Delivery {
		d, err := Start(Options{Spool: SpoolOptions{Path: path, MaxBytes: 2 * maxRecord},
			Outputs: []Output{{Name: "x", Sink: k, MinWait: time.Millisecond, MaxWait: 20 * time.Millisecond}}, Host: "web01", Agent: "jindan/1"})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	stop := func(d *Delivery) {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	d := start()
	const sent = 3000 // of 1 kB: more than the spool takes
	for i := range sent {
		f := aFinding(i, analyze.Open, "warn")
		if err := d.Finding(f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the spool overflows", func() bool { return d.Status()[0].Dropped > 0 && d.Spool().Bytes <= 2*maxRecord })
	time.Sleep(2 * tickEvery)
	lost := d.Status()[0].Dropped
	if lost == 0 || lost >= sent {
		t.Fatalf("%d of %d dropped", lost, sent)
	}
	stop(d)
	d = start()
	defer func() { stop(d) }()
	time.Sleep(auditEvery + 100*time.Millisecond)
	notices := func() (all []string) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, m := range k.got {
			if m.Kind == KindNotice {
				validate(t, compile(t, KindNotice), m.Body)
				all = append(all, m.Severity+" "+string(m.Body))
			}
		}
		return all
	}
	if n := notices(); len(n) > 0 {
		t.Fatalf("told while the sink is away: %s", n)
	}
	away.Store(false)
	eventually(t, "a notice", func() bool { return len(notices()) > 0 })
	time.Sleep(auditEvery + 100*time.Millisecond)
	k.mu.Lock()
	findings := 0
	for _, m := range k.got {
		if m.Kind == KindFinding {
			findings++
		}
	}
	k.mu.Unlock()
	want := fmt.Sprintf("sink x lost %d records", sent-findings)
	if n := notices(); len(n) != 1 || !strings.Contains(n[0], want) || !strings.HasPrefix(n[0], "error ") {
		t.Errorf("%q, want one with %q; %d were counted", n, want, lost)
	}
}

func TestHeartbeatRepeatAck(t *testing.T) {
	f := &fakeSink{}
	d, err := Start(Options{Spool: SpoolOptions{Path: t.TempDir() + "/s"}, Outputs: []Output{{Name: "x", Sink: f}}, Host: "web01", Agent: "jindan/1",
		Heartbeat: 20 * time.Millisecond, Repeat: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.Background())
	quiet, loud := aFinding(0, analyze.Open, "info"), aFinding(1, analyze.Open, "warn")
	for _, x := range []*analyze.Finding{quiet, loud} {
		if err := d.Finding(x); err != nil {
			t.Fatal(err)
		}
	}
	repeats := func(id string) (n uint64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range f.got {
			if m.Kind == KindFinding && m.ID == id && m.Repeat > 0 {
				n = m.Repeat
				var x finding
				if err := unmarshal(m.Body, &x); err != nil || x.Repeat != n || x.ID != id {
					t.Errorf("%v: %s", err, m.Body)
				}
			}
		}
		return n
	}
	eventually(t, "three repetitions", func() bool { return repeats(loud.ID) >= 3 })
	if repeats(quiet.ID) != 0 {
		t.Error("an info finding was repeated")
	}
	if !d.Ack(loud.ID) || d.Ack("no such") {
		t.Error("Ack")
	}
	time.Sleep(100 * time.Millisecond)
	n := repeats(loud.ID)
	time.Sleep(200 * time.Millisecond)
	if repeats(loud.ID) != n {
		t.Error("repeated after the acknowledgement")
	}
	worse := *loud
	worse.Severity = "error"
	if err := d.Finding(&worse); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what grew worse is repeated again", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.ContainsFunc(f.got, func(m Message) bool { return m.Severity == "error" && m.Repeat == 1 })
	})
	worse.State = analyze.Resolved
	if err := d.Finding(&worse); err != nil {
		t.Fatal(err)
	}
	var beat heartbeat
	schema := compile(t, KindHeartbeat)
	eventually(t, "a heartbeat with one open finding", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range f.got {
			if m.Kind == KindHeartbeat {
				validate(t, schema, m.Body)
				if err := unmarshal(m.Body, &beat); err != nil {
					t.Fatal(err)
				}
			}
		}
		return beat.Open["error"] == 0 && beat.Open["info"] == 1
	})
	if beat.Schema != HeartbeatSchema || len(beat.Sinks) != 1 || beat.Sinks[0].Sent == 0 || beat.Host != "web01" {
		t.Errorf("%+v", beat)
	}
}
