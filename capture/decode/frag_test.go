package decode_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

// fragments4 cuts a transport payload into IPv4 packets of size bytes of payload.
func fragments4(t testing.TB, data []byte, size int, id uint16) (packets [][]byte) {
	for off := 0; off < len(data); off += size {
		ip := v4(layers.IPProtocolUDP)
		ip.Id, ip.FragOffset = id, uint16(off/8)
		end := min(off+size, len(data))
		if end < len(data) {
			ip.Flags = layers.IPv4MoreFragments
		}
		packets = append(packets, build(t, ip, gopacket.Payload(data[off:end])))
	}
	return packets
}

// fragments6 does the same for IPv6, with a hop-by-hop header before the fragment header.
func fragments6(t testing.TB, next byte, data []byte, size int, id uint32) (packets [][]byte) {
	for off := 0; off < len(data); off += size {
		end := min(off+size, len(data))
		ff := uint16(off)
		if end < len(data) {
			ff |= 1
		}
		packets = append(packets, build(t, v6(0), raw(44, 0, 5, 2, 0, 0, 1, 0),
			gopacket.Payload(cat([]byte{next, 0}, be16b(ff), binary.BigEndian.AppendUint32(nil, id))), gopacket.Payload(data[off:end])))
	}
	return packets
}

// udpBytes is a UDP datagram between the DNS port and another.
func udpBytes(n int) []byte {
	return cat([]byte{0, 53, 156, 64}, be16b(uint16(8+n)), []byte{0, 0}, payload(n))
}

// feed decodes raw IP packets and returns the packets that came out.
func feed(t testing.TB, d *decode.Decoder, at capture.Instant, packets ...[]byte) (out []capture.Packet) {
	for _, b := range packets {
		var p capture.Packet
		switch r := d.Decode(at, decode.LinkRaw, b, len(b), &p); r {
		case capture.LossNone:
			out = append(out, p)
		case capture.LossReassembling:
		default:
			t.Errorf("%v", r)
		}
	}
	return out
}

func TestFragmentOrders(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1473, 2000, 3000, 8000, 65507} {
		data := udpBytes(n)
		want := string(data[8:min(len(data), 4096)])
		for _, v6 := range []bool{false, true} {
			for round := range 20 {
				frags := fragments4(t, data, 1480, 9)
				ipLen := 20 + len(data)
				if v6 {
					frags = fragments6(t, 17, data, 1448, 9)
					ipLen = 48 + len(data)
				}
				if round > 0 {
					rng.Shuffle(len(frags), func(i, j int) { frags[i], frags[j] = frags[j], frags[i] })
				}
				d := decode.New()
				if out := feed(t, d, 0, frags[:len(frags)-1]...); len(out) != 0 {
					t.Fatalf("%d bytes: delivered early", n)
				}
				out := feed(t, d, 0, frags[len(frags)-1])
				if len(out) != 1 {
					t.Fatalf("%d bytes: %d packets", n, len(out))
				}
				p := out[0]
				if p.Len != uint32(n) || p.IPLen != uint32(ipLen) || p.Src.Port != 53 || p.Dst.Port != 40000 || string(p.Data) != want || p.IPv6 != v6 {
					t.Fatalf("%d bytes: %+v", n, p)
				}
				if s := d.Flush(); s != (decode.Stats{Reassembled: 1}) {
					t.Errorf("%+v", s)
				}
			}
		}
	}
}

// TestFragmentTCP: a segment that a router fragmented is one segment.
func TestFragmentTCP(t *testing.T) {
	seg := build(t, v4(6), tcpHeader(), payload(1400))[20:]
	frags := fragments4(t, seg, 8, 3) // not even the ports and the flags in one piece
	for _, f := range frags {
		f[9] = 6
	}
	out := feed(t, decode.New(), 0, frags...)
	if len(out) != 1 || out[0].Len != 1400 || out[0].TSVal != 7 || out[0].Flags != capture.ACK|capture.PSH {
		t.Errorf("%+v", out)
	}
}

// TestFragmentCut: the lengths survive a snap length that cuts every fragment.
func TestFragmentCut(t *testing.T) {
	d := decode.New()
	var p capture.Packet
	var r capture.LossReason
	frags := fragments4(t, udpBytes(3000), 1480, 9)
	for _, f := range frags {
		r = d.Decode(0, decode.LinkRaw, f[:68], len(f), &p)
	}
	if r != 0 || p.Len != 3000 || string(p.Data) != string(payload(40)) {
		t.Errorf("%v %+v", r, p)
	}
}

// TestFragmentDuplicates: a capture that holds every packet twice.
func TestFragmentDuplicates(t *testing.T) {
	frags := fragments4(t, udpBytes(3000), 1480, 9)
	d := decode.New()
	a, b, c := frags[0], frags[1], frags[2]
	if out := feed(t, d, 0, a, a, b, b, c, c); len(out) != 1 {
		t.Errorf("%d packets", len(out))
	}
	if out := feed(t, d, 0, a, b); len(out) != 1 {
		t.Errorf("repeated as a whole: %d packets", len(out)) // c is there already
	}
	if out := feed(t, d, 0, a, b, c); len(out) != 1 {
		t.Errorf("identification used again: %d packets", len(out))
	}
	feed(t, d, 0, c)
	if s := d.Flush(); s != (decode.Stats{Reassembled: 3}) {
		t.Errorf("%+v", s)
	}
}

