package recording

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"jindan/capture"
)

const (
	readBuffer = 64 << 10
	// fullBatch ends a batch early: so many bytes of lines in it. Samples can be large, and Merge reads batches ahead.
	fullBatch = 1 << 20
	// dataChunk is how much payload is allocated at a time, in bytes.
	dataChunk = 64 << 10
)

// ReadStats says what was in a recording, as far as it has been read.
type ReadStats struct {
	Packets   uint64 // records of packets.pcapng
	Lines     uint64 // of samples.jsonl, after the first
	Damaged   uint64 // those of Lines that could not be used, and places where lines are missing
	LeftOut   uint64 // observations that the recording agent left out for its limits
	Cut       bool   // the recording was not ended, or one of its files is cut short
	CutFile   string // Cut: which
	CutOffset int64  // Cut: where in samples.jsonl the rest would follow; 0 for packets.pcapng
}

// DamageError reports a file of a recording of which something could not be read. Everything else was delivered.
type DamageError struct {
	File   string
	Offset int64  // where the first broken line starts
	What   string // one sentence for the user, without the file's name
}

// Error returns What; whoever prints it puts the name of the file before it.
func (e *DamageError) Error() string { return e.What }

// Recording is an open recording: a [capture.Source] for one reader.
type Recording struct {
	dir     string
	meta    *Meta
	packets capture.Source // nil: could not be opened
	samples io.Closer
	lines   lineReader
	remap   []capture.Counter // by position in the recording; nil: the same

	batch  capture.Batch // of packets
	pos    int           // in batch.Obs
	perr   error         // why no further batches come
	line   *line         // to be delivered next; nil: none has been read
	lerr   error         // why no further lines come
	size   int           // of the lines in the batch being filled
	damage *DamageError
	whole  bool // the last line was there

	came   uint64 // packets delivered, by their number in the file
	next   next   // of packet number nextAt
	nextAt uint64
	high   capture.Instant
	losses []capture.LossReason // to be delivered last
	err    error                // what Read returns when they are
	chunk  []byte
	stats  ReadStats
}

var _ capture.Source = (*Recording)(nil)

// Open opens the recording in dir. open opens packets.pcapng, with the decoder that is to read it:
//
//	recording.Open(dir, func(name string) (capture.Source, error) { return pcapfile.Open(name, decode.New()) })
//
// Either file may be compressed: packets.pcapng.zst, samples.jsonl.gz. It fails if samples.jsonl cannot be opened or does not start as that of a recording. If packets.pcapng cannot be opened, the rest
// is delivered, and then the error.
func Open(dir string, open func(name string) (capture.Source, error)) (*Recording, error) {
	fd, err := openSamples(dir)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return newRecording(dir, fd, open)
}

func newRecording(dir string, samples io.ReadCloser, open func(name string) (capture.Source, error)) (*Recording, error) {
	r := &Recording{dir: dir, samples: samples, high: math.MinInt64, nextAt: 1,
		lines: lineReader{r: bufio.NewReaderSize(samples, readBuffer)}}
	var err error
	if r.meta, err = readMeta(&r.lines); err != nil {
		samples.Close()
		return nil, fmt.Errorf("open recording %s: %w", dir, err)
	}
	r.mapCounters()
	if r.packets, err = open(find(dir, PacketsFile)); err != nil {
		r.packets, r.perr = nil, err
	}
	return r, nil
}

// mapCounters finds where the counters of the recording stand today.
func (r *Recording) mapCounters() {
	names := counterNames()
	if slices.Equal(names, r.meta.Counters) {
		return
	}
	r.remap = make([]capture.Counter, min(len(r.meta.Counters), len(names)))
	for i := range r.remap {
		r.remap[i] = capture.CounterCount
		if c := slices.Index(names, r.meta.Counters[i]); c >= 0 {
			r.remap[i] = capture.Counter(c)
		}
	}
}

// Name returns the directory.
func (r *Recording) Name() string { return r.dir }

// Meta returns what the recording says of the agent.
func (r *Recording) Meta() Meta { return *r.meta }

// Packets returns what the function given to Open returned, for its statistics; nil if it failed.
func (r *Recording) Packets() capture.Source { return r.packets }

// Stats returns what has been read until now.
func (r *Recording) Stats() ReadStats { return r.stats }

// Close closes both files.
func (r *Recording) Close() error {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", r.dir, os.ErrClosed)
	}
	err := r.samples.Close()
	if r.packets != nil {
		err = errors.Join(err, r.packets.Close())
	}
	return err
}

// Read delivers the observations in the order in which they were written, with the sources and frame numbers that they had.
// A batch ends where the recorded stream said that nothing earlier would follow; otherwise Until is the latest time so
// far and says nothing new, so that the same windows are sealed at the same places.
//
// A damaged line is passed over. At the end one KindLoss each says that a file is cut short or damaged, and the error is io.EOF,
// also for a recording cut short; a *DamageError for samples.jsonl; what reading packets.pcapng returned; or both
// joined.
func (r *Recording) Read(ctx context.Context, b *capture.Batch) error {
	if cap(b.Obs) == 0 {
		b.Obs = make([]capture.Observation, 0, capture.DefaultBatch)
	}
	b.Obs, r.size = b.Obs[:0], 0
	for more := true; more && r.err == nil && len(b.Obs) < cap(b.Obs) && r.size < fullBatch; {
		if err := ctx.Err(); err != nil {
			b.Until = r.high
			return err
		}
		var err error
		if more, err = r.step(ctx, b); err != nil {
			b.Until = r.high
			return err
		}
	}
	for r.err != nil && len(r.losses) > 0 && len(b.Obs) < cap(b.Obs) {
		b.Obs = append(b.Obs, capture.Observation{At: r.high, Kind: capture.KindLoss, Reason: r.losses[0], Lost: 1})
		r.losses = r.losses[1:]
	}
	b.Until = r.high
	if len(r.losses) > 0 {
		return nil
	}
	return r.err
}

