package detect

import (
	"testing"

	"jindan/analyze/flow"
	"jindan/analyze/measure"
)

// The cliff is learned: it lies where the losses begin, whatever the sizes are.
func TestCliff(t *testing.T) {
	for _, size := range []uint32{500, 1200, 1400, 4000, 8900} {
		var s measure.Sizes
		for _, n := range []uint32{60, 300, 700, 1100, 1300, 1460, 3000, 6000, 9000} {
			s.Sent[flow.Bin(n)] += 100
			if n >= size {
				s.Lost[flow.Bin(n)] += 80
			}
		}
		cut := measure.Cliff(&s)
		for i := range s.Sent {
			if (s.Lost[i] > 0) != (i >= cut) && s.Sent[i] > 0 {
				t.Errorf("cliff at %d bytes: class %d is on the wrong side of %d", size, i, cut)
			}
		}
	}
	var uniform measure.Sizes
	for i := range uniform.Sent {
		uniform.Sent[i], uniform.Lost[i] = 1000, 50
	}
	if cut := measure.Cliff(&uniform); cut != 0 {
		t.Errorf("a cliff at class %d in uniform loss", cut)
	}
}
