package flow

import (
	"math/bits"
	"time"

	"jindan/capture"
)

// WiresharkCounts are the tcp.analysis.* counts that Wireshark (4.0, default
// preferences) gives for a connection, beside our own classes, so that people can hold
// the two against each other. The names are those of Wireshark's fields.
//
// Retransmission includes the fast and the spurious ones, as Wireshark's field does.
// The client of the _c counts is who sent the SYN, else who received the SYN-ACK, else
// who sent the first packet; Client says which side of the Conn that is, because
// Conn.Client may be told by the port instead (ByPort).
type WiresharkCounts struct {
	Retransmission         uint32 `json:"retransmission"`
	FastRetransmission     uint32 `json:"fast_retransmission"`
	SpuriousRetransmission uint32 `json:"spurious_retransmission"`
	OutOfOrder             uint32 `json:"out_of_order"`
	DuplicateACK           uint32 `json:"duplicate_ack"`
	LostSegment            uint32 `json:"lost_segment"`
	ACKLostSegment         uint32 `json:"ack_lost_segment"`
	ZeroWindow             uint32 `json:"zero_window"`
	ZeroWindowProbe        uint32 `json:"zero_window_probe"`
	WindowFull             uint32 `json:"window_full"`
	WindowUpdate           uint32 `json:"window_update"`
	KeepAlive              uint32 `json:"keep_alive"`
	KeepAliveACK           uint32 `json:"keep_alive_ack"`
	RetransmissionC        uint32 `json:"retransmission_c"`
	RetransmissionS        uint32 `json:"retransmission_s"`
	OutOfOrderC            uint32 `json:"out_of_order_c"`
	OutOfOrderS            uint32 `json:"out_of_order_s"`
	DuplicateACKC          uint32 `json:"duplicate_ack_c"`
	DuplicateACKS          uint32 `json:"duplicate_ack_s"`
	ZeroWindowC            uint32 `json:"zero_window_c"`
	ZeroWindowS            uint32 `json:"zero_window_s"`
	LostSegmentC           uint32 `json:"lost_segment_c"`
	LostSegmentS           uint32 `json:"lost_segment_s"`

	Client Side `json:"-"`
	// HandshakeRTT is tcp.analysis.initial_rtt: from the newest SYN to the first segment
	// of either side that has ACK and no SYN. HasRTT: Wireshark shows it. It can be negative
	// where the clock of the capture went back.
	HandshakeRTT time.Duration `json:"-"`
	HasRTT       bool          `json:"-"`
	// Packets and Bytes (payload) of the client and the server; unlike those of Conn they
	// include copies and repeats.
	Packets [2]uint32 `json:"-"`
	Bytes   [2]uint64 `json:"-"`
}

// Verdicts of one segment. A segment can have several.
const (
	wsRetransmission uint16 = 1 << iota
	wsFast
	wsSpurious
	wsOutOfOrder
	wsDuplicateACK
	wsLostSegment
	wsACKLost
	wsZeroWindow
	wsZeroProbe
	wsZeroProbeACK
	wsWindowFull
	wsWindowUpdate
	wsKeepAlive
	wsKeepAliveACK
	wsVerdicts = iota
)

const (
	// wsFastWindow: a retransmission is a fast one only this soon after a packet of the
	// receiver (Wireshark User's Guide §7.5, "within 20ms").
	wsFastWindow = 20 * time.Millisecond
	// wsReorderWindow replaces the handshake RTT when that is unknown (User's Guide
	// §7.5, "3ms by default").
	wsReorderWindow = 3 * time.Millisecond
	// wsMaxOpen is how many unacknowledged segments Wireshark remembers of a sender. The
	// SYN or FIN of a segment beyond that does not count as a sequence number, so its
	// acknowledgement is of something never seen. Wireshark counts them one by one; here any
	// progress of the acknowledgements starts the count anew, which is the same where it
	// matters: when the receiver's direction was not captured.
	wsMaxOpen = 10_000
	// wsNoDup in place of a count of duplicate ACKs keeps ack_lost_segment from being reported
	// again and again. Being unsigned, it also passes for "two or more" of them.
	wsNoDup = 1<<32 - 1
)

