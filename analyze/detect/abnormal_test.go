package detect

import (
	"testing"
	"time"

	"jindan/analyze/measure"
	"jindan/capture"
)

func TestAbnormalTermination(t *testing.T) {
	const srv = "198.51.100.2:443"
	// ends is a connection with an answer if answered, that its client ends by RST at wait after its request; ttl is the RST's.
	ends := func(n *network, at time.Duration, answered bool, wait time.Duration, flags, ttl uint8) {
		c, s := n.from("203.0.113."+itoa(1+int(at/ms)%50)), host(srv)
		q, ack := n.open(at, c, s), uint32(0)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
		if answered {
			n.tcp(at+4*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
			ack = 1000
		}
		n.tcp(at+2*ms+wait, c, s, flags, q+100, q+ack, 0)
		n.obs[len(n.obs)-1].Packet.TTL = ttl
	}
	calls := func(n *network, from, to, step time.Duration) {
		every(from, to, step, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%50), srv, 5*ms) })
	}
	class := func(want string, resets int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			f := features.(AbnormalTermination)
			if f.Class != want || f.Resets != resets || f.ByClient+f.ByServer != f.Resets || f.Share > 1 {
				t.Errorf("%+v", f)
			}
		}
	}
	// late is a connection whose server closes 5 s after its answer. The client sends size bytes after, and closes at once if bye;
	// the server's host rejects that.
	late := func(n *network, at, after time.Duration, size uint32, bye bool) {
		c, s := n.from("203.0.113."+itoa(1+int(at/ms)%50)), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 400)
		n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+400, 1000)
		n.tcp(at+4*ms, c, s, capture.ACK, q+400, q+1000, 0)
		n.tcp(at+5*sec, s, c, capture.ACK|capture.FIN, q+1000, q+400, 0)
		if after > 0 {
			n.tcp(at+5*sec+ms, c, s, capture.ACK, q+400, q+1001, 0)
		}
		n.tcp(at+5*sec+after, c, s, capture.ACK|capture.PSH, q+400, q+1000, size)
		if bye {
			n.tcp(at+5*sec+after+ms/10, c, s, capture.ACK|capture.FIN, q+400+size, q+1001, 0)
		}
		n.tcp(at+5*sec+after+ms, s, c, capture.RST, q+1001, 0, 0)
	}
	// away are connections that the server closes after a time, as their first request is on its way.
	away := func(n *network, after time.Duration) {
		every(0, 30*sec, 500*ms, func(at time.Duration, _ int) {
			c, s := n.from("203.0.113.7"), host(srv)
			q := n.open(at, c, s)
			n.tcp(at+after, s, c, capture.ACK|capture.FIN, q, q, 0)
			n.tcp(at+after+ms/10, c, s, capture.ACK|capture.PSH, q, q, 49)
			n.tcp(at+after+ms/2, s, c, capture.RST, q+1, 0, 0)
		})
	}
	// unread is a connection whose client sends size bytes and closes, and whose server closes without reading them.
	unread := func(n *network, at time.Duration, size uint32) {
		x := n.talk(at, "203.0.113."+itoa(1+int(at/ms)%50), srv)
		x.turn(at + ms)
		n.tcp(at+5*sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, size)
		n.tcp(at+5*sec+ms/10, x.c, x.s, capture.ACK|capture.FIN, x.q+size, x.a, 0)
		n.tcp(at+5*sec+ms, x.s, x.c, capture.RST|capture.ACK, x.a, x.q+size+1, 0)
	}
	// shut is a connection whose server closes at wait after its only request, without an answer.
	shut := func(n *network, at, wait time.Duration) {
		c, s := n.from("203.0.113."+itoa(1+int(at/ms)%50)), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 517)
		n.tcp(at+2*ms+wait, s, c, capture.ACK|capture.FIN, q, q+517, 0)
		n.tcp(at+3*ms+wait, c, s, capture.ACK|capture.FIN, q+517, q+1, 0)
		n.tcp(at+4*ms+wait, s, c, capture.ACK, q+1, q+518, 0)
	}
	const rstAck = capture.RST | capture.ACK
	// cutsOff is a call whose client resets in the middle of the answer.
	cutsOff := func(n *network, at time.Duration) {
		c, s := n.from("203.0.113.9"), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 22)
		n.tcp(at+3*ms, s, c, capture.ACK, q, q+22, 1460)
		n.tcp(at+4*ms, c, s, capture.ACK, q+22, q+1460, 0)
		n.tcp(at+5*ms, s, c, capture.ACK, q+1460, q+22, 1460)
		n.tcp(at+5*ms+ms/2, c, s, rstAck, q+22, q+1460, 0)
	}
	// ended is a call whose server ends the connection with flags right after an answer of size bytes.
	ended := func(n *network, at time.Duration, size uint32, flags uint8) {
		x := n.talk(at, "203.0.113."+itoa(1+int(at/ms)%50), srv)
		n.tcp(at+2*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 300)
		n.tcp(at+3*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+300, size)
		n.tcp(at+4*ms, x.c, x.s, capture.ACK, x.q+300, x.a+size, 0)
		n.tcp(at+5*ms, x.s, x.c, flags, x.a+size, x.q+300, 0)
		if flags&capture.FIN != 0 {
			n.tcp(at+6*ms, x.c, x.s, capture.ACK|capture.FIN, x.q+300, x.a+size+1, 0)
			n.tcp(at+7*ms, x.s, x.c, capture.ACK, x.a+size+1, x.q+301, 0)
		}
	}
	// stops are 40 connections that a server closes at once at at, after one request each; their clients send another at times between 2 and 12 s later.
	stops := func(n *network, begin, at time.Duration) {
		for i := range 40 {
			d := time.Duration(i) * 10 * ms
			x := n.talk(begin+d, "203.0.113."+itoa(1+i), srv)
			x.turn(begin + d + ms)
			n.tcp(at+d/10, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
			n.tcp(at+d/10+ms, x.c, x.s, capture.ACK, x.q, x.a+1, 0)
			later := at + 2*sec + 25*d
			n.tcp(later, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a+1, 200)
			n.tcp(later+ms, x.s, x.c, capture.RST, x.a+1, 0, 0)
		}
	}
	play(t, newAbnormalTermination, []scene{
		{name: "a server whose process dies in the middle of one answer in two", want: "warn service 198.51.100.2 443", onset: 10*sec + 5*ms, make: func(n *network) {
			every(0, 10*sec, 100*ms, func(at time.Duration, _ int) { ended(n, at, 1400, capture.ACK|capture.FIN) })
			every(10*sec, 30*sec, 200*ms, func(at time.Duration, _ int) {
				ended(n, at, 900, rstAck)
				ended(n, at+50*ms, 1400, capture.ACK|capture.FIN)
				ended(n, at+100*ms, 1400, capture.ACK|capture.FIN)
			})
		}, check: class("CUT-SHORT", 100)},
		{name: "a server that closes by reset on purpose", make: func(n *network) {
			every(0, 30*sec, 100*ms, func(at time.Duration, _ int) { ended(n, at, 1400, rstAck) })
		}},
		{name: "a server that closes one connection in ten by reset", make: func(n *network) {
			every(0, 30*sec, 100*ms, func(at time.Duration, i int) {
				ended(n, at, 1400, [...]uint8{capture.ACK | capture.FIN, rstAck}[measure.Count(i > 40 && i%10 == 0)])
			})
		}},
		{name: "a server that is restarted twice; its clients send on what it has closed", want: "info service 198.51.100.2 443", onset: 12 * sec, make: func(n *network) {
			stops(n, 0, 10*sec)
			stops(n, 24*sec, 30*sec)
		}, check: class("LATE-REQUEST", 80)},
		{name: "clients whose pauses are as long as the server's: a few at once, every 3 s", want: "error service 198.51.100.2 443", onset: 5 * sec, make: func(n *network) {
			every(0, 30*sec, 3*sec, func(at time.Duration, _ int) {
				for i := range 4 {
					late(n, at+time.Duration(i)*ms, -ms/2, 400, false)
				}
			})
		}, check: class("LATE-REQUEST", 40)},
		{name: "clients that leave after 0.3 s by RST", want: "error service 198.51.100.2 443", onset: 10*sec + 302*ms, make: func(n *network) {
			calls(n, 0, 10*sec, 100*ms)
			every(10*sec, 30*sec, 100*ms, func(at time.Duration, _ int) { ends(n, at, false, 300*ms, rstAck, 64) })
		}, check: class("ABORT", 200)},
		{name: "clients that leave, long after a restart: it is no part of that", want: "error service 198.51.100.2 443", onset: 40*sec + 302*ms, make: func(n *network) {
			calls(n, 0, 10*sec, 100*ms)
			stops(n, 0, 10*sec)
			every(40*sec, 60*sec, 100*ms, func(at time.Duration, _ int) { ends(n, at, false, 300*ms, rstAck, 64) })
		}, check: class("ABORT", 200)},
		{name: "clients that leave after 20 s of waiting", want: "error service 198.51.100.2 443", onset: 30*sec + 2*ms, make: func(n *network) {
			calls(n, 0, 10*sec, 100*ms)
			every(10*sec, 30*sec, 200*ms, func(at time.Duration, _ int) { ends(n, at, false, 20*sec, rstAck, 64) })
		}, check: class("ABORT", 100)},
		{name: "a device on the way", want: "error service 198.51.100.2 443", onset: 10*sec + 12*ms, make: func(n *network) {
			calls(n, 0, 10*sec, 100*ms)
			every(10*sec, 30*sec, 100*ms, func(at time.Duration, _ int) { ends(n, at, false, 10*ms, capture.RST, 255) })
		}, check: class(classInjected, 200)},
		{name: "idle connections that are forgotten", want: "error service 198.51.100.2 443", onset: 350*sec + 3*ms, make: func(n *network) {
			for i := range 40 {
				at := time.Duration(i) * 100 * ms
				c, s := n.from("203.0.113."+itoa(1+i)), host(srv)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
				n.tcp(at+350*sec+2*ms, c, s, capture.ACK|capture.PSH, q+100, q+1000, 100)
				n.tcp(at+350*sec+3*ms, s, c, capture.RST, q+1000, 0, 0)
			}
		}, check: func(t *testing.T, features any) {
			if f := features.(AbnormalTermination); f.Class != "LB-IDLE" || f.IdleAge < 349 || f.IdleAge > 351 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "clients that end what they have not used for 31 s", make: func(n *network) {
			for i := range 40 {
				x := n.talk(time.Duration(i)*100*ms, "203.0.113."+itoa(1+i), srv)
				x.turn(time.Duration(i)*100*ms + 2*ms)
				n.tcp(time.Duration(i)*100*ms+31*sec, x.c, x.s, rstAck, x.q, x.a, 0)
			}
		}},
		{name: "requests that come to a server that has closed its idle connection", want: "error service 198.51.100.2 443", onset: 17 * sec, make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { late(n, at, 12*sec, 60, false) })
		}, check: class("LATE-REQUEST", 60)},
		{name: "a server at its limit closes what it accepts", want: "error service 198.51.100.2 443", onset: 2 * ms, make: func(n *network) { away(n, 2*ms) },
			check: func(t *testing.T, features any) {
				if f := features.(AbnormalTermination); f.Class != "LATE-REQUEST" || f.TurnedAway != 60 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one that closes what nobody has used for 10 s", want: "error service 198.51.100.2 443", onset: 10 * sec, make: func(n *network) { away(n, 10*sec) },
			check: func(t *testing.T, features any) {
				if f := features.(AbnormalTermination); f.Class != "LATE-REQUEST" || f.TurnedAway != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "pooled connections that outlive the server's patience, one every 25 s", want: "error service 198.51.100.2 443", onset: 17 * sec, make: func(n *network) {
			every(0, 300*sec, 25*sec, func(at time.Duration, _ int) { late(n, at, 12*sec, 60, false) })
		}, check: func(t *testing.T, features any) {
			if f := features.(AbnormalTermination); f.Resets != 12 || f.Connections != 12 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "requests that cross the server's FIN", want: "error service 198.51.100.2 443", onset: 5 * sec, make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { late(n, at, -ms/2, 400, false) })
		}, check: class("LATE-REQUEST", 60)},
		{name: "close alerts after the server's FIN", make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { late(n, at, 2*ms, 31, true) })
		}},
		{name: "close alerts that the server's host rejects before the FIN comes, a millisecond after them", make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { late(n, at, 2*ms, 31, false) })
		}},
		{name: "close alerts that the server's host rejects before the FIN comes", make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { late(n, at, 2*ms, 31, false) })
			for i := range n.obs { // at the server the rejection follows at once
				if p := &n.obs[i].Packet; p.Flags == capture.RST {
					n.obs[i].At = n.obs[i].At.Add(-ms + ms/20)
				}
			}
		}},
		{name: "servers that close with the client's close alert unread", make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { unread(n, at, 24) })
		}},
		{name: "servers that close with a request unread", want: "error service 198.51.100.2 443", onset: 5*sec + ms, make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { unread(n, at, 400) })
		}, check: class("ABORT", 60)},
		{name: "a server that closes as soon as it is told something", want: "error service 198.51.100.2 443", onset: 3 * ms, make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) { shut(n, at, ms) })
		}, check: class("NO-ANSWER", 60)},
		{name: "a server that closes some connections after 30 s without an answer", want: "warn service 198.51.100.2 443", onset: 40*sec + 2*ms, make: func(n *network) {
			calls(n, 0, 90*sec, 200*ms)
			every(10*sec, 30*sec, sec, func(at time.Duration, _ int) { shut(n, at, 30*sec) })
		}, check: class("NO-ANSWER", 20)},
		{name: "a server that restarts, and drops what it had in work", want: "info service 198.51.100.2 443", onset: 40*sec + 2*ms, make: func(n *network) {
			calls(n, 0, 90*sec, 200*ms)
			every(10*sec, 22*sec, sec, func(at time.Duration, _ int) { shut(n, at, 40*sec-at) })
		}, check: class("NO-ANSWER", 12)},
		{name: "a server that restarts, and resets what waits to be accepted", want: "info service 198.51.100.2 443", onset: 41 * sec, make: func(n *network) {
			calls(n, 0, 90*sec, 200*ms)
			for i := range 12 {
				c, s := n.from("203.0.113.7"), host(srv)
				at := 40*sec + time.Duration(i)*50*ms
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
				n.tcp(41*sec+time.Duration(i)*10*time.Microsecond, s, c, capture.RST|capture.ACK, q, q+100, 0)
			}
		}, check: class("ABORT", 12)},
		{name: "streams that never get an answer, closed by their reader", make: func(n *network) {
			every(0, 10*sec, 500*ms, func(at time.Duration, _ int) { shut(n, at, 60*sec) })
		}},
		{name: "health checks that reset after the whole answer", make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, _ int) { ends(n, at, true, 3*ms, rstAck, 64) })
		}},
		{name: "health checks that want no more than the status line", make: func(n *network) {
			every(0, 60*sec, 2*sec, func(at time.Duration, _ int) { cutsOff(n, at) })
		}},
		{name: "health checks of which each third reads the whole answer", make: func(n *network) {
			every(0, 60*sec, 2*sec, func(at time.Duration, i int) {
				if i%3 == 2 {
					n.call(at, "203.0.113.1", srv, ms)
				} else {
					cutsOff(n, at)
				}
			})
		}},
		{name: "the only connection: a box between resets it after 6 min of silence", want: "warn service 198.51.100.2 443", onset: 361*sec + ms, make: func(n *network) {
			x := n.talk(0, "203.0.113.1", srv)
			x.turn(sec)
			n.tcp(361*sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
			n.tcp(361*sec+ms, x.s, x.c, capture.RST, x.a, 0, 0)
			n.obs[len(n.obs)-1].Packet.TTL = 250
		}, check: func(t *testing.T, features any) {
			if f := features.(AbnormalTermination); f.Class != classInjected || f.Idle != 1 || f.IdleLeast < 350 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "clients that are greeted after 12 s, and reset after their turns with the farewell unread", make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, _ int) {
				x := n.talk(at, "203.0.113.9", srv)
				n.tcp(at+12*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 30)
				x.a += 30
				x.turn(at + 12*sec + ms)
				n.tcp(at+12*sec+20*ms, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 15)
				n.tcp(at+12*sec+21*ms, x.c, x.s, rstAck, x.q, x.a+16, 0)
			})
		}},
		{name: "the only connection: its client half-closes and waits; after 75 s its answer is rejected", want: "warn service 198.51.100.2 443", onset: 76*sec + ms, make: func(n *network) {
			x := n.talk(0, "203.0.113.1", srv)
			n.tcp(sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 300)
			n.tcp(sec, x.c, x.s, capture.ACK|capture.FIN, x.q+300, x.a, 0)
			n.tcp(sec+ms, x.s, x.c, capture.ACK, x.a, x.q+301, 0)
			n.tcp(76*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+301, 900)
			n.tcp(76*sec+ms, x.c, x.s, capture.RST, x.q+301, 0, 0)
		}, check: class("LB-IDLE", 1)},
		{name: "the only connection: its client had its answer, and rejects the server's farewell after 20 s", make: func(n *network) {
			x := n.talk(0, "203.0.113.1", srv)
			x.turn(sec)
			n.tcp(sec+3*ms, x.c, x.s, capture.ACK|capture.FIN, x.q, x.a, 0)
			n.tcp(sec+4*ms, x.s, x.c, capture.ACK, x.a, x.q+1, 0)
			n.tcp(21*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+1, 24)
			n.tcp(21*sec+ms, x.c, x.s, capture.RST, x.q+1, 0, 0)
		}},
		{name: "clients that reset once they have read an answer that took 12 s", make: func(n *network) {
			for i := range 30 {
				at := time.Duration(i) * 500 * ms
				x := n.talk(at, "203.0.113.1", srv)
				n.tcp(at+ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 300)
				n.tcp(at+2*ms, x.s, x.c, capture.ACK, x.a, x.q+300, 0)
				n.tcp(at+12*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+300, 900)
				n.tcp(at+12*sec+ms, x.c, x.s, capture.ACK, x.q+300, x.a+900, 0)
				n.tcp(at+12*sec+2*ms, x.s, x.c, capture.ACK|capture.FIN, x.a+900, x.q+300, 0)
				n.tcp(at+12*sec+3*ms, x.c, x.s, capture.RST|capture.ACK, x.q+300, x.a+901, 0)
			}
		}},
		{name: "short requests on connections that the server has closed long before, in front of the caller", want: "warn service 198.51.100.2 443",
			onset: 60*sec + 600*time.Microsecond, make: func(n *network) {
				calls(n, 0, 90*sec, 500*ms)
				every(0, 16*sec, 2*sec, func(at time.Duration, _ int) {
					x := n.talk(at, "203.0.113.1", srv)
					x.turn(at + 10*ms)
					n.tcp(at+30*sec, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
					n.tcp(at+30*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+1, 0)
					n.tcp(at+60*sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a+1, 60)
					n.tcp(at+60*sec+600*time.Microsecond, x.s, x.c, capture.RST, x.a+1, 0, 0)
				})
			}, check: class("LATE-REQUEST", 8)},
		{name: "as many farewells on such connections, in front of the server", make: func(n *network) {
			calls(n, 0, 90*sec, 500*ms)
			every(0, 16*sec, 2*sec, func(at time.Duration, _ int) {
				x := n.talk(at, "203.0.113.1", srv)
				x.turn(at + 10*ms)
				n.tcp(at+30*sec, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
				n.tcp(at+30*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+1, 0)
				n.tcp(at+60*sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a+1, 60)
				n.tcp(at+60*sec+20*time.Microsecond, x.s, x.c, capture.RST, x.a+1, 0, 0)
				n.tcp(at+60*sec+40*time.Microsecond, x.c, x.s, capture.ACK|capture.FIN, x.q+60, x.a+1, 0)
			})
		}},
		{name: "an address that moves to another host: eight of sixteen connections", want: "error service 198.51.100.2 443", onset: 20*sec + ms, make: func(n *network) {
			for i := range 8 {
				d := time.Duration(i) * 5 * ms
				x := n.talk(d, "203.0.113.1", srv)
				every(sec, 20*sec, sec, func(at time.Duration, _ int) { x.turn(at + d) })
				n.tcp(20*sec+d, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
				n.tcp(20*sec+d+ms, x.s, x.c, capture.RST, x.a, 0, 0)
				n.call(21*sec+d, "203.0.113.1", srv, 5*ms)
			}
		}, check: class("ABORT", 8)},
		{name: "packets that come untranslated: the server knows no such connection, in the middle of its answer", want: "error service 198.51.100.2 443",
			onset: 20*sec + 13*ms, make: func(n *network) {
				calls(n, 0, 30*sec, 500*ms)
				cutOff(n, true)
			}, check: class("ABORT", 8)},
		{name: "the same after whole answers, as it always closes", make: func(n *network) { cutOff(n, false) }},
		{name: "the only connection: closed by RST after a minute of silence", make: func(n *network) {
			x := n.talk(0, "203.0.113.1", srv)
			x.turn(sec)
			n.tcp(61*sec, x.c, x.s, capture.RST|capture.ACK, x.q, x.a, 0)
		}},
		{name: "two of sixty that their clients cut off", make: func(n *network) {
			calls(n, 0, 30*sec, 500*ms)
			for i := range 2 {
				ends(n, 10*sec+time.Duration(i)*7*sec, false, 400*ms, capture.RST|capture.ACK, 64)
			}
		}},
		{name: "clients that cut off answers, at any time", want: "error service 198.51.100.2 443", onset: 15*ms + ms/2, make: func(n *network) {
			at := 10 * ms
			for i := range 30 {
				cutsOff(n, at)
				at += time.Duration(200+(i*i*397)%3000) * ms
			}
		}},
		{name: "health checks that connect and reset", make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, _ int) {
				c, s := n.from("203.0.113.9"), host(srv)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, rstAck, q, q, 0)
			})
		}},
	})
}

