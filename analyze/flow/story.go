package flow

import (
	"time"

	"jindan/capture"
)

// ChapterKind is what a Chapter of a connection's story is about.
type ChapterKind uint8

// The kinds. "Side" is Chapter.Side.
const (
	// Opening: Side sent a SYN, and after N repetitions it was answered by a SYN-ACK. Unopened: it never was.
	Opening ChapterKind = iota
	Unopened
	// RefusedOpening: the SYN was answered by a RST. Challenged: by the acknowledgement of something older (RFC 5961 §4), N times.
	RefusedOpening
	Challenged
	// StoodStill: data of Side was outstanding, and nothing of it was acknowledged. N repetitions of at most Len bytes; Heard packets
	// came from the other side meanwhile.
	StoodStill
	// WindowShut: Side had no room, and said so; N probes by the other side.
	WindowShut
	// Waited: everything was acknowledged, and Side took so long until it answered. Silence: nobody said anything but N keep-alives.
	Waited
	Silence
	// Finned: Side closed; N repetitions of its FIN. Rejected: Side sent a RST.
	Finned
	Rejected
	// AfterRST: packets after a RST of Side: N more RSTs, Heard others.
	AfterRST
)

// Chapter is something that happened to a connection, from when to when.
type Chapter struct {
	Kind     ChapterKind
	Side     Side
	Open     bool // it still was so when the capture, or the connection, ended
	From, To capture.Instant
	Frames   [2]uint64 // the first and the last packet of it
	N        uint32
	Heard    uint32
	Len      uint32 // StoodStill: largest payload that was repeated
	Passed   uint32 // StoodStill: largest payload of a segment of Side known to have been acknowledged
	TTL      uint8  // Rejected: of the RST
	UsualTTL uint8  // and of the same side's other packets
}

// Length is how long the chapter lasted.
func (c *Chapter) Length() time.Duration { return c.To.Sub(c.From) }

const (
	// maxChapters bounds a story. Its first and its newest chapters are kept.
	maxChapters = 32
	// worthTelling is the shortest standstill, wait, or closed window that becomes a chapter: several time-outs.
	worthTelling = time.Second
)

// Story is what happened to one connection, packet by packet: the account for people who ask about just this one.
type Story struct {
	Chapters []Chapter
	Skipped  uint32 // chapters that found no room
	side     [2]teller
	last     capture.Instant
	lastData capture.Instant
	asker    Side // who sent the last data
	asked    bool // asker is valid
	rstSide  Side
	reset    int // index of the RST's chapter, plus one
	keeps    uint32
	opening  int // index of the opening's chapter, plus one
}

// teller is what the story knows of one sender.
type teller struct {
	next, una  uint32
	known      bool
	acked      bool            // una is valid
	since      capture.Instant // data outstanding, or its last progress; 0: none
	frames     [2]uint64
	repeats    uint32
	repeated   uint32 // largest payload that was repeated
	heard      uint32 // packets of the other side since
	out        uint32 // largest payload outstanding
	passed     uint32 // largest payload acknowledged
	shutAt     capture.Instant
	shutFrames [2]uint64
	probes     uint32
	fin        int // index of the FIN's chapter, plus one
	ttl        uint8
}

// observe takes the packet p of side s.
func (st *Story) observe(c *Conn, s Side, p *capture.Packet, at capture.Instant) {
	d, o := &st.side[s], &st.side[s.Other()]
	if st.reset > 0 {
		st.after(p, at)
		return
	}
	if p.Flags&capture.RST != 0 {
		st.rst(s, p, at)
		return
	}
	end := p.Seq + seqLen(p)
	quiet := at.Sub(st.last)
	keep := p.Len <= 1 && p.Flags&(capture.SYN|capture.FIN) == 0 && d.known && p.Seq == d.next-1
	switch {
	case st.last == 0 || quiet < worthTelling:
	case keep:
	case s == Server && st.asked && st.asker == Client && p.Len > 0 && (!d.known || before(d.next, end)) && o.since == 0 && at.Sub(st.lastData) >= worthTelling:
		st.add(Chapter{Kind: Waited, Side: s, From: st.lastData, To: at, Frames: [2]uint64{0, p.Frame}})
	case quiet >= idleGap && d.since == 0 && o.since == 0 && o.shutAt == 0 && d.shutAt == 0 && st.opening == 0:
		st.add(Chapter{Kind: Silence, Side: s, From: st.last, To: at, Frames: [2]uint64{0, p.Frame}, N: st.keeps})
	}
	if d.ttl == 0 {
		d.ttl = p.TTL
	}
	if p.Flags&capture.SYN != 0 {
		st.syn(s, p, at)
	} else if st.opening > 0 && p.Flags&capture.ACK != 0 && c.isChallenge(s, p) {
		if n := len(st.Chapters); st.Chapters[n-1].Kind == Challenged {
			x := &st.Chapters[n-1]
			x.N++
			x.To, x.Frames[1] = at, p.Frame
		} else {
			st.add(Chapter{Kind: Challenged, Side: s, From: at, To: at, Frames: [2]uint64{p.Frame, p.Frame}, N: 1})
		}
		return
	}
	moved := p.Flags&capture.ACK != 0 && st.ack(s, p, at)
	st.window(s, p, at)
	switch {
	case keep && o.shutAt != 0:
		o.probes++
		o.shutFrames[1] = p.Frame
		return
	case keep:
		st.keeps++
		return
	case p.Len == 0 && p.Flags&(capture.SYN|capture.FIN) == 0 && !moved && st.last != 0:
		return // says nothing new
	case p.Len == 1 && o.shutAt != 0 && p.Seq == d.next:
		o.probes++
		o.shutFrames[1] = p.Frame
	case p.Len > 0:
		st.data(s, p, at, end)
	}
	if p.Flags&capture.FIN != 0 {
		if d.fin > 0 {
			f := &st.Chapters[d.fin-1]
			f.N++
			f.To, f.Frames[1] = at, p.Frame
		} else {
			d.fin = st.add(Chapter{Kind: Finned, Side: s, From: at, To: at, Frames: [2]uint64{p.Frame, p.Frame}})
		}
	}
	st.last, st.keeps = at, 0
}

