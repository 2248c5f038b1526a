package flow

import (
	"slices"
	"time"

	"jindan/capture"
)

const (
	// closedLinger is how long a closed connection stays, so that its late packets are not taken for
	// a new one: 2 MSL as Linux has it (TCP_TIMEWAIT_LEN, include/net/tcp.h).
	closedLinger = 60 * time.Second
	// sweepEvery is how many seals pass between sweeps for closed connections.
	sweepEvery = 16
)

// StallAge is how long a hole stays open before its segments count as missing although
// nothing has filled it: more than two time-outs of TCP_RTO_MIN 200 ms with back-off
// (0.2 + 0.4 s), so that at least one retransmission was lost, too.
const StallAge = time.Second

// Expire decides what the passing of time decides: holes that stay open, DNS queries that
// stay unanswered. The engine calls it at the end of each window, before the detectors judge.
func (t *Table) Expire(now capture.Instant) {
	t.dns.seal(now, t.send)
	keep := t.holed[:0]
	for _, i := range t.holed {
		tr := t.tr.at(i)
		c := t.conns.at(tr.conn)
		for s := range tr.side {
			t.countStalled(c, tr, Side(s), now, capture.Instant(StallAge))
		}
		if tr.side[0].n+tr.side[1].n > 0 {
			tr.at = len(keep)
			keep = append(keep, i)
		} else {
			tr.open = false
		}
	}
	t.holed = keep
	t.checkWriters(now)
}

// Seal begins a new window: forgets which paths were active, and enforces the caps.
func (t *Table) Seal(now capture.Instant) {
	t.leave()
	t.win++
	if !t.o.KeepClosed && t.win%sweepEvery == 0 {
		t.sweep(now)
	}
	if t.size() > t.o.MaxConns {
		t.evict(now)
	}
}

// size is how much of MaxConns is taken. The record of a connection's losses is as large as that of the connection; a quarter of
// the connections may have one, and what is more takes the place of others.
func (t *Table) size() int {
	return t.live + max(int(t.tr.n)-len(t.tr.free)-t.o.MaxConns/4, 0)
}

func (t *Table) sweep(now capture.Instant) {
	for i := range t.conns.n {
		c := t.conns.at(i)
		if c.inUse && c.closed && now.Sub(c.Last) > closedLinger {
			t.drop(c, now)
		}
	}
}

// evict brings the table down to 7/8 of its cap: closed connections first, then
// those longest silent.
func (t *Table) evict(now capture.Instant) {
	victims := make([]uint32, 0, t.live)
	for i := range t.conns.n {
		if t.conns.at(i).inUse {
			victims = append(victims, i)
		}
	}
	slices.SortFunc(victims, func(a, b uint32) int {
		x, y := t.conns.at(a), t.conns.at(b)
		if x.closed != y.closed {
			if x.closed {
				return -1
			}
			return 1
		}
		if x.Last != y.Last {
			return int(max(min(x.Last-y.Last, 1), -1))
		}
		return int(int64(x.Stream) - int64(y.Stream))
	})
	for _, i := range victims {
		if t.size() <= t.o.MaxConns*7/8 {
			break
		}
		c := t.conns.at(i)
		if !c.closed {
			t.Stats.Evicted++
		}
		t.drop(c, now)
	}
}

// drop ends a connection's record: closes what is open in it, hands out its row, frees it.
func (t *Table) drop(c *Conn, at capture.Instant) {
	t.finish(c, at, false)
	if c.OneWay() && c.IsEstablished() {
		t.Stats.OneWay++
	}
	t.sided = count(t.sided, c)
	if t.o.Row != nil {
		t.row(c)
	}
	t.remove(c)
	c.inUse = false
	if c.trouble != 0 {
		if tr := t.tr.at(c.trouble - 1); tr.open { // the last one takes its place
			last := t.holed[len(t.holed)-1]
			t.holed[tr.at] = last
			t.tr.at(last).at = tr.at
			t.holed = t.holed[:len(t.holed)-1]
		}
		t.tr.release(c.trouble - 1)
	}
	if p := t.Path(c); p != nil {
		if p.live--; p.live == 0 && !t.o.KeepClosed && p.win != t.win && len(t.pairs) > t.o.MaxPaths/2 {
			delete(t.pairs, [2]capture.Addr{p.A, p.B})
			p.inUse = false
			t.paths.release(p.Index)
		}
	}
	t.conns.release(c.index)
}

func (t *Table) row(c *Conn) {
	var tr *Trouble
	if c.trouble != 0 {
		tr = t.tr.at(c.trouble - 1)
	}
	var w *WiresharkCounts
	if t.o.Wireshark {
		counts := t.wireshark(c.index).counts()
		w = &counts
	}
	t.o.Row(c, tr, w)
}

// End decides at the end of the input what only time would have decided. No packet may follow.
func (t *Table) End() { t.dns.close(t.now, t.send) }

// Close calls End and ends the run: every connection's row is handed out, in stream order, and
// connections that are still open stay "open" in it.
func (t *Table) Close() {
	t.End()
	if t.o.Row == nil {
		return
	}
	idx := make([]uint32, 0, t.live)
	for i := range t.conns.n {
		if t.conns.at(i).inUse {
			idx = append(idx, i)
		}
	}
	slices.SortFunc(idx, func(a, b uint32) int { return int(t.conns.at(a).Stream) - int(t.conns.at(b).Stream) })
	for _, i := range idx {
		t.row(t.conns.at(i))
	}
}
