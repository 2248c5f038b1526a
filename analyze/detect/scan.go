package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Scan are the features of scan. Times in seconds.
type Scan struct {
	Source   string  `json:"source"`
	Class    string  `json:"class"`
	Attempts int     `json:"attempts"`
	Failed   int     `json:"failed"`
	Refused  int     `json:"refused"`
	Silent   int     `json:"silent"`
	HalfOpen int     `json:"half_open"`
	Share    float64 `json:"share"`
	Ports    int     `json:"ports"`
	Target   string  `json:"target"`
	Hosts    int     `json:"hosts"`
	Port     int     `json:"scanned_port"`
	More     bool    `json:"more"`
	Lasting  float64 `json:"lasting"`
	Sources  int     `json:"sources"`
	Scanning int     `json:"scanning"`
}

// The classes of scan.
const (
	classManyPorts = "ports" // many ports of one host
	classManyHosts = "hosts" // one port of many hosts
)

// scan finds sources that try many ports of a host, or one port of many hosts, and get nowhere.
type scan struct {
	scanners *scanners
	worst    Scan
}

// scanners remembers who tries what in vain. One instance serves all detectors of an engine, so that what a
// scanner provokes feeds none of them: the scan detector writes it, the others ask is.
type scanners struct {
	sources measure.Subjects[capture.Addr, scanSource]
	targets measure.Subjects[scanTarget, scanned]
	fans    measure.Subjects[scanFan, uint32]
	served  measure.Services[struct{}] // listeners that have given somebody an answer: who fails there is their client
	unended unended
	heard   bool // somebody answered a SYN, be it by RST
	// maxTries is known from the first window on.
	maxTries uint32
	scanning int // sources
	attempts int // of all
	halfOpen int // of them
}

// unended finds the connection requests that their clients do not pursue.
type unended struct {
	young  []measure.YoungRequest // too young to be called that, in order of time
	missed uint64                 // that found no room
	// handshakes says that the capture shows how handshakes end; one that was filtered for SYNs does not.
	handshakes bool
}

// event takes flow.SynSent and flow.Established; others are ignored.
func (u *unended) event(e *flow.Event) {
	switch e.Kind {
	case flow.SynSent:
		if len(u.young) == measure.MaxAttempts {
			u.missed++
			return
		}
		u.young = append(u.young, measure.YoungRequest{Ref: e.Conn.Ref(), At: e.At})
	case flow.Established:
		u.handshakes = true
	}
}

// judge calls f for each request that its client has had time to pursue and has not: it neither went on with the handshake, nor reset it, nor
// sent its SYN again. answered is whether the SYN-ACK was seen; if not, that may be because nobody listens. Who wants a connection
// and gets no answer sends its SYN again (RFC 9293 §3.8.1), at the latest after 3 s (RFC 1122 §4.2.3.1).
func (u *unended) judge(w *analyze.Window, f func(c *flow.Conn, answered bool)) {
	n := 0
	for ; n < len(u.young) && w.End.Sub(u.young[n].At) >= measure.IgnoredAfter; n++ {
		c := w.Flows.Lookup(u.young[n].Ref)
		if c == nil || c.Closed() || c.IsEstablished() || c.SynTries() > 0 || c.SynAnswered() && !u.handshakes && c.SynAckTries() == 0 {
			continue
		}
		f(c, c.SynAnswered())
	}
	u.young = u.young[:copy(u.young, u.young[n:])]
}

// scanSource is one source of connection requests.
type scanSource struct {
	first, last                               capture.Instant
	attempts, good, refused, silent, halfOpen uint32
	targets                                   uint32 // that count as tried in vain
	ports, hosts                              uint32 // most ports of one host, and most hosts on one port, among them
	host                                      capture.Addr
	port                                      uint16
	more                                      bool // there are targets that found no room
	scans, told                               bool
	note                                      measure.Note
}

