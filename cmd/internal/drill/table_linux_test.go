package drill

import (
	"errors"
	"testing"

	"jindan/cmd/internal/cli"
	"jindan/fixtures/lab"
)

func TestDrillTable(t *testing.T) {
	s := lab.Scenario{ID: "x", Title: "t", Expect: lab.Expectation{Root: "surge"}}
	rec := record{Roots: []string{"surge[single]"}, First: 1, Root: 2.5}
	rec.name(s, 1)
	if rec.Schema != "jindan.drill/v1" || rec.Wrong == nil || rec.Expected != "surge" {
		t.Errorf("%+v", rec)
	}
	if err := outcome([]record{rec}); err != nil {
		t.Error(err)
	}
	wrong := rec
	wrong.Wrong = []string{"so"}
	var got *cli.Status
	if err := outcome([]record{rec, wrong}); !errors.As(err, &got) || got.Code != cli.ExitFailOn {
		t.Errorf("%v", err)
	}
	wrong.Error = "no"
	if err := outcome([]record{rec, wrong}); !errors.As(err, &got) || got.Code != cli.ExitUnusable {
		t.Errorf("%v", err)
	}
	if got := seconds([]float64{1, 3.04, 2}); got != "1.0–3.0 s" {
		t.Error(got)
	}
}
