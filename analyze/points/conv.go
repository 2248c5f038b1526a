package points

import (
	"math/bits"
	"slices"
	"time"

	"jindan/capture"
)

// conv is a connection, or the datagrams between two endpoints, at all points that see it. Direction 0 is from whoever opened it.
type conv struct {
	ends        [2]capture.Endpoint // as they were seen first
	keys        []flowKey           // by which it is found: more than one where addresses are translated
	proto       uint8
	v6          bool
	closed      bool
	began       bool // its SYN was seen
	loose       bool // a device rewrites the IP identification
	sameID      bool // it was seen not to
	translated  bool
	rewritten   bool
	pts         uint8 // points that see it
	dirPts      [2]uint8
	pathOf      uint8 // pts when path was made
	pathLen     uint8
	path        [MaxPoints]uint8
	hasBase     [2]uint8
	base        [2][MaxPoints]uint32 // numbering of what a direction sends, at a point
	ttl         [2][MaxPoints]uint8
	syn         [2][MaxPoints]synOptions
	hasSyn      [2]uint8
	newest      [2][MaxPoints]uint32 // the record that a point showed last, of those in order
	seen        [2][MaxPoints]uint32
	lost        [2]uint32
	lostAt      [2][MaxPoints]uint32 // behind which point
	missed      [MaxPoints]uint32
	stuck       [2][MaxPoints]uint32       // lost behind a point since something passed on from there
	passedAt    [MaxPoints]capture.Instant // the last packet, of either direction, that passed a point and one behind it
	quiet       [2]time.Duration           // how long nothing had when the first of those that are stuck was lost
	keyAt       [MaxPoints]uint8           // which of keys a point shows, times 2, plus 1 if its lower endpoint answers
	high, acked [2]uint32
	hasHigh     [2]bool
	hasAcked    [2]bool
	sackAt      [2]capture.Instant // the receiver last told that something of the direction is missing
	unit        [2]uint32          // bytes of a full segment
	chain       [2]uint32          // the newest record
	resets      [2][]uint32        // the records of the last RSTs
	dsack       [2]uint32          // acknowledgements that say that data came twice
	twice       [2]uint32          // data that came to the last point twice
	twins       [2]uint32          // data that only the last point shows twice
	// votes: how often what went from the first of two points to the second one and what came back took some time together, less how often less than
	// none. prior is of the newest packet that both show: how much later the second one did, µs, times 4; plus 1 if the opener sent it, else 2.
	votes       [MaxPoints * (MaxPoints - 1) / 2]int8
	prior       [MaxPoints * (MaxPoints - 1) / 2]int32
	waiting     uint8 // points at which a request has no answer yet
	asked       [MaxPoints]capture.Instant
	bytes       [2]uint64
	requests    uint32 // SYNs, or datagrams, of direction 0 before any answer
	first, last capture.Instant
	synAt       capture.Instant // of the last SYN of the opener
	answerAt    capture.Instant
}

type synOptions struct {
	mss  uint16
	opts uint8
}

type flowKey struct {
	lo, hi capture.Endpoint
	proto  uint8
}

// flowRef finds a conv. flip: the lower endpoint is the one that answers.
type flowRef struct {
	conv uint32
	flip bool
}

// server is who is asked, as a point shows it.
func (c *conv) server(pt int) capture.Endpoint {
	k := c.keys[c.keyAt[pt]>>1]
	if c.keyAt[pt]&1 != 0 {
		return k.lo
	}
	return k.hi
}

func keyOf(p *capture.Packet) (k flowKey, swapped bool) {
	k = flowKey{p.Src, p.Dst, p.Proto}
	if p.Dst.Compare(p.Src) < 0 {
		k.lo, k.hi, swapped = p.Dst, p.Src, true
	}
	return k, swapped
}

// shown is who sends, and to whom, in a direction, as a point shows it.
func (c *conv) shown(dir, pt int) [2]capture.Addr {
	k := c.keys[c.keyAt[pt]>>1]
	if int(c.keyAt[pt]&1) != dir {
		return [2]capture.Addr{k.hi.Addr, k.lo.Addr}
	}
	return [2]capture.Addr{k.lo.Addr, k.hi.Addr}
}

