package flow

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"jindan/capture"
)

// dnsWire builds a message: header, one question, records in wire form.
func dnsWire(id, flags uint16, name string, qtype uint16, additional ...byte) []byte {
	b := make([]byte, dnsHeader)
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], flags)
	b[5] = 1
	if len(additional) > 0 {
		b[11] = 1
	}
	b = append(b, wireName(name)...)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = append(b, 0, 1)
	return append(b, additional...)
}

func wireName(name string) (b []byte) {
	for label := range strings.SplitSeq(name, ".") {
		if label != "" {
			b = append(b, byte(len(label)))
			b = append(b, label...)
		}
	}
	return append(b, 0)
}

func opt(size uint16, extended byte) []byte {
	return []byte{0, 0, dnsTypeOPT, byte(size >> 8), byte(size), extended, 0, 0, 0, 0, 0}
}

func TestDNSMessage(t *testing.T) {
	plain := dnsWire(7, 0x0100, "WWW.Example.com", 28)
	// A second question whose name is compressed does not matter; one in the first question
	// that points behind itself does.
	loop := dnsWire(7, 0, "", 1)
	loop[dnsHeader] = 0xc0
	loop = slices.Insert(loop, dnsHeader+1, byte(dnsHeader))
	long := dnsWire(7, 0, strings.Repeat(strings.Repeat("a", 63)+".", 4), 1)
	escaped := slices.Concat(plain[:dnsHeader], []byte{4, 'a', '.', '\\', 7, 0, 0, 1, 0, 1})
	refused := append([]byte(nil), plain[:dnsHeader]...)
	refused[2], refused[3], refused[5] = 0x81, 0x85, 0
	manyOpt := dnsWire(7, 0x8182, "x.example", 1, opt(4096, 1)...)
	answers := slices.Concat(dnsWire(9, 0x8180, "a.b", 1), []byte{0xc0, dnsHeader, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4}, opt(1232, 0))
	answers[7], answers[11] = 1, 1
	tests := []struct {
		name string
		b    []byte
		want dnsMessage
		text string
		err  error
	}{
		{"plain", plain, dnsMessage{ID: 7, QType: 28, QClass: 1, QDCount: 1, RD: true}, "www.example.com", nil},
		{"root", dnsWire(7, 0, "", 2), dnsMessage{ID: 7, QType: 2, QClass: 1, QDCount: 1}, ".", nil},
		{"empty", nil, dnsMessage{}, "", errDNSShort},
		{"header only", plain[:dnsHeader], dnsMessage{ID: 7, QDCount: 1, RD: true}, "", errDNSCut},
		{"cut in the name", plain[:20], dnsMessage{ID: 7, QDCount: 1, RD: true}, "", errDNSCut},
		{"pointer to itself", loop, dnsMessage{ID: 7, QDCount: 1}, "", errDNSName},
		{"name of 257 bytes", long, dnsMessage{ID: 7, QDCount: 1}, "", errDNSName},
		{"reserved label type", slices.Concat(plain[:dnsHeader], []byte{0x41, 'a', 0, 0, 1, 0, 1}), dnsMessage{ID: 7, QDCount: 1, RD: true}, "", errDNSName},
		{"escapes", escaped, dnsMessage{ID: 7, QType: 1, QClass: 1, QDCount: 1, RD: true}, `a\.\\\007`, nil},
		{"no question", refused, dnsMessage{ID: 7, Response: true, Rcode: 5, RD: true}, "", nil},
		{"EDNS with an extended rcode", manyOpt, dnsMessage{ID: 7, QType: 1, QClass: 1, QDCount: 1, Response: true, RD: true,
			Rcode: 18, HasEDNS: true, EDNSSize: 4096}, "x.example", nil},
		{"EDNS after an answer", answers, dnsMessage{ID: 9, QType: 1, QClass: 1, QDCount: 1, Answers: 1, Response: true, RD: true,
			HasEDNS: true, EDNSSize: 1232}, "a.b", nil},
		{"EDNS cut off", answers[:len(answers)-5], dnsMessage{ID: 9, QType: 1, QClass: 1, QDCount: 1, Answers: 1, Response: true, RD: true}, "a.b", nil},
	}
	for _, tt := range tests {
		var m dnsMessage
		m.parse(dnsWire(1, 0xffff, "left.over", 255, opt(9, 9)...)) // it is reused
		err := m.parse(tt.b)
		got := m
		got.Name, got.NameHash, got.text = nil, 0, [dnsNameText]byte{}
		if err != tt.err || string(m.Name) != tt.text || !equalMessage(&got, &tt.want) {
			t.Errorf("%s: %q %+v %v", tt.name, m.Name, got, err)
		}
	}
	if a, b := new(dnsMessage), new(dnsMessage); a.parse(plain) != nil || b.parse(dnsWire(1, 0, "www.example.com", 1)) != nil || a.NameHash != b.NameHash {
		t.Error("the hash depends on the case")
	}
}

