//go:build linux

package privsep

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
	"jindan/capture/host"
)

// Keeper is the other process, as the worker sees it. Its methods may be called from several goroutines; one request is under way at a time.
type Keeper struct {
	lock  sync.Mutex
	c     *net.UnixConn
	gone  error // why there are no more answers
	hello hello
	lost  chan struct{} // closed with gone
}

var _ host.Looker = (*Keeper)(nil)

// open greets the keeper at the other end of a socket.
func open(fd int) (*Keeper, error) {
	c, err := connection(fd)
	if err != nil {
		return nil, err
	}
	k := &Keeper{c: c, lost: make(chan struct{})}
	if err := k.ask(askHello, nil, &k.hello, nil); err != nil {
		c.Close()
		return nil, fmt.Errorf("the keeper of capabilities does not answer: %w", err)
	}
	return k, nil
}

// ask asks for something. What fails between the two ends the connection: a late answer is not taken for another.
func (k *Keeper) ask(what byte, numbers []uint32, body any, fd *int) error {
	k.lock.Lock()
	defer k.lock.Unlock()
	if k.gone != nil {
		return k.gone
	}
	if len(numbers) > maxNumbers {
		return fmt.Errorf("a request of %d numbers; at most %d are possible", len(numbers), maxNumbers)
	}
	errno, err := k.exchange(what, numbers, body, fd)
	if err != nil {
		k.gone = fmt.Errorf("%w: %w", ErrGone, err)
		k.c.Close()
		close(k.lost)
		return k.gone
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func (k *Keeper) exchange(what byte, numbers []uint32, body any, fd *int) (unix.Errno, error) {
	if err := k.c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return 0, err
	}
	if err := send(k.c, what, numbers); err != nil {
		return 0, err
	}
	head, rights := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := k.c.ReadMsgUnix(head, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		_, err = io.ReadFull(k.c, head[n:])
	}
	if err != nil {
		return 0, err
	}
	if got := descriptor(rights[:oob]); fd != nil {
		*fd = got
	} else if got >= 0 {
		unix.Close(got)
	}
	size := binary.LittleEndian.Uint32(head[4:])
	if size > maxAnswer {
		return 0, fmt.Errorf("an answer of %d bytes", size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(k.c, text); err != nil {
		return 0, err
	}
	if errno := unix.Errno(binary.LittleEndian.Uint32(head)); errno != 0 || body == nil {
		return errno, nil
	}
	return 0, json.Unmarshal(text, body)
}

// descriptor is what came beside a message; −1: nothing.
func descriptor(rights []byte) int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	unix.CloseOnExec(fds[0])
	return fds[0]
}

// Capabilities are those that the keeper holds, as a set of bits.
func (k *Keeper) Capabilities() uint64 { return k.hello.Capabilities }

// ErrGone says that the keeper answers no more.
var ErrGone = errors.New("the keeper of capabilities is gone")

// Used is the CPU time that the keeper has taken; without an answer none.
func (k *Keeper) Used() time.Duration {
	var h hello
	if err := k.ask(askHello, nil, &h, nil); err != nil {
		return 0
	}
	return time.Duration(h.Used)
}

// Gone is closed when the keeper is found to answer no more.
func (k *Keeper) Gone() <-chan struct{} { return k.lost }

// Socket opens a packet socket that is bound to nothing.
func (k *Keeper) Socket() (int, error) {
	fd := -1
	err := k.ask(askSocket, nil, nil, &fd)
	if err == nil && fd < 0 {
		err = errors.New("the keeper of capabilities sent no socket")
	}
	return fd, err
}

// IsFirst is host.Looker's.
func (k *Keeper) IsFirst() bool { return k.hello.First }

// Owners is host.Looker's. Without an answer nobody is known.
func (k *Keeper) Owners(inodes []uint32, most int) capture.ProcessSample {
	inodes = inodes[:min(len(inodes), maxNumbers-1)]
	var s capture.ProcessSample
	if err := k.ask(askOwners, append([]uint32{uint32(most)}, inodes...), &s, nil); err != nil {
		return capture.ProcessSample{Unknown: inodes}
	}
	return s
}

// Find is host.Looker's. Without an answer nobody is found.
func (k *Keeper) Find(inodes []uint32) (map[uint32]int32, bool) {
	var f found
	if err := k.ask(askFind, inodes[:min(len(inodes), maxNumbers)], &f, nil); err != nil {
		return nil, false
	}
	return f.PIDs, f.Cut
}

// Exe is host.Looker's.
func (k *Keeper) Exe(pid int32) (string, time.Time, error) {
	var e exe
	if err := k.ask(askExe, []uint32{uint32(pid)}, &e, nil); err != nil {
		return "", time.Time{}, err
	}
	return e.Path, time.Unix(0, e.Modified), nil
}

// connection is that of an inherited descriptor, which it takes over.
func connection(fd int) (*net.UnixConn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "keeper")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is no Unix socket", fd)
	}
	return u, nil
}
