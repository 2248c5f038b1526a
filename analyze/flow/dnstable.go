package flow

import (
	"math/bits"
	"time"

	"jindan/capture"
)

// dnsTable pairs DNS messages. Records and names lie in two rings in order of
// arrival; a new one pushes out the oldest, so what is in the table depends on the messages
// alone. The zero value is empty; memory is taken when the first message comes.
type dnsTable struct {
	chunks    [][]DNS
	names     []byte
	head      uint64 // number of the next record
	tail      uint64 // number of the oldest record
	first     uint64 // all records before this one are decided
	nameAt    uint32 // end of the newest name, see room
	buckets   [indexes][]uint32
	stats     DNSStats
	resolvers numbers[resolverPair]
	keepers   idKeepers
	window    uint32 // counts seals
	row       func(*DNS)
	tcp       dnsStreams
	msg       dnsMessage
	ev        Event
	maxRec    uint64 // MaxDNS; less in tests
	shift     uint8  // of a hash, to the number of its bucket
}

func (t *dnsTable) init(o *Options) {
	t.row = o.DNSRow
	t.maxRec = MaxDNS
}

// grow takes the table's fixed memory. maxRec is a power of two.
func (t *dnsTable) grow() {
	t.shift = uint8(64 - bits.TrailingZeros64(t.maxRec))
	for i := range t.buckets {
		t.buckets[i] = make([]uint32, t.maxRec)
	}
	t.names = make([]byte, min(64<<10, 256*t.maxRec)) // a power of two, and more than a name
	t.chunks = make([][]DNS, 0, (t.maxRec+chunkLen-1)/chunkLen)
}

func (t *dnsTable) at(n uint64) *DNS {
	n %= t.maxRec
	return &t.chunks[n/chunkLen][n%chunkLen]
}

// ref makes a reference for chains, deref follows it. 0 is none.
func (t *dnsTable) ref(n uint64) uint32 { return uint32(n%t.maxRec) + 1 }

func (t *dnsTable) deref(r uint32) *DNS {
	if r == 0 {
		return nil
	}
	return &t.chunks[(r-1)/chunkLen][(r-1)%chunkLen]
}

// add makes a record with the name of the message at hand. It pushes out the oldest
// when the table is full.
func (t *dnsTable) add() (uint64, *DNS) {
	if t.chunks == nil {
		t.grow()
	}
	if t.head-t.tail == t.maxRec {
		t.evict()
	}
	name := t.msg.Name
	off := t.room(len(name))
	n := t.head
	if i := n % t.maxRec; i%chunkLen == 0 && int(i/chunkLen) == len(t.chunks) {
		t.chunks = append(t.chunks, make([]DNS, min(chunkLen, t.maxRec)))
	}
	t.head++
	d := t.at(n)
	*d = DNS{
		Record: n, ID: t.msg.ID, QType: t.msg.QType, NameHash: t.msg.NameHash,
		nameOff: off, nameLen: uint8(len(name)),
	}
	copy(t.names[int(off)%len(t.names):], name)
	return n, d
}

// room makes n bytes of the ring of names free and returns where they are: a count of bytes
// since the start, modulo 2^32, of which the ring's size is a divisor. A name does not wrap.
func (t *dnsTable) room(n int) uint32 {
	for {
		size := uint32(len(t.names))
		if t.head == t.tail {
			t.nameAt = 0
		}
		at := t.nameAt
		if at%size+uint32(n) > size {
			at += size - at%size
		}
		if t.head == t.tail || at+uint32(n)-t.at(t.tail).nameOff <= size {
			t.nameAt = at + uint32(n)
			return at
		}
		if size < maxDNSNames {
			t.growNames()
		} else {
			t.evict()
		}
	}
}

// growNames doubles the ring of names.
func (t *dnsTable) growNames() {
	names := make([]byte, 2*len(t.names))
	at := 0
	for n := t.tail; n < t.head; n++ {
		d := t.at(n)
		name := t.name(d)
		copy(names[at:], name)
		d.nameOff = uint32(at)
		at += len(name)
	}
	t.names, t.nameAt = names, uint32(at)
}

// name returns the name of a record that is in the table.
func (t *dnsTable) name(d *DNS) []byte {
	if d.nameLen == 0 {
		return nil
	}
	return t.names[int(d.nameOff)%len(t.names):][:d.nameLen]
}

// evict hands out the oldest record's row and frees it.
func (t *dnsTable) evict() {
	d := t.at(t.tail)
	if d.Pending() {
		t.stats.Evicted++
	}
	t.drop(d)
}

