package report

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// evil moves the cursor (C0 and C1), deletes, turns the text around, and breaks the line in four ways.
const evil = "a\x1b[2Jb\u009b1mc\u202ed\x7fe\nf\rg\u2028h\u0085i\x00j\xffk\u2066l"

// poison puts evil into every text of v.
func poison(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			poison(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				poison(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			poison(v.Index(i))
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String && v.Type().Elem().Kind() == reflect.Interface {
			v.SetMapIndex(reflect.ValueOf("command"+evil), reflect.ValueOf(evil))
		}
	case reflect.String:
		if v.CanSet() && v.Type() == reflect.TypeOf("") && v.String() != "" && !keep[v.String()] {
			v.SetString(v.String() + evil)
		}
	}
}

// keep are words by which a report decides what to show.
var keep = map[string]bool{"error": true, "warn": true, "info": true, "path": true, "service": true, "resolver": true, "inbound": true,
	"outbound": true, "data": true, "syn": true, "high": true}

func hostileIn(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && Hostile(r) })
}

// TestHostileEverywhere: no name that comes from strangers reaches an output as it is, in any text and any encoding.
func TestHostileEverywhere(t *testing.T) {
	in, d := outage()
	in.Files[0].Damage = "x"
	in.Files = append(in.Files, File{Name: "y", Unread: true}, File{Name: "z", Cut: true})
	poison(reflect.ValueOf(d))
	for i := range in.Files {
		in.Files[i].Name += evil
		if in.Files[i].Damage != "" {
			in.Files[i].Damage += evil
		}
	}
	for _, lang := range []Lang{English, Korean} {
		if s := render(t, in, d, Options{Lang: lang, Verbose: true}); hostileIn(s) || strings.Contains(s, "\nf") {
			t.Errorf("text: %q", s)
		}
	}
	for _, ecs := range []bool{false, true} {
		var b bytes.Buffer
		w := NewRecords(&b, ecs)
		for _, f := range d.Findings {
			if err := w.Finding(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Diagnosis(d); err != nil {
			t.Fatal(err)
		}
		if hostileIn(b.String()) || strings.Count(b.String(), "\n") != len(d.Findings)+1 {
			t.Errorf("ecs %v: %q", ecs, b.String())
		}
		for l := range strings.Lines(b.String()) {
			var v any
			if err := json.Unmarshal([]byte(l), &v); err != nil {
				t.Fatalf("ecs %v: %v in %q", ecs, err, l)
			}
			eachText(v, func(s string) {
				if hostileIn(s) || strings.Contains(s, "\n") {
					t.Errorf("ecs %v: %q", ecs, s)
				}
			})
		}
	}
}

func eachText(v any, f func(string)) {
	switch x := v.(type) {
	case string:
		f(x)
	case []any:
		for _, y := range x {
			eachText(y, f)
		}
	case map[string]any:
		for k, y := range x {
			f(k)
			eachText(y, f)
		}
	}
}

func TestCleanCell(t *testing.T) {
	for s, want := range map[string]string{"=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0", "@x": "'@x", "-1": "'-1", "+1": "'+1",
		"www.example.net": "www.example.net", "": "", "\t=1": "'=1", "a\x1bb": "a?b"} {
		if got := CleanCell(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// FuzzCleanJSON: what was JSON stays JSON, of the same shape, and nothing hostile is left in it.
func FuzzCleanJSON(f *testing.F) {
	f.Add(`{"a":"\u001b[2J\u202e\\u001b","b":["` + "\u009b\u2066" + `",1e3,null]}`)
	f.Add(`"` + "\\\\n\\n\\ud83d\\ude00\x7f" + `"`)
	f.Fuzz(func(t *testing.T, s string) {
		var before, after any
		if json.Unmarshal([]byte(s), &before) != nil {
			_ = CleanJSON([]byte(s)) // whatever it is: no panic
			return
		}
		b := CleanJSON([]byte(s))
		if err := json.Unmarshal(b, &after); err != nil {
			t.Fatalf("%q became %q: %v", s, b, err)
		}
		eachText(after, func(s string) {
			if strings.ContainsFunc(s, Hostile) {
				t.Errorf("%q", s)
			}
		})
	})
}
