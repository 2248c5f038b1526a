package analyze

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"jindan/capture"
	"jindan/rules"
)

// Schema names of the two records that jindan writes.
const (
	FindingSchema   = "jindan.finding/v1"
	DiagnosisSchema = "jindan.diagnosis/v1"
)

// State of a finding. The same fault on the same subject is one finding from
// open to resolved.
type State string

// The states of a finding.
const (
	Open     State = "open"
	Update   State = "update"
	Resolved State = "resolved"
)

// Ended says why a finding is resolved.
type Ended string

// The ends of a finding.
const (
	EndedWell    Ended = "well"    // it no longer holds: the same traffic passes
	EndedUnasked Ended = "unasked" // nobody has tried for a minute: whether it is well is not known
)

// Role of a finding in the causal chain.
type Role string

// The roles.
const (
	Root        Role = "root"
	Consequence Role = "consequence"
	Independent Role = "independent"
	// Pending: nothing explains it yet, but what might has not had the time to show. It becomes a root or a consequence within RootAfter.
	Pending Role = "pending"
)

// RootAfter is how long after its first affected event a finding that others might explain is called a root, if nothing has explained it by
// then. A query that nobody answers shows after one time-out, 5 s (resolv.conf(5)), a SYN that nobody answers has been sent four times after
// 7 s (RFC 6298 §5.5); loss by size needs some time-outs more (lab S1: 4 to 10 s).
const RootAfter = 10 * time.Second

// Text is a sentence in the two languages that operators read.
type Text struct {
	En string `json:"en"`
	Ko string `json:"ko"`
}

// Subject says what a finding is about. Its fields are the identity that links
// findings: two findings share a host, a path or a service exactly when these
// strings are equal.
//
//	kind      host                 peer              port
//	capture   –                    –                 –
//	path      the receiver, or     the other end     –            direction: inbound = peer → host
//	          this host
//	service   the listener's host  –                 its port
//	upstream  the calling host     the called host   its port
//	resolver  the asking host      the DNS server    its port
//	source    the listener's host  who connects      listener's port
//	host      the host             –                 –
//	segment   who should receive   who sent          –            Segment names two capture points, in the order of the packets
type Subject struct {
	Kind      string `json:"kind"`
	Host      string `json:"host,omitempty"`
	Peer      string `json:"peer,omitempty"`
	Port      uint16 `json:"port,omitempty"`
	Direction string `json:"direction,omitempty"` // of a path: inbound or outbound, as seen from Host
	Segment   string `json:"segment,omitempty"`   // of a path or service: data, syn or syn-ack; of a segment: "point → point"
}

// The kinds of subject.
const (
	SubjectCapture  = "capture"
	SubjectPath     = "path"
	SubjectService  = "service"
	SubjectUpstream = "upstream"
	SubjectResolver = "resolver"
	SubjectSource   = "source"
	SubjectHost     = "host"
	SubjectSegment  = "segment"
)

// Key is s as one comparable, sortable string.
func (s Subject) Key() string {
	return strings.Join([]string{s.Kind, s.Host, s.Peer, strconv.Itoa(int(s.Port)), s.Direction, s.Segment}, "|")
}

// FindingID is stable across restarts, replays and updates: it depends only on
// the rule and the subject.
func FindingID(rule string, s Subject) string {
	h := sha256.Sum256([]byte(rule + "|" + s.Key()))
	return rule + "-" + hex.EncodeToString(h[:6])
}

// Evidence is one flow, query or counter that shows the finding. Addresses and
// times only, never payload.
type Evidence struct {
	At     capture.Instant `json:"at"`
	Flow   string          `json:"flow,omitempty"`   // "client:port > server:port"
	Frames []uint64        `json:"frames,omitempty"` // frame numbers in the capture, at most 8
	Note   string          `json:"note"`             // English, technical: what this one shows
}

// Link says by what a finding follows from another.
type Link struct {
	ID      string   `json:"id"`                // of the cause
	Through []string `json:"through,omitempty"` // what stands between the two and was not seen
	Tests   []Tried  `json:"tests"`
}

// Tried is one test of a link.
type Tried struct {
	Test   string `json:"test"`   // order, identity or experiment
	Result string `json:"result"` // proven or not_observable: what a test refutes is no link
	Note   string `json:"note,omitempty"`
}

// Confidence says which tests a finding's role passed.
type Confidence struct {
	Level string   `json:"level"` // high, medium, low
	Tests []string `json:"tests"` // e.g. "order", "identity:same-path", "experiment:small-segments-pass"
}

