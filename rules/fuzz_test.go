package rules

import (
	"errors"
	"testing"
	"time"
)

// Whatever a rule file holds, loading ends soon and without a panic, and every mistake has
// a place in the file.
func FuzzLoad(f *testing.F) {
	files, features := catalogue(f)
	names := []string{"a.yaml", stepsFile, causesFile}
	for kind, name := range []string{"slow-receiver.yaml", stepsFile, causesFile} {
		text := files[name]
		f.Add(byte(kind), []byte(text[:min(len(text), 4000)])) // longer ones take minutes to minimise
	}
	f.Add(byte(0), []byte(small["thing.yaml"]))
	f.Add(byte(1), []byte(small["steps.yaml"]))
	f.Add(byte(2), []byte(small["causes.yaml"]))
	f.Add(byte(0), []byte("id: close-wait\nparams: {min_sockets: 20, old_age: {value: 1m, source: x}}\n"))
	f.Add(byte(0), []byte("id: close-wait\nwhen: |2-\n   a\n  b\n"))
	f.Add(byte(0), []byte("? [a, b]\n: >+\n  x\n\n"))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		name := names[int(kind)%len(names)]
		start := time.Now()
		var d decoder
		n, err := parseYAML(name, data)
		if err == nil {
			switch name {
			case stepsFile:
				d.steps(n)
			case causesFile:
				d.edges(new(Set), n)
			default:
				s := new(Set)
				r := d.rule(n)
				s.Rules = []*Rule{r}
				if len(d.errs) == 0 {
					s.Steps = []*Step{{ID: "close-wait"}}
					d.check(s, map[string]any{r.ID: features[r.ID]})
					d.check(s, map[string]any{r.ID: thing{}})
				}
				if len(d.errs) == 0 {
					if _, _, err := r.Eval(nil); err != nil {
						_ = err.Error()
					}
					if _, err := r.Next(nil, nil); err != nil {
						t.Errorf("render what was checked: %v", err)
					}
				}
				other := &Rule{ID: "close-wait", Params: Params{}}
				d.change(other, n)
			}
			err = errors.Join(d.errs...)
		}
		var e *Error
		if err != nil && errors.As(err, &e) && (e.Line < 1 || e.Col < 1 || e.File != name) {
			t.Errorf("no place: %+v", e)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("loading %d bytes took %v", len(data), d)
		}
	})
}
