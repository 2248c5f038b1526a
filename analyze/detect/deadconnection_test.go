package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// talk is a connection that is open from at on, with an exchange at each of the times; q is where both sides stand.
type talk struct {
	n    *network
	c, s capture.Endpoint
	q, a uint32
}

func (n *network) talk(at time.Duration, client, server string) *talk {
	t := &talk{n: n, c: n.from(client), s: host(server)}
	t.q = n.open(at, t.c, t.s)
	t.a = t.q
	return t
}

// turn is a request of 200 bytes and its answer.
func (t *talk) turn(at time.Duration) {
	t.n.tcp(at, t.c, t.s, capture.ACK|capture.PSH, t.q, t.a, 200)
	t.n.tcp(at+ms, t.s, t.c, capture.ACK|capture.PSH, t.a, t.q+200, 800)
	t.q, t.a = t.q+200, t.a+800
	t.n.tcp(at+2*ms, t.c, t.s, capture.ACK, t.q, t.a, 0)
}

// vain is a request that is repeated tries times, at first after 200 ms, each time after twice as long (RFC 6298 §5.5).
func (t *talk) vain(at time.Duration, tries int) {
	for i := range tries + 1 {
		t.n.tcp(at+time.Duration(1<<i-1)*200*ms, t.c, t.s, capture.ACK|capture.PSH, t.q, t.a, 200)
	}
}

// push is the server's data, repeated likewise.
func (t *talk) push(at time.Duration, tries int) {
	for i := range tries + 1 {
		t.n.tcp(at+time.Duration(1<<i-1)*200*ms, t.s, t.c, capture.ACK|capture.PSH, t.a, t.q, 300)
	}
}

// older are connections that began before the capture: of each there is a segment and, after a pause, the same once more.
func (n *network) older(count int, client, server string, at, pause time.Duration) {
	for i := range count {
		c, s := n.from(client), host(server)
		for _, at := range []time.Duration{at, at + pause} {
			n.tcp(at+time.Duration(i)*10*ms, c, s, capture.ACK|capture.PSH, 7000, 9000, 80)
		}
	}
}

// discarded is a request that is repeated tries times and answered each time by the acknowledgement of what came before.
func (t *talk) discarded(at time.Duration, tries int) {
	t.vain(at, tries)
	for i := range tries + 1 {
		t.n.tcp(at+time.Duration(1<<i-1)*200*ms+ms, t.s, t.c, capture.ACK, t.a, t.q, 0)
	}
}

