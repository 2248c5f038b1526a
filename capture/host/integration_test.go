//go:build linux

package host

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/capture"
)

// Every change is told once, and what repeats a state not at all. ip(8) makes the changes.
func TestIntegrationChanges(t *testing.T) {
	a, b, ns := namespaces(t)
	s := NewSource(Options{Netns: ns, Name: "a", Interval: 50 * time.Millisecond})
	defer s.Close()
	for _, c := range changes(t, s, 300*time.Millisecond) {
		if c.Kind != capture.ChangeSoftware { // packages of this machine
			t.Errorf("before any change: %+v", c)
		}
	}
	mac := func(ns, dev string) string {
		return fromJSON[[]struct{ Address string }](t, sh(t, "ip", "-j", "-n", ns, "link", "show", dev))[0].Address
	}
	v1 := mac(b, "v1")
	for _, step := range []struct {
		do     []string
		kind   capture.ChangeKind // empty: no change
		what   string
		detail string
	}{
		{do: []string{"-n A link set v0 up", "-n A link set v0 txqueuelen 500"}},
		{[]string{"-n A link set v0 mtu 1400"}, capture.ChangeLink, "v0", "mtu 1500 → 1400"},
		{[]string{"-n A route add 198.51.100.0/24 via 10.99.0.2"}, capture.ChangeRoute, "198.51.100.0/24", "added: via 10.99.0.2 dev v0"},
		{do: []string{"-n A route replace 198.51.100.0/24 via 10.99.0.2"}},
		{[]string{"-n A route replace 198.51.100.0/24 via 10.99.0.2 advmss 1300"}, capture.ChangeRoute, "198.51.100.0/24",
			"via 10.99.0.2 dev v0 → via 10.99.0.2 dev v0 advmss 1300"},
		{[]string{"-n A route del 198.51.100.0/24"}, capture.ChangeRoute, "198.51.100.0/24", "removed: via 10.99.0.2 dev v0 advmss 1300"},
		{[]string{"-n A route add default via 10.99.0.2 metric 5 table 77"}, capture.ChangeRoute, "default table 77", "added: via 10.99.0.2 dev v0 metric 5"},
		{[]string{"-n A neigh replace 10.99.0.2 lladdr " + v1 + " dev v0 nud reachable"}, "", "", ""},
		{[]string{"-n A neigh replace 10.99.0.2 lladdr 02:00:00:00:00:99 dev v0 nud reachable"}, capture.ChangeNeighbour,
			"10.99.0.2 dev v0", "moved: " + v1 + " → 02:00:00:00:00:99"},
		{do: []string{"-n A neigh add 10.99.0.77 dev v0 nud failed"}}, // never was there
		{[]string{"-n A link set v0 down"}, capture.ChangeLink, "v0", "down"},
		{do: []string{"-n A link set v0 down"}},
		{[]string{"-n A link set v0 up"}, capture.ChangeLink, "v0", "up"},
		{[]string{"-n B link set v1 down"}, capture.ChangeLink, "v0", "down"}, // the carrier goes
		{[]string{"-n B link set v1 up"}, capture.ChangeLink, "v0", "up"},
		{[]string{"-n A route add default via 10.99.0.2 metric 5 table 77"}, capture.ChangeRoute, "default table 77", "added: via 10.99.0.2 dev v0 metric 5"},
		{do: []string{"-n A link add br0 type bridge"}},
		{do: []string{"-n A link set br0 up", "-n A link add d0 type veth peer name d1", "-n A link set d0 master br0", "-n A link set d0 up"}},
		{[]string{"-n A link set d1 up"}, capture.ChangeLink, "d0", "up"},
		{do: []string{"-n A link set d0 nomaster"}}, // the bridge says RTM_DELLINK then
		{[]string{"-n A link del d0"}, capture.ChangeLink, "d0", "down"},
	} {
		for _, c := range step.do {
			ip(t, strings.NewReplacer("-n A", "-n "+a, "-n B", "-n "+b).Replace(c))
		}
		var got []capture.Change
		wait := 300 * time.Millisecond
		if step.kind == capture.ChangeLink {
			wait = 1300 * time.Millisecond // the kernel gathers changes of carrier for a second (net/core/link_watch.c)
		}
		for _, c := range changes(t, s, wait) {
			if c.What != "br0" && c.What != "d1" { // a bridge follows its ports, and the other end of a pair this one
				got = append(got, c)
			}
		}
		switch {
		case step.kind == "" && len(got) != 0:
			t.Errorf("%v: %+v, want none", step.do, got)
		case step.kind != "" && (len(got) != 1 || got[0].Kind != step.kind || got[0].What != step.what || got[0].Detail != step.detail):
			t.Errorf("%v: %+v, want one: %s %s %s", step.do, got, step.kind, step.what, step.detail)
		}
	}
	for _, f := range s.counters.Failures() {
		if !strings.Contains(f.File, "conntrack") { // a module
			t.Errorf("%s: %v", f.File, f.Err)
		}
	}
}

