package decode

import (
	"encoding/binary"

	"jindan/capture"
)

// Link types (LINKTYPE_ values, https://www.tcpdump.org/linktypes.html) that
// Decode reads.
const (
	LinkNull          = 0   // BSD loopback: address family in the writer's byte order
	LinkEthernet      = 1   // IEEE 802.3
	LinkPPP           = 9   // PPP, with or without address and control
	LinkRawBSD        = 12  // IP without a link header, as DLT_RAW on most systems
	LinkRawOBSD       = 14  // the same on OpenBSD
	LinkPPPSerial     = 50  // PPP or Cisco HDLC
	LinkPPPoE         = 51  // PPPoE session header first
	LinkATM           = 100 // RFC 2684 LLC encapsulation
	LinkRaw           = 101 // IPv4 or IPv6
	LinkCiscoHDLC     = 104
	LinkIEEE80211     = 105 // IEEE 802.11
	LinkFrameRelay    = 107 // RFC 2427, or Cisco's encapsulation
	LinkLoop          = 108 // OpenBSD loopback: address family in network byte order
	LinkLinuxSLL      = 113 // Linux cooked
	LinkPFLog         = 117
	LinkPrism         = 119 // IEEE 802.11 after a Prism header
	LinkRadioTap      = 127 // IEEE 802.11 after a radiotap header
	LinkAVS           = 163 // IEEE 802.11 after an AVS header
	LinkPPI           = 192 // per-packet information, then another link type
	LinkPPPDir        = 204 // PPP after a direction byte
	LinkHDLCDir       = 205 // Cisco HDLC after one
	LinkFrameRelayDir = 206 // frame relay after one
	LinkMPLS          = 219
	LinkIPv4          = 228
	LinkIPv6          = 229
	LinkNFLog         = 239 // Linux netfilter log
	LinkPKTAP         = 258 // Darwin: interface and process, then another link type
	LinkLinuxSLL2     = 276 // Linux cooked, version 2: what "tcpdump -i any" writes
	LinkDSABroadcom   = 281 // switch tags between the addresses and the type of Ethernet (net/dsa/tag_*.c in Linux)
	LinkDSAPrepend    = 282 // a tag before Ethernet
	LinkDSA           = 283
	LinkEDSA          = 284
)

// link reads everything that is not Ethernet.
func (d *Decoder) link(linkType uint16, b []byte, wire int, p *capture.Packet) capture.LossReason {
	switch linkType {
	case LinkEthernet:
		return d.ethernet(b, wire, p)
	case LinkLinuxSLL:
		return d.sll(b, wire, p)
	case LinkLinuxSLL2:
		return d.sll2(b, wire, p)
	case LinkRaw, LinkRawBSD, LinkRawOBSD:
		return d.ip(b, wire, p)
	case LinkIPv4, LinkIPv6:
		return d.ip(b, wire, p)
	case LinkNull, LinkLoop:
		return d.loopback(b, wire, p)
	}
	return d.linkRare(linkType, b, wire, p)
}

// linkRare reads the link types that hardly a server's capture has.
func (d *Decoder) linkRare(linkType uint16, b []byte, wire int, p *capture.Packet) capture.LossReason {
	switch linkType {
	case LinkPPP:
		return d.ppp(b, wire, p)
	case LinkPPPSerial:
		if len(b) > 0 && (b[0] == 0x0f || b[0] == 0x8f) { // Cisco HDLC unicast, broadcast; RFC 1662 begins with ff
			return d.after(4, b, wire, 2, p)
		}
		return d.ppp(b, wire, p)
	case LinkCiscoHDLC:
		return d.after(4, b, wire, 2, p)
	case LinkFrameRelay:
		return d.frameRelay(b, wire, p)
	case LinkPPPDir, LinkHDLCDir, LinkFrameRelayDir:
		if len(b) < 1 {
			return short(wire, 1)
		}
		p.Dir = capture.DirInbound
		if b[0] != 0 {
			p.Dir = capture.DirOutbound
		}
		switch b, wire = b[1:], wire-1; linkType {
		case LinkHDLCDir:
			return d.after(4, b, wire, 2, p)
		case LinkFrameRelayDir:
			return d.frameRelay(b, wire, p)
		}
		return d.ppp(b, wire, p)
	case LinkDSABroadcom, LinkDSA:
		d.setMACs(b, p)
		return d.after(ethernetLen+4, b, wire, ethernetLen+2, p)
	case LinkEDSA:
		d.setMACs(b, p)
		return d.after(ethernetLen+8, b, wire, ethernetLen+6, p)
	case LinkDSAPrepend:
		if len(b) < 4 {
			return short(wire, 4)
		}
		d.setMACs(b[4:], p)
		return d.ethernet(b[4:], wire-4, p)
	case LinkPPPoE:
		return d.pppoe(b, wire, p)
	case LinkATM:
		return d.llc(b, wire, p)
	case LinkMPLS:
		return d.mpls(b, wire, p)
	case LinkIEEE80211:
		return d.wifi(b, wire, p)
	case LinkRadioTap:
		return d.radiotap(b, wire, p)
	case LinkPrism:
		return d.prism(b, wire, p)
	case LinkAVS:
		return d.avs(b, wire, p)
	case LinkPFLog:
		return d.pflog(b, wire, p)
	case LinkPPI:
		return d.ppi(b, wire, p)
	case LinkPKTAP:
		return d.pktap(b, wire, p)
	case LinkNFLog:
		return d.nflog(b, wire, p)
	}
	return capture.LossLinkType
}

