package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// stall is an upload that the server stops to read for d.
func (n *network) stall(at time.Duration, client, server string, d time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK, q, q, 1460)
	n.tcp(at+3*ms, s, c, capture.ACK, q, q+1460, 0)
	n.obs[len(n.obs)-1].Packet.Window = 0
	n.tcp(at+3*ms+d, s, c, capture.ACK, q, q+1460, 0)
	n.tcp(at+4*ms+d, c, s, capture.ACK|capture.FIN, q+1460, q, 0)
	n.tcp(at+5*ms+d, s, c, capture.ACK|capture.FIN, q, q+1461, 0)
	n.tcp(at+6*ms+d, c, s, capture.ACK, q+1461, q+1, 0)
}

// printed is an upload of which the server reads a segment at a time: its window is closed, and open, for so long, five times.
func (n *network) printed(at time.Duration, client, server string, closed, open time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	for range 5 {
		n.tcp(at+2*ms, c, s, capture.ACK, q, n.seq+1, 1460)
		q += 1460
		n.tcp(at+3*ms, s, c, capture.ACK, n.seq+1, q, 0)
		n.obs[len(n.obs)-1].Packet.Window = 0
		at += closed
		n.tcp(at+3*ms, s, c, capture.ACK, n.seq+1, q, 0)
		at += open
	}
}

// unread is a download of which the client takes only the beginning, for d.
func (n *network) unread(at time.Duration, client, server string, d time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+4*ms, s, c, capture.ACK, q, q+100, 1460)
	for end := at + d; at < end; at += 2 * sec {
		n.tcp(at+5*ms, c, s, capture.ACK, q+100, q+1460, 0)
		n.obs[len(n.obs)-1].Packet.Window = 0
		n.tcp(at+sec, s, c, capture.ACK, q-1, q+100, 0) // a probe (RFC 9293 §3.8.6.1)
	}
}

func TestSlowReceiver(t *testing.T) {
	const srv = "198.51.100.2:443"
	play(t, newSlowReceiver, []scene{
		{name: "a window that was closed before the capture began: nothing is known of its handshake", want: "warn service 198.51.100.2 443", onset: sec,
			make: func(n *network) {
				c, s := n.from("203.0.113.4"), host(srv)
				every(sec, 40*sec, 4*sec, func(at time.Duration, _ int) {
					n.tcp(at, s, c, capture.ACK, 9000, 70001, 0)
					n.obs[len(n.obs)-1].Packet.Window = 0
					n.tcp(at+2*sec, c, s, capture.ACK, 70000, 9000, 0) // a probe
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Opening != 0 || f.Longest < 30 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "a service that stops reading", want: "warn service 198.51.100.2 443", onset: 20003 * ms,
			make: func(n *network) {
				every(0, 20*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, 5*ms) })
				every(20*sec, 50*sec, 500*ms, func(at time.Duration, i int) { n.stall(at, "203.0.113."+itoa(1+i%9), srv, 8*sec) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Flows < 20 || f.Clients != 9 || f.Longest < 7.9 || f.ClosedShare < 0.5 || f.Receiver != "198.51.100.2" {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one slow reader", want: "info service 198.51.100.2 443", onset: 10003 * ms,
			make: func(n *network) {
				every(0, 60*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, 5*ms) })
				every(10*sec, 40*sec, 6*sec, func(at time.Duration, _ int) { n.stall(at, "203.0.113.99", srv, 3*sec) })
			}},
		{name: "three clients that do not read hold the workers: nobody else is served", want: "warn service 198.51.100.2 443", onset: 20005 * ms,
			make: func(n *network) {
				every(0, 20*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, 5*ms) })
				for i := range 3 {
					n.unread(20*sec+time.Duration(i)*100*ms, "203.0.113."+itoa(101+i), srv, 40*sec)
				}
				every(21*sec, 60*sec, sec, func(at time.Duration, i int) { n.hung(at, "203.0.113."+itoa(1+i%9), srv, 5*sec) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Flows != 3 || f.Clients != 3 || f.FlowsTotal != 3 || f.Receiver != "" || f.Class != "clients" || f.Unserved < 35 || f.UnservedFor < 35 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "three clients that do not read, and others are served", want: "info service 198.51.100.2 443", onset: 20005 * ms,
			make: func(n *network) {
				every(0, 60*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, 5*ms) })
				for i := range 3 {
					n.unread(20*sec+time.Duration(i)*100*ms, "203.0.113."+itoa(101+i), srv, 40*sec)
				}
			}},
		{name: "three clients that do not read have long been there when the service hangs", want: "info service 198.51.100.2 443", onset: 5005 * ms,
			make: func(n *network) {
				every(0, 30*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, 5*ms) })
				for i := range 3 {
					n.unread(5*sec+time.Duration(i)*100*ms, "203.0.113."+itoa(101+i), srv, 55*sec)
				}
				every(30*sec, 60*sec, sec, func(at time.Duration, i int) { n.hung(at, "203.0.113."+itoa(1+i%9), srv, 5*sec) })
			}},
		{name: "the only connection there is, closed for 40 s", want: "warn service 198.51.100.2 443", onset: 1003 * ms,
			make: func(n *network) { n.stall(sec, "203.0.113.99", srv, 40*sec) }},
		{name: "it has gone on since, for minutes", want: "warn service 198.51.100.2 443", onset: 2003 * ms, check: func(t *testing.T, features any) {
			if f := features.(SlowReceiver); f.ZeroWindows != 1 || f.Longest < 39 || f.Longest > 41 || f.ClosedShare > 0.2 || f.ShareBefore != 0 || !f.Small {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) {
			n.stall(2*sec, "203.0.113.99", srv, 40*sec)
			x := n.talk(sec, "203.0.113.99", srv)
			every(50*sec, 240*sec, sec, func(at time.Duration, _ int) { x.turn(at) })
		}},
		{name: "closed for 5 s, and gone on since", make: func(n *network) {
			n.stall(2*sec, "203.0.113.99", srv, 5*sec)
			x := n.talk(sec, "203.0.113.99", srv)
			every(10*sec, 240*sec, sec, func(at time.Duration, _ int) { x.turn(at) })
		}},
		{name: "three of six connections, closed for 20 s", want: "warn service 198.51.100.2 443", onset: 20003 * ms,
			make: func(n *network) {
				for i := range 3 {
					t := n.talk(time.Duration(i)*10*ms, "203.0.113."+itoa(1+i), srv)
					every(sec, 60*sec, sec, func(at time.Duration, _ int) {
						if i > 0 {
							t.turn(at)
						}
					})
				}
				for i := range 3 {
					n.stall(20*sec+time.Duration(i)*ms, "203.0.113."+itoa(1+i), srv, 20*sec)
				}
			}},
		{name: "the only connection there is, closed again and again by the service", want: "warn service 198.51.100.2 443", onset: 1003 * ms,
			make: func(n *network) { n.printed(sec, "203.0.113.99", srv, 3*sec, sec) }},
		{name: "open for longer than closed", want: "info service 198.51.100.2 443", onset: 1003 * ms, make: func(n *network) { n.printed(sec, "203.0.113.99", srv, 3*sec, 9*sec) }},
		{name: "the only connection there is, closed for 2 s", make: func(n *network) { n.stall(sec, "203.0.113.99", srv, 2*sec) }},
		{name: "windows that close for a moment", make: func(n *network) {
			every(0, 40*sec, 200*ms, func(at time.Duration, i int) { n.stall(at, "203.0.113."+itoa(1+i%9), srv, 100*ms) })
		}},
	})
}
