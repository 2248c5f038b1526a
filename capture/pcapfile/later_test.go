package pcapfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"jindan/capture"
)

// openIn is how many files below dir this process has open; 0 where the system does not tell.
func openIn(dir string) (n int) {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, dir) {
			n++
		}
	}
	return n
}

// mergeAll merges captures and returns the times and lengths of what came, and how many files were open at most.
func mergeAll(t *testing.T, dir string, srcs []capture.Source) (got []string, open int) {
	t.Helper()
	err := capture.Merge(t.Context(), srcs, 0, func(b *capture.Batch) error {
		for i := range b.Obs {
			got = append(got, fmt.Sprint(b.Obs[i].At, b.Obs[i].Source, b.Obs[i].Packet.Len))
		}
		open = max(open, openIn(dir))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, open
}

// TestLater: captures that follow each other are merged as if all were open, and few of them are.
func TestLater(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for i := range 40 {
		file := pcapHead(little, magicMicro, 4, 1<<16, 1)
		for j := range 300 {
			file = append(file, pcapRecord(little, uint32(1000+i*100+j/4), 0, payload(60+j%7, j), 60)...)
		}
		name := filepath.Join(dir, fmt.Sprintf("%02d.pcap", i))
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	var plain, later []capture.Source
	for _, name := range names {
		f, err := Open(name, &rawDecoder{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := OpenLater(name, func() Decoder { return &rawDecoder{} })
		if err != nil {
			t.Fatal(err)
		}
		plain, later = append(plain, f), append(later, l)
	}
	want, _ := mergeAll(t, dir, plain)
	got, open := mergeAll(t, dir, later)
	if len(got) != 40*300 || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%d observations, want %d, the same", len(got), len(want))
	}
	if open > 3 {
		t.Errorf("%d of 40 files were open at once", open)
	}
	for i, s := range later {
		if st := s.(*Later).Stats(); st.Packets != 300 {
			t.Errorf("file %d: %d packets", i, st.Packets)
		}
	}
}

// bomb is a zstd frame of a few bytes that wants a window of 128 MiB.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(pcapHead(little, magicMicro, 4, 1<<16, 1))
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(pcapRecord(little, 1, 0, payload(60, 1), 60))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestZstdWindows: what the windows of all open files take together is bounded, and given back.
func TestZstdWindows(t *testing.T) {
	before := unpacking.Load()
	packed := bomb(t)
	var open []*File
	var refused error
	for range 20 {
		f, err := NewReader("bomb", bytes.NewReader(packed), &rawDecoder{})
		if err != nil {
			refused = err
			continue
		}
		open = append(open, f)
	}
	if len(open) != zstdAll/zstdWindow || refused == nil || !strings.Contains(refused.Error(), "unpack it first") {
		t.Errorf("%d bombs are open at once: %v", len(open), refused)
	}
	for i, f := range open {
		if i == 0 { // read to its end, it lets go by itself
			var b capture.Batch
			err := f.Read(context.Background(), &b)
			for err == nil {
				err = f.Read(context.Background(), &b)
			}
			if err != io.EOF || f.Stats().Packets != 1 {
				t.Errorf("%v, %d packets", err, f.Stats().Packets)
			}
			continue
		}
		f.Close()
	}
	if n := unpacking.Load(); n != before {
		t.Errorf("%d bytes of windows are still claimed", n-before)
	}
}
