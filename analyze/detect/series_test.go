package detect

import (
	"math"
	"testing"

	"jindan/analyze/flow"
	"jindan/capture"
)

// feed gives s one window a second: rate(i) bad of total.
func feed(s *series, n int, counts func(i int) (bad, total uint32)) {
	for i := range n {
		bad, total := counts(i)
		at := capture.Instant(s.windowsSeen) * 1e9
		s.add(bad, total, at+1e8)
		s.roll()
	}
}

func TestSeriesFindsTheChange(t *testing.T) {
	for _, tc := range []struct {
		name   string
		counts func(i int) (bad, total uint32)
		onset  capture.Instant // 0: no change
		share  float64
	}{
		{"sudden", func(i int) (uint32, uint32) {
			if i >= 40 {
				return 9, 10
			}
			return 0, 20
		}, 40e9 + 1e8, 0.9},
		{"sporadic failures before belong to the time before", func(i int) (uint32, uint32) {
			switch {
			case i >= 60:
				return 5, 20
			case i%20 == 3:
				return 1, 20
			}
			return 0, 20
		}, 60e9 + 1e8, 0.25},
		{"steady low rate is no change", func(i int) (uint32, uint32) {
			if i%5 == 0 {
				return 1, 40
			}
			return 0, 40
		}, 0, 0.005},
		{"from the beginning", func(int) (uint32, uint32) { return 8, 10 }, 0, 0.8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s series
			feed(&s, 80, tc.counts)
			if s.locked != (tc.onset != 0) {
				t.Fatalf("a change was found: %v", s.locked)
			}
			if tc.onset != 0 && s.onset != tc.onset {
				t.Errorf("onset %v, want %v", s.onset, tc.onset)
			}
			if got := s.since.share(); math.Abs(got-tc.share) > 0.02 {
				t.Errorf("share since %v, want %v", got, tc.share)
			}
		})
	}
}

func TestSeriesForgetsAfterRecovery(t *testing.T) {
	var s series
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 10, func(int) (uint32, uint32) { return 10, 20 })
	feed(&s, recovered+1, func(int) (uint32, uint32) { return 0, 20 })
	if s.locked {
		t.Error("still in the fault after it was over")
	}
}

// A fault is over when what passes would not pass by chance while it lasts: soon where all failed, later where few did.
func TestSeriesPasses(t *testing.T) {
	for _, tc := range []struct{ bad, total uint32 }{{20, 20}, {10, 20}, {1, 20}, {1, 50}, {1, 100}, {1, 1000}, {1, 5}, {1, 8}} {
		var s series
		feed(&s, 30, func(int) (uint32, uint32) { return 0, tc.total })
		feed(&s, 20, func(int) (uint32, uint32) { return tc.bad, tc.total })
		n := 0
		for ; !s.passes() && n < 60; n++ {
			feed(&s, 1, func(int) (uint32, uint32) { return 0, tc.total })
		}
		chance := math.Pow(1-float64(tc.bad)/float64(tc.total), float64(n)*float64(tc.total))
		if n < over || chance >= maxLuck || n > over && math.Pow(1-float64(tc.bad)/float64(tc.total), float64(n-1)*float64(tc.total)) < maxLuck/3 {
			t.Errorf("%d of %d failed: over after %d windows, chance %g", tc.bad, tc.total, n, chance)
		}
	}
	var s series
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 10, func(int) (uint32, uint32) { return 10, 20 })
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 0 })
	if s.passes() || s.lastTry(100e9) != 70e9 {
		t.Errorf("nobody tries, and it passes: %v, last try %d", s.passes(), s.lastTry(100e9))
	}
}

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
		if got := fisher(tc.a, tc.n, tc.b, tc.m); math.Abs(got-tc.want) > tc.want*0.6+1e-9 && math.Abs(got-tc.want) > 1e-6 {
			t.Errorf("fisher(%d/%d, %d/%d) = %g, want %g", tc.a, tc.n, tc.b, tc.m, got, tc.want)
		}
	}
}

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
