package detect

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// largeStill follows the connections that stand still at a large segment, where too little is lost to compare shares: the input holds few
// connections, they come minutes apart, or all that is known of a flight is that its first segment never arrived. But
// that one and the same segment is lost each time, while smaller ones that are sent after it arrive, or while everything smaller arrived and
// nothing so large ever has, is what a path that is too narrow does (RFC 2923 §2.1), and hardly anything else. In an input of many,
// several connections must say so.
type largeStill struct {
	sides measure.Subjects[stillSide, largeData]
}

// largeData is a large segment that its receiver lacks.
type largeData struct {
	k      measure.Way
	since  capture.Instant // when it was first missed, or repeated
	last   capture.Instant
	acked  uint64        // of this side's payload, then
	size   uint32        // IP length
	tries  uint32        // how often it was seen to be sent again
	beside bool          // something smaller that was sent after it has arrived
	hole   bool          // it is missing in the capture, too
	first  bool          // nothing so large had ever arrived
	passed uint32        // segments of that side that had
	still  time.Duration // for how long it has stood still; 0: it does not count
	heard  bool          // its receiver has spoken since
	asks   bool          // its receiver repeats itself, too, so that it lacks small ones as well; or has not taken the connection
	note   measure.Note
}

// maxLarge bounds the sides that are followed at a time.
const maxLarge = 256

// largeMemory is for how long a connection counts that stood still so: sessions that are opened anew each time that the hold timer of their
// protocol has run out come minutes apart (BGP: 90 s, RFC 4271 §10; 180 s and more in use).
const largeMemory = 10 * time.Minute

func newLargeStill() largeStill {
	return largeStill{measure.NewSubjects[stillSide, largeData](maxLarge)}
}

// stillEvents wake largeStill.
var stillEvents = flow.Of(flow.Retransmit, flow.SynAckRepeat, flow.HoleOpened, flow.HoleFilled, flow.Reordered, flow.HoleAcked, flow.Recovered)

func (l *largeStill) event(e *flow.Event) {
	c := e.Conn
	if c == nil || e.Path == nil {
		return
	}
	k := stillSide{c.Ref(), e.Side}
	switch e.Kind {
	case flow.SynAckRepeat:
		if x := l.sides.Peek(stillSide{c.Ref(), flow.Client}); x != nil {
			x.asks = true
		}
	case flow.Retransmit:
		if x := l.sides.Peek(stillSide{c.Ref(), e.Side.Other()}); x != nil {
			x.asks = true
		}
		if !e.Proven || e.IPLen <= flow.SmallSize || !e.Class.OfPath() && e.Class != flow.Unaccepted {
			return
		}
		x := l.sides.Get(k)
		if x == nil {
			return
		}
		if x.since == 0 || c.Acked(e.Side) > x.acked {
			*x = largeData{k: wayOf(c, e.Side), since: e.Since, acked: c.Acked(e.Side), size: e.IPLen, first: c.Acked(e.Side) < uint64(e.Len),
				passed: c.Segments(e.Side) - min(c.Segments(e.Side), open(c, e.Side)), note: measure.NoteOf(e, "sent again, and again")}
		}
		if e.At != x.last { // else it was held to be the listener's affair until now, and is told once more
			x.tries = max(x.tries, e.Try)
		}
		x.last = e.At
		x.asks = x.asks || e.Class == flow.Unaccepted
		x.beside = x.beside || e.Class == flow.Fast && c.HasSACKed(e.Side.Other()) || x.tries == 1 && overtaken(c, e)
	case flow.HoleOpened:
		if mss := c.MSS(e.Side); e.Len >= mss && e.IPLen > 0 && !c.Closed() {
			if x := l.sides.Get(k); x != nil && x.since == 0 {
				*x = largeData{k: wayOf(c, e.Side), since: e.At, last: e.At, size: mss + ipHeader(c), hole: true, beside: true,
					first: c.Bytes(e.Side) < uint64(mss), note: measure.NoteOf(e, "what is missing before this segment never comes")}
			}
		}
	case flow.HoleFilled, flow.Reordered, flow.HoleAcked, flow.Recovered:
		l.sides.Drop(k)
	}
}

// overtaken reports whether some of what was sent after the segment that is repeated has arrived: its receiver has acknowledged the same
// again, though not for each segment on its way, as one does that takes none of them.
func overtaken(c *flow.Conn, e *flow.Event) bool {
	onWay := (c.Bytes(e.Side) - c.Acked(e.Side) + uint64(e.Len) - 1) / uint64(e.Len)
	n := c.Duplicates(e.Side.Other())
	return n > 0 && uint64(n) < onWay
}

// wayOf is the direction of what side s of c sends.
func wayOf(c *flow.Conn, s flow.Side) measure.Way {
	return measure.Way{From: c.Endpoint(s).Addr, To: c.Endpoint(s.Other()).Addr}
}

// ipHeader is the length of the IP and TCP headers, without options.
func ipHeader(c *flow.Conn) uint32 {
	if c.Client.Addr.Netip().Is4() {
		return 40
	}
	return 60
}

// open is how many full segments of s nobody has acknowledged.
func open(c *flow.Conn, s flow.Side) uint32 {
	mss := uint64(c.MSS(s))
	return uint32(min((c.Bytes(s)-min(c.Acked(s), c.Bytes(s))+mss-1)/mss, 1<<20))
}

