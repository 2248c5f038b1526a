package detect

import (
	"testing"
	"time"

	"jindan/analyze/measure"
	"jindan/capture"
)

// keepAlive is a connection with a request at every time in at, of the given size; wait says how long each takes, < 0: for ever.
func (n *network) keepAlive(client, server string, size uint32, at []time.Duration, wait func(at time.Duration) time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at[0]-10*ms, c, s)
	a := q
	for _, t := range at {
		n.tcp(t, c, s, capture.ACK|capture.PSH, q, a, size)
		q += size
		n.tcp(t+ms, s, c, capture.ACK, a, q, 0)
		w := wait(t)
		if w < 0 {
			return
		}
		n.tcp(t+max(w, ms), s, c, capture.ACK|capture.PSH, a, q, 300)
		a += 300
		n.tcp(t+max(w, ms)+ms, c, s, capture.ACK, q, a, 0)
	}
}

// closedLoop is a connection whose client asks again pause after each answer.
func (n *network) closedLoop(client, server string, size uint32, from, to, pause time.Duration, wait func(at time.Duration) time.Duration) {
	var at []time.Duration
	for t := from; t < to; {
		at = append(at, t)
		w := wait(t)
		if w < 0 {
			break
		}
		t += max(w, ms) + pause
	}
	n.keepAlive(client, server, size, at, wait)
}

// greet is a connection to a server that speaks first, after wait; < 0: never, and the client leaves after 8 s.
func (n *network) greet(at time.Duration, client, server string, wait time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	if wait < 0 {
		n.tcp(at+8*sec, c, s, capture.ACK|capture.FIN, q, q, 0)
		return
	}
	at += wait + ms
	n.tcp(at, s, c, capture.ACK|capture.PSH, q, q, 95)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q+95, 180)
	n.tcp(at+4*ms, s, c, capture.ACK|capture.PSH, q+95, q+180, 11)
	n.tcp(at+5*ms, c, s, capture.ACK|capture.FIN, q+180, q+106, 0)
	n.tcp(at+6*ms, s, c, capture.ACK|capture.FIN, q+106, q+181, 0)
	n.tcp(at+7*ms, c, s, capture.ACK, q+181, q+107, 0)
}

