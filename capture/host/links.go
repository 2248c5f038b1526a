//go:build linux

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

// answerTime bounds how long an answer of rtnetlink is waited for: it comes in microseconds, but the lock that it takes (rtnl) is
// held for long by others at times.
const answerTime = 2 * time.Second

// Links reads interfaces and routes of one network namespace over rtnetlink.
type Links struct {
	handle *netlink.Handle
	ns     netns.NsHandle
}

// NewLinks opens a netlink socket in the network namespace (none or 0: the own one).
func NewLinks(ns netns.NsHandle) (*Links, error) {
	ns = own(ns)
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(answerTime); err != nil {
		h.Close()
		return nil, fmt.Errorf("limit the time of netlink requests: %w", err)
	}
	return &Links{h, ns}, nil
}

// Close closes the socket.
func (l *Links) Close() { l.handle.Close() }

// Read appends the interfaces with their counters (rtnl_link_stats64) to dst.
func (l *Links) Read(dst []capture.Link) ([]capture.Link, error) {
	links, err := l.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // an interface came or went: the list is as good as any
		return dst, fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		a := link.Attrs()
		c := capture.Link{Name: a.Name, Index: a.Index, MTU: a.MTU, Up: up(a),
			Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0, Virtual: l.virtual(link)}
		if s := a.Statistics; s != nil {
			c.RxPackets, c.RxBytes, c.RxErrors, c.RxDropped = s.RxPackets, s.RxBytes, s.RxErrors, s.RxDropped
			c.RxMissed, c.RxCRC, c.RxFIFO, c.RxFrame = s.RxMissedErrors, s.RxCrcErrors, s.RxFifoErrors, s.RxFrameErrors
			c.TxPackets, c.TxBytes, c.TxErrors, c.TxDropped = s.TxPackets, s.TxBytes, s.TxErrors, s.TxDropped
			c.TxCarrier = s.TxCarrierErrors
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// Addrs appends the addresses of the interfaces to dst.
func (l *Links) Addrs(dst []capture.Addr) ([]capture.Addr, error) {
	list, err := l.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return dst, fmt.Errorf("list addresses: %w", err)
	}
	for _, x := range list {
		if a, ok := netip.AddrFromSlice(x.IP); ok {
			dst = append(dst, capture.AddrFrom(a))
		}
	}
	return dst, nil
}

// up: administratively up and with a carrier (IFF_LOWER_UP).
func up(a *netlink.LinkAttrs) bool {
	return a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0
}

// virtual: no device behind it. Linux before 5.14 does not name the device in the message; sysfs does, but only for the own
// namespace, and elsewhere an interface without a kind is taken for hardware.
func (l *Links) virtual(link netlink.Link) bool {
	a := link.Attrs()
	switch {
	case a.RawFlags&unix.IFF_LOOPBACK != 0:
		return true
	case a.ParentDev != "":
		return false
	case link.Type() != "device": // IFLA_INFO_KIND: veth, bridge, vxlan…
		return true
	}
	return l.ns == netns.None() && !exists("/sys/class/net/"+a.Name+"/device")
}

// Hop is where packets to a peer go first.
type Hop struct {
	Gateway   netip.Addr // invalid: the peer is on the link
	Source    netip.Addr // the preferred source address; may be invalid
	Interface int        // index
}

// NextHop asks the kernel for its route to peer (RTM_GETROUTE).
func (l *Links) NextHop(peer netip.Addr) (Hop, error) {
	routes, err := l.handle.RouteGet(peer.Unmap().AsSlice())
	if err != nil {
		return Hop{}, fmt.Errorf("route to %s: %w", peer, err)
	}
	if len(routes) == 0 {
		return Hop{}, fmt.Errorf("route to %s: the kernel names none", peer)
	}
	r := &routes[0]
	hop := Hop{Interface: r.LinkIndex}
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		hop.Gateway = a.Unmap()
	}
	if via, ok := r.Via.(*netlink.Via); ok { // RFC 5549: an IPv4 route through an IPv6 gateway
		if a, ok := netip.AddrFromSlice(via.Addr); ok {
			hop.Gateway = a
		}
	}
	if a, ok := netip.AddrFromSlice(r.Src); ok {
		hop.Source = a.Unmap()
	}
	return hop, nil
}
