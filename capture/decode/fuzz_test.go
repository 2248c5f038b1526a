package decode_test

import (
	"testing"

	"jindan/capture"
	"jindan/capture/decode"
)

// FuzzDecode feeds one decoder several packets made of the input, so that fragments meet,
// and checks what every Packet promises.
func FuzzDecode(f *testing.F) {
	for _, w := range append(append(links(f), ethers(f)...), tunnels(f)...) {
		f.Add(w.link, w.data, uint16(0), uint8(0))
	}
	for _, s := range samples(f) {
		f.Add(s.link, s.data, uint16(9), uint8(3))
	}
	for _, b := range append(fragments4(f, udpBytes(3000), 1480, 9), fragments6(f, 17, udpBytes(100), 40, 9)...) {
		f.Add(uint16(decode.LinkRaw), b, uint16(0), uint8(1))
	}
	d := decode.New()
	f.Fuzz(func(t *testing.T, link uint16, data []byte, more uint16, cut uint8) {
		before := string(data)
		var p capture.Packet
		p.Data = []byte("stale")
		for i := range 3 {
			b := data[:max(0, len(data)-i*int(cut))]
			switch r := d.Decode(capture.Instant(i), link, b, len(data)+int(more), &p); r {
			case capture.LossNone:
				checkPacket(t, &p)
			case capture.LossKernelDrop, capture.LossFileCut, capture.LossFileDamaged, capture.LossReasonCount:
				t.Fatalf("result %v", r)
			default: // a reason of the packet's own
			}
		}
		if string(data) != before {
			t.Fatal("the input was changed")
		}
	})
}

func checkPacket(t *testing.T, p *capture.Packet) {
	switch p.Proto {
	case capture.ProtoTCP:
		if p.Hash != capture.FlowHash(&p.Dst, &p.Src) || p.Ident != p.Identity() {
			t.Fatal("the hashes are not those of the packet")
		}
		if p.IPLen < 40 || p.Len > p.IPLen-40 {
			t.Fatalf("lengths: %+v", p)
		}
	case capture.ProtoUDP:
		if p.IPLen < 28 || p.Len > p.IPLen-28 {
			t.Fatalf("lengths: %+v", p)
		}
	case capture.ProtoICMP, capture.ProtoICMPv6:
		if p.Src.Port != 0 || p.Dst.Port != 0 || p.Flags != 0 {
			t.Fatalf("not of ICMP: %+v", p)
		}
	default:
		t.Fatalf("protocol %d", p.Proto)
	}
	if p.Proto != capture.ProtoTCP && (p.Opts|p.SACKs != 0 || p.Window != 0) {
		t.Fatalf("not of TCP: %+v", p)
	}
	if uint32(len(p.Data)) > p.Len || p.SACKs > 4 || p.Frame != 0 {
		t.Fatalf("%+v", p)
	}
	if !p.IPv6 && !(p.Src.Addr.Netip().Is4() && p.Dst.Addr.Netip().Is4()) { // an IPv6 packet may have mapped addresses
		t.Fatalf("addresses: %+v", p)
	}
}
