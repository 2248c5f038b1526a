package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

func TestSizeLoss(t *testing.T) {
	const app, peer = "192.0.2.1", "198.51.100.2:8080"
	const mss, list = 1460, 6*1460 + 388 // bytes; all of it within the first window of 10 segments (RFC 6928)
	// fetch reads a list; of its segments those that lost names do not arrive, or come again that much later, if it is not 0.
	fetch := func(n *network, at time.Duration, lost func(segment int) bool, again time.Duration) {
		c, s := n.from(app), host(peer)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		begin, read := q, q
		for i := range 7 {
			flags, size := capture.ACK, uint32(mss)
			if i == 6 {
				flags, size = capture.ACK|capture.PSH, list-6*mss
			}
			if !lost(i) {
				n.tcp(at+3*ms+time.Duration(i)*10*time.Microsecond, s, c, flags, begin+uint32(i)*mss, q+100, size)
				if begin+uint32(i)*mss == read {
					read += size
				}
				n.tcp(at+3*ms+time.Duration(i)*10*time.Microsecond+5*time.Microsecond, c, s, capture.ACK, q+100, read, 0)
			}
		}
		for i := range 7 { // after all others: the IP identification counts up
			if lost(i) && again > 0 {
				n.tcp(at+again, s, c, capture.ACK, begin+uint32(i)*mss, q+100, min(mss, list-uint32(i)*mss))
				n.tcp(at+again+ms, c, s, capture.ACK, q+100, begin+list, 0)
			}
		}
	}
	well := func(n *network, from, to time.Duration) {
		every(from, to, 50*ms, func(at time.Duration, _ int) { fetch(n, at, func(int) bool { return false }, 0) })
	}
	// ask asks the peer for a name of many addresses; answer as query takes it.
	ask := func(n *network, from, to, answer time.Duration) {
		every(from, to, 100*ms, func(at time.Duration, _ int) {
			n.query(at+ms/2, app, "198.51.100.2:53", "a.test", answer, noError, 1300)
		})
	}
	// hello is a first request of 1,800 bytes that its sender repeats tries times; arrived of it is acknowledged in the end. beside: its second segment is
	// reported by SACK at once.
	hello := func(n *network, tries int, arrived uint32, beside bool) {
		c, s := n.from(app), host(peer)
		q := n.open(0, c, s)
		n.tcp(3*ms, c, s, capture.ACK, q, q, mss)
		n.tcp(4*ms, c, s, capture.ACK|capture.PSH, q+mss, q, 340)
		if beside {
			n.tcp(5*ms, s, c, capture.ACK, q, q, 0)
			p := &n.obs[len(n.obs)-1].Packet
			p.SACKs, p.SACK[0] = 1, [2]uint32{q + mss, q + mss + 340}
		}
		at := 4 * ms
		for i := range tries {
			at += 200 * ms << i
			n.tcp(at, c, s, capture.ACK, q, q, mss)
		}
		if arrived > 0 {
			n.tcp(at+ms, s, c, capture.ACK, q, q+arrived+340, 0)
		}
	}
	// jumbo is a connection with MSS 8,948: twelve requests of that size are answered, then a segment of 8,948 bytes is repeated in vain.
	jumbo := func(n *network, size uint32) {
		c, s := n.from(app), host(peer)
		q := n.open(0, c, s)
		for i := range n.obs {
			n.obs[i].Packet.MSS = 8948
		}
		for i := range uint32(12) {
			at := 100*ms + time.Duration(i)*400*ms
			n.tcp(at, c, s, capture.ACK|capture.PSH, q+i*size, q+i*90, size)
			n.tcp(at+ms, s, c, capture.ACK|capture.PSH, q+i*90, q+(i+1)*size, 90)
		}
		at := 6 * sec
		for i := range 9 {
			n.tcp(at, c, s, capture.ACK, q+12*size, q+12*90, 8948)
			at += 200 * ms << i
		}
	}
	// plain sends two full segments and the end of an answer, after a small one, to a client without SACK. It acknowledges the small one once
	// more, dup times, and never more.
	plain := func(n *network, dup int) {
		c, s := n.from("198.51.100.2"), host(app+":80")
		q := n.open(0, c, s)
		n.tcp(2*ms, c, s, capture.ACK|capture.PSH, q, q, 200)
		n.tcp(3*ms, s, c, capture.ACK|capture.PSH, q, q+200, 160)
		n.tcp(5*ms, c, s, capture.ACK, q+200, q+160, 0)
		for i := range uint32(2) {
			n.tcp(10*ms, s, c, capture.ACK, q+160+i*1460, q+200, 1460)
		}
		n.tcp(11*ms, s, c, capture.ACK|capture.PSH, q+160+2*1460, q+200, 700)
		for range dup {
			n.tcp(40*ms, c, s, capture.ACK, q+200, q+160, 0)
		}
		for i := range 6 {
			n.tcp(time.Duration(1<<i)*sec, s, c, capture.ACK, q+160, q+200, 1460)
			if dup > 1 {
				n.tcp(time.Duration(1<<i)*sec+30*ms, c, s, capture.ACK, q+200, q+160, 0)
			}
		}
	}
	single := func(tries int, beside bool) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(SizeLoss); f.Single != 1 || f.Tries != tries || f.Beside != beside || f.BigLoss != 1 {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newSizeLoss, []scene{
		// At the end of a window (they begin at 0.7 s) the first loss counts, a second old; what all others miss counts in the next window,
		// which has nothing but that. The small segments to compare it with came before.
		{name: "nearly every transfer stands still within a second", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 19723 * ms,
			make: func(n *network) {
				well(n, 0, 19600*ms)
				fetch(n, 19600*ms, func(k int) bool { return k == 2 }, 0)
				every(19720*ms, 20650*ms, 50*ms, func(at time.Duration, i int) { fetch(n, at, func(k int) bool { return k < 6 }, 0) })
				n.call(25*sec, "203.0.113.7", app+":443", 5*ms)
				n.call(40*sec, "203.0.113.7", app+":443", 5*ms)
			}},
		// What is missing shows only where something comes after it: the short end of an answer never does. But other full segments pass on
		// the same connection, and nothing comes again, as where a box resets the sender of a packet that it takes by chance.
		{name: "senders that stop in the middle", local: app, make: func(n *network) {
			well(n, 0, 30*sec)
			every(10*sec, 20*sec, 100*ms, func(at time.Duration, i int) {
				fetch(n, at, func(k int) bool { return k == i%6 || k == (i+2)%6 }, 0)
			})
		}},
		{name: "the same, but what is missing comes again", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 10*sec + 3010*time.Microsecond, make: func(n *network) {
			well(n, 0, 30*sec)
			every(10*sec, 20*sec, 100*ms, func(at time.Duration, i int) {
				fetch(n, at, func(k int) bool { return k == i%6 || k == (i+2)%6 }, 900*ms)
			})
		}},
		// Full segments are sent again into closed windows, which only the acknowledgements tell.
		{name: "the capture lacks the receivers' direction", local: peer[:len(peer)-5], make: func(n *network) {
			every(0, 30*sec, 500*ms, func(at time.Duration, _ int) {
				c, s := n.from(app), host(peer)
				for i := range uint32(4) {
					n.tcp(at+time.Duration(i)*ms, s, c, capture.ACK|capture.PSH, 1000+i*400, 500, 400)
				}
				for i := range 4 {
					n.tcp(at+10*ms+time.Duration(1<<i-1)*200*ms, s, c, capture.ACK, 2600, 500, mss)
				}
			})
		}},
		// All segments of the answer are lost, again and again. What shows is that the server's bare acknowledgements of what the
		// client sends later are numbered beyond what has come. They count once the client still asks for what is missing, with its FIN.
		{name: "answers of which only the acknowledgements tell", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20700 * ms,
			make: func(n *network) {
				well(n, 0, 19600*ms)
				every(20*sec, 40*sec, 500*ms, func(at time.Duration, _ int) {
					c, s := n.from(app), host(peer)
					q := n.open(at, c, s)
					n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
					n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
					n.tcp(at+502*ms, c, s, capture.ACK|capture.PSH, q+100, q, 50)
					n.tcp(at+503*ms, s, c, capture.ACK, q+6*mss, q+150, 0)
					n.tcp(at+4*sec, c, s, capture.ACK|capture.FIN, q+150, q, 0)
					n.tcp(at+4*sec+ms, s, c, capture.ACK, q+6*mss, q+151, 0)
				})
			}},
		// The acknowledgement goes with the answer and is lost with it. The client repeats its request and learns by D-SACK that it had
		// arrived, from a segment that is numbered behind the answer; then it waits.
		{name: "answers of which only the D-SACK for a request that came again tells", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20210 * ms,
			make: func(n *network) {
				well(n, 0, 19600*ms)
				every(20*sec, 24*sec, 500*ms, func(at time.Duration, _ int) {
					c, s := n.from(app), host(peer)
					q := n.open(at, c, s)
					n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
					n.tcp(at+209*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
					n.dsack(at+210*ms, s, c, q+6*mss, q+100, q, q+100)
				})
				well(n, 50*sec, 51*sec)
			}},
		{name: "requests that came again, and are answered late", local: app, make: func(n *network) {
			well(n, 0, 19600*ms)
			every(20*sec, 30*sec, 500*ms, func(at time.Duration, _ int) {
				c, s := n.from(app), host(peer)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+209*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.dsack(at+210*ms, s, c, q, q+100, q, q+100) // nothing was sent in return yet
				n.tcp(at+2*sec, s, c, capture.ACK|capture.PSH, q, q+100, 388)
				n.tcp(at+2*sec+ms, c, s, capture.ACK, q+100, q+388, 0)
			})
		}},
		{name: "acknowledgements that overtake the data", local: app, make: func(n *network) {
			every(0, 40*sec, 100*ms, func(at time.Duration, _ int) {
				c, s := n.from(app), host(peer)
				q := n.open(at, c, s)
				n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(at+3*ms, s, c, capture.ACK, q+1460, q+100, 0)
				n.tcp(at+3*ms+50*time.Microsecond, s, c, capture.ACK|capture.PSH, q, q+100, 1460)
				n.obs[len(n.obs)-1].Packet.IPID-- // sent before
				n.obs[len(n.obs)-2].Packet.IPID++
				n.tcp(at+4*ms, c, s, capture.ACK, q+100, q+1460, 0)
			})
		}},
		{name: "large answers stay out with the segments", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20 * sec,
			make: func(n *network) {
				well(n, 0, 20*sec)
				ask(n, 0, 20*sec, ms)
				ask(n, 20*sec, 30*sec, -1)
				every(20*sec, 30*sec, 250*ms, func(at time.Duration, _ int) { fetch(n, at, func(k int) bool { return k < 6 && k != 3 }, 0) })
				// A segment as large as the answers gets through, and is not what tells where the cliff is.
				c, s := n.from(app), host(peer)
				q := n.open(21*sec, c, s)
				n.tcp(21*sec+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
				n.tcp(21*sec+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1290)
				n.tcp(21*sec+4*ms, c, s, capture.ACK, q+100, q+1290, 0)
			},
			check: func(t *testing.T, features any) {
				if f := features.(SizeLoss); f.Cliff != 1328 || f.DNSBigUnanswered < 40 {
					t.Errorf("%+v", f)
				}
			}},
		// In the window of the first loss six transfers went well and eight lost all that was large: of each the SYN-ACK and the end arrived.
		{name: "within a window, and no more", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20003 * ms,
			make: func(n *network) {
				well(n, 0, 20*sec)
				every(20*sec, 20400*ms, 50*ms, func(at time.Duration, _ int) { fetch(n, at, func(k int) bool { return k < 6 }, 0) })
				n.call(40*sec, "203.0.113.7", app+":443", 5*ms)
			},
			check: func(t *testing.T, features any) {
				if f := features.(SizeLoss); f.SmallSent != 28 || f.SmallLost != 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "the peer's name server is dead, and one segment of many is lost", local: app, make: func(n *network) {
			well(n, 0, 40*sec)
			ask(n, 0, 20*sec, ms)
			ask(n, 20*sec, 40*sec, -1)
			fetch(n, 25130*ms, func(k int) bool { return k == 2 }, 400*ms)
		}},
		{name: "a segment is lost and comes again", local: app, make: func(n *network) {
			well(n, 0, 20*sec)
			fetch(n, 20130*ms, func(k int) bool { return k == 2 }, 400*ms)
			well(n, 20180*ms, 30*sec)
		}},
		{name: "the only connection: a full ClientHello that does not fit, its end is acknowledged by SACK", want: "warn path 198.51.100.2 192.0.2.1", onset: 4 * ms,
			make: func(n *network) { hello(n, 8, 0, true) }, check: single(8, true)},
		{name: "the only connection: a full key exchange of ssh that does not fit, and the server gives up two minutes later", local: app,
			want: "warn path 192.0.2.1 198.51.100.2", onset: 100 * ms, make: func(n *network) {
				c, s := n.from(app), host(peer)
				q := n.open(0, c, s)
				n.tcp(30*ms, s, c, capture.ACK|capture.PSH, q, q, 42)
				n.tcp(31*ms, c, s, capture.ACK|capture.PSH, q, q+42, 33)
				n.tcp(60*ms, s, c, capture.ACK|capture.PSH, q+42, q+33, 1120)
				n.tcp(61*ms, c, s, capture.ACK, q+33, q+1162, 0)
				n.tcp(100*ms, c, s, capture.ACK, q+33, q+1162, mss)
				n.tcp(101*ms, c, s, capture.ACK|capture.PSH, q+33+mss, q+1162, 88)
				n.tcp(145*ms, s, c, capture.ACK, q+1162, q+33, 0)
				p := &n.obs[len(n.obs)-1].Packet
				p.SACKs, p.SACK[0] = 1, [2]uint32{q + 33 + mss, q + 121 + mss}
				for i := range 8 {
					n.tcp(100*ms+time.Duration(2<<i-1)*250*ms, c, s, capture.ACK|capture.PSH, q+33, q+1162, mss)
				}
				n.tcp(120*sec, s, c, capture.ACK|capture.FIN, q+1162, q+33, 0)
			}, check: single(8, true)},
		{name: "the only connection: without SACK, one duplicate acknowledgement for the end of the answer", local: app,
			want: "warn path 192.0.2.1 198.51.100.2", onset: 10 * ms, make: func(n *network) { plain(n, 1) }, check: single(6, true)},
		{name: "the only connection: without SACK, one for each segment: all arrive, and are not taken", local: app, make: func(n *network) { plain(n, 3) }},
		{name: "the only connection: the same, and it arrives at the third repetition", make: func(n *network) { hello(n, 3, 1460, true) }},
		{name: "the only connection: nothing of it arrives, whatever its size", make: func(n *network) { hello(n, 8, 0, false) }},
		{name: "the only connection: full segments of the answer are missing, its end has come", local: app, want: "warn path 192.0.2.1 198.51.100.2", onset: 3 * ms,
			make: func(n *network) {
				fetch(n, 0, func(k int) bool { return k < 6 }, 0)
				x := n.obs[len(n.obs)-1].Packet // the client asks again when it gives up
				n.tcp(12*sec, x.Src, x.Dst, capture.ACK|capture.FIN, x.Seq, x.Ack, 0)
			}},
		{name: "the only connection: they come after a second", local: app, make: func(n *network) { fetch(n, 0, func(k int) bool { return k < 6 }, sec) }},
		{name: "the only connection: its first jumbo segment ends it", want: "warn path 198.51.100.2 192.0.2.1", onset: 6 * sec,
			make: func(n *network) { jumbo(n, 220) }, check: single(8, false)},
		{name: "the only connection: dead, after segments of that size got through", make: func(n *network) { jumbo(n, 8948) }},
	})
}

// Of a flight of which nothing arrives only the first segment is sent again: the others have not arrived either.
func TestFlightThatNothingPasses(t *testing.T) {
	const mss = 1460
	srv := "192.0.2.1:80"
	// get is an answer of full segments and an end; if only is lost, they are sent at once and the first is repeated in vain until the client leaves.
	get := func(n *network, at time.Duration, client string, full int, lost bool) {
		c, s := n.from(client), host(srv)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+2*ms, s, c, capture.ACK, q, q+100, 0)
		end := q
		for range full {
			n.tcp(at+3*ms, s, c, capture.ACK, end, q+100, mss)
			end += mss
		}
		if !lost {
			n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, end, q+100, 300)
			n.tcp(at+4*ms, c, s, capture.ACK|capture.FIN, q+100, end+300, 0)
			n.tcp(at+5*ms, s, c, capture.ACK|capture.FIN, end+300, q+101, 0)
			n.tcp(at+6*ms, c, s, capture.ACK, q+101, end+301, 0)
			return
		}
		wait := 3 * ms
		for i := range 6 {
			wait += 200 * ms << i
			n.tcp(at+wait, s, c, capture.ACK, q, q+100, mss)
		}
	}
	// hole is the network: full segments pass to client 203.0.113.i until 15 s, then no more.
	hole := func(hit bool) func(*network) {
		return func(n *network) {
			every(0, 40*sec, 250*ms, func(at time.Duration, i int) {
				get(n, at, "203.0.113."+itoa(1+i%4), 10, hit && at >= 15600*ms)
				get(n, at+100*ms, "203.0.113."+itoa(1+i%4), 0, false)
				get(n, at+50*ms, "198.51.100.7", 10, false)
			})
		}
	}
	play(t, newSizeLoss, []scene{
		{name: "answers of ten segments, of which none arrives", local: "192.0.2.1", want: "error path 192.0.2.1", onset: 15953 * ms, make: hole(true),
			check: func(t *testing.T, features any) {
				if f := features.(SizeLoss); f.BigLoss < 0.95 || f.SmallLost != 0 || f.PeersHit != 4 || f.Peers != 4 || f.ElsewherePassed == 0 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "all arrive", local: "192.0.2.1", make: hole(false)},
	})
	// Few of them are no finding; but the rule is not cleared by what passed before.
	var few network
	hole(false)(&few)
	if !few.cleared(t, newSizeLoss()) {
		t.Error("not cleared though all arrives")
	}
	for i := range 3 {
		get(&few, 30*sec+time.Duration(i)*sec, "203.0.113.9", 10, true)
	}
	if few.cleared(t, newSizeLoss()) {
		t.Error("cleared beside three answers of which nothing arrived")
	}
	// Nor by what passed to a client that waits in vain for a server that speaks first, as for an FTP server's data: it may have sent full segments.
	for _, first := range []bool{true, false} {
		var speaks network
		hole(false)(&speaks)
		for i := range 4 {
			at := 20*sec + time.Duration(i)*sec
			c, s := speaks.from("203.0.113.9"), host("192.0.2.1:"+itoa(30_000+i))
			q := speaks.open(at, c, s)
			if i == 0 && first {
				speaks.tcp(at+2*ms, s, c, capture.ACK|capture.PSH, q, q, 1400)
				speaks.tcp(at+3*ms, c, s, capture.ACK, q, q+1400, 0)
			}
			if i > 0 {
				speaks.tcp(at+8*sec, c, s, capture.ACK|capture.FIN, q, q, 0)
				speaks.tcp(at+8*sec+ms, s, c, capture.ACK|capture.FIN, q, q+1, 0)
				speaks.tcp(at+8*sec+2*ms, c, s, capture.ACK, q+1, q+1, 0)
			}
		}
		if got := speaks.cleared(t, newSizeLoss()); got == first {
			t.Errorf("a server that speaks first: %v; cleared: %v", first, got)
		}
	}
}

// At the receiver, the end of a write that was lost comes after the full segments that were lost before it, in order, like one that was not lost.
// By the identifications of a sender that counts them by connection it was; so loss of every size is not taken for loss of full segments.
func TestEndsLostBesideOthers(t *testing.T) {
	const app, peer, mss = "192.0.2.1", "198.51.100.2:8080", 1460
	// read is an answer of 20 full segments and an end of 500 bytes. The full one of that number is lost, every second twice,
	// and so is the end, if tail.
	read := func(n *network, at time.Duration, full int, tail bool, id uint16) {
		c, s := n.from(app), host(peer)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		send := func(at time.Duration, i int) {
			size, flags := uint32(mss), capture.ACK
			if i == 20 {
				size, flags = 500, capture.ACK|capture.PSH
			}
			n.tcp(at, s, c, flags, q+uint32(i)*mss, q+100, size)
			n.obs[len(n.obs)-1].Packet.IPID = id
			id++
		}
		for i := range 21 {
			if i == full || i == 20 && tail {
				id++
				continue
			}
			send(at+3*ms+time.Duration(i)*10*time.Microsecond, i)
		}
		again := at + 5*ms
		if full%2 == 1 { // lost again
			again = at + 805*ms
			id++
		}
		if full >= 0 {
			send(again, full)
		}
		if tail {
			send(again+50*time.Microsecond, 20)
		}
		n.tcp(again+ms, c, s, capture.ACK, q+100, q+20*mss+500, 0)
	}
	play(t, newSizeLoss, []scene{
		{name: "a fifth of the ends, and full segments as well", local: app, make: func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
				if at < 20*sec {
					read(n, at, -1, false, uint16(100*i+1))
				} else {
					read(n, at, i%19, i%5 == 0, uint16(100*i+1))
				}
			})
		}},
		{name: "full segments only", local: app, want: "error path 192.0.2.1 198.51.100.2", onset: 20003 * ms, make: func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
				if at < 20*sec {
					read(n, at, -1, false, uint16(100*i+1))
				} else {
					read(n, at, i%19, false, uint16(100*i+1))
				}
			})
		}},
	})
}

