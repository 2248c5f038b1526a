package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

// DefaultBatch is how many observations a batch has room for where nobody says
// otherwise: large enough to hide the cost of handing it over, small enough for a
// second-level cache.
const DefaultBatch = 512

// firstBatch is how many observations a source may hold while it waits for its turn
// in a merge.
const firstBatch = 64

// SourceError is what made a source end before its end.
type SourceError struct {
	Source int    // index in the merge
	Name   string // of the source
	Err    error
}

// Error returns "name: reason".
func (e *SourceError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *SourceError) Unwrap() error { return e.Err }

const (
	// aheadAlone batches of the default size hold some 8,000 packets: a reader fetches them from memory in
	// less time than a disk takes for its next megabyte. They go back to the reader half of them at a
	// time, for to wake a sleeping thread takes as long as some hundred packets.
	aheadAlone = 16
	// maxAheadBatch is the size of batch above which two must do: 8 MiB.
	maxAheadBatch = 4096
)

// Merge reads all sources to their end and hands their observations to out in one
// order: by time, at the same time by the index of the source in srcs, and within a
// source as the source delivers them. Observations of a source are never reordered
// against each other: one that goes back in time counts as being as late as the
// latest before it. A single source hence passes through as it is. Merge sets
// Observation.Source.
//
// The order does not depend on batch, the largest number of observations asked of a
// source and given to out at once (0: DefaultBatch); where batches begin and end, and
// Until, do. A Batch given to out, and the Data in it, are valid until out returns.
//
// Each source is read ahead in a goroutine of its own: with batch observations of about
// 190 bytes a source holds two batches, 190 KiB by default, and the only source aheadAlone
// of them, so that waiting for a disk does not hold up out. A
// source that has not had its first turn holds one of 64 observations, and one that
// has ended none, so that a directory of files that follow each other costs little.
//
// A source that fails does not stop the others: Merge goes on with what it delivered,
// and in the end returns a *SourceError for each, joined in the order of srcs. It
// stops early when ctx ends, with the error of ctx, or when out fails, with that
// error. When Merge returns, nothing reads the sources any more, provided that their
// Read heeds ctx; it does not close them.
func Merge(ctx context.Context, srcs []Source, batch int, out func(*Batch) error) error {
	if len(srcs) > math.MaxUint16+1 {
		return fmt.Errorf("%d sources to merge; %d are possible", len(srcs), math.MaxUint16+1)
	}
	if batch <= 0 {
		batch = DefaultBatch
	}
	ahead := 2
	if len(srcs) == 1 && batch <= maxAheadBatch {
		ahead = aheadAlone
	}
	readCtx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	m := merger{ctx: ctx, out: out, size: batch, until: math.MinInt64, end: math.MinInt64}
	for i, s := range srcs {
		r := &mergeReader{src: s, index: i, size: batch, floor: math.MinInt64,
			free: make(chan *Batch, ahead), full: make(chan mergeRead, ahead)}
		m.all = append(m.all, r)
		m.heap = append(m.heap, r) // a valid heap: equal times in order of index
		running.Go(func() { r.run(readCtx) })
	}
	var err error
	if len(srcs) == 1 {
		err = m.single()
	} else {
		err = m.merge()
	}
	if err != nil {
		return err
	}
	var failed []error
	for _, r := range m.all {
		if r.err != nil {
			failed = append(failed, &SourceError{r.index, r.src.Name(), r.err})
		}
	}
	return errors.Join(failed...)
}

// mergeRead is the result of one Read.
type mergeRead struct {
	b   *Batch
	err error
}

// mergeReader is a source in a merge. Its goroutine fills batches from free and
// passes them on in full; the rest is the merger's.
type mergeReader struct {
	src        Source
	index      int
	size       int // of batches that have no memory yet
	free       chan *Batch
	full       chan mergeRead // there are as many batches as each holds: neither channel ever blocks a sender
	cur        *Batch         // being merged; nil before the first
	pos        int            // in cur.Obs
	last       error          // came with cur: nothing follows it
	readsAhead bool           // has been given its second batch
	err        error          // why the source failed

	// floor is the time that the next observation counts as: the latest of it and
	// those before it. After the last of cur it is a lower bound of that.
	floor Instant
	// lead is how far floor is ahead of the source's clock since that was last set back.
	lead Instant
}

// setBack is from when on a source whose times go back has had its clock set back: it would else hold the others up until its
// clock is where it was. What is less is disorder.
const setBack = Instant(10 * time.Second)

