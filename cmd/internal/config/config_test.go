package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// write puts files, by their paths below a new directory, and returns the directory.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads files, the main one of which is jindan.yaml.
func load(t testing.TB, files map[string]string, environ ...string) (*Config, error) {
	t.Helper()
	dir := write(t, files)
	return Load(Options{File: filepath.Join(dir, "jindan.yaml"), Environ: append(environ, "DIR="+dir), Now: testNow})
}

// values is c without where it came from.
func values(c *Config) *Config {
	v := *c
	v.Read, v.origin = Read{}, nil
	return &v
}

func mustLoad(t testing.TB, files map[string]string, environ ...string) *Config {
	t.Helper()
	c, err := load(t, files, environ...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func show(t testing.TB, c *Config) string {
	t.Helper()
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExampleIsTheDefault(t *testing.T) {
	c := mustLoad(t, map[string]string{"jindan.yaml": Example})
	if got, want := values(c), Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("jindan.yaml means\n%s\nthe defaults are\n%s", show(t, got), show(t, want))
	}
	_, body, _ := strings.Cut(Example, "\n\n")
	if printed := strings.TrimPrefix(show(t, Default()), "\n"); !strings.HasPrefix(body, printed) {
		t.Errorf("jindan.yaml lacks a key, or shows it otherwise than it is printed:\n%s", printed)
	}
}

// The sinks in the example's comments are what a user takes the comment signs from.
func TestExampleSinks(t *testing.T) {
	_, text, _ := strings.Cut(Example, "\n#\n#  - type:")
	first, rest, _ := strings.Cut(text, "\n")
	lines := []string{"sinks:", "  - type:" + first}
	for l := range strings.SplitSeq(rest, "\n") {
		lines = append(lines, strings.TrimPrefix(l, "#"))
	}
	text = strings.Join(lines, "\n")
	pair := newPair(t, "client", testNow.Add(365*24*time.Hour))
	files := map[string]string{"ca.pem": pair.cert, "client.pem": pair.cert, "client.key": pair.key, "kafka.password": "k", "nats.creds": "n"}
	files["jindan.yaml"] = strings.ReplaceAll(text, "/etc/jindan/", "${DIR}/")
	c := mustLoad(t, files, "OTEL_TOKEN=o", "ALERTMANAGER_PASSWORD=a", "HOOK_PATH=h")
	seen := map[string]bool{"stdout": true} // the built-in one
	for _, s := range c.Sinks {
		seen[s.Type] = true
	}
	for _, typ := range sinkTypes {
		if !seen[typ] {
			t.Errorf("the example has no %s sink", typ)
		}
	}
	// What the comments show as optional with a value is the default.
	for _, s := range c.Sinks {
		def := newSink(s.Type)
		switch got := s.Target.(type) {
		case *File:
			want := def.Target.(*File)
			want.Path = got.Path
			if *got != *want {
				t.Errorf("file: %+v, the defaults are %+v", got, want)
			}
		case *Webhook:
			if want := def.Target.(*Webhook); got.Format != want.Format || got.Batch != want.Batch {
				t.Errorf("webhook: %+v, the defaults are %+v", got, want)
			}
		case *Syslog:
			if want := def.Target.(*Syslog); got.Facility != want.Facility {
				t.Errorf("syslog: %q, the default is %q", got.Facility, want.Facility)
			}
		case *Fluent:
			if want := def.Target.(*Fluent); got.Tag != want.Tag {
				t.Errorf("fluent: %q, the default is %q", got.Tag, want.Tag)
			}
		}
	}
}

func TestLayers(t *testing.T) {
	dir := write(t, map[string]string{
		"jindan.yaml":             "log: {level: warn, format: json}\ncapture: {interfaces: [eth0, eth1], fanout: 2}\nheartbeat: 2m\n",
		"jindan.d/20-b.yaml":      "log: {level: error}\ncapture:\n  interfaces: [eth2]\nheartbeat: 3m\n",
		"jindan.d/10-a.yaml":      "heartbeat: 4m\nbudget: {memory: 300MiB}\n",
		"jindan.d/30-empty.yaml":  "# nothing yet\n",
		"jindan.d/.hidden.yaml":   "not: read\n",
		"jindan.d/README.md":      "not read",
		"jindan.d/old/x.yaml":     "not: read\n",
		"elsewhere/jindan.d/x.md": "",
	})
	o := Options{File: filepath.Join(dir, "jindan.yaml"), Now: testNow, Environ: []string{
		"JINDAN_CAPTURE_FANOUT=3", "JINDAN_NETNS=blue, green", "JINDAN_BUDGET_CPU=2.5%", "JINDAN_HTTP_LISTEN=", "JINDAN_LOCAL=192.0.2.10", "PATH=/bin"}}
	o.Set("--log-level", "log.level", "info")
	o.Set("--snap", "capture.snap_length", "128B")
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Log = Log{"info", "json"}
	want.Capture.Interfaces = []string{"eth2"}
	want.Capture.Fanout = 3
	want.Capture.SnapLength = 128
	want.Heartbeat = 3 * time.Minute
	want.Budget = Budget{2.5, 300 * MiB}
	want.Netns = []string{"blue", "green"}
	want.HTTP.Listen = ""
	want.Local = "192.0.2.10"
	if !reflect.DeepEqual(values(c), want) {
		t.Errorf("got\n%s\nwant\n%s", show(t, c), show(t, want))
	}
	var read []string
	for _, f := range c.Read.Files {
		read = append(read, filepath.Base(f))
	}
	if got := fmt.Sprint(read, c.Read.Variables, c.Read.Flags); got != "[jindan.yaml 10-a.yaml 20-b.yaml 30-empty.yaml]"+
		" [JINDAN_BUDGET_CPU JINDAN_CAPTURE_FANOUT JINDAN_HTTP_LISTEN JINDAN_LOCAL JINDAN_NETNS] [--log-level --snap]" {
		t.Error("read", got)
	}
	printed := show(t, c)
	for _, line := range []string{
		"  level: info  # --log-level\n", "  format: json  # jindan.yaml:1\n", "  interfaces: [eth2]  # 20-b.yaml:3\n",
		"heartbeat: 3m  # 20-b.yaml:4\n", "  memory: 300MiB  # 10-a.yaml:2\n", "  fanout: 3  # JINDAN_CAPTURE_FANOUT\n", "  procfs: /proc\n",
	} {
		if !strings.Contains(printed, line) {
			t.Errorf("no line %q in\n%s", line, printed)
		}
	}
}

func TestSinksAddUpByName(t *testing.T) {
	c := mustLoad(t, map[string]string{
		"jindan.yaml":        "sinks:\n  - type: stdout\n  - {type: file, name: all, path: /var/log/a, rotate_keep: 3}\n",
		"jindan.d/1.yaml":    "sinks:\n  - {type: journald, filter: {severity: error}}\n  - {type: file, name: all, path: /var/log/b}\n",
		"jindan.d/none.yaml": "sinks: []\n",
	})
	var got []string
	for _, s := range c.Sinks {
		got = append(got, s.Type+"/"+s.Name)
	}
	if fmt.Sprint(got) != "[stdout/stdout file/all journald/journald]" {
		t.Fatal(got)
	}
	if f := c.Sinks[1].Target.(*File); f.Path != "/var/log/b" || f.RotateKeep != 7 {
		t.Errorf("the second takes the place of the first: %+v", f)
	}
	if p := show(t, c); strings.Contains(p, "rotate_keep: 7  #") || !strings.Contains(p, "path: /var/log/b  # 1.yaml:3") {
		t.Errorf("origins of the sink that was replaced are left:\n%s", p)
	}
	if c := mustLoad(t, map[string]string{"jindan.yaml": "sinks: []\n"}); len(c.Sinks) != 0 || !strings.Contains(show(t, c), "\nsinks: []") {
		t.Errorf("sinks: [] is no sink, got %v", c.Sinks)
	}
}

const full = `
capture: {filter: "tcp or udp port 53", interfaces: ["lo", 'eth0.100', "null"]}
netns: [all]
local: "192.0.2.1, 2001:db8::/64"
log: {level: "${LEVEL}"}
budget: {cpu: 0012.50 %}
recorder: {keep: 1h0m0s, enabled: false}
heartbeat: 90s
sinks:
  - type: kafka
    brokers: ["b1:9092", "[2001:db8::1]:9092", "${BROKER}:9092"]
    topic: a$${b
    sasl: {mechanism: PLAIN, user: "x # y", password: "${PASS}"}
    tls: {}
  - {type: otlp, endpoint: "http://127.0.0.1:4318", headers: {Authorization: "Bearer ${PASS}", X-Tenant: "gp: ki", 'true': "no", X-Open: "a$${b"}}
  - {type: webhook, name: hook, url: "https://h.example/in?t=${PASS}", batch: 5, encoding: ecs, filter: {rules: [close-wait], states: [open]}}
  - type: alertmanager
    url: http://a.example:9093
    basic_auth: {user: "user ☃ \u2028", password_file: "${DIR}/pw"}
    pseudonymise: {key_file: "${DIR}/key"}
  - {type: nats, url: "nats://n", subject: a.b, credentials_file: "${DIR}/pw"}
  - {type: syslog, address: "unix:/dev/log"}
  - type: kafka
    name: long
    brokers: [LONG]
    topic: t
`

func TestRoundTrip(t *testing.T) {
	var long []string
	for i := range 200 {
		long = append(long, fmt.Sprintf("%q", fmt.Sprintf("h%d.example.net:9092", i)))
	}
	files := map[string]string{
		"jindan.yaml": strings.NewReplacer("[LONG]", strings.Join(append([]string{"[" + long[0]}, long[1:]...), ",\n      ")+"]", "topic: a$${b", "topic: ab", "keep: 1h0m0s", "keep: 10m0s").Replace(full),
		"pw":          "hunter2\n", "key": strings.Repeat("k", 32),
	}
	dir := write(t, files)
	o := Options{File: filepath.Join(dir, "jindan.yaml"), Now: testNow,
		Environ: []string{"DIR=" + dir, "LEVEL=warn", "BROKER=b3", "PASS=hunter2", "JINDAN_RULES=" + dir, "JINDAN_CAPTURE_FILTER=${x}"}}
	first, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	if s := first.Sinks[0].Target.(*Kafka); string(s.SASL.Password) != "hunter2" || s.Brokers[2] != "b3:9092" || s.TLS == nil {
		t.Errorf("%+v %+v", s, s.SASL)
	}
	if s := first.Sinks[1].Target.(*OTLP); string(s.Headers["Authorization"]) != "Bearer hunter2" || s.Headers["X-Open"] != "a${b" || s.Headers["true"] != "no" {
		t.Error("headers of otlp")
	}
	if s := first.Sinks[3].Target.(*Alertmanager); string(s.BasicAuth.Password) != "hunter2" || s.BasicAuth.User != "user ☃ \u2028" {
		t.Errorf("%+v", s.BasicAuth)
	}
	if first.Capture.Filter != "${x}" || first.Local != "192.0.2.1, 2001:db8::/64" || first.Budget.CPU != 12.5 {
		t.Error(first.Capture.Filter, first.Local, first.Budget)
	}
	printed := show(t, first)
	for _, c := range []string{printed, fmt.Sprintf("%v %+v %#v", first.Sinks[0].Target.(*Kafka).SASL, first.Sinks[3].Target.(*Alertmanager).BasicAuth, first.Sinks[1].Target)} {
		if strings.Contains(c, "hunter2") || strings.Contains(c, "kkkk") {
			t.Errorf("a secret is shown:\n%s", c)
		}
	}
	for _, line := range []string{"      password: \"${PASS}\"  # <secret>, jindan.yaml:13\n", "    tls: {}\n", "  keep: 10m  # jindan.yaml:7\n",
		"      Authorization: \"Bearer ${PASS}\"  # <secret>, jindan.yaml:15\n", "  level: \"${LEVEL}\"  # jindan.yaml:5\n"} {
		if !strings.Contains(printed, line) {
			t.Errorf("no line %q in\n%s", line, printed)
		}
	}
	if !strings.Contains(printed, "      - \"h19.example.net:9092\"\n") {
		t.Errorf("a long list is not one item a line:\n%s", printed)
	}
	// The same environment but for what sets keys: the text alone must say it.
	o.Environ = o.Environ[:4]
	if err := os.WriteFile(o.File, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := Load(o)
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	if !reflect.DeepEqual(values(first), values(second)) {
		t.Errorf("printed and read again it is\n%s\nfirst it was\n%s", show(t, second), printed)
	}
}

// A Config that nobody loaded has secrets without a reference.
func TestPrintUnknownSecret(t *testing.T) {
	c := Default()
	s := newSink("otlp")
	s.Target = &OTLP{Endpoint: "https://x", Headers: map[string]Secret{"A": "hunter2"}}
	c.Sinks = append(c.Sinks, s)
	if p := show(t, c); strings.Contains(p, "hunter2") || !strings.Contains(p, "A: \"<secret>\"") {
		t.Error(p)
	}
}

func TestSize(t *testing.T) {
	for s, want := range map[string]Size{"0": 0, "1B": 1, "64KiB": 65536, "1 GiB": GiB, "2kB": 2000, "3MB": 3e6, "1TiB": TiB} {
		got, ok := parseSize(s)
		if back, _ := parseSize(got.String()); !ok || got != want || back != want {
			t.Errorf("%q: %d %v, again %d", s, got, ok, back)
		}
	}
	for _, s := range []string{"", "B", "64", "-1B", "1.5GiB", "9999999TiB", "1 KIB", "1e3B", "٣B"} {
		if got, ok := parseSize(s); ok {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestNear(t *testing.T) {
	for w, want := range map[string]string{"capture": "", "captuer": `, did you mean "capture"?`, "socket": `, did you mean "sockets"?`, "zzz": "", "netsn": `, did you mean "netns"?`,
		"capt": `, did you mean "capture"?`, "s": "", "sock": `, did you mean "sockets"?`} {
		known := []string{"sockets", "netns", "log", "capture"}
		if w == "capture" {
			known = known[:3]
		}
		if got := Near(w, known); got != want {
			t.Errorf("%q: %q", w, got)
		}
	}
	if d := edits("kitten", "sitting"); d != 3 {
		t.Errorf("kitten, sitting: %d", d)
	}
	if d := edits("ab", "ba"); d != 1 {
		t.Errorf("ab, ba: %d", d)
	}
}
