package flow

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"jindan/capture"
)

// talk feeds a table with hand-made segments of one connection and notes its events.
type talk struct {
	t      *Table
	at     capture.Instant
	c, s   capture.Endpoint
	id     uint16 // IP-ID of the next packet; 0 stays 0
	ts     uint32 // TSval of the next packet; 0: no timestamps
	events []string
	last   *Conn
}

const t0 = capture.Instant(1_700_000_000 * int64(time.Second))

func newTalk(kinds ...Kind) *talk {
	k := &talk{at: t0, id: 1000}
	k.c = capture.Endpoint{Addr: v4([]byte{192, 0, 2, 1}), Port: 40000}
	k.s = capture.Endpoint{Addr: v4([]byte{198, 51, 100, 2}), Port: 443}
	k.t = New(Options{Mask: Of(kinds...), Emit: func(e *Event) {
		k.last = e.Conn
		s := kindNames[e.Kind]
		if e.Class != ClassNone {
			s += " " + e.Class.String()
		}
		if e.Len > 0 {
			s += fmt.Sprintf(" %d", e.Len)
		}
		k.events = append(k.events, s)
	}})
	return k
}

var kindNames = map[Kind]string{SynRepeat: "syn-repeat", SynAckRepeat: "synack-repeat", Refused: "refused", Request: "request",
	Response: "response", Abandoned: "abandoned", HalfClosed: "half", HalfCloseEnd: "half-end", Reset: "reset", Closed: "closed",
	Retransmit: "retransmit", HoleOpened: "hole", HoleFilled: "filled", Reordered: "reordered", HoleAcked: "acked-unseen",
	ZeroWindow: "zero-window", ZeroWindowEnd: "zero-window-end", Copy: "copy", SpuriousRepeat: "dsack", Recovered: "recovered",
	Established: "established", ConnNew: "new", SynChallenged: "challenged", SynAckElsewhere: "elsewhere", ResetIgnored: "reset-ignored",
	ResetLoop: "reset-loop", AfterReset: "after-reset"}

// send delivers one segment d after the one before.
func (k *talk) send(d time.Duration, from Side, flags uint8, seq, ack, n uint32, mod ...func(*capture.Packet)) {
	k.at = k.at.Add(d)
	o := capture.Observation{At: k.at}
	p := &o.Packet
	p.Src, p.Dst = k.c, k.s
	if from == Server {
		p.Src, p.Dst = k.s, k.c
	}
	p.Proto, p.Flags, p.Seq, p.Ack, p.Len, p.Window, p.TTL = capture.ProtoTCP, flags, seq, ack, n, 1000, 64
	p.IPLen = 40 + n
	if k.id != 0 {
		p.IPID = k.id
		k.id++
	}
	if k.ts != 0 {
		p.Opts |= capture.OptTimestamps
		p.TSVal = k.ts
		p.IPLen += 12
	}
	if flags&capture.SYN != 0 {
		p.Opts |= capture.OptMSS
		p.MSS = 1460
	}
	for _, m := range mod {
		m(p)
	}
	k.t.Observe(&o)
}

const (
	syn    = capture.SYN
	ack    = capture.ACK
	synack = capture.SYN | capture.ACK
	fin    = capture.FIN | capture.ACK
	rst    = capture.RST
)

// open shakes hands with a round trip of 10 ms; both sides continue at sequence number 1.
func (k *talk) open() {
	k.send(0, Client, syn, 0, 0, 0)
	k.send(5*time.Millisecond, Server, synack, 0, 1, 0)
	k.send(5*time.Millisecond, Client, ack, 1, 1, 0)
}

func (k *talk) want(t *testing.T, want ...string) {
	t.Helper()
	if got, w := strings.Join(k.events, "\n"), strings.Join(want, "\n"); got != w {
		t.Errorf("events:\n%s\nwant:\n%s", got, w)
	}
}