func TestSlowServer(t *testing.T) {
	const app, client = "192.0.2.1", "198.51.100.9"
	const web = app + ":8080"
	const slow, hung = "warn service 192.0.2.1 8080", "error service 192.0.2.1 8080"
	fast := func(time.Duration) time.Duration { return 4 * ms }
	from := func(t0, wait time.Duration) func(time.Duration) time.Duration {
		return func(at time.Duration) time.Duration {
			if at >= t0 {
				return wait
			}
			return 4 * ms
		}
	}
	// A collector stops the program for 1.5 s every 8 s.
	collector := func(at time.Duration) time.Duration {
		if into := at % (8 * sec); at > 8*sec && into < 1500*ms {
			return 1500*ms - into
		}
		return 4 * ms
	}
	features := func(f func(SlowServer) bool) func(*testing.T, any) {
		return func(t *testing.T, x any) {
			if v := x.(SlowServer); !f(v) {
				t.Errorf("%+v", v)
			}
		}
	}
	play(t, newSlowServer, []scene{
		{name: "every answer slow from 20 s on", local: app, want: slow, onset: 20002 * ms, make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 2*sec) })
		}},
		{name: "clients that have left do not wait: nobody else asks at the end", local: app, make: func(n *network) {
			every(0, 30*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			every(20*sec, 30*sec, sec, func(at time.Duration, _ int) { n.hung(at, client, web, 1500*ms) })
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast) // the capture goes on
		}},
		{name: "one URL of many, 3 % of the requests, is slow from 20 s on", local: app, want: slow, onset: 20800 * ms, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				if i%32 != 0 {
					n.keepAlive(client, web, 90, []time.Duration{at}, fast)
				}
			})
			every(0, 60*sec, 1600*ms, func(at time.Duration, _ int) { n.keepAlive(client, web, 120, []time.Duration{at}, from(20*sec, 2*sec)) })
		}, check: features(func(f SlowServer) bool {
			return f.KindLate > 20 && f.KindFast == 0 && f.KindBefore == 13 && f.KindShare > 0.02 && f.KindShare < 0.04 && f.KindWait == 2
		})},
		{name: "the same URL was as slow from the start", local: app, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.keepAlive(client, web, 90, []time.Duration{at}, fast) })
			every(0, 60*sec, 1600*ms, func(at time.Duration, _ int) { n.keepAlive(client, web, 120, []time.Duration{at}, from(0, 2*sec)) })
		}},
		{name: "each fifth request of that URL is slow from 20 s on: rows from a cold cache", local: app, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.keepAlive(client, web, 90, []time.Duration{at}, fast) })
			every(0, 60*sec, 1600*ms, func(at time.Duration, i int) {
				n.keepAlive(client, web, 120, []time.Duration{at}, func(at time.Duration) time.Duration {
					return from(20*sec, time.Duration(measure.Count(i%5 == 0))*2*sec)(at)
				})
			})
		}},
		{name: "consumers of a queue that ran dry at 20 s, beside the other commands", local: app, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.keepAlive(client, web, 90, []time.Duration{at}, fast) })
			for i := range 4 {
				n.closedLoop(client, web, 45, time.Duration(i)*70*ms, 60*sec, 300*ms, from(20*sec, 5*sec))
			}
		}},
		{name: "a path that takes 2.4 s from 20 s on", local: app, make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 5*ms) })
			every(20*sec, 60*sec, 200*ms, func(at time.Duration, _ int) { n.farOpen(at, client, web, 2400*ms) })
		}},
		{name: "nobody answers any more and all clients are patient", local: app, want: hung, onset: 20002 * ms, make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.hung(at, client, web, 0) })
		}, check: features(func(f SlowServer) bool { return f.Stage == "own" && f.StageShare > 0.95 && f.Slow > 150 })},
		{name: "an upstream hangs and its caller is patient", local: app, want: "error upstream 192.0.2.1 203.0.113.5 8080", onset: 20002 * ms, make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, app+":80", 4*ms) })
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, app, "203.0.113.5:8080", 4*ms) })
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.hung(at, app, "203.0.113.5:8080", 0) })
		}, check: features(func(f SlowServer) bool { return f.Stage == "first-byte" && f.StageShare > 0.95 })},
		{name: "clients that leave after 0.3 s", local: app, want: hung, onset: 20002 * ms, make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.hung(at, client, web, 300*ms) })
		}, check: features(func(f SlowServer) bool { return f.GaveUp > 190 })},
		{name: "a pool of eight connections behind a lock", local: app, want: hung, onset: 20552 * ms, make: func(n *network) {
			for i := range 8 {
				n.closedLoop(client, web, 120, time.Duration(i)*100*ms+sec, 40*sec, 1500*ms, from(20*sec, -1))
			}
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast) // the capture goes on
		}, check: features(func(f SlowServer) bool { return f.StoppedFlows == 8 && f.Stopped > 15 })},
		{name: "two connections carry everything", local: app, want: slow, make: func(n *network) {
			for i := range 2 {
				n.closedLoop(client, web, 120, time.Duration(i)*10*ms+sec, 40*sec, 100*ms, from(20*sec, -1))
			}
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast)
		}, onset: 20032 * ms},
		{name: "a collector that stops the program", local: app, want: slow, onset: 8084 * ms, make: func(n *network) {
			for i := range 6 {
				n.closedLoop(client, web, 120, time.Duration(i)*10*ms+sec, 60*sec, 150*ms, collector)
			}
		}, check: features(func(f SlowServer) bool { return f.Stops >= 5 && f.StoppedFlows == 6 })},
		{name: "the greeting comes late", local: app, want: "warn service 192.0.2.1 3306", onset: 20001 * ms, make: func(n *network) {
			every(0, 20*sec, 500*ms, func(at time.Duration, _ int) { n.greet(at, client, app+":3306", 2*ms) })
			every(20*sec, 50*sec, 500*ms, func(at time.Duration, _ int) { n.greet(at, client, app+":3306", 5*sec) })
		}},
		{name: "every greeting comes after 5 s", local: app, want: "warn service 192.0.2.1 3306", onset: ms, make: func(n *network) {
			every(0, 40*sec, 2*sec, func(at time.Duration, _ int) { n.greet(at, client, app+":3306", 5*sec) })
		}, check: features(func(f SlowServer) bool { return f.Greeting && f.LateGreetings == 20 && f.Greetings == 20 })},
		{name: "who waits for news, and is told at any time", local: app, make: func(n *network) {
			every(0, 40*sec, 2*sec, func(at time.Duration, i int) {
				n.greet(at, client, app+":3306", 3*sec+time.Duration(i%7)*900*ms)
			})
		}},
		{name: "greetings in time, some of them late", local: app, make: func(n *network) {
			every(0, 40*sec, 2*sec, func(at time.Duration, i int) {
				n.greet(at, client, app+":3306", []time.Duration{5 * sec, 2 * ms}[i%2])
			})
		}},
		{name: "the greeting does not come", local: app, want: "error service 192.0.2.1 3306", onset: 20001 * ms, make: func(n *network) {
			every(0, 20*sec, 500*ms, func(at time.Duration, _ int) { n.greet(at, client, app+":3306", 2*ms) })
			every(20*sec, 50*sec, 500*ms, func(at time.Duration, _ int) { n.greet(at, client, app+":3306", -1) })
		}, check: features(func(f SlowServer) bool { return f.Greeting && f.GaveUp > 20 })},
		{name: "no past: clients give up, and nobody closes their connections", local: app, want: "error service 192.0.2.1 8080", onset: 2 * ms, make: func(n *network) {
			every(0, 20*sec, 200*ms, func(at time.Duration, _ int) { n.hung(at, client, web, 3*sec) })
		}},

		{name: "events, each on its own when it happens", local: app, make: func(n *network) {
			for i := range 20 { // five clients follow the events, and begin anew every 12.5 s
				at := time.Duration(i/5)*12500*ms + time.Duration(i%5)*20*ms
				c, s := n.from(client), host(web)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 90)
				a := q
				for j := range 3 {
					t := at + 4*ms + time.Duration(j)*5*sec
					n.tcp(t, s, c, capture.ACK|capture.PSH, a, q+90, 120)
					a += 120
					n.tcp(t+ms, c, s, capture.ACK, q+90, a, 0)
				}
				n.tcp(at+12*sec, c, s, capture.ACK|capture.FIN, q+90, a, 0)
				n.tcp(at+12*sec+ms, s, c, capture.ACK|capture.FIN, a, q+91, 0)
				n.tcp(at+12*sec+2*ms, c, s, capture.ACK, q+91, a+1, 0)
			}
		}},
		{name: "a chat: what comes is what others say", local: app, make: func(n *network) {
			const members = 12
			type member struct {
				c    capture.Endpoint
				q, a uint32
			}
			var in [members]member
			for i := range in {
				c := n.from(client)
				q := n.open(time.Duration(i)*10*ms, c, host(web))
				in[i] = member{c, q, q}
			}
			for i := range 100 { // somebody says something every 530 ms, at first every 200 ms; all others hear it
				at := sec + time.Duration(i)*200*ms
				if i > 25 {
					at = 6*sec + time.Duration(i-25)*530*ms
				}
				if i%9 == 8 {
					continue // nobody, for a while
				}
				says := &in[i*5%members]
				n.tcp(at, says.c, host(web), capture.ACK|capture.PSH, says.q, says.a, 20)
				says.q += 20
				n.tcp(at+ms, host(web), says.c, capture.ACK, says.a, says.q, 0)
				for k := range in {
					if m := &in[k]; m != says && (k+i)%3 > 0 {
						n.tcp(at+2*ms, host(web), m.c, capture.ACK|capture.PSH, m.a, m.q, 40)
						m.a += 40
						n.tcp(at+3*ms, m.c, host(web), capture.ACK, m.q, m.a, 0)
					}
				}
			}
		}},
		{name: "answers on the connections of a pool stop in the middle", local: app, want: slow, onset: 20053 * ms, make: func(n *network) {
			for i := range 4 {
				c, s := n.from(client), host(web)
				q := n.open(sec, c, s)
				a := q
				for at := sec + 50*ms + time.Duration(i)*20*ms; ; at += 200 * ms {
					n.tcp(at, c, s, capture.ACK|capture.PSH, q, a, 120)
					q += 120
					n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, a, q, 150)
					n.tcp(at+4*ms, c, s, capture.ACK, q, a+150, 0)
					if a += 150; at >= 20*sec {
						break
					}
					n.tcp(at+5*ms, s, c, capture.ACK|capture.PSH, a, q, 200)
					n.tcp(at+6*ms, c, s, capture.ACK, q, a+200, 0)
					a += 200
				}
			}
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast)
		}, check: features(func(f SlowServer) bool { return f.Stalled == 4 && f.Stage == "sending" })},
		{name: "HTTP/2: the first answer has the longest headers, and the client's SETTINGS ACK comes before it or after it", local: app, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				if i >= 100 {
					return
				}
				c, s := n.from(client), host(web)
				q := n.open(at, c, s)
				a := q
				ask := func(at time.Duration, size, answer uint32) {
					n.tcp(at, c, s, capture.ACK|capture.PSH, q, a, size)
					q += size
					if answer > 0 {
						n.tcp(at+ms, s, c, capture.ACK|capture.PSH, a, q, answer)
						n.tcp(at+2*ms, c, s, capture.ACK, q, a+answer, 0)
						a += answer
					}
				}
				if i%4 == 0 {
					ask(at+2*ms, 363, 42)
					ask(at+5*ms, 9, 409)
				} else {
					ask(at+2*ms, 363, 451)
					ask(at+5*ms, 9, 0)
				}
				for next := at + 4*sec; next < 60*sec; next += 4 * sec {
					ask(next, 16, 366)
				}
			})
		}},
		{name: "connections of a pool idle after answers of all lengths", local: app, make: func(n *network) {
			for i := range 6 {
				c, s := n.from(client), host(web)
				q := n.open(sec, c, s)
				a := q
				for j := range 80 {
					at := sec + time.Duration(j)*200*ms + time.Duration(i)*20*ms
					size := uint32(300 + 1100*((j*7+i)%11)/11)
					n.tcp(at, c, s, capture.ACK|capture.PSH, q, a, 120)
					q += 120
					n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, a, q, size)
					a += size
					n.tcp(at+4*ms, c, s, capture.ACK, q, a, 0)
				}
			}
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast)
		}},

		{name: "long polls of their own kind", local: app, make: func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			for i := range 10 {
				n.closedLoop(client, web, 140, time.Duration(i)*300*ms+10*sec, 60*sec, 50*ms, from(0, 15*sec))
			}
		}},
		{name: "long polls of the size of other requests, on top of them", local: app, make: func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
			for i := range 20 {
				n.closedLoop(client, web, 100, time.Duration(i)*300*ms+20*sec, 60*sec, 50*ms, from(0, 3*sec))
			}
		}},
		{name: "a queue that blocks its consumers for 5 s, or until something comes", local: app, make: func(n *network) {
			for i := range 12 {
				n.closedLoop(client, web, 36, time.Duration(i)*100*ms+sec, 60*sec, ms, func(at time.Duration) time.Duration {
					return 5*sec - at%(3*sec)
				})
			}
			for i := range 4 {
				n.closedLoop(client, web, 32, time.Duration(i)*100*ms+sec, 60*sec, 100*ms, fast)
			}
		}},
		{name: "consumers alone, who leave when they like", local: app, make: func(n *network) {
			every(0, 60*sec, 500*ms, func(at time.Duration, i int) {
				c, s := n.from(client), host(web)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
				n.tcp(at+9*sec, c, s, capture.ACK|capture.FIN, q+100, q, 0)
				n.tcp(at+9*sec+ms, s, c, capture.ACK|capture.FIN, q, q+101, 0)
				n.tcp(at+9*sec+2*ms, c, s, capture.ACK, q+101, q+1, 0)
			})
		}},
		{name: "the load ends with messages that want no answer", local: app, make: func(n *network) {
			for range 8 {
				c, s := n.from(client), host(web)
				q := n.open(sec, c, s)
				a := q
				for i := range 100 {
					at := sec + time.Duration(i)*100*ms
					n.tcp(at+10*ms, c, s, capture.ACK|capture.PSH, q, a, 60)
					n.tcp(at+14*ms, s, c, capture.ACK|capture.PSH, a, q+60, 900)
					q, a = q+60, a+900
					n.tcp(at+15*ms, c, s, capture.ACK|capture.PSH, q, a, 13) // a window update
					q += 13
				}
			}
			n.closedLoop(client, app+":9999", 10, sec, 40*sec, sec, fast)
		}},
		{name: "a sender of records that nobody answers", local: app, make: func(n *network) {
			for range 5 {
				c, s := n.from(client), host(web)
				q := n.open(sec, c, s)
				for i := range uint32(50) {
					n.tcp(sec+time.Duration(i)*sec, c, s, capture.ACK|capture.PSH, q+100*i, q, 100)
					n.tcp(sec+time.Duration(i)*sec+ms, s, c, capture.ACK, q, q+100*i+100, 0)
				}
			}
		}},
	})
}

