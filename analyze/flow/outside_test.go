package flow

import (
	"slices"
	"testing"
	"time"

	"jindan/capture"
)

// A number that no window can contain counts, and nothing else; a second one that bears it out makes it a hole.
func TestOutOfWindow(t *testing.T) {
	const far = 402_653_198
	all := []Kind{HoleOpened, HoleFilled, HoleAcked, Retransmit, HalfClosed, Closed}
	for _, tc := range []struct {
		name string
		run  func(*talk)
		want []string
		n    uint64
	}{
		{"damaged data", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(ms, Server, ack, 1001+far, 1, 1000)
			k.send(ms, Server, ack, 1001, 1, 1000)
			k.send(ms, Client, ack, 1, 2001, 0)
		}, nil, 1},
		{"damaged, far behind", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			neg := uint32(1001)
			k.send(ms, Server, ack, neg-far, 1, 1000)
			k.send(ms, Server, ack, 1001, 1, 1000)
		}, nil, 1},
		{"the same damaged segment twice", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(ms, Server, ack, 1001+far, 1, 1000)
			k.send(time.Second, Server, ack, 1001+far, 1, 1000)
			k.send(ms, Server, ack, 1001, 1, 1000)
		}, nil, 2},
		{"damaged FIN", func(k *talk) {
			k.send(ms, Client, fin, 1, 1, 0)
			k.send(time.Second, Client, fin, 1+1_900_000_000, 1, 0)
			k.send(time.Second, Server, ack, 1, 2, 0)
		}, []string{"half"}, 1},
		{"damaged acknowledgement", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(ms, Client, ack, 1, 1001+far, 0)
			k.send(ms, Client, ack, 1, 1001, 0)
			k.send(ms, Server, ack, 1001, 1, 1000)
		}, nil, 1},
		{"the capture has missed a part: data goes on from there", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(time.Second, Server, ack, 1001+far, 1, 1000)
			k.send(ms, Server, ack, 2001+far, 1, 1000)
		}, []string{"hole 65536"}, 0},
		{"the capture has missed a part: the data is acknowledged", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(time.Second, Server, ack, 1001+far, 1, 1000)
			k.send(ms, Client, ack, 1, 2001+far, 0)
		}, []string{"hole 65536", "acked-unseen 65536"}, 0},
		{"the capture has missed a part: acknowledgements say so first", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(time.Second, Client, ack, 1, 1001+far, 0)
			k.send(ms, Client, ack, 1, 2001+far, 0)
			k.send(ms, Server, ack, 2001+far, 1, 1000)
		}, []string{"acked-unseen 65536"}, 0},
		{"a repetition far behind in a connection whose windows are not known", func(k *talk) {
			for i := range uint32(200) {
				if i != 3 {
					k.send(0, Server, ack, 1+i*1000, 1, 1000)
				}
			}
			k.send(40*ms, Server, ack, 3001, 1, 1000)
			k.send(ms, Client, ack, 1, 200_001, 0)
		}, []string{"hole 1000", "filled 1000"}, 0},
		{"the numbering begins anew, far behind", func(k *talk) {
			k.send(ms, Server, ack, 1+far, 1, 1000)
			k.send(ms, Server, ack, 1001+far, 1, 1000)
			k.send(ms, Client, ack, 1, 2001+far, 0)
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(ms, Server, ack, 1001, 1, 1000)
			k.send(ms, Client, ack, 1, 2001, 0)
		}, []string{"hole 65536", "acked-unseen 65536"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(all...)
			k.open()
			tc.run(k)
			if !slices.Equal(k.events, tc.want) {
				t.Errorf("events %q, want %q", k.events, tc.want)
			}
			if got := k.t.Stats.OutOfWindow; got != tc.n {
				t.Errorf("%d outside any window, want %d", got, tc.n)
			}
			k.t.Expire(k.at.Add(10 * time.Second))
			k.t.Live(func(c *Conn) {
				if tr := k.t.TroubleOf(c); tr != nil && max(tr.side[0].Missing, tr.side[1].Missing) > 45 {
					t.Errorf("%d and %d segments missing: no window holds so many", tr.side[0].Missing, tr.side[1].Missing)
				}
			})
		})
	}
}

// Connections with holes leave the table at a cost that does not grow with their number: in the list of those with holes at most one
// other changes its place for one that leaves, whichever that is.
func TestDropWithHoles(t *testing.T) {
	const n = 500
	tb := New(Options{MaxConns: 2 * n})
	o := capture.Observation{At: t0}
	p := &o.Packet
	p.Src, p.Dst = newTalk().c, newTalk().s
	p.Proto, p.Flags, p.Len, p.Window, p.TTL, p.IPLen = capture.ProtoTCP, ack, 100, 1000, 64, 140
	for i := range n {
		p.Src.Port = uint16(i)
		p.Seq = 1
		tb.Observe(&o)
		p.Seq = 1001
		tb.Observe(&o)
	}
	if len(tb.holed) != n {
		t.Fatalf("%d of %d have holes", len(tb.holed), n)
	}
	for i := range tb.conns.n { // the oldest first, which are at the list's beginning
		before := slices.Clone(tb.holed)
		tb.drop(tb.conns.at(i), t0)
		moved := 0
		for k, v := range tb.holed {
			if before[k] != v {
				moved++
			}
		}
		if moved > 1 {
			t.Fatalf("%d of %d moved for one that left", moved, len(before))
		}
	}
	if len(tb.holed) != 0 || tb.live != 0 {
		t.Errorf("%d of %d are left, %d in the list", tb.live, n, len(tb.holed))
	}
}
