package detect

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/capture"
)

// pair looks a name up as glibc does: A and AAAA at once from one socket, and both again after 5 s if the AAAA, which lost
// says, gets no answer.
func pair(n *network, at time.Duration, client, server, name string, lost bool) {
	c := n.from(client)
	a, aaaa := n.ask(at, c, server, name, measure.TypeA), n.ask(at+ms/30, c, server, name, measure.TypeAAAA)
	n.answer(at+ms, c, server, a, 0, 100)
	if !lost {
		n.answer(at+ms, c, server, aaaa, 0, 100)
		return
	}
	at += 5005 * ms
	n.udp(at, c, host(server), a, len(a))
	n.answer(at+ms, c, server, a, 0, 100)
	n.udp(at+2*ms, c, host(server), aaaa, len(aaaa))
	n.answer(at+3*ms, c, server, aaaa, 0, 100)
}

func TestDNSDelay(t *testing.T) {
	const app, dns = "192.0.2.1", "198.51.100.53:53"
	ask := func(n *network, from, to, wait time.Duration) {
		every(from, to, 50*ms, func(at time.Duration, i int) {
			n.query(at, app, dns, fmt.Sprintf("n%d.test", i%5), wait, noError, 200)
		})
	}
	play(t, newDNSDelay, []scene{
		{name: "slow from a moment on", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20 * sec,
			make: func(n *network) {
				ask(n, 0, 20*sec, ms)
				ask(n, 20*sec, 40*sec, 2500*ms)
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSDelay)
				if f.P95 < 2.4 || f.P95 > 2.6 || f.P95Before > 0.01 || f.Names != 5 || f.Quantised != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "slow for new names, which used to be fast", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20 * sec,
			make: func(n *network) {
				every(0, 40*sec, 100*ms, func(at time.Duration, i int) {
					wait := 3 * ms
					if at >= 20*sec {
						wait = 1200 * ms
					}
					n.query(at, app, dns, fmt.Sprintf("n%d.test", i), wait, noError, 200)
				})
			}},
		{name: "each first query is lost", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 500*ms, func(at time.Duration, i int) {
					c := n.from(app)
					n.queryFrom(at, c, dns, fmt.Sprintf("n%d.test", i%5), -1, 0, 0)
					n.query(at+5*sec, app, dns, fmt.Sprintf("n%d.test", i%5), ms, noError, 200)
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSDelay); f.Quantised < 0.9 || f.Retried < 30 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "slow, and asked for the same name before the answer is there", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 40*sec, 500*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "a.test", 2500*ms, noError, 200) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSDelay); f.Max > 3 || f.Quantised > 0.1 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "the second query of a pair is lost now and then", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 800 * ms,
			make: func(n *network) {
				every(0, 80*sec, 400*ms, func(at time.Duration, i int) { pair(n, at, app, dns, fmt.Sprintf("n%d.test", i%9), i%18 == 2) })
			},
			check: func(t *testing.T, features any) {
				f := features.(DNSDelay)
				if f.Lookups < 185 || f.Lookups > 200 || f.TimedOut != 11 || f.Second != 1 || f.Type != "AAAA" || f.Timeout < 5 || f.Timeout > 5.1 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one type is answered only when it is asked again", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 0,
			make: func(n *network) {
				every(0, 90*sec, 3*sec, func(at time.Duration, i int) { pair(n, at, app, dns, fmt.Sprintf("n%d.test", i), true) })
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSDelay); f.TimedOut != f.Lookups || f.TimedOut < 28 || f.Cold != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "authoritative servers are slow", want: "warn resolver 192.0.2.1 198.51.100.53 53", onset: 100 * ms,
			make: func(n *network) {
				every(100*ms, 30*sec, 300*ms, func(at time.Duration, i int) {
					c := n.from(app)
					q := message(uint16(i), fmt.Sprintf("n%d.test", i), 0, 0)
					q[2] &^= 1 // RD, RFC 1035 §4.1.1: a resolver asks
					n.udp(at, c, host(dns), q, len(q))
					n.answer(at+600*ms, c, dns, q, 0, 100)
				})
			}},
		{name: "one query in 300 is lost", make: func(n *network) {
			every(0, 240*sec, 200*ms, func(at time.Duration, i int) { pair(n, at, app, dns, fmt.Sprintf("n%d.test", i%9), i%300 == 2) })
		}},
		{name: "1 % of the queries are lost", make: func(n *network) {
			every(0, 120*sec, 200*ms, func(at time.Duration, i int) { pair(n, at, app, dns, fmt.Sprintf("n%d.test", i%9), i%50 == 2) })
		}},
		{name: "a search list: names that do not exist before the one that does", make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
				for _, suffix := range []string{".a.test", ".b.test", ".c.test", ""} {
					c, name, rcode := n.from(app), "www.example.org"+suffix, uint16(nxDomain)
					if suffix == "" {
						rcode = noError
					}
					for _, qtype := range []uint16{measure.TypeA, measure.TypeAAAA} {
						n.answer(at+2*ms, c, dns, n.ask(at, c, dns, name, qtype), rcode, 100)
					}
					at += 3 * ms
				}
			})
		}},
		{name: "cold names of a recursive server", make: func(n *network) {
			every(0, 30*sec, 100*ms, func(at time.Duration, i int) {
				n.query(at, app, dns, fmt.Sprintf("n%d.test", i), 400*ms, noError, 200)
				n.query(at+600*ms, app, dns, fmt.Sprintf("n%d.test", i), ms, noError, 200)
			})
		}},
		{name: "cold names, asked again before the first answer is there", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				name := fmt.Sprintf("n%d.test", i)
				n.query(at, app, dns, name, 600*ms, noError, 200)
				n.query(at+250*ms, app, dns, name, 350*ms, noError, 200)
				n.query(at+700*ms, app, dns, name, ms, noError, 200)
			})
		}},
		{name: "a name that is asked for all the time, now and then without an answer: the next question is no repetition", make: func(n *network) {
			every(0, 90*sec, 2250*ms, func(at time.Duration, i int) {
				for k := range 9 {
					wait := ms
					if (i+k)%20 == 7 {
						wait = -1
					}
					n.query(at+time.Duration(k)*100*ms, app, dns, fmt.Sprintf("n%d.test", k), wait, noError, 200)
				}
			})
		}},
		{name: "a storm of names that do not exist", make: func(n *network) {
			every(0, 30*sec, 20*ms, func(at time.Duration, i int) {
				n.query(at, app, dns, fmt.Sprintf("n%d.test", i), ms, nxDomain, 0)
			})
		}},
		{name: "the host stands still for a moment", make: func(n *network) {
			ask(n, 0, 20*sec, ms)
			ask(n, 20*sec, 20500*ms, 400*ms)
			ask(n, 20500*ms, 30*sec, ms)
		}},
	})
}

