package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// way is one direction between two hosts.
type way struct{ from, to capture.Addr }

// sizes counts segments by size class.
type sizes struct{ sent, lost [flow.Bins]uint32 }

func (s *sizes) add(o *sizes) {
	for i := range s.sent {
		s.sent[i] += o.sent[i]
		s.lost[i] += o.lost[i]
	}
}

// wayState is a direction that has lost something: what was sent and lost per window, by size,
// and which connections suffered.
type wayState struct {
	series          series
	total           sizes // cumulative at the last roll
	ring            [seriesLen]sizes
	n               int
	conns           subjects[uint32, troubled] // by stream
	fast, rto, tail uint32
	hiddenMin       uint32 // IP length of a segment that only a stall tells of
	minLost         [flow.Bins]uint16
	maxSeen         [flow.Bins]uint16
	lastBad         capture.Instant
	firstMark       capture.Instant // first sign of loss that no window has counted yet
	conns0          uint32          // connections of the path at the last roll
	newConns        [seriesLen]uint32
	acks            [seriesLen]point // small packets whose fate only the other side's repeats tell
	acks0           uint32
	silent          sizes  // of this window: losses that only a stall tells of
	unheard         uint32 // of this window: repeats of the other side, for want of an answer
	tooBig          int    // ICMP: fragmentation needed, packet too big
	index           uint32
	elseCut         int               // see elsewhere
	elseBase        map[uint32]uint32 // by path
}

// troubled is a connection with losses.
type troubled struct {
	at      capture.Instant // first loss
	worst   time.Duration   // longest wait for missing data
	tries   uint32          // most repetitions of one segment
	retries uint32          // repetitions of full-size segments
	failed  uint32          // of these, lost again
	openAt  capture.Instant // a hole is open since
	note    lossNote
	full    bool // lost segments of nearly MSS
	client  capture.Addr
	passed  bool // something that was repeated, or missing, arrived in the end
}

// lossNote is a sign of loss; it becomes evidence when it is needed.
type lossNote struct {
	at             capture.Instant
	client, server capture.Endpoint
	frame          uint64
	what           string
}

func (n *lossNote) evidence() analyze.Evidence {
	e := analyze.Evidence{At: n.at, Flow: n.client.String() + " > " + n.server.String(), Note: n.what}
	if n.frame != 0 {
		e.Frames = []uint64{n.frame}
	}
	return e
}

// maxTroubled bounds the connections with losses that one direction remembers.
const maxTroubled = 512

// maxWays bounds the directions with losses that are followed at a time, at some 20 kB each.
const maxWays = 256

// ways follows every direction that loses segments. The retransmission and size-dependent
// loss detectors each own one.
type ways struct {
	states subjects[way, wayState]
}

func newWays() ways { return ways{newSubjects[way, wayState](maxWays)} }

// lossEvents wake ways.
var lossEvents = flow.Of(flow.Retransmit, flow.HoleOpened, flow.HoleFilled, flow.Reordered, flow.HoleAcked,
	flow.Recovered, flow.Closed, flow.ICMPError, flow.SynRepeat, flow.Stalled)