func (t *dnsTable) drop(d *DNS) {
	if t.row != nil {
		t.row(d)
	}
	t.leave(byID, d)
	t.leave(byName, d)
	t.tail++
	t.first = max(t.first, t.tail)
}

// The two indexes. Each finds one transaction for a key: the newest.
const (
	byID   = iota // two endpoints, transport, id: what an answer belongs to
	byName        // host, server, name, type: what a resolver may be asking again
	indexes
)

// place finds the bucket in which the chain of d's key begins. MaxDNS of them fit 16 bits.
func (t *dnsTable) place(index int, d *DNS) {
	x := d.Server.Hash()
	if index == byID { // commutative: an answer finds its query
		x += d.Client.Hash() + uint64(d.Proto)<<16 + uint64(d.ID)
	} else {
		x ^= (&capture.Endpoint{Addr: d.Client.Addr, Port: d.QType}).Hash() + d.NameHash
	}
	d.bucket[index] = uint16(x * 0x9e3779b97f4a7c15 >> t.shift) // Fibonacci hashing takes the top bits
}

// sameKey reports whether a and b have the same key.
func sameKey(index int, a, b *DNS) bool {
	if index == byID {
		return a.ID == b.ID && a.Proto == b.Proto &&
			(a.Client == b.Client && a.Server == b.Server || a.Client == b.Server && a.Server == b.Client)
	}
	return a.NameHash == b.NameHash && a.QType == b.QType && a.Client.Addr == b.Client.Addr && a.Server == b.Server
}

// find returns the transaction with the key of d, nil if there is none, and notes d's bucket for enter.
func (t *dnsTable) find(index int, d *DNS) *DNS {
	if t.chunks == nil {
		return nil
	}
	t.place(index, d)
	for e := t.deref(t.buckets[index][d.bucket[index]]); e != nil; e = t.deref(e.next[index]) {
		if sameKey(index, e, d) {
			return e
		}
	}
	return nil
}

// enter makes d, record n, which find has looked for, the transaction of its key in place of old.
func (t *dnsTable) enter(index int, n uint64, d, old *DNS) {
	if old != nil {
		t.leave(index, old)
	}
	b := &t.buckets[index][d.bucket[index]]
	d.next[index], d.indexed[index] = *b, true
	*b = t.ref(n)
}

func (t *dnsTable) leave(index int, d *DNS) {
	if !d.indexed[index] {
		return
	}
	at := &t.buckets[index][d.bucket[index]]
	for e := t.deref(*at); e != d; e = t.deref(*at) {
		at = &e.next[index]
	}
	*at, d.next[index], d.indexed[index] = d.next[index], 0, false
}

// repeats reports whether d is a resolver's next try of e: e is the question that its host last
// asked this server for this name, or asked with the same id from the same port, is
// unanswered, and of an age at which resolvers try again. Of a host that asks for the same name all the
// time, in several threads, only the question before can be a try of the same
// caller; to link older ones would make waits out of nothing.
func repeats(d, e *DNS) bool {
	if e == nil || e.Answered || !sameKey(byName, d, e) {
		return false
	}
	age := d.First.Sub(e.Last)
	return age >= dnsRetryMin && age <= dnsRetryMax
}

// seal reports the queries whose time-out has passed. The table calls it when a window
// ends, in event time.
func (t *dnsTable) seal(now capture.Instant, emit func(*Event)) {
	t.window++
	t.expire(now, DNSTimeout, emit)
}

// close reports what is unanswered at the end of the input and not too young to be called so,
// and hands out the rows of all records.
func (t *dnsTable) close(now capture.Instant, emit func(*Event)) {
	t.expire(now, dnsPending, emit)
	for t.tail < t.head {
		d := t.at(t.tail)
		if d.Pending() {
			t.stats.Pending++
		}
		t.drop(d)
	}
}

func (t *dnsTable) expire(now capture.Instant, after time.Duration, emit func(*Event)) {
	leading := true
	for n := t.first; n < t.head; n++ {
		d := t.at(n)
		if !d.decided && now.Sub(d.Last) >= after {
			d.decided, d.Unanswered = true, true
			t.stats.Unanswered++
			t.ev = Event{Kind: DNSUnanswered, Side: Client, At: now, Since: d.First, Dur: now.Sub(d.First),
				Len: d.QueryLen, N: uint32(d.Tries), Frame: d.QueryFrame, DNS: d}
			emit(&t.ev)
		}
		if leading = leading && d.decided; leading {
			t.first = n + 1
		}
	}
}