// What was not judged is not ruled out: clients that leave without an answer, be it by FIN, and one bad listener among many good ones.
func TestAbnormalTerminationClear(t *testing.T) {
	calls := func(n *network) {
		every(0, 30*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113.1", "198.51.100.2:443", 5*ms) })
	}
	for _, c := range []struct {
		name string
		make func(*network)
		want bool
	}{
		{"healthy", calls, true},
		{"too few", func(n *network) { n.call(0, "203.0.113.1", "198.51.100.2:443", 5*ms) }, false},
		{"impatient", func(n *network) {
			every(0, 30*sec, 100*ms, func(at time.Duration, i int) { n.hung(at, "203.0.113.1", "198.51.100.2:443", 300*ms) })
		}, false},
		{"one of many listeners", func(n *network) {
			calls(n)
			for i := range 5 {
				at := time.Duration(i) * sec
				c, s := n.from("203.0.113.1"), host("198.51.100.3:443")
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+500*ms, c, s, capture.RST|capture.ACK, q+100, q, 0)
			}
		}, false},
	} {
		var n network
		c.make(&n)
		if got := n.cleared(t, newAbnormalTermination()); got != c.want {
			t.Errorf("%s: cleared %v", c.name, got)
		}
	}
}

// cutOff are eight answers of three full segments, each followed by a RST that acknowledges nothing; inside: there was more to come.
func cutOff(n *network, inside bool) {
	for i := range 8 {
		at := 20*sec + time.Duration(i)*100*ms
		c, s := n.from("203.0.113.1"), host("198.51.100.2:443")
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 200)
		for j := range uint32(3) {
			flags := capture.ACK
			if j == 2 && !inside {
				flags |= capture.PSH
			}
			n.tcp(at+10*ms+time.Duration(j)*ms, s, c, flags, q+j*1460, q+200, 1460)
			n.tcp(at+10*ms+time.Duration(j)*ms+ms/2, c, s, capture.ACK, q+200, q+(j+1)*1460, 0)
		}
		n.tcp(at+13*ms, s, c, capture.RST, q+3*1460, 0, 0)
	}
}

