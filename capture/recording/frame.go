package recording

import (
	"encoding/binary"

	"jindan/capture"
)

// Lengths of headers in bytes.
const (
	etherLen  = 14
	ip4Len    = 20
	ip6Len    = 40
	tcpLen    = 20
	udpLen    = 8
	icmpLen   = 8
	maxIP4    = 60    // with options
	maxTCP    = 60    // with options
	maxLength = 65535 // that the 16-bit length fields of IP and UDP hold
	maxData   = 65535 // of payload kept with a packet
	maxDstOpt = 2048  // RFC 8200 §4.6: Hdr Ext Len counts 8 octets, 255 at most beyond the first
	maxWire   = 1<<31 - 1
	portDNS   = 53
	hopByHop  = 0  // IPv6 hop-by-hop options header
	dstOpts   = 60 // IPv6 destination options header
	jumboLen  = 8  // a hop-by-hop header with a Jumbo Payload option (RFC 2675 §2)
)

// layout says how the headers of a packet are rebuilt.
type layout struct {
	ip        int // length of the IP header with options or extension headers
	transport int // length of the transport header with options
	udp       int // value of the UDP length field
}

// plan finds a layout that decodes to exactly p. It fails for packets that a capture file cannot
// express: then the packet goes to samples.jsonl whole.
func plan(p *capture.Packet) (l layout, ok bool) {
	if p.Damaged || p.IPLen > maxWire-etherLen || p.Dir > capture.DirOther || len(p.Data) > int(min(p.Len, maxData)) ||
		p.IPv6 && p.IPID != 0 || !p.IPv6 && (!mapped(&p.Src.Addr) || !mapped(&p.Dst.Addr)) {
		return l, false
	}
	headers := int(p.IPLen) - int(p.Len)
	base := ip4Len
	if p.IPv6 {
		base = ip6Len
	}
	dns := len(p.Data) == 0 || p.Src.Port == portDNS || p.Dst.Port == portDNS
	switch p.Proto {
	case capture.ProtoTCP:
		if !dns || p.ICMPType|p.ICMPCode != 0 || !tidyOptions(p) {
			return l, false
		}
		// What is longer than the options known is taken for options unknown, then for those of IP.
		l.transport = min(headers-base, maxTCP)
		if p.IPv6 && (headers-base-l.transport)%8 != 0 {
			l.transport -= 4
		}
		l.ip = headers - l.transport
		ok = l.transport >= tcpLen+(optionsLen(p)+3)&^3 && l.transport%4 == 0
	case capture.ProtoUDP:
		if !dns || !noTCP(p) || p.Seq != 0 || p.ICMPType|p.ICMPCode != 0 {
			return l, false
		}
		l.transport, l.ip = udpLen, base
		ok = headers >= base+udpLen
		if l.udp = int(p.Len) + udpLen; l.udp > maxLength {
			l.udp, l.ip = 0, headers-udpLen // offload: the length of IP counts
		}
	case capture.ProtoICMP, capture.ProtoICMPv6:
		if !noTCP(p) || p.Src.Port|p.Dst.Port != 0 || len(p.Data) > 0 && !quotes(p.Proto, p.ICMPType) {
			return l, false
		}
		l.transport, l.ip = icmpLen, headers-icmpLen
		ok = true
		if l.ip < base { // a message shorter than its header
			l.ip, l.transport = base, headers-base
			ok = l.transport >= 2 && p.Seq == 0 && p.Len == 0
		}
	}
	if p.IPv6 {
		ext := l.ip - ip6Len
		ok = ok && ext >= 0 && ext%8 == 0 && ext <= maxDstOpt
	} else {
		ok = ok && l.ip >= ip4Len && l.ip <= maxIP4 && l.ip%4 == 0
	}
	return l, ok
}

func mapped(a *capture.Addr) bool {
	return binary.BigEndian.Uint64(a[:]) == 0 && binary.BigEndian.Uint32(a[8:]) == 0xffff
}

// noTCP reports that what only TCP has is not set.
func noTCP(p *capture.Packet) bool {
	return p.Ack|p.TSVal|p.TSEcr == 0 && p.Window|p.MSS == 0 && p.Flags|p.Opts|p.WScale|p.SACKs == 0 && p.SACK == [4][2]uint32{}
}

