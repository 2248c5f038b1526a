package points

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"jindan/capture"
)

// path is a way through points, for tests: what is sent at its ends passes all of them, but for what loses, delays and misses it.
type path struct {
	random *rand.Rand
	seen   [][]capture.Observation
	hop    time.Duration                                    // between two points, one way
	more   func() time.Duration                             // beside it
	lose   func(seg int, back bool, p *capture.Packet) bool // between points seg and seg+1
	slow   func(seg int, back bool) time.Duration
	miss   func(point int) bool
	clock  func(point int, at capture.Instant) capture.Instant
	again  time.Duration // after which what was lost is sent again
	nat    int           // from this point on the server has another address; 0: nowhere
	v6     bool
	at     capture.Instant
	id     uint16
	lost   map[[2]int]int
}

func newPath(points int) *path {
	return &path{random: rand.New(rand.NewPCG(1, 2)), seen: make([][]capture.Observation, points), hop: 50 * time.Microsecond, again: 200 * time.Millisecond,
		at: 1e18, lost: map[[2]int]int{}}
}

var (
	clientAddr = capture.AddrFrom(netip.MustParseAddr("192.0.2.7"))
	serverAddr = capture.AddrFrom(netip.MustParseAddr("198.51.100.9"))
	hiddenAddr = capture.AddrFrom(netip.MustParseAddr("10.0.0.9"))
)

// send lets a packet go its way, and reports whether it arrived, and when.
func (x *path) send(p capture.Packet, back bool, at capture.Instant) (capture.Instant, bool) {
	n := len(x.seen)
	x.id++
	p.IPID, p.TTL, p.Proto = x.id, 64, capture.ProtoTCP
	p.IPLen = p.Len + 52
	if x.v6 {
		p.IPID, p.IPv6, p.IPLen = 0, true, p.Len+72
	}
	p.Opts |= capture.OptTimestamps
	p.TSVal = uint32(at / 1e6)
	for i := range n {
		k := i
		if back {
			k = n - 1 - i
		}
		if i > 0 {
			seg := k - 1
			if back {
				seg = k
			}
			at = at.Add(x.hop)
			if x.more != nil {
				at = at.Add(x.more())
			}
			if x.slow != nil {
				at = at.Add(x.slow(seg, back))
			}
			if x.lose != nil && x.lose(seg, back, &p) {
				d := 0
				if back {
					d = 1
				}
				x.lost[[2]int{seg, d}]++
				return at, false
			}
			p.TTL--
		}
		if x.miss != nil && x.miss(k) {
			continue
		}
		q := p
		if x.nat > 0 && k >= x.nat {
			if back {
				q.Src = capture.Endpoint{Addr: hiddenAddr, Port: 8443}
			} else {
				q.Dst = capture.Endpoint{Addr: hiddenAddr, Port: 8443}
			}
		}
		stated := at
		if x.clock != nil {
			stated = x.clock(k, at)
		}
		x.seen[k] = append(x.seen[k], capture.Observation{At: stated, Packet: q})
	}
	return at, true
}

// talk lets connections exchange requests and answers, each segment sent again until it arrives.
func (x *path) talk(conns, exchanges, request, answer int) {
	for i := range conns {
		x.connection(uint16(20000+i), exchanges, request, answer)
		x.at = x.at.Add(20 * time.Millisecond)
	}
}

