package report

import (
	"cmp"
	"fmt"
	"slices"

	"jindan/analyze"
)

// episodes are the findings by id: a fault that comes back has one id and several findings, each of its own incident.
type episodes map[string][]*analyze.Finding

func episodesOf(fs []*analyze.Finding) episodes {
	e := make(episodes)
	for _, f := range fs {
		e[f.ID] = append(e[f.ID], f)
	}
	return e
}

// of is the finding of an incident; the newest if it has none.
func (e episodes) of(id, incident string) *analyze.Finding {
	fs := e[id]
	if i := slices.IndexFunc(fs, func(f *analyze.Finding) bool { return f.Incident == incident }); i >= 0 {
		return fs[i]
	}
	if len(fs) == 0 {
		return nil
	}
	return fs[len(fs)-1]
}

// rootsOf are the roots of d, first affected event first.
func (e episodes) rootsOf(d *analyze.Diagnosis) (fs []*analyze.Finding) {
	for _, id := range d.Roots {
		all := slices.Clone(e[id])
		if len(all) > 1 {
			all = slices.DeleteFunc(all, func(f *analyze.Finding) bool { return f.Role != analyze.Root })
		}
		fs = append(fs, all...)
	}
	slices.SortStableFunc(fs, func(a, b *analyze.Finding) int { return int(min(max(a.Onset-b.Onset, -1), 1)) })
	return fs
}

// chainOf is what follows from root, in the order of the first affected events.
func (e episodes) chainOf(d *analyze.Diagnosis, root *analyze.Finding) (fs []*analyze.Finding) {
	for _, id := range d.Chain {
		for _, f := range e[id] {
			if f != root && f.Role == analyze.Consequence && e.follows(f, root, 0) {
				fs = append(fs, f)
			}
		}
	}
	// The order of the ids is that of their newest episodes.
	slices.SortStableFunc(fs, func(x, y *analyze.Finding) int { return cmp.Compare(x.Onset, y.Onset) })
	return fs
}

// follows reports whether f is caused, over any number of links, by root.
func (e episodes) follows(f, root *analyze.Finding, depth int) bool {
	for _, b := range f.Because {
		g := e.of(b, f.Incident)
		if g != nil && (g == root || depth < 16 && e.follows(g, root, depth+1)) {
			return true
		}
	}
	return false
}

// past takes the incidents out of d that are over and of which a line is enough: those beside one that is not, and
// all where only the present counts.
func past(d *analyze.Diagnosis, now bool) (*analyze.Diagnosis, []analyze.Incident) {
	over := make(map[string]bool)
	var list []analyze.Incident
	for _, x := range d.Incidents {
		if x.State == analyze.Resolved && (now || d.Incidents[0].State != analyze.Resolved) {
			over[x.ID] = true
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		return d, nil
	}
	rest := *d
	rest.Findings = nil
	here := make(map[string]bool)
	for _, f := range d.Findings {
		if !over[f.Incident] {
			rest.Findings = append(rest.Findings, f)
			here[f.ID] = true
		}
	}
	gone := func(id string) bool { return !here[id] }
	rest.Roots = slices.DeleteFunc(slices.Clone(d.Roots), gone)
	rest.Chain = slices.DeleteFunc(slices.Clone(d.Chain), gone)
	return &rest, list
}

// allLines are for the list of all incidents, which tells more than any of them in full.
const allLines = 16

// over writes a line for each incident that is past, or for all where there are more than are told in full.
func (r *text) over() {
	if len(r.past) == 0 {
		return
	}
	r.blank()
	label, most := r.pick("PAST", "지난 장애"), r.pastLines
	if r.all {
		label, most = r.pick("ALL", "전체 장애"), max(r.pastLines, allLines)
	}
	for i, x := range r.past {
		if n := len(r.past) - i; i+1 >= most && n > 1 {
			if r.all {
				r.more(fmt.Sprintf(r.pick("and %d more (-v lists them)", "외 %d건(-v로 확인)"), n), plain)
				break
			}
			r.more(fmt.Sprintf(r.pick("and %d more (`jindan incidents` lists them)", "외 %d건(`jindan incidents`로 확인)"), n), plain)
			break
		}
		r.entry(label, bold, clip(r.Lang.Incident(&x, r.zone), r.width-r.gutter), plain)
		label = ""
	}
}
