package analyze

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"jindan/capture"
)

// Local says which addresses are "this host", and which of the others belong to one host.
type Local struct {
	Addr  capture.Addr // of its addresses the one that is used most
	By    LocalBy
	addrs map[capture.Addr]struct{}
	few   []capture.Addr                // the same, if there are so few that to compare them is faster
	named []netip.Prefix                // --local, prefixes included
	of    map[capture.Addr]capture.Addr // other hosts with several addresses: the one that stands for the host
}

// LocalBy says how Local was found.
type LocalBy string

// The ways, best first.
const (
	LocalByOption    LocalBy = "option"     // --local
	LocalByPoints    LocalBy = "points"     // the proxies between several capture points
	LocalByHost      LocalBy = "host"       // the addresses of the host's interfaces and sockets
	LocalByDirection LocalBy = "direction"  // the capture marks packets as sent or received by its host
	LocalByLink      LocalBy = "link_layer" // one station is an end of every frame, and what it sends has passed no router
	LocalByCommon    LocalBy = "common"     // the addresses of which each connection has one
	LocalNone        LocalBy = "none"
)

// Known reports whether anything counts as this host.
func (l Local) Known() bool { return l.By != LocalNone && l.By != "" }

// String is the address that stands for this host; empty if none is known.
func (l Local) String() string {
	if !l.Known() {
		return ""
	}
	return l.Addr.String()
}

// List is all addresses of this host that were seen, the one that is used most first.
func (l Local) List() []string {
	if !l.Known() {
		return nil
	}
	rest := slices.SortedFunc(maps.Keys(l.addrs), capture.Addr.Compare)
	list := []string{l.Addr.String()}
	for _, a := range rest {
		if a != l.Addr {
			list = append(list, a.String())
		}
	}
	return list
}

// Is reports whether a is an address of this host.
func (l *Local) Is(a capture.Addr) bool {
	if a == l.Addr {
		return l.Known()
	}
	if l.few != nil {
		for i := range l.few {
			if a == l.few[i] {
				return true
			}
		}
	} else if _, ok := l.addrs[a]; ok {
		return true
	}
	return len(l.named) > 0 && contains(l.named, a)
}

// Receives reports whether what the input holds on its way to a has reached a's host. That each connection has an end there says not where the
// capture was made: it may have been at a switch or a router on the way.
func (l *Local) Receives(a capture.Addr) bool { return l.By != LocalByCommon && l.Is(a) }

// Host is the address that stands for the host of a: two addresses belong to one host exactly when Host is the same.
func (l Local) Host(a capture.Addr) capture.Addr {
	if l.Is(a) {
		return l.Addr
	}
	if h, ok := l.of[a]; ok {
		return h
	}
	return a
}

// join makes the host of b that of a.
func (l *Local) join(a, b capture.Addr) {
	a, b = l.Host(a), l.Host(b)
	if a == b {
		return
	}
	if l.Is(b) {
		a, b = b, a
	}
	for other, h := range l.of {
		if h == b {
			l.of[other] = a
		}
	}
	l.of[b] = a
}

