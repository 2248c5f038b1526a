// Package socket follows the TCP sockets of a host from dump to dump: each by its cookie, and the ports on which somebody listens.
package socket

import (
	"slices"

	"jindan/capture"
)

// Socket is one that is followed. A dump shows the states that it was made for only, so that between two dumps of all sockets one
// in ESTABLISHED is not seen, and is there all the same.
type Socket struct {
	Local, Remote capture.Endpoint
	Cookie        uint64
	Since         capture.Instant // first seen in State
	Seen, Before  capture.Instant // newest dump that shows it in State, and the one before; both Since in the first
	Read          capture.Instant // in CLOSE_WAIT: since when a program has it and has read all but the FIN; 0: not so
	State         capture.SocketState
	Inbound       bool   // somebody listened on its port when it was first seen: this host was called
	Retries       uint8  // of the segment that is repeated now
	Again         uint8  // by how much Retries has grown with the newest dump
	Inode         uint32 // 0: no program has it; where it is inbound, nobody has accepted it yet
	RecvQ, SendQ  uint32
	// Sent and Resent are the data segments, and the repetitions, since the dump of all sockets before the newest one.
	Sent, Resent uint32

	sent, resent uint32 // ever
	dump         uint32 // the newest one that has it
	informed     bool   // sent and resent are known
}

// Left is a socket that is not in a state any more.
type Left struct {
	*Socket
	From        capture.SocketState
	Since, Seen capture.Instant // in From, by the first and the newest dump
}

// Port is what is known of a port on which somebody listens.
type Port struct {
	Queue uint32 // connections that wait to be accepted
	Inode uint32 // of a listening socket; 0: not known
}

// Table is what dumps say of the sockets of one host. Its lists are valid until the next dump.
type Table struct {
	Every, Full Dumps                // all dumps, and those of all sockets
	Dump        *capture.SocketTable // the newest; borrowed, it may be read while it is shown only
	Left        []Left               // with the newest dump
	Listening   []*capture.Socket    // in the newest dump; borrowed, as Dump is

	ports   map[uint16]Port
	sockets map[uint64]*Socket
	in      [states][]*Socket // by state, in order of Since; 0: those that are in none that the newest dump shows
	seen    []*Socket         // those of Dump, at the same place; nil: not followed
	number  uint32            // of the newest dump
	inform  uint32            // dumps with tcp_info
	refused uint64
}

const (
	states = capture.BoundInactive + 1
	// maxEstablished bounds the open connections that are followed, and maxSockets all sockets: those that wait for something are
	// followed, however many connections there are.
	maxEstablished = 1 << 17
	maxSockets     = 2 * maxEstablished
)

// New returns an empty table.
func New() *Table {
	return &Table{ports: make(map[uint16]Port), sockets: make(map[uint64]*Socket)}
}

// Take takes a dump.
func (x *Table) Take(at capture.Instant, t *capture.SocketTable) {
	x.number++
	x.Every.add(at)
	if full := t.States&capture.Established.Mask() != 0; full {
		x.Full.add(at)
	}
	if t.Info {
		x.inform++
	}
	x.Dump, x.Left, x.seen = t, x.Left[:0], x.seen[:0]
	x.listen(t)
	for i := range t.Sockets {
		x.seen = append(x.seen, x.see(at, &t.Sockets[i]))
	}
	x.sweep(t)
}

// listen notes who listens.
func (x *Table) listen(t *capture.SocketTable) {
	x.Listening = x.Listening[:0]
	if t.States&capture.Listen.Mask() == 0 {
		return
	}
	clear(x.ports)
	for i := range t.Sockets {
		if s := &t.Sockets[i]; s.State == capture.Listen {
			x.Listening = append(x.Listening, s)
			p := x.ports[s.Local.Port]
			p.Queue += s.RecvQ
			if s.Inode != 0 {
				p.Inode = s.Inode
			}
			x.ports[s.Local.Port] = p
		}
	}
}

// Port is the port on which somebody listens, if somebody does.
func (x *Table) Port(port uint16) (p Port, listens bool) {
	p, listens = x.ports[port]
	return p, listens
}

