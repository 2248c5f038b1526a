package filter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenSign
)

type token struct {
	kind tokenKind
	text string
	pos  int
	// bare says that after this and further parentheses and "not" comes a number or an address: pcap-filter's grammar then
	// allows nothing else in the parentheses.
	bare bool
}

func (t token) is(text string) bool { return t.kind != tokenEnd && t.text == text }

// signs are what stands for itself, the longer ones first.
var signs = []string{"&&", "||", "!=", "==", ">=", "<=", "(", ")", "[", "]", "!", "&", "|", "=", ">", "<"}

// keywords are words that are no value.
var keywords = map[string]bool{
	"ip": true, "ip6": true, "arp": true, "rarp": true, "tcp": true, "udp": true, "sctp": true, "icmp": true, "icmp6": true,
	"src": true, "dst": true, "host": true, "net": true, "mask": true, "port": true, "portrange": true,
	"vlan": true, "and": true, "or": true, "not": true,
}

var kinds = map[string]bool{"host": true, "net": true, "port": true, "portrange": true}

// protocols are the words that are conditions by themselves.
var protocols = map[string]func(layout) *cond{
	"ip":    layout.ip4,
	"ip6":   layout.ip6,
	"arp":   func(l layout) *cond { return l.etherType(etherARP) },
	"rarp":  func(l layout) *cond { return l.etherType(etherRARP) },
	"tcp":   func(l layout) *cond { return protocol(l, protoTCP, true, true) },
	"udp":   func(l layout) *cond { return protocol(l, protoUDP, true, true) },
	"sctp":  func(l layout) *cond { return protocol(l, protoSCTP, true, true) },
	"icmp":  func(l layout) *cond { return protocol(l, protoICMP, true, false) },
	"icmp6": func(l layout) *cond { return protocol(l, protoICMPv6, false, true) },
}

func wordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("._:-/%", c) >= 0
}

func (p *parser) lex() error {
	for i := 0; i < len(p.text); {
		if c := p.text[i]; c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			i++
			continue
		}
		t := token{pos: i}
		for i < len(p.text) && wordByte(p.text[i]) {
			i++
		}
		if i > t.pos {
			t.kind = tokenWord
		} else {
			for _, s := range signs {
				if strings.HasPrefix(p.text[i:], s) {
					t.kind = tokenSign
					i += len(s)
					break
				}
			}
		}
		if t.kind == tokenEnd {
			return p.errorf(t, "this sign has no meaning here")
		}
		t.text = p.text[t.pos:i]
		p.tokens = append(p.tokens, t)
	}
	p.tokens = append(p.tokens, token{pos: len(p.text)})
	bare := false
	for i, t := range slices.Backward(p.tokens) {
		if !t.is("(") && !t.is("not") && !t.is("!") {
			bare = t.kind == tokenWord && !keywords[t.text]
		}
		p.tokens[i].bare = bare
	}
	return nil
}

// isNumber says that a word is meant as a number.
func isNumber(s string) bool { return s[0] >= '0' && s[0] <= '9' && !strings.ContainsAny(s, ".:/-") }

func isAddress(s string) bool {
	return s[0] >= '0' && s[0] <= '9' || strings.Contains(s, ":")
}

// number reads a decimal or hexadecimal number up to limit. A leading 0, octal for tcpdump and decimal for most people, is refused.
func number(s string, limit uint32) (uint32, bool) {
	base := 10
	if h, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		s, base = h, 16
	} else if len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 32)
	return uint32(n), err == nil && uint32(n) <= limit
}

// quad reads one to four numbers with dots as the first bytes of an IPv4 address, and says how many bits they are.
func quad(s string) (addr uint32, bits int, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return 0, 0, false
	}
	for i, part := range parts {
		if part == "" || part[0] < '0' || part[0] > '9' || strings.ContainsAny(part, "xX") {
			return 0, 0, false
		}
		n, ok := number(part, 255)
		if !ok {
			return 0, 0, false
		}
		addr |= n << (24 - 8*i)
	}
	return addr, 8 * len(parts), true
}

// words reads an IPv6 address.
func words(s string) (w [4]uint32, ok bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return w, false
	}
	b := a.As16()
	for i := range w {
		w[i] = uint32(b[4*i])<<24 | uint32(b[4*i+1])<<16 | uint32(b[4*i+2])<<8 | uint32(b[4*i+3])
	}
	return w, true
}
