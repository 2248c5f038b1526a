package pcapfile

import "jindan/capture"

// arenaCount is how many batches a File remembers; [capture.Merge] uses two.
const arenaCount = 4

// arena holds the payload of the packets in one batch. It is overwritten when that
// batch is read again. A batch beyond arenaCount takes the place of another one: that
// one loses the reuse of its memory, never its content, which stays as long as
// observations point to it.
type arena struct {
	of  *capture.Batch
	buf []byte
}

func (f *File) arena(b *capture.Batch) *arena {
	for i := range f.arenas {
		if a := &f.arenas[i]; a.of == b {
			a.buf = a.buf[:0]
			return a
		}
	}
	a := &f.arenas[f.turn]
	f.turn = (f.turn + 1) % arenaCount
	*a = arena{of: b}
	return a
}

// keep copies data. When the arena grows, what was kept earlier stays in the old
// memory, which its observations keep alive.
func (a *arena) keep(data []byte) []byte {
	n := len(a.buf)
	a.buf = append(a.buf, data...)
	return a.buf[n:len(a.buf):len(a.buf)]
}
