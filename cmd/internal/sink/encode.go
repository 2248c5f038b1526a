package sink

import (
	"fmt"
	"slices"
	"strings"

	"jindan/analyze"
	"jindan/cmd/internal/report"
)

// Encoding of records.
type Encoding string

// The encodings.
const (
	Native Encoding = "native" // jindan's own schemas; the default
	ECS    Encoding = "ecs"    // Elastic Common Schema
	OTLP   Encoding = "otlp"   // one OTLP/JSON ExportLogsServiceRequest per record, as otlpjsonfile reads it
)

// Check reports an encoding that does not exist.
func (e Encoding) Check() error {
	switch e {
	case "", Native, ECS, OTLP:
		return nil
	}
	return fmt.Errorf("encoding %q: use native, ecs or otlp", string(e))
}

// encode returns r in encoding e, on one line.
func (e Encoding) encode(r *Record) ([]byte, error) {
	switch {
	case e == OTLP:
		return encodeOTLP([]Message{{Record: *r}})
	case e == ECS && r.Kind == KindFinding:
		var f finding
		if err := unmarshal(r.Body, &f); err != nil {
			return nil, err
		}
		return marshal(report.ECSFinding(&f.Finding))
	case e == ECS && r.Kind == KindDiagnosis:
		var d analyze.Diagnosis
		if err := unmarshal(r.Body, &d); err != nil {
			return nil, err
		}
		d.Findings = []*analyze.Finding{{Severity: r.Severity, Agent: r.Agent}} // the level is not in its JSON
		return marshal(report.ECSDiagnosis(&d))
	case e == ECS:
		message, _, err := summarise(r)
		if err != nil {
			return nil, err
		}
		return marshal(ecsNotice(r, message))
	}
	return r.Body, nil
}

// ecsNotice maps a heartbeat or a notice.
func ecsNotice(r *Record, message string) map[string]any {
	name, version, _ := strings.Cut(r.Agent, "/")
	m := map[string]any{
		"@timestamp": r.Time.String(), "level": r.Severity, "log": map[string]any{"level": r.Severity}, "message": message,
		"ecs":   map[string]any{"version": report.ECSVersion},
		"event": map[string]any{"kind": "event", "category": []string{"host"}, "type": []string{"info"}, "action": string(r.Kind), "dataset": "jindan." + string(r.Kind), "module": "jindan"},
		"agent": map[string]any{"type": name, "version": version}, "jindan": r.Body,
	}
	if r.Host != "" {
		m["host"] = map[string]any{"name": r.Host}
	}
	return m
}

// Filter chooses what a sink gets. The zero Filter lets everything through.
type Filter struct {
	Severity string          // least severity of findings and diagnoses: info, warn or error
	Rules    []string        // rules of findings; empty = all
	States   []analyze.State // states of findings; empty = all
}

// Check reports words that do not exist.
func (f Filter) Check() error {
	if f.Severity != "" && !slices.Contains(severities, f.Severity) {
		return fmt.Errorf("severity %q: use info, warn or error", f.Severity)
	}
	for _, s := range f.States {
		if s != analyze.Open && s != analyze.Update && s != analyze.Resolved {
			return fmt.Errorf("state %q: use open, update or resolved", s)
		}
	}
	return nil
}

// pass tells whether a record goes to the sink. Shown holds the findings that the
// receiver knows as open: their end reaches it whatever its severity.
func (f *Filter) pass(r *Record, shown map[string]bool) bool {
	severe := slices.Index(severities, r.Severity) >= slices.Index(severities, f.Severity)
	switch r.Kind {
	case KindFinding:
		severe = severe || r.State == analyze.Resolved && shown[r.ID]
		return severe && (len(f.Rules) == 0 || slices.Contains(f.Rules, r.Rule)) &&
			(len(f.States) == 0 || slices.Contains(f.States, r.State))
	case KindDiagnosis:
		return severe
	}
	return true
}
