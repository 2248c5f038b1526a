package view

import (
	"encoding/json"
	"math/rand"
	"slices"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

const origin = capture.Instant(1_700_000_000_000_000_000)

func addr(last byte) (a capture.Addr) {
	copy(a[10:], []byte{0xff, 0xff, 10, 0, 0, last})
	return a
}

// feed is a collector behind a flow table, as in an engine.
type feed struct {
	c     *Collector
	t     *flow.Table
	sent  []capture.Observation
	frame uint64
}

func newFeed() *feed {
	c := New()
	f := &feed{c: c, t: flow.New(flow.Options{Mask: c.Events(), Emit: c.Event})}
	c.table = f.t
	return f
}

// packet sends a segment: from the client on port to the server on 80, or back.
func (f *feed) packet(at time.Duration, client byte, port uint16, server bool, flags uint8, seq, ack, length uint32) {
	a, b := capture.Endpoint{Addr: addr(client), Port: port}, capture.Endpoint{Addr: addr(2), Port: 80}
	if server {
		a, b = b, a
	}
	f.frame++
	o := capture.Observation{At: origin.Add(at), Packet: capture.Packet{Src: a, Dst: b, Seq: seq, Ack: ack, Len: length, IPLen: length + 52,
		Window: 1000, Proto: capture.ProtoTCP, Flags: flags, TTL: 64, IPID: uint16(f.frame), Frame: f.frame}}
	f.sent = append(f.sent, o)
	f.t.Observe(&o)
}

// exchange is a connection with a request and an answer of 12 segments, of which the given ones are lost and never come.
func (f *feed) exchange(at time.Duration, client byte, port uint16, lost ...int) {
	ms := time.Millisecond
	f.packet(at, client, port, false, capture.SYN, 100, 0, 0)
	f.packet(at+ms/10, client, port, true, capture.SYN|capture.ACK, 500, 101, 0)
	f.packet(at+ms/5, client, port, false, capture.ACK, 101, 501, 0)
	f.packet(at+ms, client, port, false, capture.ACK|capture.PSH, 101, 501, 50)
	for i := range 12 {
		if !slices.Contains(lost, i) {
			f.packet(at+2*ms+time.Duration(i)*ms/10, client, port, true, capture.ACK, 501+uint32(i)*1448, 151, 1448)
		}
	}
	until := 12
	if len(lost) > 0 {
		until = lost[0]
	}
	f.packet(at+4*ms, client, port, false, capture.ACK, 151, 501+uint32(until)*1448, 0)
}

func (f *feed) seal(from, to time.Duration) {
	f.c.Seal(&analyze.Window{Start: origin.Add(from), End: origin.Add(to), First: origin, Flows: f.t})
	f.t.Seal(origin.Add(to))
}

func (f *feed) record(until time.Duration, fs ...*analyze.Finding) *View {
	return f.c.Record(&analyze.Diagnosis{Coverage: analyze.Coverage{First: origin, Last: origin.Add(until)}, Findings: fs})
}

// However long the time grows, nothing that was counted is lost, and the buckets are the same as if they had been that wide from the
// beginning.
func TestFold(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 50 {
		c, n := New(), 1+r.Intn(300)
		var times []capture.Instant
		at := origin
		for range n {
			at = at.Add(time.Duration(r.ExpFloat64() * float64(time.Duration(1)<<(20+r.Intn(18)))))
			times = append(times, at)
			c.host.SYN.add(c.at(at), 1)
			c.listen(c.at(at), uint32(at%97))
		}
		want, peaks := make(Count, MaxBuckets), make([]uint32, MaxBuckets)
		for _, at := range times {
			i := c.bucket(at)
			want[i]++
			peaks[i] = max(peaks[i], uint32(at%97))
		}
		if !slices.Equal(want, c.host.SYN) {
			t.Fatal("the counts differ")
		}
		if l := c.listeners[1]; !slices.Equal(peaks, l.Queue.Max) {
			t.Fatal("the peaks differ")
		}
	}
}

func (c *Collector) listen(i int, v uint32) {
	if c.listeners[1] == nil {
		c.listeners[1] = &Listener{Port: 1}
	}
	c.listeners[1].Queue.set(i, v)
}

func TestCollect(t *testing.T) {
	f := newFeed()
	for i := range 10 {
		f.exchange(time.Duration(i)*100*time.Millisecond, 1, 1000+uint16(i))
	}
	f.seal(0, time.Second)
	f.exchange(1500*time.Millisecond, 1, 2000, 3, 4, 5)
	f.seal(time.Second, 2*time.Second)
	// What never came is known to be missing when its sender should have repeated it long ago.
	f.packet(30*time.Second, 3, 3000, false, capture.SYN, 1, 0, 0)
	f.t.Expire(origin.Add(31 * time.Second))
	f.seal(30*time.Second, 31*time.Second)
	v := f.record(31 * time.Second)
	if len(v.Services) != 1 {
		t.Fatalf("%d services, want 1", len(v.Services))
	}
	s := v.Services[0]
	if got := s.Requests.Sum(0, MaxBuckets); got != 11 {
		t.Errorf("%d requests, want 11", got)
	}
	if got := s.Answered.Sum(0, 10); got != 10 {
		t.Errorf("%d answers in the first second, want 10", got)
	}
	if got, _ := s.Open.Peak(0, MaxBuckets); got != 1 {
		t.Errorf("%d requests at most waited, want 1", got)
	}
	var down *Direction
	for i := range v.Flows {
		if v.Flows[i].From == "10.0.0.2" {
			down = &v.Flows[i]
		}
	}
	if down == nil {
		t.Fatal("no direction from the server")
	}
	// Packets of 1,500 bytes are in the class from 1,472 to 1,535.
	var sent, missing uint32
	for slot := range Slots {
		sent, missing = sent+down.Sent[slot][6], missing+down.Missing[slot][6]
	}
	if sent != 132 || missing != 3 || down.Missing[0][6] != 0 {
		t.Errorf("sent %d and missing %d of 1,500 bytes, %d of them in the first second; want 132, 3, 0", sent, missing, down.Missing[0][6])
	}
}

// The example is the one in the middle, not the worst, and what it shows began after the onset.
func TestExample(t *testing.T) {
	f := newFeed()
	f.exchange(0, 1, 999, 2, 3, 4, 5, 6, 7, 8, 9) // before the onset
	for i, lost := range [][]int{{2}, {2, 3}, {2, 3, 4}, {2, 3, 4, 5}, {2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		f.exchange(5*time.Second+time.Duration(i)*time.Second/10, 1, 1000+uint16(i), lost...)
	}
	f.exchange(6*time.Second, 9, 5000, 2, 3, 4, 5, 6) // of another pair
	v := f.record(10*time.Second, &analyze.Finding{ID: "x", Rule: "size-dependent-loss", Severity: "error", Onset: origin.Add(5 * time.Second),
		Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: "10.0.0.1", Peer: "10.0.0.2"}})
	e := v.Example("x")
	if e == nil {
		t.Fatal("no example")
	}
	if e.Client != "10.0.0.1:1002" || e.Rank != 3 || e.Of != 5 {
		t.Errorf("example %s, number %d of %d; want 10.0.0.1:1002, number 3 of 5", e.Client, e.Rank, e.Of)
	}
	tr := NewTracer(v)
	for i := range f.sent {
		if tr.Wants(f.sent[i].At) {
			tr.Packet(f.sent[i].At, &f.sent[i].Packet)
		}
	}
	if tr.Wants(e.First-2*reassembly) || !tr.Wants(e.First) || !tr.Wants(tr.until) || !tr.Wants(e.Last+1) {
		t.Error("wanted are what the example's time holds, and one packet behind it")
	}
	if n := len(e.Segments); n != 4+9+1 {
		t.Errorf("%d segments, want 14", n)
	}
	if last := e.Segments[len(e.Segments)-2]; last.Seq != 11*1448 || last.Again {
		t.Errorf("the last segment of the answer: %+v", last)
	}
}

// Of connections that show equally much the first is the example: the input need not be read a second time as far as the middle.
func TestExampleOfEquals(t *testing.T) {
	f := newFeed()
	for i := range 9 {
		f.exchange(time.Duration(i+1)*time.Second, 1, 1000+uint16(i), 2)
	}
	v := f.record(20*time.Second, &analyze.Finding{ID: "x", Rule: "size-dependent-loss", Severity: "error", Onset: origin,
		Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: "10.0.0.1", Peer: "10.0.0.2"}})
	if e := v.Example("x"); e == nil || e.Client != "10.0.0.1:1000" || e.Rank != 5 || e.Of != 9 {
		t.Errorf("%+v, want the first of nine, which shows as much as the fifth", e)
	}
}

