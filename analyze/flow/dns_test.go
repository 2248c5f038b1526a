package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/capture"
)

// dnsTalk feeds a table with DNS messages between one host and one server and notes the
// events and rows.
type dnsTalk struct {
	t      *Table
	at     capture.Instant
	c, s   capture.Endpoint
	frame  uint64
	seq    [2]uint32
	emit   func(*Event)
	events []string
	rows   []DNS
	names  []string
}

var dnsEventNames = map[Kind]string{DNSQuery: "query", DNSRepeat: "repeat", DNSAnswer: "answer", DNSUnanswered: "unanswered",
	DNSLate: "late", DNSStray: "stray", ICMPError: "icmp"}

func newDNSTalk(tb testing.TB) *dnsTalk {
	k := &dnsTalk{at: t0}
	k.c = capture.Endpoint{Addr: v4([]byte{192, 0, 2, 1}), Port: 40000}
	k.s = capture.Endpoint{Addr: v4([]byte{198, 51, 100, 2}), Port: 53}
	k.emit = func(e *Event) {
		s := fmt.Sprintf("%s %v", dnsEventNames[e.Kind], e.Dur)
		if e.N > 1 && e.Kind != ICMPError {
			s += fmt.Sprintf(" try %d", e.N)
		}
		if e.flag {
			s += " !"
		}
		if e.Kind != ICMPError && e.Kind != DNSLate && e.At.Sub(e.Since) != e.Dur {
			tb.Errorf("%s: %v − %v is not %v", s, e.At, e.Since, e.Dur)
		}
		k.events = append(k.events, s)
	}
	k.t = New(Options{Mask: Of(DNSQuery, DNSRepeat, DNSAnswer, DNSUnanswered, DNSLate, DNSStray, ICMPError), Emit: k.emit,
		DNSRow: func(d *DNS) { k.rows, k.names = append(k.rows, *d), append(k.names, k.t.DNSName(d)) }})
	return k
}

// send delivers a message d after the one before. port is the client's.
func (k *dnsTalk) send(d time.Duration, proto uint8, port uint16, b []byte) {
	k.at = k.at.Add(d)
	k.frame++
	o := capture.Observation{At: k.at, Packet: capture.Packet{Proto: proto, Frame: k.frame, Src: k.c, Dst: k.s, Data: b, Len: uint32(len(b)), IPLen: 28 + uint32(len(b))}}
	p := &o.Packet
	p.Src.Port = port
	side := 0
	if b[2]&0x80 != 0 && proto == capture.ProtoUDP || proto == capture.ProtoTCP && b[4]&0x80 != 0 {
		p.Src, p.Dst, side = p.Dst, p.Src, 1
	}
	p.Seq, p.Flags = k.seq[side], capture.ACK
	k.seq[side] += p.Len
	k.t.Observe(&o)
}

const (
	ask    = 0x0100
	reply  = 0x8180
	nxName = 0x8183
	cutTC  = 0x8380
)

func (k *dnsTalk) udp(d time.Duration, port, id, flags uint16, name string) {
	k.send(d, capture.ProtoUDP, port, dnsWire(id, flags, name, 1))
}

func (k *dnsTalk) tcp(d time.Duration, port, id, flags uint16, name string) {
	m := dnsWire(id, flags, name, 1)
	k.send(d, capture.ProtoTCP, port, slices.Concat([]byte{byte(len(m) >> 8), byte(len(m))}, m))
}

func (k *dnsTalk) wait(d time.Duration) {
	k.at = k.at.Add(d)
	k.t.Expire(k.at)
}

// refuse sends an ICMP port unreachable about the last message of id in direction from → to.
func (k *dnsTalk) refuse(from, to capture.Endpoint, id uint16) {
	q := make([]byte, 32)
	q[0], q[9] = 0x45, capture.ProtoUDP
	copy(q[12:], from.Addr[12:])
	copy(q[16:], to.Addr[12:])
	q[20], q[21], q[22], q[23] = byte(from.Port>>8), byte(from.Port), byte(to.Port>>8), byte(to.Port)
	q[28], q[29] = byte(id>>8), byte(id)
	k.t.Observe(&capture.Observation{At: k.at, Packet: capture.Packet{Proto: capture.ProtoICMP, ICMPType: 3, ICMPCode: 3,
		Src: capture.Endpoint{Addr: to.Addr}, Dst: capture.Endpoint{Addr: from.Addr}, Data: q}})
}

