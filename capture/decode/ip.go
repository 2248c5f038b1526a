package decode

import (
	"encoding/binary"

	"jindan/capture"
)

// IP protocol numbers (IANA protocol-numbers) besides those of package capture.
const (
	protoHopByHop = 0
	protoIPv4     = 4
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoNoNext   = 59
	protoDstOpts  = 60
	protoEtherIP  = 97
	protoMobility = 135
	protoMPLS     = 137
	protoHIP      = 139
	protoShim6    = 140
	protoEthernet = 143
)

// ip4Fragment masks MF and the fragment offset (RFC 791 §3.1).
const ip4Fragment = 0x3fff

// set4 stores an IPv4-mapped address: 10 zero bytes, ff ff, IPv4 (RFC 4291 §2.5.5.2).
// a is zero before.
func set4(a *capture.Addr, b []byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
}

// ip4 reads an IPv4 packet. wire is the length on the wire from here on, which
// counts only where the header does not know better.
func (d *Decoder) ip4(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < ip4Len {
		return short(wire, ip4Len)
	}
	h := (*[ip4Len]byte)(b)
	hl := int(h[0]&0x0f) * 4
	total := int(be16(h[2:]))
	if h[0]>>4 != 4 || hl < ip4Len {
		return d.not4(b, wire, p)
	}
	if total < hl {
		// Segmentation offload and BIG TCP: the host hands down packets that the field
		// cannot hold or that the card has yet to cut, with a length of 0.
		if total != 0 || wire < hl {
			return capture.LossMalformed
		}
		total = wire
	}
	if total > wire && d.trim {
		if total = wire; total < hl {
			return capture.LossMalformed
		}
	}
	if d.ips > 0 {
		if r := d.inner(total, wire); r != capture.LossNone {
			return r
		}
		p.Src.Addr, p.Dst.Addr, p.IPv6 = capture.Addr{}, capture.Addr{}, false
	}
	d.ips++
	d.trim = false
	set4(&p.Src.Addr, h[12:16])
	set4(&p.Dst.Addr, h[16:20])
	p.IPLen = uint32(total)
	p.IPID = be16(h[4:])
	p.TTL = h[8]
	if len(b) > total {
		b = b[:total] // Ethernet padding, frame check sequence, trailers
	}
	if len(b) < hl {
		return capture.LossTruncated
	}
	b, n := b[hl:], total-hl
	if ff := be16(h[6:]); ff&ip4Fragment != 0 {
		f := fragment{off: int(ff&0x1fff) * 8, more: ff&0x2000 != 0, id: uint32(p.IPID), proto: h[9], n: n, header: hl}
		return d.reassemble(&f, b, p)
	}
	if h[9] == capture.ProtoTCP {
		return d.tcp(b, n, p)
	}
	return d.transport(h[9], b, n, p)
}

// inner says whether an IP packet of total bytes may be entered inside another one,
// of which room bytes are left: it cannot be longer than its envelope. p is not
// changed before this is known, so that a tunnel that turns out to be none leaves the
// outer packet intact.
func (d *Decoder) inner(total, room int) capture.LossReason {
	if total > room {
		return capture.LossMalformed
	}
	if d.ips >= maxIPHeaders {
		return capture.LossNesting
	}
	return capture.LossNone
}

// not4 handles what was announced as IPv4 and is not: some writers announce IPv6
// so, and receivers go by the version field.
func (d *Decoder) not4(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if b[0]>>4 == 6 {
		return d.ip6(b, wire, p)
	}
	return capture.LossMalformed
}

// ip reads an IP packet of the version that its first byte states.
func (d *Decoder) ip(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) == 0 {
		return short(wire, 1)
	}
	switch b[0] >> 4 {
	case 4:
		return d.ip4(b, wire, p)
	case 6:
		return d.ip6(b, wire, p)
	}
	return capture.LossNotIP
}