// Coverage says what the engine could see: without it a verdict has no worth.
type Coverage struct {
	Sources     []string          `json:"sources"`
	First       capture.Instant   `json:"first"` // time of the first and last observation
	Last        capture.Instant   `json:"last"`
	Packets     uint64            `json:"packets"`
	Samples     uint64            `json:"samples,omitempty"` // of sockets, counters, processes and changes
	Connections uint64            `json:"connections"`
	DNS         uint64            `json:"dns"`                     // DNS transactions
	Lost        map[string]uint64 `json:"lost,omitempty"`          // by capture.LossReason name
	Copies      uint64            `json:"copies"`                  // packets captured twice
	Captured    string            `json:"captured,omitempty"`      // which part of the connections, if the agent had to choose: "1 of 4 connections"
	CaptureLoss uint64            `json:"capture_loss"`            // segments that were acknowledged but never seen
	OneWay      uint64            `json:"one_way"`                 // connections of which one direction only was seen
	MidStream   uint64            `json:"mid_stream"`              // connections whose start was not seen
	Late        uint64            `json:"late"`                    // observations older than their window
	OutOfWindow uint64            `json:"out_of_window,omitempty"` // segments and acknowledgements with a number that no window can contain
	ClockSteps  uint64            `json:"clock_steps,omitempty"`   // times that the clock of the input went back and on from there
	Stray       uint64            `json:"stray,omitempty"`         // observations with a time far ahead of those before and after them
	Evicted     uint64            `json:"evicted"`                 // connections dropped from the full flow table
	Refused     map[string]uint64 `json:"refused,omitempty"`       // what a cap turned away, by the cap's name
	Undelivered map[string]uint64 `json:"undelivered,omitempty"`   // records that a sink which fails has not got, by its name; the agent says so
	Local       string            `json:"local,omitempty"`         // of the addresses taken for this host, the one that is used most
	Locals      []string          `json:"locals,omitempty"`        // all of them that were seen
	LocalBy     string            `json:"local_by,omitempty"`      // option, points, host, direction, link_layer, common or none
}

// Finding is the record of jindan.finding/v1.
type Finding struct {
	Schema     string          `json:"schema"`
	ID         string          `json:"id"`
	Seq        uint64          `json:"seq"`  // counts the records of this run
	Time       capture.Instant `json:"time"` // event time of this record
	State      State           `json:"state"`
	Severity   string          `json:"severity"` // info, warn or error
	Rule       string          `json:"rule"`
	Steps      []string        `json:"steps"`
	Subject    Subject         `json:"subject"`
	Onset      capture.Instant `json:"onset"`           // first affected event
	Detected   capture.Instant `json:"detected"`        // when the rule first held
	LastSeen   capture.Instant `json:"last_seen"`       // last window in which it held
	Ended      Ended           `json:"ended,omitempty"` // of a finding that is resolved
	Role       Role            `json:"role"`
	Incident   string          `json:"incident,omitempty"`   // id of the incident that it belongs to; none: information
	Because    []string        `json:"because"`              // ids of the findings that caused this one
	Links      []Link          `json:"links"`                // how, one for each of them
	MayFollow  []string        `json:"may_follow,omitempty"` // of a pending one: the rules that might yet explain it
	Confidence Confidence      `json:"confidence"`
	Features   any             `json:"features"`
	Stages     *Stages         `json:"stages,omitempty"` // of a service: where the time of its requests goes
	Evidence   []Evidence      `json:"evidence"`
	Coverage   FindingCoverage `json:"coverage"`
	Host       string          `json:"host,omitempty"`  // where jindan ran; empty for a file
	Agent      string          `json:"agent,omitempty"` // "jindan/1.2.3"
	Netns      string          `json:"netns,omitempty"` // network namespace, if it is not the agent's own
	Title      Text            `json:"title"`
	Summary    Text            `json:"summary"`
	Next       []Text          `json:"next"`
	Rivals     []Text          `json:"rivals,omitempty"` // other explanations that fit nearly as well: what speaks against each, what would tell
	// Recording is the directory in which the agent keeps what surrounds the finding; empty: it keeps nothing.
	Recording string `json:"recording,omitempty"`
	Filter    string `json:"filter"` // Wireshark display filter that shows it

	rule    *rules.Rule // that it was last judged by
	told    string      // roleKey of its newest record
	settled bool        // its incident has long been over
}

// FindingCoverage is the part of Coverage that a single finding carries.
type FindingCoverage struct {
	Sources     []string `json:"sources"`
	Lost        uint64   `json:"lost"`
	CaptureLoss uint64   `json:"capture_loss"`
	Copies      uint64   `json:"copies"`
}

// Verdict on one step of the catalogue.
type Verdict string

// The verdicts.
const (
	Confirmed     Verdict = "confirmed"
	IsConsequence Verdict = "consequence"
	Suspected     Verdict = "suspected"
	RuledOut      Verdict = "ruled_out"
	NotAssessable Verdict = "not_assessable"
)

// StepVerdict is the verdict on one step with its reason in numbers.
type StepVerdict struct {
	Step     string   `json:"step"`
	Verdict  Verdict  `json:"verdict"`
	Reason   Text     `json:"reason"`
	Findings []string `json:"findings,omitempty"`
	Stages   *Stages  `json:"stages,omitempty"` // of stage-by-stage: of the service that fared worst
}

// Diagnosis is the record of jindan.diagnosis/v1.
type Diagnosis struct {
	Schema string          `json:"schema"`
	Time   capture.Instant `json:"time"`
	Roots  []string        `json:"roots"` // finding ids, first affected event first
	Chain  []string        `json:"chain"` // roots and consequences in the order of their onsets
	// Incidents are those that are open, then those that are over.
	Incidents []Incident    `json:"incidents"`
	Summary   Text          `json:"summary"`
	Steps     []StepVerdict `json:"steps"`
	Coverage  Coverage      `json:"coverage"`
	Findings  []*Finding    `json:"-"` // every finding of the run in its last state; text reports read it
}
