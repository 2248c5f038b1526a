package recording

import (
	"bytes"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"jindan/capture"
)

// A ring with room for everything gives back everything.
func TestRingAll(t *testing.T) {
	m := newMaker(21)
	r := NewRing(RingOptions{MaxBytes: 64 << 20})
	want := &stream{}
	for range 50 {
		b := m.batch(100)
		want.add(b)
		r.Add(b)
	}
	if st := r.Stats(); st.Held != uint64(len(want.obs)) || st.Dropped+st.Refused+st.CutData > 0 {
		t.Errorf("%+v", st)
	}
	dir := filepath.Join(t.TempDir(), "r")
	if err := r.Dump(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	compare(t, replay(t, dir, 100), want)
}

// A small ring keeps the latest, within its bounds, and counts the rest.
func TestRingBounds(t *testing.T) {
	for _, o := range []RingOptions{{MaxBytes: 300 << 10}, {MaxBytes: 64 << 20, Keep: 500 * time.Millisecond}, {MaxBytes: 1, Keep: time.Hour, MaxData: 10}} {
		m := newMaker(22)
		r := NewRing(o)
		want := &stream{}
		for range 200 {
			b := m.batch(100)
			b.Until = math.MinInt64
			want.add(b)
			r.Add(b)
			if st := r.Stats(); st.Bytes > max(o.MaxBytes, 2*minSegment)+maxSegment {
				t.Fatalf("%+v: %+v", o, st)
			}
		}
		st := r.Stats()
		if o.Keep == 0 && st.Dropped == 0 || o.MaxData > 0 && st.CutData == 0 {
			t.Errorf("%+v: %+v", o, st)
		}
		dir := filepath.Join(t.TempDir(), "r")
		if err := r.Dump(dir, Options{}); err != nil {
			t.Fatal(err)
		}
		got := replay(t, dir, 100)
		if o.MaxData > 0 {
			for i := range got.obs {
				if n := len(got.obs[i].Packet.Data); n > o.MaxData {
					t.Errorf("%d bytes of data", n)
				}
			}
			continue
		}
		tail := *want
		tail.obs = want.obs[len(want.obs)-len(got.obs):]
		compare(t, got, &tail)
		if o.Keep == 0 {
			if uint64(len(got.obs)) != st.Held || uint64(len(want.obs)) != st.Held+st.Dropped || st.Bytes < o.MaxBytes/2 {
				t.Errorf("%d observations, %+v", len(got.obs), st)
			}
		} else if got.obs[0].At < want.high.Add(-o.Keep) || want.obs[len(want.obs)-len(got.obs)-2].At > want.high.Add(-o.Keep+2*time.Millisecond) {
			t.Errorf("kept from %v to %v", got.obs[0].At, want.high)
		}
	}
}

// Observations that cannot be kept are counted.
func TestRingRefuses(t *testing.T) {
	r := NewRing(RingOptions{MaxBytes: 1 << 20})
	big := &capture.Sample{Processes: &capture.ProcessSample{Netns: strings.Repeat("x", 600<<10)}}
	nan := &capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{CPU: math.NaN()}}}}
	r.Add(&capture.Batch{Obs: []capture.Observation{{Kind: capture.KindSample, Sample: big}, {Kind: capture.KindSample, Sample: nan},
		{Kind: capture.KindSample}, {Kind: 77}, {Kind: capture.KindLoss, Lost: 1}}})
	if st := r.Stats(); st.Refused != 4 || st.Held != 1 {
		t.Errorf("%+v", st)
	}
}

// A socket table comes back as it was, and takes a fraction of its memory.
func TestRingTables(t *testing.T) {
	m := newMaker(23)
	big := capture.SocketTable{Netns: "a", States: 77, Info: true, Interrupted: true}
	for i := range uint64(20_000) {
		big.Sockets = append(big.Sockets, capture.Socket{Local: capture.Endpoint{Port: 80}, Remote: capture.Endpoint{Port: uint16(i)},
			State: capture.Established, Cookie: i * 0x9e3779b97f4a7c15, Inode: uint32(i), HasInfo: true, Info: capture.TCPInfo{RTT: uint32(m.Uint64() % 1000), RTO: 200_000}})
	}
	for _, want := range []capture.SocketTable{{}, {Sockets: []capture.Socket{}}, {Sockets: big.Sockets[:tableChunk]}, {Sockets: big.Sockets[:tableChunk+1]}, big} {
		var b bytes.Buffer
		packTable(&b, &want, nil)
		got, err := unpackTable(b.Bytes())
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%d sockets: %v", len(want.Sockets), err)
		}
		if n := len(want.Sockets) * socketBytes; n > 1<<20 && b.Len() > n/3 {
			t.Errorf("%d bytes packed to %d", n, b.Len())
		}
	}
}

