package metric

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files of the packages anew")

const packaging = "../../../packaging"

// The series of one metric stand together behind one HELP and one TYPE.
func TestWriter(t *testing.T) {
	var w Writer
	for _, ns := range []string{"a", `b"`} {
		w.Set("jindan_packets_total", 1, ns)
		w.Set("jindan_sink_lag", 2.5, ns)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP jindan_packets_total Packets that the capture delivered.
# TYPE jindan_packets_total counter
jindan_packets_total{netns="a"} 1
jindan_packets_total{netns="b\""} 1
# HELP jindan_sink_lag Records that wait for a sink.
# TYPE jindan_sink_lag gauge
jindan_sink_lag{sink="a"} 2.5
jindan_sink_lag{sink="b\""} 2.5
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

// The files of the packages are those that the list gives.
func TestGenerated(t *testing.T) {
	dashboard, err := Dashboard()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"prometheus-rules.yaml": Rules(), "grafana-dashboard.json": append(dashboard, '\n')} {
		name = filepath.Join(packaging, name)
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the list of metrics gives; `go test ./cmd/internal/metric -update` writes it", name)
		}
	}
}

// Alerts and panels ask for metrics that the list has, by labels that they have.
func TestNames(t *testing.T) {
	known := make(map[string]Metric)
	for _, m := range All {
		if known[m.Name].Name != "" {
			t.Errorf("%s stands twice", m.Name)
		}
		known[m.Name] = m
		if (m.Kind == Counter) != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s is a %s: counters end in _total, and nothing else does", m.Name, m.Kind)
		}
	}
	names := regexp.MustCompile(`jindan_[a-z0-9_]+`)
	label := regexp.MustCompile(`\$labels\.([a-z_]+)`)
	for _, a := range Alerts {
		found := names.FindAllString(a.Expr, -1)
		if len(found) == 0 && !strings.HasPrefix(a.Expr, "up{") {
			t.Errorf("%s asks for none of our metrics", a.Name)
		}
		var labels []string
		for _, n := range found {
			if known[n].Name == "" {
				t.Errorf("%s asks for %s, which is not in the list", a.Name, n)
			}
			labels = append(labels, known[n].Labels...)
		}
		for _, m := range label.FindAllStringSubmatch(a.Summary, -1) {
			if m[1] != "instance" && !slices.Contains(labels, m[1]) {
				t.Errorf("%s speaks of the label %s, which its metric has not got", a.Name, m[1])
			}
		}
	}
	text, err := Dashboard()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for i, p := range d.Panels {
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d leaves the page", p.ID)
		}
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %d and %d overlap", p.ID, q.ID)
			}
		}
		for _, x := range p.Targets {
			for _, n := range names.FindAllString(x.Expr, -1) {
				if known[n].Name == "" {
					t.Errorf("a panel asks for %s, which is not in the list", n)
				}
			}
		}
	}
}

// Prometheus itself reads the rules, and each alert fires, and stays silent, as its test says.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool (Debian's prometheus; make deps)")
	}
	for _, args := range [][]string{{"check", "rules", "prometheus-rules.yaml"}, {"test", "rules", "prometheus-rules-test.yaml"}} {
		c := exec.Command(tool, args...)
		c.Dir = packaging
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests, err := os.ReadFile(filepath.Join(packaging, "prometheus-rules-test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Alerts {
		if strings.Count(string(tests), "alertname: "+a.Name+"\n") < 2 {
			t.Errorf("%s is not tested to fire and to stay silent", a.Name)
		}
	}
}

// Whatever is said of the agent's own process is described, too: promtool takes it without a complaint.
func TestProcessDescribed(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool (Debian's prometheus; make deps)")
	}
	var b bytes.Buffer
	if err := WriteProcess(&b); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(tool, "check", "metrics")
	c.Stdin = &b
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
