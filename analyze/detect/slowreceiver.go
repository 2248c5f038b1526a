package detect

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// SlowReceiver are the features of slow-receiver. Times in seconds.
type SlowReceiver struct {
	Receiver    string  `json:"receiver"`
	Class       string  `json:"class"`
	ZeroWindows int     `json:"zero_windows"`
	Flows       int     `json:"flows"`
	FlowsTotal  int     `json:"flows_total"`
	Clients     int     `json:"clients"`
	Closed      float64 `json:"closed"`
	Longest     float64 `json:"longest"`
	ClosedShare float64 `json:"closed_share"`
	ShareBefore float64 `json:"share_before"`
	Baseline    float64 `json:"baseline"`
	Small       bool    `json:"small"`
	Squeezed    int     `json:"squeezed"`
	Narrow      int     `json:"narrow"`
	Widest      int     `json:"widest"`
	NarrowFor   float64 `json:"narrow_for"`
	Unscaled    bool    `json:"unscaled"`
	Unread      bool    `json:"unread"`
	Unserved    int     `json:"unserved"`
	UnservedFor float64 `json:"unserved_for"`
	ServedSince int     `json:"served_since"`
	Opening     int     `json:"opening"`
}

// slowReceiver measures, per program that receives, how long its connections stand with a closed
// window. A program is a listener, or a host as the client of one; several clients of one service hold its workers together. Closed for
// less than a second is how TCP paces a sender; that counts as time closed, but does not begin anything.
type slowReceiver struct {
	states measure.Subjects[measure.End, receiverState]
	served measure.Services[unserved]
	long   time.Duration // the rule's min_longest, as of the last window
	conns  int
	all    int // windows that closed
	worst  time.Duration
}

type receiverState struct {
	conns   measure.Subjects[flow.Ref, receiverConn]
	life    time.Duration   // of ended connections, since the onset
	before  stallTime       // until the onset
	spells  []closedSpell   // newest closings that ended
	longest closedSpell     // of all that ended
	onset   capture.Instant // first long closing of this episode
	lastBad capture.Instant
	lastAt  capture.Instant
	began   capture.Instant
	narrow  narrowWindow
	total   int // connections of the program since the onset: open then, and new since
}

// narrowWindow is what was sent into windows that have room for less than a segment.
type narrowWindow struct {
	conns       measure.Subjects[flow.Ref, int]
	segments    int
	widest      uint32
	unscaled    bool
	unread      bool
	first, last capture.Instant
	evidence    []analyze.Evidence
}

func (n *narrowWindow) add(e *flow.Event) {
	if n.first == 0 || e.At.Sub(n.last) >= measure.Episode {
		*n = narrowWindow{first: e.At, conns: measure.NewSubjects[flow.Ref, int](maxReceiverConns)}
	}
	n.last = e.At
	c := n.conns.Get(e.Conn.Ref())
	if c == nil {
		return
	}
	if *c++; *c == 1 {
		return // one answer may be just as long as the window
	}
	if *c == 2 && len(n.evidence) < analyze.MaxEvidence {
		n.evidence = append(n.evidence, analyze.Evidence{At: e.At, Flow: e.Conn.String(), Frames: []uint64{e.Frame},
			Note: "cut to fit a window smaller than a segment"})
	}
	n.segments++
	n.widest = max(n.widest, e.Window())
	n.unscaled, n.unread = e.Conn.Unscaled(), e.Unread()
}

type stallTime struct{ closed, life time.Duration }

func (t *stallTime) add(o stallTime) {
	t.closed += o.closed
	t.life += o.life
}

// share is how much of their life windows were closed.
func (t *stallTime) share() float64 {
	return min(float64(t.closed)/float64(max(t.life, analyze.WindowLength)), 1)
}

type receiverConn struct {
	first  capture.Instant
	zeroAt capture.Instant // the window is closed since; 0: it is open
	note   analyze.Evidence
	stuck  bool // it was closed for long
	over   bool
	opens  bool // it is closed since the handshake
}

