package detect

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/capture"
)

// halfOpen is a SYN whose answer the client does not take: the server repeats it as net.ipv4.tcp_synack_retries has it, up to tries times.
func (n *network) halfOpen(at time.Duration, client, server string, tries int) {
	c, s := n.from(client), host(server)
	n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
	for i := range tries + 1 {
		n.tcp(at+time.Duration(1<<i-1)*sec+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
	}
}

// knock is a SYN whose answer the client resets, as nmap -sS and half-open health checks do.
func (n *network) knock(at time.Duration, client, server string) {
	c, s := n.from(client), host(server)
	n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
	n.tcp(at+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
	n.tcp(at+ms, c, s, capture.RST, n.seq+1, 0, 0)
}

const scanner, scanned10 = "198.51.100.7", "10.0.0.1"

// ports calls f for n ports of the host, one each step.
func eachPort(n int, step time.Duration, host string, f func(at time.Duration, server string)) {
	for i := range n {
		f(time.Duration(i)*step, fmt.Sprintf("%s:%d", host, 1000+i))
	}
}

func TestScan(t *testing.T) {
	healthy := func(n *network) {
		every(0, 30*sec, 200*ms, func(at time.Duration, i int) { n.call(at, "10.0.1."+itoa(i%20+1), scanned10+":80", 5*ms) })
	}
	play(t, newScan, []scene{
		{name: "closed ports", want: "info host " + scanner, make: func(n *network) {
			healthy(n)
			eachPort(200, 20*ms, scanned10, func(at time.Duration, server string) { n.refused(at, scanner, server) })
		}, check: func(t *testing.T, features any) {
			f := features.(Scan)
			if f.Class != classManyPorts || f.Ports != 200 || f.Attempts != 200 || f.Refused != 200 || f.Target != scanned10 || f.More {
				t.Errorf("%+v", f)
			}
		}},
		{name: "half open", want: "info host " + scanner, make: func(n *network) {
			eachPort(30, 50*ms, scanned10, func(at time.Duration, server string) { n.halfOpen(at, scanner, server, 3) })
		}},
		{name: "answers reset", want: "info host " + scanner, make: func(n *network) {
			eachPort(30, 50*ms, scanned10, func(at time.Duration, server string) { n.knock(at, scanner, server) })
		}},
		{name: "silent ports of a firewall", want: "info host " + scanner, make: func(n *network) {
			healthy(n)
			eachPort(100, 20*ms, scanned10, func(at time.Duration, server string) { n.silent(at, scanner, server, 0) })
		}},
		{name: "slow", want: "info host " + scanner, make: func(n *network) {
			eachPort(20, 45*sec, scanned10, func(at time.Duration, server string) { n.refused(at, scanner, server) })
		}},
		{name: "many hosts, IPv6", want: "info host 2001:db8::7", make: func(n *network) {
			for i := range 60 {
				at, to := time.Duration(i)*30*ms, fmt.Sprintf("[2001:db8:1::%x]:22", i+1)
				if i%10 == 0 {
					n.refused(at, "2001:db8::7", to)
				} else {
					n.silent(at, "2001:db8::7", to, 0)
				}
			}
			n.call(5*sec, "2001:db8::9", "[2001:db8:1::1]:80", ms)
		}, check: func(t *testing.T, features any) {
			if f := features.(Scan); f.Class != classManyHosts || f.Hosts != 60 || f.Port != 22 {
				t.Errorf("%+v", f)
			}
		}},
		{name: "this host scans", local: scanner, want: "info host " + scanner, make: func(n *network) {
			eachPort(100, 20*ms, scanned10, func(at time.Duration, server string) { n.refused(at, scanner, server) })
		}},
		{name: "12 sources at once", make: func(n *network) {
			for s := range 12 {
				eachPort(100, 20*ms, scanned10, func(at time.Duration, server string) {
					n.refused(at+time.Duration(s)*ms, "198.51.100."+itoa(s+10), server)
				})
			}
		}, want: twelve()},

		{name: "many services that answer", make: func(n *network) {
			for r := range 3 {
				eachPort(100, 20*ms, scanned10, func(at time.Duration, server string) { n.call(at+time.Duration(r)*3*sec, "10.0.1.9", server, ms) })
			}
		}},
		{name: "a few ports", make: func(n *network) {
			every(0, 60*sec, 5*sec, func(at time.Duration, _ int) {
				eachPort(8, 10*ms, scanned10, func(d time.Duration, server string) { n.refused(at+d, "10.0.1.9", server) })
			})
		}},
		{name: "a host of many services is down", make: func(n *network) {
			every(0, 10*sec, sec, func(at time.Duration, _ int) {
				eachPort(30, 10*ms, scanned10, func(d time.Duration, server string) { n.call(at+d, "10.0.1.9", server, ms) })
			})
			every(10*sec, 60*sec, 5*sec, func(at time.Duration, _ int) {
				eachPort(30, 10*ms, scanned10, func(d time.Duration, server string) { n.refused(at+d, "10.0.1.9", server) })
			})
		}},
		{name: "the way out is cut", local: "10.0.1.9", make: func(n *network) {
			n.call(0, "10.0.1.9", scanned10+":80", ms)
			for i := range 60 {
				n.silent(sec+time.Duration(i)*100*ms, "10.0.1.9", fmt.Sprintf("192.0.2.%d:443", i+1), 3)
			}
		}},
		{name: "half-open health checks", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) {
				for b := range 10 {
					n.knock(at+time.Duration(b)*ms, "10.0.1.9", fmt.Sprintf("10.0.0.%d:80", b+1))
				}
			})
		}},
		{name: "a capture of SYNs only", make: func(n *network) {
			for i := range 100 {
				n.halfOpen(time.Duration(i)*20*ms, "10.0.1.9", fmt.Sprintf("192.0.2.%d:443", i+1), 0)
			}
			n.halfOpen(10*sec, "10.0.1.9", "192.0.2.1:443", 0)
		}},
	})
}

