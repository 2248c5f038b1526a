package detect

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// stampedDead runs the dead-upstream detector over 20 s of calls that succeed, 20 s that nobody answers and a minute after, in batches of
// size, with the times that stamp gives the packets. It returns the findings and what was covered.
func stampedDead(t *testing.T, size int, stamp func(i int, at capture.Instant) capture.Instant) *analyze.Diagnosis {
	t.Helper()
	var n network
	const app, up, other = "192.0.2.1", "198.51.100.2:8080", "198.51.100.3:8080"
	every(0, 20*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, app, up, 5*ms) })
	every(50*ms, 100*sec, 100*ms, func(at time.Duration, _ int) { n.call(at, app, other, 5*ms) })
	every(20*sec, 21600*ms, 100*ms, func(at time.Duration, _ int) { n.silent(at, app, up, 4) })
	slices.SortStableFunc(n.obs, func(a, b capture.Observation) int { return int(max(min(a.At-b.At, 1), -1)) })
	until := capture.Instant(math.MinInt64)
	for i := range n.obs {
		n.obs[i].At = stamp(i, n.obs[i].At)
	}
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddr(app)
	e, err := analyze.New(set, []analyze.Detector{newDeadUpstream()}, analyze.Options{Local: []netip.Prefix{netip.PrefixFrom(local, local.BitLen())}}, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(n.obs); i += size {
		part := n.obs[i:min(i+size, len(n.obs))]
		for j := range part {
			until = max(until, part[j].At)
		}
		if err := e.Observe(&capture.Batch{Obs: part, Until: until}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A fault is found whatever the clock of the capture does, and its onset is what the packets state.
func TestClockOfTheInput(t *testing.T) {
	const hour, day, year = capture.Instant(time.Hour), capture.Instant(24 * time.Hour), capture.Instant(365 * 24 * time.Hour)
	fault := begin.Add(20 * time.Second)
	onset := stampedDead(t, 1, func(_ int, at capture.Instant) capture.Instant { return at }).Findings[0].Onset
	if onset.Sub(fault).Abs() > time.Second {
		t.Fatalf("onset %v, want %v", onset, fault)
	}
	for _, tc := range []struct {
		name         string
		stamp        func(i int, at capture.Instant) capture.Instant
		moved        capture.Instant // of the onset
		steps, stray uint64
	}{
		{"before 1970", func(_ int, at capture.Instant) capture.Instant { return at - begin - 10*1e9 }, -begin - 10*1e9, 0, 0},
		{"from 0 on", func(_ int, at capture.Instant) capture.Instant { return at - begin }, -begin, 0, 0},
		{"a century before", func(_ int, at capture.Instant) capture.Instant { return at - 100*year }, -100 * year, 0, 0},
		{"set back an hour before the fault", func(_ int, at capture.Instant) capture.Instant {
			if at >= begin.Add(15*time.Second) {
				at -= hour
			}
			return at
		}, -hour, 1, 0},
		{"set back by years, twice", func(_ int, at capture.Instant) capture.Instant {
			switch {
			case at >= begin.Add(30*time.Second):
				at -= 10 * year
			case at >= begin.Add(10*time.Second):
				at -= 5 * year
			}
			return at
		}, -5 * year, 2, 0},
		{"one packet a day ahead", func(i int, at capture.Instant) capture.Instant {
			if i == 700 {
				at += day
			}
			return at
		}, 0, 0, 1},
		{"five packets a year ahead", func(i int, at capture.Instant) capture.Instant {
			if i >= 700 && i < 705 {
				at += year
			}
			return at
		}, 0, 0, 5},
		{"one packet at the end of time, one at its beginning", func(i int, at capture.Instant) capture.Instant {
			switch i {
			case 700:
				return math.MaxInt64
			case 800:
				return math.MinInt64
			}
			return at
		}, 0, 1, 1},
		{"every third packet by a clock that is an hour behind", func(i int, at capture.Instant) capture.Instant {
			if i%3 == 2 {
				at -= hour
			}
			return at
		}, 0, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 64, 100_000} {
				d := stampedDead(t, size, tc.stamp)
				if len(d.Findings) != 1 {
					t.Fatalf("batches of %d: %d findings, want 1", size, len(d.Findings))
				}
				if got := d.Findings[0].Onset; got != onset+tc.moved {
					t.Errorf("batches of %d: onset %v, want %v", size, got, onset+tc.moved)
				}
				if d.Coverage.ClockSteps != tc.steps || d.Coverage.Stray != tc.stray {
					t.Errorf("batches of %d: %d steps, %d stray, want %d and %d", size, d.Coverage.ClockSteps, d.Coverage.Stray, tc.steps, tc.stray)
				}
			}
		})
	}
}

// An input of gaps costs no more than some judgements a packet.
func TestGapsCost(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	seals := &sealCounter{Detector: newDeadUpstream()}
	e, err := analyze.New(set, []analyze.Detector{seals}, analyze.Options{}, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	const packets = 20_000
	o := capture.Observation{At: begin, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
	for range packets {
		o.At = o.At.Add(10 * time.Minute)
		if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
			t.Fatal(err)
		}
	}
	if seals.n > 60_000+12*packets {
		t.Errorf("%d windows judged for %d packets", seals.n, packets)
	}
}

type sealCounter struct {
	analyze.Detector
	n int
}

func (d *sealCounter) Judge(*analyze.Window, func(analyze.Symptom)) { d.n++ }
