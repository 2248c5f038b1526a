package decode

import (
	"hash/maphash"
	"math/bits"

	"jindan/capture"
)

// Bounds of reassembly.
const (
	// fragEntries bounds the unfinished datagrams. With fragKeep it makes 4 MiB of
	// payload, as much as Linux spends by default (net.ipv4.ipfrag_high_thresh).
	fragEntries = 1024
	// fragKeep is how much of a datagram is kept, in bytes from its transport header
	// on: DNS responses rarely exceed the 4,096 bytes that EDNS made usual (RFC 6891 §6.2.5).
	fragKeep = 4096
	// fragTimeout gives a datagram up (RFC 8200 §4.5: 60 seconds after the first
	// fragment; RFC 1122 §3.3.2 allows 60 to 120), in nanoseconds.
	fragTimeout = 60e9
	// fragChunk is how many entries are allocated at a time.
	fragChunk = 16
	// fragBuckets is the size of the hash table; a power of two.
	fragBuckets = 2048
	// fragBlock is the unit of fragment offsets in bytes (RFC 791 §3.1).
	fragBlock = 8
	// fragMax is the largest payload that offsets can express, in bytes.
	fragMax = 65535
)

// Stats counts what became of fragmented datagrams.
type Stats struct {
	Reassembled uint64 // datagrams delivered
	Incomplete  uint64 // datagrams given up: timed out, evicted, or left at Flush
	Evicted     uint64 // those of Incomplete that made room for newer ones
	Orphans     uint64 // fragments of given-up datagrams whose first fragment was not seen
}

// fragment is one fragment, without its payload.
type fragment struct {
	off, n int // bytes of the datagram's payload: first, count on the wire
	header int // bytes of IP headers before the payload, for Packet.IPLen
	id     uint32
	proto  uint8
	more   bool
	v6     bool
}

// fragKey identifies a datagram (RFC 791 §3.2; RFC 8200 §4.5, where the protocol
// does not count).
type fragKey struct {
	src, dst capture.Addr
	id       uint32
	proto    uint8
	v6       bool
}

// fragEntry is a datagram in the making, or one done that keeps its place until
// another needs it: a capture that holds packets twice repeats the last fragment, and
// that one is no orphan.
type fragEntry struct {
	key         fragKey
	since       capture.Instant
	total       int // payload length; 0 until the last fragment arrived
	blocks      int // bits set in seen
	end         int // highest byte seen
	cut         int // first byte that a short snap length kept from us
	fragments   int
	first, done bool
	busy        bool  // being read: must not be reused
	whole       bool  // was delivered
	again       bool  // its identification was delivered a moment ago
	proto       uint8 // of the first fragment
	next, prev  int32 // in the list of unfinished or done entries
	chain       int32 // in the hash bucket
	seen        [(fragMax + 1) / fragBlock / 64]uint64
	data        [fragKeep]byte
}

// fragList is a doubly linked list of entries, oldest first.
type fragList struct{ head, tail int32 }

// fragTable finds entries by key and by age. Indexes are 1-based; 0 is none.
type fragTable struct {
	buckets  []int32
	chunks   []*[fragChunk]fragEntry
	used     int32
	open     fragList
	finished fragList
	stats    Stats
}

// Stats returns the counters so far.
func (d *Decoder) Stats() Stats { return d.frags.stats }

// Flush gives up all unfinished datagrams, at the end of a source, and returns the
// final counters.
func (d *Decoder) Flush() Stats {
	t := &d.frags
	for t.open.head != 0 {
		t.giveUp(t.open.head)
	}
	return t.stats
}

// Orphans gives up all incomplete datagrams and returns how many fragments came without the
// first fragment of theirs, since New. Sources call it at their end.
func (d *Decoder) Orphans() uint64 { return d.Flush().Orphans }

// reassemble adds a fragment whose captured payload is b. When it completes its
// datagram, the transport header is read and p describes the whole.
func (d *Decoder) reassemble(f *fragment, b []byte, p *capture.Packet) capture.LossReason {
	if f.n <= 0 || f.off+f.n > fragMax || f.more && f.n < fragBlock {
		return capture.LossMalformed // among others the "ping of death"
	}
	key := fragKey{src: p.Src.Addr, dst: p.Dst.Addr, id: f.id, v6: f.v6}
	if !f.v6 {
		key.proto = f.proto
	}
	t := &d.frags
	t.expire(d.at)
	i := t.lookup(&key, d.at)
	if i == 0 {
		return capture.LossFragment // every entry is in use by this very packet's nesting
	}
	e := t.at(i)
	if !e.add(f, b[:min(len(b), f.n)]) {
		return capture.LossReassembling
	}
	t.stats.Reassembled++
	t.open.remove(t, i)
	e.busy = true
	p.IPLen = uint32(f.header + e.total)
	data := e.data[:min(e.total, fragKeep, e.cut)]
	var r capture.LossReason
	if f.v6 {
		r = d.ip6Chain(e.proto, data, e.total, f.header, p)
	} else {
		r = d.transport(e.proto, data, e.total, p)
	}
	if p.Data != nil {
		p.Data = d.keep.copy(p.Data) // the entry will be reused
	}
	e.busy, e.done, e.whole = false, true, true
	t.finished.push(t, i)
	return r
}

