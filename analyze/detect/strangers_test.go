package detect

import (
	"encoding/binary"
	"testing"
	"time"

	"jindan/capture"
)

// cut is a call whose answer is cut off by its client after a segment, by a RST with those flags.
func (n *network) cut(at time.Duration, client, server string, flags uint8) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	for i := uint32(0); i < 4; i++ {
		n.tcp(at+3*ms+time.Duration(i)*ms/10, s, c, capture.ACK, q+i*1460, q+100, 1460)
	}
	n.tcp(at+4*ms, c, s, capture.ACK, q+100, q+4*1460, 0)
	n.tcp(at+5*ms, s, c, capture.ACK, q, q+100, 1460) // an old segment again
	ack := q + 4*1460
	if flags&capture.ACK == 0 {
		ack = 0
	}
	n.tcp(at+5*ms+ms/10, c, s, flags, q+100, ack, 0)
}

// A RST that acknowledges nothing comes from a host that knows no such connection; a program that breaks off acknowledges.
func TestUnknownConnections(t *testing.T) {
	const srv = "198.51.100.2:8080"
	downloads := func(flags uint8) func(*network) {
		return func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				if i%9 == 4 {
					n.cut(at, "203.0.113.7", srv, flags)
				} else {
					n.call(at, "203.0.113.7", srv, 5*ms)
				}
			})
		}
	}
	// pool is k connections in use, which are reset at about 20 s, in the middle of a request, while others are opened and are well.
	pool := func(k int, flags uint8) func(*network) {
		return func(n *network) {
			for i := range k {
				x := n.talk(time.Duration(i)*ms, "203.0.113.7", srv)
				every(sec+time.Duration(i)*ms, 20*sec, 500*ms, func(at time.Duration, _ int) { x.turn(at) })
				at := 20*sec + time.Duration(i)*300*ms
				n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 300)
				ack := x.q + 300
				if flags&capture.ACK == 0 {
					ack = 0
				}
				n.tcp(at+ms, x.s, x.c, flags, x.a, ack, 0)
				y := n.talk(at+50*ms, "203.0.113.7", srv)
				every(at+sec, 40*sec, 500*ms, func(at time.Duration, _ int) { y.turn(at) })
			}
		}
	}
	play(t, newAbnormalTermination, []scene{
		{name: "three pooled connections that their server does not know any more", want: "info service 198.51.100.2 8080", onset: 20*sec + ms, make: pool(3, capture.RST)},
		{name: "two", make: pool(2, capture.RST)},
		{name: "three that it breaks off", make: pool(3, capture.RST|capture.ACK)},
		{name: "packets that were not translated back", want: "warn service 198.51.100.2 8080", make: downloads(capture.RST), onset: 4*sec + 5*ms,
			check: func(t *testing.T, features any) {
				if f := features.(AbnormalTermination); f.Unknown != 7 || f.Resets != 7 || f.ByClient != 7 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "as many that the client breaks off", make: downloads(capture.RST | capture.ACK)},
	})
}

// Refusals with another TTL than the listener's answers come from somebody else: a filter, or a second host with that address.
func TestForeignRefusals(t *testing.T) {
	const srv = "198.51.100.2:8080"
	refusals := func(ttl uint8) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 250*ms, func(at time.Duration, _ int) {
				if at < 30*sec {
					n.call(at, "203.0.113.7", srv, 5*ms)
					return
				}
				n.refused(at, "203.0.113.7", srv)
				n.obs[len(n.obs)-1].Packet.TTL = ttl
			})
		}
	}
	of := func(ttl, usual int) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(ConnectionRefused); f.TTL != ttl || f.UsualTTL != usual {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newConnectionRefused, []scene{
		{name: "another host", want: "error service 198.51.100.2 8080", onset: 30 * sec, make: refusals(128), check: of(128, 64)},
		{name: "the listener's own host", want: "error service 198.51.100.2 8080", onset: 30 * sec, make: refusals(64), check: of(0, 0)},
	})
}

// On one connection alone much of what is sent, again and again after time-outs, is what its owner asks about.
func TestOneLossyConnection(t *testing.T) {
	const srv = "198.51.100.2:80"
	play(t, newRetransmission, []scene{
		{name: "every flight loses a segment until the time-out", want: "warn path 203.0.113.7 198.51.100.2", onset: 10*ms + 4*ms/10,
			make: func(n *network) { n.flights(0, "203.0.113.7", srv, 25, 280*ms, func(int) bool { return true }) }},
		{name: "one in ten does", make: func(n *network) {
			n.flights(0, "203.0.113.7", srv, 250, 280*ms, func(i int) bool { return i%10 == 0 })
		}},
	})
}

// tooBig is a router's word that a TCP packet from one to the other was too big.
func (n *network) tooBig(at time.Duration, router string, from, to capture.Endpoint, seq uint32) {
	quote := make([]byte, 28)
	quote[0], quote[9] = 0x45, capture.ProtoTCP
	src, dst := from.Addr.Netip().As4(), to.Addr.Netip().As4()
	copy(quote[12:], src[:])
	copy(quote[16:], dst[:])
	binary.BigEndian.PutUint16(quote[20:], from.Port)
	binary.BigEndian.PutUint16(quote[22:], to.Port)
	binary.BigEndian.PutUint32(quote[24:], seq)
	n.add(at, capture.Packet{Src: capture.Endpoint{Addr: addr(router)}, Dst: capture.Endpoint{Addr: from.Addr}, Proto: capture.ProtoICMP,
		ICMPType: 3, ICMPCode: 4, Data: quote})
}

// A sender that is told that its packets are too big and sends them again as large as before is a black hole of its own, on few connections, too.
func TestTooBigIgnored(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	fetch := func(n *network, at time.Duration, heeds bool) {
		c, s := n.from(app), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
		if heeds && at > 3*sec { // the kernel remembers the size
			n.tcp(at+4*ms, s, c, capture.ACK, q, q+100, 1300)
			n.tcp(at+5*ms, c, s, capture.ACK, q+100, q+1300, 0)
			return
		}
		for _, d := range []time.Duration{4 * ms, 300 * ms, 900 * ms, 2100 * ms, 4500 * ms} {
			n.tcp(at+d, s, c, capture.ACK, q, q+100, 1460)
			n.tooBig(at+d+ms/10, "192.0.2.1", s, c, q)
			if heeds {
				n.tcp(at+d+ms/5, s, c, capture.ACK, q, q+100, 1300)
				n.tcp(at+d+ms/4, c, s, capture.ACK, q+100, q+1300, 0)
				return
			}
		}
		n.tcp(at+6*sec, c, s, capture.ACK|capture.FIN, q+100, q, 0)
		n.tcp(at+6*sec+ms, s, c, capture.ACK, q+1460, q+101, 0)
	}
	traffic := func(heeds bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				if n.call(at, app, "198.51.100.2:80", 5*ms); i%10 == 3 {
					fetch(n, at, heeds)
				}
			})
		}
	}
	play(t, newSizeLoss, []scene{
		{name: "in vain", want: "error path 192.0.2.9 198.51.100.2", onset: 3*sec + 300*ms, make: traffic(false), check: func(t *testing.T, features any) {
			if f := features.(SizeLoss); f.ICMPTooBig < 6 || f.BigLost != f.BigSent {
				t.Errorf("%+v", f)
			}
		}},
		{name: "heeded", make: traffic(true)},
	})
}
