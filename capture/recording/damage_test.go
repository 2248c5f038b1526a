package recording

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
)

// whole is a recording and what is in it.
func whole(t testing.TB) (dir string, want *stream) {
	t.Helper()
	m := newMaker(11)
	want = &stream{}
	var batches []*capture.Batch
	for range 5 {
		b := m.batch(60)
		want.add(b)
		batches = append(batches, b)
	}
	dir, _ = record(t, Options{}, batches...)
	return dir, want
}

func reopen(t testing.TB, dir string) (*stream, ReadStats, error) {
	t.Helper()
	r, err := Open(dir, openPackets)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := drain(t, r, 64)
	return s, r.Stats(), err
}

// lost removes the losses at the end that say how the recording ended.
func lost(s *stream) (reasons []capture.LossReason) {
	for n := len(s.obs); n > 0; n-- {
		o := &s.obs[n-1]
		if o.Kind != capture.KindLoss || o.Reason != capture.LossFileCut && o.Reason != capture.LossFileDamaged || o.Lost != 1 {
			break
		}
		s.obs = s.obs[:n-1]
		reasons = append(reasons, o.Reason)
	}
	return reasons
}

// An agent that was killed leaves files that end anywhere.
func TestCut(t *testing.T) {
	dir, want := whole(t)
	packets, samples := contents(t, dir, PacketsFile), contents(t, dir, SamplesFile)
	for cut := range 40 {
		write(t, filepath.Join(dir, PacketsFile), packets)
		write(t, filepath.Join(dir, SamplesFile), samples[:len(samples)-cut*7-1])
		got, st, err := reopen(t, dir)
		if err != io.EOF || !st.Cut || !strings.HasSuffix(st.CutFile, SamplesFile) {
			t.Fatalf("samples less %d bytes: %v, %+v", cut*7+1, err, st)
		}
		if rest := samples[st.CutOffset:]; st.CutOffset < int64(len(samples)) && !bytes.HasPrefix(rest, []byte(`{"n":`)) {
			t.Fatalf("offset %d: %.20s", st.CutOffset, rest)
		}
		if reasons := lost(got); len(reasons) != 1 || reasons[0] != capture.LossFileCut {
			t.Fatalf("%v", reasons)
		}
		if cut == 0 {
			compare(t, got, want) // only the end of the last line is missing
		}
		if n := countPackets(got); n < countPackets(want)-10 {
			t.Fatalf("%d packets of %d", n, countPackets(want))
		}

		write(t, filepath.Join(dir, SamplesFile), samples)
		write(t, filepath.Join(dir, PacketsFile), packets[:len(packets)-200-cut*7])
		got, st, err = reopen(t, dir)
		if err != io.EOF || !st.Cut || !strings.HasSuffix(st.CutFile, PacketsFile) || st.Damaged > 0 {
			t.Fatalf("packets less %d bytes: %v, %+v", cut*7+200, err, st)
		}
		samplesGot, samplesWant := 0, 0
		for i := range got.obs {
			if got.obs[i].Kind == capture.KindSample {
				samplesGot++
			}
		}
		for i := range want.obs {
			if want.obs[i].Kind == capture.KindSample {
				samplesWant++
			}
		}
		if samplesGot != samplesWant {
			t.Fatalf("%d samples of %d", samplesGot, samplesWant)
		}
	}
}

func countPackets(s *stream) (n int) {
	for i := range s.obs {
		if s.obs[i].Kind == capture.KindPacket {
			n++
		}
	}
	return n
}

// What is written and flushed can be read although nobody closed it.
func TestUnclosed(t *testing.T) {
	m := newMaker(2)
	dir := filepath.Join(t.TempDir(), "r")
	w, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, st, err := reopen(t, dir); err != io.EOF || !st.Cut {
		t.Fatalf("empty: %v, %+v", err, st)
	}
	want := &stream{}
	b := m.batch(300)
	want.add(b)
	if err := errors.Join(w.Write(b), w.Flush()); err != nil {
		t.Fatal(err)
	}
	got, st, err := reopen(t, dir)
	if err != io.EOF || !st.Cut || len(lost(got)) != 1 {
		t.Fatalf("%v, %+v", err, st)
	}
	compare(t, got, want)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	compare(t, replay(t, dir, 100), want)
}

