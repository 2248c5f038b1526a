package decode

import "jindan/capture"

// EtherTypes (IEEE RA registry).
const (
	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100 // IEEE 802.1Q
	etherQinQ     = 0x88a8 // IEEE 802.1ad
	etherQinQOld  = 0x9100 // QinQ before 802.1ad
	etherQinQOld2 = 0x9200
	etherBridge   = 0x6558 // transparent Ethernet bridging (RFC 1701, RFC 7637)
	etherMPLS     = 0x8847 // RFC 5332
	etherMPLSMul  = 0x8848
	etherPPPoE    = 0x8864 // RFC 2516 session stage
	etherPPP      = 0x880b // RFC 2637 §4.1
	etherFabric   = 0x8903 // Cisco FabricPath
	etherMeta     = 0x8909 // Cisco MetaData (TrustSec tag)
	etherVNTag    = 0x8926 // Cisco VN-Tag
	etherETag     = 0x893f // IEEE 802.1BR
	etherNSH      = 0x894f // RFC 8300
	etherPBB      = 0x88e7 // IEEE 802.1ah
	etherWCCP     = 0x883e // WCCPv2 redirect
	etherERSPAN2  = 0x88be
	etherERSPAN3  = 0x22eb
	etherAruba    = 0x8200 // to 0x82ff: IEEE 802.11 from Aruba access points
)

// maxEtherLength is the largest IEEE 802.3 length field in bytes; above it is a type.
const maxEtherLength = 1500

// ethernet reads an Ethernet header inside something else; the addresses that
// identify the capture point are those of the outermost.
func (d *Decoder) ethernet(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if !d.step() {
		return capture.LossNesting
	}
	if len(b) < ethernetLen {
		return short(wire, ethernetLen)
	}
	return d.ether(be16(b[12:]), b[ethernetLen:], wire-ethernetLen, p)
}

// ether reads what follows an EtherType.
func (d *Decoder) ether(etherType uint16, b []byte, wire int, p *capture.Packet) capture.LossReason {
	for {
		switch etherType {
		case etherIPv4:
			return d.ip4(b, wire, p)
		case etherIPv6:
			return d.ip6(b, wire, p)
		case etherVLAN, etherQinQ, etherQinQOld, etherQinQOld2:
			if len(b) < vlanLen {
				return short(wire, vlanLen)
			}
			etherType = be16(b[2:])
			b, wire = b[vlanLen:], wire-vlanLen
		default:
			return d.etherRare(etherType, b, wire, p)
		}
	}
}

func (d *Decoder) etherRare(etherType uint16, b []byte, wire int, p *capture.Packet) capture.LossReason {
	if etherType <= maxEtherLength {
		n := int(etherType)
		return d.llc(b[:min(len(b), n)], min(wire, n), p)
	}
	if !d.step() {
		return capture.LossNesting
	}
	switch etherType {
	case etherMPLS, etherMPLSMul:
		return d.mpls(b, wire, p)
	case etherPPPoE:
		return d.pppoe(b, wire, p)
	case etherPPP:
		return d.ppp(b, wire, p)
	case etherBridge:
		return d.ethernet(b, wire, p)
	case etherVNTag:
		return d.after(6, b, wire, 4, p)
	case etherETag, etherMeta:
		return d.after(8, b, wire, 6, p)
	case etherPBB: // I-TAG TCI, then the customer's Ethernet header
		if len(b) < 4 {
			return short(wire, 4)
		}
		return d.ethernet(b[4:], wire-4, p)
	case etherFabric: // forwarding tag and TTL, then the Ethernet header it was put around
		if len(b) < 2 {
			return short(wire, 2)
		}
		return d.ethernet(b[2:], wire-2, p)
	case etherNSH:
		return d.nsh(b, wire, p)
	}
	return capture.LossNotIP
}

