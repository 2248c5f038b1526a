package cause

import (
	"net/netip"
	"slices"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// place is what a finding is about: its subject with addresses, each of which stands for a whole host.
type place struct {
	kind       string
	host, peer capture.Addr // zero: there is none
	// As they stand in the subject; an unseen one is called as its cause calls it.
	hostAddr, peerAddr netip.Addr
	port               uint16
	direction          string
	calls              capture.Addr   // of a service: whom it waits for, where that is known
	peers              []capture.Addr // of a path to several: which they are, where that is known
	callsPort          uint16
	pairs              []place // of what lies between two capture points: other pairs of hosts that it was met by
	// free: nothing was found here, and what is zero may be anything.
	free bool
}

var none capture.Addr

func placeOf(s analyze.Subject, l analyze.Local) place {
	p := place{kind: s.Kind, port: s.Port, direction: s.Direction}
	if ip, err := netip.ParseAddr(s.Host); err == nil {
		p.host, p.hostAddr = l.Host(capture.AddrFrom(ip)), ip
	}
	if ip, err := netip.ParseAddr(s.Peer); err == nil {
		p.peer, p.peerAddr = l.Host(capture.AddrFrom(ip)), ip
	}
	return p
}

// callee is the host and port that p calls.
func (p *place) callee() (capture.Addr, uint16) {
	if p.peer == none && p.calls != none {
		return p.calls, p.callsPort
	}
	return p.peer, p.port
}

// ends are the hosts that p concerns.
func (p *place) ends() []capture.Addr {
	out := make([]capture.Addr, 0, 2)
	if p.host != none {
		out = append(out, p.host)
	}
	if p.peer != none && p.peer != p.host {
		out = append(out, p.peer)
	}
	return out
}

// called reports whether p is about calls to somebody.
func (p *place) called() bool {
	return p.kind == analyze.SubjectUpstream || p.kind == analyze.SubjectResolver
}

// service is the host that listens.
func (p *place) service() capture.Addr {
	switch {
	case p.called():
		return p.peer
	case p.kind == analyze.SubjectService, p.kind == analyze.SubjectSource:
		return p.host
	}
	return none
}

// all reports whether p is the path of a host to all its peers.
func (p *place) all() bool {
	return p.kind == analyze.SubjectPath && p.peer == none && p.host != none && !p.free
}

// crosses reports whether the path of a host to all its peers leads over the segment between two capture points that c is: c names
// the pair of hosts that suffers most there, the data going from peer to host.
func (p *place) crosses(f *place) bool {
	return p.kind == analyze.SubjectSegment && f.all() && (f.direction == "inbound" && f.host == p.host || f.direction == "outbound" && f.host == p.peer)
}

// shared reports whether a cause at c and an effect at f share what id demands, for one of the pairs of hosts that c concerns.
func shared(id rules.Identity, c, f *place) bool {
	return sharedBy(id, c, f) || slices.ContainsFunc(c.pairs, func(p place) bool { return sharedBy(id, &p, f) })
}

// sharedBy is shared without other pairs of hosts. A path without a peer is that to all peers of its host.
func sharedBy(id rules.Identity, c, f *place) bool {
	eq := func(a, b capture.Addr) bool { return a == b || c.free && a == none || f.free && b == none }
	port := c.port == f.port || c.free && c.port == 0 || f.free && f.port == 0
	pair := eq(c.host, f.host) && eq(c.peer, f.peer)
	if against(c, f) != (id == rules.ReversePath) && id != rules.Within {
		return false
	}
	switch id {
	case rules.SamePath:
		return c.all() && (c.host == f.host || c.host == f.peer) || pair || eq(c.host, f.peer) && eq(c.peer, f.host) || c.crosses(f)
	case rules.SameNet:
		return c.all() && (c.host == f.host || c.host == f.peer) || pair || c.host != none && eq(c.host, f.host) && sameNet(c.peerAddr, f.peerAddr)
	case rules.SameService:
		a, b := c.service(), f.service()
		if c.called() && f.called() && !eq(c.host, f.host) {
			return false // two callers of one service
		}
		return port && eq(a, b) && (a != none || c.free) && (b != none || f.free)
	case rules.SameUpstream:
		return pair && (port || c.port == 0 || f.port == 0)
	case rules.SameHost:
		return c.host != none && (eq(c.host, f.host) || slices.Contains(c.peers, f.host) || (c.kind == analyze.SubjectPath || c.kind == analyze.SubjectSegment) && c.peer != none && c.peer == f.host ||
			f.kind == analyze.SubjectPath && c.host == f.peer)
	case rules.ReversePath:
		return f.all() || c.peer != none && (c.peer == f.peer || c.peer == f.host)
	case rules.Within:
		return c.all() && f.peer != none && (c.host == f.host) == (c.direction == f.direction)
	case rules.Serves:
		callee, at := f.callee()
		return c.host != none && (c.host == callee || f.free && callee == none) && (c.port == at || c.port == 0 || at == 0)
	}
	return false
}

// against reports whether c and f are paths between the same hosts in opposite directions: what is lost on the one is not lost on the other.
func against(c, f *place) bool {
	if c.direction == "" || f.direction == "" {
		return false
	}
	return c.host == f.host && c.direction != f.direction || c.host == f.peer && c.peer == f.host && c.direction == f.direction
}

// sameNet reports whether two addresses are in the same /24 or /64.
func sameNet(p, q netip.Addr) bool {
	if !p.IsValid() || !q.IsValid() || p.Is4() != q.Is4() {
		return false
	}
	bits := 24
	if !p.Is4() {
		bits = 64
	}
	n, _ := p.Prefix(bits)
	return n.Contains(q)
}

// before are the places, of a kind, at which a cause would stand that leads to an effect at f by id. What the
// identity leaves open stays free.
func before(kind string, id rules.Identity, f *place) (out [2]place, n int) {
	p := place{kind: kind, free: true}
	toCallee := func(callee, caller capture.Addr) {
		p.port = f.port
		switch {
		case p.called():
			p.host, p.peer = caller, callee
		case kind == analyze.SubjectService:
			p.host = callee
		default:
			p.host = caller
		}
	}
	switch id {
	case rules.SamePath, rules.SameNet, rules.SameUpstream, rules.Within:
		p.host, p.peer, p.peerAddr, p.port = f.host, f.peer, f.peerAddr, f.port
		if kind == analyze.SubjectPath {
			p.direction = f.direction
		}
		if kind == analyze.SubjectService || f.peer == none && !f.free {
			return out, 0 // one host is no pair of hosts
		}
		if id == rules.SamePath && p.called() && !f.called() {
			other := p
			other.host, other.peer, other.peerAddr = f.peer, f.host, netip.Addr{}
			return [2]place{p, other}, 2
		}
	case rules.SameService:
		caller := none
		if f.called() {
			caller = f.host
		}
		toCallee(f.service(), caller)
	case rules.SameHost:
		p.host = f.host
		if p.called() { // what a call does to a peer of its host it does to the one that is called
			p.peer, p.peerAddr = f.peer, f.peerAddr
		}
		if f.kind == analyze.SubjectPath && f.peer != none {
			other := p
			other.host = f.peer
			if p.called() {
				other.peer, other.peerAddr = f.host, netip.Addr{}
			}
			return [2]place{p, other}, 2
		}
	case rules.Serves:
		p.host, p.port = f.peer, f.port
	}
	return [2]place{p}, 1
}

// settled is the free place p with what a cause at c, to which id joins it, says of it.
func (p place) settled(id rules.Identity, c *place) place {
	if p.port == 0 && (id == rules.SameService || id == rules.SameUpstream || c.called() && p.called()) {
		p.port = c.port
	}
	switch id {
	case rules.Serves:
		if p.peer == none {
			p.peer = c.host
		}
	case rules.SameService:
		switch {
		case p.kind == analyze.SubjectService && p.host == none:
			p.host = c.service()
		case p.called() && p.peer == none:
			p.peer = c.service()
		}
		if p.called() && p.host == none && c.called() {
			p.host = c.host
		}
	default:
		host, peer, peerAddr := c.host, c.peer, c.peerAddr
		if p.host != none && p.host != host && p.host == peer || p.peer != none && p.peer != peer && p.peer == host {
			host, peer, peerAddr = peer, host, netip.Addr{}
		}
		if p.host == none {
			p.host = host
		}
		if p.peer == none && p.kind != analyze.SubjectService {
			p.peer, p.peerAddr = peer, peerAddr
		}
	}
	if p.host == c.host {
		p.hostAddr = c.hostAddr
	}
	return p
}

// fields are those of a subject at p, as conditions of edges read them.
func (p *place) fields() map[string]any {
	text := func(subject netip.Addr, a capture.Addr) string {
		switch {
		case subject.IsValid():
			return subject.String()
		case a == none:
			return ""
		}
		return a.String()
	}
	return map[string]any{"host": text(p.hostAddr, p.host), "peer": text(p.peerAddr, p.peer), "port": int(p.port), "direction": p.direction}
}
