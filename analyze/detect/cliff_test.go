package detect

import (
	"testing"

	"jindan/analyze/flow"
)

// The cliff is learned: it lies where the losses begin, whatever the sizes are.
func TestCliff(t *testing.T) {
	for _, size := range []uint32{500, 1200, 1400, 4000, 8900} {
		var s sizes
		for _, n := range []uint32{60, 300, 700, 1100, 1300, 1460, 3000, 6000, 9000} {
			s.sent[flow.Bin(n)] += 100
			if n >= size {
				s.lost[flow.Bin(n)] += 80
			}
		}
		cut := cliff(&s)
		for i := range s.sent {
			if (s.lost[i] > 0) != (i >= cut) && s.sent[i] > 0 {
				t.Errorf("cliff at %d bytes: class %d is on the wrong side of %d", size, i, cut)
			}
		}
	}
	var uniform sizes
	for i := range uniform.sent {
		uniform.sent[i], uniform.lost[i] = 1000, 50
	}
	if cut := cliff(&uniform); cut != 0 {
		t.Errorf("a cliff at class %d in uniform loss", cut)
	}
}
