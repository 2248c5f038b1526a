// Package capture defines what jindan observes (packets, losses, socket tables,
// host counters, changes) and how observations travel: in batches, from Sources,
// merged into one stream that is ordered by time.
//
// Time is data. It enters only with an observation, as an [Instant]; nothing
// that reads observations asks a clock.
package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"time"
)

// Instant is an event time: nanoseconds since the Unix epoch, UTC.
type Instant int64

// Time converts i for printing.
func (i Instant) Time() time.Time { return time.Unix(0, int64(i)).UTC() }

// String formats i as RFC 3339 with nanoseconds.
func (i Instant) String() string { return i.Time().Format(time.RFC3339Nano) }

// MarshalText formats i as String does; JSON shows instants so.
func (i Instant) MarshalText() ([]byte, error) {
	return i.Time().AppendFormat(nil, time.RFC3339Nano), nil
}

// UnmarshalText is the inverse of MarshalText.
func (i *Instant) UnmarshalText(b []byte) error {
	t, err := time.Parse(time.RFC3339Nano, string(b))
	*i = Instant(t.UnixNano())
	return err
}

// Sub returns i−j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Add returns i+d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Addr is an IP address without pointers: 16 bytes, IPv4 as IPv4-mapped IPv6.
type Addr [16]byte

// AddrFrom converts a netip.Addr; its zone is dropped.
func AddrFrom(a netip.Addr) Addr { return Addr(a.As16()) }

// Netip converts a for printing and prefix tests; IPv4 comes back as IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Compare orders addresses by their bytes.
func (a Addr) Compare(b Addr) int { return bytes.Compare(a[:], b[:]) }

// String formats a as netip does, IPv4 in dotted form.
func (a Addr) String() string { return a.Netip().String() }

// Endpoint is a transport address without pointers, cheap as a map key.
type Endpoint struct {
	Addr Addr
	Port uint16
}

// String formats e as host:port, IPv6 in brackets.
func (e Endpoint) String() string {
	return netip.AddrPortFrom(e.Addr.Netip(), e.Port).String()
}

// Compare orders endpoints by address, then port.
func (e Endpoint) Compare(f Endpoint) int {
	for i := range e.Addr {
		if e.Addr[i] != f.Addr[i] {
			return int(e.Addr[i]) - int(f.Addr[i])
		}
	}
	return int(e.Port) - int(f.Port)
}

// IP protocol numbers that jindan looks into (IANA protocol-numbers).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// TCP control bits (RFC 9293 §3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Option bits tell which TCP options a segment carried.
const (
	OptMSS           uint8 = 1 << iota // Packet.MSS is valid
	OptWScale                          // Packet.WScale is valid
	OptSACKPermitted                   // RFC 2018
	OptSACK                            // Packet.SACK[:SACKs] is valid
	OptTimestamps                      // Packet.TSVal and TSEcr are valid
	OptMPTCP                           // an MPTCP option (kind 30, RFC 8684) is present
	OptCut                             // not all options were captured
)

// Direction of a packet as the capture itself states it (Linux cooked headers,
// pcapng epb_flags, AF_PACKET).
type Direction uint8

// The values of Direction.
const (
	DirUnknown  Direction = iota
	DirInbound            // addressed to the capturing host
	DirOutbound           // sent by the capturing host
	DirOther              // seen in promiscuous mode, on the loopback interface, or multicast/broadcast
)

// Packet is one decoded TCP segment, UDP datagram or ICMP message: the headers
// of the innermost IP packet, flat and without pointers but for Data.
//
// Lengths come from the IP header, not from what was captured, so a short snap
// length does not change them. For a reassembled IP datagram they are those of
// the whole datagram.
type Packet struct {
	Src, Dst Endpoint // ICMP: ports are 0

	Seq, Ack     uint32
	TSVal, TSEcr uint32
	Len          uint32 // TCP or UDP payload length in bytes; may exceed 65,535 with BIG TCP
	IPLen        uint32 // length of the innermost IP packet with its header, in bytes
	MACs         uint32 // hash of the link-layer addresses; 0 if there are none
	// SrcMAC and DstMAC are the last four bytes of the Ethernet addresses, enough to tell the stations of one
	// network apart; 0 if there are none, in live packets and in recordings.
	SrcMAC, DstMAC uint32
	Window         uint16 // as sent, unscaled
	MSS            uint16
	IPID           uint16 // IPv4 Identification; 0 for IPv6, where it proves nothing
	Proto          uint8
	Flags          uint8
	TTL            uint8 // or hop limit
	Opts           uint8 // Opt… bits
	WScale         uint8
	SACKs          uint8
	ICMPType       uint8
	ICMPCode       uint8
	Dir            Direction
	IPv6           bool
	// Damaged: its checksum, or that of the tunnel around it, is wrong, so that whoever gets it like this drops it. It is set
	// only of whole packets in files; offloading is made allowance for.
	Damaged bool
	SACK    [4][2]uint32 // left and right edges, RFC 2018; D-SACK in SACK[0], RFC 2883

	// Hash is FlowHash of Src and Dst for TCP, 0 if it was not computed: the decoder can do it while
	// the engine is busy with the batch before.
	Hash uint32
	// Ident is Packet.Identity for TCP, 0 if it was not computed.
	Ident uint64

	// Frame is the number of the packet in its file, from 1, as Wireshark
	// counts; 0 for live packets.
	Frame uint64

	// Data is the captured part of the payload, borrowed: it is valid until the
	// batch is read again. It is set only where analysis reads it (DNS over UDP
	// and TCP, ICMP errors); everything else leaves it nil, so that payload stays out.
	Data []byte
}

