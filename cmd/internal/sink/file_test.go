package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// TestFileFaults: a file that cannot be opened or written delays its records, and is written when it can.
func TestFileFaults(t *testing.T) {
	for _, c := range []struct {
		name, word string
		fail       func(path string) error
	}{
		{"no directory", "no such file", func(path string) error { return os.Remove(filepath.Dir(path)) }},
		{"not writable", "is a directory", func(path string) error { return os.Mkdir(path, 0o700) }}, // permissions do not hold root
		{"disk full", "no space left", func(path string) error { return os.Symlink("/dev/full", path) }},
	} {
		for _, atStart := range []bool{true, false} {
			path := filepath.Join(t.TempDir(), "later", "records")
			t.Run(fmt.Sprintf("%s, at start %v", c.name, atStart), func(t *testing.T) {
				if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				k, err := NewFile(FileOptions{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				s, r := deliver(t, Output{Sink: k, Batch: 20})
				feed := func(from int) {
					for i := range 100 {
						put1(t, s, record(t, from+i, analyze.Open, severities[i%3]))
					}
					flush(t, s)
				}
				moved := path + ".moved"
				if !atStart {
					feed(0)
					eventually(t, "the first are written", func() bool { return r.Status().Lag == 0 })
					moved = filepath.Join(t.TempDir(), "moved")
					if err := errors.Join(os.Rename(path, moved), k.(Reopener).Reopen()); err != nil { // as logrotate does
						t.Fatal(err)
					}
				}
				if err := c.fail(path); err != nil {
					t.Fatal(err)
				}
				feed(100)
				eventually(t, "the failure shows", func() bool {
					x := r.Status()
					return x.Retried >= 2 && !x.Connected && strings.Contains(x.LastError, c.word)
				})
				if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700)); err != nil {
					t.Fatal(err)
				}
				feed(200)
				eventually(t, "all are written", func() bool { return r.Status().Lag == 0 })
				var want, got []byte
				for i := range 300 {
					if i >= 100 || !atStart {
						want = append(append(want, record(t, i, analyze.Open, severities[i%100%3]).Body...), '\n')
					}
				}
				for _, name := range []string{moved, path} {
					b, err := os.ReadFile(name)
					if err != nil && !(atStart && name == moved) {
						t.Fatal(err)
					}
					got = append(got, b...)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%d lines of %d, or not in order", bytes.Count(got, []byte("\n")), bytes.Count(want, []byte("\n")))
				}
				if x := r.Status(); x.Rejected != 0 || x.Dropped != 0 || !x.Connected {
					t.Errorf("%+v", x)
				}
			})
		}
	}
}

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
