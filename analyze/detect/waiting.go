package detect

import (
	"cmp"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Classes of close-wait that only the sockets themselves tell.
const (
	classUnaccepted = "STARVED-UNACCEPTED" // nobody has accepted them: they have no inode
	classQueued     = "STARVED-QUEUED"     // accepted, and more than the FIN is unread
)

// waitingSockets follows the sockets in CLOSE_WAIT by their cookies: exact where packets only allow to
// infer. They belong to a listener, or to calls to a server.
type waitingSockets struct {
	sockets   subjects[uint64, waitingSocket] // by cookie
	states    subjects[closeKey, socketWaits]
	listeners map[uint16]capture.Addr // of the newest table that has them, by port
	at        capture.Instant         // newest table
	first     capture.Instant         // oldest
	tables    uint32
}

type waitingSocket struct {
	state *socketWaits
	since capture.Instant // first seen in this state
	peer  capture.Endpoint
	inode uint32
	recvQ uint32
	sendQ uint32
	table uint32 // in which it was last seen
}

// socketWaits are those of one listener, or of the calls to one server.
type socketWaits struct {
	list  []*waitingSocket // scratch
	all   int              // sockets in this state, those of list included
	ended int              // sockets that left the state
	since capture.Instant  // there are some without a pause since
	open  int              // sockets of the subject in the newest full table
	leaks bool             // as closeState.leaks
}

func newWaitingSockets() waitingSockets {
	return waitingSockets{sockets: newSubjects[uint64, waitingSocket](maxWaiting),
		states: newSubjects[closeKey, socketWaits](maxPerDetector), listeners: make(map[uint16]capture.Addr)}
}

// sample takes a table that holds the sockets in CLOSE_WAIT.
func (d *waitingSockets) sample(at capture.Instant, t *capture.SocketTable) {
	if t.States&capture.CloseWait.Mask() == 0 {
		return
	}
	if d.at = at; d.first == 0 {
		d.first = at
	}
	d.tables++
	if t.States&capture.Listen.Mask() != 0 {
		clear(d.listeners)
		for i := range t.Sockets {
			if s := &t.Sockets[i]; s.State == capture.Listen {
				d.listeners[s.Local.Port] = s.Local.Addr
			}
		}
	}
	full := t.States&capture.Established.Mask() != 0
	if full {
		d.states.each(func(_ closeKey, st *socketWaits) bool { st.open = 0; return true })
	}
	for i := range t.Sockets {
		s := &t.Sockets[i]
		if full && (s.State == capture.Established || s.State == capture.CloseWait) {
			if st := d.states.peek(d.key(s)); st != nil {
				st.open++
			}
		}
		if s.State != capture.CloseWait {
			continue
		}
		w := d.sockets.get(s.Cookie)
		if w == nil {
			continue
		}
		if w.state == nil {
			if w.state = d.states.get(d.key(s)); w.state == nil {
				w.state = new(socketWaits) // there are too many subjects
			}
			w.since, w.peer = at, s.Remote
		}
		w.inode, w.recvQ, w.sendQ, w.table = s.Inode, s.RecvQ, s.SendQ, d.tables
	}
	if t.Interrupted {
		return // those that are missing may be there
	}
	d.sockets.each(func(_ uint64, w *waitingSocket) bool {
		if w.table != d.tables {
			w.state.ended++
		}
		return w.table == d.tables
	})
}

// key says whose socket s is: its listener's, or a call's.
func (d *waitingSockets) key(s *capture.Socket) closeKey {
	if _, ok := d.listeners[s.Local.Port]; ok {
		return closeKey{server: s.Local}
	}
	return closeKey{server: s.Remote, client: s.Local.Addr}
}

// speaks reports whether a table is recent enough to be believed.
func (d *waitingSockets) speaks(now capture.Instant) bool {
	return d.at != 0 && now.Sub(d.at) <= 3*analyze.WindowLength
}

// judge groups the sockets by subject, but for those whose peer has not acknowledged all that was sent: these wait for the network, not
// for their program.
func (d *waitingSockets) judge() {
	d.states.each(func(_ closeKey, st *socketWaits) bool {
		st.list, st.all = st.list[:0], 0
		return true
	})
	d.sockets.each(func(_ uint64, w *waitingSocket) bool {
		w.state.all++
		if w.sendQ == 0 {
			w.state.list = append(w.state.list, w)
		}
		return true
	})
	d.states.each(func(_ closeKey, st *socketWaits) bool {
		if len(st.list) == 0 {
			return st.all > 0
		}
		slices.SortFunc(st.list, func(a, b *waitingSocket) int {
			return cmp.Or(cmp.Compare(a.since, b.since), a.peer.Compare(b.peer))
		})
		st.since = st.list[0].since
		return true
	})
}

// forgotten reports whether the program has read w to its end and does not close it.
func (w *waitingSocket) forgotten() bool { return w.inode != 0 && w.recvQ <= 1 }

// forgot counts such sockets.
func (st *socketWaits) forgot() (n int) {
	for _, w := range st.list {
		if w.forgotten() {
			n++
		}
	}
	return n
}

// measure puts what the sockets say in place of what the packets let infer.
func (st *socketWaits) measure(f *CloseWait, now capture.Instant, old time.Duration, enough int) {
	st.leaks = st.leaks && st.forgot() >= enough
	if st.leaks {
		st.list = slices.DeleteFunc(st.list, func(w *waitingSocket) bool { return !w.forgotten() })
	}
	n := len(st.list)
	f.Waiting, f.Exact = n, true
	f.Connections = max(f.Connections, st.open, n)
	f.Share = stat.Ratio(n, f.Connections)
	f.MedianAge, f.OldestAge = now.Sub(st.list[n/2].since).Seconds(), now.Sub(st.list[0].since).Seconds()
	f.Older, f.Unaccepted, f.Queued = 0, 0, 0
	for _, w := range st.list {
		if now.Sub(w.since) >= old {
			f.Older++
		}
		switch {
		case w.inode == 0:
			f.Unaccepted++
		case w.recvQ > 1: // the FIN itself counts as one byte
			f.Queued++
		}
	}
	f.Owned = n - f.Unaccepted
	st.leaks = (st.leaks || f.Class == classLeak && 2*(f.Unaccepted+f.Queued) < n) && f.Older >= enough
	switch {
	case f.Unaccepted*2 >= n:
		f.Class = classUnaccepted
	case (f.Queued+f.Unaccepted)*2 >= n:
		f.Class = classQueued
	}
}

// evidence names the oldest.
func (st *socketWaits) evidence(k closeKey) (out []analyze.Evidence) {
	for _, w := range st.list[:min(len(st.list), analyze.MaxEvidence)] {
		note := "CLOSE_WAIT, read to the end"
		switch {
		case w.inode == 0:
			note = "CLOSE_WAIT, never accepted"
		case w.recvQ > 1:
			note = "CLOSE_WAIT, data unread"
		}
		e := analyze.Evidence{At: w.since, Flow: w.peer.String() + " > " + k.server.String(), Note: note}
		if k.client != (capture.Addr{}) {
			e.Flow = k.client.String() + " > " + k.server.String()
		}
		out = append(out, e)
	}
	return out
}

// inodes are those of the sockets, for the question who owns them.
func (st *socketWaits) inodes() (out []uint32) {
	for _, w := range st.list {
		if w.inode != 0 && len(out) < maxAskInodes {
			out = append(out, w.inode)
		}
	}
	return out
}

// maxAskInodes bounds one question: owners of a few sockets name the process.
const maxAskInodes = 16