// A threshold of 300 ms finds answers of 800 ms.
func TestSlowAfter(t *testing.T) {
	var n network
	every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "198.51.100.9", "192.0.2.1:8080", 5*ms) })
	every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "198.51.100.9", "192.0.2.1:8080", 800*ms) })
	if fs := n.findings(t, newSlowServer(), "192.0.2.1"); len(fs) != 0 {
		t.Errorf("without: %+v", features(fs))
	}
	n.rules = "id: slow-server\nparams: {slow_after: 300ms}\n"
	if fs := n.findings(t, newSlowServer(), "192.0.2.1"); len(fs) != 1 || fs[0].Onset.Sub(begin) != 20002*ms {
		t.Errorf("with: %+v", features(fs))
	}
}

// A listener whose program has stopped goes on accepting until its queue is full, and then ignores SYNs: it has not gone.
func TestFullQueueIsNotRefused(t *testing.T) {
	var n network
	const client, web = "198.51.100.9", "192.0.2.1:8080"
	every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, client, web, 4*ms) })
	every(20*sec, 22*sec, 100*ms, func(at time.Duration, _ int) { n.hung(at, client, web, 500*ms) })
	every(22*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.silent(at, client, web, 3) })
	if fs := n.findings(t, newConnectionRefused(), "192.0.2.1"); len(fs) != 0 {
		t.Errorf("%+v", features(fs))
	}
}

