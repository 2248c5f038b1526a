package agent

import (
	"bytes"
	"strings"
	"testing"

	"jindan/cmd/internal/metric"
	"jindan/cmd/internal/top"
)

// A program that listens on another port each second makes no series each second.
func TestSeriesBounded(t *testing.T) {
	s, seen := newStates(&Watch{}), map[string]bool{}
	for port := range 5000 {
		var w metric.Writer
		s.metrics(&w, &top.State{Names: top.Resolver{P95: -1}, Listeners: []top.Listener{{Port: uint16(port + 1), Sampled: true}}})
		var b bytes.Buffer
		if _, err := w.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if name, _, ok := strings.Cut(l, "} "); ok {
				seen[name] = true
			}
		}
	}
	if n := len(seen); n < maxPorts || n > 6*maxPorts {
		t.Errorf("%d series", n)
	}
}
