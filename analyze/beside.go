package analyze

import (
	"jindan/analyze/flow"
)

// Beside runs what it is given in another goroutine, and waits for it to end; a *sync.WaitGroup does. The engine gives it one
// thing at a time.
type Beside interface {
	Go(func())
	Wait()
}

// handful is how many events go to the other goroutine at a time: waking a sleeping thread takes some microseconds, as long
// as detectors take for dozens of events. Two batches are 1.6 MB; they grow from firstHandful up to that, for most captures are short.
const (
	handful      = 1024
	firstHandful = 64
)

// kept is an event with a copy of what it points to: the flow table changes the original while detectors read the copy.
type kept struct {
	event flow.Event
	conn  flow.Conn
	dns   flow.DNS
	path  flow.Pair
}

func (k *kept) keep(e *flow.Event) {
	k.event = *e
	if e.Conn != nil {
		k.conn = *e.Conn
		k.event.Conn = &k.conn
	}
	if e.DNS != nil {
		k.dns = *e.DNS
		k.event.DNS = &k.dns
	}
	if e.Path != nil {
		k.path = *e.Path
		k.event.Path = &k.path
	}
}

// handover takes events to detectors that run beside the flow table, in order.
type handover struct {
	beside     Beside
	work       func() // deliver; made once
	filling    []kept
	delivering []kept
}

// keep copies an event, and starts the delivery of the batch when it is full.
func (e *Engine) keep(ev *flow.Event) {
	h := &e.handover
	h.filling = h.filling[:len(h.filling)+1]
	h.filling[len(h.filling)-1].keep(ev)
	if len(h.filling) == cap(h.filling) {
		e.hand()
	}
}

// hand waits until detectors have seen the batch before, and gives them this one.
func (e *Engine) hand() {
	h := &e.handover
	h.beside.Wait()
	h.filling, h.delivering = h.delivering[:0], h.filling
	if n := cap(h.filling); n < handful {
		h.filling = make([]kept, 0, 2*n)
	}
	e.table.Restock()
	h.beside.Go(h.work)
}

// deliver gives detectors the events of a batch. Before that it allocates records for the flow table: most of what a new one costs is
// its memory.
func (e *Engine) deliver() {
	e.table.Prepare()
	for i := range e.handover.delivering {
		e.show(&e.handover.delivering[i].event)
	}
}

// meet waits until detectors have seen every event, after which they and the table may be read.
func (e *Engine) meet() {
	h := &e.handover
	if h.beside == nil {
		return
	}
	h.beside.Wait()
	h.delivering, h.filling = h.filling, h.delivering[:0]
	e.deliver()
	h.delivering = h.delivering[:0]
}