// quotes reports an ICMP error, which quotes the packet it is about (RFC 792; RFC 4443 §2.1: types below 128).
func quotes(proto, typ uint8) bool {
	if proto == capture.ProtoICMPv6 {
		return typ >= 1 && typ <= 127
	}
	return typ == 3 || typ == 4 || typ == 5 || typ == 11 || typ == 12
}

const knownOptions = capture.OptMSS | capture.OptWScale | capture.OptSACKPermitted | capture.OptSACK |
	capture.OptTimestamps | capture.OptMPTCP

// tidyOptions reports that values and option bits agree.
func tidyOptions(p *capture.Packet) bool {
	has := func(bit uint8) bool { return p.Opts&bit != 0 }
	if p.Opts&^knownOptions != 0 || !has(capture.OptMSS) && p.MSS != 0 || !has(capture.OptWScale) && p.WScale != 0 ||
		!has(capture.OptTimestamps) && p.TSVal|p.TSEcr != 0 || has(capture.OptSACK) != (p.SACKs > 0) || int(p.SACKs) > len(p.SACK) {
		return false
	}
	for _, s := range p.SACK[p.SACKs:] { // left by a second SACK option
		if s != [2]uint32{} {
			return false
		}
	}
	return true
}

// TCP option kinds and lengths (IANA tcp-parameters). The MPTCP option is a DSS without content (RFC 8684 §3.3).
const (
	lenMSS, lenWScale, lenSACKOK, lenTimestamps, lenMPTCP = 4, 3, 2, 10, 4
)

func optionsLen(p *capture.Packet) int {
	n := 0
	for bit, l := range [...]int{lenMSS, lenWScale, lenSACKOK, 2 + 8*int(p.SACKs), lenTimestamps, lenMPTCP} {
		if p.Opts&(1<<bit) != 0 {
			n += l
		}
	}
	return n
}

// appendOptions writes the options of p, padded with no-operations before them to n bytes.
func appendOptions(b []byte, p *capture.Packet, n int) []byte {
	for range n - optionsLen(p) {
		b = append(b, 1)
	}
	be := binary.BigEndian
	if p.Opts&capture.OptMSS != 0 {
		b = be.AppendUint16(append(b, 2, lenMSS), p.MSS)
	}
	if p.Opts&capture.OptWScale != 0 {
		b = append(b, 3, lenWScale, p.WScale)
	}
	if p.Opts&capture.OptSACKPermitted != 0 {
		b = append(b, 4, lenSACKOK)
	}
	if p.Opts&capture.OptTimestamps != 0 {
		b = be.AppendUint32(be.AppendUint32(append(b, 8, lenTimestamps), p.TSVal), p.TSEcr)
	}
	if p.Opts&capture.OptSACK != 0 {
		b = append(b, 5, 2+8*p.SACKs)
		for _, s := range p.SACK[:p.SACKs] {
			b = be.AppendUint32(be.AppendUint32(b, s[0]), s[1])
		}
	}
	if p.Opts&capture.OptMPTCP != 0 {
		b = append(b, 30, lenMPTCP, 0x20, 0)
	}
	return b
}

