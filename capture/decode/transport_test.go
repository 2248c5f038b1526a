package decode_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

func TestTCPOptions(t *testing.T) {
	const mss, ws, ok, sack, ts, mp = capture.OptMSS, capture.OptWScale, capture.OptSACKPermitted, capture.OptSACK, capture.OptTimestamps, capture.OptMPTCP
	block := func(l, r uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, l), r)
	}
	for _, c := range []struct {
		name string
		opts []byte
		want capture.Packet
	}{
		{"none", nil, capture.Packet{}},
		{"syn", []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7},
			capture.Packet{Opts: mss | ok | ts | ws, MSS: 1460, TSVal: 1, TSEcr: 2, WScale: 7}},
		{"window scale 0", []byte{3, 3, 0, 0}, capture.Packet{Opts: ws}},
		{"timestamps last", []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, capture.Packet{Opts: ts, TSVal: 1, TSEcr: 2}},
		{"sack", cat([]byte{1, 1, 5, 18}, block(1, 2), block(3, 4)), capture.Packet{Opts: sack, SACKs: 2, SACK: [4][2]uint32{{1, 2}, {3, 4}}}},
		{"sack and timestamps", cat([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 26}, block(1, 2), block(3, 4), block(5, 6)),
			capture.Packet{Opts: sack | ts, TSVal: 1, TSEcr: 2, SACKs: 3, SACK: [4][2]uint32{{1, 2}, {3, 4}, {5, 6}}}},
		{"sack of four", cat([]byte{1, 1, 5, 34}, block(1, 2), block(3, 4), block(5, 6), block(7, 8)),
			capture.Packet{Opts: sack, SACKs: 4, SACK: [4][2]uint32{{1, 2}, {3, 4}, {5, 6}, {7, 8}}}},
		{"sack of half a block", []byte{1, 1, 5, 6, 0, 0, 0, 1}, capture.Packet{}},
		{"mptcp", []byte{30, 4, 0, 0}, capture.Packet{Opts: mp}},
		{"unknown", []byte{254, 4, 1, 1, 2, 4, 5, 180}, capture.Packet{Opts: mss, MSS: 1460}},
		{"end of list", []byte{0, 4, 5, 180, 2, 4, 5, 180}, capture.Packet{}},
		{"length 0", []byte{2, 0, 5, 180, 2, 4, 5, 180}, capture.Packet{}},
		{"length 1", []byte{2, 1, 5, 180, 2, 4, 5, 180}, capture.Packet{}},
		{"too long", []byte{2, 4, 5, 180, 8, 10, 0, 0}, capture.Packet{Opts: mss, MSS: 1460}},
		{"wrong length", []byte{2, 5, 5, 180, 0, 3, 3, 7}, capture.Packet{Opts: ws, WScale: 7}},
	} {
		seg := make([]byte, 20, 60)
		seg[12] = byte((20+len(c.opts))/4) << 4
		b := build(t, v4(6), gopacket.Payload(append(seg, c.opts...)))
		p, r := one(decode.LinkRaw, b, len(b))
		c.want.Proto, c.want.TTL, c.want.IPID, c.want.IPLen = 6, 61, 0x1234, uint32(len(b))
		c.want.Src.Addr, c.want.Dst.Addr = addr(ip41), addr(ip42)
		if r != 0 {
			t.Errorf("%s: %v", c.name, r)
		}
		equal(t, c.name, &p, &c.want)
	}
}

func TestUDP(t *testing.T) {
	set := func(n uint16) []byte {
		b := build(t, v4(17), udpHeader(1, 2), payload(100))
		binary.BigEndian.PutUint16(b[24:], n)
		return b
	}
	for _, c := range []struct {
		length uint16
		want   uint32
	}{{108, 100}, {0, 100}, {7, 100}, {60, 52}, {8, 0}, {109, 100}, {65535, 100}} {
		b := set(c.length)
		if p, r := one(decode.LinkRaw, b, len(b)); r != 0 || p.Len != c.want || p.IPLen != 128 {
			t.Errorf("length %d: %v %+v", c.length, r, p)
		}
	}
}