func twelve() (s string) {
	for i := range 12 {
		if i > 0 {
			s += "; "
		}
		s += "info host 198.51.100." + itoa(i+10)
	}
	return s
}

// What a scan provokes is no fault of anybody else.
func TestScanFeedsNoOther(t *testing.T) {
	var n network
	every(0, 40*sec, 100*ms, func(at time.Duration, i int) { n.call(at, "10.0.1."+itoa(i%20+1), scanned10+":80", 5*ms) })
	for r := range 4 {
		from := time.Duration(r) * 9 * sec
		eachPort(300, 20*ms, scanned10, func(at time.Duration, server string) { n.refused(from+at, scanner, server) })
		for i := range 20 {
			n.halfOpen(from+time.Duration(i)*100*ms, scanner, scanned10+":80", 4)
			n.halfOpen(from+time.Duration(i)*100*ms, scanner, scanned10+":445", 4)
			n.silent(from+time.Duration(i)*100*ms, scanner, scanned10+":446", 0)
			n.refused(from+time.Duration(i)*100*ms+5*sec, scanner, scanned10+":80")
		}
	}
	for _, f := range n.all(t, "") {
		if f.Rule != "scan" || f.Severity != "info" {
			t.Errorf("%s %s %s %+v", f.Severity, f.Rule, f.Summary.En, f.Features)
		}
	}
}

// A flood of sources that are seen once does not hide a scanner.
func TestScanBesideFlood(t *testing.T) {
	var n network
	for i := range 3 * measure.MaxPerDetector {
		n.halfOpen(time.Duration(i)*ms, fmt.Sprintf("203.0.%d.%d", i>>8, i&255), scanned10+":80", 0)
	}
	n.call(0, "10.0.1.1", scanned10+":80", ms)
	eachPort(200, 50*ms, scanned10, func(at time.Duration, server string) { n.refused(at, scanner, server) })
	got := n.findings(t, newScan(), "")
	if len(got) != 1 || got[0].Subject.Host != scanner {
		t.Errorf("found %d, want the scanner", len(got))
	}
}

