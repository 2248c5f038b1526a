package analyze

import (
	"strconv"
	"strings"
)

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
