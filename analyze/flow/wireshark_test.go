package flow

import (
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/capture"
)

var wsNames = [wsVerdicts]string{"retransmission", "fast", "spurious", "out-of-order", "dup-ack", "lost",
	"ack-lost", "zero-window", "probe", "probe-ack", "full", "update", "keep-alive", "keep-alive-ack"}

// wsSeg is a segment of a test: from C(lient) or S(erver), flags as letters, and the
// verdicts that Wireshark gives.
type wsSeg struct {
	after    time.Duration
	from     string
	flags    string
	seq, ack uint32
	n        uint32
	win      uint16
	want     string
	wscale   int // option on a SYN: the shift, or -1 for none
}

func wsPacket(s wsSeg) capture.Packet {
	p := capture.Packet{Proto: capture.ProtoTCP, Seq: s.seq, Ack: s.ack, Len: s.n, Window: s.win}
	for _, f := range s.flags {
		p.Flags |= map[rune]uint8{'S': capture.SYN, 'A': capture.ACK, 'F': capture.FIN, 'R': capture.RST, 'P': capture.PSH}[f]
	}
	if strings.Contains(s.flags, "S") && s.wscale >= 0 {
		p.Opts, p.WScale = capture.OptWScale, uint8(s.wscale)
	}
	return p
}

// play feeds segments to w and returns the verdicts of each.
func (w *wiresharkConn) play(segs []wsSeg) (got []string) {
	at := t0
	for _, s := range segs {
		at = at.Add(s.after)
		from := Client
		if s.from == "S" {
			from = Server
		}
		p, before := wsPacket(s), w.n
		w.observe(&p, at, from)
		var names []string
		for i := range w.n {
			if w.n[i] != before[i] {
				names = append(names, wsNames[i])
			}
		}
		got = append(got, strings.Join(names, " "))
	}
	return got
}

// shake is a handshake with an RTT of 10 ms, window 1,000 and the given shifts.
func shake(c, s int) []wsSeg {
	return []wsSeg{
		{0, "C", "S", 1000, 0, 0, 1000, "", c},
		{6 * time.Millisecond, "S", "SA", 5000, 1001, 0, 1000, "", s},
		{4 * time.Millisecond, "C", "A", 1001, 5001, 0, 1000, "", 0},
	}
}

