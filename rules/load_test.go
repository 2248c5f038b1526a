package rules

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func dir(name string, files map[string]string) Override {
	m := make(fstest.MapFS)
	for f, s := range files {
		m[f] = &fstest.MapFile{Data: []byte(s)}
	}
	return Override{Name: name, FS: m}
}

// small is a catalogue of one rule, one step and no causes worth the name.
var small = map[string]string{
	"steps.yaml": `steps:
  - id: thing
    ref: T1
    title: {en: Thing, ko: 것}
    team: {en: looked, ko: 보았다}
    quote: "그것"
    source: press
    confirms: {en: a, ko: 가}
    rules_out: {en: b, ko: 나}
    look_alikes: {en: c, ko: 다}
    next: {en: d, ko: 라}
    needs: [packets or sockets, counters]
    not_assessable: {en: needs it, ko: 필요}
`,
	"causes.yaml": `edges:
  - from: thing[a]
    to: thing[b]
    identity: same-host
    requires: cause.n > 0
    slack: {value: 1s, source: run A}
    experiment: {when: effect.n > cause.x, en: more, ko: 더}
    why: {en: because, ko: 때문}
`,
	"thing.yaml": `id: thing
order: 3
steps: [thing]
classes: [a, b]
params:
  low: {value: 10, unit: things, source: "a book"}
  age: {value: 10s, source: RFC 1}
  part: {value: 3%, source: lab}
when: n >= low && x > part
for: 5s
keep_for: 1m
severity: warn
severity_when:
  - {severity: error, when: x > age}
citation: ["RFC 1"]
look_alikes:
  - {en: another, ko: 다른 것}
text:
  en:
    title: Things
    summary: |
      {{count .n}} of {{.host}},
      {{if .class}}{{percent .x}}{{end}}
    next:
      - Look at {{.peer}}
    ruled_out: '{{.n}} only'
    not_assessable: "nothing {{.n}}"
  ko:
    title: 것들
    summary: 것 {{count .n}}
    next: [보기]
    ruled_out: 것
    not_assessable: 것
`,
}

type thing struct {
	N     int     `json:"n"`
	X     float64 `json:"x"`
	Class string  `json:"class"`
}

// change is a copy of small with one replacement in a file.
func change(t *testing.T, file, old, repl string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for name, s := range small {
		if name == file {
			if !strings.Contains(s, old) {
				t.Fatalf("%s has no %q", file, old)
			}
			s = strings.Replace(s, old, repl, 1)
		}
		out[name] = s
	}
	return out
}

func loadSmall(files map[string]string, overrides ...Override) (*Set, error) {
	return load(dir("", files).FS, map[string]any{"thing": thing{}}, overrides)
}

func TestLoadSmall(t *testing.T) {
	s, err := loadSmall(small)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Rule("thing").Render("en", "summary", thing{N: 1200, X: 0.5, Class: "a"}, map[string]any{"host": "h"}); got != "1,200 of h, 50 %" {
		t.Errorf("summary is %q", got)
	}
}

