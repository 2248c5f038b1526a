package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// CaptureQuality are the features of capture-quality.
type CaptureQuality struct {
	Packets       int     `json:"packets"`
	Copies        int     `json:"copies"`
	CopyShare     float64 `json:"copy_share"`
	CaptureLost   int     `json:"capture_lost"`
	LostShare     float64 `json:"lost_share"`
	Connections   int     `json:"connections"`
	OneWay        int     `json:"one_way"`
	OneWayShare   float64 `json:"one_way_share"`
	MidStream     int     `json:"mid_stream"`
	SuperPackets  int     `json:"super_packets"`
	TimeBackwards int     `json:"time_backwards"`
}

// captureQuality says what in the capture itself lowers the worth of the other verdicts. It
// is never more than information: a bad capture is no fault of the network.
type captureQuality struct {
	first  capture.Instant // first artefact
	copies []analyze.Evidence
}

func newCaptureQuality() analyze.Detector { return &captureQuality{} }

func (d *captureQuality) Spec() analyze.Spec {
	return analyze.Spec{Rule: "capture-quality", Features: CaptureQuality{}, Events: flow.Of(flow.Copy, flow.HoleAcked)}
}

func (d *captureQuality) Event(e *flow.Event) {
	if d.first == 0 {
		d.first = e.At
	}
	if len(d.copies) < analyze.MaxEvidence && e.Kind == flow.Copy {
		n := analyze.Evidence{At: e.At, Flow: e.Conn.String(), Note: "captured before"}
		if e.Frame != 0 {
			n.Frames = []uint64{e.Frame}
		}
		d.copies = append(d.copies, n)
	}
}

func (d *captureQuality) measure(w *analyze.Window) CaptureQuality {
	s := &w.Flows.Stats
	f := CaptureQuality{Packets: int(s.Packets), Copies: int(s.Copies), CaptureLost: int(s.CaptureLost),
		Connections: int(s.Conns), OneWay: int(s.OneWay), MidStream: int(s.MidStream), SuperPackets: int(s.SuperPackets),
		TimeBackwards: int(s.Backward)}
	if w.Final {
		// Connections that are still open count only now: until its end, any of them may hear from its other side.
		w.Flows.Live(func(c *flow.Conn) {
			if c.OneWay() {
				f.OneWay++
			}
		})
	}
	f.CopyShare = ratio(s.Copies, s.Packets)
	f.LostShare = ratio(s.CaptureLost, s.Packets+s.CaptureLost)
	f.OneWayShare = ratio(f.OneWay, f.Connections)
	return f
}

func (d *captureQuality) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	f := d.measure(w)
	onset := d.first
	if onset == 0 {
		onset = w.First
	}
	emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectCapture}, Onset: onset, Features: f, Evidence: d.copies})
}

func (d *captureQuality) Assess(w *analyze.Window) analyze.Assessment {
	return analyze.Assessment{Assessable: w.Flows.Stats.Packets > 0, Features: d.measure(w)}
}
