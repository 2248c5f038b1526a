//go:build linux

package privsep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/host"
)

// envInside makes the test program a worker that tries what it must not be able to: how it is divided, as JSON.
const envInside = "JINDAN_TEST_INSIDE"

type inside struct {
	Options Options
	Allowed string // the directory that it may write in
	Inode   uint32 // of a socket of another user
	PID     int    // who has it
}

// attempts are what a worker tries, and what came of it: empty if it succeeded.
type attempts map[string]string

func TestMain(m *testing.M) {
	if Keep() {
		return
	}
	if what := os.Getenv(envInside); what != "" {
		out, err := tryAll(what)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(out)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func tryAll(what string) (attempts, error) {
	var in inside
	if err := json.Unmarshal([]byte(what), &in); err != nil {
		return nil, err
	}
	k, err := Split(in.Options)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, errors.New("not divided")
	}
	confined, err := Confine([]string{"/proc", "/etc/hostname"}, []string{in.Allowed})
	if err != nil {
		return nil, err
	}
	out := attempts{"capabilities": fmt.Sprint(Capabilities()), "uid": fmt.Sprint(os.Getuid()), "confined": fmt.Sprint(confined)}
	try := func(name string, f func() error) {
		if err := f(); err != nil {
			out[name] = err.Error()
		} else {
			out[name] = ""
		}
	}
	file := func(path string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	socket := func(domain, kind, protocol int) func() error {
		return func() error {
			fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	try("read /etc/shadow", file("/etc/shadow", unix.O_RDONLY))
	try("write /etc", file("/etc/jindan-was-here", unix.O_WRONLY|unix.O_CREAT))
	try("write where it may", file(filepath.Join(in.Allowed, "file"), unix.O_WRONLY|unix.O_CREAT))
	try("read /proc/net/dev", file("/proc/net/dev", unix.O_RDONLY))
	try("execute", func() error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	})
	for name, pid := range map[string]int{"process 1": 1, "the keeper": in.keeper(), "another user's": in.PID} {
		try("memory of "+name, file(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR))
		try("descriptors of "+name, file(fmt.Sprintf("/proc/%d/fd/0", pid), unix.O_RDONLY))
		try("ptrace "+name, func() error { return unix.PtraceAttach(pid) })
		try("namespace of "+name, func() error {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				defer unix.Close(fd)
				err = unix.Setns(fd, unix.CLONE_NEWNET)
			}
			return err
		})
	}
	try("packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW, 0))
	try("raw socket", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP))
	try("new namespace", func() error { return unix.Unshare(unix.CLONE_NEWNET) })
	try("become root", func() error {
		if os.Getuid() == 0 {
			return errors.New("is root by name")
		}
		return unix.Setresuid(0, 0, 0)
	})
	try("packet socket of the keeper", func() error {
		fd, err := k.Socket()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: 1})
	})
	try("owner by the keeper", func() error {
		s := k.Owners([]uint32{in.Inode}, 1)
		if len(s.Processes) != 1 || int(s.Processes[0].PID) != in.PID {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	try("search by the keeper", func() error {
		if pids, _ := k.Find([]uint32{in.Inode}); int(pids[in.Inode]) != in.PID {
			return fmt.Errorf("%v", pids)
		}
		return nil
	})
	try("program by the keeper", func() error {
		path, at, err := k.Exe(int32(in.PID))
		if err == nil && (path == "" || at.IsZero()) {
			err = fmt.Errorf("%q of %v", path, at)
		}
		return err
	})
	return out, nil
}

// keeper finds the keeper among the worker's children.
func (in *inside) keeper() int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var pid, parent int
		var comm, state string
		if _, err := fmt.Sscan(string(b), &pid, &comm, &state, &parent); err == nil && parent == os.Getpid() {
			return pid
		}
	}
	return -1
}

// TestIntegrationWorker: what has taken over a worker cannot do what an agent's capabilities are for, and the keeper still serves it.
func TestIntegrationWorker(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: others have nothing to divide")
	}
	const nobody = 65534
	capabilities := []uintptr{unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	for _, tc := range []struct {
		name    string
		uid     int // whom it is started as
		ambient []uintptr
		user    *User
		root    bool
	}{
		{"under the unit", nobody, capabilities, nil, false},
		{"started by root, the directories are another user's", 0, nil, &User{UID: nobody, GID: nobody}, false},
		{"started by root, the directories are root's", 0, nil, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dir, err := os.MkdirTemp("/var/tmp", "jindan-worker-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			what, err := json.Marshal(inside{Options{Procfs: "/proc", User: tc.user}, dir, inode(t, l), os.Getpid()})
			if err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(dir, "worker") // where everybody may start it
			copyFile(t, self, program)
			c := exec.Command(program)
			c.Env = append(os.Environ(), envInside+"="+string(what))
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(tc.uid), Gid: uint32(tc.uid)}, AmbientCaps: tc.ambient}
			var said bytes.Buffer
			c.Stderr = &said
			b, err := c.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, said.String())
			}
			var got attempts
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
			if got["confined"] != "true" {
				t.Log("the kernel has no Landlock: files and programs are bounded by permissions only")
			}
			if got["capabilities"] != "0" || got["uid"] == "0" != tc.root {
				t.Errorf("capabilities %s, user %s", got["capabilities"], got["uid"])
			}
			for name, failed := range got {
				landlock := name == "execute" || tc.root && (name == "read /etc/shadow" || name == "write /etc")
				switch name {
				case "capabilities", "uid", "confined":
				case "write where it may", "read /proc/net/dev", "packet socket of the keeper", "owner by the keeper", "search by the keeper", "program by the keeper":
					if failed != "" {
						t.Errorf("%s: %s", name, failed)
					}
				default:
					if failed == "" && (!landlock || got["confined"] == "true") {
						t.Errorf("%s: it could", name)
					}
				}
			}
			t.Log(got)
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inode is the number of a listener's socket.
func inode(t *testing.T, l net.Listener) uint32 {
	t.Helper()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// pair is a keeper's end and a worker's.
func pair(t *testing.T) (keeper *net.UnixConn, worker int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if keeper, err = connection(fds[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keeper.Close() })
	return keeper, fds[1]
}

func processes() *host.Processes {
	return host.NewProcesses("/proc", host.DefaultBudget, func() capture.Instant { return capture.Instant(time.Now().UnixNano()) })
}

// The keeper's answers are what the process itself would have found.
func TestAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, fd := pair(t)
	go func() { _ = serve(c, processes()) }()
	k, err := open(fd)
	if err != nil {
		t.Fatal(err)
	}
	own, n := processes(), inode(t, l)
	if got, want := k.Owners([]uint32{n, 1}, 4), own.Owners([]uint32{n, 1}, 4); len(got.Processes) != 1 || len(want.Processes) != 1 ||
		got.Processes[0].PID != want.Processes[0].PID || got.Processes[0].Name != want.Processes[0].Name ||
		!reflect.DeepEqual(got.Processes[0].Inodes, want.Processes[0].Inodes) || !reflect.DeepEqual(got.Unknown, want.Unknown) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, cut := k.Find([]uint32{n}); cut || int(got[n]) != os.Getpid() {
		t.Errorf("%v %v", got, cut)
	}
	path, at, err := k.Exe(int32(os.Getpid()))
	wantPath, wantAt, wantErr := own.Exe(int32(os.Getpid()))
	if path != wantPath || !at.Equal(wantAt) || err != nil || wantErr != nil {
		t.Errorf("%s %v %v, want %s %v %v", path, at, err, wantPath, wantAt, wantErr)
	}
	if _, _, err := k.Exe(1 << 30); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such process: %v", err)
	}
	if k.IsFirst() != own.IsFirst() || k.Capabilities() != Capabilities() {
		t.Errorf("%+v", k.hello)
	}
	c.Close()
	if k.Used() != 0 || !errors.Is(k.gone, ErrGone) {
		t.Errorf("the keeper has gone: %v", k.gone)
	}
	select {
	case <-k.Gone():
	default:
		t.Error("nobody is told that the keeper has gone")
	}
	if s := k.Owners([]uint32{n}, 1); len(s.Unknown) != 1 {
		t.Errorf("without a keeper: %+v", s)
	}
}

// A worker that was taken over can ask for nothing else, and for no more memory than a request has.
func TestRequestsAreBounded(t *testing.T) {
	for name, request := range map[string][]byte{
		"too many numbers": {askFind, 0xff, 0xff, 0xff, 0xff}, "no such request": {'x', 0, 0, 0, 0},
		"owners without a number": {askOwners, 0, 0, 0, 0}, "two processes": {askExe, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0},
	} {
		c, fd := pair(t)
		worker := os.NewFile(uintptr(fd), "worker")
		ended := make(chan error, 1)
		go func() { ended <- serve(c, processes()) }()
		if _, err := worker.Write(request); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "request") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: answered", name)
		}
		worker.Close()
	}
}

// FuzzRequest: whatever a worker sends, the keeper neither fails nor opens anything but what requests name.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{askOwners, 2, 0, 0, 0, 1, 0, 0, 0, 9, 9, 0, 0})
	f.Add([]byte{askExe, 1, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		what, n, err := receive(bytes.NewReader(b))
		if err == nil && (len(n) > maxNumbers || 5+4*len(n) > len(b) || what != b[0]) {
			t.Errorf("%q with %d numbers of %d bytes", what, len(n), len(b))
		}
	})
}
