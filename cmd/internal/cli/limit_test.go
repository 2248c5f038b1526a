package cli

import (
	"runtime/debug"
	"testing"
)

// TestLimitHeap: the budget lowers the limit that the environment set, and does not raise it.
func TestLimitHeap(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(400 << 20))
	for _, c := range []struct{ budget, want int64 }{{1 << 30, 400 << 20}, {256 << 20, 256 << 20}, {300 << 20, 256 << 20}} {
		LimitHeap(c.budget)
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("a budget of %d MiB: the limit is %d MiB, want %d", c.budget>>20, got>>20, c.want>>20)
		}
	}
}
