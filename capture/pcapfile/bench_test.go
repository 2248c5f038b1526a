package pcapfile

import (
	"bytes"
	"fmt"
	"testing"

	"jindan/capture"
)

// repeat delivers head once and then body for ever.
type repeat struct {
	rest, body []byte
}

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			r.rest = r.body
		}
		m := copy(p[n:], r.rest)
		r.rest = r.rest[m:]
		n += m
	}
	return n, nil
}

func endless(format string, size int) *repeat {
	var head, body []byte
	switch format {
	case "pcap":
		head = pcapHead(little, magicMicro, 4, 65535, 1)
		body = pcapRecord(little, 1, 0, payload(size, 0), 1500)
	case "pcapng":
		head = join(section(little), describe(little, 1, 0))
		body = enhanced(little, 0, 1, payload(size, 0), 1500)
	case "pcapng-flags":
		head = join(section(little), describe(little, 1, 0))
		body = enhanced(little, 0, 1, payload(size, 0), 1500, option(little, 2, words(little, 1)), option(little, 0, nil))
	}
	return &repeat{rest: head, body: bytes.Repeat(body, 1000)}
}

func TestAllocs(t *testing.T) {
	for _, format := range []string{"pcap", "pcapng", "pcapng-flags"} {
		f, err := NewReader("test", endless(format, 100), &rawDecoder{data: true, verdict: func([]byte) capture.LossReason { return 0 }})
		if err != nil {
			t.Fatal(err)
		}
		var b [2]capture.Batch
		i := 0
		read := func() {
			if err := f.Read(t.Context(), &b[i%2]); err != nil {
				t.Fatal(err)
			}
			i++
		}
		for range 100 { // buffers and arenas grow
			read()
		}
		if n := testing.AllocsPerRun(200, read); n != 0 {
			t.Errorf("%s: %v allocations per batch", format, n)
		}
	}
}

// nothing is the cheapest decoder.
type nothing struct{}

func (nothing) Decode(capture.Instant, uint16, []byte, int, *capture.Packet) capture.LossReason {
	return capture.LossNone
}

// BenchmarkRead measures the cost per packet of everything but decoding.
func BenchmarkRead(b *testing.B) {
	for _, format := range []string{"pcap", "pcapng", "pcapng-flags"} {
		for _, size := range []int{78, 351} {
			b.Run(fmt.Sprintf("%s/%d", format, size), func(b *testing.B) {
				f, err := NewReader("test", endless(format, size), nothing{})
				if err != nil {
					b.Fatal(err)
				}
				var batch capture.Batch
				n := 0
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if n == 0 {
						if err := f.Read(b.Context(), &batch); err != nil {
							b.Fatal(err)
						}
						n = len(batch.Obs)
					}
					n--
				}
			})
		}
	}
}
