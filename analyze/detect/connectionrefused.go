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

// ConnectionRefused are the features of connection-refused. Times in seconds.
type ConnectionRefused struct {
	Refused      int     `json:"refused"`
	Unanswered   int     `json:"unanswered"`
	Attempts     int     `json:"attempts"`
	Share        float64 `json:"share"`
	ShareBefore  float64 `json:"share_before"`
	Baseline     float64 `json:"baseline"`
	ServedBefore int     `json:"served_before"`
	Lasting      float64 `json:"lasting"`
	Clients      int     `json:"clients"`
	Insisting    int     `json:"insisting"`
	RefuseDelay  float64 `json:"refuse_delay"`
	Class        string  `json:"class"`
	Foreign      int     `json:"foreign"`
	TTL          int     `json:"ttl"`
	UsualTTL     int     `json:"usual_ttl"`
	Failed       int     `json:"failed"`
	Worst        int     `json:"worst"`
	Listener     string  `json:"listener"`
	Open         bool    `json:"open"`
}

// What the sockets of this host say of a port.
const (
	listenerNone = "none" // no program listens
	listenerIdle = "idle" // one does, and its accept queue is empty
	listenerBusy = "busy" // one does, and connections wait to be accepted
)

// connectionRefused follows, per listener, the connection requests of those for whom it is the service:
// calls of this host, and of hosts that serve others themselves, are dead-upstream's.
//
// A port that refuses is an outage only if it served before, or if many want it and insist.
// A scanner, which tries a port once or twice, is neither.
type connectionRefused struct {
	*measure.Dials
	sockets  *measure.HostSockets
	scanners *measure.Scanners // whose attempts do not count; nil: nobody's
	states   measure.Services[listenerState]
	attempts int
	refused  int
	ignored  int
}

type listenerState struct {
	series  stat.Series // bad: refused or ignored; total: attempts
	fails   []failedAttempt
	stretch stat.Runs
	served  uint32          // connections accepted or served, ever
	heard   capture.Instant // the listener last sent a packet, other than RST
	insist  measure.Subjects[capture.Addr, insisting]
	late    []capture.Instant
	lastAt  capture.Instant
	// pile is how many connections were accepted since the newest answer, at answered: by a kernel whose program works
	// on none of them.
	pile     uint32
	answers  measure.Direction
	answered capture.Instant
	lastTry  capture.Instant // attempt
	failed   uint32          // attempts, ever
	ttl      uint8           // of its newest SYN-ACK
	took     capture.Instant // newest attempt that was accepted
	unserved int             // connections that were accepted, and have had no answer so far, as far as the input shows
}

type failedAttempt struct {
	measure.Failure
	client  capture.Addr
	foreign uint8 // TTL of the refusal, if the listener's answers bear another: usual
	usual   uint8
	piled   bool // others had been accepted before, and none was answered
	room    bool // of those that had been accepted hardly any still waited for an answer: the accept queue had room
}

// insisting is a client that tries again.
type insisting struct {
	first, last capture.Instant
	tries       uint32
}

const (
	// insistTries and insistFor tell a client that wants the service from one that looks whether
	// there is any: three attempts over more time than a restart takes.
	insistTries = 3
	insistFor   = 5 * time.Second
	// minPile is how many connections that are accepted and not answered tell a full accept queue from a host that has gone.
	minPile = 3
	// heardSlack is how much later than the first ignored SYN a listener that has gone silent may
	// still be heard: packets in flight. A listener whose accept queue is full ignores SYNs as well, but goes
	// on acknowledging on its open connections.
	heardSlack = time.Second
	// maxInsisting bounds the clients that are followed per listener.
	maxInsisting = 256
)

// heardEvents are signs of life of a listener beside its SYN-ACK.
var heardEvents = flow.Of(flow.SynAckRepeat, flow.Response, flow.HalfClosed, flow.Retransmit)

// fromServer reports whether the server has sent a packet, other than RST, with e.
func fromServer(e *flow.Event) bool {
	switch e.Kind {
	case flow.SynAckSent, flow.SynAckRepeat, flow.Response:
		return true
	case flow.HalfClosed:
		return e.Side == flow.Client // the server acknowledged the client's FIN
	case flow.Retransmit:
		return e.Side == flow.Server
	}
	return false
}

func newConnectionRefused() analyze.Detector {
	d := &connectionRefused{sockets: measure.NewHostSockets(), states: measure.NewServices[listenerState](measure.MaxPerDetector)}
	d.share(measure.NewDials())
	return d
}

