package sink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Limits of the spool.
const (
	commitEvery   = 5 * time.Millisecond   // an append waits no longer for others to share its fsync
	commitRecords = 256                    // records that start a commit at once
	commitRetry   = 500 * time.Millisecond // pause after a commit that failed, e.g. on a full disk
	pendingBytes  = 8 << 20                // bytes held in memory while commits fail
	lockWait      = time.Second            // for another process to let go of the file
	recordCost    = 64                     // bytes beside its body that a record is charged: key, header, page slot
	spoolGrowth   = 1 << 20                // bytes by which the file grows; bbolt's 16 MiB would pass a small bound at once
)

// SpoolOptions configures a spool.
type SpoolOptions struct {
	Path     string   // file; its directory must exist
	MaxBytes int64    // bytes of records held; the file may be three times as large. Default 64 MiB
	Sinks    []string // names of the sinks; cursors of others are forgotten, a new sink begins at the oldest record
}

// Spool is a bounded store of records on disk, shared by all sinks, each with
// its own cursor. A record is deleted when every sink has passed it. All methods
// may be called from several goroutines.
type Spool struct {
	opt   SpoolOptions
	aside string // where a corrupt file was put last, and why; or empty
	set   string // its name

	mu       sync.Mutex
	pending  [3][]entry // not yet on disk, by class; each in order
	pendingN int
	pendingB int
	last     uint64             // position of the newest record
	durable  uint64             // position up to which records are on disk
	ripe     uint64             // position up to which records may be evicted
	bytes    int64              // of records on disk
	held     uint64             // records on disk
	cursors  map[string]*cursor // one per sink
	changed  chan struct{}      // closed and replaced on every commit
	failed   error              // of the last commit
	damaged  uint64             // records lost with a corrupt file
	resets   uint64
	closed   bool

	db   *bbolt.DB // owned by the committer; readers hold dbmu
	dbmu sync.RWMutex
	kick chan struct{}
	stop chan struct{}
	done chan struct{}
}

// entry is an encoded record with its position.
type entry struct {
	pos   uint64
	value []byte
}

// cursor is where one sink stands.
type cursor struct {
	passed  uint64 // every record up to here was accepted, rejected or filtered out
	saved   uint64 // passed, as it is on disk
	claimed uint64 // every record up to here was read and is in the runner's hands
	lost    uint64 // records that left the full spool before this sink read them
	owed    uint64 // those of them that nobody was told of, over restarts
	held    uint64 // records that left it while the runner has them in hand: losses if the agent stops now
	booked  uint64 // owed and held, as on disk
}

// Buckets: records by class, cursors by sink. Keys of records are big-endian positions; a cursor is its position
// and the losses that it owes.
var (
	bucketClass   = [3][]byte{[]byte("records.0"), []byte("records.1"), []byte("records.2")}
	bucketCursors = []byte("cursors")
)

func position(key []byte) uint64 {
	if len(key) != 8 {
		panic(errDamaged) // guard turns it into an error
	}
	return binary.BigEndian.Uint64(key)
}

func key(pos uint64) []byte { return binary.BigEndian.AppendUint64(nil, pos) }

func cost(value []byte) int64 { return int64(len(value) + recordCost) }

// OpenSpool opens or creates the spool and starts its committer. A corrupt file
// is renamed, see [Spool.Aside], and a new one begun.
func OpenSpool(o SpoolOptions) (*Spool, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxBytes < 2*maxRecord {
		return nil, fmt.Errorf("open spool %s: %d bytes are too few, the least is %d", o.Path, o.MaxBytes, 2*maxRecord)
	}
	s := &Spool{opt: o, changed: make(chan struct{}), kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	err := guard(func() error { return verify(o.Path) })
	if err == nil {
		err = s.load(o.Path, nil)
	}
	unfinished := errors.Is(err, errUnfinished)
	if environment(err) {
		return nil, fmt.Errorf("open spool %s: %w", o.Path, err)
	}
	if err != nil {
		if err = s.renew(err); err != nil {
			return nil, fmt.Errorf("open spool %s: %w", o.Path, err)
		}
		s.resets = 0 // it was so before this run
		if unfinished && s.damaged == 0 {
			_ = os.Remove(s.set) // all that was in it is in the new one
			s.aside = ""
		}
	}
	go s.commitLoop()
	return s, nil
}

// Aside tells where a corrupt spool file was put and what was wrong with it, or is empty.
func (s *Spool) Aside() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aside
}