// lookup finds the conversation of a packet and its direction, or begins one. nil: there are too many.
func (a *Analysis) lookup(pt int, p *capture.Packet, at capture.Instant) (c *conv, id uint32, dir int) {
	k, swapped := keyOf(p)
	r, ok := a.cached, a.cachedKey == k
	if !ok {
		r, ok = a.flows[k]
	}
	opens := p.Proto == capture.ProtoTCP && p.Flags&(capture.SYN|capture.ACK|capture.RST) == capture.SYN
	if ok {
		c = a.convs[r.conv]
		if opens && c.anew(pt, p, at, swapped != r.flip) {
			ok = false
		}
	}
	if !ok {
		if r, ok = a.begin(pt, k, swapped, p, opens, at); !ok {
			return nil, 0, 0
		}
		c = a.convs[r.conv]
	}
	a.cached, a.cachedKey = r, k
	if swapped != r.flip {
		dir = 1
	}
	if c.pts>>pt&1 == 0 {
		if c.keyAt[pt] = uint8(max(0, slices.Index(c.keys, k))) << 1; r.flip {
			c.keyAt[pt]++
		}
	}
	// Each one that is sent again, too: the first may not have come so far as where addresses are translated.
	if opens {
		a.openings.put(p.Seq, p.TSVal, r.conv, at)
	} else if p.Proto == capture.ProtoUDP && dir == 0 && c.seen[0][pt] < fewAsked {
		if key, stamp, ok := asking(p); ok {
			a.asked.put(key, stamp, r.conv, at)
		}
	}
	return c, r.conv, dir
}

// anew reports whether a SYN opens another connection between the same endpoints. away: it comes from the side that was asked before.
func (c *conv) anew(pt int, p *capture.Packet, at capture.Instant, away bool) bool {
	if away || !c.began {
		return c.hasBase[0] != 0 && at.Sub(c.last) > copyGap || away
	}
	if c.hasSyn[0]>>pt&1 != 0 {
		return c.base[0][pt] != p.Seq
	}
	for q := range MaxPoints {
		if c.hasSyn[0]>>q&1 != 0 && c.base[0][q] == p.Seq {
			return false
		}
	}
	// Other numbers at another point: a device rewrites them, unless the SYN that it would have rewritten is longer ago than any way takes.
	return c.closed || at.Sub(c.synAt) > rejection
}

// begin makes a conversation, or finds it by what opens it where a device on the way translates addresses.
func (a *Analysis) begin(pt int, k flowKey, swapped bool, p *capture.Packet, opens bool, at capture.Instant) (flowRef, bool) {
	answers := p.Proto == capture.ProtoTCP && p.Flags&capture.SYN != 0 && !opens ||
		p.Flags&capture.SYN == 0 && p.Src.Port < p.Dst.Port // services have the lower ports (RFC 6335 §6)
	r := flowRef{flip: swapped != answers}
	var known bool
	if opens {
		r.conv, known = a.openings.get(p.Seq, p.TSVal, at)
	} else if p.Proto == capture.ProtoUDP && !answers {
		if key, stamp, ok := asking(p); ok {
			r.conv, known = a.asked.get(key, stamp, at)
		}
	}
	if known {
		if c := a.convs[r.conv]; c != nil && c.proto == p.Proto && (c.ends[0] != p.Src || c.ends[1] != p.Dst) && c.pts>>pt&1 == 0 {
			c.keys = append(c.keys, k)
			c.translated = true
			a.flows[k] = r
			return r, true
		}
	}
	if len(a.convs)-len(a.free) >= maxConvs {
		a.report.Refused++
		return r, false
	}
	c := &conv{proto: p.Proto, v6: p.IPv6, first: at, last: at, keys: []flowKey{k}}
	c.ends = [2]capture.Endpoint{p.Src, p.Dst}
	if answers {
		c.ends = [2]capture.Endpoint{p.Dst, p.Src}
	}
	if n := len(a.free); n > 0 {
		r.conv, a.free = a.free[n-1], a.free[:n-1]
		a.convs[r.conv] = c
	} else {
		r.conv = uint32(len(a.convs))
		a.convs = append(a.convs, c)
	}
	a.flows[k] = r
	return r, true
}