// add notes a fragment and reports whether the datagram is complete. Where fragments
// overlap, what came first stays. Fragments that contradict the known length do
// not count.
func (e *fragEntry) add(f *fragment, b []byte) bool {
	n := f.n
	if f.more {
		n &^= fragBlock - 1 // RFC 8200 §4.5 would discard it; the rest must come again
	}
	end := f.off + n
	if e.total != 0 && end > e.total || !f.more && end < e.end {
		return false
	}
	e.fragments++
	e.end = max(e.end, end)
	if !f.more {
		e.total = end
	}
	if f.off == 0 && !e.first {
		e.first, e.proto = true, f.proto
	}
	from, to := f.off/fragBlock, (end+fragBlock-1)/fragBlock
	added := 0
	for w := from / 64; w <= (to-1)/64; w++ {
		added += bits.OnesCount64(blockMask(w, from, to) &^ e.seen[w])
	}
	if added == 0 {
		return false
	}
	overlap := added < to-from
	for w := from / 64; w <= (to-1)/64; w++ {
		mask := blockMask(w, from, to)
		if overlap {
			e.copyBlocks(mask&^e.seen[w], w, f.off, b)
		}
		e.seen[w] |= mask
	}
	if !overlap && f.off < fragKeep {
		copy(e.data[f.off:], b[:min(len(b), n)])
	}
	e.blocks += added
	if len(b) < n {
		e.cut = min(e.cut, f.off+len(b))
	}
	return e.total != 0 && e.blocks == (e.total+fragBlock-1)/fragBlock
}

// blockMask marks the blocks from (included) to to (excluded) in word w.
func blockMask(w, from, to int) uint64 {
	mask := ^uint64(0)
	if w == from/64 {
		mask <<= from % 64
	}
	if w == (to-1)/64 {
		mask &= ^uint64(0) >> (63 - (to-1)%64)
	}
	return mask
}

// copyBlocks copies those blocks of word w that fresh marks, from the payload b of
// a fragment at off.
func (e *fragEntry) copyBlocks(fresh uint64, w, off int, b []byte) {
	for ; fresh != 0; fresh &= fresh - 1 {
		at := (w*64 + bits.TrailingZeros64(fresh)) * fragBlock
		if at >= fragKeep || at-off >= len(b) {
			return
		}
		copy(e.data[at:min(at+fragBlock, fragKeep)], b[at-off:])
	}
}

func (t *fragTable) at(i int32) *fragEntry {
	i--
	return &t.chunks[i/fragChunk][i%fragChunk]
}

// fragSeed is secret, so that nobody can choose identifications that share a bucket; no result depends on it.
var fragSeed = maphash.MakeSeed()

// bucket hashes a key with a secret of the process.
func (k *fragKey) bucket() uint32 { return uint32(maphash.Comparable(fragSeed, *k)) % fragBuckets }

// lookup returns the entry of key, a fresh one if there is none. A finished
// datagram gives way to the next of the same identification.
func (t *fragTable) lookup(key *fragKey, now capture.Instant) int32 {
	if t.buckets == nil {
		t.buckets = make([]int32, fragBuckets)
	}
	bucket := &t.buckets[key.bucket()]
	for i := *bucket; i != 0; i = t.at(i).chain {
		e := t.at(i)
		if e.key != *key || e.busy {
			continue
		}
		if e.done {
			t.finished.remove(t, i)
			again := e.whole && now-e.since <= fragTimeout
			e.reset(now)
			e.again = again
			t.open.push(t, i)
		}
		return i
	}
	i := t.free()
	if i == 0 {
		return 0
	}
	e := t.at(i)
	e.reset(now)
	e.key = *key
	e.chain = *bucket
	*bucket = i
	t.open.push(t, i)
	return i
}

func (e *fragEntry) reset(now capture.Instant) {
	e.since = now
	e.total, e.blocks, e.end, e.fragments = 0, 0, 0, 0
	e.cut = fragMax + 1
	e.first, e.done, e.whole, e.again = false, false, false, false
	clear(e.seen[:])
}

// free returns an entry that is in no list and no bucket: a new one, the oldest
// finished one, or the oldest unfinished one.
func (t *fragTable) free() int32 {
	if t.used < fragEntries {
		if int(t.used)/fragChunk == len(t.chunks) {
			t.chunks = append(t.chunks, new([fragChunk]fragEntry))
		}
		t.used++
		return t.used
	}
	i := t.finished.head
	if i == 0 {
		if i = t.open.head; i == 0 {
			return 0
		}
		t.stats.Evicted++
		t.giveUp(i)
	}
	t.finished.remove(t, i)
	e := t.at(i)
	link := &t.buckets[e.key.bucket()]
	for *link != i {
		link = &t.at(*link).chain
	}
	*link = e.chain
	return i
}

// expire gives up datagrams that are too old. Time that goes back expires nothing.
func (t *fragTable) expire(now capture.Instant) {
	for i := t.open.head; i != 0 && now-t.at(i).since > fragTimeout; i = t.open.head {
		t.giveUp(i)
	}
}

// giveUp counts an unfinished datagram and moves it to the finished ones.
func (t *fragTable) giveUp(i int32) {
	e := t.at(i)
	if !e.again { // else these are copies of what was delivered
		t.stats.Incomplete++
		if !e.first {
			t.stats.Orphans += uint64(e.fragments)
		}
	}
	e.done = true
	t.open.remove(t, i)
	t.finished.push(t, i)
}

func (l *fragList) push(t *fragTable, i int32) {
	e := t.at(i)
	e.next, e.prev = 0, l.tail
	if l.tail == 0 {
		l.head = i
	} else {
		t.at(l.tail).next = i
	}
	l.tail = i
}

func (l *fragList) remove(t *fragTable, i int32) {
	e := t.at(i)
	if e.prev == 0 {
		l.head = e.next
	} else {
		t.at(e.prev).next = e.next
	}
	if e.next == 0 {
		l.tail = e.prev
	} else {
		t.at(e.next).prev = e.prev
	}
}
