//go:build linux

package host

import "golang.org/x/sys/unix"

// fdCalls are the system calls that block on the descriptor in their first argument, by the numbers of this
// architecture. Those that every architecture of Linux has.
var fdCalls = map[uint64]string{
	unix.SYS_READ: "read", unix.SYS_READV: "readv", unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev",
	unix.SYS_RECVFROM: "recvfrom", unix.SYS_RECVMSG: "recvmsg", unix.SYS_RECVMMSG: "recvmmsg",
	unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_SENDMMSG: "sendmmsg",
	unix.SYS_CONNECT: "connect", unix.SYS_ACCEPT: "accept", unix.SYS_ACCEPT4: "accept4",
	unix.SYS_SENDFILE: "sendfile", unix.SYS_SPLICE: "splice", unix.SYS_FSYNC: "fsync", unix.SYS_FLOCK: "flock",
}

// pollCalls wait for an array of struct pollfd: its address and length are the first two arguments.
var pollCalls = map[uint64]string{unix.SYS_PPOLL: "ppoll"}

// otherCalls block without a single descriptor.
var otherCalls = map[uint64]string{
	unix.SYS_EPOLL_PWAIT: "epoll_pwait", unix.SYS_PSELECT6: "pselect6", unix.SYS_FUTEX: "futex",
	unix.SYS_NANOSLEEP: "nanosleep", unix.SYS_CLOCK_NANOSLEEP: "clock_nanosleep", unix.SYS_WAIT4: "wait4",
	unix.SYS_WAITID: "waitid", unix.SYS_RT_SIGTIMEDWAIT: "rt_sigtimedwait", unix.SYS_RT_SIGSUSPEND: "rt_sigsuspend",
	unix.SYS_IO_GETEVENTS: "io_getevents", unix.SYS_IO_URING_ENTER: "io_uring_enter", unix.SYS_OPENAT: "openat",
	unix.SYS_SEMTIMEDOP: "semtimedop", unix.SYS_MSGRCV: "msgrcv", unix.SYS_MQ_TIMEDRECEIVE: "mq_timedreceive",
	unix.SYS_RESTART_SYSCALL: "restart_syscall",
}
