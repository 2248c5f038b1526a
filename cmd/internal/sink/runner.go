package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"jindan/analyze"
)

// Defaults of an output.
const (
	defaultBatch   = 200                    // records per Send
	batchBytes     = 1 << 20                // bytes of bodies per Send
	defaultTimeout = 10 * time.Second       // of one Send
	defaultMinWait = 500 * time.Millisecond // before the first retry
	defaultMaxWait = time.Minute            // between retries
	shownMost      = 100_000                // open findings that a runner remembers to have shown
)

// Output is a sink with what goes to it and how.
type Output struct {
	Name      string // unique; the cursor in the spool bears it
	Sink      Sink
	Filter    Filter
	Encoding  Encoding
	Pseudonym []byte        // key that replaces addresses and names, see [Pseudonym]; empty = send them as they are
	Batch     int           // most records per request; default 200
	Timeout   time.Duration // of one request; default 10 s
	MinWait   time.Duration // first pause after a failure, doubled with each further one; default 0.5 s
	MaxWait   time.Duration // longest pause; default 1 min
}

// Status is the state of one sink.
type Status struct {
	Name      string
	Connected bool   // the last request was answered
	LastError string // of the last request that failed, or empty
	LastErrAt time.Time
	LastSent  time.Time
	Lag       uint64 // records that it has yet to pass
	Sent      uint64 // records accepted
	Retried   uint64 // requests repeated
	Rejected  uint64 // records refused for good
	Filtered  uint64 // records not meant for this sink
	Dropped   uint64 // records lost because the spool was full
}

// Runner moves records from the spool to one sink.
type Runner struct {
	o     Output
	spool *Spool
	mask  *Pseudonym
	shown map[string]bool // findings that the receiver knows as open

	mu     sync.Mutex
	status Status
}

// NewRunner returns a runner that is not yet running.
func NewRunner(s *Spool, o Output) (*Runner, error) {
	if err := errors.Join(o.Filter.Check(), o.Encoding.Check()); err != nil {
		return nil, fmt.Errorf("sink %s: %w", o.Name, err)
	}
	or := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&o.Timeout, defaultTimeout)
	or(&o.MinWait, defaultMinWait)
	or(&o.MaxWait, defaultMaxWait)
	if o.Batch <= 0 {
		o.Batch = defaultBatch
	}
	r := &Runner{o: o, spool: s, shown: map[string]bool{}, status: Status{Name: o.Name}}
	if len(o.Pseudonym) > 0 {
		host, _ := os.Hostname() // unknown: then no text bears it either
		short, _, _ := strings.Cut(host, ".")
		r.mask = NewPseudonym(o.Pseudonym, host, short)
	}
	return r, nil
}

// Status reports the state of the sink; it may be called at any time.
func (r *Runner) Status() Status {
	r.mu.Lock()
	st := r.status
	r.mu.Unlock()
	st.Lag, st.Dropped = r.spool.Lag(r.o.Name)
	return st
}

// note changes the status.
func (r *Runner) note(f func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.status)
}

// failed notes an error.
func (r *Runner) failed(err error) {
	r.note(func(s *Status) { s.LastError, s.LastErrAt = clip(err.Error()), time.Now() })
}

// Run delivers until ctx ends. What was not accepted by then stays in the spool.
func (r *Runner) Run(ctx context.Context) {
	refresh, _ := r.o.Sink.(Refresher)
	refreshed := time.Now()
	for ctx.Err() == nil {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if refresh != nil {
			due := refreshed.Add(refresh.RefreshEvery())
			if !time.Now().Before(due) { // also where the records never pause
				r.refresh(ctx, refresh)
				refreshed = time.Now()
				continue
			}
			wait, cancel = context.WithDeadline(ctx, due)
		}
		records, upto, err := r.spool.Read(wait, r.o.Name, r.o.Batch, batchBytes)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
		case err != nil:
			r.failed(err)
			sleep(ctx, r.o.MaxWait)
		default:
			if r.deliver(ctx, r.prepare(records)) {
				r.spool.Advance(r.o.Name, upto)
			}
		}
	}
}

