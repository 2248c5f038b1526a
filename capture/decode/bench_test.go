package decode_test

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

// samples are packets for benchmarks and the allocation test, by name.
func samples(t testing.TB) []sample {
	dns := dnsQuery("www.example.com", 1)
	tcp := innerTCP(t)
	sll := append([]byte{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0}, tcp...)
	sll2 := append([]byte{8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0}, tcp...)
	syn := tcpHeader()
	syn.SYN, syn.ACK, syn.PSH = true, false, false
	syn.Options = []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}},
		{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2}, timestamps(1, 0), nop,
		{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}}}
	hbh := raw(capture.ProtoTCP, 0, 5, 2, 0, 0, 1, 0) // router alert (RFC 2711), PadN
	inner := gopacket.Payload(build(t, eth(layers.EthernetTypeIPv4), gopacket.Payload(tcp)))
	return []sample{
		{"eth-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv4), gopacket.Payload(tcp))},
		{"eth-ip4-tcp-syn", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv4), v4(layers.IPProtocolTCP), syn)},
		{"eth-vlan-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeDot1Q), vlan(7, layers.EthernetTypeIPv4), gopacket.Payload(tcp))},
		{"eth-ip6-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv6), v6(layers.IPProtocolTCP), tcpHeader(), payload(4))},
		{"eth-ip6-hbh-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv6), v6(layers.IPProtocolIPv6HopByHop), hbh, tcpHeader(), payload(4))},
		{"eth-ip4-udp-dns", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv4), v4(layers.IPProtocolUDP), udpHeader(40000, 53), gopacket.Payload(dns))},
		{"sll-ip4-tcp", decode.LinkLinuxSLL, sll},
		{"sll2-ip4-tcp", decode.LinkLinuxSLL2, sll2},
		{"raw-ip4-tcp", decode.LinkRaw, tcp},
		{"eth-ip4-gre-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv4), v4(layers.IPProtocolGRE), &layers.GRE{Protocol: layers.EthernetTypeIPv4}, gopacket.Payload(tcp))},
		{"eth-ip4-vxlan-eth-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeIPv4), v4(layers.IPProtocolUDP), udpHeader(50000, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: 5}, inner)},
		{"eth-mpls-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 16, StackBottom: true, TTL: 9}, gopacket.Payload(tcp))},
		{"eth-llc-snap-ip4-tcp", decode.LinkEthernet, build(t, eth(layers.EthernetTypeLLC), raw(0xaa, 0xaa, 3, 0, 0, 0, 8, 0), gopacket.Payload(tcp))},
	}
}

type sample struct {
	name string
	link uint16
	data []byte
}

// TestAllocs holds the package to its promise, for every kind of packet that is not
// IEEE 802.11.
func TestAllocs(t *testing.T) {
	d := decode.New()
	var p capture.Packet
	for _, s := range samples(t) {
		if r := d.Decode(0, s.link, s.data, len(s.data), &p); r != capture.LossNone {
			t.Errorf("%s: %v", s.name, r)
		}
		if n := testing.AllocsPerRun(100, func() { d.Decode(0, s.link, s.data, len(s.data), &p) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
		cut := s.data[:len(s.data)-30]
		if n := testing.AllocsPerRun(100, func() { d.Decode(0, s.link, cut, len(s.data), &p) }); n != 0 {
			t.Errorf("%s, cut: %v allocations", s.name, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, s := range samples(b) {
		b.Run(s.name, func(b *testing.B) {
			d := decode.New()
			var p capture.Packet
			b.ReportAllocs()
			for b.Loop() {
				d.Decode(0, s.link, s.data, len(s.data), &p)
			}
		})
	}
}

// BenchmarkGopacket decodes the first of the samples with gopacket.
func BenchmarkGopacket(b *testing.B) {
	data := samples(b)[0].data
	b.Run("DecodingLayerParser", func(b *testing.B) {
		var e layers.Ethernet
		var i4 layers.IPv4
		var tcp layers.TCP
		var pay gopacket.Payload
		parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet)
		parser.SetDecodingLayerContainer(gopacket.DecodingLayerArray(nil))
		for _, l := range []gopacket.DecodingLayer{&e, &i4, &tcp, &pay} {
			parser.AddDecodingLayer(l)
		}
		decoded := make([]gopacket.LayerType, 0, 8)
		b.ReportAllocs()
		for b.Loop() {
			if err := parser.DecodeLayers(data, &decoded); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("NewPacket-lazy-nocopy", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
			if p.TransportLayer() == nil {
				b.Fatal("no transport layer")
			}
		}
	})
}

func BenchmarkFragments(b *testing.B) {
	frags := fragments4(b, build(b, gopacket.Payload(append([]byte{0, 53, 156, 64, 11, 192, 0, 0}, payload(3000)...))), 1480, 9)
	d := decode.New()
	var p capture.Packet
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range frags {
			d.Decode(0, decode.LinkRaw, f, len(f), &p)
		}
		d.Recycle()
	}
}
