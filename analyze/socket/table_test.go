package socket

import (
	"testing"
	"time"

	"jindan/analyze/stat"
	"jindan/capture"
)

const (
	gate = 1<<capture.Listen | 1<<capture.CloseWait | 1<<capture.SynSent
	sec  = capture.Instant(time.Second)
)

func end(last byte, port uint16) capture.Endpoint {
	e := capture.Endpoint{Port: port}
	copy(e.Addr[10:], []byte{0xff, 0xff, 10, 0, 0, last})
	return e
}

func listens(port uint16, queue, inode uint32) capture.Socket {
	return capture.Socket{State: capture.Listen, Local: end(1, port), RecvQ: queue, Inode: inode}
}

func of(cookie uint64, state capture.SocketState, port uint16) capture.Socket {
	return capture.Socket{State: state, Cookie: cookie, Local: end(1, port), Remote: end(9, 30000+uint16(cookie))}
}

func informed(s capture.Socket, sent, resent uint32) capture.Socket {
	s.HasInfo, s.Info = true, capture.TCPInfo{DataSegsOut: sent, TotalRetrans: resent}
	return s
}

func dump(states uint32, list ...capture.Socket) *capture.SocketTable {
	return &capture.SocketTable{States: states, Info: states == capture.AllStates, Sockets: list}
}

// A socket is in a state from the first dump that shows it there to the first that would and does not.
func TestStates(t *testing.T) {
	x := New()
	x.Take(10*sec, dump(capture.AllStates, listens(80, 0, 7), of(1, capture.Established, 80), of(2, capture.SynSent, 40000), of(3, capture.TimeWait, 80)))
	if n := len(x.sockets); n != 2 {
		t.Fatalf("%d sockets are followed, want those that are connections", n)
	}
	x.Take(11*sec, dump(gate, listens(80, 0, 7), of(1, capture.CloseWait, 80), of(2, capture.SynSent, 40000)))
	w := x.In(capture.CloseWait)
	if len(w) != 1 || w[0].Since != 11*sec || !w[0].Inbound || len(x.Left) != 1 || x.Left[0].From != capture.Established || x.Left[0].Since != 10*sec {
		t.Errorf("in CLOSE_WAIT: %+v, left: %+v", w, x.Left)
	}
	if o := x.In(capture.SynSent); len(o) != 1 || o[0].Since != 10*sec || o[0].Before != 10*sec || o[0].Seen != 11*sec || o[0].Inbound {
		t.Errorf("in SYN_SENT: %+v", o)
	}
	interrupted := dump(gate)
	interrupted.Interrupted = true
	x.Take(12*sec, interrupted)
	if len(x.In(capture.CloseWait)) != 1 || len(x.Left) != 0 {
		t.Error("a dump that may miss sockets ends one")
	}
	x.Take(13*sec, dump(gate, of(1, capture.CloseWait, 80)))
	if len(x.In(capture.SynSent)) != 0 || len(x.Left) != 1 || x.Left[0].From != capture.SynSent || x.Left[0].Seen != 11*sec {
		t.Errorf("left: %+v", x.Left)
	}
	if w := x.In(capture.CloseWait); len(w) != 1 || !w[0].Inbound {
		t.Error("a connection is this host's call since its listener is gone")
	}
	x.Take(14*sec, dump(capture.AllStates))
	if len(x.sockets) != 0 || len(x.Left) != 1 {
		t.Errorf("%d sockets are followed that are nowhere, left: %+v", len(x.sockets), x.Left)
	}
}

// What a socket has sent counts from dump to dump, also where one of them missed it, or a dump of some states did not show it.
func TestSent(t *testing.T) {
	x := New()
	take := func(at capture.Instant, sent, resent uint32, list ...capture.Socket) {
		t.Helper()
		x.Take(at, dump(capture.AllStates, list...))
		for _, k := range x.Shown {
			if k.Sent != sent || k.Resent != resent {
				t.Errorf("at %d s sent %d and resent %d, want %d and %d", at/sec, k.Sent, k.Resent, sent, resent)
			}
		}
	}
	one := of(1, capture.Established, 80)
	take(1*sec, 0, 0, informed(one, 1000, 50)) // of before the first dump
	take(2*sec, 10, 2, informed(one, 1010, 52))
	missed := dump(capture.AllStates)
	missed.Interrupted = true
	x.Take(3*sec, missed)
	take(4*sec, 5, 1, informed(one, 1015, 53))
	opening := of(2, capture.SynSent, 40000)
	take(5*sec, 0, 1, informed(opening, 0, 1))
	x.Take(6*sec, dump(gate))
	opening.State = capture.Established
	take(7*sec, 8, 0, informed(opening, 8, 1))
	take(8*sec, 3, 0, informed(of(3, capture.Established, 80), 3, 0)) // all that it has sent is new
}

// Before Linux 4.1 a cookie is an address in memory: the next socket there is another one.
func TestCookieIsUsedAgain(t *testing.T) {
	x := New()
	old := informed(of(1, capture.Established, 80), 1000, 50)
	x.Take(1*sec, dump(capture.AllStates, old))
	next := informed(old, 4, 1)
	x.Take(2*sec, dump(capture.AllStates, next))
	if k := x.seen[0]; k.Since != 2*sec || k.Sent != 4 || k.Resent != 1 || len(x.Left) != 1 {
		t.Errorf("one that has sent less: %+v", k)
	}
	other := informed(old, 2000, 60)
	other.Remote.Port++
	x.Take(3*sec, dump(capture.AllStates, other))
	if k := x.seen[0]; k.Since != 3*sec || k.Remote != other.Remote || k.Resent != 60 || len(x.sockets) != 1 || len(x.In(capture.Established)) != 1 {
		t.Errorf("one with another peer: %+v, %d are followed", k, len(x.sockets))
	}
}

func TestPorts(t *testing.T) {
	x := New()
	x.Take(1*sec, dump(gate, listens(80, 3, 0), listens(80, 2, 9), listens(443, 0, 8)))
	if p, ok := x.Port(80); !ok || p.Queue != 5 || p.Inode != 9 || len(x.Listening) != 3 {
		t.Errorf("port 80: %+v %v", p, ok)
	}
	x.Take(2*sec, dump(gate, listens(80, 0, 9)))
	if _, ok := x.Port(443); ok {
		t.Error("a listener that is gone listens")
	}
}

// Sockets that wait are followed on a host with more open connections than the table holds.
func TestBounded(t *testing.T) {
	x := New()
	list := make([]capture.Socket, 0, maxEstablished+2)
	for i := range maxEstablished + 1 {
		list = append(list, of(uint64(i+1), capture.Established, 80))
	}
	list = append(list, of(1<<40, capture.CloseWait, 80))
	x.Take(1*sec, dump(capture.AllStates, list...))
	if len(x.In(capture.CloseWait)) != 1 || len(x.In(capture.Established)) != maxEstablished || x.refused != 1 {
		t.Errorf("%d in ESTABLISHED, %d refused", len(x.In(capture.Established)), x.refused)
	}
}

// How long a dump speaks follows from how often there is one.
func TestFresh(t *testing.T) {
	for _, apart := range []time.Duration{time.Second, 15 * time.Second} {
		var d Dumps
		if d.Fresh(0) || d.Newest() != 0 {
			t.Error("there is a dump")
		}
		for i := range 200 {
			d.add(capture.Instant(i) * capture.Instant(apart))
		}
		if at := d.Newest(); !d.Fresh(at.Add(apart+stat.Window)) || d.Fresh(at.Add(apart+stat.Window+1)) {
			t.Errorf("with one every %v, it speaks for another time", apart)
		}
	}
}
