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
				if f.Class != "single" || f.Share < 0.9 || f.ShareBefore > 0.01 || f.Rate < 230 || f.Rate > 260 {
					t.Errorf("%+v", f)
				}
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
