package detect

import (
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/capture"
	"jindan/rules"
)

// A connection is dead as long as somebody waits for it: a caller that closes it, or it comes back, and it is over.
func TestDeadConnectionEnds(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:443"
	for name, end := range map[string]func(*talk){
		"the caller closes it":   func(x *talk) { x.n.tcp(30*sec, x.c, x.s, capture.ACK|capture.FIN, x.q+200, x.a, 0) },
		"the caller resets it":   func(x *talk) { x.n.tcp(30*sec, x.c, x.s, capture.RST, x.q+200, x.a, 0) },
		"it comes back":          func(x *talk) { x.n.tcp(30*sec, x.s, x.c, capture.ACK, x.a, x.q+200, 0) },
		"the caller still waits": nil,
	} {
		n := new(network)
		every(0, 60*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, app, "198.51.100.3:443", 5*ms) })
		for i := range 4 {
			x := n.talk(time.Duration(i)*100*ms, app, srv)
			x.turn(sec)
			x.turn(15 * sec)
			x.vain(20*sec, 5)
			if end != nil {
				end(x)
			}
		}
		fs := n.findings(t, newDeadConnection(), app)
		if len(fs) != 1 || (fs[0].State == analyze.Resolved) != (end != nil) {
			t.Errorf("%s: %d findings, %+v", name, len(fs), features(fs))
			continue
		}
		if late := fs[0].LastSeen.Sub(begin.Add(30 * sec)); end != nil && late > 5*sec {
			t.Errorf("%s: over %v later", name, late)
		}
	}
}

// A short queue overflows in bursts, between the samples: the kernel counts it, and the SYNs come again.
func TestAcceptQueueBursts(t *testing.T) {
	const srv = "192.0.2.1:8080"
	site := func(from, to time.Duration, other uint32) func(*network) {
		return func(n *network) {
			lost := uint64(0)
			every(0, 30*sec, sec, func(at time.Duration, _ int) {
				n.sockets(at, gateStates, listener("0.0.0.0:8080", 0, 1), capture.Socket{State: capture.Listen, Local: host("0.0.0.0:9090"),
					RecvQ: other, SendQ: 4, Inode: 8, Cookie: 2})
				if at >= from && at < to {
					lost += 3
				}
				n.counters(at+ms, func(h *capture.HostSample) { h.Set(capture.ListenOverflows, lost) })
			})
			every(0, 30*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
			every(10*sec, 28*sec, 500*ms, func(at time.Duration, _ int) { n.lateOpen(at, "203.0.113.7", srv, sec) })
		}
	}
	play(t, newAcceptQueue, []scene{
		{name: "overflows are counted", local: "192.0.2.1", want: "error service 192.0.2.1 8080", onset: 10 * sec, make: site(10*sec, 30*sec, 0),
			check: func(t *testing.T, features any) {
				if f := features.(AcceptQueue); !f.Bursts || f.Backlog != 1 || f.Silent < 5 || f.Overflows < 5 {
					t.Errorf("%+v", f)
				}
			}},
		{name: "the path loses SYNs", local: "192.0.2.1", make: site(30*sec, 30*sec, 0)},
		{name: "overflows were counted before", local: "192.0.2.1", make: site(sec, 8*sec, 0)},
		{name: "another queue is full", local: "192.0.2.1", want: "error service 192.0.2.1 9090", onset: 0, make: site(10*sec, 30*sec, 5)},
	})
}

// What the sockets say of a port that answers nobody: a program listens with an empty queue, or nobody does.
func TestConnectionRefusedListener(t *testing.T) {
	const srv = "192.0.2.1:8080"
	for want, list := range map[string][]capture.Socket{
		listenerIdle: {listener("0.0.0.0:8080", 0, 64)}, listenerBusy: {listener("192.0.2.1:8080", 3, 64)}, listenerNone: {listener("0.0.0.0:22", 0, 64)},
	} {
		n := new(network)
		every(0, 40*sec, sec, func(at time.Duration, _ int) { n.sockets(at, gateStates, list...) })
		every(0, 10*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", srv, 5*ms) })
		every(12*sec, 35*sec, 200*ms, func(at time.Duration, _ int) { n.silent(at, "203.0.113.7", srv, 2) })
		fs := n.findings(t, newConnectionRefused(), "192.0.2.1")
		if len(fs) != 1 {
			t.Fatalf("%s: %d findings", want, len(fs))
		}
		if f := fs[0].Features.(ConnectionRefused); f.Listener != want || f.Class != classSilent {
			t.Errorf("%s: %+v", want, f)
		}
	}
}

// The share of the busiest source is of the requests to its listener, and the text does not put it beside the total of all.
func TestSurgeShareOfListener(t *testing.T) {
	n := new(network)
	every(0, 20*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.7", "192.0.2.1:8080", 5*ms) })
	every(0, 20*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", "198.51.100.2:443", 5*ms) })
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	n.causes = cause.New(set)
	for _, s := range n.run(t, []analyze.Detector{newSurge()}, "192.0.2.1").Steps {
		if s.Step == "surge" && !strings.Contains(s.Reason.En, "(100 % of those to its listener); ") {
			t.Errorf("%s: %s", s.Verdict, s.Reason.En)
		}
	}
}

// A leak that stands still for longer than a series remembers is still held against the time before it.
func TestLeakStandsStill(t *testing.T) {
	const server = "10.0.0.1:8080"
	n := new(network)
	every(0, 300*sec, 250*ms, func(at time.Duration, _ int) { n.call(at, "10.0.9.9", server, 5*ms) })
	every(20*sec, 70*sec, sec, func(at time.Duration, _ int) {
		x := n.talk(at, "10.0.9.9", server)
		x.turn(at + 10*ms)
		n.tcp(at+20*ms, x.c, x.s, capture.ACK|capture.FIN, x.q, x.a, 0)
		n.tcp(at+21*ms, x.s, x.c, capture.ACK, x.a, x.q+1, 0)
	})
	fs := n.findings(t, newCloseWait(), "10.0.0.1")
	if len(fs) != 1 {
		t.Fatalf("%d findings", len(fs))
	}
	if f := fs[0].Features.(CloseWait); f.Class != classLeak || f.WaitingBefore > 1 || f.Waiting != 50 {
		t.Errorf("%+v", f)
	}
	if s := fs[0].Summary.En; strings.Contains(s, "grow by") || !strings.Contains(s, "(before: 1)") {
		t.Error(s)
	}
}
