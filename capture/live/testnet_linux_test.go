package live

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/live/filter"
	"jindan/capture/pcapfile"
)

// pair is two network namespaces joined by a veth pair with the device "wire" at both ends, 10.77.1.1 and 10.77.1.2.
type pair struct {
	t    testing.TB
	name [2]string
	ns   [2]int
}

func newPair(t testing.TB) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and packet sockets")
	}
	for _, program := range []string{"ip", "tcpdump"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	p := &pair{t: t}
	for i := range p.name {
		p.name[i] = fmt.Sprintf("jindan-live-%d-%d", os.Getpid(), i)
		p.run("ip", "netns", "add", p.name[i])
		t.Cleanup(func() { p.run("ip", "netns", "del", p.name[i]) })
		f, err := os.Open("/run/netns/" + p.name[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		p.ns[i] = int(f.Fd())
		p.in(i, "ip", "link", "set", "lo", "up")
	}
	p.connect()
	return p
}

func (p *pair) connect() {
	p.run("ip", "link", "add", "wire", "netns", p.name[0], "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "wire", "netns", p.name[1])
	for i := range p.name {
		p.in(i, "ip", "link", "set", "wire", "addrgenmode", "none", "up")
		p.in(i, "ip", "addr", "add", fmt.Sprintf("10.77.1.%d/24", i+1), "dev", "wire")
	}
}

func (p *pair) run(args ...string) {
	p.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (p *pair) in(i int, args ...string) {
	p.t.Helper()
	p.run(append([]string{"ip", "netns", "exec", p.name[i]}, args...)...)
}

// exchange makes n TCP connections from one namespace to an address in the other, with 20 kB of answer each.
func (p *pair) exchange(n int, addr string) {
	p.t.Helper()
	var l net.Listener
	err := inNetns(p.ns[1], func() (err error) {
		l, err = net.Listen("tcp", addr+":8080")
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 100))
			_, _ = c.Write(make([]byte, 20_000))
			c.Close()
		}
	}()
	for range n {
		var c net.Conn
		if err := inNetns(p.ns[0], func() (err error) {
			c, err = net.DialTimeout("tcp", addr+":8080", 5*time.Second)
			return err
		}); err != nil {
			p.t.Fatal(err)
		}
		_, _ = c.Write([]byte("GET"))
		buf := make([]byte, 4096)
		for err = nil; err == nil; {
			_, err = c.Read(buf)
		}
		c.Close()
	}
}

// send transmits frames from the first namespace.
func (p *pair) send(frames [][]byte) {
	p.t.Helper()
	if err := inNetns(p.ns[0], func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := interfaceIndex(fd, "wire")
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
}

// recorder passes packets on and keeps their bytes.
type recorder struct {
	*decode.Decoder
	frames [][]byte
}

func (r *recorder) Decode(at capture.Instant, link uint16, data []byte, wire int, p *capture.Packet) capture.LossReason {
	r.frames = append(r.frames, append([]byte(nil), data...))
	return r.Decoder.Decode(at, link, data, wire, p)
}

func compile(t testing.TB, text string) []bpf.RawInstruction {
	t.Helper()
	e, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Program(filter.Packet, 256)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func open(t testing.TB, o Options, d Decoder) *Source {
	t.Helper()
	s, err := Open(o, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// collect reads until the source has been quiet for a while and done holds, 10 s at most; observations are copied.
func collect(t testing.TB, s *Source, done func() bool) []capture.Observation {
	t.Helper()
	var all []capture.Observation
	var b capture.Batch
	for quiet, start := 0, time.Now(); quiet < 2 || !done(); {
		if time.Since(start) > 10*time.Second {
			break
		}
		if err := s.Read(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
		quiet++
		if len(b.Obs) > 0 {
			quiet = 0
		}
		for _, o := range b.Obs {
			o.Packet.Data = append([]byte(nil), o.Packet.Data...)
			all = append(all, o)
		}
	}
	return all
}

func always() bool { return true }

// dump is a running tcpdump.
type dump struct {
	t    testing.TB
	cmd  *exec.Cmd
	file string
	log  *strings.Builder
}

func (p *pair) tcpdump(i int, dev string, args ...string) *dump {
	p.t.Helper()
	d := &dump{t: p.t, file: filepath.Join(p.t.TempDir(), "pcap"), log: new(strings.Builder)}
	if len(args) > 0 && args[0] == "-w" {
		d.file, args = args[1], args[2:]
	}
	d.cmd = exec.Command("ip", append([]string{"netns", "exec", p.name[i], "tcpdump", "-Z", "root", "-n", "-U", "-i", dev, "-s", "256",
		"--time-stamp-precision=nano", "-w", d.file}, args...)...)
	pipe, err := d.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	started, buf := make(chan struct{}), make([]byte, 4096)
	go func() {
		for first := true; ; first = false {
			n, err := pipe.Read(buf)
			d.log.Write(buf[:n])
			if first {
				close(started)
			}
			if err != nil {
				return
			}
		}
	}()
	<-started
	time.Sleep(200 * time.Millisecond)
	return d
}

// dumpSettles is how long packets may take to tcpdump, which empties its ring once a second.
const dumpSettles = 1200 * time.Millisecond

func (d *dump) end() {
	_ = d.cmd.Process.Signal(os.Interrupt)
	_ = d.cmd.Wait()
}

// stop ends tcpdump and returns what it recorded.
func (d *dump) stop() []capture.Observation {
	d.t.Helper()
	time.Sleep(dumpSettles)
	d.end()
	if d.file == "/dev/null" {
		return nil
	}
	f, err := pcapfile.Open(d.file, decode.New())
	if err != nil {
		d.t.Fatalf("%v: %s", err, d.log)
	}
	defer f.Close()
	var all []capture.Observation
	var b capture.Batch
	for err == nil {
		err = f.Read(context.Background(), &b)
		for _, o := range b.Obs {
			o.Packet.Data = append([]byte(nil), o.Packet.Data...)
			all = append(all, o)
		}
	}
	return all
}

func wantClosed(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}
