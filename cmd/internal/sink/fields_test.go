package sink

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// ecsFields are the fields that are used, each with its type in the Elastic Common Schema 8.17: pages ecs-base,
// ecs-agent, … of https://www.elastic.co/guide/en/ecs/8.17/, and generated/csv/fields.csv of elastic/ecs.
var ecsFields = map[string]string{
	"@timestamp": "date", "message": "text", // ecs-base
	"agent.type": "keyword", "agent.version": "keyword", // ecs-agent
	"ecs.version":  "keyword", // ecs-ecs
	"event.action": "keyword", "event.category": "keyword", "event.dataset": "keyword", "event.end": "date", "event.id": "keyword",
	"event.kind": "keyword", "event.module": "keyword", "event.reason": "keyword", "event.sequence": "long", "event.severity": "long",
	"event.start": "date", "event.type": "keyword", // ecs-event
	"host.name":         "keyword",                                                                                           // ecs-host
	"log.level":         "keyword",                                                                                           // ecs-log
	"network.direction": "keyword", "network.protocol": "keyword", "network.transport": "keyword", "network.type": "keyword", // ecs-network
	"rule.category": "keyword", "rule.id": "keyword", "rule.name": "keyword", "rule.ruleset": "keyword", // ecs-rule
	"source.address": "keyword", "source.ip": "ip", // ecs-source
	"destination.address": "keyword", "destination.ip": "ip", "destination.port": "long", // ecs-destination
	// Not of the schema: Loki looks for a level at the top
	// (https://grafana.com/docs/loki/latest/configure/#limits_config, log_level_fields).
	"level": "keyword",
}

// ecsValues are the words that a field may have: ecs-allowed-values-* and ecs-network of the same pages.
var ecsValues = map[string][]string{
	"event.kind":        {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"},
	"event.category":    {"network", "host"},
	"event.type":        {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"}, // those of category network
	"network.direction": {"ingress", "egress"},                                                             // of a host; the others are a perimeter's
	"network.type":      {"ipv4", "ipv6"},
	"level":             {"info", "warn", "error"},
	"log.level":         {"info", "warn", "error"},
}

// otelAttributes are the attributes that are used, each with its type and the file of
// github.com/open-telemetry/semantic-conventions, model/, that defines it.
var otelAttributes = map[string][2]string{
	"service.name": {"string", "service"}, "service.version": {"string", "service"}, "service.instance.id": {"string", "service"},
	"host.name":             {"string", "host"},
	"event.name":            {"string", "event"}, // since superseded by the record's eventName, which Loki drops
	"security_rule.name":    {"string", "security-rule"},
	"network.local.address": {"string", "network"}, "network.local.port": {"int", "network"},
	"network.peer.address": {"string", "network"}, "network.peer.port": {"int", "network"},
	"network.transport": {"string", "network"}, "network.io.direction": {"string", "network"}, "network.connection.state": {"string", "network"},
}

// otelValues are the members of the attributes that are enumerations.
var otelValues = map[string][]string{
	"network.transport": {"tcp", "udp"}, "network.io.direction": {"transmit", "receive"}, "network.connection.state": {"close_wait"},
}

// replay gives the records of all recorded cases.
func replay(t *testing.T, each func(r Record)) {
	t.Helper()
	for _, name := range sinktest.Cases(t) {
		replayCase(t, name, 2*time.Minute, each)
	}
}

// replayCase gives the records of one capture and of the quiet time after it.
func replayCase(t *testing.T, name string, quiet time.Duration, each func(r Record)) {
	t.Helper()
	d := sinktest.Replay(t, name, quiet, sinktest.Host, sinktest.Agent, func(f *analyze.Finding) error {
		r, err := FindingRecord(f)
		each(r)
		return err
	})
	r, err := DiagnosisRecord(d, 1, sinktest.Host, sinktest.Agent)
	if err != nil {
		t.Fatal(err)
	}
	each(r)
}

// TestFields holds every record of the recorded cases, in every encoding, against the published names: the schemas,
// the Elastic Common Schema and OpenTelemetry's semantic conventions.
func TestFields(t *testing.T) {
	finding, diagnosis := compile(t, KindFinding), compile(t, KindDiagnosis)
	states, ecs, otel := map[analyze.State]int{}, map[string]bool{}, map[string]bool{}
	mask := NewPseudonym([]byte("k"))
	check := func(r Record) {
		switch r.Kind {
		case KindFinding:
			validate(t, finding, r.Body)
		case KindDiagnosis:
			validate(t, diagnosis, r.Body)
		}
		checkECS(t, r, ecs)
		checkOTel(t, r, otel)
	}
	n := 0
	replay(t, func(r Record) {
		n++
		states[r.State]++
		check(r)
		if r.State != analyze.Resolved && r.Kind == KindFinding {
			check(r.again(3))
		}
		p, err := mask.Record(r)
		if err != nil {
			t.Fatal(err)
		}
		check(p)
	})
	for _, r := range allKinds(t) {
		checkECS(t, r, ecs)
		checkOTel(t, r, otel)
	}
	if n < 100 || states[analyze.Open] == 0 || states[analyze.Update] == 0 || states[analyze.Resolved] == 0 {
		t.Errorf("%d records are too few to tell: %v", n, states)
	}
	for f := range ecsFields {
		if !ecs[f] {
			t.Errorf("no record has the ECS field %s", f)
		}
	}
	for a := range otelAttributes {
		if !otel[a] {
			t.Errorf("no record has the attribute %s", a)
		}
	}
}

func checkECS(t *testing.T, r Record, seen map[string]bool) {
	t.Helper()
	b, err := ECS.encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := unmarshal(b, &top); err != nil {
		t.Fatal(err)
	}
	delete(top, "jindan") // what the schema has no name for
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), e)
			}
			return
		case []any:
			for _, e := range v {
				walk(path, e)
			}
			return
		}
		seen[path] = true
		ok := false
		switch s, _ := v.(string); ecsFields[path] {
		case "keyword", "text":
			ok = s != ""
		case "date":
			_, err := time.Parse(time.RFC3339Nano, s)
			ok = err == nil
		case "ip":
			_, err := netip.ParseAddr(s)
			ok = err == nil
		case "long":
			n, _ := v.(json.Number)
			_, err := n.Int64()
			ok = err == nil
		}
		if words := ecsValues[path]; words != nil && !slices.Contains(words, v.(string)) {
			ok = false
		}
		if !ok {
			t.Errorf("%s %s: ECS field %s = %v, of type %q", r.Kind, r.ID, path, v, ecsFields[path])
		}
	}
	walk("", top)
}

func checkOTel(t *testing.T, r Record, seen map[string]bool) {
	t.Helper()
	b, err := OTLP.encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	var q otlpRequest
	if err := json.Unmarshal(b, &q); err != nil {
		t.Fatal(err)
	}
	l := q.ResourceLogs[0]
	for _, a := range slices.Concat(l.Resource.Attributes, l.ScopeLogs[0].LogRecords[0].Attributes) {
		if strings.HasPrefix(a.Key, "jindan.") {
			continue
		}
		seen[a.Key] = true
		typ := "int"
		if a.Value.String != nil {
			typ = "string"
		}
		if otelAttributes[a.Key][0] != typ {
			t.Errorf("%s: attribute %s is no %s of the semantic conventions", r.ID, a.Key, typ)
		}
		if w := otelValues[a.Key]; w != nil && !slices.Contains(w, *a.Value.String) {
			t.Errorf("%s: attribute %s = %s", r.ID, a.Key, *a.Value.String)
		}
	}
}
