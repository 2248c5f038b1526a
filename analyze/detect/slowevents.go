package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// greeting is the kind of who waits to be greeted; nil if nobody ever was.
func (k *kinds) greeting() *kind {
	x, _ := k.known(greetingKind)
	return x
}

// answer takes the first byte of an answer to a request of the given size.
func (d *slowServer) answer(st *serverState, c *flow.Conn, e *flow.Event, size uint32) {
	k := st.kinds.of(size)
	if size&(moreSegments|greetingKind) == moreSegments {
		st.kinds.of(size &^ moreSegments).ignored()
	}
	since, last := e.Since, st.lastAt
	st.lastAt = e.At
	st.total++
	st.stages[1] += e.Dur
	o := st.overdue.Peek(c.Ref())
	if o != nil && o.at != since {
		o = nil
	}
	wait := e.Dur
	if c.Answers() == 1 {
		wait = max(wait-c.SlowOpening(), 0) // a path that is slow to open a connection is slow to carry a request, too
	}
	switch {
	case o != nil:
		wait = max(wait, e.At.Sub(o.at))
	case wait < d.slowAfter:
		if !e.ToNobody() { // else its client had left, and that is what counts
			k.answered(d.habit, e.At)
			st.fastCur++
		}
		st.time(since, wait, false)
		return
	}
	if size&greetingKind == 0 {
		st.waits.add(wait)
	}
	unusual := false
	if o != nil {
		unusual = o.usual
		st.overdue.Drop(c.Ref())
	} else if unusual = k.waits(); unusual {
		st.late(since, c, size)
	}
	if !unusual {
		st.bad++ // not a sign of trouble, but nothing is ruled out by it
		return
	}
	st.time(since, wait, true)
	k.run.ended(wait)
	// Many that wait are answered at once when a service goes on. Nothing was answered in between.
	if e.At.Sub(last) >= d.slowAfter {
		st.ended = stop{since: last, from: max(last, since), to: e.At}
	}
	if st.ended.to != 0 && since < st.ended.to && e.At.Sub(st.ended.to) < d.slowAfter {
		st.ended.flows++
		if st.ended.flows > 1 {
			st.stop(st.ended)
		}
	}
}

// abandoned takes a client that closed before it got an answer. It gave up if it waited longer than
// its like had to before; where nothing is known of them, longer than what no program calls a time-out.
func (d *slowServer) abandoned(st *serverState, c *flow.Conn, e *flow.Event) {
	if c.Unacked(flow.Client) || c.Unheard(flow.Server) {
		return // nobody knows whether the request arrived, or whether it was answered
	}
	if e.Dur >= d.patience {
		if st.left++; st.leftAt == 0 {
			st.leftAt = c.Outstanding()
		}
		st.leftTo = e.At
		if !e.ByReset() && len(st.half) < maxPending {
			st.half = append(st.half, leftBehind{c.Ref(), e.At})
		}
	}
	size := request(c, c.Outstanding())
	if o := st.overdue.Peek(c.Ref()); o != nil && o.at == c.Outstanding() {
		size = o.size // it has sent more since, and waits all the same
	}
	k := st.kinds.of(size)
	if !k.usual || st.before.Empty() || e.Dur.Seconds() <= max(d.factor*st.before.Quantile(0.95), st.before.Quantile(0.99)) {
		if e.Dur >= d.patience {
			st.apartTo = e.At
		}
		return
	}
	o := st.overdue.Get(c.Ref())
	if o == nil {
		return
	}
	if o.at != c.Outstanding() {
		*o = overdueRequest{at: c.Outstanding(), size: k.size, usual: true}
		st.late(o.at, c, k.size)
	}
	o.gaveUp = true
	st.gaveUp.Add(1, 0, o.at)
	st.time(o.at, e.Dur, true)
	k.run.ended(e.Dur)
	st.stages[1] += e.Dur
}

// closed takes the end of a connection.
func (d *slowServer) closed(st *serverState, c *flow.Conn, e *flow.Event) {
	ref := c.Ref()
	if c.Answers() > 0 && c.Outstanding() == 0 && st.paused.Peek(ref) == nil && e.At.Sub(c.LastData(flow.Server)) < d.slowAfter {
		// An end says less than a next request: what was cut short ends as well.
		if k := st.kinds.of(c.RequestLen()); !k.cut(c, d.habit) {
			k.whole(c.AnswerBytes())
		}
	}
	if o := st.overdue.Peek(ref); o != nil && o.usual && !o.gaveUp && o.size == greetingKind {
		st.unmet(c, o, e.At)
	}
}

