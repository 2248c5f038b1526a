package stat

// Ring keeps the newest n values.
type Ring[T any] struct {
	List []T
	at   int // oldest, once it is full
}

func (r *Ring[T]) Add(v T, n int) {
	if len(r.List) < n {
		r.List = append(r.List, v)
		return
	}
	r.List[r.at] = v
	r.at = (r.at + 1) % n
}

// Len is how many values there are.
func (r *Ring[T]) Len() int { return len(r.List) }

// Nth is the value that n older ones stand before.
func (r *Ring[T]) Nth(n int) *T { return &r.List[(r.at+n)%len(r.List)] }

// All yields the values, oldest first.
func (r *Ring[T]) All(yield func(*T) bool) {
	for i := range r.List {
		if !yield(&r.List[(r.at+i)%len(r.List)]) {
			return
		}
	}
}
