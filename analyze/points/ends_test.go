package points

import (
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
