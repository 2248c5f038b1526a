package decode_test

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

// tunnels wraps innerTCP in tunnels over IP.
func tunnels(t testing.TB) []wrapped {
	ip := innerTCP(t)
	e := ethTCP(t)
	over := func(proto layers.IPProtocol, b ...[]byte) []byte {
		return build(t, v4(proto), gopacket.Payload(cat(b...)))
	}
	udp := func(src, dst layers.UDPPort, b ...[]byte) []byte {
		return build(t, v4(layers.IPProtocolUDP), udpHeader(src, dst), gopacket.Payload(cat(b...)))
	}
	gtp := func(flags byte, b ...[]byte) []byte {
		body := cat(b...)
		return udp(2152, 2152, []byte{flags, 255}, be16b(uint16(len(body))), []byte{0, 0, 0, 1}, body)
	}
	cases := map[string][]byte{
		"gre":             over(47, []byte{0, 0, 8, 0}, ip),
		"gre sum key seq": over(47, []byte{0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2}, ip),
		"gre ethernet":    over(47, []byte{0, 0, 0x65, 0x58}, e),
		"gre mpls":        over(47, []byte{0, 0, 0x88, 0x47, 0, 1, 1, 64}, ip),
		"pptp":            over(47, []byte{0x30, 0x81, 0x88, 0x0b, 0, 90, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 3, 0, 0x21}, ip),
		"erspan 1":        over(47, []byte{0, 0, 0x88, 0xbe}, e),
		"erspan 2":        over(47, []byte{0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 1, 0, 1, 0, 0, 0, 1}, e),
		"erspan 3":        over(47, []byte{0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, e),
		"erspan 3 long":   over(47, []byte{0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 8), e),
		"erspan 3 ip":     over(47, []byte{0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0}, ip),
		"wccp 1":          over(47, []byte{0, 0, 0x88, 0x3e}, ip),
		"wccp 2":          over(47, []byte{0, 0, 0x88, 0x3e, 1, 0, 0, 0}, ip),
		"aruba":           over(47, []byte{0, 0, 0x82, 0}, dot11(0x88, 1, 0, 0), ip),
		"ipip":            over(4, ip),
		"etherip":         over(97, []byte{0x30, 0}, e),
		"mpls":            over(137, []byte{0, 1, 1, 64}, ip),
		"ethernet":        over(143, e),
		"6 over 4 over 6": build(t, v4(41), v6(4), gopacket.Payload(ip)),
		"srv6":            build(t, v6(43), raw(4, 2, 4, 0, 0, 0, 0, 0), gopacket.Payload(addr6()), gopacket.Payload(ip)),
		"vxlan":           udp(50000, 4789, []byte{8, 0, 0, 0, 0, 0, 5, 0}, e),
		"vxlan policy":    udp(50000, 4789, []byte{0x88, 8, 1, 2, 0, 0, 5, 0}, e),
		"vxlan linux":     udp(50000, 8472, []byte{8, 0, 0, 0, 0, 0, 5, 0}, e),
		"vxlan gpe":       udp(50000, 4790, []byte{0xc, 0, 0, 3, 0, 0, 5, 0}, e),
		"vxlan gpe ip":    udp(50000, 4790, []byte{0xc, 0, 0, 1, 0, 0, 5, 0}, ip),
		"geneve":          udp(50000, 6081, []byte{0, 0, 0x65, 0x58, 0, 0, 5, 0}, e),
		"geneve options":  udp(50000, 6081, []byte{18, 0, 8, 0, 0, 0, 5, 0, 1, 2, 3, 17}, make([]byte, 68), ip),
		"gtp-u":           gtp(0x30, ip),
		"gtp-u seq":       gtp(0x32, []byte{0, 1, 0, 0}, ip),
		"gtp-u extension": gtp(0x34, []byte{0, 0, 0, 0x85, 1, 16, 9, 0}, ip),
		"teredo":          udp(3544, 3544, build(t, teredo6(), gopacket.Payload(ip))),
		"teredo origin":   udp(50000, 3544, []byte{0, 0, 1, 2, 3, 4, 5, 6}, build(t, teredo6(), gopacket.Payload(ip))),
		"teredo auth":     udp(3544, 50000, []byte{0, 1, 1, 1, 65, 66, 0, 0, 0, 0, 0, 0, 0, 0, 0}, build(t, teredo6(), gopacket.Payload(ip))),
		"l2tp":            udp(1701, 1701, []byte{0, 2, 0, 1, 0, 2, 0xff, 3, 0, 0x21}, ip),
		"l2tp all":        udp(1701, 1701, []byte{0x4a, 2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 2, 9, 9, 0, 0x21}, ip),
		"mpls in udp":     udp(50000, 6635, []byte{0, 1, 1, 64}, ip),
	}
	var ws []wrapped
	for name, b := range cases {
		ws = append(ws, wrapped{"tunnel " + name, decode.LinkRaw, b, 0, false})
	}
	return ws
}

func addr6() []byte { return ip61.To16() }

func teredo6() *layers.IPv6 {
	ip := v6(4)
	ip.SrcIP = append([]byte{0x20, 1, 0, 0}, ip61[4:]...)
	return ip
}

// TestTunnelNot: what only looks like a tunnel stays the outer datagram.
func TestTunnelNot(t *testing.T) {
	e := ethTCP(t)
	arp := cat(e[:12], []byte{8, 6}, make([]byte, 28))
	long := append([]byte(nil), e...)
	long[14+2] = 9 // the inner packet longer than the outer one
	for _, c := range []struct {
		name string
		port layers.UDPPort
		data []byte
	}{
		{"vxlan with arp", 4789, cat([]byte{8, 0, 0, 0, 0, 0, 5, 0}, arp)},
		{"vxlan without its flag", 4789, cat([]byte{0, 0, 0, 0, 0, 0, 5, 0}, e)},
		{"vxlan too long", 4789, cat([]byte{8, 0, 0, 0, 0, 0, 5, 0}, long)},
		{"linux vxlan, reserved bits", 8472, cat([]byte{8, 0, 0, 1, 0, 0, 5, 0}, e)},
		{"geneve version", 6081, cat([]byte{0x40, 0, 0x65, 0x58, 0, 0, 5, 0}, e)},
		{"gtp echo", 2152, []byte{0x32, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0}},
		{"noise", 2152, []byte("hello, world")},
		{"l2tp control", 1701, []byte{0xc8, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"empty", 4789, nil},
	} {
		b := build(t, v4(layers.IPProtocolUDP), udpHeader(50000, c.port), gopacket.Payload(c.data))
		want := capture.Packet{
			Src: capture.Endpoint{Addr: addr(ip41), Port: 50000}, Dst: capture.Endpoint{Addr: addr(ip42), Port: uint16(c.port)},
			Len: uint32(len(c.data)), IPLen: uint32(28 + len(c.data)), IPID: 0x1234, Proto: capture.ProtoUDP, TTL: 61,
		}
		var p capture.Packet
		if r := decode.New().Decode(0, decode.LinkRaw, b, len(b), &p); r != capture.LossNone {
			t.Errorf("%s: %v", c.name, r)
		}
		equal(t, c.name, &p, &want)
	}
}

func TestNesting(t *testing.T) {
	d := decode.New()
	var p capture.Packet
	b := innerTCP(t)
	for i := 1; i < 12; i++ {
		want := capture.LossNone
		if i > 8 {
			want = capture.LossNesting
		}
		if r := d.Decode(0, decode.LinkRaw, b, len(b), &p); r != want {
			t.Errorf("%d IP headers: %v", i, r)
		}
		b = build(t, v4(4), gopacket.Payload(b))
	}
	b = ethTCP(t)
	for range 12 {
		b = build(t, eth(layers.EthernetTypeIPv4), v4(17), udpHeader(5, 4789), raw(8, 0, 0, 0, 0, 0, 5, 0), gopacket.Payload(b))
	}
	if r := d.Decode(0, decode.LinkEthernet, b, len(b), &p); r != capture.LossNesting {
		t.Errorf("VXLAN: %v", r)
	}
	b = nil
	for range 4000 {
		b = append(b, cat(mac1, mac2, []byte{0x65, 0x58})...)
	}
	if r := d.Decode(0, decode.LinkEthernet, b, len(b), &p); r != capture.LossNesting {
		t.Errorf("Ethernet: %v", r)
	}
}

// TestAH: an authentication header is skipped, in IPv4 as in IPv6 (RFC 4302).
func TestAH(t *testing.T) {
	ah := cat([]byte{capture.ProtoTCP, 4, 0, 0}, make([]byte, 20))
	seg := innerTCP(t)[20:]
	for _, b := range [][]byte{
		build(t, v4(51), gopacket.Payload(cat(ah, seg))),
		build(t, v6(51), gopacket.Payload(cat(ah, seg))),
	} {
		var p capture.Packet
		if r := decode.New().Decode(0, decode.LinkRaw, b, len(b), &p); r != capture.LossNone || p.Len != 4 || p.Seq != 1000 {
			t.Errorf("%v, %+v", r, p)
		}
	}
}
