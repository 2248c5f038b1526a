package view

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// A finding that began with a sample began after the sample of the same kind before it. One that began with a packet has no such doubt.
func TestSampled(t *testing.T) {
	c := New()
	listen, all := capture.Listen.Mask(), capture.AllStates
	sample := func(at time.Duration, states uint32) {
		c.Sample(origin.Add(at), &capture.Sample{Sockets: &capture.SocketTable{States: states}})
	}
	for i := range 20 {
		sample(time.Duration(i)*time.Second, listen)
		if i%10 == 0 {
			sample(time.Duration(i)*time.Second+time.Millisecond, all)
		}
	}
	at := func(id string, d time.Duration) *analyze.Finding {
		return &analyze.Finding{ID: id, Onset: origin.Add(d)}
	}
	v := c.Record(&analyze.Diagnosis{Findings: []*analyze.Finding{at("listen", 11*time.Second), at("all", 10*time.Second+time.Millisecond),
		at("packet", 5*time.Second+3), at("first", 0)}})
	want := map[string]capture.Instant{"listen": origin.Add(10 * time.Second), "all": origin.Add(time.Millisecond)}
	if len(v.Sampled) != len(want) {
		t.Errorf("%d findings are sampled, want %d: %v", len(v.Sampled), len(want), v.Sampled)
	}
	for id, before := range want {
		if v.Sampled[id] != before {
			t.Errorf("%s: not before %d, want %d", id, v.Sampled[id], before)
		}
	}

	// What does not fit is counted, and what is left is right.
	for i := 20; i < maxSampled+100; i++ {
		sample(time.Duration(i)*time.Second, listen)
	}
	late := time.Duration(maxSampled+50) * time.Second
	v = c.Record(&analyze.Diagnosis{Findings: []*analyze.Finding{at("late", late)}})
	if len(c.sampled) > maxSampled || v.Left["samples"] == 0 || v.Sampled["late"] != origin.Add(late-time.Second) {
		t.Errorf("%d kept, %d left out, the late one is not before %d", len(c.sampled), v.Left["samples"], v.Sampled["late"])
	}
}
