package points

import (
	"math"
	"slices"

	"jindan/capture"
)

// Options of an Analysis.
type Options struct {
	// Before is that of the Alignment.
	Before [MaxPoints][MaxPoints]int8
	// Row, if there is one, is called for each connection at its end.
	Row func(*Row)
}

// Analysis compares what points saw. It takes their packets in the order of aligned time.
type Analysis struct {
	o      Options
	report *Report
	limit  [MaxPoints]capture.Instant // until then a point would have shown what passed it

	flows     map[flowKey]flowRef
	cached    flowRef
	cachedKey flowKey
	convs     []*conv
	free      []uint32
	openings  openings // SYNs
	asked     openings // datagrams
	services  map[service]*asked
	orders    map[service][MaxPoints * (MaxPoints - 1) / 2]int8 // see known

	recs       []record
	buckets    []uint32
	head, tail uint32
	now, swept capture.Instant

	edges  [MaxPoints][MaxPoints]*Edge
	clocks [MaxPoints][MaxPoints]*envelope
	legs   []leg
}

// New begins to compare points, in the order in which packets pass them as far as that is known.
func New(pts []Point, o Options) *Analysis {
	a := &Analysis{o: o, report: &Report{Points: pts, At: make([]At, len(pts)), Members: make(map[capture.Endpoint]capture.Endpoint)}, flows: make(map[flowKey]flowRef), services: make(map[service]*asked),
		orders: make(map[service][MaxPoints * (MaxPoints - 1) / 2]int8)}
	a.recs, a.buckets = make([]record, 1<<12), make([]uint32, 1<<12)
	a.head, a.tail = 1, 1
	last := capture.Instant(math.MinInt64)
	for _, p := range pts {
		last = max(last, p.Last)
	}
	for i, p := range pts {
		if a.limit[i] = p.Until; last.Sub(p.Until) > ends {
			a.limit[i] -= capture.Instant(ends)
		}
	}
	return a
}

// covers reports whether a point would have shown what passed it at a time.
func (a *Analysis) covers(pt int, at capture.Instant) bool {
	return at >= a.report.Points[pt].First && at <= a.limit[pt]
}

// Observe takes what a point saw.
func (a *Analysis) Observe(pt int, o *capture.Observation) {
	at := o.At
	if o.Kind == capture.KindLoss {
		if o.Reason == capture.LossKernelDrop {
			a.report.At[pt].Dropped += o.Lost
		}
		return
	}
	p := &o.Packet
	if o.Kind != capture.KindPacket {
		return
	}
	if a.now = max(a.now, at); a.now.Sub(a.swept) > horizon/2 {
		a.sweep()
	}
	for a.tail != a.head && a.now.Sub(a.rec(a.tail).at) > horizon {
		a.retire()
	}
	w := &a.report.At[pt]
	w.Packets++
	if p.Proto != capture.ProtoTCP && p.Proto != capture.ProtoUDP {
		return
	}
	c, id, dir := a.lookup(pt, p, at)
	if c == nil {
		return
	}
	c.first, c.last = min(c.first, at), max(c.last, at)
	if c.pts>>pt&1 == 0 {
		w.Conns++
	}
	c.pts |= 1 << pt
	c.dirPts[dir] |= 1 << pt
	c.seen[dir][pt]++
	if c.ttl[dir][pt] == 0 && p.Flags&capture.RST == 0 {
		c.ttl[dir][pt] = p.TTL
	}
	if dir == 1 && c.answerAt == 0 {
		c.answerAt = at
	}
	u := unit{size: p.IPLen, id: p.IPID, flags: p.Flags, ttl: p.TTL, kind: datagram}
	if p.Proto == capture.ProtoUDP {
		d := digest(p.Data)
		u.seq, u.extra = uint32(d)^p.Len, uint32(d>>32)
		a.place(c, id, dir, pt, u, at)
		return
	}
	a.segment(c, id, dir, pt, p, u, at)
}

