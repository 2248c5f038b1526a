package detect

import (
	"fmt"
	"testing"
	"time"

	"jindan/analyze/measure"
)

const truncated = 0x0200 // TC, RFC 1035 §4.1.1

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
		{name: "the same, and all ask for one name, under the id of the first query (glibc, musl): each caller counts", local: app,
			want: "error resolver 192.0.2.1 198.51.100.54 53", onset: 200 * ms,
			make: func(n *network) {
				// The seventh caller after one begins as that one turns to the other server.
				every(200*ms, 40*sec, 714*ms, func(at time.Duration, i int) {
					for _, ask := range []func(){
						func() { n.query(at, app, other, "a.test", -1, 0, 0) },
						func() { n.query(at+5*sec, app, dns, "a.test", ms, noError, 200) },
					} {
						n.dnsID = uint16(7000 + i)
						ask()
					}
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.Unanswered < 45 || f.Unanswered > 57 || f.Answered > 0 || f.ElsewhereAfter != 5 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one caller at a time, with a new id and port for each of three tries (Go): the tries are one lookup", local: app,
			want: "warn resolver 192.0.2.1 198.51.100.54 53", onset: 200 * ms,
			make: func(n *network) {
				every(200*ms, 140*sec, 35*sec, func(at time.Duration, _ int) {
					for try := range 3 {
						n.query(at+time.Duration(try)*1500*ms, app, other, "a.test", -1, 0, 0)
					}
					n.query(at+4500*ms, app, dns, "a.test", ms, noError, 200)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.Unanswered > 4 || f.ElsewhereAfter != 4.5 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one name every other second, from the beginning", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				n.call(0, "203.0.113.7", app+":443", ms) // the capture has both directions
				every(100*ms, 80*sec, 2*sec, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
			}},
		{name: "asked from another address of the host, from the beginning", local: "192.0.2.0/24", want: "error resolver 192.0.2.1 198.51.100.53 53",
			onset: 100 * ms,
			make: func(n *network) {
				n.call(0, "203.0.113.7", "192.0.2.2:443", ms) // what comes to the host is in the capture
				every(100*ms, 20*sec, 50*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", -1, 0, 0) })
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
		{name: "answers do not fit UDP, and TCP is refused", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 200*ms, func(at time.Duration, i int) {
					c, name := n.from(app), fmt.Sprintf("n%d.test", i)
					q := n.ask(at, c, dns, name, measure.TypeA)
					if i%3 != 0 {
						n.answer(at+ms, c, dns, q, 0, 200)
						return
					}
					n.answer(at+ms, c, dns, q, truncated, 30)
					n.refused(at+2*ms, app, dns)
				})
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSUnanswered)
				if f.TCPRefused != f.Unanswered || f.TCPRefused < 50 || f.Share < 0.3 || f.Share > 0.36 || f.Examples != "A n0.test, A n3.test, A n6.test" {
					t.Errorf("%+v", f)
				}
			}},
		{name: "answers do not fit UDP, and TCP is dropped", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 200*ms, func(at time.Duration, i int) {
					c := n.from(app)
					n.answer(at+ms, c, dns, n.ask(at, c, dns, "large.test", measure.TypeA), truncated, 30)
					n.silent(at+2*ms, app, dns, 2)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.TCPSilent != f.Unanswered || f.TCPSilent < 100 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "answers do not fit UDP, and who asked makes do with what fits", local: app, make: func(n *network) {
			every(0, 40*sec, 200*ms, func(at time.Duration, i int) {
				c := n.from(app)
				n.answer(at+ms, c, dns, n.ask(at, c, dns, "large.test", measure.TypeA), truncated, 30)
			})
		}},
		{name: "one type is never answered", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 200*ms, func(at time.Duration, i int) {
					c, name := n.from(app), fmt.Sprintf("n%d.test", i)
					n.answer(at+ms, c, dns, n.ask(at, c, dns, name, measure.TypeA), 0, 200)
					n.ask(at+ms/2, c, dns, name, measure.TypeAAAA)
				})
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSUnanswered)
				if f.Type != "AAAA" || f.Share != 1 || f.Queries < 150 || f.Queries > 200 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "two servers asked in parallel, one of them dead", local: app, make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, i int) {
				c, name := n.from(app), "a.test" // musl: one socket for all servers
				n.ask(at, c, other, name, measure.TypeA)
				n.answer(at+2*ms, c, dns, n.ask(at+ms/10, c, dns, name, measure.TypeA), 0, 200)
			})
		}},
		{name: "two servers asked one after the other, the first dead, for one name all the time", local: app,
			want: "error resolver 192.0.2.1 198.51.100.54 53", onset: 200 * ms,
			make: func(n *network) {
				every(200*ms, 40*sec, 100*ms, func(at time.Duration, i int) {
					n.query(at, app, other, "a.test", -1, 0, 0)
					n.query(at+1020*ms, app, dns, "a.test", ms, noError, 200)
				})
			}},
		{name: "the questions of another host pass here, its answers go another way", local: "203.0.113.1", make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, i int) {
				n.call(at, "203.0.113.7", "203.0.113.1:443", ms)
				n.call(at, app, "203.0.113.9:443", ms)
				n.query(at, app, dns, fmt.Sprintf("n%d.test", i), -1, 0, 0)
			})
		}},
		{name: "one question, asked three times", local: app, want: "warn resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				n.call(0, app, "203.0.113.7:443", ms)
				c := n.from(app)
				q := n.ask(100*ms, c, dns, "a.test", measure.TypeA)
				n.udp(5100*ms, c, host(dns), q, len(q))
				n.udp(10100*ms, c, host(dns), q, len(q))
				n.call(20*sec, app, "203.0.113.7:443", ms)
			}},
		{name: "nothing else is seen, but what is asked again got no answer", want: "warn resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 60*sec, 15*sec, func(at time.Duration, i int) {
					c := n.from(app)
					q := n.ask(at, c, dns, fmt.Sprintf("n%d.test", i), measure.TypeA)
					for _, after := range []time.Duration{sec, 3 * sec} {
						n.udp(at+after, c, host(dns), q, len(q))
					}
				})
			}},
		{name: "one question, asked twice", local: app, make: func(n *network) {
			n.call(0, app, "203.0.113.7:443", ms)
			c := n.from(app)
			q := n.ask(100*ms, c, dns, "a.test", measure.TypeA)
			n.udp(5100*ms, c, host(dns), q, len(q))
			n.call(30*sec, app, "203.0.113.7:443", ms)
		}},
		{name: "answered by another address", local: app, want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 500*ms, func(at time.Duration, i int) {
					c := n.from(app)
					q := n.ask(at, c, dns, fmt.Sprintf("n%d.test", i), measure.TypeA)
					n.answer(at+ms, c, other, q, 0, 100)
					n.udp(at+5005*ms, c, host(dns), q, len(q))
					n.answer(at+5006*ms, c, other, q, 0, 100)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.Strays != f.Unanswered || f.Strays < 50 || f.StrayFrom != other {
					t.Errorf("%+v", f)
				}
			}},
		{name: "a server on another port falls silent", local: app, want: "error resolver 192.0.2.1 198.51.100.53 8600", onset: 20 * sec,
			make: func(n *network) {
				every(0, 40*sec, 200*ms, func(at time.Duration, i int) {
					wait := ms
					if at >= 20*sec {
						wait = -1
					}
					n.query(at, app, "198.51.100.53:8600", fmt.Sprintf("n%d.test", i), wait, noError, 100)
				})
			}},
		{name: "names that do not exist", local: app, make: func(n *network) {
			every(0, 30*sec, 20*ms, func(at time.Duration, i int) {
				n.query(at, app, dns, fmt.Sprintf("n%d.test", i), ms, nxDomain, 0)
			})
		}},
	})
}

