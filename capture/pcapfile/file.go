// Package pcapfile reads capture files as a [capture.Source]: pcap (both byte orders,
// microseconds and nanoseconds, the "modified" variant of A. Kuznetzov, and the old
// 2.0–2.3 headers), pcapng, and snoop; plain, gzip or zstd, from a file or from
// standard input. What a file is, its content decides, not its name.
//
// A file is data from strangers: every length is checked before anything is allocated
// or read by it. A damaged file delivers what stands before the damage, and behind it as soon as a
// record is plausible again, and in the end fails with a [*DamageError]; a file that merely ends too early delivers everything, ends
// with io.EOF, and says so in [Stats].
//
// Memory per open file: a read buffer of 64 KiB, 1 MiB from its second filling on,
// and up to 17 MiB once a record of that size is really there; nothing after the end
// of the file. gzip adds about 110 KiB, zstd the window of the frame (8 MiB at level
// 19, never more than 128 MiB).
package pcapfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"jindan/capture"
)

// Decoder turns the bytes of one captured packet into a Packet.
type Decoder interface {
	// Decode reads data, the captured bytes of a packet of wireLen bytes (wireLen ≥
	// len(data)) with the given LINKTYPE_ value
	// (https://www.tcpdump.org/linktypes.html), seen at at. It returns
	// capture.LossNone when *p holds the packet, else why it does not; *p then means
	// nothing.
	//
	// *p comes with what an earlier packet left in it: Decode sets every field but
	// Frame. p.Data may point into data or into memory of the decoder; the caller
	// copies it before the next call. Decode must not keep data. A method Recycle(),
	// if there is one, is called now and then, when no Data handed out before is
	// needed any more. A method Orphans() uint64, if there is one, is called at the end of
	// the file and says how many fragments waited in vain for the rest of their datagram.
	Decode(at capture.Instant, linkType uint16, data []byte, wireLen int, p *capture.Packet) capture.LossReason
}

// Stats says what was in a file, as far as it has been read.
type Stats struct {
	Format      string          // "pcap", "pcapng" or "snoop"
	Compression string          // "gzip", "zstd", or empty
	Packets     uint64          // packet records
	Frames      uint64          // Packets, and other pcapng blocks that Wireshark numbers as frames
	Bytes       uint64          // captured bytes in them
	First, Last capture.Instant // earliest and latest time; meaningless if Packets == NoTime
	Interfaces  int             // interfaces described, over all sections; 1 for pcap and snoop
	LinkTypes   []LinkCount     // what the packets came on, ascending
	SnapCut     uint64          // packets of which less was captured than was on the wire
	Backward    uint64          // packets with a time before that of their predecessor
	NoTime      uint64          // packets without a time of their own (pcapng simple packet blocks)

	// Unread counts, by reason, what is missing or could not be used: packets that
	// the decoder refused, packets that the file says were dropped (LossKernelDrop),
	// and 1 for LossFileCut or LossFileDamaged.
	Unread [capture.LossReasonCount]uint64

	Cut       bool  // the file ends inside a record, or its compressed stream ends early
	CutOffset int64 // Cut: where the incomplete record starts; in the unpacked data, if it is compressed
}

// LinkCount counts the packets of one link type.
type LinkCount struct {
	Type    uint16 // LINKTYPE_ value
	Packets uint64
}

// DamageError reports a file whose structure is broken: it cannot be read beyond
// Offset, and what was delivered before is sound.
type DamageError struct {
	File   string
	Offset int64  // where the broken record starts; in the unpacked data, if the file is compressed
	What   string // one sentence for the user, without the file's name
	// Skipped is how many bytes were skipped, there and later, to go on reading; 0: nothing behind Offset could be read.
	Skipped int64
	// Gaps tells how often something was skipped, and From and To the times of the packets around the first and the last gap; they
	// are 0 unless Timed: a packet with a time was read before the first, and one behind the last.
	Gaps     int
	From, To capture.Instant
	Timed    bool
}

// Error returns What; whoever prints it puts the name of the file before it.
func (e *DamageError) Error() string { return e.What }

// File is an open capture file. It is a [capture.Source] for one reader; only Name
// and Progress may be called while a Read is under way.
type File struct {
	name    string
	d       Decoder
	recycle func() // d.Recycle, if d has it
	win     window
	format  format
	closer  func() error
	raw     *rawReader
	size    int64

	rec    record
	have   bool            // rec has been read and counted, but not delivered yet
	last   capture.Instant // time of the previous packet record
	until  capture.Instant // latest time delivered
	losses []loss          // still to be delivered before err
	damage *DamageError    // the first, if reading went on behind it
	behind bool            // the next packet is the first behind a gap
	err    error           // why there are no more records
	stats  Stats
	arenas capture.Arenas
}

