package filter

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"jindan/capture"
	"jindan/capture/pcapfile"
)

// corpusEnv names a directory with captures/…: more packets to compare verdicts on.
const corpusEnv = "JINDAN_CORPUS"

// collector keeps raw packets by link type.
type collector struct {
	of   map[uint16][][]byte
	cut  map[uint16][][]byte // by a short snap length
	seen map[[32]byte]bool
	left int // of the current file
}

func (c *collector) Decode(_ capture.Instant, link uint16, data []byte, wire int, _ *capture.Packet) capture.LossReason {
	if link == 12 || link == 14 || link == 228 || link == 229 {
		link = 101 // raw IP by other numbers
	}
	h := sha256.Sum256(data)
	if c.left > 0 && (link == 1 || link == 101) && !c.seen[h] && len(data) <= 2048 {
		c.left--
		c.seen[h] = true
		to := c.of
		if len(data) < min(wire, 128) {
			to = c.cut
		}
		to[link] = append(to[link], append([]byte(nil), data...))
	}
	return capture.LossNotIP
}

// realPackets returns packets of the fixtures, and of the corpus where there is one, by LINKTYPE_ value.
var realPackets = sync.OnceValues(func() (*collector, error) {
	c := &collector{of: map[uint16][][]byte{}, cut: map[uint16][][]byte{}, seen: map[[32]byte]bool{}}
	files, err := filepath.Glob("../../../fixtures/*/packets.pcap.zst")
	if err != nil {
		return nil, err
	}
	perFile := 100
	if dir := os.Getenv(corpusEnv); dir != "" {
		err = filepath.WalkDir(filepath.Join(dir, "captures"), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files = append(files, p)
			}
			return err
		})
		perFile = 15
	}
	for _, name := range files {
		c.left = perFile
		f, err := pcapfile.Open(name, c)
		if err != nil {
			continue // some of the corpus are no captures, by intention
		}
		var b capture.Batch
		for err = nil; err == nil && c.left > 0; {
			err = f.Read(context.Background(), &b)
		}
		f.Close()
	}
	return c, err
})

// edges are packets made from real ones: with tags, fragmented, with options, cut short, with addresses and ports swapped or set
// to those that the expressions name, and with random bytes in headers.
func edges(packets [][]byte, ethernet bool, n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	var out [][]byte
	for range n {
		p := append([]byte(nil), packets[r.IntN(len(packets))]...)
		if ethernet {
			for range r.IntN(3) {
				if len(p) >= 14 {
					tag := [][]byte{{0x81, 0}, {0x88, 0xa8}, {0x91, 0}}[r.IntN(3)]
					id := []byte{byte(r.IntN(2)) << 5, byte([]int{0, 5, 6, 100}[r.IntN(4)])}
					p = append(append(append(append([]byte(nil), p[:12]...), tag...), id...), p[12:]...)
				}
			}
		}
		at := 0
		if ethernet {
			at = 14 + 4*r.IntN(2)
		}
		set := func(i int, b ...byte) {
			if at+i+len(b) <= len(p) {
				copy(p[at+i:], b)
			}
		}
		switch r.IntN(9) {
		case 0:
			set(6, byte(r.IntN(64)), byte(r.IntN(3))) // IPv4 fragment
		case 1:
			set(0, 0x40|byte(r.IntN(16))) // IPv4 header length
		case 2:
			set(9, []byte{1, 6, 17, 132, 58, 44}[r.IntN(6)])
		case 3:
			set(6, []byte{0, 6, 17, 132, 58, 44, 60}[r.IntN(7)]) // IPv6 next header
		case 4:
			set(12+4*r.IntN(2), 10, 77, byte(r.IntN(4)), 2)
		case 5:
			set(20+2*r.IntN(2), 0, []byte{22, 53, 80}[r.IntN(3)])
		case 6:
			set(40+2*r.IntN(2), 0, []byte{22, 53, 80}[r.IntN(3)])
		case 7:
			if len(p) > 0 {
				p[r.IntN(min(len(p), 64))] = byte(r.Uint32())
			}
		case 8:
			set(8+16*r.IntN(2), 0x20, 0x01, 0x0d, 0xb8)
		}
		if r.IntN(3) == 0 {
			p = p[:r.IntN(min(len(p), 80)+1)]
		}
		out = append(out, p)
	}
	return out
}

