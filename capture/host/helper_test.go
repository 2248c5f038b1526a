//go:build linux

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

// The test binary is also the process that the tests look at: JINDAN_HELPER says as what.
func TestMain(m *testing.M) {
	switch os.Getenv("JINDAN_HELPER") {
	case "":
		os.Exit(m.Run())
	case "workers":
		workers(os.Args[1])
	case "listener":
		l, err := net.Listen("tcp", os.Args[1])
		check(err)
		defer l.Close()
	case "parent": // hands its listener to a child and forgets it
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		f, err := l.(*net.TCPListener).File()
		check(err)
		inode := inodeOf(int(f.Fd()))
		c := exec.Command("/proc/self/exe", fmt.Sprint(inode))
		c.Env, c.ExtraFiles, c.Stdout = []string{"JINDAN_HELPER=child"}, []*os.File{f}, os.Stdout
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		runtime.LockOSThread() // Pdeathsig is the thread's
		check(c.Start())
		check(f.Close())
		check(l.Close())
		forever()
	case "child":
		fmt.Printf("%d %s\n", os.Getpid(), os.Args[1])
		forever()
	}
	fmt.Println("ready")
	forever()
}

func forever() {
	time.Sleep(time.Minute) // long enough for the test; a lost helper ends by itself
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Println("helper:", err)
		os.Exit(1)
	}
}

func inodeOf(fd int) uint32 {
	var st unix.Stat_t
	check(unix.Fstat(fd, &st))
	return uint32(st.Ino)
}

// workers blocks 16 threads in recvfrom on one UDP socket connected to peer, 3 in poll on another one, and 2 in accept.
func workers(peer string) {
	to := netip.MustParseAddrPort(peer)
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		check(err)
		check(unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
		return fd
	}
	a, b := open(), open()
	for range 16 {
		go func() {
			runtime.LockOSThread()
			var buf [512]byte
			_, _, err := unix.Recvfrom(a, buf[:], 0)
			check(err)
		}()
	}
	for range 3 {
		go func() {
			runtime.LockOSThread()
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(b), Events: unix.POLLIN}}, -1)
			check(err)
		}()
	}
	l, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	check(unix.Listen(l, 8)) // on a port that the kernel chooses
	for range 2 {
		go func() {
			runtime.LockOSThread()
			_, _, err := unix.Accept(l)
			check(err)
		}()
	}
	time.Sleep(300 * time.Millisecond) // for the threads to block
	fmt.Printf("%d %d\n", inodeOf(a), inodeOf(b))
}

// helper starts this binary as a helper, in a namespace if it is named, and returns its first line of output.
func helper(t *testing.T, ns, kind string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append([]string{self}, args...)
	if ns != "" {
		argv = append([]string{"ip", "netns", "exec", ns}, argv...)
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "JINDAN_HELPER="+kind)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	buf := make([]byte, 256)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatalf("helper %s says nothing: %v", kind, err)
	}
	return c, strings.TrimSpace(string(buf[:n]))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces, and other processes' descriptors and system calls")
	}
}

// sh runs a command and returns its output.
func sh(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var why []byte
		if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as it comes
			why = e.Stderr
		}
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, why)
	}
	return out
}

func ip(t *testing.T, args string) { t.Helper(); sh(t, "ip", strings.Fields(args)...) }

func fromJSON[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
	return v
}

// namespaces makes two namespaces joined by a veth pair v0 (10.99.0.1) and v1 (10.99.0.2) and returns a handle of the first.
func namespaces(t *testing.T) (a, b string, handle netns.NsHandle) {
	t.Helper()
	needRoot(t)
	a, b = fmt.Sprintf("jdh%da", os.Getpid()), fmt.Sprintf("jdh%db", os.Getpid())
	for _, n := range []string{a, b} {
		ip(t, "netns add "+n)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", n).Run() })
		ip(t, "-n "+n+" link set lo up")
	}
	ip(t, "-n "+a+" link add v0 type veth peer name v1 netns "+b)
	ip(t, "-n "+a+" addr add 10.99.0.1/24 dev v0")
	ip(t, "-n "+b+" addr add 10.99.0.2/24 dev v1")
	ip(t, "-n "+a+" link set v0 up")
	ip(t, "-n "+b+" link set v1 up")
	time.Sleep(100 * time.Millisecond) // link watch events
	handle, err := netns.GetFromName(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	return a, b, handle
}

// changes reads from the source for a time and returns the markers.
func changes(t *testing.T, s *Source, d time.Duration) (all []capture.Change) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	var b capture.Batch
	for s.Read(ctx, &b) == nil {
		for _, o := range b.Obs {
			if o.At > b.Until {
				t.Errorf("an observation at %v after Until %v", o.At, b.Until)
			}
			if o.Sample.Change != nil {
				all = append(all, *o.Sample.Change)
			}
		}
	}
	return all
}
