package flow

import "testing"

// Whoever asks for more numbers than there are, a key that is new after them gets one when they have gone.
func TestNumbersComeBack(t *testing.T) {
	var n numbers[int]
	const old = -1
	first := n.get(old, 1)
	for k := range maxNumbers + 1000 {
		n.get(k, 1)
	}
	if id := n.get(1<<20, 1); id != 0 {
		t.Fatalf("a number too many: %d", id)
	}
	if id := n.get(old, numberIdle); id != first {
		t.Errorf("a key that is in use is number %d, then %d", first, id)
	}
	seen := map[uint32]bool{first: true}
	for k := range 1000 {
		id := n.get(1<<21+k, numberIdle+2)
		if id == 0 || seen[id] || n.get(1<<21+k, numberIdle+2) != id {
			t.Fatalf("key %d has number %d", k, id)
		}
		seen[id] = true
	}
	if id := n.get(0, numberIdle+2); id == 0 || seen[id] {
		t.Errorf("a key that has lost its number gets %d", id)
	}
	if len(n.of) != maxNumbers || len(n.keys) != maxNumbers {
		t.Errorf("%d keys, %d numbers", len(n.of), len(n.keys))
	}
}
