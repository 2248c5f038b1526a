//go:build linux

package host

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/process"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

const (
	// maxHints bounds the inodes whose last owner is remembered, and the processes whose CPU time is.
	maxHints = 8192
	// smallFile is room for the files of a process, in bytes: cgroup v1 has a dozen lines with paths of up to 4,096 (PATH_MAX),
	// most of a few hundred.
	smallFile = 32 << 10
)

// Processes finds the processes behind sockets, and what they do, in a procfs. It is not safe for concurrent use.
type Processes struct {
	root   string
	budget time.Duration
	clock  func() capture.Instant
	boot   func() time.Duration
	ctx    context.Context // tells gopsutil of root

	hints  map[uint32]int32    // inode: the process that had it; tried first
	cpu    map[procKey]cpuSeen // of the calls before
	resume walkPosition        // where the last walk ran out of time
	pids   []int32
	dents  []byte
	buf    []byte
}

// procKey is a process for life; numbers are re-used.
type procKey struct {
	pid   int32
	start time.Duration // since boot
}

type cpuSeen struct {
	used float64       // seconds
	at   time.Duration // since boot
}

// walkPosition is a place in the descriptors of a process (the directory's d_off).
type walkPosition struct {
	pid int32
	off int64
}

// NewProcesses looks into the procfs mounted at root, with at most budget of work in each call. clock is the wall
// clock, which turns times since boot into times of day.
func NewProcesses(root string, budget time.Duration, clock func() capture.Instant) *Processes {
	return &Processes{root: root, budget: budget, clock: clock, boot: sinceBoot,
		ctx:   context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: root}),
		hints: map[uint32]int32{}, cpu: map[procKey]cpuSeen{}, dents: make([]byte, 32<<10), buf: make([]byte, smallFile)}
}

// sinceBoot is CLOCK_BOOTTIME, in which procfs gives the start of processes.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // Linux has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// Owners returns the processes that hold these socket inodes, at most max of them, those with most of the inodes first, and
// what their threads wait for. An inode that several processes share (pre-forked workers) is given to the first found. Half of
// the budget is for the search, which the next call continues where this one had to stop; until then, what was not found is
// Unknown. Without CAP_SYS_PTRACE only the own user's processes can be seen.
func (p *Processes) Owners(inodes []uint32, max int) capture.ProcessSample {
	begun := time.Now()
	found := p.find(inodes, begun.Add(p.budget/2))
	byPID := map[int32][]uint32{}
	var s capture.ProcessSample
	for _, i := range inodes {
		if pid, ok := found[i]; !ok {
			s.Unknown = append(s.Unknown, i)
		} else if !slices.Contains(byPID[pid], i) {
			byPID[pid] = append(byPID[pid], i)
		}
	}
	pids := make([]int32, 0, len(byPID))
	for pid := range byPID {
		pids = append(pids, pid)
	}
	slices.SortFunc(pids, func(a, b int32) int {
		return cmp.Or(cmp.Compare(len(byPID[b]), len(byPID[a])), cmp.Compare(a, b))
	})
	var waits waitSet
	for _, pid := range pids[:min(len(pids), max)] {
		proc, ok := p.describe(pid)
		if !ok { // it ended meanwhile
			s.Unknown = append(s.Unknown, byPID[pid]...)
			continue
		}
		proc.Inodes = byPID[pid]
		p.threads(pid, &waits, begun.Add(p.budget*3/4))
		s.Processes = append(s.Processes, proc)
	}
	p.resolve(&waits, begun.Add(p.budget))
	for i := range s.Processes {
		s.Processes[i].Waits = waits.of(s.Processes[i].PID)
	}
	return s
}

// find maps inodes to processes: first where they were found before, then everywhere, only until all are found.
func (p *Processes) find(inodes []uint32, deadline time.Time) map[uint32]int32 {
	found := make(map[uint32]int32, len(inodes))
	missing := make(map[uint32]bool, len(inodes))
	for _, i := range inodes {
		missing[i] = true
	}
	hinted := map[int32]bool{}
	for _, i := range inodes {
		if pid, ok := p.hints[i]; ok && !hinted[pid] {
			hinted[pid] = true
			p.walk(walkPosition{pid: pid}, missing, found, deadline)
		}
	}
	if len(missing) > 0 {
		p.listPIDs()
	}
	if len(missing) > 0 && len(p.pids) > 0 {
		from, _ := slices.BinarySearch(p.pids, p.resume.pid)
		first := p.resume
		p.resume = walkPosition{}
		for n := range len(p.pids) + 1 { // the last round is for what is before the position in the first process
			at := walkPosition{pid: p.pids[(from+n)%len(p.pids)]}
			switch {
			case n == 0 && at.pid == first.pid:
				at.off = first.off
			case n == len(p.pids) && first.off == 0, hinted[at.pid]:
				continue
			}
			if n > 0 && time.Now().After(deadline) {
				p.resume = at
				break
			}
			if off, done := p.walk(at, missing, found, deadline); !done {
				p.resume = walkPosition{at.pid, off}
				break
			}
			if len(missing) == 0 {
				break
			}
		}
	}
	if len(p.hints)+len(found) > maxHints {
		clear(p.hints)
	}
	for i, pid := range found {
		if len(p.hints) < maxHints {
			p.hints[i] = pid
		}
	}
	return found
}

