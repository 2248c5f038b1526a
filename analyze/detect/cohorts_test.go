package detect

import (
	"math"
	"testing"
	"time"

	"jindan/capture"
)

// Times before 1970, around it, and far from it are times like others.
func TestCohortsAnyTime(t *testing.T) {
	for _, at := range []capture.Instant{0, 1, -1, -63 * 1e9, -64 * 1e9, -1_700_000_000_300_000_000, math.MaxInt64 - 200*1e9, math.MinInt64 + 200*1e9} {
		var c cohorts
		c.add(at)
		c.add(at.Add(30 * time.Second))
		now := at.Add(40 * time.Second)
		c.roll(now)
		if got := c.oldest(now); got < 39*time.Second || got > 41*time.Second {
			t.Errorf("at %d: the oldest is %v old, want 40 s", at, got)
		}
		c.remove(at)
		if got := c.oldest(now); got < 9*time.Second || got > 11*time.Second {
			t.Errorf("at %d: the oldest is %v old, want 10 s", at, got)
		}
		c.roll(now.Add(100 * time.Second))
		if c.total != 1 || c.older != 1 {
			t.Errorf("at %d: %d left, %d of them older than is known to the second, want 1", at, c.total, c.older)
		}
	}
}