func TestFragmentsGivenUp(t *testing.T) {
	d := decode.New()
	frags := fragments4(t, udpBytes(3000), 1480, 9)
	other := fragments4(t, udpBytes(3000), 1480, 10)
	const s = capture.Instant(time.Second)
	feed(t, d, 0, frags[1], frags[2])
	feed(t, d, 1*s, other[0])
	if out := feed(t, d, 61*s, frags[0]); len(out) != 0 {
		t.Error("delivered after 61 s")
	}
	if st := d.Stats(); st != (decode.Stats{Incomplete: 1, Orphans: 2}) {
		t.Errorf("after 61 s: %+v", st)
	}
	if out := feed(t, d, 61*s, other[1], other[2]); len(out) != 1 {
		t.Error("gave up after 60 s")
	}
	if st := d.Flush(); st != (decode.Stats{Reassembled: 1, Incomplete: 2, Orphans: 2}) {
		t.Errorf("at the end: %+v", st)
	}
}

// TestFragmentFlood: first fragments without end. The table stays as large as it is, and
// what is new gets its place.
func TestFragmentFlood(t *testing.T) {
	d := decode.New()
	frags := fragments4(t, udpBytes(1600), 1480, 0)
	var p capture.Packet
	next := func(i uint32) {
		binary.BigEndian.PutUint32(frags[1][12:], i)
		if r := d.Decode(0, decode.LinkRaw, frags[1], len(frags[1]), &p); r != capture.LossReassembling {
			t.Fatal(r)
		}
	}
	for i := range uint32(5000) {
		next(i)
	}
	if s := d.Stats(); s.Incomplete != 5000-1024 || s.Evicted != s.Incomplete || s.Orphans != s.Incomplete {
		t.Errorf("%+v", s)
	}
	i := uint32(10000)
	if n := testing.AllocsPerRun(1000, func() { next(i); i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if out := feed(t, d, 0, fragments4(t, udpBytes(3000), 1480, 9)...); len(out) != 1 {
		t.Error("no place for a new datagram")
	}
}

// TestFragmentAttacks: overlaps, contradictions, excess (RFC 1858, RFC 5722).
func TestFragmentAttacks(t *testing.T) {
	frag := func(off, n int, more bool, fill byte) []byte {
		ip := v4(layers.IPProtocolUDP)
		ip.FragOffset = uint16(off / 8)
		if more {
			ip.Flags = layers.IPv4MoreFragments
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = fill
		}
		return build(t, ip, gopacket.Payload(b))
	}
	var p capture.Packet
	run := func(name string, want capture.LossReason, packets ...[]byte) {
		d := decode.New()
		var r capture.LossReason
		for _, b := range packets {
			r = d.Decode(0, decode.LinkRaw, b, len(b), &p)
		}
		if r != want {
			t.Errorf("%s: %v", name, r)
		}
	}
	run("ping of death", capture.LossMalformed, frag(65528, 16, false, 0))
	run("no payload", capture.LossMalformed, frag(8, 0, false, 0))
	run("tiny", capture.LossMalformed, frag(0, 4, true, 0))
	run("teardrop", capture.LossReassembling, frag(0, 40, true, 0), frag(24, 4, false, 0))
	run("beyond the end", capture.LossReassembling, frag(80, 8, false, 0), frag(0, 160, true, 0))
	run("UDP cut short by its end", capture.LossNone, frag(8, 8, false, 0), frag(0, 8, true, 0))

	head := frag(0, 32, true, 0)
	copy(head[20:], []byte{0, 53, 1, 1, 0, 80, 0, 0})
	run("overlap", capture.LossNone, head, frag(72, 8, false, 3), frag(0, 72, true, 2)) // what came first stays
	if p.Src.Port != 53 || p.Len != 72 || len(p.Data) != 72 || p.Data[0] != 0 || p.Data[23] != 0 || p.Data[24] != 2 || p.Data[63] != 2 || p.Data[64] != 3 {
		t.Errorf("%+v", p)
	}
	run("overlap before", capture.LossNone, frag(72, 8, false, 3), frag(16, 40, true, 2), frag(48, 24, true, 4), head)
	if p.Src.Port != 53 || p.Data[7] != 0 || p.Data[8] != 2 || p.Data[47] != 2 || p.Data[48] != 4 || p.Data[64] != 3 {
		t.Errorf("%+v", p)
	}
}

// TestFragmentedTunnel: the fragments of an outer packet make one inner packet, and
// fragments of fragments work too.
func TestFragmentedTunnel(t *testing.T) {
	inner := fragments4(t, udpBytes(3000), 1480, 9)
	var packets [][]byte
	for i, b := range inner {
		outer := fragments4(t, b, 800, uint16(100+i))
		for _, o := range outer {
			o[9] = 4
		}
		packets = append(packets, outer...)
	}
	d := decode.New()
	out := feed(t, d, 0, packets...)
	if len(out) != 1 || out[0].Len != 3000 || string(out[0].Data) != string(udpBytes(3000)[8:]) {
		t.Errorf("%+v", out)
	}
}

// TestFragmentData: Data of reassembled packets stays intact while others are
// reassembled.
func TestFragmentData(t *testing.T) {
	d := decode.New()
	var out []capture.Packet
	for i := range 300 {
		data := udpBytes(3000)
		data[8] = byte(i)
		out = append(out, feed(t, d, 0, fragments4(t, data, 1480, uint16(i%7))...)...)
	}
	for i, p := range out {
		if len(p.Data) != 3000 || p.Data[0] != byte(i) || p.Data[2999] != byte(2999%256) {
			t.Fatalf("%d: %x…", i, p.Data[:8])
		}
	}
	frags := fragments4(t, udpBytes(3000), 1480, 9)
	var p capture.Packet
	if n := testing.AllocsPerRun(200, func() {
		for _, f := range frags {
			d.Decode(0, decode.LinkRaw, f, len(f), &p)
		}
		d.Recycle()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