func contains(list []netip.Prefix, a capture.Addr) bool {
	ip := a.Netip()
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// localFinder finds the addresses of this host.
type localFinder struct {
	option   []netip.Prefix
	optionBy LocalBy
	own      map[capture.Addr]struct{} // addresses of the host, as its interfaces and sockets tell
	packets  uint64
	marked   bool // some packets are marked as sent or received
	stations map[uint32]*station
	ends     map[capture.Addr]*end
	pairs    map[[2]capture.Addr]uint32 // packets by pair of addresses
	syns     [8]openings                // the newest connection requests, by the low bits of how many there were
	opened   uint32                     // how many there were
	framed   uint32                     // packets with link-layer addresses
	used     uint32                     // packets counted in pairs
	found    Local
	at       uint64 // packets when found was made
}

// end is an address as the source or destination of packets.
type end struct {
	packets        uint32
	sent, received uint32 // marked as sent with it as the source, received with it as the destination
	came, went     uint32 // marked as received with it as the source, sent with it as the destination: another host, or forwarded
	station        uint32 // that sent its packets, 0: none
	several        bool   // more than one did
	ttl            uint8  // that most of its packets have; 0: none seen
	votes          uint32 // for ttl (Boyer and Moore): a box between may send in its name, with another
	rare           bool   // first counted when only one of so many packets was
	asked          uint32 // connection requests to it
	passed         uint32 // of these, those that were seen again on their way to behind
	behind         capture.Addr
}

// openings are the destination and the sequence number of a connection request.
type openings struct {
	to  capture.Addr
	seq uint32
}

// request learns which address stands for a host behind it: where a box translates destinations (DNAT, a virtual address),
// a capture on it shows each connection request twice, with another destination and the same sequence number.
func (l *localFinder) request(p *capture.Packet) {
	to := l.ends[p.Dst.Addr]
	if to == nil {
		return
	}
	to.asked++
	for _, o := range l.syns {
		before := l.ends[o.to]
		if o.seq != p.Seq || o.to == p.Dst.Addr || before == nil {
			continue
		}
		if before.behind != p.Dst.Addr {
			before.behind, before.passed = p.Dst.Addr, 0
		}
		before.passed++
	}
	l.syns[l.opened%uint32(len(l.syns))] = openings{p.Dst.Addr, p.Seq}
	l.opened++
}

// standsFor is the only address to which a box passes on what is sent to e, if there is one.
func (e *end) standsFor() (capture.Addr, bool) {
	return e.behind, e.passed >= minPassed && e.passed*100 >= e.asked*nearlyAll
}

// station is a sender and receiver on the link.
type station struct{ src, dst uint32 }

const (
	// fewAddrs addresses are compared in less time than one takes to be looked up in a map.
	fewAddrs = 8
	// maxLocalCandidates bounds the addresses, pairs and stations that are counted; a host's own come early and often.
	maxLocalCandidates = 4096
	// every counts one of so many packets, once that many have been counted: who is who shows early. It is prime: a box that
	// forwards shows each packet twice, once received and once sent, and an even step would see one of the two only.
	every = 61
	// nearlyAll is the share of packets, in percent, that a station or address must be an end of to be the host at whose
	// interface they were captured: broadcasts, neighbours' multicasts and what a switch floods are left.
	nearlyAll = 95
	// minPassed is how many connection requests in a row must have been passed on to the same address. Two members that take turns show
	// with the second; of two that are drawn at random the same one comes so often once in eight times, and nearlyAll tells then.
	minPassed = 4
	// common is the share of packets, in percent, of an address that is not singled out by its station or hop counts.
	common = 80
)

func (l *localFinder) init(option []netip.Prefix, by LocalBy) {
	l.option, l.optionBy = option, cmp.Or(by, LocalByOption)
	l.own = make(map[capture.Addr]struct{})
	l.stations = make(map[uint32]*station)
	l.ends = make(map[capture.Addr]*end)
	l.pairs = make(map[[2]capture.Addr]uint32)
}

// sockets learns the host's addresses from the local ends of its sockets.
func (l *localFinder) sockets(t *capture.SocketTable) {
	for i := range t.Sockets {
		if a := t.Sockets[i].Local.Addr; !a.Netip().IsUnspecified() {
			l.owns(a)
		}
	}
}

// addresses learns those of the host's interfaces.
func (l *localFinder) addresses(list []capture.Addr) {
	for _, a := range list {
		l.owns(a)
	}
}

func (l *localFinder) owns(a capture.Addr) {
	if _, ok := l.own[a]; !ok && len(l.own) < maxLocalCandidates {
		l.own[a] = struct{}{}
		l.at = 0
	}
}

// packet learns from who sends what to whom.
func (l *localFinder) packet(p *capture.Packet) {
	if l.packets++; l.packets <= maxLocalCandidates || l.packets%every == 0 {
		l.learn(p)
	}
}

func (l *localFinder) learn(p *capture.Packet) {
	if p.Proto != capture.ProtoTCP && p.Proto != capture.ProtoUDP {
		return // routers speak ICMP themselves
	}
	dst := p.Dst.Addr.Netip()
	if dst.IsMulticast() || p.Dst.Addr == broadcast || dst.IsUnspecified() {
		return // its destination is nobody's own
	}
	s, d := bounded(l.ends, p.Src.Addr), bounded(l.ends, p.Dst.Addr)
	if s == nil || d == nil {
		return
	}
	for _, e := range [2]*end{s, d} {
		e.rare = e.rare || e.packets == 0 && l.packets > maxLocalCandidates
		e.packets++
	}
	switch {
	case p.Dir == capture.DirOutbound: // a box that forwards has taken one off
	case p.TTL == s.ttl:
		s.votes++
	case s.votes == 0:
		s.ttl, s.votes = p.TTL, 1
	default:
		s.votes--
	}
	switch p.Dir {
	case capture.DirOutbound:
		l.marked = true
		s.sent++
		d.went++
	case capture.DirInbound:
		l.marked = true
		s.came++
		d.received++
	}
	if p.Proto == capture.ProtoTCP && p.Flags&(capture.SYN|capture.ACK) == capture.SYN && l.packets <= maxLocalCandidates {
		l.request(p) // later only one of the two would be counted
	}
	k := [2]capture.Addr{p.Src.Addr, p.Dst.Addr}
	if k[0].Compare(k[1]) > 0 {
		k[0], k[1] = k[1], k[0]
	}
	if _, ok := l.pairs[k]; ok || len(l.pairs) < maxLocalCandidates {
		l.pairs[k]++
		l.used++
	}
	if p.SrcMAC == 0 && p.MACs != 0 && p.Dir == capture.DirInbound {
		s.sentBy(p.MACs) // a cooked header has the sender's address only (packet(7)), and on the way out the box's own
	}
	if p.SrcMAC == 0 || p.DstMAC == 0 {
		return
	}
	from, to := bounded(l.stations, p.SrcMAC), bounded(l.stations, p.DstMAC)
	if from == nil || to == nil {
		return
	}
	l.framed++
	from.src++
	to.dst++
	s.sentBy(p.SrcMAC)
}

// sentBy notes the station that has sent a packet of the address.
func (e *end) sentBy(station uint32) {
	e.several = e.several || e.station != 0 && e.station != station
	e.station = station
}

// broadcast is the limited broadcast address (RFC 919 §7).
var broadcast = capture.AddrFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}))

