package sinktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"jindan/analyze"
)

// Restless is a receiver over HTTP that fails at random: it refuses, hangs up unread, or takes a request and hangs up unanswered.
type Restless struct {
	URL string

	mu      sync.Mutex
	seen    map[string][]byte           // by id, time and running number
	newest  map[string]*analyze.Finding // by id
	failed  int
	twice   int
	trouble []string
}

// NewRestless starts one.
func NewRestless(t testing.TB) *Restless {
	x := &Restless{seen: make(map[string][]byte), newest: make(map[string]*analyze.Finding)}
	s := httptest.NewServer(x)
	t.Cleanup(s.Close)
	x.URL = s.URL
	return x
}

func (x *Restless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	luck := rand.Float64()
	if luck < 0.1 {
		x.fail()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if luck < 0.2 {
		x.fail()
		panic(http.ErrAbortHandler)
	}
	var batch []json.RawMessage
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, &batch)
	}
	if err != nil {
		x.fail() // its sender was killed
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	x.take(batch)
	if luck < 0.3 {
		x.fail()
		panic(http.ErrAbortHandler)
	}
}

func (x *Restless) fail() {
	x.mu.Lock()
	x.failed++
	x.mu.Unlock()
}

// Finding reads a record, and is nil if that is about something else, such as a diagnosis.
func Finding(line []byte) (*analyze.Finding, error) {
	var head struct{ Schema string }
	if err := json.Unmarshal(line, &head); err != nil || head.Schema != analyze.FindingSchema {
		return nil, err
	}
	f := new(analyze.Finding)
	if err := json.Unmarshal(line, f); err != nil {
		return nil, err
	}
	return f, nil
}

// record names a record over several runs of an agent: each run counts from one.
func record(f *analyze.Finding) string {
	return fmt.Sprintf("%s at %d, record %d", f.ID, f.Time, f.Seq)
}

func (x *Restless) take(batch []json.RawMessage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range batch {
		f, err := Finding(m)
		if err != nil {
			x.trouble = append(x.trouble, err.Error())
		}
		if f == nil {
			continue
		}
		if was, ok := x.seen[record(f)]; ok {
			if x.twice++; !bytes.Equal(was, m) {
				x.trouble = append(x.trouble, record(f)+" comes twice and differs")
			}
			continue
		}
		if n := x.newest[f.ID]; n != nil && (f.Time < n.Time || f.Time == n.Time && f.Seq < n.Seq) {
			x.trouble = append(x.trouble, record(f)+" comes for the first time after "+record(n))
		}
		x.seen[record(f)], x.newest[f.ID] = m, f
	}
}

// Has tells whether a record has arrived.
func (x *Restless) Has(f *analyze.Finding) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen[record(f)] != nil
}

// Done fails where a record of a finding came after a newer one, or came twice and differed.
func (x *Restless) Done(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	t.Logf("%s: %d records, %d of them twice, %d requests failed", x.URL, len(x.seen), x.twice, x.failed)
	if len(x.trouble) > 0 {
		t.Errorf("%s: %q", x.URL, x.trouble[:min(len(x.trouble), 5)])
	}
}
