package measure

import (
	"strconv"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// End is one end of the connections to a listener: the listener itself, or, with client set, the host that opened them.
type End struct {
	Server capture.Endpoint
	Client capture.Addr
}

// EndOf is the end of c on side s.
func EndOf(c *flow.Conn, s flow.Side) End {
	k := End{Server: c.Server}
	if s == flow.Client {
		k.Client = c.Client.Addr
	}
	return k
}

// Subject is the listener as a service, or as the upstream of the host that called it.
func (k End) Subject() analyze.Subject {
	if k.Client != (capture.Addr{}) {
		return Upstream(k.Client, k.Server)
	}
	return Service(k.Server)
}

// Service is a listener as a subject.
func Service(k capture.Endpoint) analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectService, Host: k.Addr.String(), Port: k.Port}
}

// Upstream is a listener that a host calls, as a subject.
func Upstream(host capture.Addr, k capture.Endpoint) analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectUpstream, Host: host.String(), Peer: k.Addr.String(), Port: k.Port}
}

// AddrFilter is a Wireshark display filter for an address as source or destination ("addr"), or as one of them ("src", "dst").
func AddrFilter(a capture.Addr, which string) string {
	if a.Netip().Is4() {
		return "ip." + which + " == " + a.String()
	}
	return "ipv6." + which + " == " + a.String()
}

// ServiceFilter is a Wireshark display filter for the connections of a listener.
func ServiceFilter(k capture.Endpoint) string {
	return AddrFilter(k.Addr, "addr") + " && tcp.port == " + strconv.Itoa(int(k.Port))
}

// FewConns reports whether the whole input has so few connections that each of them is of interest: people give the capture of one
// connection and ask what happened to it. That is known at the end of the input only.
func FewConns(w *analyze.Window) bool {
	return w.Final && w.Flows.Stats.Conns <= uint64(w.Params.Int("few"))
}

// Frames are the numbers of packets in a capture file. A packet that comes from no file has none: 0.
func Frames(numbers ...uint64) (known []uint64) {
	for _, n := range numbers {
		if n != 0 {
			known = append(known, n)
		}
	}
	return known
}

// Note is a packet that shows something; it becomes evidence when it is needed.
type Note struct {
	At             capture.Instant
	Client, Server capture.Endpoint
	Frame          uint64
	What           string
}

// NoteAt notes a packet between a client and its server, seen at a time.
func NoteAt(at capture.Instant, client, server capture.Endpoint, frame uint64, what string) Note {
	return Note{at, client, server, frame, what}
}

// NoteOf notes the packet of e.
func NoteOf(e *flow.Event, what string) Note {
	return NoteAt(e.At, e.Conn.Client, e.Conn.Server, e.Frame, what)
}

// FirstSYN notes the connection request of c.
func FirstSYN(c *flow.Conn) Note {
	return Note{c.SynAt(), c.Client, c.Server, c.FirstFrame(), "new connection"}
}

// Evidence is n in the words of a finding.
func (n *Note) Evidence() analyze.Evidence {
	return analyze.Evidence{At: n.At, Flow: n.Client.String() + " > " + n.Server.String(), Frames: Frames(n.Frame), Note: n.What}
}
