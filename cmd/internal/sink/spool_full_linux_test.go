package sink

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"jindan/analyze"
)

// smallDisk is a file system of so many bytes that nobody else sees: a tmpfs that is mounted nowhere, reached by its descriptor.
func smallDisk(t *testing.T, bytes int) (dir string, fd int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a file system of its own")
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("fsopen(2), Linux 5.2 and newer: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", fmt.Sprint(bytes)); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	if fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd), fd
}

// occupy takes what room is left.
func occupy(t *testing.T, dir string) (name string) {
	t.Helper()
	name = filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); err != nil {
			if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
				t.Fatal(err)
			}
			return name
		}
	}
}

// TestIntegrationSpoolDiskFull: the file system has no room in the middle of commits, again and again, at another place each time.
// Receivers get everything, in order and once, from memory; with room again the disk takes what was not passed; the file is whole
// at every time, and what a full memory loses is counted.
func TestIntegrationSpoolDiskFull(t *testing.T) {
	dir, _ := smallDisk(t, 4<<20)
	o := SpoolOptions{Path: filepath.Join(dir, "spool.db"), MaxBytes: 2 << 20, Sinks: []string{"fast", "slow"}}
	s, err := OpenSpool(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	n, want, lost := 0, 0, 0 // records appended, those that fast has had, and those that were said to be lost
	more := func(k int) {
		for range k {
			put1(t, s, record(t, n, analyze.Open, severities[n%3]))
			n++
		}
	}
	take := func(name string) (got []uint64) {
		for _, r := range readAll(t, s, name) {
			got = append(got, r.Seq)
		}
		return got
	}
	more(20)
	flush(t, s)
	for round := range 12 {
		filler := occupy(t, dir)
		if err := os.Truncate(filler, max(0, size(t, filler)-int64(round%4)*4096)); err != nil { // commits end at another page
			t.Fatal(err)
		}
		more(150)
		eventually(t, "the failure shows", func() bool { return s.Status().Err != nil })
		if err := s.Status().Err; !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("round %d: %v", round, err)
		}
		for want < n { // fast gets all, from the disk and from memory
			got := take("fast")
			for _, seq := range got {
				if want++; seq != uint64(want) {
					t.Fatalf("round %d: record %d in the place of %d", round, seq, want)
				}
			}
			if len(got) == 0 {
				t.Fatalf("round %d: fast got %d of %d", round, want, n)
			}
		}
		if round == 5 { // the process ends on a full disk, and comes back on one
			if err := s.Close(); err == nil || !strings.Contains(err.Error(), "; 150 records that a receiver has yet to get are lost") {
				t.Errorf("closed, and what slow has not got is on no disk: %v", err)
			}
			lost += 150
			if s, err = OpenSpool(o); err != nil && !environment(err) {
				t.Fatalf("opened on a full disk: %v", err)
			}
			if err != nil { // said, and nothing set aside
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				if s, err = OpenSpool(o); err != nil {
					t.Fatal(err)
				}
			}
			if s.Aside() != "" {
				t.Fatalf("a good file was set aside: %s", s.Aside())
			}
			take("fast") // again what it had, for its place could not be saved
			want = n
		}
		_ = os.Remove(filler)
		flush(t, s)
		if st := s.Status(); st.Err != nil || st.Damaged != 0 || st.Resets != 0 {
			t.Fatalf("round %d, with room again: %+v", round, st)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := verify(o.Path); err != nil {
		t.Fatalf("the file is damaged: %v", err)
	}
	if s, err = OpenSpool(o); err != nil {
		t.Fatal(err)
	}
	if got := len(take("slow")); got+lost != n || lost == 0 {
		t.Errorf("%d records; slow got %d, and %d were said to be lost", n, got, lost)
	}
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestIntegrationSpoolReadOnly: on a file system that takes no writes no spool is opened, and nothing is taken for damage.
func TestIntegrationSpoolReadOnly(t *testing.T) {
	dir, fd := smallDisk(t, 4<<20)
	o := SpoolOptions{Path: filepath.Join(dir, "spool.db"), Sinks: []string{"x"}}
	s, err := OpenSpool(o)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, record(t, 0, analyze.Open, "warn"), record(t, 1, analyze.Open, "warn"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	set := func(on, off uint64) {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: on, Attr_clr: off}); err != nil {
			t.Skipf("mount_setattr(2), Linux 5.12 and newer: %v", err)
		}
	}
	set(unix.MOUNT_ATTR_RDONLY, 0)
	if _, err := OpenSpool(o); err == nil || !environment(err) || !strings.Contains(err.Error(), "read-only") {
		t.Fatalf("opened: %v", err)
	}
	set(0, unix.MOUNT_ATTR_RDONLY)
	if s, err = OpenSpool(o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := seqs(readAll(t, s, "x")); !equal(got, 1, 2) || s.Aside() != "" {
		t.Errorf("%v, %q", got, s.Aside())
	}
}
