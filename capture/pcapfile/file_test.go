package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"jindan/capture"
)

// sample is a small file of each format, with the offsets at which it may end cleanly
// and how many packets it has up to there.
func sample(format string) (file []byte, ends map[int]int) {
	ends = map[int]int{}
	add := func(packets int, b []byte) {
		file = append(file, b...)
		ends[len(file)] = packets
	}
	if format == "pcap" {
		add(0, pcapHead(big, magicNano, 4, 65535, 1))
		for i := range 5 {
			add(i+1, pcapRecord(big, uint32(i), 0, payload(20*i, i), 100))
		}
		return file, ends
	}
	add(0, section(big))
	add(0, describe(big, 1, 0))
	for i := range 3 {
		add(i+1, enhanced(big, 0, uint64(i), payload(21*i, i), 100, option(big, 2, words(big, 1))))
		add(i+1, block(big, blockStats, words(big, 0, 0, 0)))
	}
	return file, ends
}

// TestCut ends files at every possible byte.
func TestCut(t *testing.T) {
	for _, format := range []string{"pcap", "pcapng"} {
		file, ends := sample(format)
		head := 24
		if format == "pcapng" {
			head = 12
		}
		packets, last := 0, int64(0)
		for n := range len(file) + 1 {
			want, clean := ends[n]
			if clean {
				packets, last = want, int64(n)
			}
			obs, st, err := readAll(t, bytes.NewReader(file[:n]), 2, &rawDecoder{})
			if n < head {
				if err == nil || err == io.EOF || errors.As(err, new(*DamageError)) {
					t.Errorf("%s[:%d]: %v", format, n, err)
				}
				continue
			}
			if err != io.EOF || int(st.Packets) != packets || st.Cut == clean || !clean && st.CutOffset != last {
				t.Errorf("%s[:%d]: %v, %+v; want %d packets, cut at %d", format, n, err, st, packets, last)
			}
			if !clean && packets > 0 {
				if o := obs[len(obs)-1]; o.Reason != capture.LossFileCut || o.Lost != 1 {
					t.Errorf("%s[:%d]: ends with %+v", format, n, o)
				}
			}
			if n%5 != 0 {
				continue // creating compressors is slow
			}
			for _, packed := range [][]byte{gzipped(t, file[:n]), zstandard(t, file[:n])} {
				got, s, e := readAll(t, bytes.NewReader(packed), 2, &rawDecoder{})
				s.Compression = ""
				if e != io.EOF || !reflect.DeepEqual(s, st) || !reflect.DeepEqual(got, obs) {
					t.Errorf("%s[:%d], compressed: %v, %+v; want %+v", format, n, e, s, st)
				}
			}
		}
	}
}

func TestCompressedStreamCut(t *testing.T) {
	file := pcapHead(little, magicMicro, 4, 65535, 1)
	for i := range 20000 {
		file = append(file, pcapRecord(little, uint32(i), uint32(i*i), payload(40, i*i), 40)...)
	}
	for name, packed := range map[string][]byte{"gzip": gzipped(t, file), "zstd": zstandard(t, file)} {
		for _, n := range []int{len(packed) / 2, len(packed) - 1} {
			obs, st, err := readAll(t, bytes.NewReader(packed[:n]), 100, &rawDecoder{})
			if err != io.EOF || !st.Cut || st.Packets < 3000 || len(obs) != int(st.Packets)+1 {
				t.Errorf("%s cut at %d of %d: %v, %+v", name, n, len(packed), err, st)
			}
		}
		broken := bytes.Clone(packed)
		for i := range 50 {
			broken[len(broken)/2+i] ^= 0x5a
		}
		_, st, err := readAll(t, bytes.NewReader(broken), 100, &rawDecoder{})
		if !errors.As(err, new(*DamageError)) || st.Packets < 3000 {
			t.Errorf("%s damaged: %v, %+v", name, err, st)
		}
	}
	// Several gzip members and zstd frames in a row are one file.
	half := len(file)/2 + 3
	for _, packed := range [][]byte{
		append(gzipped(t, file[:half]), gzipped(t, file[half:])...),
		append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), append(zstandard(t, file[:half]), zstandard(t, file[half:])...)...),
	} {
		if _, st, err := readAll(t, bytes.NewReader(packed), 100, &rawDecoder{}); err != io.EOF || st.Cut || st.Packets != 20000 {
			t.Errorf("two parts: %v, %+v", err, st)
		}
	}
}

// TestBatchSizes: observations depend neither on the size of batches nor on how the
// input is chopped.
func TestBatchSizes(t *testing.T) {
	file := join(section(little), describe(little, 1, 0))
	for i := range 3000 {
		file = append(file, enhanced(little, 0, uint64(i*i%5000), payload(i%300, i), i%900, option(little, 4, quad(little, uint64(i%7))))...)
	}
	file = append(file, 1, 2, 3)
	decoder := func() Decoder {
		return &rawDecoder{data: true, verdict: func(b []byte) capture.LossReason {
			return capture.LossReason(len(b) % 11 % int(capture.LossFileDamaged))
		}}
	}
	ref, stats, err := readAll(t, bytes.NewReader(file), 100000, decoder())
	if err != io.EOF || !stats.Cut || stats.Unread[capture.LossNotIP] == 0 {
		t.Fatalf("%v, %+v", err, stats)
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "data with error": iotest.DataErrReader,
		"odd": func(r io.Reader) io.Reader { return &oddReader{r: r} },
	} {
		for _, n := range []int{1, 2, 64, 256, 100000} {
			obs, st, err := readAll(t, wrap(bytes.NewReader(file)), n, decoder())
			if err != io.EOF || !reflect.DeepEqual(obs, ref) || !reflect.DeepEqual(st, stats) {
				t.Errorf("%s, batches of %d: %v, %d observations of %d, %+v", name, n, err, len(obs), len(ref), st)
			}
		}
	}
}

