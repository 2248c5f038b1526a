package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// missing takes the packets out of n that drop names.
func (n *network) missing(drop func(i int, p *capture.Packet) bool) {
	i := 0
	n.obs = slices.DeleteFunc(n.obs, func(o capture.Observation) bool {
		i++
		return drop(i-1, &o.Packet)
	})
}

// What a capture lacks is not what a host has not done: the same scenes, whole and with a part missing.
func TestWhatTheCaptureLacks(t *testing.T) {
	const (
		app  = "198.51.100.2"
		port = "198.51.100.2:443"
	)
	// The server closes first, and the client has its last word of TLS to say, which the server's kernel rejects.
	alert := func(n *network, at time.Duration) {
		c, s := n.from("192.0.2.1"), host(port)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
		n.tcp(at+4*ms, s, c, capture.ACK|capture.FIN, q+1000, q+100, 0)
		n.tcp(at+5*ms, c, s, capture.ACK, q+100, q+1001, 0)
		n.tcp(at+6*ms, c, s, capture.ACK|capture.PSH, q+100, q+1001, 24)
		n.tcp(at+6*ms+50*time.Microsecond, s, c, capture.RST, q+1001, 0, 0) // at once, as kernels do
	}
	// The server closes first, and the client after it.
	close := func(n *network, at time.Duration) {
		c, s := n.from("192.0.2.1"), host(port)
		q := n.open(at, c, s)
		n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
		n.tcp(at+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
		n.tcp(at+4*ms, s, c, capture.ACK|capture.FIN, q+1000, q+100, 0)
		n.tcp(at+5*ms, c, s, capture.ACK, q+100, q+1001, 0)
		n.tcp(at+6*ms, c, s, capture.ACK|capture.FIN, q+100, q+1001, 0)
		n.tcp(at+7*ms, s, c, capture.ACK, q+1001, q+101, 0)
	}
	fromServer := func(p *capture.Packet) bool { return p.Src == host(port) }
	for _, tc := range []struct {
		name    string
		make    func(*network)
		lacks   func(i int, p *capture.Packet) bool
		whole   string // of the whole capture
		damaged string // of what is left
	}{
		{name: "FINs of a server that closes first",
			make:  func(n *network) { every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { close(n, at) }) },
			lacks: func(i int, p *capture.Packet) bool { return fromServer(p) && p.Flags&capture.FIN != 0 && i%3 == 0 }},
		{name: "FINs before a RST for what came too late",
			make:  func(n *network) { every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { alert(n, at) }) },
			lacks: func(i int, p *capture.Packet) bool { return fromServer(p) && p.Flags&capture.FIN != 0 && i%3 == 0 }},
		{name: "all that a server sends to clients that it serves, while some SYNs go unanswered",
			make: func(n *network) {
				every(0, 20*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", port, 5*ms) })
				every(20*sec, 60*sec, 500*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", port, 5*ms) })
				every(20*sec, 50*sec, 200*ms, func(at time.Duration, _ int) { n.silent(at, "192.0.2.1", port, 2) })
			},
			lacks: func(_ int, p *capture.Packet) bool { return fromServer(p) },
			whole: "retransmission"},
		{name: "all that a server sends, which hangs",
			make: func(n *network) {
				every(0, 20*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, "192.0.2.1", port, 5*ms) })
				every(20*sec, 60*sec, 50*ms, func(at time.Duration, _ int) { n.hung(at, "192.0.2.1", port, 3*sec) })
			},
			lacks: func(_ int, p *capture.Packet) bool { return fromServer(p) },
			whole: "close-wait slow-server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, x := range []struct {
				what  string
				lacks func(int, *capture.Packet) bool
				want  string
			}{{"whole", nil, tc.whole}, {"damaged", tc.lacks, tc.damaged}} {
				n := &network{}
				tc.make(n)
				slices.SortStableFunc(n.obs, func(a, b capture.Observation) int { return int(max(min(a.At-b.At, 1), -1)) })
				if x.lacks != nil {
					n.missing(x.lacks)
				}
				var got []string
				for _, d := range []func() analyze.Detector{newCloseWait, newAbnormalTermination, newConnectionRefused,
					newRetransmission, newSlowServer, newPoolExhausted, newDeadUpstream, newSizeLoss} {
					for _, f := range n.findings(t, d(), app) {
						if f.Severity != "info" && !slices.Contains(got, f.Rule) {
							got = append(got, f.Rule)
						}
					}
				}
				slices.Sort(got)
				if s := strings.Join(got, " "); s != x.want {
					t.Errorf("%s: %q, want %q", x.what, s, x.want)
				}
			}
		})
	}
}

// Where only the answers were captured, a request that nobody answered leaves nothing: its absence clears nobody.
func TestAnswersOnlyClearNothing(t *testing.T) {
	const app, up, near = "192.0.2.1", "198.51.100.2:8080", "203.0.113.7:8080"
	for _, tc := range []struct {
		name string
		make func() analyze.Detector
		lack capture.Endpoint // what is sent to it is not in the capture
	}{
		{"calls to a silent upstream", newDeadUpstream, host(up)},
		{"calls to a silent peer", newPathCut, host(up)},
		{"clients of a silent listener", newConnectionRefused, host(app + ":443")},
	} {
		for _, lacking := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lacking %v", tc.name, lacking), func(t *testing.T) {
				var n network
				every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
					n.call(at, "192.0.2.77", app+":443", 20*ms)
					n.call(at+2*ms, app, up, 5*ms)
					n.call(at+50*ms, app, near, 5*ms)
				})
				n.missing(func(_ int, p *capture.Packet) bool { return lacking && p.Dst == tc.lack })
				if clear := n.cleared(t, tc.make()); clear == lacking {
					t.Errorf("cleared %v", clear)
				}
			})
		}
	}
}
