package sinktest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/rules"
)

// The agent of the incident.
const (
	Host  = "web01"
	Agent = "jindan/1.2.3"
)

// Cases are the captures of all recorded cases.
func Cases(t testing.TB) []string {
	t.Helper()
	root, err := os.Getwd() // a test runs in the folder of its package
	for err == nil {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil || root == filepath.Dir(root) {
			break
		}
		root = filepath.Dir(root)
	}
	files, err := filepath.Glob(filepath.Join(root, "fixtures/*/packets.pcap*"))
	if err != nil || len(files) < 10 {
		t.Fatalf("no fixtures: %v %v", files, err)
	}
	return files
}

// Incident is the capture of 17 November 2023, rebuilt.
func Incident(t testing.TB) string {
	t.Helper()
	for _, name := range Cases(t) {
		if filepath.Base(filepath.Dir(name)) == "gpki-2023-11-17" {
			return name
		}
	}
	t.Fatal("the incident is not among the fixtures")
	return ""
}

// Replay calls each for the records of one capture and of the quiet time after it, in which faults resolve, as an agent of that name on
// that host makes them, and returns the diagnosis.
func Replay(t testing.TB, name string, quiet time.Duration, host, agent string, each func(*analyze.Finding) error) *analyze.Diagnosis {
	t.Helper()
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	e, err := analyze.New(set, detect.All(), analyze.Options{Sources: []string{"eth0"}, Host: host, Agent: agent, Causes: cause.New(set)}, each)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pcapfile.Open(name, decode.New())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var last capture.Instant
	err = capture.Merge(context.Background(), []capture.Source{f}, 0, func(b *capture.Batch) error {
		if len(b.Obs) > 0 {
			last = b.Obs[len(b.Obs)-1].At
		}
		return e.Observe(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	for d := time.Duration(0); d < quiet; d += time.Second {
		if err := e.Observe(&capture.Batch{Until: last.Add(d)}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
