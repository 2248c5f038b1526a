package rules

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var declaration = regexp.MustCompile(`(?m)^#   ([a-z0-9_]+(?:, [a-z0-9_]+)*) +(int|float|string|bool)\b`)

// declared reads the features that a rule file declares in its head, as zero values.
func declared(t testing.TB, yaml string) map[string]any {
	t.Helper()
	zero := map[string]any{"int": 0, "float": 0.0, "string": "", "bool": false}
	m := make(map[string]any)
	head, _, _ := strings.Cut(yaml, "\nid: ")
	for _, d := range declaration.FindAllStringSubmatch(head, -1) {
		for _, name := range strings.Split(d[1], ", ") {
			m[name] = zero[d[2]]
		}
	}
	return m
}

// catalogue is the embedded files by name and the features that they declare.
func catalogue(t testing.TB) (files map[string]string, features map[string]any) {
	t.Helper()
	files, features = make(map[string]string), make(map[string]any)
	names, err := fs.Glob(embedded, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
		if name != stepsFile && name != causesFile {
			features[strings.TrimSuffix(name, ".yaml")] = declared(t, string(b))
		}
	}
	return files, features
}

func mustLoad(t testing.TB, overrides ...Override) *Set {
	t.Helper()
	_, features := catalogue(t)
	s, err := Load(features, overrides...)
	if err != nil {
		t.Fatalf("load the catalogue:\n%v", err)
	}
	if err := s.Compile(); err != nil {
		t.Fatalf("compile the catalogue:\n%v", err)
	}
	return s
}

func TestCatalogue(t *testing.T) {
	s := mustLoad(t)
	want := []string{"capture-quality", "retransmission", "size-dependent-loss", "abnormal-termination", "dns-delay",
		"dns-unanswered", "dns-errors", "close-wait", "pool-exhausted", "slow-server", "connection-refused",
		"dead-upstream", "dead-connection", "state-mismatch", "standstill", "nagle", "path-cut", "scan", "surge", "slow-receiver", "backend-skew", "accept-queue", "exhaustion", "port-error", "change",
		"segment-size-loss", "segment-loss", "segment-reset", "segment-delay", "segment-disorder"}
	for _, id := range want {
		if s.Rule(id) == nil {
			t.Errorf("no rule %s", id)
		}
	}
	if len(s.Rules) != len(want) {
		t.Errorf("%d rules, want %d", len(s.Rules), len(want))
	}
	for _, r := range s.Rules {
		if len(r.Citation) == 0 || len(r.LookAlikes) == 0 || len(r.Steps) == 0 {
			t.Errorf("%s: citation, look-alikes or steps are missing", r.ID)
		}
		for _, lang := range Languages {
			if n := r.Name(lang); n == "" || n == r.ID {
				t.Errorf("%s: no name in %s", r.ID, lang)
			}
		}
		for _, features := range variants(s.Rule(r.ID)) {
			class, _ := features["class"].(string)
			subjects := []map[string]any{{"host": "10.0.0.1", "peer": "10.0.0.2", "port": uint16(53), "direction": "inbound", "segment": "data"}}
			if peerless[r.ID] || peerless[r.ID+"["+class+"]"] {
				subjects = append(subjects, map[string]any{"host": "10.0.0.1", "port": uint16(53)})
			}
			for _, subject := range subjects {
				for _, which := range []string{"title", "summary", "ruled_out", "not_assessable"} {
					text, err := r.Text(which, features, subject)
					if err != nil {
						t.Fatal(err)
					}
					tidy(t, r.ID+" "+which, text)
				}
				next, err := r.Next(features, subject)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range next {
					tidy(t, r.ID+" next", n)
				}
			}
		}
	}
}

// peerless are the rules, or classes, whose subject may have no peer.
var peerless = map[string]bool{"close-wait": true, "retransmission[syn]": true, "retransmission[syn-ack]": true,
	"abnormal-termination": true, "pool-exhausted": true, "surge[spread]": true, "slow-server[served]": true,
	"connection-refused[served]": true, "path-cut": true, "backend-skew": true, "capture-quality": true}

// variants are features of a rule for each of its classes: all of them non-zero, and each of
// them zero in turn.
func variants(r *Rule) []map[string]any {
	full := make(map[string]any)
	for i, name := range r.features.names {
		full[name] = r.features.zero[i]
	}
	zero := maps.Clone(full)
	full = sample(full)
	var out []map[string]any
	for _, class := range append([]string{""}, r.Classes...) {
		if class != "" {
			full["class"] = class
		} else if r.Classes != nil {
			continue
		}
		out = append(out, maps.Clone(full))
		for name, v := range zero {
			if _, ok := v.(string); ok && !slices.Contains([]string{"outbound_peer", "next_hop", "stage", "stage_peer"}, name) {
				continue // always known
			}
			one := maps.Clone(full)
			one[name] = v
			out = append(out, one)
		}
	}
	return out
}

var untidy = regexp.MustCompile(`<no value>|%!|NaN|\s[,;.)]|\( |;\.|\.\. |, \.`)

