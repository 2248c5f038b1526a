//go:build linux

package host

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
)

func wall() capture.Instant { return capture.Instant(time.Now().UnixNano()) }

// Sixteen threads blocked in recvfrom on a socket to a name server, found by the socket's inode and counted.
func TestIntegrationThreads(t *testing.T) {
	needRoot(t)
	before := time.Now()
	c, line := helper(t, "", "workers", "127.0.0.9:53")
	var recv, poll uint32
	if _, err := fmt.Sscan(line, &recv, &poll); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	p := NewProcesses("/proc", 2*time.Second, wall)
	s := p.Owners([]uint32{recv, poll, 4294967295}, 10)
	if len(s.Processes) != 1 || !slices.Equal(s.Unknown, []uint32{4294967295}) {
		t.Fatalf("%+v", s)
	}
	got := s.Processes[0]
	if int(got.PID) != c.Process.Pid || got.Name != "host.test" || got.CPU != -1 || !slices.Equal(got.Inodes, []uint32{recv, poll}) {
		t.Errorf("%+v, want pid %d", got, c.Process.Pid)
	}
	if d := got.Started.Time().Sub(before); d < -50*time.Millisecond || d > 5*time.Second {
		t.Errorf("started %v after the test began", d)
	}
	dir := fmt.Sprintf("/proc/%d/", c.Process.Pid)
	tasks, _ := os.ReadDir(dir + "task")
	fds, _ := os.ReadDir(dir + "fd")
	var limit unix.Rlimit
	if err := unix.Prlimit(c.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if int(got.Threads) != len(tasks) || int(got.FDs) != len(fds) || uint64(got.FDLimit) != limit.Cur {
		t.Errorf("%d threads, %d fds of %d; there are %d, %d, %d", got.Threads, got.FDs, got.FDLimit, len(tasks), len(fds), limit.Cur)
	}
	w := got.Waits[0]
	if w.Threads != 16 || w.Syscall != "recvfrom" || w.State != "S" || w.Remote.String() != "127.0.0.9:53" ||
		w.Proto != capture.ProtoUDP || w.Local.Addr.String() != "127.0.0.1" || w.Listening {
		t.Errorf("most threads: %+v", w)
	}
	i := slices.IndexFunc(got.Waits, func(w capture.ThreadWait) bool { return strings.HasSuffix(w.Syscall, "poll") && w.Proto != 0 })
	if i < 0 || got.Waits[i].Threads != 3 || got.Waits[i].Remote.String() != "127.0.0.9:53" {
		t.Errorf("3 threads in poll: %+v", got.Waits)
	}
	i = slices.IndexFunc(got.Waits, func(w capture.ThreadWait) bool { return w.Listening })
	if i < 0 || got.Waits[i].Threads != 2 || !strings.HasPrefix(got.Waits[i].Syscall, "accept") || got.Waits[i].Proto != capture.ProtoTCP || got.Waits[i].Local.Port == 0 {
		t.Errorf("2 threads in accept: %+v", got.Waits)
	}
	var all int32
	for _, w := range got.Waits {
		all += w.Threads
	}
	if int(all) != len(tasks) {
		t.Errorf("%d threads wait or run, of %d", all, len(tasks))
	}
	time.Sleep(50 * time.Millisecond)
	if s = p.Owners([]uint32{recv}, 10); len(s.Processes) != 1 || s.Processes[0].CPU < 0 || s.Processes[0].CPU > 2 {
		t.Errorf("CPU on the second call: %+v", s)
	}
	t.Logf("%d of %d threads of %s (pid %d) wait in %s (%s) on %v", w.Threads, got.Threads, got.Name, got.PID, w.Syscall, w.Wchan, w.Remote)
}

// The child has the socket, not the parent that made it.
func TestIntegrationChildOwns(t *testing.T) {
	needRoot(t)
	_, line := helper(t, "", "parent")
	var child int32
	var inode uint32
	if _, err := fmt.Sscan(line, &child, &inode); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	s := NewProcesses("/proc", 2*time.Second, wall).Owners([]uint32{inode}, 10)
	if len(s.Processes) != 1 || s.Processes[0].PID != child {
		t.Errorf("owner %+v, want %d", s, child)
	}
}

// With little time a search is spread over calls and still comes to its end.
func TestOwnersResume(t *testing.T) {
	var last [2]int
	fds := make([]int, 0, 4000)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for len(fds) < 800 {
		var err error
		if last, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, last[0], last[1])
	}
	inode := inodeOf(last[1])
	p := NewProcesses("/proc", 400*time.Microsecond, wall) // 200 µs of search: some 100 descriptors
	calls := 0
	for ; calls < 10000; calls++ {
		if s := p.find([]uint32{inode}, time.Now().Add(p.budget/2)); len(s) == 1 {
			if s[inode] != int32(os.Getpid()) {
				t.Fatalf("owner %d", s[inode])
			}
			break
		}
	}
	if calls == 0 || calls == 10000 {
		t.Errorf("found after %d calls; the time was not to suffice for one, but for many", calls)
	}
	t.Logf("found after %d calls", calls)
}

// BenchmarkOwners: an unknown inode, so that all of /proc is walked.
func BenchmarkOwners(b *testing.B) {
	p := NewProcesses("/proc", time.Minute, wall)
	n := 0
	p.listPIDs()
	for _, pid := range p.pids {
		p.dir(p.path(pid, "fd"), 0, func(int, []byte, int64) bool { n++; return true })
	}
	for b.Loop() {
		p.find([]uint32{4294967295}, time.Now().Add(time.Minute))
	}
	b.ReportMetric(float64(len(p.pids)), "processes")
	b.ReportMetric(float64(n), "descriptors")
}
