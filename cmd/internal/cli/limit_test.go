package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
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

// TestLateHeap: after the first collection garbage is collected as ever, and what the environment says stays.
func TestLateHeap(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	if LateHeap(); percent() != 50 {
		t.Errorf("%d %%, want the 50 %% that were set", percent())
	}
	debug.SetGCPercent(100)
	if LateHeap(); percent() != lateHeap {
		t.Errorf("%d %% at the start", percent())
	}
	for range 100 {
		if runtime.GC(); percent() == 100 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d %% after a collection, want 100 %%", percent())
}
