package capture

import (
	"bytes"
	"time"
)

const (
	// sortSpan is how late a record may come to be put in its place: several queues of a card, or threads of a program, are written one
	// after the other. What goes back further is a clock that was set.
	sortSpan = time.Second
	// maxSorted bounds the records that are held back for that, some 800 kB.
	maxSorted = 4096
)

// Sorter puts the observations of an input in the order of time that its source has left slightly out of order: by less than
// sortSpan, and within maxSorted records. What is in order passes as it is, up to the first that is not; from there on records are held
// back for so long. The result does not depend on where batches begin and end.
type Sorter struct {
	out    func(*Batch) error
	active bool
	newest Instant
	any    bool
	held   []Observation // in order of time, from head on
	head   int
	batch  Batch
}

// NewSorter returns a Sorter that hands on to out.
func NewSorter(out func(*Batch) error) *Sorter { return &Sorter{out: out} }

// Observe takes the next batch of the input.
func (s *Sorter) Observe(b *Batch) error {
	n := 0
	for ; n < len(b.Obs) && !s.active; n++ {
		at := b.Obs[n].At
		if s.any && at < s.newest && s.newest.Sub(at) < sortSpan {
			s.active = true
			break
		}
		s.any, s.newest = true, at
	}
	if n > 0 || len(b.Obs) == 0 && !s.active {
		pass := *b
		pass.Obs = b.Obs[:n]
		if s.active {
			pass.Until = s.newest
		}
		if err := s.out(&pass); err != nil || !s.active {
			return err
		}
	}
	for i := n; i < len(b.Obs); i++ {
		if err := s.push(&b.Obs[i]); err != nil {
			return err
		}
	}
	return s.flush()
}

// push takes one observation, and hands on those that wait no longer.
func (s *Sorter) push(o *Observation) error {
	if s.newest.Sub(o.At) >= sortSpan { // the clock was set: what was before comes first
		if err := s.drain(s.head + s.len()); err != nil {
			return err
		}
		s.newest = o.At
	}
	s.newest = max(s.newest, o.At)
	s.held = append(s.held, *o)
	x := &s.held[len(s.held)-1]
	x.Packet.Data = bytes.Clone(o.Packet.Data) // lent until the batch is read again
	for i := len(s.held) - 1; i > s.head && s.held[i].At < s.held[i-1].At; i-- {
		s.held[i], s.held[i-1] = s.held[i-1], s.held[i]
	}
	end := s.head
	for end < len(s.held) && (s.newest.Sub(s.held[end].At) >= sortSpan || len(s.held)-end > maxSorted) {
		end++
	}
	return s.drain(end)
}

func (s *Sorter) len() int { return len(s.held) - s.head }

// drain moves the observations before end to the batch, and hands that on when it is full.
func (s *Sorter) drain(end int) error {
	for ; s.head < end; s.head++ {
		s.batch.Obs = append(s.batch.Obs, s.held[s.head])
		if len(s.batch.Obs) >= DefaultBatch {
			s.head++
			if err := s.flush(); err != nil {
				return err
			}
			s.head--
		}
	}
	if s.head > maxSorted {
		s.held = s.held[:copy(s.held, s.held[s.head:])]
		s.head = 0
	}
	return nil
}

// flush hands on the batch.
func (s *Sorter) flush() error {
	if len(s.batch.Obs) == 0 {
		return nil
	}
	s.batch.Until = s.batch.Obs[len(s.batch.Obs)-1].At
	err := s.out(&s.batch)
	s.batch.Obs = s.batch.Obs[:0]
	return err
}

// Close hands on what is held back.
func (s *Sorter) Close() error {
	if err := s.drain(len(s.held)); err != nil {
		return err
	}
	return s.flush()
}
