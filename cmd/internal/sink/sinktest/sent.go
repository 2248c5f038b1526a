package sinktest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"jindan/analyze"
)

// Sent are findings that a receiver must have, by id and number.
type Sent map[string]json.RawMessage

// rootCause is the rule of the incident's cause.
const rootCause = "size-dependent-loss"

// Feed gives feed the findings of the incident. Its cause is opened, updated and resolved in them.
func Feed(t testing.TB, feed func(*analyze.Finding) error) Sent {
	t.Helper()
	sent, states := Sent{}, map[analyze.State]bool{}
	Replay(t, Incident(t), 5*time.Minute, Host, Agent, func(f *analyze.Finding) error {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		sent[key(f)] = b
		if f.Rule == rootCause {
			states[f.State] = true
		}
		return feed(f)
	})
	if len(states) != 3 {
		t.Fatalf("the cause is only %v", states)
	}
	t.Logf("%d states of findings, the cause opened, updated and resolved", len(sent))
	return sent
}

func key(f *analyze.Finding) string { return fmt.Sprintf("%s/%d", f.ID, f.Seq) }

// Take takes a received finding off s, if all its fields are as they were sent.
func (s Sent) Take(t testing.TB, body []byte) *analyze.Finding {
	t.Helper()
	var f analyze.Finding
	if err := json.Unmarshal(body, &f); err != nil {
		t.Errorf("%v: %s", err, body)
		return nil
	}
	want, ok := s[key(&f)]
	if !ok {
		t.Errorf("never sent, or twice: %s", body)
		return nil
	}
	delete(s, key(&f))
	var a, b any
	if json.Unmarshal(want, &a) != nil || json.Unmarshal(body, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("sent %s\ngot  %s", want, body)
	}
	return &f
}

// Done says what has not arrived.
func (s Sent) Done(t testing.TB) {
	t.Helper()
	for k := range s {
		t.Errorf("%s has not arrived", k)
	}
}
