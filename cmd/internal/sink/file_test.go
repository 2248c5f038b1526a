package sink

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	one := messages(t, 1)
	size := int64(len(one[0].Data) + 1)
	k, err := NewFile(FileOptions{Path: path, MaxSize: 3 * size, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	send := func() {
		t.Helper()
		out := make([]Outcome, 1)
		if err := k.Send(context.Background(), one, out); err != nil || out[0] != Accepted {
			t.Fatal(err, out)
		}
	}
	count := func(name string) int {
		b, _ := os.ReadFile(name)
		return bytes.Count(b, []byte("\n"))
	}
	if err := os.WriteFile(path, []byte(`{"torn":`), 0o600); err != nil { // a crash was here
		t.Fatal(err)
	}
	send()
	if b, _ := os.ReadFile(path); string(b) != "{\"torn\":\n"+string(one[0].Data)+"\n" {
		t.Errorf("%q", b)
	}
	os.Remove(path)
	if err := k.(Reopener).Reopen(); err != nil {
		t.Fatal(err)
	}
	for range 11 {
		send()
	}
	for name, n := range map[string]int{path: 2, path + ".1": 3, path + ".2": 3, path + ".3": 0} {
		if count(name) != n {
			t.Errorf("%s: %d lines, want %d", filepath.Base(name), count(name), n)
		}
	}
	// None kept: the full one is gone.
	none := filepath.Join(t.TempDir(), "records")
	only, err := NewFile(FileOptions{Path: none, MaxSize: 3 * size})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := only.Send(context.Background(), one, make([]Outcome, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := filepath.Glob(none + "*"); len(files) != 1 || count(none) != 1 {
		t.Errorf("%v of %d lines", files, count(none))
	}
	// logrotate moves the file and sends SIGHUP.
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	send()
	if count(path+".moved") != 3 {
		t.Error("before the signal the open file is written on")
	}
	if err := k.(Reopener).Reopen(); err != nil {
		t.Fatal(err)
	}
	send()
	if count(path) != 1 {
		t.Error("after it a new one")
	}
	for _, bad := range []FileOptions{{}, {Path: "x", MaxSize: -1}, {Path: "x", Keep: -1}} {
		if _, err := NewFile(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestFileFaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	k, err := NewFile(FileOptions{Path: filepath.Join(dir, "records")})
	if err != nil {
		t.Fatal(err)
	}
	s, r := deliver(t, Output{Sink: k})
	put(t, s, record(t, 0, analyze.Open, "warn"))
	eventually(t, "retries while the directory is missing", func() bool { return r.Status().Retried >= 2 })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is written", func() bool { return r.Status().Sent == 1 })
	full, err := NewFile(FileOptions{Path: "/dev/full"})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]Outcome, 1)
	if err := full.Send(context.Background(), messages(t, 1), out); err == nil || !strings.Contains(err.Error(), "no space left") || out[0] != Retry {
		t.Errorf("full disk: %v %v", err, out)
	}
}

// shortWriter takes a number of bytes and fails.
func TestDeliveryCloseDrains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	k, err := NewFile(FileOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(t.TempDir(), "s")}, Outputs: []Output{{Name: "out", Sink: k, Encoding: ECS}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Finding(aFinding(0, analyze.Open, "warn")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), `"event":{"kind":"alert"`) {
		t.Errorf("Close did not wait for the sink: %v %q", err, b)
	}
	if err := d.Finding(aFinding(0, analyze.Open, "warn")); err == nil {
		t.Error("a closed delivery takes records")
	}
}
