package detect

import (
	"math/rand/v2"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"jindan/rules"
)

// needed is a number and, after it, the one that is said to be needed.
var needed = regexp.MustCompile(`([\d,.]+)( ms| s| min)?[^\d]*?, ([\d,.]+)( ms| s| min)? (?:is|are) needed`)

// A rule that is neither found nor cleared says why. Where the reason is that something is too little, it is less than what is said to be
// needed, whatever was measured; and what is said to be absent is.
func TestReasons(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	subject := map[string]any{"host": "10.0.0.1", "peer": "10.0.0.2", "port": uint16(53), "direction": "inbound", "segment": "data"}
	value := func(s, unit string) float64 {
		v, err := strconv.ParseFloat(strings.TrimRight(strings.ReplaceAll(s, ",", ""), "."), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v * map[string]float64{"": 1, " s": 1, " ms": 1e-3, " min": 60}[unit]
	}
	says := 0
	for id, zero := range Features() {
		r := set.Rule(id)
		nothing, err := r.Text("not_assessable", zero, subject)
		if err != nil {
			t.Fatal(err)
		}
		// Values about each threshold.
		numbers := []float64{0, 1, 2, 1000}
		for _, v := range r.Params {
			numbers = append(numbers, v-1, v-0.1, v, v+1)
		}
		for range 1000 {
			v := reflect.New(reflect.TypeOf(zero)).Elem()
			for i := range v.NumField() {
				f := v.Field(i)
				x := max(numbers[rng.IntN(len(numbers))], 0)
				switch {
				case f.Kind() == reflect.Bool:
					f.SetBool(rng.IntN(2) == 0)
				case f.CanInt():
					f.SetInt(int64(x))
				case f.CanUint():
					f.SetUint(uint64(x))
				case f.CanFloat():
					f.SetFloat(x)
				case f.Kind() == reflect.String && len(r.Classes) > 0 && v.Type().Field(i).Name == "Class":
					f.SetString(r.Classes[rng.IntN(len(r.Classes))])
				}
			}
			features := v.Interface()
			_, holds, err := r.Eval(features)
			if err != nil {
				t.Fatal(err)
			}
			clear, err := r.IsClear(features)
			if err != nil {
				t.Fatal(err)
			}
			if holds || clear {
				continue
			}
			text, err := r.Text("not_assessable", features, subject)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range needed.FindAllStringSubmatch(text.En, -1) {
				if says++; value(m[1], m[2]) >= value(m[3], m[4]) {
					t.Fatalf("%s: %s\n%+v", id, text.En, features)
				}
			}
			if strings.Contains(text.En, "are needed") != strings.Contains(text.Ko, "필요") && !strings.Contains(text.En, "needs") && !strings.Contains(text.En, "is needed") && !strings.Contains(text.En, "directions are needed") {
				t.Fatalf("%s: %s\n%s", id, text.En, text.Ko)
			}
			if strings.Contains(text.En, "Not judged: needs") && text != nothing {
				t.Fatalf("%s: %s\n%+v", id, text.En, features)
			}
			if strings.Contains(text.En, "Not judged: needs") && (id == "exhaustion" && v.FieldByName("Limit").Int() > 0 || id == "port-error" && v.FieldByName("Packets").Int() > 0) {
				t.Fatalf("%s: %s\n%+v", id, text.En, features)
			}
		}
	}
	if says == 0 {
		t.Error("nothing says what is needed")
	}
}
