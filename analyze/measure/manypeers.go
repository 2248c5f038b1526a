package detect

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
	onePair scope = iota
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

// netOf is the network of a.
func netOf(a capture.Addr) netip.Prefix {
	ip := a.Netip()
	bits := networkBits6
	if ip.Is4() {
		bits = networkBits4
	}
	p, _ := ip.Prefix(bits)
	return p
}

// widen returns the pair k and the wider ways that it is part of, by scope.
func (k way) widen() [scopes]way {
	from, to := capture.AddrFrom(netOf(k.from).Addr()), capture.AddrFrom(netOf(k.to).Addr())
	return [scopes]way{
		onePair: k,
		toNet:   {k.from, to, toNet},
		fromNet: {from, k.to, fromNet},
		toAll:   {from: k.from, scope: toAll},
		fromAll: {to: k.to, scope: fromAll},
	}
}

// covers reports whether the pair p is part of k.
func (k way) covers(p way) bool {
	switch k.scope {
	case toAll:
		return p.from == k.from
	case fromAll:
		return p.to == k.to
	case toNet:
		return p.from == k.from && netOf(p.to).Addr() == k.to.Netip()
	case fromNet:
		return p.to == k.to && netOf(p.from).Addr() == k.from.Netip()
	}
	return p.from == k.from && p.to == k.to
}

// contains reports whether all of n, which is narrower, is part of k.
func (k way) contains(n way) bool {
	switch n.scope {
	case onePair:
		return k.covers(n)
	case toNet:
		return k.scope == toAll && k.from == n.from
	case fromNet:
		return k.scope == fromAll && k.to == n.to
	}
	return false
}

// back is the opposite direction.
func (k way) back() way {
	b := way{k.to, k.from, k.scope}
	switch k.scope {
	case toNet, toAll:
		b.scope++
	case fromNet, fromAll:
		b.scope--
	}
	return b
}

// outward reports whether k leads from the one host to the several.
func (k way) outward() bool { return k.scope == toNet || k.scope == toAll }

// byReceiver reports whether the receiver of k's direction is the client.
func (k way) byReceiver(client capture.Addr) bool {
	if k.outward() {
		return client != k.from
	}
	return client == k.to
}

// concerns reports whether k is worth following: a way between a host and several only from this host, where it is known.
func (ws *ways) concerns(k way) bool {
	if k.scope == onePair || ws.local.By == analyze.LocalNone || ws.local.By == "" {
		return true
	}
	if k.outward() {
		return ws.local.Is(k.from)
	}
	return ws.local.Is(k.to)
}

