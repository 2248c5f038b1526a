package detect

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/points"
	"jindan/analyze/stat"
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
	*measure.Dials
	groups measure.Subjects[groupKey, memberGroup]
	fronts map[capture.Endpoint]capture.Endpoint // of a load balancer between two capture points, by its member
	best   BackendSkew
}

// groupKey is who shares its calls among servers: a caller, or a load balancer that others call and that passes their connections on, known by what
// it is called as.
type groupKey struct {
	client capture.Addr
	port   uint16
	front  bool
}

type memberGroup struct {
	members measure.Subjects[capture.Addr, member]
	lastAt  capture.Instant
}

// member is one server of a group. Its series are aligned with those of the others.
type member struct {
	share  stat.Series // bad: connection requests to it; total: to the group
	failed ill         // refused, ignored or given up
	slow   ill         // answered late: some calls are meant to take long, before and after others begin to fail
	total  uint32
	newest analyze.Evidence // connection
	curReq uint32
	curAt  capture.Instant // first request of this window
}

// ill are the calls of a member that went wrong in one way, among all with an outcome.
type ill struct {
	stat.Series
	spells stat.Runs
	note   analyze.Evidence // first of them since the calls were well
}

func (i *ill) good() {
	i.Add(0, 1, 0)
	i.spells.Good()
}

func (i *ill) bad(at capture.Instant, note analyze.Evidence) {
	i.Add(1, 1, at)
	i.spells.Bad(at)
	if i.note.At == 0 {
		i.note = note
	}
}

func (i *ill) roll() {
	i.Series.Roll()
	i.spells.Roll()
	if i.Since.Bad == 0 {
		i.note = analyze.Evidence{}
	}
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
	d := &backendSkew{groups: measure.NewSubjects[groupKey, memberGroup](maxGroups)}
	d.share(measure.NewDials())
	return d
}

// share makes d read x, which others may read, too.
func (d *backendSkew) share(x *measure.Dials) {
	d.Dials = x
	x.Requests.Tell(d.outcome, d.may, measure.Refused, measure.Ignored)
}

// Inform implements analyze.Informed: captures before and behind a load balancer show which servers it shares its clients' connections among.
func (d *backendSkew) Inform(p *points.Report) { d.fronts = p.Members }

// may reports whether an event is of a connection that somebody may have shared out.
func (d *backendSkew) may(e *flow.Event) bool {
	if d.fronts != nil && e.Conn != nil {
		if _, ok := d.fronts[e.Conn.Server]; ok {
			return true
		}
	}
	return d.Callers.MayEvent(e)
}

// sharer is who shares the calls of which k is one.
func (d *backendSkew) sharer(k measure.CallKey) groupKey {
	if f, ok := d.fronts[k.Server]; ok {
		return groupKey{f.Addr, f.Port, true}
	}
	return groupKey{k.Client, k.Server.Port, false}
}

func (d *backendSkew) Spec() analyze.Spec {
	return analyze.Spec{Rule: "backend-skew", Features: BackendSkew{},
		Events: flow.Of(flow.SynSent, flow.Response, flow.Abandoned)}
}

