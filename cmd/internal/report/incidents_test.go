package report

import (
	"strings"
	"testing"
	"time"

	"jindan/analyze"
)

// past adds two incidents to the outage that were over long before, one of which had the same findings.
func severalIncidents() (Input, *analyze.Diagnosis) {
	in, d := outage()
	for _, f := range d.Findings {
		f.Incident = "incident-2"
	}
	var earlier []*analyze.Finding
	for _, f := range d.Findings[:2] { // the loss, and the queries that it cost
		g := *f
		g.Incident, g.State = "incident-1", analyze.Resolved
		g.Onset, g.Detected, g.LastSeen = g.Onset.Add(-time.Hour), g.Detected.Add(-time.Hour), g.Onset.Add(-time.Hour+time.Minute)
		earlier = append(earlier, &g)
	}
	d.Findings = append(earlier, d.Findings...)
	d.Incidents = analyze.Incidents(d.Findings)
	return in, d
}

// What is over is a line beside what is not, and tells its own time.
func TestPastIncidents(t *testing.T) {
	in, d := severalIncidents()
	want := map[Lang]string{
		English: "PAST        22:40:17 – 22:41:17 (60.0 s) Size-dependent packet loss, 10.77.3.2 → 10.77.2.2",
		Korean:  "지난 장애   22:40:17 – 22:41:17 (60.0초) 크기 의존 유실, 10.77.3.2 → 10.77.2.2",
	}
	for lang, line := range want {
		single, one := outage()
		got, alone := render(t, in, d, Options{Lang: lang, Zone: time.UTC}), render(t, single, one, Options{Lang: lang, Zone: time.UTC})
		if !strings.Contains(got, line) || len(strings.Split(got, "\n")) > firstScreen+1 {
			t.Errorf("%q is not in\n%s", line, got)
		}
		if cause, _, _ := strings.Cut(alone, "RULED OUT"); !strings.HasPrefix(got, strings.Split(cause, "배제")[0][:400]) {
			t.Errorf("the open incident reads differently beside the past:\n%s", got)
		}
	}
	// At the end of the agent nothing is in full that is over.
	d.Findings = d.Findings[:2]
	d.Roots, d.Chain = d.Roots[:1], d.Chain[:2]
	d.Incidents = analyze.Incidents(d.Findings)
	if got := render(t, in, d, Options{Now: true}); strings.Contains(got, "CAUSE") || !strings.Contains(got, want[English]) || !strings.Contains(got, "over and show") || strings.Contains(got, "no fault found") {
		t.Errorf("got\n%s", got)
	}
	if got := render(t, in, d, Options{}); !strings.Contains(got, "CAUSE") || strings.Contains(got, "PAST") {
		t.Errorf("a capture of what is over:\n%s", got)
	}
}

// What follows from a cause is told in the order of its own incident, whatever the order was when the same faults came back.
func TestChainOfAnEpisode(t *testing.T) {
	in, d := severalIncidents()
	// The second time the pool was full before the queries were unanswered: the newest order of the ids.
	d.Chain[1], d.Chain[2] = d.Chain[2], d.Chain[1]
	for _, f := range d.Findings {
		if f.Rule == "pool-exhausted" {
			f.Because = []string{d.Findings[0].ID}
		}
	}
	got := render(t, in, d, Options{Zone: time.UTC})
	_, then, _ := strings.Cut(got, "THEN")
	dns, pool := strings.Index(then, "DNS queries without"), strings.Index(then, "Thread-pool")
	if dns < 0 || pool < 0 || dns > pool {
		t.Errorf("what began at +0.04 s is told after what began at +0.84 s:\n%s", got)
	}
}