// segment takes a TCP segment.
func (a *Analysis) segment(c *conv, id uint32, dir, pt int, p *capture.Packet, u unit, at capture.Instant) {
	if p.Flags&capture.SYN != 0 {
		if c.opened(dir, pt, p); dir == 0 {
			c.synAt = at
		}
	}
	if p.Flags&(capture.FIN|capture.RST) != 0 {
		c.closed = true
	}
	u.seq, u.n, u.kind = c.rel(dir, pt, p.Seq), p.Len, data
	if p.Flags&capture.SYN != 0 {
		u.n++
	}
	if p.Flags&capture.FIN != 0 {
		u.n++
	}
	u.stamp, u.cut = p.TSVal, p.Opts&capture.OptCut != 0
	acks := p.Flags&(capture.ACK|capture.RST) == capture.ACK
	var ack uint32
	if acks {
		if c.hasBase[1-dir] == 0 && c.hasSyn[dir]>>pt&1 != 0 && p.Seq == c.base[dir][pt]+1 {
			c.rel(1-dir, pt, p.Ack-1) // it ends the handshake (RFC 9293 §3.5), the answer to which nobody has shown yet
		}
		ack = c.rel(1-dir, pt, p.Ack)
	}
	switch {
	case p.Flags&capture.RST != 0:
		u.kind, u.n = reset, 0
		u.extra = p.Ack
		if c.rewritten {
			u.extra = 0
		}
	case u.n == 0:
		u.kind = bare
		u.extra = ack*0x9e3779b1 ^ uint32(p.Window)
		if p.Opts&capture.OptSACK != 0 {
			u.stamp ^= (p.SACK[0][1] - p.Ack) * 0x85ebca6b
		}
	case p.Len > c.unit[dir]+joinedOver && p.IPLen > frame:
		u.joined = true
		if c.unit[dir] == 0 {
			c.unit[dir] = frame - (p.IPLen - p.Len)
		}
	}
	if p.Len > 0 {
		a.answers(c, dir, pt, at)
	}
	if u.kind == data && acks {
		u.extra = ack // see rejected
	}
	u.dsack = acks && p.Opts&capture.OptSACK != 0 && int32(p.SACK[0][0]-p.Ack) < 0 // RFC 2883 §4
	if no := a.place(c, id, dir, pt, u, at); u.kind == reset && !slices.Contains(c.resets[dir], no) {
		if len(c.resets[dir]) == maxResets {
			c.resets[dir] = slices.Delete(c.resets[dir], 0, 1)
		}
		c.resets[dir] = append(c.resets[dir], no)
	}
	if acks {
		r := 1 - dir
		if !c.hasAcked[r] || int32(ack-c.acked[r]) > 0 {
			c.acked[r], c.hasAcked[r] = ack, true
		}
		if p.Opts&capture.OptSACK != 0 {
			c.sackAt[r] = at
		}
	}
}

const (
	// frame is the longest IP packet that Ethernet carries, unless jumbo frames were agreed on (RFC 894); what is longer was joined or is
	// yet to be cut by a network card.
	frame = 1500
	// joinedOver is how much longer than a full segment one may be for want of an option: 40 bytes of them (RFC 9293 §3.1).
	joinedOver = 40
)

// maxResets is how many RSTs of a direction of a connection are remembered.
const maxResets = 16

// answers times how long a request waits for its answer at a point.
func (a *Analysis) answers(c *conv, dir, pt int, at capture.Instant) {
	if dir == 0 {
		c.asked[pt] = at
		c.waiting |= 1 << pt
	} else if c.waiting>>pt&1 != 0 {
		c.waiting &^= 1 << pt
		a.report.At[pt].Answers.add(at, at.Sub(c.asked[pt]).Seconds())
	}
}

// sweep forgets connections that are over.
func (a *Analysis) sweep() {
	a.swept = a.now
	for i, c := range a.convs {
		if c == nil {
			continue
		}
		silent := a.now.Sub(c.last)
		if silent > idle || c.closed && silent > closing || c.proto == capture.ProtoUDP && silent > closing {
			a.finish(uint32(i), c)
		}
	}
}

// finish ends a connection, all records of which are judged.
func (a *Analysis) finish(id uint32, c *conv) {
	for _, k := range c.keys {
		if a.flows[k].conv == id {
			delete(a.flows, k)
		}
	}
	a.cachedKey = flowKey{}
	a.conclude(c)
	a.convs[id] = nil
	a.free = append(a.free, id)
}

// Close judges what is left and returns what was found.
func (a *Analysis) Close() *Report {
	for a.tail != a.head {
		a.retire()
	}
	for i, c := range a.convs {
		if c != nil {
			a.finish(uint32(i), c)
		}
	}
	a.unheard()
	return a.sum()
}

// Times keeps some of many durations, the same ones whenever the packets are the same: each of them at first, then every second, every
// fourth, and so on.
type Times struct {
	step, n int
	most    float64 // s
	kept    []timed
}

type timed struct {
	at   capture.Instant
	took float64 // s
}

// maxTimes is how many durations are kept.
const maxTimes = 4096

func (t *Times) add(at capture.Instant, took float64) {
	if t.step == 0 {
		t.step = 1
	}
	t.most = max(t.most, took)
	if t.n++; t.n%t.step != 0 {
		return
	}
	t.kept = append(t.kept, timed{at, took})
	if len(t.kept) == maxTimes {
		for i := range maxTimes / 2 {
			t.kept[i] = t.kept[2*i+1]
		}
		t.kept = t.kept[:maxTimes/2]
		t.step *= 2
	}
}

// N is how many there were.
func (t *Times) N() int { return t.n }

// Quantile is the duration that a share of them does not exceed, in seconds, less what off says of its time.
func (t *Times) Quantile(q float64) float64 { return quantile(t.kept, q) }

func quantile(kept []timed, q float64) float64 {
	if len(kept) == 0 {
		return 0
	}
	v := make([]float64, len(kept))
	for i, k := range kept {
		v[i] = k.took
	}
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}
