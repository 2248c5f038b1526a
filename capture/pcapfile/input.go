package pcapfile

import (
	"context"
	"io"
	"sync/atomic"
)

// rawReader counts what is read from the file and keeps its error apart from those of
// a decompressor above it.
type rawReader struct {
	r   io.Reader
	ctx context.Context
	n   atomic.Int64
	err error // other than io.EOF
}

func (r *rawReader) Read(p []byte) (int, error) {
	var n int
	var err error
	if c, ok := r.r.(*pump); ok && r.ctx != nil {
		n, err = c.read(r.ctx, p)
	} else {
		n, err = r.r.Read(p)
	}
	r.n.Add(int64(n))
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// errReader delivers an error that was met before, or reads on.
type errReader struct {
	r   io.Reader
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.r.Read(p)
}

// pump reads from a pipe or a terminal in a goroutine of its own, because such a read
// cannot be interrupted: with it, a Read returns when its context ends. The goroutine
// starts with the first read and ends with the input; after Close it ends with the
// read that is under way, which may be as late as the end of the process.
type pump struct {
	r     io.Reader
	full  chan []byte
	free  chan []byte
	done  chan struct{}
	cur   []byte // rest of the piece being read
	piece []byte // all of it
	err   error  // valid once full is closed
}

func newPump(r io.Reader) *pump {
	return &pump{r: r, done: make(chan struct{})}
}

func (p *pump) run() {
	defer close(p.full)
	for {
		select {
		case b := <-p.free:
			n, err := p.r.Read(b[:cap(b)])
			p.err = err
			if n > 0 || err == nil {
				p.full <- b[:n] // has room for every piece
			}
			if err != nil {
				return
			}
		case <-p.done:
			return
		}
	}
}

func (p *pump) Read(b []byte) (int, error) { return p.read(context.Background(), b) }

func (p *pump) read(ctx context.Context, b []byte) (int, error) {
	if p.full == nil {
		p.full, p.free = make(chan []byte, 2), make(chan []byte, 2)
		for range 2 {
			p.free <- make([]byte, firstBuffer)
		}
		go p.run()
	}
	for len(p.cur) == 0 {
		if p.piece != nil {
			p.free <- p.piece // has room for every piece
			p.piece = nil
		}
		select {
		case piece, ok := <-p.full:
			if !ok {
				if p.err == nil {
					return 0, io.ErrClosedPipe
				}
				return 0, p.err
			}
			p.cur, p.piece = piece, piece
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// Close lets the goroutine end.
func (p *pump) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}
