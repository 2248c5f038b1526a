package measure

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// scope says between whom a way leads. A host that loses a little towards each of many peers has a fault that no pair of
// hosts shows: the losses add up along what the pairs share.
type scope uint8

// The scopes, the narrowest first.
const (
	OnePair scope = iota
	toNet         // from a host to the hosts of a network
	fromNet       // from the hosts of a network to a host
	toAll         // from a host to all its peers
	fromAll       // from all peers of a host to it
	scopes
)

// networkBits are the lengths of the prefix that hosts of one network share, in bits: the smallest that is routed
// between providers (IPv4, common practice of RFC 7454 §6.1.3), and a link (IPv6, RFC 4291 §2.5.4).
const (
	networkBits4 = 24
	networkBits6 = 64
)

// lonelyWide is how long a host or network is followed with several peers in mind when only one of them loses something.
const lonelyWide = 10 * time.Second

// NetOf is the network of a.
func NetOf(a capture.Addr) netip.Prefix {
	ip := a.Netip()
	bits := networkBits6
	if ip.Is4() {
		bits = networkBits4
	}
	p, _ := ip.Prefix(bits)
	return p
}

// widen returns the pair k and the wider ways that it is part of, by scope.
func (k Way) widen() [scopes]Way {
	from, to := capture.AddrFrom(NetOf(k.From).Addr()), capture.AddrFrom(NetOf(k.To).Addr())
	return [scopes]Way{
		OnePair: k,
		toNet:   {k.From, to, toNet},
		fromNet: {from, k.To, fromNet},
		toAll:   {From: k.From, Scope: toAll},
		fromAll: {To: k.To, Scope: fromAll},
	}
}

// covers reports whether the pair p is part of k.
func (k Way) covers(p Way) bool {
	switch k.Scope {
	case toAll:
		return p.From == k.From
	case fromAll:
		return p.To == k.To
	case toNet:
		return p.From == k.From && NetOf(p.To).Addr() == k.To.Netip()
	case fromNet:
		return p.To == k.To && NetOf(p.From).Addr() == k.From.Netip()
	}
	return p.From == k.From && p.To == k.To
}

// back is the opposite direction.
func (k Way) back() Way {
	b := Way{k.To, k.From, k.Scope}
	switch k.Scope {
	case toNet, toAll:
		b.Scope++
	case fromNet, fromAll:
		b.Scope--
	}
	return b
}

// ToAll is the way of the sender of the pair k to all its peers.
func (k Way) ToAll() Way { return Way{From: k.From, Scope: toAll} }

// Wide reports whether k leads between a host and several.
func (k Way) Wide() bool { return k.Scope != OnePair }

// outward reports whether k leads from the one host to the several.
func (k Way) outward() bool { return k.Scope == toNet || k.Scope == toAll }

// byReceiver reports whether the receiver of k's direction is the client.
func (k Way) byReceiver(client capture.Addr) bool {
	if k.outward() {
		return client != k.From
	}
	return client == k.To
}

// concerns reports whether k is worth following: a way between a host and several only from this host, where it is known.
func (ws *Ways) concerns(k Way) bool {
	if k.Scope == OnePair || ws.local.By == analyze.LocalNone || ws.local.By == "" {
		return true
	}
	if k.outward() {
		return ws.local.Is(k.From)
	}
	return ws.local.Is(k.To)
}

// troubledPeers counts the peers that have lost something, up to enough.
func (st *wayState) troubledPeers(enough int) int {
	seen := make([][2]capture.Addr, 0, enough)
	for _, t := range st.conns.All {
		if t.at != 0 && !slices.Contains(seen, t.ends) {
			if seen = append(seen, t.ends); len(seen) == enough {
				break
			}
		}
	}
	return len(seen)
}

const (
	// alike is how many times the share lost on the rest of a wider way may be smaller than on a narrower one that is the
	// same fault: with fewer, the narrower one has a fault of its own.
	alike = 3
	// fewLost segments, lost in one window or on one connection, say nothing of how often a way loses.
	fewLost = 3
	// crowd is of how many peers one that loses far more than the others has a bad line of its own, as the rules have it; where there are more, and
	// fewPairs at least, they lose for a reason that they share.
	crowd    = 20
	fewPairs = 3
)

