package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/detect"
	"jindan/analyze/points"
	"jindan/fixtures/lab"
	"jindan/fixtures/lab/testbed"
)

// pointFaults are the faults that are always tried with JINDAN_POINTS=all: loss by size over each segment and in each direction, and one of
// every other kind. The first one is tried always.
func pointFaults() []lab.PointFault {
	faults := []lab.PointFault{
		{Name: "size-behind", From: "port-out", To: "router-out", Larger: 1400, PerMille: 400, MissAt: "l4", TwiceAt: "server"},
		{Name: "uniform", From: "port-out", To: "router-out", PerMille: 100},
		{Name: "uniform-6", From: "port-out", To: "router-out", PerMille: 100, V6: true, MissAt: "server", TwiceAt: "router-in"},
		{Name: "reset", From: "router-in", To: "router-out", PerMille: 30, Reset: true},
		{Name: "reset-6", From: "port-out", To: "router-out", PerMille: 20, Reset: true, V6: true, MissAt: "port-out", TwiceAt: "client"},
		{Name: "delay", From: "server", To: "port-out", Delay: 50 * time.Millisecond},
		{Name: "delay-6", From: "router-out", To: "l4", Delay: 50 * time.Millisecond, V6: true, MissAt: "client", TwiceAt: "l4"},
		{Name: "twice", From: "client", To: "router-in", Twice: 200},
		{Name: "twice-6", From: "port-out", To: "server", Twice: 200, V6: true, MissAt: "router-out"},
		{Name: "healthy", MissAt: "router-out", TwiceAt: "port-out"},
		{Name: "proxy", Shape: "proxy", From: "server", To: "port-out", Larger: 1400, PerMille: 400},
		{Name: "dnat", Shape: "dnat", From: "port-out", To: "router-in", Larger: 1400, PerMille: 400, MissAt: "client"},
		{Name: "policer", From: "port-out", To: "router-out", Rate: 150},
		{Name: "policer-6", From: "router-in", To: "router-out", Rate: 60, V6: true, TwiceAt: "server"},
		{Name: "snat-6", Shape: "snat", From: "router-in", To: "port-out", Larger: 1400, PerMille: 400, V6: true},
	}
	path := lab.PointShapes["l4"]
	for i := range path[1:] {
		from, to := path[i], path[i+1]
		if from == "l4" { // what goes on to the server passes the router once more
			from = "router-out"
		}
		there := lab.PointFault{Name: "size-there-" + strconv.Itoa(i), From: from, To: to, Larger: 1400, PerMille: 400, V6: i%2 == 0}
		back := there
		back.Name, back.From, back.To, back.V6 = "size-back-"+strconv.Itoa(i), to, from, i%2 == 1
		faults = append(faults, there, back)
	}
	for i := range faults {
		if faults[i].Shape == "" {
			faults[i].Shape = "l4"
		}
	}
	return faults
}

// TestIntegrationPoints breaks a path with several capture points, and finds where. JINDAN_POINTS=all tries every fault, JINDAN_POINTS=N draws N
// of them from the seeds that begin with JINDAN_POINTS_SEED; JINDAN_POINTS_KEEP=DIR keeps the captures, or judges kept ones again.
func TestIntegrationPoints(t *testing.T) {
	faults := pointFaults()
	how := os.Getenv("JINDAN_POINTS")
	if n, err := strconv.Atoi(how); err == nil {
		faults = nil
		seed, _ := strconv.ParseUint(os.Getenv("JINDAN_POINTS_SEED"), 10, 64)
		for i := range uint64(n) {
			faults = append(faults, lab.DrawPointFault(seed+i))
		}
	} else if how != "all" {
		faults = faults[:1]
	}
	for i, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if keep := os.Getenv("JINDAN_POINTS_KEEP"); keep != "" {
				dir = filepath.Join(keep, f.Name)
			}
			truth := &lab.Truth{}
			if b, err := os.ReadFile(filepath.Join(dir, "truth.json")); err == nil {
				if err := json.Unmarshal(b, truth); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := testbed.Missing(); err != nil {
					t.Skip(err)
				}
				if truth, err = lab.Run(context.Background(), lab.PointsScenario(f), lab.Options{Keep: dir, Seed: uint64(i + 1), Log: t.Logf}); err != nil {
					t.Fatal(err)
				}
			}
			judgePoints(t, &f, dir, truth)
		})
	}
}

// pointRule is the rule that finds a fault.
func pointRule(f *lab.PointFault) string {
	switch {
	case f.From == "":
		return ""
	case f.Reset:
		return "segment-reset"
	case f.Delay > 0:
		return "segment-delay"
	case f.Twice > 0:
		return "segment-disorder"
	case f.Larger > 0:
		return "segment-size-loss"
	}
	return "segment-loss"
}

// judgePoints compares what is found with what was broken: the right rule at the right segment and in the right direction, nothing
// elsewhere, and as much lost as was counted.
func judgePoints(t *testing.T, f *lab.PointFault, dir string, truth *lab.Truth) {
	var args []string
	for _, p := range lab.PointShapes[f.Shape] {
		args = append(args, p+"="+filepath.Join(dir, p+".pcap"))
	}
	set, cmp, d := diagnosePoints(t, args, nil)
	from, to := f.From, f.To
	rule := pointRule(f)
	if f.Reset { // the reset goes back to where the packet came from
		from, to = to, from
	}
	segment := from + " → " + to
	found := false
	for _, x := range d.Findings {
		switch {
		case x.Subject.Kind != analyze.SubjectSegment:
		case x.Rule == rule && x.Subject.Segment == segment:
			found = true
		default:
			t.Errorf("%+v: %s at %s: %s", *f, x.Rule, x.Subject.Segment, x.Summary.En)
		}
	}
	if found || rule == "" {
		counted(t, f, truth, edgeOf(cmp.report, f.From, f.To))
		return
	}
	t.Errorf("%+v: %s at %s is not found", *f, rule, segment)
	if e := edgeOf(cmp.report, from, to); e != nil && set.Rule(rule) != nil {
		s := detect.SegmentOf(cmp.report, e)
		t.Logf("%+v", s)
		if ok, err := set.Rule(rule).IsClear(s); ok || err != nil {
			t.Errorf("… and cleared (%v)", err)
		}
	}
}

// counted holds what was found lost, or refused, against what the router or the cable counted, where all captures are complete.
func counted(t *testing.T, f *lab.PointFault, truth *lab.Truth, e *points.Edge) {
	if f.PerMille+f.Rate == 0 || f.MissAt != "" {
		return
	}
	b, err := json.Marshal(truth.Details)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?:counter packets |"wire_lost":)(\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("nothing was counted: %s", b)
	}
	got := fmt.Sprint(e.Lost.All() + e.Absent.All())
	if f.Reset { // a reset that is refused is lost: none answers it (RFC 9293 §3.10.7.1)
		got = fmt.Sprint(e.Rejected + e.Lost.All() + e.Absent.All())
	}
	if got != string(m[1]) {
		t.Errorf("%+v: %s lost or refused, in truth %s", *f, got, m[1])
	}
}