func TestDNSTransactions(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	tests := []struct {
		name   string
		play   func(*dnsTalk)
		events string // joined by "; "
		rows   string // state of each row
	}{
		{"answered", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(30*ms, 1000, 7, reply, "a.example")
		}, "query 0s; answer 30ms", "answered"},
		{"NXDOMAIN is an answer", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(ms, 1000, 7, nxName, "a.example")
		}, "query 0s; answer 1ms", "answered"},
		{"unanswered", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.wait(4 * s)
			k.wait(1 * s)
			k.wait(1 * s)
		}, "query 0s; unanswered 5s", "unanswered"},
		{"late", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.wait(5 * s)
			k.udp(s, 1000, 7, reply, "a.example")
		}, "query 0s; unanswered 5s; late 6s", "late"},
		{"refused by the asking host", func(k *dnsTalk) {
			k.udp(0, 40000, 7, ask, "a.example")
			k.udp(3*s, 40000, 7, reply, "a.example")
			k.refuse(k.s, k.c, 7)
			k.refuse(k.s, k.c, 7)
		}, "query 0s; answer 3s; late 3s !", "late"},
		{"refused by the server's host", func(k *dnsTalk) {
			k.udp(0, 40000, 7, ask, "a.example")
			k.refuse(k.c, k.s, 7)
			k.refuse(k.c, k.s, 8) // of no query
		}, "query 0s; icmp 0s", "pending"},
		{"repeat under the same id", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(s, 1000, 7, ask, "a.example")
			k.udp(s, 1000, 7, reply, "a.example")
		}, "query 0s; repeat 1s try 2; answer 2s try 2", "answered repeat(1)+"},
		{"5 s later the same id is a new transaction, and a next try", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(5*s, 1000, 7, ask, "a.example")
			k.udp(100*ms, 1000, 7, reply, "a.example")
		}, "query 0s; query 5s try 2; repeat 5s try 2 !; answer 100ms try 2; unanswered 5.1s", "unanswered answered"},
		{"next try under a new id and port", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(s, 1001, 8, ask, "a.example")
			k.wait(4 * s)
			k.udp(0, 1002, 9, ask, "a.example")
			k.udp(0, 1002, 9, reply, "a.example")
		}, "query 0s; query 1s try 2; repeat 1s try 2 !; unanswered 5s; query 5s try 3; repeat 5s try 3 !; answer 0s try 3; unanswered 4s try 2", "unanswered unanswered answered"},
		{"two callers at a time are no retry", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(50*ms, 1001, 8, ask, "a.example")
			k.udp(50*ms, 1001, 8, reply, "a.example")
			k.udp(400*ms, 1002, 9, ask, "a.example") // the one before was answered
		}, "query 0s; query 0s; answer 50ms; query 0s", "pending answered pending"},
		{"another name, type or server is no retry", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(s, 1001, 8, ask, "b.example")
			k.send(0, capture.ProtoUDP, 1002, dnsWire(9, ask, "a.example", 28))
			k.s.Port = 5353
			k.s.Addr[15]++
			k.s.Port = 53
			k.udp(0, 1003, 10, ask, "a.example")
		}, "query 0s; query 0s; query 0s; query 0s", "pending pending pending pending"},
		{"id used again after its answer", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(ms, 1000, 7, reply, "a.example")
			k.udp(s, 1000, 7, ask, "b.example")
			k.udp(2*ms, 1000, 7, reply, "b.example")
		}, "query 0s; answer 1ms; query 0s; answer 2ms", "answered answered"},
		{"answered twice", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(ms, 1000, 7, reply, "a.example")
			k.udp(ms, 1000, 7, reply, "a.example")
		}, "query 0s; answer 1ms", "answered orphan"},
		{"answer without a query", func(k *dnsTalk) {
			k.udp(0, 1000, 7, reply, "a.example")
		}, "", "orphan"},
		{"truncated, then over TCP", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(10*ms, 1000, 7, cutTC, "a.example")
			k.tcp(10*ms, 1001, 8, ask, "a.example")
			k.tcp(20*ms, 1001, 8, reply, "a.example")
		}, "query 0s; answer 10ms; query 20ms; answer 20ms", "answered answered(tcp)"},
		{"question cut off by the snap length", func(k *dnsTalk) {
			k.send(0, capture.ProtoUDP, 1000, dnsWire(7, ask, "a.example", 1)[:14])
			k.send(ms, capture.ProtoUDP, 1000, dnsWire(7, reply, "a.example", 1)[:14])
		}, "query 0s; answer 1ms", "answered"},
		{"no DNS", func(k *dnsTalk) {
			k.send(0, capture.ProtoUDP, 1000, []byte("hello"))
		}, "", ""},
		{"mDNS is left out", func(k *dnsTalk) {
			k.s.Port = 5353
			k.udp(0, 5353, 0, ask, "a.local")
		}, "", ""},
		{"young at the end of the capture", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(s, 1001, 8, ask, "b.example")
			k.wait(s + 500*ms)
			k.t.Observe(&capture.Observation{At: k.at})
			k.udp(0, 1002, 9, ask, "c.example")
		}, "query 0s; query 0s; query 0s; unanswered 2.5s", "unanswered pending pending"},
		{"a clock that goes back", func(k *dnsTalk) {
			k.udp(0, 1000, 7, ask, "a.example")
			k.udp(-s, 1000, 7, reply, "a.example")
		}, "query 0s; answer -1s", "answered"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newDNSTalk(t)
			tt.play(k)
			k.t.Close()
			if got := strings.Join(k.events, "; "); got != tt.events {
				t.Errorf("events\n\t%s, want\n\t%s", got, tt.events)
			}
			var rows []string
			for i := range k.rows {
				d := &k.rows[i]
				s := d.state()
				if d.RetransmitOf != 0 {
					s += fmt.Sprintf("(%d)", d.RetransmitOf)
				}
				if d.OriginalAnswered {
					s += "+"
				}
				if d.AfterTruncated {
					s += "(tcp)"
				}
				rows = append(rows, s)
			}
			if got := strings.Join(rows, " "); got != tt.rows {
				t.Errorf("rows %s, want %s", got, tt.rows)
			}
		})
	}
}

