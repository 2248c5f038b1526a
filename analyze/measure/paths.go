package measure

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Way is one direction between two hosts, or between a host and several (see scope), where the address of the several
// is the network's, or none.
type Way struct {
	From, To capture.Addr
	Scope    scope
}

// wayState is a direction that has lost something: what was sent and lost per window, by size,
// and which connections suffered.
type wayState struct {
	Series          stat.Series
	ring            stat.Ring[Sizes]           // by window
	points          [stat.SeriesLen]stat.Point // of ring, the segments with data
	acked           [stat.SeriesLen]uint64     // likewise
	n               int
	conns           Subjects[uint32, troubled] // by stream
	Fast, Rto, Tail uint32
	hiddenMin       uint32 // IP length of a segment that only a stall tells of
	MinLost         [flow.Bins]uint16
	MaxSeen         [flow.Bins]uint16
	lastBad         capture.Instant
	firstMark       capture.Instant // first sign of a loss that no window has counted yet
	newConns        [stat.SeriesLen]uint32
	silent          Sizes             // of this window: losses that only a stall tells of
	TooBig          int               // ICMP: fragmentation needed, packet too big
	index           uint32            // of a pair's path
	began           capture.Instant   // the first of its paths
	rolled          bool              // at least once: what the paths did before is known
	cur             Traffic           // of this window
	All             Traffic           // since the paths were first seen
	elseCut         int               // see elsewhere
	elseBase        map[uint32]uint32 // by path
}

// Traffic sums up what the paths of a way count. Segments are those with data.
type Traffic struct {
	Sizes
	copies, packets uint32
	After, Before   uint32 // segments lost after and before the capture point
	overtaken       uint32 // of before: they came after all
	Damaged         uint32 // of after: seen with a wrong checksum, so that they were lost before
	conns           uint32
	acked           uint64 // bytes
}

// troubled is a connection with losses.
type troubled struct {
	at      capture.Instant // first loss
	worst   time.Duration   // longest wait for missing data
	tries   uint32          // most repetitions of one segment
	retries uint32          // repetitions of full-size segments
	failed  uint32          // of these, lost again
	openAt  capture.Instant // a hole is open since
	note    Note
	full    bool // lost segments of nearly MSS
	again   repeats
	client  capture.Addr
	ends    [2]capture.Addr // sender and receiver
	passed  bool            // something that was repeated, or missing, arrived in the end
	missing bool            // something never did
	// Full segments that are missing, and those that arrived: past these, or before them on a connection that had just begun.
	lacking, arrived uint32
	// Segments that were sent again and not acknowledged since, of what size class at least, since when, and whether
	// something that was sent after them was.
	waiting   uint32
	flying    uint32 // segments sent and not acknowledged, those that were sent again among them
	waitClass int
	waitSince capture.Instant
	overtaken bool
	settled   uint32 // segments that were lost and whose fate is known
}

// repeats are repetitions of full segments one at a time, and of several coalesced into one packet (TSO, GSO, GRO).
type repeats struct {
	Single, singleLost, coalesced, coalescedLost uint32
	pending                                      uint32 // single ones that wait for their acknowledgement, the newest since at
	at                                           capture.Instant
	lastCoalesced                                bool
}

// add takes a repetition; again: the one before it was of the same bytes, and has been lost.
func (r *repeats) add(at capture.Instant, coalesced, again bool) {
	r.coalescedLost += uint32(Count(again && r.lastCoalesced))
	if r.lastCoalesced = coalesced; coalesced {
		r.coalesced++
		return
	}
	if r.pending > 0 && at.Sub(r.at) >= ShortestTimeout {
		r.singleLost += r.pending
		r.pending = 0
	}
	r.Single++
	r.pending++
	r.at = at
}

// merge adds those of a connection, or of several.
func (r *repeats) merge(o *repeats) {
	r.Single += o.Single
	r.singleLost += o.singleLost + o.pending // of what still waits nobody knows that it has arrived
	r.coalesced += o.coalesced
	r.coalescedLost += o.coalescedLost
}

// OnlyCoalesced is how many repetitions were lost that were coalesced, if those of full segments one at a time are not: 1 in 20 at most, of at least
// twice enough, and of the others half and more.
func (r *repeats) OnlyCoalesced(enough uint32) int {
	if r.Single < 2*enough || r.coalescedLost < enough || 20*r.singleLost > r.Single || 2*r.coalescedLost < r.coalesced {
		return 0
	}
	return int(r.coalescedLost)
}

