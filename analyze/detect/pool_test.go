package detect

import (
	"slices"
	"testing"
	"time"
)

// A pool whose workers work by themselves, without calls that would show how many they are.
func TestPoolOfOwnWork(t *testing.T) {
	const app, web, workers, work, patience = "192.0.2.1", "192.0.2.1:8080", 10, 200 * ms, 4 * sec
	load := func(later time.Duration) func(*network) {
		return func(n *network) {
			var free [workers]time.Duration
			for at, i := time.Duration(0), 0; at < 60*sec; i++ {
				w := slices.Index(free[:], slices.Min(free[:]))
				if done := max(free[w], at) + work; done-at < patience {
					free[w] = done
					n.call(at, "198.51.100.2", web, done-at)
				} else {
					n.hung(at, "198.51.100.2", web, patience)
				}
				if at += 35 * ms; at > 20*sec {
					at += later - 35*ms
				}
			}
		}
	}
	play(t, newPoolExhausted, []scene{
		{name: "six in work, none waits", local: app, make: load(35 * ms)},
		{name: "more come than ten workers can serve", local: app, want: "error service 192.0.2.1 8080", onset: 19700 * ms, make: load(10 * ms)},
	})
}

func TestJump(t *testing.T) {
	steady := []uint32{6, 5, 6, 6, 8, 6, 5, 6, 6, 6, 7}
	for _, tc := range []struct {
		name  string
		queue []uint32
		want  int
	}{
		{"steady", steady, 0},
		{"nothing", nil, 0},
		{"a jump, behind a window that is none yet", append(slices.Clone(steady), 13, 70, 140), 12},
		{"a pool that fills is not steady before", []uint32{2, 17, 40, 90, 180}, 0},
		{"it grows without a jump", []uint32{6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 23}, 0},
		{"a jump that is over", append(slices.Clone(steady), 70, 140, 6, 5), 0},
	} {
		if got := jump(tc.queue); got != tc.want {
			t.Errorf("%s: window %d, want %d", tc.name, got, tc.want)
		}
	}
}
