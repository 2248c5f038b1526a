package decode_test

import (
	"encoding/binary"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
)

// Addresses of the tests, from the documentation ranges (RFC 5737, RFC 3849).
var (
	mac1 = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	mac2 = net.HardwareAddr{0x02, 0, 0, 0, 0, 2}
	ip41 = net.IP{192, 0, 2, 1}
	ip42 = net.IP{198, 51, 100, 2}
	ip61 = net.ParseIP("2001:db8::1")
	ip62 = net.ParseIP("2001:db8::2")
)

// build serializes layers with lengths and checksums.
func build(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range ls {
		switch l := l.(type) {
		case gopacket.NetworkLayer:
			network = l
		case *layers.TCP:
			l.SetNetworkLayerForChecksum(network)
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(network)
		case *layers.ICMPv6:
			l.SetNetworkLayerForChecksum(network)
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), b.Bytes()...)
}

func eth(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: mac1, DstMAC: mac2, EthernetType: t}
}

func vlan(id uint16, t layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: id, Type: t}
}

func v4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 61, Id: 0x1234, Protocol: p, SrcIP: ip41, DstIP: ip42}
}

func v6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 62, NextHeader: p, SrcIP: ip61, DstIP: ip62}
}

func tcpHeader() *layers.TCP {
	return &layers.TCP{SrcPort: 40000, DstPort: 8080, Seq: 1000, Ack: 2000, ACK: true, PSH: true, Window: 501,
		Options: []layers.TCPOption{nop, nop, timestamps(7, 8)}}
}

var nop = layers.TCPOption{OptionType: layers.TCPOptionKindNop, OptionLength: 1}

func timestamps(val, ecr uint32) layers.TCPOption {
	b := binary.BigEndian.AppendUint32(nil, val)
	return layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10,
		OptionData: binary.BigEndian.AppendUint32(b, ecr)}
}

func udpHeader(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

func payload(n int) gopacket.Payload {
	b := make(gopacket.Payload, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// raw is a header that gopacket cannot write.
func raw(b ...byte) gopacket.Payload { return b }

func addr(ip net.IP) (a capture.Addr) {
	copy(a[:], ip.To16())
	return a
}

// innerTCP is the TCP packet that most tests wrap: 4 payload bytes.
func innerTCP(t testing.TB) []byte {
	return build(t, v4(layers.IPProtocolTCP), tcpHeader(), payload(4))
}

// wantInner is what innerTCP decodes to, without MACs and Dir.
func wantInner() capture.Packet {
	return capture.Packet{
		Src: capture.Endpoint{Addr: addr(ip41), Port: 40000}, Dst: capture.Endpoint{Addr: addr(ip42), Port: 8080},
		Seq: 1000, Ack: 2000, TSVal: 7, TSEcr: 8, Len: 4, IPLen: 56, Window: 501, IPID: 0x1234,
		Proto: capture.ProtoTCP, Flags: capture.ACK | capture.PSH, TTL: 61, Opts: capture.OptTimestamps,
	}
}

// equal compares packets, Data by content.
func equal(t testing.TB, name string, got, want *capture.Packet) {
	t.Helper()
	a, b := *got, *want
	a.Data, b.Data = nil, nil
	a.Hash, b.Hash, a.Ident, b.Ident = 0, 0, 0, 0 // follow from the rest; FuzzDecode checks them
	if !reflect.DeepEqual(a, b) || string(got.Data) != string(want.Data) {
		t.Errorf("%s:\n got %+v\nwant %+v", name, *got, *want)
	}
}

// dnsQuery is a query message for name and type (RFC 1035 §4.1).
func dnsQuery(name string, qtype uint16) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, byte(qtype>>8), byte(qtype), 0, 1)
}
