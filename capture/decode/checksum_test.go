package decode

import (
	"encoding/binary"
	"testing"

	"jindan/capture"
)

// TestSum adds words the plain way.
func TestSum(t *testing.T) {
	b := make([]byte, 1500)
	for i := range b {
		b[i] = byte(i*i*7 + i>>3)
	}
	for n := range b {
		var want uint32
		for i := 0; i < n; i += 2 {
			w := uint32(b[i]) << 8
			if i+1 < n {
				w |= uint32(b[i+1])
			}
			want += w
		}
		for want > 0xffff {
			want = want>>16 + want&0xffff
		}
		got := fold(add(b[:n], 0))
		if be := got>>8 | got<<8; uint32(be) != want && (uint32(be)+want)%0xffff != 0 {
			t.Fatalf("%d bytes: %#x, want %#x", n, be, want)
		}
	}
}

// TestDamaged: a checksum is wrong only if the packet is whole and a card was not still to compute it.
func TestDamaged(t *testing.T) {
	p := capture.Packet{Src: capture.Endpoint{Addr: capture.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 1}}, Dst: capture.Endpoint{Addr: capture.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 2}}}
	pseudo := func(n int) uint32 { return 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + uint32(n) }
	segment := func(n int, sum uint16) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 5)
		}
		binary.BigEndian.PutUint16(b[tcpSum:], sum)
		return b
	}
	good := func(n int) uint16 {
		b := segment(n, 0)
		s := pseudo(n)
		for i := 0; i < n; i += 2 {
			w := uint32(b[i]) << 8
			if i+1 < n {
				w |= uint32(b[i+1])
			}
			s += w
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return ^uint16(s)
	}
	for _, c := range []struct {
		name string
		n    int
		sum  uint16
		cut  int
		want bool
	}{
		{name: "right", n: 1001, sum: good(1001)},
		{name: "wrong", n: 1001, sum: good(1001) + 1, want: true},
		{name: "a card is to complete it", n: 1001, sum: uint16(pseudo(1001))},
		{name: "a card is to complete it, of several", n: 1001, sum: uint16(pseudo(0))},
		{name: "none", n: 1001},
		{name: "cut", n: 1001, sum: good(1001) + 1, cut: 1},
		{name: "several merged", n: maxVerified + 1, sum: good(maxVerified+1) + 1},
	} {
		b := segment(c.n, c.sum)
		if got := damaged(b[:c.n-c.cut], c.n, tcpSum, &p, capture.ProtoTCP); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func BenchmarkDamaged(b *testing.B) {
	var p capture.Packet
	seg := make([]byte, 1480)
	seg[tcpSum] = 1
	for b.Loop() {
		damaged(seg, len(seg), tcpSum, &p, capture.ProtoTCP)
	}
}
