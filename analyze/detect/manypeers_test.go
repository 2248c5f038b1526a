package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// download is an answer of full segments and an end; those that lost names are sent again after 250 ms, or before that in vain, too, which the capture at the
// server sees. As many ports of the client as downloads.
func (n *network) download(at time.Duration, client, server string, full int, lost func(segment int) bool, twice bool) {
	const mss, end = 1460, 400
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	at += 3 * ms
	size := func(i int) uint32 {
		if i == full {
			return end
		}
		return mss
	}
	for i := range full + 1 {
		flags := capture.ACK
		if i == full {
			flags |= capture.PSH
		}
		n.tcp(at+time.Duration(i)*10*time.Microsecond, s, c, flags, q+uint32(i)*mss, q+100, size(i))
	}
	for i := range full + 1 {
		if lost(i) {
			if twice {
				n.tcp(at+200*ms+time.Duration(i)*ms, s, c, capture.ACK, q+uint32(i)*mss, q+100, size(i))
			}
			n.tcp(at+250*ms+time.Duration(i)*ms, s, c, capture.ACK, q+uint32(i)*mss, q+100, size(i))
			n.tcp(at+251*ms+time.Duration(i)*ms, c, s, capture.ACK, q+100, q+uint32(i)*mss+size(i), 0)
		}
	}
	n.tcp(at+300*ms, c, s, capture.ACK, q+100, q+uint32(full)*mss+end, 0)
}

// everyNth loses one segment of n.
func everyNth(nth int) func(int) bool {
	k := 0
	return func(int) bool { k++; return k%nth == 0 }
}

func TestManyPeers(t *testing.T) {
	const server = "192.0.2.10:443"
	// Clients of several networks, each with a connection or two.
	client := func(i int) string { return "198.51." + itoa(100+i%8) + "." + itoa(1+i%60) }
	serve := func(lost func(client, segment int) bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 250*ms, func(at time.Duration, i int) {
				n.download(at, client(i), server, 11, func(k int) bool { return lost(i, k) }, i%2 == 0)
			})
		}
	}
	none := func(int, int) bool { return false }
	few := everyNth(200)
	tenth := everyNth(12)
	play(t, newRetransmission, []scene{
		{name: "8 % towards each of many", want: "warn path 192.0.2.10", onset: 3*ms + 200*ms + 11*ms, make: serve(func(_, k int) bool { return tenth(k) }),
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Peers < 50 || f.PeersHit < 50 || f.Prefix != "" || f.Retransmitted > f.Segments || f.Share > 0.1 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "0.5 % towards each of many", make: serve(func(_, k int) bool { return few(k) })},
		{name: "nothing", make: serve(none)},
		{name: "one client of many has a bad line", want: "info path 192.0.2.10 198.51.103.7", onset: 10*sec + 3*ms + 250*ms, make: func(n *network) {
			serve(none)(n)
			every(10*sec, 50*sec, 5*sec, func(at time.Duration, _ int) {
				n.download(at, "198.51.103.7", server, 11, func(k int) bool { return k%3 == 0 }, false)
			})
		}},
		{name: "one network of many", local: "192.0.2.10", want: "warn path 192.0.2.10", onset: 750*ms + 3*ms + 250*ms,
			make: serve(func(i, k int) bool { return i%8 == 3 && k%4 == 0 }),
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Prefix != "198.51.103.0/24" {
					t.Errorf("%+v", f)
				}
			}},
	})
	heavy := func(_, k int) bool { return k < 11 && k%2 == 0 }
	play(t, newSizeLoss, []scene{
		{name: "large segments towards everybody are one finding", want: "error path 192.0.2.10", onset: 3*ms + 200*ms, make: serve(heavy),
			check: func(t *testing.T, features any) {
				if f := features.(SizeLoss); f.Peers < 50 || f.Cliff != 1500 || f.SmallLost != 0 || f.BigLost > f.BigSent {
					t.Errorf("%+v", f)
				}
			}},
		{name: "large segments towards one client in six, of all networks, are one finding", local: "192.0.2.10", want: "error path 192.0.2.10",
			onset: 3*ms + 200*ms, make: serve(func(i, k int) bool { return i%120%6 == 0 && k < 11 && k%3 != 1 })},
		{name: "nothing", make: serve(none)},
	})
}

