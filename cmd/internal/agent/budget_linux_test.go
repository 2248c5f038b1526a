package agent

import "testing"

func TestBudget(t *testing.T) {
	b := budget{limit: 0.05, part: 1}
	look := func(load float64, drops uint64, times int) int {
		for range times {
			b.part = b.next(load, drops)
		}
		return b.part
	}
	for _, s := range []struct {
		what  string
		load  float64
		drops uint64
		times int
		want  int
	}{
		{"a burst", 0.5, 0, 1, 1}, {"quiet", 0.01, 0, 3, 1}, {"too much", 0.2, 0, 2, 2}, {"still", 0.2, 0, 4, 8},
		{"within", 0.04, 0, 50, 8}, {"little", 0.01, 0, 11, 8}, {"for long", 0.01, 0, 1, 4}, {"all again", 0.01, 0, 24, 1},
		{"drops", 0.01, 5, 1, 1}, {"more drops", 0.01, 9, 1, 2}, {"as many", 0.01, 9, 12, 1}, {"far too much", 9, 9, 100, 64},
	} {
		if got := look(s.load, s.drops, s.times); got != s.want {
			t.Fatalf("%s: 1 of %d, want 1 of %d", s.what, got, s.want)
		}
	}
}