func TestLoadErrors(t *testing.T) {
	const rule, steps, causes = "thing.yaml", "steps.yaml", "causes.yaml"
	for _, c := range []struct{ file, old, repl, want string }{
		// YAML
		{rule, "id: thing", "id: thing\n\tx: y", "thing.yaml:2:1: found character '\t' that cannot start any token"},
		{rule, "order: 3", "order: 3\norder: 4", `thing.yaml:3:1: mapping key "order" already defined at [2:1]`},
		{rule, "steps: [thing]", "steps: [thing", "thing.yaml:4:1: ',' or ']' must be specified"},
		{rule, "order: 3", "order:", "thing.yaml:2:7: a value is missing"},
		{rule, "order: 3", "order: &a 3", "thing.yaml:2:8: anchors, aliases and merge keys are not supported"},
		{rule, "order: 3", "order: !!int 3", "thing.yaml:2:8: tags are not supported"},
		{rule, small[rule], "", "thing.yaml:1:1: the file is empty"},
		{rule, small[rule], "- a\n", "thing.yaml:1:1: expected a mapping, found a list"},
		{rule, "order: 3", "order: 3\n---\na: b", "thing.yaml:4:2: one document a file"},
		{rule, "a book", "a \xff book", "thing.yaml:1:1: the file is not UTF-8"},
		{rule, "a book", strings.Repeat("x", 3000), "thing.yaml:6:1: the line has 3044 bytes; at most 2000 are read"},
		{rule, "order: 3", "order: 3\n" + strings.Repeat("# filler\n", 9000), "thing.yaml:1:1: the file has more than 65536 bytes"},
		{rule, "order: 3", "order: " + strings.Repeat(strings.Repeat("[", 1000)+"\n ", 5), "thing.yaml:1:1: the file has more than 4000 opening brackets"},
		// keys
		{rule, "order: 3", "ordre: 3", `thing.yaml:2:1: unknown key "ordre"; known are id, order, enabled`},
		{rule, "id: thing\n", "", `thing.yaml:1:1: key "id" is missing`},
		{rule, "id: thing", "id: Thing", `thing.yaml:1:5: "Thing" is no name: lower-case letters, digits, - and _`},
		{rule, "id: thing", "id: thong", `thing.yaml:1:5: rule "thong" belongs into thong.yaml`},
		{rule, "order: 3", "order: three", `thing.yaml:2:8: order is a whole number, not "three"`},
		{rule, "order: 3", "enabled: maybe", `thing.yaml:2:10: enabled is true or false, not "maybe"`},
		{rule, "steps: [thing]", "steps: [thing, thin]", `thing.yaml:3:16: unknown step "thin"; steps.yaml has thing`},
		{rule, "steps: [thing]", "steps: []", "thing.yaml:3:8: the list is empty"},
		{rule, "steps: [thing]", "steps: thing", "thing.yaml:3:8: expected a list, found a single value"},
		{rule, "citation: [\"RFC 1\"]\n", "", `thing.yaml:1:1: key "citation" is missing`},
		{rule, "citation: [\"RFC 1\"]", "citation: [\"\"]", "thing.yaml:15:12: the text is empty"},
		{rule, "severity: warn", "severity: fatal", `thing.yaml:12:11: severity is info, warn, error, not "fatal"`},
		{rule, "{severity: error,", "{severity: critical,", `thing.yaml:14:16: severity is info, warn, error, not "critical"`},
		{rule, "for: 5s", "for: 5", `thing.yaml:10:6: "5" is no duration, such as 5s or 1m30s`},
		{rule, "keep_for: 1m", "keep_for: soon", `thing.yaml:11:11: "soon" is no duration, such as 5s or 1m30s`},
		// thresholds
		{rule, ", unit: things", "", "thing.yaml:6:8: threshold low has no unit"},
		{rule, ", source: lab", "", "thing.yaml:8:9: threshold part has no source"},
		{rule, "{value: 10s, source: RFC 1}", "10s", "thing.yaml:7:8: threshold age needs {value, unit, source}"},
		{rule, "value: 10s", "value: 10s, unit: s", "thing.yaml:7:27: the unit of age stands in its value already: 10s"},
		{rule, "value: 3%", "value: few", `thing.yaml:8:17: "few" is no number (10), duration (10s) or percentage (3%) of zero or more`},
		{rule, "value: 3%", "value: -3%", `thing.yaml:8:17: "-3%" is no number (10), duration (10s) or percentage (3%) of zero or more`},
		{rule, "{value: 10,", "{worth: 10,", `thing.yaml:6:9: unknown key "worth"; known are value, unit, source`},
		{rule, "  low:", "  x: {value: 1, unit: a, source: b}\n  low:", `thing.yaml:6:3: threshold "x" has the name of a feature or of a subject's field`},
		{rule, "  low:", "  host: {value: 1, unit: a, source: b}\n  low:", `thing.yaml:6:3: threshold "host" has the name of a feature or of a subject's field`},
		// conditions
		{rule, "n >= low && x > part", "n >= lou && x > part", "thing.yaml:9:12: unknown name lou"},
		{rule, "n >= low && x > part", "|\n  n >= low &&\n    y > part", "thing.yaml:11:5: unknown name y"},
		{rule, "n >= low && x > part", "n >= ", "thing.yaml:9:8: unexpected token EOF"},
		{rule, "n >= low && x > part", "n + 1", "thing.yaml:9:7: expected bool, but got int"},
		{rule, "n >= low && x > part", "class > 1", "thing.yaml:9:13: invalid operation: > (mismatched types string and int)"},
		{rule, "n >= low && x > part", "len(class) > 1", "thing.yaml:9:7: unknown name len"},
		{rule, "n >= low && x > part", "'" + "n >= low" + strings.Repeat(" || n > 1", 180) + "'", "thing.yaml:9:7: "},
		{rule, "when: x > age", "when: x > agee", "thing.yaml:14:33: unknown name agee"},
		{rule, "classes: [a, b]\n", "", "thing.yaml:1:5: rule thing: classes lists the values of the feature class, and is needed exactly when there is one"},
		// texts
		{rule, "  ko:\n    title: 것들", "  k0:\n    title: 것들", `thing.yaml:28:3: unknown key "k0"; known are en, ko`},
		{rule, "    title: Things\n", "", `thing.yaml:20:5: key "title" is missing`},
		{rule, "title: 것들", "title: Things", "thing.yaml:29:12: the Korean text has no Korean in it"},
		{rule, "{en: another, ko: 다른 것}", "{en: another}", `thing.yaml:17:5: key "ko" is missing`},
		{rule, "next: [보기]", "next: [보기, 더 보기]", "thing.yaml:31:11: 2 texts of \"next\" in Korean, 1 in English; they stand for each other one by one"},
		{rule, "{{count .n}} of {{.host}},", "{{count .n}} of {{.hots}},", "thing.yaml:22:25: unknown name .hots; known are age, class, direction"},
		{rule, "{{if .class}}{{percent .x}}{{end}}", "{{if .class}}{{percent .class}}{{end}}", "thing.yaml:23:"},
		{rule, "{{if .class}}{{percent .x}}{{end}}", "{{if .class}}{{percent .x}}", "thing.yaml:23:7: unexpected EOF"},
		{rule, "Look at {{.peer}}", "Look at {{peer}}", "thing.yaml:25:9: function \"peer\" not defined"},
		{rule, "Look at {{.peer}}", "Look at {{printf .peer}}", `thing.yaml:25:19: function "printf" is not for texts`},
		{rule, "Look at {{.peer}}", "Look at {{.peer.name}}", "thing.yaml:25:"},
		{rule, "Look at {{.peer}}", "Look at {{range .peer}}{{end}}", "thing.yaml:25:"},
		{rule, "Look at {{.peer}}", "Look at {{$x := .peer}}", "thing.yaml:25:"},
		{rule, "Look at {{.peer}}", "Look at {{.}}", "thing.yaml:25:"},
		{rule, "'{{.n}} only'", "'{{.host}} only'", "thing.yaml:26:19: unknown name .host; known are"},
		{rule, `"nothing {{.n}}"`, `"nothing {{.m}}"`, "thing.yaml:27:32: unknown name .m; known are"},
		{rule, "summary: 것 {{count .n}}", "summary: 것 {{count .m}}", "thing.yaml:30:24: unknown name .m; known are"},
		// steps
		{steps, "ref: T1", "ref: X1", `steps.yaml:3:10: ref is T1 to T19 or Q0, not "X1"`},
		{steps, "packets or sockets", "packets or pockets", `steps.yaml:12:13: unknown input "pockets"; known are packets, sockets`},
		{steps, "ko: 필요", "ko: needs it", "steps.yaml:13:40: the Korean text has no Korean in it"},
		{steps, "    source: press\n", "", `steps.yaml:2:5: key "source" is missing`},
		{steps, "team:", "teem:", `steps.yaml:5:5: unknown key "teem"; known are id, ref`},
		// causes
		{causes, "to: thing[b]", "to: thong", `causes.yaml:3:9: unknown rule "thong"`},
		{causes, "to: thing[b]", "to: thing[c]", `causes.yaml:3:9: rule thing has no class "c"`},
		{causes, "to: thing[b]", "to: thing[b", `causes.yaml:3:9: "thing[b" is no rule or rule[class,class]`},
		{causes, "to: thing[b]", "to: thing", "causes.yaml:2:5: the edge thing[a] to thing closes a cycle"},
		{causes, "same-host", "same-hat", `causes.yaml:4:15: unknown identity "same-hat"; known are [same-path`},
		{causes, "cause.n > 0", "cause.m > 0", "causes.yaml:5:21: unknown field m"},
		{causes, "effect.n > cause.x", "effect.n > x", "causes.yaml:7:35: unknown name x"},
		{causes, ", en: more, ko: 더", ", en: more", `causes.yaml:7:17: key "ko" is missing`},
		{causes, "value: 1s", "value: one", `causes.yaml:6:20: "one" is no duration, such as 5s or 1m30s`},
		{causes, "value: 1s, source: run A", "value: 1s", `causes.yaml:6:12: key "source" is missing`},
		{causes, "    why: {en: because, ko: 때문}\n", "", `causes.yaml:2:5: key "why" is missing`},
	} {
		_, err := loadSmall(change(t, c.file, c.old, c.repl))
		if strings.HasPrefix(c.want, "thing.yaml:9:7: ") && strings.HasSuffix(c.want, ": ") && err == nil {
			continue // long, but not too long
		}
		if err == nil {
			t.Errorf("%.60q for %.60q: no error", c.repl, c.old)
			continue
		}
		if !strings.Contains("\n"+err.Error(), "\n"+c.want) {
			t.Errorf("%.60q for %.60q:\n got %.600v\nwant %s", c.repl, c.old, err, c.want)
		}
		var e *Error
		if !errors.As(err, &e) || e.Line < 1 || e.Col < 1 {
			t.Errorf("%.60q for %.60q: no place in %v", c.repl, c.old, err)
		}
	}
}