func TestWiresharkVerdicts(t *testing.T) {
	const ms = time.Millisecond
	data := func(seq, n uint32, after time.Duration, want string) wsSeg {
		return wsSeg{after, "C", "A", seq, 5001, n, 1000, want, 0}
	}
	ack := func(ack uint32, after time.Duration, want string) wsSeg {
		return wsSeg{after, "S", "A", 5001, ack, 0, 1000, want, 0}
	}
	tests := []struct {
		name  string
		shake []wsSeg
		segs  []wsSeg
	}{
		{"nothing wrong", shake(0, 0), []wsSeg{data(1001, 100, ms, ""), ack(1101, ms, "")}},
		{"retransmission after the handshake RTT", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), data(1001, 100, 300*ms, "retransmission")}},
		{"SYN and SYN-ACK again", nil, []wsSeg{
			{0, "C", "S", 1000, 0, 0, 1000, "", 0}, {time.Second, "C", "S", 1000, 0, 0, 1000, "retransmission", 0},
			{ms, "S", "SA", 5000, 1001, 0, 1000, "", 0}, {time.Second, "S", "SA", 5000, 1001, 0, 1000, "retransmission", 0}}},
		{"a SYN with the old ISN makes what was seen contiguous", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), data(1201, 100, ms, "lost"),
			{ms, "C", "S", 1000, 0, 0, 1000, "out-of-order", 0}, data(1101, 100, ms, "")}},
		{"out of order within the handshake RTT", shake(0, 0), []wsSeg{
			data(1101, 100, ms, "lost"), data(1001, 100, 9*ms, "out-of-order")}},
		{"too late for that", shake(0, 0), []wsSeg{
			data(1101, 100, ms, "lost"), data(1001, 100, 10*ms, "retransmission")}},
		{"out of order within 3 ms without a handshake", nil, []wsSeg{
			data(1001, 100, 0, ""), data(1201, 100, ms, "lost"), data(1101, 100, 2*ms, "out-of-order"), data(1051, 50, ms, "retransmission")}},
		{"the end of what was sent is not out of order", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), data(1051, 50, ms, "retransmission")}},
		{"a clock that goes back", shake(0, 0), []wsSeg{
			data(1101, 100, ms, "lost"), data(1001, 100, -ms, "retransmission")}},
		{"fast retransmission", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), data(1201, 100, ms, "lost"), data(1301, 100, ms, ""),
			ack(1101, 20*ms, ""), ack(1101, ms, "dup-ack"), ack(1101, ms, "dup-ack"), data(1101, 100, 19*ms, "retransmission fast")}},
		{"too late for a fast one", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), data(1201, 100, ms, "lost"), ack(1101, 20*ms, ""), ack(1101, ms, "dup-ack"), ack(1101, ms, "dup-ack"),
			data(1101, 100, 20*ms, "retransmission")}},
		{"spurious", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), ack(1101, ms, ""), data(1001, 100, ms, "retransmission spurious")}},
		{"after a RST without ACK nothing counts as acknowledged", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), ack(1101, ms, ""), {ms, "S", "R", 5001, 0, 0, 0, "", 0}, data(1001, 100, 50*ms, "retransmission")}},
		{"duplicate ACKs", shake(0, 0), []wsSeg{
			ack(1001, ms, "dup-ack"), data(1001, 100, ms, ""), ack(1101, ms, ""), ack(1101, ms, "dup-ack"), ack(1101, ms, "dup-ack")}},
		{"acknowledged but never seen", shake(0, 0), []wsSeg{
			ack(1101, ms, "ack-lost"), ack(1201, ms, ""), data(1201, 100, ms, "lost"), ack(1301, ms, "ack-lost"), ack(1401, ms, "")}},
		{"a gap that was acknowledged", shake(0, 0), []wsSeg{
			data(1101, 100, ms, "lost"), ack(1201, ms, "ack-lost")}},
		{"an ack_lost_segment passes for duplicate ACKs", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), {ms, "C", "A", 1001, 5101, 100, 1000, "retransmission fast ack-lost", 0}}},
		{"zero window, probe, answer, update", shake(0, 0), []wsSeg{
			data(1001, 100, ms, ""), {ms, "S", "A", 5001, 1101, 0, 0, "zero-window", 0},
			data(1101, 1, 200*ms, "probe"), {ms, "S", "A", 5001, 1101, 0, 0, "zero-window probe-ack", 0},
			{ms, "S", "A", 5001, 1101, 0, 500, "update", 0}, data(1101, 100, ms, "")}},
		{"a byte that the probe sent is sent again with more", shake(0, 0), []wsSeg{
			{ms, "S", "A", 5001, 1001, 0, 0, "zero-window", 0}, data(1001, 1, ms, "probe"), data(1001, 1, ms, "probe")}},
		{"zero window of a RST is none", shake(0, 0), []wsSeg{{ms, "S", "RA", 5001, 1001, 0, 0, "", 0}}},
		{"keep-alive", shake(0, 0), []wsSeg{
			ack(1001, ms, "dup-ack"), {time.Second, "C", "A", 1000, 5001, 0, 1000, "keep-alive", 0}, ack(1001, ms, "keep-alive-ack"),
			{time.Second, "C", "A", 1000, 5001, 1, 1000, "keep-alive", 0}, ack(1001, ms, "keep-alive-ack")}},
		{"window full, scaled", shake(0, 2), []wsSeg{
			{ms, "S", "A", 5001, 1001, 0, 100, "update", 0}, data(1001, 100, ms, ""), data(1101, 300, ms, "full")}},
		{"the SYN-ACK's window is not scaled", shake(0, 2), []wsSeg{data(1001, 1000, ms, "full")}},
		{"window full, not scaled: the SYN has no option", shake(-1, 2), []wsSeg{
			{ms, "S", "A", 5001, 1001, 0, 100, "update", 0}, data(1001, 100, ms, "full")}},
		{"a second SYN without the option changes nothing", append([]wsSeg{{0, "C", "S", 1000, 0, 0, 1000, "", 2}},
			wsSeg{time.Second, "C", "S", 1000, 0, 0, 1000, "retransmission", -1}, wsSeg{ms, "S", "SA", 5000, 1001, 0, 1000, "", 2}), []wsSeg{
			{ms, "S", "A", 5001, 1001, 0, 100, "update", 0}, data(1001, 400, ms, "full")}},
		{"no window full without a SYN", nil, []wsSeg{
			{ms, "S", "A", 5001, 1001, 0, 100, "", 0}, data(1001, 100, ms, "")}},
		{"sequence number 0 is not known", nil, []wsSeg{
			{0, "C", "A", 1<<32 - 100, 5001, 100, 1000, "", 0}, data(500, 100, ms, "")}},
		{"numbers that wrap", nil, []wsSeg{
			{0, "C", "A", 1<<32 - 50, 5001, 100, 1000, "", 0}, data(50, 100, ms, ""), {time.Second, "C", "A", 1<<32 - 50, 5001, 100, 1000, "retransmission", 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w wiresharkConn
			segs := slices.Concat(tt.shake, tt.segs)
			for i, got := range w.play(segs) {
				if got != segs[i].want {
					t.Errorf("segment %d: %q, want %q", i, got, segs[i].want)
				}
			}
		})
	}
}

