package flow

import (
	"time"

	"jindan/capture"
)

// halfCloseRefresh bounds how often data on a half-closed connection renews its age.
const halfCloseRefresh = time.Second

// data takes a segment of side s that carries payload or a FIN. It reports whether the segment may have an effect.
func (t *Table) data(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	end := p.Seq + seqLen(p)
	header := p.IPLen - min(p.Len, p.IPLen)
	mss := c.MSS(s)
	if d.flags&known == 0 {
		// Mid-stream: the first data seen sets the base, whatever was acknowledged before.
		d.flags |= known
		d.next, d.isn = p.Seq, p.Seq-1
	}

	// Keep-alive: at most one byte, just below what is next (RFC 9293 §3.8.4).
	if p.Len <= 1 && p.Flags&(capture.SYN|capture.FIN) == 0 && p.Seq == d.next-1 {
		return true
	}
	// Window probe: one byte beyond a closed window (RFC 9293 §3.8.6.1). It may or may not
	// be accepted; what follows decides.
	if p.Len == 1 && p.Seq == d.next && r.flags&zeroWin != 0 {
		d.next++
		d.flags |= probed
		return true
	}
	if d.flags&probed != 0 {
		d.flags &^= probed
		if p.Len > 1 && p.Seq == d.next-1 {
			d.next--
		}
	}

	if p.Seq != d.next {
		if d.synData > 0 && p.Seq-d.next == uint32(d.synData) {
			t.tookSYN(c, s, p.Seq, at) // the capture lacks what acknowledged it
		}
		if !c.plausible(s, p.Seq) && t.outside(c, s, p, at, end) {
			return false
		}
	}
	d.flags &^= odd // it goes on where it was, or was believed
	if p.Len > mss {
		t.Stats.SuperPackets++
	}
	if p.Len > 0 {
		t.Stats.Data += uint64(segments(p.Len, mss))
	}
	if p.IPLen <= plainFrame || p.Len <= mss {
		d.maxLen = max(d.maxLen, uint16(min(p.Len, 1<<16-1)))
		if path != nil {
			ps := &path.Side[c.dir(s)]
			ps.full = max(ps.full, uint16(min(p.Len, 1<<16-1)))
		}
	}
	switch {
	case p.Seq == d.next:
		if d.flags&midWrite != 0 {
			t.stalled(c, s, at, true)
		}
	case before(d.next, p.Seq):
		t.openHole(c, s, p, at)
	default:
		t.again(c, s, p, at, path, header, mss, end)
	}
	if path != nil {
		path.Side[c.dir(s)].Bytes += uint64(p.Len)
	}
	if before(d.next, end) {
		if path != nil {
			fresh := p.Len
			if before(p.Seq, d.next) {
				fresh = min(end-d.next, p.Len)
			}
			if fresh > 0 {
				ps := &path.Side[c.dir(s)]
				eachSize(fresh, header, mss, ps.seen)
				t.shown(c, s, p, at, ps, header, mss)
			}
		}
		n := segments(p.Len, mss)
		if p.Len > 0 {
			d.flags &^= unseen
			if w := c.room(s); p.Len < mss && w > 0 && w < mss && end == r.acked+w && t.wants(Squeezed) {
				t.ev = Event{Kind: Squeezed, Conn: c, Side: s, At: at, Len: w, N: 1, Frame: p.Frame}
				t.send(&t.ev)
			}
			d.dataPk += n
			d.bytes += uint64(p.Len)
			t.turn(c, s, p, at)
			if c.halfAt != 0 && c.halfSide != s && at.Sub(c.halfAt) >= halfCloseRefresh {
				// It still sends: half-closed on purpose. The age counts from its last byte.
				t.halfCloseEnd(c, at)
				c.halfAt = at
				if t.wants(HalfClosed) {
					t.ev = Event{Kind: HalfClosed, Conn: c, Side: c.halfSide, At: at, Frame: p.Frame}
					t.send(&t.ev)
				}
			}
		}
		d.next, d.nextAt, d.nextID = end, at, p.IPID
		d.flags &^= midWrite
		d.hidden = 0
		if p.Len >= mss && p.Flags&(capture.PSH|capture.FIN) == 0 {
			d.flags |= midWrite
			if c.side[Client].flags&listed == 0 {
				c.side[Client].flags |= listed
				t.writing = append(t.writing, c.Ref())
			}
		}
	}
	return true
}

// maxIDStep is how far identifications of one connection may be apart to be those of one counter: more than a window of
// repetitions, less than chance among 65,536.
const maxIDStep = 256

