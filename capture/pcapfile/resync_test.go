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
	for _, tc := range []struct {
		name    string
		file    []byte
		packets int
	}{
		{"a length", overwrite(pcap, pcapAt[bad]+8, 0xff, 0xff, 0xff, 0xff), n - 1},
		{"bytes lost", slices.Delete(slices.Clone(pcap), pcapAt[bad]+3, pcapAt[bad]+30), n - 1},
		{"a hole of zeros", overwrite(pcap, pcapAt[bad]+8, append([]byte{0xff}, zeros...)...), n - 2},
		{"two places", overwrite(overwrite(pcap, pcapAt[bad]+8, 0xff), pcapAt[bad*2]+8, 0xff), n - 2},
		{"a block's length", overwrite(ng, ngAt[bad]+4, 0xff, 0xff, 0xff, 0xff), n - 1},
		{"a block's second length", overwrite(ng, ngAt[bad+1]-4, 0xff, 0xff, 0xff, 0xff), n - 1},
		{"blocks of zeros", overwrite(ng, ngAt[bad]+4, append([]byte{0xff}, zeros...)...), n - 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			obs, st, err := readAll(t, bytes.NewReader(tc.file), 64, &rawDecoder{})
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Skipped <= 0 || !strings.Contains(damage.What, "were skipped") || strings.Contains(damage.What, damagedOn) {
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