// Answers that may have broken off are not cleared: of a client that closes long after the last byte nobody knows whether it was idle.
func TestBrokenOffIsNotCleared(t *testing.T) {
	for pause, want := range map[time.Duration]bool{0: true, 3 * sec: false} {
		var n network
		every(0, 20*sec, 100*ms, func(at time.Duration, _ int) {
			c, s := n.from("203.0.113.7"), host("198.51.100.2:443")
			q := n.open(at, c, s)
			n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
			n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
			n.tcp(at+4*ms, c, s, capture.ACK, q+100, q+1000, 0)
			n.tcp(at+5*ms+pause, c, s, capture.ACK|capture.FIN, q+100, q+1000, 0)
			n.tcp(at+5*ms+pause+ms/2, s, c, capture.ACK, q+1000, q+101, 0)
			n.tcp(at+6*ms+pause, s, c, capture.ACK|capture.FIN, q+1000, q+101, 0)
			n.tcp(at+7*ms+pause, c, s, capture.ACK, q+101, q+1001, 0)
		})
		if got := n.cleared(t, newSlowServer()); got != want {
			t.Errorf("closed %v after the answer: cleared %v", pause, got)
		}
	}
}

// Where no address counts as this host, a slow listener is the upstream of the one host that asks it and serves others itself.
func TestSlowUpstreamOfAStranger(t *testing.T) {
	const app, up = "192.0.2.1", "198.51.100.2:8080"
	asked := func(n *network, callers ...string) {
		every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
			wait := 5 * ms
			if at >= 20*sec {
				wait = 2 * sec
			}
			n.call(at, "203.0.113."+itoa(i%5+1), app+":443", wait+20*ms)
			n.call(at+5*ms, callers[i%len(callers)], up, wait)
			n.call(at+50*ms, "203.0.113."+itoa(i%5+1), "203.0.113.77:22", 5*ms)
		})
	}
	play(t, newSlowServer, []scene{
		{name: "it serves others", want: "warn service 192.0.2.1 443; warn upstream 192.0.2.1 198.51.100.2 8080", make: func(n *network) { asked(n, app) }},
		{name: "it serves nobody", want: "warn service 192.0.2.1 443; warn service 198.51.100.2 8080", make: func(n *network) { asked(n, "192.0.2.9") }},
		{name: "two ask, of which one serves others", want: "warn service 192.0.2.1 443; warn service 198.51.100.2 8080",
			make: func(n *network) { asked(n, app, "192.0.2.9") }},
	})
}

// A lock that is held since before the capture shows in answers alone, to requests that the capture lacks.
func TestEarlierRequestsAreNotCleared(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:5432"
	for _, held := range []int{0, 30} {
		n := &network{}
		every(0, 30*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, app, srv, 5*ms) })
		for i := range held {
			c, s := n.from(app), host(srv)
			at := 10*sec + time.Duration(i)*ms
			n.tcp(at, s, c, capture.ACK|capture.PSH, 5000, 7000, 300)
			n.tcp(at+ms, c, s, capture.ACK, 7000, 5300, 0)
			n.tcp(at+20*ms, c, s, capture.ACK|capture.PSH, 7000, 5300, 100)
			n.tcp(at+25*ms, s, c, capture.ACK|capture.PSH, 5300, 7100, 300)
		}
		if got := n.cleared(t, newSlowServer()); got != (held == 0) {
			t.Errorf("%d held: cleared %v", held, got)
		}
	}
}
