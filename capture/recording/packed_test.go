package recording

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A recording says the same when its files were compressed; of one whose end is missing what is there is read.
func TestPacked(t *testing.T) {
	pack := map[string]func(io.Writer) io.WriteCloser{
		".gz": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".zst": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	for ending, packer := range pack {
		dir, want := whole(t)
		var samples []byte
		for _, name := range []string{PacketsFile, SamplesFile} {
			var b bytes.Buffer
			w := packer(&b)
			if _, err := w.Write(contents(t, dir, name)); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			samples = b.Bytes()
			write(t, filepath.Join(dir, name+ending), samples)
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if !IsRecording(dir) {
			t.Errorf("%s: not recognised", ending)
		}
		got, st, err := reopen(t, dir)
		if err != io.EOF || st.Cut || st.Damaged > 0 {
			t.Errorf("%s: %v, %+v", ending, err, st)
		}
		compare(t, got, want)

		if ending == ".gz" { // zstd gives nothing of a block without its checksum, and this is a single one
			write(t, filepath.Join(dir, SamplesFile+ending), samples[:len(samples)-3])
			got, st, err = reopen(t, dir)
		}
		if ending == ".gz" && (err != io.EOF || !st.Cut || countPackets(got) != countPackets(want)) {
			t.Errorf("%s, cut short: %v, %+v, %d packets of %d", ending, err, st, countPackets(got), countPackets(want))
		}
		write(t, filepath.Join(dir, SamplesFile+ending), []byte("no compressed data"))
		if IsRecording(dir) {
			t.Errorf("%s: recognised what cannot be unpacked", ending)
		}
	}
}
