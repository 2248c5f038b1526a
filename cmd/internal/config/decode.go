package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A decoder reads typed values from nodes into a Config, layer over layer, and collects the mistakes.
type decoder struct {
	opt    Options
	env    map[string]string
	errs   []*Error
	warn   []*Error
	certs  []Certificate
	origin originMap
	used   map[string]bool // environment variables that ${…} names
}

// originMap holds for the path of every value that is no default ("log.level",
// "sinks.central.brokers", "netns[0]") the node that it came from.
type originMap map[string]*node

// at is the origin of the value at path, or of the nearest that holds it.
func (o originMap) at(path string) *node {
	for path != "" {
		if n := o[path]; n != nil {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return &node{file: &source{name: "built-in defaults"}}
}

func (d *decoder) fail(e *Error) { d.errs = append(d.errs, e) }

func (d *decoder) failAt(path, format string, args ...any) {
	d.fail(d.origin.at(path).errorf(format, args...))
}

func (d *decoder) warnAt(path, format string, args ...any) {
	d.warn = append(d.warn, d.origin.at(path).errorf(format, args...))
}

// A field is a key of a mapping and where its value goes.
type field struct {
	key string
	v   reflect.Value
	tag reflect.StructTag
}

// fields lists the keys of a struct; those of a sink's Target are its own.
func fields(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch key := f.Tag.Get("yaml"); key {
		case "", "-":
		case ",inline":
			out = append(out, fields(v.Field(i).Elem().Elem())...)
		default:
			out = append(out, field{key, v.Field(i), f.Tag})
		}
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// mapping reads n into the struct v. what names the mapping in messages.
func (d *decoder) mapping(n *node, v reflect.Value, path, what string) {
	if n.kind != mapping {
		d.fail(n.errorf("expected a mapping, found %v", n.kind)) // its text may be a secret
		return
	}
	fs := fields(v)
	known := make([]string, len(fs))
	for i, f := range fs {
		known[i] = f.key
	}
	for i, k := range n.keys {
		at := slices.Index(known, k.text)
		if at < 0 {
			hint := Near(k.text, known)
			if hint == "" {
				hint = "; known are " + strings.Join(known, ", ")
			}
			d.fail(k.errorf("unknown key %q%s%s", k.text, what, hint))
			continue
		}
		d.value(n.items[i], fs[at], join(path, k.text))
	}
}

// value reads n into f.
func (d *decoder) value(n *node, f field, path string) {
	if n.kind == broken {
		return
	}
	if path != "sinks" {
		d.origin[path] = n
	}
	switch p := f.v.Addr().Interface().(type) {
	case *[]Sink:
		d.sinks(n, p)
	case *[]string:
		d.list(n, p, f.tag, path)
	case *map[string]Secret:
		d.headers(n, p, path)
	case *Duration, *Size, *Percent, *Secret, *string, *bool, *int:
		d.scalar(n, p, f.tag)
	default:
		v := f.v
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		d.mapping(n, v, path, " in "+f.key)
		d.needed(n, v, f.key)
	}
}

// needed reports the keys that n must have and has not, unless they have a default.
func (d *decoder) needed(n *node, v reflect.Value, what string) {
	if n.kind != mapping {
		return
	}
	for _, f := range fields(v) {
		if f.tag.Get("need") != "" && n.get(f.key) == nil && f.v.IsZero() {
			d.fail(n.errorf("%s needs the key %q", what, f.key))
		}
	}
}

func (d *decoder) list(n *node, to *[]string, tag reflect.StructTag, path string) {
	if n.kind != sequence {
		d.fail(n.errorf("expected a list such as [a, b], found %s", n.quote()))
		return
	}
	*to = nil
	for i, item := range n.items {
		var s string
		d.origin[fmt.Sprintf("%s[%d]", path, i)] = item
		if !d.scalar(item, &s, tag) {
			continue
		}
		if slices.Contains(*to, s) {
			d.fail(item.errorf("%s is given twice", item.quote()))
		}
		*to = append(*to, s)
	}
	if word := tag.Get("is"); (word == "interface" && slices.Contains(*to, "any") || word == "netns" && slices.Contains(*to, "all")) && len(*to) > 1 {
		d.fail(n.errorf("%q stands for every one and takes no others beside it", map[string]string{"interface": "any", "netns": "all"}[word]))
	}
	if len(*to) == 0 && len(n.items) == 0 && tag.Get("need")+tag.Get("enum") != "" {
		d.fail(n.errorf("the list is empty"))
	}
}

// scalar reads one value, and checks it by its tags: enum (allowed words), min and max (in the
// value's own notation), is (a format of formats.go), need (not empty).
func (d *decoder) scalar(n *node, to any, tag reflect.StructTag) bool {
	if n.kind != scalar {
		d.fail(n.errorf("expected a single value, found %v", n.kind))
		return false
	}
	if p, ok := to.(*Secret); ok {
		return d.secret(n, p)
	}
	s, ok := d.expand(n)
	if !ok {
		return false
	}
	wrong := func(want string) bool {
		d.fail(n.errorf("expected %s, found %s%s", want, n.quote(), Near(s, strings.Fields(tag.Get("enum")))))
		return false
	}
	low, high := tag.Get("min"), tag.Get("max")
	in := func(below, above bool) bool {
		if below || above {
			d.fail(n.errorf("%s is out of range: %s to %s%s", strings.Trim(n.quote(), `"`), low, high, tag.Get("unit")))
		}
		return !below && !above
	}
	switch p := to.(type) {
	case *bool:
		if n.quoted || s != "true" && s != "false" {
			return wrong("true or false")
		}
		*p = s == "true"
	case *int:
		i, err := strconv.Atoi(s)
		if err != nil || n.quoted {
			return wrong("a whole number of" + tag.Get("unit"))
		}
		least, _ := strconv.Atoi(low)
		most, _ := strconv.Atoi(high)
		if !in(i < least, i > most) {
			return false
		}
		*p = i
	case *Duration:
		t, err := time.ParseDuration(s)
		if err != nil {
			return wrong("a duration with its unit, such as 500ms, 10s, 5m or 1h")
		}
		least, _ := time.ParseDuration(low)
		most, _ := time.ParseDuration(high)
		if !in(t < least, t > most) {
			return false
		}
		*p = t
	case *Size:
		b, ok := parseSize(s)
		if !ok {
			return wrong("a size with its unit, such as 256B, 64KiB, 16MiB or 1GiB")
		}
		least, _ := parseSize(low)
		most, _ := parseSize(high)
		if !in(b < least, b > most) {
			return false
		}
		*p = b
	case *Percent:
		c, ok := parsePercent(s)
		if !ok {
			return wrong("a percentage such as 5%")
		}
		least, _ := parsePercent(low)
		most, _ := parsePercent(high)
		if !in(c < least, c > most) {
			return false
		}
		*p = c
	case *string:
		if words := strings.Fields(tag.Get("enum")); len(words) > 0 && !slices.Contains(words, s) {
			return wrong(oneOf(words))
		}
		if s == "" && tag.Get("need") != "" {
			d.fail(n.errorf("the text is empty"))
			return false
		}
		if !d.format(n, tag.Get("is"), s) {
			return false
		}
		*p = s
	}
	return true
}

// reference is ${NAME}; $${ stands for a literal ${.
var reference = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]{0,127}\}|)`) })

// expand is the text of n with the environment's values for references. Only files have them.
func (d *decoder) expand(n *node) (string, bool) {
	ok, s := true, n.text
	if len(s) > maxText {
		d.fail(n.errorf("the text has %d bytes; at most %d are read", len(s), maxText))
		return "", false
	}
	if n.line > 0 {
		s = reference().ReplaceAllStringFunc(n.text, func(ref string) string {
			if strings.HasPrefix(ref, "$$") {
				return ref[1:]
			}
			name, closed := strings.CutSuffix(ref[2:], "}")
			if !closed {
				d.fail(n.errorf("a reference to the environment is ${NAME}; a literal ${ is written $${"))
				ok = false
				return ""
			}
			v, set := d.env[name]
			if !set {
				d.fail(n.errorf("the environment has no variable %s", name))
				ok = false
			}
			d.used[name] = true
			return v
		})
	}
	if ok && strings.ContainsFunc(s, unicode.IsControl) {
		d.fail(n.errorf("the text has a control character"))
		return "", false
	}
	if ok && !utf8.ValidString(s) { // of the environment
		d.fail(n.errorf("the text is not UTF-8"))
		return "", false
	}
	return s, ok
}

// refers reports whether n's text has a reference.
func (n *node) refers() bool {
	return n.line > 0 && slices.ContainsFunc(reference().FindAllString(n.text, -1), func(r string) bool { return !strings.HasPrefix(r, "$$") })
}
