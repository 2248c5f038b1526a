package detect

import (
	"math"
	"testing"
	"time"

	"jindan/analyze/measure"
	"jindan/capture"
)

// Times before 1970, around it, and far from it are times like others.
func TestCohortsAnyTime(t *testing.T) {
	for _, at := range []capture.Instant{0, 1, -1, -63 * 1e9, -64 * 1e9, -1_700_000_000_300_000_000, math.MaxInt64 - 200*1e9, math.MinInt64 + 200*1e9} {
		var c measure.Cohorts
		c.Add(at)
		c.Add(at.Add(30 * time.Second))
		now := at.Add(40 * time.Second)
		c.Roll(now)
		if got := c.Oldest(now); got < 39*time.Second || got > 41*time.Second {
			t.Errorf("at %d: the oldest is %v old, want 40 s", at, got)
		}
		c.Remove(at)
		if got := c.Oldest(now); got < 9*time.Second || got > 11*time.Second {
			t.Errorf("at %d: the oldest is %v old, want 10 s", at, got)
		}
		c.Roll(now.Add(100 * time.Second))
		if c.Total != 1 || c.Older != 1 {
			t.Errorf("at %d: %d left, %d of them older than is known to the second, want 1", at, c.Total, c.Older)
		}
	}
}
