package detect

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/socket"
	"jindan/capture"
)

// hostSockets are the sockets of this host, for all detectors that ask about them.
type hostSockets struct {
	*socket.Table
}

func newHostSockets() *hostSockets { return &hostSockets{socket.New()} }

// Measures implements analyze.Measurer for the detectors that read them.
func (h *hostSockets) Measures() []analyze.Measure { return []analyze.Measure{h} }

// Events implements analyze.Measure: packets show no sockets.
func (*hostSockets) Events() flow.Mask { return 0 }

// Event implements analyze.Measure.
func (*hostSockets) Event(*flow.Event) {}

// Sample implements analyze.Sampler.
func (h *hostSockets) Sample(at capture.Instant, s *capture.Sample) {
	if s.Sockets != nil {
		h.Take(at, s.Sockets)
	}
}

// closeKeyOf says whose socket s is: its listener's, or a call's.
func closeKeyOf(s *socket.Socket) closeKey {
	if s.Inbound {
		return closeKey{server: s.Local}
	}
	return closeKey{server: s.Remote, client: s.Local.Addr}
}
