package detect

import (
	"fmt"
	"math"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// deadKey is who fell silent: a listener, as all its clients see it or as one caller does; or its clients.
type deadKey struct {
	server capture.Endpoint
	client capture.Addr // the caller; zero: all clients
	silent flow.Side
}

// deadGroup are the connections that died of one silent side.
type deadGroup struct {
	list  measure.Subjects[deadSide, deadRecord]
	alive int // the most that were alive at a time
	fresh int
	heard capture.Instant // the silent side, first, on a connection that is alive, since the onset; 0: not yet
}

// deadRecord is a dead connection, or one that came back after a time.
type deadRecord struct {
	deadTry
	client, server capture.Endpoint
	opened         capture.Instant // its SYN
	healed         bool
	until          capture.Instant // healed: since then
	over           capture.Instant // nobody waits for it since: it came back, ended, or its sender has closed; 0: somebody does
}

// survivor is what silences connections of a caller have lived through.
type survivor struct {
	longest time.Duration
	at      capture.Instant
}

// key is the group of c whose side s is silent.
func (d *deadConnection) key(c *flow.Conn, s flow.Side) deadKey {
	k := deadKey{server: c.Server, silent: s}
	if s == flow.Server && d.Callers.Is(c.Client.Addr, c.Server.Addr) {
		k.client = c.Client.Addr
	}
	return k
}

// bury tells the group of c that c is dead, or still is.
func (d *deadConnection) bury(c *flow.Conn, s deadSide, x *deadTry) {
	g := d.groups.Get(d.key(c, s.silent))
	if g == nil {
		return
	}
	if g.list.M == nil {
		g.list = measure.NewSubjects[deadSide, deadRecord](maxDead)
	}
	if r := g.list.Get(s); r != nil && r.over == 0 {
		*r = deadRecord{deadTry: *x, client: c.Client, server: c.Server, opened: c.SynAt()}
	}
}

// over reports whether nobody waits for any of the connections any more.
func (g *deadGroup) over(now capture.Instant) bool {
	for _, r := range g.list.All {
		if r.over == 0 || now.Sub(r.over) < deadShown {
			return false
		}
	}
	return true
}

// lookAround finds out which connections of the groups are well, and which of the dead ones have come back.
func (d *deadConnection) lookAround(w *analyze.Window) {
	sums := measure.NewSubjects[deadKey, around](measure.MaxPerDetector)
	d.groups.Each(func(k deadKey, g *deadGroup) bool {
		a := sums.Get(k)
		a.list, a.clients = &g.list, measure.NewSubjects[capture.Addr, struct{}](maxDead)
		g.list.Each(func(s deadSide, r *deadRecord) bool {
			if c := w.Flows.Lookup(s.ref); !r.healed && c != nil && (c.Acked(s.silent.Other()) > r.acked ||
				r.probes == r.repeats && c.Packets(s.silent) != r.heard && !c.Closed()) {
				r.healed, r.until = true, c.Heard(s.silent)
			}
			if c := w.Flows.Lookup(s.ref); r.over == 0 && (r.healed || c == nil || c.Closed() || c.Closing(s.silent.Other())) {
				r.over = w.End
			}
			if w.End.Sub(max(r.last, r.until)) > deadLinger {
				return false
			}
			if a.onset == 0 || r.since < a.onset {
				a.onset = r.since
			}
			a.clients.Get(r.client.Addr)
			return true
		})
		return true
	})
	w.Flows.Live(func(c *flow.Conn) {
		for _, k := range [3]deadKey{{c.Server, capture.Addr{}, flow.Server}, {c.Server, c.Client.Addr, flow.Server}, {c.Server, capture.Addr{}, flow.Client}} {
			a := sums.Peek(k)
			if a == nil || c.OneWay() || c.Heard(k.silent) <= a.onset.Add(heardSlack) || a.list.Peek(deadSide{c.Ref(), k.silent}) != nil {
				continue
			}
			if c.Acked(k.silent.Other())+c.Bytes(k.silent) == 0 {
				continue // that something answers a SYN does not tell that the rest gets through
			}
			a.alive++
			if at := max(c.SynAt(), a.onset); a.heard == 0 || at < a.heard {
				a.heard = at
			}
			// Of the same client: that others get through says nothing about it.
			if c.SynAt() > a.onset && c.SynAnswered() && a.clients.Peek(c.Client.Addr) != nil {
				a.fresh++
			}
		}
	})
	for k, a := range sums.All {
		g := d.groups.M[k]
		g.alive, g.fresh = max(g.alive, a.alive), max(g.fresh, a.fresh)
		if g.heard == 0 {
			g.heard = a.heard
		}
	}
}

// around is what is seen around the dead connections of a group.
type around struct {
	list         *measure.Subjects[deadSide, deadRecord]
	clients      measure.Subjects[capture.Addr, struct{}] // those with a dead one
	onset        capture.Instant
	heard        capture.Instant // when the first of the living ones was opened, or the onset if that was before
	alive, fresh int
}

// measure sums up a group.
func (d *deadConnection) measure(w *analyze.Window, k deadKey, g *deadGroup) (f DeadConnection, onset capture.Instant, evidence []analyze.Evidence) {
	f = DeadConnection{Alive: g.alive, Fresh: g.fresh, To: k.server.String()}
	dead, first := 0, capture.Instant(math.MaxInt64)
	early := g.alive > 0 // a listener that goes on has not taken these
	for _, r := range g.list.All {
		first = min(first, r.since)
		if !r.healed && !(early && r.early) {
			dead++
		}
	}
	clients := measure.NewSubjects[capture.Addr, struct{}](maxDead)
	unreached, small := 0, false
	var repeats map[measure.Way]uint32
	var began capture.Instant
	g.list.Each(func(_ deadSide, r *deadRecord) bool {
		if early && r.early || r.healed && dead > 0 {
			f.Healed += measure.Count(r.healed)
			return true
		}
		until := r.last
		if r.healed {
			until = r.until
			f.Healed++
		}
		f.Discarded += measure.Count(r.discarded())
		f.SynAcks += measure.Count(r.synAcks)
		if unreached += measure.Count(r.early && !r.healed); r.early && r.opened > first {
			f.Opened++
		}
		if idle := r.idle.Seconds(); f.Connections == 0 || idle < f.Idle {
			f.Idle = idle
		}
		f.Connections++
		f.Repeats += int(r.repeats)
		f.Probes += int(r.probes)
		if r.begun && r.probes == 0 {
			f.Pause = max(f.Pause, r.pause.Seconds())
		}
		if r.probes > 0 {
			small = true // a probe is as small as a segment can be
		} else if f.Smallest == 0 || r.size < f.Smallest {
			f.Smallest = r.size
		}
		f.Silent = max(f.Silent, until.Sub(r.since).Seconds())
		clients.Get(r.client.Addr)
		if s := d.survived.Peek(measure.CallKey{Client: r.client.Addr, Server: r.server}); s != nil {
			f.Survived = max(f.Survived, s.longest.Seconds())
		}
		if onset == 0 || r.since < onset {
			onset = r.since
		}
		if began == 0 || r.began < began {
			began = r.began
		}
		if repeats == nil {
			repeats = make(map[measure.Way]uint32)
		}
		from, to := r.client.Addr, r.server.Addr
		if k.silent == flow.Client {
			from, to = to, from
		}
		if r.probes < r.repeats {
			repeats[measure.Way{From: from, To: to}]++ // one segment, however often it came
		}
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, r.evidence())
		}
		return true
	})
	if f.Connections == 0 {
		return f, 0, nil
	}
	if small {
		f.Smallest = 0
	}
	f.Clients = len(clients.Keys)
	if k.silent == flow.Client {
		f.To = ""
		if f.Clients == 1 {
			f.To = clients.Keys[0].String()
		}
	}
	f.Share = stat.Ratio(f.Connections, f.Connections+f.Alive)
	f.OtherLoss = otherLoss(w, repeats)
	minIdle := w.Params.Duration("min_idle").Seconds()
	switch {
	case dead == 0:
		f.Class = deadOutage
	case 2*f.Discarded > f.Connections:
		f.Class = deadDiscarded
	case k.silent == flow.Client:
		f.Class = deadVanished
	case f.Alive == 0 && 2*unreached > f.Connections && f.Opened+f.SynAcks > 0:
		f.Class = deadUnreached
	case f.Alive == 0:
		f.Class = deadGone
	case f.Connections >= w.Params.Int("many") && f.Idle < minIdle && f.Fresh == f.Alive && g.heard.Sub(onset) >= w.Params.Duration("min_outage"):
		// None that was open has survived, and until those that are alive were opened nothing was heard.
		f.Class, f.Away = deadGone, g.heard.Sub(onset).Seconds()
	case f.Idle >= minIdle && f.Survived < f.Idle: // the others live on, or are fresh
		f.Class = deadForgotten
	default:
		f.Class = deadSome
	}
	return f, max(began, w.First), evidence
}

