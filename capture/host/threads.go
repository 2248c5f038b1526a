//go:build linux

package host

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
)

// maxThreads bounds the threads looked at in one process; more say no more of what they wait for.
const maxThreads = 2048

// waitKey is how a thread waits; the socket by its inode until that is resolved.
type waitKey struct {
	pid                   int32
	state, wchan, syscall string
	inode                 uint32
}

// waitSet counts waits of several processes and collects the sockets to look up, by network namespace.
type waitSet struct {
	count  map[waitKey]int32
	spaces map[string]*space
	sock   map[uint32]socketLook
}

// space is a network namespace, seen through one process in it.
type space struct {
	pid  int32
	want map[uint32]bool
}

type socketLook struct {
	socketLine
	proto uint8
}

// threads counts what the threads of a process wait for.
func (p *Processes) threads(pid int32, w *waitSet, deadline time.Time) {
	if w.count == nil {
		w.count, w.spaces, w.sock = map[waitKey]int32{}, map[string]*space{}, map[uint32]socketLook{}
	}
	native := p.native(pid)
	inodes := map[int32]uint32{} // by descriptor
	var tids []string            // the directory is read to its end first: p.dents is used again below
	p.dir(p.path(pid, "task"), 0, func(_ int, name []byte, _ int64) bool {
		tids = append(tids, string(name))
		return len(tids) < maxThreads
	})
	for _, tid := range tids {
		if time.Now().After(deadline) {
			break
		}
		dir := p.path(pid, "task/"+tid)
		s, ok := parseStat(p.read(dir + "/stat"))
		if !ok { // ended meanwhile
			continue
		}
		k := waitKey{pid: pid, state: s.state}
		if wchan := p.read(dir + "/wchan"); !bytes.Equal(wchan, []byte("0")) { // 0: runs, or is not ours to see
			k.wchan = string(wchan[:min(len(wchan), 128)]) // KSYM_NAME_LEN before Linux 6.1
		}
		if number, a0, a1, ok := parseSyscall(p.read(dir + "/syscall")); ok && native {
			var fd int32
			if k.syscall, fd = p.call(pid, number, a0, a1); fd >= 0 {
				inode, known := inodes[fd]
				if !known {
					inode = p.inode(pid, fd)
					inodes[fd] = inode
				}
				k.inode = inode
			}
		}
		w.count[k]++
	}
	if ns, err := os.Readlink(p.path(pid, "ns/net")); err == nil {
		if w.spaces[ns] == nil {
			w.spaces[ns] = &space{pid, map[uint32]bool{}}
		}
		for _, i := range inodes {
			if i != 0 {
				w.spaces[ns].want[i] = true
			}
		}
	}
}

// native: the process runs 64-bit code; the system calls of 32-bit code have other numbers.
func (p *Processes) native(pid int32) bool {
	fd, err := unix.Open(p.path(pid, "exe"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var elf [5]byte // magic number and EI_CLASS: 2 is ELFCLASS64
	n, err := unix.Pread(fd, elf[:], 0)
	return err == nil && n == len(elf) && elf == [5]byte{0x7f, 'E', 'L', 'F', 2}
}

// call names a system call and returns the one descriptor that it waits for; −1: there is none.
func (p *Processes) call(pid int32, number, a0, a1 uint64) (string, int32) {
	if name := fdCalls[number]; name != "" {
		return name, int32(a0)
	}
	if name := pollCalls[number]; name != "" {
		if a1 == 1 { // as getaddrinfo(3) waits for a name server
			return name, p.polled(pid, a0)
		}
		return name, -1
	}
	if name := otherCalls[number]; name != "" {
		return name, -1
	}
	return strconv.FormatUint(number, 10), -1
}

// polled reads the descriptor of a struct pollfd (poll(2)) at an address of the process: 4 bytes, and nothing else.
func (p *Processes) polled(pid int32, address uint64) int32 {
	fd, err := unix.Open(p.path(pid, "mem"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	var b [4]byte
	if n, err := unix.Pread(fd, b[:], int64(address)); err != nil || n != len(b) {
		return -1
	}
	return int32(binary.NativeEndian.Uint32(b[:]))
}

// inode of the socket behind a descriptor; 0: it is no socket.
func (p *Processes) inode(pid, fd int32) uint32 {
	link, err := os.Readlink(p.path(pid, "fd/"+strconv.Itoa(int(fd))))
	if err != nil {
		return 0
	}
	inode, _ := parseSocketLink([]byte(link))
	return inode
}

// resolve looks the sockets up in the tables of their namespace, the short ones first.
func (p *Processes) resolve(w *waitSet, deadline time.Time) {
	tables := []struct {
		name  string
		proto uint8
	}{{"udp", capture.ProtoUDP}, {"udp6", capture.ProtoUDP}, {"tcp", capture.ProtoTCP}, {"tcp6", capture.ProtoTCP}}
	for _, s := range w.spaces {
		for _, t := range tables {
			if len(s.want) == 0 {
				break
			}
			f, err := os.Open(p.path(s.pid, "net/"+t.name))
			if err != nil {
				continue
			}
			in := bufio.NewReaderSize(f, 64<<10)
			for len(s.want) > 0 && !time.Now().After(deadline) {
				l, err := in.ReadSlice('\n') // lines have 150 bytes; a longer one than the buffer is an error
				if err != nil {
					break
				}
				if x, ok := parseSocketLine(l); ok && s.want[x.inode] {
					w.sock[x.inode] = socketLook{x, t.proto}
					delete(s.want, x.inode)
				}
			}
			f.Close()
		}
	}
}

// of returns the waits of a process, the most frequent first. Workers with a socket each, to one peer, have a wait each: the local
// ports differ.
func (w *waitSet) of(pid int32) []capture.ThreadWait {
	grouped := map[capture.ThreadWait]int32{}
	for k, n := range w.count {
		if k.pid != pid {
			continue
		}
		t := capture.ThreadWait{State: k.state, Wchan: k.wchan, Syscall: k.syscall}
		if s, ok := w.sock[k.inode]; ok && k.inode != 0 {
			t.Local, t.Remote, t.Proto = s.local, s.remote, s.proto
			t.Listening = s.proto == capture.ProtoTCP && s.state == capture.Listen
		}
		grouped[t] += n
	}
	all := make([]capture.ThreadWait, 0, len(grouped))
	for t, n := range grouped {
		t.Threads = n
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b capture.ThreadWait) int {
		return cmp.Or(cmp.Compare(b.Threads, a.Threads), a.Remote.Compare(b.Remote), a.Local.Compare(b.Local),
			cmp.Compare(a.Syscall, b.Syscall), cmp.Compare(a.Wchan, b.Wchan), cmp.Compare(a.State, b.State))
	})
	return all
}
