package live

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/live/filter"
	"jindan/capture/pcapfile"
)

// same compares what we captured with what tcpdump recorded at the same time, packet by packet.
func same(t *testing.T, ours, theirs []capture.Observation) {
	t.Helper()
	if len(ours) != len(theirs) || len(ours) == 0 {
		t.Fatalf("%d observations; tcpdump has %d", len(ours), len(theirs))
	}
	for i := range ours {
		a, b := ours[i], theirs[i]
		if d := a.At.Sub(b.At).Abs(); d > 100*time.Millisecond {
			t.Errorf("observation %d: times %v apart", i, d)
		}
		if !bytes.Equal(a.Packet.Data, b.Packet.Data) {
			t.Errorf("observation %d: data % x; tcpdump has % x", i, a.Packet.Data, b.Packet.Data)
		}
		a.Packet.Frame, a.Packet.Dir, a.Packet.Data, a.At = b.Packet.Frame, b.Packet.Dir, nil, 0
		b.Packet.Data, b.At = nil, 0
		if x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); x != y {
			t.Fatalf("observation %d: %s\ntcpdump has %s", i, x, y)
		}
	}
}

func TestIntegrationExchangeEqualsTcpdump(t *testing.T) {
	p := newPair(t)
	program, err := filter.Default().Program(filter.Packet, 256)
	if err != nil {
		t.Fatal(err)
	}
	for _, rings := range []int{1, 2} {
		t.Run(fmt.Sprint(rings, " rings"), func(t *testing.T) {
			s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[0], Filter: program, Rings: rings}, decode.New())
			d := p.tcpdump(0, "wire", "tcp or udp port 53")
			p.exchange(20, "10.77.1.2")
			if err := inNetns(p.ns[0], func() error { // a datagram to port 53 has its payload handed on, and is answered by ICMP
				c, err := net.Dial("udp", "10.77.1.2:53")
				if err == nil {
					_, err = c.Write([]byte("a question of thirty bytes ..."))
					c.Close()
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			ours := collect(t, s, always)
			var compared []capture.Observation
			in, out, icmp := 0, 0, 0
			for _, o := range ours {
				switch {
				case o.Kind != capture.KindPacket:
					t.Errorf("%+v", o)
				case o.Packet.Proto == capture.ProtoICMP:
					icmp++
					continue
				case o.Packet.Dir == capture.DirOutbound && o.Packet.Src.String()[:9] == "10.77.1.1":
					out++
				case o.Packet.Dir == capture.DirInbound && o.Packet.Dst.String()[:9] == "10.77.1.1":
					in++
				}
				compared = append(compared, o)
			}
			if in+out != len(compared) || icmp != 1 {
				t.Errorf("%d in, %d out of %d; %d ICMP errors", in, out, len(compared), icmp)
			}
			theirs := d.stop()
			if rings == 1 {
				same(t, compared, theirs)
			} else if len(compared) != len(theirs) { // packets of one instant may change places between rings
				t.Errorf("%d packets; tcpdump has %d", len(compared), len(theirs))
			}
			for i := 1; i < len(ours); i++ {
				if ours[i].At < ours[i-1].At-capture.Instant(time.Millisecond) {
					t.Errorf("observation %d goes back in time by %v", i, ours[i-1].At.Sub(ours[i].At))
				}
			}
			t.Logf("%d packets, %d in, %d out", len(compared), in, out)
		})
	}
}

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
	for side := range 2 {
		for _, text := range []string{"ip or arp or vlan", "vlan 5 and tcp", "vlan 6", "vlan", "tcp port 80", "vlan and host 10.77.5.1", "not vlan", "vlan or tcp",
			"vlan 5 and vlan 6", "vlan 5 and vlan 6 and udp port 53", "vlan 5 and arp or vlan", "vlan and vlan", "not (vlan 5 and tcp)", "tcp or vlan 0"} {
			t.Run(fmt.Sprint(text, " on side ", side), func(t *testing.T) {
				rec := &recorder{Decoder: decode.New()}
				s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[side], Filter: compile(t, text)}, rec)
				d := p.tcpdump(side, "wire", text)
				sent := map[string]bool{}
				for _, f := range tagged() {
					p.send(f)
					sent[string(f)] = true
				}
				collect(t, s, always)
				d.stop()
				theirs := &recorder{Decoder: decode.New()}
				f, err := pcapfile.Open(d.file, theirs)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var b capture.Batch
				for err == nil {
					err = f.Read(context.Background(), &b)
				}
				if len(rec.frames) != len(theirs.frames) || len(rec.frames) == 0 {
					t.Fatalf("%d frames; tcpdump has %d", len(rec.frames), len(theirs.frames))
				}
				for i, f := range rec.frames {
					if !bytes.Equal(f, theirs.frames[i]) {
						t.Errorf("frame %d: % x; tcpdump has % x", i, f, theirs.frames[i])
					}
					if !sent[string(f)] {
						t.Errorf("was not sent so: % x", f)
					}
				}
				t.Logf("%d of %d frames", len(rec.frames), len(sent))
			})
		}
	}
}

