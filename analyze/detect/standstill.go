package detect

import (
	"fmt"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
	"jindan/rules"
)

// Standstill are the features of standstill. Times in seconds.
type Standstill struct {
	Connections int     `json:"connections"`
	Still       int     `json:"still"`
	LongStill   float64 `json:"long_still"`
	Stuck       int     `json:"stuck"`
	Unanswered  int     `json:"unanswered"`
	LongWait    float64 `json:"long_wait"`
	Late        int     `json:"late"`
	LongLate    float64 `json:"long_late"`
	Shut        int     `json:"shut"`
	LongShut    float64 `json:"long_shut"`
	Owed        int     `json:"owed"`
	LongOwed    float64 `json:"long_owed"`
	Broken      int     `json:"broken"`
	LongBroken  float64 `json:"long_broken"`
	HalfOpen    int     `json:"half_open"`
	Mute        int     `json:"mute"`
	LongMute    float64 `json:"long_mute"`
	Wordless    int     `json:"wordless"`
	LongSilent  float64 `json:"long_silent"`
	Paused      int     `json:"paused"`
	PausedOf    int     `json:"paused_of"`
	Broke       int     `json:"broke"`
	LongBroke   float64 `json:"long_broke"`
	Waited      int     `json:"waited"`
	LongWaited  float64 `json:"long_waited"`
	Small       bool    `json:"small"`
}

// standstill notes connections that fared ill one by one, whatever the other rules make of them: that stood still with data
// outstanding, were never answered or only at a late repetition of their SYN, or closed their window for long. No input in which
// one did is healthy without a remark.
type standstill struct {
	*measure.Dials
	asks     measure.Askers    // whom dials knows it by
	scanners *measure.Scanners // whose attempts do not count; nil: nobody's
	still    measure.Subjects[stillSide, stillData]
	shut     measure.Subjects[stillSide, shutWindow]
	turns    measure.Conns[turns]
	halfOpen measure.Subjects[flow.Ref, struct{}]
	wordless measure.Services[wordless]
	sum      Standstill
	breaks   []pause // of answers in the middle, and before them
	some     bool    // onset and newest are valid
	onset    capture.Instant
	newest   capture.Instant
	evidence []analyze.Evidence

	minStill, minShut time.Duration
}

// wordless are the connections to one listener that ended after min_still and more without a byte of either side.
type wordless struct {
	n       int
	longest time.Duration
	since   capture.Instant // the first of them
	name    string
	said    bool // on others something was said
}

// turns are the answers on one connection.
type turns struct {
	spell                   // a request is owed an answer, or an answer has stopped since its newest data
	most    time.Duration   // that a request waited
	sent    uint32          // segments of the client, when the newest answer began
	last    capture.Instant // newest data of the server before its FIN, as of the last window, and how much it was in all
	bytes   uint64
	idle    bool // all of it was acknowledged then, and there was room for more
	stopped bool
	told    bool // of this connection, that it waited
}

const (
	// usualTurns is how many answers tell how long a connection's requests wait as a rule, and unusualTurn how many times as long is unusual.
	usualTurns, unusualTurn = 20, 20
	// moreTurns is how many segments its client must have sent in vain, the first included: who asks once may wait on purpose.
	moreTurns = 3
	// longAnswer is from how many segments on an answer, or an upload, is long. An answer that ends with a full segment is seldom complete then.
	longAnswer = 10
)

// stillSide is who sends the data that stands still, or who has closed its window.
type stillSide struct {
	ref  flow.Ref
	side flow.Side
}

// pause is a time in which an answer, or a greeting, did not come or did not go on, although nothing hindered it.
type pause struct {
	since, until capture.Instant
	name, what   string
	waited       bool // for its first byte
}

// maxBreaks bounds the pauses that are remembered: they are told in inputs of few connections.
const maxBreaks = 16

// spell is a time in which a connection fares ill in one way.
type spell struct {
	since capture.Instant
	told  bool
}