// TestDNSFields holds the record of a whole transaction against what was sent.
func TestDNSFields(t *testing.T) {
	k := newDNSTalk(t)
	q := dnsWire(7, ask, "Big.Example", 16, opt(1232, 0)...)
	a := dnsWire(7, reply, "Big.Example", 16, append(opt(4096, 0), make([]byte, 1300)...)...)
	a[7] = 3
	k.send(0, capture.ProtoUDP, 1000, q)
	k.send(time.Second, capture.ProtoUDP, 1000, q)
	k.send(time.Second, capture.ProtoUDP, 1000, a)
	k.t.Close()
	d := k.rows[0]
	want := DNS{Client: capture.Endpoint{Addr: k.c.Addr, Port: 1000}, Server: k.s, First: t0, Last: t0.Add(time.Second), LookupAt: t0, Number: 1, Lookup: 1, Resolver: 1,
		Latency: 2 * time.Second, Gap: time.Second, QueryFrame: 1, AnswerFrame: 3, NameHash: d.NameHash, QueryLen: uint32(len(q)), AnswerLen: uint32(len(a)),
		AnswerIPLen: uint32(len(a)) + 28, ID: 7, QType: 16, EDNSSize: 1232, Records: 3, Tries: 2, Repeats: 1, Answers: 1,
		Proto: capture.ProtoUDP, Answered: true}
	d.nameLen, d.decided, d.repeat, d.indexed, d.bucket = 0, false, 0, [indexes]bool{}, [indexes]uint16{}
	if d != want || k.names[0] != "big.example" || d.Waited() != 2*time.Second {
		t.Errorf("%q\n%+v, want\n%+v", k.names[0], d, want)
	}
	if s := k.t.DNSStats(); *s != (DNSStats{Messages: 3, Queries: 2, Transactions: 1, Responses: 1, Answered: 1}) || s.OneWay() {
		t.Errorf("%+v", *s)
	}
}