// Window scaling as far as it is known (RFC 7323 §2.2).
const (
	wsShiftUnknown int8 = iota // no SYN of this side was seen
	wsShiftUnused              // one of the two SYNs had no option
	wsShiftBase                // the shift count, plus this
)

// Flags of a wiresharkSide.
const (
	wsStarted  uint8 = 1 << iota // win and at are valid
	wsFirstACK                   // from its SYN until its first ACK: windows are not scaled yet
)

// wiresharkSide is one sender as Wireshark sees it. It is kept apart from side: the
// point of the counts is that they follow Wireshark's rules where ours differ.
type wiresharkSide struct {
	// A sequence number of 0 means "not known" where Wireshark asks whether it is known.
	hi      uint32 // highest sequence number seen, plus one
	contig  uint32 // highest sequence number reached without a gap, plus one
	ack     uint32
	hiAt    capture.Instant
	at      capture.Instant // its last packet
	last    uint16          // verdicts of its last packet
	win     uint16          // as sent
	dup     uint32          // duplicate ACKs in a row; wsNoDup after an ack_lost_segment
	packets uint32
	bytes   uint64 // payload
	open    uint16 // segments since the other side's last new acknowledgement, see wsMaxOpen
	shift   int8
	flags   uint8
}

// wiresharkConn computes Wireshark's counts for one connection. The zero value is a
// new connection.
//
// A SYN with another ISN opens a new connection, for which the table provides a zeroed
// record; a SYN with the ISN of this one is handed to it like any segment: it is
// a retransmission, and it makes the data seen so far count as contiguous. A SYN-ACK
// with another ISN stays in the connection.
type wiresharkConn struct {
	side  [2]wiresharkSide
	synAt capture.Instant
	irtt  time.Duration
	n     [wsVerdicts]uint32
	// ofServer counts those verdicts again whose sides are told apart, for Side Server.
	ofServer [5]uint32
	client   Side
	by       uint8 // how client was told: 0 not yet, 1 first sender, 2 SYN-ACK, 3 SYN
	flags    uint8
}

const (
	wsSynAt uint8 = 1 << iota // synAt is valid
	wsShown                   // a segment shows irtt: one with data, a verdict, or a new acknowledgement
)

// observe takes a segment that s sent.
func (w *wiresharkConn) observe(p *capture.Packet, at capture.Instant, s Side) {
	d, r := &w.side[s], &w.side[s.Other()]
	ctl := p.Flags&(capture.SYN|capture.FIN|capture.RST) != 0
	w.handshake(p, at, s)
	v := d.state(p, r, ctl)
	if v&wsDuplicateACK != 0 {
		if d.dup++; d.dup == 0 {
			d.dup = 1
		}
	}
	fresh := d.acksNew(p, r)
	v |= d.acknowledge(p, r)
	if (p.Len > 0 || p.Flags&(capture.SYN|capture.FIN) != 0) && v&wsKeepAlive == 0 {
		v |= d.repeat(p, at, r, w.irtt)
	}
	// A time of 0, of a coarse clock, counts as not measured.
	if p.Flags&(capture.SYN|capture.ACK) == capture.ACK && w.flags&wsSynAt != 0 && w.irtt == 0 {
		w.irtt = at.Sub(w.synAt)
	}
	if w.irtt != 0 && (v != 0 || p.Len > 0 || fresh) {
		w.flags |= wsShown
	}
	d.update(p, at, v)
	w.count(v, s)
}

