package live

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/live/filter"
)

// mmsghdr is struct mmsghdr of sendmmsg(2) on 64-bit machines.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// flood sends n frames of 60 bytes, TCP and UDP by turns, from the first namespace to the second at rate per second, and
// returns how many and in what time. They go to an address that is not the receiver's, so that nothing but captures looks at them.
func flood(t testing.TB, p *pair, n, rate int, stop <-chan struct{}) (int, time.Duration) {
	const batch = 64
	var fd, ifindex int
	if err := inNetns(p.ns[0], func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		ifindex, err = interfaceIndex(fd, "wire")
		return err
	}); err != nil {
		t.Error(err)
		return 0, 0
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
		t.Error(err)
		return 0, 0
	}
	frames, vectors, msgs := make([][]byte, batch), make([]unix.Iovec, batch), make([]mmsghdr, batch)
	for i := range frames {
		f := make([]byte, 60)
		copy(f, []byte{2, 0, 0, 0, 0, 99, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 1, 1, 10, 77, 1, 9})
		binary.BigEndian.PutUint16(f[34:], uint16(20000+i))
		f[46] = 0x50 // TCP data offset
		if i%2 == 1 {
			f[23], f[39] = 17, 26 // UDP, and its length
		}
		frames[i] = f
		vectors[i].Base = &f[0]
		vectors[i].SetLen(len(f))
		msgs[i].hdr.Iov = &vectors[i]
		msgs[i].hdr.SetIovlen(1)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, sent := time.Now(), 0
	for sent < n {
		select {
		case <-stop:
			return sent, time.Since(start)
		default:
		}
		for due := start.Add(time.Duration(sent) * time.Second / time.Duration(rate)); time.Now().Before(due); {
			if time.Until(due) > time.Millisecond {
				time.Sleep(time.Millisecond)
			}
		}
		k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(min(batch, n-sent)), 0, 0, 0)
		if errno == unix.ENOBUFS || errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			t.Error("sendmmsg:", errno)
			break
		}
		sent += int(k)
	}
	return sent, time.Since(start)
}

func TestIntegrationDropsAreReported(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[1], RingBytes: 512 << 10, Filter: compile(t, "ip")}, decode.New())
	sent, _ := flood(t, p, 50_000, 500_000, nil) // nobody reads
	time.Sleep(200 * time.Millisecond)
	var early, late, lost uint64
	read := func() {
		for _, o := range collect(t, s, always) {
			switch {
			case o.Kind == capture.KindLoss && o.Reason == capture.LossKernelDrop:
				lost += o.Lost
			case lost == 0:
				early++
			default:
				late++
			}
		}
	}
	read()
	more, _ := flood(t, p, 1000, 100_000, nil)
	read()
	st := s.Stats()
	if early == 0 || late == 0 || lost == 0 || early+late+lost != uint64(sent+more) || st.Dropped != lost || st.Unread[capture.LossKernelDrop] != lost {
		t.Errorf("%d packets, %d lost, %d packets; %d sent; %+v", early, lost, late, sent+more, st)
	}
	t.Logf("%d packets, %d lost, %d packets", early, lost, late)
}

// TestIntegrationReadAllocatesNothing reads a full ring.
func TestIntegrationReadAllocatesNothing(t *testing.T) {
	p := newPair(t)
	s := open(t, Options{Interfaces: []string{"wire"}, Netns: p.ns[1], RingBytes: 32 << 20}, decode.New())
	b := capture.Batch{Obs: make([]capture.Observation, 0, capture.DefaultBatch)}
	flood(t, p, 2000, 200_000, nil)
	packets := 0
	read := func() {
		if err := s.Read(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
		packets += len(b.Obs)
	}
	for range 6 {
		read()
	}
	flood(t, p, 100_000, 300_000, nil)
	packets = 0
	allocs := testing.AllocsPerRun(150, read)
	t.Logf("%v allocations per Read, %d packets in 151 Reads", allocs, packets)
	if allocs != 0 || packets < 50_000 {
		t.Errorf("%v allocations per Read of %d packets", allocs, packets/151)
	}
}

// BenchmarkIntegrationMillion captures 1,000,000 frames, sent at JINDAN_RATE (default 350,000) a second, beside tcpdump.
func BenchmarkIntegrationMillion(b *testing.B) {
	for _, with := range []string{"alone", "beside tcpdump", "tcpdump alone"} {
		b.Run(with, func(b *testing.B) {
			p := newPair(b)
			rate := 350_000
			if v := os.Getenv("JINDAN_RATE"); v != "" {
				if _, err := fmt.Sscan(v, &rate); err != nil {
					b.Fatal(err)
				}
			}
			for range b.N {
				million(b, p, rate, with)
			}
		})
	}
}

func million(b *testing.B, p *pair, rate int, with string) {
	program, err := filter.And().Program(filter.Packet, 256)
	if err != nil {
		b.Fatal(err)
	}
	var d *dump
	if with != "alone" {
		d = p.tcpdump(1, "wire", "-w", "/dev/null", "-B", "8192")
	}
	var s *Source
	var reading sync.WaitGroup
	var cpu time.Duration
	if with != "tcpdump alone" {
		s = open(b, Options{Interfaces: []string{"wire"}, Netns: p.ns[1], Filter: program}, decode.New())
		reading.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before := threadTime()
			var batch capture.Batch
			for s.Read(context.Background(), &batch) == nil {
			}
			cpu = threadTime() - before
		})
	}
	sent, took := flood(b, p, 1_000_000, rate, nil)
	b.ReportMetric(float64(sent)/took.Seconds(), "sent/s")
	if d != nil {
		d.stop()
		b.Logf("tcpdump: %s", strings.Join(strings.Split(strings.TrimSpace(d.log.String()), "\n"), "; "))
	}
	if s != nil {
		time.Sleep(500 * time.Millisecond)
		st := s.Stats()
		s.Close()
		reading.Wait()
		b.ReportMetric(float64(st.Packets), "packets")
		b.ReportMetric(float64(st.Dropped), "drops")
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(st.Packets), "cpu-ns/packet")
	}
}

// threadTime is the processor time of the thread.
func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
