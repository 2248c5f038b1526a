package detect

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// CloseWait are the features of close-wait. Ages in seconds.
type CloseWait struct {
	Waiting        int     `json:"waiting"`
	Older          int     `json:"older"`
	Connections    int     `json:"connections"`
	Share          float64 `json:"share"`
	WaitingBefore  int     `json:"waiting_before"`
	Baseline       float64 `json:"baseline"`
	MedianAge      float64 `json:"median_age"`
	OldestAge      float64 `json:"oldest_age"`
	Growth         float64 `json:"growth"`
	Plateau        float64 `json:"plateau"`
	NeverAnswered  int     `json:"never_answered"`
	Answered       int     `json:"answered"`
	Ended          int     `json:"ended"`
	FinDelay       float64 `json:"fin_delay"`
	ClientsSucceed float64 `json:"clients_succeed"`
	Others         int     `json:"others"`
	Exact          bool    `json:"exact"`
	Unaccepted     int     `json:"unaccepted"`
	Owned          int     `json:"owned"`
	Queued         int     `json:"queued"`
	Process        string  `json:"process"`
	Class          string  `json:"class"`
}

// The classes of close-wait that packets can tell apart.
const (
	classLeak        = "LEAK"         // answered, closed by the peer, never closed by the program
	classStarved     = "STARVED"      // the peer gave up before its request was answered, to the end
	classSlowHandler = "SLOW-HANDLER" // as starved, but they do end one after the other
)

// growthSpan is over how many windows the growth is measured.
const growthSpan = 10

// maxWaiting bounds the half-closed connections that are followed.
const maxWaiting = 1 << 17

// closeWait infers sockets in CLOSE_WAIT: the peer's FIN is acknowledged and no FIN of
// the other side follows (RFC 9293 §3.3.2).
type closeWait struct {
	waiting  measure.Subjects[uint32, halfClosed]      // by stream
	services measure.Services[closeState]              // sockets of listeners
	callers  measure.Subjects[measure.End, closeState] // sockets of those who call them
	sockets  waitingSockets
	owner    measure.Inquiry
	most     int // ever, over all subjects
	ended    int // closed by the program after its peer, ever
	conns    uint64
}

type halfClosed struct {
	state    *closeState
	ref      flow.Ref
	side     flow.Side // who does not close
	since    capture.Instant
	finDelay time.Duration
	client   capture.Endpoint
	frame    uint64
	paused   bool // the peer closed long after the last data
	starved  bool
	over     bool
}

type closeState struct {
	open      int // connections
	closings  uint64
	promptly  uint32 // ends of connections that came right after an answer
	idly      uint32 // ends by a peer that came after a pause, and that the program followed at once: it had no answer to go on with
	ended     int
	counts    [stat.SeriesLen]uint32
	answers   [stat.SeriesLen]stat.Point // bad: abandoned
	cur       stat.Point
	n         int
	windows   int
	list      []*halfClosed // scratch of one Judge
	waiting   int           // entries of closeWait.waiting that refer to this
	listener  *closeState   // of a caller: whom it calls
	endedRing [stat.SeriesLen]uint32
	unmet     int // of those that ended, without an answer
	unmetRing [stat.SeriesLen]uint32
	leaks     bool   // a leak was found: from then on only connections that were answered count as leaked
	usual     uint32 // how many waited before what there is now
}

func newCloseWait() analyze.Detector {
	return &closeWait{waiting: measure.NewSubjects[uint32, halfClosed](maxWaiting),
		services: measure.NewServices[closeState](measure.MaxPerDetector), callers: measure.NewSubjects[measure.End, closeState](measure.MaxPerDetector), sockets: newWaitingSockets()}
}

// Measures implements analyze.Measurer.
func (d *closeWait) Measures() []analyze.Measure { return d.sockets.Measures() }

// Sample takes the socket tables.
func (d *closeWait) Sample(_ capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		d.sockets.sample()
	}
}