func bounded[K comparable, V any](m map[K]*V, k K) *V {
	v := m[k]
	if v == nil && len(m) < maxLocalCandidates {
		v = new(V)
		m[k] = v
	}
	return v
}

// get is what is known now.
func (l *localFinder) get() Local {
	if l.at == 0 || l.packets-l.at >= min(l.at/8, maxLocalCandidates) && l.packets != l.at {
		l.found = l.find()
		l.at = max(l.packets, 1)
	}
	return l.found
}

func (l *localFinder) find() Local {
	if len(l.option) > 0 {
		// RFC 1122 §3.2.1.3 (g): what a loopback address says never leaves its host. Who names one himself tells loopback addresses apart.
		apart := slices.ContainsFunc(l.option, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
		set := l.seen(func(a capture.Addr, _ *end) bool { return contains(l.option, a) || !apart && a.Netip().IsLoopback() })
		maps.Copy(set, l.own)
		if len(l.own) == 0 { // what --local names is of one host, and the capture may know more of it
			maps.Copy(set, l.byDirection())
			if more := l.byLink(); slices.ContainsFunc(slices.Collect(maps.Keys(more)), func(a capture.Addr) bool { return contains(l.option, a) }) {
				maps.Copy(set, more)
			}
		}
		x := l.local(set, l.optionBy)
		for _, p := range l.option { // of what the user names the first address is the host's name
			if p.IsSingleIP() {
				x.Addr, x.By = capture.AddrFrom(p.Addr()), l.optionBy
				break
			}
		}
		x.named = l.option
		return x
	}
	for _, way := range []struct {
		by  LocalBy
		set map[capture.Addr]struct{}
	}{
		{LocalByHost, l.own}, {LocalByDirection, l.byDirection()}, {LocalByLink, l.byLink()}, {LocalByCommon, l.byCommon()},
	} {
		if len(way.set) > 0 {
			return l.local(way.set, way.by)
		}
		if way.by == LocalByDirection && l.marked {
			break // a box that only passes on what others say
		}
	}
	x := Local{By: LocalNone, of: l.hosts(nil)}
	l.joinBehind(&x)
	return x
}

// joinBehind makes one host of an address and of the only one to which a box passes on what it gets.
func (l *localFinder) joinBehind(x *Local) {
	var fronts []capture.Addr
	for a, e := range l.ends {
		if _, ok := e.standsFor(); ok {
			fronts = append(fronts, a)
		}
	}
	slices.SortFunc(fronts, capture.Addr.Compare)
	for _, a := range fronts {
		x.join(a, l.ends[a].behind)
	}
}

// local makes a Local of a set, whose most used address stands for it.
func (l *localFinder) local(set map[capture.Addr]struct{}, by LocalBy) Local {
	x := Local{By: LocalNone, addrs: maps.Clone(set)} // detectors read it while more is learned
	var most uint32
	for a := range set {
		ip := a.Netip()
		n := uint32(1)
		if e := l.ends[a]; e != nil {
			n += e.packets
		}
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			n = 0 // nobody calls a host by these
		}
		if !x.Known() || n > most || n == most && a.Compare(x.Addr) < 0 {
			x.Addr, x.By, most = a, by, n
		}
	}
	if len(set) <= fewAddrs {
		x.few = slices.AppendSeq(make([]capture.Addr, 0, fewAddrs), maps.Keys(set))
	}
	x.of = l.hosts(set)
	l.joinBehind(&x)
	return x
}

// seen are the addresses for which is holds.
func (l *localFinder) seen(is func(capture.Addr, *end) bool) map[capture.Addr]struct{} {
	set := make(map[capture.Addr]struct{})
	for a, e := range l.ends {
		if is(a, e) {
			set[a] = struct{}{}
		}
	}
	return set
}

