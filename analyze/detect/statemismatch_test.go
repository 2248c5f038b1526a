package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// met is a SYN that meets an older connection on the same ports, repeated tries times; the answer is rejected where reset is set,
// and the next SYN accepted.
func (n *network) met(at time.Duration, client, server string, tries int, reset bool) {
	c, s := n.from(client), host(server)
	for i := range tries + 1 {
		t := at + time.Duration(1<<i-1)*sec
		n.tcp(t, c, s, capture.SYN, n.seq, 0, 0)
		n.tcp(t+ms/2, s, c, capture.ACK, n.seq+5_000_000, n.seq+9_000_000, 0)
		if reset {
			n.tcp(t+ms, c, s, capture.RST, n.seq+9_000_000, 0, 0)
			n.open(t+2*ms, c, s)
			return
		}
	}
}

func TestStateMismatch(t *testing.T) {
	const srv = "198.51.100.2:443"
	well := func(n *network, to time.Duration) {
		every(0, to, 200*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%20), srv, 5*ms) })
	}
	class := func(want string, failed int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(StateMismatch); f.Class != want || f.Failed != failed {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newStateMismatch, []scene{
		{name: "ports used again too early", want: "error service 198.51.100.2 443", onset: 10 * sec, check: class(mismatchOld, 10), make: func(n *network) {
			well(n, 40*sec)
			every(10*sec, 20*sec, sec, func(at time.Duration, _ int) { n.met(at, "203.0.113.77", srv, 3, false) })
		}},
		{name: "the caller rejects the old acknowledgement, and gets in", make: func(n *network) {
			well(n, 40*sec)
			every(10*sec, 20*sec, sec, func(at time.Duration, _ int) { n.met(at, "203.0.113.77", srv, 0, true) })
		}},
		{name: "the caller rejects the old acknowledgement, and is refused", make: func(n *network) {
			well(n, 40*sec)
			every(10*sec, 20*sec, sec, func(at time.Duration, _ int) {
				n.met(at, "203.0.113.77", srv, 0, false)
				c := capture.Endpoint{Addr: addr("203.0.113.77"), Port: 20_000 + n.port%40_000}
				n.tcp(at+ms, c, host(srv), capture.RST, n.seq+9_000_000, 0, 0)
				n.tcp(at+10*ms, c, host(srv), capture.SYN, n.seq, 0, 0)
				n.tcp(at+11*ms, host(srv), c, capture.RST|capture.ACK, 0, n.seq+1, 0)
			})
		}},
		{name: "one only", want: "info service 198.51.100.2 443", onset: 10 * sec, make: func(n *network) {
			well(n, 40*sec)
			n.met(10*sec, "203.0.113.77", srv, 3, false)
		}},
		{name: "the answer comes from another address", want: "error service 198.51.100.2 443", onset: 0, check: class(mismatchElsewhere, 10),
			make: func(n *network) {
				every(0, 10*sec, sec, func(at time.Duration, _ int) {
					c, s := n.from("203.0.113.77"), host(srv)
					n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
					n.tcp(at+ms, host("10.9.9.9:443"), c, capture.SYN|capture.ACK, 77, n.seq+1, 0)
					n.tcp(at+2*ms, c, host("10.9.9.9:443"), capture.RST, n.seq+1, 0, 0)
				})
				n.call(20*sec, "203.0.113.1", "198.51.100.3:80", 5*ms)
			}},
		{name: "a loop of resets", want: "warn service 198.51.100.2 443", onset: 5 * sec, check: class(mismatchLoop, 1), make: func(n *network) {
			x := n.talk(0, "203.0.113.77", srv)
			x.turn(sec)
			every(5*sec, 6*sec, 2*ms, func(at time.Duration, _ int) {
				n.tcp(at, x.c, x.s, capture.RST, x.q+200, 0, 0)
				n.tcp(at+ms, x.s, x.c, capture.ACK, x.a, x.q, 0)
			})
		}},
		{name: "what was on its way is reset, too", make: func(n *network) {
			x := n.talk(0, "203.0.113.77", srv)
			x.turn(sec)
			n.tcp(2*sec, x.c, x.s, capture.RST, x.q, 0, 0)
			for i := range uint32(3) {
				n.tcp(2*sec+ms+time.Duration(i)*ms, x.s, x.c, capture.ACK, x.a+i*100, x.q, 100)
				n.tcp(2*sec+2*ms+time.Duration(i)*ms, x.c, x.s, capture.RST, x.q, 0, 0)
			}
		}},
	})
}