// Every mistake of a file is reported, in order.
func TestLoadErrorsAll(t *testing.T) {
	files := change(t, "thing.yaml", "severity: warn", "severity: bad\nwhim: x")
	files["steps.yaml"] = strings.Replace(files["steps.yaml"], "ref: T1", "ref: T", 1)
	_, err := loadSmall(files)
	want := []string{`^steps.yaml:3:10: `, `^thing.yaml:12:11: severity`, `^thing.yaml:13:1: unknown key "whim"`}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d errors:\n%v", len(got), err)
	}
	for i := range want {
		if !regexp.MustCompile(want[i]).MatchString(got[i]) {
			t.Errorf("error %d is %q, want %s", i+1, got[i], want[i])
		}
	}
}

// ownThing is a rule of a user's own over the features of thing, in one language.
const ownThing = `id: many-things
features: thing
params:
  most: {value: 100, unit: things, source: us}
when: n >= most
for: 0s
keep_for: 1m
severity: info
text:
` + ownTexts

const ownTexts = "  en: {title: Many things, summary: '{{.n}} things of {{.host}}', next: [Count them]}\n"

// ownLink is a link of a user's own.
const ownLink = `edges:
  - from: thing[a]
    to: thing[b]
    identity: same-path
    slack: {value: 1s, source: us}
    why: {en: we know}
`

