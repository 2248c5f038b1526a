package main

import (
	"slices"
	"testing"

	"jindan/analyze/flow"
	"jindan/capture"
)

func TestSortRows(t *testing.T) {
	var got []uint32
	w := &rows{write: func(row any) { got = append(got, row.(*flow.Row).RetransmitClient) }}
	s, err := sortRows(w, &flowsFlags{sort: "resent", top: 3})
	if err != nil {
		t.Fatal(err)
	}
	row := flow.Row{}
	for i := range uint32(5000) {
		row.RetransmitClient, row.Start = i*7919%5000, capture.Instant(i)
		w.write(&row)
	}
	s.flush()
	if !slices.Equal(got, []uint32{4999, 4998, 4997}) {
		t.Error(got)
	}
	for _, f := range []flowsFlags{{sort: "colour"}, {top: -1}, {sort: "latency"}, {sort: "bytes", explain: "ill"}} {
		if _, err := sortRows(w, &f); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
}

// TestFitting: a narrow terminal loses columns, not the ends of a connection.
func TestFitting(t *testing.T) {
	for _, width := range []int{80, 100, 140, 0} {
		cs, need := fitting(tcpColumns, width), lastColumn
		for _, c := range cs[:len(cs)-1] {
			need += max(c.width, -c.width) + 2
		}
		if width > 0 && need > width || width == 0 && len(cs) != len(tcpColumns) {
			t.Errorf("%d columns need %d characters of %d", len(cs), need, width)
		}
		for _, head := range []string{"CLIENT", "SERVER", "TROUBLE (client/server)"} {
			if !slices.ContainsFunc(cs, func(c column) bool { return c.head == head }) {
				t.Errorf("%d characters: no %s", width, head)
			}
		}
	}
}
