package detect

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

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
	files, err := filepath.Glob("../[dm]e*/*.go") // detect and measure
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

func hangul(r rune) bool { return unicode.Is(unicode.Hangul, r) }

// The head of each rule's file describes every feature that its detector measures, and no other, in both languages.
func TestFeaturesDescribed(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[reflect.Kind]string{reflect.Int: "int", reflect.Float64: "float", reflect.String: "string", reflect.Bool: "bool"}
	for id, zero := range Features() {
		var described, measured []string
		for _, f := range set.Rule(id).Features() {
			for _, n := range f.Names {
				described = append(described, n+" "+f.Type)
			}
			if f.Meaning.En == "" && len(f.Names) == 1 {
				t.Errorf("rule %s: %v has no meaning", id, f.Names)
			}
			formula := strings.ContainsAny(f.Meaning.Ko, "/+−|")
			if f.Meaning.Ko == "" && f.Meaning.En != "" || f.Meaning.Ko != "" && !formula && !strings.ContainsFunc(f.Meaning.Ko, hangul) {
				t.Errorf("rule %s: the meaning of %v is not in Korean: %q", id, f.Names, f.Meaning.Ko)
			}
		}
		typ := reflect.TypeOf(zero)
		for i := range typ.NumField() {
			f := typ.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && name != "-" {
				measured = append(measured, name+" "+kinds[f.Type.Kind()])
			}
		}
		for _, n := range measured {
			if !slices.Contains(described, n) {
				t.Errorf("%s.yaml does not describe %s", id, n)
			}
		}
		for _, n := range described {
			if !slices.Contains(measured, n) {
				t.Errorf("%s.yaml describes %s, which is not measured", id, n)
			}
		}
	}
}

// Every threshold is read: by a condition or text of its rule or of a link, or by a detector.
func TestThresholdsRead(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	words := regexp.MustCompile(`[a-z][a-z0-9_]*`)
	everywhere := make(map[string]bool)
	read := func(pattern string, names *regexp.Regexp) {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names.FindAllString(string(src), -1) {
				everywhere[strings.Trim(name, `"`)] = true
			}
		}
	}
	read("*.go", regexp.MustCompile(`"[a-z][a-z0-9_]*"`))
	read("../measure/*.go", regexp.MustCompile(`"[a-z][a-z0-9_]*"`))
	read("../../rules/causes.yaml", words)
	declaration := regexp.MustCompile(`(?m)^  [a-z][a-z0-9_]*: +\{value.*$`)
	for _, r := range set.Rules {
		src, err := os.ReadFile(filepath.Join("../../rules", r.File))
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(string(src), "")
		here := words.FindAllString(declaration.ReplaceAllString(text, ""), -1)
		for _, p := range r.Thresholds {
			if !everywhere[p.Name] && !slices.Contains(here, p.Name) {
				t.Errorf("nothing reads the threshold %s of %s", p.Name, r.File)
			}
		}
	}
}

// What cannot be judged says what each number is held against: "2,398 answered (50 are needed)" explains nothing.
func TestNotAssessableOfPools(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	text, err := set.Rule("pool-exhausted").Text("not_assessable", PoolExhausted{Served: 2398, Abandoned: 40}, nil)
	if err != nil {
		t.Fatal(err)
	}
	en, ko := "40 were given up and 0 connection requests left unanswered (fewer than ", "포기 40건과 응답 없는 연결 요청 0건(각각 "
	if strings.Contains(text.En, "needed") || !strings.Contains(text.En, en) || strings.Contains(text.Ko, "필요") || !strings.Contains(text.Ko, ko) {
		t.Errorf("%s %s", text.En, text.Ko)
	}
}