func (x *path) connection(port uint16, exchanges, request, answer int) {
	ends := [2]capture.Endpoint{{Addr: clientAddr, Port: port}, {Addr: serverAddr, Port: 443}}
	seq := [2]uint32{x.random.Uint32(), x.random.Uint32()}
	at := x.at
	defer func() { x.at = max(x.at, at) }()
	send := func(side int, flags uint8, n int) bool {
		p := capture.Packet{Src: ends[side], Dst: ends[1-side], Seq: seq[side], Flags: flags, Len: uint32(n), Window: 500}
		if flags&capture.ACK != 0 {
			p.Ack = seq[1-side]
		}
		if flags&capture.SYN != 0 {
			p.Opts, p.MSS = capture.OptMSS|capture.OptWScale, 1460
		}
		for range 8 {
			then, ok := x.send(p, side == 1, at)
			if ok {
				at = then
				seq[side] += uint32(n)
				if flags&(capture.SYN|capture.FIN) != 0 {
					seq[side]++
				}
				return true
			}
			at = at.Add(x.again)
		}
		return false
	}
	ack := func(side int) {
		p := capture.Packet{Src: ends[side], Dst: ends[1-side], Seq: seq[side], Ack: seq[1-side], Flags: capture.ACK, Window: 500}
		if then, ok := x.send(p, side == 1, at); ok {
			at = then
		}
	}
	if !send(0, capture.SYN, 0) || !send(1, capture.SYN|capture.ACK, 0) {
		return
	}
	ack(0)
	for range exchanges {
		for left := request; left > 0; left -= 1448 {
			if !send(0, capture.ACK|capture.PSH, min(left, 1448)) {
				return
			}
			ack(1)
		}
		for left := answer; left > 0; left -= 1448 {
			if !send(1, capture.ACK|capture.PSH, min(left, 1448)) {
				return
			}
			ack(0)
		}
	}
	if send(0, capture.ACK|capture.FIN, 0) && send(1, capture.ACK|capture.FIN, 0) {
		ack(0)
	}
}

// together reads what points saw as the commands do.
func together(seen [][]capture.Observation, row func(*Row)) *Report {
	var sketches []*Sketch
	for _, obs := range seen {
		slices.SortStableFunc(obs, func(a, b capture.Observation) int { return int(a.At - b.At) })
		s := new(Sketch)
		for i := range obs {
			s.Observe(&obs[i])
		}
		sketches = append(sketches, s)
	}
	al := Align(sketches)
	var pts []Point
	type from struct {
		pt int
		o  capture.Observation
	}
	var all []from
	for i, s := range sketches {
		shift := capture.Instant(al.Shift[i])
		pts = append(pts, Point{Name: string(rune('a' + i)), Shift: al.Shift[i], First: s.First + shift, Last: s.Last + shift, Until: al.Until[i] + shift, Holds: s.Holds(), Lacks: s.Lacks()})
		for _, o := range seen[i] {
			o.At += shift
			all = append(all, from{i, o})
		}
	}
	slices.SortStableFunc(all, func(a, b from) int { return int(a.o.At - b.o.At) })
	o := Options{Row: row}
	for i := range al.Before {
		copy(o.Before[i][:], al.Before[i])
	}
	a := New(pts, o)
	for i := range all {
		a.Observe(all[i].pt, &all[i].o)
	}
	return a.Close()
}

func (r *Report) find(from, to int) *Edge {
	for _, e := range r.Edges {
		if e.From == from && e.To == to {
			return e
		}
	}
	return &Edge{From: from, To: to}
}

// Large segments are lost in one segment of the path and in one direction: there all that was lost is counted, and nowhere else anything,
// also while one capture misses a twentieth and another one holds everything twice.
func TestLossBySize(t *testing.T) {
	for k := range 24 {
		seg, back, spoiled, v6 := k%3, k/3%2 == 1, k/6%2 == 1, k >= 12
		x := newPath(4)
		x.v6 = v6
		x.lose = func(s int, b bool, p *capture.Packet) bool {
			return s == seg && b == back && p.IPLen >= 1400 && x.random.Float64() < 0.6
		}
		if spoiled {
			x.miss = func(p int) bool { return p == (seg+2)%4 && x.random.Float64() < 0.05 }
		}
		x.talk(60, 3, 4000, 4000)
		if spoiled {
			twin := (seg + 1) % 4
			for _, o := range x.seen[twin] {
				o.At = o.At.Add(8 * time.Microsecond)
				x.seen[twin] = append(x.seen[twin], o)
			}
		}
		r := together(x.seen, nil)
		from, to, d := seg, seg+1, 0
		if back {
			from, to, d = to, from, 1
		}
		e := r.find(from, to)
		cut := 1400 / BinBytes
		lost, truth := e.Lost.All()+e.Absent.All(), uint64(x.lost[[2]int{seg, d}])
		if !spoiled && lost != truth || spoiled && math.Abs(float64(lost)-float64(truth)) > 0.15*float64(truth) {
			t.Errorf("%d: segment %d back %v spoiled %v: %d lost, in truth %d", k, seg, back, spoiled, lost, truth)
		}
		if n := e.Lost.Sum(0, cut); n != 0 {
			t.Errorf("%d: segment %d back %v spoiled %v: %d small ones lost", k, seg, back, spoiled, n)
		}
		neighbours := 0
		for _, o := range r.Edges {
			limit := uint64(0)
			if spoiled {
				limit = lost / 10 // lost behind a point that missed it
			}
			if o != e && o.Lost.All() > limit {
				t.Errorf("%d: segment %d back %v spoiled %v: %d of %d lost from %d to %d", k, seg, back, spoiled, o.Lost.All(), o.In.All(), o.From, o.To)
			}
			if o.In.All() > 0 && (o.From-o.To == 1 || o.To-o.From == 1) {
				neighbours++
			}
		}
		if neighbours != 6 {
			t.Errorf("%d: something passed over %d edges of 6", k, neighbours)
		}
	}
}

