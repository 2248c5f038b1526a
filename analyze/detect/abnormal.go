package detect

import (
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
	Limit       float64 `json:"limit"`
	Limited     int     `json:"limited"`
	AtIdle      int     `json:"at_idle"`
	IdleLimit   float64 `json:"idle_limit"`
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
		if st := d.services.Peek(e.Conn); st != nil {
			st.answeredAt = e.At
		}
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
			st.closes(e.Conn)
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
		if e.Side == flow.Client {
			break
		}
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
	n.streams = e.Side == flow.Client && (e.Class == flow.ResetComplete || e.Class == flow.ResetAbort) && streams(e)
	if n.streams {
		n.wait = e.At.Sub(e.Conn.RequestLast())
		st.limits.add(n.wait)
	}
	if e.Class != flow.ResetComplete || e.Side == flow.Server {
		st.series.Add(1, 0, onset)
		n.counted = true
	}
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
	st.countLimited()
}

// minClean is how many connections without one tell that a server does not end its connections by a reset as a rule: one that does so in
// a fifth of them spares so many once in 1,000.
const minClean = 30

// abrupt reports whether a reset comes right after data of the server, all of which was acknowledged, where a FIN was due. The server
// closes so on purpose (SO_LINGER 0), or its process has died in the middle of the answer; the client cuts off an answer that goes on.
func abrupt(e *flow.Event) bool {
	c := e.Conn
	return c.Answers() > 0 && !c.Closing(flow.Client) && !c.Closing(flow.Server) &&
		e.At.Sub(c.LastData(flow.Server)) < time.Second && (e.Side == flow.Server || streams(e))
}

// streams reports whether the newest answer has come for a second and more, and in several segments, when the connection is reset.
func streams(e *flow.Event) bool {
	c := e.Conn
	began := c.RequestLast()
	if c.Answers() == 1 {
		began = began.Add(c.FirstResponse)
	}
	return c.Answers() > 0 && c.LastData(flow.Server).Sub(began) >= time.Second && c.AnswerBytes() > c.MSS(flow.Server)
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
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: max(began, onset), Features: f, Evidence: evidence, LastTry: max(s.LastTry(w.End), st.answeredAt),
			Well: st.well(w, onset, f.Resets), Filter: "tcp.flags.reset == 1 && " + measure.ServiceFilter(k)})
		return true
	})
}

// well is since when the service answers without a reset; 0: it does not, or may do so by chance. Connections that last do not end to say so.
func (st *resetState) well(w *analyze.Window, onset capture.Instant, resets int) capture.Instant {
	last := st.recent[len(st.recent)-1].at
	if st.answeredAt <= last || !stat.Ceased(resets, last.Sub(onset), w.End.Sub(last)) {
		return 0
	}
	return last
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
