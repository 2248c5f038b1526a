package recording

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
)

// openPackets opens a capture whose packets are as those of a live source: these know no stations.
func openPackets(name string) (capture.Source, error) {
	s, err := pcapfile.Open(name, decode.New())
	return unstationed{s}, err
}

type unstationed struct{ capture.Source }

func (u unstationed) Read(ctx context.Context, b *capture.Batch) error {
	err := u.Source.Read(ctx, b)
	for i := range b.Obs {
		b.Obs[i].Packet.SrcMAC, b.Obs[i].Packet.DstMAC = 0, 0
	}
	return err
}

// stream is what a consumer of batches can tell apart: the observations, and after how many of them an Until said
// something that no time before it did.
type stream struct {
	obs    []capture.Observation
	untils []until
	high   capture.Instant
}

type until struct {
	after int
	at    capture.Instant
}

func (s *stream) add(b *capture.Batch) {
	for _, o := range b.Obs {
		if len(s.obs) == 0 || o.At > s.high {
			s.high = o.At
		}
		o.Packet.Data = bytes.Clone(o.Packet.Data)
		if len(o.Packet.Data) == 0 {
			o.Packet.Data = nil
		}
		s.obs = append(s.obs, o)
	}
	if len(s.obs) > 0 && b.Until > s.high {
		s.high = b.Until
		s.untils = append(s.untils, until{len(s.obs), b.Until})
	}
}

// drain reads src to its end in batches of n.
func drain(t testing.TB, src capture.Source, n int) (*stream, error) {
	t.Helper()
	s := &stream{}
	for {
		b := capture.Batch{Obs: make([]capture.Observation, 0, n)}
		err := src.Read(t.Context(), &b)
		if len(b.Obs) > n {
			t.Fatalf("%d observations in a batch of %d", len(b.Obs), n)
		}
		s.add(&b)
		if err != nil {
			if again := src.Read(t.Context(), &b); again == nil || again.Error() != err.Error() || len(b.Obs) > 0 {
				t.Fatalf("after the end (%v): %v", err, again)
			}
			return s, err
		}
	}
}

// compare wants the same of both, but for the Until that ends got.
func compare(t testing.TB, got, want *stream) {
	t.Helper()
	for i := range min(len(got.obs), len(want.obs)) {
		if !reflect.DeepEqual(got.obs[i], want.obs[i]) {
			t.Fatalf("observation %d:\n%+v, want\n%+v", i, got.obs[i], want.obs[i])
		}
	}
	if len(got.obs) != len(want.obs) {
		t.Fatalf("%d observations, want %d", len(got.obs), len(want.obs))
	}
	if !reflect.DeepEqual(got.untils, want.untils) {
		t.Fatalf("untils %v, want %v", got.untils, want.untils)
	}
}

// record writes batches to a new recording.
func record(t testing.TB, o Options, batches ...*capture.Batch) (string, WriteStats) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "recording")
	w, err := Create(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, w.Stats()
}

// replay reads a recording that must be whole.
func replay(t testing.TB, dir string, n int) *stream {
	t.Helper()
	r, err := Open(dir, openPackets)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := drain(t, r, n)
	if st := r.Stats(); err != io.EOF || st.Cut || st.Damaged > 0 {
		t.Fatalf("%v, %+v", err, st)
	}
	return s
}

// maker makes random observations.
type maker struct {
	*rand.Rand
	at capture.Instant
}

func newMaker(seed uint64) *maker {
	return &maker{rand.New(rand.NewPCG(seed, 0)), 1_700_000_000_000_000_000}
}

func (m *maker) u8() uint8         { return uint8(m.Uint32()) }
func (m *maker) u16() uint16       { return uint16(m.Uint32()) }
func (m *maker) chance(n int) bool { return m.IntN(n) == 0 }