func (d *closeWait) Spec() analyze.Spec {
	return analyze.Spec{Rule: "close-wait", Features: CloseWait{},
		Events: flow.Of(flow.ConnNew, flow.Closed, flow.HalfClosed, flow.HalfCloseEnd, flow.Response, flow.Abandoned)}
}

func (d *closeWait) Event(e *flow.Event) {
	c := e.Conn
	switch e.Kind {
	case flow.ConnNew:
		d.conns++
		if st := d.services.Get(c); st != nil {
			st.open++
		}
	case flow.Closed:
		if st := d.services.Peek(c); st != nil {
			st.open--
			st.closings++
			if x := d.waiting.Peek(c.Stream); x == nil && c.Answers() > 0 && e.At.Sub(c.LastData(flow.Server)) < measure.BrokenOff {
				st.promptly++
			}
		}
	case flow.Response:
		if st := d.services.Peek(c); st != nil && !e.ToNobody() {
			st.cur.Total++
		}
	case flow.Abandoned:
		if st := d.services.Peek(c); st != nil {
			st.cur.Total++
			st.cur.Bad++
		}
	case flow.HalfClosed:
		k := measure.EndOf(c, e.Side.Other())
		st := d.services.Get(c)
		if k.Client != (capture.Addr{}) {
			st = d.callers.Get(k)
		}
		if st == nil {
			return
		}
		h := d.waiting.Get(c.Stream)
		if h == nil {
			return
		}
		if h.state == nil {
			st.waiting++
		}
		*h = halfClosed{state: st, ref: c.Ref(), side: e.Side.Other(), since: e.At, client: c.Client, frame: e.Frame}
		h.paused = e.At.Sub(c.LastData(h.side)) >= measure.BrokenOff
		// Of what was never seen to be asked or answered, in a capture that began later, nobody can say that it was.
		h.starved = e.StillAsked() || h.side == flow.Server && (c.Requests() == 0 || c.Bytes(flow.Server) == 0 || h.paused && d.isBrokenOff(c))
		if h.starved && c.RequestLast() != 0 {
			h.finDelay = e.At.Sub(c.RequestLast())
		}
	case flow.HalfCloseEnd:
		if h := d.waiting.Peek(c.Stream); h != nil && !h.over {
			h.over = true
			h.state.ended++
			h.state.unmet += measure.Count(h.starved)
			d.ended++
			if h.paused && e.Dur < measure.BrokenOff {
				h.state.idly++
			}
		}
	}
}

// isBrokenOff reports whether the client of c, which closes after a pause, was still waiting. An idle connection ends
// like that as well: then either others of the service do, or it has carried several requests.
func (d *closeWait) isBrokenOff(c *flow.Conn) bool {
	st := d.services.Peek(c)
	if st == nil || st.promptly+st.idly == 0 {
		return c.Requests() < 2
	}
	return st.idly < st.promptly
}

func (d *closeWait) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.waiting.Each(func(_ uint32, h *halfClosed) bool {
		if h.over {
			h.state.waiting--
			return false
		}
		// With its last data unacknowledged, a socket may be closed by its program and wait for the network.
		c := w.Flows.Lookup(h.ref)
		if c == nil {
			h.state.waiting--
			return false
		}
		if !c.Unacked(h.side) {
			h.state.list = append(h.state.list, h)
		}
		h.state.listener = d.services.Peek(c)
		return true
	})
	lossy := w.Flows.Stats.CaptureLossShare()
	exact := d.sockets.Every.Fresh(w.End)
	if exact {
		d.sockets.judge()
		infer := emit
		emit = func(s analyze.Symptom) { d.exact(w, s, infer) }
		defer d.rest(w, infer)
	}
	d.services.Each(func(e capture.Endpoint, st *closeState) bool {
		return d.judge(w, measure.End{Server: e}, st, lossy, emit) || st.open > 0
	})
	d.callers.Each(func(k measure.End, st *closeState) bool { return d.judge(w, k, st, lossy, emit) })
}

