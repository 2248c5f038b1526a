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
	// ring holds records in the order of time, from number head to number tail; those before number due wait no longer. They are
	// handed on from where they lie.
	ring            []Observation
	head, due, tail uint
	batch           Batch
}

// ringLen has room for the records that are held back and for a batch of those that are not.
const ringLen = maxSorted + DefaultBatch

// NewSorter returns a Sorter that hands on to out.
func NewSorter(out func(*Batch) error) *Sorter { return &Sorter{out: out} }

// Observe takes the next batch of the input.
func (s *Sorter) Observe(b *Batch) error {
	n := 0
	for ; n < len(b.Obs) && !s.active; n++ {
		at := b.Obs[n].At
		if s.any && at < s.newest && s.newest.Sub(at) < sortSpan {
			s.active, s.ring = true, make([]Observation, ringLen)
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
		if s.tail-s.head == ringLen {
			if err := s.flush(); err != nil {
				return err
			}
		}
		s.push(&b.Obs[i])
	}
	return s.flush()
}

func (s *Sorter) at(number uint) *Observation { return &s.ring[number%ringLen] }

// push takes one observation; there is room for it.
func (s *Sorter) push(o *Observation) {
	if s.newest.Sub(o.At) >= sortSpan { // the clock was set: what was before comes first
		s.due = s.tail
		s.newest = o.At
	}
	x := s.at(s.tail)
	if o.At >= s.newest {
		s.newest = o.At
	} else {
		for i := s.tail; i > s.due; i-- {
			before := s.at(i - 1)
			if before.At <= o.At {
				break
			}
			*x, x = *before, before
		}
	}
	*x = *o
	if o.Packet.Data != nil {
		x.Packet.Data = bytes.Clone(o.Packet.Data) // lent until the batch is read again
	}
	for s.tail++; s.tail-s.due > maxSorted || s.due < s.tail && s.newest.Sub(s.at(s.due).At) >= sortSpan; {
		s.due++
	}
}

// flush hands on what waits no longer.
func (s *Sorter) flush() error {
	for s.head < s.due {
		from := s.head % ringLen
		s.batch.Obs = s.ring[from:min(from+s.due-s.head, ringLen)]
		s.batch.Until = s.batch.Obs[len(s.batch.Obs)-1].At
		s.head += uint(len(s.batch.Obs))
		if err := s.out(&s.batch); err != nil {
			return err
		}
	}
	return nil
}

// Close hands on what is held back.
func (s *Sorter) Close() error {
	s.due = s.tail
	return s.flush()
}