// all runs all detectors.
func (n *network) all(t *testing.T, local string) []*analyze.Finding {
	t.Helper()
	return n.run(t, All(), local).Findings
}

// asked is a Causes that keeps what detectors assess.
type asked map[string]analyze.Assessed

func (a asked) Link([]*analyze.Finding, analyze.Local, func(string) bool, capture.Instant) {}

func (a asked) Diagnose(_ []*analyze.Finding, assessed map[string]analyze.Assessed) *analyze.Diagnosis {
	maps.Copy(a, assessed)
	return &analyze.Diagnosis{}
}

// cleared reports whether d's rule rules its step out over the packets of n.
func (n *network) cleared(t *testing.T, d analyze.Detector) bool {
	t.Helper()
	n.asked = asked{}
	n.run(t, []analyze.Detector{d}, "")
	a := n.asked[d.Spec().Rule]
	return a.Clear()
}

// A listener that refuses is no news any more when nobody asks; and only enough attempts clear it.
func TestRefusedEnds(t *testing.T) {
	const srv = "198.51.100.2:443"
	var n network
	every(0, 10*sec, 200*ms, func(at time.Duration, i int) { n.call(at, "203.0.113."+itoa(1+i%9), srv, ms) })
	every(10*sec, 30*sec, 200*ms, func(at time.Duration, i int) { n.refused(at, "203.0.113."+itoa(1+i%9), srv) })
	n.call(300*sec, "203.0.113.1", "198.51.100.2:80", ms)
	if fs := n.findings(t, newConnectionRefused(), ""); len(fs) != 1 || fs[0].State != analyze.Resolved || fs[0].Severity != "error" {
		t.Errorf("%+v", features(fs))
	}
	for _, c := range []struct {
		name string
		make func(*network)
		want bool
	}{
		{"healthy", func(n *network) {
			every(0, 10*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", srv, ms) })
		}, true},
		{"too few", func(n *network) { n.call(0, "203.0.113.1", srv, ms) }, false},
		{"one of two listeners", func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", srv, ms) })
			n.call(0, "203.0.113.1", "198.51.100.2:80", ms)
			every(20*sec, 24*sec, sec, func(at time.Duration, _ int) { n.refused(at, "203.0.113.1", "198.51.100.2:80") })
		}, false},
		{"one refusal among many", func(n *network) {
			every(0, 60*sec, 50*ms, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", srv, ms) })
			n.refused(20*sec, scanner, srv)
		}, true},
	} {
		var n network
		c.make(&n)
		if got := n.cleared(t, newConnectionRefused()); got != c.want {
			t.Errorf("%s: cleared %v", c.name, got)
		}
	}
}

// Requests that trickle in hold the workers of a server: where they do, attack is not ruled out.
func TestScanTrickle(t *testing.T) {
	for _, c := range []struct {
		name  string
		n     int
		step  time.Duration
		bytes uint32
		want  bool
	}{
		{"nobody", 0, sec, 1, true},
		{"two slow lines", 2, sec, 1, true},
		{"a byte a second", 12, sec, 1, false},
		{"uploads", 12, 100 * ms, 1000, true},
		{"requests that take 4 s to come", 12, 40 * ms, 1, true},
	} {
		n := new(network)
		every(0, 40*sec, 200*ms, func(at time.Duration, i int) { n.call(at, "10.0.1."+itoa(i%20+1), scanned10+":80", 5*ms) })
		for range c.n {
			from, to := n.from(scanner), host(scanned10+":80")
			q := n.open(10*sec, from, to)
			for i := range uint32(100) {
				at := 10*sec + time.Duration(i+1)*c.step
				if at > 38*sec {
					break
				}
				n.tcp(at, from, to, capture.ACK|capture.PSH, q+i*c.bytes, q, c.bytes)
				n.tcp(at+ms, to, from, capture.ACK, q, q+(i+1)*c.bytes, 0)
			}
		}
		if got := n.cleared(t, newScan()); got != c.want {
			t.Errorf("%s: cleared %v", c.name, got)
		}
	}
}
