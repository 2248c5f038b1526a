package detect

import (
	"slices"
	"testing"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// What several detectors read is followed once an engine, whichever of them it was made for.
func TestMeasuresAreShared(t *testing.T) {
	readers := make(map[analyze.Measure]int)
	for _, d := range All() {
		if x, ok := d.(analyze.Measurer); ok {
			for _, m := range x.Measures() {
				readers[m]++
			}
		}
	}
	kinds := make(map[string]int)
	for m, n := range readers {
		switch m.(type) {
		case *measure.Dials:
			kinds["dials"] += n
		case *measure.Ways:
			kinds["ways"] += n
		case *measure.Scanners:
			kinds["scanners"] += n
		case *measure.Lookups:
			kinds["lookups"] += n
		case *measure.HostSockets:
			kinds["sockets"] += n
		case *measure.Stages:
			kinds["stages"] += n
		default:
			t.Errorf("%T is not known to this test", m)
		}
	}
	if len(readers) != 6 || kinds["sockets"] != 9 || kinds["scanners"] != 1 || kinds["dials"] != 7 || kinds["ways"] != 2 || kinds["lookups"] != 5 || kinds["stages"] != 2 {
		t.Errorf("%d measures, read by %v", len(readers), kinds)
	}
}

// askerOf notes what it is told of outcomes.
type askerOf struct {
	*measure.Dials
	told []measure.Outcome
}

func (a *askerOf) report(_ *flow.Conn, o measure.Outcome, _ *measure.Attempt, _ *flow.Event) {
	a.told = append(a.told, o)
}

func (*askerOf) Spec() analyze.Spec {
	return analyze.Spec{Rule: "dead-upstream", Features: DeadUpstream{}}
}
func (*askerOf) Event(*flow.Event)                                  {}
func (a *askerOf) Judge(w *analyze.Window, _ func(analyze.Symptom)) { a.Dials.Judge(w) }
func (*askerOf) Assess(*analyze.Window) analyze.Assessment          { return analyze.Assessment{} }

// Each asker is told once of each outcome that it wants to know, of the requests that it asked about when they were made.
func TestAskers(t *testing.T) {
	n := new(network)
	n.refused(0, "198.51.100.1", "192.0.2.1:80")
	n.silent(0, "198.51.100.2", "192.0.2.1:80", 4)
	shared := measure.NewDials()
	all, none, silent := &askerOf{Dials: shared}, &askerOf{Dials: shared}, &askerOf{Dials: shared}
	shared.Requests.Tell(all.report, nil, measure.Accepted, measure.Answered, measure.Refused, measure.Ignored)
	shared.Requests.Tell(none.report, func(*flow.Event) bool { return false }, measure.Accepted, measure.Answered, measure.Refused, measure.Ignored)
	shared.Requests.Tell(silent.report, func(e *flow.Event) bool { return e.Conn.Client.Addr == addr("198.51.100.2") }, measure.Ignored)
	n.run(t, []analyze.Detector{all, none, silent}, "")
	if len(all.told) != 2 || all.told[0] != measure.Refused || all.told[1] != measure.Ignored {
		t.Errorf("who asks about all was told %v", all.told)
	}
	if len(none.told) != 0 {
		t.Errorf("who asks about none was told %v", none.told)
	}
	if len(silent.told) != 1 || silent.told[0] != measure.Ignored {
		t.Errorf("who asks about what is ignored was told %v", silent.told)
	}
}

// An ICMP error about a query is no answer that arrived.
func TestUnreachableIsNoAnswer(t *testing.T) {
	d := newSizeLoss().(*sizeLoss)
	for _, k := range []flow.Kind{flow.ICMPError, flow.DNSAnswer} {
		if d.Spec().Events.Has(k) {
			d.Event(&flow.Event{Kind: k, DNS: &flow.DNS{Proto: capture.ProtoUDP, AnswerIPLen: 100}})
		}
	}
	if n := d.dns.recent.Len(); n != 1 {
		t.Errorf("%d answers, want the one that came", n)
	}
}

// What is remembered of connections is found by their place, and goes when another connection takes it.
func TestConns(t *testing.T) {
	table := flow.New(flow.Options{})
	refs := make([]flow.Ref, 0, 8)
	s := measure.NewConns[int](4)
	n := new(network)
	for range 6 {
		n.tcp(0, n.from("198.51.100.1"), host("192.0.2.1:80"), capture.SYN, 1, 0, 0)
	}
	for i := range n.obs {
		table.Observe(&n.obs[i])
	}
	table.Live(func(c *flow.Conn) { refs = append(refs, c.Ref()) })
	for i, r := range refs[:4] {
		*s.Get(r) = i + 1
	}
	if s.Get(refs[4]) != nil || s.Refused != 1 {
		t.Error("there is room for more than four")
	}
	s.Drop(refs[1])
	if x := s.Get(refs[5]); x == nil || *x != 0 {
		t.Error("no room for another where one was dropped")
	} else {
		*x = 6
	}
	if s.Peek(refs[1]) != nil || s.Peek(refs[2]) == nil || *s.Peek(refs[2]) != 3 {
		t.Error("another was dropped")
	}
	var order []int
	s.Each(func(_ flow.Ref, x *int) bool {
		order = append(order, *x)
		return *x != 1
	})
	if !slices.Equal(order, []int{1, 3, 4, 6}) || s.N != 3 || s.Peek(refs[0]) != nil {
		t.Errorf("in order of insertion: %v, %d left", order, s.N)
	}
	// What was dropped comes again: in the same window, and in a later one.
	s.Drop(refs[5])
	s.Drop(refs[5])
	if x := s.Get(refs[5]); x == nil || *x != 0 || s.N != 3 {
		t.Errorf("dropped and back: %v, %d left", x, s.N)
	}
	allocated := testing.AllocsPerRun(100, func() {
		for range 10 {
			s.Drop(refs[2])
			*s.Get(refs[2]) = 3
		}
		s.Drop(refs[3])
		s.Each(func(flow.Ref, *int) bool { return true })
		*s.Get(refs[3]) = 4
	})
	if allocated != 0 || s.N != 3 || *s.Peek(refs[2]) != 3 || *s.Peek(refs[3]) != 4 {
		t.Errorf("%v allocations, %d left", allocated, s.N)
	}
}
