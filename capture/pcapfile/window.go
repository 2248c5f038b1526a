package pcapfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	firstBuffer = 64 << 10  // until the second filling: a source waiting its turn in a merge holds no more
	fullBuffer  = 128 << 10 // from then on: what is read is decoded while it is in the second-level cache
	maxRecord   = 16 << 20  // longest pcapng block, and highest limit for a pcap packet
	zstdWindow  = 128 << 20 // what the zstd tool accepts unless told otherwise
	zstdUsual   = 8 << 20   // what every decoder has to support (RFC 8878 §3.1.1.1.2), and what zstd -19 uses
	zstdAll     = 512 << 20 // of all files that are open at a time: a frame of 20 bytes may claim zstdWindow
)

// unpacking is what the windows of all open zstd files may take by now.
var unpacking atomic.Int64

// claim takes a zstd window of n bytes, and reports whether there was room.
func claim(n int64) bool {
	if unpacking.Add(n) <= zstdAll {
		return true
	}
	unpacking.Add(-n)
	return false
}

var (
	errMore = errors.New("more input needed") // and the caller does not want to wait for it
	errCut  = errors.New("input ends inside a record")
)

// window is the read buffer: buf[lo:hi] has been read from the input, and not yet
// been consumed.
type window struct {
	buf     []byte
	lo, hi  int
	base    int64 // offset of buf[0] in the (unpacked) input
	r       io.Reader
	raw     *rawReader
	packing string // "", "gzip" or "zstd"
	unpack  io.Closer
	err     error // of r; buf[lo:hi] comes before it
	claimed int64 // of unpacking
	wait    bool  // peek may read from r
	fills   int
}

// open looks at the first bytes and puts a decompressor in between if needed.
func (w *window) open(raw *rawReader) error {
	w.r, w.raw, w.wait = raw, raw, true
	head, err := w.peek(4)
	switch {
	case err == io.EOF:
		return errors.New("the file is empty")
	case err == errCut:
		return nil // too short to be compressed
	case err != nil:
		return err
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		w.packing = "gzip"
	case isZstd(head):
		w.packing = "zstd"
	default:
		return nil
	}
	most := int64(0)
	if w.packing == "zstd" {
		if most = zstdMost(head); !claim(most) {
			return fmt.Errorf("the zstd data needs a window of %d MiB to unpack, and the files that are open at the same time take the %d MiB that are allowed; unpack it first",
				most>>20, zstdAll>>20)
		}
	}
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), &errReader{raw, w.err}), firstBuffer)
	*w = window{raw: raw, wait: true, packing: w.packing, claimed: most}
	if w.packing == "gzip" {
		var z *gzip.Reader
		if z, err = gzip.NewReader(in); err == nil {
			w.r, w.unpack = z, z
		}
	} else {
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(most)))
		if err == nil {
			w.r, w.unpack = z, z.IOReadCloser()
		}
	}
	if err != nil {
		err = w.packed(err)
	} else {
		_, err = w.peek(1)
	}
	switch err {
	case io.EOF:
		return fmt.Errorf("the %s data in the file is empty", w.packing)
	case errCut:
		return fmt.Errorf("the %s data is cut short before anything can be read", w.packing)
	}
	return err
}

// zstdMost is the largest window that the frames of a file may have whose first bytes are head: at least the usual one, for later
// frames may want more than the first.
func zstdMost(head []byte) int64 {
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable {
		return zstdWindow // it is not known yet
	}
	return int64(min(max(h.WindowSize, zstdUsual), zstdWindow))
}

