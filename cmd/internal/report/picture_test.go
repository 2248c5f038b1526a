package report

import (
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
)

// A chain: each effect has a line from its cause, wherever that stands; what a sample showed has a whisker; and where nobody can tell the
// order, the picture does not claim one.
func TestChainPicture(t *testing.T) {
	in, d := outage()
	v := outageView()
	for _, f := range d.Findings {
		if f.Rule == "dns-unanswered" {
			f.Onset = d.Findings[0].Onset // and its cause is named below it
			f.Links = []analyze.Link{{ID: d.Findings[2].ID, Tests: []analyze.Tried{{Test: "order", Result: "not_observable"}}},
				{ID: d.Findings[3].ID, Tests: []analyze.Tried{{Test: "order", Result: "proven"}}}}
		}
	}
	s := pageSections(in, d, v)[0]
	n := map[string]int{}
	texts := map[string]int{}
	for _, m := range s.Picture.Marks {
		n[m.Class]++
		texts[m.Text.En]++
	}
	if effects := len(d.Findings) - 1; n["elbow"]+n["elbow loose"] != effects || n["elbow-head"] != effects {
		t.Errorf("%d lines and %d heads lead to %d effects", n["elbow"]+n["elbow loose"], n["elbow-head"], effects)
	}
	// No order is drawn where none is known.
	if n["elbow loose"] != 2 {
		t.Errorf("%d lines say that the order is not known, want 2", n["elbow loose"])
	}
	if n["whisker"] != 2 {
		t.Errorf("%d marks of a whisker, want a line and its end", n["whisker"])
	}
	// The pool may have been full since before the DNS server fell silent, and that fell silent with the loss.
	if got := texts["unordered, 1 of 1 tests"] + texts["unordered, 1 of 2 tests"]; got != 2 {
		t.Errorf("%d rows are unordered, want 2: %v", got, texts)
	}
	for _, row := range s.Table.Rows {
		if sampled := strings.HasPrefix(row[0].En, "Thread-pool"); (row[2] != row[3]) != sampled {
			t.Errorf("%s: not before %s, first %s", row[0].En, row[2].En, row[3].En)
		}
	}
	v.Sampled = nil
	for _, m := range pageSections(in, d, v)[0].Picture.Marks {
		if m.Class == "whisker" {
			t.Error("a whisker without samples")
		}
	}
}

// The receiver's window is drawn where it ends within what was sent, and the page says why where it is not.
func TestLensWindow(t *testing.T) {
	for want, windows := range map[string][2]int64{"": {500, 500}, "at all times it left room": {1 << 20, 1 << 20}, "without the handshake": {-1, -1}} {
		in, d := outage()
		v := outageView()
		for i := range v.Connections[0].Segments {
			v.Connections[0].Segments[i].Window = windows[i%2]
		}
		for _, s := range pageSections(in, d, v) {
			if s.Picture == nil || !strings.HasPrefix(s.ID, "lens") {
				continue
			}
			drawn := 0
			for _, m := range s.Picture.Marks {
				if m.Class == "window" {
					drawn++
				}
			}
			var notes string
			for _, n := range s.Notes {
				notes += n.En
			}
			if (drawn > 0) != (want == "") || !strings.Contains(notes, want) {
				t.Errorf("windows of %d: drawn %d times, %q", windows, drawn, notes)
			}
		}
	}
}