// mute reports whether nothing at all has got through on the connection since it last lost something. Then the
// other end may be gone, or the connection forgotten by a box on the way, and its losses do not say of what they depend on.
func (t *troubled) mute() bool { return t.waiting > 0 && !t.overtaken }

// MaxTroubled bounds the connections with losses that one direction remembers.
const MaxTroubled = 512

// maxWays bounds the pairs of hosts with losses that are followed at a time in each direction, and maxWide the hosts
// with several peers, and the networks, at some 40 kB each.
const (
	maxWays = 256
	maxWide = 32
)

// Ways follows every direction that loses segments. The retransmission and size-dependent
// loss detectors share one.
type Ways struct {
	states   [scopes]Subjects[Way, wayState]
	sealed   capture.Instant // end of the newest window that was judged
	local    analyze.Local   // as of the last window
	Speaking []Speaker       // likewise
}

// NewWays returns ways of which none has lost anything.
func NewWays() *Ways {
	ws := new(Ways)
	for s := range ws.states {
		ws.states[s] = NewSubjects[Way, wayState](maxWide)
	}
	ws.states[OnePair] = NewSubjects[Way, wayState](maxWays)
	return ws
}

// lossEvents wake ways.
var lossEvents = flow.Of(flow.Retransmit, flow.HoleOpened, flow.HoleFilled, flow.HoleLost, flow.Reordered, flow.HoleAcked,
	flow.Recovered, flow.Closed, flow.ICMPError, flow.Stalled)

// Measures implements analyze.Measurer for the detectors that read them.
func (ws *Ways) Measures() []analyze.Measure { return []analyze.Measure{ws} }

// Events implements analyze.Measure.
func (ws *Ways) Events() flow.Mask { return lossEvents }

// Event implements analyze.Measure.
func (ws *Ways) Event(e *flow.Event) {
	if e.Conn == nil || e.Path == nil {
		return
	}
	k := Way{From: e.Conn.Endpoint(e.Side).Addr, To: e.Conn.Endpoint(e.Side.Other()).Addr}
	if e.Kind == flow.Closed && !e.Conn.Troubled() {
		return
	}
	for _, wide := range k.widen() {
		st := ws.states[wide.Scope].Peek(wide)
		if st == nil && ws.concerns(wide) && begins(e) {
			if st = ws.states[wide.Scope].Get(wide); st != nil {
				st.start(e)
			}
		}
		if st != nil {
			st.event(e)
		}
		if e.Kind == flow.Closed {
			if st = ws.states[wide.Scope].Peek(wide.back()); st != nil {
				st.event(e)
			}
		}
	}
}

// begins reports whether e is a first sign of loss.
func begins(e *flow.Event) bool {
	return lossy(e) || e.Kind == flow.HoleOpened || e.Kind == flow.Stalled
}