// shown counts a segment whose loss before the capture point would have shown.
func (t *Table) shown(c *Conn, s Side, p *capture.Packet, at capture.Instant, ps *PathSide, header, mss uint32) {
	d, r := &c.side[s], &c.side[s.Other()]
	if p.Len >= mss {
		ps.Bin[Bin(header+mss)].Shown += p.Len / mss
		return
	}
	b := &ps.Bin[Bin(header+p.Len)]
	switch {
	case before(d.next, p.Seq):
		b.Shown++
	case p.Seq == d.next && d.flags&midWrite != 0:
		last := d.nextAt
		if c.trouble != 0 {
			x := &t.trouble(c).side[s]
			if step := p.IPID - d.nextID; x.lastFill > last && p.IPID != 0 && d.nextID != 0 && step != 1 && step < maxIDStep {
				// What was missing before it has come first. By the identifications, which Linux counts by connection, the packet
				// sent right after the one before it is missing as well, and was this, most likely; or it has arrived, and was another.
				if x.followed != d.nextID {
					b.Shown++
					b.Late++
				}
				return
			}
			last = max(last, x.lastFill)
		}
		b.Shown++
		if at.Sub(last) >= minRTO && r.acked == d.next && r.flags&(zeroWin|shut) == 0 {
			b.Late++
		}
	}
}

// stallBurst is the number of segments above which a sender has recovered: after a time-out it begins with
// one and doubles each round trip (RFC 5681 §3.1).
const stallBurst = 3

// stalled reports that s stood still in the middle of a write, if it did for long enough to have
// lost a repetition, too.
func (t *Table) stalled(c *Conn, s Side, now capture.Instant, ended bool) {
	d, r := &c.side[s], &c.side[s.Other()]
	gap := now.Sub(d.nextAt)
	if gap < 3*minRTO || r.flags&(zeroWin|shut) != 0 || r.acked != d.next || c.closed || r.flags&finSent != 0 {
		return
	}
	n := uint8(0)
	for wait := minRTO + c.HandshakeRTT; gap >= wait && n < 16; wait = 2*wait + minRTO + c.HandshakeRTT {
		n++
	}
	// A program that pauses (streaming, a slow disk) goes on with a burst. A sender whose segments are lost
	// gets one or two through and stands still again.
	again := d.stallPk != 0 && d.dataPk+1-d.stallPk <= stallBurst
	if ended {
		d.stallPk = d.dataPk + 1
	}
	if n <= d.hidden || !again {
		return
	}
	if t.wants(Stalled) {
		t.ev = Event{Kind: Stalled, Conn: c, Side: s, At: now, Since: d.nextAt, Dur: gap, N: uint32(n - d.hidden),
			Len: c.MSS(s), IPLen: headerOf(c) + c.MSS(s), Flag: !ended}
		t.send(&t.ev)
	}
	d.hidden = n
}

// checkWriters looks at the end of a window for writers that stand still.
func (t *Table) checkWriters(now capture.Instant) {
	keep := t.writing[:0]
	for _, ref := range t.writing {
		c := t.Lookup(ref)
		if c == nil {
			continue
		}
		if c.closed || (c.side[0].flags|c.side[1].flags)&midWrite == 0 {
			c.side[Client].flags &^= listed
			continue
		}
		keep = append(keep, ref)
		for s := range c.side {
			if c.side[s].flags&midWrite != 0 && now.Sub(c.side[s].nextAt) >= StallAge {
				t.stalled(c, Side(s), now, false)
			}
		}
	}
	t.writing = keep
}

// segments is how many segments a payload of n bytes stands for: super-packets of GRO and TSO
// hold several.
func segments(n, mss uint32) uint32 {
	if n <= mss {
		return 1
	}
	return (n + mss - 1) / mss
}

// eachSize calls f with the IP length and number of the segments that a payload of n bytes stands for.
func eachSize(n, header, mss uint32, f func(ip, n uint32)) {
	if n <= mss {
		f(header+n, 1)
		return
	}
	f(header+mss, n/mss)
	if rest := n % mss; rest > 0 {
		f(header+rest, 1)
	}
}