// replace puts the file fresh in the place of the corrupt one at path, which it keeps under the name aside. Whenever the process is
// killed, one of the two stands at path: what can be read of the old one is in the new one by then.
func replace(path, fresh, aside string) error {
	if err := os.Link(path, aside); err != nil { // a file system without links
		if err := os.Rename(path, aside); err != nil {
			return err
		}
	}
	return os.Rename(fresh, path)
}

// environment tells what keeps the file from being opened, now or by this user, from what is wrong with its content. A length in a
// broken file makes calls fail as well, such as EFBIG: what is not known to come from outside is taken for damage.
func environment(err error) bool {
	for _, e := range []error{fs.ErrPermission, fs.ErrNotExist, berrors.ErrTimeout, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.EISDIR, syscall.ENOTDIR, syscall.ELOOP, syscall.EIO} {
		if errors.Is(err, e) {
			return err != nil
		}
	}
	return false
}

// corruptError is what bbolt stumbled over.
type corruptError struct{ cause any }

func (e *corruptError) Error() string { return fmt.Sprintf("corrupt: %v", e.cause) }

// guard runs f and turns a panic or a fault on a mapped page, which is how bbolt
// meets a corrupt file, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &corruptError{p}
		}
	}()
	return f()
}

// load opens the file, puts into it what was saved of another, and takes up what it holds.
func (s *Spool) load(path string, saved *salvage) error {
	// The freelist is kept in the file: without that bbolt looks for free pages
	// in a goroutine of its own, where a broken page would end the process.
	options := &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType}
	return guard(func() error {
		db, err := bbolt.Open(path, 0o600, options)
		if err != nil {
			return err
		}
		db.AllocSize = spoolGrowth
		if saved != nil {
			err = saved.into(db)
		}
		if err == nil {
			err = db.Update(func(tx *bbolt.Tx) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.adopt(tx)
			})
		}
		if err != nil {
			db.Close()
			return err
		}
		syncDir(filepath.Dir(path))
		s.db = db
		return nil
	})
}

// renew begins a new file, takes over what can be read of the corrupt one, and sets that aside. The caller holds dbmu once the
// committer runs, and not mu: records are taken meanwhile.
func (s *Spool) renew(cause error) error {
	fresh := s.opt.Path + ".new"
	aside := s.opt.Path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed here
		return errors.Join(cause, err)
	}
	var saved *salvage
	err := guard(func() (err error) {
		saved, err = openSalvage(s.opt.Path, s.opt.Sinks)
		return err
	})
	said := fmt.Sprintf("%s: %v; nothing could be read of it: %v", aside, cause, err)
	if err == nil {
		defer saved.f.Close()
	} else {
		saved = nil
	}
	if err := s.load(fresh, saved); err != nil {
		_ = os.Remove(fresh) // or the next attempt does
		return errors.Join(cause, err)
	}
	if err := replace(s.opt.Path, fresh, aside); err != nil {
		return errors.Join(cause, err)
	}
	syncDir(filepath.Dir(s.opt.Path))
	s.mu.Lock()
	defer s.mu.Unlock()
	if saved != nil {
		s.damaged += saved.lost
		said = fmt.Sprintf("%s: %v; %d records were read from it, and at least %d are lost", aside, cause, len(saved.found), saved.lost)
	}
	s.aside, s.set = said, aside
	s.resets++
	return nil
}

