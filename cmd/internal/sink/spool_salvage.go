package sink

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// What is stored certifies itself, wherever in the file it stands: a mark, a CRC-32C of the rest, its length, and a position. A
// file whose structure is broken is read by looking for the marks.
const (
	markRecord = "JDR1" // position, floor, record
	markCursor = "JDC1" // passed, owed, name
	markState  = "JDS1" // last, held, least
	sealHead   = 4 + 4 + 4
)

// stateKey is where the bucket of the cursors keeps the state; no sink has such a name.
var stateKey = []byte("\x00state")

// seal puts mark, checksum and length before fields and tail.
func seal(mark string, tail []byte, fields ...uint64) []byte {
	b := make([]byte, sealHead, sealHead+8*len(fields)+len(tail))
	copy(b, mark)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint64(b, f)
	}
	b = append(b, tail...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-sealHead))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// unseal undoes seal for what begins with b: n fields and the tail, and whether that is what seal made.
func unseal(mark string, b []byte, n int) (fields [3]uint64, tail []byte, ok bool) {
	if len(b) < sealHead || string(b[:4]) != mark {
		return fields, nil, false
	}
	size := int(binary.BigEndian.Uint32(b[8:]))
	if size < 8*n || size > len(b)-sealHead || binary.BigEndian.Uint32(b[4:]) != crc32.Checksum(b[8:sealHead+size], castagnoli) {
		return fields, nil, false
	}
	b = b[sealHead : sealHead+size]
	for i := range n {
		fields[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return fields, b[8*n:], true
}

// unwrap is the record of a value under a key. Values of versions before 0.10 are bare records.
func unwrap(k, v []byte) (Record, error) {
	if !bytes.HasPrefix(v, []byte(markRecord)) {
		return decode(v)
	}
	f, body, ok := unseal(markRecord, v, 2)
	if !ok || len(v) != sealHead+16+len(body) || len(k) != 8 || binary.BigEndian.Uint64(k) != f[0] {
		return Record{}, errDamaged
	}
	return decode(body)
}

// The layout of bbolt's file, version 2 (go.etcd.io/bbolt/internal/common: page.go, meta.go, bucket.go).
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	pageHeader  = 16 // id, flags, count, overflow
	elementSize = 16
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagMeta    = 0x04
	flagFree    = 0x10
	leafBucket  = 0x01 // flag of a leaf's element
	maxDepth    = 32   // of a tree: one of a billion records has six
)

// verifier reads a file of bbolt's before bbolt does, which believes what stands there: a broken list of free pages lets it
// write over records.
type verifier struct {
	f    io.ReaderAt
	page int64
	high uint64 // pages
	used []bool
	held uint64 // records
	last uint64 // highest position
	st   *[3]uint64
}

func damagef(format string, args ...any) error { return &corruptError{fmt.Sprintf(format, args...)} }

// verify checks every page and every record of the file; what is no corruptError comes from the disk.
func verify(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err // bbolt begins a file in an empty one
	}
	v := &verifier{f: f, page: int64(os.Getpagesize())}
	var metas [2][]byte
	var ids [2]uint64
	for i := range metas {
		b := make([]byte, pageHeader+64)
		if _, err := f.ReadAt(b, int64(i)*v.page); err != nil && err != io.EOF {
			return err
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		le := binary.LittleEndian
		if le.Uint32(m) != boltMagic || le.Uint32(m[4:]) != boltVersion || le.Uint64(m[56:]) != sum.Sum64() || le.Uint16(b[8:]) != flagMeta {
			return damagef("header %d is not one of this version, or broken", i)
		}
		if int64(le.Uint32(m[8:])) != v.page {
			return damagef("pages of %d bytes, this system has %d", le.Uint32(m[8:]), v.page)
		}
		metas[i], ids[i] = m, le.Uint64(m[48:])
	}
	m := metas[0]
	if ids[1] > ids[0] {
		m = metas[1]
	}
	if max(ids[0], ids[1])-min(ids[0], ids[1]) != 1 {
		return damagef("a header was lost: transactions %d and %d", ids[0], ids[1])
	}
	le := binary.LittleEndian
	v.high = le.Uint64(m[40:])
	if v.high > uint64(info.Size()/v.page) {
		return damagef("the file is cut: %d pages of %d", info.Size()/v.page, v.high)
	}
	v.used = make([]bool, v.high)
	if err := v.walk(le.Uint64(m[16:]), "", 0); err != nil {
		return err
	}
	if v.st != nil && (v.st[1] != v.held || v.last > v.st[0]) {
		return damagef("it holds %d records up to %d, and should hold %d up to %d", v.held, v.last, v.st[1], v.st[0])
	}
	if err := v.free(le.Uint64(m[32:])); err != nil || v.st == nil {
		return err
	}
	return v.newer()
}

// errUnfinished is a file with records of a commit whose header is not there: the process was killed between the two, or the disk
// lost the header although it said that it had it.
var errUnfinished = &corruptError{"a commit is not finished"}

// newer looks for a state that is newer than the one in force.
func (v *verifier) newer() error {
	b := make([]byte, scanBlock+sealHead+24)
	for base := int64(0); ; base += scanBlock {
		n, err := v.f.ReadAt(b, base)
		if err != nil && err != io.EOF {
			return err
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:n], []byte(markState))
			if j < 0 || i+j >= scanBlock {
				break
			}
			i += j
			if st, _, ok := unseal(markState, b[i:n], 3); ok && st[0] > v.st[0] {
				return errUnfinished
			}
		}
		if n < len(b) {
			return nil
		}
	}
}