// frameRelay reads a Q.922 address of 2 to 4 octets, and what RFC 2427 §4 puts behind it, or, as Cisco does, an EtherType.
func (d *Decoder) frameRelay(b []byte, wire int, p *capture.Packet) capture.LossReason {
	const ui, nlpidSNAP, nlpidIPv4, nlpidIPv6 = 0x03, 0x80, 0xcc, 0x8e
	n := 0
	for n < 4 && n < len(b) && b[n]&1 == 0 { // the last octet has the bit
		n++
	}
	n++
	if len(b) < n+2 {
		return short(wire, n+2)
	}
	if b, wire = b[n:], wire-n; b[0] != ui {
		return d.after(2, b, wire, 0, p)
	}
	b, wire = b[1:], wire-1
	if b[0] == 0 && len(b) > 1 { // a pad
		b, wire = b[1:], wire-1
	}
	switch b[0] {
	case nlpidIPv4:
		return d.ip4(b[1:], wire-1, p)
	case nlpidIPv6:
		return d.ip6(b[1:], wire-1, p)
	case nlpidSNAP:
		if len(b) < 6 {
			return short(wire, 6)
		}
		if b[1]|b[2] == 0 && b[3] == 0 {
			return d.after(6, b, wire, 4, p)
		}
	}
	return capture.LossNotIP
}

// after reads a header of n bytes that has an EtherType at typeAt.
func (d *Decoder) after(n int, b []byte, wire, typeAt int, p *capture.Packet) capture.LossReason {
	if len(b) < n {
		return short(wire, n)
	}
	return d.ether(be16(b[typeAt:]), b[n:], wire-n, p)
}

// Linux cooked packet types (packet(7), sll_pkttype).
const (
	sllHost     = 0
	sllOutgoing = 4
)

// sllDirection of a packet of type t on a device of type arphrd. On the loopback interface every packet is sent and
// received by the same host.
func sllDirection(t, arphrd uint16) capture.Direction {
	if arphrd == arphrdLoopback {
		return capture.DirOther
	}
	switch t {
	case sllHost:
		return capture.DirInbound
	case sllOutgoing:
		return capture.DirOutbound
	}
	return capture.DirOther
}

// sllMAC hashes the link-layer address in its field of 8 bytes, of which n are
// used, and the interface.
func sllMAC(b []byte, n int, ifindex uint32) uint32 {
	x := binary.LittleEndian.Uint64(b)
	if n < 8 {
		x &= 1<<(8*n) - 1
	}
	return hash12(x, ifindex)
}

// Lengths of the cooked headers and protocol values of theirs that are no EtherTypes.
const (
	sllLen      = 16
	sll2Len     = 20
	sllLLC      = 0x0004 // LINUX_SLL_P_802_2
	etherTypeLo = 0x0600 // IEEE 802.3 §3.2.6: below are lengths
	arphrdNL    = 824    // ARPHRD_NETLINK: the protocol is a netlink family

	arphrdLoopback = 772 // ARPHRD_LOOPBACK (linux/if_arp.h)
)

func (d *Decoder) sll(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < sllLen {
		return short(wire, sllLen)
	}
	h := (*[sllLen]byte)(b)
	p.Dir = sllDirection(be16(h[0:]), be16(h[2:]))
	p.MACs = sllMAC(h[6:14], int(be16(h[4:])), 0)
	return d.sllPayload(be16(h[2:]), be16(h[14:]), b[sllLen:], wire-sllLen, p)
}

