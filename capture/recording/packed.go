package recording

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// packings are the endings of a file of a recording that was compressed: `zstd --rm DIR/*` leaves a hundredth of samples.jsonl.
var packings = []string{".zst", ".gz"}

// maxWindow bounds the memory for unpacking, in bytes: what every decoder has to support (RFC 8878 §3.1.1.1.2), and what
// zstd -19 uses.
const maxWindow = 8 << 20

// find is the path of a file of dir: compressed if it is there so and not plain.
func find(dir, name string) string {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path
	}
	for _, p := range packings {
		if _, err := os.Stat(path + p); err == nil {
			return path + p
		}
	}
	return path
}

// openSamples opens samples.jsonl, which may be compressed.
func openSamples(dir string) (io.ReadCloser, error) {
	path := find(dir, SamplesFile)
	fd, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var r io.ReadCloser
	switch filepath.Ext(path) {
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(fd, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			r = z.IOReadCloser()
		}
	case ".gz":
		r, err = gzip.NewReader(fd)
	default:
		return fd, nil
	}
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	return packed{r, fd}, nil
}

// packed closes the file with what unpacks it.
type packed struct {
	io.ReadCloser
	file *os.File
}

func (p packed) Close() error { return errors.Join(p.ReadCloser.Close(), p.file.Close()) }