// A policer lets as much through in each second as it is set to. Small packets find room where large ones do not, which is no loss by size.
func TestPolicerUnderOverload(t *testing.T) {
	// serve are downloads, step apart from begin to end, that lose every other large segment, half of them twice; small ones are lost too if policed.
	serve := func(n *network, begin, end, step time.Duration, policed bool) {
		every(begin, end, step, func(at time.Duration, i int) {
			n.download(at, "203.0."+itoa(100+i%8)+"."+itoa(1+i%60), "192.0.2.10:80", 11, func(k int) bool {
				return k < 11 && k%2 == 0 || policed && k == 11 && i%20 == 0
			}, i%2 == 0)
		})
	}
	well := func(n *network, step time.Duration) {
		every(0, 20*sec, step, func(at time.Duration, i int) {
			n.download(at, "203.0."+itoa(100+i%8)+"."+itoa(1+i%60), "192.0.2.10:80", 11, func(int) bool { return false }, false)
		})
	}
	play(t, newSizeLoss, []scene{
		{name: "the load doubles, and what exceeds the rate is lost", make: func(n *network) {
			well(n, 250*ms)
			serve(n, 20*sec, 60*sec, 125*ms, true)
		}},
		{name: "likewise from before the capture", make: func(n *network) { serve(n, 0, 40*sec, 125*ms, true) }},
		{name: "the load stays as it was, and large segments are lost", want: "error path 192.0.2.10", onset: 20*sec + 203*ms, make: func(n *network) {
			well(n, 250*ms)
			serve(n, 20*sec, 60*sec, 250*ms, false)
		}},
	})
}

// A connection that nothing passes any more does not say that size is why.
func TestMute(t *testing.T) {
	const app, peer = "192.0.2.1", "198.51.100.2:8080"
	askOn := func(n *network, open, at time.Duration, size uint32, answered bool) {
		c, s := n.from(app), host(peer)
		q := n.open(open, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, size)
		if answered {
			n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+size, 200)
			n.tcp(at+4*ms, c, s, capture.ACK, q+size, q+200, 0)
			return
		}
		for _, again := range []time.Duration{200, 600, 1400, 3000, 6200, 12600} {
			n.tcp(at+2*ms+again*ms, c, s, capture.ACK|capture.PSH, q, q, size)
		}
	}
	ask := func(n *network, at time.Duration, size uint32, answered bool) { askOn(n, at, at, size, answered) }
	play(t, newSizeLoss, []scene{
		{name: "forgotten connections beside fresh ones with requests of that size", local: app, make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
				ask(n, at, 1300, true)
				ask(n, at+100*ms, 40, true)
			})
			every(20*sec, 30*sec, sec, func(at time.Duration, _ int) { ask(n, at+200*ms, 1300, false) })
		}},
		{name: "everything is dead", local: app, make: func(n *network) {
			every(0, 20*sec, 500*ms, func(at time.Duration, i int) { ask(n, at, 1300, true) })
			every(20*sec, 30*sec, sec, func(at time.Duration, _ int) { askOn(n, at-15*sec, at+200*ms, 1300, false) })
			n.call(50*sec, "203.0.113.7", app+":443", 5*ms)
		}},
		{name: "no request of that size gets through, and all smaller ones do", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20202 * ms,
			make: func(n *network) {
				every(0, 20*sec, 500*ms, func(at time.Duration, i int) { ask(n, at, 1300, true) })
				every(0, 60*sec, 500*ms, func(at time.Duration, i int) { ask(n, at+100*ms, 40, true) })
				every(20*sec, 40*sec, sec, func(at time.Duration, _ int) { ask(n, at+200*ms, 1300, false) })
			}},
	})
	play(t, newRetransmission, []scene{
		{name: "what is dead is no loss", local: app, make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) { ask(n, at, 1300, true) })
			every(20*sec, 50*sec, sec, func(at time.Duration, _ int) { ask(n, at+200*ms, 1300, false) })
		}},
	})
}
