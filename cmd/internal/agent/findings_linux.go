package agent

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/report"
	"jindan/cmd/internal/sink"
)

// finding takes a record of an engine.
func (ag *agent) finding(w *Watch, f *analyze.Finding) error {
	ag.lock.Lock()
	defer ag.lock.Unlock()
	id := foundKey{w.ns, f.ID, f.Detected}
	old := ag.found[id]
	if f.State == analyze.Open {
		ag.counts[countKey{f.Rule, f.Severity}]++
	}
	keep := *f
	if old != nil && f.State != analyze.Open {
		keep.Recording = old.Recording
	}
	if keep.Recording == "" {
		keep.Recording = ag.tapes[slices.Index(ag.watches, w)].incident(f)
	}
	f = &keep
	ag.found[id] = f
	ag.bound()
	if ag.change {
		ag.held = append(ag.held, f)
	} else if d := ag.delivery.Load(); d != nil {
		if err := d.Finding(f); err != nil {
			ag.app.Log.Error().Msgf("deliver %s: %s", f.ID, cli.OneLine(err))
		}
	}
	switch {
	case ag.direct == nil:
		return nil
	case ag.output != "text":
		return ag.direct.Finding(f)
	case ag.direct.Wants(f):
		ag.tell(ag.line(w, f, old))
	}
	return nil
}

// maxFound bounds the findings that the agent shows on its socket; those that are over give way.
const maxFound = 1000

func (ag *agent) bound() {
	if len(ag.found) <= maxFound {
		return
	}
	var oldest foundKey
	for id, f := range ag.found {
		if f.State == analyze.Resolved && (oldest.id == "" || f.LastSeen < ag.found[oldest].LastSeen) {
			oldest = id
		}
	}
	delete(ag.found, oldest)
}

// line tells a person of a finding that opened, became worse or another's consequence, or ended.
func (ag *agent) line(w *Watch, f, old *analyze.Finding) []byte {
	var b bytes.Buffer
	lang := report.Lang(ag.app.Lang)
	what := "OPEN"
	switch {
	case f.State == analyze.Resolved:
		what = "RESOLVED"
	case f.State != analyze.Open && old != nil && old.Role == f.Role && old.Severity == f.Severity:
		return nil
	case f.State != analyze.Open:
		what = "UPDATE"
	}
	word := what
	if lang == report.Korean {
		word = map[string]string{"OPEN": "발생", "RESOLVED": "해소", "UPDATE": "변경"}[what]
	}
	at := f.Time.Time().Local().Format("15:04:05")
	ns := ""
	if w.ns != "" {
		ns = " [" + w.ns + "]"
	}
	fmt.Fprintf(&b, "%s %-8s %s%s, %s, %s: %s\n", at, word, lang.Severity(f.Severity), ns, lang.Role(f.Role), report.Clean(lang.Text(f.Title)),
		report.Clean(f.Subject.String()))
	if what == "RESOLVED" {
		fmt.Fprintf(&b, "%18s%s\n", "", ended(lang, f))
	}
	if what == "OPEN" {
		for _, l := range report.Wrap(lang.Text(f.Summary), cmp.Or(cli.Columns(os.Stdout), report.DefaultWidth)-18) {
			fmt.Fprintf(&b, "%18s%s\n", "", l)
		}
	}
	return b.Bytes()
}

// ended says since when a finding is over and how long it lasted.
func ended(lang report.Lang, f *analyze.Finding) string {
	format := "well since %s; it lasted %s"
	switch unasked := f.Ended == analyze.EndedUnasked; {
	case unasked && lang == report.Korean:
		format = "%s 이후 시도가 없어 정상 여부는 알 수 없음, 지속 시간 %s"
	case unasked:
		format = "nobody has tried since %s: whether it is well is not known; it lasted %s"
	case lang == report.Korean:
		format = "%s부터 정상, 지속 시간 %s"
	}
	return fmt.Sprintf(format, f.LastSeen.Time().Local().Format("15:04:05"), f.LastSeen.Sub(f.Onset).Round(time.Second))
}

// undelivered is what the sinks that fail have not got.
func undelivered(sinks []sink.Status) map[string]uint64 {
	missing := make(map[string]uint64)
	for _, s := range sinks {
		n := s.Rejected + s.Dropped
		if !s.Connected {
			n += s.Lag
		}
		if n > 0 {
			missing[s.Name] = n
		}
	}
	return missing
}

// conclude writes the diagnosis of a namespace at the end.
func (ag *agent) conclude(w *Watch, d *analyze.Diagnosis) error {
	ag.lock.Lock()
	defer ag.lock.Unlock()
	if to := ag.delivery.Load(); to != nil {
		d.Coverage.Undelivered = undelivered(to.Status())
		if err := to.Diagnosis(d); err != nil {
			ag.app.Log.Error().Msgf("deliver the diagnosis: %s", cli.OneLine(err))
		}
	}
	if ag.direct == nil {
		return nil
	}
	if ag.output != "text" {
		return ag.direct.Diagnosis(d, ag.host, "jindan/"+cli.Version)
	}
	b := bytes.NewBufferString("\n")
	in := report.Input{Files: []report.File{{Name: strings.Join(w.names(), "+"), Packets: d.Coverage.Packets}}, Blind: w.UnseenInputs()}
	err := report.Text(b, in, d, report.Options{Lang: report.Lang(ag.app.Lang), Width: cli.Columns(os.Stdout), Zone: time.Local,
		Color: ag.app.WantColor(os.Stdout), Now: true, Catalogue: report.Rules(ag.set, w.Inputs()...)})
	ag.tell(b.Bytes())
	return err
}

// newest lists the newest findings of each id, those that are open first, the newest onset first.
func (ag *agent) newest() []*analyze.Finding {
	ag.lock.Lock()
	defer ag.lock.Unlock()
	last := make(map[foundKey]*analyze.Finding)
	for k, f := range ag.found {
		if k.detected = 0; last[k] == nil || last[k].Detected < f.Detected {
			last[k] = f
		}
	}
	// Records are written when something changes; in between a fault goes on.
	for _, w := range ag.watches {
		for _, g := range w.states.findings() {
			k := foundKey{ns: w.ns, id: g.ID}
			if f := last[k]; f != nil && f.Detected == g.Detected && f.State != analyze.Resolved && g.State != analyze.Resolved && g.LastSeen > f.LastSeen {
				g.Recording, g.Seq = f.Recording, f.Seq
				last[k] = g
			}
		}
	}
	list := slices.Collect(maps.Values(last))
	over := func(f *analyze.Finding) int {
		if f.State == analyze.Resolved {
			return 1
		}
		return 0
	}
	slices.SortFunc(list, func(a, b *analyze.Finding) int {
		return cmp.Or(cmp.Compare(over(a), over(b)), cmp.Compare(b.Onset, a.Onset), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// incidents are those of each namespace, those that are open first.
func (ag *agent) incidents() (list []analyze.Incident) {
	ag.lock.Lock()
	defer ag.lock.Unlock()
	for _, w := range ag.watches {
		var fs []*analyze.Finding
		for k, f := range ag.found {
			if k.ns == w.ns {
				fs = append(fs, f)
			}
		}
		list = append(list, analyze.Incidents(fs)...)
	}
	return list
}
