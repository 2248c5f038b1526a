package diagnose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/capture/recording"
)

// Who records a network namespace gets a directory for it, and hands in the one above: with its samples, not the packets alone.
func TestRecordingIn(t *testing.T) {
	above := t.TempDir()
	record := func(name string) string {
		dir := filepath.Join(above, name)
		w, err := recording.Create(dir, recording.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	one := record("web")
	for _, path := range []string{one, above} {
		if got, err := recordingIn(path); got != one || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	two := record("web2")
	if got, err := recordingIn(above); got != "" || err == nil || !strings.Contains(err.Error(), two) {
		t.Errorf("of two: %q, %v", got, err)
	}
	file := filepath.Join(above, "a.pcap")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{above, file, filepath.Join(above, "absent")} {
		if got, err := recordingIn(path); got != "" || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}
