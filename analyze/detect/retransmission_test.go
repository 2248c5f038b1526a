package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// A share of handshakes that repeat is a finding only beyond what chance makes of a little loss: the onset
// is where it looks worst.
func TestRepeatedHandshakes(t *testing.T) {
	const app, up = "192.0.2.1", "198.51.100.2:8080"
	calls := func(repeated func(i int) bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				if repeated(i) {
					n.lateOpen(at, app, up, sec)
				} else {
					n.call(at, app, up, 5*ms)
				}
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "11 of 1,200, most of them in a third of the time", local: app, make: calls(func(i int) bool { return i >= 570 && i < 900 && i%30 == 0 })},
		{name: "every tenth", local: app, want: "warn upstream 192.0.2.1 198.51.100.2 8080", onset: 30 * sec,
			make: calls(func(i int) bool { return i >= 600 && i%10 == 0 })},
	})
}

// A SYN-ACK that comes again to a client that has acknowledged it keeps nobody waiting until the client says something: a
// listener that takes connections with their first data only repeats it (tcp(7), TCP_DEFER_ACCEPT).
func TestRepeatedSynAcks(t *testing.T) {
	const srv = "198.51.100.2:80"
	// preconnects have their SYN-ACK repeated after 1 s and 3 s, and acknowledge it each time; those that ask do so at once.
	preconnects := func(ask bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 2*sec, func(at time.Duration, i int) {
				n.call(at, "203.0.113.7", srv, 5*ms)
				c, s := n.from("203.0.113."+itoa(10+i)), host(srv)
				q := n.open(at, c, s)
				if ask {
					n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				}
				for _, wait := range []time.Duration{sec, 3 * sec} {
					n.tcp(at+wait, s, c, capture.SYN|capture.ACK, q-1, q, 0)
					n.tcp(at+wait+ms, c, s, capture.ACK, q, q, 0)
				}
			})
		}
	}
	// deaf clients do not get the SYN-ACK, and send their SYN again; unheard of a full listener they do so, too.
	again := func(answers bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
				if at < 20*sec {
					n.call(at, "203.0.113."+itoa(10+i), srv, 5*ms)
					return
				}
				c, s := n.from("203.0.113."+itoa(10+i)), host(srv)
				for _, wait := range []time.Duration{0, sec, 3 * sec} {
					n.tcp(at+wait, c, s, capture.SYN, n.seq, 0, 0)
					if answers || wait == 3*sec {
						n.tcp(at+wait+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
					}
				}
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "clients that do not get the answer", local: "198.51.100.2", want: "warn service 198.51.100.2 80", onset: 20 * sec, make: again(true),
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Class != "syn-ack" {
					t.Errorf("%+v", f)
				}
			}},
		{name: "clients that get none at first", local: "198.51.100.2", want: "warn service 198.51.100.2 80", onset: 20 * sec, make: again(false),
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Class != "syn" || f.Echoed != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "clients that say nothing", local: "198.51.100.2", make: preconnects(false)},
		{name: "clients that wait for an answer", local: "198.51.100.2", want: "warn service 198.51.100.2 80", make: preconnects(true)},
	})
}

