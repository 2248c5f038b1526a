package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/analyze"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/cmd/internal/config"
)

// recorder is a tape on a file system of its own of so many MiB, and a way to fill its ring.
func recorder(t *testing.T, mib int, limit config.Size) (tp *tape, fill func()) {
	t.Helper()
	cfg := config.Default()
	cfg.Recorder.Dir, cfg.Recorder.MaxTotal, cfg.Recorder.MaxBytes = t.TempDir(), limit, config.MiB
	if mib > 0 {
		if err := unix.Mount("none", cfg.Recorder.Dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Skipf("a file system of its own takes root: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(cfg.Recorder.Dir, unix.MNT_DETACH) })
	}
	tp = faultyAgent(t, cfg, io.Discard, func(int) {}).tapes[0]
	at := capture.Instant(1_700_000_000_000_000_000)
	return tp, func() {
		b := &capture.Batch{}
		for range 2000 {
			at++
			b.Obs = append(b.Obs, capture.Observation{At: at, Kind: capture.KindPacket, Packet: capture.Packet{Proto: 17, Data: make([]byte, 512), Len: 512}})
		}
		b.Until = at
		tp.ring.Add(b)
	}
}

func recordings(t *testing.T, dir string) (n int, size int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files, _ := filepath.Glob(filepath.Join(dir, e.Name(), "*"))
		for _, f := range files {
			if st, err := os.Stat(f); err == nil {
				size += st.Size()
			}
		}
		if recording.IsRecording(filepath.Join(dir, e.Name())) {
			n++
		}
	}
	return n, size
}

// TestRecorderFullDisk: on a disk that is too small for what recorder.max_total allows, the oldest incidents give way, the newest is
// kept, and a part of the disk stays free.
func TestRecorderFullDisk(t *testing.T) {
	tp, fill := recorder(t, 4, config.GiB)
	dir := tp.ag.cfg.Recorder.Dir
	for i := range 12 {
		fill()
		name := filepath.Join(dir, fmt.Sprintf("incident-%02d", i))
		tp.dump(name)
		if !recording.IsRecording(name) {
			t.Fatalf("incident %d is not kept", i)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || float64(st.Bavail) < freeShare*float64(st.Blocks) {
		t.Errorf("%d of %d blocks are free: %v", st.Bavail, st.Blocks, err)
	}
	// A disk that others have filled: nothing is removed in vain, nothing half written stays, and when there is room again the
	// recorder goes on.
	n, _ := recordings(t, dir)
	other := filepath.Join(dir, "other")
	fd, err := os.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fd.Write(make([]byte, 4096))
	}
	fd.Close()
	for range 2 * n { // all of them together are not enough
		entries, _, err := keptIn(dir)
		if err != nil || len(entries) == 0 {
			break
		}
		_ = os.RemoveAll(entries[0].path)
		if fd, err := os.OpenFile(other, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			for err == nil {
				_, err = fd.Write(make([]byte, 4096))
			}
			fd.Close()
		}
	}
	full := filepath.Join(dir, "incident-full")
	tp.dump(full)
	if _, err := os.Stat(full); err == nil {
		t.Error("a recording that found no room is left on the disk")
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	tp.dump(filepath.Join(dir, "incident-after"))
	if !recording.IsRecording(filepath.Join(dir, "incident-after")) {
		t.Error("the recorder does not recover")
	}
}

// TestRecorderLimit: room is made before a recording is written, so that all together never pass recorder.max_total.
func TestRecorderLimit(t *testing.T) {
	tp, fill := recorder(t, 0, 3*config.MiB)
	dir := tp.ag.cfg.Recorder.Dir
	for i := range 8 {
		fill()
		tp.dump(filepath.Join(dir, fmt.Sprintf("incident-%02d", i)))
		if n, size := recordings(t, dir); n == 0 || size > 3<<20 {
			t.Fatalf("%d recordings take %d bytes", n, size)
		}
	}
}

// TestSpoolDiskFull: a spool whose disk is full or read-only at the start is a warning, and receivers get the findings.
func TestSpoolDiskFull(t *testing.T) {
	for _, how := range []string{"full", "read-only"} {
		dir, out := t.TempDir(), filepath.Join(t.TempDir(), "findings")
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=16k"); err != nil {
			t.Skipf("a file system of its own takes root: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if how == "full" {
			_ = os.WriteFile(filepath.Join(dir, "other"), make([]byte, 1<<20), 0o600) // as much as fits
		} else if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		cfg := configure(t, fmt.Sprintf("spool: {dir: %s/spool, max_bytes: 64MiB}\nsinks:\n  - {type: file, path: %s}\n", dir, out))
		d, err := deliver(cfg, "h", nil)
		if d == nil || !errors.As(err, new(*spoolError)) {
			t.Fatalf("%s: %v", how, err)
		}
		if err := d.Finding(&analyze.Finding{ID: "surge-1", Rule: "surge", Severity: "error", State: analyze.Open}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		if err := d.Close(ctx); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		stop()
		if b, err := os.ReadFile(out); err != nil || !strings.Contains(string(b), "surge-1") {
			t.Errorf("%s: the receiver got %q: %v", how, b, err)
		}
	}
}
