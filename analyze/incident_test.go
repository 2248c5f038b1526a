package analyze_test

import (
	"fmt"
	"slices"
	"testing"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/rules"
)

const second = capture.Instant(1e9)

// scripted is a detector whose one subject is ill in some spans of windows, each with its own beginning.
type scripted struct {
	rule     string
	subject  analyze.Subject
	features any
	spans    [][2]capture.Instant
}

func (d *scripted) Spec() analyze.Spec {
	return analyze.Spec{Rule: d.rule, Features: detect.Features()[d.rule], Events: flow.Of(flow.SynSent)}
}
func (d *scripted) Event(*flow.Event) {}
func (d *scripted) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	for _, s := range d.spans {
		if w.Start >= s[0] && w.Start < s[1] {
			emit(analyze.Symptom{Subject: d.subject, Onset: s[0], Features: d.features})
		}
	}
}
func (d *scripted) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Features: detect.Features()[d.rule]}
}

// Faults one after the other are incidents one after the other: what is over keeps its role, is told once that it has ended, and a fault that
// comes back is another.
func TestIncidentsHaveAnEnd(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	const start = 1_700_000_000 * second
	at := func(from, to capture.Instant) [2]capture.Instant {
		return [2]capture.Instant{start + from*second, start + to*second}
	}
	call := func(peer string, port uint16) analyze.Subject {
		return analyze.Subject{Kind: analyze.SubjectUpstream, Host: "10.0.0.1", Peer: peer, Port: port}
	}
	names := call("10.0.0.2", 53)
	names.Kind = analyze.SubjectResolver
	pool := analyze.Subject{Kind: analyze.SubjectService, Host: "10.0.0.1", Port: 80}
	ds := []analyze.Detector{
		&scripted{"close-wait", pool, detect.CloseWait{Class: "LEAK", Waiting: 100, Share: 1, Older: 100, MedianAge: 60, Growth: 1}, [][2]capture.Instant{at(5, 900)}},
		&scripted{"dns-delay", names, detect.DNSDelay{Lasting: 9, Answered: 100, Slow: 100, P95: 3, Baseline: 9}, [][2]capture.Instant{at(100, 130), at(700, 720)}},
		&scripted{"dead-upstream", call("10.0.0.3", 443), detect.DeadUpstream{Class: "refused", Failed: 100, Refused: 100, Attempts: 100, Share: 1, Lasting: 60,
			SucceededBefore: 9}, [][2]capture.Instant{at(300, 330)}},
		&scripted{"pool-exhausted", pool, detect.PoolExhausted{Abandoned: 30, Level: 16, Plateau: 30, Queued: 50, Outstanding: 66},
			[][2]capture.Instant{at(101, 130), at(500, 530), at(701, 720)}}, // the second is nobody's effect: names had been quick again for long
	}
	told := map[string]int{}
	roles := map[string][]analyze.Role{}
	e, err := analyze.New(set, ds, analyze.Options{Causes: cause.New(set)}, func(f *analyze.Finding) error {
		key := fmt.Sprintf("%s %d", f.Rule, int64((f.Onset-start)/second))
		if f.State == analyze.Resolved {
			told[key]++
		}
		if r := roles[key]; len(r) == 0 || r[len(r)-1] != f.Role {
			roles[key] = append(r, f.Role)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range capture.Instant(890) {
		o := capture.Observation{At: start + i*second, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
		if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range d.Incidents {
		got = append(got, fmt.Sprintf("%s %d-%d %d of %d", x.State, int64((x.Begin-start)/second), int64((x.End-start)/second), len(x.Roots), len(x.Chain)))
	}
	want := []string{"open 5-890 1 of 1", "resolved 100-130 1 of 2", "resolved 300-330 1 of 1", "resolved 500-530 1 of 1", "resolved 700-720 1 of 2"}
	if !slices.Equal(got, want) {
		t.Errorf("incidents %q, want %q", got, want)
	}
	for key, n := range told {
		if n != 1 {
			t.Errorf("the end of %s is told %d times", key, n)
		}
	}
	if len(told) != 6 {
		t.Errorf("ends told: %v", told)
	}
	for key, r := range roles {
		if r[0] == analyze.Pending {
			r = r[1:]
		}
		if len(r) != 1 || r[0] == analyze.Pending {
			t.Errorf("the role of %s turns: %v", key, r)
		}
	}
	for _, f := range d.Findings {
		if (f.Rule == "pool-exhausted" && f.Onset != start+500*second) != (f.Role == analyze.Consequence) {
			t.Errorf("%s is %s", f.Rule, f.Role)
		}
	}
}

// dying is a detector whose subject is ill until nothing is left of it, or until nobody asks any more.
type dying struct {
	scripted
	gone bool // after its span nothing is shown; else it is shown for ever, though nobody tries
}

func (d *dying) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	x := d.spans[0]
	if w.Start >= x[0] && (w.Start < x[1] || !d.gone) {
		emit(analyze.Symptom{Subject: d.subject, Onset: x[0], Features: d.features, LastTry: min(w.End, x[1])})
	}
}

// A fault ends some seconds after nothing is left of it, and a minute after nobody tries any more; then it says so.
func TestEnds(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	const start = 1_700_000_000 * second
	for _, c := range []struct {
		name  string
		gone  bool
		ended analyze.Ended
		after capture.Instant
	}{{"well", true, analyze.EndedWell, 5 * second}, {"unasked", false, analyze.EndedUnasked, 65 * second}} {
		d := &dying{scripted{"dns-delay", analyze.Subject{Kind: analyze.SubjectResolver, Host: "10.0.0.1", Peer: "10.0.0.2", Port: 53},
			detect.DNSDelay{Lasting: 9, Answered: 100, Slow: 100, P95: 3, Baseline: 9}, [][2]capture.Instant{{start + 10*second, start + 40*second}}}, c.gone}
		var ends []*analyze.Finding
		e, err := analyze.New(set, []analyze.Detector{d}, analyze.Options{Causes: cause.New(set)}, func(f *analyze.Finding) error {
			if g := *f; f.State == analyze.Resolved {
				ends = append(ends, &g)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range capture.Instant(200) {
			o := capture.Observation{At: start + i*second, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
			if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if len(ends) != 1 || ends[0].Ended != c.ended || ends[0].LastSeen != start+40*second || ends[0].Time > start+40*second+c.after {
			t.Errorf("%s: %+v", c.name, ends)
		}
	}
}
