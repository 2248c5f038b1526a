// Package filter compiles packet filters to classic BPF: expressions in tcpdump's syntax
// (pcap-filter(7)), the filter that keeps what jindan analyses, and one that samples connections.
//
// # Language
//
// [Parse] knows these parts of pcap-filter(7), with its precedence (and, or: equal, from left to right) and
// its inheritance of qualifiers ("port 80 or 443", "host A or B"):
//
//	ip ip6 arp rarp tcp udp sctp icmp icmp6
//	[ip|ip6|arp|rarp] [src|dst|src or dst|src and dst] [host] ADDRESS
//	[ip|ip6|arp|rarp] [src|dst|…] net PREFIX/LENGTH, net A.B.C.D mask M, net A.B
//	[tcp|udp|sctp] [src|dst|…] port N, portrange N-M
//	vlan [ID]
//	PROTO[OFFSET:SIZE] [& MASK] RELATION VALUE, as in tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
//	and && or || not ! ( )
//
// What it does not know is an error that names the position, never a filter that means something else. Names of
// hosts, ports and networks are not looked up. Every verdict is tcpdump's, also in what may surprise:
// "tcp[…]" and ports of fragments are those of IPv4 packets that are no later fragment, "vlan" moves the
// rest of the expression behind the tag, and a filter that reads beyond a packet's end refuses it.
//
// # VLAN tags
//
// Linux takes the outermost tag out of a received packet before a packet socket sees it, and keeps it
// beside; network cards do the same. A tag that no one took out (the second of two, or of a frame sent through a
// device without the offload) stands in the packet. A program for [Packet] handles both as tcpdump
// does on a live interface: "vlan" asks the kernel first, then the packet; "tcp" alone matches tagged traffic where the kernel
// holds the tag. [Default] and [Sample] look behind up to two further tags in the packet.
package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// Link says where a program finds the headers.
type Link uint8

// The link types.
const (
	// Packet is what a Linux AF_PACKET socket of type SOCK_RAW delivers, on any interface: the kernel is asked for
	// each packet whether it begins with an Ethernet header (ARPHRD_ETHER and ARPHRD_LOOPBACK) or with IP (tunnels,
	// tun, WireGuard, PPP: devices without a header of their own). SOCK_DGRAM is not served: before Linux 6.11
	// it hides tags of frames that were sent without offload.
	Packet   Link = iota
	Ethernet      // IEEE 802.3 with all tags in the packet, as in files (LINKTYPE_ETHERNET)
	Raw           // IPv4 or IPv6 without a link header (LINKTYPE_RAW)
)

// MaxLength is how many instructions the kernel takes (BPF_MAXINSNS, linux/bpf_common.h).
const MaxLength = 4096

// Linux constants that programs for Packet compare with (linux/if_arp.h).
const (
	arphrdEther    = 1
	arphrdLoopback = 772
)

// Expr is a condition on packets. It is immutable; nil accepts every packet.
type Expr struct {
	build func(layout) *cond
	vlan  bool // distinguishes tags that the kernel holds
}

// And is the condition that all of es hold.
func And(es ...*Expr) *Expr {
	all := &Expr{build: func(l layout) *cond {
		c := yes
		for _, e := range es {
			if e != nil {
				c = and(c, e.build(l))
			}
		}
		return c
	}}
	for _, e := range es {
		all.vlan = all.vlan || e != nil && e.vlan
	}
	return all
}

// Program compiles e. The program returns snap, the number of bytes to keep of the packet, for packets that fulfil e, and 0
// for others. It fails if it would be longer than MaxLength instructions.
func (e *Expr) Program(link Link, snap uint32) ([]bpf.RawInstruction, error) {
	a := assembler{}
	reject := a.emit(bpf.RetConstant{Val: 0})
	accept := a.emit(bpf.RetConstant{Val: snap})
	start := a.gen(e.under(link), accept, reject)
	if len(a.back) > MaxLength {
		return nil, fmt.Errorf("the filter needs %d instructions, and the kernel takes %d: shorten it, "+
			"for instance by giving networks in place of single addresses", len(a.back), MaxLength)
	}
	return a.program(start)
}

func (e *Expr) under(link Link) *cond {
	if e == nil {
		return yes
	}
	switch link {
	case Ethernet:
		return e.build(layout{})
	case Raw:
		return e.build(layout{raw: true})
	}
	ether := e.build(layout{})
	if e.vlan {
		ether = choose(extension(bpf.ExtVLANTagPresent, allBits, bpf.JumpNotEqual, 0), e.build(layout{held: true}), ether)
	}
	isEther := or(extension(bpf.ExtLinkLayerType, allBits, bpf.JumpEqual, arphrdEther),
		extension(bpf.ExtLinkLayerType, allBits, bpf.JumpEqual, arphrdLoopback))
	return choose(isEther, ether, e.build(layout{raw: true}))
}