func (ws *ways) event(e *flow.Event) {
	if e.Conn == nil || e.Path == nil {
		return
	}
	k := way{e.Conn.Endpoint(e.Side).Addr, e.Conn.Endpoint(e.Side.Other()).Addr}
	if e.Kind == flow.Closed {
		if !e.Conn.Troubled() {
			return
		}
		for _, k := range [2]way{k, {k.to, k.from}} {
			if st := ws.states.peek(k); st != nil {
				if t := st.conns.peek(e.Conn.Stream); t != nil {
					t.close(e.At)
				}
			}
		}
		return
	}
	if e.Kind == flow.ICMPError {
		// RFC 1191: type 3 code 4; RFC 4443 §3.2: type 2.
		if st := ws.states.peek(k); st != nil && (e.N == 3<<8|4 || e.N>>8 == 2) {
			st.tooBig++
		}
		return
	}
	if e.Kind == flow.SynRepeat || lossy(e) {
		// Repeated for want of an answer: an ACK or SYN-ACK may have been lost on the way back.
		if st := ws.states.peek(way{k.to, k.from}); st != nil {
			st.unheard++
		}
		if e.Kind == flow.SynRepeat {
			return
		}
	}
	var st *wayState
	if lossy(e) || e.Kind == flow.HoleOpened || e.Kind == flow.Stalled {
		if st = ws.states.get(k); st == nil {
			return
		}
		if st.conns.m == nil {
			st.conns = newSubjects[uint32, troubled](maxTroubled)
			st.start(e)
		}
	} else if st = ws.states.peek(k); st == nil {
		return
	}
	var t *troubled
	if e.Kind == flow.Retransmit || e.Kind == flow.HoleOpened || e.Kind == flow.Stalled {
		t = st.conns.get(e.Conn.Stream)
	} else {
		t = st.conns.peek(e.Conn.Stream)
	}
	if t == nil {
		return
	}
	switch e.Kind {
	case flow.Retransmit:
		if !lossy(e) {
			return
		}
		st.mark(e)
		t.mark(e, "sent again")
		t.tries = max(t.tries, e.Try)
		t.full = t.full || e.Len*10 >= e.Conn.MSS(e.Side)*9
		t.retries++
		if e.Try > 1 {
			t.failed++
			t.worst = max(t.worst, e.Dur)
		}
		st.count(e)
	case flow.HoleOpened:
		st.mark(e)
		t.mark(e, "data before this segment is missing")
		t.full = t.full || e.Len*10 >= e.Conn.MSS(e.Side)*9
		if t.openAt == 0 {
			t.openAt = e.At
		}
	case flow.Stalled:
		st.mark(e)
		t.mark(e, "the sender stands still in the middle of a write")
		t.full = true
		t.retries += e.N
		t.failed += e.N
		if !e.Flag {
			t.passed = true
			t.failed -= min(t.failed, 1) // the last repetition arrived
		}
		t.worst = max(t.worst, e.Dur)
		st.silent.lost[flow.Bin(e.IPLen)] += e.N
		st.hiddenMin = e.IPLen
	case flow.HoleFilled:
		t.passed = true
		t.retries++
		// A gap that closes after more than a time-out and its double was
		// repeated in vain at least once (RFC 6298 §5.5; TCP_RTO_MIN 200 ms).
		for d := 600 * time.Millisecond; d <= e.Dur && t.failed < t.retries*8; d *= 2 {
			t.failed++
			t.retries++
		}
		t.worst = max(t.worst, e.Dur)
		t.openAt = 0
		st.count(e)
	case flow.Recovered:
		t.passed = true
	case flow.Reordered, flow.HoleAcked:
		t.openAt = 0
	}
}

// lossy reports whether a repetition speaks of loss on the path.
func lossy(e *flow.Event) bool {
	return e.Kind == flow.Retransmit && e.Proven && e.Class.OfPath()
}

func (st *wayState) mark(e *flow.Event) {
	st.lastBad = max(st.lastBad, e.At)
	if st.firstMark == 0 {
		st.firstMark = e.At
	}
}

func (t *troubled) mark(e *flow.Event, what string) {
	if t.at != 0 {
		return
	}
	t.at, t.client = e.At, e.Conn.Client.Addr
	t.note = lossNote{e.At, e.Conn.Client, e.Conn.Server, e.Frame, what}
}

func (t *troubled) close(at capture.Instant) {
	if t.openAt != 0 {
		t.worst = max(t.worst, at.Sub(t.openAt))
		t.openAt = 0
	}
}

func (st *wayState) count(e *flow.Event) {
	switch {
	case e.Kind == flow.HoleFilled:
	case e.Class == flow.Fast:
		st.fast += e.N
	case e.Class == flow.RTO:
		st.rto += e.N
	case e.Class == flow.TailLoss:
		st.tail += e.N
	}
	if e.At > st.lastBad {
		st.lastBad = e.At
	}
}

