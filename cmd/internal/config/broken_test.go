package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type pair struct{ cert, key string }

// newPair makes a self-signed certificate.
func newPair(t testing.TB, name string, until time.Time) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-1000 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}))}
}

// sink is a configuration of one sink, given in flow style; its keys begin in column 6.
func sink(keys string) string { return "sinks:\n  - {" + keys + "}\n" }

// mistakes are broken configurations and every mistake that is found in them, without the file's name.
var mistakes = []struct{ in, want string }{
	// The file.
	{"a: b: c\n", `1:4: mapping value is not allowed in this context`},
	{"- a\n", `1:1: expected a mapping, found a list`},
	{"log\n", `1:1: expected a mapping, found a single value`},
	{"log: {}\n---\nlog: {}\n", `2:1: one document a file`},
	{"log: \xff\n", `1:1: the file is not UTF-8`},
	{strings.Repeat("# x\n", 20000), `1:1: the file has more than 65536 bytes`},
	{"log: {}\n# " + strings.Repeat("x", 10000) + "\n", `2:1: the line has 10002 bytes; at most 10000 are read`},
	{"capture:\n  filter: " + strings.Repeat("x", 4097) + "\n", `2:11: the text has 4097 bytes; at most 4096 are read`},
	{"capture:\n  filter: |\n    tcp\n    und\n", `2:11: expected and, or or the end, found "und"`},
	{strings.Repeat("[", 1999) + "\n" + strings.Repeat("[", 1999) + "\n[[[", `1:1: the file has more than 4000 opening brackets`},
	{"log: &a {level: info}\n", `1:6: anchors, aliases and merge keys are not supported`},
	{"heartbeat: !!str 1m\n", `1:12: tags are not supported`},
	{"log:\n", `1:1: key "log" has no value`},
	{"log:\n  level: info\n  level: warn\n", `3:3: mapping key "level" already defined at [2:3]`},
	// Keys.
	{"captrue: {enabled: true}\n", `1:1: unknown key "captrue", did you mean "capture"?`},
	{"log: {lvl: info, fromat: text}\n", `1:7: unknown key "lvl" in log, did you mean "level"?
1:18: unknown key "fromat" in log, did you mean "format"?`},
	{"log: info\n", `1:6: expected a mapping, found a single value`},
	{"log: [level]\n", `1:6: expected a mapping, found a list`},
	// Types.
	{"capture:\n  enabled: yes\n", `2:12: expected true or false, found "yes"`},
	{"capture:\n  enabled: \"true\"\n", `2:12: expected true or false, found "true"`},
	{"capture: {fanout: two}\n", `1:19: expected a whole number of rings, found "two"`},
	{"capture: {fanout: [2]}\n", `1:19: expected a single value, found a list`},
	{"capture: {fanout: 65}\n", `1:19: 65 is out of range: 1 to 64 rings`},
	{"capture: {interfaces: eth0}\n", `1:23: expected a list such as [a, b], found "eth0"`},
	{"capture: {interfaces: []}\n", `1:23: the list is empty; to capture nothing, set capture.enabled: false`},
	{"capture: {interfaces: [any, eth0]}\n", `1:23: "any" stands for every one and takes no others beside it`},
	{"capture: {interfaces: [eth0, eth0]}\n", `1:30: "eth0" is given twice`},
	{"capture: {interfaces: [averyverylongname]}\n", `1:24: expected an interface's name or "any", found "averyverylongname"`},
	{"capture: {interfaces: [{a: b}]}\n", `1:24: expected a single value, found a mapping`},
	{"capture: {snap_length: 256}\n", `1:24: expected a size with its unit, such as 256B, 64KiB, 16MiB or 1GiB, found "256"`},
	{"capture: {snap_length: 20B}\n", `1:24: 20B is out of range: 96B to 256KiB`},
	{"capture: {filter: \"tcp und udp\"}\n", `1:24: expected and, or or the end, found "und"`},
	{"capture: {filter: \"${DIR} und\"}\n", `1:19: "${DIR} und" is no capture filter`},
	{"sockets: {gate_every: 1}\n", `1:23: expected a duration with its unit, such as 500ms, 10s, 5m or 1h, found "1"`},
	{"sockets: {gate_every: 1ms}\n", `1:23: 1ms is out of range: 100ms to 1m`},
	{"sockets: {full_every: 2s, gate_every: 10s}\n", `1:23: full_every (2s) is shorter than gate_every (10s)`},
	{"host: {procfs: \"\"}\n", `1:16: the text is empty`},
	{"host: {procfs: /no/such}\n", `1:16: directory "/no/such": no such file or directory`},
	{"netns: [all, blue]\n", `1:8: "all" stands for every one and takes no others beside it`},
	{"netns: [/run/netns/blue]\n", `1:9: expected a name in /run/netns or "all", found "/run/netns/blue"`},
	{"local: 10.77.2\n", `1:8: expected an IP address such as 192.0.2.10 or 2001:db8::10, or a prefix such as 10.0.0.0/24; several with commas between, found "10.77.2"`},
	{"local: fe80::1%eth0\n", `1:8: expected an IP address such as 192.0.2.10 or 2001:db8::10, or a prefix such as 10.0.0.0/24; several with commas between, found "fe80::1%eth0"`},
	{"rules: ${DIR}/jindan.yaml\n", `1:8: directory "${DIR}/jindan.yaml": is no directory`},
	{"budget: {cpu: 5}\n", `1:15: expected a percentage such as 5%, found "5"`},
	{"budget: {cpu: 0.5%, memory: 1MiB}\n", `1:15: 0.5% is out of range: 1% to 1600%
1:29: 1MiB is out of range: 64MiB to 64GiB`},
	{"capture: {fanout: 32}\n", `1:19: the capture rings (256MiB) and the recorder (64MiB) exceed budget.memory (256MiB)`},
	{"capture: {interfaces: [a, b, c, d, e, f, g], ring_size: 32MiB}\n", `1:57: the capture rings (224MiB) and the recorder (64MiB) exceed budget.memory (256MiB)`},
	{"recorder: {max_total: 2MiB}\n", `1:23: max_total (2MiB) is less than one incident, max_bytes (64MiB)`},
	{"recorder: {dir: incidents}\n", `1:17: expected an absolute path, found "incidents"`},
	{"http: {listen: 9000}\n", `1:16: expected the path of a socket, of at most 107 bytes, or ADDRESS:PORT, found "9000"`},
	{"http: {listen: \"127.0.0.1:99999\"}\n", `1:16: expected the path of a socket, of at most 107 bytes, or ADDRESS:PORT, found "127.0.0.1:99999"`},
	{"log: {level: warning}\n", `1:14: expected info, warn or error, found "warning"`},
	{"log: {level: wran}\n", `1:14: expected info, warn or error, found "wran", did you mean "warn"?`},
	{"heartbeat: 1d\n", `1:12: expected a duration with its unit, such as 500ms, 10s, 5m or 1h, found "1d"`},
	{"log: {level: \"${NOT_SET}\"}\n", `1:14: the environment has no variable NOT_SET`},
	{"log: {level: \"${LEVEL\"}\n", `1:14: a reference to the environment is ${NAME}; a literal ${ is written $${`},
	{"log: {level: \"in\\u0007fo\"}\n", `1:14: the text has a control character`},
	// Sinks.
	{"sinks: kafka\n", `1:8: expected a list of sinks, found "kafka"`},
	{"sinks: [kafka]\n", `1:9: expected a mapping with the key "type", found a single value`},
	{sink("name: x"), `2:5: a sink needs the key "type": stdout, file, journald, syslog, otlp, kafka, nats, alertmanager, webhook or fluent`},
	{sink("type: kafak"), `2:12: expected stdout, file, journald, syslog, otlp, kafka, nats, alertmanager, webhook or fluent, found "kafak", did you mean "kafka"?`},
	{sink("type: stdout, name: A b"), `2:26: expected up to 63 of a-z, 0-9, _ and -, found "A b"`},
	{"sinks:\n  - type: stdout\n  - type: stdout\n", `3:5: two sinks are named "stdout"; give this one another "name"`},
	{sink("type: stdout, encoding: otpl"), `2:30: expected native, ecs or otlp, found "otpl", did you mean "otlp"?`},
	{sink("type: alertmanager, url: \"http://a\", encoding: ecs"), `2:53: alertmanager has an encoding of its own`},
	{sink("type: journald, encoding: ecs"), `2:32: expected native, found "ecs"`},
	{sink("type: stdout, filter: {rules: [close-wiat], severity: fatal, states: []}"), `2:37: there is no rule "close-wiat", did you mean "close-wait"?
2:60: expected info, warn or error, found "fatal"
2:75: the list is empty`},
	{sink("type: stdout, path: /x"), `2:20: unknown key "path" of a stdout sink; known are type, name, encoding, filter, pseudonymise`},
	{sink("type: file"), `2:5: a file sink needs the key "path"`},
	{sink("type: file, path:"), `2:18: key "path" has no value`},
	{sink("type: file, path: log"), `2:24: expected an absolute path, found "log"`},
	{sink("type: syslog, address: \"logs:514\", facility: local8"), `2:29: expected udp://HOST[:PORT], tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH, found "logs:514"
2:51: expected kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, local0, local1, local2, local3, local4, local5, local6 or local7, found "local8", did you mean "local0"?`},
	{sink("type: syslog, address: \"tcp://logs:514\", tls: {}"), `2:52: tls needs an address tls://`},
	{sink("type: kafka, topic: a b, brokers: [b1, \"b2:x\"]"), `2:26: expected up to 249 letters, digits, ., _ and -, found "a b"
2:41: expected HOST:PORT, found "b1"
2:45: expected HOST:PORT, found "b2:x"`},
	{sink("type: kafka"), `2:5: a kafka sink needs the key "brokers"
2:5: a kafka sink needs the key "topic"`},
	{sink("type: nats, url: \"nats://u:hunter2@n\", subject: x.>"), `2:23: expected nats://HOST[:PORT] or tls://HOST[:PORT] without user and password, found "nats://<secret>@n"
2:54: expected words joined by dots, without wildcards, found "x.>"`},
	{sink("type: webhook, url: \"ftp://h/x?token=hunter2\""), `2:26: the query may hold a secret: write what follows the ? as ${NAME}`},
	{sink("type: webhook, url: \"ftp://h/x?t=${DIR}\", batch: 0"), `2:26: expected a URL https://HOST[:PORT]/PATH (or http) without user and password, found "ftp://h/x?<secret>"
2:55: 0 is out of range: 1 to 1000 findings`},
	{sink("type: fluent, address: \"udp://f:1\", tag: a..b"), `2:29: expected tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH, found "udp://f:1"
2:47: expected words of letters, digits, _ and -, joined by dots, found "a..b"`},
	// Secrets.
	{sink("type: otlp, endpoint: \"http://o\", headers: {Authorization: Bearer hunter2}"), `2:65: a secret does not belong here: write ${NAME} for the environment's NAME, or name a file`},
	{sink("type: otlp, endpoint: \"http://o\", headers: {X-Api-Key: \"${EMPTY}\"}"), `2:61: "${EMPTY}" is empty`},
	{sink("type: otlp, endpoint: \"http://o\", headers: {\"a b\": hunter2, c: [hunter2]}"), `2:50: this is no name of a header
2:69: expected a single value, found a list`},
	{sink("type: kafka, brokers: [\"b:1\"], topic: t, sasl: {mechanism: scram-sha-512, user: u, password: hunter2}"), `2:65: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, found "scram-sha-512"
2:99: a secret does not belong here: write ${NAME} for the environment's NAME, or name a file`},
	{sink("type: kafka, brokers: [\"b:1\"], topic: t, sasl: {mechanism: SCRAM-SHA-256}"), `2:53: sasl needs the key "user"
2:53: needs the key "password_file", or "password" with ${NAME}`},
	{sink("type: kafka, brokers: [\"b:1\"], topic: t, sasl: {mechanism: SCRAM-SHA-256, user: u, password_file: \"${DIR}/empty\"}"), `2:104: file "${DIR}/empty": is empty`},
	{sink("type: alertmanager, url: \"https://a\", basic_auth: {user: u, password_file: \"${DIR}/missing\", password: \"${PASS}\"}"), `2:81: password is given, too; one of them`},
	{sink("type: alertmanager, url: \"https://a\", basic_auth: hunter2"), `2:56: expected a mapping, found a single value`},
	{sink("type: alertmanager, url: \"https://a\", basic_auth: {user: u, password_file: \"${DIR}/missing\"}"), `2:81: file "${DIR}/missing": no such file or directory`},
	{sink("type: alertmanager, url: \"https://a\", basic_auth: {user: u, password_file: /dev/zero}"), `2:81: file "/dev/zero": is no regular file`},
	{sink("type: nats, url: \"nats://n\", subject: x, credentials_file: \"${DIR}\""), `2:65: file "${DIR}": is no regular file`},
	{sink("type: stdout, pseudonymise: {key_file: \"${DIR}/short\"}"), `2:45: the key has 7 bytes; at least 32 are needed (head -c 32 /dev/urandom | base64)`},
	{sink("type: stdout, pseudonymise: {key_file: \"${DIR}/huge\"}"), `2:45: file "${DIR}/huge": has more than 1048576 bytes`},
	// TLS.
	{sink("type: webhook, url: \"https://h\", tls: {ca: \"${DIR}/key\", insecure_skip_verify: no}"), `2:49: file "${DIR}/key": has no certificate in PEM
2:85: expected true or false, found "no"`},
	{sink("type: webhook, url: \"https://h\", tls: {ca: \"${DIR}/missing\"}"), `2:49: file "${DIR}/missing": no such file or directory`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/ok/cert\", key: \"${DIR}/key\"}"), `2:51: file "${DIR}/ok/cert": not a directory`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/ok\", key: \"${DIR}/missing\"}"), `2:69: file "${DIR}/missing": no such file or directory`},
	{sink("type: webhook, url: \"https://h\", tls: {ca: \"${DIR}/ok\", insecure_skip_verify: true}"), `2:49: ca has no effect with insecure_skip_verify`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/ok\"}"), `2:44: cert and key belong together: one of them is missing`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/ok\", key: \"${DIR}/other\"}"), `2:69: file "${DIR}/other": is not the private key of the certificate in "${DIR}/ok"`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/ok\", key: \"${DIR}/short\"}"), `2:69: file "${DIR}/short": has no private key in PEM`},
	{sink("type: webhook, url: \"https://h\", tls: {cert: \"${DIR}/old\", key: \"${DIR}/oldkey\"}"), `2:51: file "${DIR}/old": the certificate expired on 2026-11-20 00:00 UTC`},
	{sink("type: webhook, url: \"https://h\", tls: {server_name: \"a b\"}"), `2:58: expected a host name or an IP address, found "a b"`},
	// The environment.
	{"env: JINDAN_LOG_LEVEL=loud", `JINDAN_LOG_LEVEL: expected info, warn or error, found "loud"`},
	{"env: JINDAN_LOG_LEVL=info", `JINDAN_LOG_LEVL: there is no such key, did you mean "JINDAN_LOG_LEVEL"?`},
	{"env: JINDAN_SINKS_KAFKA_TOPIC=x", `JINDAN_SINKS_KAFKA_TOPIC: sinks are set in files only; ${JINDAN_SINKS_KAFKA_TOPIC} there stands for this variable`},
	{"env: JINDAN_CAPTURE_INTERFACES=any,eth0", `JINDAN_CAPTURE_INTERFACES: "any" stands for every one and takes no others beside it`},
	{"env: JINDAN_BUDGET_MEMORY=1GB\x01", `JINDAN_BUDGET_MEMORY: the text has a control character`},
	{"env: JINDAN_CAPTURE_FILTER=\xff", `JINDAN_CAPTURE_FILTER: the text is not UTF-8`},
}

