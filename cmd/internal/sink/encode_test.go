package sink

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/cmd/internal/report"
)

var update = flag.Bool("update", false, "write the golden files")

func aDiagnosis() *analyze.Diagnosis {
	f := aFinding(3, analyze.Open, "error")
	return &analyze.Diagnosis{Schema: analyze.DiagnosisSchema, Time: f.Time, Roots: []string{f.ID}, Chain: []string{f.ID},
		Summary: analyze.Text{En: "10.77.0.4 does not answer web01.", Ko: "무응답"}, Findings: []*analyze.Finding{f},
		Steps:    []analyze.StepVerdict{{Step: "dead-upstream", Verdict: analyze.Confirmed, Reason: analyze.Text{En: "12 of 12 to 10.77.0.4:8443", Ko: "12건"}, Findings: []string{f.ID}}},
		Coverage: analyze.Coverage{Sources: []string{"eth0"}, Local: "10.77.1.2"}}
}

// kinds of record for the encodings.
func allKinds(t *testing.T) []Record {
	d, err := DiagnosisRecord(aDiagnosis(), 1, "web01", "jindan/0.9.0")
	if err != nil {
		t.Fatal(err)
	}
	f := record(t, 3, analyze.Resolved, "error")
	n := Record{Kind: KindNotice, ID: "notice", Seq: 2, Severity: "warn", Time: f.Time, Host: "web01", Agent: "jindan/0.9.0",
		Body: json.RawMessage(`{"schema":"jindan.notice/v1","message":"the spool was corrupt"}`)}
	return []Record{f, record(t, 4, analyze.Open, "warn").again(2), d, n}
}

// TestEncodings holds what the encodings yield against files that were read by eye and,
// for OTLP, by protojson.
func TestEncodings(t *testing.T) {
	for _, e := range []Encoding{Native, ECS, OTLP} {
		var b bytes.Buffer
		for _, r := range allKinds(t) {
			data, err := e.encode(&r)
			if err != nil || bytes.ContainsAny(data, "\n") {
				t.Fatalf("%s %s: %v %s", e, r.Kind, err, data)
			}
			if err := json.Indent(&b, data, "", " "); err != nil {
				t.Fatal(err)
			}
			b.WriteByte('\n')
		}
		name := filepath.Join("testdata", string(e)+".json")
		if *update {
			if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, b.Bytes()) {
			t.Errorf("%s differs; -update writes it:\n%s", name, b.String())
		}
	}
}

// TestECSEqualsReport: by way of the spool a finding comes out as it does straight from the report.
func TestECSEqualsReport(t *testing.T) {
	f := aFinding(3, analyze.Resolved, "error")
	r, err := FindingRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	d, err := DiagnosisRecord(aDiagnosis(), 1, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    Record
		want any
	}{{r, report.ECSFinding(f)}, {d, report.ECSDiagnosis(aDiagnosis())}} {
		got, err := ECS.encode(&c.r)
		if err != nil {
			t.Fatal(err)
		}
		var x, y map[string]any
		want, _ := json.Marshal(c.want)
		if json.Unmarshal(want, &x) != nil || json.Unmarshal(got, &y) != nil {
			t.Fatal("no JSON")
		}
		delete(x, "agent") // a diagnosis has none of its own
		delete(y, "agent")
		a, _ := json.Marshal(x)
		b, _ := json.Marshal(y)
		if !bytes.Equal(a, b) {
			t.Errorf("\n%s\n%s", a, b)
		}
	}
}

