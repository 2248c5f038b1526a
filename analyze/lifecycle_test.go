package analyze_test

import (
	"strconv"
	"testing"
	"testing/fstest"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/rules"
)

// steady is a detector that emits the same symptoms in each window from its first on.
type steady struct {
	rule     string
	from     int // window
	symptoms []analyze.Symptom
	windows  int
}

func (d *steady) Spec() analyze.Spec {
	return analyze.Spec{Rule: d.rule, Features: detect.Features()[d.rule], Events: flow.Of(flow.SynSent)}
}
func (d *steady) Event(*flow.Event) {}
func (d *steady) Judge(_ *analyze.Window, emit func(analyze.Symptom)) {
	if d.windows++; d.windows > d.from {
		for _, s := range d.symptoms {
			emit(s)
		}
	}
}
func (d *steady) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Features: detect.Features()[d.rule]}
}

// A flood of findings, whatever rule and severity it is of, does not keep an error from being opened, and what it hides is counted once each.
func TestFloodOfFindings(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	flood := func(rule string, features any, n int) *steady {
		d := &steady{rule: rule}
		for i := range n {
			d.symptoms = append(d.symptoms, analyze.Symptom{Features: features,
				Subject: analyze.Subject{Kind: analyze.SubjectService, Host: "10.0.0." + strconv.Itoa(i>>8), Port: uint16(i&255 + 1)}})
		}
		return d
	}
	refused := detect.ConnectionRefused{Refused: 100, Attempts: 100, Share: 1, ServedBefore: 1, Class: "refused", Insisting: 20}
	info, lasting := refused, refused
	lasting.Lasting = 60
	scan := detect.Scan{Source: "10.9.9.9", Class: "ports", Ports: 100, Share: 1}
	for _, c := range []struct {
		name  string
		flood []analyze.Detector
	}{
		{"information", []analyze.Detector{flood("scan", scan, 2000)}},
		{"information of one rule", []analyze.Detector{flood("connection-refused", info, 2000)}},
		{"errors of one rule", []analyze.Detector{flood("connection-refused", lasting, 2000)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			late := &steady{rule: "abnormal-termination", from: 10, symptoms: []analyze.Symptom{{
				Subject:  analyze.Subject{Kind: analyze.SubjectService, Host: "10.1.1.1", Port: 80},
				Features: detect.AbnormalTermination{Resets: 100, Connections: 100, Share: 1, Class: "ABORT"}}}}
			e, err := analyze.New(set, append(c.flood, late), analyze.Options{}, func(*analyze.Finding) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			for i := range capture.Instant(30) {
				o := capture.Observation{At: (1000 + i) * second, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
				if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
					t.Fatal(err)
				}
			}
			d, err := e.Close()
			if err != nil {
				t.Fatal(err)
			}
			errors := 0
			for _, f := range d.Findings {
				if f.Rule == late.rule {
					errors++
				}
			}
			if errors != 1 {
				t.Errorf("the error is hidden: %d findings, refused %v", len(d.Findings), d.Coverage.Refused)
			}
			if len(d.Findings) > 150 {
				t.Errorf("%d findings in half a minute", len(d.Findings))
			}
			for reason, n := range d.Coverage.Refused {
				if reason[:8] == "findings" && n > 1280 {
					t.Errorf("%s: %d refused, there were not so many", reason, n)
				}
			}
		})
	}
}

// A user's own rule is judged by what the detector of another measures, with its own threshold and life, and is a cause and an
// effect like any other.
func TestOwnRule(t *testing.T) {
	own := fstest.MapFS{
		"hasty.yaml": &fstest.MapFile{Data: []byte(`id: hasty
features: abnormal-termination
params: {few: {value: 3, unit: connections, source: this site}}
when: resets >= few
for: 0s
keep_for: 10s
severity: warn
text: {en: {title: Hasty clients, summary: "{{.resets}} resets"}}
`)},
		"causes.yaml": &fstest.MapFile{Data: []byte(`edges:
  - from: connection-refused
    to: hasty
    identity: same-host
    slack: {value: 1s, source: this site}
    why: {en: they try elsewhere}
`)}}
	set, err := rules.Load(detect.Features(), rules.Override{Name: "own", FS: own})
	if err != nil {
		t.Fatal(err)
	}
	subject := analyze.Subject{Kind: analyze.SubjectService, Host: "10.1.1.1", Port: 80}
	refused := detect.ConnectionRefused{Refused: 100, Attempts: 100, Share: 1, ServedBefore: 1, Class: "refused", Insisting: 20, Lasting: 60}
	ds := []analyze.Detector{
		&steady{rule: "connection-refused", symptoms: []analyze.Symptom{{Subject: subject, Onset: 1000e9, Features: refused}}},
		&steady{rule: "abnormal-termination", symptoms: []analyze.Symptom{{Subject: subject, Onset: 1001e9,
			Features: detect.AbnormalTermination{Resets: 5, Connections: 100, Share: 0.05, Class: "ABORT"}}}},
	}
	e, err := analyze.New(set, ds, analyze.Options{Causes: cause.New(set)}, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	const second = capture.Instant(1e9)
	for i := range capture.Instant(20) {
		o := capture.Observation{At: (1000 + i) * second, Packet: capture.Packet{Proto: capture.ProtoTCP, Flags: capture.ACK}}
		if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	var hasty *analyze.Finding
	for _, f := range d.Findings {
		if f.Rule == "abnormal-termination" {
			t.Errorf("the rule of the catalogue holds with 5 resets: %+v", f.Features)
		}
		if f.Rule == "hasty" {
			hasty = f
		}
	}
	if hasty == nil {
		t.Fatalf("%d findings, none of the rule of one's own", len(d.Findings))
	}
	if hasty.Summary.En != "5 resets" || hasty.Role != analyze.Consequence || len(hasty.Because) != 1 {
		t.Errorf("the finding is %q, %s because of %v", hasty.Summary.En, hasty.Role, hasty.Because)
	}
}