// A broken line is passed over, and everything else is delivered.
func TestDamage(t *testing.T) {
	dir, want := whole(t)
	file := filepath.Join(dir, SamplesFile)
	samples := contents(t, dir, SamplesFile)
	lines := bytes.SplitAfter(samples, []byte("\n"))
	at := -1
	for i, l := range lines {
		if bytes.Contains(l, []byte(`"sample"`)) {
			at = i
		}
	}
	offset := int64(len(bytes.Join(lines[:at], nil)))
	long := append(bytes.Repeat([]byte("x"), maxLine+1), '\n')
	for name, l := range map[string][]byte{
		"garbage": []byte("\x00\xff{{{\n"), "two things": []byte(`{"n":9,"after":1,"at":"2026-01-01T00:00:00Z","reason":"none","until":"2026-01-01T00:00:00Z"}` + "\n"),
		"no time": []byte(`{"n":9,"sample":{}}` + "\n"), "overlong": long, "missing": nil,
		"reason":  []byte(`{"n":9,"at":"2026-01-01T00:00:00Z","reason":"no such"}` + "\n"),
		"sacks":   []byte(`{"n":9,"at":"2026-01-01T00:00:00Z","packet":{"SACKs":200}}` + "\n"),
		"sockets": []byte(`{"n":9,"at":"2026-01-01T00:00:00Z","sample":{"sockets":{"Sockets":[` + strings.Repeat("{},", maxElements) + "{}]}}}\n"),
		"numbers": []byte(`{"n":9,"at":"2026-01-01T00:00:00Z","sample":{"sockets":{"Sockets":[` + strings.Repeat("1,", maxLine/2-100) + "{}]}}}\n"),
		"deep":    append(bytes.Repeat([]byte("["), maxLine/2), '\n'),
	} {
		damaged := bytes.Join([][]byte{bytes.Join(lines[:at], nil), l, bytes.Join(lines[at+1:], nil)}, nil)
		write(t, file, damaged)
		got, st, err := reopen(t, dir)
		var damage *DamageError
		if !errors.As(err, &damage) || damage.File != file || damage.Offset != offset || st.Damaged == 0 || st.Cut {
			t.Fatalf("%s: %v (%+v), %+v; broken at %d", name, err, damage, st, offset)
		}
		if reasons := lost(got); len(reasons) != 1 || reasons[0] != capture.LossFileDamaged {
			t.Errorf("%s: %v", name, reasons)
		}
		if len(got.obs) != len(want.obs)-1 || countPackets(got) != countPackets(want) {
			t.Errorf("%s: %d observations, want %d", name, len(got.obs), len(want.obs)-1)
		}
	}
	// Both files.
	packets := contents(t, dir, PacketsFile)
	copy(packets[len(packets)/2:], bytes.Repeat([]byte{0xff}, 2000)) // longer than any packet
	write(t, filepath.Join(dir, PacketsFile), packets)
	_, _, err := reopen(t, dir)
	var theirs *pcapfile.DamageError
	var ours *DamageError
	if !errors.As(err, &theirs) || !errors.As(err, &ours) {
		t.Errorf("%v", err)
	}
	// No capture at all.
	os.Remove(filepath.Join(dir, PacketsFile))
	write(t, file, samples)
	if got, st, err := reopen(t, dir); !errors.Is(err, fs.ErrNotExist) || len(got.obs) == 0 || !st.Cut {
		t.Errorf("%v, %+v", err, st)
	}
	for name, first := range map[string]string{"empty": "", "text": "hello\n", "later": `{"schema":"jindan.recording/v9"}` + "\n", "cut": `{"schema":"jindan.rec`} {
		write(t, file, []byte(first))
		if r, err := Open(dir, openPackets); err == nil || IsRecording(dir) {
			r.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

// FuzzOpen reads a recording whose files have any contents.
func FuzzOpen(f *testing.F) {
	for seed := range uint64(8) {
		dir, _ := record(f, Options{}, newMaker(seed).batch(3), newMaker(seed+100).batch(2))
		_, lines, _ := bytes.Cut(contents(f, dir, SamplesFile), []byte("\n"))
		// Without the names of the counters, which are long.
		f.Add(append([]byte(`{"schema":"jindan.recording/v1"}`+"\n"), lines...), contents(f, dir, PacketsFile))
	}
	f.Add([]byte(`{"schema":"jindan.recording/v1"}`+"\n"+`{"n":1,"after":9,"next":{"source":1,"frame":18446744073709551615}}`+"\n"), []byte{})
	small, _ := record(f, Options{}, newMaker(1).batch(3))
	f.Add([]byte(`{"schema":"jindan.recording/v1"}`+"\n"+`{"n":1,"until":"2026-01-01T00:00:00Z"}`+"\n"), contents(f, small, PacketsFile))
	f.Fuzz(func(t *testing.T, samples, packets []byte) {
		open := func() (*Recording, error) {
			return newRecording("test", io.NopCloser(bytes.NewReader(samples)), func(name string) (capture.Source, error) {
				return pcapfile.NewReader(name, bytes.NewReader(packets), decode.New())
			})
		}
		r, err := open()
		if err != nil {
			return
		}
		defer r.Close()
		a, errA := drain(t, r, 64)
		if len(a.obs) > len(samples)+len(packets) {
			t.Errorf("%d observations of %d bytes", len(a.obs), len(samples)+len(packets))
		}
		for i := range a.obs {
			if o := &a.obs[i]; !possible(o.At) || int(o.Packet.SACKs) > len(o.Packet.SACK) || o.Kind == capture.KindSample && o.Sample == nil {
				t.Errorf("%+v", o)
			}
		}
		st := r.Stats()
		if errA != io.EOF && st.Damaged == 0 && r.Packets() != nil && !isDamage(errA) {
			t.Errorf("%v, %+v", errA, st)
		}
		again, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		b, errB := drain(t, again, 1)
		compare(t, b, a)
		if errA.Error() != errB.Error() {
			t.Errorf("%v, then %v", errA, errB)
		}
	})
}

// The largest dump that a line holds is no hostile line; and no line takes much more memory than that.
func TestMemory(t *testing.T) {
	m := newMaker(6)
	table := &capture.SocketTable{Sockets: make([]capture.Socket, 50_000)}
	for i := range table.Sockets {
		table.Sockets[i] = capture.Socket{Local: m.endpoint(true, true), Remote: m.endpoint(true, true), Cookie: m.Uint64(), State: capture.Established}
	}
	b := &capture.Batch{Obs: []capture.Observation{{At: 1, Kind: capture.KindSample, Sample: &capture.Sample{Sockets: table}}}}
	dir, st := record(t, Options{}, b)
	if st.LeftOut > 0 {
		t.Fatalf("%+v", st)
	}
	want := &stream{}
	want.add(b)
	compare(t, replay(t, dir, 1), want)

	for name, value := range map[string]string{"numbers": "1,", "objects": "{},", "arrays": "[],", "nulls": "null,", "strings": `"",`, "fixed": `{"Addr":[[[1,`} {
		for _, n := range []int{maxElements - 10, maxLine/len(value) - 100} {
			l := `{"n":1,"at":"2026-01-01T00:00:00Z","sample":{"sockets":{"Sockets":[` + strings.Repeat(value, n) + "{}]}}}\n"
			write(t, filepath.Join(dir, SamplesFile), []byte(`{"schema":"jindan.recording/v1"}`+"\n"+l))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, st, _ := reopen(t, dir); st.Lines != 1 {
				t.Errorf("%s: %+v", name, st)
			}
			runtime.ReadMemStats(&after)
			// The line while its buffer grows, and the sockets while their slice grows.
			if got := after.TotalAlloc - before.TotalAlloc; got > 6*maxLine+6*272*maxElements {
				t.Errorf("%s × %d: %d MiB allocated for a line of %d", name, n, got>>20, len(l)>>20)
			}
		}
	}
}
