package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// AcceptQueue are the features of accept-queue. Times in seconds.
type AcceptQueue struct {
	Queue     int     `json:"queue"`
	Backlog   int     `json:"backlog"`
	Most      int     `json:"most"`
	FullFor   float64 `json:"full_for"`
	Overflows int     `json:"overflows"`
	Baseline  float64 `json:"baseline"`
	Process   string  `json:"process"`
	Listeners int     `json:"listeners"`
	Dropped   int     `json:"dropped"`
	Silent    int     `json:"silent"`
	Attempts  int     `json:"attempts"`
	Unclosed  int     `json:"unclosed"`
	Bursts    bool    `json:"bursts"`
	Here      bool    `json:"here"`
}

// acceptQueue watches how full the accept queues of listeners are: connections whose handshake the kernel has
// completed and that no worker has taken.
//
// Packets show a full queue as well: the kernel then drops the ACK that ends a handshake (tcp_v4_syn_recv_sock), and goes on to repeat
// its SYN-ACK although the client has sent its request. Where the client has sent an ACK only, a listener may wait for
// data on purpose (TCP_DEFER_ACCEPT). A queue that stays full drops the SYNs themselves (tcp_conn_request), while the kernel still
// acknowledges the FINs of clients that leave, and nobody closes their connections.
type acceptQueue struct {
	*measure.HostSockets
	packets   measure.Services[acceptPackets]
	listeners measure.Subjects[capture.Endpoint, listenQueue]
	owner     measure.Inquiry
	overflows [overflowSpan]uint32 // ListenOverflows by window, the newest last
	last      uint64               // the counter itself
	known     bool
	cur       uint32
	most      AcceptQueue
	dropped   uint32 // overflows, ever
}

type listenQueue struct {
	queue, backlog, most uint32
	inode                uint32
	fullSince, fullLast  capture.Instant
	seen                 capture.Instant // in the newest dump
}

// acceptPackets is what packets say of a listener.
type acceptPackets struct {
	dropped, silent, attempts [overflowSpan]uint32 // connections, by window, the newest last
	cur                       [3]uint32
	since, last               capture.Instant // of what the full queue dropped
	unclosed                  int             // connections that the client has closed and the program has not
}

const (
	// maxQueues bounds the listening sockets that are followed.
	maxQueues = 1024
	// overflowSpan is how far back overflows count with a queue that is full now, in windows.
	overflowSpan = 30
	// fullPause: a queue that is full again within that time was full throughout: each accept frees one
	// place for a moment, and samples are a second apart.
	fullPause = 3 * time.Second
	// dropPause is the same for packets: a SYN-ACK is repeated after 1, 3, 7, 15 s (RFC 6298 §5.5).
	dropPause = 8 * time.Second
)

func newAcceptQueue() analyze.Detector {
	return &acceptQueue{HostSockets: measure.NewHostSockets(), listeners: measure.NewSubjects[capture.Endpoint, listenQueue](maxQueues), packets: measure.NewServices[acceptPackets](measure.MaxPerDetector)}
}

func (d *acceptQueue) Spec() analyze.Spec {
	return analyze.Spec{Rule: "accept-queue", Features: AcceptQueue{}, Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.SynAckRepeat, flow.HalfClosed, flow.HalfCloseEnd)}
}

func (d *acceptQueue) Sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Host != nil && s.Host.Known(capture.ListenOverflows):
		n := s.Host.Counters[capture.ListenOverflows]
		if d.known && n > d.last {
			d.cur += uint32(min(n-d.last, 1<<31))
			d.dropped += uint32(min(n-d.last, 1<<20))
		}
		d.last, d.known = n, true
	case s.Sockets != nil && s.Sockets.States&capture.Listen.Mask() != 0:
		for _, x := range d.Listening {
			d.listener(at, x)
		}
		d.listeners.Each(func(_ capture.Endpoint, q *listenQueue) bool { return q.seen == at })
	}
}

func (d *acceptQueue) listener(at capture.Instant, s *capture.Socket) {
	q := d.listeners.Get(s.Local)
	if q == nil {
		return
	}
	if q.seen != at {
		q.queue, q.backlog = 0, 0 // of several sockets on one port (SO_REUSEPORT) the sum counts
	}
	q.seen, q.inode = at, s.Inode
	q.queue += s.RecvQ
	q.backlog += s.SendQ
	q.most = max(q.most, q.queue)
	// sk_acceptq_is_full (include/net/sock.h): full is more than the backlog.
	if q.queue > q.backlog {
		if q.fullSince == 0 || at.Sub(q.fullLast) > fullPause {
			q.fullSince = at
		}
		q.fullLast = at
	}
}

func (d *acceptQueue) Event(e *flow.Event) {
	c := e.Conn
	st := d.packets.Get(c)
	switch {
	case st == nil:
	case e.Kind == flow.SynSent:
		st.cur[2]++
	case e.Kind == flow.HalfClosed && e.Side == flow.Client:
		st.unclosed++
	case e.Kind == flow.HalfCloseEnd && e.Side == flow.Client:
		st.unclosed = max(st.unclosed-1, 0)
	case e.Kind == flow.SynRepeat && !c.SynAnswered():
		if e.N == 1 {
			st.cur[1]++
		}
		st.full(e.At.Add(-e.Dur), e.At)
	case e.Kind == flow.SynAckRepeat && c.Bytes(flow.Client) > 0 && c.Bytes(flow.Server) == 0 && afterACK(e, e.Dur):
		if e.N == 1 || !afterACK(e, time.Duration(1<<min(e.N-1, maxBackoff)-1)*time.Second) {
			st.cur[0]++ // the first that counts
		}
		st.full(max(c.Established(), e.At.Add(-e.Dur)), e.At)
	}
}