// openings remembers what began connections in the last two spans of horizon, by what a device that translates addresses leaves alone: the
// sequence number of a SYN, the payload of a datagram. It may change or remove options; a time stamp that is left must be the same.
type openings struct {
	now, old map[uint32]opening
	since    capture.Instant
}

type opening struct {
	conv  uint32
	stamp uint32 // 0: none
}

func (o *openings) roll(at capture.Instant) {
	if o.now == nil || at.Sub(o.since) > horizon {
		o.now, o.old, o.since = make(map[uint32]opening), o.now, at
	}
}

func (o *openings) get(key, stamp uint32, at capture.Instant) (conv uint32, ok bool) {
	o.roll(at)
	x, ok := o.now[key]
	if !ok {
		x, ok = o.old[key]
	}
	return x.conv, ok && (x.stamp == stamp || x.stamp == 0 || stamp == 0)
}

func (o *openings) put(key, stamp, conv uint32, at capture.Instant) {
	if o.roll(at); len(o.now) < maxConvs {
		o.now[key] = opening{conv, stamp}
	}
}

// fewAsked: of so many datagrams of whoever began, one reaches the other side of a translation.
const fewAsked = 16

// asking is what a datagram is known by on both sides of a translation; not ok, if it may be mistaken for another one: the message of DNS bears a
// random number (RFC 5452 §4.3), others are told by the identification of their IP packet.
func asking(p *capture.Packet) (key, stamp uint32, ok bool) {
	const dns = 53
	d := digest(p.Data)
	key = uint32(d>>32) ^ uint32(d) ^ p.Len<<16
	if p.Src.Port == dns || p.Dst.Port == dns {
		return key, 0, len(p.Data) >= 12
	}
	return key, uint32(p.IPID), p.IPID != 0 && len(p.Data) > 0
}

// rel is a sequence number of a direction counted from the beginning of the connection, or, if that was not seen, from where the first
// point began.
func (c *conv) rel(dir, pt int, seq uint32) uint32 {
	if c.hasBase[dir]>>pt&1 == 0 {
		base := seq
		if c.hasBase[dir] != 0 {
			base = c.base[dir][bits.TrailingZeros8(c.hasBase[dir])]
		}
		c.base[dir][pt] = base
		c.hasBase[dir] |= 1 << pt
	}
	return seq - c.base[dir][pt]
}

// opened notes a SYN, or the answer to one.
func (c *conv) opened(dir, pt int, p *capture.Packet) {
	if c.hasBase[dir] != 0 && c.hasSyn[dir]>>pt&1 == 0 {
		for q := range MaxPoints {
			switch known := c.hasSyn[dir]>>q&1 != 0; {
			case known && c.base[dir][q] != p.Seq:
				c.rewritten = true
			case !known && c.hasBase[dir]>>q&1 != 0 && c.base[dir][q]-p.Seq < firstWindow:
				c.base[dir][q] = p.Seq // the point has shown what acknowledges it, and not the SYN itself
			}
		}
	}
	c.began = true
	c.base[dir][pt] = p.Seq
	c.hasBase[dir] |= 1 << pt
	c.hasSyn[dir] |= 1 << pt
	c.syn[dir][pt] = synOptions{p.MSS, p.Opts}
	if s := c.syn[1-dir]; c.hasSyn[1-dir] != 0 && p.Opts&capture.OptMSS != 0 {
		o := s[bits.TrailingZeros8(c.hasSyn[1-dir])]
		if o.mss != 0 {
			u := uint32(min(o.mss, p.MSS))
			if o.opts&p.Opts&capture.OptTimestamps != 0 {
				u -= min(u, 12) // RFC 7323 appendix A
			}
			c.unit = [2]uint32{u, u}
		}
	}
}

