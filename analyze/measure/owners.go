package detect

import (
	"fmt"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// owners remembers which process owns a socket, as far as somebody has looked.
type owners struct {
	byInode map[uint32]ownerName
	order   []uint32 // oldest first
}

// inquiry is what one detector asks about owners.
type inquiry struct{ asked capture.Instant }

type ownerName struct {
	name    string
	state   string // of all its threads, if they are stopped
	threads int32
}

const (
	// maxOwners bounds the sockets whose owner is remembered.
	maxOwners = 4096
	// askAgain is how long to wait for an answer, and between two questions: looking through the descriptors
	// of all processes costs milliseconds.
	askAgain = 15 * time.Second
)

func (o *owners) take(p *capture.ProcessSample) {
	for i := range p.Processes {
		x := &p.Processes[i]
		for _, inode := range x.Inodes {
			if _, ok := o.byInode[inode]; !ok {
				if len(o.order) >= maxOwners {
					delete(o.byInode, o.order[0])
					o.order = slices.Delete(o.order, 0, 1)
				}
				o.order = append(o.order, inode)
			}
			o.byInode[inode] = ownerName{processName(x), stopped(x), x.Threads}
		}
	}
}

// processName names a process as an operator looks for it.
func processName(p *capture.Process) string {
	s := fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
	switch {
	case p.Container != "":
		s += " in container " + p.Container[:min(len(p.Container), 12)]
	case p.Unit != "":
		s += " of " + p.Unit
	}
	return s
}

// of names the owner of the first socket whose owner is known; empty if none is.
func (o *owners) of(inodes []uint32) string {
	for _, i := range inodes {
		if n, ok := o.byInode[i]; ok {
			return n.name
		}
	}
	return ""
}

// halted reports whether the first owner that is known is stopped.
func (o *owners) halted(inodes []uint32) bool {
	for _, i := range inodes {
		if n, ok := o.byInode[i]; ok {
			return n.state != ""
		}
	}
	return false
}

// ask asks who owns the sockets, not too often.
func (q *inquiry) ask(w *analyze.Window, inodes []uint32) {
	if w.Ask == nil || len(inodes) == 0 || q.asked != 0 && w.End.Sub(q.asked) < askAgain {
		return
	}
	q.asked = w.End
	w.Ask(analyze.Ask{Inodes: inodes})
}

// stopped is the state of a process all of whose threads are stopped, by a signal (T) or a debugger (t); empty: some are not, or
// it is not known (proc_pid_stat(5)).
func stopped(p *capture.Process) (state string) {
	n := int32(0)
	for _, t := range p.Waits {
		if t.State != "T" && t.State != "t" {
			return ""
		}
		state = t.State
		n += t.Threads
	}
	if n == 0 || n < p.Threads {
		return ""
	}
	return state
}