// Over IPv6 there is no identification, and at the end that completes the handshake its round trip measures next to nothing: a
// mirrored capture doubles packets later than that.
func TestCopiesOnAShortPath(t *testing.T) {
	const us = time.Microsecond
	for name, c := range map[string]struct {
		asked bool
		want  []string
	}{
		"nobody has asked":    {false, []string{"copy 100"}},
		"the peer has a hole": {true, []string{"retransmit fast 100"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTalk(Retransmit, Copy)
			k.id = 0
			k.send(0, Client, syn, 0, 0, 0)
			k.send(15*us, Server, synack, 0, 1, 0)
			k.send(5*us, Client, ack, 1, 1, 0)
			k.send(ms, Server, ack, 1, 1, 100)
			if c.asked {
				for i := range uint32(3) {
					k.send(10*us, Server, ack, 101+100*i, 1, 100)
				}
				for range 3 {
					k.send(10*us, Client, ack, 1, 1, 0)
				}
			}
			k.send(20*us, Server, ack, 1, 1, 100)
			k.want(t, c.want...)
		})
	}
}

// A kernel answers each segment to a socket that is gone by an equal reset; those of Linux have identification 0.
func TestResetsInARow(t *testing.T) {
	k := newTalk(Copy, Reset)
	k.open()
	k.send(ms, Client, ack, 1, 1, 100)
	k.send(ms, Server, fin, 1, 101, 200)
	k.send(ms, Client, ack, 101, 202, 24)
	k.send(0, Client, fin, 125, 202, 0)
	k.id = 0
	k.send(20*time.Microsecond, Server, rst, 202, 0, 0)
	k.send(20*time.Microsecond, Server, rst, 202, 0, 0)
	k.want(t, "reset complete")
}

// A sender that is told the size of the path sends what was on its way again in smaller segments: nothing is lost. One that does not
// listen sends it as it was.
func TestPathMTU(t *testing.T) {
	for name, c := range map[string]struct{ size, unproven uint32 }{"smaller": {1208, 3}, "as it was": {1460, 0}} {
		t.Run(name, func(t *testing.T) {
			k := newTalk(Retransmit)
			k.open()
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1, 101, 1460)
			k.send(0, Server, ack, 1461, 101, 1460)
			for _, seq := range []uint32{1, 1461} {
				b := make([]byte, 28) // the least that routers quote
				b[0], b[9] = 0x45, capture.ProtoTCP
				binary.BigEndian.PutUint16(b[2:], 1500)
				copy(b[12:], k.s.Addr[12:])
				copy(b[16:], k.c.Addr[12:])
				binary.BigEndian.PutUint16(b[20:], k.s.Port)
				binary.BigEndian.PutUint16(b[22:], k.c.Port)
				binary.BigEndian.PutUint32(b[24:], seq)
				k.t.Observe(&capture.Observation{At: k.at, Packet: capture.Packet{Proto: capture.ProtoICMP, ICMPType: 3, ICMPCode: 4, Data: b}})
			}
			for seq := uint32(1); seq < 2921; seq += c.size {
				k.send(20*ms, Server, ack, seq, 101, min(c.size, 2921-seq))
			}
			if n := k.t.trouble(k.last).side[Server].Unproven; n != c.unproven {
				t.Errorf("%d segments were not lost, want %d", n, c.unproven)
			}
		})
	}
}

// A router that is captured on both sides splits what came as one packet, and joins what came in several.
func TestPassedOn(t *testing.T) {
	const us = time.Microsecond
	hop := func(p *capture.Packet) { p.TTL-- }
	for name, c := range map[string]struct {
		run  func(*talk)
		want []string
	}{
		"a super-packet leaves in parts": {func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 2920)
			k.send(8*us, Server, ack, 1, 1, 1460, hop)
			k.send(us, Server, ack, 1461, 1, 1460, hop)
		}, []string{"copy 1460", "copy 1460"}},
		"parts leave as one": {func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(us, Server, ack, 1461, 1, 1460)
			k.send(8*us, Server, ack, 1, 1, 2920, hop)
		}, []string{"copy 2920"}},
		"sent again in parts, at the same place": {func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 2920)
			k.send(220*ms, Server, ack, 1, 1, 1460)
		}, []string{"retransmit rto 1460"}},
		"sent again in parts, on another way": {func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 2920)
			k.send(220*ms, Server, ack, 1, 1, 1460, hop)
		}, []string{"retransmit rto 1460"}},
		"new on another way": {func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(8*us, Server, ack, 1461, 1, 1460, hop)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTalk(Retransmit, Copy)
			k.open()
			c.run(k)
			k.want(t, c.want...)
		})
	}
}

