// Package decode turns captured bytes into [capture.Packet], without an
// allocation per packet and without a panic whatever the bytes are.
//
// The headers that nearly every packet has (Ethernet, VLAN, Linux cooked, IP,
// TCP, UDP, ICMP) are read by hand, as one chain of calls: about five times as
// fast as gopacket's DecodingLayerParser. Headers that few packets have are read
// by gopacket's layers where these are sound; library.go says which and why.
//
// # What a Packet tells
//
// The innermost IP packet is reported, as Wireshark does. A tunnel over UDP is
// entered only when its own header is valid and an IP packet is found inside;
// otherwise the outer datagram is reported.
//
// Ports, sequence numbers and options are those of the transport header. For
// ICMP and ICMPv6, Len is the message without its first 8 bytes, Seq holds bytes 4
// to 7 of the message (identifier and sequence of an echo, MTU, gateway) and, for
// errors, Data is the quoted packet. A quoted TCP or UDP
// header is never a Packet of its own.
//
// # Fragments
//
// A fragmented datagram yields one Packet, when its last missing fragment has
// arrived; the fragments before yield [capture.LossReassembling]. See [Stats].
package decode

import (
	"encoding/binary"

	"jindan/capture"
)

const (
	// maxIPHeaders bounds how many IP headers one packet may nest. Overlays in
	// service stack three (pod in VXLAN in IPsec or GRE); 8 leaves room.
	maxIPHeaders = 8
	// maxSteps bounds the recursion through headers that are not IP (a tunnel
	// of Ethernet in Ethernet would otherwise recurse once per 14 bytes).
	maxSteps = 24
)

// Header lengths in bytes.
const (
	ethernetLen = 14 // IEEE 802.3 §3.1
	vlanLen     = 4  // IEEE 802.1Q §9.3: TCI and the next type
	ip4Len      = 20 // RFC 791 §3.1, without options
	ip6Len      = 40 // RFC 8200 §3
	tcpLen      = 20 // RFC 9293 §3.1, without options
	udpLen      = 8  // RFC 768
	icmpLen     = 8  // RFC 792: type, code, checksum, 4 bytes that depend on the type
)

// Where checksums lie in their headers.
const (
	tcpSum = 16 // RFC 9293 §3.1
	udpSum = 6  // RFC 768
)

// portDNS is the one port whose payload is always handed on (RFC 1035 §4.2).
const portDNS = 53

// Decoder decodes the packets of one source, in the order in which they were
// captured. It owns the table of unfinished fragmented datagrams, so two sources
// need two Decoders. It is not safe for concurrent use.
type Decoder struct {
	at    capture.Instant
	ips   int  // IP headers of this packet that were found valid
	steps int  // other headers entered by recursion
	trim  bool // the link layer bounds the next IP packet

	verify bool

	dnsPorts []uint16 // besides 53
	frags    fragTable
	keep     arena
	lib      library
}

// New returns a Decoder. Payload of TCP and UDP port 53, and of the further
// dnsPorts, is handed on in Packet.Data, and so are DNS messages over UDP on any port.
func New(dnsPorts ...uint16) *Decoder {
	return &Decoder{dnsPorts: append([]uint16(nil), dnsPorts...)}
}

// Verify makes d compute the checksums of whole packets, see [capture.Packet.Damaged], and returns d. Live packets are cut, and what is
// recorded of them has other checksums, so that it is for files only.
func (d *Decoder) Verify() *Decoder {
	d.verify = true
	return d
}

// Decode reads one captured packet. data is what was captured, wireLen the
// packet's length on the wire; linkType is a LINKTYPE_ value of
// https://www.tcpdump.org/linktypes.html. p is overwritten, Frame included; its
// Data borrows from data or from d.
//
// p is valid if the result is [capture.LossNone]. Any other result says why
// there is no packet; [capture.LossReassembling] and [capture.LossNotIP] are no
// losses but for their name.
func (d *Decoder) Decode(at capture.Instant, linkType uint16, data []byte, wireLen int, p *capture.Packet) capture.LossReason {
	*p = capture.Packet{}
	d.at, d.ips, d.steps, d.trim = at, 0, 0, false
	wireLen = max(wireLen, len(data))
	if linkType != LinkEthernet {
		return d.link(linkType, data, wireLen, p)
	}
	if len(data) < ethernetLen {
		return short(wireLen, ethernetLen)
	}
	h := (*[ethernetLen]byte)(data)
	p.MACs = hash12(binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint32(h[8:]))
	p.DstMAC, p.SrcMAC = binary.BigEndian.Uint32(h[2:]), binary.BigEndian.Uint32(h[8:])
	etherType := binary.BigEndian.Uint16(h[12:])
	if etherType == etherIPv4 {
		return d.ip4(data[ethernetLen:], wireLen-ethernetLen, p)
	}
	return d.ether(etherType, data[ethernetLen:], wireLen-ethernetLen, p)
}

// Recycle says that the Data of all packets decoded so far is no longer
// needed. Calling it before each batch lets d reuse the memory in which it hands
// out the payload of reassembled datagrams; not calling it costs allocations, never
// correctness.
func (d *Decoder) Recycle() { d.keep.used = 0 }

// isDNS reports whether payload between these ports is to be handed on.
func (d *Decoder) isDNS(a, b uint16) bool {
	if a == portDNS || b == portDNS {
		return true
	}
	for _, p := range d.dnsPorts {
		if a == p || b == p {
			return true
		}
	}
	return false
}

// short is the verdict on a header of need bytes that was not captured whole: cut
// by the snap length, or never on the wire.
func short(wire, need int) capture.LossReason {
	if wire >= need {
		return capture.LossTruncated
	}
	return capture.LossMalformed
}

// step counts one more header entered by recursion.
func (d *Decoder) step() bool {
	d.steps++
	return d.steps <= maxSteps
}

// hash12 condenses 12 bytes of addresses to 32 bits: multiply and fold, with the odd
// 64-bit constants of splitmix64. All-zero addresses (the loopback device) give 0.
func hash12(x uint64, y uint32) uint32 {
	h := x*0xbf58476d1ce4e5b9 + uint64(y)*0x94d049bb133111eb
	h ^= h >> 31
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// arena holds copied payload until Recycle. It only ever appends to a chunk and
// leaves full chunks to the garbage collector, so what it handed out stays intact.
type arena struct {
	chunk []byte
	used  int
}

// arenaChunk is the size of a chunk in bytes: 16 of the largest pieces kept.
const arenaChunk = 16 * fragKeep

func (a *arena) copy(b []byte) []byte {
	if len(a.chunk)-a.used < len(b) {
		a.chunk, a.used = make([]byte, max(arenaChunk, len(b))), 0
	}
	c := a.chunk[a.used : a.used+len(b) : a.used+len(b)]
	a.used += len(b)
	copy(c, b)
	return c
}
