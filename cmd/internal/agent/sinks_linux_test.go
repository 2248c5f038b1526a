package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/config"
)

// configure loads a configuration as a user writes it.
func configure(t *testing.T, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jindan.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Options{File: file, Now: time.Now(), Environ: []string{"PASSWORD=secret", "ELASTIC_KEY=secret"}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// everySink is one sink of each kind with every key that it takes.
const everySink = `
sinks:
  - {type: file, path: /tmp/f, rotate_size: 1MiB, rotate_keep: 3, encoding: ecs, filter: {severity: warn, rules: [surge], states: [open]}, pseudonymise: {key_file: DIR/key}}
  - {type: journald}
  - {type: syslog, address: "tls://h:6514", facility: local0, max_bytes: 4KiB, encoding: native, tls: TLS}
  - {type: otlp, endpoint: "https://h:4318", headers: {A: b}, tls: TLS}
  - {type: kafka, brokers: ["h:9092"], topic: t, sasl: {mechanism: SCRAM-SHA-256, user: u, password: "${PASSWORD}"}, tls: TLS}
  - {type: nats, url: "tls://h:4222", subject: s, credentials_file: DIR/key, tls: TLS}
  - {type: alertmanager, url: "https://h:9093", basic_auth: {user: u, password: "${PASSWORD}"}, tls: TLS}
  - {type: webhook, url: "https://h/x", headers: {A: b}, format: ndjson, batch: 7, tls: TLS}
  - {type: fluent, address: "tls://h:24224", tag: t, tls: TLS}
`

// TestSinkKeys: each key of each kind of sink changes what is delivered, and how.
func TestSinkKeys(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), bytes.Repeat([]byte("k"), 40), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("DIR", dir, "TLS", "{server_name: s}").Replace(everySink)
	for i, s := range configure(t, text).Sinks {
		t.Run(s.Type, func(t *testing.T) {
			before := described(&s)
			changed := 0
			// Each is changed in a configuration of its own: what is behind a pointer is shared by copies.
			for path := range leaves(reflect.ValueOf(&s).Elem(), "") {
				if path == "Type" || strings.HasSuffix(path, "File") { // Target stands for the first; Load reads the others into a secret
					if path != "Target.CredentialsFile" {
						continue
					}
				}
				c := &configure(t, text).Sinks[i]
				change(leaves(reflect.ValueOf(c).Elem(), "")[path])
				if changed++; described(c) == before {
					t.Errorf("the key behind %s has no effect", path)
				}
			}
			if changed < 4 {
				t.Errorf("%d keys looked at", changed)
			}
		})
	}
}

func described(c *config.Sink) string {
	o, options := output(c)
	return fmt.Sprintf("%+v %+v", o, options)
}

// leaves are the fields below v that hold values.
func leaves(v reflect.Value, path string) map[string]reflect.Value {
	found := map[string]reflect.Value{}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return leaves(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			for p, f := range leaves(v.Field(i), strings.TrimPrefix(path+"."+v.Type().Field(i).Name, ".")) {
				found[p] = f
			}
		}
	default:
		found[path] = v
	}
	return found
}

func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("changed")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.ValueOf("changed").Convert(v.Type().Elem())))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]config.Secret{"A": "changed"}))
	default:
		panic(v.Kind())
	}
}

// TestStdout: the keys of the stdout sink say what goes to standard output; --output says how, if it is given.
func TestStdout(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, bytes.Repeat([]byte("k"), 40), 0o600); err != nil {
		t.Fatal(err)
	}
	finding := func(id, rule, severity string, state analyze.State) *analyze.Finding {
		return &analyze.Finding{Schema: analyze.FindingSchema, ID: id, Rule: rule, Severity: severity, State: state,
			Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: "10.1.2.3"}}
	}
	all := []*analyze.Finding{finding("a", "surge", "error", analyze.Open), finding("b", "surge", "info", analyze.Open),
		finding("c", "close-wait", "error", analyze.Open), finding("a", "surge", "error", analyze.Resolved)}
	for _, c := range []struct {
		sink, format string
		lines        int
		has, hasNot  string
	}{
		{"", "", 4, `"schema":"jindan.finding/v1"`, "@timestamp"},
		{"encoding: ecs", "", 4, `"ip":"10.1.2.3"`, "\n{\"schema"},
		{"encoding: ecs", "ndjson", 4, `"schema":"jindan.finding/v1"`, "@timestamp"},
		{"", "ecs", 4, `"@timestamp"`, "\n{\"schema"},
		{"filter: {severity: warn}", "", 3, `"id":"c"`, `"id":"b"`},
		{"filter: {rules: [surge]}", "", 3, `"id":"b"`, `"id":"c"`},
		{"filter: {states: [resolved]}", "", 1, "resolved", `"state":"open"`},
		{"pseudonymise: {key_file: " + key + "}", "", 4, `"host":"ip-`, "10.1.2.3"},
	} {
		more := ""
		if c.sink != "" {
			more = ", " + c.sink
		}
		cfg := configure(t, "sinks: [{type: stdout"+more+"}]")
		var b bytes.Buffer
		d, err := direct(cfg, c.format, &b)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if err := d.Finding(f); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(b.String(), "\n"); n != c.lines || !strings.Contains(b.String(), c.has) || strings.Contains(b.String(), c.hasNot) {
			t.Errorf("%s, --output %q: %d lines, want %d with %s, without %s:\n%s", c.sink, c.format, n, c.lines, c.has, c.hasNot, b.String())
		}
	}
	if _, err := direct(configure(t, "sinks: [{type: stdout, pseudonymise: {key_file: "+key+"}}]"), "text", &bytes.Buffer{}); err == nil {
		t.Error("text would show what is to be hidden")
	}
	if d, err := direct(configure(t, "sinks: []"), "ndjson", &bytes.Buffer{}); d != nil || err != nil {
		t.Errorf("no stdout sink: %v %v", d, err)
	}
}

// TestReadmeSinks: the sinks that the sinks' README shows are taken as they stand.
func TestReadmeSinks(t *testing.T) {
	b, err := os.ReadFile("../sink/README.md")
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range strings.Split(string(b), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if !strings.HasPrefix(text, "sinks: [{type:") {
			continue
		}
		n++
		cfg := configure(t, strings.ReplaceAll(text, "/etc/jindan/kafka.password", password))
		if len(cfg.Read.Warnings) > 0 {
			t.Errorf("%s%v", text, cfg.Read.Warnings)
		}
		_, options := output(&cfg.Sinks[0])
		s, err := open(options)
		if err != nil {
			t.Errorf("%s%v", text, err)
			continue
		}
		s.Close()
	}
	if n < 8 {
		t.Errorf("the README shows %d sinks", n)
	}
}