// syncDir makes a new file's name durable; where that fails the file is still good.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// adopt creates what is missing and reads bytes, positions and cursors. The caller holds mu.
func (s *Spool) adopt(tx *bbolt.Tx) error {
	first := ^uint64(0)
	s.bytes, s.held = 0, 0
	for _, name := range bucketClass {
		b, err := tx.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		if err := b.ForEach(func(k, v []byte) error {
			s.bytes += cost(v)
			s.held++
			first = min(first, position(k))
			return nil
		}); err != nil {
			return err
		}
	}
	b, err := tx.CreateBucketIfNotExists(bucketCursors)
	if err != nil {
		return err
	}
	s.durable = max(s.durable, b.Sequence()) // positions are never used twice, not even after a reset
	s.last = max(s.last, s.durable)
	first = min(first, s.durable+1)
	old := s.cursors
	s.cursors = map[string]*cursor{}
	for _, name := range s.opt.Sinks {
		c := &cursor{passed: first - 1}
		v := b.Get([]byte(name))
		if f, _, ok := unseal(markCursor, v, 2); ok {
			c.passed, c.owed = min(f[0], s.durable), f[1]
		} else if len(v) == 16 { // of versions before 0.10
			c.passed, c.owed = min(position(v[:8]), s.durable), position(v[8:])
		}
		c.booked = c.owed
		if was := old[name]; was != nil { // after a reset: all goes on
			c.lost, c.owed, c.claimed, c.passed = was.lost, was.owed, was.claimed, was.passed
		}
		c.saved = c.passed
		s.cursors[name] = c
	}
	var gone [][]byte
	if err := b.ForEach(func(k, _ []byte) error {
		if s.cursors[string(k)] == nil && !bytes.Equal(k, stateKey) {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return b.Put(stateKey, seal(markState, nil, s.durable, s.held, first-1))
}

// Append takes a record. It never waits for the disk: the record is written with
// others within milliseconds. While the disk refuses, records are held in memory
// up to a bound and then leave in the order of a full spool.
func (s *Spool) Append(r Record) error {
	if len(r.Body) > maxRecord {
		return fmt.Errorf("spool %s %s: %d bytes, the most is %d", r.Kind, r.ID, len(r.Body), maxRecord)
	}
	body := r.encode(make([]byte, 0, len(r.Body)+128))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("append to a closed spool")
	}
	s.last++
	floor := s.last - 1
	for _, c := range s.cursors {
		floor = min(floor, c.passed)
	}
	value := seal(markRecord, body, s.last, floor)
	s.pendingN++
	s.pendingB += len(value)
	c := r.class()
	s.pending[c] = append(s.pending[c], entry{s.last, value})
	for i := 0; s.pendingB > pendingBytes && i < len(s.pending); {
		if len(s.pending[i]) == 0 {
			i++
			continue
		}
		s.lose(s.pending[i][0].pos)
		s.pendingB -= len(s.pending[i][0].value)
		s.pendingN--
		s.pending[i] = s.pending[i][1:]
	}
	if s.pendingN == 1 || s.pendingN%commitRecords == 0 {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	return nil
}

// unsent is how many records are in memory alone and not passed by every sink. The caller holds mu.
func (s *Spool) unsent() (n int) {
	least := s.last
	for _, c := range s.cursors {
		least = min(least, c.passed)
	}
	for _, class := range s.pending {
		for _, e := range class {
			if e.pos > least {
				n++
			}
		}
	}
	return n
}

// lose counts a record that leaves unread. The caller holds mu.
func (s *Spool) lose(pos uint64) {
	for _, c := range s.cursors {
		switch {
		case max(c.passed, c.claimed) < pos:
			c.lost++
			c.owed++
		case c.passed < pos:
			c.held++
		}
	}
}

// Sync waits until everything appended before is on disk.
func (s *Spool) Sync(ctx context.Context) error {
	s.mu.Lock()
	want := s.last
	for s.durable < want {
		changed, failed := s.changed, s.failed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sync spool: %w", ctx.Err()), failed)
		case <-changed:
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
	return nil
}

// Close writes what is pending and closes the file.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	s.dbmu.Lock()
	defer s.dbmu.Unlock()
	s.mu.Lock()
	failed := s.failed
	if n := s.unsent(); failed != nil && n > 0 {
		failed = fmt.Errorf("%w; %d records that a receiver has yet to get are lost", failed, n)
	}
	s.mu.Unlock()
	return errors.Join(failed, s.db.Close())
}
