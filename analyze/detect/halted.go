package detect

import (
	"jindan/analyze"
	"jindan/capture"
)

// halted finds out whether the program behind a listener is stopped: nothing that it owes anybody gets done then, and no pool, queue or
// upstream is to blame.
type halted struct {
	inodes map[uint16]uint32 // of the listening sockets, by port
	owners owners
}

func (d *halted) sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Processes != nil:
		d.owners.sample(at, s.Processes)
	case s.Sockets != nil && s.Sockets.States&capture.Listen.Mask() != 0:
		if d.inodes == nil {
			d.inodes = make(map[uint16]uint32)
		}
		clear(d.inodes)
		for i := range s.Sockets.Sockets {
			if x := &s.Sockets.Sockets[i]; x.State == capture.Listen && x.Inode != 0 {
				d.inodes[x.Local.Port] = x.Inode
			}
		}
	}
}

// of is the program that listens on a port, if all its threads are stopped; asked for if not known.
func (d *halted) of(w *analyze.Window, port uint16) (process, state string, threads int) {
	inode := d.inodes[port]
	if inode == 0 {
		return "", "", 0
	}
	d.owners.ask(w, []uint32{inode})
	n := d.owners.byInode[inode]
	if n.state == "" {
		return "", "", 0
	}
	return n.name, n.state, int(n.threads)
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
