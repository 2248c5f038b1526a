package measure

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Scanners remembers who tries what in vain. One instance serves all detectors of an engine, so that what a
// scanner provokes feeds none of them: the scan detector judges it, the others ask Is.
type Scanners struct {
	sources Subjects[capture.Addr, ScanSource]
	targets Subjects[scanTarget, scanned]
	fans    Subjects[scanFan, uint32]
	served  Services[struct{}] // listeners that have given somebody an answer: who fails there is their client
	unended Unended
	Heard   bool // somebody answered a SYN, be it by RST
	// maxTries is known from the first window on.
	maxTries uint32
	Scanning int // sources
	attempts int // of all
	halfOpen int // of them
}

// Unended finds the connection requests that their clients do not pursue.
type Unended struct {
	young  []YoungRequest // too young to be called that, in order of time
	missed uint64         // that found no room
	// handshakes says that the capture shows how handshakes end; one that was filtered for SYNs does not.
	handshakes bool
}

// Event takes flow.SynSent and flow.Established; others are ignored.
func (u *Unended) Event(e *flow.Event) {
	switch e.Kind {
	case flow.SynSent:
		if len(u.young) == MaxAttempts {
			u.missed++
			return
		}
		u.young = append(u.young, YoungRequest{Ref: e.Conn.Ref(), At: e.At})
	case flow.Established:
		u.handshakes = true
	}
}

// Judge calls f for each request that its client has had time to pursue and has not: it neither went on with the handshake, nor reset it, nor
// sent its SYN again. answered is whether the SYN-ACK was seen; if not, that may be because nobody listens. Who wants a connection
// and gets no answer sends its SYN again (RFC 9293 §3.8.1), at the latest after 3 s (RFC 1122 §4.2.3.1).
func (u *Unended) Judge(w *analyze.Window, f func(c *flow.Conn, answered bool)) {
	n := 0
	for ; n < len(u.young) && w.End.Sub(u.young[n].At) >= IgnoredAfter; n++ {
		c := w.Flows.Lookup(u.young[n].Ref)
		if c == nil || c.Closed() || c.IsEstablished() || c.SynTries() > 0 || c.SynAnswered() && !u.handshakes && c.SynAckTries() == 0 {
			continue
		}
		f(c, c.SynAnswered())
	}
	u.young = u.young[:copy(u.young, u.young[n:])]
}

// ScanSource is one source of connection requests.
type ScanSource struct {
	First, Last                               capture.Instant
	Attempts, good, Refused, Silent, HalfOpen uint32
	Targets                                   uint32 // that count as tried in vain
	Ports, Hosts                              uint32 // most ports of one host, and most hosts on one port, among them
	Host                                      capture.Addr
	Port                                      uint16
	More                                      bool // there are targets that found no room
	Scans                                     bool // the rule's thresholds say that it scans
	Told                                      bool // and the detector has said so
	Note                                      Note
}

// Failed is how many of its attempts came to nothing.
func (x *ScanSource) Failed() uint32 { return x.Refused + x.Silent + x.HalfOpen }

// Share is the share of the attempts with an outcome that failed.
func (x *ScanSource) Share() float64 { return stat.Ratio(x.Failed(), x.Failed()+x.good) }

type scanTarget struct {
	source capture.Addr
	server capture.Endpoint
}

// scanned is a listener that failed for one source.
type scanned struct {
	tries   uint32
	counted bool
}

// scanFan counts the targets of a source at one host (port 0), or at one port (no host).
type scanFan struct {
	source, host capture.Addr
	port         uint16
}

const (
	// maxScanTargets bounds the pairs of source and listener that failed: 32,768 of 150 bytes. A source may
	// have maxScanPerSource of them; a scan is known long before.
	maxScanTargets   = 1 << 15
	maxScanPerSource = 2048
	// fewTargets: when a flood of sources has filled the table, those with fewer targets make room.
	fewTargets = 3
)

// NewScanners returns scanners of whom nobody has tried anything.
func NewScanners() *Scanners {
	return &Scanners{sources: NewSubjects[capture.Addr, ScanSource](MaxPerDetector), targets: NewSubjects[scanTarget, scanned](maxScanTargets),
		fans: NewSubjects[scanFan, uint32](maxScanTargets), served: NewServices[struct{}](MaxPerDetector)}
}

// Is reports whether a scans, as far as was known at the end of the last window.
func (s *Scanners) Is(a capture.Addr) bool {
	if s == nil || s.Scanning == 0 {
		return false
	}
	x := s.sources.Peek(a)
	return x != nil && x.Scans
}

// Aimed reports whether server is one of those that client scans: its other calls are calls like any others.
func (s *Scanners) Aimed(client capture.Addr, server capture.Endpoint) bool {
	if !s.Is(client) {
		return false
	}
	t := s.targets.Peek(scanTarget{client, server})
	return t != nil && t.counted
}

// Events implements analyze.Measure.
func (s *Scanners) Events() flow.Mask {
	return flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.Reset, flow.Response)
}

