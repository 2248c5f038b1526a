package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// DNSErrors are the features of dns-errors.
type DNSErrors struct {
	Answered    int     `json:"answered"`
	Errors      int     `json:"errors"`
	Share       float64 `json:"share"`
	ShareBefore float64 `json:"share_before"`
	Baseline    float64 `json:"baseline"`
	ServFail    int     `json:"servfail"`
	Refused     int     `json:"refused"`
	FormErr     int     `json:"formerr"`
	NotImp      int     `json:"notimp"`
	NXDomain    int     `json:"nxdomain"`
	Names       int     `json:"names"`
	P95         float64 `json:"p95"`
}

// dnsErrors counts, per asking host and server, the answers that say that the server could not, or
// would not, answer.
type dnsErrors struct {
	states subjects[resolverKey, errorState]
	total  DNSErrors
}

type errorState struct {
	series series // bad: errors; total: answers
	notes  []errorAnswer
	nx     []capture.Instant
	lastAt capture.Instant
}

type errorAnswer struct {
	at       capture.Instant
	wait     time.Duration
	name     uint64
	rcode    uint8
	evidence analyze.Evidence
}

// Response codes (RFC 1035 §4.1.1) that count as errors. NXDOMAIN is an answer.
const (
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNotImp   = 4
	rcodeRefused  = 5
)

func newDNSErrors() analyze.Detector {
	return &dnsErrors{states: newSubjects[resolverKey, errorState](maxPerDetector)}
}

func (d *dnsErrors) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-errors", Features: DNSErrors{}, Events: flow.Of(flow.DNSAnswer, flow.DNSLate)}
}

func (d *dnsErrors) Event(e *flow.Event) {
	q := e.DNS
	if q == nil || e.Flag {
		return
	}
	st := d.states.get(resolverOf(q))
	if st == nil {
		return
	}
	st.lastAt = max(st.lastAt, e.At)
	d.total.Answered++
	bad := uint32(0)
	switch q.Rcode {
	case rcodeNameError:
		st.nx = appendBounded(st.nx, e.At, maxDNSNotes)
		d.total.NXDomain++
	case rcodeFormErr, rcodeServFail, rcodeNotImp, rcodeRefused:
		bad = 1
		d.total.Errors++
		n := errorAnswer{at: q.First, wait: e.Dur, name: q.NameHash, rcode: q.Rcode, evidence: analyze.Evidence{
			At: e.At, Flow: q.Client.String() + " > " + q.Server.String(), Note: rcodeName(q.Rcode)}}
		if e.Frame != 0 {
			n.evidence.Frames = []uint64{e.Frame}
		}
		st.notes = appendBounded(st.notes, n, maxDNSNotes)
	}
	st.series.add(bad, 1, q.First)
}

func rcodeName(c uint8) string {
	switch c {
	case rcodeFormErr:
		return "FORMERR"
	case rcodeServFail:
		return "SERVFAIL"
	case rcodeNotImp:
		return "NOTIMP"
	}
	return "REFUSED"
}

func (d *dnsErrors) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.states.each(func(k resolverKey, st *errorState) bool {
		st.series.roll()
		s := &st.series
		if s.since.bad == 0 {
			return w.End.Sub(st.lastAt) < idleState
		}
		f := DNSErrors{Answered: int(s.since.total), Errors: int(s.since.bad), Share: s.since.share(),
			ShareBefore: s.before.share(), Baseline: s.beforeSpan, NXDomain: countSince(st.nx, s.onset)}
		names := newSubjects[uint64, struct{}](maxDNSNotes)
		var waits []float64
		var evidence []analyze.Evidence
		for i := range st.notes {
			n := &st.notes[i]
			if n.at < s.onset {
				continue
			}
			switch n.rcode {
			case rcodeFormErr:
				f.FormErr++
			case rcodeServFail:
				f.ServFail++
			case rcodeNotImp:
				f.NotImp++
			case rcodeRefused:
				f.Refused++
			}
			names.get(n.name)
			waits = append(waits, n.wait.Seconds())
			if len(evidence) < analyze.MaxEvidence {
				evidence = append(evidence, n.evidence)
			}
		}
		f.Names, f.P95 = len(names.keys), quantile(waits, 0.95)
		emit(analyze.Symptom{Subject: k.subject(), Onset: s.onset, Features: f, Evidence: evidence})
		return true
	})
}

func (d *dnsErrors) Assess(*analyze.Window) analyze.Assessment {
	f := d.total
	f.Share = ratio(f.Errors, f.Answered)
	return analyze.Assessment{Assessable: f.Answered > 0, Features: f}
}