type stillData struct {
	spell
	acked uint64
	frame uint64
	name  string
	large bool // perhaps too large for the path
}

type shutWindow struct {
	spell
	name string
}

func newStandstill() analyze.Detector {
	d := &standstill{turns: measure.NewConns[turns](maxTrying), halfOpen: measure.NewSubjects[flow.Ref, struct{}](maxTrying), wordless: measure.NewServices[wordless](maxListeners), still: measure.NewSubjects[stillSide, stillData](maxTrying), shut: measure.NewSubjects[stillSide, shutWindow](maxTrying)}
	d.share(measure.NewDials())
	return d
}

// share makes d read x, which others may read, too.
func (d *standstill) share(x *measure.Dials) {
	d.Dials = x
	d.asks = x.Requests.Tell(d.outcome, nil, measure.Ignored, measure.Answered)
}

func (d *standstill) Configure(p rules.Params) {
	d.minStill, d.minShut = p.Duration("min_still"), p.Duration("min_shut")
}

func (d *standstill) Spec() analyze.Spec {
	return analyze.Spec{Rule: "standstill", Features: Standstill{},
		Events: flow.Of(flow.Retransmit, flow.Recovered, flow.ZeroWindow, flow.ZeroWindowEnd, flow.Response, flow.Greeting, flow.Closed,
			flow.SynAckRepeat)}
}

func (d *standstill) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	k := stillSide{c.Ref(), e.Side}
	switch e.Kind {
	case flow.Greeting:
		d.waited(c, c.Established(), e.At, "is greeted late: its server speaks first")
	case flow.Response:
		d.unanswered(c, e.At.Add(-e.Dur), e.At, "an upload is answered late")
		if x := d.turns.Get(c.Ref()); x != nil {
			d.owed(c, x, e.Since, e.At)
			*x = turns{most: max(x.most, e.Dur), sent: c.Segments(flow.Client), told: x.told}
		}
	case flow.Closed:
		if c.Outstanding() != 0 && e.Ended() {
			d.unanswered(c, c.RequestLast(), e.At, "an upload has no answer when the connection ends")
		}
		if x := d.turns.Peek(c.Ref()); x != nil {
			if c.Outstanding() != 0 {
				d.owed(c, x, x.since, e.At)
			} else if e.Side == flow.Client {
				d.stops(c, x, e.At)
			}
			d.turns.Drop(c.Ref())
		}
		d.silent(c, e)
	case flow.SynAckRepeat:
		// Its client asks again: it has not got the answer, or not been heard.
		if e.Dur >= measure.IgnoredAfter && c.SynTries() > 0 && !c.IsEstablished() && d.halfOpen.Peek(c.Ref()) == nil && d.halfOpen.Get(c.Ref()) != nil {
			d.sum.HalfOpen++
			d.touch(e.At)
			d.note(e.At.Add(-e.Dur), c.String(), e.Frame, "a handshake that is never completed: SYN and SYN-ACK come again")
		}
	case flow.Retransmit:
		if e.Class == flow.Spurious || e.Class == flow.ClosedWindow || e.Len == 0 || c.Closed() {
			return
		}
		// Where the other side is not seen, only that a segment of long ago comes again tells that nothing has acknowledged it.
		if c.OneWay() && e.At.Sub(e.Since) < d.minStill {
			return
		}
		x := d.still.Get(k)
		switch acked := c.Acked(e.Side); {
		case x == nil:
			return
		case x.since == 0:
			*x = stillData{spell: spell{since: e.Since}, acked: acked, frame: e.Frame, name: c.String(), large: e.IPLen > flow.SmallSize}
		case acked > x.acked: // the one before was told at the end of the last window, or was short
			d.stood(x, c.Heard(e.Side.Other()))
			*x = stillData{spell: spell{since: max(e.Since, c.Heard(e.Side.Other()))}, acked: acked, frame: e.Frame, name: x.name}
		}
	case flow.Recovered:
		if x := d.still.Peek(k); x != nil && x.since != 0 {
			d.stood(x, e.At)
			*x = stillData{}
		}
	case flow.ZeroWindow:
		if x := d.shut.Get(k); x != nil {
			*x = shutWindow{spell: spell{since: e.At}, name: c.String()}
		}
	case flow.ZeroWindowEnd:
		if x := d.shut.Peek(k); x != nil && x.since != 0 {
			d.closed(x, e.At)
			*x = shutWindow{}
		}
	}
}

