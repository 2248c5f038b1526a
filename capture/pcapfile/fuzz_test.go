package pcapfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"

	"jindan/capture"
)

// maxSeed keeps the corpus's large files out of the fuzzer's seeds.
const maxSeed = 16 << 10

// fuzz reads any bytes and checks what holds for all of them.
func fuzz(f *testing.F, prefix byte) {
	for _, row := range corpus(f) {
		b, err := os.ReadFile(row.path)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) > 0 && len(b) <= maxSeed && (b[0] == blockSection&0xff) == (prefix == blockSection&0xff) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decoder := func() Decoder {
			return &rawDecoder{data: true, verdict: func(data []byte) capture.LossReason {
				if len(data) == 0 {
					return capture.LossNotIP
				}
				return capture.LossReason(data[0]) % capture.LossFileDamaged
			}}
		}
		obs, st, err := readAll(t, bytes.NewReader(b), 64, decoder())
		var damage *DamageError
		switch {
		case err == io.EOF:
		case errors.As(err, &damage):
			if damage.Offset < 0 || damage.What == "" || damage.File != "test" || st.Cut {
				t.Errorf("%#v", damage)
			}
		case st.Format != "" && st.Compression == "":
			t.Errorf("neither end nor damage: %v", err)
		}
		if st.Format == "" {
			return
		}
		if st.Compression == "" && (st.Bytes > uint64(len(b)) || st.CutOffset > int64(len(b)) || damage != nil && damage.Offset >= int64(len(b))) {
			t.Errorf("%d bytes: %+v, %v", len(b), st, err)
		}
		var packets, frame uint64
		for _, o := range obs {
			if o.Kind == capture.KindPacket {
				packets++
				if o.Packet.Frame <= frame || len(o.Packet.Data) != int(o.Packet.Len) {
					t.Errorf("frame %d after %d", o.Packet.Frame, frame)
				}
				frame = o.Packet.Frame
			}
			if o.At < -maxInstant || o.At > maxInstant {
				t.Errorf("time %d", o.At)
			}
		}
		for reason, n := range st.Unread {
			switch capture.LossReason(reason) {
			case capture.LossKernelDrop: // also what the file itself reports
			case capture.LossFileCut, capture.LossFileDamaged:
				if n > 1 {
					t.Errorf("%+v", st)
				}
			default:
				packets += n
			}
		}
		if packets > st.Packets || frame > st.Frames {
			t.Errorf("%d packets, last frame %d: %+v", packets, frame, st)
		}
		again, st2, err2 := readAll(t, &oddReader{r: bytes.NewReader(b)}, 1, decoder())
		if !reflect.DeepEqual(again, obs) || !reflect.DeepEqual(st2, st) || (err == io.EOF) != (err2 == io.EOF) {
			t.Errorf("chopped: %v, %+v; whole: %v, %+v", err2, st2, err, st)
		}
	})
}

func FuzzPcap(f *testing.F) {
	file, _ := sample("pcap")
	f.Add(file)
	f.Add(gzipped(f, file))
	f.Add(zstandard(f, file))
	for _, o := range orders {
		for _, magic := range []uint32{magicMicro, magicNano, magicModified} {
			for minor := range uint16(5) {
				f.Add(join(pcapHead(o, magic, minor, 96, 1), pcapRecord(o, 1, 2, payload(70, 1), 90, payload(8, 0)...), pcapRecord(o, 1, 1, nil, 0)))
			}
		}
	}
	f.Add(join([]byte("snoop\x00\x00\x00"), words(big, 2, 4), words(big, 5, 4, 28, 2, 1, 1), payload(4, 1)))
	fuzz(f, 0)
}

func FuzzPcapng(f *testing.F) {
	file, _ := sample("pcapng")
	f.Add(file)
	for i, o := range orders {
		f.Add(join(section(o, option(o, 1, []byte("comment"))), describe(o, 1, 64, option(o, 9, []byte{9}), option(o, 14, quad(o, 1))),
			describe(o, 276, 0, option(o, 9, []byte{0x8a})), block(o, blockSimple, words(o, 70), payload(64, 1)),
			enhanced(o, 1, 1<<33, payload(9, 3), 9, option(o, 2, words(o, 1)), option(o, 4, quad(o, 7))),
			block(o, blockPacket, shorts(o, 1, 3), words(o, 0, 9, 5, 50), payload(5, 1)),
			block(o, blockStats, words(o, 1, 0, 0), option(o, 5, quad(o, 5))), block(o, blockCustom, words(o, 1)),
			section(orders[1-i]), describe(orders[1-i], 1, 0), enhanced(orders[1-i], 0, 1, payload(9, 3), 9)))
	}
	fuzz(f, blockSection&0xff)
}