// start takes what the path did before its first loss as the time before.
func (st *wayState) start(e *flow.Event) {
	st.index = e.Path.Index
	st.series.began = e.Path.First
}

// roll takes the window's deltas from the path's counters.
func (ws *ways) roll(w *analyze.Window) {
	ws.states.each(func(k way, st *wayState) bool {
		p := w.Flows.PathAt(st.index)
		if p == nil {
			return false
		}
		ps, ok := p.From(k.from)
		if !ok {
			return false // the record was re-used for another pair
		}
		var now, delta sizes
		// What was seen on its way to this host was not lost on the path: it arrived. If it comes again,
		// the host dropped it (a full accept queue), or its own ACK was lost.
		arrived := w.Local.Is(k.to)
		for i := range now.sent {
			b := &ps.Bin[i]
			now.sent[i], now.lost[i] = b.Seen+b.Missing, b.Missing
			if !arrived {
				now.lost[i] += b.Again
			}
		}
		first := st.series.windowsSeen == 0
		if first {
			st.series.windowsSeen = max(int(w.Start.Sub(p.First)/analyze.WindowLength), 0)
		}
		var sent, lost uint32
		for i := range now.sent {
			delta.sent[i] = now.sent[i] - st.total.sent[i]
			delta.lost[i] = now.lost[i] - st.total.lost[i]
			sent += delta.sent[i]
			lost += delta.lost[i]
		}
		if first {
			// What was sent before this window belongs to the time before.
			side := 0
			if p.B == k.from {
				side = 1
			}
			all, small := p.InWindow(side)
			in := delta.keep(0, flow.SmallBins, small) + delta.keep(flow.SmallBins, flow.Bins, all-small)
			st.series.old.total = sent - in
			sent = in
		}
		if !w.Local.Is(k.from) { // else the sender itself stood still: its repetitions would be in the capture
			for i, n := range st.silent.lost {
				delta.sent[i] += n
				delta.lost[i] += n
				sent += n
				lost += n
			}
		}
		st.silent = sizes{}
		mark := w.Start
		if st.firstMark != 0 {
			mark = max(st.firstMark, w.Start.Add(-markPatience))
		}
		st.series.add(lost, sent, mark)
		st.series.roll()
		if lost > 0 || w.End.Sub(st.firstMark) > markPatience {
			st.firstMark = st.uncounted(w.End)
		}
		if st.n == seriesLen {
			copy(st.ring[:], st.ring[1:])
			copy(st.newConns[:], st.newConns[1:])
			copy(st.acks[:], st.acks[1:])
			st.n--
		}
		fresh := p.Conns - st.conns0
		heard := point{bad: st.unheard, total: ps.Acks - st.acks0 + st.unheard}
		if first || w.Local.Is(k.from) {
			heard = point{} // of the past; or this host did not answer, and nothing was lost
		}
		st.conns0, st.acks0, st.unheard = p.Conns, ps.Acks, 0
		if first {
			st.ring[0], st.newConns[0], st.acks[0], st.n = delta, 1, point{}, 1
		} else {
			st.ring[st.n], st.newConns[st.n], st.acks[st.n] = delta, fresh, heard
			st.n++
		}
		st.total = now
		for i := range ps.Bin {
			st.minLost[i], st.maxSeen[i] = ps.Bin[i].MinLost, ps.Bin[i].MaxSeen
		}
		if b := flow.Bin(st.hiddenMin); st.hiddenMin != 0 && (st.minLost[b] == 0 || uint32(st.minLost[b]) > st.hiddenMin) {
			st.minLost[b] = uint16(min(st.hiddenMin, 0xffff))
		}
		idle := w.End.Sub(st.lastBad) > 10*time.Minute && st.series.since.bad == 0
		return !idle
	})
}

