package detect

import (
	"encoding/binary"
	"testing"
	"time"

	"jindan/capture"
	"jindan/rules"
)

func TestDeadUpstream(t *testing.T) {
	const app, up, other = "192.0.2.1", "198.51.100.2:8080", "198.51.100.3:8080"
	well := func(n *network, from, to time.Duration, server string) {
		every(from, to, 100*ms, func(at time.Duration, _ int) { n.call(at, app, server, 5*ms) })
	}
	class := func(want string) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(DeadUpstream); f.Class != want || f.SucceededBefore < 190 || f.OthersOK < 100 || f.OthersPeers != 1 {
				t.Errorf("%+v", f)
			}
		}
	}
	const dead = "error upstream 192.0.2.1 198.51.100.2 8080"
	// unsent is a call to a neighbour that does not answer: only the ICMP error in which the host quotes the packet to itself is captured, once for each try.
	unsent := func(n *network, at time.Duration, flags, code uint8) {
		c, s := n.from(app), host(up)
		b := make([]byte, 40)
		b[0], b[9] = 0x45, capture.ProtoTCP
		copy(b[12:16], c.Addr.Netip().AsSlice())
		copy(b[16:20], s.Addr.Netip().AsSlice())
		binary.BigEndian.PutUint16(b[20:], c.Port)
		binary.BigEndian.PutUint16(b[22:], s.Port)
		binary.BigEndian.PutUint32(b[24:], n.seq)
		b[33] = flags
		for range 2 {
			n.add(at, capture.Packet{Src: capture.Endpoint{Addr: c.Addr}, Dst: capture.Endpoint{Addr: c.Addr}, Proto: capture.ProtoICMP, ICMPType: 3, ICMPCode: code, Data: b, IPLen: 60})
		}
	}
	asks := func(flags, code uint8) func(*network) {
		return func(n *network) {
			well(n, 0, 20*sec, up)
			well(n, 50*ms, 40*sec, other)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { unsent(n, at, flags, code) })
		}
	}
	play(t, newDeadUpstream, []scene{
		{name: "SYNs that never leave: no neighbour has the address", local: app, want: dead, onset: 20 * sec, make: asks(capture.SYN, 1),
			check: func(t *testing.T, features any) {
				class("silent")(t, features)
				if f := features.(DeadUpstream); f.Unreached != 200 || f.Failed != 200 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "SYNs that are too big", local: app, make: asks(capture.SYN, 4)},
		{name: "segments of connections that nobody has seen", local: app, make: asks(capture.ACK, 1)},
	})
	play(t, newDeadUpstream, []scene{
		{name: "silent, and few calls because all workers wait", local: app, want: dead, onset: 20 * sec, check: class("silent"),
			make: func(n *network) {
				well(n, 0, 20*sec, up)
				well(n, 50*ms, 40*sec, other)
				every(20*sec, 21600*ms, 100*ms, func(at time.Duration, _ int) { n.silent(at, app, up, 4) })
			}},
		{name: "refused", local: app, want: dead, onset: 20 * sec, check: class("refused"), make: func(n *network) {
			well(n, 0, 20*sec, up)
			well(n, 50*ms, 40*sec, other)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.refused(at, app, up) })
		}},
		{name: "accepted, but not served", local: app, want: dead, onset: 20002 * ms, check: class("hung"), make: func(n *network) {
			well(n, 0, 20*sec, up)
			well(n, 50*ms, 40*sec, other)
			every(20*sec, 40*sec, 500*ms, func(at time.Duration, _ int) { n.hung(at, app, up, 0) })
		}},
		{name: "a host that serves others, no address given", want: dead, onset: 20 * sec, make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, i int) {
				n.call(at, []string{"203.0.113.7", "203.0.113.8", "203.0.113.9"}[i%3], app+":443", 50*ms)
			})
			well(n, 0, 20*sec, up)
			every(20*sec, 30*sec, 100*ms, func(at time.Duration, _ int) { n.silent(at, app, up, 3) })
		}},
		{name: "a peer of long ago is forgotten while the next one is judged", local: app, want: "error upstream 192.0.2.1 198.51.100.6 8080", onset: 598 * sec, make: func(n *network) {
			well(n, 0, sec, other) // forgotten at 601 s
			n.call(2*sec, app, "198.51.100.6:8080", 5*ms)
			every(598*sec, 612*sec, 500*ms, func(at time.Duration, _ int) { n.refused(at, app, "198.51.100.6:8080") })
		}},
		{name: "its queue is full: old connections go on", local: app, want: dead, onset: 20 * sec, check: class("full"), make: func(n *network) {
			well(n, 0, 20*sec, up)
			well(n, 50*ms, 40*sec, other)
			c, s := n.from(app), host(up)
			q := n.open(sec, c, s)
			for i := range uint32(39) {
				at := time.Duration(i+1)*sec + 500*ms
				n.tcp(at, c, s, capture.ACK|capture.PSH, q+100*i, q+200*i, 100)
				n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q+200*i, q+100*i+100, 200)
			}
			every(20*sec, 36*sec, 200*ms, func(at time.Duration, _ int) { n.silent(at, app, up, 2) })
		}},
		{name: "it hangs, and then its queue is full", local: app, want: dead, onset: 20002 * ms, check: class("hung"), make: func(n *network) {
			well(n, 0, 20*sec, up)
			well(n, 50*ms, 40*sec, other)
			every(20*sec, 26*sec, 200*ms, func(at time.Duration, _ int) { n.hung(at, app, up, 8*sec) })
			every(26*sec, 34*sec, 200*ms, func(at time.Duration, _ int) { n.silent(at, app, up, 2) })
			well(n, 38*sec, 40*sec, up)
		}},
		{name: "it restarts", local: app, want: "info upstream 192.0.2.1 198.51.100.2 8080", onset: 20 * sec, make: func(n *network) {
			well(n, 0, 20*sec, up)
			every(20*sec, 23*sec, 100*ms, func(at time.Duration, _ int) { n.refused(at, app, up) })
			well(n, 23*sec, 40*sec, up)
		}},
		{name: "long polls", local: app, make: func(n *network) {
			every(0, 90*sec, 300*ms, func(at time.Duration, _ int) { n.call(at, app, up, 30*sec) })
		}},
		{name: "never answers by design", local: app, make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) { n.hung(at, app, up, 8*sec) })
		}},
		{name: "a path that loses SYNs", local: app, make: func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
				if i%10 == 3 { // lost once, then answered
					n.lateOpen(at, app, up, sec)
				} else {
					n.call(at, app, up, 5*ms)
				}
			})
		}},
		{name: "its accept queue is full: some are let in after their third SYN", local: app, make: func(n *network) {
			well(n, 0, 20*sec, up)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.lateOpen(at, app, up, 3*sec) })
		}},
		{name: "this host is the one that refuses", local: "198.51.100.2", make: func(n *network) {
			well(n, 0, 20*sec, up)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, _ int) { n.refused(at, app, up) })
		}},
	})
}