// An answer that still comes is cut off by its client: at a time limit, again and again, that is trouble; at any time it may have seen
// enough. Neither is ruled out.
func TestAnswersCutOffByClients(t *testing.T) {
	const srv = "198.51.100.2:443"
	cut := func(after func(i int) time.Duration) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 700*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.9", srv, 20*ms) })
			for i := range 6 {
				c, s := n.from("203.0.113.7"), host(srv)
				at := sec + time.Duration(i)*5*sec
				q := n.open(at, c, s)
				a := q
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				end := at + 2*ms + after(i)
				for u := at + 20*ms; u < end-ms; u += 100 * ms {
					n.tcp(u, s, c, capture.ACK|capture.PSH, a, q+100, 1000)
					n.tcp(u+ms/2, c, s, capture.ACK, q+100, a+1000, 0)
					a += 1000
				}
				n.tcp(end, c, s, capture.RST|capture.ACK, q+100, a, 0)
			}
		}
	}
	limit := cut(func(int) time.Duration { return 20 * sec })
	leave := cut(func(i int) time.Duration { return 5*sec + time.Duration(i)*2700*ms })
	play(t, newAbnormalTermination, []scene{
		{name: "at a time limit", want: "warn service 198.51.100.2 443", onset: 21*sec + 2*ms, make: limit, check: func(t *testing.T, x any) {
			if f := x.(AbnormalTermination); f.Limited != 6 || f.Limit != 20 || f.Class != "ABORT" {
				t.Errorf("%+v", f)
			}
		}},
		{name: "at any time", make: leave},
	})
	for name, add := range map[string]func(*network){"limit": limit, "leave": leave} {
		var n network
		if add(&n); n.cleared(t, newAbnormalTermination()) {
			t.Errorf("%s: ruled out", name)
		}
	}
}

