package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSource delivers times in batches of at most size, each observation with Data
// that it overwrites when the batch is read again.
type fakeSource struct {
	name  string
	times []Instant
	size  int // 0: what fits
	err   error
	delay time.Duration

	pos    int
	until  Instant
	arenas map[*Batch][]byte
	hold   int // most observations held at once
}

func (s *fakeSource) Name() string { return s.name }
func (s *fakeSource) Close() error { return nil }

func (s *fakeSource) Read(ctx context.Context, b *Batch) error {
	if s.delay > 0 {
		select {
		case <-time.After(s.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.arenas == nil {
		s.arenas = map[*Batch][]byte{}
	}
	n := min(cap(b.Obs), len(s.times)-s.pos)
	if s.size > 0 {
		n = min(n, s.size)
	}
	arena := s.arenas[b]
	if cap(arena) < n {
		arena = make([]byte, n)
		s.arenas[b] = arena
	}
	s.hold = max(s.hold, cap(b.Obs))
	b.Obs = b.Obs[:0]
	for i := range n {
		arena = arena[:cap(arena)]
		arena[i] = byte(s.pos)
		at := s.times[s.pos]
		s.until = max(s.until, at)
		b.Obs = append(b.Obs, Observation{At: at, Source: 77, Packet: Packet{Frame: uint64(s.pos), Data: arena[i : i+1]}})
		s.pos++
	}
	b.Until = s.until
	if s.pos < len(s.times) {
		return nil
	}
	if s.err != nil {
		return s.err
	}
	return io.EOF
}

// seen is what a test compares of an observation.
type seen struct {
	at     Instant
	source uint16
	frame  uint64
}

// collect merges and checks every batch.
func collect(t *testing.T, srcs []Source, batch int) ([]seen, error) {
	t.Helper()
	var got []seen
	until := Instant(math.MinInt64)
	err := Merge(t.Context(), srcs, batch, func(b *Batch) error {
		if b.Until < until {
			t.Errorf("until goes back from %d to %d", until, b.Until)
		}
		until = b.Until
		if batch > 0 && len(b.Obs) > batch {
			t.Errorf("%d observations in a batch of %d", len(b.Obs), batch)
		}
		for _, o := range b.Obs {
			if o.Packet.Data[0] != byte(o.Packet.Frame) {
				t.Errorf("Data of observation %d of source %d is gone", o.Packet.Frame, o.Source)
			}
			got = append(got, seen{o.At, o.Source, o.Packet.Frame})
		}
		return nil
	})
	return got, err
}

// ordered is the definition of the order, done the simple way.
func ordered(srcs [][]Instant) []seen {
	type keyed struct {
		seen
		key Instant
	}
	var all []keyed
	for i, times := range srcs {
		key := times[:min(1, len(times))]
		for j, at := range times {
			key = []Instant{max(key[0], at)}
			all = append(all, keyed{seen{at, uint16(i), uint64(j)}, key[0]})
		}
	}
	slices.SortFunc(all, func(a, b keyed) int {
		switch {
		case a.key != b.key:
			return int(a.key - b.key)
		case a.source != b.source:
			return int(a.source) - int(b.source)
		}
		return int(a.frame) - int(b.frame)
	})
	var out []seen
	for _, k := range all {
		out = append(out, k.seen)
	}
	return out
}

func TestMergeOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name string
		srcs [][]Instant
	}{
		{"none", nil},
		{"one, going back in time", [][]Instant{{5, 3, 9, 1, 9}}},
		{"ties go by source", [][]Instant{{1, 2, 2, 3}, {1, 2, 3}, {0, 2}}},
		{"a step back counts as the latest before", [][]Instant{{10, 4, 11}, {5, 10, 12}, {}}},
		{"one after the other", [][]Instant{{7, 8, 9}, {4, 5, 6}, {1, 2, 3}}},
		{"random", func() (srcs [][]Instant) {
			for range 7 {
				var times []Instant
				at := Instant(r.IntN(200))
				for range r.IntN(700) {
					at += Instant(r.IntN(5) - 1)
					times = append(times, at)
				}
				srcs = append(srcs, times)
			}
			return srcs
		}()},
	} {
		want := ordered(tt.srcs)
		for _, batch := range []int{1, 2, 64, 256, 100000, 0} {
			for _, size := range []int{0, 1, 17} {
				var srcs []Source
				for i, times := range tt.srcs {
					srcs = append(srcs, &fakeSource{name: fmt.Sprint(i), times: times, size: size})
				}
				got, err := collect(t, srcs, batch)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s, batches of %d, read by %d: %v\n got %v\nwant %v", tt.name, batch, size, err, got[:min(20, len(got))], want[:min(20, len(want))])
				}
			}
		}
	}
}

