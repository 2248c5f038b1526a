package pcapfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"jindan/capture"
)

// corpusEnv names a directory with index.tsv (columns path, packets, tshark_rc,
// tshark_err: what tshark said) and captures/<path>.
const corpusEnv = "JINDAN_CORPUS"

type corpusRow struct {
	path    string
	packets uint64
	rc      int
	err     string
}

func corpus(t testing.TB) []corpusRow {
	dir := os.Getenv(corpusEnv)
	if dir == "" {
		t.Skipf("%s is not set: no corpus to compare with", corpusEnv)
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []corpusRow
	column := map[string]int{}
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		cells := strings.Split(line, "\t")
		if i == 0 {
			for j, c := range cells {
				column[c] = j
			}
			continue
		}
		n, _ := strconv.ParseUint(cells[column["packets"]], 10, 64)
		rc, _ := strconv.Atoi(cells[column["tshark_rc"]])
		rows = append(rows, corpusRow{
			path:    filepath.Join(dir, "captures", cells[column["path"]]),
			packets: n, rc: rc, err: cells[column["tshark_err"]],
		})
	}
	return rows
}

// TestCorpus compares frame counts and verdicts with tshark's.
func TestCorpus(t *testing.T) {
	rows := corpus(t)
	for _, row := range rows {
		f, err := Open(row.path, &rawDecoder{})
		if err != nil {
			t.Errorf("%s: %v", row.path, err)
			continue
		}
		var b capture.Batch
		for err == nil {
			err = f.Read(t.Context(), &b)
		}
		s := f.Stats()
		verdict := "whole"
		var damage *DamageError
		switch {
		case errors.As(err, &damage):
			verdict = "damaged"
		case err != io.EOF:
			t.Errorf("%s: %v", row.path, err)
		case s.Cut:
			verdict = "cut"
		}
		want := "whole"
		switch {
		case row.rc == 2 && strings.Contains(row.err, "cut short"):
			want = "cut"
		case row.rc == 2:
			want = "damaged"
		}
		if s.Frames != row.packets || verdict != want {
			t.Errorf("%s:\n\t%d frames, %s (%v); tshark: %d, %s (%s)",
				row.path, s.Frames, verdict, err, row.packets, want, row.err)
		}
	}
	t.Logf("%d captures", len(rows))
}
