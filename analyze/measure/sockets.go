package measure

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/socket"
	"jindan/capture"
)

// HostSockets are the sockets of this host and the processes that own them, for all detectors that ask about them.
type HostSockets struct {
	*socket.Table
	Owners owners
}

// NewHostSockets returns those of a host of which no dump has been taken.
func NewHostSockets() *HostSockets {
	return &HostSockets{socket.New(), owners{byInode: make(map[uint32]ownerName)}}
}

// Measures implements analyze.Measurer for the detectors that read them.
func (h *HostSockets) Measures() []analyze.Measure { return []analyze.Measure{h} }

// Events implements analyze.Measure: packets show no sockets.
func (*HostSockets) Events() flow.Mask { return 0 }

// Event implements analyze.Measure.
func (*HostSockets) Event(*flow.Event) {}

// Sample implements analyze.Sampler.
func (h *HostSockets) Sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Sockets != nil:
		h.Take(at, s.Sockets)
	case s.Processes != nil:
		h.Owners.take(s.Processes)
	}
}

// Listens reports whether somebody listens on a port.
func (h *HostSockets) Listens(port uint16) bool {
	_, ok := h.Port(port)
	return ok
}

// Stopped is the program that listens on a port, if all its threads are stopped; where that is not known, q asks. Nothing that it owes
// anybody gets done then, and no pool, queue or upstream is to blame.
func (h *HostSockets) Stopped(w *analyze.Window, port uint16, q *Inquiry) (process, state string, threads int) {
	p, _ := h.Port(port)
	if p.Inode == 0 {
		return "", "", 0
	}
	q.Ask(w, []uint32{p.Inode})
	n := h.Owners.byInode[p.Inode]
	if n.state == "" {
		return "", "", 0
	}
	return n.name, n.state, int(n.threads)
}

// EndOfSocket says whose socket s is: its listener's, or a call's.
func EndOfSocket(s *socket.Socket) End {
	if s.Inbound {
		return End{Server: s.Local}
	}
	return End{Server: s.Remote, Client: s.Local.Addr}
}
