//go:build linux

package host

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

// tracker knows the last state of things by key, so that an update that repeats a state is not taken for a change.
type tracker[K, V comparable] struct {
	state map[K]V
	max   int
	begun bool // state was filled once
	// tell describes the step from old to now, either of which may be absent; false: not worth a marker.
	tell func(k K, old V, had bool, now V, has bool) (capture.Change, bool)
	emit func(capture.Change)
	full func() // called for a thing that finds no room
}

func (t *tracker[K, V]) set(k K, now V) {
	old, had := t.state[k]
	if had && old == now {
		return
	}
	if !had && len(t.state) >= t.max {
		t.full()
	} else {
		t.state[k] = now
	}
	if c, ok := t.tell(k, old, had, now, true); ok && t.begun {
		t.emit(c)
	}
}

func (t *tracker[K, V]) remove(k K) {
	old, had := t.state[k]
	if !had {
		return
	}
	delete(t.state, k)
	var none V
	if c, ok := t.tell(k, old, true, none, false); ok {
		t.emit(c)
	}
}

// resync compares with a list, after updates were or may have been missed. A list of max things may not be complete.
func (t *tracker[K, V]) resync(list map[K]V) {
	for k, v := range list {
		t.set(k, v)
	}
	for k := range t.state {
		if _, is := list[k]; !is && len(list) < t.max {
			t.remove(k)
		}
	}
	t.begun = true
}

type linkState struct {
	name string
	mtu  int
	up   bool
}

func tellLink(_ int, old linkState, had bool, now linkState, has bool) (capture.Change, bool) {
	c := capture.Change{Kind: capture.ChangeLink, What: now.name}
	switch {
	case !has:
		c.What, c.Detail = old.name, "removed"
		return c, old.up
	case now.up && !had:
		c.Detail = "appeared, up, mtu " + strconv.Itoa(now.mtu)
	case now.up && !old.up:
		c.Detail = "up"
	case !now.up && old.up:
		c.Detail = "down"
	case had && now.mtu != old.mtu:
		c.Detail = fmt.Sprintf("mtu %d → %d", old.mtu, now.mtu)
	default:
		return c, false
	}
	return c, true
}

// Routes are told apart as ip-route(8) does: by table, family, destination, TOS and metric.
type routeKey struct {
	table, family, tos, metric int
	dst                        netip.Prefix
}

type routeState struct {
	link  int    // index of the interface; 0: none, or several
	words string // as ip-route(8) prints
}

func (k routeKey) String() string {
	s := k.dst.String()
	if k.dst.IsValid() && k.dst.Bits() == 0 {
		s = "default"
	}
	if k.table != unix.RT_TABLE_MAIN {
		s += " table " + strconv.Itoa(k.table)
	}
	return s
}

func tellRoute(k routeKey, old routeState, had bool, now routeState, has bool) (capture.Change, bool) {
	c := capture.Change{Kind: capture.ChangeRoute, What: k.String()}
	switch {
	case !has:
		c.Detail = "removed: " + old.words
	case !had:
		c.Detail = "added: " + now.words
	case old.words == now.words:
		return c, false
	default:
		c.Detail = old.words + " → " + now.words
	}
	return c, true
}

// ownRoute: routes that the kernel makes itself follow addresses and links; those of the local table and cached ones
// (RTM_F_CLONED) are no decisions of anyone.
func ownRoute(r *netlink.Route) bool {
	return r.Table == unix.RT_TABLE_LOCAL || r.Protocol == unix.RTPROT_KERNEL || r.Flags&unix.RTM_F_CLONED != 0 ||
		r.Family != unix.AF_INET && r.Family != unix.AF_INET6
}

func routeOf(r *netlink.Route, name func(int) string) (routeKey, routeState) {
	k := routeKey{table: r.Table, family: r.Family, tos: r.Tos, metric: r.Priority}
	anywhere := netip.IPv4Unspecified()
	if r.Family == unix.AF_INET6 {
		anywhere = netip.IPv6Unspecified()
	}
	k.dst = netip.PrefixFrom(anywhere, 0)
	if r.Dst != nil {
		if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			ones, _ := r.Dst.Mask.Size()
			k.dst = netip.PrefixFrom(a, ones)
		}
	}
	var w []string
	switch r.Type {
	case unix.RTN_BLACKHOLE:
		w = append(w, "blackhole")
	case unix.RTN_UNREACHABLE:
		w = append(w, "unreachable")
	case unix.RTN_PROHIBIT:
		w = append(w, "prohibit")
	}
	hop := func(gw string, link int) {
		if gw != "" {
			w = append(w, "via", gw)
		}
		if link != 0 {
			w = append(w, "dev", name(link))
		}
	}
	gateway := func(gw []byte, via netlink.Destination) string {
		if v, ok := via.(*netlink.Via); ok {
			gw = v.Addr
		}
		if a, ok := netip.AddrFromSlice(gw); ok {
			return a.String()
		}
		return ""
	}
	hop(gateway(r.Gw, r.Via), r.LinkIndex)
	for _, n := range r.MultiPath[:min(len(r.MultiPath), 16)] { // words, not a dump
		w = append(w, "nexthop")
		hop(gateway(n.Gw, n.Via), n.LinkIndex)
	}
	if r.Src != nil {
		w = append(w, "src", r.Src.String())
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"metric", r.Priority}, {"mtu", r.MTU}, {"advmss", r.AdvMSS}, {"initcwnd", r.InitCwnd}} {
		if n.value != 0 {
			w = append(w, n.name, strconv.Itoa(n.value))
		}
	}
	return k, routeState{r.LinkIndex, strings.Join(w, " ")}
}

type neighKey struct {
	link int
	addr netip.Addr
}

type neighState struct {
	mac    string
	dev    string
	failed bool
}

// tellNeigh tells only of neighbours that once answered: a host that never did, as in a scan, is nobody's next hop.
func tellNeigh(k neighKey, old neighState, had bool, now neighState, has bool) (capture.Change, bool) {
	c := capture.Change{Kind: capture.ChangeNeighbour, What: k.addr.String() + " dev " + now.dev}
	switch {
	case !has || !had:
		return c, false
	case now.failed && !old.failed:
		c.Detail = "unreachable (FAILED), was " + old.mac
	case old.failed && !now.failed:
		c.Detail = "reachable again, " + now.mac
	case old.mac != now.mac:
		c.Detail = "moved: " + old.mac + " → " + now.mac
	default:
		return c, false
	}
	return c, true
}

// nudKnown are the states in which a link-layer address is in use (NUD_VALID without those that need none).
const nudKnown = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT

// neighOf returns what an update says of a neighbour, or false where it says nothing of use: being asked for.
func neighOf(n *netlink.Neigh, name func(int) string, known map[neighKey]neighState) (neighKey, neighState, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	k := neighKey{n.LinkIndex, a.Unmap()}
	if !ok || n.Family != unix.AF_INET && n.Family != unix.AF_INET6 { // AF_BRIDGE: a forwarding entry
		return k, neighState{}, false
	}
	old, had := known[k]
	switch {
	case n.State&nudKnown != 0:
		return k, neighState{mac: n.HardwareAddr.String(), dev: name(n.LinkIndex)}, true
	case n.State&unix.NUD_FAILED != 0 && had:
		old.failed = true
		return k, old, true
	}
	return k, neighState{}, false
}
