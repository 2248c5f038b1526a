package points

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"jindan/capture"
)

// until keeps of what a point saw what is not later than a time.
func (x *path) until(pt int, at capture.Instant) {
	x.seen[pt] = slices.DeleteFunc(x.seen[pt], func(o capture.Observation) bool { return o.At > at })
}

// What is on its way between two points when their captures end is not lost.
func TestStillUnderWay(t *testing.T) {
	x := newPath(2)
	x.slow = func(_ int, back bool) time.Duration {
		if back {
			return 0
		}
		return 60 * time.Millisecond
	}
	x.talk(40, 3, 300, 5000)
	sent := x.seen[0][slices.IndexFunc(x.seen[0][len(x.seen[0])/2:], func(o capture.Observation) bool { return o.Packet.Dst.Addr == serverAddr && o.Packet.Len > 0 })+len(x.seen[0])/2]
	for pt := range 2 {
		x.until(pt, sent.At.Add(time.Millisecond))
	}
	if e := together(x.seen, nil).find(0, 1); e.In.All() == 0 || e.Lost.All()+e.Absent.All() > 0 {
		t.Errorf("of %d packets %d lost and %d absent", e.In.All(), e.Lost.All(), e.Absent.All())
	}
}

// A client that uses a port again after some seconds opens another connection, though the capture nearest to it had not begun with the first one.
func TestPortUsedAgain(t *testing.T) {
	x := newPath(3)
	x.talk(20, 3, 300, 5000)
	begin := x.at
	x.at = x.at.Add(3 * time.Second)
	x.talk(20, 3, 300, 5000)
	x.seen[0] = slices.DeleteFunc(x.seen[0], func(o capture.Observation) bool { return o.At < begin })
	r := together(x.seen, nil)
	if e := r.find(0, 1); e.In.All() == 0 || e.Changed.Numbers > 0 || e.Lost.All()+e.Absent.All()+r.At[0].Missed > 0 {
		t.Errorf("%d connections with other numbers; of %d packets %d lost, %d absent, %d missed", e.Changed.Numbers, e.In.All(), e.Lost.All(), e.Absent.All(), r.At[0].Missed)
	}
}

// A point that shows nothing any more, since nothing gets there, tells where it is lost. One whose capture has ended does not.
func TestNothingArrives(t *testing.T) {
	x := newPath(2)
	x.talk(20, 3, 300, 5000)
	cut := x.at
	x.lose = func(int, bool, *capture.Packet) bool { return true }
	x.talk(5, 3, 300, 5000)
	if e := together(x.seen, nil).find(0, 1); e.Requests != 5*8 || e.Lost.All() != 5*8 {
		t.Errorf("%d requests and %d packets lost, want %d", e.Requests, e.Lost.All(), 5*8)
	}

	x = newPath(2)
	x.talk(40, 3, 300, 5000)
	x.until(1, cut)
	if e := together(x.seen, nil).find(0, 1); e.In.All() == 0 || e.Lost.All()+e.Absent.All()+e.Beyond > 0 {
		t.Errorf("of %d packets %d lost, %d absent, %d since the capture had ended", e.In.All(), e.Lost.All(), e.Absent.All(), e.Beyond)
	}
}

// What is lost after a capture has ended may have been lost before that point, or behind it.
func TestLostAfterTheEnd(t *testing.T) {
	x := newPath(3)
	x.talk(80, 3, 300, 5000)
	cut := x.at.Add(-time.Second)
	x.lose = func(seg int, _ bool, _ *capture.Packet) bool { return seg == 1 && x.random.Float64() < 0.2 }
	x.talk(20, 3, 300, 5000)
	x.until(1, cut)
	x.seen = x.seen[:2]
	if e := together(x.seen, nil).find(0, 1); e.Lost.All()+e.Absent.All() > 0 || e.Beyond == 0 {
		t.Errorf("%d lost, %d absent, %d since the capture had ended", e.Lost.All(), e.Absent.All(), e.Beyond)
	}
}

// A point that shows one direction only, and whose clock is unknown, shows acknowledgements sooner than another point what they acknowledge.
func TestEarlyAcknowledgement(t *testing.T) {
	x := newPath(2)
	x.hop = 25 * time.Millisecond
	x.more = func() time.Duration { return time.Duration(x.random.IntN(6)) * time.Millisecond }
	x.talk(60, 3, 300, 5000)
	x.seen[1] = slices.DeleteFunc(x.seen[1], func(o capture.Observation) bool { return o.Packet.Dst.Addr == clientAddr })
	if e := together(x.seen, nil).find(0, 1); e.In.All() == 0 || e.Lost.All()+e.Absent.All() > 0 {
		t.Errorf("of %d packets %d lost and %d absent", e.In.All(), e.Lost.All(), e.Absent.All())
	}
}

// The points of a second leg, behind a proxy, have nothing in common with the first one: their clocks are told from each other, and they stay together.
func TestSecondLeg(t *testing.T) {
	x, y := newPath(2), newPath(2)
	x.talk(40, 3, 300, 5000)
	y.random = rand.New(rand.NewPCG(3, 4))
	y.clock = func(pt int, at capture.Instant) capture.Instant { return at.Add(time.Duration(pt) * time.Hour) }
	y.lose = func(_ int, back bool, p *capture.Packet) bool { return !back && p.Len > 0 && y.random.Float64() < 0.1 }
	for i := range 40 {
		y.connection(uint16(40000+i), 3, 300, 5000)
	}
	r := together([][]capture.Observation{x.seen[0], x.seen[1], y.seen[0], y.seen[1]}, nil)
	if e := r.find(2, 3); int(e.Lost.All()+e.Absent.All()) != y.lost[[2]int{0, 0}] || !e.Delays.Known {
		t.Errorf("%d lost, in truth %d", e.Lost.All()+e.Absent.All(), y.lost[[2]int{0, 0}])
	}
	var sketches []*Sketch
	for _, obs := range [][]capture.Observation{x.seen[0], y.seen[0], y.seen[1], x.seen[1]} {
		s := new(Sketch)
		for i := range obs {
			s.Observe(&obs[i])
		}
		sketches = append(sketches, s)
	}
	al := Align(sketches)
	if order, _, _ := al.Order(); !slices.Equal(order, []int{0, 3, 1, 2}) {
		t.Errorf("points in the order %v", order)
	}
}

// A capture behind a network card that joins segments bears the time of the last of them: that tells neither clocks nor what was overtaken.
func TestJoinedLate(t *testing.T) {
	x := newPath(3)
	x.hop = 20 * time.Microsecond
	x.talk(60, 3, 300, 14480)
	for pt := range x.seen {
		for i := range x.seen[pt] {
			x.seen[pt][i].Packet.TSVal /= 1000 // segments that are joined bear the same
		}
	}
	var out []capture.Observation
	last, n := 0, 0
	for _, o := range x.seen[1] {
		if p := &o.Packet; p.Len > 0 {
			if q := &out[last]; n > 0 && n < 4 && q.Packet.Src == p.Src && q.Packet.Dst == p.Dst && q.Packet.Seq+q.Packet.Len == p.Seq {
				q.At = o.At
				q.Packet.Len += p.Len
				q.Packet.IPLen += p.Len
				n++
				continue
			}
			last, n = len(out), 1
		}
		out = append(out, o)
	}
	x.seen[1] = out
	r := together(x.seen, nil)
	for _, e := range r.Edges {
		if e.Reordered > 0 || !e.Delays.Known {
			t.Errorf("%d → %d: %d overtaken, clocks known: %v", e.From, e.To, e.Reordered, e.Delays.Known)
		}
	}
}
