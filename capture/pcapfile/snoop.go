package pcapfile

import (
	"encoding/binary"
	"fmt"

	"jindan/capture"
)

// unknownLink is the link type of packets whose type has no LINKTYPE_ value.
const unknownLink = 0xffff

// snoop reads the format of Solaris snoop (RFC 1761), all big-endian.
type snoop struct {
	link    uint16
	packets uint64
	drops   uint32 // cumulative, as stated by the previous record
}

func openSnoop(w *window) (format, error) {
	h, err := w.peek(16)
	if err != nil {
		return nil, err
	}
	if string(h[:8]) != "snoop\x00\x00\x00" {
		return nil, unknown(h)
	}
	if v := binary.BigEndian.Uint32(h[8:]); v != 2 {
		return nil, fmt.Errorf("the file is of snoop version %d; only version 2 is known (%s)", v, readable)
	}
	s := &snoop{link: unknownLink}
	switch binary.BigEndian.Uint32(h[12:]) { // RFC 1761 datalink types
	case 0, 4: // IEEE 802.3, Ethernet
		s.link = 1
	case 2: // IEEE 802.5
		s.link = 6
	case 8: // FDDI
		s.link = 10
	}
	w.skip(16)
	return s, nil
}

func (s *snoop) name() string { return "snoop" }

func (s *snoop) links() (int, []LinkCount) { return 1, counts{s.link: s.packets}.list() }

func (s *snoop) next(w *window, r *record) error {
	b, err := w.peek(24)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	wire, n, size, drops := be.Uint32(b), be.Uint32(b[4:]), be.Uint32(b[8:]), be.Uint32(b[12:])
	if n > pcapLimit || size > pcapLimit+1024 || uint64(size) < 24+uint64(n) {
		return w.damage(r.next(), "claims %d bytes in a record of %d", n, size)
	}
	if b, err = w.peek(int(size)); err != nil {
		return err
	}
	*r = record{
		at: capture.Instant(int64(be.Uint32(b[16:]))*1e9 + int64(be.Uint32(b[20:]))*1000), data: b[24 : 24+n : 24+n],
		wire: wireLen(wire, int(n)), link: s.link, drops: r.drops, frame: r.frame + 1,
	}
	if drops > s.drops {
		r.drops += uint64(drops - s.drops)
		s.drops = drops
	}
	s.packets++
	w.skip(int(size))
	return nil
}
