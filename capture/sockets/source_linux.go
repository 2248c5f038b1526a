package sockets

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"jindan/capture"
)

// GateStates are the states in which trouble shows first, and of which a healthy host has few:
// sockets that the application does not close, listeners with their queues, connections that come
// about neither here nor there.
var GateStates = capture.CloseWait.Mask() | capture.Listen.Mask() |
	capture.SynRecv.Mask() | capture.NewSynRecv.Mask() | capture.SynSent.Mask()

// Defaults of Options.
const (
	defaultEvery     = time.Second
	defaultFullEvery = 15 * time.Second
)

// maxGate is how many sockets a batch may keep memory for when it holds no full dump: 1.5 MB.
const maxGate = 4096

// Options of a Source; the zero value samples the caller's own namespace.
type Options struct {
	Netns     string                 // the namespace's name in samples; "": the caller's own
	Path      string                 // of the namespace, see Open; "": the caller's own
	Every     time.Duration          // from dump to dump; 0: 1 s
	FullEvery time.Duration          // from full dump to full dump; 0: 15 s
	Max       int                    // sockets in a sample; 0: MaxSockets
	Clock     func() capture.Instant // nil: the system's wall clock
}

// Source samples the TCP sockets of a namespace: at every tick those in GateStates, without
// tcp_info, and at times all of them with it. It is a capture.Source.
type Source struct {
	options  Options
	dumper   *Dumper
	ticker   *time.Ticker // from the first Read on
	lastFull time.Time    // monotonic: not moved by steps of the wall clock
	want     atomic.Bool
	most     int // sockets in the last full dump
	gated    int // in the last other one

	mu        sync.Mutex // guards what follows
	failures  uint64
	last      error
	overCap   uint64
	malformed uint64
}

// NewSource opens the namespace of o.
func NewSource(o Options) (*Source, error) {
	if o.Every <= 0 {
		o.Every = defaultEvery
	}
	if o.FullEvery <= 0 {
		o.FullEvery = defaultFullEvery
	}
	if o.Clock == nil {
		o.Clock = func() capture.Instant { return capture.Instant(time.Now().UnixNano()) }
	}
	d, err := Open(o.Path)
	if err != nil {
		return nil, err
	}
	if o.Max > 0 {
		d.max = min(o.Max, MaxSockets)
	}
	return &Source{options: o, dumper: d}, nil
}

// Name is "sockets", with the name of a namespace that is not the caller's own.
func (s *Source) Name() string {
	if s.options.Netns == "" {
		return "sockets"
	}
	return "sockets " + s.options.Netns
}

// Want asks for a full dump at the next tick. It does not wait and may be called at any time.
func (s *Source) Want() { s.want.Store(true) }

// Read waits for the next tick, the first time not at all, and dumps. A sample's time is that of the
// dump's end: nothing in it happened later. A dump that fails does not end the source: the batch is
// empty then, and Failures tells. The only error is that of ctx.
//
// The sample belongs to b and is overwritten when b is read again, not before: Merge holds several
// batches of a source.
func (s *Source) Read(ctx context.Context, b *capture.Batch) error {
	b.Obs = b.Obs[:0]
	now, err := s.tick(ctx)
	if err != nil {
		return err
	}
	if cap(b.Obs) == 0 {
		b.Obs = make([]capture.Observation, 0, 1)
	}
	first := &b.Obs[:1][0]
	sample := first.Sample
	if sample == nil || sample.Sockets == nil {
		sample = &capture.Sample{Sockets: new(capture.SocketTable)}
	}
	*first = capture.Observation{Kind: capture.KindSample, Sample: sample}
	err = s.dump(sample.Sockets, now)
	first.At = s.options.Clock()
	b.Until = first.At
	if err == nil {
		b.Obs = b.Obs[:1]
	}
	return nil
}

// tick waits for the time of the next dump.
func (s *Source) tick(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if s.ticker == nil {
		s.ticker = time.NewTicker(s.options.Every)
		return time.Now(), nil
	}
	select {
	case now := <-s.ticker.C:
		return now, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// dump fills t and keeps the account. A full dump that fails is due again at the next tick.
func (s *Source) dump(t *capture.SocketTable, now time.Time) error {
	// Half a tick of tolerance: ticks come late, each by a little.
	due := s.lastFull.IsZero() || now.Sub(s.lastFull) >= s.options.FullEvery-s.options.Every/2
	wanted := s.want.Swap(false)
	states, full := GateStates, due || wanted
	if full {
		states = capture.AllStates
	}
	t.Netns = s.options.Netns
	// Merge holds two batches: only one of them is to hold memory for all sockets, and none of it by doubling.
	switch {
	case full && cap(t.Sockets) < s.most:
		t.Sockets = make([]capture.Socket, 0, min(s.most+s.most/8, s.dumper.max))
	case !full && cap(t.Sockets) > maxGate && s.gated < maxGate/2:
		t.Sockets = nil
	}
	err := s.dumper.Dump(t, states, full)
	switch {
	case err == nil && full:
		s.lastFull, s.most = now, len(t.Sockets)
	case err == nil:
		s.gated = len(t.Sockets)
	case wanted:
		s.want.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failures, s.last = s.failures+1, err
	}
	s.overCap, s.malformed = s.dumper.Lost()
	return err
}

// Failures tells how many dumps failed and why the last of them did; nil: none has. It may be called
// at any time.
func (s *Source) Failures() (n uint64, last error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures, s.last
}

// Lost is Dumper.Lost. It may be called at any time.
func (s *Source) Lost() (overCap, malformed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overCap, s.malformed
}

// Close ends the sampling. It must not be called during Read.
func (s *Source) Close() error {
	if s.ticker != nil {
		s.ticker.Stop()
	}
	return s.dumper.Close()
}
