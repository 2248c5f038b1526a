package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A format is what the tag is:"…" demands of a text.
type format struct {
	ok   func(string) bool
	want string
}

func matches(expr string) func(string) bool {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:` + expr + `)$`) }) // counted repetitions make large programs
	return func(s string) bool { return re().MatchString(s) }
}

var formats = map[string]format{
	"path": {path.IsAbs, "an absolute path"},
	// 15 bytes are what IFNAMSIZ leaves; the rest is dev_valid_name, net/core/dev.c.
	"interface": {func(s string) bool {
		return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/: ")
	}, `an interface's name or "any"`},
	"netns": {func(s string) bool { return path.Base(s) == s && s != "." && s != ".." && s != "/" && len(s) < 256 }, `a name in /run/netns or "all"`},
	"name":  {matches(`[a-z0-9][a-z0-9_-]{0,62}`), "up to 63 of a-z, 0-9, _ and -"}, // it names the spool's directory
	// sun_path is 108 bytes, the last of them 0 (unix(7)).
	"listen":     {func(s string) bool { return path.IsAbs(s) && len(s) < 108 || hostPort(s) }, "the path of a socket, of at most 107 bytes, or ADDRESS:PORT"},
	"hostport":   {hostPort, "HOST:PORT"},
	"hosts":      {areHosts, "an IP address such as 192.0.2.10 or 2001:db8::10, or a prefix such as 10.0.0.0/24; several with commas between"},
	"url":        {func(s string) bool { return isURL(s, false, "http", "https") }, "a URL https://HOST[:PORT]/PATH (or http) without user and password"},
	"nats":       {func(s string) bool { return isURL(s, true, "nats", "tls") }, "nats://HOST[:PORT] or tls://HOST[:PORT] without user and password"},
	"syslog":     {func(s string) bool { return isURL(s, true, "udp", "tcp", "tls") || unixPath(s) }, "udp://HOST[:PORT], tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH"},
	"fluent":     {func(s string) bool { return isURL(s, true, "tcp", "tls") || unixPath(s) }, "tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH"},
	"servername": {isHost, "a host name or an IP address"},
	// Kafka: org.apache.kafka.common.internals.Topic; NATS: the documentation of subjects.
	"topic":   {func(s string) bool { return matches(`[a-zA-Z0-9._-]{1,249}`)(s) && s != "." && s != ".." }, "up to 249 letters, digits, ., _ and -"},
	"subject": {matches(`[^\s.*>]+(\.[^\s.*>]+)*`), "words joined by dots, without wildcards"},
	"tag":     {matches(`[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*`), "words of letters, digits, _ and -, joined by dots"},
}

// format checks the text s of n; an unset one is in order.
func (d *decoder) format(n *node, name, s string) bool {
	if name == "" || s == "" {
		return true
	}
	switch name {
	case "dir":
		st, err := os.Stat(s)
		if err == nil && !st.IsDir() {
			err = errNoDir
		}
		if err != nil {
			d.fail(n.errorf("directory %s: %v", n.quote(), cause(err)))
		}
		return err == nil
	case "rule":
		if len(d.opt.Rules) > 0 && !slices.Contains(d.opt.Rules, s) {
			d.fail(n.errorf("there is no rule %s%s", n.quote(), orElse(Near(s, d.opt.Rules), "; 'jindan rules list' has them")))
			return false
		}
		return true
	case "url":
		// A query may hold a token.
		if u, err := url.Parse(s); err == nil && u.RawQuery != "" && !n.refers() {
			d.fail(n.errorf("the query may hold a secret: write what follows the ? as ${NAME}"))
			return false
		}
	}
	f := formats[name]
	if !f.ok(s) {
		d.fail(n.errorf("expected %s, found %s", f.want, n.quote()))
		return false
	}
	return true
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

var hostName = matches(`[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}\.?)*`)

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	// 253 characters are the longest name (RFC 1035 §2.3.4). Digits and dots alone are a mistyped address.
	return len(s) <= 253 && hostName(s) && strings.Trim(s, "0123456789.") != ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && isHost(host) && isPort(port)
}

// isURL reports whether s is a URL of one of the schemes without credentials; bare: nor a path.
func isURL(s string, bare bool, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Fragment != "" || u.Opaque != "" || !isHost(u.Hostname()) {
		return false
	}
	if bare && (u.RawQuery != "" || u.Path != "") || u.Port() == "" && strings.HasSuffix(u.Host, ":") {
		return false
	}
	return slices.Contains(schemes, u.Scheme) && (u.Port() == "" || isPort(u.Port()))
}

func unixPath(s string) bool {
	p, ok := strings.CutPrefix(s, "unix:")
	return ok && path.IsAbs(p) && len(p) < 108
}

// areHosts reports whether s is a list of addresses and prefixes.
func areHosts(s string) bool {
	for one := range strings.SplitSeq(s, ",") {
		one = strings.TrimSpace(one)
		p, err := netip.ParsePrefix(one)
		if a, err2 := netip.ParseAddr(one); err != nil && (err2 != nil || a.Zone() != "") || err == nil && p.Addr().Is4In6() {
			return false
		}
	}
	return true
}