// Data that is repeated to a side that was never seen leaves the rule open, whether or not it is found.
func TestDeadConnectionClear(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	for _, older := range []int{0, 1} {
		n := new(network)
		n.older(older, app, srv, 2*sec, 400*ms)
		every(0, 10*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
		if clear := n.cleared(t, newDeadConnection()); clear != (older == 0) {
			t.Errorf("%d connections that began before the capture: clear %v", older, clear)
		}
	}
}

func TestDeadConnection(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	clients := []string{"203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"}
	want := func(class string, conns, alive int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(DeadConnection); f.Class != class || f.Connections != conns || (f.Alive > 0) != (alive > 0) {
				t.Errorf("%+v", f)
			}
		}
	}
	// crash kills four connections in use at 10 s; from back on others are opened, which stay.
	crash := func(n *network, back time.Duration) {
		for i := range 4 {
			x := n.talk(time.Duration(i)*10*ms, app, srv)
			every(500*ms, 10*sec, 500*ms, func(at time.Duration, _ int) { x.turn(at + time.Duration(i)*ms) })
			x.vain(10*sec+time.Duration(i)*100*ms, 8)
			y := n.talk(back+time.Duration(i)*10*ms, app, srv)
			every(back+500*ms, 60*sec, 500*ms, func(at time.Duration, _ int) { y.turn(at + time.Duration(i)*ms) })
		}
	}
	play(t, newDeadConnection, []scene{
		{name: "the server gets what is sent on some connections, and discards it (PAWS)", local: app, want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 10 * sec,
			make: func(n *network) {
				for i := range 8 {
					t := n.talk(time.Duration(i)*10*ms, app, srv)
					every(500*ms, 10*sec, 500*ms, func(at time.Duration, _ int) { t.turn(at) })
					if i%2 == 0 {
						t.discarded(10*sec, 6)
					} else {
						every(10*sec, 30*sec, 500*ms, func(at time.Duration, _ int) { t.turn(at) })
					}
				}
			}, check: want("discarded", 4, 1)},
		{name: "a host that crashes and comes back: none of the old connections survives, new ones are well", local: app,
			want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 10 * sec, make: func(n *network) { crash(n, 45*sec) },
			check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Class != deadGone || f.Connections != 4 || f.Away < 34 || f.Away > 36 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "new connections are well all the time", local: app, want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 10 * sec,
			make: func(n *network) { crash(n, 12*sec) }, check: want(deadSome, 4, 1)},
		{name: "what is missing is repeated while what follows it is acknowledged", local: app, make: func(n *network) {
			t := n.talk(0, app, srv)
			every(500*ms, 10*sec, 500*ms, func(at time.Duration, _ int) { t.turn(at) })
			t.vain(10*sec, 4)
			for i := range 3 { // later data, each acknowledged as what came before
				at := 10*sec + time.Duration(i+1)*ms
				n.tcp(at, t.c, t.s, capture.ACK|capture.PSH, t.q+200+uint32(i)*200, t.a, 200)
				n.tcp(at+ms/2, t.s, t.c, capture.ACK, t.a, t.q, 0)
			}
			n.tcp(10*sec+4*sec, t.c, t.s, capture.ACK|capture.PSH, t.q, t.a, 200)
			n.tcp(10*sec+4*sec+ms, t.s, t.c, capture.ACK, t.a, t.q+800, 0)
		}},
		{name: "the server is gone, and is taken to be this host", want: "error service 198.51.100.2 443", onset: 10 * sec,
			check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Class != deadGone || f.Connections != 4 || f.Alive != 0 || f.Smallest != 240 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				for i, c := range clients {
					x := n.talk(time.Duration(i)*10*ms, c, srv)
					every(sec, 10*sec, sec, func(at time.Duration, _ int) { x.turn(at + time.Duration(i)*ms) })
					x.vain(10*sec+time.Duration(i)*100*ms, 8)
				}
			}},
		{name: "dead since before the capture, which shows one late repetition of each; new connections are well", local: app,
			want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 0, check: want(deadSome, 4, 1),
			make: func(n *network) {
				n.older(4, app, srv, 2*sec, 6*sec)
				every(0, 20*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
			}},
		{name: "one of a pool is dead since before the capture, which shows one late repetition; the others are well", local: app,
			want: "warn upstream 192.0.2.9 198.51.100.2 443", onset: 0, check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Class != deadSome || f.Connections != 1 || f.Alive != 3 || f.Repeats != 1 || f.Pause != 6 {
					t.Errorf("%+v", f)
				}
			},
			make: func(n *network) {
				n.older(1, app, srv, 2*sec, 6*sec)
				for i := range 3 {
					x := n.talk(time.Duration(i)*10*ms, app, srv)
					every(sec, 20*sec, 500*ms, func(at time.Duration, _ int) { x.turn(at) })
				}
			}},
		{name: "the same, but the repetition came soon: it may be the first", local: app,
			make: func(n *network) {
				n.older(4, app, srv, 2*sec, 400*ms)
				every(0, 20*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
			}},
		{name: "the same, but nothing of that host is in the capture: it may show one direction only", local: app,
			make: func(n *network) {
				n.older(4, app, srv, 2*sec, 6*sec)
				every(0, 20*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, "198.51.100.7:443", 5*ms) })
			}},
		{name: "one connection is all there is", want: "warn service 198.51.100.2 443", onset: 5 * sec, check: want(deadGone, 1, 0),
			make: func(n *network) {
				x := n.talk(0, app, srv)
				x.turn(sec)
				x.vain(5*sec, 6)
			}},
		{name: "a box between forgot idle connections", local: app, want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 90 * sec,
			check: func(t *testing.T, features any) {
				want(deadForgotten, 3, 1)(t, features)
				if f := features.(DeadConnection); f.Idle < 84 || f.Idle > 86 || f.Survived < 39 || f.Survived > 41 || f.Fresh < 20 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				for i := range 3 {
					x := n.talk(time.Duration(i)*ms, app, srv)
					x.turn(5 * sec)
					x.vain(90*sec+time.Duration(i)*100*ms, 7)
				}
				y := n.talk(sec, app, srv) // silent for 40 s, and well
				y.turn(2 * sec)
				y.turn(42 * sec)
				y.turn(80 * sec)
				every(3*sec, 120*sec, sec, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
			}},
		{name: "an outage on the only connection", want: "warn service 198.51.100.2 443", onset: 5 * sec, check: want(deadOutage, 1, 0),
			make: func(n *network) {
				x := n.talk(0, app, srv)
				x.turn(sec)
				x.vain(5*sec, 5)
				x.turn(18 * sec)
				x.turn(19 * sec)
			}},
		{name: "only what this host sends is lost: the server repeats its data and does not know", local: app,
			want: "warn upstream 192.0.2.9 198.51.100.2 443", onset: 5050 * ms, check: want(deadGone, 1, 0), make: func(n *network) {
				x := n.talk(0, app, srv)
				x.turn(sec)
				x.vain(5*sec, 6)
				x.push(5050*ms, 0)
				n.tcp(5051*ms, x.c, x.s, capture.ACK, x.q+200, x.a+300, 0)
				x.push(5250*ms, 6)
			}},
		{name: "idle pools", local: app, make: func(n *network) {
			for i := range 20 {
				x := n.talk(time.Duration(i)*ms, app, srv)
				x.turn(sec)
				x.turn(200 * sec)
			}
		}},
		{name: "the capture ends before it can tell", local: app, make: func(n *network) {
			for i := range 5 {
				x := n.talk(time.Duration(i)*ms, app, srv)
				x.turn(sec)
				x.vain(5*sec, 2)
			}
		}},
		{name: "one mobile client among many vanishes", want: "info service 198.51.100.2 443", onset: 20 * sec, check: want(deadVanished, 1, 3),
			make: func(n *network) {
				for i := range 40 {
					x := n.talk(time.Duration(i)*ms, "203.0.113."+itoa(1+i), srv)
					every(sec, 60*sec, 2*sec, func(at time.Duration, _ int) {
						if i > 0 || at < 20*sec {
							x.turn(at + time.Duration(i)*ms)
						}
					})
					if i == 0 {
						x.push(20*sec, 7)
					}
				}
			}},
		{name: "a FIN is repeated to a peer that has gone", local: "198.51.100.2", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			for i := range 8 {
				n.tcp(5*sec+time.Duration(1<<i-1)*200*ms, x.s, x.c, capture.ACK|capture.FIN, x.a, x.q, 0)
			}
		}},
		{name: "one direction of the capture only", make: func(n *network) {
			c, s := n.from(app), host(srv)
			n.tcp(0, c, s, capture.SYN, n.seq, 0, 0)
			for i := range 8 {
				n.tcp(sec+time.Duration(1<<i-1)*200*ms, c, s, capture.ACK|capture.PSH, n.seq+1, 1, 200)
			}
		}},
		{name: "the receiver has no room, and says so", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			x.vain(5*sec, 1)
			p := capture.Packet{Src: x.s, Dst: x.c, Proto: capture.ProtoTCP, Flags: capture.ACK, Seq: x.a, Ack: x.q, IPLen: 40}
			for i := range 6 {
				n.add(5300*ms+time.Duration(i)*3*sec, p)
				x.vain(5400*ms+time.Duration(i)*3*sec, 0)
			}
		}},
		{name: "too large for the path: that is loss by size", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			for i := range 7 {
				n.tcp(5*sec+time.Duration(1<<i-1)*200*ms, x.c, x.s, capture.ACK, x.q, x.a, 1460)
			}
		}},
		{name: "a listener that has not taken the connection", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			for i := range 4 {
				x := n.talk(20*sec+time.Duration(i)*ms, app, srv)
				x.vain(20*sec+5*ms+time.Duration(i)*ms, 6)
			}
		}},
	})
}

