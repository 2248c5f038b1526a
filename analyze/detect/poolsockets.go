package detect

import (
	"fmt"
	"slices"
	"strings"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// poolSockets sees a used-up worker pool in dumps of all sockets: the connections that a listener's program has
// accepted are flat in number while others wait in its queue, and the program's own calls wait for one server.
type poolSockets struct {
	*measure.HostSockets
	ports measure.Subjects[capture.Endpoint, socketPool] // by listener
	owner measure.Inquiry
	waits string // what the threads of the process in question wait for
	full  bool   // some queue is not empty
}

type socketPool struct {
	accepted [stat.SeriesLen]uint32 // by dump, the newest last
	n        int
	queue    uint32 // connections that nobody has accepted
	gaveUp   uint32 // of all, those whose peer has closed
	since    capture.Instant
	inodes   []uint32
	peer     capture.Endpoint // whom most calls of the host wait for
	calls    uint32
}

func newPoolSockets() poolSockets {
	return poolSockets{HostSockets: measure.NewHostSockets(), ports: measure.NewSubjects[capture.Endpoint, socketPool](maxQueues)}
}

func (d *poolSockets) sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Processes != nil:
		d.threads(s.Processes)
	case s.Sockets != nil && s.Sockets.States&capture.Listen.Mask() != 0:
		d.full = slices.ContainsFunc(d.Listening, func(l *capture.Socket) bool { return l.RecvQ > 0 })
		if s.Sockets.States&capture.Established.Mask() != 0 {
			d.dump(at, s.Sockets)
		}
	}
}

// callLag is for how long a call must have been without data to count as waiting: the host is sampled
// once a second.
const callLag = 1000 // ms

// dump counts the connections of each listener, and whom the host's own calls wait for.
func (d *poolSockets) dump(at capture.Instant, t *capture.SocketTable) {
	type pool struct{ accepted, queue, gaveUp uint32 }
	pools := make(map[capture.Endpoint]*pool)
	inodes := make(map[capture.Endpoint][]uint32)
	calls := make(map[capture.Endpoint]uint32)
	for i := range t.Sockets {
		s := &t.Sockets[i]
		switch s.State {
		case capture.Established, capture.CloseWait, capture.SynSent:
		default:
			continue
		}
		if !d.Listens(s.Local.Port) {
			if s.Inode != 0 && (s.State == capture.SynSent || s.HasInfo && s.Info.LastDataRecv >= callLag && s.State == capture.Established) {
				calls[s.Remote]++
			}
			continue
		}
		p := pools[s.Local]
		if p == nil {
			p = new(pool)
			pools[s.Local] = p
		}
		if s.State == capture.CloseWait {
			p.gaveUp++
		}
		if s.Inode == 0 {
			p.queue++
			continue
		}
		p.accepted++
		if len(inodes[s.Local]) < maxAskInodes {
			inodes[s.Local] = append(inodes[s.Local], s.Inode)
		}
	}
	var peer capture.Endpoint
	var most uint32
	for k, n := range calls {
		if n > most || n == most && k.Compare(peer) < 0 {
			peer, most = k, n
		}
	}
	for k, p := range pools {
		x := d.ports.Peek(k)
		if p.queue == 0 {
			if x != nil {
				x.n, x.since = 0, 0
			}
			continue
		}
		if x = d.ports.Get(k); x == nil {
			continue
		}
		if x.n == 0 {
			x.since = at
		}
		if x.n == stat.SeriesLen {
			copy(x.accepted[:], x.accepted[1:])
			x.n--
		}
		x.accepted[x.n] = p.accepted
		x.n++
		x.queue, x.gaveUp, x.inodes, x.peer, x.calls = p.queue, p.gaveUp, inodes[k], peer, most
	}
	d.ports.Each(func(k capture.Endpoint, x *socketPool) bool { return pools[k] != nil && x.n > 0 })
}

// threads remembers what most threads of the busiest process wait for.
func (d *poolSockets) threads(p *capture.ProcessSample) {
	for i := range p.Processes {
		x := &p.Processes[i]
		for _, t := range x.Waits {
			if t.Remote.Port == 0 || t.Listening {
				continue
			}
			d.waits = fmt.Sprintf("%d of %d threads of %s wait on %s", t.Threads, x.Threads, measure.ProcessName(x), t.Remote)
			return
		}
	}
}

// judge emits the pools that the packets did not show (those of seen), and asks for a dump of all sockets while a queue is not empty.
func (d *poolSockets) judge(w *analyze.Window, seen map[string]bool, emit func(analyze.Symptom)) {
	if d.full && w.Ask != nil {
		w.Ask(analyze.Ask{Full: true})
	}
	d.ports.Each(func(k capture.Endpoint, x *socketPool) bool {
		if x.n < 2 || !d.Full.Fresh(w.End) {
			return true
		}
		if d.Owners.Of(x.inodes) == "" || d.waits == "" {
			d.owner.Ask(w, x.inodes)
		}
		subject := measure.Service(k)
		if seen[subject.Key()] || d.Owners.Halted(x.inodes) {
			return true // or its program is stopped, however many threads it has
		}
		lo, hi := slices.Min(x.accepted[:x.n]), slices.Max(x.accepted[:x.n])
		f := PoolExhausted{Level: int(hi), Spread: int(hi - lo), Queued: int(x.queue), Outstanding: int(hi + x.queue),
			Plateau: d.Full.Newest().Sub(x.since).Seconds(), OldestWait: d.Full.Newest().Sub(x.since).Seconds(), Abandoned: int(x.gaveUp),
			Baseline: max(x.since.Sub(w.First).Seconds(), 0), Sampled: true, Waits: d.waits}
		if x.calls > 0 {
			f.OutboundPeer, f.OutboundPort, f.OutboundKind = x.peer.Addr.String(), int(x.peer.Port), "tcp"
			f.OutboundShare = min(stat.Ratio(x.calls, hi), 1)
		}
		emit(analyze.Symptom{Subject: subject, Onset: x.since, Features: f, Filter: measure.ServiceFilter(k)})
		return true
	})
}

// waiting is what the threads wait for; empty if that is not known, or is not peer.
func (d *poolSockets) waiting(peer string) string {
	if peer != "" && !strings.Contains(d.waits, peer) {
		return ""
	}
	return d.waits
}
