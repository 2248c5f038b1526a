package sink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"jindan/analyze"
)

// damages are what may happen to a file of n bytes; each says what it did.
var damages = []func(r *rand.Rand, b []byte) ([]byte, string){
	func(r *rand.Rand, b []byte) ([]byte, string) {
		n := 1 + r.IntN(20)
		for range n {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return b, fmt.Sprintf("%d bits flipped", n)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) {
		p := r.IntN(len(b)/4096) * 4096
		clear(b[p : p+4096])
		return b, fmt.Sprintf("page %d lost", p/4096)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) {
		p, q := r.IntN(len(b)/4096)*4096, r.IntN(len(b)/4096)*4096
		x := bytes.Clone(b[p : p+4096])
		copy(b[p:], b[q:q+4096])
		copy(b[q:], x)
		return b, fmt.Sprintf("pages %d and %d swapped", p/4096, q/4096)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) {
		p, q := r.IntN(len(b)/4096)*4096, r.IntN(len(b)/4096)*4096
		copy(b[p:p+4096], b[q:q+4096])
		return b, fmt.Sprintf("page %d written over %d", q/4096, p/4096)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) {
		n := r.IntN(len(b))
		return b[:n], fmt.Sprintf("cut to %d bytes", n)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) {
		p := r.IntN(len(b))
		n := min(1+r.IntN(20_000), len(b)-p)
		for i := range n {
			b[p+i] = byte(r.Uint32())
		}
		return b, fmt.Sprintf("%d bytes of noise at %d", n, p)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) { // with a checksum that is right
		i := r.IntN(2)
		m := b[i*4096+16 : i*4096+80]
		binary.LittleEndian.PutUint32(m[4:], r.Uint32N(9)+3)
		h := fnv.New64a()
		h.Write(m[:56])
		binary.LittleEndian.PutUint64(m[56:], h.Sum64())
		return b, fmt.Sprintf("header %d of another version", i)
	},
	func(r *rand.Rand, b []byte) ([]byte, string) { // one header older, with a checksum that is right
		i := 0
		if binary.LittleEndian.Uint64(b[4096+16+48:]) > binary.LittleEndian.Uint64(b[16+48:]) {
			i = 1
		}
		m := b[i*4096+16 : i*4096+80]
		binary.LittleEndian.PutUint64(m[48:], binary.LittleEndian.Uint64(m[48:])-2-uint64(r.IntN(2)))
		h := fnv.New64a()
		h.Write(m[:56])
		binary.LittleEndian.PutUint64(m[56:], h.Sum64())
		return b, "the newer header lost"
	},
	func(r *rand.Rand, b []byte) ([]byte, string) { // of the free list: a page that is in use, or another one
		for p := 2; p < len(b)/4096; p++ {
			page := b[p*4096 : (p+1)*4096]
			if binary.LittleEndian.Uint16(page[8:]) == flagFree && binary.LittleEndian.Uint64(page) == uint64(p) {
				if n := int(binary.LittleEndian.Uint16(page[10:])); n > 0 && n < 500 {
					binary.LittleEndian.PutUint64(page[16+8*r.IntN(n):], uint64(r.IntN(len(b)/4096)))
				}
			}
		}
		return b, "free lists broken"
	},
}

// TestSpoolDamage damages a spool in hundreds of ways: nothing panics or hangs, no record that can be read is lost, all of them
// come in order, and what is lost is said. JINDAN_DAMAGES=500 says how many.
func TestSpoolDamage(t *testing.T) {
	const records = 300
	dir := t.TempDir()
	path := filepath.Join(dir, "spool.db")
	s, err := OpenSpool(SpoolOptions{Path: path, Sinks: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		put(t, s, record(t, i, analyze.Open, severities[i%3]))
		if i == 100 { // some are delivered, so that there are old copies and free pages
			got, upto, err := s.Read(t.Context(), "x", 50, 1<<20)
			if err != nil || len(got) != 50 {
				t.Fatal(err, len(got))
			}
			s.Advance("x", upto)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(records - 50)
	rounds := 12 * len(damages)
	if n, err := strconv.Atoi(os.Getenv("JINDAN_DAMAGES")); err == nil {
		rounds = n
	} else if testing.Short() {
		rounds = 3 * len(damages)
	}
	unsaid, lost, most := 0, uint64(0), uint64(0)
	for round := range rounds {
		r := rand.New(rand.NewPCG(uint64(round), 17))
		b, what := damages[round%len(damages)](r, bytes.Clone(whole))
		here := t.TempDir()
		p := filepath.Join(here, "spool.db")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSpool(SpoolOptions{Path: p, Sinks: []string{"x"}})
		if err != nil {
			t.Errorf("%d, %s: %v", round, what, err)
			continue
		}
		put(t, s, record(t, 1000, analyze.Open, "error"))
		got := readAll(t, s, "x")
		fresh, before := uint64(0), uint64(0)
		for _, g := range got {
			if g.Seq <= before {
				t.Errorf("%d, %s: record %d after %d", round, what, g.Seq, before)
			}
			if before = g.Seq; g.Seq > 50 && g.Seq <= records {
				fresh++
			}
		}
		if len(got) == 0 || got[len(got)-1].Seq != 1001 {
			t.Errorf("%d, %s: the new record is not delivered", round, what)
		}
		// What is in the file, wherever, is delivered.
		readable := uint64(0)
		for i := range records - 50 {
			q := record(t, 50+i, analyze.Open, severities[(50+i)%3])
			if at := bytes.Index(b, q.encode(nil)); at > sealHead+16 {
				if _, _, ok := unseal(markRecord, b[at-sealHead-16:], 2); ok {
					readable++
				}
			}
		}
		st := s.Status()
		if fresh < readable {
			t.Errorf("%d, %s: %d records are delivered, %d can be read; %s", round, what, fresh, readable, st.Aside)
		}
		if missing := want - fresh; missing > 0 {
			lost += missing
			most = max(most, missing)
			if !strings.Contains(st.Aside, ".corrupt-") {
				unsaid++
				t.Errorf("%d, %s: %d records are lost without a word", round, what, missing)
			}
			if st.Damaged > missing {
				t.Errorf("%d, %s: %d records are lost, %d are said to be", round, what, missing, st.Damaged)
			}
		} else if st.Damaged > 0 {
			t.Errorf("%d, %s: nothing is lost, %d records are said to be", round, what, st.Damaged)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%d, %s: %v", round, what, err)
		}
		// The new file is whole.
		if err := verify(p); err != nil {
			t.Errorf("%d, %s: the new spool: %v", round, what, err)
		}
	}
	t.Logf("%d damages: %d records lost in all, %d at most at once, %d times without a word", rounds, lost, most, unsaid)
}

// TestVerify: a spool that is whole is never set aside, however it was used.
func TestVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool.db")
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 12 {
		s, err := OpenSpool(SpoolOptions{Path: path, MaxBytes: 4 << 20, Sinks: []string{"a", "b"}[:1+round%2]})
		if err != nil {
			t.Fatal(err)
		}
		if s.Aside() != "" {
			t.Fatalf("round %d: %s", round, s.Aside())
		}
		for i := range 300 {
			if err := s.Append(record(t, i, analyze.Update, severities[r.IntN(3)])); err != nil {
				t.Fatal(err)
			}
			if i%40 == 0 {
				flush(t, s)
				if _, upto, err := s.Read(t.Context(), "a", r.IntN(100)+1, 1<<20); err == nil {
					s.Advance("a", upto)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := verify(path); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestSpoolEnvironment: a file that this user may not open is left where it is.
func TestSpoolEnvironment(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spool.db")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSpool(SpoolOptions{Path: path, Sinks: []string{"x"}}); err == nil || errors.As(err, new(*corruptError)) {
		t.Errorf("a directory: %v", err)
	}
	if old, _ := filepath.Glob(path + ".corrupt-*"); len(old) != 0 {
		t.Errorf("set aside: %v", old)
	}
}

// TestSpoolDiskRefuses: while the disk takes nothing, receivers get what comes, in order and once; when it takes records again,
// what was passed is not written.
func TestSpoolDiskRefuses(t *testing.T) {
	s := openSpool(t, 0, "x", "y")
	put(t, s, record(t, 0, analyze.Open, "warn"))
	if err := s.db.Close(); err != nil { // every transaction fails from now on
		t.Fatal(err)
	}
	for i := range 9 {
		if err := s.Append(record(t, 1+i, analyze.Open, severities[i%3])); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the failure shows", func() bool { return s.Status().Err != nil })
	s.Advance("x", 1) // of the disk, which can be read no more
	s.Advance("y", 1)
	if got := seqs(readAll(t, s, "x")); !equal(got, 2, 3, 4, 5, 6, 7, 8, 9, 10) {
		t.Errorf("from memory: %v", got)
	}
	again, err := bbolt.Open(s.opt.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.dbmu.Lock()
	s.db = again
	s.dbmu.Unlock()
	put(t, s, record(t, 10, analyze.Open, "warn"))
	flush(t, s)
	if x, y := seqs(readAll(t, s, "x")), seqs(readAll(t, s, "y")); !equal(x, 11) || !equal(y, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) {
		t.Errorf("from the disk: %v and %v", x, y)
	}
	if st := s.Status(); st.Err != nil || st.Damaged != 0 {
		t.Errorf("%+v", st)
	}
}