// A capture that misses packets has lost none on the path.
func TestCaptureLossAlone(t *testing.T) {
	x := newPath(3)
	x.miss = func(p int) bool { return p == 1 && x.random.Float64() < 0.05 }
	x.talk(60, 3, 4000, 4000)
	r := together(x.seen, nil)
	for _, e := range r.Edges {
		if n := e.Lost.All() + e.Absent.All(); n > 0 {
			t.Errorf("%d lost from %d to %d", n, e.From, e.To)
		}
	}
	if m := r.At[1]; m.Missed < (m.Missed+m.Seen)/30 || r.At[0].Missed+r.At[2].Missed != 0 {
		t.Errorf("missed %d of %d in the middle, %d and %d outside", m.Missed, m.Missed+m.Seen, r.At[0].Missed, r.At[2].Missed)
	}
}

// What is sent again at once looks like what was lost before: without an IP-ID and within a tick of the time stamps nothing tells them apart.
// All of it is counted, at the right place.
func TestSentAgainAtOnce(t *testing.T) {
	for seg := range 3 {
		x := newPath(4)
		x.v6, x.again = true, 100*time.Microsecond
		x.lose = func(s int, b bool, _ *capture.Packet) bool { return s == seg && !b && x.random.Float64() < 0.25 }
		x.talk(60, 3, 4000, 4000)
		x.lose = nil
		x.connection(30_000, 1, 100, 100) // nothing is said of what is lost last
		r := together(x.seen, nil)
		for _, e := range r.Edges {
			want := 0
			if e.From == seg && e.To == seg+1 {
				want = x.lost[[2]int{seg, 0}]
			}
			if lost := int(e.Lost.All() + e.Absent.All()); lost != want {
				t.Errorf("segment %d: %d lost from %d to %d, in truth %d", seg, lost, e.From, e.To, want)
			}
		}
	}
}

// A probe that is lost while what it repeats arrives is lost, though its bytes are acknowledged.
func TestProbeLost(t *testing.T) {
	x := newPath(2)
	x.talk(20, 2, 3000, 3000)
	probes := uint64(0)
	for i, o := range x.seen[0] {
		if p := &o.Packet; i%7 == 0 && p.Src.Addr == clientAddr && p.Len > 0 {
			p.IPID += 30_000
			x.seen[0] = append(x.seen[0], capture.Observation{At: o.At.Add(20 * time.Microsecond), Packet: *p})
			probes++
		}
	}
	r := together(x.seen, nil)
	e := r.find(0, 1)
	if n := e.Lost.All() + e.Absent.All(); n != probes || probes == 0 || r.At[1].Missed != 0 {
		t.Errorf("%d of %d probes lost, %d missed", n, probes, r.At[1].Missed)
	}
}

// Packets that the network doubles are told from those that a capture holds twice, also where it is the last one and holds all twice.
func TestDoubledAtTwice(t *testing.T) {
	x := newPath(2)
	x.talk(60, 3, 4000, 4000)
	doubled := uint64(0)
	for i, o := range x.seen[1] {
		copies := 1
		if p := &o.Packet; i%20 == 0 && p.Src.Addr == clientAddr {
			copies = 3
			doubled++
		}
		for k := range copies {
			o.At = o.At.Add(time.Duration(8+k) * time.Microsecond)
			x.seen[1] = append(x.seen[1], o)
		}
	}
	r := together(x.seen, nil)
	if n := r.find(0, 1).Doubled; n != doubled || doubled == 0 || r.find(1, 0).Doubled != 0 {
		t.Errorf("%d doubled, in truth %d; %d the other way", n, doubled, r.find(1, 0).Doubled)
	}
}