func TestOneCall(t *testing.T) {
	play(t, newDeadUpstream, []scene{
		{name: "one connection request without an answer is the whole capture", want: "warn upstream 192.0.2.1 198.51.100.2 6667", onset: 0,
			make: func(n *network) { n.silent(0, "192.0.2.1", "198.51.100.2:6667", 5) },
			check: func(t *testing.T, features any) {
				if f := features.(DeadUpstream); f.Failed != 1 || f.SynRepeats != 5 || f.Wait < 30 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one call among many", local: "192.0.2.1", want: "info upstream 192.0.2.1 198.51.100.2 6667", onset: 5 * sec, make: func(n *network) {
			every(0, 40*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", "198.51.100.3:80", 5*ms) })
			n.silent(5*sec, "192.0.2.1", "198.51.100.2:6667", 4)
		}},
		{name: "an address of IPv6 is dead, and IPv4 serves", local: "2001:db8::1", want: "warn upstream 2001:db8::1 2001:db8:1::2 443", onset: 0,
			make: func(n *network) {
				every(0, 40*sec, 2*sec, func(at time.Duration, _ int) {
					n.silent(at, "2001:db8::1", "[2001:db8:1::2]:443", 3)
					n.call(at+250*ms, "192.0.2.1", "198.51.100.2:443", 5*ms)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DeadUpstream); f.Fallback != f.Failed {
					t.Errorf("%+v", f)
				}
			}},
		{name: "nothing comes back any more, on open connections neither", local: "192.0.2.1", want: "error upstream 192.0.2.1 198.51.100.2 443", onset: 20 * sec,
			make: func(n *network) {
				every(0, 20*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", "198.51.100.2:443", 5*ms) })
				x := n.talk(0, "192.0.2.1", "198.51.100.2:443")
				every(sec, 20*sec, sec, func(at time.Duration, _ int) { x.turn(at) })
				x.vain(20500*ms, 6)
				every(20*sec, 30*sec, sec, func(at time.Duration, _ int) { n.silent(at, "192.0.2.1", "198.51.100.2:443", 3) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(DeadUpstream); f.Class != classGone {
					t.Errorf("%+v", f)
				}
			}},
	})
}

// Work per window is linear in the calls that fail: 4,000 targets, each asked over and over, must not take minutes.
func TestDeadTargets(t *testing.T) {
	var n network
	every(0, 8*sec, 2*ms, func(at time.Duration, i int) {
		n.silent(at, "192.0.2.1", "198.51."+itoa(i/250%256)+"."+itoa(1+i%250)+":80", 2)
	})
	start := time.Now()
	n.findings(t, newDeadUpstream(), "192.0.2.1")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

// probe is a keep-alive of the client's (Linux: no payload, one below what is next); answered tells whether the server is there.
func (t *talk) probe(at time.Duration, answered bool) {
	t.n.tcp(at, t.c, t.s, capture.ACK, t.q-1, t.a, 0)
	if answered {
		t.n.tcp(at+ms, t.s, t.c, capture.ACK, t.a, t.q, 0)
	}
}

// Keep-alives in vain tell the same as repeated data, on connections that say nothing else.
func TestHalfOpen(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	until := func(n *network, x *talk, well, end time.Duration) {
		every(30*sec, end, 15*sec, func(at time.Duration, _ int) { x.probe(at, at < well) })
	}
	play(t, newDeadConnection, []scene{
		{name: "the peer of an idle connection is gone", want: "warn service 198.51.100.2 443", onset: 90 * sec,
			check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Class != deadGone || f.Connections != 1 || f.Probes < 3 || f.Probes != f.Repeats || f.Idle < 10 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				x := n.talk(0, app, srv)
				x.turn(sec)
				until(n, x, 90*sec, 180*sec)
			}},
		{name: "the capture begins when the connection is idle, and one probe was answered", want: "warn service 198.51.100.2 443", onset: 45 * sec,
			make: func(n *network) {
				x := &talk{n: n, c: n.from(app), s: host(srv), q: 5000, a: 9000}
				until(n, x, 45*sec, 180*sec)
			}},
		{name: "a box forgot three of four, which had been silent for longer", local: app, want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 60 * sec,
			check: func(t *testing.T, features any) {
				if f := features.(DeadConnection); f.Connections != 3 || f.Alive == 0 || f.Class != deadForgotten {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				for i := range 3 {
					x := n.talk(time.Duration(i)*ms, app, srv)
					x.turn(sec)
					every(60*sec, 120*sec, 10*sec, func(at time.Duration, _ int) { x.probe(at+time.Duration(i)*100*ms, false) })
				}
				x := n.talk(0, app, srv)
				every(sec, 120*sec, 5*sec, func(at time.Duration, _ int) { x.turn(at) })
				every(61*sec, 120*sec, sec, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
			}},
		{name: "every probe is answered", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			until(n, x, 300*sec, 300*sec)
		}},
		{name: "two are lost on the way", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.turn(sec)
			every(30*sec, 300*sec, 15*sec, func(at time.Duration, i int) { x.probe(at, i%6 > 1) })
		}},
		{name: "the capture shows one direction only", make: func(n *network) {
			x := &talk{n: n, c: n.from(app), s: host(srv), q: 5000, a: 9000}
			until(n, x, 0, 300*sec)
		}},
	})
}
