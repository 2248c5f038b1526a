package flow

import (
	"time"

	"jindan/capture"
)

// copyTable remembers the newest TCP packets, to recognise those that were captured
// twice: at two ports of a mirror, before and after a router or bridge, or in a file that was
// written twice. It is direct-mapped and of fixed size; what it has forgotten it
// cannot recognise.
type copyTable struct {
	entries []copyEntry
	// doubtful is set by seen when the packet had an equal twin that is no proven copy: then a
	// retransmission of it is not proven either.
	doubtful bool
}

// copyEntry is small, so that the table stays in the second-level cache.
type copyEntry struct {
	at  uint32 // microseconds, modulo 2^32: 71 minutes
	sum uint32 // of the packet's identity; with hop 0 is empty
	hop uint32 // of TTL and link-layer addresses
}

const (
	copySlots = 1 << 14
	// A stack that retransmits waits at least for a round trip. An equal packet within half of that, or
	// within copyBlind when the round trip is unknown, was not sent again.
	copyBlind = 300 * time.Microsecond
	// soonestTimer: nobody sends data again of its own accord sooner: two ticks of 1 ms, the least that Linux gives a tail loss
	// probe (TCP_TIMEOUT_MIN, include/net/tcp.h). At the end that completes a handshake its round trip measures next to nothing.
	soonestTimer = 2 * time.Millisecond
	// copyHorizon: the IP-ID counter of a busy sender comes round after 65,536 packets (RFC 6864 §4);
	// later than this an equal ID is no evidence.
	copyHorizon = 30 * time.Second
	// slowestClock: a time stamp ticks at least once a second (RFC 7323 §5.4), so that of a segment that was sent
	// again later has changed.
	slowestClock = 1100 * time.Millisecond
	// disorder is how far packets of a capture may be out of order without it having gone back in time: several queues, or
	// interfaces, are emptied one after the other.
	disorder = time.Second
)

func copySlot(h uint64) uint64 { return h >> 3 & (copySlots - 1) }

func (t *copyTable) init() { t.entries = make([]copyEntry, copySlots) }

// seen reports whether p is a copy of a packet that was seen before, and remembers p.
//
// To be equal in every header field that a sender changes between transmissions is not enough: many repeat a
// segment with the same IP-ID (Cisco, lwIP), or have none (0, and IPv6). It takes a reason: another TTL or link-layer address,
// a time before the other's, a time stamp that has stood still too long, or a time sooner than anything is sent again.
func (t *copyTable) seen(c *Conn, s Side, p *capture.Packet, at capture.Instant) bool {
	t.doubtful = false
	h := p.Ident
	if h == 0 {
		h = p.Identity()
	}
	hop := p.MACs ^ uint32(p.TTL)*0x9e3779b9
	sum := uint32(h>>32) | 1
	e := &t.entries[copySlot(h)]
	old := *e
	now := uint32(uint64(at) / 1000)
	*e = copyEntry{now, sum, hop}
	if old.sum != sum {
		return false
	}
	gap := time.Duration(int32(now-old.at)) * time.Microsecond
	// As duplicate ACKs are, and the resets that answer several segments in a row (RFC 9293 §3.10.7.1).
	alike := p.IPID == 0 && p.Len == 0 && p.Flags&(capture.SYN|capture.FIN) == 0
	switch {
	case gap >= copyHorizon:
		return false
	case gap < 0:
		return !alike || gap <= -disorder // the capture went back in time over the same packet
	case old.hop != hop:
		return p.IPID != 0 || gap < minRTO // seen at another place
	case alike:
		return false
	case p.Opts&capture.OptTimestamps != 0 && gap >= slowestClock:
		return true
	}
	if gap < t.soonest(c, s, p, at, gap) {
		return true
	}
	t.doubtful = p.Opts&capture.OptTimestamps != 0 && gap > 2*time.Millisecond
	return false
}

// soonest is the time before which p, equal to a packet gap before, was not sent again.
func (t *copyTable) soonest(c *Conn, s Side, p *capture.Packet, at capture.Instant, gap time.Duration) time.Duration {
	r := &c.side[s.Other()]
	switch {
	case p.Flags&capture.SYN != 0:
		if p.Flags&capture.ACK != 0 && at.Sub(c.synAgain) < gap {
			return 0 // a repeated SYN in between was answered, too
		}
		return minRTO // otherwise only a time-out repeats it
	case p.IPID != 0 && p.Len > 0 && r.dup >= 2 && r.acked == p.Seq && c.HandshakeRTT > 0:
		return c.HandshakeRTT // the receiver has asked for it
	case p.IPID != 0:
		return minRTO
	case p.Len > 0 && r.dup < 2 && r.flags&sackSeen == 0:
		return soonestTimer // the receiver has not asked for it
	case c.HandshakeRTT > 0:
		return c.HandshakeRTT / 2
	}
	return copyBlind
}
