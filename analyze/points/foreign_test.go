package points

import (
	"math/rand/v2"
	"testing"
	"time"

	"jindan/capture"
)

// A device that counts hops anew (nft ip ttl set) does not turn points round: a way there and one back take time.
func TestHopsCountedAnew(t *testing.T) {
	x := newPath(3)
	x.talk(40, 3, 300, 5000)
	for i := range x.seen[2] {
		x.seen[2][i].Packet.TTL = 255 // whichever way it goes
	}
	r := together(x.seen, nil)
	for _, way := range [][2]int{{0, 1}, {1, 2}, {2, 1}, {1, 0}} {
		if e := r.find(way[0], way[1]); e == nil || e.In.All() == 0 || !e.Delays.Known {
			t.Errorf("%d → %d: nothing passed, or it was not timed", way[0], way[1])
		}
	}
	if e := r.find(0, 2); e != nil && e.In.All() > 0 {
		t.Errorf("%d packets went from the first point to the third one by no way", e.In.All())
	}
}

// doubleRarely lets point pt show some packets again, late: a network between it and the point before has made copies.
func doubleRarely(x *path, pts []int, reset bool) (n uint64) {
	last := pts[0]
	var chosen []capture.Packet
	for i, o := range x.seen[last] {
		if o.Packet.Src.Addr == clientAddr && (reset && o.Packet.Flags&capture.RST != 0 || !reset && o.Packet.Len > 0 && i%20 == 0) {
			chosen = append(chosen, o.Packet)
		}
	}
	for _, pt := range pts {
		for _, o := range x.seen[pt] {
			for _, p := range chosen {
				if o.Packet.Seq == p.Seq && o.Packet.Flags == p.Flags && o.Packet.Src == p.Src && o.Packet.IPID == p.IPID {
					o.At = o.At.Add(15 * time.Millisecond)
					x.seen[pt] = append(x.seen[pt], o)
				}
			}
		}
	}
	return uint64(len(chosen))
}

// A copy that comes 15 ms later was made by the network: it is no packet that the points before have missed.
func TestLateCopies(t *testing.T) {
	x := newPath(4)
	x.talk(40, 3, 300, 5000)
	want := doubleRarely(x, []int{2, 3}, false)
	r := together(x.seen, nil)
	if e := r.find(1, 2); e.Doubled != want || r.At[0].Missed+r.At[1].Missed > 0 {
		t.Errorf("%d doubled, want %d; %d and %d missed", e.Doubled, want, r.At[0].Missed, r.At[1].Missed)
	}
}

// Nor is the copy of a RST one that was made there.
func TestCopiedResets(t *testing.T) {
	x := newPath(4)
	x.talk(20, 1, 300, 500)
	for i := range 20 {
		x.send(capture.Packet{Src: capture.Endpoint{Addr: clientAddr, Port: uint16(20000 + i)}, Dst: capture.Endpoint{Addr: serverAddr, Port: 443},
			Seq: uint32(i), Flags: capture.RST}, false, x.at.Add(time.Duration(i)*time.Millisecond))
	}
	if n := doubleRarely(x, []int{2, 3}, true); n != 20 {
		t.Fatalf("%d resets to copy", n)
	}
	if e := together(x.seen, nil).find(1, 2); e.Resets != 0 {
		t.Errorf("%d resets made, want none", e.Resets)
	}
}

// ask sends a query through two points, between which the client's address and port are translated, and its answer back.
func ask(seen [][]capture.Observation, i int, at capture.Instant, lost bool, payload []byte) {
	client := [2]capture.Endpoint{{Addr: clientAddr, Port: uint16(30000 + i)}, {Addr: hiddenAddr, Port: uint16(50000 - 7*i)}}
	server := capture.Endpoint{Addr: serverAddr, Port: 53}
	for pt := range 2 {
		if pt == 1 && lost {
			return
		}
		p := capture.Packet{Src: client[pt], Dst: server, Proto: capture.ProtoUDP, TTL: uint8(64 - pt), IPID: uint16(100 + i), Len: uint32(len(payload)), IPLen: uint32(28 + len(payload)), Data: payload}
		seen[pt] = append(seen[pt], capture.Observation{At: at.Add(time.Duration(pt) * time.Millisecond), Packet: p})
		p.Src, p.Dst, p.TTL, p.IPID = p.Dst, p.Src, uint8(60+pt), uint16(9000+i)
		seen[pt] = append(seen[pt], capture.Observation{At: at.Add(time.Duration(4-pt) * time.Millisecond), Packet: p})
	}
}

