package recording

import (
	"encoding/binary"

	"jindan/capture"
)

// pcapng (draft-ietf-opsawg-pcapng): block types, options, and what goes into them.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockStats     = 5
	blockEnhanced  = 6
	byteOrderMagic = 0x1a2b3c4d

	optEnd        = 0
	optComment    = 1
	optUserAppl   = 4 // shb_userappl
	optName       = 2 // if_name
	optResolution = 9 // if_tsresol
	optFlags      = 2 // epb_flags
	optDrops      = 4 // epb_dropcount
	optReceived   = 4 // isb_ifrecv
	optIfDrop     = 5 // isb_ifdrop

	linkEthernet = 1
	nanoseconds  = 9 // negative power of ten
)

// comment tells who opens the file what not to believe.
const comment = "Headers as jindan recorded them: payload, checksums and link-layer addresses are not those of the wire. " +
	"Equal stand-in addresses mean equal addresses."

var le = binary.LittleEndian

// finish writes the length of the block that starts at from to both its ends.
func finish(b []byte, from int) []byte {
	n := uint32(len(b) - from + 4)
	le.PutUint32(b[from+4:], n)
	return le.AppendUint32(b, n)
}

func appendOption(b []byte, code uint16, v []byte) []byte {
	b = le.AppendUint16(le.AppendUint16(b, code), uint16(len(v)))
	return pad(append(b, v...), len(v))
}

// pad fills n bytes up to a multiple of 4.
func pad(b []byte, n int) []byte {
	for range -n & 3 {
		b = append(b, 0)
	}
	return b
}

// appendHeader writes the Section Header Block and the Interface Description Block.
func appendHeader(b []byte, agent string) []byte {
	if agent == "" {
		agent = "jindan"
	}
	from := len(b)
	b = le.AppendUint32(le.AppendUint32(b, blockSection), 0)
	b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, byteOrderMagic), 1), ^uint64(0)) // version 1.0, length unknown
	b = appendOption(b, optComment, []byte(comment))
	b = appendOption(b, optUserAppl, []byte(agent[:min(len(agent), 1024)]))
	b = finish(le.AppendUint32(b, optEnd), from)

	from = len(b)
	b = le.AppendUint32(le.AppendUint32(b, blockInterface), 0)
	b = le.AppendUint32(le.AppendUint32(b, linkEthernet), 0) // no snap length
	b = appendOption(b, optName, []byte("jindan"))
	b = appendOption(b, optResolution, []byte{nanoseconds})
	return finish(le.AppendUint32(b, optEnd), from)
}

// appendPacket writes an Enhanced Packet Block; drops are the packets that the kernel dropped before it.
func appendPacket(b []byte, at capture.Instant, p *capture.Packet, l layout, drops uint64) []byte {
	from := len(b)
	b = le.AppendUint32(le.AppendUint32(b, blockEnhanced), 0)
	b = le.AppendUint32(b, 0) // interface
	b = le.AppendUint32(le.AppendUint32(b, uint32(at>>32)), uint32(at))
	data := len(b) + 8
	b = le.AppendUint64(b, 0)
	b = appendFrame(b, p, l)
	n := len(b) - data
	le.PutUint32(b[data-8:], uint32(n))
	le.PutUint32(b[data-4:], p.IPLen+etherLen)
	b = pad(b, n)
	flags := epbFlags(p.Dir)
	if flags != 0 {
		b = le.AppendUint32(le.AppendUint32(b, optFlags|4<<16), flags)
	}
	if drops != 0 {
		b = le.AppendUint64(le.AppendUint32(b, optDrops|8<<16), drops)
	}
	if flags != 0 || drops != 0 {
		b = le.AppendUint32(b, optEnd)
	}
	return finish(b, from)
}

// epbFlags is the direction (bits 0–1: inbound 1, outbound 2) and, for packets of others, promiscuous
// reception (bits 2–4: 4).
func epbFlags(d capture.Direction) uint32 {
	switch d {
	case capture.DirInbound:
		return 1
	case capture.DirOutbound:
		return 2
	case capture.DirOther:
		return 1 | 4<<2
	}
	return 0
}

// appendStatistics writes an Interface Statistics Block.
func appendStatistics(b []byte, at capture.Instant, packets, dropped uint64) []byte {
	from := len(b)
	b = le.AppendUint32(le.AppendUint32(b, blockStats), 0)
	b = le.AppendUint32(b, 0) // interface
	at = max(at, 0)
	b = le.AppendUint32(le.AppendUint32(b, uint32(at>>32)), uint32(at))
	b = appendOption(b, optReceived, le.AppendUint64(nil, packets+dropped))
	b = appendOption(b, optIfDrop, le.AppendUint64(nil, dropped))
	return finish(le.AppendUint32(b, optEnd), from)
}
