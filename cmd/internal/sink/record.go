// Package sink delivers jindan's records to the receivers that a site has: a
// spool on disk keeps them until every sink has passed them, and one runner per
// sink sends them, at least once and in order, without ever holding up the
// agent or another sink.
package sink

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"
)

// Kind of a record.
type Kind string

// The kinds of record.
const (
	KindFinding   Kind = "finding"
	KindDiagnosis Kind = "diagnosis"
	KindHeartbeat Kind = "heartbeat" // the agent is alive, with the state of its sinks
	KindNotice    Kind = "notice"    // something befell the agent itself
)

// Schema names of the records that this package writes.
const (
	HeartbeatSchema = "jindan.heartbeat/v1"
	NoticeSchema    = "jindan.notice/v1"
)

// severities are the level words in ascending order.
var severities = []string{"info", "warn", "error"}

// Record is one record with what sinks choose and address by.
type Record struct {
	Kind     Kind
	ID       string // finding id, or the kind for what has none
	Seq      uint64 // Finding.Seq; for other kinds a count of this run
	State    analyze.State
	Severity string // info, warn or error; of a diagnosis that of its worst finding
	Rule     string
	Time     capture.Instant
	Host     string          // where jindan runs; empty for a file
	Agent    string          // "jindan/1.2.3"
	Repeat   uint64          // how many times an open finding was repeated without news; 0 = the first
	Body     json.RawMessage // the record's own JSON, one line without its end

	pos uint64 // place in the spool
}

// Key names the record for receivers that drop duplicates: a record that is sent again after a crash has the same key. Seq
// counts from one in each run, so the event time takes part; hosts find the same at the same time, so the host and all that
// the record says do. A receiver that has the key has the record.
func (r *Record) Key() string {
	k := r.ID + "." + strconv.FormatInt(int64(r.Time), 36) + "." + strconv.FormatUint(r.Seq, 36)
	if r.Repeat > 0 {
		k += "." + strconv.FormatUint(r.Repeat, 36)
	}
	h := sha256.New()
	h.Write(append([]byte(r.Host), 0)) // a Hash never fails
	h.Write(r.Body)
	return k + "." + hex.EncodeToString(h.Sum(nil)[:8])
}

// finding is one state of a finding as it travels.
type finding struct {
	analyze.Finding
	Repeat uint64 `json:"repeat,omitempty"` // how many times an open finding was repeated without news; none: it is news
}

// marshal encodes v as one line without HTML escapes, its texts harmless: whatever a sink sends is made from it.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return report.CleanJSON(bytes.TrimSuffix(b.Bytes(), []byte{'\n'})), nil
}

// unmarshal decodes b into v and keeps numbers as they were written.
func unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

// FindingRecord is the record of one state of a finding.
func FindingRecord(f *analyze.Finding) (Record, error) {
	body, err := marshal(f)
	if err != nil {
		return Record{}, fmt.Errorf("encode finding %s: %w", f.ID, err)
	}
	return Record{Kind: KindFinding, ID: f.ID, Seq: f.Seq, State: f.State, Severity: f.Severity, Rule: f.Rule,
		Time: f.Time, Host: f.Host, Agent: f.Agent, Body: body}, nil
}

// DiagnosisRecord is the record of a diagnosis.
func DiagnosisRecord(d *analyze.Diagnosis, seq uint64, host, agent string) (Record, error) {
	body, err := marshal(d)
	if err != nil {
		return Record{}, fmt.Errorf("encode diagnosis: %w", err)
	}
	worst := 0
	for _, f := range d.Findings {
		worst = max(worst, slices.Index(severities, f.Severity))
	}
	return Record{Kind: KindDiagnosis, ID: string(KindDiagnosis), Seq: seq, Severity: severities[worst], Time: d.Time,
		Host: host, Agent: agent, Body: body}, nil
}

// again returns r as its n-th repetition.
func (r Record) again(n uint64) Record {
	r.Repeat = n
	body := bytes.TrimSuffix(r.Body, []byte{'}'})
	r.Body = append(slices.Clone(body), fmt.Sprintf(`,"repeat":%d}`, n)...)
	return r
}

// class is the order in which records leave a full spool, first 0: nothing is
// kept longer than errors and resolutions, without which a receiver would hold
// an alarm for ever.
func (r *Record) class() int {
	switch {
	case r.State == analyze.Resolved || r.Severity == "error":
		return 2
	case r.Severity == "warn":
		return 1
	}
	return 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxRecord is the most bytes of a body: bounded evidence keeps a finding below 64 KiB.
const maxRecord = 1 << 20

// errDamaged is what decode returns for bytes that encode did not write.
var errDamaged = errors.New("damaged record")

// encode writes r for the spool: a CRC-32C of the rest, seq, time and repeat as
// varints, then kind, id, state, severity, rule, host, agent and body, each behind its length.
func (r *Record) encode(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.AppendUvarint(b, r.Seq)
	b = binary.AppendVarint(b, int64(r.Time))
	b = binary.AppendUvarint(b, r.Repeat)
	for _, s := range []string{string(r.Kind), r.ID, string(r.State), r.Severity, r.Rule, r.Host, r.Agent} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = append(binary.AppendUvarint(b, uint64(len(r.Body))), r.Body...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// decode is the inverse of encode; what it returns does not share memory with b.
func decode(b []byte) (Record, error) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return Record{}, errDamaged
	}
	b = b[4:]
	ok := true
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	r := Record{Seq: number()}
	at := number() // zigzag, as AppendVarint writes it
	r.Time = capture.Instant(int64(at>>1) ^ -int64(at&1))
	r.Repeat = number()
	r.Kind, r.ID, r.State, r.Severity, r.Rule = Kind(text()), text(), analyze.State(text()), text(), text()
	r.Host, r.Agent = text(), text()
	r.Body = json.RawMessage(text())
	if !ok || len(b) != 0 {
		return Record{}, errDamaged
	}
	return r, nil
}
