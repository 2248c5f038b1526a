package decode

import "jindan/capture"

// Quote is the packet that an ICMP error is about, as far as the error quotes it.
type Quote struct {
	Src, Dst capture.Endpoint // ports are 0 unless Proto is TCP or UDP
	Seq      uint32           // TCP
	IPLen    uint32           // length of the quoted packet as it was sent, in bytes
	IPID     uint16
	Proto    uint8
	IPv6     bool
}

// Quoted reads the Data of an ICMP error. Errors quote the IP header and at least 8
// bytes (RFC 792), so there are ports and a sequence number, but often no more. It
// reports false if not even the ports are there.
func Quoted(b []byte) (q Quote, ok bool) {
	if len(b) < ip4Len {
		return q, false
	}
	switch b[0] >> 4 {
	case 4:
		hl := int(b[0]&0x0f) * 4
		if hl < ip4Len || hl > len(b) || be16(b[6:])&0x1fff != 0 { // a later fragment has no ports
			return q, false
		}
		set4(&q.Src.Addr, b[12:16])
		set4(&q.Dst.Addr, b[16:20])
		q.IPLen, q.IPID, q.Proto = uint32(be16(b[2:])), be16(b[4:]), b[9]
		b = b[hl:]
	case 6:
		if len(b) < ip6Len {
			return q, false
		}
		q.IPv6 = true
		q.Src.Addr, q.Dst.Addr = capture.Addr(b[8:24]), capture.Addr(b[24:40])
		q.IPLen = ip6Len + uint32(be16(b[4:]))
		if b, q.Proto, ok = quoted6(b[ip6Len:], b[6]); !ok {
			return q, false
		}
	default:
		return q, false
	}
	if q.Proto != capture.ProtoTCP && q.Proto != capture.ProtoUDP {
		return q, true
	}
	if len(b) < 4 {
		return q, false
	}
	q.Src.Port, q.Dst.Port = be16(b), be16(b[2:])
	if q.Proto == capture.ProtoTCP && len(b) >= 8 {
		q.Seq = be32(b[4:])
	}
	return q, true
}

// quoted6 skips the extension headers of a quoted IPv6 packet.
func quoted6(b []byte, next uint8) ([]byte, uint8, bool) {
	for {
		l := 0
		switch next {
		case protoHopByHop, protoRouting, protoDstOpts, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return nil, 0, false
			}
			l = (int(b[1]) + 1) * 8
		case protoAH:
			if len(b) < 8 {
				return nil, 0, false
			}
			l = (int(b[1]) + 2) * 4
		case protoFragment:
			if len(b) < 8 || be16(b[2:])&0xfff8 != 0 {
				return nil, 0, false
			}
			l = 8
		default:
			return b, next, true
		}
		if l > len(b) {
			return nil, 0, false
		}
		next, b = b[0], b[l:]
	}
}
