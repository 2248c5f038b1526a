package decode_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

func one(link uint16, data []byte, wire int) (capture.Packet, capture.LossReason) {
	var p capture.Packet
	r := decode.New().Decode(0, link, data, wire, &p)
	return p, r
}

// TestLengths: the IP header knows the length; only where it says 0 the wire does.
func TestLengths(t *testing.T) {
	ip := build(t, v4(6), tcpHeader(), payload(1000))
	ip6 := build(t, v6(6), tcpHeader(), payload(1000))
	set := func(b []byte, at int, v uint16) []byte {
		b = append([]byte(nil), b...)
		binary.BigEndian.PutUint16(b[at:], v)
		return b
	}
	jumbo := cat(ip6[:4], []byte{0, 0, 0}, ip6[7:40], []byte{6, 0, 0xc2, 4, 0, 1, 0x11, 0x78}, ip6[40:]) // 70008 bytes of payload
	for _, c := range []struct {
		name       string
		data       []byte
		wire       int
		len, ipLen uint32
		reason     capture.LossReason
	}{
		{"whole", ip, len(ip), 1000, 1052, 0},
		{"cut by snap length", ip[:60], len(ip), 1000, 1052, 0},
		{"cut by a tool that forgot the length on the wire", ip[:60], 60, 1000, 1052, 0},
		{"cut within the options", ip[:45], len(ip), 1000, 1052, 0},
		{"just the fixed header", ip[:40], len(ip), 1000, 1052, 0},
		{"cut within the fixed header", ip[:39], len(ip), 0, 0, capture.LossTruncated},
		{"cut within the IP header", ip[:19], len(ip), 0, 0, capture.LossTruncated},
		{"too short on the wire", ip[:19], 19, 0, 0, capture.LossMalformed},
		{"padding", cat(ip, make([]byte, 6)), len(ip) + 6, 1000, 1052, 0},
		{"segmentation offload", set(ip, 2, 0), 70052, 70000, 70052, 0},
		{"total length too small", set(ip, 2, 19), len(ip), 0, 0, capture.LossMalformed},
		{"total length without room for TCP", set(ip, 2, 39), len(ip), 0, 0, capture.LossMalformed},
		{"total length without room for the options", set(ip, 2, 45), len(ip), 0, 0, capture.LossMalformed},
		{"IPv6", ip6, len(ip6), 1000, 1072, 0},
		{"IPv6 cut", ip6[:60], len(ip6), 1000, 1072, 0},
		{"IPv6 cut within the fixed header", ip6[:59], len(ip6), 0, 0, capture.LossTruncated},
		{"IPv6 offload", set(ip6, 4, 0), 80072, 80000, 80072, 0},
		{"IPv6 jumbogram", jumbo, 70048, 70008 - 8 - 32, 70048, 0},
		{"IPv6 jumbogram cut", jumbo[:80], 70048, 70008 - 8 - 32, 70048, 0},
		{"no bytes", nil, 0, 0, 0, capture.LossMalformed},
		{"no bytes captured", nil, 60, 0, 0, capture.LossTruncated},
	} {
		p, r := one(decode.LinkRaw, c.data, c.wire)
		if r != c.reason || r == 0 && (p.Len != c.len || p.IPLen != c.ipLen || p.Seq != 1000) {
			t.Errorf("%s: %v, length %d, IP length %d", c.name, r, p.Len, p.IPLen)
		}
	}
}

func TestPPPoETrims(t *testing.T) {
	ip := build(t, v4(6), &layers.TCP{SrcPort: 1, DstPort: 2})
	ip[3] += 6
	b := cat([]byte{0x11, 0, 0, 9, 0, 42, 0, 0x21}, ip, make([]byte, 6))
	if p, r := one(decode.LinkPPPoE, b, len(b)); r != 0 || p.Len != 0 || p.IPLen != 40 {
		t.Errorf("%v %+v", r, p)
	}
}

func TestIPv4Options(t *testing.T) {
	ip := v4(6)
	ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	b := build(t, ip, tcpHeader(), payload(3))
	if p, r := one(decode.LinkRaw, b, len(b)); r != 0 || p.Len != 3 || p.Src.Port != 40000 {
		t.Errorf("%v %+v", r, p)
	}
}