// turn follows requests and their answers.
func (t *Table) turn(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	if s == Client {
		c.reqLast = at
		if c.reqAt == 0 && !c.closed {
			c.reqAt = at
			c.requests++
			if t.wants(Request) {
				t.ev = Event{Kind: Request, Conn: c, Side: s, At: at, Len: p.Len, Frame: p.Frame}
				t.send(&t.ev)
			}
			c.side[Client].turn = uint16(min(p.Len, 1<<16-1)) // only now: the event shows what the answer before was an answer to
		}
		return
	}
	if c.reqAt == 0 {
		if c.estAt != 0 && c.side[Client].bytes == 0 && c.side[Server].bytes == uint64(p.Len) && t.wants(Greeting) {
			t.ev = Event{Kind: Greeting, Conn: c, Side: s, At: at, Len: p.Len, Since: c.estAt, Dur: at.Sub(c.estAt), Frame: p.Frame}
			t.send(&t.ev)
		}
		return
	}
	from := uint32(c.side[Server].bytes) - p.Len
	c.side[Server].turn, c.answer = uint16(from), uint16(from>>16)
	wait := at.Sub(c.reqLast)
	since := c.reqAt
	c.reqAt = 0
	c.answers++
	if c.FirstResponse == 0 {
		c.FirstResponse = max(wait, 1)
	}
	if t.wants(Response) {
		t.ev = Event{Kind: Response, Conn: c, Side: s, At: at, Len: p.Len, Dur: wait, Since: since,
			Flag: c.unanswered == givenUp, Frame: p.Frame}
		t.send(&t.ev)
	}
}

func (t *Table) openHole(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	t.addHole(c, s, hole{from: c.side[s].next, to: p.Seq, at: at, ts: p.TSVal, id: p.IPID,
		hasTS: p.Opts&capture.OptTimestamps != 0}, p.IPLen, p.Frame)
}

// addHole adds a hole that shows before a packet of that IP length and number.
func (t *Table) addHole(c *Conn, s Side, h hole, ip uint32, frame uint64) {
	tr := t.trouble(c)
	x := &tr.side[s]
	x.Holes++
	if x.n < maxHoles {
		x.holes[x.n] = h
		x.n++
	} else {
		x.holes[maxHoles-1].to = h.to
		t.Stats.MergedHoles++
	}
	if !tr.open {
		tr.open, tr.at = true, len(t.holed)
		t.holed = append(t.holed, c.trouble-1)
	}
	if t.wants(HoleOpened) {
		n := c.flight(s, h.to-h.from)
		t.ev = Event{Kind: HoleOpened, Conn: c, Side: s, At: h.at, Len: n, N: segments(n, c.MSS(s)), IPLen: ip, Frame: frame}
		t.send(&t.ev)
	}
}

// again takes a segment that begins below what is next: it fills a hole, or repeats
// what was seen.
func (t *Table) again(c *Conn, s Side, p *capture.Packet, at capture.Instant, path *Path, header, mss, end uint32) {
	d, r := &c.side[s], &c.side[s.Other()]
	if c.trouble != 0 {
		if x := &t.trouble(c).side[s]; x.n > 0 && t.fill(c, s, x, p, at, path, header, mss, end) {
			return
		}
	}
	// A FIN that comes again without data repeats one sequence number; count it like
	// a segment. A segment that reaches beyond next is new data from there on.
	x := &t.trouble(c).side[s]
	class := RTO
	switch {
	case r.flags&ackKnown != 0 && !before(r.acked, end):
		class = Spurious
	case r.flags&shut != 0 && before(p.Seq, t.trouble(c).side[s.Other()].shutSeq):
		class = ClosedWindow
	case p.Seq == r.acked && r.dup >= 2 || r.flags&sackSeen != 0:
		class = Fast
	case end == d.next && at.Sub(d.nextAt) < minRTO:
		class = TailLoss
	}
	n := segments(p.Len, mss)
	if p.Len == 0 {
		class = Closing
	}
	if class.OfPath() && t.unaccepted(c, s, p, at) {
		class = Unaccepted
		x.held += n
		x.heldLen = min(p.Len, mss)
		x.heldIP = header + x.heldLen
	} else {
		t.release(c, s, x, path, at)
	}
	// Nobody can know of a loss before a round trip is over.
	soon := end == d.next && at.Sub(d.nextAt) < c.HandshakeRTT/2
	proven := class == Spurious || class == Closing || !t.copies.doubtful && !soon
	x.Retransmits[class] += n
	if x.vain = 0; (class == RTO || class == Unaccepted) && end == d.next && r.lastAt < d.nextAt {
		x.vain = r.packets + 1
	}
	if !proven {
		x.Unproven += n
	}
	if x.again > 0 && x.againSeq == p.Seq {
		x.again++
	} else {
		x.againSeq, x.again = p.Seq, 1
	}
	x.againAt = at
	first := false
	if proven && class.OfPath() {
		if first = x.firstTime(p.Seq); first && path != nil {
			if p.Len > 0 {
				eachSize(p.Len, header, mss, path.Side[c.dir(s)].again)
			}
		}
	}
	if t.wants(Retransmit) {
		t.ev = Event{Kind: Retransmit, Conn: c, Side: s, At: at, Class: class, Proven: proven, Flag: first, Len: p.Len, N: n,
			Try: x.again, IPLen: header + min(p.Len, mss), Since: d.nextAt, Dur: at.Sub(d.nextAt), Frame: p.Frame}
		t.send(&t.ev)
	}
}