func TestTracerKeepsItsBound(t *testing.T) {
	f := newFeed()
	f.exchange(0, 1, 1000, 2)
	for i := range 2000 {
		f.packet(time.Second+time.Duration(i)*time.Millisecond, 1, 1000, true, capture.ACK, 501+12*1448+uint32(i)*100, 151, 100)
	}
	// What was missing comes in the end; a segment that was seen comes again.
	f.packet(4*time.Second, 1, 1000, true, capture.ACK, 501+2*1448, 151, 1448)
	v := f.record(5*time.Second, &analyze.Finding{ID: "x", Rule: "retransmission", Severity: "error", Onset: origin,
		Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: "10.0.0.1", Peer: "10.0.0.2"}})
	tr := NewTracer(v)
	for i := range f.sent {
		tr.Packet(f.sent[i].At, &f.sent[i].Packet)
	}
	c := v.Connections[0]
	if len(c.Segments) > MaxSegments+ahead || len(c.Segments)+c.Left != len(f.sent) {
		t.Errorf("%d segments and %d left out of %d", len(c.Segments), c.Left, len(f.sent))
	}
	if !tr.Done(origin.Add(6 * time.Second)) {
		t.Error("the tracer wants more than there is")
	}
	// It is silent up to the end, and nothing is read for that.
	if last := f.sent[len(f.sent)-1].At; c.Last <= last || !tr.Done(last+1) || tr.Done(last) {
		t.Errorf("the connection's silence lasts to %d, its last packet is of %d; done behind it: %v, with it: %v", c.Last, last, tr.Done(last+1), tr.Done(last))
	}
}