// byDirection are the addresses that the capture marks as this host's. What a box forwards is marked twice, as
// received and as sent: its addresses are not the box's own.
func (l *localFinder) byDirection() map[capture.Addr]struct{} {
	const tenfold = 10 // copies on other interfaces and what the capture missed are left
	set := l.seen(func(_ capture.Addr, e *end) bool {
		mine, others := e.sent+e.received, e.came+e.went
		if e.rare {
			others = max(others, 1) // the other half of what was forwarded may not be among the packets that were counted
		}
		return mine > 0 && mine >= tenfold*others
	})
	if len(set) > 0 {
		for a := range l.ends {
			if a.Netip().IsLoopback() {
				set[a] = struct{}{}
			}
		}
	}
	return set
}

// initialTTL reports whether a packet with this TTL or hop limit has most likely passed no router: it has the value
// that senders begin with (64 of Linux and the BSDs, RFC 1700 p. 64; 128 of Windows; 255 of network devices).
func initialTTL(ttl uint8) bool { return ttl == 64 || ttl == 128 || ttl == 255 }

// byLink are the addresses of the station that is an end of every frame, if there is one, or two of which the other
// forwards what comes from afar.
func (l *localFinder) byLink() map[capture.Addr]struct{} {
	if l.framed == 0 || l.framed*100 < l.used*nearlyAll {
		return nil
	}
	var found map[capture.Addr]struct{}
	n, routers := 0, 0
	for id, s := range l.stations {
		if uint64(s.src+s.dst)*100 < uint64(l.framed)*nearlyAll {
			continue
		}
		near, far := 0, 0
		for _, e := range l.ends {
			if e.station == id && !e.several && e.ttl != 0 {
				if initialTTL(e.ttl) {
					near++
				} else {
					far++
				}
			}
		}
		n++
		if far > 0 {
			routers++ // it passes on what others have sent
			continue
		}
		if near > 0 {
			found = l.seen(func(_ capture.Addr, e *end) bool { return e.station == id && !e.several })
		}
	}
	if n-routers != 1 {
		return nil // two ends of one link, or a port through which others speak
	}
	return found
}

// byCommon are the addresses of which each connection has one: the one that nearly all packets have, or those that
// alone have passed no router.
func (l *localFinder) byCommon() map[capture.Addr]struct{} {
	if near := l.byHops(); near != nil {
		return near
	}
	var best capture.Addr
	var n, second uint32
	for a, e := range l.ends {
		if e.packets > n || e.packets == n && a.Compare(best) < 0 {
			best, n, second = a, e.packets, n
		} else if e.packets > second {
			second = e.packets
		}
	}
	if l.used == 0 || uint64(n)*100 < uint64(l.used)*common || n <= second {
		return nil
	}
	if e := l.ends[best]; e.ttl != 0 && !initialTTL(e.ttl) {
		return nil // what it sends has passed a router: it was captured elsewhere
	}
	return map[capture.Addr]struct{}{best: {}}
}

// byHops are the addresses whose packets have passed no router, where those of every other end have.
func (l *localFinder) byHops() map[capture.Addr]struct{} {
	near := l.seen(func(_ capture.Addr, e *end) bool { return initialTTL(e.ttl) })
	one := uint32(0) // packets between one of them and one that is none
	for k, n := range l.pairs {
		_, a := near[k[0]]
		_, b := near[k[1]]
		x, y := l.ends[k[0]], l.ends[k[1]]
		if a != b && x.ttl != 0 && y.ttl != 0 {
			one += n
		}
	}
	if one == 0 || uint64(one)*100 < uint64(l.used)*nearlyAll {
		return nil
	}
	return near
}

// hosts tells for the addresses that are not local which belong to one host: one station sends for all of them, and
// what it sends has passed no router. What a box passes on to one address only belongs to that address's host.
func (l *localFinder) hosts(local map[capture.Addr]struct{}) map[capture.Addr]capture.Addr {
	far := make(map[uint32]bool)
	first := make(map[uint32]capture.Addr)
	for a, e := range l.ends {
		switch {
		case e.station == 0 || e.several:
		case e.ttl != 0 && !initialTTL(e.ttl):
			far[e.station] = true
		default:
			if f, ok := first[e.station]; !ok || a.Compare(f) < 0 {
				first[e.station] = a
			}
		}
	}
	of := make(map[capture.Addr]capture.Addr)
	for a, e := range l.ends {
		if _, ok := local[a]; ok || e.station == 0 || e.several || far[e.station] {
			continue
		}
		if f := first[e.station]; f != a {
			of[a] = f
		}
	}
	return of
}
