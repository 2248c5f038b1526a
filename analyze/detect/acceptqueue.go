package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
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
}

// acceptQueue watches how full the accept queues of listeners are: connections whose handshake the kernel has
// completed and that no worker has taken.
type acceptQueue struct {
	listeners subjects[capture.Endpoint, listenQueue]
	owners    owners
	overflows [overflowSpan]uint32 // ListenOverflows by window, the newest last
	last      uint64               // the counter itself
	known     bool
	cur       uint32
	tables    uint32
	most      AcceptQueue
	first, at capture.Instant // oldest and newest table
	dropped   uint32          // overflows, ever
}

type listenQueue struct {
	queue, backlog, most uint32
	inode                uint32
	fullSince, fullLast  capture.Instant
	table                uint32
}

const (
	// maxQueues bounds the listening sockets that are followed.
	maxQueues = 1024
	// overflowSpan is how far back overflows count with a queue that is full now, in windows.
	overflowSpan = 30
	// fullPause: a queue that is full again within that time was full throughout: each accept frees one
	// place for a moment, and samples are a second apart.
	fullPause = 3 * time.Second
)

func newAcceptQueue() analyze.Detector {
	return &acceptQueue{listeners: newSubjects[capture.Endpoint, listenQueue](maxQueues)}
}

func (d *acceptQueue) Spec() analyze.Spec {
	return analyze.Spec{Rule: "accept-queue", Features: AcceptQueue{}}
}

func (d *acceptQueue) Sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Processes != nil:
		d.owners.sample(at, s.Processes)
	case s.Host != nil && s.Host.Known(capture.ListenOverflows):
		n := s.Host.Counters[capture.ListenOverflows]
		if d.known && n > d.last {
			d.cur += uint32(min(n-d.last, 1<<31))
			d.dropped += uint32(min(n-d.last, 1<<20))
		}
		d.last, d.known = n, true
	case s.Sockets != nil && s.Sockets.States&capture.Listen.Mask() != 0:
		d.tables++
		if d.at = at; d.first == 0 {
			d.first = at
		}
		for i := range s.Sockets.Sockets {
			if x := &s.Sockets.Sockets[i]; x.State == capture.Listen {
				d.listener(at, x)
			}
		}
		d.listeners.each(func(_ capture.Endpoint, q *listenQueue) bool { return q.table == d.tables })
	}
}

func (d *acceptQueue) listener(at capture.Instant, s *capture.Socket) {
	q := d.listeners.get(s.Local)
	if q == nil {
		return
	}
	if q.table != d.tables {
		q.queue, q.backlog = 0, 0 // of several sockets on one port (SO_REUSEPORT) the sum counts
	}
	q.table, q.inode = d.tables, s.Inode
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

// Event is never called: packets do not show the queue.
func (d *acceptQueue) Event(*flow.Event) {}

func (d *acceptQueue) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	copy(d.overflows[:], d.overflows[1:])
	d.overflows[overflowSpan-1], d.cur = d.cur, 0
	d.listeners.each(func(k capture.Endpoint, q *listenQueue) bool {
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
		if f.Process = d.owners.of(inodes); f.Process == "" {
			d.owners.ask(w, inodes)
		}
		if k.Addr.Netip().IsUnspecified() {
			k.Addr = w.Local.Addr
		}
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectService, Host: k.Addr.String(), Port: k.Port},
			Onset: q.fullSince, Features: f})
		return true
	})
}

func (d *acceptQueue) Assess(*analyze.Window) analyze.Assessment {
	f := d.most
	f.Overflows, f.Baseline, f.Listeners = int(d.dropped), d.at.Sub(d.first).Seconds(), len(d.listeners.keys)
	return analyze.Assessment{Assessable: d.tables > 0, Features: f}
}
