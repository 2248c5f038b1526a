package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/cmd/internal/diagnose"
)

// No capture is called healthy without a remark in which a connection stood still for more than 5 s with data outstanding, was never
// answered, or closed its window for more than 10 s. The story of each connection, told packet by packet, is held against the
// diagnosis, which knows events and windows only.
func TestHealthyMeansNobodyFaredIll(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: analyses every bundled capture")
	}
	files, err := filepath.Glob("../../fixtures/*/packets.pcap*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, dir := range filepath.SplitList(os.Getenv("JINDAN_CORPUS")) {
		n := len(files)
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.Contains(filepath.Base(path), "cap") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == n {
			t.Errorf("JINDAN_CORPUS: %s holds no capture", dir)
		}
	}
	if os.Getenv("JINDAN_CORPUS") == "" {
		t.Log("JINDAN_CORPUS is not set (directories with captures): fixtures only")
	}
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	ill := 0
	for _, name := range files {
		who, worst := faredIll(t, name)
		if worst == nil {
			continue
		}
		ill++
		in, err := diagnose.Open([]string{name})
		if err != nil {
			continue
		}
		d, _, err := diagnose.Run(context.Background(), in, set, nil, func(*analyze.Finding) error { return nil })
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		said := false
		for _, f := range d.Findings {
			said = said || f.Severity != "info" || f.Rule == "standstill" || f.Rule == "scan"
		}
		if !said {
			t.Errorf("%s: nothing said, and %s: %s", name, who, chapterText(worst).En)
		}
	}
	t.Logf("%d of %d captures hold a connection that fared ill", ill, len(files))
	if ill == 0 {
		t.Error("no capture holds one: the test proves nothing")
	}
}

// faredIll returns the connection of a capture that fared worst, nil if none fared ill.
func faredIll(t *testing.T, name string) (who string, worst *flow.Chapter) {
	in, err := diagnose.Open([]string{name})
	if err != nil {
		return "", nil
	}
	defer in.Close()
	var tr *tracker
	o := flow.Options{Story: true, KeepClosed: true, Row: func(c *flow.Conn, _ *flow.Trouble, _ *flow.WiresharkCounts) {
		st := tr.table.Story(c)
		st.Close(tr.now)
		if x := st.Fared(illness); x != nil && (worst == nil || x.Length() > worst.Length()) {
			who, worst = c.String(), x
		}
	}}
	tr = &tracker{table: flow.New(o), rows: &rows{}}
	_ = in.Read(context.Background(), tr.observe) // a damaged file is read as far as it goes
	tr.table.Close()
	return who, worst
}