// A user's own rule reads the features of a rule of the catalogue, and owes nobody a second language; a link of their own comes
// after those of the catalogue.
func TestOwn(t *testing.T) {
	s, err := loadSmall(small, dir("site", map[string]string{"many.yaml": ownThing, "causes.yaml": ownLink}))
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rule("many-things")
	if r == nil || !r.Own() || r.FeaturesOf != "thing" {
		t.Fatalf("the rule is %+v", r)
	}
	for n, want := range map[int]bool{99: false, 100: true} {
		if _, holds, err := r.Eval(thing{N: n}); holds != want || err != nil {
			t.Errorf("%d things: %v, %v", n, holds, err)
		}
	}
	if clear, err := r.IsClear(thing{}); clear || err != nil {
		t.Errorf("a rule without the condition clear is cleared: %v, %v", clear, err)
	}
	text, err := r.Text("summary", thing{N: 100}, map[string]any{"host": "h"})
	if want := (Text{"100 things of h", "100 things of h"}); text != want || err != nil {
		t.Errorf("summary is %q, %v", text, err)
	}
	if next, err := r.Next(thing{}, nil); len(next) != 1 || err != nil {
		t.Errorf("next is %v, %v", next, err)
	}
	if text, err := r.Text("ruled_out", thing{}, nil); text != (Text{}) || err != nil {
		t.Errorf("a text that it has not got is %q, %v", text, err)
	}
	if s.Rule("thing").Own() {
		t.Error("a rule of the catalogue is a user's own")
	}
	last := s.Edges[len(s.Edges)-1]
	if s.Links() != 2 || last.Link != 2 || last.Identity != SamePath || last.Why != (Text{"we know", "we know"}) {
		t.Errorf("%d links, the last edge is %+v", s.Links(), last)
	}
}

