package agent

import (
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// TestEnded: what is over says since when, and how long it lasted.
func TestEnded(t *testing.T) {
	at := capture.Instant(time.Date(2023, 11, 17, 8, 0, 0, 0, time.Local).UnixNano())
	f := &analyze.Finding{Onset: at, LastSeen: at.Add(95 * time.Second)}
	if got := ended(report.English, f); got != "well since 08:01:35; it lasted 1m35s" {
		t.Error(got)
	}
	if got := ended(report.Korean, f); !strings.Contains(got, "08:01:35") || !strings.Contains(got, "1m35s") {
		t.Error(got)
	}
}
