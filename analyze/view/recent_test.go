package view

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Hours go by, and a Recent collector holds what its last minutes held, at the width that it began with; what was quiet since makes
// room, and a level that stands still stands.
func TestRecent(t *testing.T) {
	f := newFeed()
	f.c = Recent()
	sample := func(at time.Duration, port uint16, queue uint32) {
		f.c.Sample(origin.Add(at), &capture.Sample{Sockets: &capture.SocketTable{States: capture.Listen.Mask(),
			Sockets: []capture.Socket{{State: capture.Listen, Local: capture.Endpoint{Port: port}, RecvQ: queue, SendQ: 128}}}})
	}
	sample(0, 81, 1)
	s := &service{s: Service{Addr: "10.0.0.2", Port: 80}}
	s.open.change(f.c.at(origin), 3)
	quiet := &service{s: Service{Addr: "10.0.0.2", Port: 82}}
	quiet.s.Requests.add(0, 7)
	f.c.services = append(f.c.services, s, quiet)
	f.c.byNumber = append(f.c.byNumber, s, quiet)
	const hours = 5 * time.Hour
	for at := time.Second; at <= hours; at += time.Second {
		sample(at, 80, uint32(at/time.Minute)%50)
		s.s.Requests.add(f.c.at(origin.Add(at)), 2)
	}
	v := f.record(hours)
	if v.Width != int64(time.Second) {
		t.Errorf("buckets of %v", time.Duration(v.Width))
	}
	last := v.Bucket(v.Last)
	if last < MaxBuckets/2 || last >= MaxBuckets {
		t.Fatalf("the end lies in bucket %d", last)
	}
	if len(v.Services) != 1 || len(v.Listeners) != 1 || f.c.byNumber[1] != nil {
		t.Fatalf("%d services, %d listeners", len(v.Services), len(v.Listeners))
	}
	if got := v.Services[0].Requests.Sum(last-59, last+1); got != 120 {
		t.Errorf("%d requests in the last minute", got)
	}
	if got, seen := v.Services[0].Open.Peak(last, last+1); !seen || got != 3 {
		t.Errorf("%d requests wait, seen: %v", got, seen)
	}
	if got, _ := v.Listeners[0].Queue.Peak(last-70, last-61); got != uint32((hours-time.Minute)/time.Minute-1)%50 {
		t.Errorf("a minute ago %d waited", got)
	}
	// A jump over everything that is kept.
	sample(hours+24*time.Hour, 80, 9)
	v = f.c.Record(&analyze.Diagnosis{Coverage: analyze.Coverage{First: origin, Last: origin.Add(hours + 24*time.Hour)}})
	if got := v.Services[0].Requests.Sum(0, MaxBuckets); got != 0 {
		t.Errorf("%d requests of the day before", got)
	}
	if got, _ := v.Listeners[0].Queue.Peak(0, MaxBuckets); got != 9 {
		t.Errorf("%d wait", got)
	}
}
