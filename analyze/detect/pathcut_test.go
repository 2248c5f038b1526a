package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestPathCut(t *testing.T) {
	const app = "192.0.2.1"
	peers := []string{"198.51.100.2:8080", "198.51.100.3:8080", "198.51.100.4:8080"}
	const near = "203.0.113.7:8080"
	well := func(n *network, from, to time.Duration, ps ...string) {
		every(from, to, 200*ms, func(at time.Duration, i int) { n.call(at, app, ps[i%len(ps)], 5*ms) })
	}
	// push sends data on a connection that was there before, which then repeats unanswered.
	push := func(n *network, open, at time.Duration, peer string) {
		c, s := n.from(app), host(peer)
		q := n.open(open, c, s)
		n.tcp(open+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(open+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 100)
		for _, d := range []time.Duration{0, 200 * ms, 600 * ms, 1400 * ms, 3 * sec, 6200 * ms} {
			n.tcp(at+d, c, s, capture.ACK|capture.PSH, q+100, q+100, 500)
		}
	}
	const vip, backend = "192.0.2.5:443", "198.51.100.2:8443"
	play(t, newPathCut, []scene{
		{name: "a box that translates: what its backend leaves unanswered, it does, too", local: "192.0.2.5", make: func(n *network) {
			both := func(at time.Duration, do func(at time.Duration, server string)) { do(at, vip); do(at+ms/10, backend) }
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
				client := "203.0.113." + itoa(1+i%3)
				if at < 20*sec || i%3 > 0 {
					both(at, func(at time.Duration, server string) { n.call(at, client, server, 5*ms) })
				} else {
					both(at, func(at time.Duration, server string) { n.silent(at, client, server, 3) })
				}
			})
		}},
		{name: "three peers at once; then they are back", local: app, want: "error path 192.0.2.1", onset: 20050 * ms,
			make: func(n *network) {
				well(n, 0, 20*sec, peers...)
				well(n, 100*ms, 60*sec, near)
				every(20050*ms, 22*sec, 900*ms, func(at time.Duration, i int) { n.silent(at, app, peers[i%3], 3) })
				well(n, 40*sec, 60*sec, peers...)
			},
			check: func(t *testing.T, features any) {
				f := features.(PathCut)
				if f.Peers != 3 || f.OthersAlive != 1 || !f.Healed || f.Silent < 18 || f.Silent > 21 || f.PeersTotal != 4 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "connections that were open", local: app, want: "error path 192.0.2.1", onset: 20 * sec,
			make: func(n *network) {
				well(n, 100*ms, 60*sec, near)
				well(n, 0, 20*sec, peers[:2]...)
				push(n, 15*sec, 20*sec, peers[0])
				push(n, 15*sec, 20100*ms, peers[1])
			}},
		{name: "before the capture began, as a connection tells that is older", local: app, want: "error path 192.0.2.1", onset: 100 * ms,
			make: func(n *network) {
				well(n, 100*ms, 30*sec, near)
				every(100*ms, 20*sec, 500*ms, func(at time.Duration, i int) { n.silent(at, app, peers[i%2], 3) })
				c, s := n.from(app), host(peers[0])
				for _, at := range []time.Duration{700 * ms, 7300 * ms} {
					n.tcp(at, c, s, capture.ACK|capture.PSH, 5000, 5000, 500)
				}
			},
			check: func(t *testing.T, features any) {
				if f := features.(PathCut); f.Peers != 2 || f.Older != 1 || f.RateBefore != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "two peers that nobody has ever heard", local: app, make: func(n *network) {
			well(n, 100*ms, 30*sec, near)
			every(100*ms, 20*sec, 500*ms, func(at time.Duration, i int) { n.silent(at, app, peers[i%2], 3) })
		}},
		{name: "one peer", local: app, make: func(n *network) {
			well(n, 0, 20*sec, peers...)
			well(n, 20*sec, 60*sec, peers[1:]...)
			every(20*sec, 22*sec, 200*ms, func(at time.Duration, _ int) { n.silent(at, app, peers[0], 4) })
		}},
		{name: "nobody asks them any more", local: app, make: func(n *network) {
			well(n, 0, 20*sec, peers...)
			well(n, 100*ms, 60*sec, near)
		}},
		{name: "two full accept queues: their hosts still acknowledge", local: app, make: func(n *network) {
			well(n, 100*ms, 60*sec, near)
			well(n, 0, 20*sec, peers[:2]...)
			every(20*sec, 40*sec, 400*ms, func(at time.Duration, i int) { n.silent(at, app, peers[i%2], 3) })
			every(15*sec, 20*sec, 200*ms, func(at time.Duration, i int) { n.hung(at, app, peers[i%2], 8*sec) })
			every(20*sec, 50*sec, sec, func(at time.Duration, i int) {
				c, s := n.from(app), host(peers[i%2])
				q := n.open(14*sec+time.Duration(i)*ms, c, s) // kept alive
				n.tcp(at, c, s, capture.ACK, q-1, q, 0)
				n.tcp(at+ms, s, c, capture.ACK, q, q, 0)
			})
		}},
		{name: "two name servers, alone", local: app, make: func(n *network) {
			well(n, 100*ms, 60*sec, near)
			for i, s := range []string{"198.51.100.53:53", "198.51.100.54:53"} {
				every(time.Duration(i)*50*ms, 20*sec, 200*ms, func(at time.Duration, _ int) { n.query(at, app, s, "a.test", ms, noError, 200) })
				every(20*sec, 60*sec, 200*ms, func(at time.Duration, _ int) { n.query(at, app, s, "a.test", -1, 0, 0) })
			}
		}},
		{name: "clients that go away one by one", local: app, make: func(n *network) {
			every(0, 120*sec, 200*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%5), app+":443", 5*ms) })
			for i := range 40 { // each leaves an answer that nobody takes
				at := 10*sec + time.Duration(i)*2700*ms
				c, s := n.from("198.51.100."+itoa(1+i)), host(app+":443")
				for k := range 3 {
					n.call(at-3*sec+time.Duration(k)*sec, c.Addr.String(), app+":443", 5*ms)
				}
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				for _, d := range []time.Duration{10 * ms, 300 * ms, sec, 2 * sec, 4 * sec, 8 * sec} {
					n.tcp(at+d, s, c, capture.ACK|capture.PSH, q, q+100, 500)
				}
			}
		}},
	})
}

// A path that is cut one way only still brings SYNs: clients that ask again though they were answered do not get the answers.
func TestPathCutOneWay(t *testing.T) {
	const srv = "192.0.2.1:80"
	for _, deaf := range []bool{false, true} {
		var n network
		every(0, 30*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "198.51.100."+itoa(1+i%5), srv, 5*ms) })
		if deaf {
			c, s := n.from("203.0.113.7"), host(srv)
			for _, wait := range []time.Duration{0, sec, 3 * sec, 7 * sec} {
				n.tcp(20*sec+wait, c, s, capture.SYN, n.seq, 0, 0)
				n.tcp(20*sec+wait+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
			}
		}
		if got := n.cleared(t, newPathCut()); got == deaf {
			t.Errorf("a deaf client: %v; cleared: %v", deaf, got)
		}
	}
}
