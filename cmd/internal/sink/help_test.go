package sink

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// aFinding is a full finding about an upstream.
func aFinding(n int, state analyze.State, severity string) *analyze.Finding {
	s := analyze.Subject{Kind: analyze.SubjectUpstream, Host: "10.77.1.2", Peer: fmt.Sprintf("10.77.%d.%d", n/250%250, n%250+1), Port: 8443}
	at := capture.Instant(1_700_000_000_000_000_000 + int64(n)*1_000_000)
	return &analyze.Finding{Schema: analyze.FindingSchema, ID: analyze.FindingID("dead-upstream", s), Seq: uint64(n + 1), Time: at, State: state,
		Severity: severity, Rule: "dead-upstream", Steps: []string{"dead-upstream"}, Subject: s, Onset: at - 5e9, Detected: at, LastSeen: at,
		Role: analyze.Root, Because: []string{}, Confidence: analyze.Confidence{Level: "high", Tests: []string{"order"}},
		Features: map[string]any{"failed": 12, "names": []string{"db01.example.internal"}},
		Evidence: []analyze.Evidence{{At: at, Flow: "10.77.1.2:40000 > " + s.Peer + ":8443", Note: "SYN unanswered"}},
		Host:     "web01", Agent: "jindan/0.9.0", Title: analyze.Text{En: "Upstream does not answer", Ko: "상위 서버 무응답"},
		Summary: analyze.Text{En: "web01 gets no answer from " + s.Peer + ":8443 \"at all\".", Ko: s.Peer + " 서버가 답하지 않습니다."},
		Next:    []analyze.Text{{En: "Run `nc -vz " + s.Peer + " 8443`.", Ko: "확인"}}, Filter: "ip.addr == " + s.Peer}
}

func record(t testing.TB, n int, state analyze.State, severity string) Record {
	t.Helper()
	r, err := FindingRecord(aFinding(n, state, severity))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func messages(t testing.TB, n int) []Message {
	var batch []Message
	for i := range n {
		r := record(t, i, analyze.Open, "warn")
		batch = append(batch, Message{r, r.Body})
	}
	return batch
}

func openSpool(t testing.TB, max int64, sinks ...string) *Spool {
	t.Helper()
	s, err := OpenSpool(SpoolOptions{Path: filepath.Join(t.TempDir(), "spool.db"), MaxBytes: max, Sinks: sinks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Spool, rs ...Record) {
	t.Helper()
	for _, r := range rs {
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, s)
}

// put1 appends without waiting for the disk.
func put1(t testing.TB, s *Spool, r Record) {
	t.Helper()
	if err := s.Append(r); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// fakeSink answers by a function.
type fakeSink struct {
	mu   sync.Mutex
	got  []Message
	send func(n int, batch []Message, out []Outcome) error // n counts calls from 0
	n    int
}

func (s *fakeSink) Send(ctx context.Context, batch []Message, out []Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.n
	s.n++
	var err error
	if s.send == nil {
		fill(out, Accepted)
	} else {
		err = s.send(n, batch, out)
	}
	for i := range out {
		if out[i] == Accepted {
			s.got = append(s.got, batch[i])
		}
	}
	return err
}

func (s *fakeSink) Close() error { return nil }

func (s *fakeSink) seqs() (out []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.got {
		out = append(out, m.Seq)
	}
	return out
}

// deliver starts a runner over a fresh spool.
func deliver(t testing.TB, o Output) (*Spool, *Runner) {
	t.Helper()
	o.Name = "x"
	if o.MinWait == 0 {
		o.MinWait, o.MaxWait = 2*time.Millisecond, 50*time.Millisecond
	}
	s := openSpool(t, 0, "x")
	r, err := NewRunner(s, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		o.Sink.Close()
	})
	return s, r
}

func equal(a []uint64, b ...uint64) bool { return slices.Equal(a, b) }

var errAway = errors.New("away")
