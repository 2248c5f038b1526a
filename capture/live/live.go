// Package live reads packets from network interfaces as a [capture.Source]: Linux AF_PACKET sockets with a
// TPACKET_V3 ring, in Go alone. It needs CAP_NET_RAW, and CAP_SYS_ADMIN to enter another network namespace. On other systems
// the package holds no Source.
//
// A packet is decoded where the kernel wrote it, and its block goes back to the kernel at once; the payload that analysis reads (DNS, ICMP
// errors) is copied into memory of the batch, because [capture.Merge] reads further batches while earlier ones are
// still in use. Times are the kernel's, in nanoseconds. A VLAN tag that the kernel took out is put back before the decoder sees the packet.
// On the loopback interface, where each packet passes twice, the received one is taken.
package live

import (
	"time"

	"golang.org/x/net/bpf"

	"jindan/capture"
)

// Any stands for all interfaces, those that appear later included.
const Any = "any"

// Defaults of Options.
const (
	DefaultRingBytes    = 8 << 20               // 25,000 packets of 256 bytes, 50,000 small ones
	DefaultBlockTimeout = 50 * time.Millisecond // how late a lone packet may be
)

// Options say what to capture.
type Options struct {
	Interfaces []string // names; none, or Any alone: all
	// Netns is an open descriptor of a network namespace (/proc/PID/ns/net, /run/netns/NAME), which Open duplicates; 0: the process's own.
	Netns int
	// Filter is a program for packets with a link header as SOCK_RAW delivers it (filter.Packet). What it returns is the
	// snap length. None: every packet, whole.
	Filter []bpf.RawInstruction
	// RingBytes is the kernel memory for one ring; 0: DefaultRingBytes. It is rounded up to whole blocks, at least 2.
	RingBytes int
	// Rings is the number of rings per interface, between which the kernel spreads the connections (PACKET_FANOUT_HASH); 0: 1.
	Rings int
	// BlockTimeout is how long the kernel waits before it hands over a block that is not full, in whole milliseconds; 0: DefaultBlockTimeout.
	BlockTimeout time.Duration
	// Socket opens a packet socket (AF_PACKET, SOCK_RAW, protocol 0), for a process that has no right to; nil: the process itself does.
	Socket func() (int, error)
}

// Decoder turns the bytes of one captured packet into a Packet. decode.Decoder does.
type Decoder interface {
	// Decode reads data, the captured bytes of a packet of wireLen bytes (wireLen ≥ len(data)) with the given LINKTYPE_
	// value (https://www.tcpdump.org/linktypes.html), seen at at. It returns capture.LossNone when *p holds
	// the packet, else why it does not. It sets every field of *p; p.Data may point into data, which must
	// not be kept beyond the call. A method Recycle(), if there is one, is called when no Data handed out before is needed any more.
	Decode(at capture.Instant, linkType uint16, data []byte, wireLen int, p *capture.Packet) capture.LossReason
}

// Stats counts since Open.
type Stats struct {
	Packets uint64 // taken from the rings
	Bytes   uint64 // of them captured
	Dropped uint64 // by the kernel, because a ring was full (PACKET_STATISTICS tp_drops)
	Freezes uint64 // times a ring was full (tp_freeze_q_cnt)
	// Unread counts, by reason, packets that the decoder refused, and Dropped as LossKernelDrop.
	Unread [capture.LossReasonCount]uint64
	// Gone counts the times an interface disappeared, Reopened those it was found again.
	Gone, Reopened uint64
	Missing        []string // interfaces that are gone now
	LastError      error    // why an interface could not be opened again; nil if none is missing
}