// Of an upstream that answers no SYN: what passed before the onset does not clear it, and the connections that did not come about are told.
func TestSilentUpstreamPage(t *testing.T) {
	in, d := outage()
	root := d.Findings[0]
	root.Subject = analyze.Subject{Kind: analyze.SubjectUpstream, Host: server, Peer: upstream, Port: 8080}
	v := outageView()
	// The onset lies within a slot in which all had passed before it; since then there are connection requests only.
	slot := (view.MaxBuckets / view.Slots) * 14
	root.Onset = v.At(slot + 9)
	v.Resolvers, v.Connections = nil, nil
	for i := range v.Flows {
		for s := 15; s < view.Slots; s++ {
			v.Flows[i].Sent[s], v.Flows[i].Missing[s], v.Flows[i].Again[s] = [view.Classes]uint32{}, [view.Classes]uint32{}, [view.Classes]uint32{}
		}
		v.Flows[i].Missing[14] = [view.Classes]uint32{}
	}
	v.Services = append(v.Services, view.Service{Addr: upstream, Port: 8080, Requests: make(view.Count, view.MaxBuckets), Unopened: make(view.Count, view.MaxBuckets)})
	for i := range 16 {
		v.Services[1].Requests[slot+9-i], v.Services[1].Unopened[slot+10+i] = 3, 1
	}
	page := renderPage(t, in, d, v, Options{})
	elements(t, page)
	for _, want := range []string{"Of the connections of 10.77.2.2 to 10.77.3.2:8080 since the onset 16 did not come about, and no data passed.",
		"10.77.2.2 → 10.77.3.2:8080: 16 connections did not come about, 0 requests were sent", "before: 45 of 45", "since: 0 of 16 (0 %)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, wrong := range []string{"Everything gets through", "segments were lost since the onset"} {
		if strings.Contains(page, wrong) {
			t.Errorf("the page says %q", wrong)
		}
	}
}

// A cause that is sampled may show later than what it causes: the page does not say that it came first.
func TestLateCause(t *testing.T) {
	in, d := outage()
	d.Findings[0].Onset = d.Findings[0].Onset.Add(2 * time.Second)
	page := renderPage(t, in, d, outageView(), Options{})
	if strings.Contains(page, "loss came first") || !strings.Contains(page, "Size-dependent packet loss explains 5 findings, the first of which showed 2.0 s before it did.") {
		t.Error("the page says that the cause came first")
	}
}

// Of several causes the first on the page is the one that explains most, and what to do first is about that one.
func TestFirstThingToDo(t *testing.T) {
	in, d := outage()
	early := fakeFinding("close-wait", analyze.Subject{Kind: analyze.SubjectHost, Host: server, Segment: "verifyd (pid 7)"}, -5, "Early", "앞선 것", "It began early.", "먼저 시작됐습니다.")
	early.Role, early.Next = analyze.Root, []analyze.Text{{En: "Look at the early one.", Ko: "앞선 것 확인."}}
	d.Findings[0].Next = []analyze.Text{{En: "Look at the path.", Ko: "경로 확인."}}
	d.Findings, d.Roots = append(d.Findings, early), append([]string{early.ID}, d.Roots...)
	page := renderPage(t, in, d, outageView(), Options{})
	_, first, _ := strings.Cut(page, `id="first"`)
	if first, _, _ = strings.Cut(first, "</div>"); !strings.Contains(first, "Look at the path.") {
		t.Errorf("do first: %s", first)
	}
	if !strings.Contains(page, "10.77.2.2 (this host), verifyd (pid 7)") {
		t.Error("a process is not called by its name")
	}
}

// Each count says from when on it is: where a step of time holds the onset and most of what was lost, the whole step counts and is named;
// else it is left out, and the time after it is named.
func TestCountsSayTheirWindow(t *testing.T) {
	in, d := outage()
	claims := func(v *view.View) string {
		var s []string
		for _, x := range pageSections(in, d, v) {
			s = append(s, x.Claim.En)
		}
		return strings.Join(s, "\n")
	}
	v := outageView()
	if got := claims(v); !strings.Contains(got, "segments were lost since "+strings.TrimSuffix(after(15).Time().UTC().Format("15:04:05.000"), ".000")) {
		t.Errorf("the first whole second after the onset is not named:\n%s", got)
	}
	v = outageView()
	v.Width *= 600 // all of it lies in the first steps
	for i := range v.Flows {
		f := &v.Flows[i]
		for slot := 1; slot < view.Slots; slot++ {
			for class := range view.Classes {
				f.Sent[0][class] += f.Sent[slot][class]
				f.Missing[0][class] += f.Missing[slot][class]
				f.Sent[slot][class], f.Missing[slot][class] = 0, 0
			}
		}
	}
	if got := claims(v); strings.Contains(got, " 0 of ") && strings.Contains(got, "segments were lost since") || !strings.Contains(got, "segments were lost from the start of the input on") {
		t.Errorf("a step that holds everything:\n%s", got)
	}
}
