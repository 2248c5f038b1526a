package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
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
	Trickled int     `json:"trickled"`
}

// The classes of scan.
const (
	classManyPorts = "ports" // many ports of one host
	classManyHosts = "hosts" // one port of many hosts
)

// scan finds sources that try many ports of a host, or one port of many hosts, and get nowhere.
type scan struct {
	scanners *measure.Scanners
	worst    Scan
	asking   []measure.YoungRequest // first requests of connections, not answered yet
	trickled int                    // of those, how many came too slowly to be meant
}

func newScan() analyze.Detector { return &scan{scanners: measure.NewScanners()} }

func (d *scan) Spec() analyze.Spec {
	return analyze.Spec{Rule: "scan", Features: Scan{}, Events: flow.Of(flow.Request)}
}

// Measures implements analyze.Measurer.
func (d *scan) Measures() []analyze.Measure { return []analyze.Measure{d.scanners} }

// Event implements analyze.Detector: scanners take all but requests.
func (d *scan) Event(e *flow.Event) {
	if e.Conn.Requests() == 1 && len(d.asking) < measure.MaxAttempts {
		d.asking = append(d.asking, measure.YoungRequest{Ref: e.Conn.Ref(), At: e.At})
	}
}

// trickle counts the connections whose first request comes a few bytes at a time, for longer than a web server has to wait for it. Each
// holds a worker of a server that has one for each connection: an attack that is neither a scan nor a flood (slowloris).
func (d *scan) trickle(w *analyze.Window) {
	after, rate := w.Params.Duration("trickle"), w.Params.Float("min_rate")
	keep := d.asking[:0]
	for _, x := range d.asking {
		c := w.Flows.Lookup(x.Ref)
		if c == nil || c.Outstanding() != x.At && !c.Closed() {
			continue
		}
		if lasts := c.RequestLast().Sub(x.At); lasts >= after && float64(c.Bytes(flow.Client)) < rate*lasts.Seconds() {
			d.trickled += measure.Count(c.Bytes(flow.Server) == 0)
		} else if !c.Closed() {
			keep = append(keep, x)
		}
	}
	d.asking = keep
}

func (d *scan) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.trickle(w)
	d.scanners.Judge(w, func(a capture.Addr, x *measure.ScanSource) {
		if !x.Scans && int(x.Targets) <= d.worst.Ports+d.worst.Hosts {
			return
		}
		f := Scan{Source: a.String(), Class: classManyPorts, Attempts: int(x.Attempts), Failed: int(x.Failed()), Refused: int(x.Refused),
			Silent: int(x.Silent), HalfOpen: int(x.HalfOpen), Share: x.Share(), Ports: int(x.Ports), Target: x.Host.String(),
			Hosts: int(x.Hosts), Port: int(x.Port), More: x.More, Lasting: x.Last.Sub(x.First).Seconds()}
		if x.Hosts > x.Ports {
			f.Class = classManyHosts
		}
		if f.Ports+f.Hosts > d.worst.Ports+d.worst.Hosts {
			d.worst = f
		}
		if !x.Scans {
			return
		}
		if x.Told && w.End.Sub(x.Last) > measure.IgnoredAfter+analyze.WindowLength {
			return // it pauses, and of all its attempts is known what became of them
		}
		x.Told = true
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectHost, Host: a.String()}, Onset: x.First, Features: f,
			Evidence: []analyze.Evidence{x.Note.Evidence()}, Filter: measure.AddrFilter(a, "src") + " && tcp.flags.syn == 1 && tcp.flags.ack == 0"})
	})
}

func (d *scan) Assess(*analyze.Window) analyze.Assessment {
	f := d.worst
	f.Scanning, f.Trickled = d.scanners.Scanning, d.trickled
	f.Sources, f.Attempts, f.HalfOpen, f.More = d.scanners.Totals()
	return analyze.Assessment{Assessable: d.scanners.Heard, Features: f}
}
