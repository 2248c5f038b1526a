//go:build linux

package sockets

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"jindan/capture"
)

var _ capture.Source = (*Source)(nil)

func source(t *testing.T, o Options) *Source {
	t.Helper()
	s, err := NewSource(o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// Gate dumps at each tick, a full one at first, every FullEvery and when asked; times are the clock's.
func TestSourceSchedule(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0", 8)
	_, server := pair(t, l, at)
	var clock capture.Instant
	s := source(t, Options{Netns: "blue", Every: 20 * time.Millisecond, FullEvery: 100 * time.Millisecond,
		Clock: func() capture.Instant { clock += 1000; return clock }})
	if s.Name() != "sockets blue" {
		t.Errorf("name %q", s.Name())
	}
	b := capture.Batch{Obs: make([]capture.Observation, 0, 4)}
	var fulls []int
	for i := range 14 {
		if i == 7 {
			s.Want()
		}
		must(t, s.Read(t.Context(), &b))
		if len(b.Obs) != 1 || b.Obs[0].Kind != capture.KindSample || b.Obs[0].At != clock || b.Until != clock || clock != capture.Instant(1000*(i+1)) {
			t.Fatalf("batch %d: %+v at %d", i, b, clock)
		}
		table := b.Obs[0].Sample.Sockets
		if table.Netns != "blue" {
			t.Errorf("namespace %q", table.Netns)
		}
		find(t, table, l)
		if table.Info {
			fulls = append(fulls, i)
			if table.States != capture.AllStates || !find(t, table, server).HasInfo {
				t.Errorf("full dump %d of states %x", i, table.States)
			}
		} else if table.States != GateStates {
			t.Errorf("gate dump %d of states %x", i, table.States)
		}
	}
	// Ticks may be missed on a busy machine, which brings a full dump forward, never back.
	if len(fulls) < 4 || fulls[0] != 0 || fulls[1] > 5 {
		t.Errorf("full dumps %v, want 0, 5, 7 (asked) and 12 if no tick is missed", fulls)
	}
	asked := false
	for _, i := range fulls {
		asked = asked || i == 7
	}
	if !asked {
		t.Errorf("full dumps %v, none at 7", fulls)
	}
}

// Read ends with its context, at once and while it waits.
func TestSourceContext(t *testing.T) {
	s := source(t, Options{Every: time.Hour})
	var b capture.Batch
	ctx, cancel := context.WithCancel(t.Context())
	must(t, s.Read(ctx, &b))
	time.AfterFunc(10*time.Millisecond, cancel)
	for range 2 {
		if err := s.Read(ctx, &b); !errors.Is(err, context.Canceled) || len(b.Obs) != 0 {
			t.Errorf("%v with %d observations", err, len(b.Obs))
		}
	}
}

// A dump that fails is counted and tried again; time goes on, and a wish for a full dump is not forgotten.
func TestSourceFailure(t *testing.T) {
	s := source(t, Options{Every: time.Millisecond, FullEvery: time.Hour})
	var b capture.Batch
	must(t, s.Read(t.Context(), &b))
	s.dumper.request[4] = 250 // nlmsg_type: a request that the kernel does not have
	s.Want()
	for range 3 {
		until := b.Until
		must(t, s.Read(t.Context(), &b))
		if len(b.Obs) != 0 || b.Until <= until {
			t.Errorf("failed: %d observations until %v, before %v", len(b.Obs), b.Until, until)
		}
	}
	if n, err := s.Failures(); n != 3 || err == nil {
		t.Errorf("%d failures, last %v", n, err)
	} else {
		t.Log(err)
	}
	s.dumper.request[4] = requestKind
	must(t, s.Read(t.Context(), &b))
	if len(b.Obs) != 1 || !b.Obs[0].Sample.Sockets.Info {
		t.Errorf("after the failure: %+v", b)
	}
	if n, _ := s.Failures(); n != 3 {
		t.Errorf("%d failures", n)
	}
}

// Merge reads several batches ahead: each keeps its own sample, and re-uses it.
func TestSourceMemory(t *testing.T) {
	listen(t, "127.0.0.1:0", 8)
	s := source(t, Options{Every: time.Millisecond})
	batches := make([]capture.Batch, 8)
	var first [8]*capture.Sample
	for round := range 2 {
		for i := range batches {
			must(t, s.Read(t.Context(), &batches[i]))
			sample := batches[i].Obs[0].Sample
			for _, other := range first[:i] {
				if other == sample {
					t.Fatal("two batches share a sample")
				}
			}
			if round == 1 && first[i] != sample {
				t.Error("a batch's sample is not used again")
			}
			first[i] = sample
		}
	}
	if n := testing.AllocsPerRun(20, func() { must(t, s.Read(t.Context(), &batches[0])) }); n > 0 {
		t.Errorf("%v allocations a Read", n)
	}
}

// The agent asks and looks while the source works.
func TestSourceConcurrent(t *testing.T) {
	listen(t, "127.0.0.1:0", 8)
	s := source(t, Options{Every: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			s.Want()
			s.Failures()
			s.Lost()
			time.Sleep(100 * time.Microsecond)
		}
	})
	n := 0
	err := capture.Merge(ctx, []capture.Source{s}, 0, func(b *capture.Batch) error {
		if n += len(b.Obs); n >= 20 {
			cancel()
		}
		return nil
	})
	asking.Wait()
	if !errors.Is(err, context.Canceled) || n < 20 {
		t.Errorf("%v after %d samples", err, n)
	}
}
