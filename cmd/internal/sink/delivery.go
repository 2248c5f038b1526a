package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Limits of a delivery.
const (
	openMost   = 10_000      // open findings that are repeated; the engine's own cap is far below
	auditEvery = time.Second // between looks for losses that can be told
)

// Options configures the delivery of records.
type Options struct {
	Spool     SpoolOptions  // Sinks is filled from Outputs
	Outputs   []Output      // each with a name of its own
	Host      string        // of heartbeats and notices
	Agent     string        // "jindan/1.2.3"
	Heartbeat time.Duration // between heartbeats; 0 = none
	Repeat    time.Duration // between repetitions of open findings at warn and above; 0 = none
	// Unwell says why the agent cannot be said to be alive; empty: it is. Nil: it always is.
	Unwell func() string
}

// Delivery takes records and sees that every sink gets them. None of its methods
// but Close waits for a disk or a receiver.
type Delivery struct {
	o       Options
	spool   *Spool
	runners []*Runner
	cancel  context.CancelFunc
	running sync.WaitGroup

	resets uint64 // of the spool, as told; of audit alone

	mu   sync.Mutex
	open map[string]*openFinding
	seq  map[Kind]uint64 // of records that are no findings
}

// openFinding is a finding that is not resolved.
type openFinding struct {
	last   Record
	news   time.Time // when it was last sent
	repeat uint64
	acked  bool
}