// closedSpell is one closing of a window.
type closedSpell struct {
	at       capture.Instant
	d        time.Duration
	ref      flow.Ref
	client   capture.Addr
	opens    bool
	evidence analyze.Evidence
}

const (
	// longClosed is the rule's threshold until the first window is judged.
	longClosed = time.Second
	// maxReceiverConns bounds the connections that are followed per receiver.
	maxReceiverConns = 4096
)

func newSlowReceiver() analyze.Detector {
	return &slowReceiver{states: measure.NewSubjects[measure.End, receiverState](1024), served: measure.NewServices[unserved](maxListeners), long: longClosed}
}

func (d *slowReceiver) Spec() analyze.Spec {
	return analyze.Spec{Rule: "slow-receiver", Features: SlowReceiver{},
		Events: flow.Of(flow.ConnNew, flow.ZeroWindow, flow.ZeroWindowEnd, flow.Closed, flow.Squeezed, flow.Request, flow.Response)}
}

func (d *slowReceiver) Event(e *flow.Event) {
	c := e.Conn
	switch e.Kind {
	case flow.ConnNew:
		d.conns++
		for _, side := range [2]flow.Side{flow.Client, flow.Server} {
			if st := d.states.Peek(measure.EndOf(c, side)); st != nil && st.total > 0 {
				st.total++
			}
		}
	case flow.Closed:
		for _, side := range [2]flow.Side{flow.Client, flow.Server} {
			if st := d.states.Peek(measure.EndOf(c, side)); st != nil {
				if x := st.conns.Peek(c.Ref()); x != nil {
					x.over = true
				}
			}
		}
	case flow.Request:
		if u := d.served.Peek(c); u != nil {
			if u.requests++; u.requests == 1 {
				u.first = e.At
			}
		}
	case flow.Response:
		if u := d.served.Peek(c); u != nil {
			u.requests = 0
			u.since++
		}
	case flow.Squeezed:
		if st := d.states.Get(measure.EndOf(c, e.Side.Other())); st != nil {
			st.narrow.add(e)
			st.lastAt = e.At
		}
	case flow.ZeroWindow:
		st := d.states.Get(measure.EndOf(c, e.Side))
		if st == nil {
			return
		}
		if st.conns.M == nil {
			st.conns = measure.NewSubjects[flow.Ref, receiverConn](maxReceiverConns)
			st.began = c.First
		}
		st.lastAt = e.At
		d.all++
		if e.Side == flow.Client {
			if u := d.served.Get(c); u != nil {
				u.shut = e.At
			}
		}
		x := st.conns.Get(c.Ref())
		if x == nil || x.zeroAt != 0 {
			return
		}
		x.first, x.zeroAt, x.opens = c.First, e.At, c.SynSeen() && !c.IsEstablished()
		x.note = analyze.Evidence{At: e.At, Flow: c.String(), Note: "window closed"}
	case flow.ZeroWindowEnd:
		st := d.states.Peek(measure.EndOf(c, e.Side))
		if st == nil {
			return
		}
		x := st.conns.Peek(c.Ref())
		if x == nil || x.zeroAt == 0 {
			return
		}
		st.spells = stat.AppendBounded(st.spells, closedSpell{x.zeroAt, e.Dur, c.Ref(), c.Client.Addr, x.opens, x.note}, measure.MaxFails)
		if n := len(st.spells); n > 0 && st.spells[n-1].d > st.longest.d {
			st.longest = st.spells[n-1]
		}
		x.zeroAt = 0
		st.lastAt = e.At
		if e.Dur >= d.long {
			st.long(e.At.Add(-e.Dur), e.At)
			d.stuck(x, c, e.Side)
		}
		d.worst = max(d.worst, e.Dur)
	}
}

// stuck notes that a window of c was closed for long.
func (d *slowReceiver) stuck(x *receiverConn, c *flow.Conn, s flow.Side) {
	if u := d.served.Peek(c); u != nil && s == flow.Client && !x.stuck {
		u.since = 0
	}
	x.stuck = true
}

