package detect

import (
	"slices"

	"jindan/analyze"
	"jindan/analyze/flow"
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
	s := &st.series
	for i := range st.bins {
		b := &st.bins[i]
		switch {
		case b.rolled && b.point != point{}: // a lookup of many tries, decided late
			s.add(b.bad, b.total, b.first)
			b.point = point{}
		case !b.rolled && now.Sub(b.start) >= dnsSettled:
			s.add(b.bad, b.total, b.first)
			b.point, b.rolled = point{}, true
		}
	}
	if st.began == 0 && len(st.bins) > 0 {
		st.began = st.bins[0].start
	}
	if st.began != 0 && now.Sub(st.began) >= dnsSettled {
		s.roll() // the series runs behind by dnsSettled
	}
	for len(st.bins) > 0 && now.Sub(st.bins[0].start) > seriesLen*analyze.WindowLength {
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
			late += int(b.late)
		}
	}
	// What was answered after all, but too late to wait for, is dns-delay's.
	late = min(late, f.Unanswered)
	f.Unanswered -= late
	f.Answered = f.Queries - f.Unanswered
	f.Share = ratio(f.Unanswered, f.Queries)
	var bySize sizes
	var expected, elsewhere []float64
	names := newSubjects[uint64, struct{}](maxDNSNotes)
	for i := range st.notes {
		q := &st.notes[i]
		if q.at < onset {
			continue
		}
		names.get(q.name)
		f.Tries += q.tries
		most = max(most, q.tries)
		if q.elsewhere > 0 {
			elsewhere = append(elsewhere, q.elsewhere.Seconds())
		}
		if q.expected > 0 {
			expected = append(expected, float64(q.expected))
			bySize.sent[flow.Bin(q.expected)]++
			bySize.lost[flow.Bin(q.expected)]++
		}
	}
	for _, a := range st.answers {
		if a.at >= onset {
			bySize.sent[flow.Bin(a.size)]++
			f.LargestAnswered = max(f.LargestAnswered, int(a.size))
		}
	}
	f.Names, f.ExpectedSize = len(names.keys), int(median(expected))
	f.Elsewhere, f.ElsewhereAfter = len(elsewhere), median(elsewhere)
	// Names whose answers are large: split where the unanswered share changes most, as for segments.
	cut := cliff(&bySize)
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
		f.BigUnanswered += int(bySize.lost[i])
	}
	return most
}