// TestIPv6Chain walks every extension header of RFC 8200 §4.1 that may precede TCP.
func TestIPv6Chain(t *testing.T) {
	seg := build(t, v6(6), tcpHeader(), payload(3))[40:]
	chain := cat(
		[]byte{43, 0, 5, 2, 0, 0, 1, 0}, // hop-by-hop: router alert, PadN
		[]byte{44, 2, 0, 0, 0, 0, 0, 0}, addr6(),
		[]byte{51, 0, 0, 0, 0, 0, 0, 1}, // atomic fragment (RFC 6946)
		[]byte{60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		[]byte{6, 0, 1, 4, 0, 0, 0, 0}, seg)
	b := build(t, v6(0), gopacket.Payload(chain))
	p, r := one(decode.LinkRaw, b, len(b))
	if r != 0 || p.Len != 3 || p.Src.Port != 40000 || p.Src.Addr != addr(ip61) || p.IPLen != uint32(len(b)) {
		t.Errorf("%v %+v", r, p)
	}
	for n := range b {
		if _, r := one(decode.LinkRaw, b[:n], len(b)); (r == capture.LossTruncated) != (n < len(b)-15) {
			t.Errorf("%d bytes: %v", n, r)
		}
	}
	b = build(t, v6(59), payload(8))
	if _, r := one(decode.LinkRaw, b, len(b)); r != capture.LossTransport {
		t.Errorf("no next header: %v", r)
	}
}

func TestReasons(t *testing.T) {
	e := func(typ layers.EthernetType, b ...byte) []byte { return build(t, eth(typ), gopacket.Payload(b)) }
	udp := build(t, v4(17), udpHeader(1, 2))
	bad := innerTCP(t)
	bad[32] = 0x40 // data offset 16
	for _, c := range []struct {
		name string
		link uint16
		data []byte
		wire int
		want capture.LossReason
	}{
		{"ARP", 1, e(0x0806, make([]byte, 28)...), 42, capture.LossNotIP},
		{"LLDP", 1, e(0x88cc, 2, 7), 60, capture.LossNotIP},
		{"STP", 1, cat(mac1, mac2, []byte{0, 38, 0x42, 0x42, 3}, make([]byte, 35)), 60, capture.LossNotIP},
		{"Novell", 1, cat(mac1, mac2, []byte{0, 8, 0xff, 0xff, 0, 0, 0, 0, 0, 0}), 60, capture.LossNotIP},
		{"Ethernet cut", 1, make([]byte, 13), 60, capture.LossTruncated},
		{"Ethernet short", 1, make([]byte, 13), 13, capture.LossMalformed},
		{"VLAN cut", 1, cat(mac1, mac2, []byte{0x81, 0, 0}), 60, capture.LossTruncated},
		{"link type", 147, udp, len(udp), capture.LossLinkType},
		{"SCTP", decode.LinkRaw, build(t, v4(132), payload(12)), 32, capture.LossTransport},
		{"ESP", decode.LinkRaw, build(t, v4(50), payload(12)), 32, capture.LossTransport},
		{"GRE of something else", decode.LinkRaw, build(t, v4(47), raw(0, 0, 0x88, 0xcc, 0)), 25, capture.LossTransport},
		{"GRE with source route", decode.LinkRaw, build(t, v4(47), raw(0x40, 0, 8, 0, 0, 0, 0, 0)), 28, capture.LossTransport},
		{"TCP data offset", decode.LinkRaw, bad, len(bad), capture.LossMalformed},
		{"UDP cut", decode.LinkRaw, udp[:27], 28, capture.LossTruncated},
		{"IP version 5", decode.LinkRaw, []byte{0x50}, 1, capture.LossNotIP},
		{"IP version 5 as IPv4", 1, e(0x0800, cat([]byte{0x50}, make([]byte, 30))...), 45, capture.LossMalformed},
		{"802.11 beacon", decode.LinkIEEE80211, cat([]byte{0x80, 0}, make([]byte, 40)), 42, capture.LossNotIP},
		{"802.11 null", decode.LinkIEEE80211, cat([]byte{0x48, 0}, make([]byte, 40)), 42, capture.LossNotIP},
		{"802.11 encrypted", decode.LinkIEEE80211, cat([]byte{0x08, 0x42}, make([]byte, 40)), 42, capture.LossLinkType},
		{"802.11 aggregate", decode.LinkIEEE80211, cat([]byte{0x88, 0x02}, make([]byte, 22), []byte{0x80, 0}, make([]byte, 40)), 66, capture.LossLinkType},
		{"netlink", decode.LinkLinuxSLL, cat([]byte{0, 4, 3, 0x38}, make([]byte, 30)), 34, capture.LossNotIP},
	} {
		if _, r := one(c.link, c.data, c.wire); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
}

// TestVersionMismatch: the version field decides, whatever the link layer says.
func TestVersionMismatch(t *testing.T) {
	b := build(t, eth(layers.EthernetTypeIPv4), gopacket.Payload(build(t, v6(6), tcpHeader())))
	if p, r := one(1, b, len(b)); r != 0 || !p.IPv6 {
		t.Errorf("IPv6 as IPv4: %v", r)
	}
	b = build(t, eth(layers.EthernetTypeIPv6), gopacket.Payload(cat(innerTCP(t), make([]byte, 40))))
	if p, r := one(1, b, len(b)); r != 0 || p.IPv6 {
		t.Errorf("IPv4 as IPv6: %v", r)
	}
}
