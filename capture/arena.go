package capture

// Arenas hold the payload of a source's packets, batch by batch. The zero value is ready.
type Arenas struct {
	list [aheadAlone]Arena // as many batches as Merge reads ahead of a source
	turn int
}

// Arena holds the payload of the packets in one batch.
type Arena struct {
	of  *Batch
	buf []byte
}

// For returns the arena of b, empty: what it held is overwritten. A batch too many takes the place of
// another one, which loses the reuse of its memory, never its content: that stays as long as
// observations point to it.
func (s *Arenas) For(b *Batch) *Arena {
	for i := range s.list {
		if a := &s.list[i]; a.of == b {
			a.buf = a.buf[:0]
			return a
		}
	}
	a := &s.list[s.turn]
	s.turn = (s.turn + 1) % len(s.list)
	*a = Arena{of: b}
	return a
}

// Keep copies data. When the arena grows, what was kept earlier stays in the old memory, which its
// observations keep alive.
func (a *Arena) Keep(data []byte) []byte {
	n := len(a.buf)
	a.buf = append(a.buf, data...)
	return a.buf[n:len(a.buf):len(a.buf)]
}
