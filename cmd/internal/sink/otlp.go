package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"jindan/analyze"
)

// OTLPOptions configures delivery to an OpenTelemetry collector over HTTP.
type OTLPOptions struct {
	Address string // URL; without a path /v1/logs is taken, e.g. https://collector:4318
	HTTP
}

// otlpSink sends OTLP/HTTP with JSON (opentelemetry-proto 1.x, collector/logs/v1).
type otlpSink struct{ *client }

// NewOTLP returns the sink "otlp". The encoding of its output plays no part.
func NewOTLP(o OTLPOptions) (Sink, error) {
	c, err := newClient(o.Address, "/v1/logs", o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("sink otlp: %w", err)
	}
	return otlpSink{c}, nil
}

// Send posts one export request. A partial success names only how many were
// rejected, not which, and forbids sending them again: the count is kept.
func (s otlpSink) Send(ctx context.Context, batch []Message, out []Outcome) error {
	body, err := encodeOTLP(batch)
	if err != nil {
		return &RefusedError{err}
	}
	answer, err := s.post(ctx, "application/json", body, nil)
	if err != nil {
		return err
	}
	fill(out, Accepted)
	var partial struct {
		PartialSuccess struct {
			RejectedLogRecords json.RawMessage `json:"rejectedLogRecords"`
			ErrorMessage       string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &partial) != nil {
		return nil // 2xx is what counts
	}
	n, _ := strconv.Atoi(strings.Trim(string(partial.PartialSuccess.RejectedLogRecords), `"`))
	if n > 0 {
		fill(out[:min(n, len(out))], Rejected)
		return fmt.Errorf("collector rejected %d of %d log records: %s", n, len(batch), clip(partial.PartialSuccess.ErrorMessage))
	}
	return nil
}

// The OTLP messages in proto3 JSON: lowerCamelCase names, 64-bit integers as strings,
// enums as numbers (opentelemetry-specification/protocol/otlp.md, "JSON Protobuf Encoding").
type (
	otlpRequest struct {
		ResourceLogs []otlpResourceLogs `json:"resourceLogs"`
	}
	otlpResourceLogs struct {
		Resource  otlpResource    `json:"resource"`
		ScopeLogs []otlpScopeLogs `json:"scopeLogs"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeLogs struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpRecord struct {
		TimeUnixNano         string          `json:"timeUnixNano"`
		ObservedTimeUnixNano string          `json:"observedTimeUnixNano"`
		SeverityNumber       int             `json:"severityNumber"`
		SeverityText         string          `json:"severityText"`
		EventName            string          `json:"eventName"`
		Body                 otlpValue       `json:"body"`
		Attributes           []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    string  `json:"intValue,omitempty"`
	}
)

// otlpSeverity are the numbers of INFO, WARN and ERROR (logs/data-model.md).
var otlpSeverity = map[string]int{"info": 9, "warn": 13, "error": 17}

// otlpAttributes collects attributes; empty values are left out.
type otlpAttributes []otlpAttribute

func (a *otlpAttributes) text(key, v string) {
	if v != "" {
		*a = append(*a, otlpAttribute{key, otlpValue{String: &v}})
	}
}

func (a *otlpAttributes) number(key string, v int64) {
	*a = append(*a, otlpAttribute{key, otlpValue{Int: strconv.FormatInt(v, 10)}})
}

// encodeOTLP is one ExportLogsServiceRequest with the records of batch, grouped by host.
func encodeOTLP(batch []Message) ([]byte, error) {
	var q otlpRequest
	group := map[string]int{}
	for i := range batch {
		host := batch[i].Host
		rec, err := otlpLog(&batch[i].Record)
		if err != nil {
			return nil, fmt.Errorf("encode %s for OTLP: %w", batch[i].ID, err)
		}
		g, ok := group[host]
		if !ok {
			g = len(q.ResourceLogs)
			group[host] = g
			name, version, _ := strings.Cut(batch[i].Agent, "/")
			if name == "" {
				name = "jindan"
			}
			var a otlpAttributes
			a.text("service.name", name)
			a.text("service.version", version)
			a.text("service.instance.id", host)
			a.text("host.name", host)
			l := otlpResourceLogs{Resource: otlpResource{a}, ScopeLogs: make([]otlpScopeLogs, 1)}
			l.ScopeLogs[0].Scope.Name = "jindan"
			q.ResourceLogs = append(q.ResourceLogs, l)
		}
		scope := &q.ResourceLogs[g].ScopeLogs[0]
		scope.LogRecords = append(scope.LogRecords, rec)
	}
	return marshal(q)
}

// otlpLog maps one record.
func otlpLog(r *Record) (log otlpRecord, err error) {
	at := strconv.FormatInt(int64(r.Time), 10)
	log = otlpRecord{TimeUnixNano: at, ObservedTimeUnixNano: at, SeverityNumber: otlpSeverity[r.Severity],
		SeverityText: r.Severity, EventName: "jindan." + string(r.Kind)}
	message, f, err := summarise(r)
	if err != nil {
		return log, err
	}
	if r.Rule != "" {
		log.EventName += "." + r.Rule
	}
	log.Body.String = &message
	var a otlpAttributes
	a.text("event.name", log.EventName) // Loki keeps attributes but not eventName
	a.text("jindan.id", r.ID)
	a.number("jindan.seq", int64(r.Seq))
	a.text("jindan.state", string(r.State))
	a.text("security_rule.name", r.Rule)
	if f != nil {
		a.text("jindan.role", string(f.Role))
		a.text("jindan.confidence", f.Confidence.Level)
		a.text("jindan.subject.kind", f.Subject.Kind)
		a.text("network.local.address", f.Subject.Host)
		a.text("network.peer.address", f.Subject.Peer)
		if f.Subject.Port != 0 {
			side := "network.local.port" // of a service; see analyze.Subject
			if f.Subject.Kind == analyze.SubjectUpstream || f.Subject.Kind == analyze.SubjectResolver {
				side = "network.peer.port"
			}
			a.number(side, int64(f.Subject.Port))
		}
		if f.Subject.Kind != analyze.SubjectResolver && f.Subject.Kind != analyze.SubjectCapture && f.Subject.Kind != analyze.SubjectHost {
			a.text("network.transport", "tcp")
		}
		a.text("network.io.direction", map[string]string{"inbound": "receive", "outbound": "transmit"}[f.Subject.Direction])
		if f.Rule == "close-wait" {
			a.text("network.connection.state", "close_wait")
		}
		if r.Repeat > 0 {
			a.number("jindan.repeat", int64(r.Repeat))
		}
	}
	a.text("jindan.record", string(r.Body))
	log.Attributes = a
	return log, nil
}

// summarise is the sentence of a record, and the finding when it is one.
func summarise(r *Record) (string, *finding, error) {
	switch r.Kind {
	case KindFinding:
		var f finding
		if err := unmarshal(r.Body, &f); err != nil {
			return "", nil, err
		}
		return line(f.Title.En + ": " + f.Summary.En), &f, nil
	case KindDiagnosis:
		var d struct{ Summary analyze.Text }
		err := unmarshal(r.Body, &d)
		return line(d.Summary.En), nil, err
	}
	var n struct{ Message string }
	err := unmarshal(r.Body, &n)
	return line(n.Message), nil, err
}