func (x *scanSource) failed() uint32 { return x.refused + x.silent + x.halfOpen }

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

func newScanners() *scanners {
	return &scanners{sources: measure.NewSubjects[capture.Addr, scanSource](measure.MaxPerDetector), targets: measure.NewSubjects[scanTarget, scanned](maxScanTargets),
		fans: measure.NewSubjects[scanFan, uint32](maxScanTargets), served: measure.NewServices[struct{}](measure.MaxPerDetector)}
}

func newScan() analyze.Detector { return &scan{scanners: newScanners()} }

func (d *scan) Spec() analyze.Spec {
	return analyze.Spec{Rule: "scan", Features: Scan{}}
}

// Measures implements analyze.Measurer.
func (d *scan) Measures() []analyze.Measure { return []analyze.Measure{d.scanners} }

// Event implements analyze.Detector: scanners take what there is.
func (d *scan) Event(*flow.Event) {}

// is reports whether a scans, as far as was known at the end of the last window.
func (s *scanners) is(a capture.Addr) bool {
	if s == nil || s.scanning == 0 {
		return false
	}
	x := s.sources.Peek(a)
	return x != nil && x.scans
}

// aimed reports whether server is one of those that client scans: its other calls are calls like any others.
func (s *scanners) aimed(client capture.Addr, server capture.Endpoint) bool {
	if !s.is(client) {
		return false
	}
	t := s.targets.Peek(scanTarget{client, server})
	return t != nil && t.counted
}

// Events implements analyze.Measure.
func (s *scanners) Events() flow.Mask {
	return flow.Of(flow.SynSent, flow.SynAckSent, flow.Established, flow.Refused, flow.Reset, flow.Response)
}

// Event implements analyze.Measure.
func (s *scanners) Event(e *flow.Event) {
	s.unended.event(e)
	c := e.Conn
	switch e.Kind {
	case flow.SynSent:
		s.attempts++
		x := s.sources.Get(c.Client.Addr)
		if x == nil {
			return
		}
		if x.attempts == 0 {
			x.first = e.At
		}
		x.last = max(x.last, e.At)
		x.attempts++
	case flow.SynAckSent:
		s.heard = true
	case flow.Established:
		if x := s.sources.Peek(c.Client.Addr); x != nil {
			x.good++
		}
	case flow.Response:
		s.served.Get(c)
		s.forgive(scanTarget{c.Client.Addr, c.Server})
	case flow.Refused:
		s.heard = true
		if x := s.sources.Peek(c.Client.Addr); x != nil {
			x.refused++
			s.fail(x, c)
		}
	case flow.Reset:
		// The source takes the answer for what it wanted to know, or its host does not know of the request.
		if e.Side == flow.Client && c.SynAnswered() && !c.IsEstablished() {
			s.unended.handshakes = true
			s.halfOpen++
			if x := s.sources.Peek(c.Client.Addr); x != nil {
				x.halfOpen++
				s.fail(x, c)
			}
		}
	}
}

