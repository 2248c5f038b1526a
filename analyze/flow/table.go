package flow

import (
	"slices"
	"time"

	"jindan/capture"
)

// Defaults of Options.
const (
	// DefaultMaxConns bounds the flow table: at about 330 bytes a connection, and as much
	// again for those with losses, 500,000 stay under 300 MB.
	DefaultMaxConns = 500_000
	// DefaultMaxPaths bounds the host pairs, at about 1.1 kB each.
	DefaultMaxPaths = 32_768
	// closedLinger is how long a closed connection stays, so that its late packets are not taken for
	// a new one: 2 MSL as Linux has it (TCP_TIMEWAIT_LEN, include/net/tcp.h).
	closedLinger = 60 * time.Second
	// sweepEvery is how many seals pass between sweeps for closed connections.
	sweepEvery = 16
	// stallAge is how long a hole stays open before its segments count as missing although
	// nothing has filled it: more than two time-outs of TCP_RTO_MIN 200 ms with back-off
	// (0.2 + 0.4 s), so that at least one retransmission was lost, too.
	stallAge = capture.Instant(time.Second)
)

// Options of a Table. The zero value keeps the defaults.
type Options struct {
	MaxConns int
	MaxPaths int
	// KeepClosed keeps closed connections until the table is full, as `flows` wants it.
	KeepClosed bool
	// Wireshark also computes Wireshark's tcp.analysis counts.
	Wireshark bool
	// Mask and Emit: which events to report, and to whom.
	Mask Mask
	Emit func(*Event)
	// Row is called once for each connection that leaves the table, with its loss record (nil
	// if it had none) and Wireshark's counts (nil unless asked for).
	Row func(*Conn, *Trouble, *WiresharkCounts)
	// DNSRow is called once for each finished DNS message pair.
	DNSRow func(*DNS)
}

// Stats are the table's own counters: what its caps turned away, and what the capture lacks.
type Stats struct {
	Packets      uint64 // TCP segments
	Conns        uint64
	MidStream    uint64 // connections whose SYN and SYN-ACK were not seen
	OneWay       uint64 // connections that left the table and of which one side only was seen
	Copies       uint64 // packets captured twice
	CaptureLost  uint64 // segments acknowledged but never seen
	Backward     uint64 // packets older than the one before them in their connection
	Evicted      uint64 // connections dropped while open because the table was full
	RefusedConns uint64 // packets of connections that found the table full
	RefusedPaths uint64 // connections that found the path table full
	SuperPackets uint64 // packets that stand for several segments (GRO, TSO)
	MergedHoles  uint64 // holes merged because a sender had more than maxHoles open
}

const chunkLen = 1024 // records per slab chunk: pointers stay valid while the slab grows

type slab[T any] struct {
	chunks [][]T
	free   []uint32
	n      uint32
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/chunkLen][i%chunkLen] }

// alloc returns a zeroed record.
func (s *slab[T]) alloc() (uint32, *T) {
	if k := len(s.free); k > 0 {
		i := s.free[k-1]
		s.free = s.free[:k-1]
		p := s.at(i)
		*p = *new(T)
		return i, p
	}
	if int(s.n) == len(s.chunks)*chunkLen {
		s.chunks = append(s.chunks, make([]T, chunkLen))
	}
	s.n++
	return s.n - 1, s.at(s.n - 1)
}

func (s *slab[T]) release(i uint32) { s.free = append(s.free, i) }

// slot of the hash index: tag and index+1; 0 is empty.
type slot struct{ tag, ref uint32 }

// Table tracks all connections. It is not safe for concurrent use.
type Table struct {
	o     Options
	slots []slot
	conns slab[Conn]
	ws    [][]wiresharkConn // parallel to conns, when asked for
	tr    slab[Trouble]
	paths slab[Path]
	pairs map[[2]capture.Addr]uint32
	// services numbers the listeners from 1, so that detectors need no map to find theirs.
	services map[capture.Endpoint]uint32
	holed    []uint32 // troubles that may have open holes
	// writing are connections in the middle of a write, at the last packet of a side.
	writing []Ref
	// active are the paths touched since the last seal, in order of first touch.
	active []uint32
	copies copyTable
	dns    dnsTable
	Stats  Stats
	ev     Event
	live   int
	win    uint32
	now    capture.Instant // newest time seen
	// fetched keeps the reads of Prefetch from being optimised away.
	fetched uint32
}

