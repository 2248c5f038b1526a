package config

import (
	"slices"
	"testing"
)

func TestPaths(t *testing.T) {
	c := Default()
	c.Rules = "/etc/jindan/rules"
	c.Sinks = append(c.Sinks, Sink{Type: "file", Name: "f", Target: &File{Path: "/var/log/jindan/findings"}},
		Sink{Type: "otlp", Name: "o", Target: &OTLP{Endpoint: "http://x", TLS: &TLS{CA: "/etc/own/ca.pem"}}})
	got := c.Paths()
	for _, want := range []string{"/etc/jindan/rules", "/var/log/jindan/findings", "/etc/own/ca.pem", c.Recorder.Dir, c.Spool.Dir, c.Host.Procfs} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %v", want, got)
		}
	}
}