func TestStandstill(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	shut := func(n *network, x *talk, at time.Duration, window uint16) {
		n.add(at, capture.Packet{Src: x.s, Dst: x.c, Proto: capture.ProtoTCP, Flags: capture.ACK, Seq: x.a, Ack: x.q, IPLen: 40, Window: window})
	}
	sum := func(still, unanswered, late, shut int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(Standstill); f.Still != still || f.Unanswered != unanswered || f.Late != late || f.Shut != shut {
				t.Errorf("%+v", f)
			}
		}
	}
	// again is a segment of an older connection that comes again at times after its first.
	again := func(n *network, at ...time.Duration) {
		for _, at := range append([]time.Duration{0}, at...) {
			n.tcp(sec+at, host(srv), host(app+":40000"), capture.ACK, 70000, 9000, 1448)
		}
	}
	play(t, newStandstill, []scene{
		{name: "a download that stands still since before the capture: its sender alone is seen", want: "warn capture ", onset: sec, make: func(n *network) {
			again(n, 6*sec, 12*sec)
		}, check: func(t *testing.T, features any) {
			if f := features.(Standstill); f.Stuck != 1 || f.Still != 1 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "one direction of a download, with losses that are sent again at once", make: func(n *network) { again(n, 300*ms, 600*ms) }},
		{name: "data repeated in vain, then acknowledged", want: "info capture ", onset: 5 * sec, check: sum(1, 0, 0, 0), make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			x.vain(5*sec, 5)
			x.turn(18 * sec)
		}},
		{name: "never acknowledged, nor repeated", want: "info capture ", onset: 5 * sec, check: sum(1, 0, 0, 0), make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			x.vain(5*sec, 0)
			n.call(20*sec, app, "198.51.100.3:80", 5*ms)
		}},
		{name: "a SYN without an answer, and one that is answered late", want: "info capture ", onset: 0, check: sum(0, 1, 1, 0), make: func(n *network) {
			n.silent(0, app, srv, 4)
			n.lateOpen(20*sec, app, srv, 7*sec)
		}},
		{name: "a window closed for 15 s", want: "info capture ", onset: 2 * sec, check: sum(0, 0, 0, 1), make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			shut(n, x, 2*sec, 0)
			shut(n, x, 17*sec, 1000)
		}},
		{name: "short troubles", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			x.vain(5*sec, 2)
			x.turn(7 * sec)
			shut(n, x, 8*sec, 0)
			shut(n, x, 11*sec, 1000)
			n.lateOpen(20*sec, app, srv, sec)
		}},
		{name: "a long poll", make: func(n *network) { n.call(0, app, srv, 40*sec) }},
	})
}

// fetchAstray is an answer of twenty segments. Where astray is not empty, one of the later ones comes from there, the client's host resets it, and
// nothing follows.
func (n *network) fetchAstray(at time.Duration, client, server, astray string) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	for i := range uint32(20) {
		at += ms
		if i == 15 && astray != "" {
			n.tcp(at+2*ms, host(astray), c, capture.ACK, q+i*1460, q+100, 1460)
			n.tcp(at+2*ms+ms/2, c, host(astray), capture.RST, q+100, 0, 0)
			return
		}
		n.tcp(at+2*ms, s, c, capture.ACK, q+i*1460, q+100, 1460)
		n.tcp(at+2*ms+ms/2, c, s, capture.ACK, q+100, q+(i+1)*1460, 0)
	}
}

