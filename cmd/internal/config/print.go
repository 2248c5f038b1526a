package config

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Example is a complete configuration with every key, its default and the reason for it.
//
//go:embed jindan.yaml
var Example string

// Print writes c as YAML with comments and, where a value is no default, with where it came from.
// Loaded again in the same environment it means the same: secrets are shown as the references that
// were written.
func (c *Config) Print(w io.Writer) error {
	p := &printer{origin: c.origin, comments: comments(Example)}
	for _, f := range fields(reflect.ValueOf(c).Elem()) {
		p.field(f, f.key, 0, true)
	}
	_, err := io.WriteString(w, p.out.String())
	return err
}

type printer struct {
	out      strings.Builder
	origin   originMap
	comments map[string][]string
}

// field writes one key. all: keys without a value, too.
func (p *printer) field(f field, path string, depth int, all bool) {
	v, indent := f.v, strings.Repeat("  ", depth)
	if !all && v.IsZero() && p.origin[path] == nil {
		return
	}
	if _, ok := v.Interface().(Secret); ok && p.origin != nil && p.origin[path] == nil {
		return // it came from a file, and that is shown
	}
	if depth == 0 {
		p.out.WriteByte('\n')
	}
	for _, c := range p.comments[path] {
		p.out.WriteString(indent + c + "\n")
	}
	head := indent + f.key + ":"
	switch x := v.Interface().(type) {
	case []Sink:
		p.sinks(x, head)
	case []string:
		words := make([]string, len(x))
		for i, s := range x {
			words[i] = p.text(s, fmt.Sprintf("%s[%d]", path, i), true)
		}
		if list := strings.Join(words, ", "); len(list) <= 100 {
			p.line(head+" ["+list+"]", path, false)
			return
		}
		p.line(head, path, false)
		for _, w := range words {
			p.out.WriteString(indent + "  - " + w + "\n")
		}
	case map[string]Secret:
		if len(x) == 0 {
			p.line(head+" {}", path, false)
			return
		}
		p.out.WriteString(head + "\n")
		for _, k := range slices.Sorted(maps.Keys(x)) {
			n := p.origin[path+"."+k]
			secret := n == nil || n.refers()
			p.line(indent+"  "+quoteYAML(k, true)+": "+p.secret(x[k], path+"."+k), path+"."+k, secret)
		}
	case Secret:
		p.line(head+" "+p.secret(x, path), path, true)
	case Duration:
		p.line(head+" "+formatDuration(x), path, false)
	case string:
		p.line(head+" "+p.text(x, path, false), path, false)
	case bool, int, Size, Percent:
		p.line(fmt.Sprintf("%s %v", head, x), path, false)
	default:
		if v.Kind() == reflect.Pointer {
			v, all = v.Elem(), false
		}
		outer := p.out.String()
		p.out.Reset()
		for _, inner := range fields(v) {
			p.field(inner, path+"."+inner.key, depth+1, all)
		}
		inner := p.out.String()
		p.out.Reset()
		if inner == "" {
			head += " {}" // without keys, but there: "tls: {}"
		}
		p.out.WriteString(outer + head + "\n" + inner)
	}
}

// line writes a line and where its value came from.
func (p *printer) line(s, path string, secret bool) {
	var notes []string
	if secret {
		notes = append(notes, masked)
	}
	if n := p.origin[path]; n != nil {
		from := n.file.name
		if n.line > 0 {
			from = fmt.Sprintf("%s:%d", filepath.Base(from), n.line)
		}
		notes = append(notes, from)
	}
	if len(notes) > 0 {
		s += "  # " + strings.Join(notes, ", ")
	}
	p.out.WriteString(s + "\n")
}

func (p *printer) sinks(sinks []Sink, head string) {
	if len(sinks) == 0 {
		p.line(head+" []", "sinks", false)
		return
	}
	p.out.WriteString(head + "\n")
	for i := range sinks {
		path := "sinks." + sinks[i].Name
		start := p.out.Len()
		for _, f := range fields(reflect.ValueOf(&sinks[i]).Elem()) {
			p.field(f, path+"."+f.key, 2, false)
		}
		item := p.out.String()
		p.out.Reset()
		p.out.WriteString(item[:start] + "  - " + item[start+len("    "):])
	}
}

// text is s, or the reference that it was made from.
func (p *printer) text(s, path string, inList bool) string {
	if n := p.origin[path]; n != nil && n.refers() {
		return quoteYAML(n.text, inList)
	}
	return quoteYAML(strings.ReplaceAll(s, "${", "$${"), inList)
}

// secret is the reference that s was made from, or the literal text of a header that is none;
// for a value of unknown origin, "<secret>".
func (p *printer) secret(s Secret, path string) string {
	if p.origin[path] == nil {
		return quoteYAML(masked, false)
	}
	return p.text(string(s), path, false)
}

var (
	plain       = regexp.MustCompile(`^[A-Za-z/]([A-Za-z0-9_./@+:-]*[A-Za-z0-9_/])?$`)
	plainInList = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)
	yamlWord    = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|null|y|n|nan|inf)$`)
)

// quoteYAML is s as a YAML scalar; a string of JSON is one.
func quoteYAML(s string, inList bool) string {
	p := plain
	if inList {
		p = plainInList
	}
	if p.MatchString(s) && !yamlWord.MatchString(s) {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// comments finds the comment lines right above each key of the example; sinks have none.
func comments(example string) map[string][]string {
	out := map[string][]string{}
	var block []string
	section := ""
	for l := range strings.SplitSeq(example, "\n") {
		body := strings.TrimLeft(l, " ")
		key, _, isKey := strings.Cut(body, ":")
		switch {
		case strings.HasPrefix(body, "#"):
			block = append(block, body)
			continue
		case !isKey || strings.HasPrefix(body, "-"):
		case body == l:
			section = key
			out[key] = block
		case section != "sinks":
			out[section+"."+key] = block
		}
		block = nil
	}
	return out
}