// walk reads the descriptors of one process from a position on, at least one, so that every call gets further. It returns
// false with the position to go on from when the time is up.
func (p *Processes) walk(at walkPosition, missing map[uint32]bool, found map[uint32]int32, deadline time.Time) (int64, bool) {
	var link [32]byte // socket:[4294967295] takes 19
	var off int64
	done := true
	p.dir(p.path(at.pid, "fd"), at.off, func(dir int, name []byte, next int64) bool {
		n, err := unix.Readlinkat(dir, string(name), link[:])
		if err == nil {
			if inode, is := parseSocketLink(link[:n]); is && missing[inode] {
				found[inode] = at.pid
				delete(missing, inode)
			}
		}
		off = next
		// Asking for the time costs a twentieth of a readlink.
		if done = !time.Now().After(deadline); !done {
			return false
		}
		return len(missing) > 0
	})
	return off, done
}

// dir calls f with the entries of a directory until it returns false; next is the position behind the entry.
func (p *Processes) dir(path string, off int64, f func(dir int, name []byte, next int64) bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if off != 0 {
		if _, err := unix.Seek(fd, off, 0); err != nil {
			return
		}
	}
	const header = 19 // struct linux_dirent64: ino 8, off 8, reclen 2, type 1
	for {
		n, err := unix.Getdents(fd, p.dents)
		if err != nil || n <= 0 {
			return
		}
		for b := p.dents[:n]; len(b) > header; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= header || size > len(b) {
				return
			}
			name, _, _ := bytes.Cut(b[header:size], []byte{0})
			next := int64(binary.NativeEndian.Uint64(b[8:]))
			b = b[size:]
			if name[0] != '.' && !f(fd, name, next) {
				return
			}
		}
	}
}

func (p *Processes) listPIDs() {
	p.pids = p.pids[:0]
	p.dir(p.root, 0, func(_ int, name []byte, _ int64) bool {
		if pid, ok := decimal(name); ok && pid < 1<<31 {
			p.pids = append(p.pids, int32(pid))
		}
		return true
	})
	slices.Sort(p.pids)
}

func (p *Processes) path(pid int32, name string) string {
	return p.root + "/" + strconv.Itoa(int(pid)) + "/" + name
}

// read returns the content of a small file, valid until the next read; nil if there is none to be had.
func (p *Processes) read(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n := 0
	for n < len(p.buf) {
		k, err := unix.Read(fd, p.buf[n:])
		if err == unix.EINTR { //nolint:errorlint // system calls return bare numbers
			continue
		}
		if err != nil || k <= 0 {
			break
		}
		n += k
	}
	return p.buf[:n]
}

// started reads when a process began, since boot.
func (p *Processes) started(pid int32) (stat, bool) { return parseStat(p.read(p.path(pid, "stat"))) }

// instant is the time of day of a time since boot.
func (p *Processes) instant(t time.Duration) capture.Instant { return p.clock().Add(t - p.boot()) }

// describe fills everything but Inodes and Waits.
func (p *Processes) describe(pid int32) (capture.Process, bool) {
	s, ok := p.started(pid)
	if !ok {
		return capture.Process{}, false
	}
	proc := capture.Process{PID: pid, Name: s.comm, Started: p.instant(s.start), CPU: -1}
	proc.Unit, proc.Container = parseCgroup(p.read(p.path(pid, "cgroup")))
	proc.FDLimit = parseFDLimit(p.read(p.path(pid, "limits")))
	p.dir(p.path(pid, "fd"), 0, func(int, []byte, int64) bool {
		proc.FDs++
		return true
	})
	g := process.Process{Pid: pid}
	if n, err := g.NumThreadsWithContext(p.ctx); err == nil {
		proc.Threads = n
	}
	if t, err := g.TimesWithContext(p.ctx); err == nil {
		k, now := procKey{pid, s.start}, cpuSeen{t.User + t.System, p.boot()}
		if before, ok := p.cpu[k]; ok && now.at > before.at {
			proc.CPU = max(0, now.used-before.used) / (now.at - before.at).Seconds()
		}
		if len(p.cpu) >= maxHints {
			clear(p.cpu)
		}
		p.cpu[k] = now
	}
	return proc, true
}