func TestMergeErrors(t *testing.T) {
	broken, torn := errors.New("broken"), errors.New("torn")
	srcs := func() []Source {
		return []Source{
			&fakeSource{name: "a", times: []Instant{1, 4}, err: torn}, &fakeSource{name: "b", times: []Instant{2, 5, 6}},
			&fakeSource{name: "c", err: broken},
		}
	}
	got, err := collect(t, srcs(), 1)
	if len(got) != 5 || !errors.Is(err, broken) || !errors.Is(err, torn) || err.Error() != "a: torn\nc: broken" {
		t.Errorf("%d observations, %v", len(got), err)
	}
	var se *SourceError
	if !errors.As(err, &se) || se.Source != 0 || se.Name != "a" {
		t.Errorf("%#v", se)
	}
	got, err = collect(t, srcs()[:1], 64)
	if len(got) != 2 || !errors.As(err, &se) || se.Error() != "a: torn" {
		t.Errorf("single: %d observations, %v", len(got), err)
	}
	if err := Merge(t.Context(), make([]Source, 1<<16+1), 0, nil); err == nil || !strings.Contains(err.Error(), "65537 sources") {
		t.Error(err)
	}
}

// TestMergeStops: whatever ends a merge, none of its goroutines stays behind;
// synctest fails the test otherwise.
func TestMergeStops(t *testing.T) {
	full := errors.New("disk full")
	for n := 1; n <= 3; n++ {
		for stop := range 40 {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var srcs []Source
				for i := range n {
					srcs = append(srcs, &fakeSource{times: make([]Instant, 100), size: 1 + 3*i, delay: time.Duration(i) * time.Second})
				}
				calls := 0
				err := Merge(ctx, srcs, 10, func(*Batch) error {
					if calls++; calls == stop+1 {
						return full
					}
					return nil
				})
				if !errors.Is(err, full) {
					t.Errorf("%d sources, failing at call %d: %v", n, stop, err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(stop)*1500*time.Millisecond/2)
				defer cancel()
				var srcs []Source
				for range n {
					srcs = append(srcs, &fakeSource{times: make([]Instant, 100), size: 1, delay: time.Second})
				}
				err := Merge(ctx, srcs, 10, func(*Batch) error { return nil })
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d sources, canceled: %v", n, err)
				}
			})
		}
	}
}

// quiet promises the passing of time, with an observation now and then.
type quiet struct {
	at    Instant
	every Instant
}

func (q *quiet) Name() string { return "quiet" }
func (q *quiet) Close() error { return nil }
func (q *quiet) Read(_ context.Context, b *Batch) error {
	q.at++
	b.Obs, b.Until = b.Obs[:0], q.at
	if q.at%q.every == 0 {
		b.Obs = append(b.Obs, Observation{At: q.at})
	}
	if q.at == 1000 {
		return io.EOF
	}
	return nil
}

