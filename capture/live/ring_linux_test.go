package live

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
)

// tagged are frames with no, one and two tags; the kernel takes the outermost out on the receiver's side only.
func tagged() [][]byte {
	ip := func(proto byte, port byte) []byte {
		p := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, proto, 0, 0, 10, 77, 5, 1, 10, 77, 5, 2, 0x1f, 0x90, 0, port, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 1, 0, 0, 0, 0, 0}
		if proto == 17 {
			p[25] = 20
		}
		return p
	}
	var frames [][]byte
	for _, tags := range [][]byte{nil, {0x81, 0, 0, 5}, {0x81, 0, 0x20, 6}, {0x81, 0, 0, 5, 0x81, 0, 0, 6}, {0x88, 0xa8, 0, 5, 0x81, 0, 0, 6}, {0x81, 0, 0, 0}} {
		for _, inner := range [][]byte{append([]byte{8, 0}, ip(6, 80)...), append([]byte{8, 0}, ip(17, 53)...),
			append([]byte{8, 6}, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 77, 5, 1, 0, 0, 0, 0, 0, 0, 10, 77, 5, 2)} {
			f := append([]byte{2, 0, 0, 0, 0, 99, 2, 0, 0, 0, 0, 1}, tags...)
			f = append(f, inner...)
			frames = append(frames, append(f, make([]byte, max(0, 64-len(f)))...))
		}
	}
	return frames
}

// TestIntegrationVLAN compares the bytes captured with those that were sent, and the number with tcpdump's, on the side where tags
// stand in the packets and on the side where the kernel holds them.
func TestIntegrationVLAN(t *testing.T) {
	p := newPair(t)
	texts := []string{"ip or arp or vlan", "vlan 5 and tcp", "vlan 6", "vlan", "tcp port 80", "vlan and host 10.77.5.1", "not vlan", "vlan or tcp",
		"vlan 5 and vlan 6", "vlan 5 and vlan 6 and udp port 53", "vlan 5 and arp or vlan", "vlan and vlan", "not (vlan 5 and tcp)", "tcp or vlan 0"}
	type capturing struct {
		what string
		ours *recorder
		s    *Source
		dump *dump
	}
	var all []capturing
	for side := range 2 {
		for _, text := range texts {
			c := capturing{what: fmt.Sprint(text, " on side ", side), ours: &recorder{Decoder: decode.New()}}
			c.s = open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[side], Filter: compile(t, text), RingBytes: 2 << 20}, c.ours)
			c.dump = p.tcpdump(side, "wire", "-B", "1024", text)
			all = append(all, c)
		}
	}
	sent := map[string]bool{}
	p.send(tagged())
	for _, f := range tagged() {
		sent[string(f)] = true
	}
	time.Sleep(dumpSettles)
	for _, c := range all {
		collect(t, c.s, always)
		theirs := &recorder{Decoder: decode.New()}
		c.dump.end()
		f, err := pcapfile.Open(c.dump.file, theirs)
		if err != nil {
			t.Fatal(err)
		}
		var b capture.Batch
		for err == nil {
			err = f.Read(context.Background(), &b)
		}
		f.Close()
		if len(c.ours.frames) != len(theirs.frames) || len(c.ours.frames) == 0 {
			t.Errorf("%s: %d frames; tcpdump has %d", c.what, len(c.ours.frames), len(theirs.frames))
			continue
		}
		for i, f := range c.ours.frames {
			if !bytes.Equal(f, theirs.frames[i]) {
				t.Errorf("%s: frame %d: % x; tcpdump has % x", c.what, i, f, theirs.frames[i])
			}
			if !sent[string(f)] {
				t.Errorf("%s: was not sent so: % x", c.what, f)
			}
		}
		t.Logf("%s: %d of %d frames", c.what, len(c.ours.frames), len(sent))
	}
}

// FuzzRing reads two blocks of any content: what the kernel writes is trusted no further than its bounds.
func FuzzRing(f *testing.F) {
	block := make([]byte, 256)
	for i, v := range []uint32{1, 0, uint32(unix.TP_STATUS_USER), 2, 48} { // of tpacket_block_desc
		binary.NativeEndian.PutUint32(block[4*i:], v)
	}
	binary.NativeEndian.PutUint32(block[48+headNext:], 100)
	binary.NativeEndian.PutUint32(block[48+headSnap:], 14)
	binary.NativeEndian.PutUint32(block[48+headStatus:], unix.TP_STATUS_VLAN_VALID)
	binary.NativeEndian.PutUint16(block[48+headMAC:], 82)
	binary.NativeEndian.PutUint16(block[48+addrHatype:], unix.ARPHRD_ETHER)
	f.Add(block, block)
	f.Add(block, []byte{})
	mem := make([]byte, 2*blockBytes)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		clear(mem)
		copy(mem[:blockBytes], first)
		copy(mem[blockBytes:], second)
		r := &ring{mem: mem, fd: -1}
		s := &Source{rings: []*ring{r}, decoder: decode.New(), options: Options{}}
		b := capture.Batch{Obs: make([]capture.Observation, 0, 64)}
		for range 2*blockBytes/64 + 2 {
			b.Obs = b.Obs[:0]
			s.fill(0, &b, &capture.Arena{})
			if !r.inUse {
				return
			}
		}
		t.Fatal("no end")
	})
}
