package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// DefaultFile is read if it exists and no other is named.
const DefaultFile = "/etc/jindan/jindan.yaml"

// dropIns is the directory beside the file whose *.yaml files are read after it, by name.
const dropIns = "jindan.d"

// prefix of the environment variables that set a key: JINDAN_LOG_LEVEL sets log.level.
const prefix = "JINDAN_"

// Options says what to read, and how to judge it.
type Options struct {
	File    string    // empty: DefaultFile, which may be absent
	Environ []string  // NAME=value, as os.Environ has them
	Now     time.Time // to judge certificates by
	Strict  bool      // an expired certificate is a mistake, not a warning
	// Filter checks a capture filter. at is the mistake's place in bytes; -1: the whole. Nil: none is checked.
	Filter func(expr string) (at int, err error)
	Rules  []string // the rules that a sink's filter may name; none: any

	flags []setting
}

type setting struct{ flag, key, value string }

// Set sets a key such as log.level from a flag, above all other layers. Lists are separated by
// commas.
func (o *Options) Set(flag, key, value string) {
	o.flags = append(o.flags, setting{flag, key, value})
}

// Read says what a configuration was made from.
type Read struct {
	Files        []string
	Variables    []string // names of the environment variables that set a key
	Flags        []string
	Certificates []Certificate
	Warnings     []*Error
}

// Load reads the configuration. The error joins every mistake that was found, each an [*Error], in
// the order of files and lines; no secret is in it.
func Load(o Options) (*Config, error) {
	d := &decoder{opt: o, env: map[string]string{}, origin: originMap{}, used: map[string]bool{}}
	for _, kv := range o.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			d.env[name] = value
		}
	}
	c := Default()
	d.files(c)
	d.environment(c)
	for _, s := range o.flags {
		if d.set(c, s.key, s.flag, s.value) {
			c.Read.Flags = append(c.Read.Flags, s.flag)
		}
	}
	d.check(c)
	c.Read.Warnings, c.Read.Certificates, c.origin = d.warn, d.certs, d.origin
	if len(d.errs) == 0 {
		return c, nil
	}
	// Files stay in the order in which they were read: what they are named says nothing.
	order := map[string]int{}
	for i, f := range c.Read.Files {
		order[f] = i - len(c.Read.Files)
	}
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	errs := make([]error, 0, len(d.errs))
	for i, e := range d.errs {
		if i == 0 || *e != *d.errs[i-1] {
			errs = append(errs, e)
		}
	}
	return nil, errors.Join(errs...)
}

// files reads the file and its drop-ins.
func (d *decoder) files(c *Config) {
	name := d.opt.File
	if name == "" {
		name = DefaultFile
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			name = ""
		}
	}
	if name != "" {
		d.layer(c, name)
	}
	dir := filepath.Join(filepath.Dir(cmp.Or(name, DefaultFile)), dropIns)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.fail(&Error{File: dir, Msg: fmt.Sprintf("cannot be read: %v", cause(err))})
	}
	for _, e := range entries {
		switch ext := filepath.Ext(e.Name()); {
		case strings.HasPrefix(e.Name(), "."), e.IsDir():
		case ext == ".yml":
			d.fail(&Error{File: filepath.Join(dir, e.Name()), Msg: "only *.yaml files are read here; rename it"})
		case ext == ".yaml":
			d.layer(c, filepath.Join(dir, e.Name()))
		}
	}
}

func (d *decoder) layer(c *Config, name string) {
	data, _, err := readFile(name, maxFile)
	if errors.Is(err, errLarge) {
		err = nil // parseYAML says so
	}
	if err != nil {
		d.fail(&Error{File: name, Msg: fmt.Sprintf("cannot be read: %v", cause(err))})
		return
	}
	c.Read.Files = append(c.Read.Files, name)
	if n := parseYAML(name, data, d.fail); n != nil {
		d.mapping(n, reflect.ValueOf(c).Elem(), "", "")
	}
}

// environment applies JINDAN_SECTION_KEY. A variable that names no key is a mistake if it looks
// like one, else a warning: Kubernetes sets variables of its own for a service named jindan.
func (d *decoder) environment(c *Config) {
	keys := map[string]string{} // key by variable
	for _, k := range leaves(reflect.ValueOf(c).Elem(), "") {
		keys[prefix+strings.ToUpper(strings.ReplaceAll(k, ".", "_"))] = k
	}
	known := slices.Sorted(maps.Keys(keys))
	var names []string
	for name := range d.env {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		key, ok := keys[name]
		e := &Error{File: name, Msg: "there is no such key" + Near(name, known)}
		switch {
		case ok:
			if d.set(c, key, name, d.env[name]) {
				c.Read.Variables = append(c.Read.Variables, name)
			}
		case d.used[name]:
		case strings.HasPrefix(name, prefix+"SINKS"):
			e.Msg = "sinks are set in files only; ${" + name + "} there stands for this variable"
			d.fail(e)
		case Near(name, known) != "":
			d.fail(e)
		default:
			e.Msg += "; the variable is ignored"
			d.warn = append(d.warn, e)
		}
	}
}