// troubledPeers counts the peers that have lost something, up to enough.
func (st *wayState) troubledPeers(enough int) int {
	seen := make([][2]capture.Addr, 0, enough)
	for _, t := range st.conns.all {
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
)

// verdict says which ways speak for a fault: the narrowest that carries all of it. A pair of hosts, or a network, that loses no more
// than the rest of a wider way is left to that one; one that loses far more speaks for itself, and is taken out
// of the wider one, which speaks only if it still has several peers that lose something.
type verdict struct {
	covered map[way]bool  // left to a wider way
	apart   map[way][]way // of a wider way: the narrower ones that are taken out
	parts   map[way][]way // of a wider way that lost something: the narrower ones
}

func (ws *ways) weigh() verdict {
	v := verdict{make(map[way]bool), make(map[way][]way), make(map[way][]way)}
	for s := onePair; s < toAll; s++ {
		for n := range ws.states[s].all {
			wider := n.widen()
			for _, k := range wider[s+1:] {
				if st := ws.states[k.scope].peek(k); st != nil && st.series.Since.Bad > 0 && k.contains(n) {
					v.parts[k] = append(v.parts[k], n)
				}
			}
		}
	}
	for _, s := range [...]scope{toNet, fromNet, toAll, fromAll} {
		for k, st := range ws.states[s].all {
			if st.series.Since.Bad > 0 {
				ws.weighOne(&v, k, st)
			} else {
				v.covered[k] = true
			}
		}
	}
	return v
}

func (ws *ways) weighOne(v *verdict, k way, st *wayState) {
	type part struct {
		way
		stat.Point
	}
	span := st.series.Windows()
	var parts []part
	for _, n := range v.parts[k] {
		if v.covered[n] {
			continue
		}
		if d := ws.states[n.scope].peek(n).data(span); d.Bad > 0 {
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
		tried := p.scope == onePair || float64(r.Total)*p.Share() >= fewLost
		return p.Bad >= fewLost && r.Share()*alike < p.Share() && tried
	}
	shared := make([]part, 0, len(parts))
	for _, p := range parts {
		if alone(p) {
			rest.Bad -= min(p.Bad, rest.Bad)
			rest.Total -= min(p.Total, rest.Total)
			v.apart[k] = append(v.apart[k], p.way)
		} else {
			shared = append(shared, p)
		}
	}
	if len(shared) < 2 && (len(shared) == 0 || shared[0].scope == onePair) {
		v.covered[k] = true
		return
	}
	for _, p := range shared {
		v.covered[p.way] = true
	}
}

// speaker is a way that speaks for a fault.
type speaker struct {
	k   way
	st  *wayState
	out []*wayState // narrower ones with a fault of their own, which it does not speak of
}

// speak returns the ways that speak for a fault. Of the wider ones of a host only one does, that which lost most: they are
// one subject.
func (ws *ways) speak() (out []speaker) {
	v := ws.weigh()
	wide := make(map[way]int)
	for s := range ws.states {
		for k, st := range ws.states[s].all {
			if st.series.Since.Bad == 0 || v.covered[k] {
				continue
			}
			x := speaker{k: k, st: st}
			for _, n := range v.apart[k] {
				if y := ws.states[n.scope].peek(n); y != nil {
					x.out = append(x.out, y)
				}
			}
			if k.scope != onePair {
				all := k.widen()[toAll]
				if !k.outward() {
					all = k.widen()[fromAll]
				}
				if i, ok := wide[all]; ok {
					if out[i].lost().Bad < x.lost().Bad {
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

// without takes the sizes out of sum, of the newest windows, that the way does not speak of.
func (x *speaker) without(sum *sizes, span int) {
	for _, st := range x.out {
		s, _ := st.sum(span)
		for i := range sum.sent {
			sum.sent[i] -= min(s.sent[i], sum.sent[i])
			sum.lost[i] -= min(s.lost[i], sum.lost[i])
			sum.blind[i] -= min(s.blind[i], sum.blind[i])
			sum.alone[i] -= min(s.alone[i], sum.alone[i])
			sum.late[i] -= min(s.late[i], sum.late[i])
		}
		sum.resent -= min(s.resent, sum.resent)
		sum.needless -= min(s.needless, sum.needless)
	}
}

// lost is what was lost of the segments with data since the onset, as far as the way speaks of it.
func (x *speaker) lost() stat.Point {
	p := x.st.series.Since
	for _, st := range x.out {
		d := st.data(x.st.series.Windows())
		p.Bad -= min(d.Bad, p.Bad)
		p.Total -= min(d.Total, p.Total)
	}
	return p
}

// subject describes a direction as seen from this host, or from the receiver when this
// host is neither end. Of several peers it names the host.
func (k way) subject(l analyze.Local, segment string) analyze.Subject {
	s := analyze.Subject{Kind: analyze.SubjectPath, Segment: segment, Direction: "inbound"}
	host, peer := k.to, k.from
	if k.outward() || k.scope == onePair && l.Is(k.from) {
		host, peer = k.from, k.to
		s.Direction = "outbound"
	}
	s.Host = host.String()
	if k.scope == onePair {
		s.Peer = peer.String()
	}
	return s
}

// prefix names the peers of a way between a host and several: the network, or nothing for all.
func (k way) prefix() string {
	switch k.scope {
	case toNet:
		return netOf(k.to).String()
	case fromNet:
		return netOf(k.from).String()
	}
	return ""
}

// peersSince counts the pairs of k that have sent data since.
func peersSince(w *analyze.Window, k way, since capture.Instant) (n int) {
	if k.scope == onePair {
		return 1
	}
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			if p.Last >= since && p.Side[i].Segments > 0 && k.covers(way{from: p.Host(i), to: p.Host(1 - i)}) {
				n++
			}
		}
	})
	return n
}

// crowd says what k is among all that one of its ends talked with in the last minute: how many other peers there are, and which share
// of the connections is k's.
func crowd(w *analyze.Window, k way) (others int, share float64) {
	if k.scope != onePair {
		return 0, 1
	}
	var peers, conns [2]int
	mine := 0
	w.Flows.Paths(func(p *flow.Path) {
		if w.End.Sub(p.Last) > lonely {
			return
		}
		for i, host := range [2]capture.Addr{k.from, k.to} {
			switch {
			case host != p.A && host != p.B:
				continue
			case p.A == k.from && p.B == k.to || p.A == k.to && p.B == k.from:
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
