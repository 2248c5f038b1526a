package decode_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

// peer is gopacket's DecodingLayerParser, with every layer that it shares with us.
type peer struct {
	eth      layers.Ethernet
	vlan     layers.Dot1Q
	sll      layers.LinuxSLL
	loopback layers.Loopback
	ip4      layers.IPv4
	ip6      layers.IPv6
	skip     layers.IPv6ExtensionSkipper
	tcp      layers.TCP
	udp      layers.UDP
	payload  gopacket.Payload
	parsers  map[gopacket.LayerType]*gopacket.DecodingLayerParser
	decoded  []gopacket.LayerType
}

func newPeer() *peer {
	p := &peer{parsers: map[gopacket.LayerType]*gopacket.DecodingLayerParser{}}
	for _, first := range []gopacket.LayerType{layers.LayerTypeEthernet, layers.LayerTypeLinuxSLL,
		layers.LayerTypeLoopback, layers.LayerTypeIPv4, layers.LayerTypeIPv6} {
		d := gopacket.NewDecodingLayerParser(first, &p.eth, &p.vlan, &p.sll, &p.loopback, &p.ip4, &p.ip6,
			&p.skip, &p.tcp, &p.udp, &p.payload)
		d.IgnoreUnsupported = true
		p.parsers[first] = d
	}
	return p
}

// compare decodes with gopacket and says where got differs. known is false when gopacket
// has no opinion: tunnels, fragments, headers cut short, other link types.
func (p *peer) compare(link uint16, data []byte, got *capture.Packet, r capture.LossReason) (diff string, known bool) {
	first, ok := map[uint16]gopacket.LayerType{decode.LinkEthernet: layers.LayerTypeEthernet, decode.LinkLinuxSLL: layers.LayerTypeLinuxSLL,
		decode.LinkNull: layers.LayerTypeLoopback, decode.LinkIPv4: layers.LayerTypeIPv4, decode.LinkIPv6: layers.LayerTypeIPv6,
		decode.LinkRaw: layers.LayerTypeIPv4, decode.LinkRawBSD: layers.LayerTypeIPv4}[link]
	if ok && first == layers.LayerTypeIPv4 && len(data) > 0 && data[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	if r == capture.LossReassembling { // gopacket reads a header out of any IPv6 fragment
		return "", false
	}
	if !ok || p.parsers[first].DecodeLayers(data, &p.decoded) != nil {
		return "", false
	}
	var src, dst net.IP
	var rest int // bytes after the IP header by its length field
	has := func(t gopacket.LayerType) bool {
		for _, l := range p.decoded {
			if l == t {
				return true
			}
		}
		return false
	}
	want := capture.Packet{MACs: got.MACs, SrcMAC: got.SrcMAC, DstMAC: got.DstMAC, Dir: got.Dir, Data: got.Data}
	switch {
	case has(layers.LayerTypeIPv4) == has(layers.LayerTypeIPv6):
		return "", false
	case has(layers.LayerTypeIPv4):
		ip := &p.ip4
		if ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
			return "", false
		}
		src, dst, rest = ip.SrcIP, ip.DstIP, int(ip.Length)-int(ip.IHL)*4
		want.TTL, want.IPID, want.IPLen = ip.TTL, ip.Id, uint32(ip.Length)
	default:
		ip := &p.ip6
		if has(layers.LayerTypeIPv6Fragment) || ip.Length == 0 {
			return "", false
		}
		src, dst, rest = ip.SrcIP, ip.DstIP, int(ip.Length)
		want.TTL, want.IPv6, want.IPLen = ip.HopLimit, true, 40+uint32(ip.Length)
		if ip.NextHeader != layers.IPProtocolTCP && ip.NextHeader != layers.IPProtocolUDP {
			rest = len(p.tcp.Contents) + len(p.tcp.Payload) // the walk over extension headers is its own business
			if has(layers.LayerTypeUDP) {
				rest = 8 + len(p.udp.Payload)
			}
		}
	}
	want.Src.Addr, want.Dst.Addr = addr(src), addr(dst)
	switch {
	case has(layers.LayerTypeTCP):
		p.want(&want, rest)
	case has(layers.LayerTypeUDP):
		want.Proto, want.Src.Port, want.Dst.Port = capture.ProtoUDP, uint16(p.udp.SrcPort), uint16(p.udp.DstPort)
		want.Len = uint32(min(int(p.udp.Length), rest) - 8)
		if p.udp.Length < 8 {
			want.Len = uint32(rest - 8)
		}
		if got.Src != want.Src || got.Dst != want.Dst {
			return "", false // a tunnel
		}
	default:
		return "", false
	}
	if r != capture.LossNone {
		return fmt.Sprintf("%v; gopacket has %+v", r, want), true
	}
	want.Data, want.Frame = nil, got.Frame
	cmp := *got
	cmp.Data, cmp.Hash, cmp.Ident = nil, 0, 0 // the hashes follow from the rest
	if a, b := fmt.Sprintf("%+v", cmp), fmt.Sprintf("%+v", want); a != b {
		return "\n got " + a + "\nwant " + b, true
	}
	return "", true
}