// Dumps while the ring goes round: each is whole and in order.
func TestRingConcurrent(t *testing.T) {
	r := NewRing(RingOptions{MaxBytes: 400 << 10})
	m := newMaker(23)
	var batches []*capture.Batch
	for range 50 {
		batches = append(batches, m.batch(100))
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				r.Add(batches[i%len(batches)])
			}
		}
	})
	for range 5 {
		dir := filepath.Join(t.TempDir(), "r")
		if err := r.Dump(dir, Options{}); err != nil {
			t.Error(err)
		}
		s := replay(t, dir, 512)
		if len(s.obs) > 0 {
			follows(t, s, batches)
		}
		r.Stats()
	}
	close(done)
	wg.Wait()
}

// follows wants s to be a part of the batches repeated for ever.
func follows(t *testing.T, s *stream, batches []*capture.Batch) {
	t.Helper()
	var all []capture.Instant
	for _, b := range batches {
		for i := range b.Obs {
			all = append(all, b.Obs[i].At)
		}
	}
	for start := range all {
		n := 0
		for n < len(s.obs) && s.obs[n].At == all[(start+n)%len(all)] {
			n++
		}
		if n == len(s.obs) {
			return
		}
	}
	t.Errorf("%d observations that do not follow each other", len(s.obs))
}

// traffic is a batch of packets such as a server sees, in a time that moves on.
func traffic(n int) *capture.Batch {
	m := newMaker(31)
	b := &capture.Batch{}
	for range n {
		p := m.packet()
		for p.Proto != capture.ProtoTCP || p.Len > 1460 || p.Frame != 0 || len(p.Data) > 0 {
			p = m.packet()
		}
		b.Obs = append(b.Obs, capture.Observation{At: m.at, Packet: p})
	}
	return b
}

func TestAllocs(t *testing.T) {
	b := traffic(512)
	r := NewRing(RingOptions{MaxBytes: 1 << 20, Keep: time.Second})
	add := func() {
		for i := range b.Obs {
			b.Obs[i].At += 1000
		}
		b.Until = b.Obs[511].At + 1
		r.Add(b)
	}
	for range 100 {
		add()
	}
	// A segment's head now and then, for 64 KiB.
	if n := testing.AllocsPerRun(200, add); n > 2 {
		t.Errorf("Ring.Add: %v allocations a batch", n)
	}
	w, err := Create(filepath.Join(t.TempDir(), "r"), Options{MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func() {
		b.Until++
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(200, write); n != 0 {
		t.Errorf("Write: %v allocations a batch", n)
	}
}

// BenchmarkWrite measures a packet, to a file.
func BenchmarkWrite(b *testing.B) {
	batch := traffic(512)
	w, err := Create(filepath.Join(b.TempDir(), "r"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%512 == 0 {
			if err := w.Write(batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.SetBytes(w.Stats().Bytes / int64(w.Stats().Packets))
	w.Close()
}

// BenchmarkRingAdd measures a packet.
func BenchmarkRingAdd(b *testing.B) {
	batch := traffic(512)
	r := NewRing(RingOptions{MaxBytes: 16 << 20})
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%512 == 0 {
			r.Add(batch)
		}
	}
}

// BenchmarkRead measures a packet, with decoding.
func BenchmarkRead(b *testing.B) {
	batch := traffic(512)
	dir := filepath.Join(b.TempDir(), "r")
	w, err := Create(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for range 200 {
		if err := w.Write(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	var r *Recording
	var in capture.Batch
	b.ReportAllocs()
	for n := 0; b.Loop(); {
		if n > 0 {
			n--
			continue
		}
		if r == nil {
			if r, err = Open(dir, openPackets); err != nil {
				b.Fatal(err)
			}
		}
		if r.Read(b.Context(), &in) != nil {
			r.Close()
			r = nil
		}
		n = len(in.Obs)
	}
}