// fakeFilter stands for the compiler of capture filters: it knows where the mistake is.
func fakeFilter(expr string) (int, error) {
	if at := strings.Index(expr, "und"); at >= 0 {
		return at, errors.New(`expected and, or or the end, found "und"`)
	}
	return 0, nil
}

func brokenFiles(t testing.TB) map[string]string {
	ok, old := newPair(t, "ok", testNow.Add(1000*time.Hour)), newPair(t, "old", testNow.Add(-48*time.Hour))
	return map[string]string{"ok": ok.cert, "key": ok.key, "other": old.key, "old": old.cert, "oldkey": old.key,
		"short": "hunter2", "empty": "\n", "huge": strings.Repeat("x", maxSecretFile+1)}
}

func TestBroken(t *testing.T) {
	files := brokenFiles(t)
	for i, c := range mistakes {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			env, isEnv := strings.CutPrefix(c.in, "env: ")
			files["jindan.yaml"] = c.in
			if isEnv {
				files["jindan.yaml"] = ""
			}
			dir := write(t, files)
			o := Options{File: filepath.Join(dir, "jindan.yaml"), Now: testNow, Strict: true, Filter: fakeFilter, Rules: []string{"close-wait", "surge"},
				Environ: []string{"DIR=" + dir, "PASS=hunter2", "EMPTY=", env}}
			_, err := Load(o)
			if err == nil {
				t.Fatalf("%s\nis in order", c.in)
			}
			got := strings.ReplaceAll(err.Error(), o.File+":", "")
			if got != c.want {
				t.Errorf("%.300s\ngot\n%s\nwant\n%s", c.in, got, c.want)
			}
			for l := range strings.SplitSeq(got, "\n") {
				pointsAtToken(t, c.in, l)
			}
			if strings.Contains(got, "hunter2") || strings.Contains(got, dir) {
				t.Errorf("a value of the environment, or a secret, is in %s", got)
			}
		})
	}
}

