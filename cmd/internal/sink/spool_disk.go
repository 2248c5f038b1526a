package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Limits of the work on disk.
const (
	tickEvery  = 100 * time.Millisecond // cursors that moved are saved with the next append or after this
	deleteMost = 4096                   // records deleted by one transaction
)

// commitLoop writes what is pending until the spool is closed.
func (s *Spool) commitLoop() {
	defer close(s.done)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for open := true; open; {
		tick := false
		select {
		case <-s.kick:
			pause.Reset(commitEvery)
			for waiting := true; waiting && s.few(); {
				select {
				case <-pause.C:
					waiting = false
				case <-s.kick:
				case <-s.stop:
					waiting, open = false, false
				}
			}
		case <-ticker.C:
			tick = true
		case <-s.stop:
			open = false
		}
		if s.commit(tick) == nil {
			continue
		}
		pause.Reset(commitRetry)
		for waiting := open; waiting; {
			select {
			case <-pause.C:
				waiting = false
				select {
				case s.kick <- struct{}{}:
				default:
				}
			case <-s.stop:
				waiting, open = false, false
				_ = s.commit(false) // the last chance; the error is kept in failed
			}
		}
	}
}

// few tells whether a commit may wait for more records.
func (s *Spool) few() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pendingN < commitRecords
}