func TestPseudonym(t *testing.T) {
	p := NewPseudonym([]byte("k"), "web01")
	f := aFinding(3, analyze.Open, "error")
	f.Subject.Peer = "db01"
	f.Summary.En = "web01 (10.77.1.2, [2001:db8::7]:443, ::ffff:10.77.1.2, 02:42:ac:11:00:02) asks db01 and db01.example.internal, not db012; at 12:34:56 of 10.77.0.0/16."
	f.Because = []string{"surge-0123456789ab"}
	f.Incident = "incident-0123456789ab"
	f.Stages = &analyze.Stages{Host: "10.77.1.2", Port: 80, Stages: []analyze.Stage{{Stage: analyze.StageDNS, Peer: "10.77.1.3", Port: 53}}}
	rec, err := FindingRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	verdict := aDiagnosis()
	verdict.Steps[0].Stages = f.Stages
	d, err := DiagnosisRecord(verdict, 1, "web01", "jindan/0.9.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{rec, d, {Kind: KindNotice, Host: "web01", Body: json.RawMessage(`{"schema":"jindan.notice/v1","host":"web01","message":"dial 10.1.2.3:601 from web01"}`)}} {
		for _, e := range []Encoding{Native, ECS, OTLP} {
			m, err := p.Record(r)
			if err != nil {
				t.Fatal(err)
			}
			data, err := e.encode(&m)
			if err != nil {
				t.Fatal(err)
			}
			all := string(data) + m.ID + m.Host
			for _, secret := range []string{"web01", "10.77.", "10.1.2.3", "2001:db8", "db01\"", "db01 ", "db01.", "02:42", "example.internal", f.ID, "0123456789ab"} {
				if i := strings.Index(all, secret); i >= 0 {
					t.Errorf("%s %s shows %q: %s", e, r.Kind, secret, all[max(0, i-60):min(len(all), i+60)])
				}
			}
			for _, kept := range []string{"jindan." + string(r.Kind)} {
				if !strings.Contains(all, kept) {
					t.Errorf("%s %s lost %q: %s", e, r.Kind, kept, all)
				}
			}
		}
	}
	m, _ := p.Record(rec)
	var g finding
	if err := unmarshal(m.Body, &g); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^host-\w{8} \((ip-\w{8}), \[ip-\w{8}\]:443, (ip-\w{8}), mac-\w{8}\) asks host-\w{8} and \S+, not db012; at 12:34:56 of ip-\w{8}/16\.$`).MatchString(g.Summary.En) {
		t.Errorf("%s", g.Summary.En)
	}
	// Equal ones stay equal: across fields, records and ways to write an address.
	if ip := p.address("10.77.1.2"); g.Subject.Host != ip || strings.Count(g.Summary.En, ip) != 2 || !strings.HasPrefix(g.Evidence[0].Flow, ip+":40000 > ") {
		t.Errorf("%s: %+v", ip, g)
	}
	again, _ := p.Record(rec)
	other, _ := NewPseudonym([]byte("other")).Record(rec)
	if !bytes.Equal(again.Body, m.Body) || again.ID != m.ID || other.ID == m.ID || bytes.Contains(other.Body, []byte(g.Subject.Host)) {
		t.Error("stable under one key, unrelated under another")
	}
	if !strings.HasPrefix(m.ID, "dead-upstream-") || g.Filter != "ip.addr == "+p.address("10.77.0.4") {
		t.Errorf("%s %s", m.ID, g.Filter)
	}
}

// FuzzPseudonym: an address is found wherever it stands in a text, whatever it is.
func FuzzPseudonym(f *testing.F) {
	f.Add("from 10.0.0.1:80 to [fe80::1%eth0]:443, ", []byte{10, 1, 2, 3}, ":8443 and ::")
	f.Add("", []byte("0123456789abcdef"), "]:80")
	p := NewPseudonym([]byte("k"))
	f.Fuzz(func(t *testing.T, before string, ip []byte, after string) {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		want := " " + p.address(a.String()) + ","
		if got := p.text(before+" "+a.String()+","+after, nil, true); !strings.Contains(got, want) {
			t.Errorf("%s in %q gives %q", a, before, got)
		}
		if got := p.text(netip.AddrPortFrom(a, 53).String(), nil, true); strings.Contains(got, a.String()) {
			t.Errorf("%s with a port gives %q", a, got)
		}
	})
}

// TestHostileTexts: what a stranger puts into a name reaches no receiver, whatever the encoding.
func TestHostileTexts(t *testing.T) {
	const evil = "a\x1b[2Jb\u009b1mc\u202ed\x7fe\nf\u2028g\u2066h"
	f := aFinding(1, analyze.Open, "warn")
	f.Features = map[string]any{"command": evil, "names": []string{evil}}
	f.Evidence[0].Note += evil
	f.Title.En, f.Summary.En, f.Summary.Ko, f.Netns, f.Filter = evil, evil, evil, evil, evil
	r, err := FindingRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, e := range []Encoding{Native, ECS, OTLP} {
		data, err := e.encode(&r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	for _, asJSON := range []bool{false, true} {
		f, err := newFormatter(SyslogOptions{JSON: asJSON, Facility: "daemon"}, 8<<10)
		if err != nil {
			t.Fatal(err)
		}
		data, err := f.format(nil, &Message{r, r.Body})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	}
	for i, data := range all {
		if strings.ContainsFunc(string(data), report.Hostile) || bytes.Contains(data, []byte(`\u001b`)) || bytes.Contains(data, []byte(`\n`)) {
			t.Errorf("%d: %q", i, data)
		}
	}
}

// TestKeysOfHosts: equal findings of two hosts are two records, a record that is sent again is one.
func TestKeysOfHosts(t *testing.T) {
	key := func(host, netns string) string {
		f := aFinding(1, analyze.Open, "warn")
		f.Host, f.Netns = host, netns
		r, err := FindingRecord(f)
		if err != nil {
			t.Fatal(err)
		}
		return r.Key()
	}
	if key("web01", "") == key("web02", "") || key("web01", "") == key("web01", "blue") {
		t.Error("records of two hosts have one key: a receiver that drops duplicates loses one of them")
	}
	if again := key("web01", ""); again != key("web01", "") {
		t.Error("a record that is sent again has another key")
	}
}
