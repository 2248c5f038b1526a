package measure

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

// Inquiry is what one detector asks about owners.
type Inquiry struct{ asked capture.Instant }

type ownerName struct {
	name    string
	state   string // of all its threads, if they are stopped
	threads int32
}

const (
	// maxOwners bounds the sockets whose owner is remembered.
	maxOwners = 4096
	// AskAgain is how long to wait for an answer, and between two questions: looking through the descriptors
	// of all processes costs milliseconds.
	AskAgain = 15 * time.Second
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
			o.byInode[inode] = ownerName{ProcessName(x), Stopped(x), x.Threads}
		}
	}
}

// ProcessName names a process as an operator looks for it.
func ProcessName(p *capture.Process) string {
	s := fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
	switch {
	case p.Container != "":
		s += " in container " + p.Container[:min(len(p.Container), 12)]
	case p.Unit != "":
		s += " of " + p.Unit
	}
	return s
}

// Of names the owner of the first socket whose owner is known; empty if none is.
func (o *owners) Of(inodes []uint32) string {
	for _, i := range inodes {
		if n, ok := o.byInode[i]; ok {
			return n.name
		}
	}
	return ""
}

// Halted reports whether the first owner that is known is stopped.
func (o *owners) Halted(inodes []uint32) bool {
	for _, i := range inodes {
		if n, ok := o.byInode[i]; ok {
			return n.state != ""
		}
	}
	return false
}

// Ask asks who owns the sockets, not too often.
func (q *Inquiry) Ask(w *analyze.Window, inodes []uint32) {
	if w.Ask == nil || len(inodes) == 0 || q.asked != 0 && w.End.Sub(q.asked) < AskAgain {
		return
	}
	q.asked = w.End
	w.Ask(analyze.Ask{Inodes: inodes})
}

// Stopped is the state of a process all of whose threads are stopped, by a signal (T) or a debugger (t); empty: some are not, or
// it is not known (proc_pid_stat(5)).
func Stopped(p *capture.Process) (state string) {
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
