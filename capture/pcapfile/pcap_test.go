package pcapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"jindan/capture"
)

func TestPcap(t *testing.T) {
	const s = int64(1e9)
	for _, o := range orders {
		extra := func(kind byte) []byte { return []byte{0, 0, 0, 2, 8, 0, kind, 0} }
		for _, tt := range []struct {
			name string
			file []byte
			want []want
		}{
			{"microseconds", join(pcapHead(o, magicMicro, 4, 65535, 1),
				pcapRecord(o, 1700000000, 999999, payload(60, 1), 60), pcapRecord(o, 1700000001, 0, payload(61, 2), 1514)),
				[]want{{at: 1700000000*s + 999999000, frame: 1, n: 60, wire: 60, link: 1},
					{at: 1700000001 * s, frame: 2, n: 61, wire: 1514, link: 1}}},
			{"nanoseconds", join(pcapHead(o, magicNano, 4, 65535, 276), pcapRecord(o, 1700000000, 999999999, payload(60, 1), 60)),
				[]want{{at: 1700000000*s + 999999999, frame: 1, n: 60, wire: 60, link: 276}}},
			{"modified", join(pcapHead(o, magicModified, 4, 65535, 1),
				pcapRecord(o, 5, 6, payload(60, 1), 60, extra(0)...), pcapRecord(o, 5, 7, payload(3, 1), 60, extra(4)...),
				pcapRecord(o, 5, 7, nil, 60, extra(3)...)),
				[]want{{at: 5*s + 6000, frame: 1, n: 60, wire: 60, link: 1, dir: capture.DirInbound},
					{at: 5*s + 7000, frame: 2, n: 3, wire: 60, link: 1, dir: capture.DirOutbound},
					{at: 5*s + 7000, frame: 3, n: 0, wire: 60, link: 1, dir: capture.DirOther}}},
			{"snap length 0, frame check sequence bits, wire length 0",
				join(pcapHead(o, magicMicro, 4, 0, 0x50000001), pcapRecord(o, 1, 2, payload(60, 1), 0)),
				[]want{{at: s + 2000, frame: 1, n: 60, wire: 60, link: 1}}},
			{"version 2.2, lengths swapped", join(pcapHead(o, magicMicro, 2, 96, 1), words(o, 1, 2, 1000, 4), payload(4, 1)),
				[]want{{at: s + 2000, frame: 1, n: 4, wire: 1000, link: 1}}},
			{"version 2.3, lengths sometimes swapped", join(pcapHead(o, magicMicro, 3, 96, 1),
				words(o, 1, 2, 1000, 4), payload(4, 1), words(o, 1, 2, 5, 1000), payload(5, 1)),
				[]want{{at: s + 2000, frame: 1, n: 4, wire: 1000, link: 1}, {at: s + 2000, frame: 2, n: 5, wire: 1000, link: 1}}},
			{"years after 2038", join(pcapHead(o, magicMicro, 4, 96, 1), pcapRecord(o, 0xffffffff, 0, nil, 0)),
				[]want{{at: 0xffffffff * s, frame: 1, link: 1}}},
			{"jumbo packets below the snap length", join(pcapHead(o, magicMicro, 4, 3<<20, 1), pcapRecord(o, 1, 0, payload(3<<20, 1), 3<<20),
				pcapRecord(o, 2, 0, payload(9, 1), 9)),
				[]want{{at: s, frame: 1, n: 3 << 20, wire: 3 << 20, link: 1}, {at: 2 * s, frame: 2, n: 9, wire: 9, link: 1}}},
			{"no packets", pcapHead(o, magicMicro, 4, 96, 1), nil},
		} {
			t.Run(fmt.Sprintf("%v/%s", o, tt.name), func(t *testing.T) {
				for name, file := range map[string][]byte{"": tt.file, "gzip": gzipped(t, tt.file), "zstd": zstandard(t, tt.file)} {
					obs, st, err := readAll(t, bytes.NewReader(file), 100, &rawDecoder{})
					if err != io.EOF || st.Cut {
						t.Fatalf("%s: %v, %+v", name, err, st)
					}
					check(t, obs, tt.want)
					if st.Compression != name || st.Format != "pcap" || st.Interfaces != 1 || int(st.Packets) != len(tt.want) {
						t.Errorf("%+v", st)
					}
				}
			})
		}
	}
}