func TestDNSErrors(t *testing.T) {
	const app, dns = "192.0.2.1", "198.51.100.53:53"
	ask := func(n *network, from, to time.Duration, rcode uint8, names int) {
		every(from, to, 50*ms, func(at time.Duration, i int) {
			n.query(at, app, dns, fmt.Sprintf("n%d.test", i%names), ms, rcode, 200)
		})
	}
	// both asks for both types of a name; a and aaaa are the codes of their answers, with an address each if there is none.
	both := func(n *network, a, aaaa uint16) {
		every(0, 30*sec, 100*ms, func(at time.Duration, i int) {
			c := n.from(app)
			for k, x := range []struct{ qtype, rcode uint16 }{{1, a}, {28, aaaa}} {
				at := at + time.Duration(k)*ms/4
				q := n.ask(at, c, dns, fmt.Sprintf("n%d.test", i%5), x.qtype)
				n.answer(at+ms, c, dns, q, 0x8180|x.rcode, 100)
				if x.rcode == noError {
					r := n.obs[len(n.obs)-1].Packet.Data
					r[7] = 1
				}
			}
		})
	}
	play(t, newDNSErrors, []scene{
		{name: "no AAAA, but an address", want: "info resolver 192.0.2.1 198.51.100.53 53", onset: ms / 4, make: func(n *network) { both(n, noError, 5) }},
		{name: "AAAA, but no address that every host can use", want: "error resolver 192.0.2.1 198.51.100.53 53", make: func(n *network) { both(n, servFail, noError) }},
		{name: "neither", want: "error resolver 192.0.2.1 198.51.100.53 53", make: func(n *network) { both(n, servFail, servFail) }},
		{name: "SERVFAIL for all", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20700 * ms,
			make: func(n *network) {
				ask(n, 0, 20700*ms, noError, 5)
				ask(n, 20700*ms, 40*sec, servFail, 5)
			},
			check: func(t *testing.T, features any) {
				if f := features.(DNSErrors); f.ServFail != f.Errors || f.Errors < 300 || f.Share != 1 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "the only name that is asked for", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 20700 * ms,
			make: func(n *network) {
				ask(n, 0, 20700*ms, noError, 1)
				ask(n, 20700*ms, 30*sec, servFail, 1)
			}},
		{name: "the only name that is asked for, all the time, from the beginning", want: "error resolver 192.0.2.1 198.51.100.53 53", onset: 0,
			make: func(n *network) { ask(n, 0, 20*sec, servFail, 1) }},
		{name: "the only name that is asked for, now and then", want: "info resolver 192.0.2.1 198.51.100.53 53", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) { n.query(at, app, dns, "broken.test", ms, servFail, 0) })
		}},
		{name: "one broken name of many", want: "info resolver 192.0.2.1 198.51.100.53 53", onset: 20 * sec, make: func(n *network) {
			ask(n, 0, 40*sec, noError, 5)
			every(20*sec, 40*sec, 200*ms, func(at time.Duration, _ int) { n.query(at, app, dns, "broken.test", ms, servFail, 0) })
		}},
		{name: "names that do not exist", make: func(n *network) { ask(n, 0, 30*sec, nxDomain, 200) }},
	})
}