func (st *wayState) event(e *flow.Event) {
	switch e.Kind {
	case flow.Closed:
		if t := st.conns.Peek(e.Conn.Stream); t != nil {
			t.close(e.At)
		}
		return
	case flow.ICMPError:
		if e.TooBig() {
			st.TooBig++
		}
		return
	}
	var t *troubled
	if begins(e) || e.Kind == flow.Retransmit {
		t = st.conns.Get(e.Conn.Stream)
	} else {
		t = st.conns.Peek(e.Conn.Stream)
	}
	if t == nil {
		return
	}
	switch e.Kind {
	case flow.Retransmit:
		if !lossy(e) {
			return
		}
		st.mark(e.At)
		if e.Again() && e.Try > 1 {
			st.mark(e.Since) // held to be the listener's affair until now
		}
		t.mark(e, "sent again")
		t.tries = max(t.tries, e.Try)
		if full := e.Len*10 >= e.Conn.MSS(e.Side)*9; full {
			t.full = true
			t.again.add(e.At, e.Len > e.Conn.MSS(e.Side), e.Try > 1)
		}
		t.retries++
		if !e.Again() || e.Try > 1 {
			t.failed++
			t.worst = max(t.worst, e.Dur)
		}
		t.wait(e)
		st.count(e)
	case flow.HoleOpened:
		st.lastBad = max(st.lastBad, e.At) // or late, or missed by the capture: what comes will tell
		t.mark(e, "data before this segment is missing")
		t.full = t.full || e.Len*10 >= e.Conn.MSS(e.Side)*9
		t.compare(e)
		if t.openAt == 0 {
			t.openAt = e.At
		}
	case flow.Stalled:
		st.mark(e.At)
		t.mark(e, "the sender stands still in the middle of a write")
		t.full = true
		t.retries += e.N
		t.failed += e.N
		if !e.Standing() {
			t.passed = true
			t.failed -= min(t.failed, 1) // the last repetition arrived
		}
		t.worst = max(t.worst, e.Dur)
		st.silent.Lost[flow.Bin(e.IPLen)] += e.N
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
		t.settled += e.N
		st.mark(e.Since)
		st.count(e)
	case flow.HoleLost:
		st.mark(e.Since)
		t.missing = true
	case flow.Recovered:
		t.passed = true
		t.again.pending = 0
		t.settled += t.waiting
		t.waiting, t.flying, t.overtaken = 0, 0, false
	case flow.Reordered, flow.HoleAcked:
		t.openAt = 0
		if !t.passed && !t.missing && t.retries == 0 {
			t.at = 0 // nothing of this connection was lost, so far
		}
	}
}

// justBegun is the age of a connection on which all that arrived is of now.
const justBegun = time.Second

// compare counts what is missing, and what arrived beside it, in full segments.
func (t *troubled) compare(e *flow.Event) {
	full := e.Conn.MSS(e.Side) * 9 / 10 // options take up to 40 bytes of it
	if full == 0 || e.Len < full {
		return
	}
	t.lacking += e.N
	if t.lacking == e.N && e.Conn.SynSeen() && e.At.Sub(e.Conn.SynAt()) <= justBegun {
		t.arrived += uint32(e.Conn.Bytes(e.Side) / uint64(full))
	}
	if e.IPLen >= full {
		t.arrived++
	}
}

// wait notes that a segment was sent again, and waits for its acknowledgement.
func (t *troubled) wait(e *flow.Event) {
	if t.waiting == 0 {
		t.waitSince, t.waitClass = e.At, flow.Bin(e.IPLen)
	}
	if e.Again() {
		n := e.N
		if e.Try > 1 {
			n = 1 // one segment, which was held to be the listener's affair at first (flow.Unaccepted)
		}
		t.waiting += n
		t.waitClass = min(t.waitClass, flow.Bin(e.IPLen))
	}
	t.flying = max(t.flying, e.Conn.InFlight(e.Side))
	// Duplicate ACKs and SACK blocks: the receiver has got something that was sent later.
	t.overtaken = t.overtaken || e.Class == flow.Fast
}

// lossy reports whether a repetition speaks of loss on the path.
func lossy(e *flow.Event) bool {
	return e.Kind == flow.Retransmit && e.Proven && e.Class.OfPath()
}

// mark notes a loss, by the time of its first sign.
func (st *wayState) mark(at capture.Instant) {
	st.lastBad = max(st.lastBad, at)
	if st.firstMark == 0 || at < st.firstMark {
		st.firstMark = at
	}
}

func (t *troubled) mark(e *flow.Event, what string) {
	if t.at != 0 {
		return
	}
	t.at, t.client = e.At, e.Conn.Client.Addr
	t.ends = [2]capture.Addr{e.Conn.Endpoint(e.Side).Addr, e.Conn.Endpoint(e.Side.Other()).Addr}
	t.note = NoteOf(e, what)
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
		if e.Dur >= ShortestTimeout+e.Conn.HandshakeRTT {
			st.Rto += e.N // who is told of the hole by duplicate acknowledgements fills it within a round trip
		}
	case e.Class == flow.Fast:
		st.Fast += e.N
	case e.Class == flow.RTO:
		st.Rto += e.N
	case e.Class == flow.TailLoss:
		st.Tail += e.N
	}
	if e.At > st.lastBad {
		st.lastBad = e.At
	}
}

// start makes the state ready to take its first sign of loss.
func (st *wayState) start(e *flow.Event) {
	st.conns = NewSubjects[uint32, troubled](MaxTroubled)
	st.index = e.Path.Index
}
