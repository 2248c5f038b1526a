package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"jindan/capture"
)

const (
	// Segments are a 64th of the ring, so that dropping the oldest drops little; within these sizes in bytes.
	segmentShare = 64
	minSegment   = 64 << 10
	maxSegment   = 1 << 20
	// ringData is how much of a packet's payload is kept unless told otherwise: the response size that EDNS made usual
	// (RFC 6891 §6.2.5), as capture/decode keeps of reassembled datagrams.
	ringData = 4096
)

// RingOptions bound a Ring.
type RingOptions struct {
	Keep     time.Duration // of event time; 0: as long as MaxBytes allows
	MaxBytes int           // of memory, at least two segments of 64 KiB; a Dump under way may hold as much again
	MaxData  int           // bytes of DNS and ICMP data kept of a packet; 0: 4096
}

// RingStats says what a Ring holds and has lost.
type RingStats struct {
	Held    uint64 // observations
	Bytes   int    // of memory
	Dropped uint64 // observations younger than Keep that made room for newer ones
	Refused uint64 // observations that do not fit the ring, or cannot be encoded
	CutData uint64 // packets of which MaxData bytes were kept and there were more
}

// Ring is a flight recorder: it keeps the latest observations in memory, without pointers, and writes them out as a recording on
// demand. It may be used by several goroutines.
type Ring struct {
	o    RingOptions
	size int // of a segment

	mu       sync.Mutex
	segments []*segment // the oldest first; the last one is being filled
	spare    []byte     // of the segment dropped last, if nobody reads it
	bytes    int        // capacity of all segments
	began    bool
	high     capture.Instant
	enc      *json.Encoder
	json     bytes.Buffer // a sample, encoded
	packer   []byte       // of socket tables
	stats    RingStats
}

// segment is a run of entries. What is before len(buf) never changes, so a dump reads it while more is appended.
type segment struct {
	buf  []byte
	last capture.Instant // latest time in it
	n    uint64          // observations
	pins int             // dumps that read it
}

// NewRing returns an empty Ring. Memory is taken as it is needed.
func NewRing(o RingOptions) *Ring {
	o.MaxBytes = max(o.MaxBytes, 2*minSegment)
	if o.MaxData <= 0 {
		o.MaxData = ringData
	}
	r := &Ring{o: o, size: min(max(o.MaxBytes/segmentShare, minSegment), maxSegment)}
	r.enc = json.NewEncoder(&r.json)
	r.enc.SetEscapeHTML(false)
	return r
}

// Stats returns the counters.
func (r *Ring) Stats() RingStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Bytes = r.bytes + cap(r.spare)
	return s
}

// Add keeps a batch of the merged stream. It allocates for samples only, once the ring is full.
func (r *Ring) Add(b *capture.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b.Obs {
		o := &b.Obs[i]
		if !r.began || o.At > r.high {
			r.began, r.high = true, o.At
		}
		if r.add(o) {
			r.stats.Held++
		} else {
			r.stats.Refused++
		}
	}
	if r.began && b.Until > r.high {
		r.high = b.Until
		if s := r.room(entryHeader); s != nil {
			s.buf = appendEntry(s.buf, entryUntil, &capture.Observation{At: b.Until}, 0)
			s.last = max(s.last, b.Until)
		}
	}
}

func (r *Ring) add(o *capture.Observation) bool {
	var s *segment
	switch o.Kind {
	case capture.KindPacket:
		data := o.Packet.Data
		if len(data) > r.o.MaxData {
			data = data[:r.o.MaxData]
			r.stats.CutData++
		}
		n := packetSize(&o.Packet) + len(data)
		if s = r.room(entryHeader + n); s == nil {
			return false
		}
		s.buf = append(appendFields(appendEntry(s.buf, entryPacket, o, n), &o.Packet), data...)
	case capture.KindLoss:
		if s = r.room(entryHeader + 8); s == nil {
			return false
		}
		s.buf = le.AppendUint64(appendEntry(s.buf, entryLoss, o, 8), o.Lost)
	case capture.KindSample:
		r.json.Reset()
		kind := entrySample
		if o.Sample != nil && o.Sample.Sockets != nil {
			kind = entrySockets
			r.packer = packTable(&r.json, o.Sample.Sockets, r.packer)
		} else if o.Sample == nil || r.enc.Encode(o.Sample) != nil {
			return false
		} else {
			r.json.Truncate(r.json.Len() - 1) // without the line's end
		}
		n := r.json.Len()
		if s = r.room(entryHeader + n); s == nil {
			return false
		}
		s.buf = append(appendEntry(s.buf, kind, o, n), r.json.Bytes()...)
	default:
		return false
	}
	s.n++
	s.last = max(s.last, o.At)
	return true
}

