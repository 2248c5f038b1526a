package points

import (
	"math/bits"
	"time"

	"jindan/capture"
)

// record is one segment, or packet without data, once for each time that it was sent: which points showed it, and when.
type record struct {
	at           capture.Instant // first seen
	chain, older uint32          // the next of the same hash; the one before of the same direction
	anew         uint32          // the first that sends it again, if it is repeated
	conv         uint32
	seq, n       uint32 // from the beginning of the connection; SYN and FIN count
	stamp        uint32 // the time stamp, and of what has no data the last edge of its SACK
	extra        uint32
	off          [MaxPoints]int32 // µs after at
	copies       uint16           // how many times points show it again: two bits each
	size         uint16           // bytes of the IP packet, 65,535 for more
	id           uint16           // IP identification
	mask         uint8            // points that show it
	late         uint8            // points that show it behind what was sent after it
	odd          uint8            // points that show it with other flags
	inner        uint8            // points that show it in a packet with what follows it, and not when it came by
	flags        uint8
	ttl          uint8
	kind         kind
	dir          uint8
	marks        uint8
}

// What a record is.
type kind uint8

const (
	data  kind = iota // it moves the sequence number: data, SYN or FIN
	bare              // it does not
	reset             // RST
	datagram
)

// What is known of a record.
const (
	repeated uint8 = 1 << iota // it was sent again before anybody had acknowledged it
	old                        // it was acknowledged before it was sent
	vague                      // another one looks just like it
	joined                     // a part of a packet that holds several segments
	spare                      // what it bears came when it was sent before: that it was acknowledged says nothing of this one
	bald                       // only points that cut its options have shown it
	twin                       // the point that shows it first has just shown one like it
)

// unit is a segment as one point shows it.
type unit struct {
	seq, n, stamp, extra uint32
	size                 uint32
	id                   uint16
	flags, ttl           uint8
	kind                 kind
	joined, dsack        bool // dsack: it says that something came twice
	cut                  bool // its options were not captured
	twin                 bool // the point has just shown one like it
	vague                bool // it has shown one like it, and nothing tells which of them another point shows
}

func (a *Analysis) rec(no uint32) *record { return &a.recs[no&uint32(len(a.recs)-1)] }

// live reports whether a record is still kept.
func (a *Analysis) live(no uint32) bool { return no-a.tail < a.head-a.tail }

func (a *Analysis) bucket(conv uint32, dir int, u *unit) *uint32 {
	h := mix(uint64(conv)<<32|uint64(u.seq), uint64(dir)<<8|uint64(u.kind))
	if u.kind != data {
		h = mix(h, uint64(u.extra))
	}
	return &a.buckets[h&uint64(len(a.buckets)-1)]
}

// append keeps a new record and returns its number.
func (a *Analysis) append(r record) uint32 {
	if a.head-a.tail == uint32(len(a.recs)) {
		if len(a.recs) < maxRecords {
			a.grow()
		} else {
			a.retire()
			a.report.Early++
		}
	}
	u := r.unit()
	b := a.bucket(r.conv, int(r.dir), &u)
	c := a.convs[r.conv]
	no := a.head
	r.chain, r.older = *b, c.chain[r.dir]
	*b, c.chain[r.dir] = no, no
	a.head++
	*a.rec(no) = r
	return no
}

func (r *record) unit() unit { return unit{seq: r.seq, kind: r.kind, extra: r.extra} }

// grow doubles the room for records.
func (a *Analysis) grow() {
	was := a.recs
	a.recs = make([]record, 2*len(was))
	a.buckets = make([]uint32, len(a.recs))
	for i := range a.buckets {
		a.buckets[i] = a.tail - 1 // none
	}
	for no := a.tail; no != a.head; no++ {
		x := a.rec(no)
		*x = was[no&uint32(len(was)-1)]
		u := x.unit()
		b := a.bucket(x.conv, int(x.dir), &u)
		x.chain, *b = *b, no
	}
}