// TestMergeQuiet: empty batches let the other sources and the time go on.
func TestMergeQuiet(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		var srcs []Source
		for i := range n {
			srcs = append(srcs, &quiet{every: Instant(100 * (i + 1))})
		}
		var last, until Instant
		calls := 0
		err := Merge(t.Context(), srcs, 0, func(b *Batch) error {
			calls++
			for _, o := range b.Obs {
				if o.At < last || o.At < until {
					t.Errorf("%d sources: %d after %d, until %d", n, o.At, last, until)
				}
				last = o.At
			}
			until = b.Until
			return nil
		})
		if err != nil || last != 1000 || calls < 990 {
			t.Errorf("%d sources: %v, last %d, %d calls", n, err, last, calls)
		}
	}
}

// TestMergeMemory: sources that wait for their turn hold a small batch.
func TestMergeMemory(t *testing.T) {
	var srcs []Source
	for i := range 5 {
		times := make([]Instant, 5000)
		for j := range times {
			times[j] = Instant(5000*i + j)
		}
		srcs = append(srcs, &fakeSource{name: fmt.Sprint(i), times: times})
	}
	stop := errors.New("stop")
	err := Merge(t.Context(), srcs, 1000, func(b *Batch) error {
		if b.Obs[len(b.Obs)-1].At > 3000 {
			return stop
		}
		return nil
	})
	if err != stop {
		t.Fatal(err)
	}
	for i, s := range srcs {
		s := s.(*fakeSource)
		if want := 64; i > 0 && (s.hold != want || s.pos != want) {
			t.Errorf("source %d: batch of %d, read %d", i, s.hold, s.pos)
		}
	}
}

// stream delivers full batches, n in all, without the cost of making them.
type stream struct {
	left int
	at   Instant
	step Instant
}

func (s *stream) Name() string { return "stream" }
func (s *stream) Close() error { return nil }
func (s *stream) Read(_ context.Context, b *Batch) error {
	n := min(cap(b.Obs), s.left)
	b.Obs = b.Obs[:n]
	for i := range b.Obs {
		s.at += s.step
		b.Obs[i].At = s.at
	}
	b.Until = s.at
	if s.left -= n; s.left == 0 {
		return io.EOF
	}
	return nil
}

func TestMergeAllocs(t *testing.T) {
	for _, n := range []int{1, 2} {
		cost := func(obs int) float64 {
			return testing.AllocsPerRun(3, func() {
				var srcs []Source
				for i := range n {
					srcs = append(srcs, &stream{left: obs, at: Instant(i), step: 2})
				}
				if err := Merge(t.Context(), srcs, 0, func(*Batch) error { return nil }); err != nil {
					t.Fatal(err)
				}
			})
		}
		if small, large := cost(10_000), cost(200_000); large > small+2 { // 2: the runtime's own
			t.Errorf("%d sources: %v allocations for 10,000 observations, %v for 200,000", n, small, large)
		}
	}
}

// BenchmarkMerge measures nanoseconds per observation, with the sources taking turns
// at every single one.
func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{1, 2, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var srcs []Source
			for i := range n {
				srcs = append(srcs, &stream{left: b.N/n + 1, at: Instant(i), step: Instant(n)})
			}
			b.ReportAllocs()
			b.ResetTimer()
			if err := Merge(b.Context(), srcs, 0, func(*Batch) error { return nil }); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// Two sources of one host whose clock is set back an hour go on side by side: neither waits until the clock is where it was.
func TestMergeClockSetBack(t *testing.T) {
	const each, second = 200, Instant(time.Second)
	var srcs []Source
	for i := range 2 {
		var times []Instant
		for k := range Instant(each) {
			at := 5000*second + k*second + Instant(i)*second/2
			if k >= each/2 {
				at -= 3600 * second
			}
			times = append(times, at)
		}
		srcs = append(srcs, &fakeSource{times: times, size: 1 + i})
	}
	got, err := collect(t, srcs, 1)
	if err != nil || len(got) != 2*each {
		t.Fatalf("%d observations, %v", len(got), err)
	}
	ahead, most := 0, 0
	for _, s := range got {
		if ahead++; s.source == 1 {
			ahead -= 2
		}
		most = max(most, ahead, -ahead)
	}
	if most > 3 {
		t.Errorf("a source is up to %d observations ahead of the other", most)
	}
}
