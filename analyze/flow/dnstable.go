package flow

import (
	"hash/maphash"
	"time"

	"jindan/capture"
)

// dnsTable pairs DNS messages. Records and names lie in two rings in order of
// arrival; a new one pushes out the oldest, so what is in the table depends on the messages
// alone. The zero value is empty; memory is taken when the first message comes.
type dnsTable struct {
	chunks [][]DNS
	names  []byte
	head   uint64 // number of the next record
	tail   uint64 // number of the oldest record
	first  uint64 // all records before this one are decided
	nameAt uint32 // end of the newest name, see room
	byID   []uint32
	asked  []uint32
	seed   uint64
	stats  DNSStats
	row    func(*DNS)
	tcp    dnsStreams
	msg    dnsMessage
	ev     Event
	maxRec uint64 // MaxDNS; less in tests
}

func (t *dnsTable) init(o *Options) {
	t.row = o.DNSRow
	t.seed = maphash.String(maphash.MakeSeed(), "dns") | 1
	t.maxRec = MaxDNS
}

// grow takes the table's fixed memory.
func (t *dnsTable) grow() {
	t.byID = make([]uint32, MaxDNS)
	t.asked = make([]uint32, MaxDNS)
	t.names = make([]byte, 64<<10)
	t.chunks = make([][]DNS, 0, MaxDNS/chunkLen)
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
	if t.byID == nil {
		t.grow()
	}
	if t.head-t.tail == t.maxRec {
		t.evict()
	}
	name := t.msg.Name
	off := t.room(len(name))
	n := t.head
	if i := n % t.maxRec; i%chunkLen == 0 && int(i/chunkLen) == len(t.chunks) {
		t.chunks = append(t.chunks, make([]DNS, chunkLen))
	}
	t.head++
	d := t.at(n)
	*d = DNS{
		ID: t.msg.ID, QType: t.msg.QType, NameHash: t.msg.NameHash,
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
	if d.waiting {
		t.unwait(d)
	}
	if d.indexed {
		t.unindex(d)
	}
	t.tail++
	t.first = max(t.first, t.tail)
}

// bucket of the transactions between two endpoints with an id. It is commutative: an answer
// finds its query.
func (t *dnsTable) bucket(a, b *capture.Endpoint, proto uint8, id uint16) *uint32 {
	x := (mixEnd(t.seed, a) + mixEnd(t.seed, b) + uint64(proto)<<16 + uint64(id)) * 0x9e3779b97f4a7c15
	return &t.byID[x>>48]
}

// find returns the newest transaction between a and b with that id, nil if there is none.
func (t *dnsTable) find(a, b *capture.Endpoint, proto uint8, id uint16) *DNS {
	if t.byID == nil {
		return nil
	}
	for r := *t.bucket(a, b, proto, id); r != 0; {
		d := t.deref(r)
		if d.ID == id && d.Proto == proto &&
			(d.Client == *a && d.Server == *b || d.Client == *b && d.Server == *a) {
			return d
		}
		r = d.next
	}
	return nil
}

// index makes d the newest transaction of its endpoints and id.
func (t *dnsTable) index(n uint64, d *DNS) {
	b := t.bucket(&d.Client, &d.Server, d.Proto, d.ID)
	d.next, d.indexed = *b, true
	*b = t.ref(n)
}

func (t *dnsTable) unindex(d *DNS) {
	at := t.bucket(&d.Client, &d.Server, d.Proto, d.ID)
	for {
		e := t.deref(*at)
		if e == d {
			*at, d.next, d.indexed = d.next, 0, false
			return
		}
		at = &e.next
	}
}

// waiters is the bucket of the unanswered questions of a host for a name, newest first.
func (t *dnsTable) waiters(d *DNS) *uint32 {
	x := mixEnd(t.seed, &capture.Endpoint{Addr: d.Client.Addr, Port: d.QType}) + mixEnd(t.seed, &d.Server) ^ d.NameHash
	return &t.asked[x*0x9e3779b97f4a7c15>>48]
}

func (t *dnsTable) wait(n uint64, d *DNS) {
	b := t.waiters(d)
	if h := t.deref(*b); h != nil {
		h.waitPrev = t.ref(n)
	}
	d.waitNext, d.waitPrev, d.waiting = *b, 0, true
	*b = t.ref(n)
}

func (t *dnsTable) unwait(d *DNS) {
	if p := t.deref(d.waitPrev); p != nil {
		p.waitNext = d.waitNext
	} else {
		*t.waiters(d) = d.waitNext
	}
	if x := t.deref(d.waitNext); x != nil {
		x.waitPrev = d.waitPrev
	}
	d.waitNext, d.waitPrev, d.waiting = 0, 0, false
}

// dnsWalk bounds how many waiting questions are looked at for one that the new query
// repeats: who asks the same more often at a time is many callers, not one resolver.
const dnsWalk = 64

// earlier finds the question that d asks again under a new id or port: the oldest of the same
// host, server, name and type that is unanswered, of an age at which resolvers try
// again, and not already followed by another try. With truncated, it
// finds the newest one whose answer was truncated instead.
func (t *dnsTable) earlier(d *DNS) (found *DNS) {
	r := *t.waiters(d)
	for range dnsWalk {
		e := t.deref(r)
		if e == nil {
			break
		}
		r = e.waitNext
		age := d.First.Sub(e.First)
		if age > dnsRetryMax {
			t.unwait(e)
			continue
		}
		if e.Client.Addr != d.Client.Addr || e.Server != d.Server || e.NameHash != d.NameHash || e.QType != d.QType {
			continue
		}
		if e.Truncated {
			if d.Proto == capture.ProtoTCP {
				return e
			}
			continue
		}
		if d.First.Sub(e.Last) >= dnsRetryMin {
			found = e
		}
	}
	return found
}

// seal reports the queries whose time-out has passed. The table calls it when a window
// ends, in event time.
func (t *dnsTable) seal(now capture.Instant, emit func(*Event)) {
	t.expire(now, dnsTimeout, emit)
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
