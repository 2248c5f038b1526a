package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestCloseWait(t *testing.T) {
	const srv, want = "192.0.2.1:8080", "error service 192.0.2.1 8080"
	// talk is a connection with so many requests, each answered at once; the client closes after a pause. If the program closes
	// it as well, it does so after lag.
	talk := func(n *network, at time.Duration, requests int, pause time.Duration, closes bool) {
		c, s := n.from("203.0.113.7"), host(srv)
		q := n.open(at, c, s)
		up, down := q, q
		for range requests {
			at += 2 * ms
			n.tcp(at, c, s, capture.ACK|capture.PSH, up, down, 100)
			up += 100
			n.tcp(at+ms, s, c, capture.ACK|capture.PSH, down, up, 1000)
			down += 1000
		}
		at += 2*ms + pause
		n.tcp(at, c, s, capture.ACK|capture.FIN, up, down, 0)
		n.tcp(at+ms, s, c, capture.ACK, down, up+1, 0)
		if closes {
			n.tcp(at+5*ms, s, c, capture.ACK|capture.FIN, down, up+1, 0)
			n.tcp(at+6*ms, c, s, capture.ACK, up+1, down+1, 0)
		}
	}
	well := func(n *network, from, to, pause time.Duration) {
		every(from, to, 100*ms, func(at time.Duration, _ int) { talk(n, at, 1, pause, true) })
	}
	class := func(want string) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(CloseWait); f.Class != want {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newCloseWait, []scene{
		{name: "a leak", want: "warn service 192.0.2.1 8080", onset: 20*sec + 805*ms, check: class(classLeak), make: func(n *network) {
			well(n, 0, 40*sec, 0)
			every(20*sec, 40*sec, 200*ms, func(at time.Duration, _ int) { talk(n, at, 1, 0, false) })
		}},
		{name: "a leak of connections that idle first, as all do", want: "warn service 192.0.2.1 8080", onset: 25*sec + 5*ms, check: class(classLeak),
			make: func(n *network) {
				well(n, 0, 40*sec, 5*sec)
				every(20*sec, 40*sec, 200*ms, func(at time.Duration, _ int) { talk(n, at, 1, 5*sec, false) })
			}},
		{name: "answers that break off, where connections used to end with the answer", want: want, onset: 23*sec + 5*ms, check: class(classStarved),
			make: func(n *network) {
				well(n, 0, 20*sec, 0)
				every(20*sec, 40*sec, 200*ms, func(at time.Duration, _ int) { talk(n, at, 1, 3*sec, false) })
			}},
		{name: "a program that stops: clients whose answer it had just written leave, and more that get none", want: want, onset: 20*sec + 755*ms, check: class(classStarved),
			make: func(n *network) {
				well(n, 0, 20*sec, 0)
				every(20*sec, 22*sec, 125*ms, func(at time.Duration, _ int) { talk(n, at, 1, 0, false) })
				every(20*sec, 22*sec, 150*ms, func(at time.Duration, _ int) {
					c, s := n.from("203.0.113.7"), host(srv)
					q := n.open(at, c, s)
					n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
					n.tcp(at+2*sec, c, s, capture.ACK|capture.FIN, q+100, q, 0)
					n.tcp(at+2*sec+ms, s, c, capture.ACK, q, q+101, 0)
				})
				n.call(27*sec, "203.0.113.9", "192.0.2.1:9090", ms)
			}},
		{name: "clients that leave connections of which nothing else is seen", want: want, onset: 701 * ms, check: class(classStarved), make: func(n *network) {
			every(100*ms, 20*sec, 200*ms, func(at time.Duration, i int) {
				c, s := n.from("203.0.113.7"), host(srv)
				n.tcp(at, c, s, capture.ACK|capture.FIN, 5000, 5000, 0)
				n.tcp(at+ms, s, c, capture.ACK, 5000, 5001, 0)
			})
		}},
		{name: "some are left behind unanswered and unclosed, while all others are served: workers are free", want: want, onset: 21*sec + 502*ms,
			check: func(t *testing.T, features any) {
				if f := features.(CloseWait); f.Class != classStarved || f.Others < 150 || f.ClientsSucceed < 0.9 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				well(n, 0, 40*sec, 0)
				every(20*sec, 40*sec, sec, func(at time.Duration, _ int) { n.hung(at, "203.0.113.8", srv, 1500*ms) })
			}},
		{name: "closed late, but closed", make: func(n *network) { well(n, 0, 40*sec, 3*sec) }},
	})
}
