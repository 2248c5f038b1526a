package detect

import (
	"testing"
	"time"

	"jindan/analyze/flow"
	"jindan/capture"
)

// pieces sends a request in two pieces, the second after wait from the first; the first is acknowledged after delay, unless that is 0. It
// returns when the answer has come.
func (x *talk) pieces(at, delay, wait time.Duration) time.Duration {
	x.n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 24)
	if x.q += 24; delay > 0 {
		x.n.tcp(at+delay, x.s, x.c, capture.ACK, x.a, x.q, 0)
	}
	at += wait
	x.n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 200)
	x.q += 200
	x.n.tcp(at+ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 500)
	x.a += 500
	x.n.tcp(at+ms+ms/10, x.c, x.s, capture.ACK, x.q, x.a, 0)
	return at + 2*ms
}

// ends makes 20 answers of that many full segments and a short end, which goes out once a delayed acknowledgement has come, if held. The receiver
// acknowledges each second full segment at once.
func (n *network) ends(full int, held bool) {
	x := n.talk(0, "192.0.2.9", "198.51.100.2:11211")
	every(100*ms, 20*sec, sec, func(at time.Duration, _ int) {
		n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 100)
		x.q += 100
		for i := range full {
			n.tcp(at+ms, x.s, x.c, capture.ACK, x.a, x.q, 1460)
			if x.a += 1460; i == 1 {
				n.tcp(at+ms+ms/10, x.c, x.s, capture.ACK, x.q, x.a, 0)
			}
		}
		end := at + ms + ms/5
		if held {
			n.tcp(at+202*ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
			end = at + 203*ms
		}
		n.tcp(end, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 700)
		x.a += 700
		n.tcp(end+ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
	})
}

func TestNagle(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:11211"
	play(t, newNagle, []scene{
		{name: "requests in two pieces", want: "warn service 198.51.100.2 11211", onset: 100 * ms, check: func(t *testing.T, features any) {
			if f := features.(Nagle); f.Class != "client" || f.Held != 50 || f.Requests != 50 || f.Wait < 0.038 || f.Wait > 0.041 {
				t.Errorf("%+v", f)
			}
		}, make: func(n *network) {
			x := n.talk(0, app, srv)
			every(100*ms, 10*sec+100*ms, 200*ms, func(at time.Duration, _ int) { x.pieces(at, 41*ms, 41*ms+ms/5) })
		}},
		{name: "answers in two pieces, by Windows' delay", want: "warn service 198.51.100.2 11211", onset: 101 * ms, make: func(n *network) {
			x := n.talk(0, app, srv)
			every(100*ms, 10*sec, 500*ms, func(at time.Duration, _ int) {
				n.tcp(at, x.c, x.s, capture.ACK|capture.PSH, x.q, x.a, 100)
				x.q += 100
				n.tcp(at+ms, x.s, x.c, capture.ACK|capture.PSH, x.a, x.q, 300)
				n.tcp(at+201*ms, x.c, x.s, capture.ACK, x.q, x.a+300, 0)
				n.tcp(at+202*ms, x.s, x.c, capture.ACK|capture.PSH, x.a+300, x.q, 50)
				x.a += 350
				n.tcp(at+203*ms, x.c, x.s, capture.ACK, x.q, x.a, 0)
			})
		}},
		{name: "a program that goes on by its own timer", make: func(n *network) {
			x := n.talk(0, app, srv)
			every(100*ms, 10*sec, 200*ms, func(at time.Duration, i int) { x.pieces(at, 41*ms, time.Duration(50+i%40)*ms) })
		}},
		{name: "the same pieces without a wait for the acknowledgement", make: func(n *network) {
			x := n.talk(0, app, srv)
			every(100*ms, 10*sec, 200*ms, func(at time.Duration, _ int) { x.pieces(at, 0, ms/10) })
		}},
		{name: "acknowledged at once, the next piece is late by itself", make: func(n *network) {
			x := n.talk(0, app, srv)
			every(100*ms, 10*sec, 200*ms, func(at time.Duration, _ int) { x.pieces(at, ms, 41*ms) })
		}},
		{name: "TCP_NODELAY: now and then it goes on before the acknowledgement", make: func(n *network) {
			x := n.talk(0, app, srv)
			x.pieces(50*ms, 0, ms/10)
			every(100*ms, 10*sec, 200*ms, func(at time.Duration, _ int) { x.pieces(at, 41*ms, 41*ms+ms/5) })
		}},
		{name: "answers whose end waits for the acknowledgement of their full segments, by Windows' delay", want: "warn service 198.51.100.2 11211", onset: 101 * ms,
			make: func(n *network) { n.ends(3, true) }},
		{name: "the same behind a limit of one segment at a time: no end is held back, but each segment", make: func(n *network) { n.ends(1, true) }},
		{name: "ends that go out behind their full segments", make: func(n *network) { n.ends(3, false) }},
		{name: "whole windows over a long path", make: func(n *network) {
			c, s := n.from(app), host(srv)
			q := n.open(0, c, s)
			every(100*ms, 5*sec, 60*ms, func(at time.Duration, i int) {
				n.tcp(at, s, c, capture.ACK, q+uint32(i)*1460, q, 1460)
				n.tcp(at+50*ms, c, s, capture.ACK, q, q+uint32(i+1)*1460, 0)
			})
		}},
	})
	if flow.Of(flow.LateAck) == 0 {
		t.Error("the kinds of events do not fit a mask")
	}
}