// commit writes pending records and moved cursors, deletes what every sink has
// passed and evicts what does not fit, in one transaction. A record is evicted
// at the second tick after its arrival at the earliest: where one sink has filled
// the spool, the others still get everything. Only a burst beyond a quarter more
// than the bound is cut at once.
func (s *Spool) commit(tick bool) error {
	s.dbmu.Lock()
	defer s.dbmu.Unlock()
	s.mu.Lock()
	last := s.last
	now, moved, least := map[string]cursor{}, s.pendingN > 0, last
	for name, c := range s.cursors {
		now[name] = *c
		moved = moved || c.passed != c.saved || c.owed+c.held != c.booked
		least = min(least, c.passed)
	}
	for i, p := range s.pending { // what all sinks got from memory
		for len(p) > 0 && p[0].pos <= least {
			s.pendingN--
			s.pendingB -= len(p[0].value)
			p = p[1:]
		}
		s.pending[i] = p
	}
	pending, n, size := s.pending, s.pendingN, s.pendingB
	s.pending, s.pendingN, s.pendingB = [3][]entry{}, 0, 0
	total, held, ripe := s.bytes, s.held, s.ripe
	moved = moved || total > s.opt.MaxBytes
	s.mu.Unlock()
	if !moved {
		s.mu.Lock()
		s.ripe = s.durable
		s.mu.Unlock()
		return nil
	}
	var evicted []uint64
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			var b [3]*bbolt.Bucket
			for i, name := range bucketClass {
				b[i] = tx.Bucket(name)
				b[i].FillPercent = 0.95 // keys only grow
				for _, e := range pending[i] {
					if err := b[i].Put(key(e.pos), e.value); err != nil {
						return err
					}
					total += cost(e.value)
					held++
				}
			}
			cb := tx.Bucket(bucketCursors)
			if err := cb.SetSequence(last); err != nil {
				return err
			}
			for i := range b { // what all have passed
				err := drop(b[i], func(pos uint64, v []byte) bool {
					if pos <= least {
						total -= cost(v)
						held--
					}
					return pos <= least
				})
				if err != nil {
					return err
				}
			}
			for _, over := range []struct {
				bytes int64
				upto  uint64
			}{{s.opt.MaxBytes, ripe}, {s.opt.MaxBytes / 4 * 5, last}} {
				for i := range b { // least important class first
					err := drop(b[i], func(pos uint64, v []byte) bool {
						if total <= over.bytes || pos > over.upto {
							return false
						}
						total -= cost(v)
						held--
						evicted = append(evicted, pos)
						return true
					})
					if err != nil {
						return err
					}
				}
			}
			for name, c := range now {
				c.saved, c.booked = c.passed, c.owed+c.held
				for _, pos := range evicted {
					if c.passed < pos {
						c.booked++
					}
				}
				now[name] = c
				if err := cb.Put([]byte(name), seal(markCursor, []byte(name), c.saved, c.booked)); err != nil {
					return err
				}
			}
			return cb.Put(stateKey, seal(markState, nil, last, held, least))
		})
	})
	if err != nil {
		s.unwritten(err, pending, n, size)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
	s.bytes, s.held, s.durable = total, held, last
	if tick {
		s.ripe = last
	}
	for _, pos := range evicted {
		s.lose(pos)
	}
	for name, c := range now {
		s.cursors[name].saved, s.cursors[name].booked = c.saved, c.booked
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// unwritten takes back what a commit could not write. The caller holds dbmu.
func (s *Spool) unwritten(err error, pending [3][]entry, n, size int) {
	s.mu.Lock()
	for i := range pending {
		s.pending[i] = append(pending[i], s.pending[i]...)
	}
	s.pendingN += n
	s.pendingB += size
	s.failed = fmt.Errorf("write spool %s: %w", s.opt.Path, err)
	close(s.changed) // readers get from memory what the disk does not take
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if errors.As(err, new(*corruptError)) {
		s.reset(err)
	}
}

// drop deletes from the oldest record on while gone says so, at most deleteMost.
// Keys are collected first: a cursor loses its place when it deletes.
func drop(b *bbolt.Bucket, gone func(pos uint64, v []byte) bool) error {
	var keys [][]byte
	c := b.Cursor()
	for k, v := c.First(); k != nil && len(keys) < deleteMost && gone(position(k), v); k, v = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// reset sets a file aside that turned out corrupt while in use, and goes on with a new one. The old handle is left alone: its
// locks are in an unknown state. The caller holds dbmu, and not mu.
func (s *Spool) reset(cause error) {
	err := s.renew(cause)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
	if err != nil {
		s.failed = fmt.Errorf("begin a new spool %s: %w", s.opt.Path, err)
	}
}

// Read waits for records behind the cursor of a sink and returns at most n of
// them, or fewer when they pass size bytes, in order, with the position up to
// which they reach: [Spool.Advance] passes it when they are dealt with.
func (s *Spool) Read(ctx context.Context, sink string, n, size int) ([]Record, uint64, error) {
	for {
		s.mu.Lock()
		c, changed := s.cursors[sink], s.changed
		if c == nil {
			s.mu.Unlock()
			return nil, 0, fmt.Errorf("read spool %s: it was opened without a sink named %q", s.opt.Path, sink)
		}
		from, empty := c.passed, c.passed >= s.durable
		if empty && s.failed != nil {
			if records, upto := s.unsaved(c, n, size); len(records) > 0 {
				s.mu.Unlock()
				return records, upto, nil
			}
		}
		s.mu.Unlock()
		if empty {
			select {
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			case <-changed:
				continue
			}
		}
		records, upto, err := s.read(c, from, n, size)
		if errors.As(err, new(*corruptError)) {
			s.dbmu.Lock()
			s.mu.Lock()
			same := s.cursors[sink] == c // nobody else did it meanwhile
			s.mu.Unlock()
			if same {
				s.reset(err)
			}
			s.mu.Lock()
			err = s.failed
			s.mu.Unlock()
			s.dbmu.Unlock()
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read spool %s: %w", s.opt.Path, err)
		}
		if len(records) > 0 {
			return records, upto, nil
		}
		s.Advance(sink, upto) // all of it was evicted
	}
}

// unsaved are records that the disk has not taken: receivers get them all the same. The caller holds mu.
func (s *Spool) unsaved(c *cursor, n, size int) (records []Record, upto uint64) {
	var next [3]int
	for len(records) < n && size > 0 {
		class := -1
		for i, p := range s.pending {
			for next[i] < len(p) && p[next[i]].pos <= max(c.passed, upto) {
				next[i]++
			}
			if next[i] < len(p) && (class < 0 || p[next[i]].pos < s.pending[class][next[class]].pos) {
				class = i
			}
		}
		if class < 0 {
			break
		}
		e := s.pending[class][next[class]]
		upto = e.pos
		if r, err := unwrap(key(e.pos), e.value); err == nil { // it was made here
			r.pos = e.pos
			size -= len(r.Body)
			records = append(records, r)
		}
	}
	c.claimed = max(c.claimed, upto)
	return records, upto
}

// read merges the classes back into one order.
func (s *Spool) read(c *cursor, from uint64, n, size int) (records []Record, upto uint64, err error) {
	s.dbmu.RLock() // no eviction between reading and claiming
	defer s.dbmu.RUnlock()
	s.mu.Lock()
	upto = s.durable
	s.mu.Unlock()
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			var cs [3]*bbolt.Cursor
			var ks, vs [3][]byte
			for i, name := range bucketClass {
				cs[i] = tx.Bucket(name).Cursor()
				ks[i], vs[i] = cs[i].Seek(key(from + 1))
			}
			for {
				next := -1
				for i, k := range ks {
					if k != nil && (next < 0 || bytes.Compare(k, ks[next]) < 0) {
						next = i
					}
				}
				if next < 0 || position(ks[next]) > upto {
					return nil
				}
				r, err := unwrap(ks[next], vs[next])
				if err != nil {
					return &corruptError{fmt.Sprintf("record %d: %v", position(ks[next]), err)}
				}
				r.pos = position(ks[next])
				size -= len(r.Body)
				if records = append(records, r); len(records) == n || size <= 0 {
					upto = r.pos
					return nil
				}
				ks[next], vs[next] = cs[next].Next()
			}
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		c.claimed = upto
	}
	return records, upto, err
}

// Advance moves a sink's cursor to position upto. It is saved within tickEvery;
// after a crash the sink gets again what was not saved.
func (s *Spool) Advance(sink string, upto uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cursors[sink]; c != nil {
		c.passed = max(c.passed, upto)
		if c.passed >= c.claimed {
			c.held = 0
		}
	}
}

// SpoolStatus is the state of a spool.
type SpoolStatus struct {
	Bytes   int64  // of records held
	Pending int    // records not yet on disk
	Damaged uint64 // records lost with corrupt files, at least
	Resets  uint64 // corrupt files set aside while running
	Aside   string // the last file set aside, why, and what was read of it
	Err     error  // of the last commit
}

// Status reports the state.
func (s *Spool) Status() SpoolStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SpoolStatus{s.bytes, s.pendingN, s.damaged, s.resets, s.aside, s.failed}
}

// Owed is how many records a sink lost that nobody was told of, in this run or one before.
func (s *Spool) Owed(sink string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cursors[sink]; c != nil {
		return c.owed
	}
	return 0
}

// Told takes n of what is owed as told.
func (s *Spool) Told(sink string, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cursors[sink]; c != nil {
		c.owed -= n
	}
}

// Lag is how many records at most a sink has yet to pass, and how many it lost.
func (s *Spool) Lag(sink string) (behind, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[sink]
	if c == nil {
		return 0, 0
	}
	return s.last - c.passed, c.lost
}
