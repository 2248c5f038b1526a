package live

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/live/filter"
)

// same compares what we captured with what tcpdump recorded at the same time, packet by packet. Packets that are on their
// way on two processors at once may come in either order.
func same(t *testing.T, ours, theirs []capture.Observation) {
	t.Helper()
	if len(ours) != len(theirs) || len(ours) == 0 {
		t.Fatalf("%d observations; tcpdump has %d", len(ours), len(theirs))
	}
	list := func(all []capture.Observation) (lines []string, at map[string]capture.Instant) {
		at = map[string]capture.Instant{}
		for _, o := range all {
			when := o.At
			o.Packet.Frame, o.Packet.Dir, o.At = 0, 0, 0
			o.Packet.SrcMAC, o.Packet.DstMAC = 0, 0
			line := fmt.Sprintf("%+v", o)
			lines = append(lines, line)
			at[line] = when
		}
		slices.Sort(lines)
		return lines, at
	}
	a, aAt := list(ours)
	b, bAt := list(theirs)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("%s\ntcpdump has %s", a[i], b[i])
		}
		if d := aAt[a[i]].Sub(bAt[b[i]]).Abs(); d > 100*time.Millisecond {
			t.Errorf("times %v apart: %s", d, a[i])
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
			same(t, compared, theirs)
			for i := 1; i < len(ours); i++ {
				if ours[i].At < ours[i-1].At-capture.Instant(time.Millisecond) {
					t.Errorf("observation %d goes back in time by %v", i, ours[i-1].At.Sub(ours[i].At))
				}
			}
			t.Logf("%d packets, %d in, %d out", len(compared), in, out)
		})
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
	if err := s.SetFilter(compile(t, "udp"), "udp"); err != nil {
		t.Fatal(err)
	}
	p.exchange(3, "10.77.1.2")
	before, after, marks := 0, 0, 0
	for _, o := range collect(t, s, always) {
		switch {
		case o.Kind == capture.KindSample && o.Sample.Change.Kind == capture.ChangeFilter:
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
	if err := s.SetFilter(make([]bpf.RawInstruction, 5000), "too long"); err == nil {
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

// TestIntegrationSample checks that the kernel takes the sampling filter, and whole connections with it.
func TestIntegrationSample(t *testing.T) {
	p := newPair(t)
	sample, err := filter.Sample(4)
	if err != nil {
		t.Fatal(err)
	}
	program, err := filter.And(filter.Default(), sample).Program(filter.Packet, 256)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[0], Filter: program}, decode.New())
	const connections = 64
	p.exchange(connections, "10.77.1.2")
	const forth, back = 1, 2
	seen := map[uint16]int{} // directions in which a SYN was seen, by client port
	for _, o := range collect(t, s, always) {
		port, way := o.Packet.Src.Port, forth
		if o.Packet.Dir == capture.DirInbound {
			port, way = o.Packet.Dst.Port, back
		}
		if o.Packet.Flags&capture.SYN == 0 {
			way = 0
		}
		seen[port] |= way
	}
	for port, ways := range seen {
		if ways != forth|back {
			t.Errorf("port %d: a connection without one of its SYNs", port)
		}
	}
	if n := len(seen); n < connections/16 || n > connections/2 {
		t.Errorf("%d of %d connections", n, connections)
	}
	t.Logf("%d of %d connections", len(seen), connections)
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
				if err := s.SetFilter(nil, "all"); err != nil {
					wantClosed(t, err)
				}
				_ = s.Stats()
			}
		})
		time.Sleep(time.Duration(i) * time.Millisecond)
		s.Close()
		s.Close()
		reading.Wait()
		wantClosed(t, s.SetFilter(nil, "all"))
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

func TestIntegrationOpenWithoutRights(t *testing.T) {
	newPair(t) // skips without root, who has rights to give up
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and ends with the goroutine: the thread has no rights any more
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		s, err := Open(Options{Interfaces: []string{"lo"}}, decode.New())
		if err == nil {
			s.Close()
		}
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("%v", err)
	}
}