// firstTime reports whether the segment at seq has not come again before, as far as is remembered, and notes that it has.
func (x *trouble) firstTime(seq uint32) bool {
	for _, s := range x.repeated[:min(x.repeats, maxRepeated)] {
		if s == seq {
			return false
		}
	}
	x.repeated[x.repeats%maxRepeated] = seq
	x.repeats++
	return true
}

// acceptPatience is how long after the handshake a listener that dropped its last ACK has
// certainly repeated its SYN-ACK: after 1 s (Linux TCP_TIMEOUT_INIT, RFC 6298 §2.1), plus a margin.
const acceptPatience = 2 * time.Second

// unaccepted reports whether a repetition of s may be due to a full accept queue: first data
// of the client, nothing of it acknowledged, and the SYN-ACK came again or may still do so.
func (t *Table) unaccepted(c *Conn, s Side, p *capture.Packet, at capture.Instant) bool {
	d, r := &c.side[s], &c.side[s.Other()]
	if s != Client || c.estAt == 0 || c.synAckAt == 0 || r.acked != d.isn+1 {
		return false
	}
	return c.saTries > 0 || at.Sub(c.estAt) < acceptPatience || p.Len*5 < c.MSS(s)*4
}

// release counts repetitions held back as lost after all: the listener had the connection.
func (t *Table) release(c *Conn, s Side, x *trouble, path *Path, at capture.Instant) {
	if x.held == 0 {
		return
	}
	n := x.held
	x.held = 0
	// With SYN cookies no SYN-ACK comes again. Then only a soon recovery, or a segment so large that
	// it may be lost for its size, speaks for loss.
	if c.saTries > 0 || at.Sub(c.estAt) >= acceptPatience && x.heldLen*5 < c.MSS(s)*4 {
		return
	}
	x.Retransmits[Unaccepted] -= n
	x.Retransmits[RTO] += n
	first := x.firstTime(c.side[s].isn + 1)
	if first && path != nil {
		path.Side[c.dir(s)].again(x.heldIP, 1) // one segment, however often it came
	}
	if t.wants(Retransmit) {
		t.ev = Event{Kind: Retransmit, Conn: c, Side: s, At: at, Class: RTO, Proven: true, Flag: first, N: n, Try: x.again,
			Len: x.heldLen, IPLen: x.heldIP, Since: c.estAt, Dur: at.Sub(c.estAt)}
		t.send(&t.ev)
	}
}

// fill closes the holes that p covers, in part or whole, and tells lost data from reordered.
func (t *Table) fill(c *Conn, s Side, x *trouble, p *capture.Packet, at capture.Instant, path *Path, header, mss, end uint32) bool {
	filled := false
	for i := 0; i < int(x.n); i++ {
		h := &x.holes[i]
		if !before(p.Seq, h.to) || !before(h.from, end) {
			continue
		}
		filled = true
		from, to := h.from, h.to
		if before(from, p.Seq) {
			from = p.Seq
		}
		if before(end, to) {
			to = end
		}
		n := segments(to-from, mss)
		late := t.wasOvertaken(c, h, p, at)
		kind := HoleFilled
		if late {
			kind = Reordered
			x.Reordered += n
		} else {
			x.Filled += n
		}
		if path != nil {
			ps := &path.Side[c.dir(s)]
			if late {
				ps.Reordered += n
				eachSize(to-from, header, mss, ps.seen)
			} else if !h.counted {
				eachSize(to-from, header, mss, ps.missing)
			}
		}
		if t.wants(kind) {
			t.ev = Event{Kind: kind, Conn: c, Side: s, At: at, Len: to - from, N: n, Proven: true,
				IPLen: header + min(p.Len, mss), Since: h.at, Dur: at.Sub(max(h.at, x.lastFill)), Frame: p.Frame}
			t.send(&t.ev)
		}
		if !late {
			x.lastFill = at
		}
		switch {
		case from == h.from && to == h.to:
			x.holes[i] = x.holes[x.n-1]
			x.n--
			i--
		case from == h.from:
			h.from = to
		case to == h.to:
			h.to = from
		case x.n < maxHoles:
			x.holes[x.n] = *h
			x.holes[x.n].from = to
			x.n++
			h.to = from
		default:
			h.from = to // the list is full: the lower part is given up
		}
	}
	return filled
}