// followed reports whether s belongs to a connection. In SYN_RECV and TIME_WAIT the kernel has no whole socket, but struct request_sock and
// struct inet_timewait_sock.
func followed(s *capture.Socket) bool {
	switch s.State {
	case capture.Listen, capture.TimeWait, capture.Close, capture.BoundInactive:
		return false
	case capture.SynRecv, capture.NewSynRecv:
		return s.HasInfo
	}
	return s.State != 0 && s.State < states
}

// see notes that the dump at at has s.
func (x *Table) see(at capture.Instant, s *capture.Socket) *Socket {
	if !followed(s) {
		return nil
	}
	k := x.sockets[s.Cookie]
	if k != nil && k.isAnother(s) {
		x.leave(k, k.State)
		k.State, k = 0, nil
	}
	if k == nil {
		if n := len(x.sockets); n >= maxSockets || n >= maxEstablished && s.State == capture.Established {
			x.refused++
			return nil
		}
		k = &Socket{Local: s.Local, Remote: s.Remote, Cookie: s.Cookie}
		_, k.Inbound = x.ports[s.Local.Port]
		x.sockets[s.Cookie] = k
	}
	if k.State != s.State {
		if k.State != 0 {
			x.leave(k, k.State)
		}
		k.State, k.Since, k.Seen, k.Read, k.Retries = s.State, at, at, 0, 0
		x.in[s.State] = append(x.in[s.State], k)
	}
	k.Before, k.Seen, k.dump = k.Seen, at, x.number
	k.Inode, k.RecvQ, k.SendQ = s.Inode, s.RecvQ, s.SendQ
	switch read := s.State == capture.CloseWait && s.Inode != 0 && s.RecvQ <= 1; { // the FIN counts as one byte
	case !read:
		k.Read = 0
	case k.Read == 0:
		k.Read = at
	}
	k.Again = s.Retries - min(k.Retries, s.Retries)
	k.Retries = max(k.Retries, s.Retries)
	k.inform(s, x.inform == 1)
	return k
}

// isAnother reports whether s cannot be k, whose cookie it has: before Linux 4.1 that is an address in the kernel's memory, which is used again.
func (k *Socket) isAnother(s *capture.Socket) bool {
	return k.Local != s.Local || k.Remote != s.Remote ||
		k.informed && s.HasInfo && (s.Info.TotalRetrans < k.resent || s.Info.DataSegsOut < k.sent)
}

// inform notes how much s has sent. What is seen in the first dump may have been sent before jindan began.
func (k *Socket) inform(s *capture.Socket, first bool) {
	if k.Sent, k.Resent = 0, 0; !s.HasInfo {
		return
	}
	if k.informed || !first {
		k.Sent, k.Resent = s.Info.DataSegsOut-k.sent, s.Info.TotalRetrans-k.resent
	}
	k.sent, k.resent, k.informed = s.Info.DataSegsOut, s.Info.TotalRetrans, true
}

func (x *Table) leave(k *Socket, from capture.SocketState) {
	x.Left = append(x.Left, Left{k, from, k.Since, k.Seen})
}

// sweep finds out who is in none of the states that t shows any more, and forgets who is nowhere.
func (x *Table) sweep(t *capture.SocketTable) {
	full := t.States&capture.Established.Mask() != 0
	for state := range x.in {
		s := capture.SocketState(state)
		if t.States&s.Mask() == 0 && state != 0 {
			continue
		}
		x.in[state] = slices.DeleteFunc(x.in[state], func(k *Socket) bool {
			switch {
			case k.State != s:
				return true // it has moved on
			case k.dump == x.number || t.Interrupted:
				return false
			}
			if state != 0 {
				x.leave(k, s)
				k.State = 0
			}
			switch {
			case full || !k.informed:
				delete(x.sockets, k.Cookie)
				return true
			case state == 0:
				return false
			}
			x.in[0] = append(x.in[0], k) // the next dump of all sockets may have it; how much it had sent is to be known then
			return true
		})
	}
}

// In are the sockets in a state, in the order in which they came to it.
func (x *Table) In(s capture.SocketState) []*Socket { return x.in[s] }

// Shown yields each socket of the newest dump, while that is shown. Those that are not followed come with nil.
func (x *Table) Shown(yield func(*capture.Socket, *Socket) bool) {
	for i := range x.Dump.Sockets {
		if !yield(&x.Dump.Sockets[i], x.seen[i]) {
			return
		}
	}
}
