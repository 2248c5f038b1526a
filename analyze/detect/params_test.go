package detect

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jindan/rules"
)

// The thresholds that detectors ask for by name exist in the catalogue, and every detector has its rule.
func TestThresholdNames(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Rules) != len(All()) {
		t.Errorf("%d rules for %d detectors", len(set.Rules), len(All()))
	}
	all := make(map[string]bool)
	for _, r := range set.Rules {
		for _, p := range r.Thresholds {
			all[p.Name] = true
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\.(?:Float|Int|Duration)\("([a-z_0-9]+)"\)`)
	asked := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllSubmatch(src, -1) {
			asked++
			if !all[string(m[1])] {
				t.Errorf("%s asks for the threshold %s, which no rule has", f, m[1])
			}
		}
	}
	if asked == 0 {
		t.Error("no threshold is asked for: the pattern is wrong")
	}
}
