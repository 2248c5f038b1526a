package view

import (
	"cmp"
	"slices"
	"time"

	"jindan/capture"
)

const (
	// MaxSegments bounds the segments of an example: more than a picture of 900 points can tell apart.
	MaxSegments = 400
	// leading segments show how the connection began, ahead those right before its trouble.
	leading = 16
	ahead   = 64
)

// Tracer takes the segments of the examples from a second reading of the same observations.
type Tracer struct {
	view  *View
	of    map[[2]capture.Endpoint][]int
	marks []marks
	until capture.Instant
	// spans are the times of the connections, in order and apart from one another; hashed are the low bits of their hashes.
	spans  [][2]capture.Instant
	hashed [hashedSlots]bool
}

// hashedSlots is how many values of the low bits of a hash are told apart: of the packets of other connections, hardly any is
// looked up.
const hashedSlots = 1 << 12

// reassembly is how long before the first packet of a connection its first fragment may have come.
const reassembly = capture.Instant(time.Second)

// marks are what is known of both senders of an example.
type marks struct {
	base  [2]uint32 // sequence number of the first byte
	known [2]bool
	next  [2]int64
	syn   [2]bool   // its SYN was seen
	shift [2]uint8  // window scale that its SYN offered, plus 1; 0: none
	near  []Segment // before the trouble: the newest
}

// NewTracer returns a Tracer for the connections of v.
func NewTracer(v *View) *Tracer {
	t := &Tracer{view: v, of: map[[2]capture.Endpoint][]int{}, marks: make([]marks, len(v.Connections))}
	for i := range v.Connections {
		c := &v.Connections[i]
		c.Segments, c.Left = nil, 0
		t.of[c.ends] = append(t.of[c.ends], i)
		t.until = max(t.until, c.until)
		t.spans = append(t.spans, [2]capture.Instant{c.First - reassembly, c.Last})
		t.hashed[capture.FlowHash(&c.ends[0], &c.ends[1])%hashedSlots] = true
	}
	slices.SortFunc(t.spans, func(a, b [2]capture.Instant) int { return cmp.Compare(a[0], b[0]) })
	n := 0
	for _, s := range t.spans {
		if n > 0 && s[0] <= t.spans[n-1][1] {
			t.spans[n-1][1] = max(t.spans[n-1][1], s[1])
		} else {
			t.spans[n] = s
			n++
		}
	}
	t.spans = t.spans[:n]
	return t
}

// Done reports whether what comes after at is of no use.
func (t *Tracer) Done(at capture.Instant) bool { return len(t.of) == 0 || at > t.until }

// Wants reports whether it must see what was captured at at: what may belong to an example, and what says that nothing more does.
// It may be called beside all else.
func (t *Tracer) Wants(at capture.Instant) bool {
	for i := range t.spans {
		if at < t.spans[i][0] {
			break
		}
		if at <= t.spans[i][1] {
			return true
		}
	}
	return at > t.until
}

// Packet takes a packet.
func (t *Tracer) Packet(at capture.Instant, p *capture.Packet) {
	if p.Proto != capture.ProtoTCP {
		return
	}
	h := p.Hash
	if h == 0 {
		h = capture.FlowHash(&p.Src, &p.Dst)
	}
	if !t.hashed[h%hashedSlots] {
		return
	}
	server := false
	all := t.of[[2]capture.Endpoint{p.Src, p.Dst}]
	if all == nil {
		if all = t.of[[2]capture.Endpoint{p.Dst, p.Src}]; all == nil {
			return
		}
		server = true
	}
	for _, i := range all {
		c := &t.view.Connections[i]
		if at < c.First || at > c.Last {
			continue
		}
		t.keep(c, &t.marks[i], t.segment(&t.marks[i], at, p, server))
	}
}

// segment makes numbers of a segment that begin with the stream.
func (t *Tracer) segment(m *marks, at capture.Instant, p *capture.Packet, server bool) Segment {
	s, o := 0, 1
	if server {
		s, o = 1, 0
	}
	first := p.Seq
	if p.Flags&capture.SYN != 0 {
		first++
	}
	if !m.known[s] || p.Flags&capture.SYN != 0 && m.next[s] == 0 {
		m.known[s], m.base[s] = true, first
	}
	g := Segment{At: at, Frame: p.Frame, Server: server, Flags: p.Flags, Len: p.Len, Ack: -1, Window: m.window(s, p)}
	g.Seq = int64(int32(first - m.base[s]))
	end := g.Seq + int64(p.Len)
	if p.Len > 0 {
		g.Again, g.Fills = end <= m.next[s], end <= m.next[s]
		m.next[s] = max(m.next[s], end)
	}
	if p.Flags&capture.ACK != 0 {
		if !m.known[o] {
			m.known[o], m.base[o] = true, p.Ack
		}
		g.Ack = int64(int32(p.Ack - m.base[o]))
		for _, k := range p.SACK[:min(int(p.SACKs), len(p.SACK))] {
			g.SACK = append(g.SACK, [2]int64{int64(int32(k[0] - m.base[o])), int64(int32(k[1] - m.base[o]))})
		}
	}
	return g
}

// window is what the sender of a segment takes, in bytes. Windows are scaled if both sides have offered it, those of SYNs never are
// (RFC 7323 §2.2).
func (m *marks) window(s int, p *capture.Packet) int64 {
	switch {
	case p.Flags&capture.SYN != 0:
		m.syn[s], m.shift[s] = true, 0
		if p.Opts&capture.OptWScale != 0 {
			m.shift[s] = min(p.WScale, 14) + 1
		}
	case !m.syn[0] || !m.syn[1]:
		return -1
	case m.shift[0] > 0 && m.shift[1] > 0:
		return int64(p.Window) << (m.shift[s] - 1)
	}
	return int64(p.Window)
}

// keep keeps the beginning, what is near the trouble, and what follows it.
func (t *Tracer) keep(c *Connection, m *marks, g Segment) {
	g.Fills = g.Fills && t.missing(c, m, &g)
	switch {
	case len(c.Segments) < leading:
		c.Segments = append(c.Segments, g)
	case g.At < c.Trouble:
		if len(m.near) == ahead {
			m.near = slices.Delete(m.near, 0, 1)
			c.Left++
		}
		m.near = append(m.near, g)
	default:
		c.Segments = append(c.Segments, m.near...)
		m.near = m.near[:0]
		if len(c.Segments) >= MaxSegments {
			c.Left++
			return
		}
		c.Segments = append(c.Segments, g)
	}
}

// missing reports whether what a segment brings was not among the kept segments of its sender: it fills a gap, it is no repetition
// of what was seen.
func (t *Tracer) missing(c *Connection, m *marks, g *Segment) bool {
	for _, all := range [][]Segment{c.Segments, m.near} {
		for i := range all {
			if k := &all[i]; k.Server == g.Server && k.Len > 0 && k.Seq < g.Seq+int64(g.Len) && g.Seq < k.Seq+int64(k.Len) {
				return false
			}
		}
	}
	return c.Left == 0
}
