package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// TestLargeToSome is about peers that get nothing large while others do, or whose connections come minutes apart: there are no shares to compare.
func TestLargeToSome(t *testing.T) {
	const (
		srv = "192.0.2.1:443"
		mss = 1460
	)
	hit := [...]string{"198.51.100.2", "198.51.101.2", "198.51.102.2"}
	// well is an answer of full segments that arrives.
	well := func(n *network, at time.Duration, client string) {
		c, s := n.from(client), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		for i := range uint32(10) {
			n.tcp(at+3*ms, s, c, capture.ACK, q+i*mss, q+100, mss)
		}
		n.tcp(at+4*ms, c, s, capture.ACK|capture.FIN, q+100, q+10*mss, 0)
		n.tcp(at+5*ms, s, c, capture.ACK|capture.FIN, q+10*mss, q+101, 0)
		n.tcp(at+6*ms, c, s, capture.ACK, q+101, q+10*mss+1, 0)
	}
	// flight is an answer of ten full segments of which none arrives; until the client closes, unless it has gone. again: it repeats what it says,
	// since it gets nothing back; dup: it acknowledges the same each time that something comes.
	flight := func(n *network, at time.Duration, client string, closes, again, dup bool) {
		c, s := n.from(client), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+2*ms, s, c, capture.ACK, q, q+100, 0)
		for i := range uint32(10) {
			n.tcp(at+3*ms, s, c, capture.ACK, q+i*mss, q+100, mss)
		}
		for _, d := range [...]time.Duration{200 * ms, 600 * ms, 1400 * ms, 3 * sec, 6200 * ms, 12600 * ms} {
			n.tcp(at+3*ms+d, s, c, capture.ACK, q, q+100, mss)
			if again {
				n.tcp(at+2*ms+d, c, s, capture.ACK|capture.PSH, q, q, 100)
			}
			if dup {
				n.tcp(at+4*ms+d, c, s, capture.ACK, q+100, q, 0)
			}
		}
		if closes {
			n.tcp(at+10*sec, c, s, capture.ACK|capture.FIN, q+100, q, 0)
			n.tcp(at+10*sec+ms, s, c, capture.ACK, q+10*mss, q+101, 0)
		}
	}
	some := func(n *network, closes, again, dup bool, clients ...string) {
		every(0, 60*sec, 500*ms, func(at time.Duration, i int) { well(n, at, "203.0."+itoa(100+i%20)+".7") })
		for i, c := range clients {
			flight(n, 20*sec+time.Duration(i)*700*ms, c, closes, again, dup)
		}
	}
	// sessions are connections of one pair, opened anew each 100 s: a segment of a full flight is repeated for 50 s, and the small one after it arrives.
	sessions := func(n *network, count int, sack bool) {
		for i := range count {
			at := time.Duration(i) * 100 * sec
			c, s := n.from("192.0.2.9"), host("192.0.2.1:179")
			q := n.open(at, c, s)
			n.tcp(at+10*ms, c, s, capture.ACK|capture.PSH, q, q, 60)
			n.tcp(at+20*ms, s, c, capture.ACK|capture.PSH, q, q+60, 80)
			n.tcp(at+30*ms, c, s, capture.ACK, q+60, q+80, mss)
			n.tcp(at+30*ms, c, s, capture.ACK|capture.PSH, q+60+mss, q+80, 300)
			if sack {
				n.dsack(at+40*ms, s, c, q+80, q+60, q+60+mss, q+360+mss)
			}
			for j := range 7 {
				n.tcp(at+50*ms+400*ms<<j, c, s, capture.ACK, q+60, q+80, mss)
			}
			n.tcp(at+60*sec, s, c, capture.RST|capture.ACK, q+80, q+60, 0)
		}
	}
	single := func(single, peers int, heard, beside bool) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			f := features.(SizeLoss)
			if f.Single != single || f.PeersHit != peers || f.Heard != heard || f.Beside != beside || f.Cliff != mss+40 || !f.Lone {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newSizeLoss, []scene{
		{name: "three of many peers get no large segment, and speak on", local: "192.0.2.1", want: "warn path 192.0.2.1", onset: 20003 * ms,
			check: single(3, 3, true, false), make: func(n *network) { some(n, true, false, false, hit[:]...) }},
		{name: "two of them", local: "192.0.2.1", make: func(n *network) { some(n, true, false, false, hit[:2]...) }},
		{name: "they have gone", local: "192.0.2.1", make: func(n *network) { some(n, false, false, false, hit[:]...) }},
		{name: "they get nothing small, either", local: "192.0.2.1", make: func(n *network) { some(n, true, true, false, hit[:]...) }},
		{name: "they get it, and do not take it", local: "192.0.2.1", make: func(n *network) { some(n, true, false, true, hit[:]...) }},
		{name: "sessions minutes apart, in each of which a full segment is lost for good", local: "192.0.2.9", want: "warn path 192.0.2.9 192.0.2.1", onset: 30 * ms,
			check: single(3, 1, false, true), make: func(n *network) { sessions(n, 3, true) }},
		{name: "the other end has gone each time", local: "192.0.2.9", make: func(n *network) { sessions(n, 3, false) }},
	})
}

// TestUnsaid is about connections on which nobody says anything: what the client said may have been lost before the capture, each time.
func TestUnsaid(t *testing.T) {
	const srv = "192.0.2.1:80"
	for _, c := range []struct {
		name     string
		unsaid   int
		closed   bool
		cleared  bool
		duration time.Duration
	}{
		{"two", 2, false, true, 30 * sec},
		{"three", 3, false, false, 30 * sec},
		{"three that their clients close", 3, true, true, 30 * sec},
		{"three just opened", 3, false, true, sec},
	} {
		var n network
		every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
			x := n.talk(at, "203.0.113."+itoa(1+i%20), srv)
			n.tcp(at+5*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 100)
			for range 3 {
				n.tcp(at+10*ms, x.s, x.c, capture.ACK, x.a, x.q+100, 1460)
				x.a += 1460
			}
			n.tcp(at+11*ms, x.c, x.s, capture.ACK, x.q+100, x.a, 0)
		})
		for i := range c.unsaid {
			at := 60*sec - c.duration
			x := n.talk(at, "198.51.100."+itoa(1+i), srv)
			if c.closed {
				n.tcp(at+15*sec, x.c, x.s, capture.ACK|capture.FIN, x.q, x.a, 0)
				n.tcp(at+15*sec+ms, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q+1, 0)
				n.tcp(at+15*sec+2*ms, x.c, x.s, capture.ACK, x.q+1, x.a+1, 0)
			}
		}
		if got := n.cleared(t, newSizeLoss()); got != c.cleared {
			t.Errorf("%s: cleared %v", c.name, got)
		}
	}
}
