package sink

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// writer writes one record a line.
type writer struct {
	w io.Writer
	b bytes.Buffer
}

// NewWriter returns a sink that writes to w.
func NewWriter(w io.Writer) Sink { return &writer{w: w} }

// Send writes the batch at once.
func (s *writer) Send(_ context.Context, batch []Message, out []Outcome) error {
	s.b.Reset()
	lines(&s.b, batch)
	n, err := s.w.Write(s.b.Bytes())
	for i := range batch { // what was written whole is not written again
		if n -= len(batch[i].Data) + 1; n < 0 {
			break
		}
		out[i] = Accepted
	}
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// Close leaves the writer open: it belongs to the process.
func (s *writer) Close() error { return nil }

// lines appends one line per message.
func lines(b *bytes.Buffer, batch []Message) {
	for i := range batch {
		b.Write(batch[i].Data)
		b.WriteByte('\n')
	}
}
