package report

import (
	"net/netip"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// ECSVersion is the version of the Elastic Common Schema whose names are used.
const ECSVersion = "8.17.0"

// ECS is a finding or a diagnosis under the field names of the Elastic Common
// Schema; what the schema has no name for stands under jindan.
type ECS struct {
	Timestamp   string      `json:"@timestamp"`
	Level       string      `json:"level"` // for collectors that look for it at the top
	Message     string      `json:"message"`
	Log         ecsLog      `json:"log"`
	ECS         ecsVer      `json:"ecs"`
	Event       ecsEvent    `json:"event"`
	Rule        *ecsRule    `json:"rule,omitempty"`
	Source      *ecsPoint   `json:"source,omitempty"`
	Destination *ecsPoint   `json:"destination,omitempty"`
	Network     *ecsNetwork `json:"network,omitempty"`
	Host        *ecsHost    `json:"host,omitempty"`
	Agent       ecsAgent    `json:"agent"`
	Jindan      any         `json:"jindan"`
}

type ecsLog struct {
	Level string `json:"level"`
}

type ecsVer struct {
	Version string `json:"version"`
}

type ecsEvent struct {
	Kind     string   `json:"kind"`
	Category []string `json:"category"`
	Type     []string `json:"type"`
	Action   string   `json:"action"`
	Reason   string   `json:"reason"`
	Severity int      `json:"severity"`
	ID       string   `json:"id,omitempty"`
	Dataset  string   `json:"dataset"`
	Module   string   `json:"module"`
	Start    string   `json:"start,omitempty"`
	End      string   `json:"end,omitempty"`
	Sequence uint64   `json:"sequence,omitempty"`
}

type ecsRule struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Category string `json:"category,omitempty"`
	Ruleset  string `json:"ruleset"`
}

type ecsPoint struct {
	Address string `json:"address,omitempty"` // what is no IP address, such as a pseudonym; the field ip takes nothing else
	IP      string `json:"ip,omitempty"`
	Port    uint16 `json:"port,omitempty"`
}

// point is an end of a connection without its port.
func point(address string) *ecsPoint {
	if _, err := netip.ParseAddr(address); err != nil {
		return &ecsPoint{Address: address}
	}
	return &ecsPoint{IP: address}
}

type ecsNetwork struct {
	Transport string `json:"transport,omitempty"`
	Type      string `json:"type,omitempty"`
	Protocol  string `json:"protocol,omitempty"`
	Direction string `json:"direction,omitempty"`
}

type ecsHost struct {
	Name string `json:"name"`
}

type ecsAgent struct {
	Type    string `json:"type"`
	Version string `json:"version,omitempty"`
}

// ecsFinding is the rest of a finding.
type ecsFinding struct {
	Schema     string                  `json:"schema"`
	State      analyze.State           `json:"state"`
	Role       analyze.Role            `json:"role"`
	Because    []string                `json:"because"`
	Steps      []string                `json:"steps"`
	Subject    analyze.Subject         `json:"subject"`
	Detected   string                  `json:"detected"`
	LastSeen   string                  `json:"last_seen"`
	Confidence analyze.Confidence      `json:"confidence"`
	Features   any                     `json:"features"`
	Evidence   []analyze.Evidence      `json:"evidence"`
	Coverage   analyze.FindingCoverage `json:"coverage"`
	Title      analyze.Text            `json:"title"`
	Summary    analyze.Text            `json:"summary"`
	Next       []analyze.Text          `json:"next"`
	Rivals     []analyze.Text          `json:"rivals,omitempty"`
	Filter     string                  `json:"filter"`
}

// ecsSeverity are the values that Elastic's detection rules take for low, medium and high.
var ecsSeverity = map[string]int{"info": 21, "warn": 47, "error": 73}

func timestamp(at capture.Instant) string { return at.Time().Format(time.RFC3339Nano) }

