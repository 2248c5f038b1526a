package flow

import (
	"encoding/binary"

	"jindan/capture"
)

// icmp looks at an ICMP error: it is about the packet that it quotes (RFC 792, RFC 4443 §3).
func (t *Table) icmp(p *capture.Packet, at capture.Instant) {
	var q capture.Packet
	if !quoted(p.Data, &q) {
		return
	}
	e := Event{Kind: ICMPError, At: at, N: uint32(p.ICMPType)<<8 | uint32(p.ICMPCode), Frame: p.Frame}
	switch q.Proto {
	case capture.ProtoTCP:
		c, s := t.find(capture.FlowHash(&q.Src, &q.Dst), &q)
		if c == nil {
			t.unreached(p, &q, &e)
			return
		}
		e.Conn, e.Side = c, s
		if e.TooBig() && c.side[s].flags&known != 0 && c.plausible(s, q.Seq) {
			t.trouble(c).side[s].refused.add(q.Seq, c.side[s].next, q.IPLen)
		}
		if t.wants(ICMPError) {
			t.ev = e
			t.send(&t.ev)
		}
	case capture.ProtoUDP:
		t.dns.icmp(p, &q, at, t.send)
	}
}

// unsentSlots bounds the SYNs that unreached remembers: a host has no more than some hundred of them in work when a neighbour does not answer.
const unsentSlots = 256

// unreached tells once of a SYN that is known from the ICMP error only. A SYN that is repeated is quoted as often.
func (t *Table) unreached(p, q *capture.Packet, e *Event) {
	if q.Flags&(capture.SYN|capture.ACK|capture.RST) != capture.SYN || !unreachable(e.N, q.IPv6) || !t.wants(Unreached) {
		return
	}
	h := q.Src.Hash() + 31*q.Dst.Hash() + uint64(q.Seq)
	slot := &t.unsent[h%unsentSlots]
	if *slot == h {
		return
	}
	*slot = h
	t.ev = Event{Kind: Unreached, At: e.At, N: e.N, Frame: p.Frame, From: q.Src, To: q.Dst}
	t.send(&t.ev)
}

// refused is what a side had sent when a router said that it is too big for the next hop, and the IP length of what it quotes.
type refused struct{ from, to, size uint32 }

// add takes one more quoted segment, at seq and of size bytes; next is what would be sent next.
func (r *refused) add(seq, next, size uint32) {
	if r.to == next && before(r.from, seq) {
		seq = r.from // one message comes for each of them
	}
	*r = refused{seq, next, size}
}

// cut reports whether the segment p is a part of it that is smaller now: its sender has taken the size of the path from the router, and
// sends what was on its way again at once (RFC 1191 §6.5, RFC 8201 §4). Nothing was lost that anybody needs to look for.
func (r *refused) cut(p *capture.Packet) bool {
	return p.IPLen < r.size && !before(p.Seq, r.from) && before(p.Seq, r.to)
}

// unreachable reports whether ICMP type and code, type<<8|code, make connect() fail: destination unreachable other than
// "fragmentation needed" (RFC 1122 §4.2.3.9; RFC 4443 §3.1).
func unreachable(n uint32, ipv6 bool) bool {
	if ipv6 {
		return n>>8 == 1
	}
	return n>>8 == 3 && n&0xff != 4
}

// quoted reads addresses and ports of the packet that an ICMP error quotes, at least its IP
// header and 8 bytes, and the flags of a TCP segment if they are there. Fragments without the ports are refused.
func quoted(b []byte, q *capture.Packet) bool {
	if len(b) < 28 {
		return false
	}
	n := 0
	switch b[0] >> 4 {
	case 4:
		n = int(b[0]&15) * 4
		if n < 20 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return false
		}
		q.Proto, q.IPLen = b[9], uint32(binary.BigEndian.Uint16(b[2:]))
		q.Src.Addr = v4(b[12:16])
		q.Dst.Addr = v4(b[16:20])
	case 6:
		if len(b) < 48 {
			return false
		}
		q.Proto, q.IPLen, n = b[6], 40+uint32(binary.BigEndian.Uint16(b[4:])), 40
		copy(q.Src.Addr[:], b[8:24])
		copy(q.Dst.Addr[:], b[24:40])
		q.IPv6 = true
		// Hop-by-hop, routing, destination options and fragment headers (RFC 8200 §4).
		for hops := 0; hops < 8 && (q.Proto == 0 || q.Proto == 43 || q.Proto == 60 || q.Proto == 44); hops++ {
			if len(b) < n+8 || q.Proto == 44 && binary.BigEndian.Uint16(b[n+2:])>>3 != 0 {
				return false
			}
			length := 8 * (1 + int(b[n+1]))
			if q.Proto == 44 {
				length = 8
			}
			q.Proto = b[n]
			n += length
		}
	default:
		return false
	}
	if len(b) < n+8 {
		return false
	}
	q.Src.Port = binary.BigEndian.Uint16(b[n:])
	q.Dst.Port = binary.BigEndian.Uint16(b[n+2:])
	if q.Proto == capture.ProtoTCP {
		if q.Seq = binary.BigEndian.Uint32(b[n+4:]); len(b) >= n+14 {
			q.Flags = b[n+13]
		}
	}
	return true
}

func v4(b []byte) (a capture.Addr) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b)
	return a
}
