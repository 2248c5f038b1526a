package report

import (
	"testing"

	"jindan/analyze/flow"
)

// Each class of resets has words of its own in Korean.
func TestResetClassesInKorean(t *testing.T) {
	seen := map[string]flow.Class{}
	for c := flow.ResetRefused; c <= flow.ResetComplete; c++ {
		ko := resetClass(c.String()).Ko
		if other, twice := seen[ko]; ko == c.String() || twice {
			t.Errorf("%s is %q, as is %s", c, ko, other)
		}
		seen[ko] = c
	}
}
