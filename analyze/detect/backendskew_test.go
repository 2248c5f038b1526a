package detect

import (
	"fmt"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/points"
	"jindan/capture"
)

func TestBackendSkew(t *testing.T) {
	const lb = "192.0.2.1"
	members := []string{"198.51.100.2:8080", "198.51.100.3:8080", "198.51.100.4:8080"}
	even := func(n *network, from, to time.Duration) {
		every(from, to, 50*ms, func(at time.Duration, i int) { n.call(at, lb, members[i%3], 5*ms) })
	}
	play(t, newBackendSkew, []scene{
		{name: "one member fails", local: lb, want: "warn host 192.0.2.1 8080", onset: 20100 * ms,
			make: func(n *network) {
				even(n, 0, 20*sec)
				every(20*sec, 40*sec, 50*ms, func(at time.Duration, i int) {
					if i%3 == 2 {
						n.refused(at, lb, members[2])
					} else {
						n.call(at, lb, members[i%3], 5*ms)
					}
				})
			},
			check: func(t *testing.T, features any) {
				if f := features.(BackendSkew); f.FailedMember != "198.51.100.4" || f.FailedShare < 0.95 || f.FailedOthers != 0 || f.Members != 3 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "one member is slow", local: lb, want: "warn host 192.0.2.1 8080", onset: 20002 * ms,
			make: func(n *network) {
				even(n, 0, 20*sec)
				every(20*sec, 40*sec, 50*ms, func(at time.Duration, i int) {
					wait := 5 * ms
					if i%3 == 0 {
						wait = 1500 * ms
					}
					n.call(at, lb, members[i%3], wait)
				})
			}},
		{name: "one member gets nearly all", local: lb, want: "info host 192.0.2.1 8080", onset: 20700 * ms,
			make: func(n *network) {
				even(n, 0, 20700*ms)
				every(20700*ms, 50*sec, 50*ms, func(at time.Duration, i int) {
					k := 0
					if i%10 == 9 {
						k = 1 + i/10%2
					}
					n.call(at, lb, members[k], 5*ms)
				})
			}},
		{name: "evenly spread", local: lb, make: func(n *network) { even(n, 0, 60*sec) }},
		{name: "members restart one after the other", local: lb, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				if down := int(at/sec) - 20; down >= 0 && down < 30 && down%10 < 2 && down/10 == i%3 {
					n.refused(at, lb, members[i%3])
				} else {
					n.call(at, lb, members[i%3], 5*ms)
				}
			})
		}},
		// What takes long on purpose, and is cut by the restart, began before it.
		{name: "a member restarts among long polls", local: lb, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				wait := 5 * ms
				if i%9 < 3 {
					wait = 3 * sec
				}
				if at >= 20*sec && at < 22*sec && i%3 == 1 {
					n.refused(at, lb, members[1])
				} else {
					n.call(at, lb, members[i%3], wait)
				}
			})
		}},
		{name: "servers for different things: one much, one little", local: lb, make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				k := 0
				if i%10 == 9 {
					k = 1
				}
				if k == 1 && at > 20*sec {
					n.refused(at, lb, members[1])
				} else {
					n.call(at, lb, members[k], 5*ms)
				}
			})
		}},
		{name: "all members fail", local: lb, make: func(n *network) {
			even(n, 0, 20*sec)
			every(20*sec, 40*sec, 50*ms, func(at time.Duration, i int) { n.refused(at, lb, members[i%3]) })
		}},
	})
}

// A load balancer that translates addresses has no connections of its own: captures before and behind it show which server each client's was passed on to.
// From one capture alone each client seems to choose by itself.
func TestBalancerBetweenPoints(t *testing.T) {
	members := []string{"198.51.100.2:8080", "198.51.100.3:8080", "198.51.100.4:8080"}
	client := func(i int) string { return fmt.Sprintf("203.0.113.%d", 1+i%100) }
	var between points.Report
	between.Members = make(map[capture.Endpoint]capture.Endpoint)
	for _, m := range members {
		between.Members[host(m)] = host("192.0.2.10:80")
	}
	fails := func(n *network) {
		every(0, 40*sec, 50*ms, func(at time.Duration, i int) {
			if at >= 20*sec && i%3 == 2 {
				n.refused(at, client(i), members[2])
			} else {
				n.call(at, client(i), members[i%3], 5*ms)
			}
		})
	}
	skewed := func(n *network) {
		every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
			k := i % 3
			if at >= 20*sec && i%10 != 9 {
				k = 0
			}
			n.call(at, client(i), members[k], 5*ms)
		})
	}
	play(t, func() analyze.Detector {
		d := newBackendSkew()
		d.(analyze.Informed).Inform(&between)
		return d
	}, []scene{
		{name: "one member fails", make: fails, want: "warn host 192.0.2.10 80", onset: 20050 * ms, check: func(t *testing.T, features any) {
			if f := features.(BackendSkew); f.FailedMember != "198.51.100.4" || f.FailedShare < 0.95 || f.FailedOthers != 0 || f.Members != 3 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "one member gets nearly all", make: skewed, want: "info host 192.0.2.10 80", onset: 19800 * ms},
		{name: "evenly spread", make: func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) { n.call(at, client(i), members[i%3], 5*ms) })
		}},
	})
	play(t, newBackendSkew, []scene{{name: "from one capture", make: fails}})
}
