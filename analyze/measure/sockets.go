package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/socket"
	"jindan/capture"
)

// hostSockets are the sockets of this host and the processes that own them, for all detectors that ask about them.
type hostSockets struct {
	*socket.Table
	owners owners
}

func newHostSockets() *hostSockets {
	return &hostSockets{socket.New(), owners{byInode: make(map[uint32]ownerName)}}
}

// Measures implements analyze.Measurer for the detectors that read them.
func (h *hostSockets) Measures() []analyze.Measure { return []analyze.Measure{h} }

// Events implements analyze.Measure: packets show no sockets.
func (*hostSockets) Events() flow.Mask { return 0 }

// Event implements analyze.Measure.
func (*hostSockets) Event(*flow.Event) {}

// Sample implements analyze.Sampler.
func (h *hostSockets) Sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Sockets != nil:
		h.Take(at, s.Sockets)
	case s.Processes != nil:
		h.owners.take(s.Processes)
	}
}

// listens reports whether somebody listens on a port.
func (h *hostSockets) listens(port uint16) bool {
	_, ok := h.Port(port)
	return ok
}

// stopped is the program that listens on a port, if all its threads are stopped; where that is not known, q asks. Nothing that it owes
// anybody gets done then, and no pool, queue or upstream is to blame.
func (h *hostSockets) stopped(w *analyze.Window, port uint16, q *inquiry) (process, state string, threads int) {
	p, _ := h.Port(port)
	if p.Inode == 0 {
		return "", "", 0
	}
	q.ask(w, []uint32{p.Inode})
	n := h.owners.byInode[p.Inode]
	if n.state == "" {
		return "", "", 0
	}
	return n.name, n.state, int(n.threads)
}

// endOfSocket says whose socket s is: its listener's, or a call's.
func endOfSocket(s *socket.Socket) end {
	if s.Inbound {
		return end{server: s.Local}
	}
	return end{server: s.Remote, client: s.Local.Addr}
}
