package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/analyze"
	"jindan/cmd/internal/config"
)

// TestIntegrationLeakUnderScan: twelve addresses send 5,000 SYNs a second to closed ports, and a program forgets to close its
// connections. The leak is found within 30 s of its beginning, and the agent stays within its memory.
func TestIntegrationLeakUnderScan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	const sources, rate, within = 12, 5000, 30 * time.Second
	server, far := fmt.Sprintf("jindan-flood-%d", os.Getpid()), fmt.Sprintf("jindan-far-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{server, far} {
		ip("netns", "add", ns)
		defer ip("netns", "del", ns)
		ip("-n", ns, "link", "set", "lo", "up")
	}
	ip("-n", server, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", far)
	ip("-n", server, "addr", "add", "10.98.8.1/24", "dev", "wire")
	ip("-n", server, "link", "set", "wire", "up")
	for i := range sources + 1 {
		ip("-n", far, "addr", "add", fmt.Sprintf("10.98.8.%d/24", 100+i), "dev", "wire")
	}
	ip("-n", far, "link", "set", "wire", "up")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	agent := exec.Command(self, "run", "-o", "ndjson", "--netns", server, "-i", "wire")
	agent.Env = append(os.Environ(), asProgram+"=1", "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_DIR="+filepath.Join(dir, "incidents"))
	var messages bytes.Buffer
	agent.Stderr = &messages
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan time.Time, 1)
	go func() {
		for d := json.NewDecoder(out); ; {
			var f analyze.Finding
			if d.Decode(&f) != nil {
				break
			}
			if f.Rule == "close-wait" && f.State == analyze.Open {
				select {
				case found <- time.Now():
				default:
				}
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer func() {
		close(stop)
		all.Wait()
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait()
	}()
	start := time.Now()
	var sent atomic.Int64
	all.Go(func() { scanFrom(t, far, sources, rate, &sent, stop) })
	time.Sleep(5 * time.Second) // the scan is known when the leak begins
	begun := time.Now()
	all.Go(func() { leak(t, server, far, stop) })
	end := time.After(within)
	most := 0
	for open := false; !open; {
		select {
		case at := <-found:
			t.Logf("found after %.1f s", at.Sub(begun).Seconds())
			open = true
		case <-end:
			t.Fatalf("no leak found within %v; %s", within, messages.String())
		case <-time.After(time.Second):
		}
		most = max(most, residentKiB(agent.Process.Pid))
	}
	if limit := int(config.Default().Budget.Memory) * 11 / 10 >> 10; most > limit {
		t.Errorf("%d KiB resident, %d are allowed with a tenth more", most, limit)
	}
	if got := float64(sent.Load()) / time.Since(start).Seconds(); got < rate/2 {
		t.Skipf("this machine sends %.0f SYNs a second only", got)
	}
	t.Logf("%d SYNs; %d MiB resident at most", sent.Load(), most>>10)
}

// residentKiB is VmRSS of proc(5).
func residentKiB(pid int) (n int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// inNamespace runs f on a thread that has entered a namespace; the thread ends with it.
func inNamespace(t *testing.T, name string, f func()) {
	runtime.LockOSThread() // never unlocked: the thread is of no more use
	ns, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Error(err)
		return
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Error(err)
		return
	}
	f()
}

// scanFrom sends SYNs from that many addresses by turns to ports 2,000 to 3,200 of the server, which are closed, and counts
// them.
func scanFrom(t *testing.T, ns string, sources, rate int, count *atomic.Int64, stop <-chan struct{}) {
	inNamespace(t, ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		p := make([]byte, 40)
		copy(p, []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0, 10, 98, 8, 0, 10, 98, 8, 1})
		p[32], p[33] = 0x50, 2 // data offset, SYN
		to := &unix.SockaddrInet4{Addr: [4]byte{10, 98, 8, 1}}
		sent := 0
		for start := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			for due := int(time.Since(start).Seconds() * float64(rate)); sent < due; sent++ {
				p[15] = byte(101 + sent%sources)
				binary.BigEndian.PutUint16(p[20:], uint16(10_000+sent%50_000))
				binary.BigEndian.PutUint16(p[22:], uint16(2_000+sent/sources%1_200))
				binary.BigEndian.PutUint32(p[24:], uint32(sent)*2_654_435_761)
				p[36], p[37] = 0, 0
				binary.BigEndian.PutUint16(p[36:], tcpSum(p))
				if err := unix.Sendto(fd, p, 0, to); err != nil && err != unix.ENOBUFS {
					t.Error(err)
					return
				}
			}
			count.Store(int64(sent))
		}
	})
}

// tcpSum is the checksum of RFC 9293 §3.1 over a segment without data, whose own is 0.
func tcpSum(p []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(p)-20)
	for i := 12; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// leak lets a program in one namespace answer clients in the other and never close: three a second.
func leak(t *testing.T, server, far string, stop <-chan struct{}) {
	var l net.Listener
	var all sync.WaitGroup
	all.Go(func() {
		inNamespace(t, server, func() {
			var err error
			if l, err = net.Listen("tcp", "10.98.8.1:80"); err != nil {
				t.Error(err)
			}
		})
	})
	all.Wait()
	if l == nil {
		return
	}
	var kept []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			kept = append(kept, c)
			b := make([]byte, 100)
			if _, err := c.Read(b); err == nil {
				_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
			}
		}
	})
	all.Go(func() {
		inNamespace(t, far, func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
				}
				d := net.Dialer{Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.98.8.100:0"))}
				c, err := d.Dial("tcp", "10.98.8.1:80")
				if err != nil {
					continue
				}
				_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				_, _ = c.Read(make([]byte, 100))
				c.Close()
			}
		})
	})
	<-stop
	l.Close()
	all.Wait()
	for _, c := range kept {
		c.Close()
	}
}
