//go:build linux

package host

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// own maps both ways of saying "the own namespace" to one.
func own(ns netns.NsHandle) netns.NsHandle {
	if ns <= 0 {
		return netns.None()
	}
	return ns
}

// isFirst reports whether ns is the namespace of the first process, which is the machine's. Who may not look there
// and names no namespace is taken to be in it.
func isFirst(root string, ns netns.NsHandle) bool {
	var first, mine unix.Stat_t
	err := unix.Stat(root+"/1/ns/net", &first)
	if ns == netns.None() {
		return err != nil || unix.Stat(root+"/self/ns/net", &mine) != nil || first.Ino == mine.Ino
	}
	return err == nil && unix.Fstat(int(ns), &mine) == nil && first.Ino == mine.Ino
}

// inNetns runs f on a thread in the network namespace. The thread is not used again, so it need not come back: that
// could fail, and then leave other goroutines in the wrong namespace.
func inNetns(ns netns.NsHandle, f func() error) error {
	if ns == netns.None() {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace (needs CAP_SYS_ADMIN): %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// netDir is the directory of /proc/net for the calling thread: /proc/net itself is that of the process's first
// thread. thread-self came with Linux 3.17.
func netDir(root string, ns netns.NsHandle) string {
	if ns == netns.None() {
		return root + "/net"
	}
	if dir := root + "/thread-self/net"; exists(dir) {
		return dir
	}
	return root + "/self/task/" + strconv.Itoa(unix.Gettid()) + "/net"
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
