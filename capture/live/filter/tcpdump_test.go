package filter

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// expressions are held against tcpdump; those with "vlan" on Ethernet only.
var expressions = []string{
	"ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6",
	"not tcp", "!udp", "not ip6", "tcp or udp", "tcp and not port 22", "not (tcp or icmp)",
	"host 10.77.2.2", "src host 10.77.2.2", "dst host 10.77.3.2", "src 10.77.2.2", "dst 10.77.2.2", "src or dst host 10.77.2.2",
	"src and dst host 10.77.2.2", "host 10.77.2.2 or 10.77.3.2", "host 10.77.2.2 and 10.77.3.2", "host 10.77.2.2 and not 10.77.3.2",
	"host (10.77.2.2 or 10.77.3.2)", "not host 10.77.2.2", "ip host 10.77.3.2", "arp host 10.77.3.2", "rarp host 10.0.0.1", "ip src 10.77.2.2",
	"host 2001:db8::1", "ip6 host ::1", "src host fe80::1", "dst net 2001:db8::/32", "net fe80::/10", "ip6 src net ff00::/8", "not net 2000::/3",
	"net 2001:db8:1:2:2::/79", "net ::/0", "host 0.0.0.0",
	"net 10.0.0.0/8", "net 10.77.0.0/16", "src net 192.168.0.0/16", "dst net 10.77.2.0/23", "net 10", "net 192.168", "net 10.77.2", "net 0.0.0.0/0",
	"net 10.77.0.0 mask 255.255.0.0", "src and dst net 10.0.0.0/8", "net 10.77.2.2", "net 192.168/16", "ip net 172.16.0.0/12", "arp net 10.0.0.0/8",
	"net 10.0.0.2 mask 255.0.0.255",
	"port 80", "port 53", "tcp port 80", "udp port 53", "sctp port 80", "src port 80", "dst port 443", "tcp src port 80", "udp dst port 53",
	"src or dst port 53", "src and dst port 53", "port 0x35", "port 80 or 443", "tcp port 80 or 443 or 22", "port 80 and not 443",
	"port (80 or 443)", "port not 80", "port 80 or (443 or 22)", "not port 80", "not port 80 and 443", "tcp port 80 or udp port 53",
	"portrange 1-1023", "tcp portrange 8000-9000", "udp dst portrange 32768-61000", "src portrange 1023-1", "portrange 80", "portrange 80-443 or 22",
	"tcp or udp and port 53", "port 53 or tcp and host 10.77.2.2", "udp and (port 53 or port 5353)", "(tcp or udp) and port 53",
	"tcp && port 80 || udp", "not tcp and not udp", "not (port 80 or 443)", "!(host 10.77.2.2) && !port 53", "tcp and (not (port 22))",
	"host 10.77.2.2 and tcp port 8080", "host 10.77.2.2 and (port 53 or 8080)", "src 10.77.2.2 and dst port 53", "ip and not net 10.0.0.0/8",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] & tcp-syn != 0", "tcp[13] & 4 = 4", "tcp[tcpflags] == tcp-syn",
	"tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)", "tcp[tcpflags] = tcp-syn|tcp-ack", "not tcp[tcpflags] & tcp-ack != 0",
	"tcp[tcpflags] & (tcp-rst) != 0 and port 80", "tcp[tcpflags] & 0 = 0", "tcp[13] & 0x3f > 0x10", "tcp[14:2] < 1000", "tcp[4:4] >= 0x80000000",
	"icmp[icmptype] = icmp-echo", "icmp[icmptype] != icmp-echo and icmp[0] != icmp-echoreply", "icmp[icmpcode] <= 4", "icmp6[icmp6type] = icmp6-echo", "icmp6[0] >= 133",
	"ip[8] < 64", "ip[6:2] & 0x1fff = 0", "ip6[7] > 1", "udp[4:2] > 100", "ip[0] & 0xf != 5", "ip[2:2] > 576",
	"vlan", "vlan 5", "vlan 0", "vlan 100 and tcp", "vlan and port 53", "not vlan", "vlan and not tcp", "vlan 5 and vlan 6", "vlan and vlan",
	"vlan or tcp", "tcp or vlan", "port 53 or (vlan and port 53)", "vlan and host 10.77.2.2", "vlan 5 and (port 80 or 443)", "not (vlan and tcp)",
	"ip or vlan 5 and ip", "vlan and tcp[tcpflags] & tcp-syn != 0", "vlan and ip6", "arp or vlan and arp", "vlan and net fe80::/10",
	"vlan and portrange 1-1023", "vlan 6 and icmp[0] = 8",
	strings.Repeat("host 10.77.2.2 or host 10.77.9.9 or ", 40) + "tcp port 80", // jumps beyond 255 instructions
	"not (" + strings.Repeat("src net 10.77.1.0/24 or dst port 99 or ", 40) + "ip6)",
}

