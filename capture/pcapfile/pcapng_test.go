package pcapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"jindan/capture"
)

func TestPcapng(t *testing.T) {
	for i, o := range orders {
		other := orders[1-i]
		flags := func(v uint32) []byte { return option(o, 2, words(o, v)) }
		resolution := func(b byte) []byte { return option(o, 9, []byte{b}) }
		end := option(o, 0, nil)
		for _, tt := range []struct {
			name string
			file []byte
			want []want
		}{
			{"two sections of different byte order", join(section(o), describe(o, 1, 0), enhanced(o, 0, 5, payload(60, 1), 60),
				section(other), describe(other, 276, 0), enhanced(other, 0, 6, payload(61, 1), 99)),
				[]want{{at: 5000, frame: 1, n: 60, wire: 60, link: 1}, {at: 6000, frame: 2, n: 61, wire: 99, link: 276}}},
			{"interfaces of different link type and clock", join(section(o, option(o, 4, []byte("test")), end),
				describe(o, 1, 64, resolution(9)), describe(o, 101, 0, resolution(0x80|10), end),
				describe(o, 113, 0, option(o, 14, quad(o, 100)), resolution(3)), describe(o, 1, 0, resolution(12), option(o, 14, quad(o, ^uint64(0)))),
				enhanced(o, 0, 1<<32+7, payload(60, 1), 60), enhanced(o, 1, 3<<10+1<<9, nil, 0),
				enhanced(o, 2, 1234, nil, 0), enhanced(o, 3, 2e12+7999, nil, 0)),
				[]want{{at: 1<<32 + 7, frame: 1, n: 60, wire: 60, link: 1}, {at: 3.5e9, frame: 2, link: 101},
					{at: 101.234e9, frame: 3, link: 113}, {at: 1e9 + 7, frame: 4, link: 1}}},
			{"direction", join(section(o), describe(o, 1, 0),
				enhanced(o, 0, 1, payload(61, 1), 61, flags(1|1<<2), end), enhanced(o, 0, 1, payload(62, 1), 62, flags(2)),
				enhanced(o, 0, 1, payload(63, 1), 63, flags(1|3<<2)), enhanced(o, 0, 1, payload(64, 1), 64, option(o, 1, []byte("note")), flags(1)),
				enhanced(o, 0, 1, nil, 0, flags(0))),
				[]want{{at: 1000, frame: 1, n: 61, wire: 61, link: 1, dir: capture.DirInbound},
					{at: 1000, frame: 2, n: 62, wire: 62, link: 1, dir: capture.DirOutbound},
					{at: 1000, frame: 3, n: 63, wire: 63, link: 1, dir: capture.DirOther},
					{at: 1000, frame: 4, n: 64, wire: 64, link: 1, dir: capture.DirInbound}, {at: 1000, frame: 5, link: 1}}},
			{"simple and obsolete packet blocks", join(section(o), describe(o, 1, 8), describe(o, 0, 0),
				block(o, blockSimple, words(o, 4), payload(4, 1)),
				block(o, blockPacket, shorts(o, 1, 3), words(o, 0, 9, 5, 50), payload(5, 1), make([]byte, 3), flags(2), end),
				block(o, blockSimple, words(o, 100), payload(8, 1)),
				block(o, blockPacket, shorts(o, 1, 0xffff), words(o, 0, 10, 0, 0))),
				[]want{{at: 0, frame: 1, n: 4, wire: 4, link: 1}, {at: 9000, loss: capture.LossKernelDrop, lost: 3},
					{at: 9000, frame: 2, n: 5, wire: 50, link: 0, dir: capture.DirOutbound},
					{at: 9000, frame: 3, n: 8, wire: 100, link: 1}, {at: 10000, frame: 4, link: 0}}},
			{"other blocks", join(section(o), block(o, 4, words(o, 0)), describe(o, 1, 0), block(o, 10, words(o, 0x544c534b, 4), []byte("abcd")),
				block(o, blockCustom, words(o, 1), payload(200<<10, 1)), enhanced(o, 0, 1, nil, 0), block(o, 0x80000077), enhanced(o, 0, 2, nil, 0)),
				[]want{{at: 1000, frame: 2, link: 1}, {at: 2000, frame: 3, link: 1}}},
			{"drops: counted once, by packet or in sum", join(section(o), describe(o, 1, 0), describe(o, 1, 0),
				enhanced(o, 0, 1, nil, 0, option(o, 4, quad(o, 2))),
				block(o, blockStats, words(o, 0, 0, 0), option(o, 5, quad(o, 2)), end),
				block(o, blockStats, words(o, 1, 0, 0), option(o, 4, quad(o, 99)), option(o, 5, quad(o, 5)), option(o, 7, quad(o, 1))),
				enhanced(o, 1, 2, nil, 0),
				block(o, blockStats, words(o, 1, 0, 0), option(o, 5, quad(o, 10))),
				block(o, blockStats, words(o, 0, 0, 0), option(o, 5, quad(o, math.MaxUint64))),
				block(o, blockStats, words(o, 7, 0, 0), option(o, 5, quad(o, 10)))),
				[]want{{at: 1000, loss: capture.LossKernelDrop, lost: 2}, {at: 1000, frame: 1, link: 1},
					{at: 2000, loss: capture.LossKernelDrop, lost: 6}, {at: 2000, frame: 2, link: 1},
					{at: 2000, loss: capture.LossKernelDrop, lost: 4}}},
			{"packet with broken options", join(section(o), describe(o, 1, 0),
				enhanced(o, 0, 1, nil, 0, flags(1), shorts(o, 1, 4000)), enhanced(o, 0, 2, nil, 0)),
				[]want{{at: 1000, frame: 1, link: 1, dir: capture.DirInbound}, {at: 2000, frame: 2, link: 1}}},
			{"length without padding", join(section(o), describe(o, 1, 0),
				words(o, blockEnhanced, 33, 0, 0, 3, 1, 1, 0x07070707, 33), enhanced(o, 0, 4, nil, 0)),
				[]want{{at: 3000, frame: 1, n: 1, wire: 1, link: 1}, {at: 4000, frame: 2, link: 1}}},
			{"times out of range", join(section(o), describe(o, 1, 0), describe(o, 1, 0, resolution(0x7f)), describe(o, 1, 0, resolution(0xff)),
				describe(o, 1, 0, option(o, 14, quad(o, 1<<63))), describe(o, 1, 0, option(o, 14, quad(o, 1<<63-1))),
				enhanced(o, 0, math.MaxUint64, nil, 0), enhanced(o, 1, math.MaxUint64, nil, 0), enhanced(o, 2, math.MaxUint64, nil, 0),
				enhanced(o, 3, 0, nil, 0), enhanced(o, 4, math.MaxUint64, nil, 0)),
				[]want{{at: maxInstant, frame: 1, link: 1}, {at: 0, frame: 2, link: 1}, {at: 0, frame: 3, link: 1},
					{at: -maxInstant / 1000000000 * 1000000000, frame: 4, link: 1}, {at: maxInstant, frame: 5, link: 1}}},
			{"no packets", section(o), nil},
		} {
			t.Run(fmt.Sprintf("%v/%s", o, tt.name), func(t *testing.T) {
				obs, st, err := readAll(t, bytes.NewReader(tt.file), 100, &rawDecoder{})
				if err != io.EOF || st.Cut || st.Format != "pcapng" {
					t.Fatalf("%v, %+v", err, st)
				}
				check(t, obs, tt.want)
			})
		}
	}
}

