package flow

const chunkLen = 1024 // records per slab chunk: pointers stay valid while the slab grows

type slab[T any] struct {
	chunks []*[chunkLen]T
	spare  *[chunkLen]T // the next chunk, if it is there
	stock  *[chunkLen]T // the next spare: of who calls prepare
	free   []uint32
	n      uint32
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/chunkLen][i%chunkLen] }

// alloc returns a zeroed record.
func (s *slab[T]) alloc() (uint32, *T) {
	if k := len(s.free); k > 0 {
		i := s.free[k-1]
		s.free = s.free[:k-1]
		p := s.at(i)
		*p = *new(T)
		return i, p
	}
	if int(s.n) == len(s.chunks)*chunkLen {
		chunk := s.spare
		if s.spare = nil; chunk == nil {
			chunk = new([chunkLen]T)
		}
		s.chunks = append(s.chunks, chunk)
	}
	s.n++
	return s.n - 1, s.at(s.n - 1)
}

// prepare makes a chunk for later, if the last one was taken. It may run beside all else but prepare and restock.
func (s *slab[T]) prepare() {
	if s.stock == nil {
		s.stock = new([chunkLen]T)
		clear(s.stock[:]) // maps its pages, which is most of what a new record costs
	}
}

// restock puts by what was prepared.
func (s *slab[T]) restock() {
	if s.spare == nil {
		s.spare, s.stock = s.stock, nil
	}
}

// next returns a record that reset has freed, as it was left, or a new one.
func (s *slab[T]) next() (uint32, *T) {
	if int(s.n) < len(s.chunks)*chunkLen {
		s.n++
		return s.n - 1, s.at(s.n - 1)
	}
	return s.alloc()
}

// reset frees all records, and the memory of all chunks but those that were in use and one more.
func (s *slab[T]) reset() {
	if keep := int(s.n)/chunkLen + 1; keep < len(s.chunks) {
		clear(s.chunks[keep:])
		s.chunks = s.chunks[:keep]
	}
	s.n, s.free = 0, s.free[:0]
}

func (s *slab[T]) release(i uint32) { s.free = append(s.free, i) }