// A connection whose addresses are translated on the way is one connection, also if its first SYN is lost before, and what is lost behind
// is found.
func TestTranslated(t *testing.T) {
	x := newPath(4)
	x.nat = 2
	x.lose = func(s int, b bool, p *capture.Packet) bool {
		return !b && (s == 2 && p.IPLen >= 1400 && x.random.Float64() < 0.6 || s == 1 && p.Flags&capture.SYN != 0 && x.random.Float64() < 0.3)
	}
	x.talk(40, 2, 4000, 4000)
	rows := 0
	r := together(x.seen, func(r *Row) {
		rows++
		if len(r.Way) != 4 || !r.NAT {
			t.Errorf("row %+v", r)
		}
	})
	if e := r.find(2, 3); rows != 40 || e.Lost.All()+e.Absent.All() != uint64(x.lost[[2]int{2, 0}]) {
		t.Errorf("%d rows, lost %d, in truth %d", rows, e.Lost.All(), x.lost[[2]int{2, 0}])
	}
	if m := r.Members; len(m) != 1 || m[capture.Endpoint{Addr: hiddenAddr, Port: 8443}] != (capture.Endpoint{Addr: serverAddr, Port: 443}) {
		t.Errorf("members %v", m)
	}
}

// One point shows segments joined (TSO, GRO) that another one shows as they were on the wire.
func TestJoined(t *testing.T) {
	x := newPath(2)
	x.lose = func(s int, b bool, p *capture.Packet) bool { return b && p.IPLen >= 1400 && x.random.Float64() < 0.1 }
	x.talk(30, 2, 300, 20_000)
	// The server's point: new segments that follow each other are one packet.
	var joined []capture.Observation
	for _, o := range x.seen[1] {
		if n := len(joined); n > 0 && o.Packet.Src.Port == 443 && o.Packet.Len == 1448 {
			p := &joined[n-1].Packet
			for k := n - 1; k > 0 && p.Src.Port != 443; k-- { // acknowledgements between
				p = &joined[k-1].Packet
			}
			if p.Src == o.Packet.Src && p.Dst == o.Packet.Dst && p.Len%1448 == 0 && p.Len > 0 && p.Len < 60_000 && p.Seq+p.Len == o.Packet.Seq {
				o.Packet.TSVal = p.TSVal
				p.Len += 1448
				p.IPLen += 1448
				continue
			}
		}
		joined = append(joined, o)
	}
	stamp := map[[2]uint32]uint32{} // one joined packet has one time stamp
	for _, o := range joined {
		for k := uint32(0); k < o.Packet.Len; k += 1448 {
			stamp[[2]uint32{o.Packet.Seq + k, uint32(o.Packet.Dst.Port)}] = o.Packet.TSVal
		}
	}
	repeated := map[[2]uint32]bool{}
	for i := range x.seen[0] {
		p := &x.seen[0][i].Packet
		k := [2]uint32{p.Seq, uint32(p.Dst.Port)}
		if ts, ok := stamp[k]; ok && p.Src.Port == 443 && p.Len > 0 && !repeated[k] {
			p.TSVal = ts
		}
	}
	if len(joined) >= len(x.seen[1]) {
		t.Fatal("nothing was joined")
	}
	x.seen[1] = joined
	r := together(x.seen, nil)
	e := r.find(1, 0)
	if lost := e.Lost.All(); lost == 0 || e.In.All() < 30*2*14 {
		t.Errorf("lost %d of %d, in truth %d", lost, e.In.All(), x.lost[[2]int{0, 1}])
	}
	if e := r.find(0, 1); e.Lost.All() != 0 {
		t.Errorf("lost %d the other way", e.Lost.All())
	}
}