// tcpdump compiles an expression with libpcap.
func tcpdump(link, expression string, options ...string) ([]bpf.RawInstruction, error) {
	cmd := exec.Command("tcpdump", append(options, "-y", link, "-ddd", expression)...)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	var raw []bpf.RawInstruction
	s := bufio.NewScanner(strings.NewReader(string(out)))
	s.Scan() // their number
	for s.Scan() {
		var i bpf.RawInstruction
		if _, err := fmt.Sscan(s.Text(), &i.Op, &i.Jt, &i.Jf, &i.K); err != nil {
			return nil, err
		}
		raw = append(raw, i)
	}
	return raw, nil
}

func machine(t testing.TB, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("instructions that x/net/bpf does not know")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func verdict(t testing.TB, vm *bpf.VM, packet []byte) bool {
	t.Helper()
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func needTcpdump(t testing.TB) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("needs tcpdump (Debian package tcpdump)")
	}
}

// TestVerdictsEqualTcpdump runs our program and tcpdump's over the same packets. libpcap's optimiser changes the order in which
// alternatives are tried, and with it the verdict on packets that end inside a header that one of them reads; such
// packets are compared with what libpcap makes without it.
func TestVerdictsEqualTcpdump(t *testing.T) {
	needTcpdump(t)
	for _, l := range []struct {
		link     Link
		name     string
		linkType uint16
	}{{Ethernet, "EN10MB", 1}, {Raw, "RAW", 101}} {
		t.Run(l.name, func(t *testing.T) {
			whole, cut := testPackets(t, l.linkType)
			all := slices.Concat(whole, cut)
			compared, decided := 0, 0
			for _, text := range expressions {
				if l.link == Raw && (strings.Contains(text, "vlan") || strings.Contains(text, "arp")) {
					continue // libpcap refuses them there
				}
				e, err := Parse(text)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				ours, err := e.Program(l.link, 256)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				accepted := compare(t, text, ours, whole, l.name)
				compare(t, text, ours, all, l.name, "-O")
				compared++
				if accepted > 0 && accepted < len(whole) {
					decided++
				}
			}
			t.Logf("%d expressions, of which %d accept some packets and refuse some; %d packets each, %d more against unoptimised programs",
				compared, decided, len(whole), len(cut))
			if compared < 80 || decided < compared-6 { // "net ::/0" and such
				t.Errorf("the comparison proves too little: %d of %d expressions told packets apart", decided, compared)
			}
		})
	}
}

// compare says how many of the packets tcpdump's program accepts, and complains of a verdict of ours that is not equal.
func compare(t *testing.T, text string, ours []bpf.RawInstruction, packets [][]byte, link string, options ...string) (accepted int) {
	theirs, err := tcpdump(link, text, options...)
	if err != nil {
		t.Errorf("tcpdump: %s: %v", text, err)
		return 0
	}
	a, b := machine(t, ours), machine(t, theirs)
	for _, p := range packets {
		got, want := verdict(t, a, p), verdict(t, b, p)
		if want {
			accepted++
		}
		if got != want {
			t.Errorf("%s %s: %t, tcpdump says %t: % x", text, options, got, want, p)
			return accepted
		}
	}
	return accepted
}
