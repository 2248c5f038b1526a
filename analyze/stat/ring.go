package stat

// Ring keeps the newest n values.
type Ring[T any] struct {
	list []T
	at   int // oldest, once it is full
}

// Add takes the newest value; n is the same each time.
func (r *Ring[T]) Add(v T, n int) {
	if len(r.list) < n {
		r.list = append(r.list, v)
		return
	}
	r.list[r.at] = v
	r.at = (r.at + 1) % n
}

// Len is how many values there are.
func (r *Ring[T]) Len() int { return len(r.list) }

// Nth is the value that n older ones stand before.
func (r *Ring[T]) Nth(n int) *T { return &r.list[(r.at+n)%len(r.list)] }

// All yields the values, oldest first.
func (r *Ring[T]) All(yield func(*T) bool) {
	for i := range r.list {
		if !yield(&r.list[(r.at+i)%len(r.list)]) {
			return
		}
	}
}