const ms = time.Millisecond

func TestLoss(t *testing.T) {
	all := []Kind{Retransmit, HoleOpened, HoleFilled, Reordered, HoleAcked, Copy, SpuriousRepeat, Recovered}
	at := func(id uint16) func(*capture.Packet) { return func(p *capture.Packet) { p.IPID = id } }
	shut := func(p *capture.Packet) { p.Window = 0 }
	for _, tc := range []struct {
		name string
		run  func(*talk)
		want []string
	}{
		{"clean", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1, 101, 1460)
			k.send(0, Server, ack, 1461, 101, 1460)
			k.send(ms, Client, ack, 101, 2921, 0)
		}, nil},
		{"time-out", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(220*ms, Server, ack, 1, 1, 1460)
			k.send(ms, Client, ack, 1, 1461, 0)
		}, []string{"retransmit rto 1460", "recovered"}},
		{"probes of a closed window, with data that was first sent after it had closed", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(ms, Client, ack, 1, 1461, 0, shut)
			for i := range 3 {
				k.send(time.Duration(1+200*i)*ms, Server, ack, 1461, 1, 1460)
				k.send(ms, Client, ack, 1, 1461, 0, shut)
			}
			k.send(ms, Client, ack, 1, 1461, 0)
			k.send(900*ms, Server, ack, 1461, 1, 1460)
			k.send(ms, Client, ack, 1, 2921, 0)
		}, []string{"retransmit closed_window 1460", "retransmit closed_window 1460", "retransmit closed_window 1460", "recovered"}},
		{"tail loss probe", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(30*ms, Server, ack, 1, 1, 1460)
		}, []string{"retransmit tail_loss_probe 1460"}},
		{"fast retransmission, original seen", func(k *talk) {
			for i := range uint32(4) {
				k.send(0, Server, ack, 1+i*1460, 1, 1460)
			}
			for range 3 {
				k.send(ms, Client, ack, 1, 1, 0)
			}
			k.send(ms, Server, ack, 1, 1, 1460)
		}, []string{"retransmit fast 1460"}},
		{"lost before the capture point", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(0, Server, ack, 2921, 1, 1460)
			k.send(12*ms, Server, ack, 1461, 1, 1460)
		}, []string{"hole 1460", "filled 1460"}},
		{"reordered by IP-ID, however late", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460, at(5000))
			k.send(0, Server, ack, 2921, 1, 1460, at(5002))
			k.send(50*ms, Server, ack, 1461, 1, 1460, at(5001))
		}, []string{"hole 1460", "reordered 1460"}},
		{"reordered within the round trip", func(k *talk) {
			k.id = 0
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(0, Server, ack, 2921, 1, 1460)
			k.send(4*ms, Server, ack, 1461, 1, 1460)
		}, []string{"hole 1460", "reordered 1460"}},
		{"lost by TSval, however early", func(k *talk) {
			k.ts = 100
			k.send(ms, Server, ack, 1, 1, 1448)
			k.send(0, Server, ack, 2897, 1, 1448)
			k.ts = 101
			k.send(ms, Server, ack, 1449, 1, 1448)
		}, []string{"hole 1448", "filled 1448"}},
		{"lost by the capture", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(0, Server, ack, 2921, 1, 1460)
			k.send(5*ms, Client, ack, 1, 4381, 0)
		}, []string{"hole 1460", "acked-unseen 1460"}},
		{"never seen but acknowledged", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(5*ms, Client, ack, 1, 2921, 0)
		}, []string{"acked-unseen 1460"}},
		{"copy: same IP-ID", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460, at(7))
			k.send(20*time.Microsecond, Server, ack, 1, 1, 1460, at(7))
		}, []string{"copy 1460"}},
		{"copy: no IP-ID, far below the round trip", func(k *talk) {
			k.id = 0
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(20*time.Microsecond, Server, ack, 1, 1, 1460)
		}, []string{"copy 1460"}},
		{"copy: no IP-ID, behind a router", func(k *talk) {
			k.id = 0
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(8*ms, Server, ack, 1, 1, 1460, func(p *capture.Packet) { p.TTL = 63 })
		}, []string{"copy 1460"}},
		{"copy: the capture goes back in time", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(1500*ms, Server, ack, 1461, 1, 1460)
			k.send(-1400*ms, Server, ack, 1, 1, 1460)
		}, []string{"copy 1460"}},
		{"out of order in the capture is no copy", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(500*ms, Server, ack, 1461, 1, 1460)
			k.send(-400*ms, Server, ack, 1, 1, 1460)
			k.send(-ms, Client, ack, 1, 1, 0)
		}, nil},
		{"without an IP-ID, after a probe's time: sent again", func(k *talk) {
			k.send(5*ms, Server, ack, 1, 1, 1460, at(0))
			k.send(300*ms, Server, ack, 1, 1, 1460, at(0))
		}, []string{"retransmit rto 1460"}},
		{"the same IP-ID after a time-out: sent again", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460, at(7))
			k.send(300*ms, Server, ack, 1, 1, 1460, at(7))
		}, []string{"retransmit rto 1460"}},
		{"the same IP-ID after a time-out, at another place: a copy", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460, at(7))
			k.send(300*ms, Server, ack, 1, 1, 1460, at(7), func(p *capture.Packet) { p.TTL-- })
		}, []string{"copy 1460"}},
		{"the same IP-ID, asked for by duplicate acknowledgements: sent again", func(k *talk) {
			for i := range uint32(4) {
				k.send(0, Server, ack, 1+i*1460, 1, 1460, at(uint16(7+i)))
			}
			for range 3 {
				k.send(4*ms, Client, ack, 1, 1, 0)
			}
			k.send(ms, Server, ack, 1, 1, 1460, at(7))
		}, []string{"retransmit fast 1460"}},
		{"the same IP-ID and time stamp after two seconds: a copy", func(k *talk) {
			k.ts = 5
			k.send(ms, Server, ack, 1, 1, 1460, at(7))
			k.send(2*time.Second, Server, ack, 1, 1, 1460, at(7))
		}, []string{"copy 1460"}},
		{"keep-alive", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 0)
			k.send(15*time.Second, Client, ack, 10, 1, 0)
			k.send(15*time.Second, Client, ack, 10, 1, 1)
		}, nil},
		{"window probe, then the data", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(ms, Client, ack, 1, 1461, 0, func(p *capture.Packet) { p.Window = 0 })
			k.send(300*ms, Server, ack, 1461, 1, 1)
			k.send(ms, Client, ack, 1, 1461, 0, func(p *capture.Packet) { p.Window = 0 })
			k.send(300*ms, Client, ack, 1, 1461, 0)
			k.send(ms, Server, ack, 1461, 1, 1460)
		}, nil},
		{"spurious", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(ms, Client, ack, 1, 1461, 0)
			k.send(ms, Server, ack, 1, 1, 1460)
		}, []string{"retransmit spurious 1460"}},
		{"D-SACK", func(k *talk) {
			k.send(ms, Server, ack, 1, 1, 1460)
			k.send(ms, Client, ack, 1, 1461, 0, func(p *capture.Packet) {
				p.Opts, p.SACKs, p.SACK[0] = capture.OptSACK, 1, [2]uint32{1, 1461}
			})
		}, []string{"dsack 1460"}},
		{"request to a full accept queue", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 300)
			k.send(200*ms, Client, ack, 1, 1, 300)
			k.send(400*ms, Client, ack, 1, 1, 300)
			k.send(400*ms, Server, synack, 0, 1, 0)
			k.send(400*ms, Client, ack, 1, 1, 300)
		}, []string{"retransmit unaccepted 300", "retransmit unaccepted 300", "retransmit unaccepted 300"}},
		{"request lost on the way", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 300)
			k.send(200*ms, Client, ack, 1, 1, 300)
			k.send(10*ms, Server, ack, 1, 301, 0)
		}, []string{"retransmit unaccepted 300", "retransmit rto 300", "recovered"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(all...)
			k.open()
			tc.run(k)
			k.want(t, tc.want...)
		})
	}
}