// refresh lets the sink repeat what it has to.
func (r *Runner) refresh(ctx context.Context, s Refresher) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if err := s.Refresh(ctx); err != nil {
		r.failed(err)
		r.note(func(s *Status) { s.Connected = false })
	}
}

// prepare filters, pseudonymises and encodes.
func (r *Runner) prepare(records []Record) []Message {
	batch := make([]Message, 0, len(records))
	for _, rec := range records {
		if !r.wants(&rec) {
			r.note(func(s *Status) { s.Filtered++ })
			continue
		}
		m, err := r.message(rec)
		if err != nil { // written by another version; it will not become readable
			r.failed(fmt.Errorf("encode %s %s: %w", rec.Kind, rec.ID, err))
			r.note(func(s *Status) { s.Rejected++ })
			continue
		}
		batch = append(batch, m)
	}
	return batch
}

// wants asks the filter, and remembers what the receiver knows as open.
func (r *Runner) wants(rec *Record) bool {
	if !r.o.Filter.pass(rec, r.shown) {
		return false
	}
	if rec.Kind == KindFinding {
		if rec.State == analyze.Resolved {
			delete(r.shown, rec.ID)
		} else if len(r.shown) < shownMost {
			r.shown[rec.ID] = true
		}
	}
	return true
}

// message pseudonymises and encodes.
func (r *Runner) message(rec Record) (m Message, err error) {
	if r.mask != nil {
		if rec, err = r.mask.Record(rec); err != nil {
			return m, err
		}
	}
	data, err := r.o.Encoding.encode(&rec)
	return Message{rec, data}, err
}

// deliver sends a batch until every message is accepted or rejected; false when
// ctx ended before that.
func (r *Runner) deliver(ctx context.Context, batch []Message) bool {
	limit, failures := len(batch), 0
	for len(batch) > 0 {
		limit = min(max(limit, 1), len(batch))
		part, out := batch[:limit], make([]Outcome, limit)
		err := r.send(ctx, part, out)
		var refused *RefusedError
		if errors.As(err, &refused) && !slices.Contains(out, Accepted) {
			if limit > 1 {
				limit /= 2
				continue
			}
			fill(out, Rejected)
		}
		var rest []Message
		sent, rejected := uint64(0), uint64(0)
		for i, o := range out {
			switch o {
			case Accepted:
				sent++
			case Rejected:
				rejected++
			default:
				rest = append(rest, part[i])
			}
		}
		r.note(func(s *Status) {
			s.Sent += sent
			s.Rejected += rejected
			s.Connected = err == nil || sent+rejected > 0
			if sent > 0 {
				s.LastSent = time.Now()
			}
		})
		if ctx.Err() != nil && len(rest) > 0 {
			return false
		}
		if len(rest) == 0 {
			batch, failures = batch[limit:], 0
			if sent > 0 {
				limit *= 2
			}
			continue
		}
		batch = append(rest, batch[limit:]...)
		if sent > 0 {
			failures = 0
		}
		failures++
		if !sleep(ctx, r.pause(failures, err)) {
			return false
		}
		r.note(func(s *Status) { s.Retried++ })
	}
	return true
}

// send calls the sink with a time limit and survives its mistakes.
func (r *Runner) send(ctx context.Context, batch []Message, out []Outcome) (err error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			fill(out, Rejected) // the batch that it cannot take would never pass
			err = fmt.Errorf("sink failed on this batch: %v", p)
		}
		if err != nil {
			r.failed(err)
		}
	}()
	err = r.o.Sink.Send(ctx, batch, out)
	if err == nil && slices.Contains(out, Retry) {
		err = errors.New("the receiver accepted only a part")
	}
	return err
}

// pause is how long to wait after so many failures in a row: between half and all
// of MinWait·2^(failures−1), at most MaxWait, or what the receiver asks for
// within that bound.
func (r *Runner) pause(failures int, err error) time.Duration {
	d := r.o.MaxWait
	if failures < 30 { // 2^30 of any unit is beyond MaxWait; no overflow
		d = min(d, r.o.MinWait<<(failures-1))
	}
	var later *LaterError
	if errors.As(err, &later) {
		return min(max(later.After, d/2), r.o.MaxWait)
	}
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
