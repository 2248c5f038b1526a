package detect

import (
	"cmp"
	"slices"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// mute notes listeners that took requests and have answered nobody on any connection that is remembered, though some wait for long.
func (d *standstill) mute(w *analyze.Window) {
	type waiting struct {
		n       int
		since   capture.Instant
		name    string // of the connection that waits longest
		answers bool
	}
	of, least := make(map[capture.Endpoint]*waiting), w.Params.Duration("min_mute")
	w.Flows.Live(func(c *flow.Conn) {
		at := c.Outstanding()
		said := c.Bytes(flow.Server) > 0
		if !said && at == 0 {
			return
		}
		x := of[c.Server]
		if x == nil {
			x = new(waiting)
			of[c.Server] = x
		}
		x.answers = x.answers || said
		if at == 0 || c.Closed() || w.End.Sub(at) < least || at <= w.Flows.Restated() || c.Unacked(flow.Client) || c.Unheard(flow.Server) || c.OneWay() {
			return
		}
		if x.n++; x.since == 0 || at < x.since {
			x.since, x.name = at, c.String()
		}
	})
	var mute []*waiting
	for _, x := range of {
		if !x.answers && (x.n >= w.Params.Int("few") || d.sum.Small && x.n > 0) {
			mute = append(mute, x)
		}
	}
	slices.SortFunc(mute, func(a, b *waiting) int { return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.name, b.name)) })
	for _, x := range mute {
		d.sum.Mute += x.n
		d.sum.LongMute = max(d.sum.LongMute, w.End.Sub(x.since).Seconds())
		d.touch(w.End)
		d.note(x.since, x.name, 0, "requests are taken, and nobody is answered")
	}
}

// paused notes ends of writes that came a time-out after their full segments, as those do that are lost before the capture point and sent again.
func (d *standstill) paused(w *analyze.Window) {
	d.sum.Paused, d.sum.PausedOf = lateEnds(w)
	if d.sum.Paused < w.Params.Int("min_paused") || float64(d.sum.Paused) < w.Params.Float("min_pauses")*float64(d.sum.PausedOf) {
		d.sum.Paused = 0
		return
	}
	d.touch(w.End)
}

// lateEnds counts the segments, of less than full size, that end a write of several, and those of them that came a retransmission time-out
// late.
func lateEnds(w *analyze.Window) (late, all int) {
	measure.BothWays(w, func(p *flow.Path) {
		for i := range p.Side {
			bins := p.Side[i].Bin()[:]
			for len(bins) > flow.Bare+1 && bins[len(bins)-1].Shown == 0 {
				bins = bins[:len(bins)-1]
			}
			for j := flow.Bare + 1; j < len(bins)-1; j++ { // the last one holds the full segments
				late += int(bins[j].Late)
				all += int(bins[j].Shown)
			}
		}
	})
	return late, all
}

// unrepeated notes data that nothing acknowledges to the end, although nobody repeats it in this capture.
func (d *standstill) unrepeated(w *analyze.Window) {
	w.Flows.Live(func(c *flow.Conn) {
		if c.Closed() || c.OneWay() {
			return
		}
		for _, s := range [2]flow.Side{flow.Client, flow.Server} {
			k := stillSide{c.Ref(), s}
			if x := d.still.Peek(k); x != nil || d.shut.Peek(stillSide{c.Ref(), s.Other()}) != nil || c.Acked(s) >= c.Bytes(s) {
				continue
			}
			x := stillData{spell: spell{since: c.Last}, name: c.String()}
			d.stood(&x, w.End)
		}
	})
}