// isZstd reports a zstd frame or a skippable frame before one (RFC 8878 §3.1).
func isZstd(b []byte) bool {
	return b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd ||
		b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

// peek returns what is buffered, at least n bytes of it, without consuming any. Its
// errors are those of need.
func (w *window) peek(n int) ([]byte, error) {
	if err := w.need(n); err != nil {
		return nil, err
	}
	return w.bytes(), nil
}

// need sees to it that n bytes are buffered. At the end of the input it returns
// io.EOF if nothing is left, else errCut or what is wrong with the compressed stream;
// errMore if n bytes would take a read that w.wait forbids. Errors consume nothing.
func (w *window) need(n int) error {
	if w.hi-w.lo >= n {
		return nil
	}
	return w.fill(n)
}

// bytes returns what is buffered. It stays in place until the next need.
func (w *window) bytes() []byte { return w.buf[w.lo:w.hi] }

// skip consumes n bytes that peek has returned.
func (w *window) skip(n int) { w.lo += n }

// offset returns the position of the next byte in the (unpacked) input.
func (w *window) offset() int64 { return w.base + int64(w.lo) }

func (w *window) fill(n int) error {
	if w.err == nil && !w.wait {
		return errMore
	}
	if w.lo > 0 {
		w.base += int64(w.lo)
		w.hi = copy(w.buf, w.buf[w.lo:w.hi])
		w.lo = 0
	}
	for idle := 0; w.hi < n && w.err == nil; {
		w.grow()
		m, err := w.r.Read(w.buf[w.hi:])
		w.hi += m
		w.err = err
		if m > 0 {
			w.fills++
			idle = 0
		} else if idle++; idle == 100 && err == nil {
			w.err = io.ErrNoProgress
		}
	}
	switch {
	case w.hi >= n:
		return nil
	case w.err == io.EOF && w.hi == 0:
		return io.EOF
	case w.err == io.EOF:
		return errCut
	case w.packing != "":
		return w.packed(w.err)
	}
	return fmt.Errorf("reading at byte %d: %w", w.base+int64(w.hi), w.err)
}

// grow makes room in the buffer. It doubles only when the bytes before are really
// there, so a record that only claims to be long costs nothing.
func (w *window) grow() {
	size := len(w.buf)
	switch {
	case size == 0:
		size = firstBuffer
	case size < fullBuffer && w.fills > 0:
		size = fullBuffer
	case w.hi == size:
		size = min(2*size, maxRecord+fullBuffer)
	default:
		return
	}
	buf := make([]byte, size)
	copy(buf, w.buf[:w.hi])
	w.buf = buf
}

// packed tells apart what a decompressor's error means: the file could not be read,
// the stream ends early, or it is broken.
func (w *window) packed(err error) error {
	switch {
	case w.raw.err != nil:
		return fmt.Errorf("reading at byte %d of the compressed file: %w", w.raw.n.Load(), w.raw.err)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return errCut
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("the zstd data needs a window of more than %d MiB to unpack; unpack it with zstd --long=31 first",
			w.claimed>>20)
	}
	at := w.base + int64(w.hi)
	return &DamageError{Offset: at, What: fmt.Sprintf(
		"the %s data cannot be unpacked beyond byte %d of its content (%v): the file is damaged from there on", w.packing, at, err)}
}

func (w *window) close() {
	if w.unpack != nil {
		w.unpack.Close()
		w.unpack = nil
	}
	unpacking.Add(-w.claimed)
	w.claimed = 0
	w.base += int64(w.lo)
	w.buf, w.lo, w.hi, w.r = nil, 0, 0, nil
	if w.err == nil {
		w.err = io.EOF
	}
}

// place says where the next record starts, for messages.
func (w *window) place() string {
	if w.packing != "" {
		return fmt.Sprintf("byte %d of the unpacked data", w.offset())
	}
	return fmt.Sprintf("byte %d", w.offset())
}

// damage returns a DamageError for the next record: "packet 7 at byte 1234 <what>:
// the file is damaged from there on".
func (w *window) damage(subject, format string, args ...any) error {
	return &DamageError{Offset: w.offset(), What: fmt.Sprintf("%s at %s %s"+damagedOn,
		subject, w.place(), fmt.Sprintf(format, args...))}
}
