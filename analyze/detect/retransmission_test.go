package detect

import (
	"testing"
	"time"
)

// A share of handshakes that repeat is a finding only beyond what chance makes of a little loss: the onset
// is where it looks worst.
func TestRepeatedHandshakes(t *testing.T) {
	const app, up = "192.0.2.1", "198.51.100.2:8080"
	calls := func(repeated func(i int) bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) {
				if repeated(i) {
					n.lateOpen(at, app, up, sec)
				} else {
					n.call(at, app, up, 5*ms)
				}
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "11 of 1,200, most of them in a third of the time", local: app, make: calls(func(i int) bool { return i >= 570 && i < 900 && i%30 == 0 })},
		{name: "every tenth", local: app, want: "warn upstream 192.0.2.1 198.51.100.2 8080", onset: 30 * sec,
			make: calls(func(i int) bool { return i >= 600 && i%10 == 0 })},
	})
}