// share makes d read x, which others may read, too.
func (d *connectionRefused) share(x *measure.Dials) {
	d.Dials = x
	x.Requests.Tell(d.outcome, nil, measure.Accepted, measure.Answered, measure.Refused, measure.Ignored)
}

func (d *connectionRefused) Spec() analyze.Spec {
	return analyze.Spec{Rule: "connection-refused", Features: ConnectionRefused{}, Events: flow.Of(flow.SynAckSent) | heardEvents | flow.Of(flow.Closed)}
}

// Measures implements analyze.Measurer.
func (d *connectionRefused) Measures() []analyze.Measure {
	return append(d.Dials.Measures(), d.sockets.Measures()...)
}

// listener is what the sockets say of the port of k; empty: they are not seen, or of another host.
func (d *connectionRefused) listener(w *analyze.Window, k capture.Endpoint) string {
	if d.sockets.Every.First == 0 || !w.Have.Has(analyze.Sockets) || !w.Local.Is(k.Addr) {
		return ""
	}
	switch p, listens := d.sockets.Port(k.Port); {
	case !listens:
		return listenerNone
	case p.Queue > 0:
		return listenerBusy
	}
	return listenerIdle
}

func (d *connectionRefused) Event(e *flow.Event) {
	c := e.Conn
	if c == nil {
		return
	}
	switch {
	case e.Kind == flow.Response:
		if st := d.states.Get(c); st != nil {
			st.pile, st.answered = 0, e.At
			if c.SynAnswered() && c.Answers() == 1 {
				st.unserved--
			}
		}
	case e.Kind == flow.HalfClosed && leftOlder(c):
		if st := d.states.Get(c); st != nil {
			st.unserved++
		}
	case e.Kind == flow.Closed && (c.SynAnswered() && c.Answers() == 0 || leftOlder(c)):
		if st := d.states.Get(c); st != nil {
			st.unserved--
		}
	}
	if fromServer(e) {
		if st := d.states.Get(c); st != nil {
			st.heard, st.lastAt = max(st.heard, e.At), e.At
			if e.Kind == flow.Response && !c.SynSeen() && c.Answers() == 1 {
				st.served++ // a connection from before the capture
			}
		}
	}
}

// leftOlder reports whether c is older than the input and its client closed it before the server said anything. It was accepted, and until the
// server closes it too it looks like one that nobody takes up.
func leftOlder(c *flow.Conn) bool {
	return !c.SynSeen() && c.Closing(flow.Client) && c.Bytes(flow.Server) == 0
}

func (d *connectionRefused) outcome(c *flow.Conn, o measure.Outcome, a *measure.Attempt, e *flow.Event) {
	if d.scanners.Is(a.Key.Client) {
		return
	}
	st := d.states.Get(c)
	if st == nil {
		return
	}
	st.lastAt, st.lastTry = max(st.lastAt, a.At), max(st.lastTry, a.At)
	d.attempts++
	switch o {
	case measure.Accepted:
		st.answers.Event(e)
		st.series.Add(0, 1, 0)
		st.stretch.Good()
		st.served++
		st.pile++
		if e.Kind == flow.SynAckSent {
			st.ttl = c.TTL(flow.Server)
		}
		st.unserved++
		st.took = max(st.took, a.At)
		return
	case measure.Answered:
		st.late = stat.AppendBounded(st.late, a.At, measure.MaxFails)
		st.served++
		st.unserved++
		return
	}
	if o == measure.Refused {
		d.refused++
	} else {
		d.ignored++
	}
	st.failed++
	if d.Callers.Judged && d.Callers.Is(a.Key.Client, a.Key.Server.Addr) {
		return
	}
	f := failedAttempt{Failure: measure.FailureOf(a, o, e, st.served), client: a.Key.Client,
		piled: st.pile >= minPile && a.At.Sub(st.answered) >= heardSlack, room: st.unserved < minPile}
	if f.Refused && e.Kind == flow.Refused && st.ttl != 0 && c.TTL(flow.Server) != st.ttl {
		f.foreign, f.usual = c.TTL(flow.Server), st.ttl
	}
	st.series.Add(1, 1, a.At)
	st.stretch.Bad(a.At)
	st.fails = measure.AppendFirst(st.fails, f)
	if st.insist.M == nil {
		st.insist = measure.NewSubjects[capture.Addr, insisting](maxInsisting)
	}
	if n := st.insist.Get(a.Key.Client); n != nil {
		if n.tries == 0 {
			n.first = a.At
		}
		n.tries++
		n.last = max(n.last, a.At)
	}
}

