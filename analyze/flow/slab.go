package flow

const chunkLen = 1024 // records per slab chunk: pointers stay valid while the slab grows

type slab[T any] struct {
	chunks [][]T
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
		chunk := make([]T, chunkLen)
		clear(chunk) // writes to its pages: a page that is read first is mapped twice
		s.chunks = append(s.chunks, chunk)
	}
	s.n++
	return s.n - 1, s.at(s.n - 1)
}

func (s *slab[T]) release(i uint32) { s.free = append(s.free, i) }
