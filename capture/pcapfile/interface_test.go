package pcapfile

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"jindan/capture"
)

// One interface of a file that has several is read by its name or its number; packets keep the numbers that they have in the file.
func TestInterface(t *testing.T) {
	file := filepath.Join(t.TempDir(), "router.pcapng")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pcapgo.NewNgWriterInterface(out, pcapgo.NgInterface{Name: "eth0", LinkType: layers.LinkTypeEthernet}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface(pcapgo.NgInterface{Name: "eth1", LinkType: layers.LinkTypeEthernet}); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
	tcp := &layers.TCP{SrcPort: 1000, DstPort: 80, SYN: true}
	if err := errors.Join(tcp.SetNetworkLayerForChecksum(ip), gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}, ip, tcp)); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000+int64(i), 0), Length: len(b.Bytes()), CaptureLength: len(b.Bytes())}
		if i%3 == 0 {
			ci.InterfaceIndex = 1
		}
		if err := w.WritePacket(ci, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(), out.Close()); err != nil {
		t.Fatal(err)
	}
	read := func(name string) (frames []uint64, err error) {
		f, err := Open(name, &rawDecoder{})
		if err != nil {
			return nil, err
		}
		defer f.Close()
		for {
			var batch capture.Batch
			err := f.Read(context.Background(), &batch)
			for i := range batch.Obs {
				if o := &batch.Obs[i]; o.Kind == capture.KindPacket {
					frames = append(frames, o.Packet.Frame)
				}
			}
			if err == io.EOF {
				return frames, nil
			}
			if err != nil {
				return frames, err
			}
		}
	}
	for name, want := range map[string]int{"": 9, "#eth0": 6, "#0": 6, "#eth1": 3, "#1": 3} {
		frames, err := read(file + name)
		if err != nil || len(frames) != want {
			t.Errorf("%q: %d packets, want %d: %v", name, len(frames), want, err)
		}
		if want == 3 && (frames[0] != 1 || frames[2] != 7) {
			t.Errorf("%q: frames %v", name, frames)
		}
	}
	if _, err := read(file + "#eth9"); err == nil || !strings.Contains(err.Error(), "0 eth0, 1 eth1") {
		t.Errorf("an interface that is not there: %v", err)
	}
	// A name with the mark in it is a name.
	odd := file + "#eth0"
	if err := os.Rename(file, odd); err != nil {
		t.Fatal(err)
	}
	if frames, err := read(odd); err != nil || len(frames) != 9 {
		t.Errorf("%d packets of a file whose name has the mark: %v", len(frames), err)
	}
	// A file that is no pcapng has one interface, which has no name.
	old := filepath.Join(t.TempDir(), "old.pcap")
	if err := os.WriteFile(old, append([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0}, make([]byte, 16)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(old+"#eth0", &rawDecoder{}); err == nil || !strings.Contains(err.Error(), "only a pcapng file names interfaces") {
		t.Errorf("an interface of a pcap file: %v", err)
	}
}