// appendFrame writes an Ethernet frame that decodes to p, without the payload that p does not hold.
func appendFrame(b []byte, p *capture.Packet, l layout) []byte {
	be := binary.BigEndian
	b = appendStandIns(b, p.MACs)
	n := int(p.IPLen)
	ip := len(b) + 2
	next := p.Proto
	if p.IPv6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		ext, length := l.ip-ip6Len, n-ip6Len
		jumbo := length > maxLength && ext > 0
		switch {
		case jumbo:
			next, ext = hopByHop, ext-jumboLen
		case ext > 0:
			next = dstOpts
		}
		if length > maxLength {
			length = 0 // the jumbo payload option counts or, without one, the length of the frame
		}
		b = append(be.AppendUint16(b, uint16(length)), next, p.TTL)
		b = append(append(b, p.Src.Addr[:]...), p.Dst.Addr[:]...)
		if jumbo {
			next = p.Proto
			if ext > 0 {
				next = dstOpts
			}
			b = be.AppendUint32(append(b, next, 0, 0xc2, 4), p.IPLen-ip6Len)
		}
		b = appendPadding6(b, p.Proto, ext)
	} else {
		b = append(b, 0x08, 0x00, 0x40|byte(l.ip/4), 0)
		if n > maxLength {
			n = 0
		}
		b = be.AppendUint16(be.AppendUint16(b, uint16(n)), p.IPID)
		b = append(b, 0, 0, p.TTL, next, 0, 0)
		b = append(append(b, p.Src.Addr[12:]...), p.Dst.Addr[12:]...)
		for range l.ip - ip4Len {
			b = append(b, 1) // no operation
		}
		be.PutUint16(b[ip+10:], ^sum(b[ip:], 0))
	}
	transport := len(b)
	switch p.Proto {
	case capture.ProtoTCP:
		b = be.AppendUint16(be.AppendUint16(b, p.Src.Port), p.Dst.Port)
		b = be.AppendUint32(be.AppendUint32(b, p.Seq), p.Ack)
		b = be.AppendUint16(append(b, byte(l.transport/4)<<4, p.Flags), p.Window)
		b = appendOptions(append(b, 0, 0, 0, 0), p, l.transport-tcpLen)
	case capture.ProtoUDP:
		b = be.AppendUint16(be.AppendUint16(b, p.Src.Port), p.Dst.Port)
		b = append(be.AppendUint16(b, uint16(l.udp)), 0, 0)
		if p.IPv6 { // 0 is not allowed there (RFC 8200 §8.1)
			b[len(b)-2], b[len(b)-1] = 0xff, 0xff
		}
	default:
		b = be.AppendUint32(append(b, p.ICMPType, p.ICMPCode, 0, 0), p.Seq)
		b = b[:transport+l.transport]
	}
	b = append(b, p.Data...)
	if p.Proto != capture.ProtoTCP && p.Proto != capture.ProtoUDP && len(p.Data) == int(p.Len) && l.transport == icmpLen {
		be.PutUint16(b[transport+2:], ^sum(b[transport:], pseudo(p)))
	}
	return b
}

// appendPadding6 writes a destination options header of n bytes, with nothing but padding (RFC 8200 §4.6).
func appendPadding6(b []byte, proto uint8, n int) []byte {
	if n == 0 {
		return b
	}
	b = append(b, proto, byte(n/8-1))
	for n -= 2; n > 0; {
		l := min(n, 2+255)
		if l == 1 {
			b, n = append(b, 0), n-1 // Pad1
			continue
		}
		b = append(b, 1, byte(l-2)) // PadN
		for range l - 2 {
			b = append(b, 0)
		}
		n -= l
	}
	return b
}

// sum is the Internet checksum before its complement (RFC 1071), of b and an initial value.
func sum(b []byte, s uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo is the sum of ICMPv6's pseudo-header (RFC 4443 §2.3); ICMP has none.
func pseudo(p *capture.Packet) uint32 {
	if p.Proto != capture.ProtoICMPv6 {
		return 0
	}
	return uint32(sum(p.Src.Addr[:], 0)) + uint32(sum(p.Dst.Addr[:], 0)) + p.Len + icmpLen + capture.ProtoICMPv6
}

// appendStandIns writes link-layer addresses of which Packet.MACs is the hash: capture/decode
// multiplies, folds and multiplies again, each of which can be undone. They are locally administered unicast
// addresses, as befits addresses that nobody has; none is none.
func appendStandIns(b []byte, macs uint32) []byte {
	const (
		undoFirst  = 0x96de1b173f119089 // inverse of 0xbf58476d1ce4e5b9 modulo 2^64
		undoSecond = 0xf1de83e19937733d // inverse of 0x9e3779b97f4a7c15 modulo 2^64
		bits       = 0x0003_0000_0000_0003
		want       = 0x0002_0000_0000_0002
	)
	var x uint64
	if macs != 0 {
		// The lower half of the hash is free: one value in 16 gives such addresses.
		for low := uint64(0); ; low++ {
			h := (uint64(macs)<<32 | low) * undoSecond
			h ^= h>>31 ^ h>>62
			if x = h * undoFirst; x&bits == want {
				break
			}
		}
	}
	return append(binary.LittleEndian.AppendUint64(b, x), 0, 0, 0, 0)
}