func TestMidStreamAndOneWay(t *testing.T) {
	k := newTalk(HoleOpened, HoleAcked, Retransmit)
	k.send(ms, Client, ack, 5000, 9000, 0)
	k.send(ms, Server, ack, 12000, 5000, 1460) // data in flight before the capture began
	k.send(ms, Client, ack, 5000, 13460, 0)
	k.want(t)
	if k.t.Stats.MidStream != 1 {
		t.Errorf("mid-stream connections: %d, want 1", k.t.Stats.MidStream)
	}
}

func TestClose(t *testing.T) {
	all := []Kind{Request, Response, Abandoned, HalfClosed, HalfCloseEnd, Reset, Refused, Closed}
	for _, tc := range []struct {
		name string
		run  func(*talk)
		want []string
	}{
		{"fin fin", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 20)
			k.send(ms, Client, fin, 11, 21, 0)
			k.send(ms, Server, fin, 21, 12, 0)
			k.send(ms, Client, ack, 12, 22, 0)
		}, []string{"request 10", "response 20", "closed"}},
		{"client gives up, late answer", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(3*time.Second, Client, fin, 11, 1, 0)
			k.send(ms, Server, ack, 1, 12, 0)
			k.send(time.Second, Server, ack, 1, 12, 20)
			k.send(ms, Client, rst, 12, 0, 0)
		}, []string{"request 10", "abandoned", "half", "response 20", "half-end", "half", "reset late_answer", "half-end", "closed late_answer"}},
		{"FIN lost by the capture", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 20)
			k.send(ms, Client, fin, 11, 21, 0)
			k.send(ms, Server, ack, 21, 12, 0)
			k.send(ms, Client, ack, 12, 22, 0)
		}, []string{"request 10", "response 20", "half", "half-end", "closed"}},
		{"abort", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 0)
			k.send(300*ms, Server, rst, 1, 0, 0)
		}, []string{"request 10", "reset abort", "closed abort"}},
		{"health check", func(k *talk) {
			k.send(ms, Client, rst, 1, 0, 0)
		}, []string{"reset complete", "closed complete"}},
		{"idle time-out", func(k *talk) {
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 20)
			k.send(350*time.Second, Client, ack, 11, 21, 10)
			k.send(5*ms, Server, rst, 21, 0, 0)
		}, []string{"request 10", "response 20", "request 10", "reset idle", "closed idle"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(all...)
			k.open()
			tc.run(k)
			k.want(t, tc.want...)
		})
	}
	k := newTalk(all...)
	k.send(0, Client, syn, 0, 0, 0)
	k.send(ms, Server, rst|ack, 0, 1, 0)
	k.want(t, "refused refused", "closed refused")
}

