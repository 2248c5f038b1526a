package detect

import (
	"testing"

	"jindan/analyze/measure"
	"jindan/capture"
)

// A process is stopped if all its threads are, and if that is known.
func TestStopped(t *testing.T) {
	waits := func(state string, n int32) capture.ThreadWait { return capture.ThreadWait{State: state, Threads: n} }
	for _, tc := range []struct {
		threads int32
		waits   []capture.ThreadWait
		want    string
	}{
		{25, []capture.ThreadWait{waits("T", 24), waits("T", 1)}, "T"},
		{25, []capture.ThreadWait{waits("t", 25)}, "t"},
		{25, []capture.ThreadWait{waits("T", 24), waits("S", 1)}, ""},
		{25, []capture.ThreadWait{waits("T", 24)}, ""}, // of one it is not known
		{25, []capture.ThreadWait{waits("S", 25)}, ""},
		{0, nil, ""},
	} {
		if got := measure.Stopped(&capture.Process{Threads: tc.threads, Waits: tc.waits}); got != tc.want {
			t.Errorf("%v of %d threads: %q", tc.waits, tc.threads, got)
		}
	}
}
