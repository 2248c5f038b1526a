// Package measure follows what several detectors need, once for each engine: connection requests and on whose behalf they are made
// (Dials), who tries what in vain (Scanners), directions that lose segments (Ways), DNS lookups (Lookups), where the time of requests goes (Stages), the sockets of the
// host and their owners (HostSockets). It defines what all of them mean by the same word (patience.go), and holds their bounded maps.
package measure

import (
	"jindan/analyze/flow"
	"jindan/capture"
)

// MaxPerDetector bounds the subjects that one detector keeps state for: hosts, services,
// paths in trouble. The busiest servers have some hundred peers at a time; a scan or a flood brings
// more, and those beyond the cap are counted, not tracked.
const MaxPerDetector = 4096

// Subjects is a bounded map that iterates in order of insertion, so that no result
// depends on Go's map order.
type Subjects[K comparable, V any] struct {
	M       map[K]*V
	Keys    []K
	states  []*V // of keys, so that going through them looks nothing up
	dropped int  // of them, since each last went through them
	Refused uint64
	Limit   int
}

// NewSubjects returns a map of at most limit subjects.
func NewSubjects[K comparable, V any](limit int) Subjects[K, V] {
	return Subjects[K, V]{M: make(map[K]*V), Limit: limit}
}

// Get returns the state of k, made if need be; nil when the map is full.
func (s *Subjects[K, V]) Get(k K) *V {
	if v := s.M[k]; v != nil {
		return v
	}
	if len(s.M) >= s.Limit {
		s.Refused++
		return nil
	}
	if len(s.Keys) >= 2*s.Limit { // most of them dropped
		s.Each(func(K, *V) bool { return true })
	}
	v := new(V)
	s.M[k] = v
	s.Keys, s.states = append(s.Keys, k), append(s.states, v)
	return v
}

// Peek returns the state of k or nil.
func (s *Subjects[K, V]) Peek(k K) *V { return s.M[k] }

// Drop forgets k at once, so that the map stays small between two windows. It must not come again before the next.
func (s *Subjects[K, V]) Drop(k K) {
	delete(s.M, k)
	s.dropped++
}

// All yields them in order of insertion.
func (s *Subjects[K, V]) All(yield func(K, *V) bool) {
	for i, k := range s.Keys {
		if s.dropped > 0 && s.M[k] != s.states[i] {
			continue
		}
		if !yield(k, s.states[i]) {
			return
		}
	}
}

// Each calls f in order of insertion and forgets those for which it returns false.
func (s *Subjects[K, V]) Each(f func(K, *V) bool) {
	n := 0
	for i, k := range s.Keys {
		v := s.states[i]
		switch {
		case s.dropped > 0 && s.M[k] != v:
		case f(k, v):
			s.Keys[n], s.states[n] = k, v
			n++
		default:
			delete(s.M, k)
		}
	}
	clear(s.Keys[n:])
	clear(s.states[n:])
	s.Keys, s.states, s.dropped = s.Keys[:n], s.states[:n], 0
}

// Conns is what Subjects is, for connections: their place in the flow table stands for a map.
type Conns[V any] struct {
	places  []*connState[V] // one that was dropped stands at its place until each has gone by
	states  []*connState[V] // in order of insertion
	free    []*connState[V] // to be used again: an answer is under way for each request
	N       int
	Refused uint64
	limit   int
}

type connState[V any] struct {
	ref     flow.Ref
	dropped bool
	value   V
}

// NewConns returns a list of at most limit connections.
func NewConns[V any](limit int) Conns[V] { return Conns[V]{limit: limit} }

// Get returns the state of r, made if need be; nil when there are too many. Who had its place before has left the table.
// One that was dropped and comes again before each has gone by keeps its place in the order.
func (s *Conns[V]) Get(r flow.Ref) *V {
	i := r.Place()
	if x := s.Peek(r); x != nil {
		return x
	}
	if i < len(s.places) && s.places[i] != nil {
		s.Drop(s.places[i].ref)
	}
	if s.N >= s.limit {
		s.Refused++
		return nil
	}
	if i < len(s.places) && s.places[i] != nil && s.places[i].ref == r {
		x := s.places[i]
		*x = connState[V]{ref: r}
		s.N++
		return &x.value
	}
	if len(s.states) >= 2*s.limit { // most of them dropped
		s.Each(func(flow.Ref, *V) bool { return true })
	}
	for i >= len(s.places) {
		s.places = append(s.places, nil)
	}
	x := s.unused()
	x.ref = r
	s.places[i], s.states = x, append(s.states, x)
	s.N++
	return &x.value
}

// unused is an empty state.
func (s *Conns[V]) unused() *connState[V] {
	n := len(s.free)
	if n == 0 {
		return new(connState[V])
	}
	x := s.free[n-1]
	s.free = s.free[:n-1]
	*x = connState[V]{}
	return x
}

// Peek returns the state of r or nil.
func (s *Conns[V]) Peek(r flow.Ref) *V {
	if i := r.Place(); i < len(s.places) && s.places[i] != nil && s.places[i].ref == r && !s.places[i].dropped {
		return &s.places[i].value
	}
	return nil
}

// Drop forgets r at once. Its state may be read until the next one is made.
func (s *Conns[V]) Drop(r flow.Ref) {
	if s.Peek(r) != nil {
		s.places[r.Place()].dropped = true
		s.N--
	}
}

// Each calls f in order of insertion and forgets those for which it returns false.
func (s *Conns[V]) Each(f func(flow.Ref, *V) bool) {
	n := 0
	for _, x := range s.states {
		if !x.dropped {
			if f(x.ref, &x.value) {
				s.states[n] = x
				n++
				continue
			}
			s.Drop(x.ref)
		}
		if i := x.ref.Place(); s.places[i] == x {
			s.places[i] = nil
		}
		s.free = append(s.free, x)
	}
	clear(s.states[n:])
	s.states = s.states[:n]
}

// numbered is what Subjects is, for keys that the flow table has numbered: it needs no map.
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

// Get returns the state of k, which has number id, made if need be; nil when the list is full or
// k has no number. A number that has gone from another key to k takes that one's state away.
func (s *numbered[K, V]) Get(id uint32, k *K) *V {
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

// Len is how many there are.
func (s *numbered[K, V]) Len() int { return len(s.ids) }

// All yields them in order of insertion; while Each goes through them, those that it has not forgotten.
func (s *numbered[K, V]) All(yield func(K, *V) bool) {
	for _, id := range s.ids {
		if e := s.list[id]; e != nil && !yield(e.key, &e.value) {
			return
		}
	}
}

// Each calls f in order of insertion and forgets those for which it returns false.
func (s *numbered[K, V]) Each(f func(K, *V) bool) {
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

// Services are states by listener.
type Services[V any] struct {
	numbered[capture.Endpoint, V]
}

// NewServices returns a list of at most limit listeners.
func NewServices[V any](limit int) Services[V] {
	return Services[V]{numbered[capture.Endpoint, V]{limit: limit}}
}

// Get returns the state of the listener of c, made if need be; nil when the list is full.
func (s *Services[V]) Get(c *flow.Conn) *V { return s.numbered.Get(c.Service(), &c.Server) }

// Peek returns the state of the listener of c or nil.
func (s *Services[V]) Peek(c *flow.Conn) *V { return s.numbered.peek(c.Service(), &c.Server) }

// Count is 1 for what holds.
func Count(holds bool) int {
	if holds {
		return 1
	}
	return 0
}
