package analyze

import (
	"jindan/capture"
	"jindan/rules"
)

// blind says why there are no packets; an empty why, that there may be some.
type blind struct {
	why   string
	since capture.Instant
	heard bool // there were some before
}

// blinded takes a marker of capture.ChangeCapture.
func (e *Engine) blinded(at capture.Instant, c *capture.Change) {
	if c.Detail == "" {
		e.blind = blind{}
		return
	}
	if e.blind.why == "" {
		e.blind.since, e.blind.heard = at, e.heard[0] != 0
	}
	e.blind.why = c.Detail
}

// names are those of i, as steps name them (rules.Inputs).
func (i Inputs) names() (names []string) {
	for bit, name := range []string{"packets", "sockets", "counters"} {
		if i.Has(1 << bit) {
			names = append(names, name)
		}
	}
	return names
}

// unseen takes back what v says without findings of a step that needs packets, for they cannot be seen any more. What was
// found stays found.
func (e *Engine) unseen(v *StepVerdict) {
	s := e.set.Step(v.Step)
	if s == nil || len(v.Findings) > 0 || !e.blind.lack(s, e.have()) {
		return
	}
	en, ko := "No packets", "패킷을 볼 수 없습니다"
	before := Text{}
	if e.blind.heard {
		since := e.clock.stated(e.blind.since).Time().Format("2006-01-02 15:04:05 UTC")
		en, ko = en+" since "+since, since+"부터 "+ko
		if v.Verdict == RuledOut {
			before = Text{En: "Until then: ", Ko: "그때까지: "}
		}
	}
	v.Verdict = NotAssessable
	v.Reason = Text{En: en + ": " + e.blind.why + ". " + before.En + v.Reason.En, Ko: ko + ": " + e.blind.why + ". " + before.Ko + v.Reason.Ko}
}

// lack reports whether s needs packets, while no other input stands in for them.
func (b *blind) lack(s *rules.Step, have Inputs) bool {
	return b.why != "" && len(s.Missing(have.names()...)) > len(s.Missing(append(have.names(), "packets")...))
}
