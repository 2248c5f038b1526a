package detect

import (
	"cmp"
	"slices"
	"strings"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// bin is the bin of the second of at; what is older than all of them belongs to the oldest.
func (st *unansweredState) bin(at capture.Instant) *dnsBin {
	start := at - at%capture.Instant(analyze.WindowLength)
	i := len(st.bins)
	for i > 0 && st.bins[i-1].start > start {
		i--
	}
	switch {
	case i > 0 && st.bins[i-1].start == start:
		return &st.bins[i-1]
	case i == 0 && len(st.bins) > 0 && st.bins[0].rolled:
		return &st.bins[0]
	}
	st.bins = slices.Insert(st.bins, i, dnsBin{start: start})
	return &st.bins[i]
}

// roll moves the seconds that are settled into the series.
func (st *unansweredState) roll(now capture.Instant) {
	s := &st.Series
	for i := range st.bins {
		b := &st.bins[i]
		switch {
		case b.rolled && b.Point != stat.Point{}: // a lookup of many tries, decided late
			s.Add(b.Bad, b.Total, b.First)
			b.Point = stat.Point{}
		case !b.rolled && now.Sub(b.start) >= measure.DNSSettled:
			s.Add(b.Bad, b.Total, b.First)
			b.Point, b.rolled = stat.Point{}, true
		}
	}
	if st.began == 0 && len(st.bins) > 0 {
		st.began = st.bins[0].start
	}
	if st.began != 0 && now.Sub(st.began) >= measure.DNSSettled {
		s.Roll() // the series runs behind by dnsSettled
	}
	for len(st.bins) > 0 && now.Sub(st.bins[0].start) > stat.SeriesLen*analyze.WindowLength {
		st.bins = st.bins[1:]
	}
}

// since fills in what is counted question by question, and returns the most tries of an
// unanswered one.
func (st *unansweredState) since(onset capture.Instant, f *DNSUnanswered) (most int) {
	from := onset - onset%capture.Instant(analyze.WindowLength)
	late := 0
	for i := range st.bins {
		if b := &st.bins[i]; b.start >= from && b.rolled {
			f.Retried += int(b.retried)
			f.TCPAnswered += int(b.tcp)
			f.Unreachable += int(b.unreachable)
			f.Strays += int(b.strays)
			f.TCPRefused += int(b.refused)
			f.TCPSilent += int(b.silent)
			late += int(b.late)
		}
	}
	if f.Strays > 0 {
		f.StrayFrom = st.stray.String()
	}
	// What was answered after all, but too late to wait for, is dns-delay's.
	late = min(late, f.Unanswered)
	f.Unanswered -= late
	f.Answered = f.Queries - f.Unanswered
	f.Share = stat.Ratio(f.Unanswered, f.Queries)
	var bySize measure.Sizes
	var expected, elsewhere []float64
	names := measure.NewSubjects[uint64, struct{}](maxDNSNotes)
	var asked examples
	for i := range st.notes {
		q := &st.notes[i]
		if q.at < onset {
			continue
		}
		names.Get(q.name)
		asked.add(q.qtype, q.text)
		f.Tries += q.tries
		most = max(most, q.tries)
		if q.elsewhere > 0 {
			elsewhere = append(elsewhere, q.elsewhere.Seconds())
		}
		if q.expected > 0 {
			expected = append(expected, float64(q.expected))
			bySize.Sent[flow.Bin(q.expected)]++
			bySize.Lost[flow.Bin(q.expected)]++
		}
	}
	others := false // types are answered that none of the unanswered has
	for _, a := range st.answers {
		if a.at >= onset {
			others = others || a.qtype != asked.qtype
			bySize.Sent[flow.Bin(a.size)]++
			f.LargestAnswered = max(f.LargestAnswered, int(a.size))
		}
	}
	if f.Examples = asked.String(); others && !asked.mixed && asked.n > 0 {
		f.Type = flow.DNSType(asked.qtype)
	}
	f.Names, f.ExpectedSize = len(names.Keys), int(stat.Median(expected))
	f.Elsewhere, f.ElsewhereAfter = min(len(elsewhere), f.Unanswered), stat.Median(elsewhere)
	// Names whose answers are large: split where the unanswered share changes most, as for segments.
	cut := measure.Cliff(&bySize)
	if cut == 0 {
		return most
	}
	f.LargestAnswered = 0
	for _, a := range st.answers {
		if a.at >= onset && flow.Bin(a.size) < cut {
			f.LargestAnswered = max(f.LargestAnswered, int(a.size))
		}
	}
	for i := cut; i < flow.Bins; i++ {
		f.BigUnanswered += int(bySize.Lost[i])
	}
	f.BigUnanswered = min(f.BigUnanswered, f.Unanswered) // A and AAAA are one
	return most
}

// examples are the questions that a finding names.
type examples struct {
	qtype uint16 // of the first
	mixed bool   // there are others
	n     int
	list  []example
}

type example struct {
	qtype uint16
	name  string
	n     int
}

// maxExamples is how many a finding names.
const maxExamples = 3

func (x *examples) add(qtype uint16, name string) {
	if x.n++; x.n == 1 {
		x.qtype = qtype
	}
	x.mixed = x.mixed || qtype != x.qtype
	if name == "" {
		return
	}
	i := slices.IndexFunc(x.list, func(e example) bool { return e.qtype == qtype && e.name == name })
	switch {
	case i >= 0:
		x.list[i].n++
	case len(x.list) < 4*maxExamples: // enough to find the most frequent ones of few names
		x.list = append(x.list, example{qtype, name, 1})
	}
}

// String names the most frequent ones.
func (x *examples) String() string {
	slices.SortStableFunc(x.list, func(a, b example) int { return cmp.Compare(b.n, a.n) })
	var out []string
	for _, e := range x.list[:min(maxExamples, len(x.list))] {
		out = append(out, flow.DNSType(e.qtype)+" "+e.name)
	}
	return strings.Join(out, ", ")
}
