package flow

import (
	"slices"
	"time"

	"jindan/capture"
)

// Defaults of Options.
const (
	// DefaultMaxConns bounds the flow table: at 352 bytes a connection, and 744
	// more for those with losses, 500,000 stay under 300 MB.
	DefaultMaxConns = 500_000
	// DefaultMaxPaths bounds the host pairs, at 224 bytes each, and 768 more for a direction in which segments are counted.
	DefaultMaxPaths = 32_768
)

// Options of a Table. The zero value keeps the defaults.
type Options struct {
	MaxConns int
	MaxPaths int
	// KeepClosed keeps closed connections until the table is full, as `flows` wants it.
	KeepClosed bool
	// Wireshark also computes Wireshark's tcp.analysis counts.
	Wireshark bool
	// Story also tells the story of each connection, which allocates.
	Story bool
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
	Data         uint64 // segments with data
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
	OutOfWindow  uint64 // segments and acknowledgements with a number that no window can contain
}

// Table tracks all connections. It is not safe for concurrent use.
type Table struct {
	o        Options
	slots    []slot
	conns    slab[Conn]
	ws       [][]wiresharkConn // parallel to conns, when asked for
	stories  [][]Story         // likewise
	tr       slab[Trouble]
	paths    slab[Path]
	pairs    map[[2]capture.Addr]uint32
	services numbers[capture.Endpoint] // listeners
	sided    []sided                   // connections that left the table, by number of their listener
	dropped  [][2]capture.Instant      // the last two handshakes whose ends a listener dropped, by its number
	holed    []uint32                  // troubles that may have open holes
	// writing are connections in the middle of a write, at the last packet of a side.
	writing []Ref
	// active are the paths touched since the last seal, in order of first touch, and what they had counted by then.
	active []uint32
	before slab[Before]
	copies copyTable
	// The clock of the input was set back by back at the event time restated.
	restated capture.Instant
	restates int
	back     time.Duration
	asks     asks
	callers  callers
	unsent   [unsentSlots]uint64 // SYNs that Unreached has told of, by hash
	dns      dnsTable
	Stats    Stats
	ev       Event
	live     int
	win      uint32
	now      capture.Instant // newest time seen
	// fetched keeps the reads of Prefetch from being optimised away.
	fetched uint32
}

// CaptureLossShare estimates which share of the packets the capture has missed: of the segments with
// data, for those without leave no gap.
func (s *Stats) CaptureLossShare() float64 {
	if s.CaptureLost == 0 {
		return 0
	}
	return float64(s.CaptureLost) / float64(s.Data+s.CaptureLost)
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
	t := &Table{o: o, slots: make([]slot, 1<<12), pairs: make(map[[2]capture.Addr]uint32), win: 1}
	t.copies.init()
	t.dns.init(&t.o)
	return t
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
	var old older
	beside := c != nil && c.challenges > 0 && t.ofOlder(c, s, p)
	if c != nil && (renews(c, s, p) && !c.begunBy(s, p, at) || beside && c.givenUp(at)) {
		old = c.older(s, p)
		t.drop(c, at)
		c, beside = nil, false
	}
	if c == nil {
		if c, s = t.begin(h, p, at); c == nil {
			t.Stats.RefusedConns++
			return
		}
		if old.open {
			t.trouble(c).older = old
		}
	}
	if t.o.Wireshark {
		t.wireshark(c.index).observe(p, at, s)
	}
	if beside {
		return
	}
	if t.o.Story {
		t.story(c.index).observe(c, s, p, at)
	}
	t.segment(c, s, p, at)
	if len(p.Data) > 0 {
		t.dns.observe(p, at, t.send)
	}
}

// renews reports whether p opens a new connection on the 5-tuple of c: a SYN with another
// initial sequence number than the one that c began with, or, where the capture lacks that, the
// SYN-ACK to it.
func renews(c *Conn, s Side, p *capture.Packet) bool {
	if p.Flags&capture.SYN == 0 {
		return false
	}
	d := &c.side[s]
	if p.Flags&capture.ACK != 0 {
		if s != Server || d.flags&synSeen == 0 || d.isn == p.Seq {
			return false
		}
		// A second answer to the same SYN has another number if both are SYN cookies.
		o := &c.side[s.Other()]
		return o.flags&synSeen == 0 || p.Ack != o.isn+1
	}
	if d.flags&(synSeen|known) == 0 {
		// Only the other side has spoken so far: a SYN now is a new start unless that
		// was its SYN-ACK.
		return c.ClientBy != BySYNACK && c.side[s.Other()].flags&synSeen == 0
	}
	return d.isn != p.Seq
}

// begunBy reports whether p is the SYN that began c, out of order in the capture: older than all that was seen of c,
// by no more than disorder, and with the number before that of its data.
func (c *Conn) begunBy(s Side, p *capture.Packet, at capture.Instant) bool {
	d := &c.side[s]
	return at < c.First && c.First.Sub(at) < disorder && s == Client && c.ClientBy == ByPort && p.Flags&capture.ACK == 0 &&
		(d.flags&known == 0 || within32(p.Seq+1, d.next, c.reach(s)))
}

// begin makes a record for the connection that p begins.
func (t *Table) begin(h uint32, p *capture.Packet, at capture.Instant) (*Conn, Side) {
	if t.size() >= t.o.MaxConns+t.o.MaxConns/4 {
		return nil, 0
	}
	i, c := t.conns.alloc()
	if t.o.Wireshark {
		if int(i) >= len(t.ws)*chunkLen {
			t.ws = append(t.ws, make([]wiresharkConn, chunkLen))
		}
		*t.wireshark(i) = wiresharkConn{}
	}
	if t.o.Story {
		if int(i) >= len(t.stories)*chunkLen {
			t.stories = append(t.stories, make([]Story, chunkLen))
		}
		*t.story(i) = Story{}
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
	c.First, c.Last, c.index, c.inUse, c.firstSeen = at, at, i, true, p.Frame
	c.Stream = uint32(t.Stats.Conns)
	t.Stats.Conns++
	t.insert(h, i)
	t.attachPath(c, at)
	c.service = t.services.get(c.Server, t.win)
	t.event(ConnNew, c, s, at)
	if c.ClientBy == BySYNACK && t.wants(SynAckElsewhere) {
		t.elsewhere(c, p, at)
	}
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
	t.enter(p)
	p.Conns++
	p.live++
	c.path = i + 1
	if c.Client.Addr != p.A {
		c.aSide = Server
	}
}

// Prepare makes room for connections to come. It may run beside all else but Restock.
func (t *Table) Prepare() { t.conns.prepare() }

// Restock takes the room that was prepared.
func (t *Table) Restock() { t.conns.restock() }

// Path returns the host pair of c, nil if the path table was full.
func (t *Table) Path(c *Conn) *Path {
	if c == nil || c.path == 0 {
		return nil
	}
	return t.paths.at(c.path - 1)
}

func (t *Table) touch(p *Path, at capture.Instant) {
	t.enter(p)
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

// Place is the place of the connection in the table, a small number. When it has left, another may have it.
func (r Ref) Place() int { return int(r.index) }

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
	if e.DNS != nil && group(&e.DNS.Server.Addr) {
		return // a question to everybody that nobody answers is no failure
	}
	if t.wants(e.Kind) {
		if p := t.Path(e.Conn); p != nil {
			e.Path = &p.Pair
		}
		t.o.Emit(e)
	}
}
