//go:build linux

// Package privsep divides the agent in two processes of one program, as tcpdump -Z, chrony and the daemons of OpenBSD are: a worker,
// which reads what strangers send and holds no capability, and a keeper, which holds those of the agent and reads nothing of
// theirs. The worker asks the keeper for packet sockets, and for who owns a socket; requests have a few fixed forms.
package privsep

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/host"
)

// Environment variables that tell a process what it is to be, with the descriptor of its end of the pair of sockets.
const (
	envKeeper = "JINDAN_KEEPER"
	envWorker = "JINDAN_WORKER"
)

// Requests: what they are, and how many numbers follow.
const (
	askHello  = 'h' // none; what the keeper is able to
	askSocket = 's' // none; a packet socket, beside the answer
	askOwners = 'o' // the most processes, inodes; a capture.ProcessSample
	askFind   = 'f' // inodes; who has them
	askExe    = 'e' // a process; its program
)

const (
	// maxNumbers bounds those of a request: more than the listeners that the host's source follows, and the sockets that it is asked for.
	maxNumbers = 8192
	// maxAnswer bounds an answer: 64 processes that wait in 2,048 ways each take 40 MB in the worst case; such is refused.
	maxAnswer = 64 << 20
	// answerWithin is how long an answer may take: the search for owners has a budget of 100 ms.
	answerWithin = 10 * time.Second
)

// hello is what a keeper tells of itself.
type hello struct {
	Capabilities uint64 // effective ones
	First        bool   // it is in the network namespace of the machine's first process
	Used         int64  // CPU time, ns
}

// found answers askFind.
type found struct {
	PIDs map[uint32]int32
	Cut  bool // the time was up
}

// exe answers askExe.
type exe struct {
	Path     string
	Modified int64 // ns since the epoch; 0: not known
}

// send writes a request.
func send(w io.Writer, what byte, numbers []uint32) error {
	b := make([]byte, 5, 5+4*len(numbers))
	b[0] = what
	binary.LittleEndian.PutUint32(b[1:], uint32(len(numbers)))
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	_, err := w.Write(b)
	return err
}

// receive reads a request.
func receive(r io.Reader) (what byte, numbers []uint32, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxNumbers {
		return 0, nil, fmt.Errorf("a request of %d numbers; at most %d are possible", n, maxNumbers)
	}
	b := make([]byte, 4*n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, err
	}
	for ; len(b) > 0; b = b[4:] {
		numbers = append(numbers, binary.LittleEndian.Uint32(b))
	}
	return head[0], numbers, nil
}

// An answer is an error number, a length and as many bytes of JSON, with a descriptor or none beside its first byte.

func answer(c *net.UnixConn, errno unix.Errno, body any, fd int) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil || len(text) > maxAnswer {
			errno, text = unix.EMSGSIZE, nil
		}
	}
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(errno))
	binary.LittleEndian.PutUint32(head[4:], uint32(len(text)))
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if _, _, err := c.WriteMsgUnix(head[:], rights, nil); err != nil {
		return err
	}
	_, err := c.Write(text)
	return err
}

// serve answers until the worker has gone.
func serve(c *net.UnixConn, procs *host.Processes) error {
	for {
		what, n, err := receive(c)
		if err != nil {
			return err
		}
		switch {
		case what == askHello:
			err = answer(c, 0, hello{effective(), procs.IsFirst(), used()}, -1)
		case what == askSocket:
			fd, failed := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if failed != nil {
				err = answer(c, number(failed), nil, -1)
				break
			}
			err = answer(c, 0, nil, fd)
			unix.Close(fd)
		case what == askOwners && len(n) > 0:
			err = answer(c, 0, procs.Owners(n[1:], int(min(n[0], maxNumbers))), -1)
		case what == askFind:
			pids, cut := procs.Find(n)
			err = answer(c, 0, found{pids, cut}, -1)
		case what == askExe && len(n) == 1:
			path, modified, failed := procs.Exe(int32(n[0]))
			if failed != nil {
				err = answer(c, number(failed), nil, -1)
				break
			}
			err = answer(c, 0, exe{path, modified.UnixNano()}, -1)
		default:
			return fmt.Errorf("a request %q with %d numbers", what, len(n))
		}
		if err != nil {
			return err
		}
	}
}

// used is the CPU time of this process, in ns.
func used() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// number is what an error has from the kernel.
func number(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// Keep serves a worker if this process was started for that, and then reports true when the worker has ended.
func Keep() bool {
	fd, root, ok := role(envKeeper)
	if !ok {
		return false
	}
	quiet()
	c, err := connection(fd)
	if err != nil {
		fmt.Fprintf(os.Stderr, "jindan: the keeper of capabilities: %v\n", err)
		return true
	}
	defer c.Close()
	clock := func() capture.Instant { return capture.Instant(time.Now().UnixNano()) }
	if err := serve(c, host.NewProcesses(root, host.DefaultBudget, clock)); !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "jindan: the keeper of capabilities ends: %v\n", err)
	}
	return true
}