// fail counts an attempt of c's client, x, that came to nothing.
func (s *scanners) fail(x *scanSource, c *flow.Conn) {
	if x.note.At == 0 {
		x.note = measure.FirstSYN(c)
	}
	if s.served.Peek(c) != nil {
		return
	}
	k := scanTarget{c.Client.Addr, c.Server}
	t := s.targets.Peek(k)
	if t == nil {
		if x.targets >= maxScanPerSource {
			x.more = true
			return
		}
		if t = s.targets.Get(k); t == nil {
			x.more = true
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
func (s *scanners) forgive(k scanTarget) {
	if t := s.targets.Peek(k); t != nil && t.counted {
		t.counted = false
		if x := s.sources.Peek(k.source); x != nil {
			s.count(x, k, -1)
		}
	}
}

// count adds n to the fans that k belongs to.
func (s *scanners) count(x *scanSource, k scanTarget, n int32) {
	x.targets += uint32(n)
	if f := s.fans.Get(scanFan{source: k.source, host: k.server.Addr}); f == nil {
		x.more = true
	} else if *f += uint32(n); *f > x.ports || k.server.Addr == x.host {
		x.ports, x.host = *f, k.server.Addr
	}
	if f := s.fans.Get(scanFan{source: k.source, port: k.server.Port}); f == nil {
		x.more = true
	} else if *f += uint32(n); *f > x.hosts || k.server.Port == x.port {
		x.hosts, x.port = *f, k.server.Port
	}
}

// ripen decides on the attempts that have had their time. A client that sends its SYN again wants a connection and does not get it: that
// is no scan, whatever else it is (a scanner sends each once).
func (s *scanners) ripen(w *analyze.Window) {
	s.unended.judge(w, func(c *flow.Conn, answered bool) {
		if answered {
			s.halfOpen++
		}
		x := s.sources.Peek(c.Client.Addr)
		switch {
		case x == nil:
		case answered:
			x.halfOpen++
			s.fail(x, c)
		case s.heard:
			x.silent++
			s.fail(x, c)
		}
	})
}

func (d *scan) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	s := d.scanners
	s.maxTries = uint32(w.Params.Int("max_tries"))
	s.ripen(w)
	memory := w.Params.Duration("memory")
	minPorts, minHosts, minShare := w.Params.Int("min_ports"), w.Params.Int("min_hosts"), w.Params.Float("min_share")
	crowded := len(s.sources.M) > measure.MaxPerDetector*3/4
	s.scanning = 0
	gone := false
	s.sources.Each(func(a capture.Addr, x *scanSource) bool {
		if w.End.Sub(x.last) > memory || crowded && x.targets < fewTargets && x.last < w.Start {
			gone = true
			return false
		}
		share := stat.Ratio(x.failed(), x.failed()+x.good)
		x.scans = (int(x.ports) >= minPorts || int(x.hosts) >= minHosts) && share >= minShare
		if !x.scans && int(x.targets) <= d.worst.Ports+d.worst.Hosts {
			return true
		}
		f := Scan{Source: a.String(), Class: classManyPorts, Attempts: int(x.attempts), Failed: int(x.failed()), Refused: int(x.refused),
			Silent: int(x.silent), HalfOpen: int(x.halfOpen), Share: share, Ports: int(x.ports), Target: x.host.String(),
			Hosts: int(x.hosts), Port: int(x.port), More: x.more, Lasting: x.last.Sub(x.first).Seconds()}
		if x.hosts > x.ports {
			f.Class = classManyHosts
		}
		if f.Ports+f.Hosts > d.worst.Ports+d.worst.Hosts {
			d.worst = f
		}
		if !x.scans {
			return true
		}
		s.scanning++
		if x.told && w.End.Sub(x.last) > measure.IgnoredAfter+analyze.WindowLength {
			return true // it pauses, and of all its attempts is known what became of them
		}
		x.told = true
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: a.String()}, Onset: x.first, Features: f,
			Evidence: []analyze.Evidence{x.note.Evidence()}, Filter: measure.AddrFilter(a, "src") + " && tcp.flags.syn == 1 && tcp.flags.ack == 0"})
		return true
	})
	if gone {
		s.targets.Each(func(k scanTarget, _ *scanned) bool { return s.sources.Peek(k.source) != nil })
		s.fans.Each(func(k scanFan, _ *uint32) bool { return s.sources.Peek(k.source) != nil })
	}
}

func (d *scan) Assess(*analyze.Window) analyze.Assessment {
	s := d.scanners
	f := d.worst
	f.Sources, f.Scanning, f.Attempts, f.HalfOpen = len(s.sources.M), s.scanning, s.attempts, s.halfOpen
	f.More = s.sources.Refused+s.targets.Refused+s.unended.missed > 0
	return analyze.Assessment{Assessable: s.heard, Features: f}
}