// place enters what one point shows, segment by segment, and returns the number of the last record.
func (a *Analysis) place(c *conv, id uint32, dir, pt int, u unit, at capture.Instant) uint32 {
	end := u.seq + u.n
	header := u.size - min(u.size, u.n)
	several := u.joined
	for {
		left := end - u.seq
		no, copied := a.find(c, id, dir, pt, &u, at)
		if !a.live(no) {
			r := record{at: at, conv: id, seq: u.seq, n: left, stamp: u.stamp, extra: u.extra, id: u.id, mask: 1 << pt,
				flags: u.flags, ttl: u.ttl, kind: u.kind, dir: uint8(dir)}
			if several {
				r.n, r.marks = min(left, c.unit[dir]), joined
				u.size = header + r.n
			}
			if u.twin {
				r.marks |= twin
			}
			if u.vague {
				r.marks |= vague
			}
			if u.cut {
				r.marks |= bald
			}
			r.size = uint16(min(u.size, 0xffff))
			if no = a.append(r); r.kind == data {
				a.sent(c, no)
			}
			if u.dsack {
				c.dsack[1-dir]++
			}
			if dir == 0 && c.answerAt == 0 && (r.kind == datagram || r.flags&capture.SYN != 0) {
				c.requests++
			}
		}
		r := a.rec(no)
		if !u.cut && r.marks&bald != 0 {
			r.stamp = u.stamp
			r.marks &^= bald
		}
		if r.mask>>pt&1 == 0 {
			if r.n > left {
				a.divide(no, left)
				r = a.rec(no)
			}
			r.mask |= 1 << pt
			r.off[pt] = int32(at.Sub(r.at) / time.Microsecond)
			c.timed(r, pt)
			if several {
				r.marks |= joined
			}
			if (r.flags^u.flags)&(capture.ECE|capture.CWR) != 0 && !several {
				r.odd |= 1 << pt
			}
		} else if copied {
			r.copies += min(1, mostCopies-r.again(pt)) << (2 * pt)
			a.report.At[pt].Copies++
		}
		if r.kind == data && !copied {
			// What passes a point behind what was sent after it was overtaken.
			if last := c.newest[dir][pt]; !a.live(last) || int32(no-last) > 0 {
				c.newest[dir][pt] = no
			} else if r.overtaken(a.rec(last), pt) {
				r.late |= 1 << pt
			}
		}
		if u.seq += r.n; int32(end-u.seq) > 0 {
			r.inner |= 1 << pt
		}
		u.id++
		u.twin, u.vague = false, false
		several, u.joined = true, true
		if int32(end-u.seq) <= 0 {
			return no
		}
	}
}

// overtaken reports whether another point has shown r before what this one has shown before r.
func (r *record) overtaken(by *record, pt int) bool {
	for both := r.mask & by.mask &^ (1<<pt | r.inner | by.inner); both != 0; both &= both - 1 {
		q := bits.TrailingZeros8(both)
		if r.when(q) < by.when(q) {
			return true
		}
	}
	return false
}

// when is the time at which a point showed a record.
func (r *record) when(pt int) capture.Instant {
	return r.at + capture.Instant(r.off[pt])*capture.Instant(time.Microsecond)
}

// divide cuts a record in two: another point shows that it was two segments.
func (a *Analysis) divide(no, n uint32) {
	r := a.rec(no)
	r.marks |= joined
	rest := *r
	rest.seq, rest.n = r.seq+n, r.n-n
	r.n = n
	a.append(rest)
}