func TestReusedTuple(t *testing.T) {
	k := newTalk(ConnNew, SynRepeat)
	k.open()
	k.send(time.Second, Client, syn, 0, 0, 0)
	k.send(time.Second, Client, syn, 77777, 0, 0)
	k.want(t, "new", "syn-repeat", "new")

	// Of the server's side alone.
	k = newTalk(ConnNew, SynAckRepeat)
	k.send(0, Server, syn|ack, 0, 1, 0)
	k.send(time.Second, Server, syn|ack, 0, 1, 0)
	k.send(time.Second, Server, syn|ack, 77777, 5001, 0)
	k.want(t, "new", "synack-repeat", "new")

	// Two SYN cookies for one SYN.
	k = newTalk(ConnNew)
	k.send(0, Client, syn, 0, 0, 0)
	k.send(ms, Server, syn|ack, 0, 1, 0)
	k.send(time.Second, Server, syn|ack, 77777, 1, 0)
	k.want(t, "new")
}

// A handshake that stands behind the first data in the file is that of the same connection.
func TestHandshakeOutOfOrder(t *testing.T) {
	k := newTalk(ConnNew, Copy, Retransmit, HoleOpened)
	k.send(0, Client, ack, 1, 1, 100)
	k.send(-2*ms, Client, syn, 0, 0, 0)
	k.send(ms, Server, synack, 0, 1, 0)
	k.send(2*ms, Server, ack, 1, 101, 200)
	k.want(t, "new")
}

