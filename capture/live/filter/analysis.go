package filter

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/net/bpf"
)

// maxTags is how many VLAN tags in a packet Default and Sample look behind, besides one that the kernel holds.
const maxTags = 2

// Default keeps what jindan analyses: TCP; DNS over UDP port 53 and the further dnsPorts; ICMP and ICMPv6 errors. Later fragments of
// UDP and ICMP do not say what they belong to and are all kept. Of IPv6 extension headers one is
// followed, and a fragment header after nothing else. Packets inside tunnels are kept by what their outermost IP header says.
func Default(dnsPorts ...uint16) *Expr {
	return &Expr{build: func(l layout) *cond {
		return l.perVersion(0, no,
			func(l layout) *cond { return default4(l, dnsPorts) },
			func(l layout) *cond { return default6(l, dnsPorts) })
	}}
}

// perVersion applies four to IPv4 and six to IPv6 packets, also behind tags.
func (l layout) perVersion(tags int, other *cond, four, six func(layout) *cond) *cond {
	rest := other
	if tags < maxTags && !l.raw {
		rest = choose(l.tagged(), l.inside().perVersion(tags+1, other, four, six), other)
	}
	return choose(l.ip4(), four(l), choose(l.ip6(), six(l), rest))
}

// inside is the layout behind a tag that stands in the packet.
func (l layout) inside() layout {
	l.tags++
	return l
}

const (
	portDNS = 53 // RFC 1035 §4.2
	// ICMPv6 types below are errors (RFC 4443 §2.1).
	icmp6Informational = 128
)

// icmp4Errors are destination unreachable, source quench, redirect, time exceeded and parameter problem (RFC 792).
var icmp4Errors = []uint32{3, 4, 5, 11, 12}

func default4(l layout, dnsPorts []uint16) *cond {
	udp := anyDNS(dnsPorts, func(dst, p uint32) *cond { return l.transport4(dst, 2, allBits, bpf.JumpEqual, p) })
	icmp := no
	for _, t := range icmp4Errors {
		icmp = or(icmp, l.transport4(0, 1, allBits, bpf.JumpEqual, t))
	}
	return or(l.ip4Proto(protoTCP),
		choose(l.ip4Proto(protoUDP), or(l.laterFragment(), udp),
			and(l.ip4Proto(protoICMP), or(l.laterFragment(), icmp))))
}

func default6(l layout, dnsPorts []uint16) *cond {
	// wanted judges a transport header at a fixed place.
	wanted := func(next func(uint32) *cond, at uint32) *cond {
		udp := anyDNS(dnsPorts, func(dst, p uint32) *cond { return l.field(at+dst, 2, allBits, bpf.JumpEqual, p) })
		return choose(next(protoUDP), udp,
			and(next(protoICMPv6), l.field(at, 1, allBits, bpf.JumpLessThan, icmp6Informational)))
	}
	inner := func(p uint32) *cond { return l.field(ip6Len, 1, allBits, bpf.JumpEqual, p) }
	const fragmentLen = 8 // RFC 8200 §4.5
	later := l.field(ip6Len+2, 2, allBits, bpf.JumpBitsSet, fragOffset6)
	fragment := or(inner(protoTCP), choose(later, or(inner(protoUDP), inner(protoICMPv6)), wanted(inner, ip6Len+fragmentLen)))

	// Behind another extension header, whose second byte is its length in units of 8 bytes, less one (RFC 8200 §4.3).
	behind := func(offset uint32, size int, test bpf.JumpTest, with uint32) *cond {
		return masked(allBits, test, with,
			bpf.LoadAbsolute{Off: l.network() + ip6Len + 1, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3},
			bpf.TAX{},
			bpf.LoadIndirect{Off: l.network() + ip6Len + offset, Size: size})
	}
	udp := anyDNS(dnsPorts, func(dst, p uint32) *cond { return behind(dst, 2, bpf.JumpEqual, p) })
	extension := or(or(inner(protoTCP), inner(protoFrag6)),
		choose(inner(protoUDP), udp, and(inner(protoICMPv6), behind(0, 1, bpf.JumpLessThan, icmp6Informational))))
	isExtension := or(l.ip6Next(protoHopOpts), or(l.ip6Next(protoDstOpts), l.ip6Next(protoRouting)))

	return or(l.ip6Next(protoTCP),
		choose(l.ip6Next(protoFrag6), fragment,
			choose(isExtension, extension, wanted(l.ip6Next, ip6Len))))
}

