package pcapfile

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"jindan/capture"
)

// A file damaged in the middle is read on behind the damage, and says what was skipped.
func TestResync(t *testing.T) {
	const n, bad = 300, 100
	var pcap, ng []byte
	var pcapAt, ngAt []int // where records begin
	pcap = pcapHead(big, magicMicro, 4, 65535, 1)
	ng = slices.Concat(section(big), describe(big, 1, 0))
	for i := range n {
		pcapAt, ngAt = append(pcapAt, len(pcap)), append(ngAt, len(ng))
		p := payload(60+i%7*100, i)
		pcap = append(pcap, pcapRecord(big, uint32(1_700_000_000+i), 0, p, len(p))...)
		ng = append(ng, enhanced(big, 0, uint64(i), p, len(p))...)
	}
	overwrite := func(file []byte, at int, b ...byte) []byte {
		file = slices.Clone(file)
		copy(file[at:], b)
		return file
	}
	zeros := make([]byte, 500)
	at := func(i int) string { return clockTime(capture.Instant(1_700_000_000+i) * 1e9) } // of a packet of the pcap file
	for _, tc := range []struct {
		name    string
		file    []byte
		packets int
		says    string
	}{
		{"a length", overwrite(pcap, pcapAt[bad]+8, 0xff, 0xff, 0xff, 0xff), n - 1, "were skipped, between " + at(bad-1) + " and " + at(bad+1)},
		{"bytes lost", slices.Delete(slices.Clone(pcap), pcapAt[bad]+3, pcapAt[bad]+30), n - 1, "were skipped, between " + at(bad-1) + " and " + at(bad+1)},
		{"a hole of zeros", overwrite(pcap, pcapAt[bad]+8, append([]byte{0xff}, zeros...)...), n - 2, "were skipped, between " + at(bad-1) + " and " + at(bad+2)},
		{"two places", overwrite(overwrite(pcap, pcapAt[bad]+8, 0xff), pcapAt[bad*2]+8, 0xff), n - 2, "were skipped in 2 places, between " + at(bad-1) + " and " + at(bad*2+1)},
		{"a block's length", overwrite(ng, ngAt[bad]+4, 0xff, 0xff, 0xff, 0xff), n - 1, "were skipped, between 1970-01-01T00:00:00.000099Z and "},
		{"a block's second length", overwrite(ng, ngAt[bad+1]-4, 0xff, 0xff, 0xff, 0xff), n - 1, "were skipped, between 1970-01-01T00:00:00.000099Z and "},
		{"blocks of zeros", overwrite(ng, ngAt[bad]+4, append([]byte{0xff}, zeros...)...), n - 2, "were skipped, between 1970-01-01T00:00:00.000099Z and "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			obs, st, err := readAll(t, bytes.NewReader(tc.file), 64, &rawDecoder{})
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Skipped <= 0 || !strings.Contains(damage.What, tc.says) || strings.Contains(damage.What, damagedOn) {
				t.Fatalf("error %v", err)
			}
			if int(st.Packets) != tc.packets || st.Unread[capture.LossFileDamaged] != 1 {
				t.Errorf("%d packets, want %d; %d losses", st.Packets, tc.packets, st.Unread[capture.LossFileDamaged])
			}
			if last := obs[len(obs)-1]; last.Kind != capture.KindLoss || last.Reason != capture.LossFileDamaged {
				t.Errorf("ends with %+v", last)
			}
		})
	}
	// What looks like no record does not go on.
	if _, st, err := readAll(t, bytes.NewReader(append(slices.Clone(pcap[:pcapAt[bad]]), bytes.Repeat([]byte{0xff}, 5000)...)), 64, &rawDecoder{}); err == io.EOF || st.Packets != bad {
		t.Errorf("%d packets, %v", st.Packets, err)
	}
}

// Of a capture of which one record's header is damaged, everything else is read.
func TestResyncOfLongCapture(t *testing.T) {
	const n, bad = 19_670, 870
	for _, field := range []struct {
		name string
		at   int
		b    []byte
	}{
		{"the captured length", 8, []byte{0x7f, 0xff, 0xff, 0xff}}, {"both lengths", 8, bytes.Repeat([]byte{0xff}, 8)},
		{"the whole header", 0, []byte("jindan jindan jin")[:16]},
	} {
		file := pcapHead(big, magicMicro, 4, 65535, 1)
		for i := range n {
			p := payload(54+i*37%1400, i)
			if i == bad {
				file = append(file, pcapRecord(big, uint32(1_700_000_000+i/1000), uint32(i%1000), p, len(p))...)
				copy(file[len(file)-len(p)-16+field.at:], field.b)
				continue
			}
			file = append(file, pcapRecord(big, uint32(1_700_000_000+i/1000), uint32(i%1000), p, len(p))...)
		}
		_, st, err := readAll(t, bytes.NewReader(file), 256, &rawDecoder{})
		var damage *DamageError
		if !errors.As(err, &damage) || st.Packets != n-1 || damage.Gaps != 1 || damage.Skipped != int64(16+54+bad*37%1400) {
			t.Errorf("%s: %d packets of %d, %+v", field.name, st.Packets, n, damage)
		}
	}
}
