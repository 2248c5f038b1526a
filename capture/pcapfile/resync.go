package pcapfile

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"jindan/capture"
)

const (
	// resyncReach is how far behind damage the next record is looked for: twice the longest packet of a pcap file, since what is damaged
	// may be the length of one.
	resyncReach = 2 * pcapLimit
	// resyncTime is how far the time of that record may be from the last one before the damage, in seconds.
	resyncTime = 24 * 60 * 60
	// damagedOn ends the message of damage behind which nothing was found.
	damagedOn = ": the file is damaged from there on"
)

// unknownTime is the time of no packet.
const unknownTime = capture.Instant(math.MinInt64)

// clockTime is a time as messages name it.
func clockTime(t capture.Instant) string { return t.Time().UTC().Format("2006-01-02T15:04:05.000000Z") }

// resync skips to the next record that is plausible, as pcapfix does, and reports whether there is one.
func (f *File) resync(damage *DamageError) bool {
	w := &f.win
	w.wait = true // the search must not depend on what has come so far
	r, ok := f.format.(resyncer)
	if !ok {
		return false
	}
	for n := r.stride(); n <= resyncReach; n += r.stride() {
		if w.need(n+r.least()) != nil {
			return false
		}
		if r.plausible(w, n, f.last.Time().Unix(), f.stats.Packets > 0) {
			if f.damage == nil {
				f.damage = damage
				if damage.From = unknownTime; f.stats.Packets > f.stats.NoTime {
					damage.From = f.last
				}
			}
			f.damage.Gaps++
			f.damage.Skipped += int64(n)
			f.damage.Timed, f.behind = false, true
			w.skip(n)
			return true
		}
	}
	return false
}

// resumed is the damage behind which reading went on, as the error at the end; nil if there was none.
func (f *File) resumed() *DamageError {
	d := f.damage
	if d != nil {
		places := ""
		if d.Gaps > 1 {
			places = fmt.Sprintf(" in %d places", d.Gaps)
		}
		d.What = fmt.Sprintf("%s; %d bytes were skipped%s", strings.TrimSuffix(d.What, damagedOn), d.Skipped, places)
		if d.Timed {
			d.What += fmt.Sprintf(", between %s and %s", clockTime(d.From), clockTime(d.To))
		}
	}
	return d
}

// resyncer is a format whose records can be told from other bytes.
type resyncer interface {
	stride() int // records begin at multiples of it
	least() int  // bytes of a record that plausible looks at in any case
	// plausible reports whether a record begins n bytes after the next byte of w. sec is the time of the last packet, if known.
	plausible(w *window, n int, sec int64, known bool) bool
}

func (p *pcap) stride() int { return 1 }
func (p *pcap) least() int  { return p.header }

// plausible wants two records in a row, or one that ends the file.
func (p *pcap) plausible(w *window, n int, sec int64, known bool) bool {
	size, ok := p.looksLike(w.bytes()[n:], sec, known)
	if !ok {
		return false
	}
	if err := w.need(n + size); err != nil {
		return false
	}
	if err := w.need(n + size + p.header); err != nil {
		return len(w.bytes()) == n+size
	}
	_, ok = p.looksLike(w.bytes()[n+size:], sec, known)
	return ok
}

// looksLike reports whether b begins with the header of a record that could be, and its size.
func (p *pcap) looksLike(b []byte, sec int64, known bool) (int, bool) {
	order := binary.ByteOrder(binary.LittleEndian)
	if p.big {
		order = binary.BigEndian
	}
	at, frac, n, wire := int64(order.Uint32(b)), int64(order.Uint32(b[4:])), order.Uint32(b[8:]), order.Uint32(b[12:])
	if p.swapped == 1 {
		n, wire = wire, n
	}
	d := at - sec
	return p.header + int(n), n > 0 && n <= p.limit && wire >= n && wire <= max(p.limit, 1<<20) && frac*p.unit < 1e9 &&
		(!known || d <= resyncTime && d >= -resyncTime)
}

func (p *pcapng) stride() int { return 4 }
func (p *pcapng) least() int  { return 12 }

// plausible wants a block of a known type with the same length at both ends.
func (p *pcapng) plausible(w *window, n int, _ int64, _ bool) bool {
	b := w.bytes()[n:]
	switch p.u32(b) {
	case blockEnhanced, blockPacket, blockSimple, blockInterface, blockStats, blockSection:
	default:
		return false
	}
	total := p.u32(b[4:])
	if total < 16 || total%4 != 0 || total > resyncReach || w.need(n+int(total)) != nil {
		return false
	}
	b = w.bytes()[n:]
	return p.u32(b[total-4:]) == total
}
