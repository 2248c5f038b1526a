package measure

import (
	"iter"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// callers tells which hosts' calls are made on behalf of somebody: those of this host, or, where no
// address counts as this host or neither end is, those of hosts that serve others themselves.
type callers struct {
	Local  analyze.Local
	Judged bool // local is known, in so far as it is
	serve  Subjects[capture.Addr, struct{}]
	newest capture.Addr // that was put into serve
	// verdicts are those of may on pairs of hosts, by the low bits of their number in the flow table. They hold for as long as
	// round stays, which moves on when there is more to know.
	verdicts *[callerPairs]callerVerdict
	round    uint32
}

// callerPairs is how many pairs of hosts can be told apart at a time without finding out once more.
const callerPairs = 1024

// callerVerdict is what may says of a client and a server.
type callerVerdict struct {
	client, server capture.Addr
	round          uint32
	may            bool
}

func newCallers() callers {
	return callers{serve: NewSubjects[capture.Addr, struct{}](MaxPerDetector), round: 1}
}

// Serving notes that a listens, and with it the host that it belongs to.
func (c *callers) Serving(a capture.Addr) {
	if a != c.newest {
		c.newest = a
		n := len(c.serve.Keys)
		c.serve.Get(a)
		if h := c.Local.Host(a); h != a {
			c.serve.Get(h)
		}
		if len(c.serve.Keys) != n {
			c.round++
		}
	}
}

// Is reports whether the calls from client to server are an upstream's.
func (c *callers) Is(client, server capture.Addr) bool {
	switch {
	case c.Local.Is(client):
		return true
	case c.Local.Is(server):
		return false
	}
	return c.serve.Peek(client) != nil || c.serve.Peek(c.Local.Host(client)) != nil
}

// Whose is the host whose upstream a listener is that these clients ask: this host, or, where none of them is this host (a box
// that forwards sees the calls of others), the one host that they are, if it serves others itself. Of several addresses of
// this host that call it is the lowest.
func (c *callers) Whose(listener capture.Endpoint, clients iter.Seq[capture.Addr]) (who capture.Addr, ok bool) {
	if c.Local.Is(listener.Addr) {
		return who, false
	}
	for a := range clients {
		if c.Local.Is(a) && (!ok || a.Compare(who) < 0) {
			who, ok = a, true
		}
	}
	if ok {
		return who, true
	}
	for a := range clients {
		switch {
		case !c.Is(a, listener.Addr) || ok && c.Local.Host(a) != c.Local.Host(who):
			return who, false
		case !ok:
			who, ok = a, true
		}
	}
	return who, ok
}

// May is the same before the first window is judged: then anybody may be this host.
func (c *callers) May(client, server capture.Addr) bool { return !c.Judged || c.Is(client, server) }

// MayEvent is may for the ends of the connection of e.
func (c *callers) MayEvent(e *flow.Event) bool {
	client, server := &e.Conn.Client.Addr, &e.Conn.Server.Addr
	if e.Path == nil {
		return c.May(*client, *server)
	}
	if c.verdicts == nil {
		c.verdicts = new([callerPairs]callerVerdict)
	}
	v := &c.verdicts[e.Path.Index%callerPairs]
	if v.round != c.round || v.client != *client || v.server != *server {
		*v = callerVerdict{*client, *server, c.round, c.May(*client, *server)}
	}
	return v.may
}

func (c *callers) judge(w *analyze.Window) {
	c.round++
	c.Local, c.Judged, c.newest = w.Local, true, capture.Addr{} // which host an address belongs to may be known now
}