// Queries are followed through address translation: what is asked again and never comes is lost between the points, where no other one is.
func TestTranslatedQueries(t *testing.T) {
	seen := make([][]capture.Observation, 2)
	at, lost := capture.Instant(1e18), 0
	for i := range 200 {
		q := []byte{byte(i), byte(i * 37), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1}
		at = at.Add(50 * time.Millisecond)
		if i%5 == 1 {
			lost++
			seen[0] = append(seen[0], capture.Observation{At: at, Packet: capture.Packet{Src: capture.Endpoint{Addr: clientAddr, Port: uint16(30000 + i)},
				Dst: capture.Endpoint{Addr: serverAddr, Port: 53}, Proto: capture.ProtoUDP, TTL: 64, IPID: uint16(5000 + i), Len: uint32(len(q)), IPLen: 47, Data: q}})
			ask(seen, i, at.Add(time.Second), false, q)
			continue
		}
		ask(seen, i, at, false, q)
	}
	e := together(seen, nil).find(0, 1)
	if e == nil || e.Lost.All()+e.Absent.All() != uint64(lost) || e.Datagrams.In != 240 {
		t.Fatalf("%+v, want %d of 240 lost", e, lost)
	}
	if src, dst := e.Worst.At(1); src != hiddenAddr || dst != serverAddr {
		t.Errorf("the second point shows the pair as %v and %v", src, dst)
	}
}

// Losses in bursts from the beginning to the end tell no onset; one that begins does.
func TestBurstsTellNoOnset(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name  string
		begin int // ms
	}{{"always", 0}, {"from 10 s on", 10_000}} {
		var e Edge
		e.First = 0
		bad := false
		var onset capture.Instant
		for ms := range 20_000 {
			at := capture.Instant(1e18).Add(time.Duration(ms) * time.Millisecond)
			if bad {
				bad = random.IntN(6) != 0
			} else {
				bad = ms >= c.begin && random.IntN(150) == 0
			}
			n := counts{in: 1}
			if bad {
				if n.lost = 1; e.First == 0 {
					e.First, onset = at, at
				}
			}
			e.series.add(at, 3, n)
		}
		got := e.Change(0, false)
		if d := got.At.Sub(onset); got.End != 0 || d < 0 || d > time.Second {
			t.Errorf("%s: %v after the first loss, end %v", c.name, d, got.End)
		}
	}
}

// A connection of which nothing passes after a silence that all others survived less of was forgotten; those that are cut off while they talk were not.
func TestForgotten(t *testing.T) {
	for _, c := range []struct {
		name  string
		pause time.Duration
		want  uint64
	}{{"after ten seconds", 10 * time.Second, 10}, {"while they talk", 20 * time.Millisecond, 0}} {
		x := newPath(3)
		cut := false
		x.lose = func(seg int, back bool, p *capture.Packet) bool { return cut && seg == 1 && !back }
		x.talk(20, 3, 300, 2000)
		for i := range 10 {
			port := uint16(21000 + i)
			x.connection(port, 2, 300, 2000)
			seq := x.random.Uint32()
			cut = true
			for k := range 5 {
				x.send(capture.Packet{Src: capture.Endpoint{Addr: clientAddr, Port: port}, Dst: capture.Endpoint{Addr: serverAddr, Port: 443}, Seq: seq, Ack: 1,
					Flags: capture.ACK | capture.PSH, Len: 200}, false, x.at.Add(c.pause+time.Duration(k)*300*time.Millisecond))
			}
			cut = false
		}
		x.at = x.at.Add(c.pause + 3*time.Second)
		x.talk(5, 1, 300, 500) // all captures go on
		r := together(x.seen, nil)
		if e := r.find(1, 2); e.Forgotten != c.want || c.want > 0 && (e.Idle < 9*time.Second || e.Idle > 11*time.Second) {
			t.Errorf("%s: %d forgotten after %v, want %d", c.name, e.Forgotten, e.Idle, c.want)
		}
	}
}

// Two captures of one direction each, between two of both, leave no gap; without the point behind them the direction that comes back is out of sight.
func TestBlind(t *testing.T) {
	x := newPath(4)
	x.talk(30, 2, 300, 3000)
	for pt, from := range map[int]capture.Addr{1: clientAddr, 2: serverAddr} {
		var kept []capture.Observation
		for _, o := range x.seen[pt] {
			if o.Packet.Src.Addr == from {
				kept = append(kept, o)
			}
		}
		x.seen[pt] = kept
	}
	if r := together(x.seen, nil); r.Blind() != 0 || len(r.Apart) != 0 {
		t.Errorf("%d blind, apart %v", r.Blind(), r.Apart)
	}
	if r := together(x.seen[:2], nil); r.Blind() != 1 || len(r.Apart) != 0 {
		t.Errorf("%d blind, apart %v, want 1 and none", r.Blind(), r.Apart)
	}
}