func TestSnoop(t *testing.T) {
	head := join([]byte("snoop\x00\x00\x00"), words(big, 2, 4))
	rec := func(data []byte, wire, drops, sec uint32) []byte {
		pad := -len(data) & 3
		return join(words(big, wire, uint32(len(data)), uint32(24+len(data)+pad), drops, sec, 7), data, make([]byte, pad))
	}
	obs, st, err := readAll(t, bytes.NewReader(join(head, rec(payload(61, 0), 61, 0, 1), rec(payload(60, 0), 90, 5, 2),
		rec(payload(60, 0), 90, 5, 3))), 10, &rawDecoder{})
	if err != io.EOF || st.Cut || st.Format != "snoop" || st.SnapCut != 2 {
		t.Errorf("%v, %+v", err, st)
	}
	check(t, obs, []want{{at: 1e9 + 7000, frame: 1, n: 61, wire: 61, link: 1},
		{at: 2e9 + 7000, loss: capture.LossKernelDrop, lost: 5},
		{at: 2e9 + 7000, frame: 2, n: 60, wire: 90, link: 1}, {at: 3e9 + 7000, frame: 3, n: 60, wire: 90, link: 1}})
	var damage *DamageError
	_, _, err = readAll(t, bytes.NewReader(join(head, words(big, 60, 60, 30, 0, 0, 0), payload(60, 0))), 10, &rawDecoder{})
	if !errors.As(err, &damage) || damage.Offset != 16 {
		t.Errorf("record shorter than its packet: %v", err)
	}
}

func TestPcapDamage(t *testing.T) {
	file := join(pcapHead(little, magicMicro, 4, 65535, 1), pcapRecord(little, 9, 0, payload(60, 1), 60),
		words(little, 9, 0, 4325376, 60), payload(1000, 3))
	const what = "packet 2 at byte 100%s claims 4325376 bytes, more than the 262144 allowed: the file is damaged from there on"
	unpacked := " of the unpacked data"
	for name, f := range map[string][]byte{"": file, unpacked: gzipped(t, file)} {
		obs, st, err := readAll(t, bytes.NewReader(f), 10, &rawDecoder{})
		var damage *DamageError
		if !errors.As(err, &damage) || *damage != (DamageError{File: "test", Offset: 100, What: fmt.Sprintf(what, name)}) {
			t.Errorf("%q: %v", name, err)
		}
		check(t, obs, []want{{at: 9e9, frame: 1, n: 60, wire: 60, link: 1}, {at: 9e9, loss: capture.LossFileDamaged, lost: 1}})
		if st.Cut || st.Unread[capture.LossFileDamaged] != 1 || st.Packets != 1 {
			t.Errorf("%q: %+v", name, st)
		}
	}
}

func TestUnreadable(t *testing.T) {
	head := pcapHead(little, magicMicro, 4, 65535, 1)
	old := pcapHead(little, magicMicro, 4, 65535, 1)
	old[4] = 3
	for _, tt := range []struct {
		file []byte
		err  string
	}{
		{nil, "test: the file is empty"},
		{[]byte("ab"), "starts with the bytes 61 62 (jindan reads pcap, pcapng and snoop captures, plain or compressed with gzip or zstd)"},
		{[]byte("GET / HTTP/1.1"), "starts with the bytes 47 45 54 20 (jindan reads"},
		{head[:20], "test: the file is cut short inside its header"},
		{section(little)[:10], "test: the file is cut short inside its header"},
		{words(little, blockSection, 28, 5, 0), "no capture"},
		{old, "pcap version 3.4"},
		{[]byte("\xfd7zXZ\x00"), "xz"},
		{[]byte("PK\x03\x04aaaa"), "zip archive: unpack it first"},
		{gzipped(t, nil), "the gzip data in the file is empty"},
		{gzipped(t, []byte("hello, world")), "starts with the bytes 68 65 6c 6c"},
		{gzipped(t, head)[:12], "gzip data is cut short before anything"},
		{zstandard(t, head)[:5], "zstd data is cut short before anything"},
		{append(gzipped(t, head)[:10:10], "\xff\xff\xff\xff\xff"...), "gzip data cannot be unpacked beyond byte 0"},
		// A zstd frame that asks for a window of 1 GiB (RFC 8878 §3.1.1.1.2).
		{[]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0}, "window of more than 128 MiB"},
		{join([]byte("snoop\x00\x00\x00"), words(big, 5, 4)), "snoop version 5"},
		{join([]byte("snoop\x00\x00\x01"), words(big, 2, 4)), "no capture"},
	} {
		_, _, err := readAll(t, bytes.NewReader(tt.file), 10, &rawDecoder{})
		if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "test: ") {
			t.Errorf("% .12x: %v, want %s", tt.file, err, tt.err)
		}
	}
	if _, err := Open(t.TempDir(), &rawDecoder{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
}
