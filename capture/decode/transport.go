package decode

import (
	"encoding/binary"

	"jindan/capture"
)

// transport reads what an IP packet carries: b is the captured part, n the length
// by the IP header.
func (d *Decoder) transport(proto uint8, b []byte, n int, p *capture.Packet) capture.LossReason {
	switch proto {
	case capture.ProtoTCP:
		return d.tcp(b, n, p)
	case capture.ProtoUDP:
		return d.udp(b, n, p)
	case capture.ProtoICMP, capture.ProtoICMPv6:
		return d.icmp(proto, b, n, p)
	}
	return d.tunnel(proto, b, n, p)
}

// tcp reads a TCP header (RFC 9293 §3.1). The ports, numbers and flags are enough;
// options are read as far as they were captured.
func (d *Decoder) tcp(b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) < tcpLen {
		return short(n, tcpLen)
	}
	h := (*[tcpLen]byte)(b)
	hl := int(h[12]>>4) * 4
	if hl < tcpLen || hl > n {
		return capture.LossMalformed
	}
	p.Proto = capture.ProtoTCP
	sport, dport := be16(h[0:]), be16(h[2:])
	p.Src.Port, p.Dst.Port = sport, dport
	p.Seq = be32(h[4:])
	p.Ack = be32(h[8:])
	p.Flags = h[13]
	p.Window = be16(h[14:])
	p.Len = uint32(n - hl)
	if d.verify && damaged(b, n, tcpSum, p, capture.ProtoTCP) {
		p.Damaged = true
	}
	if hl > tcpLen {
		tcpOptions(b[tcpLen:min(hl, len(b))], p)
		if hl > len(b) {
			p.Opts |= capture.OptCut
		}
	}
	if len(b) > hl && d.isDNS(sport, dport) {
		p.Data = b[hl:len(b):len(b)]
	}
	p.Hash = capture.FlowHash(&p.Src, &p.Dst)
	p.Ident = p.Identity()
	return capture.LossNone
}

// TCP option kinds (IANA tcp-parameters) and lengths in bytes with kind and length.
const (
	optEnd, optNOP               = 0, 1
	optMSS, optMSSLen            = 2, 4  // RFC 9293 §3.7.1
	optWScale, optWScaleLen      = 3, 3  // RFC 7323 §2.2
	optSACKOK, optSACKOKLen      = 4, 2  // RFC 2018 §2
	optSACK, optSACKBlock        = 5, 8  // RFC 2018 §3: 2 + 8 a block
	optTimestamp, optTimestapLen = 8, 10 // RFC 7323 §3.2
	optMPTCP                     = 30    // RFC 8684 §3
)

// timestampOnly is how nearly every stack writes the lone timestamps option of a
// data segment: NOP, NOP, 8, 10 (RFC 7323 appendix A).
const timestampOnly = 0x0101080a

// tcpOptions reads the options in b. An option with an impossible length ends the
// walk, as receivers do; the segment itself stays valid.
func tcpOptions(b []byte, p *capture.Packet) {
	if len(b) == 12 && be32(b) == timestampOnly {
		p.Opts = capture.OptTimestamps
		p.TSVal = be32(b[4:])
		p.TSEcr = be32(b[8:])
		return
	}
	for len(b) > 1 {
		kind := b[0]
		if kind == optNOP {
			b = b[1:]
			continue
		}
		l := int(b[1])
		if kind == optEnd || l < 2 || l > len(b) {
			break
		}
		switch kind {
		case optMSS:
			if l == optMSSLen {
				p.MSS = be16(b[2:])
				p.Opts |= capture.OptMSS
			}
		case optWScale:
			if l == optWScaleLen {
				p.WScale = b[2]
				p.Opts |= capture.OptWScale
			}
		case optSACKOK:
			if l == optSACKOKLen {
				p.Opts |= capture.OptSACKPermitted
			}
		case optSACK:
			sackBlocks(b[2:l], p)
		case optTimestamp:
			if l == optTimestapLen {
				p.TSVal = be32(b[2:])
				p.TSEcr = be32(b[6:])
				p.Opts |= capture.OptTimestamps
			}
		case optMPTCP:
			p.Opts |= capture.OptMPTCP
		}
		b = b[l:]
	}
}

// sackBlocks reads the edges of a SACK option; at most 4 blocks fit the 40
// bytes of options (RFC 2018 §3).
func sackBlocks(b []byte, p *capture.Packet) {
	if len(b)%optSACKBlock != 0 || len(b) == 0 {
		return
	}
	p.SACKs = 0
	for i := range p.SACK {
		if len(b) < optSACKBlock {
			break
		}
		p.SACK[i] = [2]uint32{be32(b), be32(b[4:])}
		p.SACKs++
		b = b[optSACKBlock:]
	}
	p.Opts |= capture.OptSACK
}

// udp reads a UDP header (RFC 768). A length field of 0 (offload, or a
// jumbogram, RFC 2675 §4) or one beyond the IP packet gives way to the IP length.
func (d *Decoder) udp(b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) < udpLen {
		return short(n, udpLen)
	}
	h := (*[udpLen]byte)(b)
	sport, dport := be16(h[0:]), be16(h[2:])
	if l := int(be16(h[4:])); l >= udpLen && l < n {
		n = l
		b = b[:min(len(b), n)]
	}
	if isTunnelPort(sport, dport) {
		outer := d.ips
		if d.verify && damaged(b, n, udpSum, p, capture.ProtoUDP) {
			p.Damaged = true
		}
		r := d.udpTunnel(sport, dport, b[udpLen:], n-udpLen, p)
		if d.ips > outer || r == capture.LossNesting {
			return r // an IP header was found inside: the inner packet it is
		}
	}
	p.Proto = capture.ProtoUDP
	p.Src.Port, p.Dst.Port = sport, dport
	p.Len = uint32(n - udpLen)
	if len(b) > udpLen && (d.isDNS(sport, dport) || sport != portNetBIOS && dport != portNetBIOS && dnsShaped(b[udpLen:], n-udpLen)) {
		p.Data = b[udpLen:len(b):len(b)]
	}
	return capture.LossNone
}

// ICMP messages that quote the packet they are about.
const (
	icmpUnreachable  = 3  // RFC 792
	icmpQuench       = 4  // RFC 792, deprecated by RFC 6633
	icmpRedirect     = 5  // RFC 792
	icmpTimeExceeded = 11 // RFC 792
	icmpParameter    = 12 // RFC 792
	icmp6ErrorLast   = 127
	icmp6ErrorFirst  = 1 // RFC 4443 §2.1: errors have types below 128
)

// icmp reads an ICMP or ICMPv6 message. Type and code are enough.
func (d *Decoder) icmp(proto uint8, b []byte, n int, p *capture.Packet) capture.LossReason {
	if len(b) < 2 {
		return short(n, 2)
	}
	p.Proto = proto
	p.ICMPType, p.ICMPCode = b[0], b[1]
	p.Len = uint32(max(n-icmpLen, 0))
	if len(b) < icmpLen {
		return capture.LossNone
	}
	p.Seq = binary.BigEndian.Uint32(b[4:])
	if len(b) > icmpLen && quotes(proto, b[0]) {
		p.Data = b[icmpLen:len(b):len(b)]
	}
	return capture.LossNone
}

func quotes(proto, typ uint8) bool {
	if proto == capture.ProtoICMPv6 {
		return typ >= icmp6ErrorFirst && typ <= icmp6ErrorLast
	}
	switch typ {
	case icmpUnreachable, icmpQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}