// room returns a segment with n bytes left, for which it drops the oldest if need be; nil if the ring is too small.
func (r *Ring) room(n int) *segment {
	if k := len(r.segments); k > 0 {
		if s := r.segments[k-1]; cap(s.buf)-len(s.buf) >= n {
			return s
		}
	}
	size := max(r.size, n)
	if size > r.o.MaxBytes/2 || n > math.MaxInt32 {
		return nil
	}
	drop := 0
	for ; drop < len(r.segments); drop++ {
		s := r.segments[drop]
		old := r.o.Keep > 0 && r.high.Sub(s.last) > r.o.Keep
		if !old && r.bytes+size <= r.o.MaxBytes {
			break
		}
		r.bytes -= cap(s.buf)
		r.stats.Held -= s.n
		if !old {
			r.stats.Dropped += s.n
		}
		if s.pins == 0 && cap(s.buf) == r.size {
			r.spare = s.buf[:0]
		}
	}
	k := copy(r.segments, r.segments[drop:])
	clear(r.segments[k:])
	s := &segment{last: math.MinInt64}
	if size == r.size && r.spare != nil {
		s.buf, r.spare = r.spare, nil
	} else {
		s.buf = make([]byte, 0, size)
	}
	r.bytes += cap(s.buf)
	r.segments = append(r.segments[:k], s)
	return s
}

// Dump writes what the ring holds as a new recording in dir. See Save.
func (r *Ring) Dump(dir string, o Options) error {
	w, err := Create(dir, o)
	if err != nil {
		return err
	}
	return errors.Join(r.Save(w), w.Close())
}

// Save writes what the ring holds at this moment to w, from the first observation on that is no older than Keep. Add goes on
// meanwhile: it waits only while the list of segments is copied, not for the disk.
func (r *Ring) Save(w *Writer) error {
	r.mu.Lock()
	from := capture.Instant(math.MinInt64)
	if r.o.Keep > 0 {
		from = r.high.Add(-r.o.Keep)
	}
	pinned := append([]*segment(nil), r.segments...)
	parts := make([][]byte, len(pinned))
	for i, s := range pinned {
		s.pins++
		parts[i] = s.buf
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		for _, s := range pinned {
			s.pins--
		}
		r.mu.Unlock()
	}()

	begun := false
	for _, part := range parts {
		for len(part) > 0 {
			e := readEntry(part)
			part = part[entryHeader+len(e.body):]
			if begun = begun || e.o.At >= from && e.kind != entryUntil; !begun {
				continue
			}
			if err := w.entry(&e); err != nil {
				return fmt.Errorf("save the flight recorder: %w", err)
			}
		}
	}
	return nil
}

// entry writes an entry of a Ring.
func (w *Writer) entry(e *entry) error {
	b := capture.Batch{Until: math.MinInt64}
	switch e.kind {
	case entryUntil:
		b.Until = e.o.At
	case entrySample:
		if !w.open(e.o.At) || !w.value(e.o.At, e.o.Source, `,"sample":`, e.body) {
			w.stats.LeftOut++
		}
		return w.err
	case entrySockets:
		t, err := unpackTable(e.body)
		if err != nil {
			return err
		}
		b.Obs = w.one[:]
		b.Obs[0] = e.o
		b.Obs[0].Kind, b.Obs[0].Sample = capture.KindSample, &capture.Sample{Sockets: t}
	default:
		b.Obs = w.one[:]
		b.Obs[0] = e.o
	}
	return w.Write(&b)
}