// wasOvertaken reports whether p was sent before the segment that opened h, so that the
// network only changed their order. The sender's clock tells best (TSval), then its IP-ID
// counter, then the time: a retransmission cannot come sooner than a round trip.
func (t *Table) wasOvertaken(c *Conn, h *hole, p *capture.Packet, at capture.Instant) bool {
	if h.hasTS && p.Opts&capture.OptTimestamps != 0 && h.ts != p.TSVal {
		return before(p.TSVal, h.ts)
	}
	if d := int16(p.IPID - h.id); p.IPID != 0 && h.id != 0 && d > -256 && d < 256 && d != 0 {
		return d < 0
	}
	limit := reorderLimit
	if c.HandshakeRTT != 0 {
		limit = c.HandshakeRTT
	}
	return at.Sub(h.at) < limit
}

// ackHoles closes the holes of side s below ack: the receiver has that data, so the
// capture lost it and not the network.
func (t *Table) ackHoles(c *Conn, s Side, ack uint32, at capture.Instant, path *Path) {
	x := &t.trouble(c).side[s]
	for i := 0; i < int(x.n); i++ {
		h := &x.holes[i]
		if !before(h.from, ack) {
			h.asked = h.asked || h.from == ack
			continue
		}
		to := h.to
		if before(ack, to) {
			to = ack
		}
		t.captureLost(c, s, to-h.from, at, path)
		if to == h.to {
			x.holes[i] = x.holes[x.n-1]
			x.n--
			i--
		} else {
			h.from = to
		}
	}
}

func (t *Table) captureLost(c *Conn, s Side, n uint32, at capture.Instant, path *Path) {
	n = c.flight(s, n)
	segs := segments(n, c.MSS(s))
	t.Stats.CaptureLost += uint64(segs)
	t.trouble(c).side[s].CaptureLost += segs
	if path != nil {
		path.Side[c.dir(s)].CaptureLost += segs
	}
	if t.wants(HoleAcked) {
		t.ev = Event{Kind: HoleAcked, Conn: c, Side: s, At: at, Len: n, N: segs}
		t.send(&t.ev)
	}
}

// holeMSS is the MSS of s for segments that were not seen, where the handshake that says it was not seen either.
func (c *Conn) holeMSS(s Side, path *Path) uint32 {
	m := c.MSS(s)
	if path == nil || c.side[s.Other()].mss != 0 {
		return m
	}
	return max(m, uint32(path.Side[c.dir(s)].full))
}

// countStalled counts the segments of holes that are older than age as missing on the path,
// once. Their sizes are inferred: whole segments of the sender's MSS and a rest.
func (t *Table) countStalled(c *Conn, tr *Trouble, s Side, now capture.Instant, age capture.Instant) {
	x := &tr.side[s]
	path := t.Path(c)
	mss := c.holeMSS(s, path)
	asked := false
	for i := range x.holes[:x.n] {
		asked = asked || x.holes[i].asked // of the lowest; what lies above cannot be asked for yet
	}
	for i := range x.holes[:x.n] {
		h := &x.holes[i]
		if !asked || h.counted || now-h.at < age {
			continue
		}
		h.counted = true
		lost := c.flight(s, h.to-h.from)
		x.Missing += segments(lost, mss)
		// What came from a side that never sees an acknowledgement may be the capture's fault.
		if path != nil && !c.OneWay() {
			t.enter(path)
			eachSize(lost, headerOf(c), mss, path.Side[c.dir(s)].missing)
		}
		if t.wants(HoleLost) {
			t.ev = Event{Kind: HoleLost, Conn: c, Side: s, At: now, Since: h.at, Dur: now.Sub(h.at), Len: lost, N: segments(lost, mss)}
			t.send(&t.ev)
		}
	}
}

// headerOf is the usual length of IP and TCP headers on c, for segments that were not seen.
func headerOf(c *Conn) uint32 {
	n := uint32(20 + 20)
	if a := c.Client.Addr; !a.Netip().Is4() {
		n = 40 + 20
	}
	if c.side[0].flags&c.side[1].flags&tsSeen != 0 {
		n += tsOption
	}
	return n
}
