package detect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/capture"
	"jindan/rules"
)

// ordeal is a fault that is healed: what is done every step, while it is well and while it is ill. heal is when the fault ends.
type ordeal struct {
	rule      string // what must be found of it, among others
	local     string
	step      time.Duration
	well, ill func(n *network, at time.Duration, i int, heal time.Duration)
	left      bool                               // the same does not go on: nobody tries what failed
	usual     int                                // where it is usual, one in so many fails; 0: one in 20; never: it has no such time
	alone     func(n *network, to time.Duration) // goes on whatever happens
}

const never = -1

const (
	healApp, healUp = "192.0.2.1", "198.51.100.2:8080"
	healSrv         = "192.0.2.1:8080"
)

func healClient(i int) string { return fmt.Sprintf("203.0.%d.%d", 100+i%8, 1+i%60) }

// ordeals are faults of every rule whose findings end. What a fault leaves behind, as connections that hang, ends with it.
func ordeals() map[string]ordeal {
	type act = func(n *network, at time.Duration, i int, heal time.Duration)
	called := func(n *network, at time.Duration, _ int, _ time.Duration) { n.call(at, healApp, healUp, 5*ms) }
	served := func(n *network, at time.Duration, i int, _ time.Duration) { n.call(at, healClient(i), healSrv, 5*ms) }
	asked := func(answer time.Duration, rcode uint8) act {
		return func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.query(at, healApp, "198.51.100.53:53", "a.test", answer, rcode, 80)
		}
	}
	loads := func(lost func(i, k int) bool) act {
		return func(n *network, at time.Duration, i int, _ time.Duration) {
			n.download(at, healClient(i), "192.0.2.1:443", 11, func(k int) bool { return lost(i, k) }, i%2 == 0)
		}
	}
	rarely := func(nth int, often, now act) act {
		return func(n *network, at time.Duration, i int, heal time.Duration) {
			if i%nth == nth-1 {
				now(n, at, i, heal)
			} else {
				often(n, at, i, heal)
			}
		}
	}
	none := func(int, int) bool { return false }
	// cutOff is a connection that its server resets in the middle of its answer.
	cut := func(n *network, at time.Duration, i int, _ time.Duration) {
		c, s := n.from(healClient(i)), host(healSrv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
		n.tcp(at+500*ms, s, c, capture.RST, q, q+100, 0)
	}
	// waitFor is a call that hangs; once it is well, the server's program reads it and closes.
	waitFor := func(n *network, at time.Duration, heal time.Duration, client, server string) {
		patience := max(min(heal-at, 5*sec), 10*ms)
		n.hung(at, client, server, patience)
		c, s := capture.Endpoint{Addr: addr(client), Port: 20_000 + n.port%40_000}, host(server)
		n.tcp(max(heal, at+patience)+10*ms, s, c, capture.ACK|capture.FIN, n.seq+1, n.seq+102, 0)
		n.tcp(max(heal, at+patience)+11*ms, c, s, capture.RST, n.seq+102, 0, 0)
	}
	return map[string]ordeal{
		"connection-refused": {rule: "connection-refused", step: 100 * ms, local: healApp, well: served,
			ill: func(n *network, at time.Duration, i int, _ time.Duration) { n.refused(at, healClient(i), healSrv) }},
		"refused upstream": {rule: "dead-upstream", step: 100 * ms, local: healApp, well: called,
			ill: func(n *network, at time.Duration, _ int, _ time.Duration) { n.refused(at, healApp, healUp) }},
		"silent upstream": {rule: "dead-upstream", step: 200 * ms, local: healApp, well: called,
			ill: func(n *network, at time.Duration, _ int, heal time.Duration) {
				c, s := n.from(healApp), host(healUp)
				for _, d := range []time.Duration{0, sec, 3 * sec} {
					if at+d < heal {
						n.tcp(at+d, c, s, capture.SYN, n.seq, 0, 0)
						continue
					}
					n.open(at+d, c, s)
					return
				}
			}},
		"hung upstream": {rule: "dead-upstream", step: 200 * ms, local: healApp, well: called,
			ill: func(n *network, at time.Duration, _ int, heal time.Duration) { waitFor(n, at, heal, healApp, healUp) }},
		"slow upstream": {rule: "slow-server", step: 100 * ms, local: healApp, well: called,
			ill: func(n *network, at time.Duration, _ int, heal time.Duration) {
				n.call(at, healApp, healUp, max(min(3*sec, heal-at), 5*ms))
			}},
		"slow service, seldom asked": {rule: "slow-server", step: 500 * ms, local: healApp, well: served,
			ill: func(n *network, at time.Duration, i int, heal time.Duration) {
				n.call(at, healClient(i), healSrv, max(min(3*sec, heal-at), 5*ms))
			}},
		"one in three is slow": {rule: "slow-server", step: 100 * ms, local: healApp, well: served,
			ill: rarely(3, served, func(n *network, at time.Duration, i int, heal time.Duration) {
				n.call(at, healClient(i), healSrv, max(min(3*sec, heal-at), 5*ms))
			})},
		"dns-delay":  {rule: "dns-delay", step: 200 * ms, local: healApp, well: asked(2*ms, noError), ill: asked(1500*ms, noError)},
		"dns-errors": {rule: "dns-errors", step: 200 * ms, local: healApp, usual: 5, well: asked(2*ms, noError), ill: asked(2*ms, servFail)},
		"dns-unanswered, asked again after 5 s": {rule: "dns-unanswered", step: 200 * ms, local: healApp, well: asked(2*ms, noError),
			ill: func(n *network, at time.Duration, _ int, heal time.Duration) {
				c := n.from(healApp)
				for range 2 {
					answer := 2 * ms
					if at < heal {
						answer = -1
					}
					n.queryFrom(at, c, "198.51.100.53:53", "a.test", answer, noError, 80)
					if n.dnsID--; answer > 0 {
						break
					}
					at += 5 * sec
				}
				n.dnsID++
			}},
		"dns-unanswered, one in four":          {rule: "dns-unanswered", step: 200 * ms, local: healApp, well: asked(2*ms, noError), ill: rarely(4, asked(2*ms, noError), asked(-1, noError))},
		"dns-unanswered, asked twice a minute": {rule: "dns-unanswered", step: 2 * sec, local: healApp, usual: never /* too few to tell */, well: asked(2*ms, noError), ill: asked(-1, noError)},
		"loss":                                 {rule: "retransmission", step: 250 * ms, local: healApp, usual: 10, well: loads(none), ill: loads(func(i, k int) bool { return (i*12+k)%11 == 0 })},
		"loss of large segments": {rule: "size-dependent-loss", step: 250 * ms, local: healApp, well: loads(none),
			ill: loads(func(_, k int) bool { return k < 11 && k%2 == 0 })},
		"a service that does not read": {rule: "slow-receiver", step: 200 * ms, local: healApp, well: served, usual: 200,
			ill: rarely(3, served, func(n *network, at time.Duration, i int, heal time.Duration) {
				n.stall(at, healClient(i), healSrv, max(min(8*sec, heal-at), 5*ms))
			})},
		"clients that do not read, and leave": {rule: "slow-receiver", step: 200 * ms, local: healApp, well: served,
			ill: rarely(10, served, func(n *network, at time.Duration, i int, heal time.Duration) {
				c, s := n.from("203.0.113.99"), host(healSrv)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+4*ms, s, c, capture.ACK, q, q+100, 1460)
				for t := at + 5*ms; t < heal; t += 2 * sec {
					n.tcp(t, c, s, capture.ACK, q+100, q+1460, 0)
					n.obs[len(n.obs)-1].Packet.Window = 0
					n.tcp(t+sec, s, c, capture.ACK, q-1, q+100, 0)
				}
				n.tcp(heal, c, s, capture.RST, q+100, q+1460, 0)
			})},
		"an upstream that refused, then connections that are kept": {rule: "dead-upstream", step: 100 * ms, local: healApp, usual: never, // no more requests
			well: func(n *network, at time.Duration, i int, _ time.Duration) {
				if at < 40*sec {
					n.call(at, healApp, healUp, 5*ms)
				} else if at-at%(100*sec) == at || i == 801 {
					n.closedLoop(healApp, healUp, 60, at+20*ms, 420*sec, 100*ms, func(time.Duration) time.Duration { return 4 * ms })
				}
			},
			ill: func(n *network, at time.Duration, _ int, _ time.Duration) { n.refused(at, healApp, healUp) }},
		"resets of connections that last": {rule: "abnormal-termination", step: 500 * ms, local: healApp, usual: never, // all that end are reset
			alone: func(n *network, to time.Duration) {
				for i := range 20 {
					n.closedLoop(healClient(i), healSrv, 60, time.Duration(i)*20*ms+sec, to, 300*ms, func(time.Duration) time.Duration { return 4 * ms })
				}
			},
			well: func(*network, time.Duration, int, time.Duration) {}, ill: cut},
		"answers cut off":          {rule: "abnormal-termination", step: 100 * ms, local: healApp, usual: 30, well: served, ill: rarely(2, served, cut)},
		"one answer in 20 cut off": {rule: "abnormal-termination", step: 50 * ms, local: healApp, well: served, ill: rarely(20, served, cut)},
		"accept queue": {rule: "accept-queue", step: sec, local: healApp, usual: never, well: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.sockets(at, gateStates, listener("0.0.0.0:8080", 0, 4))
		}, ill: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.sockets(at, gateStates, listener("0.0.0.0:8080", 5, 4))
		}},
		"close-wait": {rule: "close-wait", step: sec, local: healApp, usual: never, well: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.sockets(at, gateStates, listener(healSrv, 0, 64))
		}, ill: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.sockets(at, gateStates, append(waits(40, healSrv, 500, 0), listener(healSrv, 0, 64))...)
		}},
		"surge": {rule: "surge", step: 50 * ms, local: healApp, well: served, ill: func(n *network, at time.Duration, i int, heal time.Duration) {
			served(n, at, i, heal)
			for k := range time.Duration(12) {
				n.open(at+k*4*ms, n.from("192.0.2.66"), host(healSrv))
			}
		}},
		"one member refuses": {rule: "backend-skew", step: 50 * ms, local: healApp,
			well: func(n *network, at time.Duration, i int, _ time.Duration) {
				n.call(at, healApp, fmt.Sprintf("198.51.100.%d:8080", 2+i%3), 5*ms)
			},
			ill: func(n *network, at time.Duration, i int, _ time.Duration) {
				if up := fmt.Sprintf("198.51.100.%d:8080", 2+i%3); i%3 == 2 {
					n.refused(at, healApp, up)
				} else {
					n.call(at, healApp, up, 5*ms)
				}
			}},
		"one member refuses, and is not called again": {rule: "backend-skew", step: 50 * ms, local: healApp,
			well: func(n *network, at time.Duration, i int, _ time.Duration) {
				if at < 40*sec || i%3 < 2 {
					n.call(at, healApp, fmt.Sprintf("198.51.100.%d:8080", 2+i%3), 5*ms)
				}
			},
			ill: func(n *network, at time.Duration, i int, _ time.Duration) {
				if up := fmt.Sprintf("198.51.100.%d:8080", 2+i%3); i%3 == 2 {
					n.refused(at, healApp, up)
				} else {
					n.call(at, healApp, up, 5*ms)
				}
			}, left: true},
		"path-cut": {rule: "path-cut", step: 200 * ms, local: healApp, usual: never, // where single peers fall silent all the time, several do by chance
			alone: func(n *network, to time.Duration) {
				every(100*ms, to, 200*ms, func(at time.Duration, _ int) { n.call(at, healApp, "203.0.113.7:8080", 5*ms) })
			},
			well: func(n *network, at time.Duration, i int, _ time.Duration) {
				n.call(at, healApp, fmt.Sprintf("198.51.100.%d:8080", 2+i%3), 5*ms)
			},
			ill: func(n *network, at time.Duration, i int, heal time.Duration) {
				c, s := n.from(healApp), host(fmt.Sprintf("198.51.100.%d:8080", 2+i%3))
				for _, d := range []time.Duration{0, sec, 3 * sec} {
					if at+d < heal {
						n.tcp(at+d, c, s, capture.SYN, n.seq, 0, 0)
					}
				}
			}},
		"nagle": {rule: "nagle", step: 250 * ms, local: healApp, usual: never, well: func(n *network, at time.Duration, _ int, _ time.Duration) {
			x := n.talk(at-10*ms, healClient(1), healSrv)
			x.pieces(at, ms, ms/5)
		}, ill: func(n *network, at time.Duration, _ int, _ time.Duration) {
			x := n.talk(at-10*ms, healClient(1), healSrv)
			x.pieces(at, 41*ms, 41*ms+ms/5)
		}},
		"state-mismatch": {rule: "state-mismatch", step: 200 * ms, local: healApp, well: served,
			ill: rarely(5, served, func(n *network, at time.Duration, _ int, _ time.Duration) {
				n.met(at, "203.0.113.77", healSrv, 1, false)
			})},
		"ports": {rule: "exhaustion", step: sec, local: healApp, usual: never, well: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.counters(at, func(h *capture.HostSample) { h.ConntrackMax, h.ConntrackCount = 1000, 100 })
		}, ill: func(n *network, at time.Duration, _ int, _ time.Duration) {
			n.counters(at, func(h *capture.HostSample) { h.ConntrackMax, h.ConntrackCount = 1000, 950 })
		}},
	}
}

