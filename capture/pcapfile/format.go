package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"jindan/capture"
)

// record is one packet record of a file.
type record struct {
	at      capture.Instant
	data    []byte // captured bytes, in the window
	wire    int    // length on the wire, at least len(data)
	link    uint16 // LINKTYPE_ value
	dir     capture.Direction
	untimed bool   // the file states no time for it; at is 0
	drops   uint64 // packets that the file says were dropped since the previous record
	frame   uint64 // number of the last record, as Wireshark counts
}

// next names the record after the last one, for messages.
func (r *record) next() string { return fmt.Sprintf("packet %d", r.frame+1) }

// format reads the records of one file format.
type format interface {
	name() string
	// next sets every field of *r, but frame and drops it adds to. Its errors are
	// those of window.peek and *DamageError; after errMore it can be called again.
	next(w *window, r *record) error
	// links returns the number of interfaces, and the link types of the packets.
	links() (int, []LinkCount)
}

const readable = "jindan reads pcap, pcapng and snoop captures, plain or compressed with gzip or zstd"

// detect recognises the format by its first bytes and reads the file header.
func detect(w *window) (format, error) {
	head, err := w.peek(4)
	if err != nil && err != errCut {
		return nil, err
	}
	if err == errCut {
		head = w.buf[w.lo:w.hi]
	}
	open := recognise(head)
	if open == nil {
		return nil, unknown(head)
	}
	f, err := open(w)
	if err == errCut {
		return nil, errors.New("the file is cut short inside its header; nothing in it can be read")
	}
	return f, err
}

// recognise returns the reader for a file that starts with head, or nil.
func recognise(head []byte) func(*window) (format, error) {
	if len(head) < 4 {
		return nil
	}
	switch binary.LittleEndian.Uint32(head) {
	case magicMicro, magicNano, magicModified:
		return func(w *window) (format, error) { return openPcap(w, binary.LittleEndian) }
	case blockSection: // reads the same in both byte orders
		return openPcapng
	}
	switch binary.BigEndian.Uint32(head) {
	case magicMicro, magicNano, magicModified:
		return func(w *window) (format, error) { return openPcap(w, binary.BigEndian) }
	case 0x736e6f6f: // "snoo"
		return openSnoop
	}
	return nil
}

// foreign names files that users take for captures, or forget to unpack.
var foreign = []struct{ magic, what string }{
	{"BZh", "is compressed with bzip2: unpack it first"},
	{"\xfd7zXZ", "is compressed with xz: unpack it first"},
	{"\x04\x22\x4d\x18", "is compressed with lz4: unpack it first"},
	{"PK\x03\x04", "is a zip archive: unpack it first"},
	{"GMBU", "is a Microsoft Network Monitor capture: convert it with editcap"},
	{"RTSS", "is a Microsoft Network Monitor capture: convert it with editcap"},
	{"XCP\x00", "is a NetXRay capture: convert it with editcap"},
	{"TRSNIFF", "is a Sniffer capture: convert it with editcap"},
}

func unknown(head []byte) error {
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic[:min(4, len(f.magic))])) {
			return fmt.Errorf("the file %s (%s)", f.what, readable)
		}
	}
	return fmt.Errorf("the file is no capture that can be read: it starts with the bytes % x (%s)",
		head[:min(4, len(head))], readable)
}

// Instants from files are kept within ±2^62 ns (years 1823 to 2116), so that whoever
// adds a duration to one cannot overflow.
const maxInstant = 1 << 62

// counts tallies packets by link type.
type counts map[uint16]uint64

func (c counts) list() []LinkCount {
	l := make([]LinkCount, 0, len(c))
	for t, n := range c {
		if n > 0 {
			l = append(l, LinkCount{t, n})
		}
	}
	slices.SortFunc(l, func(a, b LinkCount) int { return int(a.Type) - int(b.Type) })
	return l
}

// wireLen returns the length on the wire as an int that is at least n, whatever a
// careless writer put into the file.
func wireLen(wire uint32, n int) int {
	return max(n, int(min(wire, math.MaxInt32)))
}