// A SYN that meets the TIME_WAIT socket of the connection before is answered with that one's last
// acknowledgement; the client resets it and asks again at once. No SYN was lost.
func TestTimeWaitChallenge(t *testing.T) {
	k := newTalk(ConnNew, SynRepeat, Established, Refused, HoleAcked, Reset)
	k.send(0, Client, syn, 0, 0, 0)
	k.send(ms, Server, ack, 999_999, 3_000_000, 0)
	k.send(ms, Client, rst, 3_000_000, 0, 0)
	k.send(10*ms, Client, syn, 0, 0, 0)
	k.send(ms, Server, rst|ack, 0, 1, 0)
	k.want(t, "new", "refused refused")
}

// A super-packet stands for the segments that it was made of.
func TestSuperPackets(t *testing.T) {
	k := newTalk(Retransmit)
	k.open()
	k.send(ms, Server, ack, 1, 1, 4000)
	k.send(300*ms, Server, ack, 1, 1, 4000)
	p := k.t.Path(k.last)
	side, _ := p.From(k.s.Addr)
	if full := side.Bin()[Bin(1500)]; full.Seen != 2 || full.Again != 2 || side.Bin()[Bin(40+4000-2*1460)].Again != 1 {
		t.Errorf("%+v", side.Bin())
	}
}

func TestBounds(t *testing.T) {
	rows := 0
	tb := New(Options{MaxConns: 800, MaxPaths: 50, Row: func(*Conn, *Trouble, *WiresharkCounts) { rows++ }})
	var o capture.Observation
	o.Packet.Proto, o.Packet.Flags = capture.ProtoTCP, syn
	for i := range 5000 {
		o.At = t0.Add(time.Duration(i) * ms)
		o.Packet.Src = capture.Endpoint{Addr: v4([]byte{10, 0, byte(i >> 8), byte(i)}), Port: 1234}
		o.Packet.Dst = capture.Endpoint{Addr: v4([]byte{10, 1, 0, 1}), Port: 80}
		tb.Observe(&o)
		if i%100 == 99 {
			tb.Expire(o.At)
			tb.Seal(o.At)
			if tb.live > 800 {
				t.Fatalf("%d connections live, cap 800", tb.live)
			}
		}
	}
	tb.Close()
	if rows != 5000 {
		t.Errorf("%d rows for 5000 connections", rows)
	}
	if tb.Stats.Evicted == 0 || tb.Stats.RefusedPaths == 0 {
		t.Errorf("nothing counted: %+v", tb.Stats)
	}
}

func TestNoAllocations(t *testing.T) {
	k := newTalk(Retransmit, HoleOpened, HoleFilled)
	k.open()
	seq := uint32(1)
	o := capture.Observation{At: k.at}
	p := &o.Packet
	p.Src, p.Dst, p.Proto, p.Flags, p.Len, p.IPLen, p.Window, p.TTL = k.s, k.c, capture.ProtoTCP, ack, 1000, 1040, 500, 64
	n := testing.AllocsPerRun(10_000, func() {
		o.At = o.At.Add(ms)
		p.Seq, p.IPID = seq, p.IPID+1
		seq += 1000
		k.t.Observe(&o)
	})
	if n != 0 {
		t.Errorf("%v allocations for a packet of a known connection", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	tb := New(Options{})
	const conns = 10_000
	obs := make([]capture.Observation, conns)
	for i := range obs {
		p := &obs[i].Packet
		p.Src = capture.Endpoint{Addr: v4([]byte{10, 0, byte(i >> 8), byte(i)}), Port: 1234}
		p.Dst = capture.Endpoint{Addr: v4([]byte{10, 1, 0, 1}), Port: 80}
		p.Proto, p.Flags, p.Len, p.IPLen, p.Seq, p.IPID = capture.ProtoTCP, ack, 1000, 1040, 1, 1
	}
	b.ReportAllocs()
	for i := range b.N {
		o := &obs[i%conns]
		o.At = t0.Add(time.Duration(i))
		o.Packet.Seq += 1000
		o.Packet.IPID++
		tb.Observe(o)
	}
}

// 500,000 connections of at most 400 bytes, their index and loss records for a seventh of them stay under 300 MB.
func TestRecordSize(t *testing.T) {
	conn, loss := unsafe.Sizeof(Conn{}), unsafe.Sizeof(Trouble{})
	if conn > 6*64 { // cache lines
		t.Errorf("a connection takes %d bytes", conn)
	}
	const slots = 1 << 20 // at most 5/8 full
	if sum := DefaultMaxConns*conn + DefaultMaxConns/7*loss + slots*unsafe.Sizeof(slot{}); sum > 300_000_000 {
		t.Errorf("a full table takes %d bytes (%d a connection, %d a loss record)", sum, conn, loss)
	}
}

// What the client acknowledges has come, whether or not the capture has it: it waits no longer, and leaves nothing unanswered.
func TestAnswerThatTheCaptureMissed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		oneWay bool
		acked  uint32
		waits  bool
	}{
		{"intact: nothing came, and nothing is acknowledged", false, 1, true},
		{"the answer is acknowledged", false, 51, false},
		{"one way: nothing is acknowledged", true, 1, true},
		{"one way: the answer is acknowledged", true, 51, false},
	} {
		k := newTalk(Abandoned)
		k.send(0, Client, capture.SYN, 0, 0, 0)
		if !tc.oneWay {
			k.send(ms, Server, capture.SYN|capture.ACK, 0, 1, 0)
		}
		k.send(ms, Client, capture.ACK, 1, 1, 0)
		k.send(ms, Client, capture.ACK, 1, 1, 100)
		k.send(ms, Client, capture.ACK, 101, tc.acked, 0)
		k.send(time.Second, Client, capture.ACK|capture.FIN, 101, tc.acked, 0)
		if got := len(k.events) > 0; got != tc.waits {
			t.Errorf("%s: left without an answer: %v, want %v", tc.name, got, tc.waits)
		}
	}
}