// add tells a chapter and returns its index plus one; 0: there is no room.
func (st *Story) add(c Chapter) int {
	if len(st.Chapters) >= maxChapters {
		st.Skipped++
		return 0
	}
	st.Chapters = append(st.Chapters, c)
	return len(st.Chapters)
}

func (st *Story) syn(s Side, p *capture.Packet, at capture.Instant) {
	d := &st.side[s]
	if !d.known {
		d.next, d.known, d.una, d.acked = p.Seq+1, true, p.Seq+1, true
	}
	if p.Flags&capture.ACK != 0 {
		if st.opening > 0 {
			o := &st.Chapters[st.opening-1]
			o.Kind, o.To, o.Frames[1], o.Open = Opening, at, p.Frame, false
			st.opening = 0
		}
		return
	}
	if st.opening == 0 {
		st.opening = st.add(Chapter{Kind: Unopened, Side: s, From: at, To: at, Frames: [2]uint64{p.Frame, p.Frame}, Open: true})
		return
	}
	o := &st.Chapters[st.opening-1]
	o.N++
	o.To, o.Frames[1] = at, p.Frame
}

// ack takes what s acknowledges of the other side's data, and reports whether that is more than before.
func (st *Story) ack(s Side, p *capture.Packet, at capture.Instant) bool {
	o := &st.side[s.Other()]
	if !o.known {
		return false
	}
	if !o.acked {
		o.una, o.acked = p.Ack, true
	}
	if before(o.next, p.Ack) && before(o.una, p.Ack) {
		o.next = p.Ack // the capture lacks what is acknowledged here
	}
	if !before(o.una, p.Ack) {
		if o.since != 0 {
			o.heard++
		}
		return false
	}
	st.still(s.Other(), at, p.Frame, false)
	o.una = p.Ack
	o.since, o.repeats, o.repeated, o.heard = 0, 0, 0, 0
	if before(o.una, o.next) {
		o.since, o.frames = at, [2]uint64{p.Frame, p.Frame}
		return true
	}
	o.passed, o.out = max(o.passed, o.out), 0
	return true
}

// still tells that data of s stood still, if it did for long enough.
func (st *Story) still(s Side, at capture.Instant, frame uint64, open bool) {
	d := &st.side[s]
	o := &st.side[s.Other()]
	if d.since == 0 || at.Sub(d.since) < worthTelling || o.shutAt != 0 || o.ttl == 0 {
		return // or one direction only is in the capture
	}
	f := d.frames
	if frame != 0 {
		f[1] = frame
	}
	st.add(Chapter{Kind: StoodStill, Side: s, From: d.since, To: at, Frames: f, N: d.repeats, Heard: d.heard, Len: d.repeated, Passed: d.passed, Open: open})
}

func (st *Story) data(s Side, p *capture.Packet, at capture.Instant, end uint32) {
	d := &st.side[s]
	if !d.known {
		d.next, d.known = p.Seq, true
	}
	if !d.acked {
		d.una, d.acked = p.Seq, true
	}
	if before(d.next, end) {
		if d.since == 0 {
			d.since, d.frames = at, [2]uint64{p.Frame, p.Frame}
			d.repeats, d.repeated, d.heard = 0, 0, 0
		}
		d.next = end
		d.out = max(d.out, p.Len)
		st.asker, st.asked, st.lastData = s, true, at
		return
	}
	if before(d.una, end) {
		d.repeats++
		d.repeated = max(d.repeated, p.Len)
		d.frames[1] = p.Frame
	}
}