// otherLoss is the share of segments that the directions lost beside the repetitions in vain.
func otherLoss(w *analyze.Window, repeats map[measure.Way]uint32) float64 {
	var lost, sent uint32
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			n, ok := repeats[measure.Way{From: p.Host(i), To: p.Host(1 - i)}]
			if !ok {
				continue
			}
			ps := &p.Side[i]
			lost += ps.Retransmits + ps.Lost - min(n, ps.Retransmits+ps.Lost)
			sent += ps.Segments + ps.Lost - min(n, ps.Segments)
		}
	})
	return stat.Ratio(min(lost, sent), max(sent, 1))
}

func (r *deadRecord) evidence() analyze.Evidence {
	what := fmt.Sprintf("data sent again %d times", r.repeats)
	if r.probes == r.repeats {
		what = fmt.Sprintf("probed %d times", r.probes)
	}
	e := analyze.Evidence{At: r.since, Flow: r.client.String() + " > " + r.server.String(),
		Note: fmt.Sprintf("%s in %.1f s, nothing comes back", what, r.last.Sub(r.since).Seconds())}
	if r.discarded() {
		e.Note = fmt.Sprintf("%s in %.1f s, %d times answered by the acknowledgement of what came before",
			what, r.last.Sub(r.since).Seconds(), r.echoes)
	}
	if r.healed {
		e.Note = fmt.Sprintf("%s, nothing came back for %.1f s", what, r.until.Sub(r.since).Seconds())
	}
	for _, f := range r.frames {
		if f != 0 && (len(e.Frames) == 0 || e.Frames[0] != f) {
			e.Frames = append(e.Frames, f)
		}
	}
	return e
}

func (k deadKey) subject() analyze.Subject {
	s := measure.End{Server: k.server, Client: k.client}.Subject()
	if k.silent == flow.Client {
		s.Direction = "outbound"
	}
	return s
}