func (d *Decoder) sll2(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < sll2Len {
		return short(wire, sll2Len)
	}
	h := (*[sll2Len]byte)(b)
	p.Dir = sllDirection(uint16(h[10]), be16(h[8:]))
	p.MACs = sllMAC(h[12:20], int(h[11]), be32(h[4:]))
	return d.sllPayload(be16(h[8:]), be16(h[0:]), b[sll2Len:], wire-sll2Len, p)
}

func (d *Decoder) sllPayload(arphrd, proto uint16, b []byte, wire int, p *capture.Packet) capture.LossReason {
	switch {
	case arphrd == arphrdNL:
		return capture.LossNotIP
	case proto >= etherTypeLo:
		return d.ether(proto, b, wire, p)
	case proto == sllLLC:
		return d.llc(b, wire, p)
	}
	return capture.LossNotIP
}

// Address families as loopback headers have them; IPv6 has a number of its own on
// Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
const (
	afINET        = 2
	afINET6Linux  = 10
	afINET6BSD    = 24
	afINET6FBSD   = 28
	afINET6Darwin = 30
)

// loopback reads the 4-byte address family. Its byte order is that of the machine
// that captured; families are small, so the value says which it is.
func (d *Decoder) loopback(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < 4 {
		return short(wire, 4)
	}
	family := binary.LittleEndian.Uint32(b)
	if family > 0xffff {
		family = be32(b)
	}
	return d.family(family, b[4:], wire-4, p)
}

func (d *Decoder) family(family uint32, b []byte, wire int, p *capture.Packet) capture.LossReason {
	switch family {
	case afINET, etherIPv4:
		return d.ip4(b, wire, p)
	case afINET6Linux, afINET6BSD, afINET6FBSD, afINET6Darwin, etherIPv6:
		return d.ip6(b, wire, p)
	}
	return capture.LossNotIP
}

// ppi reads a per-packet information header (CACE Technologies, PPI 1.0.10 §2).
func (d *Decoder) ppi(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < 8 {
		return short(wire, 8)
	}
	return d.relink(binary.LittleEndian.Uint32(b[4:]), int(binary.LittleEndian.Uint16(b[2:])), 8, b, wire, p)
}

// pktap reads a Darwin pktap_header (xnu, bsd/net/pktap.h): length, kind, link
// type, interface name, flags.
func (d *Decoder) pktap(b []byte, wire int, p *capture.Packet) capture.LossReason {
	const upToFlags = 40
	if len(b) < upToFlags {
		return short(wire, upToFlags)
	}
	switch binary.LittleEndian.Uint32(b[36:]) & 3 { // PTH_FLAG_DIR_IN, PTH_FLAG_DIR_OUT
	case 1:
		p.Dir = capture.DirInbound
	case 2:
		p.Dir = capture.DirOutbound
	}
	return d.relink(binary.LittleEndian.Uint32(b[8:]), int(binary.LittleEndian.Uint32(b)), upToFlags, b, wire, p)
}

// relink skips a header of n bytes that names the link type that follows.
func (d *Decoder) relink(linkType uint32, n, least int, b []byte, wire int, p *capture.Packet) capture.LossReason {
	if n < least || n > wire {
		return capture.LossMalformed
	}
	if n > len(b) {
		return capture.LossTruncated
	}
	if linkType > 0xffff {
		return capture.LossLinkType
	}
	if !d.step() {
		return capture.LossNesting
	}
	if linkType == LinkEthernet {
		d.setMACs(b[n:], p)
	}
	return d.link(uint16(linkType), b[n:], wire-n, p)
}

// setMACs hashes the addresses of an Ethernet header.
func (d *Decoder) setMACs(b []byte, p *capture.Packet) {
	if len(b) >= 12 {
		p.MACs = hash12(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]))
		p.DstMAC, p.SrcMAC = binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[8:])
	}
}

// nflog reads a netfilter log packet: family, version, resource, then TLVs in host
// byte order, of which type 9 is the packet (LINKTYPE_NFLOG, NFULA_PAYLOAD).
func (d *Decoder) nflog(b []byte, wire int, p *capture.Packet) capture.LossReason {
	const header, payload = 4, 9
	if len(b) < header {
		return short(wire, header)
	}
	family := uint32(b[0])
	b, wire = b[header:], wire-header
	for len(b) >= 4 {
		l, t := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if l < 4 {
			return capture.LossMalformed
		}
		if t&0x7fff == payload {
			return d.family(family, b[4:], min(wire, l)-4, p)
		}
		l = (l + 3) &^ 3
		if l > len(b) {
			return short(wire, l)
		}
		b, wire = b[l:], wire-l
	}
	return capture.LossNotIP
}
