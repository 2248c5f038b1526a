package drill

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/rules"
)

// one runs a scenario and shows everything about it.
func (a Command) one(ctx context.Context, set *rules.Set, s lab.Scenario, f Options) error {
	show := &phases{out: os.Stderr, live: cli.IsTerminal(os.Stderr), name: s.ID}
	r, err := a.play(ctx, set, s, f.Seed, f, show.next)
	show.next("", 0)
	if ctx.Err() != nil {
		return cli.Exit(int(a.Interrupted.Load()), fmt.Errorf("interrupted; the namespaces of the drill are taken down"))
	}
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	o := report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout), Color: a.WantColor(os.Stdout), Catalogue: report.Rules(set)}
	fmt.Fprintf(out, "Drill       %s: %s (seed %d)\n", s.ID, s.Title, f.Seed)
	fmt.Fprintf(out, "  stands    for “%s” (%s)\n", s.Sentence, s.Source)
	for _, x := range r.seen {
		fmt.Fprintln(out)
		r.timeLine(out, x)
		fmt.Fprintln(out)
		r.compare(out, x)
		fmt.Fprintln(out)
		if err := report.Text(out, x.input, x.d, o); err != nil {
			return err
		}
	}
	if v := r.agent; v != nil {
		fmt.Fprintf(out, "\nAGENT       root          %s; first finding %.1f s after the fault, the right root %.1f s; its recording replays\n",
			cmp.Or(strings.Join(v.Roots, ", "), "–"), v.First.Seconds(), v.Root.Seconds())
		if len(v.Named) > 0 {
			fmt.Fprintf(out, "            named         %s (%s)\n", strings.Join(v.Named, "; then "), firstRoot(r.truth.WrongFirst(v.Named)))
		}
		for _, w := range v.Wrong {
			fmt.Fprintf(out, "            NOT AS EXPECTED: %s\n", w)
		}
	}
	if v := r.sockets; v != nil {
		fmt.Fprintf(out, "SOCKETS     root          %s (without packets)\n", cmp.Or(strings.Join(v.Roots, ", "), "–"))
		for _, w := range v.Wrong {
			fmt.Fprintf(out, "            NOT AS EXPECTED: %s\n", w)
		}
	}
	if f.Keep != "" {
		fmt.Fprintf(out, "\nKept        %s\n", filepath.Join(f.Keep, fmt.Sprintf("%s-%d", s.ID, f.Seed)))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return outcome([]record{r.record(s, f.Seed)})
}

// firstRoot says how many wrong roots came before the right one.
func firstRoot(wrong int) string {
	switch wrong {
	case -1:
		return "never the right one alone"
	case 0:
		return "right at once"
	}
	return fmt.Sprintf("right after %d wrong", wrong)
}

// timeLine writes what happened when, from the fault on.
func (r *run) timeLine(w io.Writer, x seenAt) {
	type moment struct {
		at   time.Time
		what string
	}
	t := r.truth
	zero := t.Begun
	moments := []moment{{t.Begun, "traffic"}, {t.LoadEnded, "the clients stop"}}
	if !t.FaultAt.IsZero() {
		zero = t.FaultAt
		moments = append(moments, moment{t.FaultAt, "THE FAULT"})
	}
	if !t.HealedAt.IsZero() {
		moments = append(moments, moment{t.HealedAt, "the fault ends"})
	}
	var failed time.Time
	for _, o := range t.Requests {
		if !o.FirstFailed.IsZero() && (failed.IsZero() || o.FirstFailed.Before(failed)) {
			failed = o.FirstFailed
		}
	}
	if !failed.IsZero() {
		moments = append(moments, moment{failed, "first request sent that will fail"})
	}
	for _, f := range x.d.Findings {
		if f.Severity == "info" {
			continue
		}
		where := strings.Trim(f.Subject.Host+" ← "+f.Subject.Peer, " ←")
		what := fmt.Sprintf("%s (%s) %s", f.Rule, f.Role, where)
		moments = append(moments, moment{time.Unix(0, int64(f.Onset)), what + " begins"},
			moment{time.Unix(0, int64(f.Detected)), what + " is found"})
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	label := "TIME LINE"
	for _, m := range moments {
		fmt.Fprintf(w, "%-10s  %+7.2f s  %s\n", label, m.at.Sub(zero).Seconds(), m.what)
		label = ""
	}
}

// compare writes the expected and the found diagnosis side by side.
func (r *run) compare(w io.Writer, x seenAt) {
	want, ok := r.truth.Elsewhere[x.point]
	if !ok {
		want = r.truth.Expected
	}
	root := "nothing above info"
	if want.Root != "" {
		root = expected(want)
		if p := want.Place; p != (lab.Place{}) {
			root += strings.TrimRight(fmt.Sprintf(", %s %s %s", p.Peer, p.Direction, p.Sizes), " ")
		}
	}
	list := func(s []string) string { return cmp.Or(strings.Join(s, ", "), "–") }
	var roots []string
	for _, f := range x.d.Findings {
		if f.Role == analyze.Root && f.Severity != "info" {
			roots = append(roots, fmt.Sprintf("%s %s %s", f.Rule, strings.Trim(f.Subject.Host+" ← "+f.Subject.Peer, " ←"), f.Subject.Direction))
		}
	}
	fmt.Fprintf(w, "EXPECTED    root          %s\n", root)
	fmt.Fprintf(w, "            consequences  %s\n", list(want.Consequences))
	fmt.Fprintf(w, "FOUND       root          %s\n", strings.TrimSpace(list(roots)))
	fmt.Fprintf(w, "            consequences  %s\n", list(x.verdict.Consequences))
	if len(x.verdict.Wrong) == 0 {
		fmt.Fprintf(w, "VERDICT     as expected, seen in %s\n", x.point)
	}
	for i, s := range x.verdict.Wrong {
		label := ""
		if i == 0 {
			label = "VERDICT"
		}
		fmt.Fprintf(w, "%-10s  NOT AS EXPECTED: %s\n", label, s)
	}
}

// phases shows on standard error what a drill is doing: a line a phase, or a clock on a terminal.
type phases struct {
	out  io.Writer
	live bool
	name string
	end  chan struct{}
	done chan struct{}
}

// next begins a phase; an empty one ends the show.
func (p *phases) next(what string, d time.Duration) {
	if p.end != nil {
		close(p.end)
		<-p.done
		p.end = nil
	}
	if what == "" {
		return
	}
	if !p.live {
		if d > 0 {
			what += ", " + d.String()
		}
		fmt.Fprintf(p.out, "jindan: %s: %s\n", p.name, what)
		return
	}
	p.end, p.done = make(chan struct{}), make(chan struct{})
	go p.clock(what, d)
}

func (p *phases) clock(what string, d time.Duration) {
	defer close(p.done)
	begin := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		line := what
		if d > 0 {
			line += fmt.Sprintf(", %.0f of %.0f s", time.Since(begin).Seconds(), d.Seconds())
		}
		fmt.Fprintf(p.out, "\r\x1b[K%s: %s", p.name, line)
		select {
		case <-p.end:
			fmt.Fprint(p.out, "\r\x1b[K")
			return
		case <-tick.C:
		}
	}
}
