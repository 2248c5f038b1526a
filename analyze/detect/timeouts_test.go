package detect

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/capture"
	"jindan/rules"
)

// opens is a connection whose SYN is answered at its last repetition only, after 1, 3, 7… s.
func (n *network) opens(at time.Duration, client, server string, tries int) {
	c, s := n.from(client), host(server)
	wait := time.Duration(1<<tries-1) * sec
	for i := range tries {
		n.tcp(at+time.Duration(1<<i-1)*sec, c, s, capture.SYN, n.seq, 0, 0)
	}
	q := n.open(at+wait, c, s)
	n.tcp(at+wait+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+wait+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
	n.tcp(at+wait+4*ms, c, s, capture.ACK, q+100, q+1000, 0)
}

// flights answers a request with full segments; of every flight of ten, if lose says so, one is lost before the capture, and sent again
// after wait.
func (n *network) flights(at time.Duration, client, server string, count int, wait time.Duration, lose func(i int) bool) {
	const size = 1460
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	at += 10 * ms
	a := q
	for i := range count {
		for k := uint32(0); k < 10; k++ {
			t := at + time.Duration(k)*ms/10
			if lose(i) && k == 3 {
				continue
			}
			n.tcp(t, s, c, capture.ACK, a+k*size, q+100, size)
			if ack := a + (k+1)*size; lose(i) && k > 3 {
				n.tcp(t+ms/20, c, s, capture.ACK, q+100, a+3*size, 0)
			} else if k%2 == 1 {
				n.tcp(t+ms/20, c, s, capture.ACK, q+100, ack, 0)
			}
		}
		if lose(i) {
			at += wait
			n.tcp(at, s, c, capture.ACK, a+3*size, q+100, size)
			n.tcp(at+ms/20, c, s, capture.ACK, q+100, a+10*size, 0)
		}
		a += 10 * size
		at += 20 * ms
	}
}

// answer2 is a call whose answer is a full segment and an end, which comes late after the rest.
func (n *network) answer2(at time.Duration, client, server string, late time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	at += 2 * ms
	n.tcp(at, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+ms, s, c, capture.ACK, q, q+100, 1460)
	n.tcp(at+ms+ms/10, c, s, capture.ACK, q+100, q+1460, 0)
	at += ms + late
	n.tcp(at, s, c, capture.ACK|capture.PSH, q+1460, q+100, 700)
	n.tcp(at+ms/10, c, s, capture.ACK|capture.FIN, q+100, q+2160, 0)
	n.tcp(at+ms, s, c, capture.ACK|capture.FIN, q+2160, q+101, 0)
	n.tcp(at+2*ms, c, s, capture.ACK, q+101, q+2161, 0)
}

// What waits for a time-out is harmed far more than what is repeated within a round trip.
func TestTimeouts(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:80"
	// clients download; a quarter of the flights lose one segment of ten.
	clients := func(wait time.Duration) func(*network) {
		return func(n *network) {
			for k := range 4 {
				n.flights(time.Duration(k)*sec, "192.0.2."+itoa(10+k), srv, 60, wait, func(i int) bool { return i%4 == 1 })
			}
		}
	}
	play(t, newRetransmission, []scene{
		{name: "one segment in 40 is lost, and repeated after a time-out", want: "warn path 198.51.100.2", onset: 30 * ms, make: clients(280 * ms)},
		{name: "one segment in 40 is lost, and repeated within a round trip", make: clients(2 * ms)},
		{name: "two connections of two take 15 s to open", local: app, want: "warn upstream 192.0.2.9 198.51.100.2 80",
			check: func(t *testing.T, features any) {
				if f := features.(Retransmission); f.Held != 2 || f.Longest < 14.9 || f.Longest > 15.1 {
					t.Errorf("%+v", f)
				}
			}, make: func(n *network) {
				n.opens(0, app, srv, 4)
				n.opens(3*sec, app, srv, 4)
			}},
		{name: "two of 200", local: app, make: func(n *network) {
			every(0, 40*sec, 200*ms, func(at time.Duration, i int) {
				if i == 20 || i == 90 {
					n.opens(at, app, srv, 3)
				} else {
					n.call(at, app, srv, 5*ms)
				}
			})
		}},
		{name: "two of two that lost one SYN", local: app, make: func(n *network) {
			n.opens(0, app, srv, 1)
			n.opens(3*sec, app, srv, 1)
		}},
	})
}

// The end of an answer that is lost before the capture point leaves no gap: it is late by a time-out. Where that is common, loss is not
// ruled out, and nothing is called healthy.
func TestLateEnds(t *testing.T) {
	const app, srv = "192.0.2.9", "198.51.100.2:80"
	answers := func(late time.Duration) *network {
		n := new(network)
		every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
			if i%20 == 7 {
				n.answer2(at, app, srv, late)
			} else {
				n.answer2(at, app, srv, ms/10)
			}
		})
		return n
	}
	for _, c := range []struct {
		late    time.Duration
		verdict analyze.Verdict
		remarks int
	}{{204 * ms, analyze.NotAssessable, 1}, {20 * ms, analyze.RuledOut, 0}} {
		if d := judged(t, answers(c.late)); retransmissionVerdict(d) != c.verdict {
			t.Errorf("ends late by %v: retransmission is %s, want %s", c.late, retransmissionVerdict(d), c.verdict)
		}
		fs := answers(c.late).findings(t, newStandstill(), "")
		if len(fs) != c.remarks || c.remarks > 0 && fs[0].Features.(Standstill).Paused != 30 {
			t.Errorf("ends late by %v: %d remarks %+v", c.late, len(fs), features(fs))
		}
	}
}

// judged is the diagnosis with the steps that the findings of retransmission lead to.
func judged(t *testing.T, n *network) *analyze.Diagnosis {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	n.causes = cause.New(set)
	return n.run(t, []analyze.Detector{newRetransmission()}, "")
}

// retransmissionVerdict is whether loss is ruled out.
func retransmissionVerdict(d *analyze.Diagnosis) analyze.Verdict {
	for _, s := range d.Steps {
		if s.Step == "retransmission-by-point" {
			return s.Verdict
		}
	}
	return ""
}