// firstWindow is the most that can be acknowledged of a connection before its windows are scaled (RFC 7323 §2.2). Numbers that a device draws
// anew are as close by chance once in 65,536 connections.
const firstWindow = 1 << 16

// sure: so many round trips do not all bear a wrong time.
const sure = 3

// way lists the points that see c in the order in which what its opener sends passes them.
func (a *Analysis) way(c *conv) []uint8 {
	if c.pathOf == c.pts {
		return c.path[:c.pathLen]
	}
	c.pathOf, c.pathLen = c.pts, 0
	turned := 0
	for p := range MaxPoints {
		for q := p + 1; q < MaxPoints; q++ {
			if c.pts>>p&1 != 0 && c.pts>>q&1 != 0 {
				turned += c.hops(p, q)
			}
		}
	}
	before := func(p, q int) bool {
		// Hops may be counted anew by a device on the way. Time is not.
		if v := c.vote(p, q); v >= sure || v <= -sure {
			a.known(c, p, q, v > 0)
			return v > 0
		}
		if h := c.hops(p, q); h != 0 {
			return h > 0
		}
		if h := a.hint(c, p, q); h != 0 {
			return h > 0
		}
		b := int(a.o.Before[p][q])
		if b == 0 {
			b = q - p
		}
		return (b > 0) == (turned >= 0)
	}
	for p := range MaxPoints {
		if c.pts>>p&1 == 0 {
			continue
		}
		at := int(c.pathLen)
		for at > 0 && before(p, int(c.path[at-1])) {
			c.path[at] = c.path[at-1]
			at--
		}
		c.path[at] = uint8(p)
		c.pathLen++
	}
	return c.path[:c.pathLen]
}

// hops is 1 if what the opener of c sends has passed fewer routers at p than at q, −1 if more, 0 if that cannot be told.
func (c *conv) hops(p, q int) int {
	for dir := range 2 {
		t, u := int(c.ttl[dir][p]), int(c.ttl[dir][q])
		if t == 0 || u == 0 || t == u {
			continue
		}
		if (t > u) == (dir == 0) {
			return 1
		}
		return -1
	}
	return 0
}

// voter is where the votes on two points are, p before q.
func voter(p, q int) int { return q*(q-1)/2 + p }

// vote is positive if p comes before q on the way of what the opener of c sends.
func (c *conv) vote(p, q int) int {
	if p > q {
		return -int(c.votes[voter(q, p)])
	}
	return int(c.votes[voter(p, q)])
}

// timed notes that a record has come by pt. Whatever the clocks of two points show: a way there and one back take some time together.
func (c *conv) timed(r *record, pt int) {
	for others := r.mask &^ (1 << pt); others != 0; others &= others - 1 {
		q := bits.TrailingZeros8(others)
		k := voter(min(pt, q), max(pt, q))
		now := (r.off[max(pt, q)]-r.off[min(pt, q)])<<2 | int32(r.dir+1)
		was := c.prior[k]
		c.prior[k] = now
		if was == 0 || was&3 == now&3 {
			continue
		}
		round := now>>2 - was>>2
		if r.dir == 1 {
			round = -round
		}
		if v := &c.votes[k]; round > 0 {
			*v = min(*v+1, 100)
		} else if round < 0 {
			*v = max(*v-1, -100)
		}
	}
}

// known notes for other connections to the same service in which order packets pass two points.
func (a *Analysis) known(c *conv, p, q int, before bool) {
	s := service{c.ends[1], c.proto}
	if _, ok := a.orders[s]; !ok && len(a.orders) >= maxServices {
		return
	}
	o := a.orders[s]
	o[voter(min(p, q), max(p, q))] = 1
	if before != (p < q) {
		o[voter(min(p, q), max(p, q))] = -1
	}
	a.orders[s] = o
}

// hint is positive if other connections to the same service pass p before q.
func (a *Analysis) hint(c *conv, p, q int) int {
	o := a.orders[service{c.ends[1], c.proto}]
	h := int(o[voter(min(p, q), max(p, q))])
	if p > q {
		h = -h
	}
	return h
}
