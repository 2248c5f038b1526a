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
	// copyHorizon: the IP-ID counter of a busy sender comes round after 65,536 packets (RFC 6864 §4);
	// later than this an equal ID is no evidence.
	copyHorizon = 30 * time.Second
)

func copySlot(h uint64) uint64 { return h >> 3 & (copySlots - 1) }

func (t *copyTable) init() { t.entries = make([]copyEntry, copySlots) }

// seen reports whether p is a copy of a packet that was seen before, and remembers p.
//
// Equal in every header field that a sender changes between transmissions, with an IP-ID
// that is not 0, is a copy (Linux numbers each transmission of a socket; a stack that
// re-uses the ID cannot be told from a copy, so its repeats prove no loss either).
// IP-ID 0 and IPv6 prove nothing: there another TTL or link-layer address does, or a gap far
// below the round trip.
func (t *copyTable) seen(c *Conn, p *capture.Packet, at capture.Instant) bool {
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
	if gap >= copyHorizon {
		return false
	}
	if gap < 0 {
		return true // the capture went back in time over the same packet
	}
	if p.IPID != 0 {
		return true
	}
	if old.hop != hop {
		return gap < minRTO // another TTL or link-layer address: seen at another place
	}
	if p.Len == 0 && p.Flags&(capture.SYN|capture.FIN|capture.RST) == 0 {
		return false // duplicate ACKs look alike
	}
	blind := copyBlind
	switch {
	case p.Flags&capture.SYN != 0:
		if p.Flags&capture.ACK != 0 && at.Sub(c.synAgain) < gap {
			return false // a repeated SYN in between was answered, too
		}
		blind = minRTO // otherwise only a time-out repeats it
	case c.HandshakeRTT > 0:
		blind = c.HandshakeRTT / 2
	}
	if gap < blind {
		return true
	}
	t.doubtful = p.Opts&capture.OptTimestamps != 0 && gap > 2*time.Millisecond
	return false
}
