//go:build linux

package host

import (
	"os"
	"time"

	"github.com/vishvananda/netns"

	"jindan/capture"
)

// DefaultBudget is what a search for owners may take: a tenth of a core at one a second.
const DefaultBudget = 100 * time.Millisecond

// Looker looks at what only privileged processes may see of others. [Processes] is one; a process without privileges asks another.
type Looker interface {
	Owners(inodes []uint32, most int) capture.ProcessSample
	// Find returns the processes that hold these socket inodes; cut: there was no time to look everywhere, and the next call goes on.
	Find(inodes []uint32) (pids map[uint32]int32, cut bool)
	// Exe is the program of a process, as its link names it, and when its file was modified.
	Exe(pid int32) (path string, modified time.Time, err error)
	// IsFirst reports whether this process is in the network namespace of the machine's first process.
	IsFirst() bool
}

var _ Looker = (*Processes)(nil)

// Find is Looker's.
func (p *Processes) Find(inodes []uint32) (map[uint32]int32, bool) {
	found := p.find(inodes, time.Now().Add(p.budget))
	return found, p.resume.pid != 0
}

// Exe is Looker's.
func (p *Processes) Exe(pid int32) (string, time.Time, error) {
	link := p.path(pid, "exe")
	path, err := os.Readlink(link)
	if err != nil { // another user's
		return "", time.Time{}, err
	}
	info, err := os.Stat(link) // of what runs, also if another file has its name by now
	if err != nil {
		return "", time.Time{}, err
	}
	return path, info.ModTime(), nil
}

// IsFirst is Looker's.
func (p *Processes) IsFirst() bool { return isFirst(p.root, netns.None()) }