// Two captures that have nothing in common are not compared.
func TestNothingInCommon(t *testing.T) {
	x, y := newPath(1), newPath(1)
	y.random = rand.New(rand.NewPCG(9, 9))
	y.at = x.at
	for range 10 {
		x.connection(uint16(20_000+x.random.IntN(9000)), 1, 3000, 3000)
		y.connection(uint16(20_000+y.random.IntN(9000)), 1, 500, 9000)
		x.at, y.at = x.at.Add(time.Duration(x.random.IntN(1e9))), y.at.Add(time.Duration(y.random.IntN(1e9)))
	}
	for i := range y.seen[0] {
		p := &y.seen[0][i].Packet
		p.Src.Port, p.Dst.Port = p.Src.Port+999, p.Dst.Port+999
	}
	r := together([][]capture.Observation{x.seen[0], y.seen[0]}, nil)
	if len(r.Apart) != 1 || len(r.Edges) != 0 || len(r.Borders) != 0 {
		t.Errorf("apart %v, %d edges, %d borders", r.Apart, len(r.Edges), len(r.Borders))
	}
}

// What loses by rate spares large packets that come alone; what loses by size does not.
func TestSpacing(t *testing.T) {
	for _, policer := range []bool{true, false} {
		x := newPath(2)
		tokens, filled := 8000.0, uint32(0)
		x.lose = func(_ int, back bool, p *capture.Packet) bool {
			if !back {
				return false
			}
			if !policer {
				return p.IPLen > 1000 && x.random.Float64() < 0.6
			}
			tokens, filled = min(8000, tokens+100*float64(p.TSVal-max(filled, p.TSVal-1000))), p.TSVal // 100 kB/s, in ms
			if tokens < float64(p.IPLen) {
				return true
			}
			tokens -= float64(p.IPLen)
			return false
		}
		x.talk(100, 2, 500, 20_000)
		e := together(x.seen, nil).find(1, 0)
		close, apart := e.Spaced(1024/BinBytes, 12) // 2 ms
		switch {
		case close.In < 100 || apart.In < 100:
			t.Errorf("policer %v: %+v close behind others, %+v apart", policer, close, apart)
		case policer && close.Rate() < 5*apart.Rate():
			t.Errorf("a policer spares %+v no more than %+v", apart, close)
		case !policer && math.Abs(close.Rate()-apart.Rate()) > 0.1:
			t.Errorf("lost by size: %+v close, %+v apart", close, apart)
		}
	}
}

// A proxy is told by the time after which it opens its own connections. Those that begin at any time, or in the same rhythm, are not joined.
func TestProxy(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 4))
	for name, test := range map[string]struct {
		gap, lag func() time.Duration
		border   bool
	}{
		"proxy": {func() time.Duration { return time.Duration(random.IntN(2e8)) }, func() time.Duration { return time.Duration(300_000 + random.IntN(2e6)) }, true},
		"clock": {func() time.Duration { return time.Duration(random.IntN(2e8)) }, func() time.Duration { return 2*time.Second + time.Duration(random.IntN(2e6)) }, true},
		"apart": {func() time.Duration { return time.Duration(random.IntN(2e8)) }, func() time.Duration { return time.Duration(random.IntN(4e9)) }, false},
		"beats": {func() time.Duration { return 500 * time.Millisecond }, func() time.Duration { return 200 * time.Millisecond }, false},
	} {
		x, y := newPath(1), newPath(1)
		y.random = rand.New(rand.NewPCG(9, 9))
		for i := range 200 {
			y.at = x.at.Add(test.lag())
			x.connection(uint16(20_000+i), 1, 400, 3000)
			y.connection(uint16(40_000-i), 1, 700, 3300)
			x.at = x.at.Add(test.gap())
		}
		for i := range y.seen[0] {
			p := &y.seen[0][i].Packet
			if p.Dst.Addr == serverAddr {
				p.Dst.Addr = hiddenAddr
			} else {
				p.Src.Addr = hiddenAddr
			}
		}
		r := together([][]capture.Observation{x.seen[0], y.seen[0]}, nil)
		if border := len(r.Borders) == 1 && r.Borders[0].Joined > 150; border != test.border || len(r.Edges) != 0 || border == (len(r.Apart) == 1) {
			t.Errorf("%s: borders %+v, apart %v, %d edges", name, r.Borders, r.Apart, len(r.Edges))
		}
		// Both sides of a proxy are looked at, by one clock; of what is apart one.
		switch by := time.Duration(r.By(&r.Looks[0])); {
		case len(r.Looks) != map[bool]int{true: 2, false: 1}[test.border]:
			t.Errorf("%s: looks %+v", name, r.Looks)
		case name == "proxy" && by != 0, name == "clock" && (by-2*time.Second).Abs() > 3*time.Millisecond:
			t.Errorf("%s: the times before are shifted by %v", name, by)
		}
	}
}

