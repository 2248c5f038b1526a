package measure

import (
	"maps"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Roll takes the window's counts of the paths, once, however many detectors call it.
func (ws *Ways) Roll(w *analyze.Window) {
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
			k := Way{From: p.Host(i), To: p.Host(1 - i)}
			for _, wide := range k.widen() {
				if st := ws.states[wide.Scope].Peek(wide); st != nil {
					st.cur.Add(&p.Side[i], &b.Side[i], p.Conns-b.Conns, w.Local.Receives(k.To))
					st.exact(&p.Side[i])
				}
			}
		}
	})
	for s := range ws.states {
		ws.states[s].Each(func(k Way, st *wayState) bool { return st.roll(w, k) })
	}
	ws.Speaking = ws.speak(w)
}

// Add adds what a path has counted since b. What was seen on its way to this host was not lost on the path: it arrived. If it
// comes again, the host dropped it (a full accept queue), or its own ACK was lost, unless it arrived damaged.
func (t *Traffic) Add(ps, b *flow.PathSide, conns uint32, arrived bool) {
	now, then := ps.Bin(), b.Bin()
	for i := range now {
		x, y := &now[i], &then[i]
		missing := x.Missing - y.Missing
		t.Sent[i] += x.Seen - y.Seen + missing
		t.Lost[i] += missing
		again, damaged := x.Again-y.Again, x.Damaged-y.Damaged
		switch {
		case i == flow.Bare:
			t.resent += again // a SYN may have arrived and found a full listener
		case !arrived:
			t.Lost[i] += again
		default:
			t.Lost[i] += damaged
		}
		t.Damaged += damaged
		t.late[i] += x.Late - y.Late
		if i > flow.Bare {
			t.blind[i] += x.Seen - y.Seen - min(x.Shown-y.Shown, x.Seen-y.Seen)
			t.Alone[i] += x.Alone - y.Alone
			t.unsure[i] += x.Unsure - y.Unsure
		}
	}
	t.Needless += ps.Spurious - b.Spurious
	t.copies += ps.Copies - b.Copies
	t.packets += ps.Packets - b.Packets
	t.After += ps.Retransmits - b.Retransmits
	t.Before += ps.Lost - b.Lost
	t.overtaken += ps.Overtaken - b.Overtaken
	t.conns += conns
	t.acked += ps.Acked - b.Acked
}

// past takes what the paths of the way have counted before this window, and since when they are there.
func (st *wayState) past(w *analyze.Window, k Way) (first capture.Instant) {
	none := flow.PathSide{}
	take := func(p *flow.Path) {
		for i := range p.Side {
			pk := Way{From: p.Host(i), To: p.Host(1 - i)}
			if !k.covers(pk) {
				continue
			}
			before, conns := &p.Side[i], p.Conns
			if b := w.Flows.Before(p); b != nil {
				before, conns = &b.Side[i], b.Conns
			}
			st.All.Add(before, &none, conns, w.Local.Receives(pk.To))
			if first == 0 || p.First < first {
				first = p.First
			}
		}
	}
	if k.Scope == OnePair {
		if p := w.Flows.PathAt(st.index); p != nil {
			take(p)
		}
		return first
	}
	w.Flows.Paths(take)
	return first
}

// roll ends the window of one way. It reports whether the way is worth following.
func (st *wayState) roll(w *analyze.Window, k Way) bool {
	first := !st.rolled
	if first {
		st.rolled, st.began = true, w.Start
		if at := st.past(w, k); at != 0 {
			st.began = at
			st.Series.Precede(max(int(w.Start.Sub(at)/analyze.WindowLength), 0))
		}
		st.Series.Old.Total = st.All.Data().Total
	}
	cur := &st.cur
	if !w.Local.Is(k.From) { // else the sender itself stood still: its repetitions would be in the capture
		for i, n := range st.silent.Lost {
			cur.Sent[i] += n
			cur.Lost[i] += n
		}
	}
	st.silent = Sizes{}
	mark := w.Start
	if st.firstMark != 0 {
		mark = max(st.firstMark, w.Start.Add(-markPatience))
	}
	borrowed := st.borrow()
	now := cur.Data()
	st.Series.Borrow(borrowed)
	st.Series.Add(now.Bad, now.Total-borrowed, mark)
	st.Series.Roll()
	if now.Bad > 0 || w.End.Sub(st.firstMark) > markPatience {
		st.firstMark = 0
	}
	if st.n == stat.SeriesLen {
		copy(st.points[:], st.points[1:])
		copy(st.newConns[:], st.newConns[1:])
		copy(st.acked[:], st.acked[1:])
		st.n--
	}
	st.ring.Add(cur.Sizes, stat.SeriesLen)
	st.points[st.n], st.newConns[st.n], st.acked[st.n] = now, cur.conns, cur.acked
	if first {
		st.newConns[st.n] = max(cur.conns, 1)
	}
	st.n++
	st.All.join(cur)
	st.cur = Traffic{}
	if b := flow.Bin(st.hiddenMin); st.hiddenMin != 0 && (st.MinLost[b] == 0 || uint32(st.MinLost[b]) > st.hiddenMin) {
		st.MinLost[b] = uint16(min(st.hiddenMin, 0xffff))
	}
	st.forgetSettled()
	idle := w.End.Sub(st.lastBad) > IdleState && st.Series.Since.Bad == 0
	alone := k.Scope != OnePair && w.End.Sub(st.lastBad) > lonelyWide && st.troubledPeers(2) < 2
	return !idle && !alone
}

