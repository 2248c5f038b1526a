package flow

import (
	"time"

	"jindan/capture"
)

// stallBurst is the number of segments above which a sender has recovered: after a time-out it begins with
// one and doubles each round trip (RFC 5681 §3.1).
const stallBurst = 3

// maxStanding is for how long a side that stands still is taken to repeat what nobody sees: the least upper bound that a time-out
// may have (RFC 6298 §2.5). Behind a longer silence there may be nobody any more.
const maxStanding = 60 * time.Second

// stalled reports that s stood still in the middle of a write, if it did for long enough to have
// lost a repetition, too.
func (t *Table) stalled(c *Conn, s Side, now capture.Instant, ended bool) {
	d, r := &c.side[s], &c.side[s.Other()]
	gap := now.Sub(d.nextAt)
	if gap < 3*minRTO || !ended && gap > maxStanding || r.flags&(zeroWin|shut) != 0 || r.acked != d.next || c.closed || r.flags&finSent != 0 {
		return
	}
	n := uint8(0)
	for wait := minRTO + c.HandshakeRTT; gap >= wait && n < 16; wait = 2*wait + minRTO + c.HandshakeRTT {
		n++
	}
	// A program that pauses (streaming, a slow disk) goes on with a burst. A sender whose segments are lost
	// gets one or two through and stands still again.
	again := d.stallPk != 0 && d.dataPk+1-d.stallPk <= stallBurst
	if ended {
		d.stallPk = d.dataPk + 1
	}
	if n <= d.hidden || !again {
		return
	}
	if t.wants(Stalled) {
		t.ev = Event{Kind: Stalled, Conn: c, Side: s, At: now, Since: d.nextAt, Dur: gap, N: uint32(n - d.hidden),
			Len: c.MSS(s), IPLen: headerOf(c) + c.MSS(s), flag: !ended}
		t.send(&t.ev)
	}
	d.hidden = n
}

// checkWriters looks at the end of a window for writers that stand still.
func (t *Table) checkWriters(now capture.Instant) {
	keep := t.writing[:0]
	for _, ref := range t.writing {
		c := t.Lookup(ref)
		if c == nil {
			continue
		}
		if c.closed || (c.side[0].flags|c.side[1].flags)&midWrite == 0 {
			c.side[Client].flags &^= listed
			continue
		}
		keep = append(keep, ref)
		for s := range c.side {
			if c.side[s].flags&midWrite != 0 && now.Sub(c.side[s].nextAt) >= StallAge {
				t.stalled(c, Side(s), now, false)
			}
		}
	}
	t.writing = keep
}

// countStalled counts the segments of holes that are older than age as missing on the path,
// once. Their sizes are inferred: whole segments of the sender's MSS and a rest.
func (t *Table) countStalled(c *Conn, tr *Trouble, s Side, now capture.Instant, age capture.Instant) {
	x := &tr.side[s]
	path := t.Path(c)
	mss := c.holeMSS(s, path)
	asked := false
	for i := range x.holes[:x.n] {
		asked = asked || x.holes[i].asked // of the lowest; what lies above cannot be asked for yet
	}
	for i := range x.holes[:x.n] {
		h := &x.holes[i]
		if !asked || h.counted || now-h.at < age {
			continue
		}
		h.counted = true
		lost := c.flight(s, h.to-h.from)
		x.Missing += segments(lost, mss)
		// What came from a side that never sees an acknowledgement may be the capture's fault.
		if path != nil && !c.OneWay() {
			t.enter(path)
			eachSize(lost, headerOf(c), mss, path.Side[c.dir(s)].missing)
		}
		if t.wants(HoleLost) {
			t.ev = Event{Kind: HoleLost, Conn: c, Side: s, At: now, Since: h.at, Dur: now.Sub(h.at), Len: lost, N: segments(lost, mss)}
			t.send(&t.ev)
		}
	}
}
