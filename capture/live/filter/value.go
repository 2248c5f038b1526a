package filter

import (
	"strings"

	"golang.org/x/net/bpf"
)

// value reads the number, range, address or network that the qualifiers q apply to.
func (p *parser) value(q qualifiers) (node, error) {
	t := p.take()
	var build func(layout) *cond
	var err error
	switch q.kind {
	case "port", "portrange":
		build, err = p.ports(t, q)
	default:
		build, err = p.address(t, q)
	}
	if err != nil {
		return node{}, err
	}
	vlans := p.vlans
	return node{func(l layout) *cond { return build(l.after(vlans)) }, q}, nil
}

func (p *parser) ports(t token, q qualifiers) (func(layout) *cond, error) {
	var protos []uint32
	switch q.proto {
	case "":
		protos = []uint32{protoSCTP, protoTCP, protoUDP}
	case "tcp":
		protos = []uint32{protoTCP}
	case "udp":
		protos = []uint32{protoUDP}
	case "sctp":
		protos = []uint32{protoSCTP}
	default:
		return nil, p.errorf(t, "%s has no ports", q.proto)
	}
	lo, hi, isRange := strings.Cut(t.text, "-")
	if !isRange {
		hi = lo
	} else if q.kind == "port" {
		return nil, p.errorf(t, "a range of ports is written portrange %s", t.text)
	}
	var r ports
	var ok, ok2 bool
	r.lo, ok = number(lo, 0xffff)
	r.hi, ok2 = number(hi, 0xffff)
	if !ok || !ok2 {
		return nil, p.errorf(t, "a port is a number from 0 to 65535; names are not looked up")
	}
	if r.lo > r.hi {
		r.lo, r.hi = r.hi, r.lo
	}
	return func(l layout) *cond { return port(l, protos, q.dir, r) }, nil
}

func (p *parser) address(t token, q qualifiers) (func(layout) *cond, error) {
	isNet := q.kind == "net"
	addr, length, hasLength := strings.Cut(t.text, "/")
	switch {
	case protocols[q.proto] != nil && q.proto != "ip" && q.proto != "ip6" && q.proto != "arp" && q.proto != "rarp":
		return nil, p.errorf(t, `%s has no addresses: write "%s and host ADDRESS"`, q.proto, q.proto)
	case hasLength && !isNet:
		return nil, p.errorf(t, "a network is written net %s", t.text)
	}
	if w, ok := words(addr); ok {
		return p.address6(t, q, w, length, hasLength)
	}
	a, bits, ok := quad(addr)
	if !ok {
		return nil, p.errorf(t, "no address; names are not looked up")
	}
	if q.proto == "ip6" {
		return nil, p.errorf(t, "an IPv4 address after ip6")
	}
	if bits < 32 && !isNet {
		return nil, p.errorf(t, "an IPv4 address has four numbers")
	}
	if hasLength && bits == 8 {
		return nil, p.errorf(t, "write the network as %d.0.0.0/%s", a>>24, length)
	}
	if hasLength {
		n, ok := number(length, 32)
		if !ok {
			return nil, p.errorf(t, "a prefix length is a number from 0 to 32")
		}
		bits = int(n)
	}
	pre := prefix4{a, mask32(bits)}
	if isNet && !hasLength && p.peek().is("mask") {
		p.take()
		m := p.take()
		mask, n, ok := uint32(0), 0, false
		if m.kind == tokenWord {
			mask, n, ok = quad(m.text)
		}
		if !ok || n != 32 {
			return nil, p.errorf(m, "expected a mask such as 255.255.0.0")
		}
		pre.mask = mask
	}
	if pre.addr&^pre.mask != 0 {
		return nil, p.errorf(t, "the address has bits outside the network's mask")
	}
	types := map[string][]uint32{"": {etherIPv4, etherARP, etherRARP}, "ip": {etherIPv4}, "arp": {etherARP}, "rarp": {etherRARP}}[q.proto]
	return func(l layout) *cond {
		c := no
		for _, e := range types {
			c = or(c, host4(l, e, q.dir, pre))
		}
		return c
	}, nil
}