// leaves lists the keys that one text can set.
func leaves(v reflect.Value, path string) (out []string) {
	for _, f := range fields(v) {
		switch f.v.Interface().(type) {
		case []Sink:
		default:
			if f.v.Kind() == reflect.Struct {
				out = append(out, leaves(f.v, join(path, f.key))...)
			} else {
				out = append(out, join(path, f.key))
			}
		}
	}
	return out
}

// set reads a text from an environment variable or a flag.
func (d *decoder) set(c *Config, key, from, text string) bool {
	src := &source{name: from}
	v := reflect.ValueOf(c).Elem()
	rest, path := key, ""
	for {
		var word string
		word, rest, _ = strings.Cut(rest, ".")
		path = join(path, word)
		i := -1
		if v.Kind() == reflect.Struct {
			i = slices.IndexFunc(fields(v), func(f field) bool { return f.key == word })
		}
		if i < 0 || path == "sinks" {
			d.fail(&Error{File: from, Msg: fmt.Sprintf("there is no key %q that a flag could set", key)})
			return false
		}
		f := fields(v)[i]
		if rest != "" {
			v = f.v
			continue
		}
		n := &node{file: src, text: text}
		if _, ok := f.v.Interface().([]string); ok {
			n.kind = sequence
			for s := range strings.SplitSeq(text, ",") {
				if s = strings.TrimSpace(s); s != "" {
					n.items = append(n.items, &node{file: src, text: s})
				}
			}
		}
		before := len(d.errs)
		d.value(n, f, path)
		return len(d.errs) == before
	}
}

// check holds the values against each other.
func (d *decoder) check(c *Config) {
	if n := d.origin["capture.filter"]; n != nil && c.Capture.Filter != "" && d.opt.Filter != nil {
		if at, err := d.opt.Filter(c.Capture.Filter); err != nil && n.refers() {
			d.fail(n.errorf("%s is no capture filter", n.quote()))
		} else if err != nil {
			d.fail(n.errorAt(at, "%v", err))
		}
	}
	if n := d.origin["capture.interfaces"]; n != nil && n.kind == sequence && len(n.items) == 0 {
		d.fail(n.errorf("the list is empty; to capture nothing, set capture.enabled: false"))
	}
	if c.Sockets.FullEvery < c.Sockets.GateEvery {
		d.failFirst([]string{"sockets.full_every", "sockets.gate_every"},
			"full_every (%s) is shorter than gate_every (%s)", formatDuration(c.Sockets.FullEvery), formatDuration(c.Sockets.GateEvery))
	}
	var rings, recorder Size
	if c.Capture.Enabled {
		rings = c.Capture.RingSize * Size(c.Capture.Fanout*len(c.Capture.Interfaces))
	}
	if c.Recorder.Enabled {
		recorder = c.Recorder.MaxBytes
	}
	if rings+recorder > c.Budget.Memory {
		d.failFirst([]string{"capture.fanout", "capture.ring_size", "capture.interfaces", "recorder.max_bytes", "budget.memory"},
			"the capture rings (%v) and the recorder (%v) exceed budget.memory (%v)", rings, recorder, c.Budget.Memory)
	}
	if c.Recorder.Enabled && c.Recorder.MaxTotal < c.Recorder.MaxBytes {
		d.failFirst([]string{"recorder.max_total", "recorder.max_bytes"},
			"max_total (%v) is less than one incident, max_bytes (%v)", c.Recorder.MaxTotal, c.Recorder.MaxBytes)
	}
	if host, _, err := net.SplitHostPort(c.HTTP.Listen); err == nil && !loopback(host) {
		d.warnAt("http.listen", "other hosts can read findings at %s: there is no authentication", c.HTTP.Listen)
	}
	for i := range c.Sinks {
		c.Sinks[i].check(d)
	}
}

// failFirst reports a mistake at the first of the paths that somebody set.
func (d *decoder) failFirst(paths []string, format string, args ...any) {
	for _, p := range paths {
		if d.origin[p] != nil {
			d.failAt(p, format, args...)
			return
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
