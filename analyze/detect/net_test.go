package detect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
	"jindan/rules"
)

// network makes the packets of a capture, in any order.
type network struct {
	obs   []capture.Observation
	id    uint16
	dnsID uint16
	port  uint16
	seq   uint32
	// rules is a file of a user's own thresholds, if there is one.
	rules string
	asked asked // if not nil, what the detectors assess
	// causes, if there are any, link the findings.
	causes analyze.Causes
}

const (
	ms  = time.Millisecond
	sec = time.Second
)

// begin is when captures begin: off the full second, as in life.
const begin = capture.Instant(1_700_000_000_300_000_000)

func addr(s string) capture.Addr { return capture.AddrFrom(netip.MustParseAddr(s)) }

func host(s string) capture.Endpoint {
	a := netip.MustParseAddrPort(s)
	return capture.Endpoint{Addr: capture.AddrFrom(a.Addr()), Port: a.Port()}
}

func (n *network) add(at time.Duration, p capture.Packet) {
	n.id++
	p.IPID = max(n.id, 1)
	p.TTL = 64
	n.obs = append(n.obs, capture.Observation{At: begin.Add(at), Packet: p})
}

func (n *network) tcp(at time.Duration, from, to capture.Endpoint, flags uint8, seq, ack, size uint32) {
	p := capture.Packet{Src: from, Dst: to, Proto: capture.ProtoTCP, Flags: flags, Seq: seq, Ack: ack, Len: size, IPLen: 40 + size, Window: 1000}
	if flags&capture.SYN != 0 {
		p.Opts, p.MSS = capture.OptMSS, 1460
	}
	n.add(at, p)
}

// dsack acknowledges, and reports that [left, right) came twice.
func (n *network) dsack(at time.Duration, from, to capture.Endpoint, seq, ack, left, right uint32) {
	n.tcp(at, from, to, capture.ACK, seq, ack, 0)
	p := &n.obs[len(n.obs)-1].Packet
	p.Opts, p.SACKs, p.SACK[0] = p.Opts|capture.OptSACK, 1, [2]uint32{left, right}
}

// from returns a fresh port of a client.
func (n *network) from(client string) capture.Endpoint {
	n.port++
	n.seq += 100_000
	return capture.Endpoint{Addr: addr(client), Port: 20_000 + n.port%40_000}
}