// New returns an empty table.
func New(o Options) *Table {
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.MaxPaths <= 0 {
		o.MaxPaths = DefaultMaxPaths
	}
	if o.Emit == nil {
		o.Emit, o.Mask = func(*Event) {}, 0
	}
	t := &Table{o: o, slots: make([]slot, 1<<12), pairs: make(map[[2]capture.Addr]uint32),
		services: make(map[capture.Endpoint]uint32), win: 1}
	t.copies.init()
	t.dns.init(&t.o)
	return t
}

// find returns the connection between the packet's endpoints, or nil.
func (t *Table) find(h uint32, p *capture.Packet) (*Conn, Side) {
	mask := uint32(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s.ref == 0 {
			return nil, 0
		}
		if s.tag != h {
			continue
		}
		c := t.conns.at(s.ref - 1)
		if c.Client == p.Src && c.Server == p.Dst {
			return c, Client
		}
		if c.Server == p.Src && c.Client == p.Dst {
			return c, Server
		}
	}
}

func (t *Table) insert(h, ref uint32) {
	if (t.live+1)*8 > len(t.slots)*5 {
		old := t.slots
		t.slots = make([]slot, len(old)*2)
		for _, s := range old {
			if s.ref != 0 {
				t.place(s)
			}
		}
	}
	t.place(slot{h, ref + 1})
	t.live++
}