// A client that keeps one connection open loses as many of its answers as one that opens a connection for each.
func TestLossOnAKeptConnection(t *testing.T) {
	kept := func(every10 int) func(*network) {
		return func(n *network) {
			c, s := n.from("203.0.113.7"), host("198.51.100.2:80")
			q := n.open(0, c, s)
			r := q
			every(10*ms, 60*sec, 400*ms, func(at time.Duration, i int) {
				n.tcp(at, c, s, capture.ACK|capture.PSH, r, q, 300)
				r += 300
				n.tcp(at+10*ms, s, c, capture.ACK|capture.PSH, q, r, 500)
				if i > 40 && i%every10 == 0 {
					n.tcp(at+220*ms, s, c, capture.ACK|capture.PSH, q, r, 500) // after its time-out
				}
				q += 500
				n.tcp(at+230*ms, c, s, capture.ACK, r, q, 0)
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "every eighth answer", local: "198.51.100.2", want: "warn path 198.51.100.2 203.0.113.7", onset: 19430 * ms, make: kept(8)},
		{name: "every thirtieth answer", local: "198.51.100.2", make: kept(30)},
	})
}

// SYNs that ask for ECN or carry data, and are answered only once they do not, are dropped by a box on the way; where one of them is answered at
// once, those that come again were lost.
func TestPlainerSyns(t *testing.T) {
	const app, up = "192.0.2.1", "198.51.100.2:8080"
	dials := func(flags uint8, size uint32, taken int) int {
		var n network
		every(0, 60*sec, sec, func(at time.Duration, i int) {
			from := len(n.obs)
			if i%20 < taken {
				n.call(at, app, up, 5*ms)
			} else {
				n.lateOpen(at, app, up, sec)
			}
			p := &n.obs[from].Packet
			p.Flags, p.Len = p.Flags|flags, size
		})
		fs := n.findings(t, newRetransmission(), app)
		if len(fs) != 1 {
			t.Fatalf("%d findings", len(fs))
		}
		return fs[0].Features.(Retransmission).Plain
	}
	for _, x := range []struct {
		name  string
		flags uint8
		size  uint32
		taken int
		want  int
	}{
		{name: "ECN", flags: capture.ECE | capture.CWR, want: 60},
		{name: "data", size: 300, want: 60},
		{name: "ECN, some taken", flags: capture.ECE | capture.CWR, taken: 5},
		{name: "plain from the start"},
	} {
		if got := dials(x.flags, x.size, x.taken); got != x.want {
			t.Errorf("%s: %d, want %d", x.name, got, x.want)
		}
	}
}

// FINs of clients whom a full listener has not taken yet come again, and are acknowledged once it has: neither were they lost, nor are they data.
func TestClosedInTheQueue(t *testing.T) {
	const srv = "198.51.100.2:80"
	closes := func(taken bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) { n.call(at, "203.0.113.9", srv, 5*ms) })
			every(20*sec, 50*sec, 6*sec, func(at time.Duration, i int) { // what is lost
				c, s := n.from("203.0.113.9"), host(srv)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+202*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+203*ms, s, c, capture.ACK|capture.PSH, q, q+100, 100)
			})
			every(20*sec, 50*sec, 50*ms, func(at time.Duration, i int) {
				c, s := n.from("203.0.113.9"), host(srv)
				q := n.open(at, c, s)
				for _, wait := range []time.Duration{100 * ms, 300 * ms, 700 * ms, 1500 * ms} {
					n.tcp(at+wait, c, s, capture.ACK|capture.FIN, q, q, 0)
				}
				if !taken {
					n.tcp(at+sec, s, c, capture.SYN|capture.ACK, q-1, q, 0)
				}
				n.tcp(at+1501*ms, s, c, capture.ACK|capture.FIN, q, q+1, 0)
				n.tcp(at+1502*ms, c, s, capture.ACK, q+1, q+1, 0)
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "the SYN-ACK comes again", make: closes(false)},
		{name: "it does not: the FINs were lost", want: "warn path 198.51.100.2 203.0.113.9", onset: 20700 * ms, make: closes(true)},
	})
}

// First data that comes again and is taken within a second: a listener that drops the ends of other handshakes has dropped it, too. Where the
// capture has missed it nobody can say so of a connection that the listener has not taken.
func TestFirstDataInTheQueue(t *testing.T) {
	const srv = "198.51.100.2:80"
	sends := func(full bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.9", srv, 5*ms) })
			every(20*sec, 50*sec, 200*ms, func(at time.Duration, _ int) {
				x := n.talk(at, "203.0.113.9", srv)
				if full {
					n.tcp(at+sec, x.s, x.c, capture.SYN|capture.ACK, x.a-1, x.q, 0)
				}
				n.tcp(at+1200*ms, x.c, x.s, capture.ACK|capture.FIN, x.q+100, x.a, 0) // its data was not captured
			})
			every(22*sec, 50*sec, 100*ms, func(at time.Duration, _ int) {
				x := n.talk(at, "203.0.113.9", srv)
				n.tcp(at+2*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 100)
				n.tcp(at+202*ms, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 100)
				n.tcp(at+203*ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q+100, 100)
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "SYN-ACKs come again that were acknowledged", make: sends(true)},
		{name: "none does: the data was lost", want: "error path 198.51.100.2 203.0.113.9", onset: 22203 * ms, make: sends(false)},
	})
}

// On two paths of unequal length what was missing is sent anew, and arrives after that: nothing was lost, though a round trip is shorter
// than the difference. What never came, and is sent anew twice, was.
func TestReplacedAndLate(t *testing.T) {
	const srv, mss = "198.51.100.2:80", 1460
	uploads := func(late, twice bool) func(*network) {
		return func(n *network) {
			every(0, 30*sec, 100*ms, func(at time.Duration, i int) {
				c, s := n.from("203.0.113."+itoa(10+i%5)), host(srv)
				q := n.open(at, c, s)
				at += 2 * ms
				hole := q + 3*mss
				for k := range uint32(10) {
					sent := at + time.Duration(k)*100*time.Microsecond
					switch {
					case k != 3 || i < 100 && !late:
						n.tcp(sent, c, s, capture.ACK|capture.PSH, q+k*mss, q, mss)
					case late:
						n.tcp(at+7*ms, c, s, capture.ACK|capture.PSH, hole, q, mss)
					}
				}
				if late || i >= 100 {
					n.tcp(at+3*ms, c, s, capture.ACK|capture.PSH, hole, q, mss)
					n.tcp(at+3100*time.Microsecond, s, c, capture.ACK, q, q+10*mss, 0)
				}
				if twice && i >= 100 {
					n.tcp(at+7*ms, c, s, capture.ACK|capture.PSH, hole, q, mss)
				}
				n.dsack(at+7100*time.Microsecond, s, c, q, q+10*mss, hole, hole+mss)
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "late by more than a round trip", local: "198.51.100.2", make: uploads(true, false)},
		{name: "lost, and sent anew twice", local: "198.51.100.2", want: "warn path 198.51.100.2", onset: 10*sec + 2400*time.Microsecond, make: uploads(false, true)},
	})
}