// pointsAtToken checks a message's place against the text itself: a token begins there, and it is the
// one that was found.
func pointsAtToken(t *testing.T, in, msg string) {
	t.Helper()
	var line, col int
	if _, err := fmt.Sscanf(msg, "%d:%d:", &line, &col); err != nil {
		return // of the environment
	}
	lines := strings.Split(in, "\n")
	if line > len(lines) || col > len(lines[line-1])+1 {
		t.Errorf("%s: there is no such place", msg)
		return
	}
	before, after := lines[line-1][:col-1], lines[line-1][col-1:]
	if before != "" && !strings.ContainsAny(before[len(before)-1:], " [{\"") {
		t.Errorf("%s: no token begins there, but %q", msg, after)
	}
	_, found, ok := strings.Cut(msg, `found "`)
	if found, _, _ = strings.Cut(found, `"`); ok && !strings.HasPrefix(after, "|") && !strings.Contains(found, "<secret>") && !strings.HasPrefix(strings.TrimLeft(after, `"`), found) {
		t.Errorf("%s: the text there is %q", msg, after)
	}
}

func TestAllMistakesOfAllLayers(t *testing.T) {
	dir := write(t, map[string]string{
		"jindan.yaml":     "log:\n  level: a\nheartbeat: b\n",
		"jindan.d/b.yaml": "heartbeat: c\nx: y\n",
		"jindan.d/a.yaml": "{\n",
		"jindan.d/c.yml":  "",
	})
	o := Options{File: filepath.Join(dir, "jindan.yaml"), Environ: []string{"JINDAN_HEARTBEAT=d"}}
	o.Set("--nothing", "log.nothing.at.all", "x")
	o.Set("--level", "log.level", "e")
	_, err := Load(o)
	var places []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		place, _, _ := strings.Cut(strings.TrimPrefix(l, dir+"/"), ": ")
		places = append(places, place)
	}
	want := "jindan.yaml:2:10 jindan.yaml:3:12 jindan.d/a.yaml:1:1 jindan.d/b.yaml:1:12 jindan.d/b.yaml:2:1 jindan.d/c.yml JINDAN_HEARTBEAT --nothing --level"
	if got := strings.Join(places, " "); got != want {
		t.Errorf("got  %s\nwant %s\n%v", got, want, err)
	}
	if _, err := Load(Options{File: filepath.Join(dir, "missing.yaml")}); err == nil || !strings.Contains(err.Error(), "missing.yaml: cannot be read: no such file") {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	soon, late := newPair(t, "soon", testNow.Add(10*24*time.Hour+time.Hour)), newPair(t, "late", testNow.Add(-time.Hour))
	dir := write(t, map[string]string{
		"jindan.yaml": `http: {listen: "0.0.0.0:9000"}
sinks:
  - type: webhook
    url: https://h.example/
    tls: {insecure_skip_verify: true}
  - type: syslog
    address: tls://l.example
    tls: {ca: "${DIR}/ca", cert: "${DIR}/cert", key: "${DIR}/key"}
  - type: kafka
    brokers: ["b:9092"]
    topic: t
    sasl: {mechanism: PLAIN, user: u, password_file: "${DIR}/pw"}
`, "ca": late.cert, "cert": soon.cert, "key": soon.key, "pw": "x",
	})
	if err := os.Chmod(filepath.Join(dir, "pw"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := Options{File: filepath.Join(dir, "jindan.yaml"), Environ: []string{"DIR=" + dir, "JINDAN_SERVICE_HOST=10.0.0.1"}, Now: testNow}
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Read.Warnings {
		got = append(got, strings.TrimPrefix(w.Error(), o.File+":"))
	}
	want := []string{
		`JINDAN_SERVICE_HOST: there is no such key; the variable is ignored`,
		`1:16: other hosts can read findings at 0.0.0.0:9000: there is no authentication`,
		`5:33: the server's certificate is not verified: anybody on the path can read and change what is sent`,
		`8:15: file "${DIR}/ca": the certificate expired on 2026-11-21 23:00 UTC`,
		`8:34: file "${DIR}/cert": the certificate expires in 10 days, on 2026-12-02 01:00 UTC`,
		`12:54: file "${DIR}/pw": every user may read it (chmod o-r)`,
		`12:23: without tls the password is sent in clear; add tls or use SCRAM-SHA-512`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(c.Read.Certificates) != 2 || c.Read.Certificates[1].Subject != "CN=soon" {
		t.Error(c.Read.Certificates)
	}
	o.Strict = true
	_, err = Load(o)
	var e *Error
	if !errors.As(err, &e) || e.Line != 8 || e.Col != 15 || !strings.Contains(e.Msg, "expired on") {
		t.Errorf("strict: %v", err)
	}
}