// Data of an open connection that comes from another address, as a packet does that a NAT holds invalid, is told by its numbers.
func TestDataElsewhere(t *testing.T) {
	const srv, pod = "10.96.0.10:80", "10.244.3.17:8080"
	downloads := func(astray func(i int) string) func(*network) {
		return func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) { n.fetchAstray(at, "10.244.1.9", srv, astray(i)) })
		}
	}
	play(t, newStateMismatch, []scene{
		{name: "one in ten", want: "warn service 10.96.0.10 80", onset: 9*sec + 18*ms + ms/2,
			make: downloads(func(i int) string {
				if i%10 == 9 {
					return pod
				}
				return ""
			}),
			check: func(t *testing.T, features any) {
				if f := features.(StateMismatch); f.Class != mismatchAstray || f.Failed != 6 || f.From != pod {
					t.Errorf("%+v", f)
				}
			}},
		{name: "none", make: downloads(func(int) string { return "" })},
		{name: "resets of something else on the same port", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) {
				n.fetchAstray(at, "10.244.1.9", srv, "")
				c := capture.Endpoint{Addr: addr("10.244.1.9"), Port: 20_000 + n.port%40_000}
				n.tcp(at+500*ms, host("192.0.2.66:443"), c, capture.ACK, n.seq+1<<30, n.seq+1<<29, 100)
				n.tcp(at+501*ms, c, host("192.0.2.66:443"), capture.RST, n.seq+1<<29, 0, 0)
			})
		}},
	})
}

// Two sides that answer each other's acknowledgements do not agree; a keep-alive is answered once, and duplicate acknowledgements ask for data.
func TestAckLoop(t *testing.T) {
	const srv = "198.51.100.2:1883"
	talk := func(again func(n *network, at time.Duration, c, s capture.Endpoint, q uint32)) func(*network) {
		return func(n *network) {
			c, s := n.from("203.0.113.7"), host(srv)
			q := n.open(0, c, s)
			n.tcp(10*ms, c, s, capture.ACK|capture.PSH, q, q, 90)
			n.tcp(11*ms, s, c, capture.ACK|capture.PSH, q, q+90, 90)
			n.tcp(12*ms, c, s, capture.ACK, q+90, q+90, 0)
			again(n, sec, c, s, q+90)
		}
	}
	play(t, newStateMismatch, []scene{
		{name: "a loop", want: "warn service 198.51.100.2 1883", onset: sec, make: talk(func(n *network, at time.Duration, c, s capture.Endpoint, q uint32) {
			for i := range 50 {
				n.tcp(at+time.Duration(i)*ms, c, s, capture.ACK, q, q, 0)
				n.tcp(at+time.Duration(i)*ms+ms/2, s, c, capture.ACK, q+700, q-80, 0)
			}
		}), check: func(t *testing.T, features any) {
			if f := features.(StateMismatch); f.Class != mismatchEcho || f.Rounds != 64 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "keep-alives", make: talk(func(n *network, at time.Duration, c, s capture.Endpoint, q uint32) {
			for i := range 50 {
				n.tcp(at+time.Duration(i)*sec, c, s, capture.ACK, q-1, q, 0)
				n.tcp(at+time.Duration(i)*sec+ms/2, s, c, capture.ACK, q, q, 0)
			}
		})},
		{name: "duplicates of one side", make: talk(func(n *network, at time.Duration, c, s capture.Endpoint, q uint32) {
			for i := range 50 {
				n.tcp(at+time.Duration(i)*ms, c, s, capture.ACK, q, q, 0)
			}
		})},
		{name: "both sides acknowledge what they get", make: talk(func(n *network, at time.Duration, c, s capture.Endpoint, q uint32) {
			for i := range uint32(50) {
				at += ms
				n.tcp(at, c, s, capture.ACK|capture.PSH, q+i*10, q+i*10, 10)
				n.tcp(at+ms/8, s, c, capture.ACK|capture.PSH, q+i*10, q+i*10, 10)
				n.tcp(at+ms/4, c, s, capture.ACK, q+i*10+10, q+i*10+10, 0)
				n.tcp(at+ms/2, s, c, capture.ACK, q+i*10+10, q+i*10+10, 0)
			}
		})},
	})
}
