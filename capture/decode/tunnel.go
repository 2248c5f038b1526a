package decode

import (
	"encoding/binary"

	"jindan/capture"
)

// tunnel reads IP protocols that carry another packet.
func (d *Decoder) tunnel(proto uint8, b []byte, n int, p *capture.Packet) capture.LossReason {
	switch proto {
	case protoIPv4:
		return d.ip4(b, n, p)
	case protoIPv6:
		return d.ip6(b, n, p)
	}
	if !d.step() {
		return capture.LossNesting
	}
	r := capture.LossTransport
	switch proto {
	case protoGRE:
		r = d.gre(b, n, p)
	case protoAH:
		return d.ip6Chain(proto, b, n, int(p.IPLen)-n, p)
	case protoEtherIP:
		r = d.etherIP(b, n, p)
	case protoMPLS:
		r = d.mpls(b, n, p)
	case protoEthernet:
		r = d.ethernet(b, n, p)
	}
	if r == capture.LossNotIP {
		r = capture.LossTransport // the outermost is IP
	}
	return r
}

// grePayload reads what a GRE header announced. seq says whether it had a sequence
// number, which tells ERSPAN type II from type I (draft-foschiano-erspan-03 §4.1).
func (d *Decoder) grePayload(proto uint16, seq bool, b []byte, n int, p *capture.Packet) capture.LossReason {
	switch proto {
	case etherERSPAN2:
		if !seq {
			return d.ethernet(b, n, p)
		}
		return d.erspan2(b, n, p)
	case etherERSPAN3:
		return d.erspan3(b, n, p)
	case etherWCCP:
		// Version 2 puts a 4-byte redirect header first, version 1 does not; a version
		// nibble tells (draft-wilson-wrec-wccp-v2-01 §4.12).
		if len(b) >= 4 && b[0]>>4 != 4 {
			b, n = b[4:], n-4
		}
		return d.ip4(b, n, p)
	}
	if proto <= maxEtherLength {
		return capture.LossNotIP
	}
	if proto&0xff00 == etherAruba {
		return d.wifi(b, n, p)
	}
	return d.ether(proto, b, n, p)
}

// erspan3 reads a type III header (draft-foschiano-erspan-03 §4.3), which gopacket
// does not know: 12 bytes, and 8 more with the O bit.
func (d *Decoder) erspan3(b []byte, n int, p *capture.Packet) capture.LossReason {
	l := 12
	if len(b) < l {
		return short(n, l)
	}
	frameType := b[10] >> 2 & 0x1f
	if b[11]&1 != 0 {
		l += 8
	}
	if len(b) < l {
		return short(n, l)
	}
	if frameType == 2 { // an IP packet without its Ethernet header
		return d.ip(b[l:], n-l, p)
	}
	return d.ethernet(b[l:], n-l, p)
}

// UDP ports of tunnels (IANA service-names, but for vxlanLinux).
const (
	portL2TP     = 1701 // RFC 2661
	portGTPU     = 2152 // 3GPP TS 29.281 §4.4.2
	portTeredo   = 3544 // RFC 4380
	portVXLAN    = 4789 // RFC 7348
	portVXLANGPE = 4790
	portGeneve   = 6081 // RFC 8926
	portMPLS     = 6635 // RFC 7510
	vxlanLinux   = 8472 // Linux's VXLAN port before IANA's; flannel and Cilium still use it
)

// isTunnelPort reports whether a datagram may be a tunnel's. The payload decides.
func isTunnelPort(sport, dport uint16) bool {
	switch dport {
	case portL2TP, portGTPU, portTeredo, portVXLAN, portVXLANGPE, portGeneve, portMPLS, vxlanLinux:
		return true
	}
	return sport == portTeredo || sport == portL2TP // to clients these go back to any port
}

// udpTunnel looks for an IP packet in the payload of a UDP datagram. Unless it
// finds one, p stays as it is and so does d.ips.
func (d *Decoder) udpTunnel(sport, dport uint16, b []byte, n int, p *capture.Packet) capture.LossReason {
	if !d.step() {
		return capture.LossNesting
	}
	switch dport {
	case portVXLAN, vxlanLinux:
		return d.vxlan(b, n, dport == vxlanLinux, p)
	case portVXLANGPE: // draft-ietf-nvo3-vxlan-gpe-12 §3.1: P bit, next protocol
		if len(b) < 8 || b[0]&0xf0 != 0 || b[0]&0x04 == 0 || b[7] != 0 {
			return capture.LossNotIP
		}
		return d.nextProtocol(b[3], b[8:], n-8, p)
	case portGeneve:
		return d.geneve(b, n, p)
	case portGTPU:
		return d.gtpu(b, n, p)
	case portMPLS:
		return d.mpls(b, n, p)
	}
	if sport == portTeredo || dport == portTeredo {
		return d.teredo(b, n, p)
	}
	return d.l2tp(b, n, p)
}