// silent notes a connection that ended without a word.
func (d *standstill) silent(c *flow.Conn, e *flow.Event) {
	x := d.wordless.Get(c)
	if x == nil {
		return
	}
	if c.IsEstablished() && c.Bytes(flow.Client)+c.Bytes(flow.Server) > 0 {
		x.said = true
	}
	// The first of both to close ends the silence.
	end := e.At
	for _, s := range [2]flow.Side{flow.Client, flow.Server} {
		if fin := c.FinAt(s); fin != 0 {
			end = min(end, fin)
		}
	}
	wait := end.Sub(c.Established())
	if x.said || !e.Ended() || c.Established() == 0 || c.OneWay() || wait < d.minStill {
		return
	}
	if x.n++; x.n == 1 {
		x.since, x.name = c.Established(), c.String()
	}
	x.longest = max(x.longest, wait)
}

// wordlessOnes notes the listeners all of whose connections ended so: a greeting that never comes, or clients that only look whether the port is open.
func (d *standstill) wordlessOnes(w *analyze.Window) {
	d.wordless.Each(func(_ capture.Endpoint, x *wordless) bool {
		if x.n > 0 && !x.said {
			d.sum.Wordless += x.n
			d.sum.LongSilent = max(d.sum.LongSilent, x.longest.Seconds())
			d.touch(w.End)
			d.note(x.since, x.name, 0, "is opened, and closed after long without a byte of either side")
		}
		return true
	})
}

// stood notes that x stands still at at.
func (d *standstill) stood(x *stillData, at capture.Instant) {
	if at.Sub(x.since) >= d.minStill && d.lasts(&x.spell, at, &d.sum.LongStill, &d.sum.Still) {
		d.note(x.since, x.name, x.frame, "stands still: data outstanding, nothing of it is acknowledged")
	}
}

// stuck counts the connections that are older than the input, and stand still to its end. Of what dead-connection says nothing:
// whether smaller segments would pass it cannot tell of them, or nothing else of the silent host is in the input.
func (d *standstill) stuck(w *analyze.Window) {
	for k, x := range d.still.All {
		c := w.Flows.Lookup(k.ref)
		if x.told && c != nil && !c.SynSeen() && c.Acked(k.side) == 0 && (x.large || c.OneWay() && !heardElse(w, c, k.side.Other(), x.since)) {
			d.sum.Stuck++
		}
	}
}

// owed notes that a request of c waits, or has waited, from since to at, if its connection's requests are answered far sooner as a rule.
func (d *standstill) owed(c *flow.Conn, x *turns, since, at capture.Instant) {
	if since == 0 || x.since != since || x.stopped {
		return
	}
	n := &d.sum.Owed
	if x.told {
		n = new(int)
	}
	if d.lasts(&x.spell, at, &d.sum.LongOwed, n) {
		x.told = true
		d.note(since, c.String(), 0, "requests get no answer, though their like were answered at once")
	}
}

// stops notes that an answer of c, all of which was acknowledged, has not gone on for long although its newest segment was a full one.
func (d *standstill) stops(c *flow.Conn, x *turns, at capture.Instant) {
	last := x.last
	if fin := c.FinAt(flow.Client); fin != 0 {
		at = fin
	}
	if last == 0 || x.bytes != c.Bytes(flow.Server) || at.Sub(last) < d.minShut || c.Outstanding() != 0 || c.Unacked(flow.Server) || c.WindowClosed(flow.Client) {
		return
	}
	if n, mss := c.AnswerBytes(), c.MSS(flow.Server); n < longAnswer*mss || n%mss != 0 {
		return
	}
	x.since, x.stopped = last, true
	if d.lasts(&x.spell, at, &d.sum.LongBroken, &d.sum.Broken) {
		d.note(last, c.String(), 0, "an answer stops after a full segment, though all of it was acknowledged")
	}
}

