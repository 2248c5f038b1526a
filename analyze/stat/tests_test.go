package stat

import (
	"math"
	"testing"
)

// Fisher's tea-tasting experiment and a table from R's fisher.test(alternative="greater").
func TestFisher(t *testing.T) {
	for _, tc := range []struct {
		a, n, b, m uint32
		want       float64
	}{
		{3, 4, 1, 4, 0.2428571},
		{10, 12, 1, 12, 0.0003366833},
		{0, 10, 0, 10, 1},
		{50, 100, 0, 100, 2.7e-18},
	} {
		if got := Fisher(tc.a, tc.n, tc.b, tc.m); math.Abs(got-tc.want) > tc.want*0.6+1e-9 && math.Abs(got-tc.want) > 1e-6 {
			t.Errorf("fisher(%d/%d, %d/%d) = %g, want %g", tc.a, tc.n, tc.b, tc.m, got, tc.want)
		}
	}
}

// Values of R's pchisq(x, df, lower.tail=FALSE) and pbinom(k-1, n, p, lower.tail=FALSE).
func TestTails(t *testing.T) {
	for _, tc := range []struct{ a, x, want float64 }{{0.5, 1.9207294, 0.05}, {1, 4.60517, 0.01}, {5, 2, 0.947347}, {2.5, 10, 0.001249731}} {
		if got := upperGamma(tc.a, tc.x); math.Abs(got-tc.want) > 1e-5 {
			t.Errorf("Q(%v, %v) = %v, want %v", tc.a, tc.x, got, tc.want)
		}
	}
	if got := AtLeast(5, 100, 0.02); math.Abs(got-0.05083) > 1e-4 {
		t.Errorf("at least 5 of 100 at 2 %%: %v", got)
	}
	if got := EvenSpread([]uint32{100, 100, 100}); got != 1 {
		t.Errorf("an even spread: %v", got)
	}
}