// play plays o: it is ill at some times, else well, until nobody asks any more; something else goes on to the end. It returns the records
// of what was above info, by finding.
func (o ordeal) play(t *testing.T, ill [][2]time.Duration, stop, to time.Duration) map[string][]*analyze.Finding {
	t.Helper()
	n := new(network)
	if o.alone != nil {
		o.alone(n, to)
	}
	every(0, stop, o.step, func(at time.Duration, i int) {
		for _, x := range ill {
			if at >= x[0] && at < x[1] {
				o.ill(n, at, i, x[1])
				return
			}
		}
		o.well(n, at, i, 0)
	})
	every(50*ms, to, 500*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.77", "192.0.2.78:9999", 5*ms) })
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	records := make(map[string][]*analyze.Finding)
	e, err := analyze.New(set, All(), analyze.Options{Sources: []string{"test"}, Causes: cause.New(set), Local: []netip.Prefix{netip.MustParsePrefix(o.local + "/32")}},
		func(f *analyze.Finding) error {
			g := *f
			if key := f.Rule + " " + f.ID; f.Severity != "info" || len(records[key]) > 0 {
				records[key] = append(records[key], &g)
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(n.obs, func(a, b capture.Observation) int { return int(max(min(a.At-b.At, 1), -1)) })
	for i := range n.obs {
		n.obs[i].Packet.Frame = uint64(i + 1)
		if err := e.Observe(&capture.Batch{Obs: n.obs[i : i+1], Until: n.obs[i].At}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// Whatever the rule: a fault that is healed is told to be over within 15 s, if the same traffic passes again, and since when it is well.
func TestHealed(t *testing.T) {
	const from, heal = 40 * sec, 80 * sec
	for name, o := range ordeals() {
		if o.left {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := false
			for key, rs := range o.play(t, [][2]time.Duration{{from, heal}}, 150*sec, 150*sec) {
				found = found || strings.HasPrefix(key, o.rule+" ")
				last := rs[len(rs)-1]
				// A window ends up to a second later.
				if last.State != analyze.Resolved || last.Ended != analyze.EndedWell || last.Time > begin.Add(heal+16*sec) || last.LastSeen > begin.Add(heal+11*sec) {
					t.Errorf("%s: %s %s at %v, last seen %v: %+v", key, last.State, last.Ended, last.Time.Sub(begin), last.LastSeen.Sub(begin), last.Features)
				}
			}
			if !found {
				t.Error("not found")
			}
		})
	}
}

// Whatever the rule: what nobody tries any more ends, too, and none of it is said to be well later than it was last tried.
func TestNobodyTries(t *testing.T) {
	const from, stop = 40 * sec, 80 * sec
	for name, o := range ordeals() {
		if o.alone != nil || o.rule == "exhaustion" {
			continue // others go on; without samples nobody knows how much is used
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until := stop
			if o.left {
				until = 240 * sec // others are called
			}
			for key, rs := range o.play(t, [][2]time.Duration{{from, stop}}, until, 240*sec) {
				if last := rs[len(rs)-1]; last.State != analyze.Resolved || last.Time > begin.Add(stop+80*sec) {
					t.Errorf("%s: %s %s at %v, last seen %v: %+v", key, last.State, last.Ended, last.Time.Sub(begin), last.LastSeen.Sub(begin), last.Features)
				}
			}
		})
	}
}

// A fault that comes back every ten seconds is one that lasts: its finding does not open and close each time.
func TestComesBack(t *testing.T) {
	var ill [][2]time.Duration
	for at := 40 * sec; at < 340*sec; at += 15 * sec {
		ill = append(ill, [2]time.Duration{at, at + 5*sec})
	}
	for name, o := range ordeals() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := o.play(t, ill, 420*sec, 420*sec)
			for key, rs := range records {
				opened := 0
				for i, r := range rs {
					if r.State == analyze.Open && (i == 0 || rs[i-1].State == analyze.Resolved) {
						opened++
					}
				}
				if last := rs[len(rs)-1]; opened > len(ill)/2 || last.State != analyze.Resolved {
					t.Errorf("%s: opened %d times, %s at last", key, opened, last.State)
				}
			}
		})
	}
}

// Whatever the rule: where some always fail, a fault on top of that is over within 15 s, too, if no more fail than before it.
func TestHealedToUsual(t *testing.T) {
	const from, heal = 90 * sec, 130 * sec
	for name, o := range ordeals() {
		if o.left || o.usual == never {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			well, found := o.well, false
			usual := cmp.Or(o.usual, 20)
			o.well = func(n *network, at time.Duration, i int, _ time.Duration) {
				if i%usual == 7 {
					o.ill(n, at, i, at+8*sec)
				} else {
					well(n, at, i, 0)
				}
			}
			for key, rs := range o.play(t, [][2]time.Duration{{from, heal}}, 200*sec, 200*sec) {
				ended, opened, always := false, 0, rs[0].Time < begin.Add(from)
				for _, r := range rs {
					found = found || strings.HasPrefix(key, o.rule+" ")
					ended = ended || r.State == analyze.Resolved && r.Ended == analyze.EndedWell && r.Time > begin.Add(heal) && r.Time <= begin.Add(heal+16*sec) && r.LastSeen <= begin.Add(heal+11*sec)
					opened += count(ended && r.State == analyze.Open && r.Severity != "info")
				}
				if !ended || opened > count(always) {
					for _, r := range rs {
						t.Errorf("%s: %v %s %s %s onset %v last seen %v", key, r.Time.Sub(begin), r.Severity, r.State, r.Ended, r.Onset.Sub(begin), r.LastSeen.Sub(begin))
					}
				}
			}
			if !found {
				t.Error("not found")
			}
		})
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}