func (p *parser) address6(t token, q qualifiers, w [4]uint32, length string, hasLength bool) (func(layout) *cond, error) {
	if q.proto != "" && q.proto != "ip6" {
		return nil, p.errorf(t, "an IPv6 address after %s", q.proto)
	}
	bits := uint32(128)
	if hasLength {
		var ok bool
		if bits, ok = number(length, 128); !ok {
			return nil, p.errorf(t, "a prefix length is a number from 0 to 128")
		}
	}
	pre := prefix6{addr: w}
	for i := range pre.mask {
		pre.mask[i] = mask32(min(max(int(bits)-32*i, 0), 32))
		if w[i]&^pre.mask[i] != 0 {
			return nil, p.errorf(t, "the address has bits outside the network's mask")
		}
	}
	return func(l layout) *cond { return host6(l, q.dir, pre) }, nil
}

func mask32(bits int) uint32 { return ^uint32(0) << (32 - bits) } // a shift by 32 gives 0

// constants are names for numbers in comparisons (pcap-filter(7)).
var constants = map[string]uint32{
	"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08, "tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129,
	"tcpflags": 13, "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1,
}

var relations = map[string]bpf.JumpTest{
	"=": bpf.JumpEqual, "==": bpf.JumpEqual, "!=": bpf.JumpNotEqual,
	">": bpf.JumpGreaterThan, "<": bpf.JumpLessThan, ">=": bpf.JumpGreaterOrEqual, "<=": bpf.JumpLessOrEqual,
}

// bytes reads a comparison after the name of its protocol.
func (p *parser) bytes(proto token) (node, error) {
	b := bytes{proto: proto.text, size: 1, mask: allBits}
	switch proto.text {
	case "arp", "rarp":
		return node{}, p.errorf(proto, "bytes of %s cannot be compared", proto.text)
	}
	open := p.take()
	inside := ""
	for !p.peek().is("]") {
		t := p.take()
		if t.kind != tokenWord {
			return node{}, p.errorf(t, "expected an offset, with or without a size, and ]")
		}
		inside += t.text
	}
	p.take()
	offset, size, hasSize := strings.Cut(inside, ":")
	var ok bool
	if b.offset, ok = constantOr(offset, 0xffff); !ok {
		return node{}, p.errorf(open, "an offset is a number from 0 to 65535, or tcpflags, icmptype, icmpcode, icmp6type, icmp6code")
	}
	if hasSize {
		n, ok := number(size, 4)
		if !ok || n != 1 && n != 2 && n != 4 {
			return node{}, p.errorf(open, "a size is 1, 2 or 4 bytes")
		}
		b.size = int(n)
	}
	var err error
	if p.accept("&") {
		if b.mask, err = p.sum(false); err != nil {
			return node{}, err
		}
	}
	relation := p.take()
	if b.test, ok = relations[relation.text]; !ok || relation.kind != tokenSign {
		return node{}, p.errorf(relation, "expected a comparison (=, !=, <, >, <=, >=); flags are joined as in & (tcp-syn|tcp-fin)")
	}
	if b.with, err = p.sum(true); err != nil {
		return node{}, err
	}
	vlans := p.vlans
	return node{build: func(l layout) *cond { return b.under(l.after(vlans)) }}, nil
}

// sum reads a number or several joined by |, which need parentheses unless open says that nothing binds closer.
func (p *parser) sum(open bool) (uint32, error) {
	closing := p.accept("(")
	total := uint32(0)
	for {
		t := p.take()
		n, ok := uint32(0), false
		if t.kind == tokenWord {
			n, ok = constantOr(t.text, 0xffffffff)
		}
		if !ok {
			return 0, p.errorf(t, "expected a number or the name of a flag")
		}
		total |= n
		if !closing && !open || !p.accept("|") {
			break
		}
	}
	if closing && !p.accept(")") {
		return 0, p.errorf(p.peek(), "expected | or a closing parenthesis")
	}
	return total, nil
}

// constantOr reads a name or a number.
func constantOr(s string, limit uint32) (uint32, bool) {
	if n, ok := constants[s]; ok {
		return n, n <= limit
	}
	return number(s, limit)
}
