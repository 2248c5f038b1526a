package analyze

import (
	"strconv"
	"strings"

	"jindan/analyze/flow"
	"jindan/capture"
)

// localFinder finds the address of "this host": what the user says, else what the capture marks
// as sent by its host, else the address common to the connections.
type localFinder struct {
	option *capture.Addr
	sent   map[capture.Addr]uint32 // packets marked as outbound (or inbound, for their destination)
	conns  map[capture.Addr]uint32 // connections by address
	own    map[capture.Addr]uint32 // addresses of the host, as its interfaces and sockets tell
	total  uint32
}

// maxLocalCandidates bounds the address counts; a host's own address comes early and often.
const maxLocalCandidates = 4096

func (l *localFinder) init(option *capture.Addr) {
	l.option = option
	l.sent = make(map[capture.Addr]uint32)
	l.conns = make(map[capture.Addr]uint32)
	l.own = make(map[capture.Addr]uint32)
}

// sockets learns the host's addresses from the local ends of its sockets.
func (l *localFinder) sockets(t *capture.SocketTable) {
	for i := range t.Sockets {
		if a := t.Sockets[i].Local.Addr; !a.Netip().IsUnspecified() {
			count(l.own, a)
		}
	}
}

// addresses learns those of the host's interfaces.
func (l *localFinder) addresses(list []capture.Addr) {
	for _, a := range list {
		if l.own[a] == 0 {
			count(l.own, a)
		}
	}
}

func (l *localFinder) packet(p *capture.Packet) {
	a := p.Src.Addr
	if p.Dir == capture.DirInbound {
		a = p.Dst.Addr
	} else if p.Dir != capture.DirOutbound {
		return
	}
	count(l.sent, a)
}

func (l *localFinder) conn(c *flow.Conn) {
	l.total++
	count(l.conns, c.Client.Addr)
	if c.Server.Addr != c.Client.Addr {
		count(l.conns, c.Server.Addr)
	}
}

func count(m map[capture.Addr]uint32, a capture.Addr) {
	if _, ok := m[a]; ok || len(m) < maxLocalCandidates {
		m[a]++
	}
}

func (l *localFinder) get() Local {
	if l.option != nil {
		return Local{*l.option, LocalByOption, l.own}
	}
	if len(l.own) > 0 {
		// Of its addresses the one that most connections use.
		seen := make(map[capture.Addr]uint32, len(l.own))
		for a, n := range l.own {
			if ip := a.Netip(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				seen[a] = n + l.conns[a]
			}
		}
		if a, n, _ := top(seen); n > 0 {
			return Local{a, LocalByHost, l.own}
		}
	}
	if a, n, _ := top(l.sent); n > 0 {
		return Local{a, LocalByDirection, nil}
	}
	// Common to the connections: on nearly all of them, and on more than any other.
	if a, n, second := top(l.conns); l.total > 0 && n*10 >= l.total*8 && n > second {
		return Local{a, LocalByCommon, nil}
	}
	return Local{By: LocalNone}
}

// top returns the most frequent address and the second's count; ties go to the lower address.
func top(m map[capture.Addr]uint32) (best capture.Addr, n, second uint32) {
	for a, k := range m {
		if k > n || k == n && string(a[:]) < string(best[:]) {
			best, n, second = a, k, n
		} else if k > second {
			second = k
		}
	}
	return best, n, second
}

// filterOf is a Wireshark display filter that shows the traffic of s.
func filterOf(s Subject) string {
	var parts []string
	addr := func(field, a string) {
		if a == "" {
			return
		}
		if strings.Contains(a, ":") {
			parts = append(parts, "ipv6."+field+" == "+a)
		} else {
			parts = append(parts, "ip."+field+" == "+a)
		}
	}
	addr("addr", s.Host)
	addr("addr", s.Peer)
	switch {
	case s.Kind == SubjectResolver:
		parts = append(parts, "dns")
	case s.Port != 0:
		parts = append(parts, "tcp.port == "+strconv.Itoa(int(s.Port)))
	}
	return strings.Join(parts, " && ")
}
