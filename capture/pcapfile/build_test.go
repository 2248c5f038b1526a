package pcapfile

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"jindan/capture"
)

var (
	little = binary.ByteOrder(binary.LittleEndian)
	big    = binary.ByteOrder(binary.BigEndian)
	orders = []binary.ByteOrder{little, big}
)

// words appends 32-bit numbers.
func words(o binary.ByteOrder, v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.BigEndian.AppendUint32(b, x)
		o.PutUint32(b[len(b)-4:], x)
	}
	return b
}

func shorts(o binary.ByteOrder, v ...uint16) []byte {
	b := make([]byte, 2*len(v))
	for i, x := range v {
		o.PutUint16(b[2*i:], x)
	}
	return b
}

func quad(o binary.ByteOrder, v uint64) []byte {
	b := make([]byte, 8)
	o.PutUint64(b, v)
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// payload is n bytes that tell packets apart.
func payload(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + seed)
	}
	return b
}

// pcapHead is a pcap file header of version 2.minor.
func pcapHead(o binary.ByteOrder, magic uint32, minor uint16, snap, link uint32) []byte {
	return join(words(o, magic), shorts(o, 2, minor), words(o, 0, 0, snap, link))
}

// pcapRecord is a record; extra is what the modified format adds to the header.
func pcapRecord(o binary.ByteOrder, sec, frac uint32, data []byte, wire int, extra ...byte) []byte {
	return join(words(o, sec, frac, uint32(len(data)), uint32(wire)), extra, data)
}

func block(o binary.ByteOrder, kind uint32, body ...[]byte) []byte {
	b := join(body...)
	b = append(b, make([]byte, -len(b)&3)...)
	n := uint32(len(b) + 12)
	return join(words(o, kind, n), b, words(o, n))
}

func option(o binary.ByteOrder, code uint16, v []byte) []byte {
	return join(shorts(o, code, uint16(len(v))), v, make([]byte, -len(v)&3))
}

func section(o binary.ByteOrder, opts ...[]byte) []byte {
	return block(o, blockSection, words(o, byteOrderMagic), shorts(o, 1, 0), words(o, ^uint32(0), ^uint32(0)), join(opts...))
}

func describe(o binary.ByteOrder, link uint16, snap uint32, opts ...[]byte) []byte {
	return block(o, blockInterface, shorts(o, link, 0), words(o, snap), join(opts...))
}

func enhanced(o binary.ByteOrder, id uint32, t uint64, data []byte, wire int, opts ...[]byte) []byte {
	return block(o, blockEnhanced, words(o, id, uint32(t>>32), uint32(t), uint32(len(data)), uint32(wire)),
		data, make([]byte, -len(data)&3), join(opts...))
}

func gzipped(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return out.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

// rawDecoder notes what it was given in the fields of a Packet.
type rawDecoder struct {
	verdict func(data []byte) capture.LossReason
	data    bool // hand over the bytes
}

func (d *rawDecoder) Decode(at capture.Instant, link uint16, data []byte, wire int, p *capture.Packet) capture.LossReason {
	*p = capture.Packet{Len: uint32(len(data)), IPLen: uint32(wire), Window: link}
	if d.data {
		p.Data = data
	}
	if d.verdict != nil {
		return d.verdict(data)
	}
	return capture.LossNone
}

// readAll reads r to its end in batches of n and checks what every batch promises.
// Data is copied, so observations can be compared.
func readAll(t testing.TB, r io.Reader, n int, d Decoder) (obs []capture.Observation, s Stats, err error) {
	t.Helper()
	f, err := NewReader("test", r, d)
	if err != nil {
		return nil, s, err
	}
	defer f.Close()
	b := capture.Batch{Obs: make([]capture.Observation, 0, n)}
	for err == nil {
		err = f.Read(t.Context(), &b)
		if len(b.Obs) > n {
			t.Fatalf("%d observations in a batch of %d", len(b.Obs), n)
		}
		if err == nil && len(b.Obs) == 0 {
			t.Fatal("empty batch without an error")
		}
		for _, o := range b.Obs {
			if o.At > b.Until {
				t.Fatalf("observation at %v, until %v", o.At, b.Until)
			}
			if o.Packet.Data != nil {
				o.Packet.Data = bytes.Clone(o.Packet.Data)
			}
			obs = append(obs, o)
		}
	}
	if again := f.Read(t.Context(), &b); again != err {
		t.Fatalf("after the end: %v, then %v", err, again)
	}
	return obs, f.Stats(), err
}

// want is what a test expects of one observation.
type want struct {
	at    int64
	frame uint64
	n     int // captured
	wire  int
	link  uint16
	dir   capture.Direction
	loss  capture.LossReason
	lost  uint64
}

func check(t *testing.T, obs []capture.Observation, wants []want) {
	t.Helper()
	if len(obs) != len(wants) {
		t.Errorf("%d observations, want %d", len(obs), len(wants))
	}
	for i := range min(len(obs), len(wants)) {
		o, p := &obs[i], &obs[i].Packet
		got := want{int64(o.At), p.Frame, int(p.Len), int(p.IPLen), p.Window, p.Dir, o.Reason, o.Lost}
		if got != wants[i] || (o.Kind == capture.KindLoss) != (o.Reason != capture.LossNone) {
			t.Errorf("observation %d: %+v, want %+v", i, got, wants[i])
		}
	}
}
