package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jindan/capture"
)

const (
	// heartbeat is how long a quiet Read waits: windows of a second go on in time.
	heartbeat = 200 * time.Millisecond
	// delivery is what is allowed, beside two block time-outs (the kernel's timer hands a block over when it fires
	// for the second time), for a packet on its way through the kernel of a busy host.
	delivery = 100 * time.Millisecond
	// revisit is how often interfaces are looked up by name.
	revisit = time.Second
	// maxRing bounds Options.RingBytes: 1 GiB.
	maxRing = 1 << 30
)

// Source captures on one or more interfaces. Read is for one goroutine; the other methods may be called at any time.
type Source struct {
	name    string
	options Options
	decoder Decoder
	recycle func()
	margin  capture.Instant // no packet is older than this when a ring is found empty

	reading sync.Mutex // held by Read; Close unmaps under it
	closed  atomic.Bool
	swaps   atomic.Uint64 // calls of SetFilter that have begun

	control sync.Mutex // guards the next six, and the descriptors of rings
	wakeFD  int
	lookFD  int // a socket to look up interfaces with
	filter  []bpf.RawInstruction
	marks   []mark // swaps not taken over by Read
	stats   Stats
	links   []*link

	// The rest is Read's.
	rings   []*ring
	polled  []unix.PollFd
	count   Stats
	seen    uint64 // swaps taken over
	due     []mark
	lost    uint64 // dropped by the kernel, with no packet behind it yet
	until   capture.Instant
	visited time.Time
	ctx     context.Context
	unwatch func() bool
	arenas  capture.Arenas
}

// link is an interface with its rings; none while it is gone.
type link struct {
	name  string
	rings []*ring
}

// mark is the time of a new filter.
type mark struct {
	at   capture.Instant
	what string
}

var _ capture.Source = (*Source)(nil)

// Open starts to capture. It fails if an interface does not exist, if a right is missing, or if the kernel refuses
// the filter; the error says what to do. d belongs to the Source from then on.
func Open(o Options, d Decoder) (*Source, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Source{name: strings.Join(o.Interfaces, "+"), options: o, decoder: d, wakeFD: -1, lookFD: -1, until: math.MinInt64,
		margin: capture.Instant(2*o.BlockTimeout + delivery)}
	if r, ok := d.(interface{ Recycle() }); ok {
		s.recycle = r.Recycle
	}
	var err error
	if s.filter, err = complete(o.Filter); err != nil {
		return nil, err
	}
	if o.Netns != 0 {
		// A copy, for interfaces that come back.
		if s.options.Netns, err = unix.FcntlInt(uintptr(o.Netns), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("open a capture: duplicate the descriptor of the network namespace: %w", err)
		}
	}
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open a capture: %w", err)
	}
	return s, nil
}

// complete checks o and fills in defaults.
func (o *Options) complete() error {
	if len(o.Interfaces) == 0 {
		o.Interfaces = []string{Any}
	}
	o.Interfaces = slices.Clone(o.Interfaces)
	slices.Sort(o.Interfaces)
	o.Interfaces = slices.Compact(o.Interfaces)
	if len(o.Interfaces) > 1 && slices.Contains(o.Interfaces, Any) {
		return fmt.Errorf("open a capture: %q means all interfaces; leave the others out", Any)
	}
	if o.RingBytes == 0 {
		o.RingBytes = DefaultRingBytes
	}
	if o.Rings == 0 {
		o.Rings = 1
	}
	if o.BlockTimeout == 0 {
		o.BlockTimeout = DefaultBlockTimeout
	}
	switch {
	case o.RingBytes < 0 || o.RingBytes > maxRing:
		return fmt.Errorf("open a capture: a ring of %d bytes; at most %d are possible", o.RingBytes, maxRing)
	case o.Rings < 0 || o.Rings > 256: // PACKET_FANOUT_MAX before Linux 5.15
		return fmt.Errorf("open a capture: %d rings; at most 256 are possible", o.Rings)
	case o.BlockTimeout < time.Millisecond || o.BlockTimeout > heartbeat:
		return fmt.Errorf("open a capture: a block time-out of %v; give 1ms to %v", o.BlockTimeout, heartbeat)
	}
	return nil
}