// mpls reads a label stack (RFC 3032 §2.1). What follows has no type: it is told by
// its first nibble, and Ethernet pseudowires (RFC 4448 §4.6: with a control word, whose
// nibble is 0, or without) only by an IP packet found inside.
func (d *Decoder) mpls(b []byte, wire int, p *capture.Packet) capture.LossReason {
	for {
		if len(b) < 4 {
			return short(wire, 4)
		}
		bottom := b[2]&1 != 0
		b, wire = b[4:], wire-4
		if bottom {
			break
		}
	}
	if len(b) == 0 {
		return short(wire, 1)
	}
	outer, r := d.ips, capture.LossNotIP
	switch b[0] >> 4 {
	case 4:
		r = d.ip4(b, wire, p)
	case 6:
		r = d.ip6(b, wire, p)
	case 0:
		if len(b) >= 4 {
			r = d.ethernet(b[4:], wire-4, p)
		}
	case 1:
		return capture.LossNotIP // associated channel (RFC 5586)
	}
	if d.ips == outer && r != capture.LossNesting {
		r = d.ethernet(b, wire, p)
	}
	if d.ips == outer && r != capture.LossNesting {
		return capture.LossNotIP
	}
	return r
}

// pppoe reads a session header (RFC 2516 §4).
func (d *Decoder) pppoe(b []byte, wire int, p *capture.Packet) capture.LossReason {
	const header = 6
	if len(b) < header {
		return short(wire, header)
	}
	if b[0] != 0x11 || b[1] != 0 { // version 1, type 1; code 0 is data
		return capture.LossNotIP
	}
	// The length field bounds what follows, padding of short frames that some devices
	// count into the IP length included; receivers trim to it as well.
	n := int(be16(b[4:]))
	b, wire = b[header:], min(wire-header, n)
	d.trim = true
	return d.ppp(b[:min(len(b), n)], wire, p)
}

// PPP protocol numbers (IANA ppp-numbers).
const (
	pppIPv4   = 0x0021
	pppIPv6   = 0x0057
	pppBridge = 0x0031 // RFC 3518
	pppMPLS   = 0x0281
)

// ppp reads a PPP header, with address and control or without, and the protocol in
// one byte or two (RFC 1661 §2, §6.5; RFC 1662 §3.1).
func (d *Decoder) ppp(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b, wire = b[2:], wire-2
	}
	if len(b) < 2 {
		return short(wire, 2)
	}
	proto, l := be16(b), 2
	if b[0]&1 != 0 {
		proto, l = uint16(b[0]), 1
	}
	b, wire = b[l:], wire-l
	switch proto {
	case pppIPv4:
		return d.ip4(b, wire, p)
	case pppIPv6:
		return d.ip6(b, wire, p)
	case pppMPLS:
		return d.mpls(b, wire, p)
	case pppBridge:
		if len(b) < 2 {
			return short(wire, 2)
		}
		if b[1] == 1 { // RFC 3518 §4.1: MAC type 1, Ethernet
			return d.ethernet(b[2:], wire-2, p)
		}
	}
	return capture.LossNotIP
}

// nsh reads a Network Service Header (RFC 8300 §2.2).
func (d *Decoder) nsh(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < 4 {
		return short(wire, 4)
	}
	l := int(be16(b)&0x3f) * 4
	if l < 8 {
		return capture.LossMalformed
	}
	if l > len(b) {
		return short(wire, l)
	}
	return d.nextProtocol(b[3], b[l:], wire-l, p)
}

// nextProtocol is the numbering that NSH and VXLAN-GPE share (IANA nsh).
func (d *Decoder) nextProtocol(next uint8, b []byte, wire int, p *capture.Packet) capture.LossReason {
	if !d.step() {
		return capture.LossNesting
	}
	switch next {
	case 1:
		return d.ip4(b, wire, p)
	case 2:
		return d.ip6(b, wire, p)
	case 3:
		return d.ethernet(b, wire, p)
	case 4:
		return d.nsh(b, wire, p)
	case 5:
		return d.mpls(b, wire, p)
	}
	return capture.LossNotIP
}
