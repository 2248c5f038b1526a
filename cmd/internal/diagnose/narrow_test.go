package diagnose

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"jindan/capture"
)

func TestInstant(t *testing.T) {
	seoul := time.FixedZone("", 9*3600)
	first := capture.Instant(time.Date(2023, 11, 17, 8, 0, 0, 0, seoul).UnixNano())
	for s, want := range map[string]time.Time{
		"90s":                  time.Date(2023, 11, 17, 8, 1, 30, 0, seoul),
		"08:30":                time.Date(2023, 11, 17, 8, 30, 0, 0, seoul),
		"08:30:15":             time.Date(2023, 11, 17, 8, 30, 15, 0, seoul),
		"2023-11-18 00:00:00":  time.Date(2023, 11, 18, 0, 0, 0, 0, seoul),
		"2023-11-17T00:00:00Z": time.Date(2023, 11, 17, 9, 0, 0, 0, seoul),
	} {
		if got, err := instant(s, first, seoul); err != nil || !got.Time().Equal(want) {
			t.Errorf("%s: %v %v, want %v", s, got, err, want.UTC())
		}
	}
	for _, s := range []string{"-5s", "yesterday", "25:00"} {
		if _, err := instant(s, first, seoul); err == nil {
			t.Errorf("%q is taken for a time", s)
		}
	}
}

// TestNarrow: a span holds its beginning and not its end, and a filter looks at addresses, ports, protocols and flags.
func TestNarrow(t *testing.T) {
	packet := func(at time.Duration, proto uint8, src, dst string, flags uint8) capture.Observation {
		return capture.Observation{At: capture.Instant(at), Packet: capture.Packet{Proto: proto, Flags: flags, TTL: 64,
			Src: endpointOf(src), Dst: endpointOf(dst)}}
	}
	b := &capture.Batch{Until: capture.Instant(5 * time.Second), Obs: []capture.Observation{
		packet(0, capture.ProtoTCP, "10.0.0.1:1000", "10.0.0.2:80", capture.SYN),
		packet(time.Second, capture.ProtoTCP, "10.0.0.2:80", "10.0.0.1:1000", capture.SYN|capture.ACK),
		packet(2*time.Second, capture.ProtoUDP, "10.0.0.1:1001", "10.0.0.3:53", 0),
		packet(3*time.Second, capture.ProtoTCP, "[2001:db8::1]:1002", "[2001:db8::2]:443", capture.ACK),
	}}
	for _, c := range []struct {
		n    Narrow
		want []int // whole seconds
	}{
		{Narrow{}, []int{0, 1, 2, 3}},
		{Narrow{Since: "1s", Until: "3s"}, []int{1, 2}},
		{Narrow{Filter: "port 53"}, []int{2}},
		{Narrow{Filter: "tcp and not port 80"}, []int{3}},
		{Narrow{Filter: "src host 10.0.0.2"}, []int{1}},
		{Narrow{Filter: "net 2001:db8::/32"}, []int{3}},
		{Narrow{Filter: "tcp[tcpflags] & tcp-syn != 0", Since: "1s"}, []int{1}},
	} {
		if err := c.n.Compile(time.UTC); err != nil {
			t.Fatal(err)
		}
		part, err := c.n.part(b)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, o := range part.Obs {
			got = append(got, int(o.At/1e9))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.n, got, c.want)
		}
	}
	n := Narrow{Until: "1s"}
	if err := n.Compile(time.UTC); err != nil {
		t.Fatal(err)
	}
	if _, err := n.part(&capture.Batch{Until: 0, Obs: b.Obs[:1]}); err != nil {
		t.Error(err)
	}
	if _, err := n.part(&capture.Batch{Until: b.Until, Obs: b.Obs[2:]}); err != errBehind {
		t.Errorf("%v: what is behind --until is read on", err)
	}
	bad := Narrow{Filter: "port"}
	if bad.Compile(time.UTC) == nil {
		t.Error("a filter that ends in the middle is taken")
	}
}

func endpointOf(s string) capture.Endpoint {
	a := netip.MustParseAddrPort(s)
	return capture.Endpoint{Addr: capture.AddrFrom(a.Addr()), Port: a.Port()}
}

// TestSortRows: the largest first, of equals the earlier; --top keeps that many.