func (d *connectionRefused) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.Dials.Judge(w)
	d.states.Each(func(k capture.Endpoint, st *listenerState) bool {
		st.series.Roll()
		st.stretch.Roll()
		s := &st.series
		st.fails = slices.DeleteFunc(st.fails, func(f failedAttempt) bool { return f.At < s.Onset || s.Since.Bad == 0 })
		if s.Since.Bad == 0 {
			st.insist = measure.Subjects[capture.Addr, insisting]{}
			return w.End.Sub(st.lastAt) < measure.IdleState
		}
		if f, evidence := st.measure(d, k); f.Refused+f.Unanswered > 0 && !s.Over() {
			f.Listener = d.listener(w, k)
			emit(analyze.Symptom{Subject: measure.Service(k), Onset: s.Onset, Features: f, Evidence: evidence, LastTry: max(st.lastTry, s.LastTry(w.End)), Well: s.Well(w.End)})
		}
		return true
	})
}

func (st *listenerState) measure(d *connectionRefused, k capture.Endpoint) (f ConnectionRefused, evidence []analyze.Evidence) {
	s := &st.series
	f = ConnectionRefused{Attempts: int(s.Since.Total), ShareBefore: s.Before.Share(), Baseline: s.BeforeSpan,
		ServedBefore: int(st.served)}
	clients := measure.NewSubjects[capture.Addr, struct{}](measure.MaxFails)
	var delays []float64
	piled, room := 0, 0
	for i := range st.fails {
		x := &st.fails[i]
		if x.At < s.Onset || d.Callers.Is(x.client, k.Addr) || d.scanners.Is(x.client) {
			continue // or it was not yet known whose call this is, and that it is a scan
		}
		clients.Get(x.client)
		f.ServedBefore = min(f.ServedBefore, int(x.Before))
		if x.Refused {
			f.Refused++
			if x.foreign != 0 {
				f.Foreign++
				f.TTL, f.UsualTTL = int(x.foreign), int(x.usual)
			}
			delays = append(delays, x.Delay.Seconds())
		} else {
			f.Unanswered++
			piled += measure.Count(x.piled)
			room += measure.Count(x.room)
		}
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, x.Evidence)
		}
	}
	f.Refused, f.Unanswered = measure.OfAll(f.Refused, f.Unanswered, s.Since.Bad)
	// Unanswered requests count when the listener fell silent altogether, for a while. One that is
	// heard meanwhile has no room for more connections, and so has one whose kernel went on accepting for a while
	// after its program had ceased to answer: retransmission's. Unless it takes nobody, and nobody whom it had accepted still waits: then
	// its queue is not full, and new connections are turned away by a filter, or a table on the way that has no room for them.
	f.Lasting = st.stretch.Longest(s.Onset).Seconds()
	if f.Unanswered > 0 && (st.answers.Missing() || f.Lasting < insistFor.Seconds() || countSince(st.late, s.Onset) > 0 || 2*piled > f.Unanswered ||
		st.heard > s.Onset.Add(heardSlack) && (2*room < f.Unanswered || st.answered <= s.Onset.Add(heardSlack) || st.took > s.Onset.Add(heardSlack))) {
		f.Unanswered = 0
	}
	f.Open = f.Unanswered > 0 && st.heard > s.Onset.Add(heardSlack)
	f.Share = stat.Ratio(f.Refused+f.Unanswered, f.Attempts)
	f.Clients = len(clients.Keys)
	for _, n := range st.insist.All {
		if n.tries >= insistTries && n.last.Sub(n.first) >= insistFor {
			f.Insisting++
		}
	}
	if 2*f.Foreign <= f.Refused {
		f.TTL, f.UsualTTL = 0, 0
	}
	f.RefuseDelay = stat.Median(delays)
	f.Class = classRefused
	if f.Unanswered > f.Refused {
		f.Class = classSilent
	}
	return f, evidence
}

func (d *connectionRefused) Assess(*analyze.Window) analyze.Assessment {
	f := ConnectionRefused{Refused: d.refused, Unanswered: d.ignored, Attempts: d.attempts, Failed: d.refused + d.ignored,
		Share: stat.Ratio(d.refused+d.ignored, d.attempts),
		Class: classRefused}
	if d.ignored > d.refused {
		f.Class = classSilent
	}
	// The listener that fares worst of those that serve: among all attempts its failures would not be seen.
	d.states.Each(func(_ capture.Endpoint, st *listenerState) bool {
		if st.served > 0 {
			f.ServedBefore++
			f.Worst = max(f.Worst, int(st.failed))
		}
		return true
	})
	return analyze.Assessment{Assessable: d.attempts > 0, Features: f}
}
