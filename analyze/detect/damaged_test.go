package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// damage marks the newest packet as one with a wrong checksum.
func (n *network) damage() { n.obs[len(n.obs)-1].Packet.Damaged = true }

// upload sends ten segments and the last of them again after 4 ms, where it was damaged, or where again says so.
func (n *network) upload(at time.Duration, client, server string, damaged, again bool) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK, q, q, 1460)
	n.tcp(at+3*ms, s, c, capture.ACK, q, q+1460, 0)
	q += 1460
	for i := range uint32(10) {
		n.tcp(at+4*ms+time.Duration(i)*10*time.Microsecond, c, s, capture.ACK, q+i*1460, q, 1460)
	}
	if damaged {
		n.damage()
	}
	acked := q + 14_600
	if damaged || again {
		n.tcp(at+5*ms, s, c, capture.ACK, q, q+13_140, 0)
		n.tcp(at+300*ms, c, s, capture.ACK, q+13_140, q, 1460)
	}
	n.tcp(at+301*ms, s, c, capture.ACK, q, acked, 0)
	n.tcp(at+302*ms, s, c, capture.ACK|capture.PSH, q, acked, 200)
}

// What reaches this host with a wrong checksum, and is sent again, was lost on its way, though it is in the capture. What reaches it whole
// was dropped by the host itself. A checksum of what its receiver takes all the same proves nothing.
func TestDamaged(t *testing.T) {
	const srv = "198.51.100.2:8080"
	uploads := func(damaged, again bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				n.upload(at, "203.0.113.7", srv, damaged && i%2 == 1, again && i%2 == 1)
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "damaged", local: "198.51.100.2", want: "warn path 198.51.100.2 203.0.113.7", onset: sec + 300*ms, make: uploads(true, true),
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Damaged != 30 || f.Retransmitted != 30 || f.SeenOriginal != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "dropped by this host", local: "198.51.100.2", make: uploads(false, true)},
		{name: "taken all the same", local: "198.51.100.2", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				n.upload(at, "203.0.113.7", srv, false, false)
				for j := range n.obs {
					p := &n.obs[j].Packet
					p.Damaged = p.Len > 0
				}
			})
		}},
	})
}

// SYNs that come with a wrong checksum are left unanswered by the kernel; that they reached the host does not clear the way.
func TestDamagedSyns(t *testing.T) {
	const srv = "198.51.100.2:8080"
	for _, damaged := range []bool{true, false} {
		var n network
		every(0, 60*sec, sec, func(at time.Duration, i int) {
			n.call(at, "203.0.113.7", srv, 5*ms)
			if i%3 == 2 {
				from := len(n.obs)
				n.silent(at, "203.0.113.8", srv, 4)
				for j := range n.obs[from:] {
					n.obs[from+j].Packet.Damaged = damaged
				}
			}
		})
		fs := n.findings(t, newRetransmission(), "198.51.100.2")
		if len(fs) != 1 {
			t.Fatalf("%d findings", len(fs))
		}
		if f := fs[0].Features.(Retransmission); f.Class != "syn" || f.Unanswered == 0 || (f.Damaged == f.Unanswered) != damaged || f.Damaged > 0 != damaged {
			t.Errorf("damaged %v: %+v", damaged, f)
		}
	}
}