// goesOn notes that a long answer of c goes on in the window that begins at at, after it had stopped for long although all of it was acknowledged
// and nobody asked for anything in between.
func (d *standstill) goesOn(c *flow.Conn, x *turns, at capture.Instant) {
	more := c.Bytes(flow.Server) - x.bytes
	if more == 0 || x.last == 0 || !x.idle || at.Sub(x.last) < d.minShut || len(d.breaks) == maxBreaks {
		return
	}
	if n := c.AnswerBytes(); uint64(n) >= more+longAnswer*uint64(c.MSS(flow.Server)) {
		d.breaks = append(d.breaks, pause{x.last, at, c.String(), "an answer stops in the middle and goes on by itself, all of it acknowledged: its sender paused", false})
	}
}

// broke notes the pauses of answers, and the waits for them, in an input of few connections. In others they are nobody's question: a stream rests
// between two events.
func (d *standstill) broke(w *analyze.Window) {
	if !d.sum.Small {
		return
	}
	w.Flows.Live(func(c *flow.Conn) {
		if c.Outstanding() != 0 && !c.Closed() && c.Answers() > 0 { // else mute tells
			d.unanswered(c, c.RequestLast(), w.End, "an upload has no answer at the end")
		}
	})
	for _, p := range d.breaks {
		n, longest := &d.sum.Broke, &d.sum.LongBroke
		if p.waited {
			n, longest = &d.sum.Waited, &d.sum.LongWaited
		}
		*n++
		*longest = max(*longest, p.until.Sub(p.since).Seconds())
		d.touch(p.until)
		d.note(p.since, p.name, 0, p.what)
	}
}

// unanswered notes that an upload waits for its answer. A short request may be a poll, which waits on purpose.
func (d *standstill) unanswered(c *flow.Conn, since, at capture.Instant, what string) {
	if mss := c.MSS(flow.Client); c.RequestLen() >= mss && c.Bytes(flow.Client) >= longAnswer*uint64(mss) {
		d.waited(c, since, at, what)
	}
}

// waited notes the wait for the first byte of an answer or a greeting. What the server has not acknowledged stands still for another reason.
func (d *standstill) waited(c *flow.Conn, since, at capture.Instant, what string) {
	if since != 0 && at.Sub(since) >= d.minShut && len(d.breaks) < maxBreaks && !c.OneWay() && !c.Unacked(flow.Client) {
		d.breaks = append(d.breaks, pause{since, at, c.String(), what, true})
	}
}

// closed notes that the window x is closed at at.
func (d *standstill) closed(x *shutWindow, at capture.Instant) {
	if at.Sub(x.since) >= d.minShut && d.lasts(&x.spell, at, &d.sum.LongShut, &d.sum.Shut) {
		d.note(x.since, x.name, 0, "a receive window stays closed")
	}
}

// lasts counts x, which goes on at at, and reports whether it is new. Longest and number are those of its kind.
func (d *standstill) lasts(x *spell, at capture.Instant, longest *float64, number *int) (first bool) {
	*longest = max(*longest, at.Sub(x.since).Seconds())
	d.touch(at)
	if first = !x.told; first {
		x.told = true
		*number++
	}
	return first
}

// touch notes that something still goes on at at.
func (d *standstill) touch(at capture.Instant) {
	if !d.some {
		d.some, d.onset, d.newest = true, at, at
	}
	d.newest = max(d.newest, at)
}

func (d *standstill) note(at capture.Instant, name string, frame uint64, what string) {
	d.onset = min(d.onset, at)
	if len(d.evidence) < analyze.MaxEvidence {
		d.evidence = append(d.evidence, analyze.Evidence{At: at, Flow: name, Frames: measure.Frames(frame), Note: what})
	}
}

