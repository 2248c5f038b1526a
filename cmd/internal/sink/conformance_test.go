package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// incident gives the records of the bundled incident, in which the root opens, grows more severe and resolves.
func incident(t *testing.T) (all []Record) {
	t.Helper()
	states := map[analyze.State]bool{}
	replayCase(t, sinktest.Incident(t), 5*time.Minute, func(r Record) {
		all = append(all, r)
		if r.Rule == "size-dependent-loss" {
			states[r.State] = true
		}
	})
	if !states[analyze.Open] || !states[analyze.Update] || !states[analyze.Resolved] {
		t.Fatalf("the root is not opened, updated and resolved: %v", states)
	}
	return all
}

// program starts a receiver, its configuration in a file of its own behind args, and ends it with the test.
func program(t *testing.T, config, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not in PATH: make conformance builds it", name)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, file)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		end := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		end.Stop()
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

// unused is an address at which nobody listens.
func unused(t *testing.T) (address, port string) {
	t.Helper()
	l := listen(t)
	defer l.Close()
	address = l.Addr().String()
	_, port, _ = net.SplitHostPort(address)
	return address, port
}

// handOver delivers records by k to a receiver that may still be starting, and waits until it shows as many.
func handOver[T any](t *testing.T, k Sink, records []Record, shows func() []T) (got []T) {
	t.Helper()
	const most = time.Minute // Loki is ready after 15 s and more
	s, r := deliver(t, Output{Sink: k, Batch: 7, MinWait: 50 * time.Millisecond, MaxWait: 500 * time.Millisecond})
	put(t, s, records...)
	for end := time.Now().Add(most); len(got) < len(records); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d records are shown after %v: %+v", len(got), len(records), most, r.Status())
		}
		got = shows()
	}
	if st := r.Status(); len(got) != len(records) || st.Rejected != 0 {
		t.Errorf("%d of %d records are shown: %+v", len(got), len(records), st)
	}
	return got
}

// otlpLogs are the log records of an export request, each with its resource, by the text of their jindan.record.
func otlpLogs(t *testing.T, request []byte, into map[string]otlpEntry) {
	t.Helper()
	var q otlpRequest
	if err := json.Unmarshal(request, &q); err != nil {
		t.Fatalf("%v: %.300s", err, request)
	}
	for _, l := range q.ResourceLogs {
		for _, s := range l.ScopeLogs {
			for _, log := range s.LogRecords {
				e := otlpEntry{s.Scope.Name, l.Resource.Attributes, log}
				into[e.attribute("jindan.record")] = e
			}
		}
	}
}

// otlpEntry is a log record with what is said of it.
type otlpEntry struct {
	Scope    string
	Resource []otlpAttribute
	Log      otlpRecord
}

// attribute is the value of an attribute as text.
func (e otlpEntry) attribute(key string) string {
	i := slices.IndexFunc(e.Log.Attributes, func(a otlpAttribute) bool { return a.Key == key })
	if i < 0 {
		return ""
	}
	return e.Log.Attributes[i].Value.text()
}

func (v otlpValue) text() string {
	if v.String != nil {
		return *v.String
	}
	return v.Int
}

// promised is what a record is sent as, held against the record.
func promised(t *testing.T, r *Record) otlpEntry {
	t.Helper()
	b, err := OTLP.encode(r)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]otlpEntry{}
	otlpLogs(t, b, m)
	e := m[string(r.Body)]
	number := map[string]int{"info": 9, "warn": 13, "error": 17}[r.Severity] // INFO, WARN, ERROR of the logs data model
	if e.Log.SeverityNumber != number || e.Log.SeverityText != r.Severity || e.Log.TimeUnixNano != fmt.Sprint(int64(r.Time)) ||
		e.attribute("jindan.id") != r.ID || e.attribute("jindan.seq") != fmt.Sprint(r.Seq) || e.attribute("jindan.state") != string(r.State) ||
		e.attribute("security_rule.name") != r.Rule {
		t.Errorf("%s is sent as %+v", r.Key(), e)
	}
	return e
}

// TestConformanceCollector sends the incident to an OpenTelemetry Collector and reads the file that it exports to:
// every record is there, with every field that was sent, its type and value.
func TestConformanceCollector(t *testing.T) {
	address, _ := unused(t)
	out := filepath.Join(t.TempDir(), "out.json")
	k := must(t)(NewOTLP(OTLPOptions{Address: "http://" + address}))
	program(t, fmt.Sprintf(`
receivers: {otlp: {protocols: {http: {endpoint: %q}}}}
exporters: {file: {path: %q, flush_interval: 100ms}}
service: {telemetry: {metrics: {level: none}}, pipelines: {logs: {receivers: [otlp], exporters: [file]}}}
`, address, out), "otelcol", "--config")
	sent := incident(t)
	lines := func() (all []otlpEntry) {
		b, _ := os.ReadFile(out)
		m := map[string]otlpEntry{}
		for l := range bytes.Lines(b) {
			if !bytes.HasSuffix(l, []byte("\n")) {
				return nil // half a line
			}
			otlpLogs(t, l, m)
		}
		for _, e := range m {
			all = append(all, e)
		}
		return all
	}
	got := map[string]otlpEntry{}
	for _, e := range handOver(t, k, sent, lines) {
		got[e.attribute("jindan.record")] = e
	}
	for i := range sent {
		want, have := promised(t, &sent[i]), got[string(sent[i].Body)]
		if !reflect.DeepEqual(want, have) {
			t.Errorf("%s: sent and stored differ:\n%+v\n%+v", sent[i].Key(), want, have)
		}
	}
}

