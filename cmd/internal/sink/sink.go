package sink

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"jindan/cmd/internal/report"
)

// Message is a record as a sink gets it: filtered, pseudonymised and encoded.
type Message struct {
	Record
	Data []byte // the record in the encoding of its output, one line without its end
}

// Outcome is what became of one message.
type Outcome uint8

// The outcomes.
const (
	Retry    Outcome = iota // not accepted; it will be sent again
	Accepted                // the receiver has it
	Rejected                // the receiver will never take it
)

// Sink delivers to one receiver. It is used by one goroutine at a time, except
// for Close and the methods of [Reopener], and connects when it first sends.
type Sink interface {
	// Send delivers a batch in order and sets out[i], which comes as Retry, for
	// each message. Messages with the same finding id are accepted in order. An
	// error says why some were not accepted; a [RefusedError] says that the
	// receiver refused the request as a whole, a [LaterError] when to come back.
	Send(ctx context.Context, batch []Message, out []Outcome) error
	// Close gives up the connection.
	Close() error
}

// Reopener is a sink with a file that may have been moved away (log rotation).
type Reopener interface{ Reopen() error }

// Refresher is a sink that has to say something again from time to time.
type Refresher interface {
	// Refresh is called every interval, between two batches.
	Refresh(ctx context.Context) error
	// RefreshEvery is that interval.
	RefreshEvery() time.Duration
}

// RefusedError is a permanent refusal of a whole batch: the runner divides it
// to find the message that is to blame.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return "refused: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// LaterError is a refusal for now by a receiver that says when to come back.
type LaterError struct {
	Err   error
	After time.Duration
}

func (e *LaterError) Error() string { return e.Err.Error() }
func (e *LaterError) Unwrap() error { return e.Err }

// fill sets all outcomes to o.
func fill(out []Outcome, o Outcome) {
	for i := range out {
		out[i] = o
	}
}

// distinct is the length of the longest start of batch in which no id occurs
// twice. A receiver that may take a part of a request in any order gets no more
// at once: otherwise the news of a finding could overtake what came before.
func distinct(batch []Message) int {
	seen := make(map[string]bool, len(batch))
	for i := range batch {
		if seen[batch[i].ID] {
			return i
		}
		seen[batch[i].ID] = true
	}
	return len(batch)
}

// EachDistinct calls send with parts of batch in which no id occurs twice, and
// stops after a part of which something is to be retried.
func EachDistinct(batch []Message, out []Outcome, send func([]Message, []Outcome) error) error {
	var errs []error
	for len(batch) > 0 {
		n := distinct(batch)
		if err := send(batch[:n], out[:n]); err != nil {
			errs = append(errs, err)
		}
		if slices.Contains(out[:n], Retry) {
			break
		}
		batch, out = batch[n:], out[n:]
	}
	return errors.Join(errs...)
}

// line makes s fit on one line of a log: nothing hostile, valid UTF-8.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if report.Hostile(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// clip shortens what a receiver answered to what an operator will read.
func clip(s string) string {
	const most = 300 // bytes
	s = line(strings.TrimSpace(s))
	if len(s) <= most {
		return s
	}
	return truncate(s, most) + "…"
}

// truncate cuts s to at most n bytes, between characters.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