// ip6 reads an IPv6 packet (RFC 8200 §3).
func (d *Decoder) ip6(b []byte, wire int, p *capture.Packet) capture.LossReason {
	if len(b) < ip6Len {
		return short(wire, ip6Len)
	}
	h := (*[ip6Len]byte)(b)
	if h[0]>>4 != 6 {
		if h[0]>>4 == 4 {
			return d.ip4(b, wire, p)
		}
		return capture.LossMalformed
	}
	n := int(be16(h[4:]))
	next := h[6]
	rest := b[ip6Len:]
	if n == 0 {
		// A jumbogram says its length in a hop-by-hop option (RFC 2675 §2); without
		// one, 0 comes from segmentation offload. No next header: it is empty.
		n = max(wire-ip6Len, 0)
		if next == protoNoNext {
			n = 0
		}
		if next == protoHopByHop {
			if j := jumbo(rest); j > 0 {
				n = j
			}
		}
	}
	if n > wire-ip6Len && d.trim {
		if n = wire - ip6Len; n < 0 {
			return capture.LossMalformed
		}
	}
	if d.ips > 0 {
		if r := d.inner(ip6Len+n, wire); r != capture.LossNone {
			return r
		}
	}
	d.ips++
	d.trim = false
	p.Src.Addr = capture.Addr(h[8:24])
	p.Dst.Addr = capture.Addr(h[24:40])
	p.IPv6 = true
	p.IPID = 0
	p.TTL = h[7]
	p.IPLen = uint32(ip6Len + n)
	if len(rest) > n {
		rest = rest[:n]
	}
	if next == capture.ProtoTCP {
		return d.tcp(rest, n, p)
	}
	return d.ip6Chain(next, rest, n, ip6Len, p)
}

// ip6Chain walks the extension headers (RFC 8200 §4) up to the transport header.
// Every header takes 8 bytes or more of b, so the walk ends. before is the
// length of the headers that were read already, in bytes.
func (d *Decoder) ip6Chain(next uint8, b []byte, n, before int, p *capture.Packet) capture.LossReason {
	for {
		var l int // length of this extension header
		switch next {
		case protoHopByHop, protoRouting, protoDstOpts, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return short(n, 8)
			}
			l = (int(b[1]) + 1) * 8
		case protoAH:
			if len(b) < 8 {
				return short(n, 8)
			}
			l = (int(b[1]) + 2) * 4 // RFC 4302 §2.2: in 32-bit words, less 2
		case protoFragment:
			if len(b) < 8 {
				return short(n, 8)
			}
			ff := be16(b[2:])
			nh := b[0]
			if ff&0xfff9 != 0 {
				f := fragment{off: int(ff & 0xfff8), more: ff&1 != 0, id: be32(b[4:]), proto: nh, n: n - 8, header: before, v6: true}
				return d.reassemble(&f, b[8:], p)
			}
			next, l = nh, 8 // an atomic fragment is a whole packet (RFC 6946)
			b, n, before = b[l:], n-l, before+l
			continue
		default:
			return d.transport(next, b, n, p)
		}
		if l > n {
			return capture.LossMalformed
		}
		if l > len(b) {
			return capture.LossTruncated
		}
		next = b[0]
		b, n, before = b[l:], n-l, before+l
	}
}

// jumbo finds the Jumbo Payload option (RFC 2675 §2: type 0xc2, 4 bytes) in a
// hop-by-hop header and returns the payload length, or 0.
func jumbo(b []byte) int {
	if len(b) < 8 {
		return 0
	}
	b = b[2:min(len(b), (int(b[1])+1)*8)]
	for len(b) >= 2 {
		switch {
		case b[0] == 0: // Pad1 has no length
			b = b[1:]
			continue
		case b[0] == 0xc2 && b[1] == 4 && len(b) >= 6:
			if v := binary.BigEndian.Uint32(b[2:]); v > 65535 && v <= 1<<31-1-ip6Len {
				return int(v)
			}
			return 0
		}
		l := 2 + int(b[1])
		if l > len(b) {
			return 0
		}
		b = b[l:]
	}
	return 0
}
