package detect

import (
	"math"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// AbnormalTermination are the features of abnormal-termination.
type AbnormalTermination struct {
	Resets      int     `json:"resets"`
	Connections int     `json:"connections"`
	Share       float64 `json:"share"`
	ShareBefore float64 `json:"share_before"`
	Baseline    float64 `json:"baseline"`
	Rate        float64 `json:"rate"`
	RateBefore  float64 `json:"rate_before"`
	Class       string  `json:"class"`
	LateAnswer  int     `json:"late_answer"`
	Abort       int     `json:"abort"`
	Idle        int     `json:"idle"`
	Overflow    int     `json:"overflow"`
	Timeout     int     `json:"timeout"`
	LateRequest int     `json:"late_request"`
	TurnedAway  int     `json:"turned_away"`
	NoAnswer    int     `json:"no_answer"`
	CutShort    int     `json:"cut_short"`
	Abrupt      int     `json:"abrupt"`
	ByClient    int     `json:"by_client"`
	ByServer    int     `json:"by_server"`
	Clients     int     `json:"clients"`
	FinDelay    float64 `json:"fin_delay"`
	Lasting     float64 `json:"lasting"`
	IdleAge     float64 `json:"idle_age"`
	IdleSpread  float64 `json:"idle_spread"`
	IdleLeast   float64 `json:"idle_least"`
	IdleSteady  bool    `json:"idle_steady"`
	Rejects     int     `json:"rejects"`
	Survived    float64 `json:"survived"`
	ForeignTTL  int     `json:"foreign_ttl"`
	Unknown     int     `json:"unknown"`
	More        bool    `json:"more"`
	Small       bool    `json:"small"`
	GivenUp     int     `json:"given_up"`
	WorstResets int     `json:"worst_resets"`
	WorstShare  float64 `json:"worst_share"`
	Regular     int     `json:"regular"`
}

// classInjected: the TTL says that somebody else made the resets than the host whose address they bear.
const classInjected = "INJECTED"

// abnormalTermination counts, per listener, connections that end by a RST in a way that no
// complete exchange does. Refused connection requests are connection-refused's and dead-upstream's.
type abnormalTermination struct {
	services measure.Services[resetState]
	resets   int
	// resetting counts the listeners with resets.
	resetting int
	closed    uint64
	givenUp   int
	abrupt    int           // see resetState
	patience  time.Duration // less is no giving up; known from the first window on
}

type resetState struct {
	series stat.Series
	recent []resetNote // bounded ring, oldest first
	// answers: a connection of it was answered. survived: the longest silence after which one was.
	answers  bool
	survived time.Duration
	// clean are the answered connections that ended with a FIN before the first that the server reset right after its answer: whether
	// that is its way of closing, or a process that dies in the middle, what it did before tells.
	clean  uint32
	abrupt bool
	steady capture.Instant // the first reset, where it has been so for as long as is known; 0: it began later
}

type resetNote struct {
	at      capture.Instant
	ended   capture.Instant // when the side that resets had closed, or at
	wait    time.Duration   // class-specific: silence, or request to FIN
	frame   uint64
	client  capture.Endpoint
	class   flow.Class
	side    flow.Side
	foreign bool
	rejects bool // what had just ended a silence
	turned  bool // by a server that had closed as soon as it had the connection, without a byte
	unknown bool // in the middle of an exchange, by a host that knows no such connection
}

// maxResets bounds the resets that one listener remembers one by one, some 300 kB, and maxResetting
// the listeners.
const (
	maxResets    = 4096
	maxResetting = 256
)

func newAbnormalTermination() analyze.Detector {
	return &abnormalTermination{services: measure.NewServices[resetState](measure.MaxPerDetector)}
}

func (d *abnormalTermination) Spec() analyze.Spec {
	return analyze.Spec{Rule: "abnormal-termination", Features: AbnormalTermination{},
		Events: flow.Of(flow.Reset, flow.Unanswered, flow.Closed, flow.Abandoned, flow.Response)}
}

func (d *abnormalTermination) Event(e *flow.Event) {
	if e.Kind == flow.Abandoned {
		if e.Dur >= d.patience {
			d.givenUp++
		}
		return
	}
	if e.Kind == flow.Response {
		end, silent := e.Conn.Idle()
		if end == 0 || end != e.Since { // Since: when the request began
			return
		}
		if st := d.services.Get(e.Conn); st != nil {
			st.survived = max(st.survived, silent)
		}
		return
	}
	if e.Kind == flow.Closed {
		if !e.Ended() || !e.Conn.IsEstablished() {
			return
		}
		d.closed++
		if st := d.services.Get(e.Conn); st != nil {
			st.series.Add(0, 1, 0)
			st.answers = st.answers || e.Conn.Answers() > 0
			if !st.abrupt && e.Class == flow.ClassNone && e.Conn.Answers() > 0 {
				st.clean++
			}
		}
		return
	}
	st := d.services.Get(e.Conn)
	if st == nil || e.Class == flow.ClosedUnanswered && !answering(st, e) {
		return
	}
	switch e.Class {
	case flow.ResetComplete:
		if !abrupt(e) {
			return
		}
		d.abrupt++
		if st.abrupt = true; st.clean < minClean {
			return
		}
	case flow.ResetRefused, flow.ClassNone:
		return
	}
	if e.Class != flow.ResetComplete {
		d.resets++
	}
	n := resetNote{at: e.At, class: e.Class, side: e.Side, client: e.Conn.Client, foreign: e.Foreign(), wait: e.Dur, frame: e.Frame,
		unknown: e.Class == flow.ResetAbort && e.Bare}
	onset := e.At
	n.ended = e.At
	if e.Class == flow.ResetLateRequest {
		n.ended = e.Conn.FinAt(e.Side)
		n.turned = turnedAway(e.Conn, n.ended)
	}
	end, _ := e.Conn.Idle()
	n.rejects = e.Class == flow.ResetIdle && end < e.At
	if e.Class == flow.ResetLateAnswer {
		n.wait = e.Conn.GaveUpAfter()
	}
	st.series.Add(1, 0, onset)
	if len(st.recent) == 0 {
		if d.resetting == maxResetting {
			return
		}
		d.resetting++
	}
	if len(st.recent) == maxResets {
		copy(st.recent, st.recent[1:])
		st.recent = st.recent[:maxResets-1]
	}
	st.recent = append(st.recent, n)
}

// minClean is how many connections without one tell that a server does not end its connections by a reset as a rule: one that does so in
// a fifth of them spares so many once in 1,000.
const minClean = 30

// abrupt reports whether the server resets right after its own data, all of which was acknowledged, where a FIN was due: it closes
// so on purpose (SO_LINGER 0), or its process has died in the middle of the answer.
func abrupt(e *flow.Event) bool {
	c := e.Conn
	return e.Side == flow.Server && c.Answers() > 0 && !c.Closing(flow.Client) && !c.Closing(flow.Server) &&
		e.At.Sub(c.LastData(flow.Server)) < time.Second
}

// turnedAway reports whether the server, which closed at a time, closed c as soon as it had it, without a byte: sooner than an idle one
// is closed (the shortest time limits in use are 2 s of gunicorn and 5 s of Apache and Node.js).
func turnedAway(c *flow.Conn, closed capture.Instant) bool {
	return c.SynSeen() && c.Bytes(flow.Server) == 0 && closed.Sub(c.SynAt()) < time.Second
}

// briefly is how long a connection lasts at most whose server rejects the first data that it gets: longer, and it is a
// stream that never gets an answer, of logs for example, and ends when its reader does.
const briefly = 10 * time.Second

// answering reports whether an answer could have been expected on the connection that ends.
func answering(st *resetState, e *flow.Event) bool {
	return st.answers || e.Conn.Answers() > 0 || e.Conn.SynSeen() && e.At.Sub(e.Conn.First) <= briefly
}

func (d *abnormalTermination) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.patience = w.Params.Duration("patience")
	d.services.Each(func(k capture.Endpoint, st *resetState) bool {
		if len(st.recent) == 0 {
			// Nothing ever went wrong: one total serves as the time before.
			st.series.Skip()
			return true
		}
		s := &st.series
		s.Cover()
		s.Roll()
		if s.Since.Bad == 0 {
			st.steady = 0
			return true
		}
		began := s.Onset
		if s.Locked {
			st.steady = 0
		} else {
			// The series counts all that it has seen, but finds the first of a few minutes only.
			if st.steady == 0 {
				st.steady = began
			}
			began = st.steady
		}
		checks := st.checks()
		cuts := float64(st.cuts()) >= w.Params.Float("much_share")*float64(s.Since.Total)
		restart := w.Params.Duration("restart")
		f, onset, evidence := st.tally(k, began, &checks, cuts, restart)
		if onset > began {
			// What came before is of another kind: a restart long before the answers were late is no part of it.
			f, _, evidence = st.tally(k, onset, &checks, cuts, restart)
		}
		if f.Resets == 0 {
			return true
		}
		// All numbers are of the same resets: those that are remembered one by one.
		f.More = len(st.recent) == maxResets
		f.Small = measure.FewConns(w)
		f.ShareBefore, f.Baseline = s.Before.Share(), s.BeforeSpan
		f.Connections = max(int(s.Since.Total), f.Resets)
		if f.Share = stat.Ratio(f.Resets, f.Connections); f.More {
			f.Share = s.Since.Share()
		}
		span := max(w.End.Sub(began).Seconds(), 1)
		f.Rate = float64(max(f.Resets, int(s.Since.Bad)-f.Regular)) / span
		if s.BeforeSpan > 0 {
			f.RateBefore = float64(s.Before.Bad) / s.BeforeSpan
		}
		if s.Passes() {
			return true
		}
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: max(began, onset), Features: f, Evidence: evidence, LastTry: s.LastTry(w.End),
			Filter: "tcp.flags.reset == 1 && " + measure.ServiceFilter(k)})
		return true
	})
}