func TestIntegrationLoopbackOnce(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Netns: p.ns[0], Filter: compile(t, "udp port 9")}, decode.New())
	const sent = 10
	if err := inNetns(p.ns[0], func() error {
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		for range sent {
			_, _ = c.Write([]byte("x")) // refused every other time by the ICMP error before
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	n := len(collect(t, s, always))
	if n < sent/2 || n > sent {
		t.Errorf("%d packets of at most %d", n, sent)
	}
}

func TestIntegrationSetFilter(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[0], Filter: compile(t, "tcp port 8080")}, decode.New())
	p.exchange(3, "10.77.1.2")
	if err := s.SetFilter(compile(t, "udp")); err != nil {
		t.Fatal(err)
	}
	p.exchange(3, "10.77.1.2")
	before, after, marks := 0, 0, 0
	for _, o := range collect(t, s, always) {
		switch {
		case o.Kind == capture.KindSample && o.Sample.Change.Kind == capture.ChangeReload:
			marks++
		case marks == 0:
			before++
		default:
			after++
		}
	}
	if before < 30 || marks != 1 || after != 0 {
		t.Errorf("%d packets, %d marks, then %d packets", before, marks, after)
	}
	if err := s.SetFilter(make([]bpf.RawInstruction, 5000)); err == nil {
		t.Error("a filter of 5000 instructions is taken")
	}
}

func TestIntegrationQuiet(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Netns: p.ns[0], Filter: compile(t, "udp port 1")}, decode.New())
	var b capture.Batch
	until := capture.Instant(0)
	for range 3 {
		start := time.Now()
		if err := s.Read(context.Background(), &b); err != nil || len(b.Obs) > 0 {
			t.Fatal(err, b.Obs)
		}
		if d := time.Since(start); d > heartbeat+100*time.Millisecond {
			t.Errorf("a quiet Read took %v", d)
		}
		if b.Until <= until || time.Since(b.Until.Time()) > time.Second || b.Until.Time().After(time.Now().Add(-delivery)) {
			t.Errorf("Until is %v, was %v", b.Until, until)
		}
		until = b.Until
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := s.Read(ctx, &b); err != context.DeadlineExceeded || time.Since(start) > 120*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// TestIntegrationCloseWhileReading is of use under the race detector.
func TestIntegrationCloseWhileReading(t *testing.T) {
	p := newPair(t)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { flood(t, p, 1<<30, 50_000, stop) })
	for i := range 30 {
		s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[1], RingBytes: 1 << 20, Rings: 1 + i%2}, decode.New())
		var reading sync.WaitGroup
		reading.Go(func() {
			var b capture.Batch
			for {
				if err := s.Read(context.Background(), &b); err != nil {
					wantClosed(t, err)
					return
				}
			}
		})
		reading.Go(func() {
			for range 5 {
				if err := s.SetFilter(nil); err != nil {
					wantClosed(t, err)
				}
				_ = s.Stats()
			}
		})
		time.Sleep(time.Duration(i) * time.Millisecond)
		s.Close()
		s.Close()
		reading.Wait()
		wantClosed(t, s.SetFilter(nil))
	}
	close(stop)
	sending.Wait()
}

func TestIntegrationInterfaceComesBack(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Interfaces: []string{"lo", "wire"}, Netns: p.ns[0], Filter: compile(t, "tcp")}, decode.New())
	p.exchange(1, "10.77.1.2")
	first := collect(t, s, always)
	p.in(0, "ip", "link", "del", "wire")
	collect(t, s, func() bool { return s.Stats().Gone == 1 })
	if st := s.Stats(); st.Gone != 1 || len(st.Missing) != 1 || st.Missing[0] != "wire" || st.LastError == nil {
		t.Fatalf("%+v", st)
	}
	p.connect()
	collect(t, s, func() bool { return s.Stats().Reopened == 1 })
	p.exchange(1, "10.77.1.2")
	second := collect(t, s, always)
	if st := s.Stats(); st.Reopened != 1 || len(st.Missing) != 0 || st.LastError != nil {
		t.Errorf("%+v", st)
	}
	if len(first) < 10 || len(second) < 10 {
		t.Errorf("%d packets, then %d", len(first), len(second))
	}
	// One that only goes down stays.
	p.in(0, "ip", "link", "set", "wire", "down")
	time.Sleep(1200 * time.Millisecond)
	collect(t, s, always)
	p.in(0, "ip", "link", "set", "wire", "up")
	p.exchange(1, "10.77.1.2")
	if third := collect(t, s, always); len(third) < 10 || s.Stats().Gone != 1 {
		t.Errorf("%d packets after down and up: %+v", len(third), s.Stats())
	}
}

func TestIntegrationOpenErrors(t *testing.T) {
	p := newPair(t)
	for _, c := range []struct {
		o    Options
		what string
	}{
		{Options{Interfaces: []string{"nowhere"}, Netns: p.ns[0]}, "ip link"},
		{Options{Interfaces: []string{"a-name-that-is-too-long"}, Netns: p.ns[0]}, "15 bytes"},
		{Options{Interfaces: []string{Any, "lo"}}, "leave the others out"},
		{Options{RingBytes: -1}, "ring"},
		{Options{BlockTimeout: time.Second}, "time-out"},
		{Options{Filter: []bpf.RawInstruction{{Op: 0xffff}}}, "filter"},
	} {
		if s, err := Open(c.o, decode.New()); err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.what)
			if s != nil {
				s.Close()
			}
		}
	}
}