func (d *standstill) outcome(_ *flow.Conn, o measure.Outcome, a *measure.Attempt, e *flow.Event) {
	if d.scanners.Is(a.Key.Client) {
		return
	}
	switch o {
	case measure.Ignored:
		d.sum.Unanswered++
		d.touch(a.At)
		d.note(a.At, a.Evidence(0, "").Flow, a.Frame, "a SYN without an answer")
	case measure.Answered:
		wait := e.At.Sub(a.At)
		d.sum.Unanswered = max(d.sum.Unanswered-1, 0)
		d.sum.Late++
		d.sum.LongLate = max(d.sum.LongLate, wait.Seconds())
		d.touch(e.At)
		d.note(a.At, a.Evidence(0, "").Flow, a.Frame, fmt.Sprintf("the SYN was answered after %.0f s", wait.Seconds()))
	}
}

func (d *standstill) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	d.Requests.IgnoredOnes(w, d.asks, func(a *measure.Attempt, _ int, wait time.Duration) {
		if !d.scanners.Is(a.Key.Client) {
			d.sum.LongWait = max(d.sum.LongWait, wait.Seconds())
		}
	})
	d.still.Each(func(k stillSide, x *stillData) bool {
		c := w.Flows.Lookup(k.ref)
		switch {
		case c == nil || x.since == 0:
			return false
		case c.Acked(k.side) > x.acked:
			d.stood(x, c.Heard(k.side.Other()))
			return false
		}
		d.stood(x, c.Last)
		return !c.Closed()
	})
	d.shut.Each(func(k stillSide, x *shutWindow) bool {
		if c := w.Flows.Lookup(k.ref); c == nil || c.Closed() || x.since == 0 {
			return false
		}
		d.closed(x, w.End)
		return true
	})
	d.turns.Each(func(r flow.Ref, x *turns) bool {
		c := w.Flows.Lookup(r)
		if c == nil || c.Closed() {
			return false
		}
		if !c.Closing(flow.Server) {
			d.goesOn(c, x, w.End.Add(-analyze.WindowLength))
			x.last, x.bytes = c.LastData(flow.Server), c.Bytes(flow.Server)
			x.idle = !c.Unacked(flow.Server) && !c.WindowClosed(flow.Client)
		}
		if at := c.Outstanding(); at != 0 && at > w.Flows.Restated() && c.Answers() >= usualTurns && c.Segments(flow.Client)-x.sent >= moreTurns &&
			w.End.Sub(at) >= max(d.minStill, unusualTurn*x.most) && !c.Unacked(flow.Client) && !c.Unheard(flow.Server) &&
			!c.WindowClosed(flow.Server) { // else it has said that it takes no more: that is counted as such
			x.since = at
			d.owed(c, x, at, w.End)
		} else if w.Final && !c.Closing(flow.Server) {
			d.stops(c, x, w.End)
		}
		return true
	})
	d.halfOpen.Each(func(r flow.Ref, _ *struct{}) bool {
		c := w.Flows.Lookup(r)
		return c != nil && !c.Closed()
	})
	if w.Final {
		if d.sum.Small = measure.FewConns(w); d.sum.Small {
			d.stuck(w)
		}
		d.unrepeated(w)
		d.mute(w)
		d.wordlessOnes(w)
		d.paused(w)
		d.broke(w)
	}
	d.sum.Connections = int(min(w.Flows.Stats.Conns, 1<<31-1))
	if !d.some {
		return
	}
	if w.End.Sub(d.newest) > measure.IdleState {
		d.sum, d.some, d.evidence, d.breaks = Standstill{}, false, nil, nil
		return
	}
	emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectCapture}, Onset: d.onset, Features: d.sum, Evidence: d.evidence})
}

func (d *standstill) Assess(w *analyze.Window) analyze.Assessment {
	f := d.sum
	f.Connections = int(min(w.Flows.Stats.Conns, 1<<31-1))
	return analyze.Assessment{Assessable: f.Connections > 0, Features: f}
}
