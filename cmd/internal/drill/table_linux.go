package drill

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
)

// writeTable sums up the runs of each scenario in a row.
func writeTable(markdown bool, scenarios []lab.Scenario, records []record) error {
	rows := [][]string{{"Scenario", "What happens", "Expected", "Found", "As expected", "First finding", "Right root", "Live: right at once", "False"}}
	for _, s := range scenarios {
		var roots []string
		var first, root []float64
		runs, right, wrong, live, atOnce := 0, 0, 0, 0, 0
		for _, r := range records {
			if r.Scenario != s.ID {
				continue
			}
			runs++
			if r.Error == "" && len(r.Wrong) == 0 {
				right++
			}
			wrong += r.False
			if len(r.AgentNamed) > 0 {
				live++
				if r.AgentWrong == 0 {
					atOnce++
				}
			}
			for _, x := range r.Roots {
				if !slices.Contains(roots, x) {
					roots = append(roots, x)
				}
			}
			if r.First > 0 {
				first = append(first, r.First)
			}
			if r.Root > 0 {
				root = append(root, r.Root)
			}
		}
		found := strings.Join(roots, ", ")
		if found == "" {
			found = "–"
		}
		rows = append(rows, []string{s.ID, s.Title, expected(s.Expect), found, fmt.Sprintf("%d of %d", right, runs),
			seconds(first), seconds(root), share(atOnce, live), fmt.Sprint(wrong)})
	}
	out := bufio.NewWriter(os.Stdout)
	table(out, markdown, rows)
	return out.Flush()
}

// table writes rows, the head first, for a terminal or as Markdown.
func table(w io.Writer, markdown bool, rows [][]string) {
	if !markdown {
		report.Table(w, rows)
		return
	}
	for i, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintln(w, strings.Repeat("|---", len(row))+"|")
		}
	}
}

// share is a part of several; a dash of none.
func share(part, of int) string {
	if of == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", part, of)
}

// seconds is the range of several times.
func seconds(t []float64) string {
	if len(t) == 0 {
		return "–"
	}
	lo, hi := slices.Min(t), slices.Max(t)
	if hi-lo < 0.05 {
		return fmt.Sprintf("%.1f s", lo)
	}
	return fmt.Sprintf("%.1f–%.1f s", lo, hi)
}