// judge measures one subject and reports whether it has sockets that wait.
func (d *closeWait) judge(w *analyze.Window, k measure.End, st *closeState, lossy float64, emit func(analyze.Symptom)) bool {
	defer func() {
		clear(st.list)
		st.list = st.list[:0]
	}()
	enough := w.Params.Int("min_sockets")
	if st.leaks {
		// What a fault adds to a leak is the fault's, and has its own findings.
		forgot := slices.DeleteFunc(slices.Clone(st.list), func(h *halfClosed) bool { return h.starved })
		if st.leaks = len(forgot) >= enough; st.leaks {
			st.list = append(st.list[:0], forgot...)
		}
	}
	if st.n == stat.SeriesLen {
		copy(st.counts[:], st.counts[1:])
		copy(st.answers[:], st.answers[1:])
		copy(st.endedRing[:], st.endedRing[1:])
		copy(st.unmetRing[:], st.unmetRing[1:])
		st.n--
	}
	st.counts[st.n], st.answers[st.n], st.endedRing[st.n] = uint32(len(st.list)), st.cur, uint32(st.ended)
	st.unmetRing[st.n] = uint32(st.unmet)
	st.cur, st.ended, st.unmet = stat.Point{}, 0, 0
	st.n++
	st.windows++
	n := len(st.list)
	d.most = max(d.most, n)
	// A capture that loses packets loses FINs, too: each closing is seen as open with about that
	// probability. Three times as many may be its fault.
	listener := st
	if k.Client != (capture.Addr{}) && st.listener != nil {
		listener = st.listener
	}
	if n == 0 || float64(n) < 3*lossy*float64(listener.closings) {
		return st.waiting > 0
	}
	list := st.list
	slices.SortStableFunc(list, func(a, b *halfClosed) int { return int(max(min(a.since-b.since, 1), -1)) })
	f := CloseWait{Waiting: n, Connections: max(listener.open, n)}
	usual := slices.Min(st.counts[:st.n])
	if st.leaks {
		usual = min(usual, st.usual) // a leak that stands still for longer than is remembered is not usual
	}
	st.usual = usual
	f.WaitingBefore = int(usual)
	first := list[min(int(usual), n-1)].since
	f.Baseline = max(first.Sub(w.First).Seconds(), 0)
	f.Share = stat.Ratio(n, f.Connections)
	f.MedianAge = w.End.Sub(list[n/2].since).Seconds()
	f.OldestAge = w.End.Sub(list[0].since).Seconds()
	old := w.Params.Duration("old_age")
	var delays []float64
	for _, h := range list {
		if w.End.Sub(h.since) >= old {
			f.Older++
		}
		if h.starved {
			f.NeverAnswered++
			delays = append(delays, h.finDelay.Seconds())
		} else {
			f.Answered++
		}
	}
	f.FinDelay = stat.Median(delays)
	back := min(growthSpan, st.n-1)
	if back > 0 {
		f.Growth = (float64(n) - float64(st.counts[st.n-1-back])) / (float64(back) * analyze.WindowLength.Seconds())
	}
	band := max(float64(n)*0.1, 1)
	for i := st.n - 1; i >= 0 && math.Abs(float64(st.counts[i])-float64(n)) <= band; i-- {
		f.Plateau += analyze.WindowLength.Seconds()
	}
	var served stat.Point
	unmet := 0
	for i := range st.n {
		if w.End.Sub(first) >= time.Duration(st.n-1-i)*analyze.WindowLength {
			served.Bad += st.answers[i].Bad
			served.Total += st.answers[i].Total
			f.Ended += int(st.endedRing[i])
			unmet += int(st.unmetRing[i])
		}
	}
	f.ClientsSucceed = 1 - served.Share()
	f.Others = int(served.Total - min(served.Bad, served.Total))
	switch {
	case f.NeverAnswered*2 < n && (f.Older >= enough || f.NeverAnswered < enough):
		f.Class = classLeak // younger ones are not forgotten yet: they may wait with those that got no answer
	case f.Ended > n && 2*unmet > n && f.OldestAge < 2*old.Seconds():
		f.Class = classSlowHandler
	default:
		f.Class = classStarved
	}
	st.leaks = st.leaks || f.Class == classLeak && f.Older >= enough
	var evidence []analyze.Evidence
	for _, h := range list[min(int(usual), n-1):min(int(usual)+analyze.MaxEvidence, n)] {
		fin := measure.NoteAt(h.since, h.client, k.Server, h.frame, "FIN acknowledged, not answered by a FIN")
		evidence = append(evidence, fin.Evidence())
	}
	emit(analyze.Symptom{Subject: k.Subject(), Onset: first, Features: f, Evidence: evidence})
	return true
}

