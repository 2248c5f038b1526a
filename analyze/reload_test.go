package analyze_test

import (
	"testing"
	"testing/fstest"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/rules"
)

// Other rules keep what is open, unless they are gone or say otherwise.
func TestReload(t *testing.T) {
	own := func(few string) rules.Override {
		return rules.Override{Name: "own", FS: fstest.MapFS{"hasty.yaml": &fstest.MapFile{Data: []byte(`id: hasty
features: abnormal-termination
params: {few: {value: ` + few + `, unit: connections, source: this site}}
when: resets >= few
for: 0s
keep_for: 10s
severity: warn
text: {en: {title: Hasty clients, summary: "{{.resets}} resets"}}
`)}}}
	}
	load := func(overrides ...rules.Override) *rules.Set {
		t.Helper()
		set, err := rules.Load(detect.Features(), overrides...)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	d := &steady{rule: "abnormal-termination", symptoms: []analyze.Symptom{{
		Subject:  analyze.Subject{Kind: analyze.SubjectService, Host: "10.1.1.1", Port: 80},
		Features: detect.AbnormalTermination{Resets: 100, Connections: 100, Share: 1, Class: "ABORT"}}}}
	for _, c := range []struct {
		name  string
		next  *rules.Set
		hasty analyze.State
	}{{"the same", load(own("3")), analyze.Open}, {"stricter", load(own("300")), analyze.Resolved}, {"gone", load(), analyze.Resolved}} {
		t.Run(c.name, func(t *testing.T) {
			var records []analyze.Finding
			set := load(own("3"))
			e, err := analyze.New(set, []analyze.Detector{d}, analyze.Options{Causes: cause.New(set)}, func(f *analyze.Finding) error {
				records = append(records, *f)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			at := 1000 * second
			look := func(seconds int) {
				for range seconds {
					at += second
					o := capture.Observation{At: at, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
					if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
						t.Fatal(err)
					}
				}
			}
			look(5)
			if len(records) != 2 {
				t.Fatalf("%d records before", len(records))
			}
			before := records[0].Detected
			if err := e.Reload(c.next, cause.New(c.next)); err != nil {
				t.Fatal(err)
			}
			look(20)
			state := map[string]analyze.State{}
			for _, r := range records {
				if r.Detected != before {
					t.Errorf("%s is found anew at %v", r.Rule, r.Detected)
				}
				if r.State == analyze.Open && state[r.Rule] != "" {
					t.Errorf("%s opens again", r.Rule)
				}
				state[r.Rule] = r.State
			}
			if state["abnormal-termination"] == analyze.Resolved || (state["hasty"] == analyze.Resolved) != (c.hasty == analyze.Resolved) {
				t.Errorf("%v", state)
			}
			if _, err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
