package main

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xeipuuv/gojsonschema"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// TestBillOfMaterials describes this command itself: valid by CycloneDX' schema, and as complete as `go version -m`.
func TestBillOfMaterials(t *testing.T) {
	self := filepath.Join(t.TempDir(), "package")
	if text, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var b bytes.Buffer
	if err := write(&b, self, "1.2.3"); err != nil {
		t.Fatal(err)
	}

	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	loader := gojsonschema.NewSchemaLoader()
	var parts []gojsonschema.JSONLoader
	for _, name := range []string{"spdx.schema.json", "jsf-0.82.schemax.json", "bom-1.6.schema.json"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", name))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, gojsonschema.NewBytesLoader(text))
	}
	if err := loader.AddSchemas(parts[:2]...); err != nil {
		t.Fatal(err)
	}
	schema, err := loader.Compile(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	result, err := schema.Validate(gojsonschema.NewBytesLoader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range result.Errors() {
		t.Error(e)
	}

	var bom struct{ Components []struct{ Purl string } }
	if err := json.Unmarshal(b.Bytes(), &bom); err != nil {
		t.Fatal(err)
	}
	listed, err := exec.Command("go", "version", "-m", self).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for l := range strings.Lines(string(listed)) {
		if f := strings.Fields(l); len(f) >= 3 && f[0] == "dep" {
			want["pkg:golang/"+f[1]+"@"+url.QueryEscape(f[2])] = true
		}
	}
	if len(want) == 0 {
		t.Fatal("go version -m lists no module")
	}
	for _, c := range bom.Components {
		delete(want, c.Purl)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestDaemonSet decodes the example into Kubernetes' own types; a field that is unknown or given twice is an error. It must
// have the capabilities of the unit, neither more nor fewer.
func TestDaemonSet(t *testing.T) {
	text, err := os.ReadFile("daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Spec.Selector == nil || len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatal("a DaemonSet has a selector, and this one has one container")
	}
	for k, v := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("the template's labels lack the selector's %s=%s", k, v)
		}
	}
	unit, err := os.ReadFile("jindan.service")
	if err != nil {
		t.Fatal(err)
	}
	var caps []string
	for _, c := range d.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		caps = append(caps, "CAP_"+string(c))
	}
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		if line := key + "=" + strings.Join(caps, " ") + "\n"; !strings.Contains(string(unit), "\n"+line) {
			t.Errorf("jindan.service has no line %q", line)
		}
	}
}

// TestThreatModel holds the README's threat model against the tree: each line is answered by at least one test, setting of the
// unit or target of make, and each that it names exists.
func TestThreatModel(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	known := map[string]bool{}
	add := func(text, pattern, form string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			known[strings.Replace(form, "X", m[1], 1)] = true
		}
	}
	add(read("jindan.service"), `(?m)^(\w+)=`, "`X=`")
	add(read("../Makefile"), `(?m)^([a-z-]+):`, "`make X`")
	err := filepath.WalkDir("..", func(name string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(name, "_test.go") {
			add(read(name), `(?m)^func ((?:Test|Fuzz)\w+)\(`, "`X`")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	_, text, _ := strings.Cut(read("README.md"), "\n## Threat model\n")
	text, _, _ = strings.Cut(text, "\n## ")
	answer := regexp.MustCompile("`(?:(?:Test|Fuzz)\\w+|[A-Z]\\w+=|make [a-z-]+)`")
	lines := 0
	for l := range strings.Lines(text) {
		names := answer.FindAllString(l, -1)
		for _, n := range names {
			if !known[n] {
				t.Errorf("there is no %s", n)
			}
		}
		if !strings.HasPrefix(l, "| ") || strings.HasPrefix(l, "| who can |") {
			continue
		}
		lines++
		if len(names) == 0 {
			t.Errorf("nothing answers %s", l)
		}
	}
	if lines == 0 {
		t.Error("the README has no threat model")
	}
}
