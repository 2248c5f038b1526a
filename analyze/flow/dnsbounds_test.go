package flow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"jindan/capture"
)

// TestDNSBounds fills the rings of records and of names many times over.
func TestDNSBounds(t *testing.T) {
	for _, long := range []bool{false, true} {
		k := newDNSTalk(t)
		k.t.dns.maxRec = 2048
		n := 10_000
		label := "x"
		if long { // 2048 names of 250 bytes do not fit the first ring of names
			label = strings.Repeat(strings.Repeat("l", 60)+".", 4)[:238]
		}
		for i := range n {
			k.udp(time.Millisecond, uint16(1024+i%5000), uint16(i), ask, fmt.Sprintf("%s%08d", label, i))
			if i%3 == 0 {
				k.udp(0, uint16(1024+i%5000), uint16(i), reply, "x")
			}
		}
		k.t.Close()
		s := k.t.DNSStats()
		if len(k.rows) != n || s.Answered != uint64(n+2)/3 || s.Evicted == 0 {
			t.Fatalf("%d rows, %+v", len(k.rows), *s)
		}
		for i, name := range k.names {
			if want := fmt.Sprintf("%s%08d", label, i); name != want {
				t.Fatalf("row %d: %q, want %q", i, name, want)
			}
		}
	}
}

// TestDNSNameRing uses up the ring of names before that of the records.
func TestDNSNameRing(t *testing.T) {
	k := newDNSTalk(t)
	n := maxDNSNames/250 + 5000
	label := strings.Repeat(strings.Repeat("l", 60)+".", 4)[:238]
	for i := range n {
		k.udp(0, 1000, uint16(i), ask, fmt.Sprintf("%s%08d", label, i))
	}
	if live := k.t.dns.head - k.t.dns.tail; len(k.t.dns.names) != maxDNSNames || live > MaxDNS || live < maxDNSNames/250*9/10 {
		t.Errorf("%d names in %d bytes", live, len(k.t.dns.names))
	}
	k.t.Close()
	for i, name := range k.names {
		if want := fmt.Sprintf("%s%08d", label, i); name != want {
			t.Fatalf("row %d: %q, want %q", i, name, want)
		}
	}
}

func TestDNSAllocs(t *testing.T) {
	k := newDNSTalk(t)
	k.t.dns.row = nil
	k.t.o.Emit = func(*Event) {}
	q := capture.Observation{At: t0, Packet: capture.Packet{Proto: capture.ProtoUDP, Src: k.c, Dst: k.s, Data: dnsWire(0, ask, "www.example.com", 1)}}
	a := capture.Observation{At: t0, Packet: capture.Packet{Proto: capture.ProtoUDP, Src: k.s, Dst: k.c, Data: dnsWire(0, reply, "www.example.com", 1)}}
	one := func() {
		q.At += 1e6
		a.At = q.At + 1e5
		q.Packet.Data[1]++
		a.Packet.Data[1]++
		k.t.Observe(&q)
		k.t.Observe(&a)
	}
	for range MaxDNS { // fills the table: from here on nothing grows
		one()
	}
	if n := testing.AllocsPerRun(1000, one); n != 0 {
		t.Errorf("%v allocations a transaction", n)
	}
	var s dnsMessage
	if n := testing.AllocsPerRun(100, func() { s.parse(a.Packet.Data) }); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
	p := capture.Packet{Proto: capture.ProtoTCP, Src: k.c, Dst: k.s, Data: append([]byte{0, 33}, dnsWire(0, ask, "www.example.com", 1)...)}
	p.Len = uint32(len(p.Data))
	if n := testing.AllocsPerRun(100, func() {
		k.t.dns.observe(&p, t0, k.t.send)
		p.Seq += p.Len
		p.Data[3]++
	}); n != 0 {
		t.Errorf("%v allocations a TCP message", n)
	}
}

func BenchmarkDNS(b *testing.B) {
	k := newDNSTalk(b)
	k.t.dns.row = nil
	k.t.o.Emit = func(*Event) {}
	q := capture.Observation{At: t0, Packet: capture.Packet{Proto: capture.ProtoUDP, Src: k.c, Dst: k.s, Data: dnsWire(0, ask, "www.example.com", 1)}}
	a := capture.Observation{At: t0, Packet: capture.Packet{Proto: capture.ProtoUDP, Src: k.s, Dst: k.c, Data: dnsWire(0, reply, "www.example.com", 1)}}
	for b.Loop() {
		q.At += 1e6
		a.At = q.At + 1e5
		q.Packet.Data[1]++
		a.Packet.Data[1]++
		k.t.Observe(&q)
		k.t.Observe(&a)
	}
}
