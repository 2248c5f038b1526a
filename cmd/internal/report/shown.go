package report

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"jindan/analyze"
	"jindan/analyze/view"
)

// visible makes what is hostile in a text visible: a name with a control character or one that turns the text around says so.
func visible(s string) string {
	plain := true
	for _, r := range s {
		if Hostile(r) || r == utf8.RuneError || r == '\uFEFF' {
			plain = false
			break
		}
	}
	if !plain {
		var b strings.Builder
		for i, r := range s {
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
				fmt.Fprintf(&b, "⟨%02X⟩", s[i])
			case unicode.IsSpace(r):
				b.WriteByte(' ')
			case Hostile(r) || r == utf8.RuneError || r == '\uFEFF':
				fmt.Fprintf(&b, "⟨U+%04X⟩", r)
			default:
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + "…"
	}
	return s
}

// shown returns copies of what a page is made of with every text mapped.
func shown(in Input, d *analyze.Diagnosis, v *view.View, m func(string) string) (Input, *analyze.Diagnosis, *view.View) {
	list := func(ss []string) []string {
		out := make([]string, len(ss))
		for i, s := range ss {
			out[i] = m(s)
		}
		return out
	}
	text := func(t analyze.Text) analyze.Text { return analyze.Text{En: m(t.En), Ko: m(t.Ko)} }

	stages := func(t *analyze.Stages) *analyze.Stages {
		if t == nil {
			return nil
		}
		u := *t
		u.Host, u.Stages = m(t.Host), slices.Clone(t.Stages)
		for i := range u.Stages {
			u.Stages[i].Peer = m(u.Stages[i].Peer)
		}
		return &u
	}

	in.Files = slices.Clone(in.Files)
	for i := range in.Files {
		in.Files[i].Name, in.Files[i].Damage = m(in.Files[i].Name), m(in.Files[i].Damage)
	}
	in.Blind, in.Strangers = list(in.Blind), list(in.Strangers)

	e := *d
	e.Summary = text(d.Summary)
	e.Coverage.Sources, e.Coverage.Locals, e.Coverage.Local = list(d.Coverage.Sources), list(d.Coverage.Locals), m(d.Coverage.Local)
	e.Steps = slices.Clone(d.Steps)
	for i := range e.Steps {
		e.Steps[i].Reason, e.Steps[i].Stages = text(e.Steps[i].Reason), stages(e.Steps[i].Stages)
	}
	e.Findings = make([]*analyze.Finding, len(d.Findings))
	for i, f := range d.Findings {
		g := *f
		g.Subject.Host, g.Subject.Peer = m(f.Subject.Host), m(f.Subject.Peer)
		g.Host, g.Filter, g.Recording = m(f.Host), m(f.Filter), m(f.Recording)
		g.Title, g.Summary = text(f.Title), text(f.Summary)
		g.Confidence.Tests = list(f.Confidence.Tests)
		g.Next = slices.Clone(f.Next)
		for j := range g.Next {
			g.Next[j] = text(g.Next[j])
		}
		g.Rivals = slices.Clone(f.Rivals)
		for j := range g.Rivals {
			g.Rivals[j] = text(g.Rivals[j])
		}
		g.Evidence = slices.Clone(f.Evidence)
		for j := range g.Evidence {
			g.Evidence[j].Flow, g.Evidence[j].Note = m(g.Evidence[j].Flow), m(g.Evidence[j].Note)
		}
		g.Stages = stages(f.Stages)
		e.Findings[i] = &g
	}
	e.Incidents = slices.Clone(d.Incidents)
	for i := range e.Incidents {
		e.Incidents[i].Headline = text(d.Incidents[i].Headline)
	}

	w := *v
	w.Services = slices.Clone(v.Services)
	for i := range w.Services {
		w.Services[i].Addr = m(w.Services[i].Addr)
	}
	w.Resolvers = slices.Clone(v.Resolvers)
	for i := range w.Resolvers {
		w.Resolvers[i].Client, w.Resolvers[i].Server = m(w.Resolvers[i].Client), m(w.Resolvers[i].Server)
	}
	w.Flows = slices.Clone(v.Flows)
	for i := range w.Flows {
		w.Flows[i].From, w.Flows[i].To = m(w.Flows[i].From), m(w.Flows[i].To)
	}
	w.Changes = slices.Clone(v.Changes)
	for i := range w.Changes {
		w.Changes[i].Kind, w.Changes[i].What = m(w.Changes[i].Kind), m(w.Changes[i].What)
	}
	w.Connections = slices.Clone(v.Connections)
	for i := range w.Connections {
		w.Connections[i].Client, w.Connections[i].Server = m(w.Connections[i].Client), m(w.Connections[i].Server)
	}
	return in, &e, &w
}

// Redact replaces addresses and names by labels that stay the same within a page: host-1 is one host everywhere, and nobody can find
// out from the label which. Ports, times, sizes and counts stay.
func Redact(in Input, d *analyze.Diagnosis, v *view.View) (Input, *analyze.Diagnosis, *view.View) {
	labels, numbers := map[string]string{}, map[string]int{}
	label := func(kind, s string) string {
		if l := labels[s]; l != "" {
			return l
		}
		numbers[kind]++
		labels[s] = fmt.Sprintf("%s-%d", kind, numbers[kind])
		return labels[s]
	}
	files := map[string]bool{}
	for _, f := range in.Files {
		files[f.Name] = true
	}
	for _, s := range d.Coverage.Sources {
		files[s] = true
	}
	hosts := map[string]bool{} // and interfaces, processes, routes
	for _, f := range d.Findings {
		for _, h := range []string{f.Host, f.Subject.Host, f.Subject.Peer} {
			if _, err := netip.ParseAddr(h); err != nil && h != "" {
				hosts[h] = true
			}
		}
	}
	for _, c := range v.Changes {
		if c.What != "" {
			hosts[c.What] = true
		}
	}
	address := func(s string) string {
		for tail := ""; ; { // "2001:db8::1:" ends a clause
			if a, err := netip.ParseAddr(s); err == nil {
				return label("host", a.Unmap().String()) + tail
			}
			if !strings.HasSuffix(s, ":") {
				return s + tail
			}
			s, tail = s[:len(s)-1], ":"+tail
		}
	}
	// Compiled here and not at each start. An address with letters or colons before it is part of a longer word; netip decides what an
	// address is.
	ipv6 := regexp.MustCompile(`[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?`)
	ipv4 := regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}`)
	domain := regexp.MustCompile(`(?:[\pL\pN_](?:[\pL\pN_-]*[\pL\pN])?\.)+[\pL][\pL\pN-]*[\pL\pN]`)
	code := regexp.MustCompile("`[^`]*`")
	names := sortedKeys(hosts)
	slices.SortStableFunc(names, func(a, b string) int { return len(b) - len(a) }) // a name may be part of a longer one
	domains := func(s string) string {
		return domain.ReplaceAllStringFunc(s, func(m string) string { return label("name", strings.ToLower(m)) })
	}
	return shown(in, d, v, func(s string) string {
		if files[s] {
			return label("input", s)
		}
		for _, n := range names {
			if strings.Contains(s, n) {
				s = strings.ReplaceAll(s, n, label("name", n))
			}
		}
		s = ipv6.ReplaceAllStringFunc(s, address)
		s = ipv4.ReplaceAllStringFunc(s, address)
		if strings.Contains(s, " == ") || strings.Contains(s, "&&") { // a filter: its fields look like names
			return s
		}
		// In a command a word with dots is seldom the name of a host.
		var b strings.Builder
		at := 0
		for _, c := range code.FindAllStringIndex(s, -1) {
			b.WriteString(domains(s[at:c[0]]))
			b.WriteString(s[c[0]:c[1]])
			at = c[1]
		}
		b.WriteString(domains(s[at:]))
		return b.String()
	})
}
