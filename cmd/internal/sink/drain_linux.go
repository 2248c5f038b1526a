package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ended is why nothing can be written any more to a connection on which nothing is expected from the other side: io.EOF if it has
// closed it. A read with a deadline would not do: one that has passed by the time of the read, as a short one may have, hides the end.
func ended(c net.Conn) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	n, failed := 0, error(nil)
	if err := raw.Control(func(fd uintptr) {
		n, _, failed = unix.Recvfrom(int(fd), make([]byte, 64), unix.MSG_DONTWAIT)
	}); err != nil {
		return err
	}
	switch {
	case errors.Is(failed, unix.EAGAIN), errors.Is(failed, unix.EINTR):
		return nil
	case failed == nil && n == 0:
		return io.EOF
	}
	return failed
}

// drained waits until the send queue of a TCP connection is empty: everything
// written was acknowledged (SIOCOUTQ, tcp(7)). Without it what is written while
// the receiver goes away would be lost without an error.
func drained(ctx context.Context, c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil // a local socket: written is received
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	for {
		queued, failed := 0, 0
		var ioctl error
		if err := raw.Control(func(fd uintptr) {
			queued, ioctl = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			if ioctl == nil {
				failed, ioctl = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			}
		}); err != nil {
			return err
		}
		switch {
		case ioctl != nil:
			return ioctl
		case failed != 0:
			return syscall.Errno(failed)
		case queued == 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the receiver does not acknowledge what it is sent")
		case <-time.After(drainPoll):
		}
	}
}
