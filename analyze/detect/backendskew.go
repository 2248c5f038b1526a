package detect

import (
	"math"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// BackendSkew are the features of backend-skew.
type BackendSkew struct {
	Members      int     `json:"members"`
	Connections  int     `json:"connections"`
	Busiest      string  `json:"busiest"`
	BusiestShare float64 `json:"busiest_share"`
	Idlest       string  `json:"idlest"`
	IdlestShare  float64 `json:"idlest_share"`
	Ratio        float64 `json:"ratio"`
	RatioBefore  float64 `json:"ratio_before"`
	PValue       float64 `json:"p_value"`
	Before       int     `json:"before"`
	Failed       int     `json:"failed"`
	FailedShare  float64 `json:"failed_share"`
	FailedMember string  `json:"failed_member"`
	FailedOthers float64 `json:"failed_others"`
	Lasting      float64 `json:"lasting"`
	Baseline     float64 `json:"baseline"`
}

// backendSkew looks for groups of servers that a caller uses alike, and for the one that is not like
// the others: it fails or is slow, or gets far more or far fewer connections than its part.
//
// Servers on one port are a group only if the caller was seen to share its connections evenly
// among them. Whoever calls several servers for different things does not.
type backendSkew struct {
	callers  callers
	requests requests
	groups   subjects[groupKey, memberGroup]
	best     BackendSkew
}

type groupKey struct {
	client capture.Addr
	port   uint16
}

type memberGroup struct {
	members subjects[capture.Addr, member]
	lastAt  capture.Instant
}

// member is one server of a group. Its series are aligned with those of the others.
type member struct {
	share  series // bad: connection requests to it; total: to the group
	calls  series // bad: failed, slow or given up; total: calls with an outcome
	spells stretch
	total  uint32
	note   analyze.Evidence // first bad call since the calls were well
	newest analyze.Evidence // connection
	curReq uint32
	curAt  capture.Instant // first request of this window
}

const (
	// maxMembers bounds a group; who calls more servers on one port has no pool but the Internet.
	maxMembers = 32
	maxGroups  = 128
	// evenRatio is up to which ratio of busiest to mean a spread counts as even: random choice
	// of 20 connections per member stays below it (standard deviation 22 %).
	evenRatio = 1.5
	// minBadCalls: fewer bad calls do not make a bad member.
	minBadCalls = 5
	// evenPer is how many connections per member tell that.
	evenPer = 20
)

func newBackendSkew() analyze.Detector {
	d := &backendSkew{callers: newCallers(), groups: newSubjects[groupKey, memberGroup](maxGroups)}
	d.requests = newRequests(d.outcome)
	return d
}

func (d *backendSkew) Spec() analyze.Spec {
	return analyze.Spec{Rule: "backend-skew", Features: BackendSkew{},
		Events: requestEvents | flow.Of(flow.Response, flow.Abandoned)}
}

func (d *backendSkew) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	if e.Kind == flow.SynAckSent || e.Kind == flow.Response {
		d.callers.serving(c.Server.Addr)
	}
	if !d.callers.may(c.Client.Addr, c.Server.Addr) {
		return
	}
	d.requests.event(e)
	k := callKey{c.Client.Addr, c.Server}
	switch e.Kind {
	case flow.SynSent:
		if m := d.member(k); m != nil {
			if m.curReq++; m.curReq == 1 {
				m.curAt = e.At
			}
			m.newest = callEvidence(e, "new connection")
			d.groups.peek(groupKey{k.client, k.server.Port}).lastAt = e.At
		}
	case flow.Response:
		if m := d.member(k); m != nil {
			m.add(e.Dur >= slowAnswer, e, "slow answer")
		}
	case flow.Abandoned:
		if m := d.member(k); m != nil && (e.Dur >= flow.GiveUp || e.Flag) {
			m.add(true, e, "given up")
		}
	}
}

func callEvidence(e *flow.Event, note string) analyze.Evidence {
	v := analyze.Evidence{At: e.At, Flow: e.Conn.String(), Note: note}
	if e.Frame != 0 {
		v.Frames = []uint64{e.Frame}
	}
	return v
}

func (m *member) add(bad bool, e *flow.Event, note string) {
	if !bad {
		m.calls.add(0, 1, 0)
		m.spells.good()
		return
	}
	m.calls.add(1, 1, e.At.Add(-e.Dur))
	m.spells.bad(e.At.Add(-e.Dur))
	if m.note.At == 0 {
		m.note = callEvidence(e, note)
	}
}

func (d *backendSkew) member(k callKey) *member {
	g := d.groups.get(groupKey{k.client, k.server.Port})
	if g == nil {
		return nil
	}
	if g.members.m == nil {
		g.members = newSubjects[capture.Addr, member](maxMembers)
	}
	return g.members.get(k.server.Addr)
}

