package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"

	"golang.org/x/sys/unix"
)

// tape keeps what a watch observes: all of it where the user wants that, and the newest of it in memory, to be
// written when something serious is found.
type tape struct {
	ag     *agent
	w      *Watch
	writer *recording.Writer
	ring   *recording.Ring
	due    []incident
	broken bool
	failed capture.Instant // when a failure of the engine was last kept
}

// incident is a finding whose surroundings are to be kept.
type incident struct {
	at  capture.Instant // when the time after it is over
	dir string
}

// newTape keeps everything in dir unless that is empty.
func newTape(ag *agent, w *Watch, dir string) (*tape, error) {
	t := &tape{ag: ag, w: w}
	cfg := ag.cfg
	if dir != "" {
		var err error
		if w.ns != "" {
			if err = os.MkdirAll(dir, 0o700); err != nil {
				return nil, fmt.Errorf("create recording: %w", err)
			}
			dir = filepath.Join(dir, strings.ReplaceAll(w.ns, "/", "_"))
		}
		t.writer, err = recording.Create(dir, recording.Options{Meta: w.meta, MaxBytes: int64(cfg.Record.MaxBytes), MaxDuration: cfg.Record.MaxTime})
		if err != nil {
			return nil, err
		}
	}
	if cfg.Recorder.Enabled {
		if err := os.MkdirAll(cfg.Recorder.Dir, 0o700); err != nil {
			ag.app.Log.Warn().Msgf("what surrounds a finding is not kept (recorder.dir): %s", cli.OneLine(err))
		} else {
			t.ring = recording.NewRing(recording.RingOptions{Keep: cfg.Recorder.Keep + cfg.Recorder.After, MaxBytes: w.share.recorder})
		}
	}
	return t, nil
}

// see takes a batch before the engine does. A disk that fails does not stop the agent.
func (t *tape) see(b *capture.Batch) error {
	if t.writer != nil && !t.broken {
		if err := t.writer.Write(b); err != nil {
			t.broken = true
			t.ag.app.Log.Error().Msgf("recording ends here: %s", cli.OneLine(err))
		}
	}
	if t.ring == nil {
		return nil
	}
	t.ring.Add(b)
	for len(t.due) > 0 && b.Until >= t.due[0].at {
		t.dump(t.due[0].dir)
		t.due = t.due[1:]
	}
	return nil
}

// incident plans to keep what surrounds f, and returns where; empty: it is not kept.
func (t *tape) incident(f *analyze.Finding) string {
	if t.ring == nil || f.State == analyze.Resolved || f.Severity != "error" {
		return ""
	}
	dir := filepath.Join(t.ag.cfg.Recorder.Dir, fmt.Sprintf("%s-%s", f.ID, f.Detected.Time().Format("20060102T150405Z")))
	if len(t.due) == 0 {
		t.due = append(t.due, incident{f.Time.Add(t.ag.cfg.Recorder.After), dir})
	}
	return t.due[len(t.due)-1].dir // findings of one fault share one recording
}

// dump writes the ring to dir. Room is made before, so that neither the limit of all incidents nor the disk is passed; what
// could not be written to its end is removed again.
func (t *tape) dump(dir string) {
	parent, limit := t.ag.cfg.Recorder.Dir, int64(t.ag.cfg.Recorder.MaxTotal)
	need := min(spread*int64(t.ring.Stats().Bytes), limit)
	err := rotate(parent, limit-need)
	if err == nil {
		err = makeRoom(parent, need)
	}
	if err == nil {
		if err = t.ring.Dump(dir, recording.Options{Meta: t.w.meta, MaxBytes: need}); err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	if err != nil {
		t.ag.app.Log.Error().Msgf("what surrounds a finding is not kept: %s", cli.OneLine(err))
		return
	}
	t.ag.app.Log.Info().Msgf("what surrounds the finding is kept in %s; 'jindan analyze' reads it", dir)
}

// spread is how many bytes on disk one of the ring may become: measured 1.84 for packets that only JSON can
// express. What is beyond is left out, and the recording says so.
const spread = 2

// freeShare of a file system is left to others, as ext4 leaves to root (mke2fs(8), -m): a recording that fills a sick
// server's disk makes it sicker.
const freeShare = 0.05

// makeRoom removes the oldest recordings in dir until its file system has need bytes more than freeShare; none, if all of
// them would not do.
func makeRoom(dir string, need int64) error {
	all, total, err := keptIn(dir)
	if err != nil {
		return err
	}
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("room in %s: %w", dir, err)
		}
		free, reserve := int64(st.Bavail)*st.Bsize, int64(freeShare*float64(st.Blocks))*st.Bsize
		if free-need >= reserve {
			return nil
		}
		if len(all) == 0 || free+total-need < reserve {
			return fmt.Errorf("%s: %d MB are free, and %.0f %% of the file system stay so: %w", dir, free>>20, freeShare*100, unix.ENOSPC)
		}
		if err := os.RemoveAll(all[0].path); err != nil {
			return err
		}
		total -= all[0].size
		all = all[1:]
	}
}

// failureEvery is how often a failure of the engine is recorded: one that recurs leads to the same place.
const failureEvery = time.Hour

// keepFailure keeps what led to a failure of the engine, and says where; empty: it is not kept.
func (t *tape) keepFailure(at capture.Instant, stack []byte) string {
	if t.ring == nil || t.failed != 0 && at.Sub(t.failed) < failureEvery {
		return ""
	}
	t.failed = at
	dir := filepath.Join(t.ag.cfg.Recorder.Dir, "failure-"+at.Time().Format("20060102T150405Z"))
	t.dump(dir)
	_ = os.WriteFile(filepath.Join(dir, "stack.txt"), stack, 0o600) // the log has its place
	return "; what led to it is in " + dir
}

func (t *tape) close() error {
	for _, i := range t.due {
		t.dump(i.dir)
	}
	if t.writer == nil {
		return nil
	}
	if st := t.writer.Stats(); st.Stopped != "" {
		t.ag.app.Log.Warn().Msgf("the recording ended early: %s", st.Stopped)
	}
	return t.writer.Close()
}

// kept is a recording on disk.
type kept struct {
	path string
	size int64
	at   time.Time
}

// keptIn lists the recordings in dir, the oldest first, whole or not, and what they take together.
func keptIn(dir string) (all []kept, total int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() || !recording.IsRecording(path) {
			continue
		}
		k := kept{path: path}
		for _, name := range []string{recording.PacketsFile, recording.SamplesFile} {
			if info, err := os.Stat(filepath.Join(path, name)); err == nil {
				k.size += info.Size()
				k.at = info.ModTime()
			}
		}
		all = append(all, k)
		total += k.size
	}
	slices.SortStableFunc(all, func(a, b kept) int { return a.at.Compare(b.at) })
	return all, total, nil
}

// rotate removes the oldest recordings in dir until all together take at most limit bytes.
func rotate(dir string, limit int64) error {
	all, total, err := keptIn(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range all {
		if total <= limit {
			break
		}
		total -= k.size
		errs = append(errs, os.RemoveAll(k.path))
	}
	return errors.Join(errs...)
}
