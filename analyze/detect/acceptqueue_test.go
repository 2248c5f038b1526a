package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestAcceptQueuePackets(t *testing.T) {
	const srv, want = "192.0.2.1:8080", "warn service 192.0.2.1 8080"
	// dropped is a handshake of which the listener drops the end: it repeats its SYN-ACK. The client sends its request, if data is set.
	dropped := func(n *network, at time.Duration, data bool) {
		c, s := n.from("203.0.113.7"), host(srv)
		q := n.open(at, c, s)
		if data {
			n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
			n.tcp(at+300*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		}
		for _, d := range []time.Duration{sec, 3 * sec} {
			n.tcp(at+d, s, c, capture.SYN|capture.ACK, q-1, q, 0)
			n.tcp(at+d+ms, c, s, capture.ACK, q, q, 0)
		}
	}
	play(t, newAcceptQueue, []scene{
		{name: "handshakes end in vain, SYNs stay unanswered", want: want, onset: 5*sec + ms, make: func(n *network) {
			every(0, 5*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			every(5*sec, 15*sec, 500*ms, func(at time.Duration, _ int) { dropped(n, at, true) })
			every(6*sec, 15*sec, 100*ms, func(at time.Duration, _ int) { n.silent(at, "203.0.113.8", srv, 2) })
		}, check: func(t *testing.T, features any) {
			if f := features.(AcceptQueue); f.Dropped != 20 || f.Silent < 80 || f.Silent >= f.Attempts {
				t.Errorf("%+v", f)
			}
		}},
		{name: "nobody is let in, and nobody closes what clients have left", want: want, onset: 5 * sec, make: func(n *network) {
			every(0, 2*sec, 100*ms, func(at time.Duration, _ int) { n.hung(at, "203.0.113.7", srv, 6*sec) })
			every(5*sec, 15*sec, 100*ms, func(at time.Duration, _ int) { n.silent(at, "203.0.113.8", srv, 2) })
		}},
		{name: "a listener that waits for data on purpose", make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			every(0, 20*sec, 500*ms, func(at time.Duration, _ int) { dropped(n, at, false) })
		}},
		{name: "a path that loses ACK and request of some", make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			every(0, 20*sec, sec, func(at time.Duration, _ int) { dropped(n, at, true) })
			every(0, 20*sec, 400*ms, func(at time.Duration, _ int) { n.lateOpen(at, "203.0.113.7", srv, sec) })
		}},
		{name: "a path that takes 2.4 s: each SYN that came again is answered, too, and the kernel repeats its answers", make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			every(20*sec, 50*sec, 200*ms, func(at time.Duration, _ int) { n.farOpen(at, "203.0.113.7", srv, 2400*ms) })
		}},
		{name: "a port that is filtered", make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.silent(at, "203.0.113.7", srv, 2) })
		}},
	})
}
