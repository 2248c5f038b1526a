package stat

import (
	"math"
	"slices"
	"testing"
	"time"

	"jindan/capture"
)

func TestQuantile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.95: 5, 1: 5} {
		if got := Quantile(slices.Clone(v), q); got != want {
			t.Errorf("quantile %v of 1 to 5: %v, want %v", q, got, want)
		}
	}
	if Median(nil) != 0 {
		t.Error("a median of nothing")
	}
}

// A bin is 9 % wide, and what is shorter or longer than all bins falls into the first and the last.
func TestLatencies(t *testing.T) {
	var l Latencies
	if !l.Empty() || l.Quantile(0.5) != 0 {
		t.Error("there is something before anything was added")
	}
	for i := 1; i <= 1000; i++ {
		l.Add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 0.5, 0.95: 0.95, 0.99: 0.99} {
		if got := l.Quantile(q); math.Abs(got-want) > 0.09*want {
			t.Errorf("quantile %v: %v s, want %v", q, got, want)
		}
	}
	var ends Latencies
	ends.Add(time.Nanosecond)
	ends.Add(time.Hour)
	if got := ends.Quantile(0.1); got != latencyMin.Seconds() {
		t.Errorf("the shortest: %v s", got)
	}
	if got := ends.Quantile(1); got < 75 || got > 125 {
		t.Errorf("the longest: %v s", got)
	}
}

func TestRing(t *testing.T) {
	var r Ring[int]
	for i := range 5 {
		r.Add(i, 3)
	}
	var got []int
	for x := range r.All {
		got = append(got, *x)
	}
	if !slices.Equal(got, []int{2, 3, 4}) || r.Len() != 3 || *r.Nth(0) != 2 || *r.Nth(2) != 4 {
		t.Errorf("%v, %d", got, r.Len())
	}
}

// Failures of few are more than failures of none; without a failure all count.
func TestWorst(t *testing.T) {
	var x Worst
	x.Add(0, 100)
	if bad, total := x.Of(); bad != 0 || total != 100 {
		t.Errorf("%d of %d", bad, total)
	}
	x.Add(1, 10)
	x.Add(5, 100)
	if bad, total := x.Of(); bad != 1 || total != 10 {
		t.Errorf("%d of %d", bad, total)
	}
}

// A second without attempts does not end a run, one that goes well does.
func TestRuns(t *testing.T) {
	var s Runs
	second := func(n int, f func(at capture.Instant)) {
		if f != nil {
			f(capture.Instant(n) * 1e9)
		}
		s.Roll()
	}
	good := func(capture.Instant) { s.Good() }
	second(1, s.Bad)
	second(2, nil)
	second(3, s.Bad)
	second(4, good)
	second(5, s.Bad)
	if got := s.Longest(0); got != 2*time.Second {
		t.Errorf("the longest run: %v", got)
	}
	if got := s.Longest(2e9); got != time.Second {
		t.Errorf("since its middle: %v", got)
	}
	if got := s.Longest(4e9); got != 0 {
		t.Errorf("after it: %v", got)
	}
}

// A rise is found when its second window is over, and its onset lies within the first.
func TestRatesFindTheRise(t *testing.T) {
	var r Rates
	at := capture.Instant(0)
	roll := func(n uint32) {
		at = at.Add(Window)
		r.Roll(n, at)
	}
	for range 60 {
		roll(20)
	}
	if r.Found() {
		t.Error("a rise in a steady rate")
	}
	roll(110) // the new rate for half of it
	roll(200)
	roll(200)
	if !r.Found() || math.Abs(r.Before-20) > 1 {
		t.Fatalf("found %v, before %v", r.Found(), r.Before)
	}
	if off := r.Onset.Sub(60*1e9 + 5e8); off.Abs() > 50*time.Millisecond {
		t.Errorf("the onset is off by %v", off)
	}
}