// call is a connection: handshake with a round trip of 1 ms, a request, an answer after wait, FINs.
func (n *network) call(at time.Duration, client, server string, wait time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	at += 2 * ms
	n.tcp(at, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+ms, s, c, capture.ACK, q, q+100, 0)
	at += max(wait, ms)
	n.tcp(at, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
	n.tcp(at+ms, c, s, capture.ACK|capture.FIN, q+100, q+1000, 0)
	n.tcp(at+2*ms, s, c, capture.ACK|capture.FIN, q+1000, q+101, 0)
	n.tcp(at+3*ms, c, s, capture.ACK, q+101, q+1001, 0)
}

// open is a handshake; both sides go on at the sequence number that it returns.
func (n *network) open(at time.Duration, c, s capture.Endpoint) uint32 {
	n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
	n.tcp(at+ms/2, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
	n.tcp(at+ms, c, s, capture.ACK, n.seq+1, n.seq+1, 0)
	return n.seq + 1
}

// hung is a call whose request is acknowledged and never answered; the client gives up after patience.
func (n *network) hung(at time.Duration, client, server string, patience time.Duration) {
	c, s := n.from(client), host(server)
	q := n.open(at, c, s)
	n.tcp(at+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+3*ms, s, c, capture.ACK, q, q+100, 0)
	if patience > 0 {
		n.tcp(at+patience, c, s, capture.ACK|capture.FIN, q+100, q, 0)
		n.tcp(at+patience+ms, s, c, capture.ACK, q, q+101, 0)
	}
}

// refused is a SYN answered by RST.
func (n *network) refused(at time.Duration, client, server string) {
	c, s := n.from(client), host(server)
	n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
	n.tcp(at+ms/2, s, c, capture.RST|capture.ACK, 0, n.seq+1, 0)
}

// silent is a SYN repeated after 1, 3, 7… s, up to tries times, that nobody answers.
func (n *network) silent(at time.Duration, client, server string, tries int) {
	c, s := n.from(client), host(server)
	for i := range tries + 1 {
		n.tcp(at+time.Duration(1<<i-1)*sec, c, s, capture.SYN, n.seq, 0, 0)
	}
}

// DNS response codes.
const (
	noError  = 0
	servFail = 2
	nxDomain = 3
)

// query asks for an A record; answer, if not negative, is when the answer comes.
func (n *network) query(at time.Duration, client, server, name string, answer time.Duration, rcode uint8, size int) {
	n.queryFrom(at, n.from(client), server, name, answer, rcode, size)
}

func (n *network) queryFrom(at time.Duration, c capture.Endpoint, server, name string, answer time.Duration, rcode uint8, size int) {
	s := host(server)
	n.dnsID++
	id := n.dnsID
	q := message(id, name, 0, 0)
	n.udp(at, c, s, q, len(q))
	if answer >= 0 {
		records := uint16(1)
		if rcode != noError {
			records = 0
		}
		r := message(id, name, 0x8180|uint16(rcode), records)
		n.udp(at+answer, s, c, r, max(size, len(r)))
	}
}

// ask sends a question of any type, under its own id, and returns the message.
func (n *network) ask(at time.Duration, c capture.Endpoint, server, name string, qtype uint16) []byte {
	n.dnsID++
	m := question16(message(n.dnsID, name, 0, 0), qtype)
	n.udp(at, c, host(server), m, len(m))
	return m
}

// answer answers the question q of c.
func (n *network) answer(at time.Duration, c capture.Endpoint, server string, q []byte, flags uint16, size int) {
	r := slices.Clone(q)
	binary.BigEndian.PutUint16(r[2:], 0x8180|flags)
	r[7] = 1
	n.udp(at, host(server), c, r, max(size, len(r)))
}

// question16 sets the type of the question of m, which ends with it.
func question16(m []byte, qtype uint16) []byte {
	binary.BigEndian.PutUint16(m[len(m)-4:], qtype)
	return m
}

func (n *network) udp(at time.Duration, from, to capture.Endpoint, data []byte, size int) {
	n.add(at, capture.Packet{Src: from, Dst: to, Proto: capture.ProtoUDP, Len: uint32(size), IPLen: uint32(28 + size), Data: data})
}

func message(id uint16, name string, flags, answers uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, flags|0x0100)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, answers)
	b = append(b, 0, 0, 0, 0)
	for _, l := range strings.Split(name, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

// every calls f at each step from from to to.
func every(from, to, step time.Duration, f func(at time.Duration, i int)) {
	i := 0
	for at := from; at < to; at += step {
		f(at, i)
		i++
	}
}

// findings runs d over the packets of n, to the end of the last one, and returns its
// findings in their last state. local may be empty.
func (n *network) findings(t *testing.T, d analyze.Detector, local string) []*analyze.Finding {
	t.Helper()
	diagnosis := n.run(t, []analyze.Detector{d}, local)
	for reason, k := range diagnosis.Coverage.Refused {
		t.Errorf("%d refused: %s", k, reason)
	}
	return diagnosis.Findings
}

// run runs ds over the packets of n.
func (n *network) run(t *testing.T, ds []analyze.Detector, local string) *analyze.Diagnosis {
	t.Helper()
	var own []rules.Override
	if n.rules != "" {
		own = append(own, rules.Override{FS: fstest.MapFS{"own.yaml": &fstest.MapFile{Data: []byte(n.rules)}}})
	}
	set, err := rules.Load(Features(), own...)
	if err != nil {
		t.Fatal(err)
	}
	o := analyze.Options{Sources: []string{"test"}}
	if local != "" {
		p, err := netip.ParsePrefix(local)
		if err != nil {
			a := netip.MustParseAddr(local)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		o.Local = []netip.Prefix{p}
	}
	if n.asked != nil {
		o.Causes = n.asked
	}
	if n.causes != nil {
		o.Causes = n.causes
	}
	e, err := analyze.New(set, ds, o, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(n.obs, func(a, b capture.Observation) int { return int(max(min(a.At-b.At, 1), -1)) })
	for i := range n.obs {
		n.obs[i].Packet.Frame = uint64(i + 1)
		if err := e.Observe(&capture.Batch{Obs: n.obs[i : i+1], Until: n.obs[i].At}); err != nil {
			t.Fatal(err)
		}
	}
	diagnosis, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	return diagnosis
}

// scene is one test of a detector.
type scene struct {
	name  string
	make  func(*network)
	local string
	want  string        // severity, subject and class as found reports them; empty: silence
	onset time.Duration // if want is not empty
	check func(t *testing.T, features any)
}

// found is a finding as scenes name it.
func found(f *analyze.Finding) string {
	s := f.Severity + " " + f.Subject.Kind + " " + f.Subject.Host
	if f.Subject.Peer != "" {
		s += " " + f.Subject.Peer
	}
	if f.Subject.Port != 0 {
		s += fmt.Sprintf(" %d", f.Subject.Port)
	}
	return s
}

func play(t *testing.T, d func() analyze.Detector, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			var n network
			s.make(&n)
			var got []string
			fs := n.findings(t, d(), s.local)
			for _, f := range fs {
				got = append(got, found(f))
			}
			if all := strings.Join(got, "; "); all != s.want {
				t.Fatalf("found %q, want %q\n%+v", all, s.want, features(fs))
			}
			if s.want == "" || strings.Contains(s.want, ";") {
				return
			}
			if at := fs[0].Onset.Sub(begin); at < s.onset-ms || at > s.onset+ms {
				t.Errorf("onset %v, want %v", at, s.onset)
			}
			if fs[0].Summary.En == "" || fs[0].Summary.Ko == "" {
				t.Error("no summary")
			}
			if s.check != nil {
				s.check(t, fs[0].Features)
			}
		})
	}
}

func features(fs []*analyze.Finding) (out []any) {
	for _, f := range fs {
		out = append(out, f.Features)
	}
	return out
}

// samples reports whether d reads samples of the host, measures, or what several points saw: it needs no events.
func samples(d analyze.Detector) bool {
	_, ok := d.(analyze.Sampler)
	if m, reads := d.(analyze.Measurer); reads {
		ok = ok || m.Measures()[0].Events() != 0
	}
	_, compares := d.(analyze.Comparer)
	return ok || compares
}

func TestSpecs(t *testing.T) {
	for _, d := range All() {
		s := d.Spec()
		if s.Features == nil || s.Rule == "" || s.Events == 0 && !samples(d) {
			t.Errorf("%q: incomplete spec", s.Rule)
		}
	}
	if !measure.RequestEvents.Has(flow.SynSent) {
		t.Error("requests do not see SYNs")
	}
}

// lateOpen is a call whose SYN is answered only when it comes again after wait.
func (n *network) lateOpen(at time.Duration, client, server string, wait time.Duration) {
	c, s := n.from(client), host(server)
	n.tcp(at, c, s, capture.SYN, n.seq, 0, 0)
	if wait > sec {
		n.tcp(at+sec, c, s, capture.SYN, n.seq, 0, 0)
	}
	q := n.open(at+wait, c, s)
	n.tcp(at+wait+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+wait+3*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
}

// farOpen is a call over a path with that round trip, longer than a time-out, as its client sees it: it sends its SYN again meanwhile, and the
// server its SYN-ACK; its answer comes at once.
func (n *network) farOpen(at time.Duration, client, server string, rtt time.Duration) {
	c, s := n.from(client), host(server)
	for _, d := range []time.Duration{0, sec} {
		n.tcp(at+d, c, s, capture.SYN, n.seq, 0, 0)
		for _, e := range []time.Duration{0, sec} {
			n.tcp(at+d+e+rtt, s, c, capture.SYN|capture.ACK, n.seq, n.seq+1, 0)
		}
	}
	q := n.seq + 1
	n.tcp(at+rtt+ms, c, s, capture.ACK, q, q, 0)
	n.tcp(at+rtt+2*ms, c, s, capture.ACK|capture.PSH, q, q, 100)
	n.tcp(at+2*rtt+7*ms, s, c, capture.ACK|capture.PSH, q, q+100, 1000)
	n.tcp(at+2*rtt+8*ms, c, s, capture.ACK, q+100, q+1000, 0)
}

func itoa(i int) string { return strconv.Itoa(i) }
