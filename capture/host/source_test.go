//go:build linux

package host

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

// Whoever asks gets an answer, also while others ask, and in batches of one observation.
func TestSourceAsk(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	inode := uint32(st.Ino)
	s := NewSource(Options{Interval: 20 * time.Millisecond, Budget: 5 * time.Second})
	defer s.Close()
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 10 {
				s.Ask([]uint32{0, inode})
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	b := capture.Batch{Obs: make([]capture.Observation, 0, 1)}
	var kept []*capture.HostSample
	answers, last := 0, capture.Instant(0)
	for range 20 {
		if err := s.Read(t.Context(), &b); err != nil || len(b.Obs) != 1 {
			t.Fatalf("%d observations, %v", len(b.Obs), err)
		}
		o := b.Obs[0]
		if o.At < last || o.Kind != capture.KindSample || b.Until < o.At && len(s.pending) == 0 {
			t.Errorf("observation at %v after %v, until %v", o.At, last, b.Until)
		}
		last = o.At
		if o.Sample.Host != nil {
			kept = append(kept, o.Sample.Host)
		}
		if p := o.Sample.Processes; p != nil {
			answers++
			if len(p.Processes) != 1 || int(p.Processes[0].PID) != os.Getpid() || !slices.Equal(p.Processes[0].Inodes, []uint32{inode}) {
				t.Errorf("answer %+v", p)
			}
		}
	}
	asking.Wait()
	if answers == 0 || len(kept) < 2 || kept[0] == kept[1] {
		t.Errorf("%d answers, %d host samples", answers, len(kept))
	}
	s.Ask(make([]uint32, 5000)) // zeros: nobody's
	many := make([]uint32, maxQueued+5000)
	for i := range many {
		many[i] = uint32(i + 1)
	}
	if s.Ask(many); s.Dropped() < 5000-1 {
		t.Errorf("%d dropped of 5,000 too many", s.Dropped())
	}
}

// A clock that is set is told of once; one that drifts is not.
func TestSourceClockStep(t *testing.T) {
	var ahead atomic.Int64
	s := NewSource(Options{Proc: "testdata/proc", Interval: 5 * time.Millisecond,
		Clock: func() capture.Instant { return wall().Add(time.Duration(ahead.Load())) }})
	defer s.Close()
	var steps []time.Duration
	var b capture.Batch
	for i := range 30 {
		switch i {
		case 10:
			ahead.Add(int64(3 * time.Second))
		case 20:
			ahead.Add(-int64(time.Hour))
		default:
			ahead.Add(int64(time.Millisecond)) // 30 ms in all
		}
		if err := s.Read(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		for _, o := range b.Obs {
			if c := o.Sample.Change; c != nil && c.Kind == capture.ChangeClock {
				steps = append(steps, c.Step.Round(time.Second))
			}
		}
	}
	if !slices.Equal(steps, []time.Duration{3 * time.Second, -time.Hour}) {
		t.Errorf("steps %v", steps)
	}
}

// Nothing that cannot be opened ends the source: here nearly nothing can be.
func TestSourceWithoutAnything(t *testing.T) {
	r, w, err := os.Pipe() // no namespace
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := NewSource(Options{Proc: "testdata/none", Netns: netns.NsHandle(r.Fd()), Interval: 5 * time.Millisecond})
	s.Ask([]uint32{7})
	var b capture.Batch
	for range 5 {
		if err := s.Read(t.Context(), &b); err != nil || len(b.Obs) == 0 {
			t.Fatalf("%d observations, %v", len(b.Obs), err)
		}
	}
	if n, last := s.Failures(); n < 10 || n > 20 || last == nil { // 10 files, links, listeners, updates
		t.Errorf("%d failures, the last %v", n, last)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Read(ctx, &b); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Read: %v", err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		s.Close()
	}()
	for err = nil; err == nil; {
		err = s.Read(t.Context(), &b)
	}
	if err != io.EOF {
		t.Errorf("Read after Close: %v", err)
	}
	s.Close()
}

// Files that cannot be read any more are named and counted once, and what they told is absent, not zero or old; the rest goes on.
// When they can be read again, they are.
func TestSourceFileVanishes(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata/proc")); err != nil {
		t.Fatal(err)
	}
	s := NewSource(Options{Proc: root, Interval: time.Millisecond})
	defer s.Close()
	var b capture.Batch
	var h *capture.HostSample
	samples := func(n int) {
		t.Helper()
		for range n {
			if err := s.Read(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			for _, o := range b.Obs {
				if o.Sample.Host != nil {
					h = o.Sample.Host
				}
			}
		}
	}
	known := func() [3]bool {
		return [3]bool{h.Known(capture.TCPOrigDataSent), h.FilesMax > 0, h.Known(capture.OutSegs)}
	}
	samples(3)
	if known() != [3]bool{true, true, true} {
		t.Fatalf("before: %+v", h)
	}
	before, _ := s.Failures()
	s.Untold()

	netstat, fileNr := root+"/net/netstat", root+"/sys/fs/file-nr"
	// The open descriptors must notice, too, as with a module that is unloaded.
	for _, name := range []string{netstat, fileNr} {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(fileNr, 0o700); err != nil { // opens, and cannot be read: also not by root
		t.Fatal(err)
	}
	samples(3 * reopenEvery)
	if known() != [3]bool{false, false, true} || h.Counters[capture.TCPOrigDataSent] != 0 {
		t.Errorf("without two files: %+v", h)
	}
	if n, _ := s.Failures(); n != before+2 {
		t.Errorf("%d failures for two files", n-before)
	}
	told := s.Untold()
	if len(told) != 2 || len(s.Untold()) != 0 {
		t.Errorf("told %v", told)
	}
	for _, name := range []string{netstat, fileNr} {
		if !slices.ContainsFunc(told, func(err error) bool { return strings.Contains(err.Error(), name+": ") }) {
			t.Errorf("%s is not named in %v", name, told)
		}
	}

	if err := os.Remove(fileNr); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{netstat: "testdata/proc/net/netstat", fileNr: "testdata/proc/sys/fs/file-nr"} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(name, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	samples(2 * reopenEvery)
	if known() != [3]bool{true, true, true} {
		t.Errorf("again: %+v", h)
	}
}