// borrow takes segments that were sent in earlier windows, and are known to be lost only now, into this one, so that no window has lost
// more than was sent. It returns how many of them carry data.
func (st *wayState) borrow() (data uint32) {
	for i := range st.cur.Sent {
		need := st.cur.Lost[i] - min(st.cur.Lost[i], st.cur.Sent[i])
		if need == 0 {
			continue
		}
		st.cur.Sent[i] += need
		if i > flow.Bare {
			data += need
		}
		for j := st.n - 1; j >= 0 && need > 0; j-- {
			r := st.ring.Nth(j)
			k := min(need, r.Sent[i]-min(r.Lost[i], r.Sent[i]))
			r.Sent[i] -= k
			if i > flow.Bare {
				st.points[j].Total -= k
			}
			need -= k
		}
	}
	return data
}

// Unneeded is how many of the segments that count as lost were not: the receiver of what was seen here says so by D-SACK (RFC 2883), or they
// came after all, later than what was sent in their place.
func (t *Traffic) Unneeded() uint32 {
	return max(t.overtaken, min(t.Needless, t.After+t.overtaken))
}

// join adds o.
func (t *Traffic) join(o *Traffic) {
	t.Sizes.Add(&o.Sizes)
	t.copies += o.copies
	t.packets += o.packets
	t.After += o.After
	t.Damaged += o.Damaged
	t.Before += o.Before
	t.overtaken += o.overtaken
	t.conns += o.conns
	t.acked += o.acked
}

// exact takes the exact sizes of what was lost and what passed from a path.
func (st *wayState) exact(ps *flow.PathSide) {
	bins := ps.Bin()
	for c := range bins {
		b := &bins[c]
		if b.MinLost != 0 && (st.MinLost[c] == 0 || b.MinLost < st.MinLost[c]) {
			st.MinLost[c] = b.MinLost
		}
		st.MaxSeen[c] = max(st.MaxSeen[c], b.MaxSeen)
	}
}

// forgetSettled makes room for connections to come, when there is little left: those whose losses were settled long ago go first.
func (st *wayState) forgetSettled() {
	for _, before := range [...]capture.Instant{st.Series.Onset, st.lastBad} {
		if len(st.conns.M) < MaxTroubled*3/4 {
			return
		}
		st.conns.Each(func(_ uint32, t *troubled) bool { return t.at >= before || t.openAt != 0 || t.waiting > 0 })
	}
}

// markPatience is how long after its first sign a loss may be counted: a hole counts when it has
// been open for a second, at the end of a window.
const markPatience = 3 * time.Second

// Recent sums the sizes since the loss was first counted.
func (st *wayState) Recent() (Sizes, int) { return st.Sum(st.Series.Windows()) }

// SinceOnset is how many of the newest windows hold the first sign of loss, too, which may be some windows earlier: a hole
// counts when it has been open for a while. They hold what went well before the first sign, too.
func (st *wayState) SinceOnset(now capture.Instant) int {
	span := st.Series.Windows()
	if o := st.Series.Onset; o != 0 {
		span = max(span, int((now.Sub(o)+analyze.WindowLength-1)/analyze.WindowLength))
	}
	return span
}

// Sum adds up the newest windows.
func (st *wayState) Sum(span int) (s Sizes, conns int) {
	for i := st.n - min(span, st.n); i < st.n; i++ {
		s.Add(st.ring.Nth(i))
		conns += int(st.newConns[i])
	}
	return s, conns
}

