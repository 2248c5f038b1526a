package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// What nobody knows of the fate of segments is held against no size, and what others get is held for no path.

// stuck is an answer of full segments and an end, of which the end alone arrives: the receiver reports it by SACK, and the first
// segment comes again in vain until the client leaves.
func (n *network) stuck(at time.Duration, client, server string, full int) {
	const mss = 1460
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	end := q + uint32(full)*mss
	for i := range uint32(full) {
		n.tcp(at+3*ms, s, c, capture.ACK, q+i*mss, q+100, mss)
	}
	n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, end, q+100, 300)
	n.dsack(at+4*ms, c, s, q+100, q, end, end+300)
	wait := 3 * ms
	for i := range 6 {
		wait += 200 * ms << i
		n.tcp(at+wait, s, c, capture.ACK, q, q+100, mss)
	}
	n.tcp(at+15*sec, c, s, capture.ACK|capture.FIN, q+100, q, 0)
}

func TestFateUnknown(t *testing.T) {
	const srv = "192.0.2.1:80"
	play(t, newSizeLoss, []scene{
		{name: "of a flight that stands still nobody knows that the rest arrived", local: "192.0.2.1", want: "error path 192.0.2.1", onset: 203 * ms,
			make: func(n *network) {
				every(0, 40*sec, sec, func(at time.Duration, i int) {
					n.stuck(at, "203.0.113."+itoa(1+i%4), srv, 6)
					n.call(at+300*ms, "203.0.113."+itoa(1+i%4), srv, 5*ms)
				})
			}, check: func(t *testing.T, features any) {
				if f := features.(SizeLoss); f.BigLost != f.BigSent || f.Kind != "black-hole" {
					t.Errorf("%+v", f)
				}
			}},
	})
}

// TestAckLost is about what comes again although it had arrived: its acknowledgement was lost. The receiver says so by D-SACK.
func TestAckLost(t *testing.T) {
	const srv = "192.0.2.1:80"
	answers := func(n *network, had bool) {
		every(0, 30*sec, 500*ms, func(at time.Duration, i int) {
			c, s := n.from("203.0.113."+itoa(1+i%5)), host(srv)
			q := n.open(at, c, s)
			n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
			size := uint32(200)
			if i%2 == 0 {
				size = 1200
			}
			n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, size)
			if i%4 == 0 {
				n.tcp(at+210*ms, s, c, capture.ACK|capture.PSH, q, q+100, size)
			}
			if had && i%4 == 0 {
				n.dsack(at+211*ms, c, s, q+100, q+size, q, q+size)
			} else {
				n.tcp(at+211*ms, c, s, capture.ACK, q+100, q+size, 0)
			}
		})
	}
	play(t, newSizeLoss, []scene{
		{name: "the receiver had what came again", local: "192.0.2.1", make: func(n *network) { answers(n, true) }},
		{name: "it had not", local: "192.0.2.1", want: "error path 192.0.2.1", onset: 210 * ms, make: func(n *network) { answers(n, false) }},
	})
}

// dies is a connection with a request of size bytes, answered; from at on the same request comes again in vain.
func (n *network) dies(open, at time.Duration, client, server string, size uint32) {
	x := n.talk(open, client, server)
	x.turn(open + 10*ms)
	n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, size)
	for i := range 6 {
		n.tcp(at+(200*ms<<i), x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, size)
	}
}

func TestOthersSmaller(t *testing.T) {
	const app = "192.0.2.1"
	peers := [...]string{"198.51.100.2:8080", "203.0.113.2:8080", "203.0.113.9:8080"}
	cut := func(n *network, other string) {
		for i := range 4 {
			for j, p := range peers {
				n.dies(time.Duration(i)*sec, 20*sec+time.Duration(100*j+i)*ms, app, p, 600)
			}
		}
		every(0, 40*sec, 200*ms, func(at time.Duration, i int) { n.call(at, app, other, 5*ms) })
	}
	play(t, newSizeLoss, []scene{
		{name: "connections to three peers die, smaller requests of another go on", local: app, make: func(n *network) { cut(n, "198.51.100.77:5432") }},
	})
}

// TestOversized is about peers that have nothing to say, because what they wait for is too large for the path.
func TestOversized(t *testing.T) {
	const srv = "192.0.2.1:443"
	clients := func(n *network, before bool) {
		for i, c := range [...]string{"198.51.100.2", "198.51.101.2", "198.51.102.2"} {
			every(0, 20*sec, sec, func(at time.Duration, _ int) { n.call(at, c, srv, 5*ms) })
			if before {
				x := n.talk(0, c, srv)
				n.tcp(sec, x.s, x.c, capture.ACK, x.a, x.q, 1460)
				n.tcp(sec, x.s, x.c, capture.ACK, x.a+1460, x.q, 20*1460)
				n.tcp(sec+ms, x.c, x.s, capture.ACK, x.q, x.a+21*1460, 0)
			}
			at := 20*sec + time.Duration(i)*100*ms
			n.stuckAll(at, c, srv)
		}
		every(0, 40*sec, 500*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
	}
	play(t, newPathCut, []scene{
		{name: "full segments that nobody has ever got wait for three clients", local: "192.0.2.1", make: func(n *network) { clients(n, false) }},
		{name: "they had got as large ones", local: "192.0.2.1", want: "error path 192.0.2.1", onset: 20003 * ms, make: func(n *network) { clients(n, true) }},
	})
}

// stuckAll is an answer of two full segments, of which nothing arrives.
func (n *network) stuckAll(at time.Duration, client, server string) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	for _, d := range [...]time.Duration{0, 200 * ms, 600 * ms, 1400 * ms, 3 * sec, 6200 * ms, 12600 * ms} {
		n.tcp(at+3*ms+d, s, c, capture.ACK, q, q+100, 1460)
		if d == 0 {
			n.tcp(at+3*ms, s, c, capture.ACK, q+1460, q+100, 1460)
		}
	}
}

// TestSeenOnTheWay is about what is seen on its way to the one address that all connections have: only at its host has it arrived.
func TestSeenOnTheWay(t *testing.T) {
	const srv = "192.0.2.1:443"
	uploads := func(n *network) {
		every(0, 40*sec, 500*ms, func(at time.Duration, i int) {
			client := "203.0.113." + itoa(1+i%4)
			n.call(at, client, srv, 5*ms)
			c, s := n.from(client), host(srv)
			q := n.open(at+100*ms, c, s)
			n.tcp(at+102*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
			n.tcp(at+103*ms, s, c, capture.ACK, q, q+100, 0)
			for _, d := range [...]time.Duration{0, 200 * ms, 600 * ms, 1400 * ms, 3 * sec, 6200 * ms} {
				n.tcp(at+104*ms+d, c, s, capture.ACK|capture.PSH, q+100, q, 1400)
			}
		})
	}
	play(t, newSizeLoss, []scene{
		{name: "at any place between", want: "error path 192.0.2.1", onset: 304 * ms, make: uploads},
		{name: "at the host itself, which does not take it", local: "192.0.2.1", make: uploads},
	})
}