// handshake follows SYN and SYN-ACK.
func (w *wiresharkConn) handshake(p *capture.Packet, at capture.Instant, s Side) {
	d, r := &w.side[s], &w.side[s.Other()]
	by := uint8(1)
	client := s
	switch p.Flags & (capture.SYN | capture.ACK) {
	case capture.SYN:
		w.synAt = at
		w.flags |= wsSynAt
		if d.hi != 0 {
			d.hi = d.contig
		}
		by = 3
	case capture.SYN | capture.ACK:
		by, client = 2, s.Other()
	}
	if by > w.by {
		w.by, w.client = by, client
	}
	if p.Flags&capture.SYN == 0 {
		return
	}
	d.flags |= wsFirstACK
	// The option counts only when both SYNs have it (RFC 7323 §2.2); what the first SYN
	// of a side says stands.
	switch {
	case p.Opts&capture.OptWScale == 0:
		if d.shift == wsShiftUnknown {
			d.shift, r.shift = wsShiftUnused, wsShiftUnused
		}
	case p.Flags&capture.ACK == 0 || r.shift != wsShiftUnused:
		d.shift = wsShiftBase + int8(min(p.WScale, 14)) // RFC 7323 §2.3: at most 14
	}
}

// state gives the verdicts that depend on windows and on the expected sequence number.
func (d *wiresharkSide) state(p *capture.Packet, r *wiresharkSide, ctl bool) uint16 {
	var v uint16
	same := p.Seq == d.hi && p.Ack == d.ack
	if p.Len == 1 && p.Seq == d.hi && r.flags&wsStarted != 0 && r.win == 0 {
		return wsZeroProbe
	}
	if p.Window == 0 && !ctl {
		v |= wsZeroWindow
	}
	if d.hi != 0 && before(d.hi, p.Seq) && p.Flags&capture.RST == 0 {
		v |= wsLostSegment
	}
	if p.Len <= 1 && p.Seq == d.hi-1 && !ctl {
		v |= wsKeepAlive
	}
	if p.Len == 0 && p.Window != 0 && p.Window != d.win && same && !ctl {
		v |= wsWindowUpdate
	}
	if p.Len > 0 && !ctl && r.shift != wsShiftUnknown {
		win := uint32(r.win)
		if r.flags&wsFirstACK == 0 && r.shift >= wsShiftBase {
			win <<= r.shift - wsShiftBase
		}
		if p.Seq+p.Len == r.ack+win {
			v |= wsWindowFull
		}
	}
	if p.Len == 0 && p.Window == d.win && same && !ctl {
		switch {
		case p.Window != 0 && r.last&wsKeepAlive != 0:
			v |= wsKeepAliveACK
		case p.Window == 0 && r.last&wsZeroProbe != 0:
			v |= wsZeroProbeACK
		case p.Window != 0:
			v |= wsDuplicateACK
		}
	}
	return v
}

// acksNew reports whether the segment acknowledges something for the first time.
func (d *wiresharkSide) acksNew(p *capture.Packet, r *wiresharkSide) bool {
	if p.Flags&capture.ACK == 0 || r.hi == 0 {
		return false
	}
	if d.ack == 0 {
		return !before(p.Ack, r.hi)
	}
	return before(d.ack, p.Ack)
}

// acknowledge judges the acknowledgement number.
func (d *wiresharkSide) acknowledge(p *capture.Packet, r *wiresharkSide) uint16 {
	if p.Ack != d.ack {
		d.dup = 0
		r.open = 0
	}
	if p.Flags&capture.ACK == 0 || r.contig == 0 || !before(r.contig, p.Ack) {
		return 0
	}
	if before(r.contig, r.hi) {
		r.contig = r.hi
		return wsACKLost
	}
	reported := r.dup != 0
	r.dup = wsNoDup
	if reported {
		return 0
	}
	return wsACKLost
}

// repeat tells whether the segment was sent again, or late.
func (d *wiresharkSide) repeat(p *capture.Packet, at capture.Instant, r *wiresharkSide, irtt time.Duration) uint16 {
	end := p.Seq + p.Len
	if p.Len > 0 && r.ack != 0 && !before(r.ack, end) {
		return wsRetransmission | wsSpurious
	}
	// A byte behind hi is where a window probe was: data after it is new.
	if d.hi == 0 || !before(p.Seq, d.hi) || p.Len > 1 && p.Seq == d.hi-1 {
		return 0
	}
	if r.dup >= 2 && p.Seq == r.ack && within(at, r.at, wsFastWindow) {
		return wsRetransmission | wsFast
	}
	if p.Flags&(capture.SYN|capture.FIN) != 0 {
		end++
	}
	if irtt == 0 {
		irtt = wsReorderWindow
	}
	if end != d.hi && within(at, d.hiAt, irtt) {
		return wsOutOfOrder
	}
	return wsRetransmission
}