func equalMessage(a, b *dnsMessage) bool {
	return a.ID == b.ID && a.QType == b.QType && a.QClass == b.QClass && a.QDCount == b.QDCount && a.Answers == b.Answers &&
		a.EDNSSize == b.EDNSSize && a.Opcode == b.Opcode && a.Rcode == b.Rcode && a.Response == b.Response &&
		a.Truncated == b.Truncated && a.RD == b.RD && a.HasEDNS == b.HasEDNS && a.NameCut == b.NameCut
}

// After a gap messages are found again where the length comes in a segment of its own.
func TestDNSStreamResumesAtLength(t *testing.T) {
	var s dnsStream
	s.lose()
	m := dnsWire(7, reply, "a.example", 1)
	var got []int
	for _, b := range [][]byte{m[5:], {0, byte(len(m))}, m, {0, byte(len(m))}, m[:20], m[20:], {1, 2}, {0, byte(len(m))}} {
		for n := len(b); n > 0; {
			msg, size, used := s.next(b, n)
			if size > 0 {
				got = append(got, size)
				if be16(msg) != 7 {
					t.Errorf("message %x", msg)
				}
			}
			b, n = b[min(used, len(b)):], n-used
		}
	}
	if !slices.Equal(got, []int{len(m), len(m)}) {
		t.Errorf("messages of %d bytes, want two of %d", got, len(m))
	}
}

// TestDNSStream cuts a stream of three messages in every way into two or three segments.
func TestDNSStream(t *testing.T) {
	var stream []byte
	var lens []int
	for i, name := range []string{"a.example", "bb.example", strings.Repeat("c", 63) + ".example"} {
		m := dnsWire(uint16(i), 0, name, 1, make([]byte, 200*i)...)
		m[11] = 0
		lens = append(lens, len(m))
		stream = binary.BigEndian.AppendUint16(stream, uint16(len(m)))
		stream = append(stream, m...)
	}
	run := func(cuts ...int) {
		var s dnsStream
		var ids []uint16
		var sizes []int
		from := 0
		for _, to := range append(cuts, len(stream)) {
			for b, n := stream[from:to], to-from; n > 0; {
				msg, size, used := s.next(b, n)
				if size > 0 {
					ids, sizes = append(ids, be16(msg)), append(sizes, size)
					if want := min(size, dnsStreamKeep); len(msg) < want {
						t.Fatalf("cuts %v: %d bytes of a message of %d", cuts, len(msg), size)
					}
				}
				b, n = b[min(used, len(b)):], n-used
			}
			from = to
		}
		if !slices.Equal(ids, []uint16{0, 1, 2}) || !slices.Equal(sizes, lens) {
			t.Fatalf("cuts %v: ids %v sizes %v", cuts, ids, sizes)
		}
	}
	for i := range len(stream) {
		run(i)
		for j := i; j < min(i+20, len(stream)); j++ {
			run(i, j)
		}
	}
}

func FuzzDNSMessage(f *testing.F) {
	f.Add(dnsWire(7, 0x0100, "www.example.com", 28), uint16(3), false)
	f.Add(dnsWire(7, 0x8180, "www.example.com", 28, opt(4096, 0)...), uint16(0), true)
	f.Add(slices.Concat([]byte{0, 29}, dnsWire(7, 0, "example.com", 1), []byte{0, 29}, dnsWire(7, 0x8000, "example.com", 1)), uint16(31), true)
	f.Fuzz(func(t *testing.T, b []byte, cut uint16, tcp bool) {
		var m dnsMessage
		err := m.parse(b)
		if len(m.Name) > dnsNameText || err == nil && m.QDCount > 0 && m.Name == nil {
			t.Fatalf("%v, name %q", err, m.Name)
		}
		var again dnsMessage
		if again.parse(bytes.Clone(b)); !bytes.Equal(again.Name, m.Name) || !equalMessage(&again, &m) {
			t.Fatal("two readings differ")
		}
		// The same bytes through the table, as query and as answer, in two segments.
		var d dnsTable
		d.init(&Options{})
		d.maxRec = 64 // the fixed memory of a full table is all that would take time
		emit := func(e *Event) {}
		at := min(int(cut), len(b))
		p := capture.Packet{Proto: capture.ProtoUDP, Dst: capture.Endpoint{Port: 53}}
		if tcp {
			p.Proto = capture.ProtoTCP
		}
		for range 2 {
			for _, part := range [][]byte{b[:at], b[at:]} {
				p.Data, p.Len = part, uint32(len(part))
				if len(part) > 0 {
					d.observe(&p, t0, emit)
				}
				p.Seq += p.Len
				p.Src, p.Dst = p.Dst, p.Src
			}
			p.Src, p.Dst = p.Dst, p.Src
		}
		d.icmp(&capture.Packet{Data: b, Proto: capture.ProtoICMP}, &p, t0, emit)
		d.seal(t0.Add(DNSTimeout), emit)
		d.close(t0.Add(DNSTimeout), emit)
		if s := &d.stats; s.Answered+s.Unanswered != s.Transactions && s.Evicted == 0 {
			t.Fatalf("%+v", *s)
		}
	})
}
