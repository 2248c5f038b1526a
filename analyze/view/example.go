package view

import (
	"cmp"
	"slices"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

const (
	// maxExamples bounds the connections that are remembered because something happened to them, and maxPerPair those between
	// the same two hosts: the first ones.
	maxExamples = 4096
	maxPerPair  = 64
	// aheadOfOnset: the fault may show in a connection this long before the onset that its rule tells, which for a sampled
	// source is the end of a window.
	aheadOfOnset = capture.Instant(analyze.WindowLength)
)

// What an example may show.
type trouble uint8

const (
	lost trouble = iota
	reset
	waited
	halfClosed
	unopened
	troubles
)

var troubleNames = [troubles]string{"lost", "reset", "waited", "half_closed", "unopened"}

// shows is what an example of a rule must show; a rule that is not here has none.
var shows = map[string]trouble{
	"size-dependent-loss": lost, "retransmission": lost, "path-cut": lost, "dead-connection": lost,
	"abnormal-termination": reset, "connection-refused": reset, "state-mismatch": reset,
	"slow-server": waited, "pool-exhausted": waited, "backend-skew": waited,
	"close-wait": halfClosed, "dead-upstream": unopened, "accept-queue": unopened,
}

// example is a connection with what happened to it.
type example struct {
	client, server capture.Endpoint
	stream         uint32
	ref            flow.Ref
	first, last    capture.Instant
	opened, ended  bool
	n              [troubles]uint64 // of waited: the longest wait in ns
	at             [troubles]capture.Instant
}

type examples struct {
	all   []example
	of    map[uint32]int32 // by stream
	pairs map[[2]capture.Addr]int
	// marked are the low bits of the streams of all: of the events of other connections, hardly any is looked up.
	marked [1 << 16]bool
}

func newExamples() examples {
	return examples{of: map[uint32]int32{}, pairs: map[[2]capture.Addr]int{}}
}

// event notes what happened to a connection.
func (x *examples) event(e *flow.Event) {
	what, n := troubles, uint64(1)
	switch e.Kind {
	case flow.Retransmit:
		if e.Class.OfPath() {
			what, n = lost, uint64(max(e.N, 1))
		}
	case flow.HoleOpened:
		what, n = lost, uint64(max(e.N, 1))
	case flow.Refused:
		what = reset
	case flow.Reset:
		if e.Class != flow.ResetComplete {
			what = reset
		}
	case flow.Response, flow.Abandoned:
		// Half a second is more than any answer of a healthy service in one network takes; the median of them is shown anyway.
		if n = uint64(max(e.Dur, 0)); n > 5e8 {
			what = waited
		}
	case flow.HalfClosed:
		if e.StillAsked() || e.Side == flow.Client {
			what = halfClosed
		}
	case flow.SynRepeat:
		what = unopened
	}
	var i int32
	mark := &x.marked[e.Conn.Stream%uint32(len(x.marked))]
	known := *mark
	if known {
		i, known = x.of[e.Conn.Stream]
	}
	if !known {
		if what == troubles || len(x.all) == maxExamples {
			return
		}
		k := [2]capture.Addr{e.Conn.Client.Addr, e.Conn.Server.Addr}
		if x.pairs[k] == maxPerPair {
			return
		}
		x.pairs[k]++
		i = int32(len(x.all))
		x.all = append(x.all, example{client: e.Conn.Client, server: e.Conn.Server, stream: e.Conn.Stream, ref: e.Conn.Ref(), first: e.Conn.First})
		x.of[e.Conn.Stream], *mark = i, true
	}
	c := &x.all[i]
	c.last = max(c.last, e.At, e.Conn.Last)
	c.ended = c.ended || e.Kind == flow.Closed
	c.opened = c.opened || e.Conn.IsEstablished() && e.Conn.SynSeen()
	if what == troubles {
		return
	}
	if c.n[what] == 0 {
		c.at[what] = e.At
	}
	if what == waited {
		c.n[what] = max(c.n[what], n)
	} else {
		c.n[what] += n
	}
}

// choose picks an example for each finding of warn and above that a connection can show: of those that are about its subject, begin
// to show it after its onset and have completed their handshake, if any has, the one in the middle by how much they show.
func (x *examples) choose(d *analyze.Diagnosis, table *flow.Table) (out []Connection) {
	for _, f := range d.Findings {
		what, ok := shows[f.Rule]
		if !ok || f.Severity == "info" {
			continue
		}
		if f.Subject.Segment == "syn" || f.Subject.Segment == "syn-ack" {
			what = unopened
		}
		var fit []*example
		for _, opened := range []bool{true, false} {
			for i := range x.all {
				if c := &x.all[i]; c.n[what] > 0 && c.opened == opened && c.at[what] >= f.Onset-aheadOfOnset && about(c, f.Subject) {
					fit = append(fit, c)
				}
			}
			if len(fit) > 0 {
				break
			}
		}
		if len(fit) == 0 {
			continue
		}
		slices.SortFunc(fit, func(a, b *example) int {
			return cmp.Or(cmp.Compare(a.n[what], b.n[what]), cmp.Compare(a.first, b.first), cmp.Compare(a.stream, b.stream))
		})
		// Of those that show as much as the median the first: the input is read a second time up to there.
		c := fit[slices.IndexFunc(fit, func(c *example) bool { return c.n[what] == fit[len(fit)/2].n[what] })]
		// It is silent up to the end, if it has none; its packets need not be looked for that long.
		until := c.last
		if !c.ended {
			if c.last = max(c.last, d.Coverage.Last); table == nil {
				until = c.last
			} else if conn := table.Lookup(c.ref); conn != nil {
				until = max(until, conn.Last)
			}
		}
		out = append(out, Connection{Finding: f.ID, Client: c.client.String(), Server: c.server.String(), Stream: c.stream,
			First: c.first, Trouble: c.at[what], Last: c.last, Rank: len(fit)/2 + 1, Of: len(fit), By: troubleNames[what],
			ends: [2]capture.Endpoint{c.client, c.server}, until: until})
		if len(out) == maxShown {
			break
		}
	}
	return out
}

// maxShown bounds the examples of a record.
const maxShown = 24

// about reports whether a connection belongs to a subject.
func about(c *example, s analyze.Subject) bool {
	client, server := c.client.Addr.String(), c.server.Addr.String()
	switch s.Kind {
	case analyze.SubjectPath:
		return s.Host == "" || (s.Host == client && (s.Peer == "" || s.Peer == server)) || (s.Host == server && (s.Peer == "" || s.Peer == client))
	case analyze.SubjectService:
		return s.Host == server && s.Port == c.server.Port
	case analyze.SubjectUpstream, analyze.SubjectResolver:
		return s.Host == client && s.Peer == server && s.Port == c.server.Port
	case analyze.SubjectSource:
		return s.Peer == client && s.Host == server && (s.Port == 0 || s.Port == c.server.Port)
	case analyze.SubjectHost:
		return s.Host == client || s.Host == server
	}
	return false
}
