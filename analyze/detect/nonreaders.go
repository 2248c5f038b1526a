package detect

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// unserved are the requests that came since a service last began an answer.
type unserved struct {
	requests int
	first    capture.Instant
	since    int             // answers begun since another connection of a client was found to be closed for long
	shut     capture.Instant // a client's window was last found closed
}

// nonReaders are the clients of one service that do not read, as one: the workers that wait for them are the same.
type nonReaders struct {
	f             SlowReceiver
	onset, last   capture.Instant
	since, before stallTime
	evidence      []analyze.Evidence
	itself        bool // the service itself does not read
}

func (x *nonReaders) add(st *receiverState, f SlowReceiver, evidence []analyze.Evidence) {
	if x.f.Flows == 0 || st.onset < x.onset {
		x.onset = st.onset
	}
	x.f.Class, x.last = "clients", max(x.last, st.lastBad)
	x.f.Clients += f.Clients
	x.f.Flows += f.Flows
	x.f.FlowsTotal += f.FlowsTotal
	x.f.ZeroWindows += f.ZeroWindows
	x.f.Longest, x.f.Baseline = max(x.f.Longest, f.Longest), max(x.f.Baseline, f.Baseline)
	x.since.add(stallTime{time.Duration(f.Closed * float64(time.Second)), st.life})
	x.before.add(st.before)
	if n := analyze.MaxEvidence - len(x.evidence); n > 0 {
		x.evidence = append(x.evidence, evidence[:min(n, len(evidence))]...)
	}
}

func (x *nonReaders) features(w *analyze.Window, u *unserved) SlowReceiver {
	f := x.f
	f.Closed, f.ClosedShare, f.ShareBefore = x.since.closed.Seconds(), x.since.share(), x.before.share()
	if u.requests > 0 {
		f.Unserved, f.UnservedFor, f.ServedSince = u.requests, w.End.Sub(u.first).Seconds(), u.since
	}
	return f
}
