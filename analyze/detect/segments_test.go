package detect

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/points"
	"jindan/capture"
	"jindan/rules"
)

// hop is the way between two capture points, for tests: what befalls each of the answers of many connections on it.
type hop struct {
	lose   func(i int, size uint32) bool // segments of a server's answers
	late   func(i int) time.Duration     // beside 100 µs
	twice  func(i int) bool
	swap   func(i int) bool // overtaken by what is sent after it
	resets int              // made between the points, in place of a last answer
	miss   func(i int) bool // the capture behind misses them
}

// compare lets 200 connections pass two points and a third one behind, the clients', and compares what the points saw. What is lost comes
// again after 200 ms.
func (h hop) compare() *points.Report {
	type seen struct {
		pt int
		o  capture.Observation
	}
	var all []seen
	var id uint16
	show := func(pt int, at capture.Instant, p capture.Packet) {
		p.TTL -= uint8(pt)
		all = append(all, seen{pt, capture.Observation{At: at, Packet: p}})
	}
	server := host("10.0.0.1:443")
	n := 0
	for c := range 200 {
		client := capture.Endpoint{Addr: addr("192.0.2.7"), Port: uint16(20000 + c)}
		at := begin.Add(time.Duration(c) * 50 * ms)
		send := func(back bool, flags uint8, seq, ack, size uint32) bool {
			id++
			p := capture.Packet{Src: server, Dst: client, Proto: capture.ProtoTCP, TTL: 64, IPID: id, Flags: flags, Seq: seq, Ack: ack, Len: size, IPLen: size + 40, Window: 500}
			at = at.Add(ms)
			if back { // from the client: passes the third point first
				p.Src, p.Dst = client, server
				for k := range 3 {
					q := p
					q.TTL = 64 - 2*uint8(k) // show takes the rest
					show(2-k, at.Add(time.Duration(k)*100*time.Microsecond), q)
				}
				return true
			}
			n++
			show(0, at, p)
			if h.lose != nil && h.lose(n, p.IPLen) {
				return false
			}
			then := at.Add(100 * time.Microsecond)
			if h.late != nil {
				then = then.Add(h.late(n))
			}
			if h.swap != nil && h.swap(n) {
				then = then.Add(1500 * time.Microsecond)
			}
			copies := 1
			if h.twice != nil && h.twice(n) {
				copies = 2
			}
			for k := range copies {
				if h.miss == nil || !h.miss(n) {
					show(1, then.Add(time.Duration(k)*10*time.Microsecond), p)
				}
				show(2, then.Add(time.Duration(100+10*k)*time.Microsecond), p)
			}
			return true
		}
		send(true, capture.SYN, 100, 0, 0)
		for !send(false, capture.SYN|capture.ACK, 900, 101, 0) {
			at = at.Add(200 * ms)
		}
		send(true, capture.ACK, 101, 901, 100)
		seq := uint32(901)
		for _, size := range []uint32{1460, 1460, 1460, 200} {
			for !send(false, capture.ACK, seq, 201, size) {
				at = at.Add(200 * ms)
			}
			seq += size
		}
		at = at.Add(5 * ms)
		send(true, capture.ACK, 201, seq, 0)
		if c < h.resets {
			p := capture.Packet{Src: server, Dst: client, Proto: capture.ProtoTCP, TTL: 200, IPID: 7, Flags: capture.RST | capture.ACK, Seq: seq, Ack: 201, IPLen: 40}
			show(1, at.Add(ms), p)
			show(2, at.Add(ms+100*time.Microsecond), p)
		}
	}
	slices.SortStableFunc(all, func(a, b seen) int { return int(a.o.At - b.o.At) })
	pts := make([]points.Point, 3)
	for i, name := range []string{"a", "b", "c"} {
		pts[i] = points.Point{Name: name, Joined: true, First: all[0].o.At, Last: all[len(all)-1].o.At, Until: all[len(all)-1].o.At}
	}
	a := points.New(pts, points.Options{})
	for i := range all {
		a.Observe(all[i].pt, &all[i].o)
	}
	return a.Close()
}

// chance is a number from 0 to 1, the same for each i and unlike its neighbours': every third packet would spare what is sent again.
func chance(i int) float64 { return rand.New(rand.NewPCG(uint64(i), 19)).Float64() }

