//go:build linux

package sockets

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"jindan/capture"

	"golang.org/x/sys/unix"
)

func BenchmarkSweepFull(b *testing.B) { sweep(b, capture.AllStates, true) }
func BenchmarkSweepGate(b *testing.B) { sweep(b, GateStates, false) }

// sweep measures the CPU time of a dump of 20,000 sockets (17,000 ESTABLISHED, 1,500 CLOSE_WAIT, 1,500 FIN_WAIT2):
// "cpu-ns/op" is the median, of the whole process, and "x-ss" its share of the median that "ss -tan" takes, run in
// turn for the same sockets. It runs as root: go test -run '^$' -bench Sweep -benchtime 30x ./capture/sockets.
func sweep(b *testing.B, states uint32, info bool) {
	ownNamespace(b)
	fill(b)
	d := open(b, "")
	var table capture.SocketTable
	must(b, d.Dump(&table, states, info))
	var ours, theirs []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		before := cpu(b)
		must(b, d.Dump(&table, states, info))
		ours = append(ours, cpu(b)-before)
		b.StopTimer()
		theirs = append(theirs, ss(b))
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	median := len(ours) / 2
	b.ReportMetric(float64(len(table.Sockets)), "sockets")
	b.ReportMetric(float64(ours[median]), "cpu-ns/op")
	b.ReportMetric(float64(ours[median])/float64(theirs[median]), "x-ss")
}

// connector makes this binary the client of fill, which has half of the descriptors: its value is where to connect to.
const connector = "JINDAN_TEST_CONNECT"

const connections, halfClosed = 10_000, 1_500

func TestMain(m *testing.M) {
	if to := os.Getenv(connector); to != "" {
		if err := connectMany(netip.MustParseAddrPort(to)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// connectMany connects, closes some for writing, and holds the connections until standard input ends.
func connectMany(to netip.AddrPort) error {
	for i := range connections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(fd, sockaddr(to))
		}
		if err == nil && i < halfClosed {
			err = unix.Shutdown(fd, unix.SHUT_WR)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// fill makes connections, some of them closed by the client only. Nothing is ever sent on them.
func fill(b *testing.B) {
	var limit unix.Rlimit
	must(b, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Cur < connections+100 {
		limit.Cur, limit.Max = connections+100, max(limit.Max, connections+100)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			b.Skipf("needs %d descriptors: %v", limit.Cur, err)
		}
	}
	l, at := listen(b, "127.0.0.1:7200", 128)
	client := exec.CommandContext(b.Context(), os.Args[0])
	client.Env = append(os.Environ(), connector+"="+at.String())
	client.Stderr = os.Stderr
	hold, err := client.StdinPipe()
	must(b, err)
	ready, err := client.StdoutPipe()
	must(b, err)
	must(b, client.Start())
	b.Cleanup(func() {
		hold.Close()
		client.Wait()
	})
	must(b, unix.SetsockoptTimeval(l, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})) // the client may fail
	for range connections {
		accept(b, l)
	}
	if _, err := io.ReadFull(ready, make([]byte, len("ready"))); err != nil {
		b.Fatalf("the client's end: %v", err)
	}
}

// ss is the CPU time of "ss -tan", its start and end included.
func ss(b *testing.B) time.Duration {
	c := exec.Command("ss", "-tan")
	must(b, c.Run())
	return c.ProcessState.UserTime() + c.ProcessState.SystemTime()
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
