package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
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
	NamesOK     int     `json:"names_ok"`
	Half        int     `json:"half"`
	P95         float64 `json:"p95"`
	Examples    string  `json:"examples"`
}

// dnsErrors counts, per asking host and server, the answers that say that the server could not, or
// would not, answer.
type dnsErrors struct {
	states measure.Resolvers[errorState]
	gone   stat.Worst // of the states that were dropped
	nx     int        // answers NXDOMAIN, of all
}

type errorState struct {
	measure.Tally // of answers; bad: errors
	notes         []errorAnswer
	nx            []capture.Instant
	good          []goodAnswer             // newest answers without error
	codes         [rcodeRefused + 1]uint32 // errors by code since the onset, while there is a change; else all
	since         capture.Instant          // that onset
}

type errorAnswer struct {
	at       capture.Instant
	wait     time.Duration
	name     uint64
	rcode    uint8
	qtype    uint16
	record   uint64 // for the name, until it is known
	text     string // the name
	evidence analyze.Evidence
}

type goodAnswer struct {
	at      capture.Instant
	name    uint64
	address bool // an IPv4 address was given
}

// Response codes (RFC 1035 §4.1.1) that count as errors. NXDOMAIN is an answer.
const (
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNotImp   = 4
	rcodeRefused  = 5
)

// dnsTypeA asks for an IPv4 address (RFC 1035 §3.2.2).
const dnsTypeA = 1

func newDNSErrors() analyze.Detector {
	return &dnsErrors{states: measure.NewResolvers[errorState]()}
}

func (d *dnsErrors) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dns-errors", Features: DNSErrors{}, Events: flow.Of(flow.DNSAnswer, flow.DNSLate)}
}

func (d *dnsErrors) Event(e *flow.Event) {
	q := e.DNS
	if q == nil || e.Rejected() {
		return
	}
	st := d.states.Get(q)
	if st == nil {
		return
	}
	st.LastAt = max(st.LastAt, e.At)
	st.Total++
	bad := uint32(0)
	switch q.Rcode {
	case rcodeNameError:
		st.nx = stat.AppendBounded(st.nx, e.At, maxDNSNotes)
		d.nx++
	case rcodeFormErr, rcodeServFail, rcodeNotImp, rcodeRefused:
		bad = 1
		st.Bad++
		st.codes[q.Rcode]++
		n := errorAnswer{at: q.First, wait: e.Dur, name: q.NameHash, rcode: q.Rcode, qtype: q.QType, record: q.Record, evidence: analyze.Evidence{
			At: e.At, Flow: q.Client.String() + " > " + q.Server.String(), Note: rcodeName(q.Rcode)}}
		if e.Frame != 0 {
			n.evidence.Frames = []uint64{e.Frame}
		}
		st.notes = stat.AppendBounded(st.notes, n, maxDNSNotes)
	}
	if bad == 0 {
		st.good = stat.AppendBounded(st.good, goodAnswer{q.First, q.NameHash, q.QType == dnsTypeA && q.Records > 0}, maxDNSNotes)
	}
	st.Series.Add(bad, 1, q.First)
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
	d.states.Each(func(k measure.ResolverKey, st *errorState) bool {
		st.Series.Roll()
		st.name(w)
		if quiet, keep := st.Quiet(w, &d.gone); quiet {
			return keep
		}
		s := &st.Series
		f := DNSErrors{Answered: int(s.Since.Total), Errors: int(s.Since.Bad), Share: s.Since.Share(),
			ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan, NXDomain: countSince(st.nx, s.Onset)}
		if s.Locked && s.Onset != st.since {
			st.since = s.Onset
			st.codes = [rcodeRefused + 1]uint32{}
			for i := range st.notes {
				if n := &st.notes[i]; n.at >= s.Onset {
					st.codes[n.rcode]++
				}
			}
		}
		f.FormErr, f.ServFail = int(st.codes[rcodeFormErr]), int(st.codes[rcodeServFail])
		f.NotImp, f.Refused = int(st.codes[rcodeNotImp]), int(st.codes[rcodeRefused])
		address := measure.NewSubjects[uint64, struct{}](maxDNSNotes)
		for _, g := range st.good {
			if g.at >= s.Onset && g.address {
				address.Get(g.name)
			}
		}
		names := measure.NewSubjects[uint64, struct{}](maxDNSNotes)
		kept, half := 0, 0
		var waits []float64
		var asked examples
		var evidence []analyze.Evidence
		for i := range st.notes {
			n := &st.notes[i]
			if n.at < s.Onset {
				continue
			}
			names.Get(n.name)
			if kept++; n.qtype != dnsTypeA && address.Peek(n.name) != nil {
				half++
			}
			asked.add(n.qtype, n.text)
			waits = append(waits, n.wait.Seconds())
			if len(evidence) < analyze.MaxEvidence {
				evidence = append(evidence, n.evidence)
			}
		}
		fine := measure.NewSubjects[uint64, struct{}](maxDNSNotes)
		for _, g := range st.good {
			if g.at >= s.Onset && names.Peek(g.name) == nil {
				fine.Get(g.name)
			}
		}
		f.NamesOK, f.Examples = len(fine.Keys), asked.String()
		if kept > 0 {
			f.Half = f.Errors * half / kept // of the newest, for all
		}
		f.Names, f.P95 = len(names.Keys), stat.Quantile(waits, 0.95)
		emit(analyze.Symptom{Subject: k.Subject(), Onset: s.Onset, Features: f, Evidence: evidence, LastTry: s.LastTry(w.End), Well: s.Well(w.End)})
		return true
	})
}

// name names the errors since the last window, while the table still knows.
func (st *errorState) name(w *analyze.Window) {
	for i := len(st.notes) - 1; i >= 0 && st.notes[i].record != named; i-- {
		n := &st.notes[i]
		if n.text = w.Flows.DNSNameOf(n.record, n.name); n.text != "" {
			n.evidence.Note = flow.DNSType(n.qtype) + " " + n.text + ": " + n.evidence.Note
		}
		n.record = named
	}
}

func (d *dnsErrors) Assess(*analyze.Window) analyze.Assessment {
	x := d.gone
	d.states.Each(func(_ measure.ResolverKey, st *errorState) bool {
		x.Add(st.Bad, st.Total)
		return true
	})
	f := DNSErrors{NXDomain: d.nx}
	f.Errors, f.Answered = x.Of()
	f.Share = stat.Ratio(f.Errors, f.Answered)
	return analyze.Assessment{Assessable: f.Answered > 0, Features: f}
}