// oddReader reads 1, 2, … 97 bytes at a time, and sometimes none.
type oddReader struct {
	r io.Reader
	n int
}

func (r *oddReader) Read(p []byte) (int, error) {
	r.n = (r.n + 1) % 98
	return r.r.Read(p[:min(r.n, len(p))])
}

// TestDataLasts: Data stays until its batch is read again, whatever else is read.
func TestDataLasts(t *testing.T) {
	file := pcapHead(little, magicMicro, 4, 65535, 1)
	const packets = 4000
	for i := range packets {
		file = append(file, pcapRecord(little, uint32(i), 0, payload(900, i), 900)...)
	}
	f, err := NewReader("test", bytes.NewReader(file), &rawDecoder{data: true})
	if err != nil {
		t.Fatal(err)
	}
	batches := make([]capture.Batch, 11)
	verify := func(b *capture.Batch) {
		for _, o := range b.Obs {
			if !bytes.Equal(o.Packet.Data, payload(900, int(o.At/1e9))) {
				t.Fatalf("Data of packet %d has changed", o.Packet.Frame)
			}
		}
	}
	for i := 0; err == nil; i++ {
		err = f.Read(t.Context(), &batches[i%len(batches)])
		for j := range batches {
			verify(&batches[j])
		}
	}
	if st := f.Stats(); err != io.EOF || st.Packets != packets {
		t.Errorf("%v, %+v", err, st)
	}
}

// TestPipe: what a pipe has delivered is handed over at once, and waiting for more
// ends with the context.
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := newPump(r)
	if _, err := w.Write(join(pcapHead(little, magicMicro, 4, 65535, 1), pcapRecord(little, 1, 0, payload(60, 1), 60), []byte{1, 2, 3})); err != nil {
		t.Fatal(err)
	}
	f, err := open("pipe", p, p.Close, 0, &rawDecoder{})
	if err != nil {
		t.Fatal(err)
	}
	var b capture.Batch
	if err := f.Read(t.Context(), &b); err != nil || len(b.Obs) != 1 {
		t.Errorf("%v, %d observations", err, len(b.Obs))
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := f.Read(ctx, &b); !errors.Is(err, context.Canceled) || len(b.Obs) != 0 {
		t.Errorf("canceled: %v, %d observations", err, len(b.Obs))
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestPumpEnds: the pump's goroutine ends with its input, and after Close.
func TestPumpEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, _ := sample("pcap")
		p := newPump(iotest.OneByteReader(bytes.NewReader(file)))
		if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, file) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		r, w := io.Pipe()
		p = newPump(r)
		go w.Write([]byte("x"))
		if n, err := p.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Error(n, err)
		}
		p.Close()
		p.Close()
		w.Close()
	})
}

func TestReadErrors(t *testing.T) {
	file, _ := sample("pcap")
	broken := errors.New("i/o error")
	for _, b := range [][]byte{file, gzipped(t, file)} {
		r := io.MultiReader(bytes.NewReader(b[:len(b)-30]), iotest.ErrReader(broken))
		_, st, err := readAll(t, r, 10, &rawDecoder{})
		if !errors.Is(err, broken) || errors.As(err, new(*DamageError)) || st.Cut {
			t.Errorf("%v, %+v", err, st)
		}
	}
	f, err := NewReader("x", bytes.NewReader(file), &rawDecoder{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b capture.Batch
	if err := f.Read(ctx, &b); err != context.Canceled {
		t.Errorf("canceled before: %v", err)
	}
	f.Close()
	if err := f.Read(t.Context(), &b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if f.Name() != "x" {
		t.Error(f.Name())
	}
}

func TestOpenFile(t *testing.T) {
	file, _ := sample("pcapng")
	name := filepath.Join(t.TempDir(), "a.pcap")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(name, &rawDecoder{})
	if err != nil {
		t.Fatal(err)
	}
	var b capture.Batch
	for err == nil {
		err = f.Read(t.Context(), &b)
	}
	if n, size := f.Progress(); err != io.EOF || f.Name() != name || n != int64(len(file)) || size != n {
		t.Errorf("%v, %d of %d bytes", err, n, size)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(name+"x", &rawDecoder{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestMemory: a length is believed only as far as there are bytes, and what unpacks to
// a lot is read piece by piece.
func TestMemory(t *testing.T) {
	head := join(section(little), describe(little, 1, 0))
	zeros := append(bytes.Clone(head), make([]byte, 0, 64<<20)...)
	for len(zeros) < 60<<20 {
		zeros = append(zeros, enhanced(little, 0, 0, make([]byte, 4<<20), 0)...)
	}
	for _, tt := range []struct {
		name   string
		file   []byte
		buffer int
	}{
		{"block claims 16 MiB", join(head, words(little, blockEnhanced, maxRecord, 0)), firstBuffer},
		{"packet claims 16 MiB", join(pcapHead(little, magicMicro, 4, maxRecord, 1), words(little, 0, 0, maxRecord, 0)), firstBuffer},
		{"60 MiB in gzip", gzipped(t, zeros), 8 << 20},
		{"60 MiB in zstd", zstandard(t, zeros), 8 << 20},
	} {
		f, err := NewReader("test", bytes.NewReader(tt.file), nothing{})
		if err != nil {
			t.Fatal(err)
		}
		var b capture.Batch
		largest := 0
		for err == nil {
			largest = max(largest, len(f.win.buf))
			err = f.Read(t.Context(), &b)
		}
		if err != io.EOF || largest > tt.buffer {
			t.Errorf("%s: %v, buffer of %d bytes", tt.name, err, largest)
		}
	}
}