// Three lookups that lose all three tries are no chance, however few the others are.
func TestFewLookups(t *testing.T) {
	const app, res = "192.0.2.9", "198.51.100.53:53"
	lookups := func(tries int) func(*network) {
		return func(n *network) {
			every(0, 104*sec, 8*sec, func(at time.Duration, i int) {
				c := n.from(app)
				if i < 5 || i > 9 || i%2 == 0 {
					n.queryFrom(at, c, res, "name"+itoa(i)+".example.com", ms, noError, 80)
					return
				}
				q := n.ask(at, c, res, "name"+itoa(i)+".example.com", 1)
				for k := 1; k < tries; k++ {
					n.udp(at+time.Duration(k)*2*sec, c, host(res), q, len(q))
				}
			})
		}
	}
	play(t, newDNSUnanswered, []scene{
		{name: "three tries each", local: app, want: "warn resolver 192.0.2.9 198.51.100.53 53", onset: 40 * sec, make: lookups(3),
			check: func(t *testing.T, features any) {
				if f := features.(DNSUnanswered); f.Unanswered != 3 || f.Tries != 9 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one try each: a remark", local: app, want: "info resolver 192.0.2.9 198.51.100.53 53", onset: 40 * sec, make: lookups(1)},
		{name: "one lookup, asked twice", local: app, make: func(n *network) {
			every(0, 104*sec, 8*sec, func(at time.Duration, i int) {
				c := n.from(app)
				if i != 5 {
					n.queryFrom(at, c, res, "name"+itoa(i)+".example.com", ms, noError, 80)
					return
				}
				q := n.ask(at, c, res, "name5.example.com", 1)
				n.udp(at+2*sec, c, host(res), q, len(q))
			})
		}},
	})
}
