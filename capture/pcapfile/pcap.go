package pcapfile

import (
	"encoding/binary"
	"fmt"

	"jindan/capture"
)

// The pcap file format: draft-ietf-opsawg-pcap; versions before 2.4 and the
// "modified" format: https://wiki.wireshark.org/Development/LibpcapFileFormat.
const (
	magicMicro    = 0xa1b2c3d4 // times in microseconds
	magicNano     = 0xa1b23c4d // times in nanoseconds
	magicModified = 0xa1b2cd34 // microseconds, and 8 bytes more in every record header

	pcapHeader = 24
	// pcapLimit is the longest packet accepted, unless the header's snap length is
	// above it: what tcpdump and Wireshark write at most.
	pcapLimit = 262144
)

type pcap struct {
	big     bool
	header  int    // bytes of a record header
	unit    int64  // nanoseconds in a unit of the second time field
	limit   uint32 // longest packet accepted
	link    uint16
	swapped byte // lengths in the record header: 0 as today, 1 swapped, 2 swapped if that makes sense
	packets uint64
}

func openPcap(w *window, order binary.ByteOrder) (format, error) {
	h, err := w.peek(pcapHeader)
	if err != nil {
		return nil, err
	}
	p := &pcap{big: order == binary.ByteOrder(binary.BigEndian), header: 16, unit: 1000, limit: pcapLimit}
	switch order.Uint32(h) {
	case magicNano:
		p.unit = 1
	case magicModified:
		p.header = 24
	}
	major, minor := order.Uint16(h[4:]), order.Uint16(h[6:])
	if major != 2 && major != 543 {
		return nil, fmt.Errorf("the file is of pcap version %d.%d; only version 2 is known (%s)", major, minor, readable)
	}
	switch { // as libpcap: DG/UX tcpdump wrote version 543.0
	case major == 543 || minor < 3:
		p.swapped = 1
	case minor == 3:
		p.swapped = 2
	}
	// A snap length of 0 or beyond reason says nothing about the packets.
	if snap := order.Uint32(h[16:]); snap > p.limit && snap <= maxRecord {
		p.limit = snap
	}
	p.link = uint16(order.Uint32(h[20:])) // above it: length of the frame check sequence
	w.skip(pcapHeader)
	return p, nil
}

func (p *pcap) name() string { return "pcap" }

func (p *pcap) links() (int, []LinkCount) {
	return 1, counts{p.link: p.packets}.list()
}

func (p *pcap) next(w *window, r *record) error {
	if err := w.need(p.header); err != nil {
		return err
	}
	b := w.buf[w.lo : w.lo+16 : w.hi]
	var sec, frac, n, wire uint32
	if p.big {
		sec, frac = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		n, wire = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	} else {
		sec, frac = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		n, wire = binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	}
	if p.swapped == 1 || p.swapped == 2 && n > wire {
		n, wire = wire, n
	}
	if n > p.limit {
		return w.damage(r.next(), "claims %d bytes, more than the %d allowed", n, p.limit)
	}
	size := p.header + int(n)
	if err := w.need(size); err != nil {
		return err
	}
	lo := w.lo + p.header
	r.dir = capture.DirUnknown
	if p.header == 24 {
		r.dir = packetType(w.buf[lo-2])
	}
	r.at = capture.Instant(int64(sec)*1e9 + int64(frac)*p.unit)
	r.data = w.buf[lo : lo+int(n) : lo+int(n)]
	r.wire = wireLen(wire, int(n))
	r.link = p.link
	r.untimed = false
	p.packets++
	r.frame++
	w.skip(size)
	return nil
}

// packetType converts Linux's sll_pkttype (packet(7)).
func packetType(t byte) capture.Direction {
	switch t {
	case 0: // PACKET_HOST
		return capture.DirInbound
	case 1, 2, 3: // PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST
		return capture.DirOther
	case 4: // PACKET_OUTGOING
		return capture.DirOutbound
	}
	return capture.DirUnknown
}
