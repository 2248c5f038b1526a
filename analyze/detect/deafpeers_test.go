package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// A path that is cut in one direction only: clients go on asking, and nothing that the host answers reaches them.
func TestDeafPeers(t *testing.T) {
	const srv = "192.0.2.1:8080"
	clients := []string{"203.0.113.7", "203.0.113.8", "203.0.113.9", "198.51.100.7"}
	well := func(n *network, from, to time.Duration, cs ...string) {
		every(from, to, 200*ms, func(at time.Duration, i int) { n.call(at, cs[i%len(cs)], srv, 5*ms) })
	}
	// unheard is a call whose SYN is answered each time that it comes, and comes again after 1, 3 and 7 s; acked: its client gets the answer, and
	// a listener that is full drops the end of the handshake.
	unheard := func(n *network, at time.Duration, client string, acked bool) {
		c, s := n.from(client), host(srv)
		for _, d := range []time.Duration{0, sec, 3 * sec, 7 * sec} {
			if !acked || d == 0 {
				n.tcp(at+d, c, s, capture.SYN, n.seq, 0, 0)
			}
			n.tcp(at+d+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
			if acked {
				n.tcp(at+d+ms, c, s, capture.ACK, n.seq+1, n.seq+1, 0)
				n.tcp(at+d+2*ms, c, s, capture.ACK|capture.PSH, n.seq+1, n.seq+1, 200)
			}
		}
	}
	cut := func(acked bool, peers ...string) func(*network) {
		return func(n *network) {
			well(n, 0, 20*sec, peers...)
			well(n, 100*ms, 60*sec, clients[3])
			every(20050*ms, 50*sec, 900*ms, func(at time.Duration, i int) { unheard(n, at, peers[i%len(peers)], acked) })
		}
	}
	play(t, newPathCut, []scene{
		{name: "three of four clients", local: "192.0.2.1", want: "error path 192.0.2.1", onset: 20050*ms + ms/2, make: cut(false, clients[:3]...),
			check: func(t *testing.T, features any) {
				if f := features.(PathCut); f.OneWay != 3 || f.Peers != 3 || f.OthersAlive != 1 || f.Older != 0 || f.Silent < 20 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "since before the capture", want: "error path 192.0.2.1", onset: 50*ms + ms/2, make: func(n *network) {
			well(n, 100*ms, 30*sec, clients[3])
			every(50*ms, 30*sec, 900*ms, func(at time.Duration, i int) { unheard(n, at, clients[i%2], false) })
		}, check: func(t *testing.T, features any) {
			if f := features.(PathCut); f.OneWay != 2 || f.Older != 2 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "one client alone", make: cut(false, clients[0])},
		{name: "a full listener, which drops the ends of handshakes", make: cut(true, clients[:3]...)},
		{name: "addresses that were forged: nobody sends his SYN again", make: func(n *network) {
			well(n, 0, 60*sec, clients[3])
			every(20*sec, 40*sec, 100*ms, func(at time.Duration, i int) {
				n.halfOpen(at, "203.0.113."+itoa(i%9+1), srv, 4)
			})
		}},
	})
}
