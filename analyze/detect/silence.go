package detect

import (
	"slices"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// peerKey is a peer as a host sees it.
type peerKey struct{ host, peer capture.Addr }

// peerState tells whether a host still hears a peer.
//
// A peer is silent when nothing at all comes from it, not even an acknowledgement, although it was
// sent something that its kernel answers: a SYN, or data. A peer to which nothing is sent may
// just have nothing to say.
type peerState struct {
	heard    capture.Instant // last packet from the peer
	asked    capture.Instant // first one of those to it that are unanswered since; 0: none
	last     capture.Instant // newest of these
	fellAt   capture.Instant // asked, of the newest long silence
	tcp      bool            // one of them over TCP
	sent     uint32          // packets to it since asked
	least    uint32          // IP length of the smallest of these that were repeated
	curHeard uint32
	rate     [rateWindows]uint16 // packets with content from the peer, by window, the newest last
	segments uint32              // what the path has counted of them, at the last window
	// All packets of the peer on the connections in the table, and the number of those that are open, when last counted.
	received uint32
	conns    uint32
	counted  bool
	// The connection of the first repetition, and how much of the peer it had seen by then.
	ref  flow.Ref
	side flow.Side // the peer's
	seen uint32
	note measure.Note
	// chose is when it was heard although a SYN to it got no answer: new connections are let down, not the path to it.
	chose capture.Instant
}

// rateWindows is over how many windows the rate before the silence is measured.
const rateWindows = 16

func (st *peerState) hear(at capture.Instant) {
	st.heard = max(st.heard, at)
	if st.asked != 0 && st.asked <= at {
		st.forget()
	}
}

// heardOn notes when the peer was last heard over TCP.
func (st *peerState) heardOn(p *flow.Pair, k peerKey) {
	if p == nil {
		return
	}
	i := 0
	if p.B == k.peer {
		i = 1
	}
	if at := p.Heard[i]; at > st.heard {
		st.hear(at)
	}
}

// forget forgets what is unanswered.
func (st *peerState) forget() {
	st.asked, st.sent, st.least, st.tcp, st.counted = 0, 0, 0, false, false
}

// oversized reports whether all that the peer leaves unanswered is large, and nothing so large is known to have reached it: then it may be lost for
// its size (RFC 2923 §2.1), and the peer, which lacks it, has nothing to say.
func (st *peerState) oversized(w *analyze.Window, k peerKey) bool {
	if st.least <= flow.SmallSize {
		return false
	}
	c := w.Flows.Lookup(st.ref)
	if c == nil {
		return false
	}
	p := w.Flows.Path(c)
	if p == nil {
		return false
	}
	ps, ok := p.From(k.host)
	return ok && !ps.Took(st.least)
}

// ask notes a repetition over TCP: what was sent at first has no answer yet.
func (st *peerState) ask(first capture.Instant, e *flow.Event, n uint32) {
	if e.Kind == flow.SynRepeat && e.N > 1 && first <= st.heard {
		st.chose = e.At
	}
	if e.Kind == flow.SynRepeat && st.chose != 0 && e.At.Sub(st.chose) < measure.Lonely {
		return
	}
	if first <= st.heard {
		first = e.At // the peer was heard in between; the repetition is a new question
	}
	if st.asked == 0 || !st.tcp {
		st.note = measure.NoteOf(e, "sent again, nothing comes back")
		st.ref, st.side = e.Conn.Ref(), e.Side.Other()
		st.seen = e.Conn.Packets(st.side)
	}
	if st.demand(first, e.At, n, e.IPLen) {
		st.tcp = true
	}
}

// askDNS notes that a query has no answer yet.
func (st *peerState) askDNS(e *flow.Event) {
	first := e.DNS.First
	if e.Kind == flow.DNSRepeat {
		first = e.At.Add(-e.Dur)
	}
	if first <= st.heard {
		return // one lost query among others
	}
	if st.asked == 0 {
		st.note = measure.NoteAt(first, e.DNS.Client, e.DNS.Server, e.DNS.QueryFrame, "no answer")
	}
	n := uint32(1)
	if e.Kind == flow.DNSUnanswered {
		n = 0 // counted when it was sent, or as the first
	}
	st.demand(first, e.At, n, 0)
}

// demand notes n packets of size bytes without an answer, the first sent at first.
func (st *peerState) demand(first, at capture.Instant, n, size uint32) bool {
	if st.heard == 0 || first <= st.heard {
		return false // never heard at all: nobody says that it is there
	}
	if st.asked == 0 {
		st.sent, st.least = 1, size
	}
	st.least = min(st.least, size)
	if st.asked == 0 || first < st.asked {
		st.asked = first
	}
	st.sent += n
	st.last = max(st.last, at)
	return true
}

// roll counts what the peers were heard to say in this window, and forgets those long gone.
func (d *pathCut) roll(w *analyze.Window) {
	w.Flows.Active(func(p *flow.Path) {
		for i := range p.Side {
			// Side[i] is what Host(i) sends: the other one hears it.
			k := peerKey{p.Host(1 - i), p.Host(i)}
			st := d.peers.Peek(k)
			if st == nil && p.Side[i].Segments > 0 {
				st = d.peers.Get(k)
			}
			if st == nil {
				continue
			}
			st.heardOn(&p.Pair, k)
			if p.Side[i].Segments == st.segments {
				continue
			}
			if n := p.Side[i].Segments; n > st.segments && st.segments > 0 {
				st.curHeard = max(st.curHeard, n-st.segments)
			}
			st.segments = p.Side[i].Segments
		}
	})
	d.peers.Each(func(_ peerKey, st *peerState) bool {
		copy(st.rate[:], st.rate[1:])
		st.rate[rateWindows-1] = uint16(min(st.curHeard, 1<<16-1))
		st.curHeard = 0
		return w.End.Sub(max(st.heard, st.asked)) < measure.IdleState
	})
}

// rateBefore is how many packets a second came from the peer in the 10 s before it fell silent.
func (st *peerState) rateBefore(w *analyze.Window) float64 {
	silent := min(int(w.End.Sub(st.heard)/analyze.WindowLength), rateWindows-1)
	n, windows := 0, min(rateWindows-silent, 10)
	for _, k := range st.rate[rateWindows-silent-windows : rateWindows-silent] {
		n += int(k)
	}
	return float64(n) / (float64(windows) * analyze.WindowLength.Seconds())
}

// acknowledged leaves out the suspects from which mere acknowledgements come: those make no
// event, but the connections count them. A suspect passes from its second window on.
func (d *pathCut) acknowledged(w *analyze.Window, suspects []peerKey) []peerKey {
	if len(suspects) == 0 {
		return nil
	}
	type count struct{ packets, open uint32 }
	sum := measure.NewSubjects[peerKey, count](measure.MaxPerDetector)
	for _, k := range suspects {
		sum.Get(k)
	}
	w.Flows.Live(func(c *flow.Conn) {
		for _, side := range [2]flow.Side{flow.Client, flow.Server} {
			if v := sum.Peek(peerKey{c.Endpoint(side.Other()).Addr, c.Endpoint(side).Addr}); v != nil {
				v.packets += c.Packets(side)
				if !c.Closed() {
					v.open++
				}
			}
		}
	})
	return slices.DeleteFunc(suspects, func(k peerKey) bool {
		st, v := d.peers.M[k], sum.Peek(k)
		fresh, grown := !st.counted, v.packets > st.received
		st.received, st.conns, st.counted = v.packets, v.open, true
		if !fresh && grown {
			st.hear(w.End)
			return true
		}
		return fresh
	})
}
