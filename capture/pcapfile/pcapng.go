package pcapfile

import (
	"encoding/binary"
	"io"
	"math"
	"strconv"
	"strings"

	"jindan/capture"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng §4).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockStats     = 5
	blockEnhanced  = 6

	// Not packets, but numbered as frames by Wireshark.
	blockJournal     = 9
	blockCustom      = 0xbad
	blockCustomKeep  = 0x40000bad
	blockSysdig      = 0x204
	blockSysdig2     = 0x216
	blockSysdigLarge = 0x221

	byteOrderMagic = 0x1a2b3c4d
	maxInterfaces  = 1 << 16 // in one section
)

// pcapng reads the blocks of a pcapng file, section by section.
type pcapng struct {
	order   binary.ByteOrder
	big     bool // order is big-endian
	ifaces  []iface
	seen    int    // interfaces, over all sections
	packets counts // of the sections before this one
	// only is the interface whose packets are wanted, by name or number; empty: all. names are those that there are.
	only  string
	names []string
	found bool
}

// iface is an Interface Description Block.
type iface struct {
	link    uint16
	snap    uint32 // 0: unlimited
	clock   clock
	packets uint64
	drops   uint64 // reported for it so far
	other   bool   // it is not wanted
}

func openPcapng(w *window) (format, error) {
	h, err := w.peek(12)
	if err != nil {
		return nil, err
	}
	p := &pcapng{packets: counts{}}
	if !p.setOrder(h[8:]) {
		return nil, unknown(h)
	}
	return p, nil
}

func (p *pcapng) name() string { return "pcapng" }

func (p *pcapng) links() (int, []LinkCount) {
	c := counts{}
	for t, n := range p.packets {
		c[t] += n
	}
	for i := range p.ifaces {
		c[p.ifaces[i].link] += p.ifaces[i].packets
	}
	return p.seen, c.list()
}

// setOrder takes the byte order from a section's byte-order magic.
func (p *pcapng) setOrder(magic []byte) bool {
	switch uint32(byteOrderMagic) {
	case binary.LittleEndian.Uint32(magic):
		p.order, p.big = binary.LittleEndian, false
	case binary.BigEndian.Uint32(magic):
		p.order, p.big = binary.BigEndian, true
	default:
		return false
	}
	return true
}