func (d *closeWait) Assess(*analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.conns > 0 || d.sockets.Every.First != 0, Features: CloseWait{Waiting: d.most, Connections: int(d.conns),
		Ended: d.ended, Exact: d.sockets.Every.First != 0, Baseline: d.sockets.Every.Newest().Sub(d.sockets.Every.First).Seconds()}}
}

// exact corrects a symptom that was inferred from packets: where the sockets are this host's, it counts the sockets.
func (d *closeWait) exact(w *analyze.Window, s analyze.Symptom, emit func(analyze.Symptom)) {
	f := s.Features.(CloseWait)
	k, mine := d.socketKey(w, &s)
	st := d.sockets.states.Peek(k)
	if !mine {
		emit(s) // of another host: nobody else has seen its sockets
		return
	}
	if st == nil || len(st.list) == 0 {
		return
	}
	st.measure(&f, w.End, w.Params.Duration("old_age"), w.Params.Int("min_sockets"))
	d.owned(w, st, &f)
	s.Features = f
	st.list = st.list[:0] // rest is not to emit them again
	emit(s)
}

// socketKey is the subject of s as the sockets name it, and whether it is this host's.
func (d *closeWait) socketKey(w *analyze.Window, s *analyze.Symptom) (measure.End, bool) {
	local, err := netip.ParseAddr(s.Subject.Host)
	if err != nil {
		return measure.End{}, false
	}
	k := measure.End{Server: capture.Endpoint{Addr: capture.AddrFrom(local), Port: s.Subject.Port}}
	if s.Subject.Kind == analyze.SubjectUpstream {
		peer, err := netip.ParseAddr(s.Subject.Peer)
		if err != nil {
			return measure.End{}, false
		}
		k.Client, k.Server.Addr = k.Server.Addr, capture.AddrFrom(peer)
	}
	return k, w.Local.Is(capture.AddrFrom(local))
}

// rest emits the subjects that the packets did not show.
func (d *closeWait) rest(w *analyze.Window, emit func(analyze.Symptom)) {
	d.sockets.states.Each(func(k measure.End, st *socketWaits) bool {
		n := len(st.list)
		if n == 0 {
			return true
		}
		d.most = max(d.most, n)
		// Without packets nobody knows how the clients fare; a leak alone does not say that they fail.
		f := CloseWait{Class: classLeak, ClientsSucceed: 1, Baseline: max(st.since.Sub(w.First).Seconds(), 0), Ended: st.ended}
		st.measure(&f, w.End, w.Params.Duration("old_age"), w.Params.Int("min_sockets"))
		f.Growth = float64(n) / max(w.End.Sub(st.since).Seconds(), analyze.WindowLength.Seconds())
		f.Plateau = f.OldestAge
		if f.Class == classLeak && st.ended > n {
			f.Class = classSlowHandler
		}
		d.owned(w, st, &f)
		emit(analyze.Symptom{Subject: k.Subject(), Onset: st.since, Features: f, Evidence: st.evidence(k)})
		return true
	})
}

// owned names the process that owns the sockets, and asks for it where it is not known.
func (d *closeWait) owned(w *analyze.Window, st *socketWaits, f *CloseWait) {
	inodes := st.inodes()
	f.Process = d.sockets.Owners.Of(inodes)
	if f.Process == "" && len(inodes) > 0 && f.Waiting >= int(w.Params.Float("min_sockets")) {
		d.owner.Ask(w, inodes)
	}
}