// maxBackoff is how often a SYN-ACK is repeated at most: after 1, 3, 7, 15, 31 s (Linux tcp_synack_retries 5).
const maxBackoff = 5

// afterACK reports whether a SYN-ACK that comes again so long after the first was sent when the handshake's last ACK must have arrived: not where
// the path takes as long.
func afterACK(e *flow.Event, since time.Duration) bool {
	c := e.Conn
	return e.At.Add(since-e.Dur).Sub(c.Established()) > c.SlowOpening()
}

// full notes that something that came at since was known at now to have been dropped.
func (st *acceptPackets) full(since, now capture.Instant) {
	if st.since == 0 || now.Sub(st.last) > dropPause {
		st.since = since
	}
	st.since, st.last = min(st.since, since), now
}

// between finds the listening socket of k, of this host, if its queue may have overflowed between two samples: the kernel counted overflows
// since connection requests stayed unanswered there, and no queue was seen to be full. Bursts do that to a short queue.
func (d *acceptQueue) between(w *analyze.Window, k capture.Endpoint, since capture.Instant) (q *listenQueue, overflows int) {
	for i, n := range d.overflows {
		if w.End.Add(-time.Duration(overflowSpan-1-i)*analyze.WindowLength) > since {
			overflows += int(n)
		}
	}
	d.listeners.Each(func(at capture.Endpoint, x *listenQueue) bool {
		if x.fullSince != 0 {
			overflows = 0 // it explains them
		}
		if at.Port == k.Port && (at.Addr == k.Addr || at.Addr.Netip().IsUnspecified()) {
			q = x
		}
		return true
	})
	if overflows == 0 {
		return nil, 0
	}
	return q, overflows
}

// judgePackets judges the listeners whose sockets are not seen, by packets.
func (d *acceptQueue) judgePackets(w *analyze.Window, emit func(analyze.Symptom)) {
	d.packets.Each(func(k capture.Endpoint, st *acceptPackets) bool {
		var sum [3]uint32
		for i, list := range []*[overflowSpan]uint32{&st.dropped, &st.silent, &st.attempts} {
			copy(list[:], list[1:])
			list[overflowSpan-1] = st.cur[i]
			for _, n := range list {
				sum[i] += n
			}
		}
		st.cur = [3]uint32{}
		if st.last == 0 || w.End.Sub(st.last) > dropPause {
			return true
		}
		var q *listenQueue
		overflows := 0
		if w.Have.Has(analyze.Sockets) && w.Local.Is(k.Addr) {
			if q, overflows = d.between(w, k, st.since); q == nil {
				return true
			}
		}
		f := AcceptQueue{Dropped: int(sum[0]), Silent: int(sum[1]), Attempts: int(max(sum[2], sum[1])), Unclosed: st.unclosed, Here: w.Local.Is(k.Addr),
			FullFor: st.last.Sub(st.since).Seconds(), Baseline: max(st.since.Sub(w.First).Seconds(), 0)}
		if q != nil {
			f.Bursts, f.Queue, f.Backlog, f.Most, f.Overflows = true, int(q.queue), int(q.backlog), int(q.most), overflows
			f.Process = d.Owners.Of([]uint32{q.inode})
		}
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: st.since, Features: f})
		return true
	})
}

func (d *acceptQueue) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	copy(d.overflows[:], d.overflows[1:])
	d.overflows[overflowSpan-1], d.cur = d.cur, 0
	d.judgePackets(w, emit)
	d.listeners.Each(func(k capture.Endpoint, q *listenQueue) bool {
		f := AcceptQueue{Queue: int(q.queue), Backlog: int(q.backlog), Most: int(q.most)}
		if f.Most > d.most.Most {
			d.most = f
		}
		if q.fullSince == 0 || w.End.Sub(q.fullLast) > fullPause {
			q.fullSince = 0
			return true
		}
		f.FullFor = q.fullLast.Sub(q.fullSince).Seconds()
		f.Baseline = max(q.fullSince.Sub(w.First).Seconds(), 0)
		for i, n := range d.overflows {
			if w.End.Sub(q.fullSince) >= time.Duration(overflowSpan-2-i)*analyze.WindowLength {
				f.Overflows += int(n)
			}
		}
		inodes := []uint32{q.inode}
		if f.Process = d.Owners.Of(inodes); f.Process == "" {
			d.owner.Ask(w, inodes)
		}
		if k.Addr.Netip().IsUnspecified() {
			k.Addr = d.asked(w, k.Port)
		}
		emit(analyze.Symptom{Subject: measure.Service(k), Onset: q.fullSince, Features: f})
		return true
	})
}

// asked is the address of this host at which most handshakes with a port were begun lately: that of a listener on all of them.
func (d *acceptQueue) asked(w *analyze.Window, port uint16) capture.Addr {
	addr, most := w.Local.Addr, uint32(0)
	d.packets.Each(func(k capture.Endpoint, st *acceptPackets) bool {
		sum := uint32(0)
		for _, n := range st.attempts {
			sum += n
		}
		if k.Port == port && w.Local.Is(k.Addr) && sum > most {
			addr, most = k.Addr, sum
		}
		return true
	})
	return addr
}

func (d *acceptQueue) Assess(*analyze.Window) analyze.Assessment {
	f := d.most
	f.Overflows, f.Baseline, f.Listeners = int(d.dropped), d.Every.Newest().Sub(d.Every.First).Seconds(), len(d.listeners.Keys)
	return analyze.Assessment{Assessable: d.Every.First != 0, Features: f}
}
