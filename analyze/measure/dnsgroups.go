package measure

import (
	"jindan/analyze/flow"
	"jindan/capture"
)

// Group is what a program waits for: the questions for one name that one caller asks one server together, the A and the
// AAAA of getaddrinfo(3). It fails if one of them does, and is as slow as the slowest.
type Group struct {
	At      capture.Instant // first query
	port    uint16          // from which that was asked
	Types   uint8           // see typeBit
	Open    int             // questions without an answer
	Counted bool            // among all
	Failed  bool            // among those that failed
	Waited  bool            // counted among all that were waited for
	Late    bool            // among those that took a time-out
	Fast    bool            // one of the questions was answered at once
	asked   capture.Instant // newest of the questions that stages counts
}

// askedKey is whose question for which name, and from which port; port 0: the newest, from whichever. It has no gaps: a map
// hashes such a key as one piece.
type askedKey struct {
	resolver uint32
	port     uint32
	name     uint64
}

// typeBit is a bit for each type of those that are asked together (getaddrinfo(3): A and AAAA; RFC 9460: browsers ask
// for HTTPS beside them), 0 for others.
func typeBit(qtype uint16) uint8 {
	switch qtype {
	case TypeA:
		return 1
	case TypeAAAA:
		return 2
	case typeHTTPS:
		return 4
	}
	return 0
}

// Record types (IANA dns-parameters).
const (
	TypeA     = 1
	TypeAAAA  = 28
	typeHTTPS = 65
)

// groups joins questions into groups. By port are kept only those that are not the newest of their name, or were not begun from
// that port.
type groups struct{ Subjects[askedKey, *Group] }

// join returns the group of a question that is asked at at, nil if there are too many.
func (gs *groups) join(d *flow.DNS, at capture.Instant) *Group {
	bit := typeBit(d.QType)
	if bit == 0 {
		return &Group{At: at, Open: 1}
	}
	own := askedKey{d.Resolver, uint32(d.Client.Port), d.NameHash}
	last := gs.Get(askedKey{d.Resolver, 0, d.NameHash})
	if last == nil {
		return nil
	}
	var g *Group
	if *last != nil && (*last).port == d.Client.Port {
		g = *last
	} else if x := gs.Peek(own); x != nil {
		g = *x
	}
	switch {
	case g != nil && g.Open > 0:
		// glibc asks for all of a lookup again, from the same socket, when one of the answers is missing.
	case g.takes(bit, at):
	case (*last).takes(bit, at): // a socket for each question
		g = *last
		if !gs.keep(own, g) {
			return nil
		}
	default:
		if o := *last; o != nil && (o.Open > 0 || at.Sub(o.At) <= AskTogether) &&
			!gs.keep(askedKey{d.Resolver, uint32(o.port), d.NameHash}, o) {
			return nil
		}
		g = &Group{At: at, port: d.Client.Port}
		*last = g
	}
	g.Types |= bit
	g.Open++
	return g
}

// keep keeps g under k, if there is room.
func (gs *groups) keep(k askedKey, g *Group) bool {
	x := gs.Get(k)
	if x != nil {
		*x = g
	}
	return x != nil
}

// takes reports whether a question of another type, asked at at, belongs to g.
func (g *Group) takes(bit uint8, at capture.Instant) bool {
	return g != nil && g.Types&bit == 0 && at.Sub(g.At) <= AskTogether
}

// judge forgets groups that nothing will join any more.
func (gs *groups) judge(now capture.Instant) {
	gs.Each(func(_ askedKey, g **Group) bool {
		if *g == nil {
			return false
		}
		age := now.Sub((*g).At)
		return age <= AskTogether || (*g).Open > 0 && age <= lookupLongest
	})
}
