//go:build linux

package host

import (
	"slices"
	"sync"

	"jindan/capture"
)

// maxQueued bounds the changes and asked-for inodes that wait for the next Read. A link that flaps makes two changes each time;
// more than this in a second is a storm, of which the count is enough.
const maxQueued = 1024

// maxUntold bounds the failures that wait to be told: more than there are files and interfaces to read.
const maxUntold = 32

// queue holds what happens between two reads.
type queue struct {
	clock func() capture.Instant

	mu      sync.Mutex
	changes []capture.Observation
	asked   []uint32
	dropped uint64
	failed  uint64
	last    error
	untold  []error // see Source.Untold
}

// change queues a marker with the present time.
func (q *queue) change(c capture.Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.changes) >= maxQueued {
		q.dropped++
		return
	}
	q.changes = append(q.changes, capture.Observation{At: q.clock(), Kind: capture.KindSample, Sample: &capture.Sample{Change: &c}})
}

// ask queues the inodes that are not yet asked for.
func (q *queue) ask(inodes []uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range inodes {
		switch {
		case i == 0 || slices.Contains(q.asked, i): // 0: not accepted yet, so nobody's
		case len(q.asked) >= maxQueued:
			q.dropped++
		default:
			q.asked = append(q.asked, i)
		}
	}
}

func (q *queue) takeAsked() []uint32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.asked
	q.asked = nil
	return a
}

// takeChanges appends the changes to dst. What follows later is not older than until, unless the clock is set back.
func (q *queue) takeChanges(dst []capture.Observation) (all []capture.Observation, until capture.Instant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	dst = append(dst, q.changes...)
	clear(q.changes) // their samples belong to the reader now
	q.changes = q.changes[:0]
	return dst, q.clock()
}

func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed++
	q.last = err
	if len(q.untold) < maxUntold {
		q.untold = append(q.untold, err)
	}
}
