package sink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"jindan/analyze"
)

// Pseudonym replaces addresses and names by keyed hashes (HMAC-SHA256): equal
// ones stay equal under the same key, so that findings can still be joined, and
// without the key nobody finds out which they were. What it hides: IP and MAC
// addresses and host names in subject, evidence, features, texts and filter, DNS
// names in texts, and the finding ids, which are hashes of the subject that could
// be guessed. Ports, times and counts stay.
type Pseudonym struct {
	key   []byte
	names []string // hidden wherever they occur
}

// NewPseudonym returns a Pseudonym with a secret key. Names, such as that of this
// host, are hidden in every text; those of a finding's own subject are anyway.
func NewPseudonym(key []byte, hosts ...string) *Pseudonym {
	return &Pseudonym{key, names(hosts...)}
}

// hash is a word with the first 32 bits of the keyed hash: among 1,000 hosts two
// share a pseudonym with probability 0.0001.
func (p *Pseudonym) hash(kind, s string) string {
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte(kind + "|" + s))
	return kind + "-" + hex.EncodeToString(h.Sum(nil)[:4])
}

var (
	// IPv6 before MAC before IPv4: an IPv4-mapped address is one address.
	reIPv6   = regexp.MustCompile(`[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.?\d{1,3}(?:\.\d{1,3}){2,3})?`)
	reMAC    = regexp.MustCompile(`\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b`)
	reIPv4   = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}`)
	reDomain = regexp.MustCompile(`(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]`)
	reID     = regexp.MustCompile(`^(.+)-([0-9a-f]{12})$`)
)

// address replaces a name or an address that stands alone.
func (p *Pseudonym) address(s string) string {
	if s == "" {
		return ""
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return p.hash("ip", a.Unmap().WithZone("").String())
	}
	if t := p.addresses(s); t != s {
		return t
	}
	return p.hash("host", strings.ToLower(s))
}

// addresses replaces what looks like an address in a text.
func (p *Pseudonym) addresses(s string) string {
	ip := func(m string) string {
		for tail := ""; ; { // "2001:db8::1:" ends a clause
			if a, err := netip.ParseAddr(m); err == nil {
				return p.hash("ip", a.Unmap().String()) + tail
			}
			if !strings.HasSuffix(m, ":") {
				return m + tail
			}
			m, tail = m[:len(m)-1], ":"+tail
		}
	}
	s = reIPv6.ReplaceAllStringFunc(s, ip)
	s = reMAC.ReplaceAllStringFunc(s, func(m string) string { return p.hash("mac", strings.ToLower(m)) })
	return reIPv4.ReplaceAllStringFunc(s, ip)
}

// text replaces addresses and the known names; in prose also what looks like a
// domain name. Commands and filters are full of dots that are none.
func (p *Pseudonym) text(s string, names []string, prose bool) string {
	for _, n := range slices.Concat(names, p.names) {
		s = replaceWord(s, n, p.hash("host", strings.ToLower(n)))
	}
	s = p.addresses(s)
	if prose {
		s = reDomain.ReplaceAllStringFunc(s, func(m string) string { return p.hash("name", strings.ToLower(m)) })
	}
	return s
}

// replaceWord replaces name where it is not a part of a longer word.
func replaceWord(s, name, with string) string {
	word := func(c byte) bool {
		return c == '-' || c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	var b strings.Builder
	for {
		i := strings.Index(s, name)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(name)
		b.WriteString(s[:i])
		if i > 0 && word(s[i-1]) || end < len(s) && word(s[end]) {
			b.WriteString(name)
		} else {
			b.WriteString(with)
		}
		s = s[end:]
	}
}

// id replaces the part of a finding id that depends on its subject.
func (p *Pseudonym) id(s string) string {
	m := reID.FindStringSubmatch(s)
	if m == nil {
		return s
	}
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte("id|" + s))
	return m[1] + "-" + hex.EncodeToString(h.Sum(nil)[:6])
}

func (p *Pseudonym) ids(list []string) {
	for i := range list {
		list[i] = p.id(list[i])
	}
}

func (p *Pseudonym) both(t analyze.Text, names []string, prose bool) analyze.Text {
	return analyze.Text{En: p.text(t.En, names, prose), Ko: p.text(t.Ko, names, prose)}
}

// value replaces in the strings and keys of decoded JSON.
func (p *Pseudonym) value(v any, names []string) any {
	switch v := v.(type) {
	case string:
		return p.text(v, names, true)
	case []any:
		for i := range v {
			v[i] = p.value(v[i], names)
		}
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[p.text(k, names, false)] = p.value(e, names)
		}
		return m
	}
	return v
}

// Record returns r with addresses and names replaced.
func (p *Pseudonym) Record(r Record) (Record, error) {
	r.Host = p.address(r.Host)
	var v any
	switch r.Kind {
	case KindFinding:
		var f finding
		if err := unmarshal(r.Body, &f); err != nil {
			return r, fmt.Errorf("pseudonymise %s: %w", r.ID, err)
		}
		p.finding(&f.Finding)
		r.ID, v = f.ID, f
	case KindDiagnosis:
		var d analyze.Diagnosis
		if err := unmarshal(r.Body, &d); err != nil {
			return r, fmt.Errorf("pseudonymise the diagnosis: %w", err)
		}
		p.ids(d.Roots)
		p.ids(d.Chain)
		for i := range d.Incidents {
			x := &d.Incidents[i]
			x.ID = p.id(x.ID)
			p.ids(x.Roots)
			p.ids(x.Chain)
			p.ids(x.Also)
			x.Headline = p.both(x.Headline, nil, true)
		}
		d.Summary = p.both(d.Summary, nil, true)
		for i := range d.Steps {
			p.ids(d.Steps[i].Findings)
			d.Steps[i].Reason = p.both(d.Steps[i].Reason, nil, true)
			p.stages(d.Steps[i].Stages)
		}
		d.Coverage.Local = p.address(d.Coverage.Local)
		locals := make([]string, len(d.Coverage.Locals))
		for i, a := range d.Coverage.Locals {
			locals[i] = p.address(a)
		}
		d.Coverage.Locals = locals
		v = d
	default:
		var m map[string]any
		if err := json.Unmarshal(r.Body, &m); err != nil {
			return r, fmt.Errorf("pseudonymise a %s: %w", r.Kind, err)
		}
		host, _ := m["host"].(string)
		for k, e := range m {
			switch {
			case k == "host":
				m[k] = p.address(host)
			case k != "schema" && k != "agent":
				m[k] = p.value(e, names(host))
			}
		}
		v = m
	}
	body, err := marshal(v)
	r.Body = body
	return r, err
}

// names are those of the candidates that are no addresses.
func names(candidates ...string) (out []string) {
	for _, n := range candidates {
		if _, err := netip.ParseAddr(n); err != nil && n != "" {
			out = append(out, n)
		}
	}
	return out
}

func (p *Pseudonym) stages(t *analyze.Stages) {
	if t == nil {
		return
	}
	t.Host = p.address(t.Host)
	for i := range t.Stages {
		t.Stages[i].Peer = p.address(t.Stages[i].Peer)
	}
}

func (p *Pseudonym) finding(f *analyze.Finding) {
	known := names(f.Host, f.Subject.Host, f.Subject.Peer)
	f.ID, f.Incident = p.id(f.ID), p.id(f.Incident)
	p.ids(f.Because)
	for i := range f.Links {
		f.Links[i].ID = p.id(f.Links[i].ID)
	}
	f.Host, f.Subject.Host, f.Subject.Peer = p.address(f.Host), p.address(f.Subject.Host), p.address(f.Subject.Peer)
	for i := range f.Evidence {
		e := &f.Evidence[i]
		e.Flow, e.Note = p.text(e.Flow, known, true), p.text(e.Note, known, true)
	}
	for i := range f.Confidence.Tests {
		f.Confidence.Tests[i] = p.text(f.Confidence.Tests[i], known, false)
	}
	p.stages(f.Stages)
	f.Features = p.value(f.Features, known)
	f.Title, f.Summary = p.both(f.Title, known, true), p.both(f.Summary, known, true)
	for i := range f.Next {
		f.Next[i] = p.both(f.Next[i], known, false)
	}
	for i := range f.Rivals {
		f.Rivals[i] = p.both(f.Rivals[i], known, false)
	}
	f.Filter = p.text(f.Filter, known, false)
}
