package detect

import (
	"cmp"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/socket"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Classes of close-wait that only the sockets themselves tell.
const (
	classUnaccepted = "STARVED-UNACCEPTED" // nobody has accepted them: they have no inode
	classQueued     = "STARVED-QUEUED"     // accepted, and more than the FIN is unread
)

// waitingSockets are the sockets in CLOSE_WAIT. Packets allow only to infer them; a dump shows each. They belong to a listener, or to
// calls to a server.
type waitingSockets struct {
	*measure.HostSockets
	states measure.Subjects[measure.End, socketWaits]
}

// socketWaits are those of one listener, or of the calls to one server.
type socketWaits struct {
	list  []*socket.Socket // scratch
	all   int              // sockets in this state, those of list included
	ended int              // sockets that left the state
	since capture.Instant  // there are some without a pause since
	open  int              // sockets of the subject in the newest dump of all
	leaks bool             // as closeState.leaks
}

func newWaitingSockets() waitingSockets {
	return waitingSockets{HostSockets: measure.NewHostSockets(), states: measure.NewSubjects[measure.End, socketWaits](measure.MaxPerDetector)}
}

// sample counts how many sockets each subject has, and how many have left the state.
func (d *waitingSockets) sample() {
	for _, s := range d.In(capture.CloseWait) {
		d.states.Get(measure.EndOfSocket(s))
	}
	for _, s := range d.Left {
		if st := d.states.Peek(measure.EndOfSocket(s.Socket)); st != nil && s.From == capture.CloseWait {
			st.ended++
		}
	}
	if len(d.states.Keys) == 0 || d.Dump.States&capture.Established.Mask() == 0 {
		return
	}
	d.states.Each(func(_ measure.End, st *socketWaits) bool { st.open = 0; return true })
	for _, s := range d.Shown {
		if s != nil && (s.State == capture.Established || s.State == capture.CloseWait) {
			if st := d.states.Peek(measure.EndOfSocket(s)); st != nil {
				st.open++
			}
		}
	}
}

// judge groups the sockets by subject. It leaves out those whose peer has not acknowledged all that was sent: they wait for the network,
// not for their program.
func (d *waitingSockets) judge() {
	d.states.Each(func(_ measure.End, st *socketWaits) bool {
		st.list, st.all = st.list[:0], 0
		return true
	})
	for _, s := range d.In(capture.CloseWait) {
		if st := d.states.Peek(measure.EndOfSocket(s)); st != nil {
			if st.all++; s.SendQ == 0 {
				st.list = append(st.list, s)
			}
		}
	}
	d.states.Each(func(_ measure.End, st *socketWaits) bool {
		if len(st.list) == 0 {
			return st.all > 0
		}
		slices.SortFunc(st.list, func(a, b *socket.Socket) int {
			return cmp.Or(cmp.Compare(a.Since, b.Since), a.Remote.Compare(b.Remote))
		})
		st.since = st.list[0].Since
		return true
	})
}

// forgotten counts the sockets that their program has read to the end for so long, and does not close. Until then it is no leak: a program
// that is freed at last takes up all that waited, and closes one after the other.
func (st *socketWaits) forgotten(now capture.Instant, old time.Duration) (n int) {
	for _, w := range st.list {
		if w.Read != 0 && now.Sub(w.Read) >= old {
			n++
		}
	}
	return n
}

// measure puts what the sockets say in place of what the packets let infer.
func (st *socketWaits) measure(f *CloseWait, now capture.Instant, old time.Duration, enough int) {
	forgotten := st.forgotten(now, old)
	st.leaks = st.leaks && forgotten >= enough
	if st.leaks {
		st.list = slices.DeleteFunc(st.list, func(w *socket.Socket) bool { return w.Read == 0 })
	}
	n := len(st.list)
	f.Waiting, f.Exact = n, true
	f.Connections = max(f.Connections, st.open, n)
	f.Share = stat.Ratio(n, f.Connections)
	f.MedianAge, f.OldestAge = now.Sub(st.list[n/2].Since).Seconds(), now.Sub(st.list[0].Since).Seconds()
	f.Older, f.Unaccepted, f.Queued = 0, 0, 0
	for _, w := range st.list {
		if now.Sub(w.Since) >= old {
			f.Older++
		}
		switch {
		case w.Inode == 0:
			f.Unaccepted++
		case w.RecvQ > 1: // the FIN itself counts as one byte
			f.Queued++
		}
	}
	f.Owned = n - f.Unaccepted
	st.leaks = (st.leaks || f.Class == classLeak && 2*(f.Unaccepted+f.Queued) < n) && forgotten >= enough
	switch {
	case f.Unaccepted*2 >= n:
		f.Class = classUnaccepted
	case (f.Queued+f.Unaccepted)*2 >= n:
		f.Class = classQueued
	case f.Class == classLeak:
		f.Older = forgotten
	}
}

// evidence names the oldest.
func (st *socketWaits) evidence(k measure.End) (out []analyze.Evidence) {
	for _, w := range st.list[:min(len(st.list), analyze.MaxEvidence)] {
		note := "CLOSE_WAIT, read to the end"
		switch {
		case w.Inode == 0:
			note = "CLOSE_WAIT, never accepted"
		case w.RecvQ > 1:
			note = "CLOSE_WAIT, data unread"
		}
		e := analyze.Evidence{At: w.Since, Flow: w.Remote.String() + " > " + k.Server.String(), Note: note}
		if k.Client != (capture.Addr{}) {
			e.Flow = k.Client.String() + " > " + k.Server.String()
		}
		out = append(out, e)
	}
	return out
}

// inodes are those of the sockets, for the question who owns them.
func (st *socketWaits) inodes() (out []uint32) {
	for _, w := range st.list {
		if w.Inode != 0 && len(out) < maxAskInodes {
			out = append(out, w.Inode)
		}
	}
	return out
}

// maxAskInodes bounds one question: owners of a few sockets name the process.
const maxAskInodes = 16
