package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Exhaustion are the features of exhaustion.
type Exhaustion struct {
	Used     int     `json:"used"`
	Limit    int     `json:"limit"`
	Share    float64 `json:"share"`
	Refused  int     `json:"refused"`
	TimeWait int     `json:"time_wait"`
	Baseline float64 `json:"baseline"`
	Process  string  `json:"process"`
	Class    string  `json:"class"`
}

// The classes of exhaustion.
const (
	classConntrack   = "conntrack"   // the connection tracking table
	classPorts       = "ports"       // local ports towards one destination
	classDescriptors = "descriptors" // open files, of the host or of a process
)

// exhaustion holds what the host has against its limits.
type exhaustion struct {
	*measure.HostSockets
	host        hostLimits
	ports       measure.Subjects[portsKey, portsUse]
	processes   measure.Subjects[int32, processFiles]
	names       map[int32]string
	table       uint32
	conntrack   limitState
	descriptors limitState
	best        Exhaustion
	asked       capture.Instant // for processes
	turned      uint16          // port of the listener that last ended a connection in which it owed an answer
	owner       measure.Inquiry // of that listener
}

// hostLimits is what the newest sample says.
type hostLimits struct {
	known              bool
	portRange          int
	first, last        uint16
	timeWait           uint64
	refused            uint64 // conntrack: drop and insert_failed, cumulative
	refused0           uint64 // at the first sample
	conntrackLimited   bool
	descriptorsLimited bool
}

type portsKey struct {
	local  capture.Addr
	remote capture.Endpoint
}

type portsUse struct {
	limitState
	count, timeWait uint32
	table           uint32
}

// limitState is one use of one limit.
type limitState struct {
	used, limit uint64
	since       capture.Instant // at least watchShare of the limit is used since
}

// processFiles are the descriptors of a process, which are read when somebody asks who owns a socket.
type processFiles struct {
	limitState
	first  capture.Instant // read first: what was before is not known
	at     capture.Instant // read last
	inodes []uint32        // of its sockets, to ask by again
}

// forgotten is after how long without an answer nothing is known of a process's descriptors any more: it has ended, or the sockets
// by which it was asked for are closed. By then it was asked for three times.
const forgotten = 4 * measure.AskAgain

// watchShare of a limit is where the onset lies, and from where on dumps of all sockets are asked for: the
// thresholds of the rule are above it.
const watchShare = 0.5

func (s *limitState) set(at capture.Instant, used, limit uint64) {
	s.used, s.limit = used, limit
	if float64(used) < watchShare*float64(limit) || limit == 0 {
		s.since = 0
	} else if s.since == 0 {
		s.since = at
	}
}

// again is how long to wait before a process is asked for again: in its first minute less, so that a short trouble ends when it is over.
func (s *processFiles) again(now capture.Instant) time.Duration {
	if now.Sub(s.since) < time.Minute {
		return measure.AskAgain / 3
	}
	return measure.AskAgain
}

func newExhaustion() analyze.Detector {
	return &exhaustion{HostSockets: measure.NewHostSockets(), ports: measure.NewSubjects[portsKey, portsUse](measure.MaxPerDetector), processes: measure.NewSubjects[int32, processFiles](measure.MaxPerDetector),
		names: make(map[int32]string)}
}

func (d *exhaustion) Spec() analyze.Spec {
	return analyze.Spec{Rule: "exhaustion", Features: Exhaustion{}, Events: flow.Of(flow.Reset, flow.Unanswered)}
}

// Event shows where to look: packets show no limits, but a program without a descriptor to spare may close what it
// has just accepted (libuv keeps one in reserve for that).
func (d *exhaustion) Event(e *flow.Event) {
	switch e.Class {
	case flow.ResetAbort, flow.ResetLateRequest, flow.ClosedUnanswered:
		if e.Side == flow.Server && d.Listens(e.Conn.Server.Port) {
			d.turned = e.Conn.Server.Port
		}
	}
}

func (d *exhaustion) Sample(at capture.Instant, s *capture.Sample) {
	switch {
	case s.Host != nil:
		d.counters(at, s.Host)
	case s.Sockets != nil:
		d.sockets(at, s.Sockets)
	case s.Processes != nil:
		for i := range s.Processes.Processes {
			p := &s.Processes.Processes[i]
			if x := d.processes.Get(p.PID); x != nil && p.FDLimit > 0 {
				if x.first == 0 {
					x.first = at
				}
				x.set(at, uint64(p.FDs), uint64(p.FDLimit))
				x.at, x.inodes = at, append(x.inodes[:0], p.Inodes[:min(len(p.Inodes), maxAskInodes)]...)
				d.names[p.PID] = measure.ProcessName(p)
			}
		}
	}
}