// TestConformanceLoki sends the incident to Loki by its own push request and by OTLP, and asks what it holds.
func TestConformanceLoki(t *testing.T) {
	address, port := unused(t)
	_, grpc := unused(t)
	dir := t.TempDir()
	program(t, fmt.Sprintf(`
auth_enabled: false
analytics: {reporting_enabled: false}
server: {http_listen_address: 127.0.0.1, http_listen_port: %s, grpc_listen_address: 127.0.0.1, grpc_listen_port: %s}
common:
  instance_addr: 127.0.0.1
  path_prefix: %q
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[3]q, rules_directory: %[3]q}}
schema_config: {configs: [{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]}
# The incident is as old as its recording: it is taken, and looked for in memory, up to an age of a century.
limits_config: {reject_old_samples: false}
ingester: {query_store_max_look_back_period: 876000h}
query_range: {cache_results: false}
`, port, grpc, dir), "loki", "-config.file")
	sent := incident(t)
	type entry struct {
		Labels     map[string]string
		Time, Line string
	}
	query := func(logql string) (all []entry) {
		q := url.Values{"query": {logql}, "limit": {"1000"}, "start": {fmt.Sprint(int64(sent[0].Time) - 1)}, "end": {fmt.Sprint(int64(sent[len(sent)-1].Time) + 1)}}
		p, err := http.Get("http://" + address + "/loki/api/v1/query_range?" + q.Encode())
		if err != nil {
			return nil
		}
		defer p.Body.Close()
		var answer struct {
			Data struct {
				Result []struct {
					Stream map[string]string
					Values [][2]string
				}
			}
		}
		if p.StatusCode != http.StatusOK || json.NewDecoder(p.Body).Decode(&answer) != nil {
			return nil
		}
		for _, s := range answer.Data.Result {
			for _, v := range s.Values {
				all = append(all, entry{s.Stream, v[0], v[1]})
			}
		}
		return all
	}
	t.Run("push", func(t *testing.T) {
		k := must(t)(NewWebhook(WebhookOptions{Address: "http://" + address, Format: "loki"}))
		got := map[string]entry{}
		for _, e := range handOver(t, k, sent, func() []entry { return query(`{job="jindan"}`) }) {
			got[e.Line] = e
		}
		open := 0
		for i := range sent {
			r := &sent[i]
			e := got[string(r.Body)]
			if e.Time != fmt.Sprint(int64(r.Time)) || e.Labels["kind"] != string(r.Kind) || e.Labels["level"] != r.Severity {
				t.Errorf("%s is shown as %+v", r.Key(), e)
			}
			if r.State == analyze.Open && r.Severity == "error" {
				open++
			}
		}
		if n := len(query(`{job="jindan", kind="finding", level="error"} | json | state="open"`)); n != open || n == 0 {
			t.Errorf("the query of the README finds %d of %d", n, open)
		}
	})
	t.Run("otlp", func(t *testing.T) {
		k := must(t)(NewOTLP(OTLPOptions{Address: "http://" + address + "/otlp/v1/logs"}))
		got := map[string]entry{}
		for _, e := range handOver(t, k, sent, func() []entry { return query(`{service_name="jindan", service_instance_id="web01"}`) }) {
			got[e.Labels["jindan_record"]] = e
		}
		for i := range sent {
			want := promised(t, &sent[i])
			have := got[string(sent[i].Body)]
			if have.Time != want.Log.TimeUnixNano || have.Line != *want.Log.Body.String || have.Labels["severity_text"] != want.Log.SeverityText ||
				have.Labels["severity_number"] != fmt.Sprint(want.Log.SeverityNumber) {
				t.Errorf("%s is shown as %+v", sent[i].Key(), have)
			}
			for _, a := range slices.Concat(want.Resource, want.Log.Attributes) {
				if v := have.Labels[strings.ReplaceAll(a.Key, ".", "_")]; v != a.Value.text() {
					t.Errorf("%s: %s is %q, want %q", sent[i].Key(), a.Key, v, a.Value.text())
				}
			}
		}
	})
}