// A proxy that lets all requests share a few connections of its own is known by its address; who asks from another one is none.
func TestPooledProxy(t *testing.T) {
	for _, from := range []capture.Addr{serverAddr, hiddenAddr} {
		x, y := newPath(2), newPath(2)
		y.random = rand.New(rand.NewPCG(9, 9))
		behind := capture.AddrFrom(netip.MustParseAddr("10.0.0.77"))
		for i := range 60 {
			x.connection(uint16(20_000+i), 1, 400, 3000)
			x.at = x.at.Add(100 * time.Millisecond)
		}
		for i := range 3 {
			y.connection(uint16(40_000-i), 20, 700, 3300)
		}
		for _, seen := range y.seen {
			for i := range seen {
				for _, e := range []*capture.Endpoint{&seen[i].Packet.Src, &seen[i].Packet.Dst} {
					if e.Addr == clientAddr {
						e.Addr = from
					} else {
						e.Addr = behind
					}
				}
			}
		}
		r := together([][]capture.Observation{x.seen[0], x.seen[1], y.seen[0], y.seen[1]}, nil)
		if from == serverAddr && (len(r.Looks) != 2 || r.Looks[0].Point != 1 || r.Looks[1].Point != 2 || !slices.Equal(r.Proxies(), []capture.Addr{serverAddr})) ||
			from != serverAddr && (len(r.Looks) != 1 || len(r.Apart) != 1 || len(r.Proxies()) != 0) {
			t.Errorf("from %v: looks %+v, borders %+v, apart %v", from, r.Looks, r.Borders, r.Apart)
		}
	}
}

// A capture that cut off the options of TCP is compared all the same, and nothing is said of options that it does not show.
func TestCutOptions(t *testing.T) {
	x := newPath(3)
	x.lose = func(s int, b bool, p *capture.Packet) bool {
		return s == 1 && b && p.IPLen >= 1400 && x.random.Float64() < 0.3
	}
	x.talk(40, 3, 4000, 4000)
	for i := range x.seen[1] {
		p := &x.seen[1][i].Packet
		p.Opts, p.TSVal, p.MSS = capture.OptCut, 0, 0
	}
	r := together(x.seen, nil)
	for _, e := range r.Edges {
		want := 0
		if e.From == 2 && e.To == 1 {
			want = x.lost[[2]int{1, 1}]
		}
		if lost := int(e.Lost.All() + e.Absent.All()); lost != want || e.Changed != (Changes{}) {
			t.Errorf("%d lost from %d to %d, in truth %d; changed: %+v", lost, e.From, e.To, want, e.Changed)
		}
	}
}

// A capture of one direction says nothing of the other one: what is lost there is lost somewhere between its neighbours.
func TestOneDirection(t *testing.T) {
	x := newPath(3)
	x.lose = func(s int, b bool, p *capture.Packet) bool {
		return s == 1 && !b && p.IPLen >= 1400 && x.random.Float64() < 0.3
	}
	x.talk(40, 3, 4000, 4000)
	x.seen[1] = slices.DeleteFunc(x.seen[1], func(o capture.Observation) bool { return o.Packet.Src.Addr == clientAddr })
	r := together(x.seen, nil)
	if e := r.find(0, 2); int(e.Lost.All()) != x.lost[[2]int{1, 0}] || r.find(0, 1).In.All()+r.find(1, 2).In.All() != 0 || r.At[1].Missed != 0 {
		t.Errorf("%d of %d lost, in truth %d; %d missed in the middle", e.Lost.All(), e.In.All(), x.lost[[2]int{1, 0}], r.At[1].Missed)
	}
	if e := r.find(2, 1); e.In.All() == 0 || e.Lost.All()+e.Absent.All() != 0 {
		t.Errorf("the other way %d of %d lost", e.Lost.All(), e.In.All())
	}
}

// The same capture given twice is no path, whatever its clock was set to afterwards.
func TestSame(t *testing.T) {
	x := newPath(2)
	x.talk(20, 2, 1000, 1000)
	var sketches []*Sketch
	for _, k := range []int{0, 0, 1} {
		s := new(Sketch)
		for _, o := range x.seen[k] {
			o.At += capture.Instant(len(sketches)) * 3600e9
			s.Observe(&o)
		}
		sketches = append(sketches, s)
	}
	if same := Align(sketches).Same; !same[0][1] || same[0][2] || same[1][2] {
		t.Errorf("same: %v", same)
	}
}

