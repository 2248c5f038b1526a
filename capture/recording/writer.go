package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"jindan/capture"
)

const (
	writeBuffer = 256 << 10
	// endReserve is kept free of Options.MaxBytes for what Close writes, in bytes.
	endReserve = 512
)

// Options of a recording. The zero value has no limits.
type Options struct {
	Meta
	MaxBytes    int64         // of both files together
	MaxDuration time.Duration // of event time, from the first observation on
}

// WriteStats says what a Writer has done.
type WriteStats struct {
	Packets uint64 // in packets.pcapng
	Lines   uint64 // in samples.jsonl, after the first
	Odd     uint64 // packets that became lines because no capture file can express them
	Bytes   int64  // of both files
	LeftOut uint64 // observations that came after a limit was reached, or that no reader would accept
	Stopped string // which limit was reached, in words; empty before
}

// Writer writes a recording. It is not safe for concurrent use.
type Writer struct {
	o       Options
	packets *output
	samples *output
	enc     *json.Encoder // to json
	json    bytes.Buffer
	err     error
	stats   WriteStats

	began   bool
	first   capture.Instant
	high    capture.Instant        // latest time or Until of what was written
	coming  next                   // what readers expect of the next packet
	drops   uint64                 // kernel drops since the last packet
	dropped uint64                 // and altogether
	one     [1]capture.Observation // an entry of a Ring
}

// output is one of the files.
type output struct {
	*bufio.Writer
	fd *os.File
}

// Create starts a recording in dir, which it makes for its owner alone if it is not there. It fails if dir
// holds one already. Both files start to exist at once, so that a recording can be read however it ends.
func Create(dir string, o Options) (*Writer, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	w := &Writer{o: o}
	w.enc = json.NewEncoder(&w.json)
	w.enc.SetEscapeHTML(false)
	w.o.Schema, w.o.Counters = schema, counterNames()
	var err error
	if w.samples, err = create(dir, SamplesFile); err != nil {
		return nil, err
	}
	if w.packets, err = create(dir, PacketsFile); err != nil {
		w.samples.discard()
		return nil, err
	}
	if err = w.enc.Encode(&w.o.Meta); err == nil {
		w.put(w.samples, w.json.Bytes())
		w.put(w.packets, appendHeader(nil, w.o.Agent))
		err = w.Flush()
	}
	if err != nil {
		w.samples.discard()
		w.packets.discard()
		return nil, err
	}
	return w, nil
}

func create(dir, name string) (*output, error) {
	fd, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("%s holds a recording already: choose another directory, or remove it: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("create recording: %w", err)
	}
	return &output{bufio.NewWriterSize(fd, writeBuffer), fd}, nil
}

func (o *output) discard() {
	o.fd.Close()
	_ = os.Remove(o.fd.Name()) // what is left is empty, and says so when it is opened
}

// Stats returns what has been written until now.
func (w *Writer) Stats() WriteStats { return w.stats }

// Flush hands everything to the operating system, so that it survives the end of the process.
func (w *Writer) Flush() error {
	for _, o := range []*output{w.samples, w.packets} {
		if err := o.Flush(); err != nil {
			w.fail(err)
		}
	}
	return w.err
}

// fail keeps the first error: nothing can be written behind a gap.
func (w *Writer) fail(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
	}
}

func (w *Writer) put(o *output, b []byte) {
	_, err := o.Write(b)
	w.fail(err)
	w.stats.Bytes += int64(len(b))
}

// Write writes a batch of the merged stream; batches come in the order of the stream. What a limit leaves out is counted,
// and no error. After an error nothing more is written, and each further Write returns it.
func (w *Writer) Write(b *capture.Batch) error {
	for i := range b.Obs {
		o := &b.Obs[i]
		if !w.open(o.At) || !w.observation(o) {
			w.stats.LeftOut++
		}
	}
	w.reached(b.Until)
	return w.err
}

// observation reports whether o was written.
func (w *Writer) observation(o *capture.Observation) bool {
	switch o.Kind {
	case capture.KindPacket:
		return w.packet(o)
	case capture.KindLoss:
		return w.loss(o)
	case capture.KindSample:
		return o.Sample != nil && w.encode(o.Sample) && w.value(o.At, o.Source, `,"sample":`, w.json.Bytes())
	}
	w.fail(fmt.Errorf("observation of unknown kind %d", o.Kind))
	return false
}

// open notes the time of an observation and reports whether it is still to be written.
func (w *Writer) open(at capture.Instant) bool {
	if !w.began && possible(at) {
		w.began, w.first, w.high = true, at, at
	}
	switch {
	case w.stats.Stopped != "":
	case w.o.MaxBytes > 0 && w.stats.Bytes+endReserve >= w.o.MaxBytes:
		w.stats.Stopped = fmt.Sprintf("the recording has reached %d bytes", w.o.MaxBytes)
	case w.o.MaxDuration > 0 && at.Sub(w.first) > w.o.MaxDuration:
		w.stats.Stopped = fmt.Sprintf("the recording has reached %v", w.o.MaxDuration)
	}
	if w.stats.Stopped != "" || w.err != nil || !possible(at) {
		return false
	}
	w.high = max(w.high, at)
	return true
}

