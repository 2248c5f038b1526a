package filter

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/bpf"

	"jindan/capture"
	"jindan/capture/decode"
)

func program(t testing.TB, e *Expr, link Link) *bpf.VM {
	t.Helper()
	raw, err := e.Program(link, 256)
	if err != nil {
		t.Fatal(err)
	}
	return machine(t, raw)
}

// TestDefaultKeepsWhatIsAnalysed holds the default filter against the decoder: every TCP segment, DNS message and ICMP
// error that it finds in packets without tunnels is kept, and other UDP and ICMP is not.
func TestDefaultKeepsWhatIsAnalysed(t *testing.T) {
	whole, _ := testPackets(t, 1)
	vm := program(t, Default(), Ethernet)
	kept, dropped := 0, 0
	for _, b := range whole {
		var p capture.Packet
		d := decode.New()
		if d.Decode(0, decode.LinkEthernet, b, len(b), &p) != capture.LossNone || !plain(b) {
			continue
		}
		want := false
		switch p.Proto {
		case capture.ProtoTCP:
			want = true
		case capture.ProtoUDP:
			want = p.Src.Port == 53 || p.Dst.Port == 53
		case capture.ProtoICMP:
			switch p.ICMPType {
			case 3, 4, 5, 11, 12:
				want = true
			}
		case capture.ProtoICMPv6:
			want = p.ICMPType < 128
		}
		got := verdict(t, vm, b)
		if got != want {
			t.Fatalf("kept %t, want %t: %+v: % x", got, want, p, b)
		}
		if got {
			kept++
		} else {
			dropped++
		}
	}
	t.Logf("%d kept, %d dropped", kept, dropped)
	if kept < 1000 || dropped < 200 {
		t.Errorf("too few packets: %d kept, %d dropped", kept, dropped)
	}
}

// plain says that a frame holds IP directly, behind up to two tags, and TCP, UDP or ICMP in that, not in a tunnel or behind
// two IPv6 extension headers.
func plain(b []byte) bool {
	at := 12
	for range maxTags {
		if v := binary.BigEndian.Uint16(b[at:]); v == etherVLAN || v == etherQinQ || v == etherOld {
			at += 4
		}
	}
	ip := b[at+2:]
	carried := func(p, icmp byte) bool { return p == icmp || p == 6 }
	udp := func(h []byte) bool { // tunnels over UDP have ports of their own
		const vxlan, geneve, gtp, teredo, l2tp = 4789, 6081, 2152, 3544, 1701
		for _, off := range []int{0, 2} {
			switch binary.BigEndian.Uint16(h[off:]) {
			case vxlan, geneve, gtp, teredo, l2tp, 8472, 6635, 4754, 4790, 5555, 37008:
				return false
			}
		}
		return true
	}
	switch binary.BigEndian.Uint16(b[at:]) {
	case etherIPv4:
		n := int(ip[0]&15) * 4
		return carried(ip[9], 1) || ip[9] == 17 && len(ip) > n+8 && udp(ip[n:])
	case etherIPv6:
		if ip[6] == 44 || ip[6] == 60 || ip[6] == 0 {
			return carried(ip[40], 58) || ip[40] == 17
		}
		return carried(ip[6], 58) || ip[6] == 17 && udp(ip[40:])
	}
	return false
}

// connection returns a packet of one connection in both directions.
func connection(r *rand.Rand, v6 bool, tags int, raw bool) (forth, back []byte) {
	n := 4
	if v6 {
		n = 16
	}
	a, b := make([]byte, n+2), make([]byte, n+2)
	for i := range n + 2 {
		a[i], b[i] = byte(r.Uint32()), byte(r.Uint32())
	}
	if r.IntN(2) == 0 { // a server and its clients
		copy(b, []byte{10, 77, 2, 2})
		copy(a, []byte{10, 77, 3})
		copy(b[n:], []byte{0x1f, 0x90})
	}
	proto := []byte{6, 17}[r.IntN(2)]
	packet := func(s, d []byte) []byte {
		var p []byte
		if !raw {
			p = make([]byte, 12)
			for range tags {
				p = append(p, 0x81, 0, 0, 5)
			}
			if v6 {
				p = append(p, 0x86, 0xdd)
			} else {
				p = append(p, 8, 0)
			}
		}
		if v6 {
			p = append(p, 0x60, byte(r.Uint32()), 0, 0, 0, 20, proto, byte(r.Uint32()))
		} else {
			p = append(p, 0x45, 0, 0, byte(r.Uint32()), 0, 0, byte(r.IntN(2)<<6), 0, byte(r.Uint32()), proto, 0, 0)
		}
		p = append(append(p, s[:n]...), d[:n]...)
		return append(append(append(p, s[n:]...), d[n:]...), make([]byte, 16)...)
	}
	return packet(a, b), packet(b, a)
}