// made are packets of every kind that the expressions speak of, with their addresses and ports.
func made(ethernet bool, n int) [][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	one := func(of ...string) []byte { return []byte(of[r.IntN(len(of))]) }
	v4 := func() []byte {
		return one("\x0a\x4d\x02\x02", "\x0a\x4d\x03\x02", "\x0a\x00\x00\x01", "\x0a\x01\x01\x02", "\xc0\xa8\x01\x02", "\xac\x10\x00\x01", "\x00\x00\x00\x00", "\x08\x08\x08\x08")
	}
	v6 := func() []byte {
		b := make([]byte, 16)
		copy(b, one("\x20\x01\x0d\xb8", "\x20\x01\x0d\xb8\x00\x01\x00\x02\x00\x02", "\xfe\x80", "\xff\x02", ""))
		b[15] = 1
		return b
	}
	transport := func(proto byte) (b []byte) {
		for range 2 {
			b = append(b, one("\x00\x16", "\x00\x35", "\x00\x50", "\x01\xbb", "\x1f\x90", "\x23\x28", "\x90\x01", "\x14\xe9")...)
		}
		switch proto {
		case 6:
			b = append(b, byte(r.Uint32()), 0, 0, 1, 0, 0, 0, 2, 0x50, byte(r.Uint32()), byte(r.Uint32()), 3, 0, 0, 0, 0)
		case 17:
			b = append(b, byte(r.IntN(2)), byte(r.Uint32()), 0, 0, 1, 2, 3)
		case 1, 58:
			b[0] = byte([]int{0, 1, 2, 3, 5, 8, 11, 128, 129, 134}[r.IntN(10)])
			b[1] = byte(r.IntN(10))
			b = append(b, 1, 2, 3, 4, 5, 6)
		}
		return append(b, make([]byte, 24)...)
	}
	var out [][]byte
	for range n {
		proto := []byte{1, 6, 6, 17, 17, 132, 58, 58, 2}[r.IntN(9)]
		var kind, p []byte
		switch r.IntN(5) {
		case 0, 1:
			kind = []byte{8, 0}
			words := 5 + r.IntN(2)*r.IntN(11)
			p = []byte{byte(0x40 + words), 0, byte(r.IntN(5)), 60, 0, 0, 0, 0, byte(r.Uint32()), proto, 0, 0}
			if r.IntN(4) == 0 {
				copy(p[6:], one("\x20\x00", "\x00\x10", "\x20\x10", "\x40\x00"))
			}
			p = append(append(p, v4()...), v4()...)
			p = append(append(p, make([]byte, 4*(words-5))...), transport(proto)...)
		case 2, 3:
			kind = []byte{0x86, 0xdd}
			p = append(append([]byte{0x60, 0, 0, 0, 0, 60, proto, byte(r.IntN(3))}, v6()...), v6()...)
			if r.IntN(3) == 0 {
				p[6] = []byte{0, 44, 44, 60}[r.IntN(4)]
				p = append(p, proto, 0, byte(r.IntN(2)), byte(r.IntN(2)*8), 0, 0, 0, 1)
			}
			p = append(p, transport(proto)...)
		default:
			kind = one("\x08\x06", "\x80\x35", "\x88\xcc")
			p = []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1}
			p = append(append(append(p, v4()...), 2, 0, 0, 0, 0, 2), v4()...)
		}
		if ethernet {
			head := make([]byte, 12, 100)
			for range r.IntN(5) / 2 {
				head = append(head, one("\x81\x00", "\x81\x00", "\x88\xa8", "\x91\x00")...)
				head = append(head, one("\x00\x05", "\x20\x05", "\x00\x06", "\x00\x00", "\x00\x64")...)
			}
			p = append(append(head, kind...), p...)
		}
		out = append(out, p)
	}
	return out
}

// testPackets are real and made packets of one link type; those in cut may end inside a header.
func testPackets(t testing.TB, link uint16) (whole, cut [][]byte) {
	all, err := realPackets()
	if err != nil {
		t.Fatal(err)
	}
	real, ethernet := all.of[link], link == 1
	if !ethernet {
		for _, p := range all.of[1] { // few captures are raw
			if len(p) > 14 && (p[12] == 8 && p[13] == 0 || p[12] == 0x86 && p[13] == 0xdd) && len(real) < 3000 {
				real = append(real, p[14:])
			}
		}
	}
	if len(real) < 1000 {
		t.Fatalf("%d packets of link type %d to compare verdicts on", len(real), link)
	}
	return append(real[:len(real):len(real)], made(ethernet, 4000)...), append(edges(real, ethernet, 8000), all.cut[link]...)
}
