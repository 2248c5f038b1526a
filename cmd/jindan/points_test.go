package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/analyze/points"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

// incidentPoints are two captures of the rebuilt incident: at the router, where it gets what the linked party sends, and at the server.
var incidentPoints = []string{
	"router=../../fixtures/gpki-2023-11-17/points/router.pcap.zst",
	"server=../../fixtures/gpki-2023-11-17/points/server.pcap.zst",
}

// diagnosePoints compares points, and diagnoses the one of them that is nearest to the services; each is told of the rows.
func diagnosePoints(t *testing.T, named []string, each func(*points.Row)) (*rules.Set, *compared, *analyze.Diagnosis) {
	t.Helper()
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{App: cli.App{Log: cli.NewLog("text", false)}}
	cmp, err := a.comparePoints(t.Context(), named, each)
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmp.open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d, _, err := diagnose.Run(t.Context(), in, set, nil, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return set, cmp, d
}

// Two captures of the incident leave one port, in one command, and the README shows what it says.
func TestPointsOfIncident(t *testing.T) {
	rows, lost := 0, uint32(0)
	set, cmp, d := diagnosePoints(t, incidentPoints, func(r *points.Row) {
		rows++
		for i := range r.Way {
			lost += r.ClientLost[i] + r.ServerLost[i]
		}
	})
	// The port began to lose at 07:50:11.795.
	for _, f := range d.Findings {
		if f.Rule == "segment-size-loss" && f.Subject.Segment == "router → server" {
			if at := f.Onset.Time().Format("15:04:05.000"); at < "07:50:11.795" || at > "07:50:12" {
				t.Errorf("onset %s", at)
			}
			if f.Role != "root" {
				t.Errorf("role %s", f.Role)
			}
		} else if f.Subject.Kind == analyze.SubjectSegment {
			t.Errorf("%s at %s", f.Rule, f.Subject.Segment)
		}
	}
	e := edgeOf(cmp.report, "router", "server")
	if rows < 500 || lost == 0 || uint64(lost) > e.Lost.All() {
		t.Errorf("%d rows, %d lost in them, %d lost in all", rows, lost, e.Lost.All())
	}
	text := report.Points(cmp.report, d, set, report.Options{Width: 100})
	diagram, _, _ := strings.Cut(text, "Captures")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```\n"+diagram+"```\n") {
		t.Errorf("the README does not show this:\n%s", diagram)
	}
}

// A capture that is given twice is no path.
func TestPointTwice(t *testing.T) {
	a := &app{App: cli.App{Log: cli.NewLog("text", false)}}
	file := incidentPoints[0][len("router="):]
	if _, err := a.comparePoints(context.Background(), []string{"a=" + file, "b=" + file}, nil); err == nil || !strings.Contains(err.Error(), "the same capture") {
		t.Error(err)
	}
}

// What an agent recorded is a point like any other.
func TestPointRecorded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	in, err := diagnose.Open([]string{incidentPoints[1][len("server="):]})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w, err := recording.Create(dir, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Read(context.Background(), w.Write), w.Close()); err != nil {
		t.Fatal(err)
	}
	a := &app{App: cli.App{Log: cli.NewLog("text", false)}}
	var edges [2]*points.Edge
	for i, server := range []string{incidentPoints[1], "server=" + dir} {
		cmp, err := a.comparePoints(context.Background(), []string{incidentPoints[0], server}, nil)
		if err != nil {
			t.Fatal(err)
		}
		edges[i] = edgeOf(cmp.report, "router", "server")
	}
	if x, y := edges[0], edges[1]; x.In != y.In || x.Lost != y.Lost || x.Absent != y.Absent || x.Lost.All() == 0 {
		t.Errorf("captured: %d of %d lost; recorded: %d of %d", x.Lost.All(), x.In.All(), y.Lost.All(), y.In.All())
	}
}

// edgeOf finds the segment between two points by their names.
func edgeOf(r *points.Report, from, to string) *points.Edge {
	for _, e := range r.Edges {
		if r.Points[e.From].Name == from && r.Points[e.To].Name == to {
			return e
		}
	}
	return nil
}
