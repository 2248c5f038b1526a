package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"jindan/capture"
)

func now() capture.Instant { return capture.Instant(time.Now().UnixNano()) }

// Read waits for packets and decodes those that are there, up to the capacity of b. Without any it returns an empty batch, with
// Until advanced, after 200 ms. Packets of several rings come in the order of their times; one ring's are held back until
// the others are known to have none before (two block time-outs and 100 ms). Packets that the decoder refuses become KindLoss
// observations with Lost 1, but for LossNotIP and LossReassembling; packets that the kernel dropped come as one
// KindLoss (LossKernelDrop) before the first packet behind them. Data is valid until b, this very Batch, is read again.
//
// The error is that of ctx, or os.ErrClosed after Close. An interface that disappears is no error: see Stats.
func (s *Source) Read(ctx context.Context, b *capture.Batch) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if cap(b.Obs) == 0 {
		b.Obs = make([]capture.Observation, 0, capture.DefaultBatch)
	}
	b.Obs, b.Until = b.Obs[:0], s.until
	if s.closed.Load() {
		return fmt.Errorf("capture on %s: %w", s.name, os.ErrClosed)
	}
	s.watch(ctx)
	a := s.arenas.For(b)
	if s.recycle != nil {
		s.recycle() // all Data handed out by the decoder has been copied
	}
	for deadline := time.Now().Add(heartbeat); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.closed.Load() {
			return fmt.Errorf("capture on %s: %w", s.name, os.ErrClosed)
		}
		at := now()
		s.visit(at)
		s.fill(at, b, a)
		left := time.Until(deadline)
		if len(b.Obs) > 0 || left <= 0 {
			if len(b.Obs) == 0 {
				for _, r := range s.rings {
					s.abandon(r)
				}
				s.fill(at, b, a)
			}
			s.advance(at)
			b.Until = s.until
			s.publish()
			return nil
		}
		if err := s.wait(at, left); err != nil {
			return err
		}
	}
}

// watch lets the end of ctx end a poll.
func (s *Source) watch(ctx context.Context) {
	if ctx == s.ctx {
		return
	}
	if s.unwatch != nil {
		s.unwatch()
	}
	s.ctx, s.unwatch = ctx, context.AfterFunc(ctx, s.wake)
}

// fill takes what can be delivered at time at.
func (s *Source) fill(at capture.Instant, b *capture.Batch, a *capture.Arena) {
	obs, n := b.Obs[:cap(b.Obs)], len(b.Obs)
	for n < len(obs) {
		r := s.first(at)
		if s.swaps.Load() != s.seen {
			s.takeMarks()
			continue
		}
		if len(s.due) > 0 && (r == nil && s.due[0].at <= at-s.margin || r != nil && s.due[0].at <= r.at()) {
			s.marked(&obs[n])
			n++
			continue
		}
		if s.lost > 0 {
			lose(&obs[n], at-s.margin, capture.LossKernelDrop, s.lost)
			s.lost = 0
			n++
			continue
		}
		if r == nil {
			break
		}
		if r.lost > 0 {
			lose(&obs[n], r.at(), capture.LossKernelDrop, r.lost)
			r.lost = 0
			n++
			continue
		}
		if s.take(r, &obs[n], a) {
			n++
		}
	}
	b.Obs = obs[:n]
}

// first is the ring with the earliest packet; nil if there is none yet, or another ring may still get an earlier one.
func (s *Source) first(at capture.Instant) *ring {
	var first *ring
	var earliest capture.Instant
	quiet := false
	for _, r := range s.rings {
		ok, losing := r.ready()
		if losing {
			s.dropped(r)
		}
		if !ok {
			quiet = true
			continue
		}
		if len(s.rings) == 1 {
			return r
		}
		if t := r.at(); first == nil || t < earliest {
			first, earliest = r, t
		}
	}
	if quiet && first != nil && earliest > at-s.margin {
		return nil
	}
	return first
}

// take decodes the next packet of r, and says whether *o is an observation.
func (s *Source) take(r *ring, o *capture.Observation, a *capture.Arena) bool {
	head := r.head()
	if head == nil {
		s.count.Unread[capture.LossMalformed]++
		r.next()
		return false
	}
	at, dir, link := r.at(), direction(head), linkType(head)
	data, wire := frame(head)
	s.count.Packets++
	s.count.Bytes += uint64(len(data))
	reason := s.decoder.Decode(at, link, data, max(wire, len(data)), &o.Packet)
	if reason != capture.LossNone {
		r.next()
		s.count.Unread[reason]++
		if reason == capture.LossNotIP || reason == capture.LossReassembling {
			return false
		}
		lose(o, at, reason, 1)
		return true
	}
	o.At, o.Kind, o.Reason, o.Source, o.Lost, o.Sample = at, capture.KindPacket, capture.LossNone, 0, 0, nil
	o.Packet.Dir = dir
	o.Packet.SrcMAC, o.Packet.DstMAC = 0, 0 // the host knows its addresses; recordings do not keep these
	o.Packet.Frame = 0
	if len(o.Packet.Data) > 0 {
		o.Packet.Data = a.Keep(o.Packet.Data)
	}
	r.next()
	return true
}

