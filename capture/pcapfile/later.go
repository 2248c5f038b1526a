package pcapfile

import (
	"context"
	"os"
	"sync/atomic"

	"jindan/capture"
)

// Later is a capture file among many that are merged: between its first observations, which a merge needs to know when its
// turn is, and that turn it is closed. A directory of captures that follow each other hence holds few of them open, and few
// read buffers and decompressors.
type Later struct {
	decoder func() Decoder
	file    atomic.Pointer[File] // open, or closed with its statistics
	closed  bool                 // until its turn
	given   int                  // observations that Read has returned
}

var _ capture.Source = (*Later)(nil)

// OpenLater opens name as [Open] does, with a decoder of its own each time that it has to, and closes it again until Read.
// Only a regular file can be read twice; what is none stays open.
func OpenLater(name string, decoder func() Decoder) (*Later, error) {
	l := &Later{decoder: decoder}
	f, err := Open(name, decoder())
	if err != nil {
		return nil, err
	}
	l.file.Store(f)
	return l, l.park()
}

// park closes the file until it is read again.
func (l *Later) park() error {
	f := l.file.Load()
	if st, err := os.Stat(f.name); f.err != nil || err != nil || !st.Mode().IsRegular() {
		return nil
	}
	l.closed = true
	return f.Close()
}

// resume opens the file again and reads what Read has returned before.
func (l *Later) resume(ctx context.Context) error {
	f, err := Open(l.Name(), l.decoder())
	if err != nil {
		return err
	}
	l.file.Store(f)
	l.closed = false
	b := capture.Batch{}
	for left := l.given; left > 0; left -= len(b.Obs) {
		b.Obs = make([]capture.Observation, 0, min(left, capture.DefaultBatch))
		if err := f.Read(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}

// Read is that of a [File].
func (l *Later) Read(ctx context.Context, b *capture.Batch) error {
	if l.closed {
		if err := l.resume(ctx); err != nil {
			b.Obs = b.Obs[:0]
			return err
		}
	}
	first := l.given == 0
	err := l.file.Load().Read(ctx, b)
	l.given += len(b.Obs)
	if err == nil && first && l.given > 0 {
		err = l.park()
	}
	return err
}

// Name is that of the File.
func (l *Later) Name() string { return l.file.Load().Name() }

// Progress is that of the File.
func (l *Later) Progress() (read, size int64) { return l.file.Load().Progress() }

// Stats are those of the File.
func (l *Later) Stats() Stats { return l.file.Load().Stats() }

// Close closes the File.
func (l *Later) Close() error { return l.file.Load().Close() }
