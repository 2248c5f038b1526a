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

// hungCalls follows the requests of one caller to one server since the server last said anything: calls
// that are accepted by the server's kernel and then get no byte. An acknowledgement is the kernel's and no
// sign of life of the program behind it.
//
// It is careful, because silence is normal in many protocols. A long poll is answered after minutes;
// a publisher of MQTT (QoS 0) or syslog never is. So the server must have answered this caller before, each
// time sooner than what counts as hung, and since then nobody. And each call must be a fresh connection
// without a single byte, or a request whose like (kinds) are answered as a rule, as those on the connections of a pool.
type hungCalls struct {
	kinds   kinds
	waiting []hungCall // requests since the last answer, oldest first
	answers uint32
	slowest [2]time.Duration // of the answers in this spell of windows and in the one before
	age     int              // windows of this spell
	lastOK  capture.Instant
	habit   habit // what makes a kind of request usual
}

type hungCall struct {
	ref     flow.Ref
	ends    [2]capture.Endpoint // client and server
	frame   uint64
	at      capture.Instant // request
	packets uint32          // of the server, when the request was sent
	bytes   uint64          // likewise
	gaveUp  bool            // the caller closed without having got anything
	spoke   bool            // the server has sent something, or closed
	usual   bool            // its like are answered as a rule
}

func (x *hungCall) evidence() analyze.Evidence {
	n := measure.NoteAt(x.at, x.ends[0], x.ends[1], x.frame, "request without a byte in answer")
	return n.Evidence()
}

// hungEvents wake hungCalls.
var hungEvents = flow.Of(flow.Request, flow.Response, flow.Abandoned, flow.Closed)

// answerSpell is for how many windows, at least, a slow answer is remembered.
const answerSpell = 600

func (h *hungCalls) event(e *flow.Event) {
	c := e.Conn
	switch e.Kind {
	case flow.Request:
		if len(h.waiting) < measure.MaxFails {
			h.waiting = append(h.waiting, hungCall{ref: c.Ref(), ends: [2]capture.Endpoint{c.Client, c.Server}, frame: e.Frame, at: e.At,
				packets: c.Packets(flow.Server), bytes: c.Bytes(flow.Server), usual: h.kinds.of(e.Len).usual})
		}
	case flow.Response:
		h.answers++
		if size := request(c, e.Since); size&moreSegments != 0 {
			h.kinds.of(size &^ moreSegments).ignored()
		} else {
			h.kinds.of(size).answered(h.habit, e.At)
		}
		h.slowest[0] = max(h.slowest[0], e.Dur)
		h.waiting, h.lastOK = h.waiting[:0], e.At
	case flow.Abandoned, flow.Closed:
		i := slices.IndexFunc(h.waiting, func(x hungCall) bool { return x.ref == c.Ref() && !x.gaveUp })
		if i < 0 {
			return
		}
		x := &h.waiting[i]
		x.gaveUp = e.Kind == flow.Abandoned && e.Dur >= flow.GiveUp
		x.spoke = x.spoke || spoken(c, x) || e.Kind == flow.Closed && !x.gaveUp
	}
}

// spoken reports whether the server has sent what a hung one would not: data since the request, or, on a connection
// where it had sent data before, anything in return for what may need no answer; or that nobody can know.
func spoken(c *flow.Conn, x *hungCall) bool {
	return c.Unheard(flow.Server) || c.Bytes(flow.Server) != x.bytes || x.bytes > 0 && !x.usual && c.Packets(flow.Server) != x.packets
}

func (h *hungCalls) judge(w *analyze.Window) {
	h.waiting = slices.DeleteFunc(h.waiting, func(x hungCall) bool { return w.End.Sub(x.at) > measure.IdleState })
	if h.age++; h.age == answerSpell {
		h.slowest[0], h.slowest[1], h.age = 0, h.slowest[0], 0
	}
}

// unheard reports whether a request on an open connection waits for more than after, and not even an
// acknowledgement has come since.
func (h *hungCalls) unheard(w *analyze.Window, after time.Duration) bool {
	return slices.ContainsFunc(h.waiting, func(x hungCall) bool {
		c := w.Flows.Lookup(x.ref)
		return !x.spoke && w.End.Sub(x.at) >= after && c != nil && c.IsEstablished() && !spoken(c, &x) && c.Packets(flow.Server) == x.packets
	})
}

// unanswered is how many requests wait for more than after.
func (h *hungCalls) unanswered(w *analyze.Window, after time.Duration) (n int) {
	for i := range h.waiting {
		x := &h.waiting[i]
		if c := w.Flows.Lookup(x.ref); w.End.Sub(x.at) >= after && (x.gaveUp || c != nil && c.Outstanding() == x.at) {
			n++
		}
	}
	return n
}

// measure returns nothing unless all calls hang.
func (h *hungCalls) measure(w *analyze.Window, after time.Duration) (f DeadUpstream, onset capture.Instant, evidence []analyze.Evidence) {
	minAnswered := w.Params.Int("min_answered")
	if int(h.answers) < minAnswered || max(h.slowest[0], h.slowest[1]) >= after || len(h.waiting) == 0 || w.End.Sub(h.waiting[0].at) < after {
		return f, 0, nil
	}
	f = DeadUpstream{Class: classHung, SucceededBefore: int(h.answers), Baseline: h.lastOK.Sub(w.First).Seconds()}
	acked := false
	for i := range h.waiting {
		x := &h.waiting[i]
		c := w.Flows.Lookup(x.ref)
		if x.spoke || c != nil && spoken(c, x) {
			return DeadUpstream{}, 0, nil
		}
		if !x.gaveUp && (c == nil || c.Closed() || w.End.Sub(c.RequestLast()) < after) {
			continue // or the request is still on its way: an upload
		}
		acked = acked || c != nil && c.Packets(flow.Server) != x.packets
		if onset == 0 {
			onset = x.at
		}
		f.NoAnswer++
		f.Wait = max(f.Wait, w.End.Sub(x.at).Seconds())
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, x.evidence())
		}
	}
	if f.NoAnswer < minAnswered {
		return DeadUpstream{}, 0, nil
	}
	if !acked {
		f.Class = classGone // not even its kernel answers
	}
	f.Attempts, f.Failed, f.Share = len(h.waiting), f.NoAnswer, stat.Ratio(f.NoAnswer, len(h.waiting))
	f.Lasting = w.End.Sub(onset).Seconds()
	return f, onset, evidence
}