// Where connections to others open as much later as names are answered, it is the way of the host that is slow.
func TestDNSDelayOfTheWay(t *testing.T) {
	scene := func(late time.Duration) []*analyze.Finding {
		var n network
		every(0, 40*sec, 500*ms, func(at time.Duration, i int) {
			wait, rtt := 5*ms, 20*ms
			if at >= 15*sec {
				wait, rtt = 700*ms, 20*ms+late
			}
			n.query(at, "192.0.2.1", "198.51.100.53:53", "h"+itoa(i%5)+".example", wait, 0, 60)
			c, s := n.from("192.0.2.1"), host("203.0.113."+itoa(1+i%3)+":443")
			n.tcp(at+ms, c, s, capture.SYN, n.seq, 0, 0)
			n.tcp(at+ms+rtt, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
			n.tcp(at+2*ms+rtt, c, s, capture.ACK, n.seq+1, n.seq+1, 0)
		})
		return n.findings(t, newDNSDelay(), "192.0.2.1")
	}
	for late, want := range map[time.Duration]float64{650 * ms: 0.65, 0: 0} {
		fs := scene(late)
		if len(fs) != 1 {
			t.Fatalf("%v: %d findings", late, len(fs))
		}
		f := fs[0].Features.(DNSDelay)
		if math.Abs(f.PathDelay-want) > 0.01 || (f.PathPeers == 3) != (want > 0) || strings.Contains(fs[0].Summary.En, "full queue") != (want > 0) {
			t.Errorf("%v: %+v %s", late, f, fs[0].Summary.En)
		}
	}
}
