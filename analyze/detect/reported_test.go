package detect

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"jindan/capture"
)

// Troubles as people report them: of each kind what fires, and what looks like it and does not.

// half opens a connection on which what the client sends after its SYN is lost: data comes again, and, if so, the SYN-ACK.
func (n *network) half(at time.Duration, client, server string, synAcks bool) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	for i := range 6 {
		t := at + 2*ms + time.Duration(1<<i-1)*200*ms
		n.tcp(t, c, s, capture.ACK|capture.PSH, q, q, 300)
	}
	if synAcks {
		for _, d := range []time.Duration{sec, 3 * sec, 7 * sec} {
			n.tcp(at+d+50*ms, s, c, capture.SYN|capture.ACK, q-1, q, 0)
			n.tcp(at+d+51*ms, c, s, capture.ACK, q+300, q, 0)
		}
	}
}

func TestUnreached(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	unreached := func(n, synAcks int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(DeadConnection); f.Class != deadUnreached || f.Connections != n || f.SynAcks != synAcks {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newDeadConnection, []scene{
		{name: "what follows the SYN is lost, as by a firewall that sees one direction", want: "error service 198.51.100.2 443", onset: 2 * ms,
			check: unreached(5, 5), make: func(n *network) {
				every(0, 10*sec, 2*sec, func(at time.Duration, _ int) { n.half(at, app, srv, true) })
			}},
		{name: "a SYN proxy without a server", want: "error service 198.51.100.2 443", onset: 2 * ms, check: unreached(5, 0), make: func(n *network) {
			every(0, 10*sec, 2*sec, func(at time.Duration, _ int) { n.half(at, app, srv, false) })
		}},
		{name: "a listener that takes others meanwhile", make: func(n *network) {
			every(0, 10*sec, 2*sec, func(at time.Duration, _ int) { n.half(at, app, srv, true) })
			every(0, 20*sec, 500*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
		}},
		{name: "an outage lasts until the first acknowledgement", want: "warn service 198.51.100.2 443", onset: 5 * sec,
			check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Class != deadOutage || f.Silent < 9.05 || f.Silent > 9.15 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				x := n.talk(0, app, srv)
				every(100*ms, 5*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
				x.vain(5*sec, 5)
				x.turn(14*sec + 100*ms)
				every(14*sec+200*ms, 20*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
			}},
	})
	// A full queue leaves SYNs unanswered, too, unless the listener's own host was seen to get what comes.
	play(t, newAcceptQueue, []scene{
		{name: "seen from elsewhere, all SYNs answered", local: app, make: func(n *network) {
			every(0, 20*sec, sec, func(at time.Duration, _ int) { n.half(at, app, srv, true) })
		}},
		{name: "the same at the listener's host", local: "198.51.100.2", want: "warn service 198.51.100.2 443", onset: ms, make: func(n *network) {
			every(0, 20*sec, sec, func(at time.Duration, _ int) { n.half(at, app, srv, true) })
		}},
	})
}

func TestMismatchOwnClient(t *testing.T) {
	const srv = "198.51.100.2:443"
	play(t, newStateMismatch, []scene{
		{name: "a share of its own client's requests", want: "error service 198.51.100.2 443", onset: 12 * sec, check: func(t *testing.T, features any) {
			if f := features.(StateMismatch); f.Failed != 6 || f.Attempts != 18 {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) {
			every(0, 40*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", srv, 5*ms) })
			every(0, 12*sec, sec, func(at time.Duration, _ int) { n.call(at, "203.0.113.77", srv, 5*ms) })
			every(12*sec, 18*sec, sec, func(at time.Duration, _ int) { n.met(at, "203.0.113.77", srv, 3, false) })
		}},
		{name: "a loop begins when its connection was lost", want: "warn service 198.51.100.2 443", onset: 3 * sec, make: func(n *network) {
			x := n.talk(0, "203.0.113.77", srv)
			x.turn(sec)
			x.push(3*sec, 3)
			every(8*sec, 9*sec, 2*ms, func(at time.Duration, _ int) {
				n.tcp(at, x.c, x.s, capture.RST, x.q+200, 0, 0)
				n.tcp(at+ms, x.s, x.c, capture.ACK, x.a+300, x.q, 0)
			})
		}},
	})
}

func TestHeldConnections(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:5432"
	pool := func(n *network, held int, wait time.Duration) {
		list := make([]*talk, 6)
		for i := range list {
			x := n.talk(time.Duration(i)*10*ms, app, srv)
			every(500*ms, 20*sec, 500*ms, func(at time.Duration, _ int) { x.turn(at + time.Duration(i)*20*ms) })
			list[i] = x
		}
		for i, x := range list {
			if i < held {
				n.tcp(20*sec, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
				n.tcp(20*sec+ms, x.s, x.c, capture.ACK, x.a, x.q+200, 0)
				n.tcp(20*sec+wait, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+200, 800)
				continue
			}
			every(20*sec, 50*sec, 500*ms, func(at time.Duration, _ int) { x.turn(at + time.Duration(i)*20*ms) })
		}
	}
	play(t, newSlowServer, []scene{
		{name: "four of six pooled connections wait for a lock", want: "warn service 198.51.100.2 5432", onset: 20 * sec,
			make: func(n *network) { pool(n, 4, 25*sec) }, check: func(t *testing.T, features any) {
				if f := features.(SlowServer); f.Slow != 4 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "two of them", make: func(n *network) { pool(n, 2, 25*sec) }},
		{name: "four of them, shortly", make: func(n *network) { pool(n, 4, 5*sec) }},
	})
	var x lateWaits
	for _, d := range []time.Duration{60010, 60020, 60004, 60090} {
		x.add(d * ms)
	}
	if limit, n := x.limit(); limit != time.Minute || n != 4 {
		t.Errorf("limit %v of %d", limit, n)
	}
	for _, d := range []time.Duration{4300, 7900} {
		x.add(d * ms)
	}
	if limit, n := x.limit(); n != 0 {
		t.Errorf("limit %v of %d", limit, n)
	}
}

func TestStoppedWhileAsked(t *testing.T) {
	const srv = "198.51.100.2:2049"
	// mounts are connections on which one request follows the other until the server answers nobody for half a minute, while
	// its clients go on to ask. Each request is a segment of its own. With rounds nothing stops, and one client asks three times each time
	// before it is answered, after 3 s.
	mounts := func(n *network, rounds bool) {
		for i := range 4 {
			x := n.talk(time.Duration(i)*10*ms, "203.0.113."+itoa(1+i), srv)
			round := func(at, answer time.Duration) {
				for range 3 {
					n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
					x.q += 200
					n.tcp(at+40*ms, x.s, x.c, capture.ACK, x.a, x.q, 0)
					at += 400 * ms
				}
				for range 3 {
					n.tcp(answer, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
					x.a += 800
				}
				n.tcp(answer+ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
			}
			at := time.Duration(i) * 17 * ms
			if rounds {
				if i == 3 {
					every(200*ms, 55*sec, 5*sec, func(at time.Duration, _ int) { round(at, at+3*sec) })
				} else {
					every(200*ms+at, 60*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
				}
				continue
			}
			every(200*ms+at, 20*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
			round(20*sec+at, 50*sec+at)
			every(51*sec+at, 60*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
		}
	}
	play(t, newSlowServer, []scene{
		{name: "a file server whose disk hangs: its clients ask on", want: "warn service 198.51.100.2 2049", onset: 20 * sec,
			make: func(n *network) { mounts(n, false) }, check: func(t *testing.T, features any) {
				if f := features.(SlowServer); f.StoppedFlows != 4 || f.Stopped < 29 || f.Stopped > 31 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "a client that always asks on before it is answered, beside others", make: func(n *network) { mounts(n, true) }},
	})
}

func TestLateRequests(t *testing.T) {
	const srv = "198.51.100.2:8080"
	race := func(n *network, lost int) {
		every(0, 100*sec, sec, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", srv, 5*ms) })
		every(100*ms, time.Duration(lost)*10*sec, 10*sec, func(at time.Duration, _ int) {
			x := n.talk(at, "203.0.113.1", srv)
			x.turn(at + 10*ms)
			end := at + 5*sec
			n.tcp(end, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
			n.tcp(end+ms/2, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
			n.tcp(end+ms/2+50*time.Microsecond, x.c, x.s, capture.ACK|capture.FIN, x.q+200, x.a+1, 0)
			n.tcp(end+ms, x.s, x.c, capture.RST, x.a+1, 0, 0)
		})
	}
	play(t, newAbnormalTermination, []scene{
		{name: "a few of many, each of which lost a request", want: "warn service 198.51.100.2 8080", onset: 5100*ms + ms/2, make: func(n *network) { race(n, 7) }},
		{name: "one or two", make: func(n *network) { race(n, 2) }},
	})
}

func TestOnlyCoalesced(t *testing.T) {
	const app, peer = "192.0.2.1", "198.51.100.2"
	// A packet of four segments is lost, as often as it is sent as one; its segments get through one at a time, unless single is lost, too.
	fetch := func(n *network, at time.Duration, lostSingle bool) {
		c, s := n.from(app), host(peer+":80")
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		for _, d := range []time.Duration{3 * ms, 203 * ms, 603 * ms} {
			n.tcp(at+d, s, c, capture.ACK|capture.PSH, q, q+100, 4*1460)
		}
		for i := range uint32(4) {
			t := at + 1400*ms + time.Duration(i)*2*ms
			n.tcp(t, s, c, capture.ACK, q+i*1460, q+100, 1460)
			if lostSingle {
				n.tcp(t+2*sec, s, c, capture.ACK, q+i*1460, q+100, 1460)
				t += 2 * sec
			}
			n.tcp(t+ms, c, s, capture.ACK, q+100, q+(i+1)*1460, 0)
		}
	}
	run := func(lostSingle bool) (coalesced int) {
		n := new(network)
		every(0, 40*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, peer+":80", 5*ms) })
		every(20*sec, 40*sec, sec, func(at time.Duration, _ int) { fetch(n, at, lostSingle) })
		for _, f := range n.findings(t, newSizeLoss(), peer) {
			coalesced = f.Features.(SizeLoss).Coalesced
		}
		return coalesced
	}
	if n := run(false); n == 0 {
		t.Error("only coalesced packets are lost, and it is not said")
	}
	if n := run(true); n != 0 {
		t.Errorf("full segments are lost as well: %d", n)
	}
}

func TestDNSUnreachable(t *testing.T) {
	play(t, newDNSUnanswered, []scene{{name: "ICMP is all that comes back", want: "error resolver 192.0.2.9 198.51.100.53 53", onset: 0, make: func(n *network) {
		every(0, 30*sec, sec, func(at time.Duration, i int) {
			c := n.from("192.0.2.9")
			q := n.ask(at, c, "198.51.100.53:53", "host"+itoa(i)+".example", 1)
			quote := make([]byte, 28, 28+len(q))
			quote[0], quote[9] = 0x45, capture.ProtoUDP
			from, to := c.Addr.Netip().As4(), addr("198.51.100.53").Netip().As4()
			copy(quote[12:], from[:])
			copy(quote[16:], to[:])
			binary.BigEndian.PutUint16(quote[20:], c.Port)
			binary.BigEndian.PutUint16(quote[22:], 53)
			n.add(at+ms, capture.Packet{Src: capture.Endpoint{Addr: addr("198.51.100.53")}, Dst: capture.Endpoint{Addr: c.Addr},
				Proto: capture.ProtoICMP, ICMPType: 3, ICMPCode: 3, Data: append(quote, q...)})
		})
	}}})
}

func TestRoutingLoop(t *testing.T) {
	const app, srv = "192.0.2.1", "198.51.100.2:8080"
	loop := func(n *network, rounds int) {
		every(0, 10*sec, sec, func(at time.Duration, _ int) {
			c, s := n.from(app), host(srv)
			for i := range 4 {
				n.tcp(at+time.Duration(1<<i-1)*sec, c, s, capture.SYN, n.seq, 0, 0)
				p := n.obs[len(n.obs)-1]
				for r := range rounds {
					p.At += capture.Instant(400 * time.Microsecond)
					p.Packet.TTL = 64 - uint8(2*(r+1))
					n.obs = append(n.obs, p)
				}
			}
		})
	}
	looped := func(want bool) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(DeadUpstream); f.Looped > 0 != want {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newDeadUpstream, []scene{
		{name: "SYNs go round in a circle", local: app, want: "warn upstream 192.0.2.1 198.51.100.2 8080", check: looped(true), make: func(n *network) { loop(n, 30) }},
		{name: "captured before and after a router", local: app, want: "warn upstream 192.0.2.1 198.51.100.2 8080", check: looped(false),
			make: func(n *network) { loop(n, 1) }},
	})
}

func TestNarrowWindow(t *testing.T) {
	const srv = "198.51.100.2:80"
	trickle := func(n *network, window uint32, fits bool) {
		x := n.talk(0, "203.0.113.5", srv)
		n.tcp(100*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
		n.obs[len(n.obs)-1].Packet.Window = uint16(window)
		x.q += 200
		every(110*ms, 10*sec, 50*ms, func(at time.Duration, i int) {
			size := window
			if fits {
				size -= uint32(1 + i%40)
			}
			n.tcp(at, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, size)
			x.a += size
			n.tcp(at+20*ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
			n.obs[len(n.obs)-1].Packet.Window = uint16(window)
		})
	}
	// scaled are segments of 501 bytes, the window that the client announces less a scale of 7, which go on as soon as the client acknowledges them, or answers.
	scaled := func(n *network, answered bool) {
		x := n.talk(0, "203.0.113.5", srv)
		for i := range n.obs {
			if p := &n.obs[i].Packet; p.Flags&capture.SYN != 0 {
				p.Opts, p.WScale = p.Opts|capture.OptWScale, 7
			}
		}
		every(10*ms, 10*sec, 20*ms, func(at time.Duration, _ int) {
			n.tcp(at, x.c, x.s, capture.ACK, x.q, x.a, 0)
			if answered {
				n.obs[len(n.obs)-1].Packet.Len = 40
				x.q += 40
			}
			n.obs[len(n.obs)-1].Packet.Window = 501
			n.tcp(at+2*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 501)
			x.a += 501
		})
	}
	// probed is a window that closes three times, and opens for less than a segment first, of which a probe takes all there is.
	probed := func(n *network) {
		x := n.talk(0, "203.0.113.5", srv)
		n.tcp(100*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
		x.q += 200
		window := func(at time.Duration, room uint16) {
			n.tcp(at, x.c, x.s, capture.ACK, x.q, x.a, 0)
			n.obs[len(n.obs)-1].Packet.Window = room
		}
		send := func(at time.Duration, size uint32) {
			n.tcp(at, x.s, x.c, capture.ACK, x.a, x.q, size)
			x.a += size
		}
		every(sec, 22*sec, 7*sec, func(at time.Duration, _ int) {
			send(at, 1460)
			window(at+20*ms, 800)
			send(at+300*ms, 800)
			window(at+320*ms, 0)
			window(at+5*sec, 60000)
		})
	}
	play(t, newSlowReceiver, []scene{
		{name: "closed now and then, and a probe is cut to what room there is", want: "info upstream 203.0.113.5 198.51.100.2 80", onset: 1320 * ms, make: probed,
			check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Squeezed != 0 || f.ZeroWindows != 3 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "each segment is cut to the window", want: "warn upstream 203.0.113.5 198.51.100.2 80", onset: 110 * ms,
			make: func(n *network) { trickle(n, 229, false) }, check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Widest != 229 || f.Squeezed < 190 || f.Narrow != 1 || !f.Unscaled {
					t.Errorf("%+v", f)
				}
			}},
		{name: "both SYNs agree upon a scale, and each segment is cut to the window before it", want: "warn upstream 203.0.113.5 198.51.100.2 80", onset: 12 * ms,
			make: func(n *network) { scaled(n, false) }, check: func(t *testing.T, features any) {
				if f := features.(SlowReceiver); f.Widest != 501 || !f.Unread || f.Unscaled {
					t.Errorf("%+v", f)
				}
			}},
		{name: "messages as long as the window before its scale, each answered", make: func(n *network) { scaled(n, true) }},
		{name: "small messages into a small window", make: func(n *network) { trickle(n, 229, true) }},
		{name: "windows of more than a segment", make: func(n *network) { trickle(n, 1460, false) }},
	})
}

func TestStandstillOwed(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:2049"
	used := func(n *network) *talk {
		x := n.talk(0, app, srv)
		every(100*ms, 5*sec, 100*ms, func(at time.Duration, _ int) { x.turn(at) })
		return x
	}
	ask := func(n *network, x *talk, at time.Duration) {
		n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
		x.q += 200
		n.tcp(at+ms, x.s, x.c, capture.ACK, x.a, x.q, 0)
	}
	// askers are k connections with one request each, which wait to the end, 50 s on; of one the request is answered.
	askers := func(n *network, k int, answer bool) {
		for i := range k {
			x := n.talk(time.Duration(i)*ms, "203.0.113."+itoa(1+i), srv)
			ask(n, x, 10*ms)
			if i == 0 && answer {
				n.tcp(30*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
				n.tcp(30*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+800, 0)
			}
		}
		other := n.talk(0, app, "198.51.100.3:80")
		every(sec, 50*sec, sec, func(at time.Duration, _ int) { other.turn(at) })
	}
	// rests is an answer of that many segments which stops for 25 s in the middle, and goes on, asked again if so.
	rests := func(n *network, segments int, asked bool) {
		x := n.talk(0, app, srv)
		ask(n, x, 10*ms)
		part := func(at time.Duration) {
			for i := range segments {
				n.tcp(at+time.Duration(i)*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 1000)
				x.a += 1000
				n.tcp(at+time.Duration(i)*ms+ms/2, x.c, x.s, capture.ACK, x.q, x.a, 0)
			}
		}
		part(20 * ms)
		if asked {
			ask(n, x, 25*sec)
		}
		part(25*sec + 20*ms)
	}
	long := func(n *network, size uint32) {
		x := n.talk(0, app, srv)
		ask(n, x, 10*ms)
		for i, left := 0, size; left > 0; i++ {
			k := min(left, 1460)
			n.tcp(20*ms+time.Duration(i)*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, k)
			x.a, left = x.a+k, left-k
			n.tcp(20*ms+time.Duration(i)*ms+ms/2, x.c, x.s, capture.ACK, x.q, x.a, 0)
		}
		n.tcp(60*sec, x.c, x.s, capture.ACK|capture.FIN, x.q, x.a, 0)
		n.tcp(60*sec+ms, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q+1, 0)
		n.tcp(60*sec+2*ms, x.c, x.s, capture.ACK, x.q+1, x.a+1, 0)
	}
	sum := func(owed, broken, half int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(Standstill); f.Owed != owed || f.Broken != broken || f.HalfOpen != half {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newStandstill, []scene{
		{name: "who used to be answered at once asks eight times in vain", want: "warn capture ", onset: 6 * sec, check: sum(1, 0, 0), make: func(n *network) {
			x := used(n)
			every(6*sec, 14*sec, sec, func(at time.Duration, _ int) { ask(n, x, at) })
			n.tcp(60*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
			n.tcp(60*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+800, 0)
		}},
		{name: "twice on one connection", want: "warn capture ", onset: 6 * sec, check: sum(1, 0, 0), make: func(n *network) {
			x := used(n)
			for _, from := range [...]time.Duration{6 * sec, 40 * sec} {
				every(from, from+14*sec, sec, func(at time.Duration, _ int) { ask(n, x, at) })
				n.tcp(from+13100*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
				x.a += 800
				n.tcp(from+13101*ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
			}
		}},
		{name: "the server closes its window: who asks is told to wait", want: "info capture ", onset: 8*sec + ms, check: sum(0, 0, 0), make: func(n *network) {
			x := used(n)
			every(6*sec, 9*sec, sec, func(at time.Duration, _ int) { ask(n, x, at) })
			n.obs[len(n.obs)-1].Packet.Window = 0
			n.tcp(60*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
			n.tcp(60*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+800, 0)
		}},
		{name: "a listener that takes requests and answers nobody", want: "info capture ", onset: 10 * ms, check: func(t *testing.T, features any) {
			if f := features.(Standstill); f.Mute != 5 || f.LongMute < 49 {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) { askers(n, 5, false) }},
		{name: "long polls, of which one is answered", make: func(n *network) { askers(n, 5, true) }},
		{name: "two that wait", make: func(n *network) {
			askers(n, 2, false)
			n.call(0, app, "198.51.100.3:80", 5*ms)
		}},
		{name: "one that waits, in an input of two connections", want: "info capture ", onset: 10 * ms, check: func(t *testing.T, features any) {
			if f := features.(Standstill); f.Mute != 1 || f.LongMute < 49 || !f.Small {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) { askers(n, 1, false) }},
		{name: "an answer pauses for 25 s, and goes on by itself", want: "info capture ", onset: 39 * ms, check: func(t *testing.T, features any) {
			if f := features.(Standstill); f.Broke != 1 || f.LongBroke < 23.9 || f.LongBroke > 25 || f.Still+f.Broken != 0 {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) { rests(n, 20, false) }},
		{name: "one of few segments may be a notice", make: func(n *network) { rests(n, 5, false) }},
		{name: "it goes on since it was asked", make: func(n *network) { rests(n, 20, true) }},
		{name: "among other connections it is nobody's question", make: func(n *network) {
			rests(n, 20, false)
			every(0, 3*sec, sec, func(at time.Duration, _ int) { n.call(at, app, "198.51.100.3:80", 5*ms) })
		}},
		{name: "ends that wait for a delayed acknowledgement are not lost", make: func(n *network) { n.ends(3, true) }},
		{name: "who asks once may wait on purpose", make: func(n *network) {
			x := used(n)
			ask(n, x, 6*sec)
			n.tcp(60*sec, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 800)
			n.tcp(60*sec+ms, x.c, x.s, capture.ACK, x.q, x.a+800, 0)
		}},
		{name: "a download that stops after a full segment", want: "warn capture ", onset: 119 * ms, check: sum(0, 1, 0),
			make: func(n *network) { long(n, 100*1460) }},
		{name: "one that ends with a shorter one", make: func(n *network) { long(n, 100*1460-300) }},
		{name: "a handshake that is never completed", want: "info capture ", onset: ms, check: sum(0, 0, 1), make: func(n *network) {
			c, s := n.from(app), host(srv)
			for _, at := range []time.Duration{0, sec, 3 * sec, 7 * sec} {
				n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
				n.tcp(at+ms, s, c, capture.SYN|capture.ACK, 77, n.seq+1, 0)
			}
		}},
	})
}

func TestRefusedNowAndThen(t *testing.T) {
	const app, srv = "192.0.2.1", "198.51.100.2:8080"
	now := func(n *network, until time.Duration) {
		every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
		every(20*sec, 50*sec, 500*ms, func(at time.Duration, i int) {
			if i%2 == 0 && at < until {
				n.refused(at, app, srv)
			} else {
				n.call(at, app, srv, 5*ms)
			}
		})
	}
	play(t, newDeadUpstream, []scene{
		{name: "every second call is refused, for half a minute: one of several members", local: app, want: "error upstream 192.0.2.1 198.51.100.2 8080",
			onset: 20 * sec, make: func(n *network) { now(n, 50*sec) }},
		{name: "a restart, during which some are let in", local: app, want: "info upstream 192.0.2.1 198.51.100.2 8080",
			onset: 20 * sec, make: func(n *network) { now(n, 25*sec) }},
	})
}

func TestWordless(t *testing.T) {
	const srv = "192.0.2.1:25"
	silent := func(n *network) {
		every(0, 40*sec, 4*sec, func(at time.Duration, _ int) {
			c, s := n.from("198.51.100.9"), host(srv)
			q := n.open(at, c, s)
			n.tcp(at+10*sec, c, s, capture.ACK|capture.FIN, q, q, 0)
			n.tcp(at+10*sec+ms, s, c, capture.ACK|capture.FIN, q, q+1, 0)
			n.tcp(at+10*sec+2*ms, c, s, capture.ACK, q+1, q+1, 0)
		})
	}
	play(t, newStandstill, []scene{
		{name: "nobody is ever greeted", want: "info capture ", onset: ms, make: silent},
		{name: "connections in reserve, beside others that are used", make: func(n *network) {
			silent(n)
			every(0, 40*sec, sec, func(at time.Duration, _ int) { n.call(at, "198.51.100.9", srv, 5*ms) })
		}},
	})
}

func TestWindowClosedAtFirst(t *testing.T) {
	const srv = "198.51.100.2:443"
	held := func(n *network, d time.Duration) {
		every(0, 20*sec, 2*sec, func(at time.Duration, _ int) {
			c, s := n.from("192.0.2.9"), host(srv)
			q := n.open(at, c, s)
			n.obs[len(n.obs)-2].Packet.Window = 0
			n.tcp(at+d, s, c, capture.ACK, q, q, 0)
			n.tcp(at+d+ms, c, s, capture.ACK|capture.PSH, q, q, 100)
			n.tcp(at+d+2*ms, s, c, capture.ACK|capture.PSH, q, q+100, 100)
			n.tcp(at+d+3*ms, c, s, capture.ACK|capture.FIN, q+100, q+100, 0)
			n.tcp(at+d+4*ms, s, c, capture.ACK|capture.FIN, q+100, q+101, 0)
		})
	}
	play(t, newSlowReceiver, []scene{
		{name: "a SYN proxy that opens the window late", want: "warn service 198.51.100.2 443", onset: ms / 2, make: func(n *network) { held(n, 1500*ms) }},
		{name: "one that opens it at once", make: func(n *network) { held(n, 20*ms) }},
	})
}

// Of answers whose lengths vary, one now and then is the shortest so far: that it is followed by a pause cuts nothing short.
func TestAnswersOfAllLengths(t *testing.T) {
	const web = "192.0.2.1:8080"
	play(t, newSlowServer, []scene{{name: "the shortest so far", local: "192.0.2.1", make: func(n *network) {
		for i := range 8 {
			c, s := n.from("198.51.100.9"), host(web)
			q := n.open(sec, c, s)
			a := q
			at := sec + 50*ms + time.Duration(i)*20*ms
			for j := range 60 {
				size, pause := uint32(700+(j*397+i*131)%700), 200*ms
				if j%20 == 19 {
					size, pause = uint32(600-20*(j/20)), 4*sec
				}
				n.tcp(at, c, s, capture.ACK|capture.PSH, q, a, 120)
				q += 120
				n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, a, q, size)
				a += size
				n.tcp(at+4*ms, c, s, capture.ACK, q, a, 0)
				at += pause
			}
		}
	}}, {name: "short ones on a pool that is seldom used", local: "198.51.100.9", make: func(n *network) {
		// The first are long; then half of them are short, and each connection rests for minutes before it is asked again.
		for i := range 6 {
			c, s := n.from("198.51.100.9"), host(web)
			q := n.open(sec, c, s)
			a := q
			at := sec + 50*ms + time.Duration(i)*20*ms
			for j := range 6 {
				size, pause := uint32(900+(j*397+i*131)%400), 8*sec
				if j > 1 {
					pause = 200 * sec
				}
				if j > 1 && (i+j)%2 == 0 {
					size = uint32(100 + (j*97+i*61)%300)
				}
				n.tcp(at, c, s, capture.ACK|capture.PSH, q, a, 120)
				q += 120
				n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, a, q, size)
				a += size
				n.tcp(at+4*ms, c, s, capture.ACK, q, a, 0)
				at += pause
			}
		}
	}}})
}

// Who hands in a capture of one connection asks what it waited for: a greeting, or the answer to an upload, that took long is told.
func TestWaited(t *testing.T) {
	const smtp = "198.51.100.25:25"
	greeted := func(n *network, after time.Duration) {
		c, s := n.from("192.0.2.1"), host(smtp)
		q := n.open(sec, c, s)
		n.tcp(sec+after, s, c, capture.ACK|capture.PSH, q, q, 60)
		n.tcp(sec+after+ms, c, s, capture.ACK|capture.PSH, q, q+60, 20)
		n.tcp(sec+after+2*ms, s, c, capture.ACK|capture.PSH, q+60, q+20, 120)
		n.tcp(sec+after+3*ms, c, s, capture.ACK, q+20, q+180, 0)
	}
	waited := func(longest float64) func(*testing.T, any) {
		return func(t *testing.T, x any) {
			if f := x.(Standstill); f.Waited != 1 || math.Abs(f.LongWaited-longest) > 0.1 {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newStandstill, []scene{
		{name: "for a greeting", want: "info capture ", onset: sec + ms, make: func(n *network) { greeted(n, 30*sec) }, check: waited(30)},
		{name: "for a prompt one", make: func(n *network) { greeted(n, 2*sec) }},
		{name: "for the answer to an upload", want: "info capture ", onset: sec + 21*ms, make: func(n *network) {
			c, s := n.from("192.0.2.1"), host("198.51.100.2:80")
			q := n.open(sec, c, s)
			a := q
			at := sec + 2*ms
			for range 20 {
				n.tcp(at, c, s, capture.ACK, q, a, 1460)
				q += 1460
				at += ms
				n.tcp(at-ms/2, s, c, capture.ACK, a, q, 0)
			}
			n.tcp(at+25*sec, s, c, capture.ACK|capture.PSH, a, q, 200)
			n.tcp(at+25*sec+ms, c, s, capture.ACK, q, a+200, 0)
		}, check: waited(25)},
		{name: "for an answer, as a poll", make: func(n *network) { n.call(sec, "192.0.2.1", "198.51.100.2:80", 25*sec) }},
		{name: "among many", make: func(n *network) {
			every(0, 40*sec, sec, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", "198.51.100.2:80", 5*ms) })
			greeted(n, 30*sec)
		}},
	})
}