// An answer from another address is not the answer, but is told of where it fits a query in all else.
func TestDNSStray(t *testing.T) {
	k := newDNSTalk(t)
	q, a := dnsWire(7, ask, "a.example", 1), dnsWire(7, reply, "a.example", 1)
	asked := k.s
	k.send(0, capture.ProtoUDP, 1000, q)
	k.s.Addr[15]++
	k.send(time.Millisecond, capture.ProtoUDP, 1000, dnsWire(7, reply, "b.example", 1)) // another name
	k.send(0, capture.ProtoUDP, 1001, a)                                                // another port
	k.send(0, capture.ProtoUDP, 1000, a)
	k.s = asked
	k.send(time.Millisecond, capture.ProtoUDP, 1000, a)
	k.s.Addr[15]++
	k.send(0, capture.ProtoUDP, 1000, a) // the query has its answer
	k.t.Close()
	if got := strings.Join(k.events, "; "); got != "query 0s; stray 1ms; answer 2ms" || k.t.DNSStats().Strays != 1 {
		t.Errorf("%s, %+v", got, k.t.DNSStats())
	}
}

// Name servers listen on other ports; mDNS and LLMNR are no name servers.
func TestDNSPorts(t *testing.T) {
	for _, c := range []struct {
		to   string
		from uint16
		want string
	}{
		{"198.51.100.2:8600", 1000, "query 0s"}, {"198.51.100.2:5353", 1000, "query 0s"},
		{"198.51.100.2:5353", 5353, ""}, {"224.0.0.251:5353", 1000, ""}, {"224.0.0.252:5355", 1000, ""}, {"198.51.100.2:5355", 1000, ""},
	} {
		k := newDNSTalk(t)
		to := netip.MustParseAddrPort(c.to)
		k.s = capture.Endpoint{Addr: capture.AddrFrom(to.Addr()), Port: to.Port()}
		k.send(0, capture.ProtoUDP, c.from, dnsWire(7, ask, "a.example", 1))
		if got := strings.Join(k.events, "; "); got != c.want {
			t.Errorf("%d to %s: %q", c.from, c.to, got)
		}
	}
}

func TestDNSOneWay(t *testing.T) {
	k := newDNSTalk(t)
	if k.t.DNSStats().OneWay() {
		t.Error("one way without a query")
	}
	k.udp(0, 1000, 7, ask, "a.example")
	if !k.t.DNSStats().OneWay() {
		t.Error("not one way though there is no answer")
	}
}

// TestDNSOverTCP sends messages split and together, with a repeated and a missing segment.
func TestDNSOverTCP(t *testing.T) {
	k := newDNSTalk(t)
	framed := func(id, flags uint16) []byte {
		m := dnsWire(id, flags, "a.example", 1)
		return append([]byte{0, byte(len(m))}, m...)
	}
	send := func(b []byte, seq uint32, answer bool) {
		p := capture.Packet{Proto: capture.ProtoTCP, Src: k.c, Dst: k.s, Seq: seq, Data: b, Len: uint32(len(b))}
		if answer {
			p.Src, p.Dst = p.Dst, p.Src
		}
		k.t.dns.observe(&p, k.at, k.emit)
	}
	q := append(framed(1, ask), framed(2, ask)...)
	send(q, 100, false)
	send(q, 100, false) // again: no new queries
	a := append(framed(1, reply), framed(2, reply)...)
	send(a[:1], 900, true) // the length's first byte alone, as some servers send it
	send(a[1:20], 901, true)
	send(a[10:], 910, true) // overlaps
	at := 100 + uint32(len(q)) + 50
	send(framed(3, ask), at, false) // after a gap
	if s := k.t.DNSStats(); s.Transactions != 3 || s.Answered != 2 || s.Queries != 3 || s.LostTCP != 1 {
		t.Errorf("%+v", *s)
	}
}