// Event implements analyze.Measure.
func (s *Scanners) Event(e *flow.Event) {
	s.unended.Event(e)
	c := e.Conn
	switch e.Kind {
	case flow.SynSent:
		s.attempts++
		x := s.sources.Get(c.Client.Addr)
		if x == nil {
			return
		}
		if x.Attempts == 0 {
			x.First = e.At
		}
		x.Last = max(x.Last, e.At)
		x.Attempts++
	case flow.SynAckSent:
		s.Heard = true
	case flow.Established:
		if x := s.sources.Peek(c.Client.Addr); x != nil {
			x.good++
		}
	case flow.Response:
		s.served.Get(c)
		s.forgive(scanTarget{c.Client.Addr, c.Server})
	case flow.Refused:
		s.Heard = true
		if x := s.sources.Peek(c.Client.Addr); x != nil {
			x.Refused++
			s.fail(x, c)
		}
	case flow.Reset:
		// The source takes the answer for what it wanted to know, or its host does not know of the request.
		if e.Side == flow.Client && c.SynAnswered() && !c.IsEstablished() {
			s.unended.handshakes = true
			s.halfOpen++
			if x := s.sources.Peek(c.Client.Addr); x != nil {
				x.HalfOpen++
				s.fail(x, c)
			}
		}
	}
}

// fail counts an attempt of c's client, x, that came to nothing.
func (s *Scanners) fail(x *ScanSource, c *flow.Conn) {
	if x.Note.At == 0 {
		x.Note = FirstSYN(c)
	}
	if s.served.Peek(c) != nil {
		return
	}
	k := scanTarget{c.Client.Addr, c.Server}
	t := s.targets.Peek(k)
	if t == nil {
		if x.Targets >= maxScanPerSource {
			x.More = true
			return
		}
		if t = s.targets.Get(k); t == nil {
			x.More = true
			return
		}
		t.counted = true
		s.count(x, k, 1)
	}
	// Who comes again and again wants the service, not to know whether there is one.
	if t.tries++; t.counted && s.maxTries > 0 && t.tries > s.maxTries {
		t.counted = false
		s.count(x, k, -1)
	}
}

// forgive takes back that k failed: it serves.
func (s *Scanners) forgive(k scanTarget) {
	if t := s.targets.Peek(k); t != nil && t.counted {
		t.counted = false
		if x := s.sources.Peek(k.source); x != nil {
			s.count(x, k, -1)
		}
	}
}

// count adds n to the fans that k belongs to.
func (s *Scanners) count(x *ScanSource, k scanTarget, n int32) {
	x.Targets += uint32(n)
	if f := s.fans.Get(scanFan{source: k.source, host: k.server.Addr}); f == nil {
		x.More = true
	} else if *f += uint32(n); *f > x.Ports || k.server.Addr == x.Host {
		x.Ports, x.Host = *f, k.server.Addr
	}
	if f := s.fans.Get(scanFan{source: k.source, port: k.server.Port}); f == nil {
		x.More = true
	} else if *f += uint32(n); *f > x.Hosts || k.server.Port == x.Port {
		x.Hosts, x.Port = *f, k.server.Port
	}
}

// ripen decides on the attempts that have had their time. A client that sends its SYN again wants a connection and does not get it: that
// is no scan, whatever else it is (a scanner sends each once).
func (s *Scanners) ripen(w *analyze.Window) {
	s.unended.Judge(w, func(c *flow.Conn, answered bool) {
		if answered {
			s.halfOpen++
		}
		x := s.sources.Peek(c.Client.Addr)
		switch {
		case x == nil:
		case answered:
			x.HalfOpen++
			s.fail(x, c)
		case s.Heard:
			x.Silent++
			s.fail(x, c)
		}
	})
}

// Judge decides by the thresholds of the rule who scans, calls f with each source, and forgets those long gone.
func (s *Scanners) Judge(w *analyze.Window, f func(a capture.Addr, x *ScanSource)) {
	s.maxTries = uint32(w.Params.Int("max_tries"))
	s.ripen(w)
	memory := w.Params.Duration("memory")
	minPorts, minHosts, minShare := w.Params.Int("min_ports"), w.Params.Int("min_hosts"), w.Params.Float("min_share")
	crowded := len(s.sources.M) > MaxPerDetector*3/4
	s.Scanning = 0
	gone := false
	s.sources.Each(func(a capture.Addr, x *ScanSource) bool {
		if w.End.Sub(x.Last) > memory || crowded && x.Targets < fewTargets && x.Last < w.Start {
			gone = true
			return false
		}
		if x.Scans = (int(x.Ports) >= minPorts || int(x.Hosts) >= minHosts) && x.Share() >= minShare; x.Scans {
			s.Scanning++
		}
		f(a, x)
		return true
	})
	if gone {
		s.targets.Each(func(k scanTarget, _ *scanned) bool { return s.sources.Peek(k.source) != nil })
		s.fans.Each(func(k scanFan, _ *uint32) bool { return s.sources.Peek(k.source) != nil })
	}
}

// Totals are how many sources there are, how many attempts they made, and how many of these were left half open; more: there were others.
func (s *Scanners) Totals() (sources, attempts, halfOpen int, more bool) {
	return len(s.sources.M), s.attempts, s.halfOpen, s.sources.Refused+s.targets.Refused+s.unended.missed > 0
}
