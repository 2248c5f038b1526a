package detect

import (
	"strconv"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// end is one end of the connections to a listener: the listener itself, or, with client set, the host that opened them.
type end struct {
	server capture.Endpoint
	client capture.Addr
}

func endOf(c *flow.Conn, s flow.Side) end {
	k := end{server: c.Server}
	if s == flow.Client {
		k.client = c.Client.Addr
	}
	return k
}

func (k end) subject() analyze.Subject {
	if k.client != (capture.Addr{}) {
		return upstream(k.client, k.server)
	}
	return service(k.server)
}

// service is a listener as a subject.
func service(k capture.Endpoint) analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectService, Host: k.Addr.String(), Port: k.Port}
}

// upstream is a listener that a host calls, as a subject.
func upstream(host capture.Addr, k capture.Endpoint) analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectUpstream, Host: host.String(), Peer: k.Addr.String(), Port: k.Port}
}

// addrFilter is a Wireshark display filter for an address as source or destination ("addr"), or as one of them ("src", "dst").
func addrFilter(a capture.Addr, which string) string {
	if a.Netip().Is4() {
		return "ip." + which + " == " + a.String()
	}
	return "ipv6." + which + " == " + a.String()
}

// serviceFilter is a Wireshark display filter for the connections of a listener.
func serviceFilter(k capture.Endpoint) string {
	return addrFilter(k.Addr, "addr") + " && tcp.port == " + strconv.Itoa(int(k.Port))
}

// fewConns reports whether the whole input has so few connections that each of them is of interest: people give the capture of one
// connection and ask what happened to it. That is known at the end of the input only.
func fewConns(w *analyze.Window) bool {
	return w.Final && w.Flows.Stats.Conns <= uint64(w.Params.Int("few"))
}

// frames are the numbers of packets in a capture file. A packet that comes from no file has none: 0.
func frames(numbers ...uint64) (known []uint64) {
	for _, n := range numbers {
		if n != 0 {
			known = append(known, n)
		}
	}
	return known
}

// note is a packet that shows something; it becomes evidence when it is needed.
type note struct {
	at             capture.Instant
	client, server capture.Endpoint
	frame          uint64
	what           string
}

func noteOf(e *flow.Event, what string) note {
	return note{e.At, e.Conn.Client, e.Conn.Server, e.Frame, what}
}

// firstSYN notes the connection request of c.
func firstSYN(c *flow.Conn) note {
	return note{c.SynAt(), c.Client, c.Server, c.FirstFrame(), "new connection"}
}

func (n *note) evidence() analyze.Evidence {
	return analyze.Evidence{At: n.at, Flow: n.client.String() + " > " + n.server.String(), Frames: frames(n.frame), Note: n.what}
}
