//go:build linux

package host

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netns"

	"jindan/capture"
)

const (
	// maxStep is the largest offset that the kernel's clock discipline slews away (MAXPHASE in include/linux/timex.h,
	// 500 ms); more than that between two samples is a step.
	maxStep = 500 * time.Millisecond
	// maxOwners bounds the processes described in one answer.
	maxOwners = 64
)

// Options of a Source. The zero value samples the own network namespace every second.
type Options struct {
	Proc     string                 // where procfs is mounted; empty: /proc
	Netns    netns.NsHandle         // the network namespace; 0 or netns.None(): the own one
	Name     string                 // of the namespace, as it stands in samples; empty for the own one
	Interval time.Duration          // between two samples; 0: 1 s
	Budget   time.Duration          // of work to find owners and threads, per Read; 0: DefaultBudget
	Clock    func() capture.Instant // 0: the wall clock
	Look     Looker                 // at other users' processes, in the own namespace; nil: the process itself does, within Budget
}

// Source samples the host. Read returns one HostSample per interval, the changes since the last, and the owners of the
// sockets that were asked for. Nothing but Close and the context ends it.
//
// A change has the time at which it was seen: that of the kernel's message for links, routes and neighbours, that of the next
// sample for the others. When a process started and a file was modified is in the Detail; software that changed between the
// last boot and the first sample is told with that.
type Source struct {
	o         Options
	queue     queue
	counters  *Counters
	links     *Links // nil: not open
	procs     *Processes
	listeners *listeners
	failing   map[string]bool // files that Counters could not read in the last sample

	stop     context.CancelFunc
	closed   chan struct{}
	once     sync.Once
	reading  sync.Mutex // held by Read; Close waits for it
	watching sync.WaitGroup
	next     time.Time             // of the next sample
	pending  []capture.Observation // sampled, but not yet returned for want of room
	until    capture.Instant
	offset   time.Duration // wall clock − time since boot, in the last sample
	sampled  bool
}

// NewSource begins to watch for changes. What cannot be opened is a failure, not an error: it is tried again.
func NewSource(o Options) *Source {
	o.Proc = cmp.Or(o.Proc, "/proc")
	o.Interval = cmp.Or(o.Interval, time.Second)
	o.Budget = cmp.Or(o.Budget, DefaultBudget)
	o.Netns = own(o.Netns)
	if o.Clock == nil {
		o.Clock = func() capture.Instant { return capture.Instant(time.Now().UnixNano()) }
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Source{o: o, stop: stop, closed: make(chan struct{}), failing: map[string]bool{}, queue: queue{clock: o.Clock},
		procs: NewProcesses(o.Proc, o.Budget, o.Clock)}
	first := isFirst(o.Proc, o.Netns)
	if s.o.Look == nil {
		s.o.Look = s.procs
	} else if o.Netns == netns.None() {
		first = s.o.Look.IsFirst()
	}
	s.counters = newCounters(o.Proc, o.Netns, first)
	s.listeners = newListeners(o.Netns, s.procs, s.o.Look, s.queue.change)
	ready := make(chan struct{})
	s.watching.Go(func() { newWatcher(o.Netns, &s.queue).run(ctx, ready) })
	<-ready // so that a change right after the first sample is not missed; netlink answers within answerTime
	return s
}

// Name is "host", with the namespace if it is not the own one.
func (s *Source) Name() string {
	if s.o.Name != "" {
		return "host " + s.o.Name
	}
	return "host"
}

// Ask makes the next Read also return who owns these sockets and what the owners' threads wait for. It does not block
// and may be called from any goroutine.
func (s *Source) Ask(inodes []uint32) { s.queue.ask(inodes) }

// Failures returns how often something could not be read, and the last reason. A file that stays unreadable counts once.
func (s *Source) Failures() (n uint64, last error) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.failed, s.queue.last
}

// Untold returns the failures since the last call, each of which names its file, at most 32.
func (s *Source) Untold() []error {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	u := s.queue.untold
	s.queue.untold = nil
	return u
}

// Dropped is how many changes, and inodes asked for, found the queue full.
func (s *Source) Dropped() uint64 {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.dropped
}

