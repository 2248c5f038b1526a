package report

import (
	"io"

	"jindan/analyze"
)

// Records writes findings and the diagnosis as JSON, one record a line, as they come.
type Records struct {
	enc *Encoder
	ecs bool
}

// NewRecords returns a writer of jindan's own records to w, or of their ECS form.
func NewRecords(w io.Writer, ecs bool) *Records {
	return &Records{NewEncoder(w), ecs}
}

// Finding writes one state of a finding.
func (r *Records) Finding(f *analyze.Finding) error {
	if r.ecs {
		return r.enc.Encode(ECSFinding(f))
	}
	return r.enc.Encode(f)
}

// Diagnosis writes the last record.
func (r *Records) Diagnosis(d *analyze.Diagnosis) error {
	if r.ecs {
		return r.enc.Encode(ECSDiagnosis(d))
	}
	return r.enc.Encode(d)
}