// Ten years, a thousand servers and more name servers than there is room for: the record stays within its bounds and says what is left
// out.
func TestBounds(t *testing.T) {
	run := func() []byte {
		f := newFeed()
		for i := range 1200 {
			at := time.Duration(i) * 72 * time.Hour
			d := flow.DNS{Client: capture.Endpoint{Addr: addr(1)}, Server: capture.Endpoint{Addr: addr(byte(i))}, First: origin.Add(at)}
			f.c.Event(&flow.Event{Kind: flow.DNSAnswer, At: origin.Add(at), DNS: &d, Dur: time.Millisecond})
			f.exchange(at, byte(i), uint16(i))
		}
		v := f.record(1200 * 72 * time.Hour)
		if len(v.Resolvers) != shownResolvers || v.Left["resolvers"] == 0 || v.Buckets() > MaxBuckets {
			t.Errorf("%d resolvers, %d turned away, %d buckets", len(v.Resolvers), v.Left["resolvers"], v.Buckets())
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b := run(), run()
	if string(a) != string(b) {
		t.Error("two runs give different records")
	}
	if len(a) > 4<<20 {
		t.Errorf("the record has %d bytes", len(a))
	}
}

func TestNothingSeen(t *testing.T) {
	if v := New().Record(&analyze.Diagnosis{}); v.Buckets() > 1 || len(v.Services) > 0 {
		t.Errorf("something was seen of nothing: %+v", v)
	}
}

func TestLatencyStep(t *testing.T) {
	for step := 1; step < LatencySteps-1; step++ {
		if got := LatencyStep(StepLatency(step)); got != step {
			t.Errorf("the middle of step %d, %s, is in step %d", step, StepLatency(step), got)
		}
	}
	if LatencyStep(-1) != 0 || LatencyStep(time.Hour) != LatencySteps-1 {
		t.Error("what is outside does not go to the ends")
	}
}

// A window is what its sender takes in bytes: scaled if both sides have offered it, and unknown without the handshake.
func TestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		client, server int // shift offered; -1: none; -2: no SYN seen
		want           int64
	}{"both": {7, 3, 1000 << 7}, "one": {7, -1, 1000}, "too large": {20, 0, 1000 << 14}, "mid-stream": {7, -2, -1}} {
		var m marks
		for s, shift := range []int{c.client, c.server} {
			p := &capture.Packet{Flags: capture.SYN, Window: 500}
			if shift >= 0 {
				p.Opts, p.WScale = capture.OptWScale, uint8(shift)
			}
			if shift >= -1 && m.window(s, p) != 500 {
				t.Errorf("%s: the window of a SYN is scaled", name)
			}
		}
		if got := m.window(0, &capture.Packet{Flags: capture.ACK, Window: 1000}); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

// Who still calls a silent server as the input ends has not got through either; who got through in the end has.
func TestStillTrying(t *testing.T) {
	f := newFeed()
	for i, at := range []time.Duration{0, time.Second, 3 * time.Second} {
		f.packet(at, 1, 1000, false, capture.SYN, 100, 0, 0)
		f.packet(at, 1, 1001, false, capture.SYN, 100, 0, 0)
		if i == 0 {
			f.packet(at, 1, 1002, false, capture.SYN, 100, 0, 0)
		}
	}
	f.packet(3100*time.Millisecond, 1, 1001, true, capture.SYN|capture.ACK, 500, 101, 0)
	f.packet(3200*time.Millisecond, 1, 1001, false, capture.ACK, 101, 501, 0)
	for range 2 { // telling changes nothing
		v := f.record(4 * time.Second)
		if n := v.Services[0].Unopened.Sum(0, MaxBuckets); n != 1 {
			t.Errorf("%d connections did not come about, want 1", n)
		}
	}
	// A connection that ends after all counts once.
	f.packet(5*time.Second, 1, 1000, true, capture.RST|capture.ACK, 0, 101, 0)
	if n := f.record(6 * time.Second).Services[0].Unopened.Sum(0, MaxBuckets); n != 1 {
		t.Errorf("%d connections did not come about in the end, want 1", n)
	}
}
