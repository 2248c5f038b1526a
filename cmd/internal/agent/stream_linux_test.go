package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/sink/sinktest"
)

// receiver is an HTTP server that keeps what is posted.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
}

func receive(t *testing.T) (*receiver, string) {
	t.Helper()
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies, r.heads = append(r.bodies, string(b)), append(r.heads, q.Header)
	}))
	t.Cleanup(s.Close)
	return r, s.URL
}

func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies)
}

// rsyslog runs rsyslogd with its stock parsers and returns its port, and the records that it has written: the
// structured data and the JSON as fields. Nil: it is not installed.
func rsyslog(t *testing.T) (port string, got func() []map[string]any) {
	t.Helper()
	path, err := exec.LookPath("rsyslogd")
	if err != nil {
		return "", nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	dir := t.TempDir()
	out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "conf")
	// The configuration that the README of the sinks shows, but for the paths.
	err = os.WriteFile(conf, fmt.Appendf(nil, `
global(workDirectory=%q maxMessageSize="64k")
module(load="imtcp") module(load="mmpstrucdata") module(load="mmjsonparse")
template(name="fields" type="string" string="%%$!%%\n")
input(type="imtcp" address="127.0.0.1" port=%q ruleset="jindan")
ruleset(name="jindan") {
  action(type="mmpstrucdata")
  action(type="mmjsonparse")
  action(type="omfile" file=%q template="fields")
}
`, dir, port, out), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(path, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return port, func() (all []map[string]any) {
		b, _ := os.ReadFile(out)
		for l := range strings.Lines(string(b)) {
			var m map[string]any
			if strings.HasSuffix(l, "\n") && json.Unmarshal([]byte(l), &m) == nil {
				all = append(all, m)
			}
		}
		return all
	}
}

// outage replays the recording of 17 November in the order of events, and a quarter of an hour of quiet behind it.
func outage(t *testing.T, emit func(*analyze.Finding) error) *analyze.Diagnosis {
	t.Helper()
	return sinktest.Replay(t, sinktest.Incident(t), 15*time.Minute, "gpki01", "jindan/"+cli.Version, emit)
}

// TestStream: the findings of 17 November reach receivers by a configuration as a user writes it: each record, in order,
// opened, updated and resolved.
func TestStream(t *testing.T) {
	hook, hookURL := receive(t)
	alerts, alertsURL := receive(t)
	dir := t.TempDir()
	text := fmt.Sprintf(`
spool: {dir: %s/spool, max_bytes: 16MiB}
heartbeat: 1m
sinks:
  - type: file
    path: %s/findings.ndjson
    encoding: ecs
  - type: webhook
    url: %s/hook
    headers: {X-Tenant: gpki}
    format: ndjson
    batch: 5
    filter: {rules: [size-dependent-loss, close-wait]}
  - type: alertmanager
    url: %s
    basic_auth: {user: jindan, password: "${PASSWORD}"}
    filter: {severity: warn}
`, dir, dir, hookURL, alertsURL)
	port, lines := rsyslog(t)
	if lines != nil {
		text += fmt.Sprintf("  - {type: syslog, name: text, address: 'tcp://127.0.0.1:%s', facility: local3}\n", port)
		text += fmt.Sprintf("  - {type: syslog, name: json, address: 'tcp://127.0.0.1:%s', encoding: native, max_bytes: 64KiB}\n", port)
	}
	cfg := configure(t, text)
	d, err := deliver(cfg, "gpki01", nil)
	if err != nil {
		t.Fatal(err)
	}
	var sent []*analyze.Finding
	x := outage(t, func(f *analyze.Finding) error {
		keep := *f
		sent = append(sent, &keep)
		return d.Finding(f)
	})
	if err := d.Diagnosis(x); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Status() {
		if s.Lag != 0 || s.Rejected != 0 || s.Dropped != 0 {
			t.Errorf("%+v", s)
		}
	}
	states := map[analyze.State]int{}
	for _, f := range sent {
		states[f.State]++
	}
	if states[analyze.Open] < 5 || states[analyze.Update] < 5 || states[analyze.Resolved] < 5 {
		t.Fatalf("the outage opens, updates and resolves %v", states)
	}
	over := map[string]bool{}
	for _, f := range sent {
		if f.State == analyze.Open && over[f.ID] && f.Severity != "info" {
			t.Errorf("%s comes back at %s, in silence", f.ID, f.Time)
		}
		over[f.ID] = f.State == analyze.Resolved
	}

	// The file has every record in ECS.
	b, err := os.ReadFile(filepath.Join(dir, "findings.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	records := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(records) != len(sent)+1 {
		t.Errorf("the file has %d records of %d", len(records), len(sent)+1)
	}
	for i, f := range sent {
		var e struct {
			Event  struct{ ID, Action, Start, End string }
			Host   struct{ Name string }
			Jindan struct {
				State analyze.State
				Role  analyze.Role
			}
		}
		if err := json.Unmarshal([]byte(records[i]), &e); err != nil || e.Event.ID != f.ID || e.Event.Action != f.Rule || e.Host.Name != "gpki01" ||
			e.Jindan.State != f.State || e.Jindan.Role != f.Role || (e.Event.End != "") != (f.State == analyze.Resolved) {
			t.Errorf("record %d: %v %s", i, err, records[i])
		}
	}

	// The webhook has two rules, at most five a request, and the diagnosis.
	var want, got []string
	for _, f := range sent {
		if f.Rule == "size-dependent-loss" || f.Rule == "close-wait" {
			want = append(want, f.ID+" "+string(f.State)+" "+f.Summary.Ko)
		}
	}
	diagnoses := 0
	for i, body := range hook.all() {
		n := 0
		for l := range strings.Lines(body) {
			var f struct {
				Schema, ID string
				State      analyze.State
				Summary    analyze.Text
			}
			if err := json.Unmarshal([]byte(l), &f); err != nil {
				t.Fatal(err)
			}
			if n++; f.Schema == analyze.DiagnosisSchema {
				diagnoses++
				continue
			}
			got = append(got, f.ID+" "+string(f.State)+" "+f.Summary.Ko)
		}
		if n > 5 || hook.heads[i].Get("X-Tenant") != "gpki" {
			t.Errorf("a request of %d records, %v", n, hook.heads[i])
		}
	}
	if !slices.Equal(got, want) || diagnoses != 1 || len(want) < 5 {
		t.Errorf("the webhook has %d diagnoses and\n%s\nwant\n%s", diagnoses, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// Alertmanager has each finding at warn or above, and its end.
	type alert struct {
		Labels, Annotations map[string]string
		StartsAt, EndsAt    time.Time
	}
	last := map[string]alert{}
	for _, body := range alerts.all() {
		var list []alert
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			last[a.Labels["finding"]] = a
		}
	}
	for _, f := range x.Findings {
		a, ok := last[f.ID]
		if f.Severity == "info" {
			continue
		}
		if !ok || a.Labels["alertname"] != f.Title.En || a.Labels["rule_id"] != f.Rule || a.Labels["instance"] != "gpki01" || a.Annotations["summary"] == "" ||
			!a.StartsAt.Equal(f.Onset.Time()) || a.EndsAt.Before(time.Now()) != (f.State == analyze.Resolved) {
			t.Errorf("%s: %+v", f.ID, a)
		}
	}
	if user, password, ok := (&http.Request{Header: alerts.heads[0]}).BasicAuth(); !ok || user != "jindan" || password != "secret" {
		t.Errorf("credentials %q %q", user, password)
	}

	t.Run("rsyslog", func(t *testing.T) {
		if lines == nil {
			t.Skip("rsyslogd is not installed: apt-get install rsyslog")
		}
		checkRsyslog(t, sent, lines)
	})
}

// checkRsyslog: each record came twice, with its sentence and as JSON, both with structured data, all of it as fields.
func checkRsyslog(t *testing.T, sent []*analyze.Finding, lines func() []map[string]any) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for len(lines()) < 2*(len(sent)+1) && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	var text, whole int
	for _, m := range lines() {
		sd, _ := m["rfc5424-sd"].(map[string]any)
		fields, _ := sd["jindan@32473"].(map[string]any)
		i := slices.IndexFunc(sent, func(f *analyze.Finding) bool { return fields["seq"] == fmt.Sprint(f.Seq) && fields["id"] == f.ID })
		if i < 0 {
			continue
		}
		f := sent[i]
		if fields["rule"] != f.Rule || fields["state"] != string(f.State) || fields["severity"] != f.Severity || fields["role"] != string(f.Role) ||
			fields["conf"] != f.Confidence.Level || fields["onset"] != f.Onset.String() {
			t.Errorf("%v\n%+v", fields, f)
		}
		if m["schema"] != analyze.FindingSchema {
			text++
			continue
		}
		whole++
		summary, _ := m["summary"].(map[string]any)
		if m["id"] != f.ID || summary["ko"] != f.Summary.Ko {
			t.Errorf("%v\n%+v", m, f)
		}
	}
	if text != len(sent) || whole != len(sent) {
		t.Errorf("rsyslog has %d sentences and %d whole records of %d", text, whole, len(sent))
	}
}

// TestHeartbeatAndAck: an open finding is repeated until `jindan ack` says that it is known, and the sinks hear that
// the agent lives.
func TestHeartbeatAndAck(t *testing.T) {
	hook, url := receive(t)
	dir := t.TempDir()
	cfg := configure(t, fmt.Sprintf("spool: {dir: %s/spool}\nhttp: {listen: %s/sock}\nsinks: [{type: webhook, url: '%s', format: ndjson}]\n", dir, dir, url))
	// Less than a configuration may say: a test does not wait for minutes.
	cfg.Heartbeat, cfg.Repeat = 50*time.Millisecond, 100*time.Millisecond
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	ag, err := newAgent(&cli.App{Log: cli.NewLog("text", false)}, cfg, set, "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	defer ag.close()
	if err := ag.serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := &analyze.Finding{Schema: analyze.FindingSchema, ID: "surge-1", Rule: "surge", Severity: "error", State: analyze.Open, Seq: 1}
	if err := ag.delivery.Load().Finding(f); err != nil {
		t.Fatal(err)
	}
	count := func(what string) int { return strings.Count(strings.Join(hook.all(), ""), what) }
	wait := func(what string, n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); count(what) < n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %s, want %d", count(what), what, n)
			}
		}
	}
	wait(`"repeat":2}`, 1)
	wait(`"schema":"jindan.heartbeat/v1"`, 3)
	wait(`"open":{"error":1,"info":0,"warn":0}`, 1)
	if err := Ack(t.Context(), cfg.HTTP.Listen, "nonsense"); err == nil {
		t.Error("what is not open is acknowledged")
	}
	if err := Ack(t.Context(), cfg.HTTP.Listen, f.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // what was under way
	n, beats := count(`"repeat":`), count("heartbeat/v1")
	time.Sleep(500 * time.Millisecond)
	if count(`"repeat":`) != n || count("heartbeat/v1") == beats {
		t.Errorf("%d repetitions and %d heartbeats after the acknowledgement", count(`"repeat":`)-n, count("heartbeat/v1")-beats)
	}
}
