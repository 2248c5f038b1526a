package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Whatever a file holds, loading ends soon and without a panic, every mistake has a place, and what is
// in order is so again, with the same meaning, after it was printed. No secret is shown.
func FuzzLoad(f *testing.F) {
	for _, c := range mistakes {
		if len(c.in) < 1000 { // longer ones take minutes to minimise
			f.Add([]byte(c.in), "")
		}
	}
	f.Add([]byte("log: {level: info}"), "JINDAN_CAPTURE_INTERFACES=a,b,${x}")
	f.Add([]byte(strings.ReplaceAll(full, "${DIR}", "/nowhere")), "LEVEL=warn")
	for part := range strings.SplitSeq(Example, "\n\n") {
		f.Add([]byte(part), "JINDAN_LOCAL=::1")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, env string) {
		name := filepath.Join(dir, "jindan.yaml")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		o := Options{File: name, Now: testNow, Environ: []string{"PASS=hunter2", "LEVEL=warn", env}}
		first, err := Load(o)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("loading takes %v", took)
		}
		if err != nil {
			var j interface{ Unwrap() []error }
			if !errors.As(err, &j) {
				t.Fatalf("%T is no joined error", err)
			}
			for _, e := range j.Unwrap() {
				var place *Error
				if !errors.As(e, &place) || place.File == name && (place.Line < 1 || place.Col < 1) {
					t.Errorf("%v has no place in the file", e)
				}
			}
			return
		}
		var b strings.Builder
		if err := first.Print(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "hunter2") && !strings.Contains(string(data)+env, "hunter2") {
			t.Errorf("a secret is shown:\n%s", b.String())
		}
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(env, prefix) {
			o.Environ = o.Environ[:2] // the text alone must say it
		}
		second, err := Load(o)
		if err != nil {
			t.Fatalf("%v\nin what was printed:\n%s", err, b.String())
		}
		if !reflect.DeepEqual(values(first), values(second)) {
			t.Errorf("printed and read again it has another meaning:\n%s", b.String())
		}
	})
}