// ECSFinding maps a finding.
func ECSFinding(f *analyze.Finding) *ECS {
	e := &ECS{
		Timestamp: timestamp(f.Time), Level: f.Severity, Message: Clean(f.Title.En) + ": " + English.place(f.Subject),
		Log: ecsLog{f.Severity}, ECS: ecsVer{ECSVersion}, Agent: agent(f.Agent),
		Event: ecsEvent{Kind: "alert", Category: []string{"network"}, Type: eventTypes(f), Action: f.Rule,
			Reason: Clean(f.Summary.En), Severity: ecsSeverity[f.Severity], ID: f.ID, Dataset: "jindan.finding",
			Module: "jindan", Start: timestamp(f.Onset), Sequence: f.Seq},
		Rule: &ecsRule{ID: f.Rule, Name: Clean(f.Title.En), Category: strings.Join(f.Steps, ","), Ruleset: "jindan"},
		Jindan: ecsFinding{Schema: f.Schema, State: f.State, Role: f.Role, Because: f.Because, Steps: f.Steps, Subject: f.Subject,
			Detected: timestamp(f.Detected), LastSeen: timestamp(f.LastSeen), Confidence: f.Confidence, Features: f.Features,
			Evidence: f.Evidence, Coverage: f.Coverage, Title: f.Title, Summary: f.Summary, Next: f.Next, Rivals: f.Rivals, Filter: f.Filter},
	}
	if f.State == analyze.Resolved {
		e.Event.End = timestamp(f.LastSeen)
	}
	if f.Host != "" {
		e.Host = &ecsHost{f.Host}
	}
	e.ends(f.Subject)
	return e
}

// eventTypes are the allowed values of event.type for category network that fit.
func eventTypes(f *analyze.Finding) []string {
	t := []string{"connection"}
	switch {
	case f.Subject.Kind == analyze.SubjectResolver:
		t[0] = "protocol"
	case f.Subject.Kind == analyze.SubjectCapture:
		t[0] = "info"
	case f.Rule == "connection-refused":
		t = append(t, "denied")
	}
	switch f.State {
	case analyze.Open:
		t = append(t, "start")
	case analyze.Resolved:
		t = append(t, "end")
	}
	return t
}

// The directions as seen from a host; inbound and outbound are those of a network's perimeter.
const ingress, egress = "ingress", "egress"

// ends says who talks to whom: source and destination are those of the connection or,
// for a path, those of the packets.
func (e *ECS) ends(s analyze.Subject) {
	if s.Kind == analyze.SubjectCapture || s.Host == "" {
		return
	}
	n := &ecsNetwork{Transport: "tcp"}
	if a, err := netip.ParseAddr(s.Host); err == nil { // neither a name nor a pseudonym tells
		n.Type = "ipv4"
		if a.Is6() {
			n.Type = "ipv6"
		}
	}
	host, peer := point(s.Host), point(s.Peer)
	if s.Peer == "" {
		peer = nil
	}
	switch s.Kind {
	case analyze.SubjectPath:
		n.Direction = ingress
		e.Source, e.Destination = peer, host
		if s.Direction == "outbound" {
			n.Direction = egress
			e.Source, e.Destination = host, peer
		}
	case analyze.SubjectUpstream, analyze.SubjectResolver:
		if peer != nil {
			peer.Port = s.Port
		}
		e.Source, e.Destination = host, peer
		n.Direction = egress
		if s.Kind == analyze.SubjectResolver {
			n.Transport, n.Protocol = "", "dns" // over UDP, TCP or both
		}
	default: // service, source, host
		host.Port = s.Port
		e.Source, e.Destination = peer, host
		n.Direction = ingress
		if s.Kind == analyze.SubjectHost {
			n = nil
		}
	}
	e.Network = n
}

// agent splits "jindan/1.2.3".
func agent(s string) ecsAgent {
	name, version, _ := strings.Cut(s, "/")
	if name == "" {
		name = "jindan"
	}
	return ecsAgent{name, version}
}

// ECSDiagnosis maps the last record of a run. Its level is that of its worst finding.
func ECSDiagnosis(d *analyze.Diagnosis) *ECS {
	level, who := "info", ""
	for _, f := range d.Findings {
		if ecsSeverity[f.Severity] > ecsSeverity[level] {
			level = f.Severity
		}
		who = f.Agent
	}
	return &ECS{
		Timestamp: timestamp(d.Time), Level: level, Message: Clean(d.Summary.En), Log: ecsLog{level}, ECS: ecsVer{ECSVersion},
		Agent: agent(who),
		Event: ecsEvent{Kind: "state", Category: []string{"network"}, Type: []string{"info"}, Action: "diagnosis",
			Reason: Clean(d.Summary.En), Severity: ecsSeverity[level], Dataset: "jindan.diagnosis", Module: "jindan",
			Start: timestamp(d.Coverage.First), End: timestamp(d.Coverage.Last)},
		Jindan: d,
	}
}