// run reads until the source or ctx ends.
func (r *mergeReader) run(ctx context.Context) {
	for {
		select {
		case b := <-r.free:
			if cap(b.Obs) == 0 {
				b.Obs = make([]Observation, 0, r.size)
			}
			err := r.src.Read(ctx, b)
			for i := range b.Obs {
				b.Obs[i].Source = uint16(r.index)
			}
			r.full <- mergeRead{b, err}
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// give lets the source read a batch of up to n observations into b's memory, or into
// new memory if that is smaller.
func (r *mergeReader) give(b *Batch, n int) {
	if cap(b.Obs) < n {
		b.Obs = make([]Observation, 0, n)
	}
	r.free <- b
}

// drained reports that there is nothing left in cur.
func (r *mergeReader) drained() bool { return r.cur == nil || r.pos == len(r.cur.Obs) }

// advance moves to position pos of cur and raises floor accordingly.
func (r *mergeReader) advance(pos int) {
	r.pos = pos
	if pos == len(r.cur.Obs) {
		r.floor = max(r.floor, r.lead+r.cur.Until)
		return
	}
	at := r.lead + r.cur.Obs[pos].At
	if r.floor-setBack > at && r.floor != math.MinInt64 {
		r.lead += r.floor - at
		at = r.floor
	}
	r.floor = max(r.floor, at)
}

func (r *mergeReader) before(s *mergeReader) bool {
	return r.floor < s.floor || r.floor == s.floor && r.index < s.index
}

// merger is the side of a merge that calls out.
type merger struct {
	ctx   context.Context
	out   func(*Batch) error
	size  int            // of batches
	all   []*mergeReader // by index
	heap  []*mergeReader // those that have not ended, the next one at the top
	batch Batch          // collected for out
	until Instant        // last told to out
	end   Instant        // latest floor of those that have ended
}

// single hands over the batches of the only source as they are.
func (m *merger) single() error {
	r := m.all[0]
	for range cap(r.free) {
		r.free <- new(Batch) // its memory is made when there is something to read into it
	}
	done := make([]*Batch, 0, cap(r.free))
	for {
		if err := m.receive(r); err != nil {
			return err
		}
		if err := m.out(r.cur); err != nil {
			return err
		}
		if r.last != nil {
			return nil
		}
		if done = append(done, r.cur); len(done) < cap(r.free)/2 && len(r.full) > 0 {
			continue
		}
		for _, b := range done {
			r.give(b, m.size)
		}
		done = done[:0]
	}
}

// receive waits for the next batch of r.
func (m *merger) receive(r *mergeReader) error {
	select {
	case x := <-r.full:
		r.cur, r.last = x.b, x.err
	case <-m.ctx.Done():
	}
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if r.last != nil && r.last != io.EOF {
		r.err = r.last
	}
	return nil
}

func (m *merger) merge() error {
	m.batch.Obs = make([]Observation, 0, m.size)
	for _, r := range m.heap {
		r.give(new(Batch), min(m.size, firstBatch))
	}
	for len(m.heap) > 0 {
		r := m.heap[0]
		if !r.drained() {
			m.take(r)
			m.sift()
			if len(m.batch.Obs) == m.size {
				if err := m.flush(); err != nil {
					return err
				}
			}
			continue
		}
		if r.last != nil { // its end; cur stays as it is, so what out got so far does not move
			r.cur = nil
			m.end = max(m.end, r.floor)
			n := len(m.heap) - 1
			m.heap[0] = m.heap[n]
			m.heap = m.heap[:n]
			m.sift()
			continue
		}
		// Nothing can be said before r has delivered more. Collected observations may
		// borrow Data from cur, so they go before it is read again.
		if r.cur != nil {
			if err := m.flush(); err != nil {
				return err
			}
			r.give(r.cur, m.size)
		}
		if err := m.receive(r); err != nil {
			return err
		}
		r.advance(0)
		m.sift()
	}
	return m.flush()
}

// take collects observations of r, the top of the heap, up to the next turn of
// another source.
func (m *merger) take(r *mergeReader) {
	if !r.readsAhead {
		r.readsAhead = true
		if r.last == nil {
			r.give(new(Batch), m.size)
		}
	}
	var other *mergeReader
	if len(m.heap) > 1 {
		other = m.heap[1]
		if len(m.heap) > 2 && m.heap[2].before(other) {
			other = m.heap[2]
		}
	}
	for {
		m.batch.Obs = append(m.batch.Obs, r.cur.Obs[r.pos])
		r.advance(r.pos + 1)
		if r.drained() || len(m.batch.Obs) == m.size || other != nil && other.before(r) {
			return
		}
	}
}

// flush gives out what was collected, or just the news that time has passed.
func (m *merger) flush() error {
	until := max(m.until, m.end) // at the very end
	if len(m.heap) > 0 {
		until = max(m.until, m.heap[0].floor)
	}
	if len(m.batch.Obs) == 0 && until == m.until {
		return nil
	}
	m.until, m.batch.Until = until, until
	err := m.out(&m.batch)
	m.batch.Obs = m.batch.Obs[:0]
	return err
}

// sift restores the heap after a change of its top.
func (m *merger) sift() {
	h, i := m.heap, 0
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