// A RST that no end sent appears where it was made.
func TestResetInBetween(t *testing.T) {
	x := newPath(4)
	x.talk(20, 2, 2000, 2000)
	for k := range 10 {
		p := x.seen[2][40*k+3].Packet
		r := capture.Packet{Src: p.Src, Dst: p.Dst, Seq: p.Seq + p.Len, Flags: capture.RST, Proto: capture.ProtoTCP, TTL: 99, IPLen: 40, IPID: uint16(60000 + k)}
		at := x.seen[2][40*k+3].At
		pts := []int{2, 3}
		if p.Src.Port == 443 {
			pts = []int{1, 0}
		}
		for i, pt := range pts {
			r.TTL -= uint8(i)
			x.seen[pt] = append(x.seen[pt], capture.Observation{At: at.Add(time.Duration(i) * 50 * time.Microsecond), Packet: r})
		}
	}
	r := together(x.seen, nil)
	there, back := r.find(1, 2), r.find(2, 1)
	if there.Resets+back.Resets != 10 || there.Foreign+back.Foreign != 10 {
		t.Errorf("%d and %d resets, %d and %d foreign", there.Resets, back.Resets, there.Foreign, back.Foreign)
	}
	for i := range r.At {
		if r.At[i].Resets != 0 {
			t.Errorf("%d resets from before point %d", r.At[i].Resets, i)
		}
	}
}

// What one segment adds to the delay from some time on is found there, in its direction.
func TestDelayRises(t *testing.T) {
	x := newPath(3)
	start := x.at
	x.slow = func(seg int, back bool) time.Duration {
		if seg == 1 && back && x.at > start+2e9 {
			return 50 * time.Millisecond
		}
		return 0
	}
	x.talk(100, 3, 2000, 2000)
	r := together(x.seen, nil)
	for _, e := range r.Edges {
		rose := e.Delays.MedianSince - e.Delays.MedianBefore
		if e.From == 2 && e.To == 1 {
			if math.Abs(rose-0.05) > 0.005 || e.Delays.RoseAt.Sub(start+2e9).Abs() > 300*time.Millisecond {
				t.Errorf("rose by %.4f s after %v", rose, e.Delays.RoseAt.Sub(start))
			}
		} else if rose > 0.005 {
			t.Errorf("from %d to %d rose by %.4f s", e.From, e.To, rose)
		}
	}
}

// Points in any order are put in that of the path.
func TestOrder(t *testing.T) {
	x := newPath(4)
	x.talk(20, 2, 1000, 1000)
	var sketches []*Sketch
	for _, k := range []int{2, 0, 3, 1} {
		s := new(Sketch)
		for i := range x.seen[k] {
			s.Observe(&x.seen[k][i])
		}
		sketches = append(sketches, s)
	}
	al := Align(sketches)
	if order, guessed, same := al.Order(); same || len(guessed) > 0 || !slices.Equal(order, []int{1, 3, 0, 2}) {
		t.Errorf("order %v, guessed %v", order, guessed)
	}
}

// aligned are the sketches of points of a path, in an order of their own.
func aligned(seen [][]capture.Observation, order []int) Alignment {
	var sketches []*Sketch
	for _, k := range order {
		s := new(Sketch)
		for i := range seen[k] {
			s.Observe(&seen[k][i])
		}
		sketches = append(sketches, s)
	}
	return Align(sketches)
}