// verdict says which ways speak for a fault: the narrowest that carries all of it. A pair of hosts, or a network, that loses no more
// than the rest of a wider way is left to that one; one that loses far more speaks for itself, and is taken out
// of the wider one, which speaks only if it still has several peers that lose something.
type verdict struct {
	covered map[Way]bool  // left to a wider way
	apart   map[Way][]Way // of a wider way: the narrower ones that are taken out
	parts   map[Way][]Way // of a wider way that lost something: the narrower ones
}

func (ws *Ways) weigh(w *analyze.Window) verdict {
	v := verdict{make(map[Way]bool), make(map[Way][]Way), make(map[Way][]Way)}
	for s := OnePair; s < toAll; s++ {
		for n := range ws.states[s].All {
			wider := n.widen()
			for _, k := range wider[s+1:] { // a network is part of the peers of the same direction only
				if s != OnePair && k.outward() != n.outward() {
					continue
				}
				if st := ws.states[k.Scope].Peek(k); st != nil && st.Series.Since.Bad > 0 {
					v.parts[k] = append(v.parts[k], n)
				}
			}
		}
	}
	for _, s := range [...]scope{toNet, fromNet, toAll, fromAll} {
		for k, st := range ws.states[s].All {
			if st.Series.Since.Bad > 0 {
				ws.weighOne(w, &v, k, st)
			} else {
				v.covered[k] = true
			}
		}
	}
	return v
}

func (ws *Ways) weighOne(w *analyze.Window, v *verdict, k Way, st *wayState) {
	type part struct {
		Way
		stat.Point
	}
	span := st.Series.Windows()
	var parts []part
	for _, n := range v.parts[k] {
		if v.covered[n] {
			continue
		}
		if d := ws.states[n.Scope].Peek(n).data(span); d.Bad > 0 {
			parts = append(parts, part{n, d})
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(-cmp.Compare(a.Share(), b.Share()), -cmp.Compare(a.Bad, b.Bad))
	})
	rest := st.data(span)
	alone := func(p part) bool {
		r := stat.Point{Bad: rest.Bad - min(p.Bad, rest.Bad), Total: rest.Total - min(p.Total, rest.Total)}
		// A network is told from the rest only by a rest that would have lost something, too.
		tried := p.Scope == OnePair || float64(r.Total)*p.Share() >= fewLost
		return p.Bad >= fewLost && r.Share()*alike < p.Share() && tried
	}
	shared := make([]part, 0, len(parts))
	var pairs []part
	for _, p := range parts {
		if alone(p) {
			if p.Scope == OnePair {
				pairs = append(pairs, p)
			}
			rest.Bad -= min(p.Bad, rest.Bad)
			rest.Total -= min(p.Total, rest.Total)
			v.apart[k] = append(v.apart[k], p.Way)
		} else {
			shared = append(shared, p)
		}
	}
	if n := len(pairs); n >= fewPairs && crowd*n > PeersSince(w, k, st.Series.Onset) {
		v.apart[k] = slices.DeleteFunc(v.apart[k], func(n Way) bool { return n.Scope == OnePair })
		shared = append(shared, pairs...)
	}
	if len(shared) < 2 && (len(shared) == 0 || shared[0].Scope == OnePair) {
		v.covered[k] = true
		return
	}
	for _, p := range shared {
		v.covered[p.Way] = true
	}
}

// Speaker is a way that speaks for a fault.
type Speaker struct {
	K   Way
	St  *wayState
	out []*wayState // narrower ones with a fault of their own, which it does not speak of
}