func (p *pcapng) u32(b []byte) uint32 {
	if p.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (p *pcapng) u16(b []byte) uint16 {
	if p.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

// next walks the blocks up to and including the next packet.
func (p *pcapng) next(w *window, r *record) error {
	for {
		err := w.need(12)
		if err != nil {
			if err == io.EOF && p.only != "" && !p.found {
				return w.damage("the file", "has no interface %q, but %s", p.only, strings.Join(p.names, ", "))
			}
			return err
		}
		b := w.bytes()
		kind := p.u32(b)
		if kind == blockSection && !p.setOrder(b[8:]) {
			return w.damage("the section", "has the byte-order mark % x, which does not exist", b[8:12])
		}
		total := p.u32(b[4:])
		if total < 12 || total > maxRecord {
			return w.damage("the block", "claims a length of %d bytes; 12 to %d are possible", total, maxRecord)
		}
		size := int(total+3) &^ 3 // some writers leave the padding out of the length
		if err = w.need(size); err != nil {
			return err
		}
		b = w.bytes()[:size]
		if tail := (p.u32(b[size-4:]) + 3) &^ 3; tail != uint32(size) {
			return w.damage("the block", "states two lengths, %d bytes and %d", total, p.u32(b[size-4:]))
		}
		body := b[8 : size-4]
		var found bool
		switch kind {
		case blockEnhanced:
			found, err = p.enhanced(w, body, r)
		case blockSection:
			err = p.section(w, body)
		case blockInterface:
			err = p.describe(w, body)
		case blockSimple:
			found, err = p.simple(w, body, r)
		case blockPacket:
			found, err = p.obsolete(w, body, r)
		case blockStats:
			p.statistics(body, r)
		case blockJournal, blockCustom, blockCustomKeep, blockSysdig, blockSysdig2, blockSysdigLarge:
			r.frame++
		}
		if err != nil {
			return err
		}
		w.skip(size)
		if found {
			return nil
		}
	}
}

// section starts a new section: its interfaces are numbered anew.
func (p *pcapng) section(w *window, body []byte) error {
	if len(body) < 16 {
		return w.damage("the section", "has a header of %d bytes, too short", len(body)+12)
	}
	if major := p.u16(body[4:]); major != 1 {
		return w.damage("the section", "is of pcapng version %d.%d, and only version 1 is known", major, p.u16(body[6:]))
	}
	for i := range p.ifaces {
		p.packets[p.ifaces[i].link] += p.ifaces[i].packets
	}
	p.ifaces = p.ifaces[:0]
	return p.options(body[16:], w, "the section", nil)
}

// describe adds an interface.
func (p *pcapng) describe(w *window, body []byte) error {
	if len(body) < 8 {
		return w.damage("the interface description", "has %d bytes, too few", len(body)+12)
	}
	if len(p.ifaces) == maxInterfaces {
		return w.damage("the interface description", "is one too many: %d interfaces in a section", maxInterfaces+1)
	}
	i := iface{link: p.u16(body), snap: p.u32(body[4:])}
	name := ""
	resolution, offset := byte(6), int64(0)
	err := p.options(body[8:], w, "the interface description", func(code uint16, v []byte) {
		switch {
		case code == 2 && p.only != "": // if_name
			name = strings.TrimRight(string(v), "\x00")
		case code == 9 && len(v) >= 1: // if_tsresol
			resolution = v[0]
		case code == 14 && len(v) >= 8: // if_tsoffset
			offset = int64(p.order.Uint64(v))
		}
	})
	i.clock = newClock(resolution, offset)
	if number := strconv.Itoa(len(p.ifaces)); p.only != "" {
		i.other = p.only != name && p.only != number
		p.found = p.found || !i.other
		if len(p.names) < 32 {
			p.names = append(p.names, strings.TrimSuffix(number+" "+name, " "))
		}
	}
	p.ifaces = append(p.ifaces, i)
	p.seen++
	return err
}

// enhanced reads an Enhanced Packet Block.
func (p *pcapng) enhanced(w *window, body []byte, r *record) (bool, error) {
	if len(body) < 20 {
		return false, w.damage(r.next(), "has a block of %d bytes, too short", len(body)+12)
	}
	id, n, wire := p.u32(body), p.u32(body[12:]), p.u32(body[16:])
	i, err := p.packet(w, r, id, body[20:], n)
	if err != nil || i.other {
		return false, err
	}
	r.at = i.clock.instant(uint64(p.u32(body[4:]))<<32 | uint64(p.u32(body[8:])))
	r.wire = wireLen(wire, int(n))
	if opts := body[min(len(body), 20+int(n+3)&^3):]; len(opts) >= 4 {
		// The packet is sound even if its options are not.
		_ = p.options(opts, nil, "", func(code uint16, v []byte) {
			switch {
			case code == 2 && len(v) >= 4: // epb_flags
				r.dir = flagsDirection(p.u32(v))
			case code == 4 && len(v) >= 8: // epb_dropcount
				p.dropped(r, i, p.order.Uint64(v))
			}
		})
	}
	return true, nil
}

// simple reads a Simple Packet Block: of the first interface, without a time.
func (p *pcapng) simple(w *window, body []byte, r *record) (bool, error) {
	if len(body) < 4 {
		return false, w.damage(r.next(), "has a block of %d bytes, too short", len(body)+12)
	}
	wire := p.u32(body)
	n := wire
	if len(p.ifaces) > 0 && p.ifaces[0].snap > 0 {
		n = min(n, p.ifaces[0].snap)
	}
	if i, err := p.packet(w, r, 0, body[4:], n); err != nil || i.other {
		return false, err
	}
	r.at, r.untimed = 0, true
	r.wire = wireLen(wire, int(n))
	return true, nil
}

// obsolete reads a Packet Block, which the Enhanced Packet Block replaced.
func (p *pcapng) obsolete(w *window, body []byte, r *record) (bool, error) {
	if len(body) < 20 {
		return false, w.damage(r.next(), "has a block of %d bytes, too short", len(body)+12)
	}
	id, drops, n, wire := p.u16(body), p.u16(body[2:]), p.u32(body[12:]), p.u32(body[16:])
	i, err := p.packet(w, r, uint32(id), body[20:], n)
	if err != nil || i.other {
		return false, err
	}
	r.at = i.clock.instant(uint64(p.u32(body[4:]))<<32 | uint64(p.u32(body[8:])))
	r.wire = wireLen(wire, int(n))
	if drops != 0xffff { // unknown
		p.dropped(r, i, uint64(drops))
	}
	if opts := body[min(len(body), 20+int(n+3)&^3):]; len(opts) >= 4 {
		_ = p.options(opts, nil, "", func(code uint16, v []byte) {
			if code == 2 && len(v) >= 4 { // pack_flags
				r.dir = flagsDirection(p.u32(v))
			}
		})
	}
	return true, nil
}

// packet checks what all packet blocks share, and sets the fields that do not differ
// between them. rest starts with the captured bytes.
func (p *pcapng) packet(w *window, r *record, id uint32, rest []byte, n uint32) (*iface, error) {
	if int64(id) >= int64(len(p.ifaces)) {
		return nil, w.damage(r.next(), "belongs to interface %d, but the section describes %d", id, len(p.ifaces))
	}
	if int64(n) > int64(len(rest)) {
		return nil, w.damage(r.next(), "claims %d bytes, but its block holds %d", n, len(rest))
	}
	i := &p.ifaces[id]
	i.packets++
	r.frame++
	r.data, r.link = rest[:n:n], i.link
	r.dir, r.untimed = capture.DirUnknown, false
	return i, nil
}

// statistics takes from an Interface Statistics Block the packets dropped since the
// capture began, as far as the packet blocks have not reported them yet. Its time is
// not used: the packets around it have better ones.
func (p *pcapng) statistics(body []byte, r *record) {
	if len(body) < 12 || int64(p.u32(body)) >= int64(len(p.ifaces)) {
		return
	}
	i := &p.ifaces[p.u32(body)]
	if i.other {
		return
	}
	var total uint64
	_ = p.options(body[12:], nil, "", func(code uint16, v []byte) {
		if (code == 5 || code == 7) && len(v) >= 8 { // isb_ifdrop, isb_osdrop
			if n := p.order.Uint64(v); n < math.MaxInt64 { // all ones: unknown
				total += n
			}
		}
	})
	if total > i.drops {
		p.dropped(r, i, total-i.drops)
	}
}

// maxDrops bounds what a file may claim to have dropped, so that sums hold.
const maxDrops = 1 << 40

func (p *pcapng) dropped(r *record, i *iface, n uint64) {
	n = min(n, maxDrops-min(maxDrops, i.drops))
	i.drops += n
	r.drops += n
}

// options calls f for each option in b (§3.5). If w is given, options that do not fit
// are damage of subject; else they end the list.
func (p *pcapng) options(b []byte, w *window, subject string, f func(code uint16, value []byte)) error {
	for len(b) >= 4 {
		code, n := p.u16(b), int(p.u16(b[2:]))
		if code == 0 { // opt_endofopt
			return nil
		}
		b = b[4:]
		if n > len(b) {
			if w == nil {
				return nil
			}
			return w.damage(subject, "has an option %d of %d bytes where %d are left", code, n, len(b))
		}
		if f != nil {
			f(code, b[:n])
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}

// flagsDirection converts epb_flags (§4.3.1): bits 0–1 direction, 2–4 reception.
func flagsDirection(flags uint32) capture.Direction {
	switch flags & 3 {
	case 1:
		if reception := flags >> 2 & 7; reception > 1 { // multicast, broadcast, promiscuous
			return capture.DirOther
		}
		return capture.DirInbound
	case 2:
		return capture.DirOutbound
	}
	return capture.DirUnknown
}
