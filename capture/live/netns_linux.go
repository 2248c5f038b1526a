package live

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetns calls f on a thread in a network namespace; 0 is the process's own.
func inNetns(ns int, f func() error) error {
	if ns == 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() { result <- onThread(ns, f) }()
	return <-result
}

// onThread leaves the thread locked when it cannot be brought back: it then ends with the goroutine.
func onThread(ns int, f func() error) error {
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find the own network namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", hint(err))
	}
	err = f()
	if unix.Setns(own, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