// speak returns the ways that speak for a fault. Of the wider ones of a host only one does, that which lost most: they are
// one subject.
func (ws *Ways) speak(w *analyze.Window) (out []Speaker) {
	v := ws.weigh(w)
	wide := make(map[Way]int)
	for s := range ws.states {
		for k, st := range ws.states[s].All {
			if st.Series.Since.Bad == 0 || v.covered[k] {
				continue
			}
			x := Speaker{K: k, St: st}
			for _, n := range v.apart[k] {
				if y := ws.states[n.Scope].Peek(n); y != nil {
					x.out = append(x.out, y)
				}
			}
			if k.Scope != OnePair {
				all := k.widen()[toAll]
				if !k.outward() {
					all = k.widen()[fromAll]
				}
				if i, ok := wide[all]; ok {
					if out[i].Lost().Bad < x.Lost().Bad {
						out[i] = x
					}
					continue
				}
				wide[all] = len(out)
			}
			out = append(out, x)
		}
	}
	return out
}

// Without takes the sizes out of sum, of the newest windows, that the way does not speak of.
func (x *Speaker) Without(sum *Sizes, span int) {
	for _, st := range x.out {
		s, _ := st.Sum(span)
		for i := range sum.Sent {
			sum.Sent[i] -= min(s.Sent[i], sum.Sent[i])
			sum.Lost[i] -= min(s.Lost[i], sum.Lost[i])
			sum.blind[i] -= min(s.blind[i], sum.blind[i])
			sum.Alone[i] -= min(s.Alone[i], sum.Alone[i])
			sum.late[i] -= min(s.late[i], sum.late[i])
			sum.unsure[i] -= min(s.unsure[i], sum.unsure[i])
		}
		sum.resent -= min(s.resent, sum.resent)
		sum.Needless -= min(s.Needless, sum.Needless)
	}
}

// Lost is what was lost of the segments with data since the onset, as far as the way speaks of it.
func (x *Speaker) Lost() stat.Point {
	p := x.St.Series.Since
	for _, st := range x.out {
		d := st.data(x.St.Series.Windows())
		p.Bad -= min(d.Bad, p.Bad)
		p.Total -= min(d.Total, p.Total)
	}
	return p
}

// Subject describes a direction as seen from this host, or from the receiver when this
// host is neither end. Of several peers it names the host.
func (k Way) Subject(l analyze.Local, segment string) analyze.Subject {
	s := analyze.Subject{Kind: analyze.SubjectPath, Segment: segment, Direction: "inbound"}
	host, peer := k.To, k.From
	if k.outward() || k.Scope == OnePair && l.Is(k.From) {
		host, peer = k.From, k.To
		s.Direction = "outbound"
	}
	s.Host = host.String()
	if k.Scope == OnePair {
		s.Peer = peer.String()
	}
	return s
}

// Prefix names the peers of a way between a host and several: the network, or nothing for all.
func (k Way) Prefix() string {
	switch k.Scope {
	case toNet:
		return NetOf(k.To).String()
	case fromNet:
		return NetOf(k.From).String()
	}
	return ""
}

// PeersSince counts the pairs of k that have sent data since.
func PeersSince(w *analyze.Window, k Way, since capture.Instant) (n int) {
	if k.Scope == OnePair {
		return 1
	}
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			if p.Last >= since && p.Side[i].Segments > 0 && k.covers(Way{From: p.Host(i), To: p.Host(1 - i)}) {
				n++
			}
		}
	})
	return n
}

// Crowd says what k is among all that one of its ends talked with in the last minute: how many other peers there are, and which share
// of the connections is k's.
func Crowd(w *analyze.Window, k Way) (others int, share float64) {
	if k.Scope != OnePair {
		return 0, 1
	}
	var peers, conns [2]int
	mine := 0
	w.Flows.Paths(func(p *flow.Path) {
		if w.End.Sub(p.Last) > Lonely {
			return
		}
		for i, host := range [2]capture.Addr{k.From, k.To} {
			switch {
			case host != p.A && host != p.B:
				continue
			case p.A == k.From && p.B == k.To || p.A == k.To && p.B == k.From:
				mine = int(p.Conns)
			default:
				peers[i]++
			}
			conns[i] += int(p.Conns)
		}
	})
	i := 0
	if peers[1] > peers[0] {
		i = 1
	}
	return peers[i], stat.Ratio(mine, conns[i])
}