func (t *Table) place(s slot) {
	mask := uint32(len(t.slots) - 1)
	i := s.tag & mask
	for t.slots[i].ref != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove takes a record out of the index; later entries of the run move up.
func (t *Table) remove(c *Conn) {
	mask := uint32(len(t.slots) - 1)
	i := capture.FlowHash(&c.Client, &c.Server) & mask
	for t.slots[i].ref != c.index+1 {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; t.slots[j].ref != 0; j = (j + 1) & mask {
		home := t.slots[j].tag & mask
		if (j-home)&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = slot{}
	t.live--
}

// prefetchLen is how many packets Prefetch looks at: their records fit the first-level cache.
const prefetchLen = 64

// Prefetch reads the records of the connections that obs are about, so that the processor fetches
// them at the same time and not one after the other when Observe comes to them. It
// changes nothing, and returns how many observations it looked at.
func (t *Table) Prefetch(obs []capture.Observation) int {
	n := min(len(obs), prefetchLen)
	mask := uint32(len(t.slots) - 1)
	var refs [prefetchLen]uint32
	var sum uint32
	for i := range obs[:n] {
		if h := obs[i].Packet.Hash; h != 0 {
			refs[i] = t.slots[h&mask].ref
			sum += t.copies.entries[copySlot(obs[i].Packet.Ident)].sum
		}
	}
	for _, ref := range refs[:n] {
		if ref == 0 {
			continue
		}
		c := t.conns.at(ref - 1)
		// One field of each cache line.
		sum += uint32(c.Client.Port) + uint32(c.Last) + c.side[0].next + c.side[0].dataPk + c.side[1].next + c.side[1].dataPk + c.Stream
		if c.path != 0 {
			p := t.paths.at(c.path - 1)
			sum += p.win + p.Side[0].Segments + p.Side[1].Segments
		}
	}
	t.fetched = sum
	return n
}

// Observe takes one observation; those that are no packets are ignored.
func (t *Table) Observe(o *capture.Observation) {
	if o.Kind != capture.KindPacket {
		return
	}
	t.now = max(t.now, o.At)
	p := &o.Packet
	switch p.Proto {
	case capture.ProtoTCP:
		t.tcp(p, o.At)
	case capture.ProtoUDP:
		if len(p.Data) > 0 {
			t.dns.observe(p, o.At, t.send)
		}
	case capture.ProtoICMP, capture.ProtoICMPv6:
		t.icmp(p, o.At)
	}
}

func (t *Table) tcp(p *capture.Packet, at capture.Instant) {
	t.Stats.Packets++
	h := p.Hash
	if h == 0 {
		h = capture.FlowHash(&p.Src, &p.Dst)
	}
	c, s := t.find(h, p)
	if c != nil && renews(c, s, p) {
		t.drop(c, at)
		c = nil
	}
	if c == nil {
		if c, s = t.begin(h, p, at); c == nil {
			t.Stats.RefusedConns++
			return
		}
	}
	if t.o.Wireshark {
		t.wireshark(c.index).observe(p, at, s)
	}
	t.segment(c, s, p, at)
	if len(p.Data) > 0 {
		t.dns.observe(p, at, t.send)
	}
}

// renews reports whether p opens a new connection on the 5-tuple of c: a SYN with another
// initial sequence number than the one that c began with.
func renews(c *Conn, s Side, p *capture.Packet) bool {
	if p.Flags&(capture.SYN|capture.ACK) != capture.SYN {
		return false
	}
	d := &c.side[s]
	if d.flags&(synSeen|known) == 0 {
		// Only the other side has spoken so far: a SYN now is a new start unless that
		// was its SYN-ACK.
		return c.ClientBy != BySYNACK && c.side[s.Other()].flags&synSeen == 0
	}
	return d.isn != p.Seq
}

// begin makes a record for the connection that p begins.
func (t *Table) begin(h uint32, p *capture.Packet, at capture.Instant) (*Conn, Side) {
	if t.live >= t.o.MaxConns+t.o.MaxConns/4 {
		return nil, 0
	}
	i, c := t.conns.alloc()
	if t.o.Wireshark {
		if int(i) >= len(t.ws)*chunkLen {
			t.ws = append(t.ws, make([]wiresharkConn, chunkLen))
		}
		*t.wireshark(i) = wiresharkConn{}
	}
	s := Client
	switch p.Flags & (capture.SYN | capture.ACK) {
	case capture.SYN:
		c.ClientBy = BySYN
	case capture.SYN | capture.ACK:
		c.ClientBy, s = BySYNACK, Server
	default:
		c.ClientBy = ByPort
		if p.Src.Port < p.Dst.Port {
			s = Server
		}
		t.Stats.MidStream++
	}
	c.Client, c.Server = p.Src, p.Dst
	if s == Server {
		c.Client, c.Server = p.Dst, p.Src
	}
	c.First, c.Last, c.index, c.inUse, c.firstSide, c.firstSeen = at, at, i, true, s, p.Frame
	c.Stream = uint32(t.Stats.Conns)
	t.Stats.Conns++
	t.insert(h, i)
	t.attachPath(c, at)
	c.service = t.service(c.Server)
	t.event(ConnNew, c, s, at)
	return c, s
}

// wireshark is the record beside connection i.
func (t *Table) wireshark(i uint32) *wiresharkConn { return &t.ws[i/chunkLen][i%chunkLen] }

func (t *Table) attachPath(c *Conn, at capture.Instant) {
	k := [2]capture.Addr{c.Client.Addr, c.Server.Addr}
	if slices.Compare(k[0][:], k[1][:]) > 0 {
		k[0], k[1] = k[1], k[0]
	}
	i, ok := t.pairs[k]
	if !ok {
		if len(t.pairs) >= t.o.MaxPaths {
			t.Stats.RefusedPaths++
			return // c.path 0: none
		}
		var p *Path
		i, p = t.paths.alloc()
		p.A, p.B, p.First, p.Last, p.Index, p.inUse = k[0], k[1], at, at, i, true
		t.pairs[k] = i
	}
	p := t.paths.at(i)
	p.Conns++
	p.live++
	c.path = i + 1
	if c.Client.Addr != p.A {
		c.aSide = Server
	}
}

// maxServices bounds the listeners that get a number. A scan brings more; what is beyond is not
// judged as a service.
const maxServices = 1 << 16

func (t *Table) service(e capture.Endpoint) uint32 {
	id, ok := t.services[e]
	if !ok && len(t.services) < maxServices {
		id = uint32(len(t.services) + 1)
		t.services[e] = id
	}
	return id
}

// Path returns the host pair of c, nil if the path table was full.
func (t *Table) Path(c *Conn) *Path {
	if c == nil || c.path == 0 {
		return nil
	}
	return t.paths.at(c.path - 1)
}

func (t *Table) touch(p *Path, at capture.Instant) {
	if p.win != t.win {
		p.win = t.win
		p.start = [2]uint32{p.Side[0].Segments, p.Side[1].Segments}
		t.active = append(t.active, p.Index)
	}
	if at > p.Last {
		p.Last = at
	}
}

// Active calls f for each path with segments since the last seal, in order of
// first touch.
func (t *Table) Active(f func(*Path)) {
	for _, i := range t.active {
		f(t.paths.at(i))
	}
}

// PathAt returns the path with that Index, nil if there is none any more.
func (t *Table) PathAt(i uint32) *Path {
	if i >= t.paths.n {
		return nil
	}
	if p := t.paths.at(i); p.inUse {
		return p
	}
	return nil
}

// Paths calls f for every path in the table, in slab order.
func (t *Table) Paths(f func(*Path)) {
	for i := range t.paths.n {
		if p := t.paths.at(i); p.inUse {
			f(p)
		}
	}
}

func (t *Table) trouble(c *Conn) *Trouble {
	if c.trouble == 0 {
		i, tr := t.tr.alloc()
		tr.conn = c.index
		c.trouble = i + 1
		return tr
	}
	return t.tr.at(c.trouble - 1)
}

// Ref names c for Lookup.
func (c *Conn) Ref() Ref { return Ref{c.index, c.Stream} }

// Ref is a reference to a connection that does not keep it in the table.
type Ref struct{ index, stream uint32 }

// Lookup returns the connection that r names, nil if it has left the table.
func (t *Table) Lookup(r Ref) *Conn {
	if r.index < t.conns.n {
		if c := t.conns.at(r.index); c.inUse && c.Stream == r.stream {
			return c
		}
	}
	return nil
}

// HasHole reports whether data of a side of c is missing at the moment.
func (t *Table) HasHole(c *Conn) bool {
	if c.trouble == 0 {
		return false
	}
	tr := t.tr.at(c.trouble - 1)
	return tr.side[0].n+tr.side[1].n > 0
}

// TroubleOf returns the loss record of c, nil if it has none.
func (t *Table) TroubleOf(c *Conn) *Trouble {
	if c.trouble == 0 {
		return nil
	}
	return t.tr.at(c.trouble - 1)
}

// Expire decides what the passing of time decides: holes that stay open, DNS queries that
// stay unanswered. The engine calls it at the end of each window, before the detectors judge.
func (t *Table) Expire(now capture.Instant) {
	t.dns.seal(now, t.send)
	keep := t.holed[:0]
	for _, i := range t.holed {
		tr := t.tr.at(i)
		c := t.conns.at(tr.conn)
		for s := range tr.side {
			t.countStalled(c, tr, Side(s), now, stallAge)
		}
		if tr.side[0].n+tr.side[1].n > 0 {
			keep = append(keep, i)
		} else {
			tr.open = false
		}
	}
	t.holed = keep
	t.checkWriters(now)
}

// Seal begins a new window: forgets which paths were active, and enforces the caps.
func (t *Table) Seal(now capture.Instant) {
	t.active = t.active[:0]
	t.win++
	if !t.o.KeepClosed && t.win%sweepEvery == 0 {
		t.sweep(now)
	}
	if t.live > t.o.MaxConns {
		t.evict(now)
	}
}

func (t *Table) sweep(now capture.Instant) {
	for i := range t.conns.n {
		c := t.conns.at(i)
		if c.inUse && c.closed && now.Sub(c.Last) > closedLinger {
			t.drop(c, now)
		}
	}
}

// evict brings the table down to 7/8 of its cap: closed connections first, then
// those longest silent.
func (t *Table) evict(now capture.Instant) {
	victims := make([]uint32, 0, t.live)
	for i := range t.conns.n {
		if t.conns.at(i).inUse {
			victims = append(victims, i)
		}
	}
	slices.SortFunc(victims, func(a, b uint32) int {
		x, y := t.conns.at(a), t.conns.at(b)
		if x.closed != y.closed {
			if x.closed {
				return -1
			}
			return 1
		}
		if x.Last != y.Last {
			return int(max(min(x.Last-y.Last, 1), -1))
		}
		return int(int64(x.Stream) - int64(y.Stream))
	})
	for _, i := range victims[:t.live-t.o.MaxConns*7/8] {
		c := t.conns.at(i)
		if !c.closed {
			t.Stats.Evicted++
		}
		t.drop(c, now)
	}
}

// drop ends a connection's record: closes what is open in it, hands out its row, frees it.
func (t *Table) drop(c *Conn, at capture.Instant) {
	t.finish(c, at, false)
	if c.OneWay() && c.IsEstablished() {
		t.Stats.OneWay++
	}
	if t.o.Row != nil {
		t.row(c)
	}
	t.remove(c)
	c.inUse = false
	if c.trouble != 0 {
		if t.tr.at(c.trouble - 1).open {
			i := slices.Index(t.holed, c.trouble-1)
			t.holed = slices.Delete(t.holed, i, i+1)
		}
		t.tr.release(c.trouble - 1)
	}
	if p := t.Path(c); p != nil {
		if p.live--; p.live == 0 && !t.o.KeepClosed && p.win != t.win && len(t.pairs) > t.o.MaxPaths/2 {
			delete(t.pairs, [2]capture.Addr{p.A, p.B})
			p.inUse = false
			t.paths.release(p.Index)
		}
	}
	t.conns.release(c.index)
}

func (t *Table) row(c *Conn) {
	var tr *Trouble
	if c.trouble != 0 {
		tr = t.tr.at(c.trouble - 1)
	}
	var w *WiresharkCounts
	if t.o.Wireshark {
		counts := t.wireshark(c.index).counts()
		w = &counts
	}
	t.o.Row(c, tr, w)
}

// End decides at the end of the input what only time would have decided. No packet may follow.
func (t *Table) End() { t.dns.close(t.now, t.send) }

// Close calls End and ends the run: every connection's row is handed out, in stream order, and
// connections that are still open stay "open" in it.
func (t *Table) Close() {
	t.End()
	if t.o.Row == nil {
		return
	}
	idx := make([]uint32, 0, t.live)
	for i := range t.conns.n {
		if t.conns.at(i).inUse {
			idx = append(idx, i)
		}
	}
	slices.SortFunc(idx, func(a, b uint32) int { return int(t.conns.at(a).Stream) - int(t.conns.at(b).Stream) })
	for _, i := range idx {
		t.row(t.conns.at(i))
	}
}

// Live calls f for every connection in the table, in slab order.
func (t *Table) Live(f func(*Conn)) {
	for i := range t.conns.n {
		if c := t.conns.at(i); c.inUse {
			f(c)
		}
	}
}

func (t *Table) wants(k Kind) bool { return t.o.Mask.Has(k) }

// event reports what needs no more detail.
func (t *Table) event(k Kind, c *Conn, s Side, at capture.Instant) {
	if t.wants(k) {
		t.ev = Event{Kind: k, Conn: c, Side: s, At: at}
		t.send(&t.ev)
	}
}

func (t *Table) send(e *Event) {
	if t.wants(e.Kind) {
		if e.Path == nil {
			e.Path = t.Path(e.Conn)
		}
		t.o.Emit(e)
	}
}