// anyDNS says that one of the ports is a DNS server's.
func anyDNS(further []uint16, port func(offset, with uint32) *cond) *cond {
	c := or(port(0, portDNS), port(2, portDNS))
	for _, p := range further {
		c = or(c, or(port(0, uint32(p)), port(2, uint32(p))))
	}
	return c
}

// MaxSample is the largest argument of Sample.
const MaxSample = 64

// Sample keeps one of n TCP and UDP connections, n a power of 2 up to MaxSample: those whose hash of addresses and ports, the
// same in both directions and on every host, falls into the first n-th. Packets without ports (ICMP, later fragments) or with
// IPv6 extension headers cannot be told apart by connection and are all kept, as is what is not IP.
func Sample(n int) (*Expr, error) {
	if n < 1 || n > MaxSample || n&(n-1) != 0 {
		return nil, fmt.Errorf("one of %d connections cannot be sampled: give a power of 2 up to %d", n, MaxSample)
	}
	if n == 1 {
		return nil, nil
	}
	return &Expr{build: func(l layout) *cond {
		return l.perVersion(0, yes, func(l layout) *cond {
			ports := []bpf.Instruction{bpf.LoadMemShift{Off: l.network()}}
			for _, off := range []uint32{0, 2} {
				ports = append(ports, bpf.LoadIndirect{Off: l.network() + off, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: int(off)})
			}
			hash := sampleHash(n, append(ports, l.sum(ip4Src, 2)...))
			hasPorts := and(or(l.ip4Proto(protoTCP), l.ip4Proto(protoUDP)), not(l.laterFragment()))
			return choose(hasPorts, hash, yes)
		}, func(l layout) *cond {
			var ports []bpf.Instruction
			for _, off := range []uint32{0, 2} {
				ports = append(ports, bpf.LoadAbsolute{Off: l.network() + ip6Len + off, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: int(off)})
			}
			hash := sampleHash(n, append(ports, l.sum(ip6Src, 8)...))
			return choose(or(l.ip6Next(protoTCP), l.ip6Next(protoUDP)), hash, yes)
		})
	}}, nil
}

// sum adds up the words of both addresses in A: the order of the two does not matter.
func (l layout) sum(first uint32, words int) []bpf.Instruction {
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: l.network() + first, Size: 4}}
	for i := 1; i < words; i++ {
		code = append(code, bpf.TAX{},
			bpf.LoadAbsolute{Off: l.network() + first + 4*uint32(i), Size: 4},
			bpf.ALUOpX{Op: bpf.ALUOpAdd})
	}
	return code
}

// sampleHash mixes the sum of the addresses in A with the ports in scratch 0 and 2, by the steps of MurmurHash3's fmix32
// (A. Appleby), and tests the upper bits.
func sampleHash(n int, load []bpf.Instruction) *cond {
	mul := func(k uint32) bpf.Instruction { return bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: k} }
	fold := func(shift uint32) []bpf.Instruction {
		return []bpf.Instruction{bpf.StoreScratch{Src: bpf.RegA, N: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: shift},
			bpf.LoadScratch{Dst: bpf.RegX, N: 1}, bpf.ALUOpX{Op: bpf.ALUOpXor}}
	}
	code := slices.Concat(load, []bpf.Instruction{mul(0x9e3779b1)}) // 2^32 / golden ratio
	for _, i := range []int{0, 2} {
		code = append(code, bpf.LoadScratch{Dst: bpf.RegX, N: i}, bpf.ALUOpX{Op: bpf.ALUOpAdd})
	}
	code = append(code, fold(16)...)
	code = append(code, mul(0x85ebca6b))
	code = append(code, fold(13)...)
	code = append(code, mul(0xc2b2ae35))
	code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: uint32(32 - bits.TrailingZeros(uint(n)))})
	return &cond{op: opTest, load: code, test: bpf.JumpEqual, with: 0}
}