func TestWiresharkHandshakeRTT(t *testing.T) {
	const ms = time.Millisecond
	syn := wsSeg{0, "C", "S", 1000, 0, 0, 1000, "", 0}
	synAck := wsSeg{6 * ms, "S", "SA", 5000, 1001, 0, 1000, "", 0}
	tests := []struct {
		name string
		segs []wsSeg
		want time.Duration
		has  bool
	}{
		{"client's ACK", shake(0, 0), 10 * ms, true},
		{"refused", []wsSeg{syn, {3 * ms, "S", "RA", 0, 1001, 0, 0, "", 0}}, 3 * ms, true},
		{"newest SYN counts", []wsSeg{syn, {time.Second, "C", "S", 1000, 0, 0, 1000, "", 0}, synAck, {4 * ms, "C", "A", 1001, 5001, 0, 0, "", 0}}, 10 * ms, true},
		{"0 is no measurement", []wsSeg{syn, {0, "S", "SA", 5000, 1001, 0, 0, "", 0}, {0, "C", "A", 1001, 5001, 0, 10, "", 0},
			{2 * ms, "C", "A", 1001, 5001, 5, 10, "", 0}}, 2 * ms, true},
		{"no SYN", []wsSeg{synAck, {ms, "C", "A", 1001, 5001, 5, 10, "", 0}}, 0, false},
		{"a reset that acknowledges nothing new does not show it", []wsSeg{syn, synAck, {ms, "S", "RA", 5001, 1001, 0, 0, "", 0}}, 7 * ms, false},
	}
	for _, tt := range tests {
		var w wiresharkConn
		w.play(tt.segs)
		if c := w.counts(); c.HandshakeRTT != tt.want || c.HasRTT != tt.has {
			t.Errorf("%s: %v %v, want %v %v", tt.name, c.HandshakeRTT, c.HasRTT, tt.want, tt.has)
		}
	}
}

// TestWiresharkUnseenReceiver: of what nobody acknowledges, Wireshark remembers 10,000
// segments; a FIN beyond them takes no sequence number.
func TestWiresharkUnseenReceiver(t *testing.T) {
	for _, n := range []uint32{wsMaxOpen - 2, wsMaxOpen + 10} {
		var w wiresharkConn
		w.play(shake(0, 0))
		seq := uint32(1001)
		for range n {
			w.observe(&capture.Packet{Flags: capture.ACK, Seq: seq, Ack: 5001, Len: 10, Window: 1}, t0, Client)
			seq += 10
		}
		w.observe(&capture.Packet{Flags: capture.ACK | capture.FIN, Seq: seq, Ack: 5001, Window: 1}, t0, Client)
		w.observe(&capture.Packet{Flags: capture.ACK, Seq: 5001, Ack: seq + 1, Window: 1}, t0, Server)
		if got, want := w.counts().ACKLostSegment, map[bool]uint32{true: 1}[n > wsMaxOpen]; got != want {
			t.Errorf("%d segments: %d ack_lost_segment, want %d", n, got, want)
		}
	}
}

func TestWiresharkSides(t *testing.T) {
	again := func(from string, seq, ack uint32) []wsSeg {
		return []wsSeg{{1, from, "A", seq, ack, 10, 9, "", 0}, {time.Second, from, "A", seq, ack, 10, 9, "", 0}}
	}
	tests := []struct {
		name string
		segs []wsSeg
		c, s uint32
		side Side
	}{
		{"SYN", append(shake(0, 0), again("C", 1001, 5001)...), 1, 0, Client},
		{"SYN of the side taken for the server", append([]wsSeg{{0, "S", "S", 5000, 0, 0, 9, "", 0}}, again("S", 5001, 1)...), 1, 0, Server},
		{"SYN-ACK", append([]wsSeg{{0, "C", "SA", 5000, 1, 0, 9, "", 0}}, again("S", 1, 5001)...), 1, 0, Server},
		{"first packet", append(again("S", 1, 9), again("C", 9, 11)...), 1, 1, Server},
		{"a SYN after data", append(again("S", 1, 9), shake(0, 0)...), 0, 1, Client},
	}
	for _, tt := range tests {
		var w wiresharkConn
		w.play(tt.segs)
		c := w.counts()
		if c.RetransmissionC != tt.c || c.RetransmissionS != tt.s || c.Client != tt.side {
			t.Errorf("%s: %d by the client, %d by the server, client is side %d; want %d %d %d", tt.name,
				c.RetransmissionC, c.RetransmissionS, c.Client, tt.c, tt.s, tt.side)
		}
		if int(c.Packets[0]+c.Packets[1]) != len(tt.segs) {
			t.Errorf("%s: packets %d of %d", tt.name, c.Packets, len(tt.segs))
		}
	}
}

func TestWiresharkAllocs(t *testing.T) {
	var w wiresharkConn
	w.play(shake(0, 0))
	p := capture.Packet{Flags: capture.ACK, Seq: 1001, Ack: 5001, Len: 100, Window: 1000}
	at := t0
	if n := testing.AllocsPerRun(100, func() {
		at++
		w.observe(&p, at, Client)
		p.Seq += 100
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkWireshark(b *testing.B) {
	var w wiresharkConn
	w.play(shake(0, 0))
	p := capture.Packet{Flags: capture.ACK, Seq: 1001, Ack: 5001, Len: 100, Window: 1000}
	q := capture.Packet{Flags: capture.ACK, Seq: 5001, Window: 1000}
	at := t0
	for b.Loop() {
		at++
		w.observe(&p, at, Client)
		p.Seq += 100
		q.Ack = p.Seq
		w.observe(&q, at, Server)
	}
}