// geneve reads RFC 8926 §3.4. By hand: gopacket's layer takes the option length for
// 4 bits instead of 5 and keeps every option of every packet it ever decoded.
func (d *Decoder) geneve(b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) < 8 || b[0]>>6 != 0 || b[7] != 0 {
		return capture.LossNotIP
	}
	l := 8 + int(b[0]&0x3f)*4
	if l > len(b) {
		return short(n, l)
	}
	proto := be16(b[2:])
	if proto <= maxEtherLength {
		return capture.LossNotIP
	}
	return d.ether(proto, b[l:], n-l, p)
}

// gtpu reads a G-PDU (3GPP TS 29.281 §5.1). By hand: gopacket's layer refuses what
// the snap length cut and allocates for extension headers.
func (d *Decoder) gtpu(b []byte, n int, p *capture.Packet) capture.LossReason {
	const header, gpdu = 8, 255
	if len(b) < header || b[0]&0xf0 != 0x30 || b[1] != gpdu { // version 1, protocol type GTP
		return capture.LossNotIP
	}
	if l := header + int(be16(b[2:])); l <= n {
		n = l
		b = b[:min(len(b), n)]
	} else {
		return capture.LossMalformed
	}
	l := header
	if b[0]&7 != 0 { // any of E, S, PN: the 4 optional bytes are there
		l += 4
		if len(b) < l {
			return short(n, l)
		}
		next := b[l-1]
		for b[0]&4 != 0 && next != 0 {
			if len(b) < l+1 {
				return short(n, l+1)
			}
			e := int(b[l]) * 4 // length in units of 4 bytes; the next type is its last
			if e == 0 {
				return capture.LossMalformed
			}
			l += e
			if len(b) < l {
				return short(n, l)
			}
			next = b[l-1]
		}
	}
	return d.ip(b[l:], n-l, p)
}

// teredoPrefix is 2001::/32 (RFC 4380 §2.6): one end of every tunnelled packet. Only
// qualification uses link-local addresses (§5.2.1).
const teredoPrefix = 0x20010000

func isTeredo(addr []byte) bool {
	return be32(addr) == teredoPrefix || be16(addr) == 0xfe80
}

// teredo reads RFC 4380 §5.1.1: authentication, origin indication, IPv6.
func (d *Decoder) teredo(b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) >= 4 && be16(b) == 1 { // identifier and authenticator lengths, both, nonce, confirmation
		l := 4 + int(b[2]) + int(b[3]) + 8 + 1
		if l > len(b) {
			return short(n, l)
		}
		b, n = b[l:], n-l
	}
	if len(b) >= 8 && be16(b) == 0 {
		b, n = b[8:], n-8
	}
	if len(b) < ip6Len || b[0]>>4 != 6 || !isTeredo(b[8:]) && !isTeredo(b[24:]) {
		return capture.LossNotIP
	}
	return d.ip6(b, n, p)
}

// l2tp reads a data message of RFC 2661 §3.1; the bits of the first word say which
// fields there are.
func (d *Decoder) l2tp(b []byte, n int, p *capture.Packet) capture.LossReason {
	const control, length, sequence, offset = 0x8000, 0x4000, 0x0800, 0x0200
	if len(b) < 6 {
		return short(n, 6)
	}
	w := binary.BigEndian.Uint16(b)
	if w&0x000f != 2 || w&control != 0 {
		return capture.LossNotIP
	}
	l := 6
	if w&length != 0 {
		l += 2
	}
	if w&sequence != 0 {
		l += 4
	}
	if w&offset != 0 {
		l += 2
		if len(b) < l {
			return short(n, l)
		}
		l += int(be16(b[l-2:]))
	}
	if l > len(b) {
		return short(n, l)
	}
	return d.ppp(b[l:], n-l, p)
}