type loss struct {
	reason capture.LossReason
	n      uint64
}

var _ capture.Source = (*File)(nil)

// Open opens a capture file; "-" is standard input, and FILE#INTERFACE one interface of a pcapng file, by its name or its number from 0 on. It
// reads the file's header, and
// fails when the file cannot be opened, is empty, or is no capture that this package
// reads; those errors name the file. d belongs to the File from then on.
func Open(name string, d Decoder) (*File, error) {
	if name == "-" {
		p := newPump(os.Stdin)
		return open("standard input", p, p.Close, 0, d)
	}
	file, only := Interface(name)
	fd, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	if only != "" {
		return openInterface(name, fd, only, d)
	}
	st, err := fd.Stat()
	if err != nil {
		fd.Close()
		return nil, err
	}
	switch {
	case st.IsDir():
		fd.Close()
		return nil, fmt.Errorf("%s: is a directory", name)
	case !st.Mode().IsRegular(): // a pipe: a read may block for ever
		p := newPump(fd)
		return open(name, p, func() error { return errors.Join(p.Close(), fd.Close()) }, 0, d)
	}
	return open(name, fd, fd.Close, st.Size(), d)
}

// Interface splits FILE#INTERFACE. What is the name of a file as it stands names no interface.
func Interface(name string) (file, only string) {
	i := strings.LastIndexByte(name, '#')
	if i <= 0 || i == len(name)-1 {
		return name, ""
	}
	if _, err := os.Lstat(name); err == nil {
		return name, ""
	}
	return name[:i], name[i+1:]
}

// openInterface opens one interface of a pcapng file.
func openInterface(name string, fd *os.File, only string, d Decoder) (*File, error) {
	size := int64(0)
	if st, err := fd.Stat(); err == nil && st.Mode().IsRegular() {
		size = st.Size()
	}
	f, err := open(name, fd, fd.Close, size, d)
	if err != nil {
		return nil, err
	}
	p, ok := f.format.(*pcapng)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s: only a pcapng file names interfaces, and this one is %s", name, f.format.name()), f.Close())
	}
	p.only = only
	return f, nil
}

// NewReader reads a capture from r. name serves messages. A Read of the File ends no
// sooner than the Read of r that it waits for. Closing the File leaves r open.
func NewReader(name string, r io.Reader, d Decoder) (*File, error) {
	return open(name, r, func() error { return nil }, 0, d)
}

