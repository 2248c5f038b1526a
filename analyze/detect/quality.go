package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// CaptureQuality are the features of capture-quality.
type CaptureQuality struct {
	Packets          int     `json:"packets"`
	Connections      int     `json:"connections"`
	Copies           int     `json:"copies"`
	CopyShare        float64 `json:"copy_share"`
	CaptureLoss      int     `json:"capture_loss"`
	CaptureLossShare float64 `json:"capture_loss_share"`
	Dropped          int     `json:"dropped"`
	Undecoded        int     `json:"undecoded"`
	UndecodedShare   float64 `json:"undecoded_share"`
	OneWay           int     `json:"one_way"`
	OneWayShare      float64 `json:"one_way_share"`
	MidStream        int     `json:"mid_stream"`
	MidStreamShare   float64 `json:"mid_stream_share"`
	SuperPackets     int     `json:"super_packets"`
	Cut              int     `json:"cut"`
	ClockSteps       int     `json:"clock_steps"`
	Broken           bool    `json:"broken"`
	Late             int     `json:"late"`
	OutOfWindow      int     `json:"out_of_window"`
	EngineFailures   int     `json:"engine_failures,omitempty"`
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
		d.copies = append(d.copies, analyze.Evidence{At: e.At, Flow: e.Conn.String(), Frames: measure.Frames(e.Frame), Note: "captured before"})
	}
}

func (d *captureQuality) measure(w *analyze.Window) CaptureQuality {
	s, lost := &w.Flows.Stats, w.Lost
	f := CaptureQuality{Packets: int(w.Packets), Connections: int(s.Conns), Copies: int(s.Copies),
		CaptureLoss: int(s.CaptureLost), Dropped: int(lost[capture.LossKernelDrop]), MidStream: int(s.MidStream),
		SuperPackets: int(s.SuperPackets), Cut: int(lost[capture.LossTruncated]), ClockSteps: int(s.Backward),
		Broken: lost[capture.LossFileDamaged] > 0, Late: int(w.Late), OneWay: int(s.OneWay),
		OutOfWindow: int(s.OutOfWindow), EngineFailures: int(lost[capture.LossEngine])}
	f.Undecoded = int(lost[capture.LossLinkType] + lost[capture.LossMalformed] + lost[capture.LossFragment] + lost[capture.LossNesting])
	if w.Final {
		// Connections that are still open count only now: until the end, any of them may hear from
		// its other side. A SYN without an answer is no one-way capture.
		w.Flows.Live(func(c *flow.Conn) {
			if c.OneWay() && c.IsEstablished() {
				f.OneWay++
			}
		})
	}
	f.CopyShare = stat.Ratio(s.Copies, s.Packets)
	f.CaptureLossShare = s.CaptureLossShare()
	f.UndecodedShare = stat.Ratio(f.Undecoded, f.Packets+f.Undecoded)
	f.OneWayShare = stat.Ratio(f.OneWay, f.Connections)
	f.MidStreamShare = stat.Ratio(f.MidStream, f.Connections)
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
	return analyze.Assessment{Assessable: w.Flows.Stats.Packets > 0 || w.Lost[capture.LossEngine] > 0, Features: d.measure(w)}
}