// TestData: payload of DNS ports and quotes of ICMP errors only.
func TestData(t *testing.T) {
	pay := payload(20)
	udp := func(src, dst layers.UDPPort) []byte { return build(t, v4(17), udpHeader(src, dst), pay) }
	tcp := func(src, dst layers.TCPPort) []byte {
		h := tcpHeader()
		h.SrcPort, h.DstPort = src, dst
		return build(t, v4(6), h, pay)
	}
	icmp := func(typ uint8) []byte {
		return build(t, v4(1), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 4), Id: 1, Seq: 1400}, pay)
	}
	icmp6 := func(typ uint8) []byte {
		return build(t, v6(58), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 4)}, cat2(raw(0, 0, 5, 0), pay))
	}
	for _, c := range []struct {
		name string
		data []byte
		want int
	}{
		{"query", udp(40000, 53), 20}, {"answer", udp(53, 40000), 20}, {"tcp query", tcp(40000, 53), 20}, {"tcp answer", tcp(53, 40000), 20},
		{"mdns", udp(5353, 5353), 0}, {"llmnr", udp(40000, 5355), 0}, {"http", tcp(40000, 80), 0}, {"extra", udp(40000, 1053), 20},
		{"cut", udp(40000, 53)[:38], 10}, {"cut before the payload", tcp(40000, 53)[:52], 0}, {"cut in the options", tcp(40000, 53)[:45], 0},
		{"echo", icmp(8), 0}, {"unreachable", icmp(3), 20}, {"quench", icmp(4), 20}, {"redirect", icmp(5), 20}, {"time exceeded", icmp(11), 20},
		{"parameter", icmp(12), 20}, {"too big", icmp6(2), 20}, {"echo 6", icmp6(128), 0}, {"unreachable 6", icmp6(1), 20},
	} {
		var p capture.Packet
		r := decode.New(1053).Decode(0, decode.LinkRaw, c.data, 500, &p)
		if r != 0 || string(p.Data) != string(pay[:c.want]) || c.want == 0 && p.Data != nil || p.Len != 20 {
			t.Errorf("%s: %v, length %d, %x", c.name, r, p.Len, p.Data)
		}
		if cap(p.Data) != len(p.Data) {
			t.Errorf("%s: Data leads on to what follows it", c.name)
		}
	}
	b := icmp(3)
	if p, _ := one(decode.LinkRaw, b, len(b)); p.ICMPType != 3 || p.ICMPCode != 4 || p.Proto != 1 || p.Seq != 1<<16|1400 || p.Src.Port != 0 {
		t.Errorf("%+v", p)
	}
	if p, r := one(decode.LinkRaw, b[:22], len(b)); r != 0 || p.ICMPType != 3 || p.ICMPCode != 4 {
		t.Errorf("cut after the code: %v %+v", r, p)
	}
}

// TestDNSShape: DNS messages over UDP on any port.
func TestDNSShape(t *testing.T) {
	q := dnsQuery("a.example", 1)
	with := func(change func([]byte) []byte) []byte { return change(append([]byte(nil), q...)) }
	for _, c := range []struct {
		name     string
		src, dst layers.UDPPort
		data     []byte
		want     bool
	}{
		{"query", 40000, 8600, q, true},
		{"answer", 8600, 40000, with(func(b []byte) []byte { b[2], b[3], b[7] = 0x81, 0x80, 1; return append(b, make([]byte, 16)...) }), true},
		{"NetBIOS", 137, 137, q, false},
		{"two questions", 40000, 8600, with(func(b []byte) []byte { b[5] = 2; return b }), false},
		{"an update", 40000, 8600, with(func(b []byte) []byte { b[2] |= 5 << 3; return b }), false},
		{"a query with a response code", 40000, 8600, with(func(b []byte) []byte { b[3] |= 3; return b }), false},
		{"another class", 40000, 8600, with(func(b []byte) []byte { b[len(b)-1] = 9; return b }), false},
		{"a longer query", 40000, 8600, with(func(b []byte) []byte { return append(b, 1, 2, 3) }), false},
		{"a name of control bytes", 40000, 8600, with(func(b []byte) []byte { b[13] = 7; return b }), false},
		{"cut within the question", 40000, 8600, q[:len(q)-3], false},
		{"the header alone", 40000, 8600, q[:12], false},
		{"no DNS", 40000, 8600, payload(60), false},
	} {
		var p capture.Packet
		b := build(t, v4(17), udpHeader(c.src, c.dst), gopacket.Payload(c.data))
		if r := decode.New().Decode(0, decode.LinkRaw, b, len(b), &p); r != 0 || (p.Data != nil) != c.want {
			t.Errorf("%s: %v, Data %x", c.name, r, p.Data)
		}
	}
}

func cat2(a, b gopacket.Payload) gopacket.Payload { return cat(a, b) }