// Start opens the spool and starts a runner for each output.
func Start(o Options) (*Delivery, error) {
	o.Spool.Sinks = nil
	for _, out := range o.Outputs {
		if out.Name == "" || slices.Contains(o.Spool.Sinks, out.Name) {
			return nil, fmt.Errorf("start delivery: sink name %q is empty or taken", out.Name)
		}
		o.Spool.Sinks = append(o.Spool.Sinks, out.Name)
	}
	spool, err := OpenSpool(o.Spool)
	if err != nil {
		return nil, err
	}
	d := &Delivery{o: o, spool: spool, open: map[string]*openFinding{}, seq: map[Kind]uint64{}}
	for _, out := range o.Outputs {
		r, err := NewRunner(spool, out)
		if err != nil {
			spool.Close()
			return nil, err
		}
		d.runners = append(d.runners, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	for _, r := range d.runners {
		d.running.Go(func() { r.Run(ctx) })
	}
	if aside := spool.Aside(); aside != "" {
		err = d.corrupt(aside)
	}
	d.running.Go(func() { d.tick(ctx) })
	return d, err
}

// Finding takes one state of a finding.
func (d *Delivery) Finding(f *analyze.Finding) error {
	r, err := FindingRecord(f)
	if err != nil {
		return err
	}
	d.mu.Lock()
	was := d.open[r.ID]
	switch {
	case r.State == analyze.Resolved:
		delete(d.open, r.ID)
	case was != nil:
		// More severe than what was acknowledged is new.
		if slices.Index(severities, r.Severity) > slices.Index(severities, was.last.Severity) {
			was.acked = false
		}
		was.last, was.news, was.repeat = r, time.Now(), 0
	case len(d.open) < openMost:
		d.open[r.ID] = &openFinding{last: r, news: time.Now()}
	}
	d.mu.Unlock()
	return d.spool.Append(r)
}

// Continue takes over what old, which is closed, knew of open findings, and its counts. The spool has had their records.
func (d *Delivery) Continue(old *Delivery) {
	old.mu.Lock()
	defer old.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, f := range old.open {
		if d.open[id] == nil {
			d.open[id] = f
		}
	}
	for k, n := range old.seq {
		d.seq[k] += n
	}
}

// Diagnosis takes a diagnosis.
func (d *Delivery) Diagnosis(x *analyze.Diagnosis) error {
	r, err := DiagnosisRecord(x, d.next(KindDiagnosis), d.o.Host, d.o.Agent)
	if err != nil {
		return err
	}
	return d.spool.Append(r)
}

// next counts the records of a kind.
func (d *Delivery) next(k Kind) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq[k]++
	return d.seq[k]
}

// notice is something that befell the agent itself.
type notice struct {
	Schema   string          `json:"schema"`
	Seq      uint64          `json:"seq"`  // counts the records of this kind in this run
	Time     capture.Instant `json:"time"` // of the host's clock
	Severity string          `json:"severity"`
	Host     string          `json:"host,omitempty"`
	Agent    string          `json:"agent,omitempty"` // "jindan/1.2.3"
	Message  string          `json:"message"`
}

// heartbeat is a sign of life, with the state of the sinks.
type heartbeat struct {
	notice
	Open  map[string]int  `json:"open"` // open findings by severity
	Sinks []heartbeatSink `json:"sinks"`
}

// heartbeatSink is the state of one sink in this run.
type heartbeatSink struct {
	Name      string `json:"name"`
	Connected bool   `json:"connected"`            // the last request was answered
	Lag       uint64 `json:"lag"`                  // records that it has yet to pass
	Sent      uint64 `json:"sent"`                 // records accepted
	Rejected  uint64 `json:"rejected"`             // records refused for good
	Dropped   uint64 `json:"dropped"`              // records lost because the spool was full
	LastError string `json:"last_error,omitempty"` // of the last request that failed
}

// Notice takes word of something that befell the agent.
func (d *Delivery) Notice(severity, message string) error {
	return d.own(KindNotice, severity, message, func(n notice) any { return n })
}

// own appends a record of the agent's own.
func (d *Delivery) own(k Kind, severity, message string, body func(notice) any) error {
	schema := NoticeSchema
	if k == KindHeartbeat {
		schema = HeartbeatSchema
	}
	n := notice{schema, d.next(k), capture.Instant(time.Now().UnixNano()), severity, d.o.Host, d.o.Agent, message}
	b, err := marshal(body(n))
	if err != nil {
		return fmt.Errorf("encode a %s: %w", k, err)
	}
	return d.spool.Append(Record{Kind: k, ID: string(k), Seq: n.Seq, Severity: severity, Time: n.Time, Host: d.o.Host, Agent: d.o.Agent, Body: b})
}

// beat sends a heartbeat; of an agent that is not well, a notice in its place: that this package still runs is no sign that
// anything is watched.
func (d *Delivery) beat() error {
	if d.o.Unwell != nil {
		if why := d.o.Unwell(); why != "" {
			return d.Notice("error", why)
		}
	}
	open := map[string]int{"info": 0, "warn": 0, "error": 0}
	d.mu.Lock()
	for _, f := range d.open {
		open[f.last.Severity]++
	}
	d.mu.Unlock()
	var sinks []heartbeatSink
	for _, s := range d.Status() {
		sinks = append(sinks, heartbeatSink{s.Name, s.Connected, s.Lag, s.Sent, s.Rejected, s.Dropped, s.LastError})
	}
	message := fmt.Sprintf("alive, open findings: %d error, %d warn, %d info", open["error"], open["warn"], open["info"])
	return d.own(KindHeartbeat, "info", message, func(n notice) any { return heartbeat{n, open, sinks} })
}

// repeat sends again what has been open for long without news.
func (d *Delivery) repeat(now time.Time) error {
	var due []Record
	d.mu.Lock()
	for _, f := range d.open {
		if !f.acked && f.last.Severity != "info" && now.Sub(f.news) >= d.o.Repeat {
			f.news = now
			f.repeat++
			due = append(due, f.last.again(f.repeat))
		}
	}
	d.mu.Unlock()
	slices.SortFunc(due, func(a, b Record) int { return int(int64(a.Seq) - int64(b.Seq)) })
	var errs []error
	for _, r := range due {
		errs = append(errs, d.spool.Append(r))
	}
	return errors.Join(errs...)
}

// audit tells of what was lost: by a sink once it is back, by the spool at once.
func (d *Delivery) audit() error {
	var errs []error
	for _, r := range d.runners {
		n := d.spool.Owed(r.o.Name)
		if n == 0 || !r.Status().Connected {
			continue
		}
		err := d.Notice("error", fmt.Sprintf("sink %s lost %d records while it took none: the spool was full or its disk refused", r.o.Name, n))
		if err == nil {
			d.spool.Told(r.o.Name, n)
		}
		errs = append(errs, err)
	}
	st := d.spool.Status()
	if st.Resets > d.resets {
		d.resets = st.Resets
		errs = append(errs, d.corrupt(st.Aside))
	}
	return errors.Join(errs...)
}

// corrupt tells that the spool's file was set aside.
func (d *Delivery) corrupt(aside string) error {
	return d.Notice("error", "the spool was damaged and is set aside as "+aside)
}

// tick sends heartbeats and repetitions, and tells of losses.
func (d *Delivery) tick(ctx context.Context) {
	never := make(chan time.Time)
	every := func(i time.Duration) (<-chan time.Time, func()) {
		if i <= 0 {
			return never, func() {}
		}
		t := time.NewTicker(i)
		return t.C, t.Stop
	}
	beat, stopBeat := every(d.o.Heartbeat)
	defer stopBeat()
	audit, stopAudit := every(auditEvery)
	defer stopAudit()
	repeat, stopRepeat := every(d.o.Repeat / 10) // late by a tenth at most
	defer stopRepeat()
	for {
		// Append refuses nothing that is made here but when the spool is closed.
		select {
		case <-ctx.Done():
			return
		case <-beat:
			_ = d.beat()
		case <-audit:
			_ = d.audit()
		case now := <-repeat:
			_ = d.repeat(now)
		}
	}
}

// Ack ends the repetitions of an open finding, until it grows more severe or
// opens anew; false when no such finding is open.
func (d *Delivery) Ack(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.open[id]
	if f != nil {
		f.acked = true
	}
	return f != nil
}

// Status reports the state of each sink, in the order of the outputs.
func (d *Delivery) Status() []Status {
	var st []Status
	for _, r := range d.runners {
		st = append(st, r.Status())
	}
	return st
}

// Spool reports the state of the spool.
func (d *Delivery) Spool() SpoolStatus { return d.spool.Status() }

// Reopen lets go of files that were moved away.
func (d *Delivery) Reopen() error {
	var errs []error
	for _, o := range d.o.Outputs {
		if s, ok := o.Sink.(Reopener); ok {
			errs = append(errs, s.Reopen())
		}
	}
	return errors.Join(errs...)
}

// Close makes everything durable, gives the sinks until ctx ends to pass it, and
// stops. What they did not pass waits in the spool for the next start.
func (d *Delivery) Close(ctx context.Context) error {
	errs := []error{d.spool.Sync(ctx)}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for ctx.Err() == nil && slices.ContainsFunc(d.Status(), func(s Status) bool { return s.Lag > 0 }) {
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
	d.cancel()
	stopped := make(chan struct{})
	go func() { d.running.Wait(); close(stopped) }()
	select {
	case <-stopped:
		for _, o := range d.o.Outputs {
			errs = append(errs, o.Sink.Close())
		}
	case <-time.After(time.Second): // a sink that does not heed its context, such as a full pipe, ends with the process
	}
	return errors.Join(append(errs, d.spool.Close())...)
}