func (d *backendSkew) outcome(_ *flow.Conn, o outcome, a *attempt, e *flow.Event) {
	k := a.key
	if o != refused && o != ignored {
		return
	}
	m := d.member(k)
	if m == nil {
		return
	}
	m.calls.add(1, 1, a.at)
	m.spells.bad(a.at)
	if m.note.At == 0 {
		frame := uint64(0)
		if e != nil {
			frame = e.Frame
		}
		m.note = a.evidence(frame, "failed")
	}
}

func (d *backendSkew) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.callers.judge(w)
	d.requests.judge(w)
	d.groups.each(func(k groupKey, g *memberGroup) bool {
		if g.members.m == nil || w.End.Sub(g.lastAt) > idleState {
			return false
		}
		var all uint32
		for _, a := range g.members.keys {
			all += g.members.m[a].curReq
		}
		for _, a := range g.members.keys {
			m := g.members.m[a]
			m.share.add(m.curReq, all, m.curAt)
			m.total += m.curReq
			m.curReq = 0
			m.share.roll()
			m.calls.roll()
			m.spells.roll()
			if m.calls.since.bad == 0 {
				m.note = analyze.Evidence{}
			}
		}
		if len(g.members.keys) < 2 || g.members.refused > 0 || !d.callers.is(k.client, g.members.keys[0]) {
			return true
		}
		s := analyze.Subject{Kind: analyze.SubjectHost, Host: k.client.String(), Port: k.port}
		f, onset, evidence := g.measure()
		if f.Connections > d.best.Connections {
			d.best = f
		}
		if onset != 0 {
			emit(analyze.Symptom{Subject: s, Onset: onset, Features: f, Evidence: evidence})
		}
		return true
	})
}

// measure looks for a failing member first, then for a shift of the shares.
func (g *memberGroup) measure() (f BackendSkew, onset capture.Instant, evidence []analyze.Evidence) {
	n := len(g.members.keys)
	windows := seriesLen
	var worst, risen *member
	for _, a := range g.members.keys {
		m := g.members.m[a]
		if m.calls.since.bad >= minBadCalls && (worst == nil || m.calls.since.bad > worst.calls.since.bad) {
			worst = m
			f.FailedMember = a.String()
		}
		if m.share.locked && (risen == nil || m.share.since.share() > risen.share.since.share()) {
			risen = m
		}
	}
	if worst != nil {
		onset = worst.calls.onset
		f.Failed, f.FailedShare, f.Baseline = int(worst.calls.since.bad), worst.calls.since.share(), worst.calls.beforeSpan
		f.Lasting = worst.spells.longest(onset).Seconds()
		var others point
		windows = worst.calls.windows()
		for _, a := range g.members.keys {
			if m := g.members.m[a]; m != worst {
				for i := max(m.calls.n-windows, 0); i < m.calls.n; i++ {
					others.bad += m.calls.ring[i].bad
					others.total += m.calls.ring[i].total
				}
			}
		}
		f.FailedOthers = others.share()
		evidence = append(evidence, worst.note)
	} else if risen != nil {
		onset, windows, f.Baseline = risen.share.onset, risen.share.windows(), risen.share.beforeSpan
		evidence = append(evidence, risen.newest)
	}
	f.Members = n
	since := make([]uint32, n)
	var all, before, most, mostBefore uint32
	least := uint32(math.MaxUint32)
	for i, a := range g.members.keys {
		m := g.members.m[a]
		for j := max(m.share.n-windows, 0); j < m.share.n; j++ {
			since[i] += m.share.ring[j].bad
		}
		earlier := m.total - since[i]
		all += since[i]
		before += earlier
		mostBefore = max(mostBefore, earlier)
		if since[i] > most || f.Busiest == "" {
			most, f.Busiest = since[i], a.String()
		}
		if since[i] < least {
			least, f.Idlest = since[i], a.String()
		}
	}
	f.Connections, f.Before = int(all), int(before)
	f.BusiestShare, f.IdlestShare = ratio(most, all), ratio(least, all)
	f.Ratio = f.BusiestShare * float64(n)
	f.RatioBefore = ratio(mostBefore, before) * float64(n)
	f.PValue = evenSpread(since)
	// Before the onset, or, when a member has failed all along, in all: evenly shared?
	even := f.RatioBefore
	if before < uint32(evenPer*n) {
		if before+all < uint32(evenPer*n) || worst == nil {
			return f, 0, nil
		}
		even = f.Ratio
	}
	if even > evenRatio {
		return f, 0, nil
	}
	return f, onset, evidence
}

func (d *backendSkew) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.best.Members >= 2 && d.best.Connections >= w.Params.Int("min_connections"), Features: d.best}
}