// tidy looks for the marks of a template that went wrong.
func tidy(t *testing.T, where string, text Text) {
	t.Helper()
	for _, s := range []string{text.En, text.Ko} {
		if s == "" {
			t.Errorf("%s: one language is empty: %q", where, text)
		}
		if m := untidy.FindString(s); m != "" {
			t.Errorf("%s: %q in %q", where, m, s)
		}
	}
}

// The languages say the same: each text names the same features in both.
func TestLanguagesAgree(t *testing.T) {
	s := mustLoad(t)
	field := regexp.MustCompile(`[ (|]\.([a-z_0-9]+)`)
	names := func(n *node) []string {
		var out []string
		for _, m := range field.FindAllStringSubmatch(strings.Join(regexp.MustCompile(`{{[^}]*}}`).FindAllString(
			strings.ReplaceAll(n.text, "{{.", "{{ ."), -1), " "), -1) {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	for _, r := range s.Rules {
		en, ko := r.nodes.text["en"], r.nodes.text["ko"]
		for _, which := range textKeys {
			a, b := []*node{en.get(which)}, []*node{ko.get(which)}
			if a[0] == nil {
				continue
			}
			if slices.Contains(listKeys, which) {
				a, b = a[0].items, b[0].items
			}
			for i := range a {
				if x, y := names(a[i]), names(b[i]); !slices.Equal(x, y) {
					t.Errorf("%v names %v in English, %v in Korean", b[i].errorf("%s", which), x, y)
				}
			}
		}
	}
}

func TestSteps(t *testing.T) {
	s := mustLoad(t)
	var refs []string
	for _, st := range s.Steps {
		refs = append(refs, st.Ref)
		if st.Title.En == "" || st.Title.Ko == "" || st.NotAssessable.Ko == "" || st.Source == "" {
			t.Errorf("step %s is incomplete", st.ID)
		}
		if strings.HasPrefix(st.Ref, "T") && len(st.Ref) == 2 && st.Quote == "" {
			t.Errorf("step %s (%s) has no quotation", st.ID, st.Ref)
		}
	}
	want := []string{"T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14",
		"T15", "T16", "T17", "T18", "T19", "Q0"}
	if !slices.Equal(refs, want) {
		t.Errorf("steps are %v, want %v", refs, want)
	}
	if got := s.Step("dns-delay").Rules; !slices.Equal(got, []string{"dns-unanswered", "dns-delay", "dns-errors"}) {
		t.Errorf("dns-delay has rules %v", got)
	}
	if got := s.Step("evidence-set").Missing("packets", "sockets"); !slices.Equal(got, []string{"counters"}) {
		t.Errorf("evidence-set misses %v", got)
	}
	if got := s.Step("thread-pool").Missing("counters"); !slices.Equal(got, []string{"packets or sockets"}) {
		t.Errorf("thread-pool misses %v", got)
	}
}

func TestOverrides(t *testing.T) {
	files, _ := catalogue(t)
	own := strings.Replace(files["surge.yaml"], "order: 15", "order: 1", 1)
	s := mustLoad(t, dir("site", map[string]string{
		"a.yaml":     "id: close-wait\nseverity: info\nfor: 5s\nparams: {min_sockets: 20, min_share: {value: 10%, source: our farm}}\n",
		"b.yaml":     "id: dns-delay\nenabled: false\n",
		"surge.yaml": own,
		"README.md":  "not a rule",
	}))
	r := s.Rule("close-wait")
	if r.Severity != "info" || r.For.Seconds() != 5 || r.Params.Int("min_sockets") != 20 || r.Params.Float("min_share") != 0.1 {
		t.Errorf("close-wait is not overridden: %s %v %v", r.Severity, r.For, r.Params)
	}
	if r.Params.Duration("old_age").Seconds() != 10 {
		t.Errorf("old_age is %v", r.Params.Duration("old_age"))
	}
	if th, _ := r.Threshold("min_sockets"); th.Source != "override in site/a.yaml" || th.Korean != "" || th.Unit != "sockets" {
		t.Errorf("min_sockets is %+v", th)
	}
	if th, _ := r.Threshold("min_share"); th.Source != "our farm" {
		t.Errorf("min_share is %+v", th)
	}
	if s.Rules[0].ID != "surge" || s.Rules[0].File != "site/surge.yaml" {
		t.Errorf("surge is not replaced: the first rule is %s of %s", s.Rules[0].ID, s.Rules[0].File)
	}
	holding := map[string]any{"answered": 100, "slow": 50, "p95": 2.0, "lasting": 30.0}
	if _, holds, err := s.Rule("dns-delay").Eval(holding); holds || err != nil {
		t.Errorf("the disabled rule holds: %v %v", holds, err)
	}
	if sev, holds, err := mustLoad(t).Rule("dns-delay").Eval(holding); !holds || sev != "error" || err != nil {
		t.Errorf("dns-delay: %q %v %v", sev, holds, err)
	}
}