// Read waits for the next sample. Each sample has memory of its own, so it stays valid.
func (s *Source) Read(ctx context.Context, b *capture.Batch) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if cap(b.Obs) == 0 {
		b.Obs = make([]capture.Observation, 0, capture.DefaultBatch)
	}
	b.Obs = b.Obs[:0]
	if len(s.pending) == 0 {
		if err := s.wait(ctx); err != nil {
			return err
		}
		s.sample()
	}
	n := min(len(s.pending), cap(b.Obs))
	b.Obs = append(b.Obs, s.pending[:n]...)
	clear(s.pending[:n])
	s.pending = s.pending[n:]
	b.Until = s.until
	if len(s.pending) > 0 {
		b.Until = min(b.Until, s.pending[0].At)
	}
	return nil
}

// wait returns when the next sample is due. Samples that could not be taken in time are left out.
func (s *Source) wait(ctx context.Context) error {
	now := time.Now()
	if s.next.Before(now.Add(-s.o.Interval)) {
		s.next = now
	}
	t := time.NewTimer(s.next.Sub(now))
	defer t.Stop()
	select {
	case <-s.closed:
		return io.EOF
	default:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return io.EOF
	case <-t.C:
		s.next = s.next.Add(s.o.Interval)
		return nil
	}
}

// sample fills pending, in the order of time.
func (s *Source) sample() {
	s.clockStep()
	obs := s.pending[:0]
	add := func(at capture.Instant, x *capture.Sample) {
		obs = append(obs, capture.Observation{At: at, Kind: capture.KindSample, Sample: x})
	}
	h := &capture.HostSample{Netns: s.o.Name}
	at := s.o.Clock()
	s.counters.Read(h)
	s.count()
	s.readLinks(h)
	add(at, &capture.Sample{Host: h})
	if err := s.listeners.round(); err != nil {
		s.failOnce("listeners", err)
	} else {
		delete(s.failing, "listeners")
	}
	if asked := s.queue.takeAsked(); len(asked) > 0 {
		at := s.o.Clock()
		p := s.o.Look.Owners(asked, maxOwners)
		p.Netns = s.o.Name
		add(at, &capture.Sample{Processes: &p})
	}
	s.pending, s.until = s.queue.takeChanges(obs)
	slices.SortStableFunc(s.pending, func(a, b capture.Observation) int { return cmp.Compare(a.At, b.At) })
}

// clockStep tells of a wall clock that went another way than the time since boot, which nobody can set.
func (s *Source) clockStep() {
	offset := time.Duration(s.o.Clock()) - s.procs.boot()
	step := offset - s.offset
	if s.sampled && step.Abs() > maxStep {
		s.queue.change(capture.Change{Kind: capture.ChangeClock, What: "CLOCK_REALTIME", Step: step,
			Detail: fmt.Sprintf("stepped by %+.3f s against CLOCK_BOOTTIME", step.Seconds())})
	}
	s.offset, s.sampled = offset, true
}

// readLinks reads the interfaces and their addresses into h.
func (s *Source) readLinks(h *capture.HostSample) {
	var err error
	if s.links == nil {
		s.links, err = NewLinks(s.o.Netns)
	}
	if err == nil {
		h.Links, err = s.links.Read(nil)
	}
	if err == nil {
		h.Addrs, err = s.links.Addrs(nil)
	}
	if err == nil {
		delete(s.failing, "links")
		return
	}
	s.failOnce("links", err)
	if s.links != nil { // with a new socket next time
		s.links.Close()
		s.links = nil
	}
}

// count counts files that began to fail.
func (s *Source) count() {
	now := s.counters.Failures()
	for _, f := range now {
		s.failOnce(f.File, fmt.Errorf("read %s/%s: %w", s.o.Proc, f.File, f.Err))
	}
	for name := range s.failing {
		if name != "links" && name != "listeners" && !slices.ContainsFunc(now, func(f Failure) bool { return f.File == name }) {
			delete(s.failing, name)
		}
	}
}

func (s *Source) failOnce(name string, err error) {
	if !s.failing[name] {
		s.failing[name] = true
		s.queue.fail(err)
	}
}

// Close ends Read with io.EOF and closes everything.
func (s *Source) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.stop()
		s.watching.Wait()
		s.reading.Lock()
		defer s.reading.Unlock()
		s.counters.Close()
		s.listeners.close()
		if s.links != nil {
			s.links.Close()
			s.links = nil
		}
	})
	return nil
}

var _ capture.Source = (*Source)(nil)