// complete puts the prelude before a program, or before one that takes every packet whole.
func complete(program []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	const maxInstructions = 4096 // BPF_MAXINSNS
	if len(program)+len(prelude) > maxInstructions {
		return nil, fmt.Errorf("a filter of %d instructions; the kernel takes %d beside our %d", len(program), maxInstructions-len(prelude), len(prelude))
	}
	if len(program) == 0 {
		program = []bpf.RawInstruction{{Op: 0x06, K: math.MaxUint32}} // ret #-1
	}
	return slices.Concat(prelude, program), nil
}

func (s *Source) open() error {
	var err error
	if s.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("create an event descriptor: %w", err)
	}
	return inNetns(s.options.Netns, func() error {
		if s.lookFD, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open a socket to look up interfaces: %w", err)
		}
		for _, name := range s.options.Interfaces {
			l := &link{name: name}
			s.links = append(s.links, l)
			if err := s.openLink(l); err != nil {
				return err
			}
		}
		return nil
	})
}

// openLink opens the rings of an interface, all or none.
func (s *Source) openLink(l *link) error {
	group := noFanout
	if s.options.Rings > 1 {
		group = newFanout
	}
	var rings []*ring
	err := func() error {
		for range s.options.Rings {
			r, err := openRing(l.name, &s.options, group)
			if err != nil {
				return err
			}
			rings = append(rings, r)
			if group != noFanout {
				group = r.group
			}
		}
		for _, r := range rings {
			if err := r.attach(s.filter); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		for _, r := range rings {
			r.close()
		}
		return err
	}
	l.rings = rings
	s.rings = append(s.rings, rings...)
	return nil
}

// Name returns the names of the interfaces, joined by "+".
func (s *Source) Name() string { return s.name }

// SetFilter replaces the filter on all rings, or on none if it fails. Every packet is judged by one of the two. What the old one
// accepted is still delivered; then comes a Sample with a Change (capture.ChangeFilter), and packets after it
// were accepted by the new filter. What tells of it in that Change.
func (s *Source) SetFilter(program []bpf.RawInstruction, what string) error {
	full, err := complete(program)
	if err != nil {
		return fmt.Errorf("set the filter of %s: %w", s.name, err)
	}
	s.control.Lock()
	defer s.control.Unlock()
	if s.closed.Load() {
		return fmt.Errorf("set the filter of %s: %w", s.name, os.ErrClosed)
	}
	s.swaps.Add(1) // Read waits for the lock before it delivers what the new filter accepts
	for _, l := range s.links {
		for _, r := range l.rings {
			if err := r.attach(full); err != nil {
				return errors.Join(fmt.Errorf("set the filter of %s: %w", s.name, err), s.restore())
			}
		}
	}
	s.filter = full
	s.marks = append(s.marks, mark{capture.Instant(time.Now().UnixNano()), what})
	return nil
}

// restore gives all rings the filter that they had.
func (s *Source) restore() error {
	var failed error
	for _, l := range s.links {
		for _, r := range l.rings {
			failed = errors.Join(failed, r.attach(s.filter))
		}
	}
	return failed
}

// Stats returns the counts up to the last Read.
func (s *Source) Stats() Stats {
	s.control.Lock()
	defer s.control.Unlock()
	st := s.stats
	st.Missing = slices.Clone(st.Missing)
	return st
}

// Close ends a Read that is under way, waits for it, and frees the rings. Further calls do nothing.
func (s *Source) Close() error {
	s.closed.Store(true)
	s.wake()
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	s.control.Lock()
	defer s.control.Unlock()
	for _, l := range s.links {
		for _, r := range l.rings {
			r.close()
		}
	}
	s.links, s.rings = nil, nil
	for _, fd := range []*int{&s.wakeFD, &s.lookFD} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	if s.options.Netns > 0 {
		_ = unix.Close(s.options.Netns)
		s.options.Netns = 0
	}
	return nil
}

// wake ends a poll that is under way.
func (s *Source) wake() {
	s.control.Lock()
	defer s.control.Unlock()
	if s.wakeFD >= 0 {
		_, _ = unix.Write(s.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only when it is awake already
	}
}
