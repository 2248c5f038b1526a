package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestHungPool(t *testing.T) {
	const app, up, other = "192.0.2.1", "198.51.100.2:8080", "198.51.100.3:8080"
	fast := func(time.Duration) time.Duration { return 4 * ms }
	// The load of the capture that goes on.
	others := func(n *network) { n.closedLoop(app, other, 60, sec, 60*sec, 300*ms, fast) }
	frozen := func(at time.Duration) time.Duration {
		if at >= 20*sec {
			return -1
		}
		return 4 * ms
	}
	play(t, newDeadUpstream, []scene{
		{name: "a frozen program behind a pool: its kernel acknowledges what it never reads", local: app,
			want: "error upstream 192.0.2.1 198.51.100.2 8080", onset: 20002 * ms, make: func(n *network) {
				others(n)
				for i := range 8 {
					n.closedLoop(app, up, 120, time.Duration(i)*30*ms+sec, 60*sec, 200*ms, frozen)
				}
			}, check: func(t *testing.T, x any) {
				if f := x.(DeadUpstream); f.Class != classHung || f.NoAnswer != 8 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "publishers, who are answered now and then", local: app, make: func(n *network) {
			others(n)
			for i := range 8 {
				n.closedLoop(app, up, 20, time.Duration(i)*30*ms+sec, 20*sec, 2*sec, fast)
				c, s := n.from(app), host(up)
				at := 20*sec + time.Duration(i)*10*ms
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 80)
				n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+80, 4)
				for j := range uint32(30) {
					n.tcp(at+time.Duration(j+1)*sec, c, s, capture.ACK|capture.PSH, q+80+200*j, q+4, 200)
					n.tcp(at+time.Duration(j+1)*sec+ms, s, c, capture.ACK, q+4, q+280+200*j, 0)
				}
			}
		}},
	})
}
