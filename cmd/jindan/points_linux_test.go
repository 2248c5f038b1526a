package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/fixtures/lab"
	"jindan/fixtures/lab/testbed"
)

// pointCase is a fault on the path of six points, and where it must be found.
type pointCase struct {
	lab.PointFault
	rule    string // empty: nothing must be found
	segment string // the one that is named
}

var pointCases = []pointCase{
	{lab.PointFault{Name: "size-back-front", From: "l4", To: "client", Larger: 1400, PerMille: 400}, "segment-size-loss", "router-out → router-in"},
	{lab.PointFault{Name: "size-behind", From: "server", To: "l4", Larger: 1400, PerMille: 400, MissAt: "l4", TwiceAt: "server"}, "segment-size-loss", "port-out → router-out"},
	{lab.PointFault{Name: "size-there", From: "client", To: "l4", Larger: 1400, PerMille: 400, V6: true}, "segment-size-loss", "router-in → router-out"},
	{lab.PointFault{Name: "size-there-behind", From: "l4", To: "server", Larger: 1400, PerMille: 400}, "segment-size-loss", "router-out → port-out"},
	{lab.PointFault{Name: "uniform", From: "server", To: "l4", PerMille: 100}, "segment-loss", "port-out → router-out"},
	{lab.PointFault{Name: "uniform-6", From: "server", To: "l4", PerMille: 100, V6: true, MissAt: "server", TwiceAt: "router-in"}, "segment-loss", "port-out → router-out"},
	{lab.PointFault{Name: "reset", From: "client", To: "l4", PerMille: 30, Reset: true}, "segment-reset", "router-out → router-in"},
	{lab.PointFault{Name: "healthy", MissAt: "router-out", TwiceAt: "port-out"}, "", ""},
}

// TestIntegrationPoints breaks a path with six capture points, and finds where. JINDAN_POINTS=all tries every fault.
func TestIntegrationPoints(t *testing.T) {
	if err := testbed.Missing(); err != nil {
		t.Skip(err)
	}
	set, err := catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	cases := pointCases[1:2]
	if os.Getenv("JINDAN_POINTS") == "all" {
		cases = pointCases
	}
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			dir := t.TempDir()
			if keep := os.Getenv("JINDAN_POINTS_KEEP"); keep != "" {
				dir = filepath.Join(keep, c.Name)
			}
			truth, err := lab.Run(context.Background(), lab.PointsScenario(c.PointFault), lab.Options{Keep: dir, Seed: uint64(i + 1), Log: t.Logf})
			if err != nil {
				t.Fatal(err)
			}
			var args []string
			for _, p := range lab.PointNames {
				args = append(args, p+"="+filepath.Join(dir, p+".pcap"))
			}
			a := &app{log: newLog("text", false)}
			cmp, err := a.comparePoints(context.Background(), args, nil)
			if err != nil {
				t.Fatal(err)
			}
			in, err := openInput(cmp.main)
			defer in.close()
			if err != nil {
				t.Fatal(err)
			}
			in.points = cmp.report
			d, _, err := diagnose(context.Background(), in, set, nil, func(*analyze.Finding) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range d.Findings {
				if f.Subject.Kind != analyze.SubjectSegment {
					continue
				}
				if c.Reset && f.Rule == "segment-loss" && f.Subject.Segment == "router-in → router-out" {
					continue // what is answered by a reset goes no further
				}
				if f.Rule != c.rule || f.Subject.Segment != c.segment {
					t.Errorf("%s at %s: %s", f.Rule, f.Subject.Segment, f.Summary.En)
					continue
				}
				found = true
			}
			if !found && c.rule != "" {
				t.Errorf("%s at %s is not found", c.rule, c.segment)
			}
			counted(t, truth, c, cmp)
		})
	}
}

// counted holds what was found lost against what the router counted, where all captures are complete.
func counted(t *testing.T, truth *lab.Truth, c pointCase, cmp *compared) {
	if c.rule == "" || c.Reset || c.MissAt != "" {
		return
	}
	b, err := json.Marshal(truth.Details["router_losses"])
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`counter packets (\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("the router counted nothing: %s", b)
	}
	want, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range cmp.report.Edges {
		f := detect.SegmentOf(cmp.report, e)
		if f.From+" → "+f.To == c.segment && (f.Lost > want || want-f.Lost > 1+want/50) {
			// What is sent again within 2 ms with the same time stamp, in IPv6, looks like a copy of the capture.
			t.Errorf("%d lost, the router counted %d", f.Lost, want)
		}
	}
}
