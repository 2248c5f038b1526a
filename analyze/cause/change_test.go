package cause

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// A change is held against the first fault that followed it, in words that a reader can take, and not against a later one.
func TestChangeBeforeWhichFault(t *testing.T) {
	change := &analyze.Finding{ID: "change-1", Rule: "change"}
	change.Steps, change.Severity, change.Summary = []string{changeStep}, "info", analyze.Text{En: "route: 10.0.0.0/8.", Ko: "변경(route): 10.0.0.0/8."}
	fault := func(title string, at time.Duration) *analyze.Finding {
		f := &analyze.Finding{ID: title, Rule: "close-wait", Onset: capture.Instant(at)}
		f.Role, f.Title = analyze.Root, analyze.Text{En: title, Ko: title}
		return f
	}
	v, ok := correlate(analyze.StepVerdict{Step: changeStep}, []*analyze.Finding{fault("late", 9*time.Minute), change, fault("early", 403*time.Second)})
	if want := "route: 10.0.0.0/8: 6 min 43 s before “early” began."; !ok || v.Verdict != analyze.Suspected || v.Reason.En != want {
		t.Errorf("%s: %q, want %q", v.Verdict, v.Reason.En, want)
	}
	if want := "변경(route): 10.0.0.0/8: “early” 시작 6분 43초 전."; v.Reason.Ko != want {
		t.Errorf("%q, want %q", v.Reason.Ko, want)
	}
}
