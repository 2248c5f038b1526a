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

type resetState struct {
	series stat.Series
	recent []resetNote // bounded ring, oldest first
	// answers: a connection of it was answered. survived: the longest silence after which one was.
	answers    bool
	survived   time.Duration
	answeredAt capture.Instant // newest answer
	// clean are the answered connections that ended with a FIN before the first that the server reset right after its answer: whether
	// that is its way of closing, or a process that dies in the middle, what it did before tells.
	clean  uint32
	abrupt bool
	idles  lateWaits       // of connections that owe nothing: after how much silence the server closes them
	limits lateWaits       // how long after their requests clients cut off answers that went on
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
	streams bool // by a client, while its answer was coming
	counted bool // in the series
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
	limit, _ := st.limits.limit()
	idleLimit, _ := st.idles.limit()
	var ends []capture.Instant
	var last, begin, foreign capture.Instant
	for i := range st.recent {
		n := &st.recent[i]
		limited := limit > 0 && n.limited(limit)
		if n.at < since || n.class == flow.ResetComplete && !limited && (n.side == flow.Client || !cuts) {
			continue
		}
		class := n.class
		if limited {
			class = flow.ResetAbort
			f.Limit = limit.Seconds()
			f.Limited++
		}
		if n.aborts() && checks.Peek(n.client.Addr) != nil {
			f.Regular++
			continue
		}
		if f.Resets++; f.Resets == 1 || n.at.Sub(last) >= restart {
			begin = n.at
		}
		last = max(last, n.at)
		f.CutShort += measure.Count(class == flow.ResetComplete)
		ends = append(ends, n.ended)
		if byClass[class]++; byClass[class] == 1 {
			firstOf[class] = begin
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
		if n.class == flow.ClosedUnanswered && idleLimit > 0 && n.wait >= idleLimit && n.wait-idleLimit <= limitSlack {
			f.AtIdle++
			f.IdleLimit = idleLimit.Seconds()
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
			reset := measure.NoteAt(n.at, n.client, k, n.frame, endedBy(class))
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
		n += measure.Count(st.recent[i].class == flow.ResetComplete && st.recent[i].side == flow.Server && st.recent[i].at >= st.series.Onset)
	}
	return n
}

// limited reports whether a client cut off an answer that went on when a time limit after its request was up.
func (n *resetNote) limited(limit time.Duration) bool {
	return n.streams && n.wait >= limit && n.wait-limit <= limitSlack
}

// closes notes how long nothing was said on a connection that owed nothing when its server closed it.
func (st *resetState) closes(c *flow.Conn) {
	end, silent := c.Idle()
	if end == 0 || end != c.FinAt(flow.Server) || c.Outstanding() != 0 {
		return
	}
	if whole := silent.Round(time.Second); whole > silent && whole-silent <= c.HandshakeRTT {
		silent = whole // its timer began with what it sent, the silence with the acknowledgement
	}
	st.idles.add(silent)
}

// countLimited takes the answers that clients cut off for trouble where they do so at a time limit: who has seen enough of a stream
// leaves at any time.
func (st *resetState) countLimited() {
	limit, _ := st.limits.limit()
	for i := range st.recent {
		if n := &st.recent[i]; limit > 0 && !n.counted && n.limited(limit) {
			st.series.Add(1, 0, n.at)
			n.counted = true
		}
	}
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