// dropped asks the kernel what r has lost, to be reported before its next packet.
func (s *Source) dropped(r *ring) {
	drops, freezes := r.drops()
	r.lost += uint64(drops)
	s.count.Dropped += uint64(drops)
	s.count.Unread[capture.LossKernelDrop] += uint64(drops)
	s.count.Freezes += uint64(freezes)
}

// abandon reports what r has lost where no packet follows that it could be reported before.
func (s *Source) abandon(r *ring) {
	s.dropped(r)
	s.lost += r.lost
	r.lost = 0
}

func lose(o *capture.Observation, at capture.Instant, reason capture.LossReason, n uint64) {
	*o = capture.Observation{At: at, Kind: capture.KindLoss, Reason: reason, Lost: n}
}

// takeMarks takes over the times of new filters.
func (s *Source) takeMarks() {
	s.control.Lock()
	defer s.control.Unlock()
	s.seen = s.swaps.Load()
	s.due = append(s.due, s.marks...)
	s.marks = s.marks[:0]
}

// marked says that the packets that follow were accepted by another filter.
func (s *Source) marked(o *capture.Observation) {
	m := s.due[0]
	s.due = append(s.due[:0], s.due[1:]...)
	*o = capture.Observation{At: m.at, Kind: capture.KindSample, Sample: &capture.Sample{Change: &capture.Change{
		Kind: capture.ChangeFilter, What: m.what}}}
}

// advance raises the time before which nothing will follow.
func (s *Source) advance(at capture.Instant) {
	bound := at
	for _, r := range s.rings {
		if r.inUse {
			bound = min(bound, r.at())
		}
	}
	s.until = max(s.until, bound-s.margin)
}

func (s *Source) publish() {
	s.control.Lock()
	defer s.control.Unlock()
	s.stats = s.count
}

// wait sleeps until an empty ring has packets, a packet held back can go, the Source is woken, or left has passed.
func (s *Source) wait(at capture.Instant, left time.Duration) error {
	s.polled = append(s.polled[:0], unix.PollFd{Fd: int32(s.wakeFD), Events: unix.POLLIN})
	for _, r := range s.rings {
		if r.inUse {
			left = min(left, time.Duration(r.at()+s.margin-at))
			continue
		}
		s.polled = append(s.polled, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
	}
	// Rounded up, for poll counts in milliseconds.
	_, err := unix.Poll(s.polled, int(max(0, left)/time.Millisecond)+1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("capture on %s: wait for packets: %w", s.name, err)
	}
	if s.polled[0].Revents != 0 {
		var counter [8]byte
		_, _ = unix.Read(s.wakeFD, counter[:]) // resets it
	}
	for _, p := range s.polled[1:] {
		if p.Revents&unix.POLLERR != 0 { // the interface went down (ENETDOWN); asking clears it
			_, _ = unix.GetsockoptInt(int(p.Fd), unix.SOL_SOCKET, unix.SO_ERROR)
		}
	}
	return nil
}

// visit looks every second for interfaces that disappeared, or came back. An interface that is merely down keeps its rings.
func (s *Source) visit(at capture.Instant) {
	if time.Since(s.visited) < revisit {
		return
	}
	s.visited = time.Now()
	s.control.Lock()
	defer s.control.Unlock()
	s.count.Missing = s.count.Missing[:0:0]
	s.count.LastError = nil
	for _, l := range s.links {
		if l.name == Any {
			continue
		}
		index, err := interfaceIndex(s.lookFD, l.name)
		if len(l.rings) > 0 {
			if err == nil && index == l.rings[0].ifindex {
				continue
			}
			s.leave(l, at)
		}
		if len(l.rings) == 0 && err == nil {
			if err = inNetns(s.options.Netns, func() error { return s.openLink(l) }); err == nil {
				s.count.Reopened++
				continue
			}
		}
		s.count.Missing = append(s.count.Missing, l.name)
		if err != nil {
			s.count.LastError = fmt.Errorf("capture on %s: %w", l.name, hint(err))
		}
	}
}

// leave closes the rings of an interface that is gone, once what they hold has been delivered.
func (s *Source) leave(l *link, at capture.Instant) {
	for _, r := range l.rings {
		if r.leaving == 0 {
			r.leaving = at
		}
		ok, losing := r.ready()
		if losing {
			s.dropped(r)
		}
		if ok || at-r.leaving < s.margin {
			return
		}
	}
	s.count.Gone++
	l.rings = nil
	kept := s.rings[:0]
	for _, r := range s.rings {
		if r.leaving == 0 || r.name != l.name {
			kept = append(kept, r)
			continue
		}
		s.abandon(r)
		r.close()
	}
	clear(s.rings[len(kept):])
	s.rings = kept
}
