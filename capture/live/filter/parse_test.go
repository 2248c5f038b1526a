package filter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		column int
		what   string
	}{
		{"prot 80", 1, "unknown word"},
		{"port", 5, "expected a number"},
		{"port 80 or", 11, "expected a condition"},
		{"port http", 6, "names are not looked up"},
		{"port 65536", 6, "0 to 65535"},
		{"port 80-90", 6, "portrange"},
		{"port 080", 6, "0 to 65535"},
		{"host example.com", 6, "names are not looked up"},
		{"host 10.0.0.0/8", 6, "net 10.0.0.0/8"},
		{"host 10.1", 6, "four numbers"},
		{"host 10.0.0.256", 6, "no address"},
		{"net 10.1.0.0/8", 5, "outside"},
		{"net 10.0.0.0/33", 5, "0 to 32"},
		{"net 10.0.0.0 mask 255", 19, "expected a mask"},
		{"net 10.0.0.0 mask (", 19, "expected a mask"},
		{"net 2001:db8::1/32", 5, "outside"},
		{"ip6 host 10.0.0.1", 10, "after ip6"},
		{"ip host ::1", 9, "after ip"},
		{"host fe80::1%eth0", 6, "no address"},
		{"tcp host 10.0.0.1", 10, "tcp and host"},
		{"ip port 80", 9, "no ports"},
		{"tcp and 80", 9, "put host, net or port"},
		{"80", 1, "put host, net or port"},
		{"(80 or 443)", 2, "put host, net or port"},
		{"port (80 or tcp)", 13, "expected a number"},
		{"(tcp", 5, "closing parenthesis"},
		{"tcp)", 4, "the end"},
		{"tcp port 80 udp", 13, "the end"},
		{"ip proto 6", 4, "the end"},
		{"vlan 4096", 6, "0 to 4095"},
		{"tcp[tcpflags] & tcp-syn|tcp-ack != 0", 24, "flags are joined"},
		{"tcp[tcpflags] & (tcp-syn != 0", 26, "closing parenthesis"},
		{"tcp[tcpflags]", 14, "expected a comparison"},
		{"tcp[13:3] = 0", 4, "1, 2 or 4"},
		{"tcp[x] = 0", 4, "an offset"},
		{"tcp[13", 7, "expected an offset"},
		{"tcp[13] = nonsense", 11, "number or the name"},
		{"arp[0] = 1", 1, "cannot be compared"},
		{"len > 100", 1, "unknown word"},
		{"tcp; rm", 4, "no meaning"},
		{"not", 4, "expected a condition"},
		{"src", 4, "expected a number"},
		{"ether host 1:2:3:4:5:6", 1, "unknown word"},
		{"포트 80", 1, "no meaning"},
	} {
		_, err := Parse(c.text)
		e, ok := errors.AsType[*SyntaxError](err)
		if !ok || e.Pos+1 != c.column || !strings.Contains(e.What, c.what) || !strings.Contains(err.Error(), Supported) {
			t.Errorf("%q: %v; want column %d, %q", c.text, err, c.column, c.what)
		}
	}
}

func TestProgramTooLong(t *testing.T) {
	e, err := Parse(strings.Repeat("host 10.0.0.1 or ", 1000) + "tcp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Program(Packet, 256); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("%v", err)
	}
}

// TestLongExpressions: the time to read and compile grows with the length, not with its square.
func TestLongExpressions(t *testing.T) {
	for _, text := range []string{strings.Repeat("(", 60000), strings.Repeat("not (", 10000) + "tcp" + strings.Repeat(")", 10000),
		strings.Repeat("!", 60000) + "tcp", strings.Repeat("tcp or ", 9000) + "tcp", "port " + strings.Repeat("80 or ", 9000) + "1",
		strings.Repeat("vlan and ", 7000) + "tcp"} {
		start := time.Now()
		if e, err := Parse(text); err == nil {
			_, _ = e.Program(Packet, 256)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("%.10s…: %v", text, d)
		}
	}
}

// TestRandomExpressionsEqualTcpdump strings words together at random. What we take tcpdump takes, and means the same by it.
func TestRandomExpressionsEqualTcpdump(t *testing.T) {
	needTcpdump(t)
	whole, _ := testPackets(t, 1)
	vocabulary := []string{"tcp", "udp", "ip", "ip6", "arp", "icmp", "vlan", "vlan 5", "port", "host", "net", "src", "dst", "src or dst", "portrange",
		"port 53", "host 10.77.2.2", "net 10.0.0.0/8", "80", "53", "22-443", "10.77.2.2", "10.77.3.2", "10.77", "10.0.0.0/8", "fe80::/10", "2001:db8::1",
		"not", "!", "(", ")", "(", ")", "tcp[tcpflags] & tcp-syn != 0", "tcp[13]", "&", "| tcp-ack", "= 2", "icmp[0] = 8"}
	r := rand.New(rand.NewPCG(5, 6))
	const enough = 150
	taken := 0
	for range 400_000 {
		var words []string
		for n := 2 + r.IntN(8); n > 0; n-- {
			words = append(words, vocabulary[r.IntN(len(vocabulary))])
			if r.IntN(2) == 0 {
				words = append(words, []string{"and", "or"}[r.IntN(2)])
			}
		}
		text := strings.Join(words, " ")
		e, err := Parse(text)
		if err != nil || len(words) < 4 {
			continue
		}
		ours, err := e.Program(Ethernet, 256)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tcpdump("EN10MB", text); err != nil && strings.Contains(err.Error(), "rejects all packets") {
			for _, p := range whole {
				if verdict(t, machine(t, ours), p) {
					t.Fatalf("%s: tcpdump says it accepts nothing: % x", text, p)
				}
			}
		} else {
			compare(t, text, ours, whole[len(whole)-1000:], "EN10MB")
		}
		if taken++; taken == enough {
			break
		}
	}
	t.Logf("%d expressions", taken)
	if taken < enough {
		t.Errorf("only %d expressions were taken", taken)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range expressions {
		f.Add(e)
	}
	f.Add("net 10.0.0.0 mask")
	f.Add("tcp[13:")
	packet := made(true, 1)[0]
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			var s *SyntaxError
			if !errors.As(err, &s) || s.Pos < 0 || s.Pos > len(text) {
				t.Fatalf("%#v", err)
			}
			_ = err.Error()
			return
		}
		for _, link := range []Link{Packet, Ethernet, Raw} {
			raw, err := e.Program(link, 256)
			if err != nil {
				continue // too long
			}
			if len(raw) > MaxLength {
				t.Fatal(fmt.Sprint(len(raw), " instructions"))
			}
			if link != Packet { // x/net/bpf's machine cannot ask the kernel
				verdict(t, machine(t, raw), packet)
			}
		}
	})
}
