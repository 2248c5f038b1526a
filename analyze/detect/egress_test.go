package detect

import (
	"testing"
	"time"

	"jindan/analyze"
)

// outbound makes calls of app to peers, a few a second to each; from 40 s on two thirds of the new ones to the first ill peers get no answer,
// while a pooled connection to each of them goes on.
func (n *network) outbound(app string, peers []string, ill int) {
	for i, p := range peers {
		shift := time.Duration(i) * 37 * ms
		x := n.talk(shift, app, p)
		every(sec, 80*sec, sec, func(at time.Duration, _ int) { x.turn(at + shift) })
		every(0, 80*sec, 500*ms, func(at time.Duration, k int) {
			if at >= 40*sec && i < ill && k%3 != 0 {
				n.silent(at+shift, app, p, 3)
			} else {
				n.call(at+shift, app, p, 5*ms)
			}
		})
	}
}

func TestOutbound(t *testing.T) {
	const app = "192.0.2.9"
	apart := []string{"198.51.100.2:443", "203.0.113.7:443", "192.88.99.3:6380", "20.50.1.4:443"}
	together := []string{"198.51.100.2:443", "198.51.100.3:443", "198.51.100.4:443", "203.0.113.7:5432"}
	play(t, newDeadUpstream, []scene{
		{name: "new connections to peers of many networks", local: app, want: "error path 192.0.2.9", onset: 40 * sec,
			make: func(n *network) { n.outbound(app, apart, 4) }, check: func(t *testing.T, features any) {
				if f := features.(DeadUpstream); f.Class != classOutbound || f.Peers != 4 || f.Share < 0.6 || f.Share > 0.7 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "members of one service, others well", local: app,
			want: "error upstream 192.0.2.9 198.51.100.2 443; error upstream 192.0.2.9 198.51.100.3 443; error upstream 192.0.2.9 198.51.100.4 443",
			make: func(n *network) { n.outbound(app, together, 3) }},
		{name: "one of many", local: app, want: "error upstream 192.0.2.9 198.51.100.2 443", onset: 40 * sec,
			make: func(n *network) { n.outbound(app, apart, 1) }},
	})
	// The path is not cut: each peer is heard meanwhile.
	d := new(network)
	d.outbound(app, apart, 4)
	every(80*sec, 84*sec, 500*ms, func(at time.Duration, i int) { d.silent(at, app, apart[i%4], 3) })
	for _, f := range d.run(t, []analyze.Detector{newPathCut()}, app).Findings {
		t.Errorf("%s: %+v", found(f), f.Features)
	}
}
