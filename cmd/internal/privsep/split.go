//go:build linux

package privsep

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities of a keeper: packet sockets, and other users' processes.
var kept = []uint{unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}

// Options are how a process is divided.
type Options struct {
	Procfs string // where procfs is mounted
	User   *User  // whom the worker becomes; nil: it stays who it is
	// Keeps are capabilities that the worker of root has all the same.
	Keeps []uint
}

// User is whom a worker of root becomes.
type User struct {
	UID, GID int
	Groups   []int
}

// self is the running program, whatever stands at its path by now.
const self = "/proc/self/exe"

// Split starts a keeper, and begins this program anew as its worker: it returns in the worker only, with the keeper, or in a process
// that has no capability to hand over, with nil. If a keeper cannot be started, the error says why, and nothing has changed.
func Split(o Options) (*Keeper, error) {
	if fd, _, ok := role(envWorker); ok {
		name("jindan")
		if err := Drop(o.Keeps); err != nil { // root of a container that may not change its bounding set
			return nil, err
		}
		return open(fd)
	}
	if effective()&set(kept) == 0 {
		return nil, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "worker")
	defer theirs.Close()
	const first = 3 // behind standard input, output and errors
	p, err := os.StartProcess(self, []string{"jindan", "keeper"}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr, theirs},
		Env: []string{envKeeper + "=" + strconv.Itoa(first) + ":" + o.Procfs}})
	if err != nil {
		return nil, fmt.Errorf("start a keeper of capabilities: %w", err)
	}
	if err := greet(pair[0]); err != nil { // it must not be taken for one later
		_ = p.Kill()
		_, _ = p.Wait()
		return nil, err
	}
	return nil, fmt.Errorf("begin anew as a worker: %w", become(o, pair[0]))
}

// greet tries the keeper before there is no way back. The socket stays open.
func greet(fd int) error {
	again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	k, err := open(again)
	if err != nil {
		return err
	}
	return k.c.Close()
}

// become drops what a worker has no need of, on this thread, and begins the program anew, which then has no more than this thread.
func become(o Options, fd int) error {
	runtime.LockOSThread() // until the end: there is no way back
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) // before Linux 4.3 there are none
	if effective()&(1<<unix.CAP_SETPCAP) != 0 {
		for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
			if set(o.Keeps)&(1<<c) == 0 {
				_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) // an older kernel knows fewer
			}
		}
	}
	if u := o.User; u != nil {
		if err := syscall.Setgroups(u.Groups); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := syscall.Setresgid(u.GID, u.GID, u.GID); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := syscall.Setresuid(u.UID, u.UID, u.UID); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { // it is inherited
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), envWorker+"="+strconv.Itoa(fd)+":"))
}

// role is what an environment variable makes of this process: the descriptor of a socket, and more. The variable is gone then.
func role(env string) (fd int, rest string, ok bool) {
	number, rest, ok := strings.Cut(os.Getenv(env), ":")
	if !ok {
		return 0, "", false
	}
	_ = os.Unsetenv(env)
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return 0, "", false
	}
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return 0, "", false
	}
	return fd, rest, true
}

// name gives this process a name for ps(1): that of what it was begun from is "exe".
func name(s string) { _ = os.WriteFile("/proc/self/comm", []byte(s), 0) }

// quiet makes a process small and deaf: signals to the group are for the worker, whose end ends the keeper.
func quiet() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGPIPE)
	name("jindan-keeper")
	runtime.GOMAXPROCS(1)
	debug.FreeOSMemory() // what the program's packages have made for others
	if err := Drop(kept); err != nil {
		fmt.Fprintf(os.Stderr, "jindan: the keeper of capabilities has more than it needs: %v\n", err)
	}
}

// set is a set of capabilities as bits.
func set(list []uint) (bits uint64) {
	for _, c := range list {
		bits |= 1 << c
	}
	return bits
}

// effective are the capabilities of this thread.
func effective() uint64 {
	data, err := capabilities()
	if err != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}

func capabilities() (data [2]unix.CapUserData, err error) { // capabilities 0 to 31, 32 to 63
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return data, fmt.Errorf("read the own capabilities: %w", err)
	}
	return data, nil
}

// Capabilities are those of this process.
func Capabilities() uint64 { return effective() }

// Drop gives up every capability but those of keep, in all threads and for good: what parses strangers' bytes holds none that it
// does not need. A process that has less already keeps what it has.
func Drop(keep []uint) error {
	now, err := capabilities()
	if err != nil {
		return err
	}
	all := func(trap, a1, a2, a3 uintptr) error {
		if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
			return errno
		}
		return nil
	}
	if err := all(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	mask := set(keep)
	if now[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
			if mask&(1<<c) == 0 {
				_ = all(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0) // an older kernel knows fewer
			}
		}
	}
	before := now
	for i, m := range [2]uint32{uint32(mask), uint32(mask >> 32)} {
		now[i].Effective &= m
		now[i].Permitted &= m
		now[i].Inheritable &= m
	}
	if now[0].Permitted == before[0].Permitted && now[1].Permitted == before[1].Permitted { // as under the unit, whose filter refuses capset(2)
		return nil
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := all(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&now[0])), 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// Pose makes this thread open files as u would. The thread must not be used for anything else afterwards.
func Pose(u *User) error {
	groups := make([]uint32, len(u.Groups)+1)
	groups[0] = uint32(u.GID)
	for i, g := range u.Groups {
		groups[i+1] = uint32(g)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errno
	}
	if _, err := unix.SetfsgidRetGid(u.GID); err != nil {
		return err
	}
	_, err := unix.SetfsuidRetUid(u.UID) // which also takes the capabilities to override permissions
	return err
}