func (d *exhaustion) counters(at capture.Instant, h *capture.HostSample) {
	if h.Known(capture.ConntrackDrop) { // the same file has both
		refused := h.Counters[capture.ConntrackDrop] + h.Counters[capture.ConntrackInsertFailed]
		if !d.host.known {
			d.host.refused0 = refused
		}
		d.host.known, d.host.refused = true, refused
	}
	d.host.first, d.host.last = h.PortRange[0], h.PortRange[1]
	d.host.portRange = 0
	if h.PortRange[1] >= h.PortRange[0] && h.PortRange[1] != 0 {
		d.host.portRange = int(h.PortRange[1]) - int(h.PortRange[0]) + 1
	}
	d.host.timeWait = h.SocketsTimeWait
	d.host.conntrackLimited, d.host.descriptorsLimited = h.ConntrackMax > 0, h.FilesMax > 0
	d.conntrack.set(at, h.ConntrackCount, h.ConntrackMax)
	d.descriptors.set(at, h.FilesOpen, h.FilesMax)
}

// sockets counts the local ports in use by destination, in a table that has the sockets in TIME_WAIT.
func (d *exhaustion) sockets(at capture.Instant, t *capture.SocketTable) {
	if t.States&capture.TimeWait.Mask() == 0 || t.States&capture.Established.Mask() == 0 || d.host.portRange == 0 {
		return
	}
	d.table++
	for i := range t.Sockets {
		s := &t.Sockets[i]
		if s.Local.Port < d.host.first || s.Local.Port > d.host.last || d.Listens(s.Local.Port) {
			continue
		}
		u := d.ports.Get(portsKey{s.Local.Addr, s.Remote})
		if u == nil {
			continue
		}
		if u.table != d.table {
			u.table, u.count, u.timeWait = d.table, 0, 0
		}
		u.count++
		if s.State == capture.TimeWait {
			u.timeWait++
		}
	}
	d.ports.Each(func(_ portsKey, u *portsUse) bool {
		if u.table != d.table {
			return false
		}
		u.set(at, uint64(u.count), uint64(d.host.portRange))
		return true
	})
}

func (d *exhaustion) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	host := w.Local.String()
	say := func(s *limitState, from capture.Instant, f Exhaustion, subject analyze.Subject) {
		f.Used, f.Limit, f.Share = int(s.used), int(s.limit), stat.Ratio(s.used, s.limit)
		if f.Share > d.best.Share {
			d.best = f
		}
		if s.since == 0 {
			return
		}
		f.Baseline = max(s.since.Sub(from).Seconds(), 0)
		emit(analyze.Symptom{Subject: subject, Onset: s.since, Features: f})
	}
	of := func(what string) analyze.Subject {
		return analyze.Subject{Kind: analyze.SubjectHost, Host: host, Segment: what}
	}
	say(&d.conntrack, w.First, Exhaustion{Class: classConntrack, Refused: int(d.host.refused - min(d.host.refused0, d.host.refused))}, of(classConntrack))
	say(&d.descriptors, w.First, Exhaustion{Class: classDescriptors}, of(classDescriptors))
	var ask []uint32
	d.processes.Each(func(pid int32, s *processFiles) bool {
		if age := w.End.Sub(s.at); s.since == 0 || age > forgotten {
			delete(d.names, pid)
			return false
		} else if again := s.again(w.End); age >= again && w.End.Sub(d.asked) >= again {
			ask = append(ask, s.inodes...)
		}
		say(&s.limitState, s.first, Exhaustion{Class: classDescriptors, Process: d.names[pid]}, of(d.names[pid]))
		return true
	})
	watched := d.host.portRange > 0 && float64(d.host.timeWait) >= watchShare*float64(d.host.portRange)
	d.ports.Each(func(k portsKey, u *portsUse) bool {
		watched = watched || u.since != 0
		say(&u.limitState, w.First, Exhaustion{Class: classPorts, TimeWait: int(u.timeWait)}, analyze.Subject{Kind: analyze.SubjectUpstream,
			Host: k.local.String(), Peer: k.remote.Addr.String(), Port: k.remote.Port})
		return true
	})
	if w.Ask == nil {
		return
	}
	if p, ok := d.Port(d.turned); ok && p.Inode != 0 {
		d.owner.Ask(w, []uint32{p.Inode})
	}
	d.turned = 0
	if watched {
		w.Ask(analyze.Ask{Full: true})
	}
	if len(ask) > 0 {
		d.asked = w.End
		w.Ask(analyze.Ask{Inodes: ask[:min(len(ask), maxAskInodes)]})
	}
}

func (d *exhaustion) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: w.Have.Has(analyze.Counters), Features: d.best}
}