// What a reset leaves unacknowledged is sent again by nobody: that it was not repeated does not say that it has arrived.
func TestUnacknowledgedAtTheReset(t *testing.T) {
	const app = "192.0.2.1:443"
	// answer is an answer in one full segment, lost and sent again or not; then a close alert of 24 bytes and a reset of the server,
	// as when it closes with the alert of its client unread.
	answer := func(n *network, at time.Duration, lost, acked bool) {
		c, s := n.from("198.51.100.2"), host(app)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1460)
		if lost {
			at += 210 * ms
			n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1460)
		}
		n.tcp(at+4*ms, c, s, capture.ACK, q+100, q+1460, 0)
		n.tcp(at+5*ms, c, s, capture.ACK|capture.PSH, q+100, q+1460, 24)
		n.tcp(at+6*ms, s, c, capture.ACK|capture.PSH, q+1460, q+100, 24)
		if acked {
			n.tcp(at+7*ms, c, s, capture.ACK, q+124, q+1484, 0)
		}
		n.tcp(at+8*ms, s, c, capture.RST|capture.ACK, q+1484, q+124, 0)
	}
	scenario := func(acked bool) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, i int) { answer(n, at, at > 20*sec && i%10 == 0, acked) })
		}
	}
	play(t, newSizeLoss, []scene{
		{name: "the small ones may have been lost as often", local: "192.0.2.1", make: scenario(false)},
		{name: "the small ones have arrived", local: "192.0.2.1", want: "error path 192.0.2.1 198.51.100.2", onset: 20713 * ms, make: scenario(true)},
	})
}