// tally sums up the resets since a time; cuts: those right after an answer are among them; restart is how long a program is away for
// one. onset is the first of those with which the class that most have began, without a longer pause than that: what comes within the time of
// one restart is one event.
func (st *resetState) tally(k capture.Endpoint, since capture.Instant, checks *measure.Subjects[capture.Addr, []float64], cuts bool, restart time.Duration) (
	f AbnormalTermination, onset capture.Instant, evidence []analyze.Evidence,
) {
	var waits, idle []float64
	var byClass [32]int
	var firstOf [32]capture.Instant
	clients := measure.NewSubjects[capture.Addr, struct{}](maxResets)
	var ends []capture.Instant
	var last, begin, foreign capture.Instant
	for i := range st.recent {
		n := &st.recent[i]
		if n.at < since || n.class == flow.ResetComplete && !cuts {
			continue
		}
		if n.aborts() && checks.Peek(n.client.Addr) != nil {
			f.Regular++
			continue
		}
		if f.Resets++; f.Resets == 1 || n.at.Sub(last) >= restart {
			begin = n.at
		}
		last = max(last, n.at)
		f.CutShort += measure.Count(n.class == flow.ResetComplete)
		ends = append(ends, n.ended)
		if byClass[n.class]++; byClass[n.class] == 1 {
			firstOf[n.class] = begin
		}
		clients.Get(n.client.Addr)
		if n.side == flow.Client {
			f.ByClient++
		} else {
			f.ByServer++
		}
		if n.foreign {
			if f.ForeignTTL++; f.ForeignTTL == 1 {
				foreign = begin
			}
		}
		f.Unknown += measure.Count(n.unknown)
		f.TurnedAway += measure.Count(n.turned)
		switch n.class {
		case flow.ResetLateAnswer:
			waits = append(waits, n.wait.Seconds())
		case flow.ResetIdle:
			idle = append(idle, n.wait.Seconds())
			f.Rejects += measure.Count(n.rejects)
		}
		if len(evidence) < analyze.MaxEvidence {
			reset := measure.NoteAt(n.at, n.client, k, n.frame, endedBy(n.class))
			evidence = append(evidence, reset.Evidence())
		}
	}
	if f.Resets == 0 {
		return f, 0, nil
	}
	f.LateAnswer, f.Abort, f.Idle = byClass[flow.ResetLateAnswer], byClass[flow.ResetAbort], byClass[flow.ResetIdle]
	f.Overflow, f.Timeout = byClass[flow.ResetOverflow], byClass[flow.ResetTimeout]
	f.LateRequest, f.NoAnswer = byClass[flow.ResetLateRequest], byClass[flow.ClosedUnanswered]
	if 2*f.TurnedAway <= f.LateRequest {
		f.TurnedAway = 0
	}
	f.Clients, f.Lasting = len(clients.Keys), lasting(ends, restart).Seconds()
	f.FinDelay = stat.Median(waits)
	f.IdleAge = stat.Median(idle)
	f.IdleSpread = stat.Quantile(idle, 0.75) - stat.Quantile(idle, 0.25)
	if len(idle) > 0 {
		f.IdleLeast, f.Survived = slices.Min(idle), st.survived.Seconds()
		f.IdleSteady = f.IdleSpread <= f.IdleAge/10
	}
	most := 0
	for _, c := range []struct {
		class flow.Class
		name  string
	}{{flow.ResetLateAnswer, "LATE-ANSWER"}, {flow.ResetAbort, "ABORT"}, {flow.ResetIdle, "LB-IDLE"}, {flow.ResetOverflow, "OVERFLOW"},
		{flow.ResetTimeout, "TIMEOUT"}, {flow.ResetLateRequest, "LATE-REQUEST"}, {flow.ClosedUnanswered, "NO-ANSWER"}, {flow.ResetComplete, "CUT-SHORT"}} {
		if n := byClass[c.class]; n > most {
			most, f.Class, onset = n, c.name, firstOf[c.class]
		}
	}
	if 2*f.ForeignTTL > f.Resets {
		f.Class, onset = classInjected, foreign
	}
	return f, onset, evidence
}

