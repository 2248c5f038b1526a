package filter

import "golang.org/x/net/bpf"

// direction is a qualifier on which end of a packet is meant.
type direction uint8

const (
	either direction = iota // "src or dst", and where nothing is said
	source
	destination
	both
)

// ends joins the conditions on source and destination.
func (d direction) ends(end func(dst bool) *cond) *cond {
	switch d {
	case source:
		return end(false)
	case destination:
		return end(true)
	case both:
		return and(end(false), end(true))
	}
	return or(end(false), end(true))
}

func pick(dst bool, s, d uint32) uint32 {
	if dst {
		return d
	}
	return s
}

// protocol is "tcp", "udp", "icmp" and so on by themselves: a protocol number in IPv4, IPv6 or both. In IPv6 it is that
// of the first header, or of what follows a fragment header at the first place.
func protocol(l layout, p uint32, in4, in6 bool) *cond {
	c := no
	if in4 {
		c = and(l.ip4(), l.ip4Proto(p))
	}
	if in6 {
		fragment := and(l.ip6Next(protoFrag6), l.field(ip6Len, 1, allBits, bpf.JumpEqual, p))
		c = or(c, and(l.ip6(), or(l.ip6Next(p), fragment)))
	}
	return c
}

// prefix4 is an IPv4 address or network.
type prefix4 struct{ addr, mask uint32 }

// host4 compares addresses of the packets of one EtherType.
func host4(l layout, etherType uint32, d direction, p prefix4) *cond {
	src, dst := uint32(ip4Src), uint32(ip4Dst)
	if etherType != etherIPv4 {
		src, dst = arpSrc, arpDst
	}
	return and(l.etherType(etherType), d.ends(func(isDst bool) *cond {
		return l.field(pick(isDst, src, dst), 4, p.mask, bpf.JumpEqual, p.addr)
	}))
}

// prefix6 is an IPv6 address or network, in words.
type prefix6 struct{ addr, mask [4]uint32 }

func host6(l layout, d direction, p prefix6) *cond {
	return and(l.ip6(), d.ends(func(isDst bool) *cond {
		c := yes
		for i, mask := range p.mask {
			c = and(c, l.field(pick(isDst, ip6Src, ip6Dst)+4*uint32(i), 4, mask, bpf.JumpEqual, p.addr[i]))
		}
		return c
	}))
}

// ports is a range of port numbers.
type ports struct{ lo, hi uint32 }

func (p ports) of(port func(test bpf.JumpTest, with uint32) *cond) *cond {
	if p.lo == p.hi {
		return port(bpf.JumpEqual, p.lo)
	}
	return and(port(bpf.JumpGreaterOrEqual, p.lo), port(bpf.JumpLessOrEqual, p.hi))
}

// port compares the ports of the protocols; in IPv6 only where the transport header comes first.
func port(l layout, protos []uint32, d direction, p ports) *cond {
	is6, is4 := no, no
	for _, n := range protos {
		is6, is4 = or(is6, l.ip6Next(n)), or(is4, l.ip4Proto(n))
	}
	ends6 := d.ends(func(dst bool) *cond {
		return p.of(func(test bpf.JumpTest, with uint32) *cond {
			return l.field(ip6Len+pick(dst, 0, 2), 2, allBits, test, with)
		})
	})
	ends4 := d.ends(func(dst bool) *cond {
		return p.of(func(test bpf.JumpTest, with uint32) *cond {
			return l.transport4(pick(dst, 0, 2), 2, allBits, test, with)
		})
	})
	return or(and(l.ip6(), and(is6, ends6)), and(l.ip4(), and(is4, and(not(l.laterFragment()), ends4))))
}

// vlan says that a packet carries a tag, behind as many as "vlan" was said before, and, unless id is negative, that it is of
// this network.
func vlan(l layout, before uint32, id int) *cond {
	const idMask = 0xfff // IEEE 802.1Q §9.6
	switch {
	case l.raw:
		return no
	case l.held && before == 0:
		if id < 0 {
			return yes
		}
		return extension(bpf.ExtVLANTag, idMask, bpf.JumpEqual, uint32(id))
	}
	l = l.after(before)
	if id < 0 {
		return l.tagged()
	}
	return and(l.tagged(), l.field(0, 2, idMask, bpf.JumpEqual, uint32(id)))
}

// bytes is what an expression like "tcp[13] & 2 != 0" compares.
type bytes struct {
	proto  string
	offset uint32
	size   int
	mask   uint32
	test   bpf.JumpTest
	with   uint32
}

func (b bytes) under(l layout) *cond {
	switch b.proto {
	case "ip", "ip6":
		return and(b.present(l), l.field(b.offset, b.size, b.mask, b.test, b.with))
	case "icmp6":
		return and(b.present(l), l.field(ip6Len+b.offset, b.size, b.mask, b.test, b.with))
	}
	return and(b.present(l), l.transport4(b.offset, b.size, b.mask, b.test, b.with))
}

// present says that a packet has the header.
func (b bytes) present(l layout) *cond {
	switch b.proto {
	case "ip":
		return l.ip4()
	case "ip6":
		return l.ip6()
	case "icmp6":
		return and(l.ip6(), l.ip6Next(protoICMPv6))
	}
	n := map[string]uint32{"tcp": protoTCP, "udp": protoUDP, "icmp": protoICMP, "sctp": protoSCTP}[b.proto]
	return and(l.ip4(), and(l.ip4Proto(n), not(l.laterFragment())))
}