// long notes a closing that was long by now.
func (st *receiverState) long(from, now capture.Instant) {
	if st.onset == 0 {
		st.onset = from
	}
	st.onset = min(st.onset, from)
	st.lastBad = max(st.lastBad, now)
}

func (d *slowReceiver) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.long = w.Params.Duration("min_longest")
	for k, st := range d.states.All {
		for ref, x := range st.conns.All {
			if x.zeroAt != 0 && !x.over && w.End.Sub(x.zeroAt) >= d.long {
				st.long(x.zeroAt, w.End)
				if c := w.Flows.Lookup(ref); c != nil && k.Client != (capture.Addr{}) {
					d.stuck(x, c, flow.Client)
				}
			}
		}
	}
	d.count(w)
	together := measure.NewSubjects[capture.Endpoint, nonReaders](len(d.states.Keys))
	d.states.Each(func(k measure.End, st *receiverState) bool {
		closes := st.onset != 0 && w.End.Sub(st.lastBad) < measure.Episode
		few := measure.FewConns(w)
		if few && !closes && st.longest.d >= d.long { // who hands in one connection asks what happened to it, however well it went on
			st.calm(w)
			st.spells, st.total = append(st.spells, st.longest), 1
			st.life, st.before = w.End.Sub(st.longest.at), stallTime{}
			st.long(st.longest.at, st.longest.at.Add(st.longest.d))
			closes = true
		}
		narrow := st.narrow.segments > 0 && w.End.Sub(st.narrow.last) < measure.Episode
		if !closes {
			st.calm(w)
		}
		if !closes && !narrow {
			return w.End.Sub(st.lastAt) < measure.IdleState
		}
		f, evidence := st.measure(w, k, d.long)
		onset, filter := st.onset, "tcp.window_size == 0 && "
		// A probe of a closed window, too, is cut to what room there is (RFC 9293 §3.8.6.2.1).
		if narrow && (!closes || st.narrow.segments >= w.Params.Int("min_squeezed")) {
			f.Squeezed, f.Widest = st.narrow.segments, int(st.narrow.widest)
			for _, n := range st.narrow.conns.All {
				f.Narrow += measure.Count(*n > 1)
			}
			f.NarrowFor, f.Unscaled, f.Unread = st.narrow.last.Sub(st.narrow.first).Seconds(), st.narrow.unscaled, st.narrow.unread
			if !closes {
				onset, evidence, filter = st.narrow.first, st.narrow.evidence, ""
			}
		}
		f.Small = few
		if k.Client == (capture.Addr{}) {
			together.Get(k.Server).itself = true
		} else if closes {
			together.Get(k.Server).add(st, f, evidence)
		}
		x := analyze.Symptom{Subject: k.Subject(), Onset: onset, Features: f, Evidence: evidence, Filter: filter + measure.ServiceFilter(k.Server)}
		if x.Well = opened(w, onset, max(st.lastBad, st.narrow.last), f.Flows+f.Squeezed); few {
			x.Well, x.Until = 0, x.Well // it is told at the end of the input only
		}
		emit(x)
		st.forget()
		return true
	})
	d.served.Each(func(k capture.Endpoint, u *unserved) bool {
		x := together.Peek(k)
		if x == nil {
			return w.End.Sub(u.shut) < measure.IdleState
		}
		if x.f.Clients < 2 || x.itself {
			return true
		}
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: x.onset,
			Features: x.features(w, u), Evidence: x.evidence, Filter: "tcp.window_size == 0 && " + measure.ServiceFilter(k),
			Well: opened(w, x.onset, x.last, x.f.Flows)})
		return true
	})
}

// opened is since when no window is closed for long any more; 0: some are, or close again and again.
func opened(w *analyze.Window, onset, last capture.Instant, times int) capture.Instant {
	pause := w.End.Sub(last)
	if pause < maxReopen && !stat.Ceased(times, last.Sub(onset), pause) {
		return 0
	}
	return last
}

// maxReopen is for how long windows stay open at most between two closings of one trouble.
const maxReopen = 10 * time.Second

