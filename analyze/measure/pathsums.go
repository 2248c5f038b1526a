package detect

import (
	"maps"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// roll takes the window's counts of the paths, once, however many detectors call it.
func (ws *ways) roll(w *analyze.Window) {
	if ws.sealed == w.End {
		return
	}
	ws.sealed = w.End
	ws.local = w.Local
	w.Flows.Active(func(p *flow.Path) {
		b := w.Flows.Before(p)
		if b == nil {
			return
		}
		for i := range p.Side {
			k := way{from: p.Host(i), to: p.Host(1 - i)}
			for _, wide := range k.widen() {
				if st := ws.states[wide.scope].peek(wide); st != nil {
					st.cur.add(&p.Side[i], &b.Side[i], p.Conns-b.Conns, w.Local.Receives(k.to))
					st.exact(&p.Side[i])
				}
			}
		}
	})
	for s := range ws.states {
		ws.states[s].each(func(k way, st *wayState) bool { return st.roll(w, k) })
	}
	ws.speaking = ws.speak()
}

// add adds what a path has counted since b. What was seen on its way to this host was not lost on the path: it arrived. If it
// comes again, the host dropped it (a full accept queue), or its own ACK was lost, unless it arrived damaged.
func (t *traffic) add(ps, b *flow.PathSide, conns uint32, arrived bool) {
	now, then := ps.Bin(), b.Bin()
	for i := range now {
		x, y := &now[i], &then[i]
		missing := x.Missing - y.Missing
		t.sent[i] += x.Seen - y.Seen + missing
		t.lost[i] += missing
		again, damaged := x.Again-y.Again, x.Damaged-y.Damaged
		switch {
		case i == flow.Bare:
			t.resent += again // a SYN may have arrived and found a full listener
		case !arrived:
			t.lost[i] += again
		default:
			t.lost[i] += damaged
		}
		t.damaged += damaged
		t.late[i] += x.Late - y.Late
		if i > flow.Bare {
			t.blind[i] += x.Seen - y.Seen - min(x.Shown-y.Shown, x.Seen-y.Seen)
			t.alone[i] += x.Alone - y.Alone
		}
	}
	t.needless += ps.Spurious - b.Spurious
	t.copies += ps.Copies - b.Copies
	t.packets += ps.Packets - b.Packets
	t.after += ps.Retransmits - b.Retransmits
	t.before += ps.Lost - b.Lost
	t.conns += conns
	t.acked += ps.Acked - b.Acked
}

// past takes what the paths of the way have counted before this window, and since when they are there.
func (st *wayState) past(w *analyze.Window, k way) (first capture.Instant) {
	none := flow.PathSide{}
	take := func(p *flow.Path) {
		for i := range p.Side {
			pk := way{from: p.Host(i), to: p.Host(1 - i)}
			if !k.covers(pk) {
				continue
			}
			before, conns := &p.Side[i], p.Conns
			if b := w.Flows.Before(p); b != nil {
				before, conns = &b.Side[i], b.Conns
			}
			st.all.add(before, &none, conns, w.Local.Receives(pk.to))
			if first == 0 || p.First < first {
				first = p.First
			}
		}
	}
	if k.scope == onePair {
		if p := w.Flows.PathAt(st.index); p != nil {
			take(p)
		}
		return first
	}
	w.Flows.Paths(take)
	return first
}

// roll ends the window of one way. It reports whether the way is worth following.
func (st *wayState) roll(w *analyze.Window, k way) bool {
	first := !st.rolled
	if first {
		st.rolled, st.began = true, w.Start
		if at := st.past(w, k); at != 0 {
			st.began = at
			st.series.Precede(max(int(w.Start.Sub(at)/analyze.WindowLength), 0))
		}
		st.series.Old.Total = st.all.data().Total
	}
	cur := &st.cur
	if !w.Local.Is(k.from) { // else the sender itself stood still: its repetitions would be in the capture
		for i, n := range st.silent.lost {
			cur.sent[i] += n
			cur.lost[i] += n
		}
	}
	st.silent = sizes{}
	mark := w.Start
	if st.firstMark != 0 {
		mark = max(st.firstMark, w.Start.Add(-markPatience))
	}
	borrowed := st.borrow()
	now := cur.data()
	st.series.Borrow(borrowed)
	st.series.Add(now.Bad, now.Total-borrowed, mark)
	st.series.Roll()
	if now.Bad > 0 || w.End.Sub(st.firstMark) > markPatience {
		st.firstMark = 0
	}
	if st.n == stat.SeriesLen {
		copy(st.points[:], st.points[1:])
		copy(st.newConns[:], st.newConns[1:])
		copy(st.acked[:], st.acked[1:])
		st.n--
	}
	st.ring.Add(cur.sizes, stat.SeriesLen)
	st.points[st.n], st.newConns[st.n], st.acked[st.n] = now, cur.conns, cur.acked
	if first {
		st.newConns[st.n] = max(cur.conns, 1)
	}
	st.n++
	st.all.join(cur)
	st.cur = traffic{}
	if b := flow.Bin(st.hiddenMin); st.hiddenMin != 0 && (st.minLost[b] == 0 || uint32(st.minLost[b]) > st.hiddenMin) {
		st.minLost[b] = uint16(min(st.hiddenMin, 0xffff))
	}
	st.forgetSettled()
	idle := w.End.Sub(st.lastBad) > 10*time.Minute && st.series.Since.Bad == 0
	alone := k.scope != onePair && w.End.Sub(st.lastBad) > lonelyWide && st.troubledPeers(2) < 2
	return !idle && !alone
}

// borrow takes segments that were sent in earlier windows, and are known to be lost only now, into this one, so that no window has lost
// more than was sent. It returns how many of them carry data.
func (st *wayState) borrow() (data uint32) {
	for i := range st.cur.sent {
		need := st.cur.lost[i] - min(st.cur.lost[i], st.cur.sent[i])
		if need == 0 {
			continue
		}
		st.cur.sent[i] += need
		if i > flow.Bare {
			data += need
		}
		for j := st.n - 1; j >= 0 && need > 0; j-- {
			r := st.ring.Nth(j)
			k := min(need, r.sent[i]-min(r.lost[i], r.sent[i]))
			r.sent[i] -= k
			if i > flow.Bare {
				st.points[j].Total -= k
			}
			need -= k
		}
	}
	return data
}

// join adds o.
func (t *traffic) join(o *traffic) {
	t.sizes.add(&o.sizes)
	t.copies += o.copies
	t.packets += o.packets
	t.after += o.after
	t.damaged += o.damaged
	t.before += o.before
	t.conns += o.conns
	t.acked += o.acked
}

// exact takes the exact sizes of what was lost and what passed from a path.
func (st *wayState) exact(ps *flow.PathSide) {
	bins := ps.Bin()
	for c := range bins {
		b := &bins[c]
		if b.MinLost != 0 && (st.minLost[c] == 0 || b.MinLost < st.minLost[c]) {
			st.minLost[c] = b.MinLost
		}
		st.maxSeen[c] = max(st.maxSeen[c], b.MaxSeen)
	}
}

// forgetSettled makes room for connections to come, when there is little left: those whose losses were settled long ago go first.
func (st *wayState) forgetSettled() {
	for _, before := range [...]capture.Instant{st.series.Onset, st.lastBad} {
		if len(st.conns.m) < maxTroubled*3/4 {
			return
		}
		st.conns.each(func(_ uint32, t *troubled) bool { return t.at >= before || t.openAt != 0 || t.waiting > 0 })
	}
}

// markPatience is how long after its first sign a loss may be counted: a hole counts when it has
// been open for a second, at the end of a window.
const markPatience = 3 * time.Second

// recent sums the sizes since the loss was first counted.
func (st *wayState) recent() (sizes, int) { return st.sum(st.series.Windows()) }

// sinceOnset is how many of the newest windows hold the first sign of loss, too, which may be some windows earlier: a hole
// counts when it has been open for a while. They hold what went well before the first sign, too.
func (st *wayState) sinceOnset(now capture.Instant) int {
	span := st.series.Windows()
	if o := st.series.Onset; o != 0 {
		span = max(span, int((now.Sub(o)+analyze.WindowLength-1)/analyze.WindowLength))
	}
	return span
}

// sum adds up the newest windows.
func (st *wayState) sum(span int) (s sizes, conns int) {
	for i := st.n - min(span, st.n); i < st.n; i++ {
		s.add(st.ring.Nth(i))
		conns += int(st.newConns[i])
	}
	return s, conns
}

// unsure is what was sent and lost in the newest window, and in the oldest of so many: in that lies the onset.
func (st *wayState) unsure(span int) (s sizes) {
	if st.n == 0 {
		return s
	}
	s = *st.ring.Nth(st.n - 1)
	if span > 1 && span <= st.n {
		s.add(st.ring.Nth(st.n - span))
	}
	return s
}

// data sums up the segments with data in the newest windows.
func (st *wayState) data(span int) (p stat.Point) {
	for i := st.n - min(span, st.n); i < st.n; i++ {
		p.Bad += st.points[i].Bad
		p.Total += st.points[i].Total
	}
	return p
}

// flowStats sums up the connections that suffered since onset.
type flowStats struct {
	suffered
	mute      int                          // connections that nothing passes any more; only those are counted above on which something had got through after a loss
	muted     sizes                        // their segments, which nothing says that they depend on their size
	muteClass int                          // the smallest of them
	unsettled uint32                       // segments of the others, not sent again, whose acknowledgement has been due for longer than stall_age: nobody knows whether they arrived
	muteLarge int                          // connections of them on which all that is repeated is large
	muteEnds  map[[2]capture.Addr]struct{} // the pairs of hosts that have them
	dead      suffered
}

// suffered counts connections with losses, and keeps some as evidence.
type suffered struct {
	flows, stalled  int
	retries, failed uint32
	again           repeats
	repeat          int // connections that lost a segment twice and more
	passed          int // connections on which something that had been lost arrived in the end
	abandoned       int // connections on which nothing that is missing came again
	lacking         int // full segments that are missing on those
	arrived         int // full segments that arrived there at the time
	byReceiver      int // connections that the receiver of the direction had opened; the others its sender
	longest         time.Duration
	ends            map[[2]capture.Addr]struct{} // pairs of hosts
	evidence        []analyze.Evidence
}

func (f *suffered) add(k way, t *troubled, worst, stall time.Duration) {
	f.flows++
	f.retries += t.retries
	f.failed += t.failed
	f.again.merge(&t.again)
	if t.failed > 0 {
		f.repeat++
	}
	if k.byReceiver(t.client) {
		f.byReceiver++
	}
	if t.passed {
		f.passed++
	}
	if worst >= stall || t.tries >= 3 {
		f.stalled++
	}
	if (t.openAt != 0 || t.missing) && !t.passed && t.retries == 0 {
		f.abandoned++
		f.lacking += int(t.lacking)
		f.arrived += int(t.arrived)
	}
	f.longest = max(f.longest, worst)
	if f.ends == nil {
		f.ends = make(map[[2]capture.Addr]struct{})
	}
	f.ends[t.ends] = struct{}{}
	if len(f.evidence) < analyze.MaxEvidence {
		f.evidence = append(f.evidence, t.note.evidence())
	}
}

// merge adds other connections.
func (f *suffered) merge(g *suffered) {
	f.flows += g.flows
	f.stalled += g.stalled
	f.retries += g.retries
	f.failed += g.failed
	f.again.merge(&g.again)
	f.repeat += g.repeat
	f.passed += g.passed
	f.abandoned += g.abandoned
	f.lacking += g.lacking
	f.arrived += g.arrived
	f.byReceiver += g.byReceiver
	f.longest = max(f.longest, g.longest)
	if f.ends == nil {
		f.ends = g.ends
	} else {
		maps.Copy(f.ends, g.ends)
	}
	f.evidence = append(f.evidence, g.evidence[:min(len(g.evidence), analyze.MaxEvidence-len(f.evidence))]...)
}

func (st *wayState) flowStats(k way, since, now capture.Instant, stall time.Duration) (f flowStats) {
	for _, t := range st.conns.all {
		worst := t.worst
		if t.openAt != 0 {
			worst = max(worst, now.Sub(t.openAt))
		}
		if t.mute() && t.waitSince >= since {
			if f.muteEnds == nil {
				f.muteEnds = make(map[[2]capture.Addr]struct{})
			}
			f.mute++
			f.muteEnds[t.ends] = struct{}{}
			// After a time-out only the first of the flight is sent again: of the others nobody knows that they arrived.
			f.muted.sent[t.waitClass] += max(t.waiting, t.flying)
			f.muted.lost[t.waitClass] += t.waiting
			if t.waitClass >= flow.SmallBins {
				f.muteLarge++
			}
			if f.muteClass == 0 || t.waitClass < f.muteClass {
				f.muteClass = t.waitClass
			}
			if t.settled == 0 {
				f.dead.add(k, t, worst, stall)
				continue
			}
		}
		if t.at == 0 || t.at < since && (t.openAt == 0 || t.openAt < since) {
			continue
		}
		if t.waiting > 0 && t.overtaken && now.Sub(t.waitSince) >= stall {
			f.unsettled += t.flying - min(t.waiting, t.flying)
		}
		f.add(k, t, worst, stall)
	}
	return f
}

// opened is how many of the connections that suffered the subject's host had opened itself.
func (f *flowStats) opened(s analyze.Subject) int {
	if s.Direction == "inbound" {
		return f.byReceiver
	}
	return f.flows - f.byReceiver
}

// copyShare is the share of the packets of the way that were captured twice. One of each is judged, so they lower no claim.
func (t *traffic) copyShare() float64 { return stat.Ratio(t.copies, t.packets) }