// within reports at−since < limit, unsigned: a step back in time counts as very long, and so
// does a handshake RTT that was measured across one.
func within(at, since capture.Instant, limit time.Duration) bool {
	return uint64(at.Sub(since)) < uint64(limit)
}

// update makes the segment the newest one of its sender.
func (d *wiresharkSide) update(p *capture.Packet, at capture.Instant, v uint16) {
	next := p.Seq + p.Len
	if p.Len > 0 || p.Flags&(capture.SYN|capture.FIN) != 0 {
		if d.open < wsMaxOpen {
			d.open++
			if p.Flags&(capture.SYN|capture.FIN) != 0 {
				next++
			}
		}
	}
	d.packets++
	d.bytes += uint64(p.Len)
	if v&wsZeroProbe == 0 && (d.hi == 0 || before(d.hi, next)) {
		d.hi, d.hiAt = next, at
	}
	if d.contig == 0 || p.Seq == d.contig {
		d.contig = d.hi
	}
	d.win, d.ack, d.at, d.last = p.Window, p.Ack, at, v
	d.flags |= wsStarted
	if p.Flags&(capture.ACK|capture.SYN) == capture.ACK {
		d.flags &^= wsFirstACK
	}
}

// wsBySide are the verdicts that are also counted by side, in the order of ofServer.
var wsBySide = [5]uint16{wsRetransmission, wsOutOfOrder, wsDuplicateACK, wsZeroWindow, wsLostSegment}

func (w *wiresharkConn) count(v uint16, s Side) {
	if v == 0 {
		return
	}
	for rest := v; rest != 0; rest &= rest - 1 {
		w.n[bits.TrailingZeros16(rest)]++
	}
	if s == Client {
		return
	}
	for i, m := range wsBySide {
		if v&m != 0 {
			w.ofServer[i]++
		}
	}
}

// counts returns the result so far.
func (w *wiresharkConn) counts() WiresharkCounts {
	n := func(v uint16) uint32 { return w.n[bits.TrailingZeros16(v)] }
	c := WiresharkCounts{
		Retransmission: n(wsRetransmission), FastRetransmission: n(wsFast),
		SpuriousRetransmission: n(wsSpurious), OutOfOrder: n(wsOutOfOrder),
		DuplicateACK: n(wsDuplicateACK), LostSegment: n(wsLostSegment),
		ACKLostSegment: n(wsACKLost), ZeroWindow: n(wsZeroWindow),
		ZeroWindowProbe: n(wsZeroProbe), WindowFull: n(wsWindowFull),
		WindowUpdate: n(wsWindowUpdate), KeepAlive: n(wsKeepAlive),
		KeepAliveACK: n(wsKeepAliveACK),
		Client:       w.client, HandshakeRTT: w.irtt, HasRTT: w.flags&wsShown != 0,
	}
	for i, to := range [5][2]*uint32{
		{&c.RetransmissionC, &c.RetransmissionS},
		{&c.OutOfOrderC, &c.OutOfOrderS},
		{&c.DuplicateACKC, &c.DuplicateACKS},
		{&c.ZeroWindowC, &c.ZeroWindowS},
		{&c.LostSegmentC, &c.LostSegmentS},
	} {
		ofServer := w.ofServer[i]
		ofClient := n(wsBySide[i]) - ofServer
		if w.client == Server {
			ofClient, ofServer = ofServer, ofClient
		}
		*to[0], *to[1] = ofClient, ofServer
	}
	for i := range w.side {
		d := &w.side[Side(i)^w.client]
		c.Packets[i], c.Bytes[i] = d.packets, d.bytes
	}
	return c
}
