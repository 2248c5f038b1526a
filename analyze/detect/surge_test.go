package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestSurge(t *testing.T) {
	const srv = "198.51.100.2:443"
	users := func(n *network, from, to, step time.Duration, hosts int) {
		every(from, to, step, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%hosts), srv, 5*ms) })
	}
	flood := func(n *network, from, to, step time.Duration, source string) {
		every(from, to, step, func(at time.Duration, _ int) { n.open(at, n.from(source), host(srv)) })
	}
	play(t, newSurge, []scene{
		{name: "one source", want: "warn source 198.51.100.2 192.0.2.66 443", onset: 30701 * ms,
			make: func(n *network) {
				users(n, 0, 60*sec, 50*ms, 40)
				flood(n, 30701*ms, 60*sec, 4*ms, "192.0.2.66")
			},
			check: func(t *testing.T, features any) {
				f := features.(Surge)
				if f.Class != "single" || f.Share < 0.9 || f.ShareBefore > 0.01 || f.Rate < 230 || f.Rate > 260 || f.Mute < 7000 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one source that asks for something", want: "warn source 198.51.100.2 192.0.2.66 443", onset: 30701 * ms,
			make: func(n *network) {
				users(n, 0, 60*sec, 50*ms, 40)
				every(30701*ms, 60*sec, 4*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.66", srv, 5*ms) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(Surge); f.Class != "single" || f.Mute != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one source, at an address at which nobody asked before", local: "198.51.100.0/24", want: "info source 198.51.100.9 192.0.2.66 443", onset: 30701 * ms,
			make: func(n *network) {
				users(n, 0, 60*sec, 50*ms, 40)
				every(30701*ms, 60*sec, 4*ms, func(at time.Duration, _ int) { n.open(at, n.from("192.0.2.66"), host("198.51.100.9:443")) })
			}},
		{name: "a proxy that goes over to another address", local: "198.51.100.0/24", make: func(n *network) {
			every(0, 30701*ms, 10*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.66", srv, 5*ms) })
			every(30701*ms, 60*sec, 10*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.66", "198.51.100.9:443", 5*ms) })
		}},
		{name: "many sources, and the server cannot keep up", want: "error service 198.51.100.2 443", onset: 30700 * ms,
			make: func(n *network) {
				users(n, 0, 30700*ms, 50*ms, 40)
				every(30700*ms, 60*sec, 12500*time.Microsecond, func(at time.Duration, i int) {
					if i%4 == 3 {
						n.silent(at, "203.0.113."+itoa(1+i%120), srv, 2)
					} else {
						n.call(at, "203.0.113."+itoa(1+i%120), srv, 400*ms)
					}
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(Surge); f.Class != "spread" || f.Unanswered < 100 || f.Rate < 70 || f.RateBefore > 25 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "a proxy through which everybody comes, and demand grows", want: "info service 198.51.100.2 443", onset: 30700 * ms,
			make: func(n *network) {
				users(n, 0, 30700*ms, 50*ms, 1)
				users(n, 30700*ms, 60*sec, 10*ms, 1)
			}},
		{name: "clients that used to keep their connections open one for each request", make: func(n *network) {
			users(n, 0, 60*sec, 900*ms, 40)
			every(0, 30*sec, 25*ms, func(at time.Duration, i int) { // on twenty connections
				c := capture.Endpoint{Addr: addr("203.0.113." + itoa(1+i%20)), Port: 50_000}
				q := uint32(1000 + i/20*100)
				n.tcp(at, c, host(srv), capture.ACK|capture.PSH, q, 5000+uint32(i/20)*200, 100)
				n.tcp(at+5*ms, host(srv), c, capture.ACK|capture.PSH, 5000+uint32(i/20)*200, q+100, 200)
			})
			every(30*sec, 60*sec, 25*ms, func(at time.Duration, i int) { n.hung(at, "203.0.113."+itoa(1+i%20), srv, 2*sec) })
		}},
		{name: "half-open from many", want: "warn service 198.51.100.2 443", onset: 10 * sec, make: func(n *network) {
			users(n, 0, 30*sec, 300*ms, 40)
			every(10*sec, 25*sec, 10*ms, func(at time.Duration, i int) { n.halfOpen(at, "10."+itoa(i>>8)+"."+itoa(i&255)+".7", srv, 2) })
		}, check: func(t *testing.T, features any) {
			f := features.(Surge)
			if f.Class != classHalfOpen || f.HalfOpen != 1500 || f.HalfOpenRate < 95 || f.HalfOpenRate > 105 || f.Sources != 1500 || f.Unanswered != 0 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "half-open, and the queue is full", want: "error service 198.51.100.2 443", onset: 10 * sec, make: func(n *network) {
			users(n, 0, 12*sec, 300*ms, 40)
			every(10*sec, 12*sec, 5*ms, func(at time.Duration, i int) { n.halfOpen(at, "10."+itoa(i>>8)+"."+itoa(i&255)+".7", srv, 5) })
			every(12*sec, 30*sec, 5*ms, func(at time.Duration, i int) { n.silent(at, "10.9."+itoa(i>>8)+"."+itoa(i&255), srv, 0) })
			every(12*sec, 30*sec, 300*ms, func(at time.Duration, i int) { n.silent(at, "203.0.113."+itoa(1+i%40), srv, 3) })
		}, check: func(t *testing.T, features any) {
			if f := features.(Surge); f.Class != classHalfOpen || f.Unanswered < 40 || f.OthersFailed < 0.5 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "a dead listener and clients without patience", make: func(n *network) {
			users(n, 0, 12*sec, 50*ms, 40)
			every(12*sec, 40*sec, 50*ms, func(at time.Duration, i int) { n.silent(at, "203.0.113."+itoa(1+i%40), srv, 0) })
		}},
		{name: "half-open from one", want: "warn source 198.51.100.2 192.0.2.66 443", onset: 0, make: func(n *network) {
			users(n, 0, 30*sec, 300*ms, 40)
			every(0, 30*sec, 20*ms, func(at time.Duration, i int) { n.halfOpen(at, "192.0.2.66", srv, 2) })
		}},
		{name: "answers that are lost on the way", make: func(n *network) {
			users(n, 0, 30*sec, 300*ms, 40)
			every(0, 30*sec, 50*ms, func(at time.Duration, i int) {
				c := n.from("203.0.113." + itoa(1+i%40))
				for k, d := range []time.Duration{0, sec, 3 * sec} {
					n.tcp(at+d, c, host(srv), capture.SYN, n.seq, 0, 0)
					n.tcp(at+d+ms, host(srv), c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
					_ = k
				}
			})
		}},
		{name: "half-open health checks", make: func(n *network) {
			users(n, 0, 30*sec, 300*ms, 40)
			every(0, 30*sec, 50*ms, func(at time.Duration, i int) { n.knock(at, "10.0.0.9", srv) })
		}},
		{name: "only the SYNs were captured", make: func(n *network) {
			every(0, 30*sec, 50*ms, func(at time.Duration, i int) { n.halfOpen(at, "203.0.113."+itoa(1+i%40), srv, 0) })
		}},
		{name: "a closed listener whose only client comes back at once", make: func(n *network) {
			users(n, 0, 20*sec, sec, 1)
			every(20*sec, 60*sec, 10*ms, func(at time.Duration, i int) { n.refused(at, "203.0.113.1", srv) })
		}},
		{name: "the only client begins to work", want: "info source 198.51.100.2 192.0.2.66 443", onset: 29983 * ms, make: func(n *network) {
			n.call(0, "192.0.2.99", srv, ms)
			every(30*sec, 60*sec, 10*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.66", srv, ms) })
		}},
		{name: "a hundred clients behind one NAT address", make: func(n *network) {
			every(0, 60*sec, 10*ms, func(at time.Duration, i int) { n.call(at, "192.0.2.66", srv, ms) })
			users(n, 0, 60*sec, 500*ms, 5)
		}},
		{name: "a virtual address takes over another's clients", want: "info service 198.51.100.3 443", onset: 30700 * ms, make: func(n *network) {
			users(n, 0, 30700*ms, 20*ms, 40)
			every(0, 30700*ms, 100*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(101+i%10), "198.51.100.3:443", 5*ms) })
			every(30700*ms, 60*sec, 17*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%40), "198.51.100.3:443", 5*ms) })
		}},
		{name: "clients on old connections that give up and connect anew", make: func(n *network) {
			users(n, 0, 20*sec, sec, 10)
			for i := range 100 {
				c := n.from("203.0.113." + itoa(101+i))
				q := n.open(time.Duration(i)*10*ms, c, host(srv))
				for k := range 20 {
					at, p := sec+time.Duration(k)*sec+time.Duration(i)*10*ms, uint32(k)
					n.tcp(at, c, host(srv), capture.ACK|capture.PSH, q+p*100, q+p*1000, 100)
					if k < 19 {
						n.tcp(at+ms, host(srv), c, capture.ACK|capture.PSH, q+p*1000, q+p*100+100, 1000)
					} else {
						n.tcp(at+3*sec, c, host(srv), capture.ACK|capture.FIN, q+p*100+100, q+p*1000, 0)
					}
				}
				every(23*sec+time.Duration(i)*10*ms, 50*sec, 3*sec, func(at time.Duration, _ int) { n.hung(at, "203.0.113."+itoa(101+i), srv, 3*sec) })
			}
		}},
		{name: "a proxy as busy as ever", make: func(n *network) { users(n, 0, 60*sec, 10*ms, 1) }},
		{name: "clients that time out and come back", make: func(n *network) {
			users(n, 0, 30*sec, 50*ms, 20)
			every(30*sec, 60*sec, 50*ms, func(at time.Duration, i int) {
				for k := range 4 { // four times the requests, all from the same clients, each after a time-out
					if at+time.Duration(k)*3*sec < 60*sec {
						n.hung(at+time.Duration(k)*3*sec, "203.0.113."+itoa(1+i%20), srv, 3*sec)
					}
				}
			})
		}},
		{name: "SYNs that are repeated", make: func(n *network) {
			users(n, 0, 30*sec, 50*ms, 20)
			every(30*sec, 60*sec, 50*ms, func(at time.Duration, i int) {
				c := n.from("203.0.113." + itoa(1+i%20))
				for k := range 8 {
					n.tcp(at+time.Duration(k)*200*ms, c, host(srv), capture.SYN, n.seq, 0, 0)
				}
			})
		}},
		{name: "calls that this host makes", local: "203.0.113.1", make: func(n *network) {
			users(n, 0, 30*sec, 50*ms, 1)
			users(n, 30*sec, 60*sec, 10*ms, 1)
		}},
	})
}