// TestSample checks that both directions of a connection share a verdict, that the verdicts of 1/2n are among those of 1/n, and
// that each n-th is as large as chance allows.
func TestSample(t *testing.T) {
	const connections = 40_000
	for _, c := range []struct {
		name string
		v6   bool
		tags int
		link Link
	}{{"IPv4", false, 0, Ethernet}, {"IPv6", true, 0, Ethernet}, {"VLAN", false, 2, Ethernet}, {"raw", true, 0, Raw}} {
		t.Run(c.name, func(t *testing.T) {
			var vms []*bpf.VM
			kept := make([]int, 7)
			for i := range kept {
				e, err := Sample(1 << i)
				if err != nil {
					t.Fatal(err)
				}
				vms = append(vms, program(t, e, c.link))
			}
			r := rand.New(rand.NewPCG(7, 8))
			for range connections {
				forth, back := connection(r, c.v6, c.tags, c.link == Raw)
				before := true
				for i, vm := range vms {
					v := verdict(t, vm, forth)
					if v != verdict(t, vm, back) {
						t.Fatalf("1/%d: directions differ: % x", 1<<i, forth)
					}
					if v && !before {
						t.Fatalf("1/%d keeps what 1/%d does not", 1<<i, 1<<(i-1))
					}
					if before = v; v {
						kept[i]++
					}
				}
			}
			for i, n := range kept {
				p := 1 / float64(int(1)<<i)
				mean := connections * p
				if sigma := math.Sqrt(mean * (1 - p)); math.Abs(float64(n)-mean) > 5*sigma {
					t.Errorf("1/%d: kept %d of %d, want %.0f ± %.0f", 1<<i, n, connections, mean, sigma)
				}
			}
			t.Logf("kept of %d: %v", connections, kept)
		})
	}
}

// TestSampleSpreadsOnePair samples the connections of one client with one service, where only a port changes.
func TestSampleSpreadsOnePair(t *testing.T) {
	e, err := Sample(16)
	if err != nil {
		t.Fatal(err)
	}
	vm := program(t, e, Raw)
	kept := 0
	const first, last, step = 32768, 60998, 2 // Linux's ephemeral ports for connect(), the even ones
	for port := first; port <= last; port += step {
		p := append([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 3, 2, 10, 77, 2, 2, byte(port >> 8), byte(port), 0x1f, 0x90}, make([]byte, 16)...)
		if verdict(t, vm, p) {
			kept++
		}
	}
	const n = (last-first)/step + 1
	if share := float64(kept) / n; share < 0.05 || share > 0.075 {
		t.Errorf("1/16 of %d ports: kept %d, a share of %.4f", n, kept, share)
	}
}

// TestSampleKeepsWhatHasNoPorts also says that filters compose.
func TestSampleKeepsWhatHasNoPorts(t *testing.T) {
	e, err := Sample(64)
	if err != nil {
		t.Fatal(err)
	}
	user, err := Parse("net 10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	vm := program(t, And(Default(), e, user), Raw)
	header := func(proto, fragment byte, net byte) []byte {
		return append([]byte{0x45, 0, 0, 40, 0, 0, 0, fragment, 64, proto, 0, 0, net, 77, 3, 2, net, 77, 2, 2, 3, 0, 0, 53}, make([]byte, 16)...)
	}
	for _, c := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"ICMP error", header(1, 0, 10), true},
		{"ICMP error elsewhere", header(1, 0, 11), false},
		{"later fragment of UDP", header(17, 9, 10), true},
		{"later fragment of TCP", header(6, 9, 10), true},
		{"SCTP", header(132, 0, 10), false},
	} {
		if got := verdict(t, vm, c.packet); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
	for _, n := range []int{0, -1, 3, 128} {
		if _, err := Sample(n); err == nil {
			t.Errorf("Sample(%d) is accepted", n)
		}
	}
}

func TestProgramLengths(t *testing.T) {
	s, err := Sample(8)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := And(Default(), s).Program(Packet, 256)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("default with sampling: %d instructions", len(raw))
	if len(raw) > 1000 {
		t.Errorf("%d instructions", len(raw))
	}
}
