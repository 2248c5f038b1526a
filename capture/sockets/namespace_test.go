//go:build linux

package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNamespace moves the test into a new network namespace whose only interface is the loopback.
// The thread ends with the test.
func ownNamespace(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	run(t, "ip", "link", "set", "lo", "up")
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// socket makes a TCP socket for addresses like a's, closed at the end of the test.
func socket(t testing.TB, a netip.AddrPort) int {
	t.Helper()
	family := unix.AF_INET
	if a.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) }) // closed already where a test says so: nothing opens descriptors then
	return fd
}

// listen listens at address and returns where, for the port may be 0.
func listen(t testing.TB, address string, backlog int) (int, netip.AddrPort) {
	t.Helper()
	a := netip.MustParseAddrPort(address)
	fd := socket(t, a)
	must(t, unix.Bind(fd, sockaddr(a)))
	must(t, unix.Listen(fd, backlog))
	switch s, err := unix.Getsockname(fd); s := s.(type) {
	case *unix.SockaddrInet4:
		return fd, netip.AddrPortFrom(a.Addr(), uint16(s.Port))
	case *unix.SockaddrInet6:
		return fd, netip.AddrPortFrom(a.Addr(), uint16(s.Port))
	default:
		t.Fatal(err)
		return 0, a
	}
}

func connect(t testing.TB, to netip.AddrPort) int {
	t.Helper()
	fd := socket(t, to)
	must(t, unix.Connect(fd, sockaddr(to)))
	return fd
}

// begin starts to connect and does not wait.
func begin(t testing.TB, to netip.AddrPort) {
	t.Helper()
	fd := socket(t, to)
	must(t, unix.SetNonblock(fd, true))
	if err := unix.Connect(fd, sockaddr(to)); err != unix.EINPROGRESS {
		t.Fatalf("connect to %v: %v, want %v", to, err, unix.EINPROGRESS)
	}
}

func accept(t testing.TB, listener int) int {
	t.Helper()
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	for err == unix.EINTR {
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// pair is an accepted connection.
func pair(t testing.TB, listener int, at netip.AddrPort) (client, server int) {
	t.Helper()
	client = connect(t, at)
	return client, accept(t, listener)
}

// drop drops matching packets, as nft(8) writes a match.
func drop(t testing.TB, match string) {
	t.Helper()
	run(t, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; "+
		fmt.Sprintf("add rule inet t in %s drop", match))
}

func open(t testing.TB, path string) *Dumper {
	t.Helper()
	d, err := Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}
