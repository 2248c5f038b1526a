package agent

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/metric"
	"jindan/cmd/internal/top"
)

const (
	// keepEvery and keepFor: when one arrives at a console, the interesting minute is over. 120 states packed to some 10 kB.
	keepEvery = 5 * time.Second
	keepFor   = 10 * time.Minute
	// wantedFor is how long somebody who asked is taken to look on; states are taken each second then.
	wantedFor = 10 * time.Second
	// restAfter bounds the share of time that taking states may cost: 2 % of a core, whatever is open.
	restAfter = 50
)

// states are what a namespace looked like in the last minutes, taken in its engine's goroutine: what metrics, the status line and
// `jindan top` show.
type states struct {
	w      *Watch
	view   *view.Collector
	next   capture.Instant // event time of the next one
	rest   time.Time       // none is taken before
	wanted atomic.Int64    // when somebody asked for the newest, ns since began

	lock   sync.Mutex
	newest *top.State // without findings, which the engine goes on to change
	json   []byte     // all of it
	kept   []packed   // the newest last
	ports  map[uint16]bool
}

// packed is a State as gzipped JSON.
type packed struct {
	at   capture.Instant
	json []byte
}

func newStates(w *Watch) *states { return &states{w: w, view: view.Recent(), ports: map[uint16]bool{}} }

// want asks for a state each second for a while.
func (s *states) want() { s.wanted.Store(int64(time.Since(began))) }

// seen is called in the engine's goroutine before it is shown b.
func (s *states) seen(b *capture.Batch) {
	at := b.Until
	if len(b.Obs) > 0 {
		at = b.Obs[0].At
	}
	if at < s.next || time.Now().Before(s.rest) {
		return
	}
	// The thread's own clock counts what this costs, not how long a busy machine lets it wait.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	every := keepEvery
	if n := s.wanted.Load(); n != 0 && time.Since(began)-time.Duration(n) < wantedFor {
		every = top.Every
	}
	s.next = at.Add(every)
	d := s.w.engine.Diagnosis()
	if d.Coverage.Last == 0 {
		return // nothing yet
	}
	t := top.Take(d.Coverage.Last, d, s.view.Record(d))
	t.Agent, t.Blind = s.w.Describe(), s.w.Blind
	text, err := json.Marshal(t)
	if err != nil {
		return // a number that JSON does not know
	}
	t.Findings = nil
	s.lock.Lock()
	defer s.lock.Unlock()
	text = append(text, '\n')
	s.newest, s.json = t, text
	if n := len(s.kept); n == 0 || t.At.Sub(s.kept[n-1].at) >= keepEvery-top.Every/2 || t.At < s.kept[n-1].at {
		if b, err := pack(s.json); err == nil { // else it is not kept
			s.kept = append(s.kept, packed{t.At, b})
		}
		s.kept = slices.DeleteFunc(s.kept, func(p packed) bool { return t.At.Sub(p.at) > keepFor || p.at > t.At })
	}
	s.rest = time.Now().Add(restAfter * (threadTime() - start))
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (s *states) last() *top.State {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.newest
}

func pack(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(text)
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// write writes the states after a time as lines of JSON, the newest last.
func (s *states) write(w io.Writer, after capture.Instant) error {
	s.lock.Lock()
	newest, text, kept := s.newest, s.json, slices.Clone(s.kept)
	s.lock.Unlock()
	for _, p := range kept {
		if p.at <= after || newest != nil && p.at >= newest.At {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(p.json))
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, z); err != nil {
			return err
		}
	}
	if newest == nil || newest.At <= after {
		return nil
	}
	_, err := w.Write(text)
	return err
}

// findings are those of the newest state.
func (s *states) findings() []*analyze.Finding {
	s.lock.Lock()
	text := s.json
	s.lock.Unlock()
	var t top.State
	if text == nil || json.Unmarshal(text, &t) != nil {
		return nil
	}
	return t.Findings
}

// serveStates answers GET /states?after=NANOSECONDS&netns=NAME: what `jindan top` shows. Both ends are the same program.
func (ag *agent) serveStates(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	i := slices.IndexFunc(ag.watches, func(x *Watch) bool { return x.ns == q.Get("netns") })
	if i < 0 && q.Get("netns") == "" {
		i = 0
	}
	if i < 0 || i >= len(ag.watches) {
		http.Error(w, fmt.Sprintf("the agent does not watch network namespace %q", q.Get("netns")), http.StatusNotFound)
		return
	}
	after, err := strconv.ParseInt(q.Get("after"), 10, 64)
	if err != nil {
		after = 0
	}
	s := ag.watches[i].states
	s.want()
	w.Header().Set("Content-Type", "application/x-ndjson")
	_ = s.write(w, capture.Instant(after)) // fails if the reader has gone
}

// metrics writes what the namespace looked like in the last minute.
func (s *states) metrics(to *metric.Writer, t *top.State) {
	ns := s.w.ns
	to.Set("jindan_connections_total", float64(t.Coverage.Connections), ns)
	blind := 0
	for _, v := range t.Steps {
		if v.Verdict == analyze.NotAssessable {
			blind++
		}
	}
	to.Set("jindan_steps_not_assessable", float64(blind), ns)
	if t.Segments > 0 {
		to.Set("jindan_lost_segments_ratio", float64(t.Missing)/float64(t.Segments), ns)
	}
	if n := t.Names.Answered + t.Names.Unanswered; n > 0 {
		to.Set("jindan_dns_unanswered_ratio", float64(t.Names.Unanswered)/float64(n), ns)
	}
	if t.Names.P95 >= 0 {
		to.Set("jindan_dns_p95_seconds", t.Names.P95.Seconds(), ns)
	}
	for _, l := range t.Listeners {
		if !l.Sampled || !s.shown(l.Port) {
			continue
		}
		port := strconv.Itoa(int(l.Port))
		to.Set("jindan_accept_queue", float64(l.Queue), ns, port)
		to.Set("jindan_accept_queue_limit", float64(l.Backlog), ns, port)
		to.Set("jindan_close_wait", float64(l.Held), ns, port, "process")
		to.Set("jindan_close_wait", float64(l.Unaccepted), ns, port, "queue")
		to.Set("jindan_answers_per_second", l.Rate, ns, port)
	}
}

// maxPorts bounds the series of one run and namespace: a program that listens on another port each second must not make a series
// each second.
const maxPorts = 64

// shown reports whether a port has series of its own.
func (s *states) shown(port uint16) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	if !s.ports[port] && len(s.ports) < maxPorts {
		s.ports[port] = true
	}
	return s.ports[port]
}
