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

func TestOffLink(t *testing.T) {
	const app, v4 = "2001:db8:1::9", "192.0.2.9"
	far := []string{"[2001:db8:a::1]:993", "[2001:db8:b::1]:993", "[2001:db8:c::1]:443"}
	call := func(n *network, peers ...string) {
		for i, p := range peers {
			every(time.Duration(i)*sec, 100*sec, 30*sec, func(at time.Duration, _ int) { n.silent(at, app, p, 4) })
			every(time.Duration(i)*sec+20*sec, 100*sec, 30*sec, func(at time.Duration, _ int) { n.call(at, v4, "203.0.113.7:993", 5*ms) })
		}
	}
	each := "warn upstream 2001:db8:1::9 2001:db8:a::1 993; warn upstream 2001:db8:1::9 2001:db8:b::1 993; warn upstream 2001:db8:1::9 2001:db8:c::1 443"
	play(t, newDeadUpstream, []scene{
		{name: "IPv6 leads nowhere, IPv4 works", local: "2001:db8:1::9", want: "warn path 2001:db8:1::9", make: func(n *network) { call(n, far...) },
			check: func(t *testing.T, features any) {
				if f := features.(DeadUpstream); f.Class != classOffLink || f.Peers != 3 || f.Fallback != 0 || f.SynUnanswered != 12 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "what lies in its own network answers all the same", local: "2001:db8:1::9", want: "warn path 2001:db8:1::9", make: func(n *network) {
			call(n, far...)
			every(0, 100*sec, 5*sec, func(at time.Duration, _ int) { n.call(at, app, "[2001:db8:1::80]:443", 5*ms) })
		}},
		{name: "somebody beyond answers", local: "2001:db8:1::9", want: each, make: func(n *network) {
			call(n, far...)
			n.call(sec, app, "[2001:db8:d::1]:443", 5*ms)
		}},
	})
}
