package analyze_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/rules"
)

// TestBeside: detectors that run beside the flow table see what those see that run in turn with it.
func TestBeside(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../fixtures/*/packets.pcap*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			want := records(t, set, file, 0)
			// A prime, so that handfuls begin and end anywhere in a connection.
			if got := records(t, set, file, 13); !bytes.Equal(got, want) {
				t.Error("detectors that run beside the flow table say something else")
			}
		})
	}
}

// records are those of an engine whose detectors are handed n events at a time; 0: each when it happens.
func records(t *testing.T, set *rules.Set, file string, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	o := analyze.Options{Causes: cause.New(set)}
	if n > 0 {
		o.Beside = new(sync.WaitGroup)
	}
	e, err := analyze.New(set, detect.All(), o, func(f *analyze.Finding) error { return enc.Encode(f) })
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		e.Handfuls(n)
	}
	f, err := pcapfile.Open(file, decode.New())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := capture.Merge(t.Context(), []capture.Source{f}, 0, e.Observe); err != nil {
		t.Fatal(err)
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(d); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