const (
	// atOnce is how far apart the ends of connections lie at most that a program closes together, and severalAtOnce how many they are at
	// least, on average, where it does: as it stops.
	atOnce        = time.Second
	severalAtOnce = 3
)

// lasting is how long connections went on to end so: the longest stretch without a pause, where they end several at once, as with each
// restart of a program; what its callers send on them later, one after the other, lasts no longer for that.
func lasting(ends []capture.Instant, pause time.Duration) (longest time.Duration) {
	slices.Sort(ends)
	bursts, begin := 1, ends[0]
	for i := 1; i < len(ends); i++ {
		gap := ends[i].Sub(ends[i-1])
		bursts += measure.Count(gap > atOnce)
		if gap > pause {
			begin = ends[i]
		}
		longest = max(longest, ends[i].Sub(begin))
	}
	if len(ends) < severalAtOnce*bursts {
		return ends[len(ends)-1].Sub(ends[0])
	}
	return longest
}

// cuts counts the resets right after an answer, since the onset.
func (st *resetState) cuts() (n int) {
	for i := range st.recent {
		n += measure.Count(st.recent[i].class == flow.ResetComplete && st.recent[i].at >= st.series.Onset)
	}
	return n
}

// aborts reports whether the client cut off an exchange by itself.
func (n *resetNote) aborts() bool {
	return n.class == flow.ResetAbort && n.side == flow.Client && !n.foreign && !n.unknown
}