// Kind says what an Observation holds.
type Kind uint8

// The kinds of observation.
const (
	KindPacket Kind = iota
	// KindLoss says that Lost observations of the source are missing, and
	// LossReason why.
	KindLoss
	KindSample // Sample is set
)

// LossReason names why observations are missing or could not be used. Reasons
// are reported by name, in the order of this list.
type LossReason uint8

// The reasons of loss.
const (
	LossNone         LossReason = iota
	LossKernelDrop              // the capturing kernel dropped packets (ring full)
	LossLinkType                // link type that jindan cannot read
	LossNotIP                   // not IP: ARP, LLDP, STP…; harmless, counted for completeness
	LossTransport               // IP, but neither TCP, UDP nor ICMP
	LossTruncated               // cut by the snap length before the ports
	LossMalformed               // header lengths contradict each other
	LossFragment                // IP fragment whose first fragment was not seen
	LossNesting                 // more encapsulation than the decoder follows
	LossFileDamaged             // the file breaks off inside its structure
	LossFileCut                 // the file ends inside its last packet
	LossReassembling            // IP fragment that waits for its siblings; harmless, nothing is missing yet
	LossEngine                  // the analysis failed and began anew; counted are the failures
	LossReasonCount
)

var lossNames = [LossReasonCount]string{"none", "kernel_drop", "link_type", "not_ip",
	"other_transport", "truncated", "malformed", "orphan_fragment", "nesting", "file_damaged", "file_cut", "fragment_pending",
	"engine_failure"}

// String returns the reason's name as it stands in coverage reports.
func (r LossReason) String() string {
	if r < LossReasonCount {
		return lossNames[r]
	}
	return "unknown"
}

// Observation is one thing seen, with its time.
type Observation struct {
	At     Instant
	Kind   Kind
	Reason LossReason // KindLoss
	Source uint16     // index of the source in the merge, set by Merge
	Lost   uint64     // KindLoss: how many
	Packet Packet     // KindPacket

	// Sample is set for KindSample only. What it points to is valid until the batch is read again.
	Sample *Sample
}

// Batch is a run of observations of one source, in the order in which the
// source saw them. Its memory is reused by the next Read.
type Batch struct {
	Obs []Observation
	// Until promises that no later batch of this source holds an observation
	// before this time, so that merging and windows can go on while the source is
	// quiet. Files whose packets go back in time break it; consumers cope.
	Until Instant
}

// Source delivers observations as io.Reader delivers bytes.
type Source interface {
	// Name identifies the source to the user: a file name, an interface.
	Name() string
	// Read replaces the content of b by up to cap(b.Obs) observations (a default
	// number when cap is 0). It may return observations together with an error; io.EOF
	// ends the source. An error other than io.EOF also ends it: what was read
	// until then stays valid.
	Read(ctx context.Context, b *Batch) error
	Close() error
}

// flowSeed is secret, so that nobody can choose addresses that collide; no result depends on it.
var flowSeed = maphash.String(maphash.MakeSeed(), "jindan") | 1

// FlowHash hashes two endpoints, equal for both directions. It is never 0.
func FlowHash(a, b *Endpoint) uint32 {
	x := a.Hash() + b.Hash() // commutative
	return uint32(x) ^ uint32(x>>32) | 1
}

// Identity hashes what a sender changes between two transmissions of a TCP segment, and where it
// goes: equal for copies of one packet, wherever they were captured. It is never 0. It holds no
// secret: which packets a table of fixed size forgets shows in findings, and those must be the
// same in every process.
func (p *Packet) Identity() uint64 {
	h := addressMix(&p.Src, &p.Dst) ^ uint64(p.Src.Port)<<16 ^ uint64(p.Dst.Port)
	h = (h ^ uint64(p.Seq)<<32 ^ uint64(p.Ack)) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ uint64(p.IPID)<<48 ^ uint64(p.Len)<<16 ^ uint64(p.Window)<<32 ^ uint64(p.Flags)) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>32 ^ uint64(p.TSVal)<<32 ^ uint64(p.TSEcr)) * 0x94d049bb133111eb
	return h | 1
}

func addressMix(src, dst *Endpoint) uint64 {
	h1, l1 := bits.Mul64(binary.LittleEndian.Uint64(src.Addr[0:8])^0xa0761d6478bd642f,
		binary.LittleEndian.Uint64(src.Addr[8:16])^0xe7037ed1a0b428db)
	h2, l2 := bits.Mul64(binary.LittleEndian.Uint64(dst.Addr[0:8])^0x8ebc6af09c88c6e3,
		binary.LittleEndian.Uint64(dst.Addr[8:16])^0x589965cc75374cc3)
	return h1 ^ l1 ^ bits.RotateLeft64(h2^l2, 32)
}

// Hash mixes the address and port with a secret of the process.
func (e *Endpoint) Hash() uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(e.Addr[0:8])^flowSeed,
		binary.LittleEndian.Uint64(e.Addr[8:16])^0x9e3779b97f4a7c15^uint64(e.Port)<<16)
	hi2, lo2 := bits.Mul64(hi^lo^uint64(e.Port), flowSeed^0xd6e8feb86659fd93)
	return hi2 ^ lo2
}