// send sends n datagrams to the other namespace, 300 ms apart.
func send(t *testing.T, ns string, n int) {
	t.Helper()
	for range n {
		sh(t, "ip", "netns", "exec", ns, "bash", "-c", "echo x >/dev/udp/10.99.0.2/9 || true")
		time.Sleep(300 * time.Millisecond)
	}
}

// A next hop that stops answering: the kernel itself finds out.
func TestIntegrationNextHopLost(t *testing.T) {
	a, b, ns := namespaces(t)
	sh(t, "ip", "netns", "exec", a, "sysctl", "-qw", "net.ipv4.neigh.v0.retrans_time_ms=50", "net.ipv4.neigh.v0.delay_first_probe_time=0",
		"net.ipv4.neigh.v0.base_reachable_time_ms=200")
	send(t, a, 1)
	s := NewSource(Options{Netns: ns, Name: "a", Interval: 50 * time.Millisecond})
	defer s.Close()
	changes(t, s, 200*time.Millisecond)
	ip(t, "-n "+b+" addr del 10.99.0.2/24 dev v1")
	send(t, a, 5)
	got := changes(t, s, time.Second)
	if len(got) != 1 || got[0].Kind != capture.ChangeNeighbour || !strings.HasPrefix(got[0].Detail, "unreachable") {
		t.Fatalf("%+v, want one marker: unreachable", got)
	}
	ip(t, "-n "+b+" addr add 10.99.0.2/24 dev v1")
	send(t, a, 3)
	got = changes(t, s, 500*time.Millisecond)
	if len(got) != 1 || !strings.HasPrefix(got[0].Detail, "reachable again") {
		t.Errorf("%+v, want one marker: reachable again", got)
	}
}

// A process that starts and listens is told of once, with its program, which is newer than the last boot.
func TestIntegrationProcessStart(t *testing.T) {
	a, _, ns := namespaces(t)
	helper(t, a, "listener", "127.0.0.1:7001") // ran before
	s := NewSource(Options{Netns: ns, Name: "a", Interval: 50 * time.Millisecond})
	defer s.Close()
	for _, c := range changes(t, s, time.Second) {
		if c.Kind == capture.ChangeProcessStart {
			t.Errorf("a process that ran before: %+v", c)
		}
	}
	c, _ := helper(t, a, "listener", "127.0.0.1:7002")
	started := time.Now()
	got := changes(t, s, 2*time.Second)
	var starts []capture.Change
	for _, g := range got {
		if g.Kind == capture.ChangeProcessStart {
			starts = append(starts, g)
		}
	}
	if len(starts) != 1 || !strings.HasSuffix(starts[0].What, fmt.Sprintf("(pid %d)", c.Process.Pid)) {
		t.Fatalf("%+v, want one start of %d", got, c.Process.Pid)
	}
	if d := started.Sub(starts[0].When.Time()); d < 0 || d > 2*time.Second {
		t.Errorf("started %v before it said ready: %+v", d, starts[0])
	}
}

