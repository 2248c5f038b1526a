package decode_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

func cat(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// le32 and be16b spell numbers in headers that are written by hand.
func le32(v uint32) []byte  { return binary.LittleEndian.AppendUint32(nil, v) }
func be16b(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

type wrapped struct {
	name string
	link uint16
	data []byte
	dir  capture.Direction
	macs bool // there are link-layer addresses
}

// ethTCP is innerTCP in an Ethernet frame.
func ethTCP(t testing.TB) []byte {
	return build(t, eth(layers.EthernetTypeIPv4), gopacket.Payload(innerTCP(t)))
}

// dot11 builds an IEEE 802.11 data frame header and LLC.
func dot11(fc0, fc1 byte, more ...byte) []byte {
	return cat([]byte{fc0, fc1, 0, 0}, mac2, mac1, mac1, []byte{0x10, 0}, more, []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0})
}

func links(t testing.TB) []wrapped {
	ip := innerTCP(t)
	e := ethTCP(t)
	family := func(v uint32) []byte { return cat(le32(v), ip) }
	sll := func(typ byte) []byte {
		return cat([]byte{0, typ, 0, 1, 0, 6}, mac1, []byte{0, 0, 8, 0}, ip)
	}
	sll2 := func(typ byte) []byte {
		return cat([]byte{8, 0, 0, 0, 0, 0, 0, 3, 0, 1, typ, 6}, mac1, []byte{0, 0}, ip)
	}
	wifi := cat(dot11(0x08, 0x02), ip)
	radiotap := []byte{0, 0, 9, 0, 2, 0, 0, 0, 0x00}
	padded := []byte{0, 0, 9, 0, 2, 0, 0, 0, 0x20}
	prism := make([]byte, 144)
	prism[0], prism[4] = 0x44, 144
	avs := make([]byte, 64)
	copy(avs, []byte{0x80, 0x21, 0x10, 0x01, 0, 0, 0, 64})
	pflog := make([]byte, 64)
	pflog[0], pflog[1], pflog[60] = 61, 2, 2
	pktap := make([]byte, 108)
	copy(pktap, cat(le32(108), le32(1), le32(decode.LinkEthernet)))
	pktap[36] = 1
	tlv := func(typ uint16, b []byte) []byte {
		h := binary.LittleEndian.AppendUint16(nil, uint16(4+len(b)))
		return cat(binary.LittleEndian.AppendUint16(h, typ), b, make([]byte, -len(b)&3))
	}
	const in, out, other = capture.DirInbound, capture.DirOutbound, capture.DirOther
	return []wrapped{
		{"ethernet", decode.LinkEthernet, e, 0, true},
		{"raw", decode.LinkRaw, ip, 0, false},
		{"raw 12", decode.LinkRawBSD, ip, 0, false},
		{"raw 14", decode.LinkRawOBSD, ip, 0, false},
		{"ipv4", decode.LinkIPv4, ip, 0, false},
		{"null little-endian", decode.LinkNull, family(2), 0, false},
		{"null big-endian", decode.LinkNull, family(2 << 24), 0, false},
		{"loop", decode.LinkLoop, family(2 << 24), 0, false},
		{"sll in", decode.LinkLinuxSLL, sll(0), in, true},
		{"sll multicast", decode.LinkLinuxSLL, sll(2), other, true},
		{"sll out", decode.LinkLinuxSLL, sll(4), out, true},
		{"sll2 in", decode.LinkLinuxSLL2, sll2(0), in, true},
		{"sll2 out", decode.LinkLinuxSLL2, sll2(4), out, true},
		{"sll llc", decode.LinkLinuxSLL, cat([]byte{0, 0, 0, 1, 0, 6}, mac1, []byte{0, 0, 0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip), in, true},
		{"ppp", decode.LinkPPP, cat([]byte{0xff, 3, 0, 0x21}, ip), 0, false},
		{"ppp bare", decode.LinkPPP, cat([]byte{0, 0x21}, ip), 0, false},
		{"ppp short", decode.LinkPPP, cat([]byte{0x21}, ip), 0, false},
		{"ppp serial", decode.LinkPPPSerial, cat([]byte{0xff, 3, 0, 0x21}, ip), 0, false},
		{"ppp serial hdlc", decode.LinkPPPSerial, cat([]byte{0x0f, 0, 8, 0}, ip), 0, false},
		{"ppp bridge", decode.LinkPPP, cat([]byte{0, 0x31, 0, 1}, e), 0, false},
		{"ppp mpls", decode.LinkPPP, cat([]byte{2, 0x81, 0, 1, 1, 64}, ip), 0, false},
		{"hdlc", decode.LinkCiscoHDLC, cat([]byte{0x0f, 0, 8, 0}, ip), 0, false},
		{"hdlc direction", decode.LinkHDLCDir, cat([]byte{0, 0x0f, 0, 8, 0}, ip), in, false},
		{"frame relay", decode.LinkFrameRelay, cat([]byte{0x18, 0x41, 3, 0xcc}, ip), 0, false},
		{"frame relay padded", decode.LinkFrameRelay, cat([]byte{0x18, 0x41, 3, 0, 0xcc}, ip), 0, false},
		{"frame relay snap", decode.LinkFrameRelay, cat([]byte{0x18, 0x40, 0x10, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0}, ip), 0, false},
		{"frame relay cisco", decode.LinkFrameRelay, cat([]byte{0x18, 0x41, 8, 0}, ip), 0, false},
		{"frame relay direction", decode.LinkFrameRelayDir, cat([]byte{1, 0x18, 0x41, 3, 0xcc}, ip), out, false},
		{"dsa", decode.LinkDSA, cat(e[:12], []byte{0xc0, 1, 2, 3}, e[12:]), 0, true},
		{"dsa broadcom", decode.LinkDSABroadcom, cat(e[:12], []byte{0, 0, 0, 1}, e[12:]), 0, true},
		{"dsa prepended", decode.LinkDSAPrepend, cat([]byte{0, 0, 0, 1}, e), 0, true},
		{"edsa", decode.LinkEDSA, cat(e[:12], []byte{0xda, 0xda, 0, 0, 0xc0, 1, 2, 3}, e[12:]), 0, true},
		{"ppp direction", decode.LinkPPPDir, cat([]byte{1, 0xff, 3, 0, 0x21}, ip), out, false},
		{"pppoe", decode.LinkPPPoE, cat([]byte{0x11, 0, 0, 9}, be16b(uint16(2+len(ip))), []byte{0, 0x21}, ip), 0, false},
		{"atm", decode.LinkATM, cat([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip), 0, false},
		{"mpls", decode.LinkMPLS, cat([]byte{0, 1, 0, 64, 0, 2, 1, 64}, ip), 0, false},
		{"802.11", decode.LinkIEEE80211, wifi, 0, true},
		{"802.11 check sequence", decode.LinkIEEE80211, cat(wifi, []byte{1, 2, 3, 4}), 0, true},
		{"802.11 qos", decode.LinkIEEE80211, cat(dot11(0x88, 0x01, 0, 0), ip), 0, true},
		{"802.11 wds", decode.LinkIEEE80211, cat(dot11(0x08, 0x03, mac1...), ip), 0, true},
		{"radiotap", decode.LinkRadioTap, cat(radiotap, wifi), 0, true},
		{"radiotap padded", decode.LinkRadioTap, cat(padded, dot11(0x88, 0x01, 0, 0, 0xee, 0xee), ip), 0, true},
		{"prism", decode.LinkPrism, cat(prism, wifi), 0, true},
		{"prism avs", decode.LinkPrism, cat(avs, wifi), 0, true},
		{"avs", decode.LinkAVS, cat(avs, wifi), 0, true},
		{"pflog", decode.LinkPFLog, cat(pflog, ip), out, false},
		{"ppi", decode.LinkPPI, cat([]byte{0, 0, 8, 0}, le32(decode.LinkEthernet), e), 0, true},
		{"ppi 802.11", decode.LinkPPI, cat([]byte{0, 0, 12, 0}, le32(decode.LinkIEEE80211), le32(0), wifi), 0, true},
		{"pktap", decode.LinkPKTAP, cat(pktap, e), in, true},
		{"nflog", decode.LinkNFLog, cat([]byte{2, 0, 0, 0}, tlv(10, []byte("in\x00")), tlv(9, ip)), 0, false},
	}
}

// ethers wraps innerTCP in what Ethernet carries.
func ethers(t testing.TB) []wrapped {
	ip := innerTCP(t)
	e := ethTCP(t)
	frame := func(typ layers.EthernetType, b ...[]byte) []byte {
		return build(t, eth(typ), gopacket.Payload(cat(b...)))
	}
	cases := map[string][]byte{
		"vlan":       frame(0x8100, []byte{0, 7, 8, 0}, ip),
		"qinq":       frame(0x88a8, []byte{0, 7, 0x81, 0, 0, 9, 8, 0}, ip),
		"qinq 9100":  frame(0x9100, []byte{0, 7, 0x81, 0, 0, 9, 8, 0}, ip),
		"qinq 9200":  frame(0x9200, []byte{0, 7, 0x81, 0, 0, 9, 8, 0}, ip),
		"mpls":       frame(0x8847, []byte{0, 1, 0, 64, 0, 2, 1, 64}, ip),
		"mpls ether": frame(0x8847, []byte{0, 1, 1, 64}, e),
		"mpls word":  frame(0x8847, []byte{0, 1, 1, 64, 0, 0, 0, 0}, e),
		"pppoe":      frame(0x8864, []byte{0x11, 0, 0, 9}, be16b(uint16(2+len(ip))), []byte{0, 0x21}, ip),
		"fabricpath": frame(0x8903, []byte{0x40, 0x20}, e),
		"vn-tag":     frame(0x8926, []byte{0, 0, 0, 0, 8, 0}, ip),
		"e-tag":      frame(0x893f, []byte{0, 0, 0, 0, 0, 0, 8, 0}, ip),
		"cisco meta": frame(0x8909, []byte{1, 1, 0, 1, 0, 0, 8, 0}, ip),
		"pbb":        frame(0x88e7, []byte{0, 0, 0, 1}, e),
		"nsh":        frame(0x894f, []byte{0, 2, 2, 1, 0, 0, 0, 1}, ip),
		"nsh ether":  frame(0x894f, []byte{0, 2, 2, 3, 0, 0, 0, 1}, e),
		"bridge":     frame(0x6558, e),
		"llc snap":   frame(layers.EthernetTypeLLC, []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip),
		"llc 802.1h": frame(layers.EthernetTypeLLC, []byte{0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0}, ip),
		"llc ip":     frame(layers.EthernetTypeLLC, []byte{6, 6, 3}, ip),
		"padding":    cat(e, make([]byte, 10)),
	}
	var ws []wrapped
	for name, b := range cases {
		if be := binary.BigEndian.Uint16(b[12:]); be == 0 { // gopacket leaves the length to the writer
			binary.BigEndian.PutUint16(b[12:], uint16(len(b)-14))
		}
		ws = append(ws, wrapped{"ether " + name, decode.LinkEthernet, b, 0, true})
	}
	return ws
}

// TestLinks decodes one TCP segment in every wrapping, whole and cut after the fixed TCP
// header, and expects the same packet.
func TestLinks(t *testing.T) {
	d := decode.New()
	for _, w := range append(append(links(t), ethers(t)...), tunnels(t)...) {
		for _, cut := range []bool{false, true} {
			data := w.data
			want := wantInner()
			if cut { // 12 bytes of options and the payload go, and all padding
				end := len(w.data)
				for end > 0 && string(data[end-4:end]) != string([]byte{0, 1, 2, 3}) {
					end--
				}
				data = data[:end-16]
				want.Opts, want.TSVal, want.TSEcr = capture.OptCut, 0, 0
			}
			want.Dir = w.dir
			p := capture.Packet{Frame: 77, Data: []byte("stale"), SACKs: 3, MSS: 9}
			if r := d.Decode(0, w.link, data, len(w.data), &p); r != capture.LossNone {
				t.Errorf("%s (cut %v): %v", w.name, cut, r)
				continue
			}
			if (p.MACs != 0) != w.macs {
				t.Errorf("%s: MACs %08x", w.name, p.MACs)
			}
			p.MACs, p.SrcMAC, p.DstMAC = 0, 0, 0
			equal(t, w.name, &p, &want)
		}
	}
}

// TestLinkPrefixes cuts every wrapping at every byte: no panic, and a reason.
func TestLinkPrefixes(t *testing.T) {
	d := decode.New()
	var p capture.Packet
	for _, w := range append(append(links(t), ethers(t)...), tunnels(t)...) {
		for i := range w.data {
			d.Decode(0, w.link, w.data[:i], len(w.data), &p)
			d.Decode(0, w.link, w.data[:i:i], i, &p)
		}
	}
}

func TestLoopbackIPv6(t *testing.T) {
	ip := build(t, v6(layers.IPProtocolTCP), tcpHeader())
	d := decode.New()
	var p capture.Packet
	for _, family := range []uint32{10, 24, 28, 30, 24 << 24, 30 << 24} {
		if r := d.Decode(0, decode.LinkNull, cat(le32(family), ip), 4+len(ip), &p); r != capture.LossNone || !p.IPv6 {
			t.Errorf("family %#x: %v", family, r)
		}
	}
	if r := d.Decode(0, decode.LinkNull, cat(le32(7), ip), 4+len(ip), &p); r != capture.LossNotIP {
		t.Errorf("family 7: %v", r)
	}
}

// TestMACs: the same addresses give the same hash; a change of either, or of the
// interface, another; none give 0.
func TestMACs(t *testing.T) {
	d := decode.New()
	hash := func(link uint16, b []byte) uint32 {
		var p capture.Packet
		d.Decode(0, link, b, len(b), &p)
		return p.MACs
	}
	e := ethTCP(t)
	seen := map[uint32]int{}
	for i := range 12 {
		for bit := range 8 {
			b := append([]byte(nil), e...)
			b[i] ^= 1 << bit
			seen[hash(decode.LinkEthernet, b)]++
		}
	}
	seen[hash(decode.LinkEthernet, e)]++
	if len(seen) != 97 || seen[0] != 0 {
		t.Errorf("%d different hashes of 97", len(seen))
	}
	s := cat([]byte{8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6}, mac1, []byte{0, 0}, innerTCP(t))
	one := hash(decode.LinkLinuxSLL2, s)
	s[7] = 4
	if two := hash(decode.LinkLinuxSLL2, s); one == two {
		t.Error("interface does not count")
	}
	if h := hash(decode.LinkEthernet, cat(make([]byte, 12), e[12:])); h != 0 {
		t.Errorf("loopback device: %08x", h)
	}
}