func open(name string, r io.Reader, closer func() error, size int64, d Decoder) (*File, error) {
	f := &File{name: name, d: d, closer: closer, size: size, raw: &rawReader{r: r}, until: math.MinInt64}
	if r, ok := d.(interface{ Recycle() }); ok {
		f.recycle = r.Recycle
	}
	err := f.win.open(f.raw)
	if err == nil {
		f.stats.Compression = f.win.packing
		f.format, err = detect(&f.win)
	}
	if err != nil {
		f.Close()
		var damage *DamageError
		if errors.As(err, &damage) {
			damage.File = name
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f.stats.Format = f.format.name()
	return f, nil
}

// Name returns the name given to Open, or "standard input".
func (f *File) Name() string { return f.name }

// Progress returns how many bytes of the file have been read and how many it has, 0
// if that is unknown. It may be called at any time.
func (f *File) Progress() (read, size int64) { return f.raw.n.Load(), f.size }

// Stats returns what has been read until now.
func (f *File) Stats() Stats {
	s := f.stats
	s.Frames = f.rec.frame
	s.Interfaces, s.LinkTypes = f.format.links()
	return s
}

// Close releases the file. It is not needed after Read has returned an error, but
// does no harm.
func (f *File) Close() error {
	f.win.close()
	if f.closer == nil {
		return nil
	}
	c := f.closer
	f.closer = nil
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", f.name, os.ErrClosed)
	}
	return c()
}

// Read fills b with the next packets, decoded in place. Packets that the decoder
// refuses become KindLoss observations with Lost 1, but for LossNotIP and
// LossReassembling, where nothing is missing; the observations do not depend on the
// size of batches. Frame numbers count from 1 every record that Wireshark counts.
// Packets that the capturing side says it dropped come as KindLoss before the packet
// that follows them; a cut or damaged file ends with one KindLoss.
//
// A batch ends early rather than wait for input while it has something to deliver.
// Payload (Packet.Data) is copied out of the read buffer into memory that belongs to
// b, so that it lasts until b, this very Batch, is read again, even when other
// batches are read meanwhile.
//
// The error is io.EOF at the end, also of a file that is cut short; a *DamageError;
// the error of the underlying reader; or that of ctx.
func (f *File) Read(ctx context.Context, b *capture.Batch) error {
	if cap(b.Obs) == 0 {
		b.Obs = make([]capture.Observation, 0, capture.DefaultBatch)
	}
	b.Obs = b.Obs[:0]
	b.Until = f.until
	if err := ctx.Err(); err != nil {
		return err
	}
	f.raw.ctx = ctx
	a := f.arenas.For(b)
	if f.recycle != nil {
		f.recycle() // all Data handed out by the decoder has been copied
	}
	f.win.wait = true
	obs, n := b.Obs[:cap(b.Obs)], 0
	for n < len(obs) {
		if !f.have {
			if f.err != nil {
				if len(f.losses) == 0 {
					break
				}
				f.lose(&obs[n], f.last, f.losses[0])
				f.losses = f.losses[1:]
				n++
				continue
			}
			if err := f.format.next(&f.win, &f.rec); err != nil {
				if err == errMore {
					break
				}
				if damage := (*DamageError)(nil); errors.As(err, &damage) && f.resync(damage) {
					continue
				}
				f.end(err)
				continue
			}
			f.have = true
			f.count()
		}
		o := &obs[n]
		r := &f.rec
		if r.drops > 0 {
			f.lose(o, r.at, loss{capture.LossKernelDrop, r.drops})
			r.drops = 0
			n++
			f.win.wait = false
			continue
		}
		f.have = false
		reason := f.d.Decode(r.at, r.link, r.data, r.wire, &o.Packet)
		if reason != capture.LossNone {
			f.stats.Unread[reason]++
			if reason != capture.LossNotIP && reason != capture.LossReassembling {
				f.lose(o, r.at, loss{reason, 1})
				n++
				f.win.wait = false
			}
			continue
		}
		o.At, o.Kind, o.Reason, o.Source, o.Lost = r.at, capture.KindPacket, capture.LossNone, 0, 0
		o.Packet.Frame = r.frame
		if o.Packet.Dir == capture.DirUnknown {
			o.Packet.Dir = r.dir
		}
		if len(o.Packet.Data) > 0 {
			o.Packet.Data = a.Keep(o.Packet.Data)
		}
		f.until = max(f.until, r.at)
		n++
		f.win.wait = false
	}
	b.Obs = obs[:n]
	b.Until = f.until
	if f.err != nil && !f.have && len(f.losses) == 0 {
		return f.err
	}
	return nil
}

// count enters a new packet record into the statistics.
func (f *File) count() {
	r, s := &f.rec, &f.stats
	switch timed := s.Packets - s.NoTime; {
	case r.untimed:
		s.NoTime++
		r.at = f.last
	case timed == 0:
		s.First, s.Last = r.at, r.at
	case r.at < f.last:
		s.Backward++
		s.First = min(s.First, r.at)
	case r.at > s.Last:
		s.Last = r.at
	}
	if f.behind && !r.untimed {
		f.behind = false
		f.damage.To, f.damage.Timed = r.at, f.damage.From != unknownTime
	}
	f.last = r.at
	s.Packets++
	s.Bytes += uint64(len(r.data))
	if r.wire > len(r.data) {
		s.SnapCut++
	}
	s.Unread[capture.LossKernelDrop] += r.drops
}

// end notes why there are no more records and lets go of the file.
func (f *File) end(err error) {
	var damage *DamageError
	var last capture.LossReason
	resumed := f.resumed()
	switch {
	case resumed != nil && (err == io.EOF || err == errCut):
		resumed.File = f.name
		last, err = capture.LossFileDamaged, resumed
	case err == io.EOF:
	case err == errCut:
		f.stats.Cut, f.stats.CutOffset = true, f.win.offset()
		last, err = capture.LossFileCut, io.EOF
	case errors.As(err, &damage):
		damage.File = f.name
		last = capture.LossFileDamaged
	}
	if n := f.rec.drops; n > 0 {
		f.losses = append(f.losses, loss{capture.LossKernelDrop, n})
		f.stats.Unread[capture.LossKernelDrop] += n
		f.rec.drops = 0
	}
	if last != capture.LossNone {
		f.losses = append(f.losses, loss{last, 1})
		f.stats.Unread[last]++
	}
	if d, ok := f.d.(interface{ Orphans() uint64 }); ok {
		if n := d.Orphans(); n > 0 {
			f.losses = append(f.losses, loss{capture.LossFragment, n})
			f.stats.Unread[capture.LossFragment] += n
		}
	}
	if f.stats.Packets == 0 {
		f.losses = nil // no time to report them at
	}
	f.err = err
	f.Close()
}

// lose writes a KindLoss observation.
func (f *File) lose(o *capture.Observation, at capture.Instant, l loss) {
	*o = capture.Observation{At: at, Kind: capture.KindLoss, Reason: l.reason, Lost: l.n}
	f.until = max(f.until, at)
}