// At a server that closes first, the client's farewell is rejected within microseconds: sooner than the client can say that it closes, too.
func TestFarewellAtTheServer(t *testing.T) {
	const us = time.Microsecond
	for _, tc := range []struct {
		name  string
		after time.Duration
		want  string
	}{
		{"the farewell is rejected at once", 37 * us, "complete"},
		{"a short request waits", 700 * us, "late_request"},
	} {
		k := newTalk(Reset)
		k.send(0, Client, syn, 0, 0, 0)
		k.send(18*us, Server, synack, 0, 1, 0)
		k.send(15*us, Client, ack, 1, 1, 0)
		k.send(100*us, Client, ack, 1, 1, 525)
		k.send(20*ms, Server, ack, 1, 526, 1000)
		k.send(200*us, Server, ack, 1001, 526, 24)
		k.send(24*us, Server, fin, 1025, 526, 0)
		k.send(14*us, Client, ack, 526, 1001, 24)
		k.send(tc.after, Server, rst, 1001, 0, 0)
		k.want(t, "reset "+tc.want)
	}
}

// A server that has said farewell and finds the client's in reply unread closes with a reset in place of its FIN. A short request that
// is reset is another thing, and so is one in a protocol whose messages are all as long.
func TestFarewellInReply(t *testing.T) {
	const us = time.Microsecond
	for _, tc := range []struct {
		name                     string
		asked, answer, asks, end uint32
		after                    time.Duration
		want                     string
	}{
		{"close alerts of one cipher", 525, 1000, 24, 24, 50 * us, "complete"},
		{"of another cipher", 525, 1000, 85, 85, 50 * us, "complete"},
		{"a short request after the end of an answer", 525, 1000, 30, 24, 50 * us, "abort"},
		{"messages that are all as long", 24, 24, 24, 0, 50 * us, "abort"},
		{"a request as long as the end of the answer before, later", 525, 1000, 24, 24, time.Second, "abort"},
	} {
		k := newTalk(Reset)
		k.open()
		k.send(100*us, Client, ack, 1, 1, tc.asked)
		k.send(20*ms, Server, ack, 1, 1+tc.asked, tc.answer)
		next := 1 + tc.answer
		if tc.end > 0 {
			k.send(200*us, Server, ack, next, 1+tc.asked, tc.end)
			next += tc.end
		}
		k.send(tc.after, Client, ack, 1+tc.asked, next, tc.asks)
		k.send(100*us, Server, rst|ack, next, 1+tc.asked, 0)
		if len(k.events) != 1 || k.events[0] != "reset "+tc.want {
			t.Errorf("%s: %v, want %s", tc.name, k.events, tc.want)
		}
	}
}