func (d *backendSkew) Event(e *flow.Event) {
	c := e.Conn
	if c == nil || !d.may(e) {
		return
	}
	k := measure.CallOf(c)
	switch e.Kind {
	case flow.SynSent:
		if m := d.member(k); m != nil {
			if m.curReq++; m.curReq == 1 {
				m.curAt = e.At
			}
			m.newest = callEvidence(e, "new connection")
			d.groups.Peek(d.sharer(k)).lastAt = e.At
		}
	case flow.Response:
		if m := d.member(k); m != nil {
			m.failed.good()
			if e.Dur < slowAnswer {
				m.slow.good()
			} else {
				m.slow.bad(e.At.Add(-e.Dur), callEvidence(e, "slow answer"))
			}
		}
	case flow.Abandoned:
		if m := d.member(k); m != nil && (e.Dur >= flow.GiveUp || e.ByReset()) {
			m.slow.good()
			m.failed.bad(e.At.Add(-e.Dur), callEvidence(e, "given up"))
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

func (d *backendSkew) member(k measure.CallKey) *member {
	g := d.groups.Get(d.sharer(k))
	if g == nil {
		return nil
	}
	if g.members.M == nil {
		g.members = measure.NewSubjects[capture.Addr, member](maxMembers)
	}
	return g.members.Get(k.Server.Addr)
}

func (d *backendSkew) outcome(_ *flow.Conn, _ measure.Outcome, a *measure.Attempt, e *flow.Event) {
	m := d.member(a.Key)
	if m == nil {
		return
	}
	frame := uint64(0)
	if e != nil {
		frame = e.Frame
	}
	m.slow.good()
	m.failed.bad(a.At, a.Evidence(frame, "failed"))
}

func (d *backendSkew) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	d.groups.Each(func(k groupKey, g *memberGroup) bool {
		if g.members.M == nil || w.End.Sub(g.lastAt) > measure.IdleState {
			return false
		}
		var all uint32
		for _, m := range g.members.All {
			all += m.curReq
		}
		for _, m := range g.members.All {
			m.share.Add(m.curReq, all, m.curAt)
			m.total += m.curReq
			m.curReq = 0
			m.share.Roll()
			m.failed.roll()
			m.slow.roll()
		}
		if len(g.members.Keys) < 2 || g.members.Refused > 0 || !k.front && !d.Callers.Is(k.client, g.members.Keys[0]) {
			return true
		}
		s := analyze.Subject{Kind: analyze.SubjectHost, Host: k.client.String(), Port: k.port}
		f, x := g.measure(w)
		if f.Connections > d.best.Connections {
			d.best = f
		}
		if x.Onset != 0 {
			x.Subject, x.Features = s, f
			emit(x)
		}
		return true
	})
}

// measure looks for a failing member first, then for a shift of the shares; x is the symptom, without onset if there is none.
func (g *memberGroup) measure(w *analyze.Window) (f BackendSkew, x analyze.Symptom) {
	var onset capture.Instant
	var evidence []analyze.Evidence
	n := len(g.members.Keys)
	windows := stat.SeriesLen
	var worst *ill
	var risen *member
	late := false // it is slow rather than failing
	for a, m := range g.members.All {
		for i, x := range [...]*ill{&m.failed, &m.slow} {
			if x.Since.Bad >= minBadCalls && (worst == nil || x.Since.Bad > worst.Since.Bad) {
				worst, late = x, i == 1
				f.FailedMember = a.String()
			}
		}
		if m.share.Locked && (risen == nil || m.share.Since.Share() > risen.share.Since.Share()) {
			risen = m
		}
	}
	if worst != nil {
		onset = worst.Onset
		f.Failed, f.FailedShare, f.Baseline = int(worst.Since.Bad), worst.Since.Share(), worst.BeforeSpan
		f.Lasting = worst.spells.Longest(onset).Seconds()
		var others stat.Point
		windows = worst.Windows()
		for _, m := range g.members.All {
			x := &m.failed
			if late {
				x = &m.slow
			}
			if x != worst {
				recent := x.Recent()
				for _, p := range recent[max(len(recent)-windows, 0):] {
					others.Bad += p.Bad
					others.Total += p.Total
				}
			}
		}
		f.FailedOthers = others.Share()
		evidence = append(evidence, worst.note)
		x.LastTry, x.Well = worst.LastTry(w.End), worst.Well(w.End) // of that member: the others are well all the time
	} else if risen != nil {
		onset, windows, f.Baseline = risen.share.Onset, risen.share.Windows(), risen.share.BeforeSpan
		evidence = append(evidence, risen.newest)
		x.LastTry = risen.share.LastTry(w.End)
	}
	f.Members = n
	since := make([]uint32, n)
	var all, before, most, mostBefore uint32
	least := uint32(math.MaxUint32)
	for i, a := range g.members.Keys {
		m := g.members.M[a]
		recent := m.share.Recent()
		for _, p := range recent[max(len(recent)-windows, 0):] {
			since[i] += p.Bad
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
	f.BusiestShare, f.IdlestShare = stat.Ratio(most, all), stat.Ratio(least, all)
	f.Ratio = f.BusiestShare * float64(n)
	f.RatioBefore = stat.Ratio(mostBefore, before) * float64(n)
	f.PValue = stat.EvenSpread(since)
	// Before the onset, or, when a member has failed all along, in all: evenly shared?
	even := f.RatioBefore
	if before < uint32(evenPer*n) {
		if before+all < uint32(evenPer*n) || worst == nil {
			return f, x
		}
		even = f.Ratio
	}
	if even > evenRatio {
		return f, x
	}
	x.Onset, x.Evidence = onset, evidence
	return f, x
}

func (d *backendSkew) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.best.Members >= 2 && d.best.Connections >= w.Params.Int("min_connections"), Features: d.best}
}

// slowAnswer divides answers that are called slow from others where no rule has a threshold for it: a third of the
// 3 s after which the clients of the rebuilt incident gave up.
const slowAnswer = time.Second
