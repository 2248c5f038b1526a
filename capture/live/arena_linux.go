package live

import "jindan/capture"

// arenaCount is how many batches a Source remembers: as many as [capture.Merge] reads ahead.
const arenaCount = 8

// arena holds the payload of the packets in one batch. It is overwritten when that batch is read again. A batch beyond
// arenaCount takes the place of another one: that one loses the reuse of its memory, never its content.
type arena struct {
	of  *capture.Batch
	buf []byte
}

func (s *Source) arena(b *capture.Batch) *arena {
	for i := range s.arenas {
		if a := &s.arenas[i]; a.of == b {
			a.buf = a.buf[:0]
			return a
		}
	}
	a := &s.arenas[s.turn]
	s.turn = (s.turn + 1) % arenaCount
	*a = arena{of: b}
	return a
}

// keep copies data. When the arena grows, what was kept earlier stays in the old memory.
func (a *arena) keep(data []byte) []byte {
	n := len(a.buf)
	a.buf = append(a.buf, data...)
	return a.buf[n:len(a.buf):len(a.buf)]
}