const (
	// minChecks is how many aborts of a client tell whether they come by a timer, leastCheck the shortest interval of one: health checks
	// come once a second or slower (haproxy: inter 2s, Kubernetes: periodSeconds at least 1).
	minChecks  = 5
	leastCheck = 900 * time.Millisecond
	// evenly is how much the intervals of a timer may differ, as a share of it, and mostly the share of them that has to keep to it.
	evenly, mostly = 0.1, 0.75
)

// checks are the clients that abort at even intervals: health checks that have seen the status line and want no more.
func (st *resetState) checks() measure.Subjects[capture.Addr, []float64] {
	gaps, last := measure.NewSubjects[capture.Addr, []float64](maxResets), make(map[capture.Addr]capture.Instant)
	for i := range st.recent {
		n := &st.recent[i]
		if !n.aborts() {
			continue
		}
		if at, ok := last[n.client.Addr]; ok {
			if g := gaps.Get(n.client.Addr); g != nil {
				*g = append(*g, n.at.Sub(at).Seconds())
			}
		}
		last[n.client.Addr] = n.at
	}
	gaps.Each(func(_ capture.Addr, g *[]float64) bool {
		slices.Sort(*g)
		m := (*g)[len(*g)/4] // the timer's interval: a check that has read the whole answer is no abort, and makes one gap of two
		even := 0
		for _, x := range *g {
			if k := math.Round(x / m); k >= 1 && math.Abs(x-k*m) <= evenly*m {
				even++
			}
		}
		return len(*g) >= minChecks && m >= leastCheck.Seconds() && float64(even) >= mostly*float64(len(*g))
	})
	return gaps
}

func endedBy(c flow.Class) string {
	switch c {
	case flow.ClosedUnanswered:
		return "FIN: " + c.String()
	case flow.ResetComplete:
		return "RST: right after an answer, by a server that used to close"
	}
	return "RST: " + c.String()
}

func (d *abnormalTermination) Assess(*analyze.Window) analyze.Assessment {
	f := AbnormalTermination{Resets: d.resets, Connections: int(d.closed), Share: stat.Ratio(d.resets, int(d.closed)), GivenUp: d.givenUp,
		Abrupt: d.abrupt, More: d.resetting == maxResetting}
	// The listener that fares worst: among those that are well its resets would not be seen.
	d.services.Each(func(_ capture.Endpoint, st *resetState) bool {
		if n := len(st.recent); n > 0 {
			s := &st.series
			if share := min(stat.Ratio(n, max(int(s.Ever()), n)), 1); n >= f.WorstResets && share > f.WorstShare {
				f.WorstResets, f.WorstShare = n, share
			}
		}
		return true
	})
	return analyze.Assessment{Assessable: d.closed > 0 || d.resets > 0, Features: f}
}