// keep leaves of the segments of the size classes from from to to only n, and all that were lost. It returns how many are left.
func (s *sizes) keep(from, to int, n uint32) uint32 {
	var sent, lost uint32
	for i := from; i < to; i++ {
		sent += s.sent[i]
		lost += s.lost[i]
	}
	n = min(max(n, lost), sent)
	for i := from; i < to; i++ {
		s.sent[i] = s.lost[i] + uint32(uint64(s.sent[i]-s.lost[i])*uint64(n-lost)/uint64(max(sent-lost, 1)))
	}
	return n
}

// markPatience is how long after its first sign a loss may be counted: a hole counts when it has
// been open for a second, at the end of a window. Signs without a loss by then were reordering.
const markPatience = 3 * time.Second

// uncounted is since when the oldest hole is open that is too young to have been counted by now; 0 if there is none.
func (st *wayState) uncounted(now capture.Instant) (since capture.Instant) {
	for _, stream := range st.conns.keys {
		if at := st.conns.m[stream].openAt; at > now.Add(-flow.StallAge) && (since == 0 || at < since) {
			since = at
		}
	}
	return since
}

// recent sums the sizes since the loss was first counted.
func (st *wayState) recent() (sizes, point, int) { return st.sum(st.series.windows()) }

// fromOnset sums the sizes from the window of the first sign of loss on, which may be some windows earlier: a hole
// counts when it has been open for a while. It holds what went well before the first sign, too.
func (st *wayState) fromOnset(now capture.Instant) (sizes, point, int) {
	span := st.series.windows()
	if o := st.series.onset; o != 0 {
		span = max(span, int((now.Sub(o)+analyze.WindowLength-1)/analyze.WindowLength))
	}
	return st.sum(span)
}

// sum adds up the newest windows.
func (st *wayState) sum(span int) (s sizes, acks point, conns int) {
	for i := st.n - min(span, st.n); i < st.n; i++ {
		s.add(&st.ring[i])
		conns += int(st.newConns[i])
		acks.bad += st.acks[i].bad
		acks.total += st.acks[i].total
	}
	return s, acks, conns
}

// flowStats sums up the connections that suffered since onset.
type flowStats struct {
	flows, stalled  int
	retries, failed uint32
	repeat          int // connections that lost a segment twice and more
	passed          int // connections on which something that had been lost arrived in the end
	byReceiver      int // connections that the receiver of the direction had opened; the others its sender
	longest         time.Duration
	evidence        []analyze.Evidence
}

func (st *wayState) flowStats(k way, since, now capture.Instant, stall time.Duration) (f flowStats) {
	for _, stream := range st.conns.keys {
		t := st.conns.m[stream]
		worst := t.worst
		if t.openAt != 0 {
			worst = max(worst, now.Sub(t.openAt))
		}
		if t.at == 0 || t.at < since && (t.openAt == 0 || t.openAt < since) {
			continue
		}
		f.flows++
		f.retries += t.retries
		f.failed += t.failed
		if t.failed > 0 {
			f.repeat++
		}
		if t.client == k.to {
			f.byReceiver++
		}
		if t.passed {
			f.passed++
		}
		if worst >= stall || t.tries >= 3 {
			f.stalled++
		}
		f.longest = max(f.longest, worst)
		if len(f.evidence) < analyze.MaxEvidence {
			f.evidence = append(f.evidence, t.note.evidence())
		}
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

// copyShare is the share of p's packets that were captured twice. One of each is judged, so they lower no claim.
func copyShare(p *flow.Path) float64 {
	return ratio(p.Side[0].Copies+p.Side[1].Copies, p.Side[0].Packets+p.Side[1].Packets)
}

// pathSubject describes a direction as seen from this host, or from the receiver when this
// host is neither end.
func pathSubject(k way, l analyze.Local, segment string) analyze.Subject {
	s := analyze.Subject{Kind: analyze.SubjectPath, Host: k.to.String(), Peer: k.from.String(),
		Direction: "inbound", Segment: segment}
	if l.Is(k.from) {
		s.Host, s.Peer, s.Direction = k.from.String(), k.to.String(), "outbound"
	}
	return s
}