// verdicts are what the rules of segments say of a comparison: the severity, where it is found, "cleared", or neither.
func verdicts(t *testing.T, r *points.Report) map[string]string {
	t.Helper()
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, id := range []string{"segment-size-loss", "segment-loss", "segment-reset", "segment-delay", "segment-disorder"} {
		d := newSegments(id)
		w := &analyze.Window{Points: r, Final: true}
		var found string
		d.Judge(w, func(s analyze.Symptom) {
			severity, holds, err := set.Rule(id).Eval(s.Features)
			if err != nil {
				t.Fatal(err)
			}
			if holds {
				found += severity + " " + s.Subject.Segment
			}
		})
		as := d.Assess(w)
		clear, err := set.Rule(id).IsClear(as.Features)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case found != "":
			said[id] = found
			if clear {
				t.Errorf("%s is found and cleared", id)
			}
		case clear:
			said[id] = "cleared"
		}
	}
	return said
}

// Each rule of segments finds its own fault, in the segment and direction of that, and no other one's.
func TestSegments(t *testing.T) {
	since := func(i int) bool { return i > 400 } // the rules of change need a past
	for _, c := range []struct {
		name string
		hop  hop
		want map[string]string // beside "cleared"
	}{
		{"nothing", hop{}, nil},
		{"large ones lost", hop{lose: func(i int, size uint32) bool { return size > 1400 && since(i) && chance(i) < 0.33 }},
			map[string]string{"segment-size-loss": "error a → b", "segment-loss": ""}},
		{"all sizes lost", hop{lose: func(i int, _ uint32) bool { return since(i) && i%9 == 0 }},
			map[string]string{"segment-loss": "error a → b", "segment-size-loss": ""}},
		{"one in 300 lost", hop{lose: func(i int, _ uint32) bool { return i%301 == 0 }}, nil},
		{"missed by the capture", hop{miss: func(i int) bool { return i%20 == 0 }}, nil},
		{"reset", hop{resets: 5}, map[string]string{"segment-reset": "error a → b"}},
		{"two resets", hop{resets: 2}, map[string]string{"segment-reset": ""}},
		{"delayed", hop{late: func(i int) time.Duration {
			if since(i) {
				return 50 * ms
			}
			return 0
		}}, map[string]string{"segment-delay": "warn a → b"}},
		{"delayed by little", hop{late: func(i int) time.Duration {
			if since(i) {
				return 3 * ms
			}
			return 0
		}}, nil},
		{"doubled", hop{twice: func(i int) bool { return i%9 == 0 }}, map[string]string{"segment-disorder": "info a → b"}},
		{"doubled once in 300", hop{twice: func(i int) bool { return i%301 == 0 }}, nil},
		{"overtaken, which nobody minds", hop{swap: func(i int) bool { return i%9 == 3 }}, map[string]string{"segment-disorder": ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := verdicts(t, c.hop.compare())
			for _, id := range []string{"segment-size-loss", "segment-loss", "segment-reset", "segment-delay", "segment-disorder"} {
				want, ok := c.want[id]
				if !ok {
					want = "cleared"
				}
				if said[id] != want {
					t.Errorf("%s: %q, want %q", id, said[id], want)
				}
			}
		})
	}
}

// Nobody sends an acknowledgement again: those that are absent are held against the size from which on more is lost.
func TestAbsentAreSmall(t *testing.T) {
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	r := &points.Report{Points: make([]points.Point, 2), At: []points.At{{}, {Missed: 10, Seen: 5000, SeenDir: [2]uint64{5000, 0}}}}
	for absent, want := range map[uint64]string{3: "segment-size-loss", 60: "segment-loss"} {
		e := &points.Edge{From: 0, To: 1}
		e.In[23], e.Lost[23], e.In[0], e.Bare[0], e.Absent[0] = 1000, 120, 500, 500, absent
		f := SegmentOf(r, e)
		f.Share = f.BigLoss // what changed is of no interest here
		for _, rule := range []string{"segment-size-loss", "segment-loss"} {
			if _, holds, err := set.Rule(rule).Eval(f); err != nil || holds != (rule == want) {
				t.Errorf("%d absent: %s %v, %v", absent, rule, holds, err)
			}
		}
	}
}