// find looks for the record of a segment that a point shows, one that it did not show yet, or copied: one that it shows again.
func (a *Analysis) find(c *conv, id uint32, dir, pt int, u *unit, at capture.Instant) (no uint32, copied bool) {
	none := a.tail - 1
	best, other, past := none, none, none
	alike, shown := 0, 0
	for no := *a.bucket(id, dir, u); a.live(no); {
		r := a.rec(no)
		if r.conv == id && r.seq == u.seq && int(r.dir) == dir && r.kind == u.kind && (r.stamp == u.stamp || u.cut || r.marks&bald != 0) &&
			(u.kind == data || r.extra == u.extra) && (r.n == 0) == (u.n == 0) {
			same := r.id == u.id || u.joined || r.marks&joined != 0 || c.loose
			// The identification of what is sent again is another one, unless a device gives all a new one.
			told := u.id != 0 && r.id == u.id && !c.loose && !u.joined && r.marks&joined == 0
			more := int(r.again(pt)) < a.report.Points[pt].Holds-1
			switch {
			case same && r.mask>>pt&1 == 0:
				alike++
				// Of several that look the same it is one of the same length, and that most other points show. Packets pass in order: of those it is the oldest that
				// the point has not shown, unless it has shown what was sent later. Then that one is lost, and this is it sent again.
				n := bits.OnesCount8(r.mask)
				if r.n == u.n {
					n += MaxPoints
				}
				if n != shown {
					if n < shown {
						break
					}
					shown, best, past = n, none, none
				}
				switch last := c.newest[dir][pt]; {
				case !a.live(last) || int32(no-last) > 0:
					best = no
				case past == none:
					past = no // the newest of those
				}
			case same && (at.Sub(r.when(pt)) < copyGap && (r.id != 0 || more) || told && more):
				// Without an identification it was captured again only at a point that shows the rest as often.
				if best == none || more {
					return no, true
				}
			case same:
				alike++
				if u.id == 0 || c.loose {
					r.marks |= vague
					u.vague = true
				}
				// A RST is not asked for: who makes one like it adds nothing.
				u.twin = u.twin || told || u.kind == reset || at.Sub(r.when(pt)) < copyGap && (u.kind != data || c.sackAt[dir] <= r.when(pt))
			case r.mask>>pt&1 == 0:
				other = no
			}
		}
		if next := r.chain; a.live(next) && int32(next-no) < 0 {
			no = next
			continue
		}
		break
	}
	if best == none {
		best = past
	}
	switch {
	case best != none:
		if alike > 1 {
			a.rec(best).marks |= vague
		}
		if a.rec(best).id == u.id && u.id != 0 {
			c.sameID = true
		}
		return best, false
	case other != none && !c.sameID && alike == 0:
		c.loose = true
		return other, false
	}
	return none, false
}

// again is how many times a point shows a record beside the first one.
func (r *record) again(pt int) uint16 { return r.copies >> (2 * pt) & 3 }

// overlaps bounds how many records are looked through for what is sent again in other pieces.
const overlaps = 512

// sent notes what a new record of data says of those before it.
func (a *Analysis) sent(c *conv, no uint32) {
	r := a.rec(no)
	dir, end := r.dir, r.seq+r.n
	if c.hasAcked[dir] && int32(end-c.acked[dir]) <= 0 {
		r.marks |= old
		return
	}
	if !c.hasHigh[dir] || int32(end-c.high[dir]) > 0 {
		fresh := !c.hasHigh[dir] || int32(r.seq-c.high[dir]) >= 0
		if c.hasHigh[dir] {
			c.bytes[dir] += uint64(end - c.high[dir])
		} else {
			c.bytes[dir] += uint64(r.n)
		}
		c.high[dir], c.hasHigh[dir] = end, true
		if fresh {
			return
		}
	}
	u := r.unit()
	for o := *a.bucket(r.conv, int(dir), &u); a.live(o); {
		x := a.rec(o)
		a.repeats(c, o, no)
		if next := x.chain; a.live(next) && int32(next-o) < 0 {
			o = next
			continue
		}
		break
	}
	for o, k := r.older, 0; a.live(o) && int32(o-no) < 0 && k < overlaps; k++ {
		x := a.rec(o)
		a.repeats(c, o, no)
		if x.conv != r.conv || int32(x.older-o) >= 0 {
			break
		}
		o = x.older
	}
}

// repeats marks an older record of the same data as sent again by a newer one.
func (a *Analysis) repeats(c *conv, older, newer uint32) {
	x, r := a.rec(older), a.rec(newer)
	end := r.seq + r.n
	if older == newer || x.conv != r.conv || x.kind != data || x.dir != r.dir || int32(x.seq-end) >= 0 || int32(r.seq-(x.seq+x.n)) >= 0 || x.marks&old != 0 ||
		c.hasAcked[x.dir] && int32(x.seq+x.n-c.acked[x.dir]) <= 0 {
		return
	}
	// Two points that show the same data at the same time in other pieces have not sent it again.
	if x.mask&r.mask == 0 && r.stamp == x.stamp && (r.id == x.id || r.marks&joined != 0) {
		return
	}
	if x.marks&repeated == 0 {
		x.marks |= repeated
		x.anew = newer
	}
}

// spares marks what was sent again of a record that came: the acknowledgement is of the first one.
func (a *Analysis) spares(no uint32) {
	for x := a.rec(no); x.marks&repeated != 0 && a.live(x.anew) && int32(x.anew-no) > 0; {
		no = x.anew
		x = a.rec(no)
		x.marks |= spare
	}
}
