package capture

import (
	"slices"
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
	// held are batches whose records are handed on from where they lie: those of the first from head on, those before due at once.
	held    []held
	head    int
	due     place
	waiting int // records from due on
	spare   []held
	batch   Batch
}

// held is a batch that is held back.
type held struct {
	obs  []Observation
	data Arena
}

// place is where a record is held.
type place struct{ batch, record int }

// NewSorter returns a Sorter that hands on to out.
func NewSorter(out func(*Batch) error) *Sorter { return &Sorter{out: out} }

// Observe takes the next batch of the input. It may keep the memory of b.Obs, and leave other memory in its place.
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
	if n == len(b.Obs) {
		return nil
	}
	s.hold(b, n)
	return s.flush()
}

// hold takes the records of b from number n on.
func (s *Sorter) hold(b *Batch, n int) {
	var h held
	if k := len(s.spare); k > 0 {
		h, s.spare = s.spare[k-1], s.spare[:k-1]
	}
	h.obs, b.Obs = b.Obs[n:], h.obs
	s.held = append(s.held, h)
	last := len(s.held) - 1
	if last > 0 && s.due.record == len(s.held[s.due.batch].obs) {
		s.due = place{batch: last}
	}
	obs, data := s.held[last].obs, &s.held[last].data
	for i := range obs {
		o := &obs[i]
		if o.Packet.Data != nil {
			o.Packet.Data = data.Keep(o.Packet.Data) // lent until the batch is read again
		}
		if s.newest.Sub(o.At) >= sortSpan { // the clock was set: what was before comes first
			s.due, s.waiting = place{last, i}, 0
			s.newest = o.At
		}
		if o.At >= s.newest {
			s.newest = o.At
		} else {
			s.insert(place{last, i})
		}
		s.waiting++
	}
	for ; s.waiting > maxSorted || s.waiting > 0 && s.newest.Sub(s.at(s.due).At) >= sortSpan; s.waiting-- {
		if s.due.record++; s.due.record == len(s.held[s.due.batch].obs) && s.due.batch < last {
			s.due = place{batch: s.due.batch + 1}
		}
	}
}

func (s *Sorter) at(p place) *Observation { return &s.held[p.batch].obs[p.record] }

// insert moves the record at p to its place among those that wait: at most maxSorted, and none of them a second older.
func (s *Sorter) insert(p place) {
	late := *s.at(p)
	for range min(s.waiting, maxSorted) {
		q := place{p.batch, p.record - 1}
		if q.record < 0 {
			q.batch--
			q.record = len(s.held[q.batch].obs) - 1
		}
		before := s.at(q)
		if before.At <= late.At {
			break
		}
		o := s.at(p)
		*o = *before
		if o.Packet.Data != nil && q.batch != p.batch {
			o.Packet.Data = s.held[p.batch].data.Keep(o.Packet.Data)
		}
		p = q
	}
	*s.at(p) = late
}

// flush hands on what waits no longer.
func (s *Sorter) flush() error {
	for len(s.held) > 0 {
		h := s.held[0]
		end := len(h.obs)
		if s.due.batch == 0 {
			end = s.due.record
		}
		if s.head < end {
			s.batch.Obs = h.obs[s.head:end]
			s.batch.Until = h.obs[end-1].At
			if err := s.out(&s.batch); err != nil {
				return err
			}
		}
		if s.head = end; s.due.batch == 0 {
			break
		}
		h.data.buf = h.data.buf[:0]
		s.spare = append(s.spare, h)
		s.held = slices.Delete(s.held, 0, 1)
		s.due.batch--
		s.head = 0
	}
	return nil
}

// Close hands on what is held back.
func (s *Sorter) Close() error {
	if last := len(s.held) - 1; last >= 0 {
		s.due, s.waiting = place{last, len(s.held[last].obs)}, 0
	}
	return s.flush()
}