func TestOverrideErrors(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"unknown rule":   {"a.yaml", "id: thong\nseverity: info\n", `site/a.yaml:1:5: no rule "thong" to override`},
		"no id":          {"a.yaml", "severity: info\n", `site/a.yaml:1:1: key "id" is missing`},
		"threshold":      {"a.yaml", "id: thing\nparams: {lowest: 3}\n", `site/a.yaml:2:10: rule thing has no threshold "lowest"; it has age, low, part`},
		"kind":           {"a.yaml", "id: thing\nparams: {age: 3}\n", `site/a.yaml:2:15: age is a duration, as 10s; "3" is a number`},
		"severity":       {"a.yaml", "id: thing\nseverity: loud\n", `site/a.yaml:2:11: severity is info, warn, error, not "loud"`},
		"condition":      {"a.yaml", "id: thing\nseverity_when: [{severity: info, when: q > 1}]\n", "site/a.yaml:2:40: unknown name q"},
		"incomplete":     {"a.yaml", "id: thing\nwhen: n > 1\n", `site/a.yaml:1:1: key "citation" is missing`},
		"steps":          {"steps.yaml", "steps: []\n", "site/steps.yaml:1:1: steps.yaml cannot be overridden"},
		"other features": {"a.yaml", "id: thing\nfeatures: thing\n", "site/a.yaml:2:11: there is a rule thing already; a rule of your own has another id"},
		"no features":    {"a.yaml", strings.ReplaceAll(ownThing, "features: thing\n", ""), `site/a.yaml:1:5: no rule "many-things" to override; a rule of your own names in features`},
		"whose features": {"a.yaml", strings.ReplaceAll(ownThing, "features: thing", "features: thong"), `site/a.yaml:2:11: no detector measures for rule "thong"; known are thing`},
		"nothing reads":  {"a.yaml", strings.ReplaceAll(ownThing, "n >= most", "n >= 7"), `site/a.yaml:4:3: nothing reads the threshold "most"`},
		"never clear":    {"a.yaml", ownThing + "steps: [thing]\n", "site/a.yaml:11:8: rule many-things has no condition clear"},
		"no text":        {"a.yaml", strings.TrimSuffix(ownThing, ownTexts) + "  {}\n", "site/a.yaml:10:3: there is no text: en or ko is needed, or both"},
		"own condition":  {"a.yaml", strings.ReplaceAll(ownThing, "n >= most", "m >= most"), "site/a.yaml:5:7: unknown name m"},
		"own cycle":      {"causes.yaml", strings.NewReplacer("thing[a]", "thing[b]", "thing[b]", "thing[a]").Replace(ownLink), "site/causes.yaml:2:5: the edge thing[b] to thing[a] closes a cycle"},
		"own unseen":     {"causes.yaml", "unseen: []\n" + ownLink, `site/causes.yaml:1:1: unknown key "unseen"; known are edges`},
		"yml":            {"a.yml", "", "site/a.yml:1:1: rule files are named *.yaml"},
	} {
		_, err := loadSmall(small, dir("site", map[string]string{c.file: c.text}))
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+c.want) {
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.want)
		}
	}
	if _, err := loadSmall(small, Override{Name: "gone", FS: os.DirFS(t.TempDir() + "/gone")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestFeatureErrors(t *testing.T) {
	type bad struct {
		Times []int `json:"n"`
	}
	type unnamed struct{ N int }
	type hidden struct {
		thing
		Host string `json:"host"`
	}
	for want, f := range map[string]map[string]any{
		"thing.yaml:1:5: no detector measures for rule \"thing\"":                                         {},
		"thing.yaml:1:5: rule thing: the features are <nil>, not a struct":                                {"thing": nil},
		"thing.yaml:1:5: rule thing: feature n is a []int, not a truth value, text or number":             {"thing": bad{}},
		"thing.yaml:1:5: rule thing: feature unnamed.N has no JSON name":                                  {"thing": unnamed{}},
		"thing.yaml:1:5: rule thing: feature \"host\" has the name of a subject's field":                  {"thing": hidden{}},
		"detector \"other\" has no rule: other.yaml is missing":                                           {"thing": thing{}, "other": thing{}},
		"thing.yaml:1:5: rule thing: feature n is a <nil>; times and durations are float64 seconds":       {"thing": map[string]any{"n": nil}},
		"thing.yaml:1:5: rule thing: feature skip is a map[string]int, not a truth value, text or number": {"thing": map[string]any{"skip": map[string]int{}}},
	} {
		_, err := load(dir("", small).FS, f, nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}