// fits reports whether n more bytes may be written.
func (w *Writer) fits(n int) bool {
	if w.o.MaxBytes > 0 && w.stats.Bytes+int64(n)+endReserve > w.o.MaxBytes {
		w.stats.Stopped = fmt.Sprintf("the recording has reached %d bytes", w.o.MaxBytes)
		return false
	}
	return true
}

// reached writes an Until that says more than the times before it: it may seal windows.
func (w *Writer) reached(until capture.Instant) {
	if w.began && w.stats.Stopped == "" && until > w.high && possible(until) {
		w.high = until
		w.line(func(b []byte) []byte { return appendTime(b, `,"until":`, until) })
	}
}

func (w *Writer) packet(o *capture.Observation) bool {
	p := &o.Packet
	l, ok := plan(p)
	if !ok || o.At < 0 {
		return w.odd(o)
	}
	if n := (next{o.Source, p.Frame}); n != w.coming && !w.announce(n) {
		return false
	}
	b := appendPacket(w.packets.AvailableBuffer(), o.At, p, l, w.drops)
	if !w.fits(len(b)) {
		return false
	}
	w.put(w.packets, b)
	w.drops = 0
	w.coming = w.coming.follow()
	w.stats.Packets++
	return true
}

// announce says which packet follows, other than expected.
func (w *Writer) announce(n next) bool {
	w.coming = n
	return w.line(func(b []byte) []byte {
		b = strconv.AppendUint(append(b, `,"next":{"source":`...), uint64(n.Source), 10)
		b = strconv.AppendUint(append(b, `,"frame":`...), n.Frame, 10)
		return append(b, '}')
	})
}

// odd writes a packet as a line, but for its hashes: they are of this process, or follow from the rest.
func (w *Writer) odd(o *capture.Observation) bool {
	p := o.Packet
	p.Hash, p.Ident = 0, 0
	if !w.encode(&p) || !w.value(o.At, o.Source, `,"packet":`, w.json.Bytes()) {
		return false
	}
	w.stats.Odd++
	return true
}

func (w *Writer) loss(o *capture.Observation) bool {
	if !w.line(func(b []byte) []byte {
		b = appendObservation(b, o.At, o.Source)
		b = strconv.AppendUint(append(b, `,"lost":`...), o.Lost, 10)
		b = append(append(b, `,"reason":"`...), o.Reason.String()...)
		return append(b, '"')
	}) {
		return false
	}
	if o.Reason == capture.LossKernelDrop {
		w.drops += o.Lost
		w.dropped += o.Lost
	}
	return true
}

// encode leaves v in w.json.
func (w *Writer) encode(v any) bool {
	w.json.Reset()
	if err := w.enc.Encode(v); err != nil {
		w.fail(err)
		return false
	}
	w.json.Truncate(w.json.Len() - 1) // the line's end
	return true
}

// value writes a line with a JSON value, unless Open would refuse it.
func (w *Writer) value(at capture.Instant, source uint16, key string, v []byte) bool {
	return len(v) <= maxLine-endReserve && !dense(v) && w.line(func(b []byte) []byte {
		return append(append(appendObservation(b, at, source), key...), v...)
	})
}

// line writes a line that f completes, and reports whether it fitted.
func (w *Writer) line(f func([]byte) []byte) bool {
	b := strconv.AppendUint(append(w.samples.AvailableBuffer(), `{"n":`...), w.stats.Lines+1, 10)
	b = strconv.AppendUint(append(b, `,"after":`...), w.stats.Packets, 10)
	b = append(f(b), '}', '\n')
	if !w.fits(len(b)) {
		return false
	}
	w.put(w.samples, b)
	w.stats.Lines++
	return true
}

func appendTime(b []byte, key string, at capture.Instant) []byte {
	b = append(append(b, key...), '"')
	return append(at.Time().AppendFormat(b, time.RFC3339Nano), '"')
}

func appendObservation(b []byte, at capture.Instant, source uint16) []byte {
	b = appendTime(b, `,"at":`, at)
	return strconv.AppendUint(append(b, `,"source":`...), uint64(source), 10)
}

// Close ends the recording; the last line says that it is whole. Without Close it can be read up to the last Flush.
func (w *Writer) Close() error {
	if w.err == nil {
		w.o.MaxBytes = 0 // endReserve is for this
		w.line(func(b []byte) []byte {
			b = strconv.AppendUint(append(b, `,"end":{"left_out":`...), w.stats.LeftOut, 10)
			return append(b, '}')
		})
		w.put(w.packets, appendStatistics(nil, w.high, w.stats.Packets, w.dropped))
		_ = w.Flush()
	}
	for _, o := range []*output{w.samples, w.packets} {
		w.fail(o.fd.Close())
	}
	err := w.err
	w.fail(os.ErrClosed)
	return err
}