func TestConnectionRefused(t *testing.T) {
	const srv, shut = "198.51.100.2:8080", "error service 198.51.100.2 8080"
	clients := []string{"203.0.113.7", "203.0.113.8", "203.0.113.9"}
	well := func(n *network, from, to time.Duration) {
		every(from, to, 100*ms, func(at time.Duration, i int) { n.call(at, clients[i%3], srv, 5*ms) })
	}
	// older begins with connections that are open: one that is served, and five that their clients close; the server does after a time, or never.
	older := func(n *network, closes time.Duration) {
		n.closedLoop(clients[0], srv, 200, sec/2, 60*sec, 500*ms, func(time.Duration) time.Duration { return 5 * ms })
		every(100*ms, 600*ms, 100*ms, func(at time.Duration, i int) {
			c, s := n.from(clients[i%3]), host(srv)
			n.tcp(at, c, s, capture.ACK|capture.FIN, n.seq, n.seq, 0)
			n.tcp(at+ms/2, s, c, capture.ACK, n.seq, n.seq+1, 0)
			if closes > 0 {
				n.tcp(at+closes, s, c, capture.ACK|capture.FIN, n.seq, n.seq+1, 0)
				n.tcp(at+closes+ms/2, c, s, capture.ACK, n.seq+1, n.seq+1, 0)
			}
		})
		every(sec, 60*sec, 100*ms, func(at time.Duration, i int) { n.silent(at, clients[i%3], srv, 2) })
	}
	play(t, newConnectionRefused, []scene{
		{name: "the program is gone", local: "198.51.100.2", want: shut, onset: 20 * sec, make: func(n *network) {
			well(n, 0, 20*sec)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, i int) { n.refused(at, clients[i%3], srv) })
		}, check: func(t *testing.T, features any) {
			if f := features.(ConnectionRefused); f.Class != "refused" || f.ServedBefore != 200 || f.Clients != 3 || f.Lasting < 19 || f.Insisting != 3 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "the host is gone", want: shut, onset: 20 * sec, make: func(n *network) {
			well(n, 0, 20*sec)
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, i int) { n.silent(at, clients[i%3], srv, 3) })
		}, check: func(t *testing.T, features any) {
			if f := features.(ConnectionRefused); f.Class != "silent" || f.ServedBefore != 200 || f.Unanswered < 100 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "a restart", want: "info service 198.51.100.2 8080", onset: 20 * sec, make: func(n *network) {
			well(n, 0, 20*sec)
			every(20*sec, 23*sec, 100*ms, func(at time.Duration, i int) { n.refused(at, clients[i%3], srv) })
			well(n, 23*sec, 60*sec)
		}},
		{name: "the accept queue is full: ignored, but heard", make: func(n *network) {
			well(n, 0, 20*sec)
			every(19*sec, 21*sec, 100*ms, func(at time.Duration, i int) { n.hung(at, clients[i%3], srv, 3*sec) })
			every(20*sec, 60*sec, 100*ms, func(at time.Duration, i int) { n.silent(at, clients[i%3], srv, 2) })
		}},
		{name: "a filter, or a full table on the way, drops new connections; those that are open are served", want: shut, onset: 20 * sec, make: func(n *network) {
			well(n, 0, 20*sec)
			n.closedLoop(clients[0], srv, 200, sec, 60*sec, 500*ms, func(time.Duration) time.Duration { return 5 * ms })
			every(20*sec, 60*sec, 100*ms, func(at time.Duration, i int) { n.silent(at, clients[i%3], srv, 2) })
		}, check: func(t *testing.T, features any) {
			if f := features.(ConnectionRefused); f.Class != "silent" || !f.Open {
				t.Errorf("%+v", f)
			}
		}},
		{name: "all workers are taken by connections that stay open, and the accept queue is full", make: func(n *network) {
			well(n, 0, 20*sec)
			n.closedLoop(clients[0], srv, 200, sec, 60*sec, 500*ms, func(time.Duration) time.Duration { return 5 * ms })
			every(19*sec, 20*sec, 100*ms, func(at time.Duration, i int) { n.hung(at, clients[i%3], srv, 0) })
			every(20*sec, 60*sec, 100*ms, func(at time.Duration, i int) { n.silent(at, clients[i%3], srv, 2) })
		}},
		{name: "the same from the middle on: those that wait to be taken up tell when their clients close", make: func(n *network) {
			older(n, 0)
		}},
		{name: "a filter from the middle on: what older clients close, the server closes", want: shut, onset: sec, make: func(n *network) {
			older(n, ms)
		}},
		{name: "a scanner", make: func(n *network) {
			ports := []string{":22", ":23", ":25", ":80", ":110", ":143", ":443", ":445", ":3306", ":8443"}
			every(0, 40*sec, 25*ms, func(at time.Duration, i int) {
				n.refused(at, "203.0.113.66", "198.51.100."+itoa(i%250)+ports[i/250%10])
			})
		}},
		{name: "one client insists on a port that never listened", want: "info service 198.51.100.2 113", onset: 0, make: func(n *network) {
			every(0, 40*sec, 2*sec, func(at time.Duration, _ int) { n.refused(at, clients[0], "198.51.100.2:113") })
		}},
		{name: "a whole load is turned away, from the beginning", want: "warn service 198.51.100.2 8080", onset: 0, make: func(n *network) {
			every(0, 20*sec, 100*ms, func(at time.Duration, i int) { n.refused(at, clients[i%3], srv) })
		}},
		{name: "health checks that end with a reset", make: func(n *network) {
			every(0, 40*sec, 500*ms, func(at time.Duration, _ int) {
				c, s := n.from(clients[0]), host(srv)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, 0x14, q, q, 0) // RST, ACK
			})
		}},
	})
}

// Calls that fail in a share worth a finding are never cleared, however many upstreams they are spread over.
func TestDeadUpstreamSpreadIsNotCleared(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	for failed, want := range map[int]bool{0: true, 9: false} {
		f := DeadUpstream{Class: classSilent, Attempts: 18, Failed: failed}
		if clear, err := set.Rule("dead-upstream").IsClear(f); clear != want || err != nil {
			t.Errorf("%d of 18 calls failed, none in a share worth a finding at one upstream: clear %v, %v", failed, clear, err)
		}
	}
}