// The counters of a namespace are those that nstat prints in it.
func TestIntegrationCountersNstat(t *testing.T) {
	a, _, ns := namespaces(t)
	for _, c := range []string{"exec 3<>/dev/tcp/127.0.0.1/9", "echo x >/dev/udp/127.0.0.1/9", "exec 3<>/dev/tcp/203.0.113.1/9"} {
		exec.Command("ip", "netns", "exec", a, "bash", "-c", c).Run() // refused; refused; no route
	}
	c := NewCounters("/proc", ns)
	defer c.Close()
	var h capture.HostSample
	c.Read(&h)
	out := fromJSON[map[string]map[string]uint64](t, sh(t, "ip", "netns", "exec", a, "nstat", "-asz", "--json"))["kernel"]
	compared := 0
	for i := range capture.CounterCount {
		name := i.String()
		if strings.HasPrefix(name, "Softnet") || strings.HasPrefix(name, "Conntrack") {
			continue // of the whole host; nstat has no such
		}
		for _, prefix := range []string{"", "Tcp", "TcpExt", "Ip"} {
			if want, ok := out[prefix+strings.TrimPrefix(name, strings.ToUpper(prefix)+"")]; ok && (prefix != "Ip" || strings.HasPrefix(name, "IP")) {
				compared++
				if !h.Known(i) || h.Counters[i] != want {
					t.Errorf("%s = %d (known %v), nstat says %d", name, h.Counters[i], h.Known(i), want)
				}
				break
			}
		}
	}
	if want := int(capture.SoftnetProcessed); compared != want {
		t.Errorf("%d counters compared of %d", compared, want)
	}
	for _, i := range []capture.Counter{capture.AttemptFails, capture.UDPNoPorts, capture.IPOutNoRoutes, capture.IcmpOutDestUnreachs} {
		if h.Counters[i] == 0 {
			t.Errorf("%v is 0 after the traffic that raises it", i)
		}
	}
	if got := strings.Fields(string(sh(t, "ip", "netns", "exec", a, "sysctl", "-n", "net.ipv4.ip_local_port_range"))); fmt.Sprint(got) != fmt.Sprint(h.PortRange) {
		t.Errorf("ports %v, sysctl says %v", h.PortRange, got)
	}
	sh(t, "ip", "netns", "exec", a, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 41000")
	c.Read(&h)
	if h.PortRange != [2]uint16{40000, 41000} {
		t.Errorf("ports %v after they were set in the namespace", h.PortRange)
	}
}

// Interfaces and next hops are those that ip(8) prints.
func TestIntegrationLinks(t *testing.T) {
	a, _, ns := namespaces(t)
	send(t, a, 3)
	ip(t, "-n "+a+" route add 198.51.100.0/24 via 10.99.0.2")
	l, err := NewLinks(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type dir struct{ Packets, Bytes, Errors, Dropped uint64 }
	type link struct {
		Ifname  string
		Ifindex int
		MTU     int
		Flags   []string
		Stats64 struct{ Rx, Tx dir }
	}
	read := func() []capture.Link {
		got, err := l.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// The kernel's own IPv6 messages (router solicitations, MLD) pass at any time: both must read between two of them.
	var got []capture.Link
	var want []link
	for range 20 {
		got = read()
		want = fromJSON[[]link](t, sh(t, "ip", "-j", "-s", "-s", "-n", a, "link"))
		if slices.Equal(got, read()) {
			break
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d interfaces, ip says %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.Ifname || g.Index != w.Ifindex || g.MTU != w.MTU || g.Up != strings.Contains(fmt.Sprint(w.Flags), "LOWER_UP") ||
			w.Stats64.Rx != (dir{g.RxPackets, g.RxBytes, g.RxErrors, g.RxDropped}) || w.Stats64.Tx != (dir{g.TxPackets, g.TxBytes, g.TxErrors, g.TxDropped}) {
			t.Errorf("%+v, ip says %+v", g, w)
		}
		if !g.Virtual || g.Loopback != (g.Name == "lo") {
			t.Errorf("%s: virtual %v, loopback %v", g.Name, g.Virtual, g.Loopback)
		}
		if g.Name == "v0" && g.RxPackets < 3 {
			t.Errorf("v0 received %d packets after 3 datagrams", g.RxPackets)
		}
	}
	hop, err := l.NextHop(netip.MustParseAddr("198.51.100.7"))
	if err != nil || hop.Gateway.String() != "10.99.0.2" || hop.Source.String() != "10.99.0.1" {
		t.Errorf("hop %+v, %v", hop, err)
	}
	if hop, err = l.NextHop(netip.MustParseAddr("10.99.0.2")); err != nil || hop.Gateway.IsValid() {
		t.Errorf("hop to a neighbour %+v, %v", hop, err)
	}
	if _, err = l.NextHop(netip.MustParseAddr("203.0.113.1")); err == nil {
		t.Error("a route to where there is none")
	}
}