// look finds the requests that have waited for too long by now, and forgets those that have been answered.
func (d *slowServer) look(w *analyze.Window, st *serverState) {
	st.overdue.Each(func(r flow.Ref, o *overdueRequest) bool {
		c := w.Flows.Lookup(r)
		if o.size == greetingKind {
			if c != nil && o.usual && !o.gaveUp && c.Closing(flow.Client) {
				st.unmet(c, o, w.End)
			}
			return c != nil && !c.Closed() && c.Bytes(flow.Client)+c.Bytes(flow.Server) == 0
		}
		return c != nil && !c.Closed() && c.Outstanding() == o.at // nobody waits on a connection that has ended
	})
	keep := st.open[:0]
	for i := range st.open {
		x := &st.open[i]
		c := w.Flows.Lookup(x.ref)
		if c == nil {
			continue
		}
		age := w.End.Sub(x.at)
		switch {
		case x.at < w.Flows.Restated(): // how long it has waited is not known
			continue
		case x.size == greetingKind:
			if c.Closed() || c.Bytes(flow.Client)+c.Bytes(flow.Server) > 0 {
				continue
			}
		case c.Outstanding() != x.at:
			continue
		default:
			age = x.age(c, w.End)
		}
		// What has not arrived is not the program's to answer; what it answers shows only if the capture holds its side.
		if age < d.slowAfter || c.Unacked(flow.Client) || c.Unheard(flow.Server) {
			keep = append(keep, *x)
			continue
		}
		if o := st.overdue.Get(x.ref); o != nil && o.at != x.at {
			size := x.size
			if size != greetingKind {
				size = request(c, x.at)
			}
			*o = overdueRequest{at: x.at, size: size, usual: st.kinds.late(size)}
			if o.usual {
				st.late(x.at, c, size)
			}
		}
	}
	st.open = keep
	n := 0
	for _, x := range st.half {
		c := w.Flows.Lookup(x.ref)
		switch {
		case c == nil || c.Closed():
		case w.End.Sub(x.at) < d.slowAfter:
			st.half[n] = x
			n++
		default:
			st.unclosed++
		}
	}
	st.half = st.half[:n]
	d.transfers(w, st)
}

// transfers finds answers that stand still in the middle: shorter than every answer to such a request
// before, all of it acknowledged, the client ready for more; and those that go on although nobody asked.
func (d *slowServer) transfers(w *analyze.Window, st *serverState) {
	n := 0
	for _, x := range st.answers {
		c := w.Flows.Lookup(x.ref)
		switch {
		case c == nil, c.Closed(), c.Requests() != x.n, c.LastData(flow.Server) <= w.Flows.Restated():
		case w.End.Sub(c.LastData(flow.Server)) < d.slowAfter:
			if x.rest && !c.Closing(flow.Server) { // its last words are no push (TLS: close_notify)
				st.kinds.of(x.size).went()
			}
			x.rest = false
			st.answers[n] = x
			n++
		default:
			if c.Unacked(flow.Server) || c.WindowClosed(flow.Client) {
				continue
			}
			if k := st.kinds.of(x.size); !k.cut(c, d.habit) || k.pushes() {
				if n < maxPending/2 { // else whole answers on idle connections would take all the room
					x.rest = true
					st.answers[n] = x
					n++
				}
				continue
			}
			if at := st.paused.Get(x.ref); at != nil && *at == 0 {
				*at = c.LastData(flow.Server)
				st.late(*at, c, x.size)
			}
		}
	}
	st.answers = st.answers[:n]
	st.paused.Each(func(r flow.Ref, at *capture.Instant) bool {
		c := w.Flows.Lookup(r)
		stands := c != nil && !c.Closed() && c.LastData(flow.Server) == *at
		if !stands {
			st.recent.add(*at, w.End.Sub(*at))
		}
		return stands
	})
	st.stages[2] += time.Duration(len(st.paused.Keys)) * analyze.WindowLength
}
