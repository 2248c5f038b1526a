package detect

import (
	"fmt"
	"testing"
	"time"
)

func TestDNSUnanswered(t *testing.T) {
	const app, dns, other = "192.0.2.1", "198.51.100.53:53", "198.51.100.54:53"
	// well asks one question every 50 ms, answered after 1 ms.
	well := func(n *network, from, to time.Duration, name string, size int) {
		every(from, to, 50*ms, func(at time.Duration, _ int) { n.query(at, app, dns, name, ms, noError, size) })
	}
	play(t, newDNSUnanswered, []scene{
		{name: "the server falls silent", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20 * sec,
			make: func(n *network) {
				well(n, 0, 20*sec, "a.test", 200)
				every(20*sec, 40*sec, 50*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSUnanswered)
				if f.Share < 0.97 || f.ShareBefore != 0 || f.Silence < 15 || f.ExpectedSize != 228 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "only large answers stay out", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20 * sec,
			make: func(n *network) {
				well(n, 0, 20*sec, "large.test", 1300)
				well(n, 5*ms, 40*sec, "small.test", 120)
				every(20*sec, 40*sec, 50*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "large.test", -1, 0, 0) })
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSUnanswered)
				if f.ExpectedSize != 1328 || f.LargestAnswered != 148 || f.BigUnanswered < 200 || f.Names != 1 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "the first of two resolvers is dead", local: app, want: "error resolver 192.0.2.1 198.51.100.54 53", onset: 200 * ms,
			make: func(n *network) {
				every(200*ms, 40*sec, 300*ms, func(at time.Duration, i int) {
					name := fmt.Sprintf("n%d.test", i)
					n.query(at, app, other, name, -1, 0, 0)
					n.query(at+5*sec, app, dns, name, ms, noError, 200)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.Elsewhere < 80 || f.ElsewhereAfter != 5 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one name every other second, from the beginning", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				n.call(0, "203.0.113.7", app+":443", ms) // the capture has both directions
				every(100*ms, 80*sec, 2*sec, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
			}},
		{name: "0.5 % loss each way", local: app,
			make: func(n *network) {
				every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
					answer := ms
					if i%100 == 7 {
						answer = -1
					}
					n.query(at, app, dns, "a.test", answer, noError, 200)
				})
			}},
		{name: "a lost query that is asked again", local: app,
			make: func(n *network) {
				every(0, 40*sec, 200*ms, func(at time.Duration, i int) {
					n.query(at, app, dns, fmt.Sprintf("n%d.test", i), -1, 0, 0)
					n.query(at+sec, app, dns, fmt.Sprintf("n%d.test", i), ms, noError, 200)
				})
			}},
		{name: "one direction only", make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
		}},
		{name: "the input ends before they are due", local: app, make: func(n *network) {
			well(n, 0, 20*sec, "a.test", 200)
			every(20*sec, 24*sec, 50*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
		}},
		{name: "names that do not exist", local: app, make: func(n *network) {
			every(0, 30*sec, 20*ms, func(at time.Duration, i int) {
				n.query(at, app, dns, fmt.Sprintf("n%d.test", i), ms, nxDomain, 0)
			})
		}},
	})
}
