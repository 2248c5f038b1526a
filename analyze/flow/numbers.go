package flow

const (
	// maxNumbers bounds the keys of one kind that have a number. A scan, or a flood from forged addresses, brings more.
	maxNumbers = 1 << 16
	// numberIdle is for how many windows nobody asked for a key whose number may go to another: twice the 10 minutes for which
	// detectors remember a subject without traffic.
	numberIdle = 1200
	// numberSteps bounds the search for such a one.
	numberSteps = 16
)

// numbers gives keys numbers from 1, so that detectors need no map to find what they know of them. When all are taken, a
// number goes from a key that is idle to a new one: who keeps something under a number must compare the key.
type numbers[K comparable] struct {
	of   map[K]uint32
	keys []K      // by number - 1
	used []uint32 // the window in which it was last asked for
	hand int      // where the search goes on
}

// get returns the number of k, 0 if none is free.
func (n *numbers[K]) get(k K, window uint32) uint32 {
	if id := n.of[k]; id != 0 {
		n.used[id-1] = window
		return id
	}
	if len(n.keys) < maxNumbers {
		if n.of == nil {
			n.of = make(map[K]uint32)
		}
		n.keys, n.used = append(n.keys, k), append(n.used, window)
		n.of[k] = uint32(len(n.keys))
		return n.of[k]
	}
	for range numberSteps {
		i := n.hand
		if n.hand++; n.hand == len(n.keys) {
			n.hand = 0
		}
		if window-n.used[i] > numberIdle {
			delete(n.of, n.keys[i])
			n.keys[i], n.used[i], n.of[k] = k, window, uint32(i+1)
			return uint32(i + 1)
		}
	}
	return 0
}