// want fills in what gopacket read of the TCP header.
func (p *peer) want(w *capture.Packet, rest int) {
	t := &p.tcp
	w.Proto, w.Src.Port, w.Dst.Port = capture.ProtoTCP, uint16(t.SrcPort), uint16(t.DstPort)
	w.Seq, w.Ack, w.Window = t.Seq, t.Ack, t.Window
	w.Len = uint32(rest - int(t.DataOffset)*4)
	for i, f := range []bool{t.FIN, t.SYN, t.RST, t.PSH, t.ACK, t.URG, t.ECE, t.CWR} {
		if f {
			w.Flags |= 1 << i
		}
	}
	for _, o := range t.Options {
		b := o.OptionData
		switch o.OptionType {
		case layers.TCPOptionKindMSS:
			if len(b) == 2 {
				w.MSS = binary.BigEndian.Uint16(b)
				w.Opts |= capture.OptMSS
			}
		case layers.TCPOptionKindWindowScale:
			if len(b) == 1 {
				w.WScale = b[0]
				w.Opts |= capture.OptWScale
			}
		case layers.TCPOptionKindSACKPermitted:
			if len(b) == 0 {
				w.Opts |= capture.OptSACKPermitted
			}
		case layers.TCPOptionKindTimestamps:
			if len(b) == 8 {
				w.TSVal, w.TSEcr = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
				w.Opts |= capture.OptTimestamps
			}
		case layers.TCPOptionKindSACK:
			if len(b) == 0 || len(b)%8 != 0 {
				break
			}
			w.Opts |= capture.OptSACK
			w.SACKs = 0
			for ; len(b) >= 8 && w.SACKs < 4; b = b[8:] {
				w.SACK[w.SACKs] = [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
				w.SACKs++
			}
		case 30:
			w.Opts |= capture.OptMPTCP
		}
	}
}

// randomTCP builds a segment with random fields and options.
func randomTCP(rng *rand.Rand) *layers.TCP {
	bit := func() bool { return rng.IntN(2) == 0 }
	t := &layers.TCP{SrcPort: layers.TCPPort(rng.Uint32()), DstPort: layers.TCPPort(rng.Uint32()), Seq: rng.Uint32(), Ack: rng.Uint32(),
		Window: uint16(rng.Uint32()), FIN: bit(), SYN: bit(), RST: bit(), PSH: bit(), ACK: bit(), URG: bit(), ECE: bit(), CWR: bit()}
	room := 40
	for range rng.IntN(6) {
		o := layers.TCPOption{OptionType: layers.TCPOptionKind([]byte{1, 2, 3, 4, 5, 8, 30, 34, 254}[rng.IntN(9)])}
		n := map[layers.TCPOptionKind]int{1: 0, 2: 2, 3: 1, 4: 0, 5: 8 * (1 + rng.IntN(4)), 8: 8}[o.OptionType]
		if o.OptionType >= 30 {
			n = rng.IntN(10)
		}
		for range n {
			o.OptionData = append(o.OptionData, byte(rng.Uint32()))
		}
		o.OptionLength = uint8(2 + n)
		if o.OptionType == 1 {
			o.OptionLength = 1
		}
		if room -= int(o.OptionLength); room < 0 {
			break
		}
		t.Options = append(t.Options, o)
	}
	return t
}

// TestGopacketRandom compares with gopacket on random packets.
func TestGopacketRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	d, p := decode.New(), newPeer()
	for range 20000 {
		var ls []gopacket.SerializableLayer
		version := []layers.EthernetType{layers.EthernetTypeIPv4, layers.EthernetTypeIPv6}[rng.IntN(2)]
		if rng.IntN(3) == 0 {
			ls = append(ls, eth(layers.EthernetTypeDot1Q), vlan(uint16(rng.IntN(4096)), version))
		} else {
			ls = append(ls, eth(version))
		}
		proto := []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP}[rng.IntN(2)]
		if version == layers.EthernetTypeIPv4 {
			ip := v4(proto)
			ip.Id, ip.TTL, ip.TOS = uint16(rng.Uint32()), uint8(rng.Uint32()), uint8(rng.Uint32())
			ip.SrcIP = binary.BigEndian.AppendUint32(nil, rng.Uint32())
			ls = append(ls, ip)
		} else {
			ip := v6(proto)
			ip.HopLimit, ip.FlowLabel = uint8(rng.Uint32()), rng.Uint32()&0xfffff
			ls = append(ls, ip)
		}
		if proto == layers.IPProtocolTCP {
			ls = append(ls, randomTCP(rng))
		} else {
			ls = append(ls, udpHeader(layers.UDPPort(rng.Uint32()), layers.UDPPort(20000+rng.IntN(1000))))
		}
		data := build(t, append(ls, payload(rng.IntN(1400)))...)
		data = append(data, make([]byte, rng.IntN(8))...) // padding
		var got capture.Packet
		r := d.Decode(0, decode.LinkEthernet, data, len(data), &got)
		if diff, known := p.compare(decode.LinkEthernet, data, &got, r); diff != "" || !known {
			t.Fatalf("%x: known %v, %s", data, known, diff)
		}
	}
}

// both is a decoder for pcapfile that compares every packet with gopacket's.
type both struct {
	*decode.Decoder
	peer        *peer
	report      func(string)
	same, other int
}

func (b *both) Decode(at capture.Instant, link uint16, data []byte, wire int, p *capture.Packet) capture.LossReason {
	r := b.Decoder.Decode(at, link, data, wire, p)
	diff, known := b.peer.compare(link, data, p, r)
	switch {
	case !known:
		b.other++
	case diff == "":
		b.same++
	default:
		b.report(diff)
	}
	return r
}

// TestCorpusGopacket compares every packet of the corpus with gopacket's, where it can
// read the packet.
func TestCorpusGopacket(t *testing.T) {
	dir, paths := corpusFiles(t)
	b := &both{peer: newPeer()}
	differences := 0
	for _, path := range paths {
		b.Decoder = decode.New()
		b.report = func(s string) {
			if differences++; differences <= 10 {
				t.Errorf("%s: %s", path, s)
			}
		}
		readFile(t, filepath.Join(dir, "captures", path), b, func(*capture.Observation) {})
	}
	t.Logf("%d packets equal, %d different, %d of which gopacket has no opinion", b.same, differences, b.other)
}
