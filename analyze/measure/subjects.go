// Package detect holds the diagnoses: one detector a file, each a pure function of
// flow events and windows. All lists them.
package detect

import (
	"jindan/analyze/flow"
	"jindan/capture"
)

// maxPerDetector bounds the subjects that one detector keeps state for: hosts, services,
// paths in trouble. The busiest servers have some hundred peers at a time; a scan or a flood brings
// more, and those beyond the cap are counted, not tracked.
const maxPerDetector = 4096

// subjects is a bounded map that iterates in order of insertion, so that no result
// depends on Go's map order.
type subjects[K comparable, V any] struct {
	m       map[K]*V
	keys    []K
	states  []*V // of keys, so that going through them looks nothing up
	dropped int  // of them, since each last went through them
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
	if len(s.keys) >= 2*s.limit { // most of them dropped
		s.each(func(K, *V) bool { return true })
	}
	v := new(V)
	s.m[k] = v
	s.keys, s.states = append(s.keys, k), append(s.states, v)
	return v
}

// peek returns the state of k or nil.
func (s *subjects[K, V]) peek(k K) *V { return s.m[k] }

// drop forgets k at once, so that the map stays small between two windows. It must not come again before the next.
func (s *subjects[K, V]) drop(k K) {
	delete(s.m, k)
	s.dropped++
}

// all yields them in order of insertion.
func (s *subjects[K, V]) all(yield func(K, *V) bool) {
	for i, k := range s.keys {
		if s.dropped > 0 && s.m[k] != s.states[i] {
			continue
		}
		if !yield(k, s.states[i]) {
			return
		}
	}
}

// each calls f in order of insertion and forgets those for which it returns false.
func (s *subjects[K, V]) each(f func(K, *V) bool) {
	n := 0
	for i, k := range s.keys {
		v := s.states[i]
		switch {
		case s.dropped > 0 && s.m[k] != v:
		case f(k, v):
			s.keys[n], s.states[n] = k, v
			n++
		default:
			delete(s.m, k)
		}
	}
	clear(s.keys[n:])
	clear(s.states[n:])
	s.keys, s.states, s.dropped = s.keys[:n], s.states[:n], 0
}

// conns is what subjects is, for connections: their place in the flow table stands for a map.
type conns[V any] struct {
	places  []*connState[V] // one that was dropped stands at its place until each has gone by
	states  []*connState[V] // in order of insertion
	free    []*connState[V] // to be used again: an answer is under way for each request
	n       int
	refused uint64
	limit   int
}

type connState[V any] struct {
	ref     flow.Ref
	dropped bool
	value   V
}

func newConns[V any](limit int) conns[V] { return conns[V]{limit: limit} }

// get returns the state of r, made if need be; nil when there are too many. Who had its place before has left the table.
// One that was dropped and comes again before each has gone by keeps its place in the order.
func (s *conns[V]) get(r flow.Ref) *V {
	i := r.Place()
	if x := s.peek(r); x != nil {
		return x
	}
	if i < len(s.places) && s.places[i] != nil {
		s.drop(s.places[i].ref)
	}
	if s.n >= s.limit {
		s.refused++
		return nil
	}
	if i < len(s.places) && s.places[i] != nil && s.places[i].ref == r {
		x := s.places[i]
		*x = connState[V]{ref: r}
		s.n++
		return &x.value
	}
	if len(s.states) >= 2*s.limit { // most of them dropped
		s.each(func(flow.Ref, *V) bool { return true })
	}
	for i >= len(s.places) {
		s.places = append(s.places, nil)
	}
	x := s.unused()
	x.ref = r
	s.places[i], s.states = x, append(s.states, x)
	s.n++
	return &x.value
}

// unused is an empty state.
func (s *conns[V]) unused() *connState[V] {
	n := len(s.free)
	if n == 0 {
		return new(connState[V])
	}
	x := s.free[n-1]
	s.free = s.free[:n-1]
	*x = connState[V]{}
	return x
}

// peek returns the state of r or nil.
func (s *conns[V]) peek(r flow.Ref) *V {
	if i := r.Place(); i < len(s.places) && s.places[i] != nil && s.places[i].ref == r && !s.places[i].dropped {
		return &s.places[i].value
	}
	return nil
}

// drop forgets r at once. Its state may be read until the next one is made.
func (s *conns[V]) drop(r flow.Ref) {
	if s.peek(r) != nil {
		s.places[r.Place()].dropped = true
		s.n--
	}
}

// each calls f in order of insertion and forgets those for which it returns false.
func (s *conns[V]) each(f func(flow.Ref, *V) bool) {
	n := 0
	for _, x := range s.states {
		if !x.dropped {
			if f(x.ref, &x.value) {
				s.states[n] = x
				n++
				continue
			}
			s.drop(x.ref)
		}
		if i := x.ref.Place(); s.places[i] == x {
			s.places[i] = nil
		}
		s.free = append(s.free, x)
	}
	clear(s.states[n:])
	s.states = s.states[:n]
}

// numbered is what subjects is, for keys that the flow table has numbered: it needs no map.
type numbered[K comparable, V any] struct {
	list    []*entry[K, V] // by number
	ids     []uint32
	refused uint64
	limit   int
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// get returns the state of k, which has number id, made if need be; nil when the list is full or
// k has no number. A number that has gone from another key to k takes that one's state away.
func (s *numbered[K, V]) get(id uint32, k *K) *V {
	if int(id) < len(s.list) && s.list[id] != nil {
		e := s.list[id]
		if e.key == *k {
			return &e.value
		}
		*e = entry[K, V]{key: *k}
		return &e.value
	}
	if id == 0 || len(s.ids) >= s.limit {
		s.refused++
		return nil
	}
	for int(id) >= len(s.list) {
		s.list = append(s.list, nil)
	}
	s.list[id] = &entry[K, V]{key: *k}
	s.ids = append(s.ids, id)
	return &s.list[id].value
}

// peek returns the state of k or nil.
func (s *numbered[K, V]) peek(id uint32, k *K) *V {
	if int(id) < len(s.list) && s.list[id] != nil && s.list[id].key == *k {
		return &s.list[id].value
	}
	return nil
}

// each calls f in order of insertion and forgets those for which it returns false.
func (s *numbered[K, V]) each(f func(K, *V) bool) {
	n := 0
	for _, id := range s.ids {
		if e := s.list[id]; f(e.key, &e.value) {
			s.ids[n] = id
			n++
		} else {
			s.list[id] = nil
		}
	}
	s.ids = s.ids[:n]
}

// services are states by listener.
type services[V any] struct {
	numbered[capture.Endpoint, V]
}

func newServices[V any](limit int) services[V] {
	return services[V]{numbered[capture.Endpoint, V]{limit: limit}}
}

func (s *services[V]) get(c *flow.Conn) *V  { return s.numbered.get(c.Service(), &c.Server) }
func (s *services[V]) peek(c *flow.Conn) *V { return s.numbered.peek(c.Service(), &c.Server) }

// count is 1 for what holds.
func count(holds bool) int {
	if holds {
		return 1
	}
	return 0
}
