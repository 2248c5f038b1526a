package stat

import (
	"math"
	"math/rand/v2"
	"testing"

	"jindan/capture"
)

// feed gives s one window a second: rate(i) bad of total.
func feed(s *Series, n int, counts func(i int) (bad, total uint32)) {
	for i := range n {
		bad, total := counts(i)
		at := capture.Instant(s.windowsSeen) * 1e9
		s.Add(bad, total, at+1e8)
		s.Roll()
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
			var s Series
			feed(&s, 80, tc.counts)
			if s.Locked != (tc.onset != 0) {
				t.Fatalf("a change was found: %v", s.Locked)
			}
			if tc.onset != 0 && s.Onset != tc.onset {
				t.Errorf("onset %v, want %v", s.Onset, tc.onset)
			}
			if got := s.Since.Share(); math.Abs(got-tc.share) > 0.02 {
				t.Errorf("share since %v, want %v", got, tc.share)
			}
		})
	}
}

// What is decided late stands in a later window than what is decided at once, and may have begun before it.
func TestSeriesOnsetOfLate(t *testing.T) {
	var s Series
	feed(&s, 40, func(int) (uint32, uint32) { return 0, 20 })
	for i := range 10 {
		at := capture.Instant(40+i) * 1e9
		s.Add(1, 1, at+3e8)
		if i == 4 {
			s.Add(1, 1, 38e9)
		}
		s.Roll()
	}
	if s.Onset != 38e9 {
		t.Errorf("since %v", s.Onset)
	}
}

func TestSeriesForgetsAfterRecovery(t *testing.T) {
	var s Series
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 10, func(int) (uint32, uint32) { return 10, 20 })
	feed(&s, Recovered+1, func(int) (uint32, uint32) { return 0, 20 })
	if s.Locked {
		t.Error("still in the fault after it was over")
	}
}

// A fault is over when what passes would not pass by chance while it lasts: soon where all failed, later where few did.
func TestSeriesPasses(t *testing.T) {
	for _, tc := range []struct{ bad, total uint32 }{{20, 20}, {10, 20}, {1, 20}, {1, 50}, {1, 100}, {1, 1000}, {1, 5}, {1, 8}} {
		var s Series
		feed(&s, 30, func(int) (uint32, uint32) { return 0, tc.total })
		feed(&s, 20, func(int) (uint32, uint32) { return tc.bad, tc.total })
		n := 0
		for ; !s.Passes() && n < 60; n++ {
			feed(&s, 1, func(int) (uint32, uint32) { return 0, tc.total })
		}
		chance := math.Pow(1-float64(tc.bad)/float64(tc.total), float64(n)*float64(tc.total))
		if n < Over || chance >= maxLuck || n > Over && math.Pow(1-float64(tc.bad)/float64(tc.total), float64(n-1)*float64(tc.total)) < maxLuck/3 {
			t.Errorf("%d of %d failed: over after %d windows, chance %g", tc.bad, tc.total, n, chance)
		}
	}
	var s Series
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 10, func(int) (uint32, uint32) { return 10, 20 })
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 0 })
	if s.Passes() || s.LastTry(100e9) != 70e9 {
		t.Errorf("nobody tries, and it passes: %v, last try %d", s.Passes(), s.LastTry(100e9))
	}
}

// The next fault is held against what is usual, not against the fault before it.
func TestSeriesBaselineWithoutFaults(t *testing.T) {
	var s Series
	feed(&s, 60, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 20, func(int) (uint32, uint32) { return 20, 20 })
	feed(&s, 30, func(int) (uint32, uint32) { return 0, 20 })
	feed(&s, 10, func(int) (uint32, uint32) { return 6, 20 })
	if !s.Locked || s.Before.Share() != 0 || s.Since.Share() < 0.25 {
		t.Errorf("before %+v, since %+v", s.Before, s.Since)
	}
}

// Where some always fail, a fault is over when no more do than before it, and not sooner: neither while it lasts nor when half of it remains.
func TestSeriesBackAtTheUsual(t *testing.T) {
	const runs, rate = 100, 20
	for _, tc := range []struct {
		usual, fault, after float64
		over                bool
	}{{0.2, 0.8, 0.2, true}, {0.2, 0.6, 0.2, true}, {0.03, 0.5, 0.03, true}, {0.01, 0.2, 0.01, true}, {0.2, 0.8, 0.8, false}, {0.03, 0.5, 0.25, false}, {0.01, 0.2, 0.1, false}} {
		r := rand.New(rand.NewPCG(1, 2))
		drawn := func(share float64) func(int) (uint32, uint32) {
			return func(int) (bad, total uint32) {
				for range rate {
					if r.Float64() < share {
						bad++
					}
				}
				return bad, rate
			}
		}
		over, late := 0, 0
		for range runs {
			var s Series
			feed(&s, 120, drawn(tc.usual))
			feed(&s, 40, drawn(tc.fault))
			healed := capture.Instant(s.windowsSeen) * 1e9
			for range 10 {
				feed(&s, 1, drawn(tc.after))
			}
			end := capture.Instant(s.windowsSeen) * 1e9
			if well := s.Well(end); well != 0 && end.Sub(well) >= Over*Window {
				over++
				if d := well.Sub(healed); d > 3*Window || d < -3*Window {
					late++
				}
			}
		}
		if tc.over && (over < runs*95/100 || late > runs*5/100) || !tc.over && over > runs*5/100 {
			t.Errorf("%v, then %v, then %v: over in %d of %d, at another time in %d", tc.usual, tc.fault, tc.after, over, runs, late)
		}
	}
}

// The next fault is held against what is usual, and what always fails is no fault again when one on top of it has been over for long.
func TestSeriesForgetsAtTheUsual(t *testing.T) {
	usual := func(i int) (uint32, uint32) { return uint32(4 * (i % 2)), 20 }
	var s Series
	feed(&s, 60, usual)
	feed(&s, 20, func(int) (uint32, uint32) { return 18, 20 })
	if !s.Locked {
		t.Fatal("not found")
	}
	feed(&s, Recovered+2, usual)
	if s.Locked || s.Since.Share() > 0.12 {
		t.Errorf("locked %v, since %+v", s.Locked, s.Since)
	}
	feed(&s, 10, func(int) (uint32, uint32) { return 12, 20 })
	if !s.Locked || s.Before.Share() > 0.12 || s.Since.Share() < 0.55 {
		t.Errorf("locked %v, before %+v, since %+v", s.Locked, s.Before, s.Since)
	}
}

// What is usual again does not hide a short fault on top of it.
func TestSeriesKeepsAShortFault(t *testing.T) {
	usual := func(i int) (uint32, uint32) { return uint32(4 * (i % 2)), 20 }
	var s Series
	feed(&s, 30, usual)
	feed(&s, 3, func(int) (uint32, uint32) { return 8, 20 })
	if !s.Locked {
		t.Fatal("not found")
	}
	for i := range 25 {
		feed(&s, 1, func(int) (uint32, uint32) { return usual(i) })
		if !s.Locked || s.Onset < 29e9 || s.Onset > 31e9 {
			t.Fatalf("locked %v, onset %v, before %+v, since %+v", s.Locked, s.Onset, s.Before, s.Since)
		}
	}
}
