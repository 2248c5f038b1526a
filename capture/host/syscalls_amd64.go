//go:build linux

package host

import "golang.org/x/sys/unix"

// The older calls that amd64 still has.
func init() {
	pollCalls[unix.SYS_POLL] = "poll"
	otherCalls[unix.SYS_EPOLL_WAIT] = "epoll_wait"
	otherCalls[unix.SYS_SELECT] = "select"
	otherCalls[unix.SYS_PAUSE] = "pause"
	otherCalls[unix.SYS_OPEN] = "open"
}