// standing is what stands still in one direction.
type standing struct {
	f        SizeLoss
	onset    capture.Instant
	last     capture.Instant           // newest repetition
	peers    map[capture.Addr]struct{} // those that lack it
	evidence []analyze.Evidence
}

// find returns the directions in which connections stand still so: at the end of an input of few, or min_hit of them.
func (l *largeStill) find(w *analyze.Window) measure.Subjects[measure.Way, standing] {
	found := measure.NewSubjects[measure.Way, standing](maxLarge)
	few := measure.FewConns(w)
	if len(l.sides.M) == 0 {
		return found
	}
	waiting := make(map[measure.Way]uint32) // full segments that nobody has acknowledged
	for ref, x := range l.sides.All {
		if c := w.Flows.Lookup(ref.ref); c != nil {
			waiting[x.k] += open(c, ref.side)
		}
	}
	for ref, x := range l.sides.All {
		stall := w.Params.Duration("stall_age")
		if c := w.Flows.Lookup(ref.ref); c != nil {
			// However much had arrived in small segments: none of that size had.
			x.first = x.first || !x.hole && large(w.Flows.Path(c), x) <= waiting[x.k]
			x.still = x.lasting(c, ref.side)
			// Who speaks on, and does not repeat itself, lacks nothing small: what it said was acknowledged. If it acknowledges the same
			// again, something has reached it that it does not take.
			peer := ref.side.Other()
			x.heard = !x.hole && !x.asks && c.Duplicates(peer) == 0 && c.LastData(peer).Sub(x.since) >= stall
		}
		if w.End.Sub(x.last) > largeMemory && !few {
			l.sides.Drop(ref)
			continue
		}
		still, heard := x.still, x.heard
		if still < stall || !x.beside && !heard && x.passed < uint32(w.Params.Int("min_small")) {
			continue
		}
		ways := [2]measure.Way{x.k, x.k.ToAll()}
		if !few && (x.hole || x.asks || !x.beside && !heard || x.tries < uint32(w.Params.Int("min_tries"))) {
			continue
		}
		for i, k := range ways {
			if few && i > 0 {
				break
			}
			g := found.Get(k)
			if g == nil {
				continue
			}
			if g.f.Single == 0 || x.since < g.onset {
				g.onset = x.since
			}
			g.f.Side = "sender"
			if x.hole {
				g.f.Side = "receiver"
			}
			if g.peers == nil {
				g.peers = make(map[capture.Addr]struct{})
			}
			g.peers[x.k.To] = struct{}{}
			g.last = max(g.last, x.last)
			g.f.Single++
			g.f.Cliff, g.f.Tries = max(g.f.Cliff, int(x.size)), max(g.f.Tries, int(x.tries))
			g.f.Still = max(g.f.Still, still.Seconds())
			g.f.Beside = g.f.Beside || x.beside
			g.f.Heard = g.f.Heard || heard
			g.f.Passed += int(x.passed)
			if len(g.evidence) < analyze.MaxEvidence {
				g.evidence = append(g.evidence, x.note.Evidence())
			}
		}
	}
	if few {
		return found
	}
	// The narrowest way that carries the fault is its subject.
	hit := w.Params.Int("min_hit")
	for k, g := range found.All {
		if g.f.Single < hit || k.Wide() && len(g.peers) < 2 {
			found.Drop(k)
		}
	}
	for k := range found.All {
		if !k.Wide() && found.Peek(k.ToAll()) != nil {
			found.Drop(k)
		}
	}
	return found
}

// large counts the segments of that size and more that were sent the same way.
func large(p *flow.Path, x *largeData) (n uint32) {
	if p == nil {
		return math.MaxUint32
	}
	ps, _ := p.From(x.k.From)
	for _, b := range ps.Bin()[flow.Bin(x.size):] {
		n += b.Seen
	}
	return n
}

// lasting is for how long x has stood still; 0 if it does not, or if something as large had arrived before.
func (x *largeData) lasting(c *flow.Conn, s flow.Side) time.Duration {
	switch {
	case !x.first || c.OneWay():
		return 0
	case x.hole: // as long as its receiver is heard
		return c.Heard(s.Other()).Sub(x.since)
	case c.Acked(s) > x.acked:
		return 0
	}
	return x.last.Sub(x.since)
}

// symptom is that of a direction of which nothing else is known.
func (g *standing) symptom(k measure.Way, w *analyze.Window) analyze.Symptom {
	f := g.f
	f.Kind, f.PValue, f.LargestPassed, f.Lone = "black-hole", 1, flow.SmallSize, true
	f.BigSent, f.BigLost, f.BigLoss = f.Single, f.Single, 1
	f.Flows, f.StalledFlows, f.StalledShare, f.Hit = f.Single, f.Single, 1, f.Single
	f.Peers, f.PeersHit = measure.PeersSince(w, k, g.onset), len(g.peers)
	f.Others, f.Part = measure.Crowd(w, k)
	return analyze.Symptom{Subject: k.Subject(w.Local, ""), Onset: g.onset, Features: f, Evidence: g.evidence, LastTry: g.lastTry(w)}
}

// lastTry is when nobody tried any more. What happened in an input of few is true however long that is ago.
func (g *standing) lastTry(w *analyze.Window) capture.Instant {
	if measure.FewConns(w) {
		return 0
	}
	return g.last
}
