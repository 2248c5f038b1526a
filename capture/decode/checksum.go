package decode

import (
	"encoding/binary"
	"math/bits"

	"jindan/capture"
)

// maxVerified bounds what is verified, in bytes of IP payload: what is longer is most likely several segments that a network
// card, or its driver, has merged (LRO, GRO), and the checksum that of the first.
const maxVerified = 1500

// damaged reports whether the checksum of a TCP segment or UDP datagram says that it was damaged (RFC 9293 §3.1, RFC 768;
// its receiver drops it). b is all of it, at is where its checksum lies, n its length.
//
// What a host hands to its network card, or to another host on the same machine, has no checksum yet: none, or the sum of the
// pseudo-header that the card will complete (CHECKSUM_PARTIAL, include/linux/skbuff.h; Windows leaves its length out where the
// card segments). That says nothing.
func damaged(b []byte, n, at int, p *capture.Packet, proto uint8) bool {
	if len(b) < n || n > maxVerified || at+2 > len(b) {
		return false
	}
	have := be16(b[at:])
	if have == 0 {
		return false
	}
	pseudo := addresses(p) + uint64(bits.ReverseBytes16(uint16(proto)))
	whole := pseudo + uint64(bits.ReverseBytes16(uint16(n)))
	if fold(add(b[:n], whole)) == 0xffff {
		return false
	}
	unfinished := bits.ReverseBytes16(have)
	return unfinished != fold(whole) && unfinished != fold(pseudo) && have != 0xffff
}

// addresses is the sum of both addresses, below 2^33. The 12 bytes before an IPv4 address, 10 of 0 and 2 of 0xff, do not change a
// sum modulo 0xffff.
func addresses(p *capture.Packet) uint64 {
	src, dst := &p.Src.Addr, &p.Dst.Addr
	s, c := bits.Add64(binary.LittleEndian.Uint64(src[:8]), binary.LittleEndian.Uint64(src[8:]), 0)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[:8]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(dst[8:]), c)
	s += c // no carry: four words have two at most, and one has been added
	return s>>32 + s&0xffffffff
}

// add adds the 16-bit words of b to a sum modulo 0xffff. Both are in the byte order of the machine's words, low byte first: the
// sum is the same but for the order of its bytes (RFC 1071 §2(B)).
func add(b []byte, s uint64) uint64 {
	last := tail(b)
	var carry, c uint64
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:]), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[56:]), c)
		carry += c
		b = b[64:]
	}
	if len(b) >= 32 {
		w := (*[32]byte)(b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:]), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:]), c)
		carry += c
		b = b[32:]
	}
	if len(b) >= 16 {
		w := (*[16]byte)(b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:]), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:]), c)
		carry += c
		b = b[16:]
	}
	if len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		carry += c
	}
	s, c = bits.Add64(s, last, 0)
	return uint64(fold(s)) + carry + c
}

// tail is what is left of b behind its last whole word of 8 bytes.
func tail(b []byte) uint64 {
	n := len(b) % 8
	if len(b) >= 8 {
		return binary.LittleEndian.Uint64(b[len(b)-8:]) >> (8 * (8 - n)) // 0 for n = 0: all 64 bits are gone
	}
	var last uint64
	for i, x := range b {
		last |= uint64(x) << (8 * i)
	}
	return last
}

// fold brings a sum down to 16 bits.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}