// load reads a page with what overflows it.
func (v *verifier) load(id uint64) ([]byte, error) {
	if id < 2 || id >= v.high {
		return nil, damagef("page %d of %d", id, v.high)
	}
	b := make([]byte, v.page)
	if _, err := v.f.ReadAt(b, int64(id)*v.page); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	over := uint64(le.Uint32(b[12:]))
	if le.Uint64(b) != id || over >= v.high-id {
		return nil, damagef("page %d calls itself %d, with %d more", id, le.Uint64(b), over)
	}
	for i := id; i <= id+over; i++ {
		if v.used[i] {
			return nil, damagef("page %d is used twice", i)
		}
		v.used[i] = true
	}
	if over > 0 {
		b = append(b, make([]byte, int64(over)*v.page)...)
		if _, err := v.f.ReadAt(b[v.page:], int64(id+1)*v.page); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// walk reads the tree whose root is page id; bucket is the name of what it holds.
func (v *verifier) walk(id uint64, bucket string, depth int) error {
	b, err := v.load(id)
	if err != nil {
		return err
	}
	return v.elements(b, bucket, depth)
}

// elements reads those of a page, or of one that stands inside a value.
func (v *verifier) elements(b []byte, bucket string, depth int) error {
	le := binary.LittleEndian
	if depth > maxDepth || len(b) < pageHeader {
		return damagef("a tree of more than %d levels, or a page of %d bytes", maxDepth, len(b))
	}
	flags, n := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if pageHeader+n*elementSize > len(b) {
		return damagef("%d elements in a page of %d bytes", n, len(b))
	}
	part := func(from, size uint64) ([]byte, error) {
		if from > uint64(len(b)) || size > uint64(len(b))-from {
			return nil, damagef("an element of %d bytes at %d of %d", size, from, len(b))
		}
		return b[from : from+size], nil
	}
	for i := range n {
		at := uint64(pageHeader + i*elementSize)
		e := b[at : at+elementSize]
		switch flags {
		case flagBranch:
			if err := v.walk(le.Uint64(e[8:]), bucket, depth+1); err != nil {
				return err
			}
		case flagLeaf:
			from, ks, vs := at+uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
			k, err := part(from, ks)
			if err != nil {
				return err
			}
			x, err := part(from+ks, vs)
			if err != nil {
				return err
			}
			if le.Uint32(e)&leafBucket == 0 {
				if err := v.value(bucket, k, x); err != nil {
					return err
				}
				continue
			}
			if len(x) < 16 {
				return damagef("a bucket of %d bytes", len(x))
			}
			if root := le.Uint64(x); root != 0 {
				err = v.walk(root, string(k), depth+1)
			} else {
				err = v.elements(x[16:], string(k), depth+1)
			}
			if err != nil {
				return err
			}
		default:
			return damagef("a page of kind %#x in a tree", flags)
		}
	}
	return nil
}

// value checks one value of a bucket.
func (v *verifier) value(bucket string, k, x []byte) error {
	switch {
	case bucket != string(bucketCursors):
		if _, err := unwrap(k, x); err != nil {
			return damagef("record %x: %v", k, err)
		}
		v.held++
		v.last = max(v.last, position(k))
	case bytes.Equal(k, stateKey):
		f, _, ok := unseal(markState, x, 3)
		if !ok {
			return damagef("the state is broken")
		}
		v.st = &f
	}
	return nil
}

// free checks the list of free pages: each page is in use or free, none both.
func (v *verifier) free(id uint64) error {
	b, err := v.load(id)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	n, at := uint64(le.Uint16(b[10:])), uint64(pageHeader)
	if le.Uint16(b[8:]) != flagFree {
		return damagef("page %d is no list of free pages", id)
	}
	if n == 0xffff {
		n, at = le.Uint64(b[at:]), at+8
	}
	if n > (uint64(len(b))-at)/8 {
		return damagef("%d free pages in a list of %d bytes", n, len(b))
	}
	for i := range n {
		p := le.Uint64(b[at+8*i:])
		if p < 2 || p >= v.high || v.used[p] {
			return damagef("page %d is in use and free", p)
		}
		v.used[p] = true
	}
	for p := uint64(2); p < v.high; p++ {
		if !v.used[p] {
			return damagef("page %d is neither in use nor free", p)
		}
	}
	return nil
}

// salvage is what can be read of a file whose structure is broken.
type salvage struct {
	f       *os.File
	found   []piece           // in order of position, each once
	cursors map[string]uint64 // highest position passed, by sink
	owed    map[string]uint64
	last    uint64 // position of the newest record, as far as is known
	lost    uint64 // records that were in it and cannot be read, at least
}

// piece is a record in the file.
type piece struct {
	pos, floor uint64
	at         int64
	size       int
}

// scanBlock is how much of the file is looked at in one go; what begins in it may take maxRecord more.
const scanBlock = 4 << 20

// openSalvage looks for records, cursors and states anywhere in the file. What all of sinks have passed is left out.
func openSalvage(path string, sinks []string) (*salvage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &salvage{f: f, cursors: map[string]uint64{}, owed: map[string]uint64{}}
	var state [3]uint64
	certain := false
	b := make([]byte, scanBlock+maxRecord+4096)
	for base := int64(0); ; base += scanBlock {
		n, err := f.ReadAt(b, base)
		if err != nil && err != io.EOF && n == 0 {
			break // the disk gives no more: what was found is found
		}
		for i := 0; i < min(n, scanBlock); {
			j := bytes.Index(b[i:n], []byte("JD"))
			if j < 0 || i+j >= scanBlock {
				break
			}
			i += j
			if r, body, ok := unseal(markRecord, b[i:n], 2); ok {
				s.found = append(s.found, piece{r[0], r[1], base + int64(i), sealHead + 16 + len(body)})
			} else if c, name, ok := unseal(markCursor, b[i:n], 2); ok && len(name) < 256 {
				if p, known := s.cursors[string(name)]; !known || c[0] >= p {
					s.cursors[string(name)], s.owed[string(name)] = c[0], c[1]
				}
			} else if st, _, ok := unseal(markState, b[i:n], 3); ok && (!certain || st[0] >= state[0]) {
				state, certain = st, true
			}
			i += 2
		}
		if n < len(b) {
			break
		}
	}
	slices.SortFunc(s.found, func(a, b piece) int { return cmp.Or(cmp.Compare(a.pos, b.pos), cmp.Compare(b.at, a.at)) })
	s.found = slices.CompactFunc(s.found, func(a, b piece) bool { return a.pos == b.pos })
	least, newest := state[2], uint64(0)
	for _, p := range s.found {
		least, newest = max(least, p.floor), max(newest, p.pos)
	}
	passed := ^uint64(0)
	for _, name := range sinks {
		passed = min(passed, s.cursors[name]) // 0 for one that is not known
	}
	if len(sinks) > 0 {
		least = max(least, passed)
	}
	s.last = max(state[0], newest, least)
	s.found = slices.DeleteFunc(s.found, func(p piece) bool { return p.pos <= least })
	held := s.last - least // where no state is left, as if nothing had been evicted
	if certain {
		// What the state counts, with what came after it, but for what was passed since.
		counted := state[1] + max(newest, state[0]) - state[0]
		held = min(held, counted-min(counted, least-min(least, state[2])))
	}
	if n := uint64(len(s.found)); held > n {
		s.lost = held - n
	}
	return s, nil
}

// into writes what was found into a new file. Nothing holds more than a part of it in memory.
func (s *salvage) into(db *bbolt.DB) error {
	const together = 500 // records
	for part := range slices.Chunk(s.found, together) {
		err := db.Update(func(tx *bbolt.Tx) error {
			for _, p := range part {
				b := make([]byte, p.size)
				if _, err := s.f.ReadAt(b, p.at); err != nil {
					s.lost++
					continue
				}
				_, body, _ := unseal(markRecord, b, 2)
				r, err := decode(body)
				if err != nil {
					s.lost++
					continue
				}
				bucket, err := tx.CreateBucketIfNotExists(bucketClass[r.class()])
				if err != nil {
					return err
				}
				if err := bucket.Put(key(p.pos), b); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketCursors)
		if err != nil {
			return err
		}
		for name, passed := range s.cursors {
			if err := b.Put([]byte(name), seal(markCursor, []byte(name), passed, s.owed[name])); err != nil {
				return err
			}
		}
		return b.SetSequence(s.last)
	})
}
