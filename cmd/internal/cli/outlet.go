package cli

import (
	"io"
	"slices"
	"sync"
	"time"
)

// outletBytes is what an outlet holds for a reader that is behind: 1,500 findings of 2.5 kB.
const outletBytes = 4 << 20

// Outlet is a writer that never waits: it holds what it is given and hands it on in a goroutine of its own. A pipe that
// nobody reads, a terminal that was stopped and a disk that is full hold up nobody. What does not fit is left out, whole
// writes only, and counted. It may be used by several goroutines.
type Outlet struct {
	w io.Writer

	mu      sync.Mutex
	pending [][]byte
	bytes   int    // of pending
	busy    bool   // something is being written
	lost    uint64 // writes that did not fit, or that w refused
	err     error  // of the last write; nil: it passed
	changed chan struct{}
}

// NewOutlet begins to write to w.
func NewOutlet(w io.Writer) *Outlet {
	o := &Outlet{w: w, changed: make(chan struct{}, 1)}
	go o.run()
	return o
}

// Write takes p as one piece. It returns no error: lost tells.
func (o *Outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes+len(p) > outletBytes {
		o.lost++
		return len(p), nil
	}
	o.pending = append(o.pending, slices.Clone(p))
	o.bytes += len(p)
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

// run hands on what is pending, for as long as the process lives: a write that never returns cannot be ended.
func (o *Outlet) run() {
	for range o.changed {
		for p := o.next(); p != nil; p = o.next() {
			_, err := o.w.Write(p)
			o.mu.Lock()
			o.busy, o.err = false, err
			o.bytes -= len(p)
			if err != nil {
				o.lost++
			}
			o.mu.Unlock()
		}
	}
}

func (o *Outlet) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) == 0 {
		o.pending = nil
		return nil
	}
	p := o.pending[0]
	o.pending[0] = nil
	o.pending, o.busy = o.pending[1:], true
	return p
}

// Pending tells how many pieces wait, how many were lost, and what the last write failed with.
func (o *Outlet) Pending() (waiting int, lost uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	waiting = len(o.pending)
	if o.busy {
		waiting++
	}
	return waiting, o.lost, o.err
}

// Flush waits until all is written, at most for d, and reports whether it is.
func (o *Outlet) Flush(d time.Duration) bool {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if n, _, _ := o.Pending(); n == 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
