package filter

import "golang.org/x/net/bpf"

// EtherTypes (IEEE RA registry) and protocol numbers (IANA).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherOld  = 0x9100 // QinQ before IEEE 802.1ad

	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoFrag6   = 44
	protoICMPv6  = 58
	protoSCTP    = 132
	protoHopOpts = 0
	protoRouting = 43
	protoDstOpts = 60
)

// Offsets from the start of the IP header, in bytes (RFC 791 §3.1, RFC 8200 §3).
const (
	ip4Fragment = 6
	ip4Proto    = 9
	ip4Src      = 12
	ip4Dst      = 16
	ip6Next     = 6
	ip6Src      = 8
	ip6Dst      = 24
	ip6Len      = 40

	arpSrc = 14 // RFC 826, for IPv4 over Ethernet
	arpDst = 24

	fragOffset4 = 0x1fff // of the 16 bits at ip4Fragment
	fragOffset6 = 0xfff8 // of the 16 bits at 2 in a fragment header (RFC 8200 §4.5)
)

// layout says where the headers of a packet are: what is known of it when the program is written.
type layout struct {
	raw  bool // begins with IP
	held bool // the kernel holds the outermost VLAN tag
	tags uint32
}

// after is the layout behind as many further tags as "vlan" was said before.
func (l layout) after(vlans uint32) layout {
	if l.held && vlans > 0 {
		vlans--
	}
	l.tags += vlans
	return l
}

const (
	ethernetType = 12
	ethernetLen  = 14
	tagLen       = 4
)

// network is the offset of the IP header.
func (l layout) network() uint32 {
	if l.raw {
		return 0
	}
	return ethernetLen + tagLen*l.tags
}

// field compares size bytes at an offset from the IP header; under a mask.
func (l layout) field(offset uint32, size int, mask uint32, test bpf.JumpTest, with uint32) *cond {
	return masked(mask, test, with, bpf.LoadAbsolute{Off: l.network() + offset, Size: size})
}

// transport4 does the same from the transport header of IPv4, whose place depends on the IP header.
func (l layout) transport4(offset uint32, size int, mask uint32, test bpf.JumpTest, with uint32) *cond {
	return masked(mask, test, with, bpf.LoadMemShift{Off: l.network()}, bpf.LoadIndirect{Off: l.network() + offset, Size: size})
}

// allBits is the mask that changes nothing.
const allBits = 0xffffffff

func masked(mask uint32, test bpf.JumpTest, with uint32, load ...bpf.Instruction) *cond {
	if mask != allBits {
		load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return &cond{op: opTest, load: load, test: test, with: with}
}

// etherType compares the type of what follows the link header.
func (l layout) etherType(t uint32) *cond {
	if !l.raw {
		return masked(allBits, bpf.JumpEqual, t, bpf.LoadAbsolute{Off: ethernetType + tagLen*l.tags, Size: 2})
	}
	switch t { // by the version
	case etherIPv4:
		return l.field(0, 1, 0xf0, bpf.JumpEqual, 0x40)
	case etherIPv6:
		return l.field(0, 1, 0xf0, bpf.JumpEqual, 0x60)
	}
	return no
}

// tagged says that a VLAN tag stands in the packet here.
func (l layout) tagged() *cond {
	return or(l.etherType(etherVLAN), or(l.etherType(etherQinQ), l.etherType(etherOld)))
}

func (l layout) ip4() *cond { return l.etherType(etherIPv4) }
func (l layout) ip6() *cond { return l.etherType(etherIPv6) }

func (l layout) ip4Proto(p uint32) *cond { return l.field(ip4Proto, 1, allBits, bpf.JumpEqual, p) }
func (l layout) ip6Next(p uint32) *cond  { return l.field(ip6Next, 1, allBits, bpf.JumpEqual, p) }

// laterFragment says that an IPv4 packet is a fragment other than the first: it has no transport header.
func (l layout) laterFragment() *cond {
	return l.field(ip4Fragment, 2, allBits, bpf.JumpBitsSet, fragOffset4)
}