// step delivers a line or packets. It reports whether the batch may go on.
func (r *Recording) step(ctx context.Context, b *capture.Batch) (bool, error) {
	if r.line == nil && r.lerr == nil {
		r.readLine()
	}
	if r.pos == len(r.batch.Obs) && r.perr == nil {
		r.pos = 0
		r.perr = r.packets.Read(ctx, &r.batch)
		if err := ctx.Err(); err != nil && errors.Is(r.perr, err) {
			r.perr = nil
			return false, err
		}
		return true, nil
	}
	switch {
	case r.pos < len(r.batch.Obs) && (r.line == nil || !r.lineFirst(&r.batch.Obs[r.pos])):
		r.packet(b, &r.batch.Obs[r.pos])
		r.pos++
	case r.line != nil:
		l := r.line
		r.line = nil
		return r.deliver(b, l), nil
	case r.lerr != nil:
		r.end()
	}
	return true, nil
}

// lineFirst reports whether the line comes before o.
func (r *Recording) lineFirst(o *capture.Observation) bool {
	if o.Kind == capture.KindPacket {
		return r.line.After < o.Packet.Frame
	}
	return r.line.After <= r.came
}

// packet delivers an observation of packets.pcapng.
func (r *Recording) packet(b *capture.Batch, o *capture.Observation) {
	switch {
	case o.Kind == capture.KindPacket:
		r.came = o.Packet.Frame
	case o.Reason == capture.LossKernelDrop:
		return // for other readers of the file; a line says it, too
	case o.Reason != capture.LossFileCut && o.Reason != capture.LossFileDamaged:
		r.came++ // the decoder refused it
	}
	r.stats.Packets = r.came
	r.high = max(r.high, o.At)
	b.Obs = append(b.Obs, *o)
	if o.Kind != capture.KindPacket {
		return
	}
	o = &b.Obs[len(b.Obs)-1]
	o.Source, o.Packet.Frame = r.next.Source, r.next.Frame
	if o.Packet.Frame != 0 {
		o.Packet.Frame += r.came - r.nextAt
	}
	o.Packet.SrcMAC, o.Packet.DstMAC = 0, 0 // of stand-ins
	o.Packet.Data = r.keep(o.Packet.Data)
}

// keep copies data out of the memory of r.batch. What it returns stays until nobody points to it.
func (r *Recording) keep(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	if cap(r.chunk)-len(r.chunk) < len(data) {
		r.chunk = make([]byte, 0, max(dataChunk, len(data)))
	}
	n := len(r.chunk)
	r.chunk = append(r.chunk, data...)
	return r.chunk[n:len(r.chunk):len(r.chunk)]
}

// deliver delivers a line and reports whether the batch may go on.
func (r *Recording) deliver(b *capture.Batch, l *line) bool {
	switch {
	case l.Next != nil:
		r.next, r.nextAt = *l.Next, l.After+1
		return true
	case l.Until != nil:
		if r.high == math.MinInt64 { // nothing has begun; Write writes no such line
			return true
		}
		r.high = max(r.high, *l.Until)
		return false
	case l.End != nil:
		r.stats.LeftOut = l.End.LeftOut
		if r.came < l.After {
			r.cut(PacketsFile, 0)
		}
		return true
	}
	o := capture.Observation{At: *l.At, Source: l.Source}
	switch {
	case l.Sample != nil:
		o.Kind, o.Sample = capture.KindSample, l.Sample
		r.counters(l.Sample.Host)
	case l.Packet != nil:
		o.Packet = *l.Packet
		if p := &o.Packet; p.Proto == capture.ProtoTCP {
			p.Hash = capture.FlowHash(&p.Src, &p.Dst)
			p.Ident = p.Identity()
		}
	default:
		o.Kind, o.Reason, o.Lost = capture.KindLoss, lossReason(l.Reason), l.Lost
	}
	r.high = max(r.high, o.At)
	b.Obs = append(b.Obs, o)
	return true
}

// counters puts the counters of an older or newer version where they belong.
func (r *Recording) counters(h *capture.HostSample) {
	if h == nil || r.remap == nil {
		return
	}
	values, has := h.Counters, h.Has
	h.Counters, h.Has = [capture.CounterCount]uint64{}, 0
	for i, c := range r.remap {
		if c < capture.CounterCount && has&(1<<i) != 0 {
			h.Set(c, values[i])
		}
	}
}

func (r *Recording) cut(file string, offset int64) {
	if !r.stats.Cut {
		r.stats.Cut, r.stats.CutFile, r.stats.CutOffset = true, filepath.Join(r.dir, file), offset
	}
}

// end says how the recording ended.
func (r *Recording) end() {
	var errs []error
	if r.damage != nil {
		r.losses = append(r.losses, capture.LossFileDamaged)
		errs = append(errs, r.damage)
	}
	if r.stats.Cut {
		r.losses = append(r.losses, capture.LossFileCut)
	}
	for _, err := range []error{r.lerr, r.perr} {
		if err != io.EOF {
			errs = append(errs, err)
		}
	}
	if r.high == math.MinInt64 {
		r.losses = nil // no time to report them at
	}
	switch len(errs) {
	case 0:
		r.err = io.EOF
	case 1:
		r.err = errs[0]
	default:
		r.err = errors.Join(errs...)
	}
}
