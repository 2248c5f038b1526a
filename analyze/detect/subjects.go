// Package detect holds the diagnoses: one detector a file, each a pure function of
// flow events and windows. All lists them.
package detect

// maxPerDetector bounds the subjects that one detector keeps state for: hosts, services,
// paths in trouble. The busiest servers have some hundred peers at a time; a scan or a flood brings
// more, and those beyond the cap are counted, not tracked.
const maxPerDetector = 4096

// subjects is a bounded map that iterates in order of insertion, so that no result
// depends on Go's map order.
type subjects[K comparable, V any] struct {
	m       map[K]*V
	keys    []K
	refused uint64
	limit   int
}

func newSubjects[K comparable, V any](limit int) subjects[K, V] {
	return subjects[K, V]{m: make(map[K]*V), limit: limit}
}

// get returns the state of k, made if need be; nil when the map is full.
func (s *subjects[K, V]) get(k K) *V {
	if v := s.m[k]; v != nil {
		return v
	}
	if len(s.m) >= s.limit {
		s.refused++
		return nil
	}
	v := new(V)
	s.m[k] = v
	s.keys = append(s.keys, k)
	return v
}

// peek returns the state of k or nil.
func (s *subjects[K, V]) peek(k K) *V { return s.m[k] }

// each calls f in order of insertion and forgets those for which it returns false.
func (s *subjects[K, V]) each(f func(K, *V) bool) {
	keep := s.keys[:0]
	for _, k := range s.keys {
		if f(k, s.m[k]) {
			keep = append(keep, k)
		} else {
			delete(s.m, k)
		}
	}
	clear(s.keys[len(keep):])
	s.keys = keep
}
