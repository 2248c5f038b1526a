package capture

import (
	"slices"
	"testing"
	"time"
)

// Whatever the batches, records that are less than a second out of order are put in order from the first such on; a clock that was
// set back is left alone, and nothing is lost or doubled.
func TestSorter(t *testing.T) {
	const ms = Instant(time.Millisecond)
	for name, in := range map[string][2][]Instant{
		"in order":            {{1, 2, 2, 3}, {1, 2, 2, 3}},
		"two threads":         {{1, 5, 3, 7, 4, 6, 2, 9}, {1, 5, 2, 3, 4, 6, 7, 9}},
		"a clock set back":    {{5000, 5100, 5050, 100, 300, 200}, {5000, 5100, 5050, 100, 200, 300}},
		"later than a second": {{0, 10, 5, 2000, 500, 2100}, {0, 10, 5, 2000, 500, 2100}},
	} {
		var first []Instant
		for _, size := range []int{1, 2, 3, 64} {
			var got []Instant
			until := Instant(-1)
			s := NewSorter(func(b *Batch) error {
				for i := range b.Obs {
					got = append(got, b.Obs[i].At/ms)
					if string(b.Obs[i].Packet.Data) != "data" {
						t.Errorf("%s: the data is gone", name)
					}
				}
				until = max(until, b.Until)
				return nil
			})
			for i := 0; i < len(in[0]); i += size {
				b := Batch{}
				data := []byte("data")
				for _, at := range in[0][i:min(i+size, len(in[0]))] {
					b.Obs = append(b.Obs, Observation{At: at * ms, Packet: Packet{Data: data}})
				}
				if err := s.Observe(&b); err != nil {
					t.Fatal(err)
				}
				copy(data, "gone") // as a reader does
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = got
			}
			if !slices.Equal(got, in[1]) || !slices.Equal(got, first) {
				t.Errorf("%s, batches of %d: %v, want %v", name, size, got, in[1])
			}
		}
	}
}