func TestPcapngStats(t *testing.T) {
	o := little
	_, st, err := readAll(t, bytes.NewReader(join(section(o), describe(o, 1, 0), describe(o, 113, 0),
		enhanced(o, 1, 50, payload(60, 1), 90), enhanced(o, 0, 40, payload(60, 1), 60), enhanced(o, 0, 60, nil, 0),
		block(o, blockCustom, words(o, 1)),
		section(big), describe(big, 113, 0), block(big, blockSimple, words(big, 1), payload(1, 1)))), 2, &rawDecoder{})
	if err != io.EOF {
		t.Fatal(err)
	}
	if !slices.Equal(st.LinkTypes, []LinkCount{{1, 2}, {113, 2}}) || st.Interfaces != 3 || st.Packets != 4 || st.Frames != 5 ||
		st.Bytes != 121 || st.First != 40000 || st.Last != 60000 || st.SnapCut != 1 || st.Backward != 1 || st.NoTime != 1 {
		t.Errorf("%+v", st)
	}
}

func TestPcapngDamage(t *testing.T) {
	o := little
	good := join(section(o), describe(o, 1, 0), enhanced(o, 0, 1, payload(60, 1), 60)) // 28 + 20 + 92
	for _, tt := range []struct {
		name   string
		tail   []byte
		offset int64
		what   string
	}{
		{"two lengths", join(words(o, 77, 16, 0, 20)), 140, "the block at byte 140 states two lengths, 16 bytes and 20"},
		{"length 0", words(o, 77, 0, 0, 0), 140, "the block at byte 140 claims a length of 0 bytes; 12 to 16777216 are possible"},
		{"length 4 GiB", words(o, 77, ^uint32(0), 0, 0), 140, "the block at byte 140 claims a length of 4294967295 bytes; 12 to 16777216 are possible"},
		{"captured length", block(o, blockEnhanced, words(o, 0, 0, 0, 400, 400), payload(60, 1)), 140,
			"packet 2 at byte 140 claims 400 bytes, but its block holds 60"},
		{"captured length 4 GiB", block(o, blockEnhanced, words(o, 0, 0, 0, ^uint32(0), 400)), 140,
			"packet 2 at byte 140 claims 4294967295 bytes, but its block holds 0"},
		{"simple, short", block(o, blockSimple, words(o, 61), payload(60, 1)), 140, "packet 2 at byte 140 claims 61 bytes, but its block holds 60"},
		{"interface", enhanced(o, 1, 0, nil, 0), 140, "packet 2 at byte 140 belongs to interface 1, but the section describes 1"},
		{"interface of the section before", join(section(o), block(o, blockSimple, words(o, 0))), 168,
			"packet 2 at byte 168 belongs to interface 0, but the section describes 0"},
		{"short packet block", block(o, blockEnhanced, words(o, 0)), 140, "packet 2 at byte 140 has a block of 16 bytes, too short"},
		{"short obsolete block", block(o, blockPacket), 140, "packet 2 at byte 140 has a block of 12 bytes, too short"},
		{"short simple block", block(o, blockSimple), 140, "packet 2 at byte 140 has a block of 12 bytes, too short"},
		{"short interface", block(o, blockInterface), 140, "the interface description at byte 140 has 12 bytes, too few"},
		{"short section", block(o, blockSection, words(o, byteOrderMagic)), 140, "the section at byte 140 has a header of 16 bytes, too short"},
		{"byte order", block(o, blockSection, payload(16, 1)), 140, "the section at byte 140 has the byte-order mark 01 08 0f 16, which does not exist"},
		{"version", block(o, blockSection, words(o, byteOrderMagic), shorts(o, 2, 0), words(o, 0, 0)), 140,
			"the section at byte 140 is of pcapng version 2.0, and only version 1 is known"},
		{"section option", section(o, shorts(o, 1, 9, 0, 0)), 140, "the section at byte 140 has an option 1 of 9 bytes where 4 are left"},
		{"interface option", describe(o, 1, 0, shorts(o, 9, 1)), 140,
			"the interface description at byte 140 has an option 9 of 1 bytes where 0 are left"},
		{"too many interfaces", bytes.Repeat(describe(o, 1, 0), maxInterfaces), 140 + 20*(maxInterfaces-1),
			"the interface description at byte 1310840 is one too many: 65537 interfaces in a section"},
	} {
		obs, st, err := readAll(t, bytes.NewReader(join(good, tt.tail)), 10, &rawDecoder{})
		var damage *DamageError
		if !errors.As(err, &damage) || damage.Offset != tt.offset || damage.What != tt.what+": the file is damaged from there on" {
			t.Errorf("%s: %v", tt.name, err)
		}
		check(t, obs, []want{{at: 1000, frame: 1, n: 60, wire: 60, link: 1}, {at: 1000, loss: capture.LossFileDamaged, lost: 1}})
		if st.Cut {
			t.Errorf("%s: %+v", tt.name, st)
		}
	}
}
