package sinktest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Outage is what befalls a receiver.
type Outage struct {
	Name    string
	AtStart bool          // before the first record, not in the middle of a stream
	fail    []func(*Gate) // one after the other, each until it shows
}

// Outages are those that every sink must survive.
var Outages = []Outage{
	{"absent at start", true, []func(*Gate){(*Gate).Cut}},
	{"killed mid-stream, and back", false, []func(*Gate){(*Gate).Cut}},
	{"accepts and never reads, at start", true, []func(*Gate){(*Gate).Deafen}},
	{"accepts and never reads, mid-stream", false, []func(*Gate){(*Gate).Deafen}},
	{"accepts and never reads, then killed, and back", false, []func(*Gate){(*Gate).Deafen, (*Gate).Cut}},
}

// Delivery is a sink.Delivery to the receiver; the tests of package sink import this one, which cannot import it.
type Delivery struct {
	Finding func(*analyze.Finding) error
	Status  func() Status
	Failing func() // may look at the rest of the world while the receiver fails; or nil
}

// Status is what counts of a sink.Status.
type Status struct {
	Connected          bool
	LastError          string
	Lag, Sent, Retried uint64
	Lost               uint64 // rejected or dropped
}

// Wait is how long a test of an outage waits for anything.
const Wait = 30 * time.Second

// Run feeds a stream of findings before, in and after the outage of the receiver behind g, and returns when the sink has passed all.
func (o Outage) Run(t testing.TB, g *Gate, d Delivery, s *Stream) {
	t.Helper()
	until := func(what string, ok func(Status) bool) {
		t.Helper()
		for end := time.Now().Add(Wait); !ok(d.Status()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s: %+v", what, d.Status())
			}
		}
	}
	if !o.AtStart {
		s.Feed(t, 0, d.Finding)
		until("a part is sent", func(x Status) bool { return x.Sent > 0 })
	}
	for i, fail := range o.fail {
		fail(g)
		if i == 0 && o.AtStart {
			s.Feed(t, 0, d.Finding)
		}
		if i == 0 {
			s.Feed(t, 1, d.Finding)
		}
		was := d.Status().Retried
		until("the failure shows", func(x Status) bool { return x.Retried >= was+2 && !x.Connected && x.LastError != "" && x.Lag > 0 })
	}
	if d.Failing != nil {
		d.Failing()
	}
	g.Mend()
	s.Feed(t, 2, d.Finding)
	until("all are passed", func(x Status) bool { return x.Lag == 0 })
	if x := d.Status(); x.Sent != uint64(s.Len()) || x.Lost != 0 || !x.Connected {
		t.Errorf("%d fed: %+v", s.Len(), x)
	}
}

// Stream is a stream of findings and what of it has arrived.
type Stream struct {
	mu      sync.Mutex
	sent    []json.RawMessage // by Seq-1
	arrived map[uint64]string // their ids, as the receiver sees them
	last    map[string]uint64 // by connection and finding
	twice   int
	gone    bool // the test is over: what still comes is not looked at
}

// streamFindings live in a stream, each through all phases.
const streamFindings = 100

// phases are two states each, of every finding.
var phases = [3][2]struct {
	state    analyze.State
	severity string
}{
	{{analyze.Open, "info"}, {analyze.Update, "warn"}},
	{{analyze.Update, "warn"}, {analyze.Update, "error"}},
	{{analyze.Update, "error"}, {analyze.Resolved, "error"}},
}

// NewStream returns a stream without findings. When the test ends it no longer takes any.
func NewStream(t testing.TB) *Stream {
	s := &Stream{arrived: map[uint64]string{}, last: map[string]uint64{}}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone = true
	})
	return s
}

// Feed makes the states of a phase, 0 to 2, of all findings. Every third finding is never resolved.
func (s *Stream) Feed(t testing.TB, phase int, feed func(*analyze.Finding) error) {
	t.Helper()
	for i, x := range phases[phase] {
		for n := range streamFindings {
			if x.state == analyze.Resolved && n%3 == 0 {
				continue
			}
			s.mu.Lock()
			seq := uint64(len(s.sent) + 1)
			at := capture.Instant(1_700_000_000_000_000_000 + seq*1_000_000)
			f := &analyze.Finding{Schema: analyze.FindingSchema, ID: fmt.Sprintf("surge-%012x", n), Seq: seq, Rule: "surge", State: x.state, Severity: x.severity,
				Time: at, Onset: 1_700_000_000_000_000_000, Detected: at, LastSeen: at, Role: analyze.Independent, Steps: []string{"surge"}, Because: []string{},
				Subject: analyze.Subject{Kind: analyze.SubjectService, Host: fmt.Sprintf("10.77.1.%d", n), Port: 443}, Host: Host, Agent: Agent,
				Title: analyze.Text{En: "Connection surge", Ko: "연결 급증"}, Summary: analyze.Text{En: strings.Repeat("New connections. ", 20+phase+i), Ko: "새 연결"}}
			body, err := json.Marshal(f)
			if err != nil {
				t.Error(err)
			}
			s.sent = append(s.sent, body)
			s.mu.Unlock()
			if err := feed(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Len is the number of states fed.
func (s *Stream) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// Each calls each with the states fed.
func (s *Stream) Each(each func(*analyze.Finding)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, body := range s.sent {
		var f analyze.Finding
		_ = json.Unmarshal(body, &f) // it was marshalled here
		each(&f)
	}
}

// Take takes a state that arrived over a connection, by which the receiver can keep an order; "" where all connections are one.
// Each must be as it was sent, once or again with the same id, and the states of a finding in order but for what is there again.
func (s *Stream) Take(t testing.TB, conn, id string, body []byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	var f analyze.Finding
	if err := json.Unmarshal(body, &f); err != nil || f.Seq == 0 || f.Seq > uint64(len(s.sent)) {
		t.Errorf("never sent: %v: %s", err, body)
		return
	}
	var a, b any
	if json.Unmarshal(s.sent[f.Seq-1], &a) != nil || json.Unmarshal(body, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("sent %s\ngot  %s", s.sent[f.Seq-1], body)
	}
	if was, ok := s.arrived[f.Seq]; ok {
		s.twice++
		if was != id {
			t.Errorf("state %d comes as %s and as %s", f.Seq, was, id)
		}
		return
	}
	s.arrived[f.Seq] = id
	if last := s.last[conn+f.ID]; f.Seq < last {
		t.Errorf("%s: %d after %d", f.ID, f.Seq, last)
	}
	s.last[conn+f.ID] = f.Seq
}

// Missing is the number of states that have not arrived.
func (s *Stream) Missing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent) - len(s.arrived)
}

// Done says what has not arrived, and gives what was written but not read yet the time that it needs.
func (s *Stream) Done(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(Wait / 10); s.Missing() > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []int
	for i := range s.sent {
		if _, ok := s.arrived[uint64(i+1)]; !ok {
			lost = append(lost, i+1)
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d states have not arrived: %v", len(lost), len(s.sent), lost)
	}
	t.Logf("%d states of %d findings, %d came again", len(s.sent), streamFindings, s.twice)
}
