package main

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
)

// tape keeps what a watch observes: all of it where the user wants that, and the newest of it in memory, to be
// written when something serious is found.
type tape struct {
	ag     *agent
	w      *watch
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
func newTape(ag *agent, w *watch, dir string) (*tape, error) {
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
			ag.app.log.Warn().Msgf("what surrounds a finding is not kept (recorder.dir): %s", oneLine(err))
		} else {
			t.ring = recording.NewRing(recording.RingOptions{Keep: cfg.Recorder.Keep + cfg.Recorder.After, MaxBytes: int(cfg.Recorder.MaxBytes)})
		}
	}
	return t, nil
}

// see takes a batch before the engine does. A disk that fails does not stop the agent.
func (t *tape) see(b *capture.Batch) error {
	if t.writer != nil && !t.broken {
		if err := t.writer.Write(b); err != nil {
			t.broken = true
			t.ag.app.log.Error().Msgf("recording ends here: %s", oneLine(err))
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

func (t *tape) dump(dir string) {
	err := t.ring.Dump(dir, recording.Options{Meta: t.w.meta})
	if err == nil {
		err = rotate(t.ag.cfg.Recorder.Dir, int64(t.ag.cfg.Recorder.MaxTotal))
	}
	if err != nil {
		t.ag.app.log.Error().Msgf("keep what surrounds a finding: %s", oneLine(err))
		return
	}
	t.ag.app.log.Info().Msgf("what surrounds the finding is kept in %s; 'jindan analyze' reads it", dir)
}

// failureEvery is how often a failure of the engine is recorded: one that recurs leads to the same place.
const failureEvery = time.Hour

// keepFailure keeps what led to a failure of the engine, and says where; empty: it is not kept.
func (t *tape) keepFailure(at capture.Instant) string {
	if t.ring == nil || t.failed != 0 && at.Sub(t.failed) < failureEvery {
		return ""
	}
	t.failed = at
	dir := filepath.Join(t.ag.cfg.Recorder.Dir, "failure-"+at.Time().Format("20060102T150405Z"))
	t.dump(dir)
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
		t.ag.app.log.Warn().Msgf("the recording ended early: %s", st.Stopped)
	}
	return t.writer.Close()
}

// rotate removes the oldest recordings in dir until all together take at most limit bytes.
func rotate(dir string, limit int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type kept struct {
		path string
		size int64
		at   time.Time
	}
	var all []kept
	var total int64
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
	slices.SortFunc(all, func(a, b kept) int { return a.at.Compare(b.at) })
	var errs []error
	for _, k := range all[:max(len(all)-1, 0)] { // the newest stays in any case
		if total <= limit {
			break
		}
		total -= k.size
		errs = append(errs, os.RemoveAll(k.path))
	}
	return errors.Join(errs...)
}