// A server closes what has been silent for 20 s. Where the last that was said was a message of the client, that is no failure to answer; where
// it closes at any time, it is.
func TestClosedWhenIdle(t *testing.T) {
	const srv = "198.51.100.2:443"
	sockets := func(n *network, after func(i int) time.Duration) {
		every(0, 40*sec, sec, func(at time.Duration, i int) {
			x := n.talk(at, "203.0.113."+itoa(1+i), srv)
			x.turn(at + 2*ms)
			last := at + 4*ms
			wait := 20 * sec
			if i%3 == 0 {
				last += 500 * ms
				n.tcp(last, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 90)
				x.q += 90
				n.tcp(last+ms, x.s, x.c, capture.ACK, x.a, x.q, 0)
				wait = after(i)
			}
			n.tcp(last+wait, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
			n.tcp(last+wait+ms, x.c, x.s, capture.ACK|capture.FIN, x.q, x.a+1, 0)
			n.tcp(last+wait+2*ms, x.s, x.c, capture.ACK, x.a+1, x.q+1, 0)
		})
	}
	play(t, newAbnormalTermination, []scene{
		{name: "after the same silence", want: "info service 198.51.100.2 443", onset: 20*sec + 504*ms,
			make: func(n *network) { sockets(n, func(int) time.Duration { return 20 * sec }) }},
		{name: "at any time", want: "error service 198.51.100.2 443", onset: 3*sec + 504*ms,
			make: func(n *network) { sockets(n, func(i int) time.Duration { return 3*sec + time.Duration(i)*37*ms }) }},
	})
}
