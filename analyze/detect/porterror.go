package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// PortError are the features of port-error.
type PortError struct {
	Link      string  `json:"link"`
	CRC       int     `json:"crc"`
	FIFO      int     `json:"fifo"`
	Frame     int     `json:"frame"`
	Missed    int     `json:"missed"`
	Dropped   int     `json:"dropped"`
	Carrier   int     `json:"carrier"`
	Packets   int     `json:"packets"`
	DropShare float64 `json:"drop_share"`
	Span      float64 `json:"span"`
	Class     string  `json:"class"`
}

// The classes of port-error.
const (
	classWire    = "wire"    // bits were wrong when they arrived: cable, module, port
	classRing    = "ring"    // the receive ring was full
	classSoftnet = "softnet" // the kernel's backlog was full
)

// portError watches what the host's own interfaces count as broken or dropped.
type portError struct {
	links   measure.Subjects[string, linkErrors]
	softnet linkErrors
	looked  bool
	worst   PortError
}

// linkErrors are the counters of an interface over the last errorSpan windows.
type linkErrors struct {
	ring  [errorSpan]linkCounts // cumulative, the newest last
	n     int
	now   linkCounts
	fresh bool
	onset capture.Instant // first window with an error since a quiet span
}

type linkCounts struct {
	at                                                    capture.Instant
	packets, crc, fifo, frame, missed, dropped, txCarrier uint64
}

func (c linkCounts) bad() uint64 {
	return c.crc + c.fifo + c.frame + c.missed + c.dropped + c.txCarrier
}

const (
	// errorSpan is how many windows back errors count: netdata looks at drops over 10 min and at FIFO errors
	// over 10 min; one minute is enough to call it still going on.
	errorSpan = 60
	// maxLinks bounds the interfaces; container hosts have hundreds of veths.
	maxLinks = 1024
)

func newPortError() analyze.Detector {
	return &portError{links: measure.NewSubjects[string, linkErrors](maxLinks)}
}

func (d *portError) Spec() analyze.Spec {
	return analyze.Spec{Rule: "port-error", Features: PortError{}}
}

// Event is never called: what an interface drops is in no capture.
func (d *portError) Event(*flow.Event) {}

func (d *portError) Sample(at capture.Instant, s *capture.Sample) {
	if s.Host == nil {
		return
	}
	d.looked = true
	for i := range s.Host.Links {
		l := &s.Host.Links[i]
		if l.Loopback || l.Virtual {
			continue // no wire, no ring: their drops are decisions of this host
		}
		if x := d.links.Get(l.Name); x != nil {
			x.now = linkCounts{at, l.RxPackets, l.RxCRC, l.RxFIFO, l.RxFrame, l.RxMissed, l.RxDropped, l.TxCarrier}
			x.fresh = true
		}
	}
	if s.Host.Known(capture.SoftnetDropped) {
		d.softnet.now = linkCounts{at: at, packets: s.Host.Counters[capture.SoftnetProcessed], dropped: s.Host.Counters[capture.SoftnetDropped]}
		d.softnet.fresh = true
	}
}

func (d *portError) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	host := w.Local.String()
	judge := func(name string, x *linkErrors, softnet bool) {
		f, ok := x.measure()
		if !ok {
			return
		}
		f.Link = name
		if softnet {
			f.Class = classSoftnet
		}
		if f.CRC+f.FIFO+f.Frame+f.Missed+f.Dropped+f.Carrier > d.worst.CRC+d.worst.FIFO+d.worst.Frame+d.worst.Missed+d.worst.Dropped+d.worst.Carrier {
			d.worst = f
		}
		if x.onset != 0 {
			emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: host, Segment: name}, Onset: x.onset, Features: f})
		}
	}
	d.links.Each(func(name string, x *linkErrors) bool {
		gone := !x.fresh && w.End.Sub(x.now.at) > errorSpan*analyze.WindowLength
		judge(name, x, false)
		return !gone
	})
	judge("softnet", &d.softnet, true)
}

// measure rolls the window and gives the errors of the span; false before there are two samples.
func (x *linkErrors) measure() (f PortError, ok bool) {
	if x.fresh {
		x.fresh = false
		if x.n > 0 && x.now.bad() < x.ring[x.n-1].bad() {
			x.n = 0 // the counters began anew
		}
		if x.n == errorSpan {
			copy(x.ring[:], x.ring[1:])
			x.n--
		}
		if x.n > 0 && x.now.bad() > x.ring[x.n-1].bad() && x.onset == 0 {
			x.onset = x.ring[x.n-1].at
		}
		x.ring[x.n] = x.now
		x.n++
	}
	if x.n < 2 {
		return f, false
	}
	a, b := x.ring[0], x.ring[x.n-1]
	if b.bad() == a.bad() {
		x.onset = 0
	}
	f = PortError{CRC: int(b.crc - a.crc), FIFO: int(b.fifo - a.fifo), Frame: int(b.frame - a.frame), Missed: int(b.missed - a.missed),
		Dropped: int(b.dropped - a.dropped), Carrier: int(b.txCarrier - a.txCarrier), Packets: int(b.packets - a.packets), Span: b.at.Sub(a.at).Seconds()}
	f.DropShare = stat.Ratio(f.Missed+f.Dropped, f.Packets+f.Missed+f.Dropped)
	f.Class = classRing
	if f.CRC+f.Frame+f.Carrier > 0 {
		f.Class = classWire
	}
	return f, true
}

func (d *portError) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: d.looked && w.Have.Has(analyze.Counters), Features: d.worst}
}