// unsure is what was sent and lost in the newest window, and in the oldest of so many: in that lies the onset.
func (st *wayState) unsure(span int) (s Sizes) {
	s = *st.ring.Nth(st.n - 1)
	if span > 1 && span <= st.n {
		s.Add(st.ring.Nth(st.n - span))
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
	Mute      int                          // connections that nothing passes any more; only those are counted above on which something had got through after a loss
	Muted     Sizes                        // their segments, which nothing says that they depend on their size
	muteClass int                          // the smallest of them
	Unsettled uint32                       // segments of the others, not sent again, whose acknowledgement has been due for longer than stall_age: nobody knows whether they arrived
	MuteLarge int                          // connections of them on which all that is repeated is large
	muteEnds  map[[2]capture.Addr]struct{} // the pairs of hosts that have them
	dead      suffered
}

// suffered counts connections with losses, and keeps some as evidence.
type suffered struct {
	Flows, Stalled  int
	Retries, Failed uint32
	Again           repeats
	Repeat          int // connections that lost a segment twice and more
	Passed          int // connections on which something that had been lost arrived in the end
	Abandoned       int // connections on which nothing that is missing came again
	Lacking         int // full segments that are missing on those
	Arrived         int // full segments that arrived there at the time
	byReceiver      int // connections that the receiver of the direction had opened; the others its sender
	Longest         time.Duration
	Ends            map[[2]capture.Addr]struct{} // pairs of hosts
	Evidence        []analyze.Evidence
}

func (f *suffered) add(k Way, t *troubled, worst, stall time.Duration) {
	f.Flows++
	f.Retries += t.retries
	f.Failed += t.failed
	f.Again.merge(&t.again)
	if t.failed > 0 {
		f.Repeat++
	}
	if k.byReceiver(t.client) {
		f.byReceiver++
	}
	if t.passed {
		f.Passed++
	}
	if worst >= stall || t.tries >= 3 {
		f.Stalled++
	}
	if (t.openAt != 0 || t.missing) && !t.passed && t.retries == 0 {
		f.Abandoned++
		f.Lacking += int(t.lacking)
		f.Arrived += int(t.arrived)
	}
	f.Longest = max(f.Longest, worst)
	if f.Ends == nil {
		f.Ends = make(map[[2]capture.Addr]struct{})
	}
	f.Ends[t.ends] = struct{}{}
	if len(f.Evidence) < analyze.MaxEvidence {
		f.Evidence = append(f.Evidence, t.note.Evidence())
	}
}

// merge adds other connections.
func (f *suffered) merge(g *suffered) {
	f.Flows += g.Flows
	f.Stalled += g.Stalled
	f.Retries += g.Retries
	f.Failed += g.Failed
	f.Again.merge(&g.Again)
	f.Repeat += g.Repeat
	f.Passed += g.Passed
	f.Abandoned += g.Abandoned
	f.Lacking += g.Lacking
	f.Arrived += g.Arrived
	f.byReceiver += g.byReceiver
	f.Longest = max(f.Longest, g.Longest)
	if f.Ends == nil {
		f.Ends = g.Ends
	} else {
		maps.Copy(f.Ends, g.Ends)
	}
	f.Evidence = append(f.Evidence, g.Evidence[:min(len(g.Evidence), analyze.MaxEvidence-len(f.Evidence))]...)
}

func (st *wayState) FlowStats(k Way, since, now capture.Instant, stall time.Duration) (f flowStats) {
	for _, t := range st.conns.All {
		worst := t.worst
		if t.openAt != 0 {
			worst = max(worst, now.Sub(t.openAt))
		}
		if t.mute() && t.waitSince >= since {
			if f.muteEnds == nil {
				f.muteEnds = make(map[[2]capture.Addr]struct{})
			}
			f.Mute++
			f.muteEnds[t.ends] = struct{}{}
			// After a time-out only the first of the flight is sent again: of the others nobody knows that they arrived.
			f.Muted.Sent[t.waitClass] += max(t.waiting, t.flying)
			f.Muted.Lost[t.waitClass] += t.waiting
			if t.waitClass >= flow.SmallBins {
				f.MuteLarge++
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
			f.Unsettled += t.flying - min(t.waiting, t.flying)
		}
		f.add(k, t, worst, stall)
	}
	return f
}

// Opened is how many of the connections that suffered the subject's host had opened itself.
func (f *flowStats) Opened(s analyze.Subject) int {
	if s.Direction == "inbound" {
		return f.byReceiver
	}
	return f.Flows - f.byReceiver
}

// CopyShare is the share of the packets of the way that were captured twice. One of each is judged, so they lower no claim.
func (t *Traffic) CopyShare() float64 { return stat.Ratio(t.copies, t.packets) }