// permutations calls do with each order of n things.
func permutations(n int, do func([]int)) {
	var next func(done, left []int)
	next = func(done, left []int) {
		if len(left) == 0 {
			do(done)
		}
		for i := range left {
			next(append(slices.Clone(done), left[i]), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	next(nil, all)
}

// Captures of one direction are put in their place, too, whatever the order in which points are given: two of other directions, which have nothing in
// common, by those that both have something in common with. Where nothing tells, for no router lies between, that is said.
func TestOrderOfOneDirection(t *testing.T) {
	x := newPath(4)
	x.talk(20, 2, 1000, 1000)
	only := func(pt int, addr capture.Addr) {
		x.seen[pt] = slices.DeleteFunc(x.seen[pt], func(o capture.Observation) bool { return o.Packet.Src.Addr != addr })
	}
	only(0, serverAddr)
	only(2, clientAddr)
	permutations(4, func(given []int) {
		al := aligned(x.seen, given)
		order, guessed, _ := al.Order()
		for i, k := range order {
			if given[k] != i || len(guessed) > 0 {
				t.Fatalf("given %v: order %v, guessed %v", given, order, guessed)
			}
		}
	})
	for pt := range x.seen {
		for i := range x.seen[pt] {
			x.seen[pt][i].Packet.TTL = 64
		}
	}
	al := aligned(x.seen, []int{1, 2, 3})
	if _, guessed, _ := al.Order(); len(guessed) == 0 {
		t.Error("the place of a capture of one direction is known, though nothing tells it")
	}
}

// The legs of a proxy stand in the order in which it is asked and asks, where it has one address; else as they were given.
func TestOrderOfLegs(t *testing.T) {
	for _, one := range []bool{true, false} {
		proxy := serverAddr
		if !one {
			proxy = hiddenAddr
		}
		front, back := newPath(2), newPath(2)
		front.talk(20, 2, 1000, 1000)
		back.random, back.at = rand.New(rand.NewPCG(3, 4)), front.at.Add(3*time.Millisecond)
		back.talk(20, 2, 1000, 1000)
		behind := capture.AddrFrom(netip.MustParseAddr("10.0.0.77"))
		for _, seen := range back.seen {
			for i := range seen {
				p := &seen[i].Packet
				for _, a := range []*capture.Addr{&p.Src.Addr, &p.Dst.Addr} {
					if *a == clientAddr {
						*a = proxy
					} else {
						*a = behind
					}
				}
			}
		}
		al := aligned(slices.Concat(back.seen, front.seen), []int{0, 1, 2, 3})
		want := []int{2, 3, 0, 1}
		if !one {
			want = []int{0, 1, 2, 3}
		}
		if order, _, _ := al.Order(); !slices.Equal(order, want) {
			t.Errorf("one address %v: order %v", one, order)
		}
	}
}

// Two clocks seconds apart that drift are estimated within a millisecond and 5 ppm, and their bound always holds.
func TestClock(t *testing.T) {
	for draw := range uint64(100) {
		random := rand.New(rand.NewPCG(draw, 3))
		offset := time.Duration((random.Float64() - 0.5) * 6e9)
		drift := (random.Float64() - 0.5) * 100e-6
		if draw == 0 {
			offset, drift = 3*time.Second, 50e-6
		}
		x := newPath(2)
		x.random = random
		x.hop = time.Duration(20+random.IntN(400)) * time.Microsecond
		scale := random.Float64() * 2e6
		x.more = func() time.Duration { return time.Duration(random.ExpFloat64() * scale) }
		one := time.Duration(random.IntN(300)) * time.Microsecond // the path is not the same both ways
		x.slow = func(_ int, back bool) time.Duration {
			if back {
				return one
			}
			return 0
		}
		start := x.at
		x.clock = func(p int, at capture.Instant) capture.Instant {
			if p == 0 {
				return at
			}
			return at.Add(offset + time.Duration(float64(at-start)*drift))
		}
		for range 60 {
			x.talk(4, 2, 3000, 3000)
			x.at = x.at.Add(2 * time.Second)
		}
		r := together(x.seen, nil)
		if len(r.Clocks) != 1 || !r.Clocks[0].Known {
			t.Fatalf("draw %d: clocks %+v", draw, r.Clocks)
		}
		c := r.Clocks[0]
		mid := max(r.Points[0].First, r.Points[1].First)/2 + min(r.Points[0].Last, r.Points[1].Last)/2
		truth := offset + time.Duration(float64(mid-start)*drift)
		if d := (c.Offset - truth).Abs(); d > time.Millisecond || d > c.Bound+10*time.Microsecond {
			t.Errorf("draw %d: offset %v ± %v, in truth %v", draw, c.Offset, c.Bound, truth)
		}
		if d := math.Abs(c.Skew - drift); d > 5e-6 || d > c.SkewBound+1e-7 {
			t.Errorf("draw %d: drift %.2f ± %.2f ppm, in truth %.2f", draw, c.Skew*1e6, c.SkewBound*1e6, drift*1e6)
		}
	}
}
