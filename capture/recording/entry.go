package recording

import "jindan/capture"

// Entries of a Ring: little-endian; length of the body (4 bytes), kind, reason, source (2), time (8), body.
const entryHeader = 16

// The kinds of entry.
const (
	entryPacket uint8 = iota
	entryLoss         // body: how many (8)
	entrySample       // body: JSON
	entryUntil
	entrySockets // body: see packTable
)

// packetFields is the length of what appendFields writes, without SACK blocks.
const packetFields = 2*18 + 7*4 + 3*2 + 10 + 8 + 1

type entry struct {
	kind uint8
	o    capture.Observation // but for Sample; its Data points into body
	body []byte
}

func appendEntry(b []byte, kind uint8, o *capture.Observation, body int) []byte {
	b = append(le.AppendUint32(b, uint32(body)), kind, uint8(o.Reason))
	return le.AppendUint64(le.AppendUint16(b, o.Source), uint64(o.At))
}

// blocks is how many entries of p.SACK are not empty at the end.
func blocks(p *capture.Packet) int {
	n := len(p.SACK)
	for n > 0 && p.SACK[n-1] == [2]uint32{} {
		n--
	}
	return n
}

func packetSize(p *capture.Packet) int { return packetFields + 8*blocks(p) }

// Bits of the last byte of the fields.
const (
	entryIPv6    = 1 << iota
	entryDamaged // a frame has a checksum of its own
)

// appendFields writes p without its data and hashes.
func appendFields(b []byte, p *capture.Packet) []byte {
	b = le.AppendUint16(append(b, p.Src.Addr[:]...), p.Src.Port)
	b = le.AppendUint16(append(b, p.Dst.Addr[:]...), p.Dst.Port)
	for _, v := range [...]uint32{p.Seq, p.Ack, p.TSVal, p.TSEcr, p.Len, p.IPLen, p.MACs} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint16(le.AppendUint16(le.AppendUint16(b, p.Window), p.MSS), p.IPID)
	flags := uint8(0)
	if p.IPv6 {
		flags |= entryIPv6
	}
	if p.Damaged {
		flags |= entryDamaged
	}
	b = append(b, p.Proto, p.Flags, p.TTL, p.Opts, p.WScale, p.SACKs, p.ICMPType, p.ICMPCode, uint8(p.Dir), flags)
	n := blocks(p)
	b = append(le.AppendUint64(b, p.Frame), uint8(n))
	for _, s := range p.SACK[:n] {
		b = le.AppendUint32(le.AppendUint32(b, s[0]), s[1])
	}
	return b
}

// readEntry reads the entry that b starts with.
func readEntry(b []byte) (e entry) {
	n := entryHeader + int(le.Uint32(b))
	e.kind, e.body = b[4], b[entryHeader:n:n]
	e.o.Reason, e.o.Source, e.o.At = capture.LossReason(b[5]), le.Uint16(b[6:]), capture.Instant(le.Uint64(b[8:]))
	switch e.kind {
	case entryPacket:
		readFields(e.body, &e.o.Packet)
	case entryLoss:
		e.o.Kind, e.o.Lost = capture.KindLoss, le.Uint64(e.body)
	}
	return e
}

// readFields is the inverse of appendFields; the rest of b is the data.
func readFields(b []byte, p *capture.Packet) {
	for _, e := range [...]*capture.Endpoint{&p.Src, &p.Dst} {
		e.Addr, e.Port = capture.Addr(b[:16]), le.Uint16(b[16:])
		b = b[18:]
	}
	for _, v := range [...]*uint32{&p.Seq, &p.Ack, &p.TSVal, &p.TSEcr, &p.Len, &p.IPLen, &p.MACs} {
		*v, b = le.Uint32(b), b[4:]
	}
	p.Window, p.MSS, p.IPID = le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[4:])
	b = b[6:]
	p.Proto, p.Flags, p.TTL, p.Opts, p.WScale = b[0], b[1], b[2], b[3], b[4]
	p.SACKs, p.ICMPType, p.ICMPCode, p.Dir, p.IPv6 = b[5], b[6], b[7], capture.Direction(b[8]), b[9]&entryIPv6 != 0
	p.Damaged = b[9]&entryDamaged != 0
	p.Frame = le.Uint64(b[10:])
	n := int(b[18])
	b = b[19:]
	for i := range n {
		p.SACK[i] = [2]uint32{le.Uint32(b), le.Uint32(b[4:])}
		b = b[8:]
	}
	if len(b) > 0 {
		p.Data = b
	}
}