// count counts the open connections of receivers whose episode begins: it takes a walk through all.
func (d *slowReceiver) count(w *analyze.Window) {
	if !slices.ContainsFunc(d.states.Keys, func(k measure.End) bool { st := d.states.M[k]; return st.onset != 0 && st.total == 0 }) {
		return
	}
	open := measure.NewSubjects[measure.End, int](d.states.Limit)
	for k, st := range d.states.All {
		if st.onset != 0 && st.total == 0 {
			open.Get(k)
		}
	}
	w.Flows.Live(func(c *flow.Conn) {
		for _, side := range [2]flow.Side{flow.Client, flow.Server} {
			if n := open.Peek(measure.EndOf(c, side)); n != nil && !c.Closed() {
				*n++
			}
		}
	})
	for k, n := range open.All {
		d.states.M[k].total = max(*n, 1)
	}
}

// calm takes what was seen so far as the time before the next episode.
func (st *receiverState) calm(w *analyze.Window) {
	st.onset, st.life, st.total = 0, 0, 0
	for _, x := range st.spells {
		st.before.closed += x.d
	}
	st.spells = st.spells[:0]
	st.conns.Each(func(_ flow.Ref, x *receiverConn) bool {
		st.before.life += analyze.WindowLength
		return !x.over && (x.zeroAt != 0 || w.End.Sub(st.lastAt) < measure.Episode)
	})
}

// forget drops connections that have ended, but for what they add to the sum of lives.
func (st *receiverState) forget() {
	st.conns.Each(func(_ flow.Ref, x *receiverConn) bool {
		st.life += analyze.WindowLength
		return !x.over
	})
}

func (st *receiverState) measure(w *analyze.Window, k measure.End, long time.Duration) (f SlowReceiver, evidence []analyze.Evidence) {
	f = SlowReceiver{Receiver: k.Server.Addr.String(), Class: "listener", Baseline: max(st.onset.Sub(st.began), 0).Seconds()}
	if k.Client != (capture.Addr{}) {
		f.Receiver, f.Class = k.Client.String(), "client"
	}
	var closed, longest time.Duration
	stuck := measure.NewSubjects[flow.Ref, struct{}](maxReceiverConns)
	clients := measure.NewSubjects[capture.Addr, struct{}](maxReceiverConns)
	one := func(x *closedSpell) {
		if x.at.Add(x.d) < st.onset {
			return
		}
		f.ZeroWindows++
		closed += x.d
		longest = max(longest, x.d)
		if x.d >= long && stuck.Peek(x.ref) == nil {
			stuck.Get(x.ref)
			clients.Get(x.client)
			f.Opening += measure.Count(x.opens)
			if len(evidence) < analyze.MaxEvidence {
				evidence = append(evidence, x.evidence)
			}
		}
	}
	for i := range st.spells {
		one(&st.spells[i])
	}
	for ref, x := range st.conns.All {
		if x.zeroAt != 0 {
			if c := w.Flows.Lookup(ref); c != nil {
				one(&closedSpell{x.zeroAt, w.End.Sub(x.zeroAt), ref, c.Client.Addr, x.opens, x.note})
			}
		}
	}
	f.Flows, f.Clients, f.FlowsTotal = len(stuck.Keys), len(clients.Keys), max(st.total, len(stuck.Keys))
	f.Closed, f.Longest = closed.Seconds(), longest.Seconds()
	now := stallTime{closed, st.life}
	f.ClosedShare, f.ShareBefore = now.share(), st.before.share()
	return f, evidence
}

func (d *slowReceiver) Assess(w *analyze.Window) analyze.Assessment {
	for _, st := range d.states.All {
		for _, x := range st.conns.All {
			if x.zeroAt != 0 && !x.over {
				d.worst = max(d.worst, w.End.Sub(x.zeroAt))
			}
		}
	}
	return analyze.Assessment{Assessable: d.conns > 0, Features: SlowReceiver{FlowsTotal: d.conns, ZeroWindows: d.all, Longest: d.worst.Seconds()}}
}