func (st *Story) window(s Side, p *capture.Packet, at capture.Instant) {
	d := &st.side[s]
	switch {
	case p.Flags&capture.ACK == 0 || p.Flags&capture.SYN != 0:
	case p.Window == 0 && d.shutAt == 0 && p.Flags&capture.FIN == 0:
		d.shutAt, d.shutFrames, d.probes = at, [2]uint64{p.Frame, p.Frame}, 0
	case p.Window != 0 && d.shutAt != 0:
		st.shut(s, at, p.Frame, false)
		d.shutAt = 0
		st.last = at
		if o := &st.side[s.Other()]; o.since != 0 {
			o.since = at // the clock of a standstill begins when there is room
		}
	}
}

// shut tells that the window of s was closed, if it was for long enough.
func (st *Story) shut(s Side, at capture.Instant, frame uint64, open bool) {
	d := &st.side[s]
	if d.shutAt == 0 || at.Sub(d.shutAt) < worthTelling {
		return
	}
	f := d.shutFrames
	if frame != 0 {
		f[1] = frame
	}
	st.add(Chapter{Kind: WindowShut, Side: s, From: d.shutAt, To: at, Frames: f, N: d.probes, Open: open})
}

func (st *Story) rst(s Side, p *capture.Packet, at capture.Instant) {
	st.rstSide = s
	if n := len(st.Chapters); st.opening > 0 && st.Chapters[n-1].Kind == Challenged && st.Chapters[st.opening-1].Side == s {
		return // rejects the old acknowledgement, and will send its SYN again
	}
	if st.opening > 0 && st.Chapters[st.opening-1].Side != s {
		o := &st.Chapters[st.opening-1]
		o.Kind, o.To, o.Frames[1], o.Open = RefusedOpening, at, p.Frame, false
		st.opening = 0
		st.reset = len(st.Chapters)
		return
	}
	st.still(s.Other(), at, p.Frame, true)
	st.still(s, at, p.Frame, true)
	st.shut(s.Other(), at, p.Frame, true)
	st.side[0].since, st.side[1].since, st.side[0].shutAt, st.side[1].shutAt = 0, 0, 0, 0
	st.reset = max(st.add(Chapter{Kind: Rejected, Side: s, From: at, To: at, Frames: [2]uint64{p.Frame, p.Frame}, TTL: p.TTL, UsualTTL: st.side[s].ttl}), 1)
	st.last = at
}

// after takes a packet that comes after a RST.
func (st *Story) after(p *capture.Packet, at capture.Instant) {
	i := len(st.Chapters) - 1
	if i < 0 {
		return
	}
	if st.Chapters[i].Kind != AfterRST {
		if i = st.add(Chapter{Kind: AfterRST, Side: st.rstSide, From: at, To: at, Frames: [2]uint64{p.Frame, p.Frame}}) - 1; i < 0 {
			return
		}
	}
	x := &st.Chapters[i]
	x.To, x.Frames[1] = at, p.Frame
	if p.Flags&capture.RST != 0 {
		x.N++
	} else {
		x.Heard++
	}
}

// Close tells what is still so at the end of the capture.
func (st *Story) Close(now capture.Instant) {
	for s := range st.side {
		st.still(Side(s), now, 0, true)
		st.shut(Side(s), now, 0, true)
		st.side[s].since, st.side[s].shutAt = 0, 0
	}
}

// Ill is the least that makes a connection's story one of trouble.
type Ill struct{ Still, Shut, Unanswered time.Duration }

// Fared reports whether c stood still, was shut out, or was never answered for so long, and what the worst of it was.
func (st *Story) Fared(min Ill) *Chapter {
	var worst *Chapter
	for i := range st.Chapters {
		c := &st.Chapters[i]
		ill := false
		switch c.Kind {
		case StoodStill:
			// What is not sent again was acknowledged, and the capture lacks that.
			ill = c.Length() > min.Still && (c.N > 0 || c.Open)
		case WindowShut:
			ill = c.Length() > min.Shut
		case Unopened, RefusedOpening:
			ill = c.Kind == Unopened && c.Length() > min.Unanswered
		}
		if ill && (worst == nil || c.Length() > worst.Length()) {
			worst = c
		}
	}
	return worst
}

// story is the one of connection i.
func (t *Table) story(i uint32) *Story { return &t.stories[i/chunkLen][i%chunkLen] }

// Story returns what happened to c; nil unless Options.Story asked for it.
func (t *Table) Story(c *Conn) *Story {
	if !t.o.Story {
		return nil
	}
	return t.story(c.index)
}
