package stat

import (
	"math"
)

// Ratio is a of b; 0 where b is none.
func Ratio[N uint32 | uint64 | int](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Fisher is the one-sided p-value of Fisher's exact test that the first of two groups fails
// more often: a of n against b of m.
func Fisher(a, n, b, m uint32) float64 {
	lg := func(x uint32) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	choose := func(n, k uint32) float64 { return lg(n) - lg(k) - lg(n-k) }
	k := a + b
	if a > n || b > m || k == 0 {
		return 1
	}
	denom := choose(n+m, k)
	p := 0.0
	for x := a; x <= min(n, k); x++ {
		if k-x > m {
			continue
		}
		p += math.Exp(choose(n, x) + choose(m, k-x) - denom)
	}
	return min(p, 1)
}

// EvenSpread is the p-value of Pearson's chi-squared test of the counts against an even spread.
func EvenSpread(counts []uint32) float64 {
	var sum float64
	for _, c := range counts {
		sum += float64(c)
	}
	if sum == 0 || len(counts) < 2 {
		return 1
	}
	mean := sum / float64(len(counts))
	x := 0.0
	for _, c := range counts {
		x += (float64(c) - mean) * (float64(c) - mean) / mean
	}
	return upperGamma(float64(len(counts)-1)/2, x/2)
}

// upperGamma is the regularised upper incomplete gamma function Q(a, x): by its series below a+1, by
// Lentz's continued fraction above (Numerical Recipes §6.2).
func upperGamma(a, x float64) float64 {
	if x <= 0 {
		return 1
	}
	lg, _ := math.Lgamma(a)
	scale := math.Exp(-x + a*math.Log(x) - lg)
	if x < a+1 {
		sum, term := 1/a, 1/a
		for n := 1; n < 500 && term > sum*1e-12; n++ {
			term *= x / (a + float64(n))
			sum += term
		}
		return max(1-sum*scale, 0)
	}
	const tiny = 1e-300
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for i := 1; i < 500; i++ {
		an := -float64(i) * (float64(i) - a)
		b += 2
		d = 1 / (an*d + b)
		c = b + an/c
		h *= d * c
		if math.Abs(d*c-1) < 1e-12 {
			break
		}
	}
	return h * scale
}

// AtLeast is the probability that of n independent events with probability p at least k happen.
func AtLeast(k, n int, p float64) float64 {
	if k <= 0 {
		return 1
	}
	if p <= 0 || k > n {
		return 0
	}
	if p >= 1 {
		return 1
	}
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	sum := 0.0
	for i := k; i <= n; i++ {
		term := math.Exp(lg(n) - lg(i) - lg(n-i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		sum += term
		if float64(i) > float64(n)*p && term < sum*1e-12 {
			break
		}
	}
	return min(sum, 1)
}