func (m *maker) endpoint(six bool, port bool) (e capture.Endpoint) {
	for i := range e.Addr {
		e.Addr[i] = m.u8()
	}
	if !six {
		copy(e.Addr[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	}
	if port {
		e.Port = m.u16()
	}
	return e
}

func (m *maker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = m.u8()
	}
	return b
}

// packet makes a packet such as decoding yields.
func (m *maker) packet() (p capture.Packet) {
	p.IPv6 = m.chance(3)
	p.Proto = []uint8{capture.ProtoTCP, capture.ProtoTCP, capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMP, capture.ProtoICMPv6}[m.IntN(6)]
	icmp := p.Proto == capture.ProtoICMP || p.Proto == capture.ProtoICMPv6
	p.Src, p.Dst = m.endpoint(p.IPv6, !icmp), m.endpoint(p.IPv6, !icmp)
	p.TTL, p.Dir = m.u8(), capture.Direction(m.IntN(4))
	if !m.chance(8) {
		p.MACs = m.Uint32()
	}
	if !p.IPv6 {
		p.IPID = m.u16()
	}
	switch m.IntN(4) {
	case 0:
	case 1:
		p.Len = uint32(m.IntN(1461))
	case 2:
		p.Len = uint32(m.IntN(65536))
	case 3:
		p.Len = uint32(m.IntN(1 << 20)) // BIG TCP
	}
	header := 20
	if p.IPv6 {
		header = 40
		if m.chance(5) {
			header += 8 * m.IntN(40)
		}
	} else if m.chance(5) {
		header += 4 * m.IntN(11)
	}
	dns := !icmp && m.chance(4)
	if dns {
		p.Src.Port = 53
	}
	switch p.Proto {
	case capture.ProtoTCP:
		p.Seq, p.Ack, p.Flags, p.Window = m.Uint32(), m.Uint32(), m.u8(), m.u16()
		m.options(&p)
		header += 20 + (optionsLen(&p)+3)&^3
	case capture.ProtoUDP:
		header += 8
	default:
		p.ICMPType, p.ICMPCode, p.Seq = m.u8()%20, m.u8()%16, m.Uint32()
		header += 8
		dns = quotes(p.Proto, p.ICMPType)
	}
	p.IPLen = p.Len + uint32(header)
	if dns {
		p.Data = m.bytes(m.IntN(min(int(p.Len), 600) + 1))
	}
	if p.Proto == capture.ProtoTCP {
		p.Hash, p.Ident = capture.FlowHash(&p.Src, &p.Dst), p.Identity()
	}
	if m.chance(20) {
		p.Frame = m.Uint64N(1 << 40)
	}
	return p
}

func (m *maker) options(p *capture.Packet) {
	for {
		*p = capture.Packet{Src: p.Src, Dst: p.Dst, Seq: p.Seq, Ack: p.Ack, Len: p.Len, MACs: p.MACs, Window: p.Window, IPID: p.IPID,
			Proto: p.Proto, Flags: p.Flags, TTL: p.TTL, Dir: p.Dir, IPv6: p.IPv6, Opts: uint8(m.Uint32()&m.Uint32()) & knownOptions}
		if p.Opts&capture.OptMSS != 0 {
			p.MSS = m.u16()
		}
		if p.Opts&capture.OptWScale != 0 {
			p.WScale = m.u8()
		}
		if p.Opts&capture.OptTimestamps != 0 {
			p.TSVal, p.TSEcr = m.Uint32(), m.Uint32()
		}
		if p.Opts&capture.OptSACK != 0 {
			p.SACKs = uint8(1 + m.IntN(4))
			for i := range p.SACKs {
				p.SACK[i] = [2]uint32{m.Uint32(), m.Uint32()}
			}
		}
		if optionsLen(p) <= 40 {
			return
		}
	}
}

// nonsense changes fields of a packet so that no header can say them.
func (m *maker) nonsense(p *capture.Packet) {
	v := reflect.ValueOf(p).Elem()
	for range 1 + m.IntN(3) {
		f := v.Field(m.IntN(v.NumField()))
		switch name := f.Type().String(); {
		case f.CanUint():
			f.SetUint(m.Uint64() >> (64 - f.Type().Bits()) >> m.IntN(f.Type().Bits()))
		case name == "bool":
			f.SetBool(!f.Bool())
		case name == "[]uint8":
			f.SetBytes(m.bytes(1 + m.IntN(50)))
		case name == "[4][2]uint32":
			p.SACK[m.IntN(4)][m.IntN(2)] = m.Uint32()
		}
	}
	p.SACKs %= 5
	p.Dir %= 4
	p.SrcMAC, p.DstMAC = 0, 0 // live packets have none
	p.Hash, p.Ident = 0, 0
	if p.Proto == capture.ProtoTCP {
		p.Hash, p.Ident = capture.FlowHash(&p.Src, &p.Dst), p.Identity()
	}
}

// batch makes n observations of all kinds.
func (m *maker) batch(n int) *capture.Batch {
	b := &capture.Batch{}
	for range n {
		m.at += capture.Instant(m.IntN(2_000_000) - 100_000)
		o := capture.Observation{At: m.at}
		if m.chance(20) {
			o.Source = uint16(m.IntN(3))
		}
		switch k := m.IntN(100); {
		case k < 2:
			o.Kind, o.Reason, o.Lost = capture.KindLoss, capture.LossReason(1+m.IntN(int(capture.LossReasonCount)-1)), m.Uint64N(1000)
		case k < 4:
			o.Kind, o.Sample = capture.KindSample, m.sample()
		default:
			o.Packet = m.packet()
			if k < 8 {
				m.nonsense(&o.Packet)
			}
		}
		b.Obs = append(b.Obs, o)
	}
	b.Until = m.at + capture.Instant(m.IntN(2_000_000)-1_000_000)
	if m.chance(4) {
		b.Until = math.MinInt64
	}
	return b
}

func (m *maker) sample() *capture.Sample {
	switch m.IntN(4) {
	case 0:
		s := &capture.SocketTable{Netns: "a<b>", States: m.Uint32(), Info: true}
		for range m.IntN(5) {
			s.Sockets = append(s.Sockets, capture.Socket{Local: m.endpoint(false, true), Remote: m.endpoint(true, true), Cookie: m.Uint64(),
				State: capture.CloseWait, HasInfo: true, Info: capture.TCPInfo{RTT: m.Uint32(), BytesAcked: m.Uint64()}})
		}
		return &capture.Sample{Sockets: s}
	case 1:
		h := &capture.HostSample{Links: []capture.Link{{Name: "eth0", RxCRC: m.Uint64()}}}
		for c := range capture.CounterCount {
			if m.chance(2) {
				h.Set(c, m.Uint64())
			}
		}
		return &capture.Sample{Host: h}
	case 2:
		return &capture.Sample{Processes: &capture.ProcessSample{Unknown: []uint32{m.Uint32()}, Processes: []capture.Process{{PID: 7,
			Name: "검증", Started: m.at, CPU: m.Float64(), Waits: []capture.ThreadWait{{Threads: 3, Local: m.endpoint(false, true)}}}}}}
	}
	return &capture.Sample{Change: &capture.Change{Kind: capture.ChangeClock, Step: 5, What: "clock"}}
}

func write(t testing.TB, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func contents(t testing.TB, dir, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func isDamage(err error) bool {
	var ours *DamageError
	var theirs *pcapfile.DamageError
	return errors.As(err, &ours) || errors.As(err, &theirs)
}
