package sink

import (
	"bytes"
	"fmt"
	"io"

	"jindan/analyze"
)

// Direct writes findings and diagnoses as an output would get them, one a line,
// without a spool: for standard output, whose reader keeps up or is gone.
type Direct struct {
	w io.Writer
	r *Runner
	b bytes.Buffer
}

// NewDirect returns a Direct that writes to w what o chooses; o needs no sink.
func NewDirect(w io.Writer, o Output) (*Direct, error) {
	r, err := NewRunner(nil, o)
	if err != nil {
		return nil, err
	}
	return &Direct{w: w, r: r}, nil
}

// Wants tells whether the filter lets a finding through. It is asked once for each record, in order.
func (d *Direct) Wants(f *analyze.Finding) bool {
	return d.r.wants(&Record{Kind: KindFinding, ID: f.ID, State: f.State, Severity: f.Severity, Rule: f.Rule})
}

// Finding writes one state of a finding that the filter lets through.
func (d *Direct) Finding(f *analyze.Finding) error {
	r, err := FindingRecord(f)
	if err != nil {
		return err
	}
	return d.write(r)
}

// Diagnosis writes the diagnosis.
func (d *Direct) Diagnosis(x *analyze.Diagnosis, host, agent string) error {
	r, err := DiagnosisRecord(x, 1, host, agent)
	if err != nil {
		return err
	}
	return d.write(r)
}

func (d *Direct) write(r Record) error {
	if !d.r.wants(&r) {
		return nil
	}
	m, err := d.r.message(r)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", r.Kind, r.ID, err)
	}
	d.b.Reset()
	lines(&d.b, []Message{m})
	if _, err := d.w.Write(d.b.Bytes()); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}
