// Package top is the terminal view of a diagnosis while it is made: six screens that fit a console of 80 by 24 columns and rows.
package top

import (
	"cmp"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/capture"
)

// State is what is known at one moment. It shares nothing with the engine that it was taken from. The agent serves it as JSON.
type State struct {
	At        capture.Instant
	Agent     string // what the agent that says so watches; empty: an engine of our own
	Coverage  analyze.Coverage
	Blind     []string // inputs that cannot be read, with the reason
	Roots     []string
	Chain     []string
	Findings  []*analyze.Finding
	Steps     []analyze.StepVerdict
	Listeners []Listener
	Peers     []Peer
	Resolvers []Resolver
	Names     Resolver // all of them together
	// Segments of the last minute between all hosts, each once, and those of them that were lost.
	Segments, Missing uint64
	Listening         int // ports on which this host listens, those that are not among Listeners, too
}

// Listener is a service of this host, or one that was seen at work.
type Listener struct {
	Addr       string
	Port       uint16
	Rate       float64 // answers a second
	Failed     float64 // requests and connections that failed, a second
	Waiting    uint32
	Queue      uint32
	Backlog    uint32 // 0: no socket sample
	Held       uint32 // CLOSE_WAIT
	Unaccepted uint32
	Sampled    bool // Queue, Held and Unaccepted are known
}

// Peer is what two hosts sent one another in the last minute.
type Peer struct {
	A, B  string
	Ways  [2]Way // A to B, B to A
	Worst float64
}

// Way is one direction: segments of less than 1,280 bytes and larger ones.
type Way struct{ Small, SmallLost, Large, LargeLost uint64 }

// Resolver is a name server in the last minute.
type Resolver struct {
	Client, Server              string
	Rate                        float64
	P50, P95, P99               time.Duration // -1: no answer
	Answered, Unanswered, Again uint64
}

const (
	// maxRows bounds the rows of a table, and the findings, that are kept for each moment: ten minutes of them take some MB.
	maxRows = 50
	// rateOver is the time over which rates are told: long enough for a service of one request a second.
	rateOver = 10 * time.Second
	lately   = time.Minute
	// sampling is for how long a sample of the host speaks: they come every second, on a busy host some later.
	sampling = 2 * time.Second
)

// Take makes a State of what an engine says now.
func Take(at capture.Instant, d *analyze.Diagnosis, v *view.View) *State {
	s := &State{At: at, Coverage: d.Coverage, Roots: slices.Clone(d.Roots), Chain: slices.Clone(d.Chain), Steps: slices.Clone(d.Steps)}
	for _, f := range d.Findings {
		g := *f
		s.Findings = append(s.Findings, &g)
	}
	// The newest are at hand; information goes first.
	slices.SortStableFunc(s.Findings, func(a, b *analyze.Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Onset, a.Onset))
	})
	s.Findings = s.Findings[:min(len(s.Findings), maxRows)]
	now := min(v.Bucket(at), view.MaxBuckets-1) + 1
	back := func(d time.Duration) int { return max(now-max(int(int64(d)/v.Width), 1), 0) }
	s.services(v, now, back(rateOver), back(sampling))
	s.peers(v, at)
	s.resolvers(v, now, back(lately))
	return s
}

// rank orders findings for people: roots first, information last.
func rank(f *analyze.Finding) int {
	switch {
	case f.Severity == "info":
		return 4
	case f.Role == analyze.Root:
		return 0
	case f.Role == analyze.Pending:
		return 1
	case f.Role == analyze.Consequence:
		return 2
	}
	return 3
}

// span is how long the buckets from i to before j are.
func span(v *view.View, i, j int) float64 {
	return max(time.Duration(int64(j-i)*v.Width).Seconds(), 0.1)
}

func (s *State) services(v *view.View, now, from, recent int) {
	sampled := map[uint16]*view.Listener{}
	for i := range v.Listeners {
		sampled[v.Listeners[i].Port] = &v.Listeners[i]
	}
	local := func(addr string) bool { return slices.Contains(s.Coverage.Locals, addr) || addr == s.Coverage.Local }
	fill := func(l *Listener, x *view.Listener) {
		l.Sampled, l.Backlog = true, x.Backlog
		l.Queue, _ = x.Queue.Peak(recent, now)
		l.Held, _ = x.Held.Peak(recent, now)
		l.Unaccepted, _ = x.Unaccepted.Peak(recent, now)
	}
	for i := range v.Services {
		x := &v.Services[i]
		l := Listener{Addr: x.Addr, Port: x.Port, Rate: float64(x.Answered.Sum(from, now)) / span(v, from, now),
			Failed: float64(x.GaveUp.Sum(from, now)+x.Unopened.Sum(from, now)) / span(v, from, now)}
		l.Waiting, _ = x.Open.Peak(recent, now)
		l.Held, _ = x.Half.Peak(recent, now)
		if p := sampled[x.Port]; p != nil && local(x.Addr) {
			fill(&l, p)
			delete(sampled, x.Port)
		}
		s.Listeners = append(s.Listeners, l)
	}
	for i := range v.Listeners {
		if x := &v.Listeners[i]; sampled[x.Port] != nil {
			l := Listener{Addr: "*", Port: x.Port}
			fill(&l, x)
			s.Listeners = append(s.Listeners, l)
		}
	}
	slices.SortStableFunc(s.Listeners, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(b.Held+b.Unaccepted+b.Queue+b.Waiting, a.Held+a.Unaccepted+a.Queue+a.Waiting), cmp.Compare(b.Rate, a.Rate))
	})
	s.Listeners = s.Listeners[:min(len(s.Listeners), maxRows)]
	s.Listening = len(v.Listeners) + int(v.Left["listeners_not_shown"])
}

func (s *State) peers(v *view.View, at capture.Instant) {
	of := map[[2]string]int{}
	width := v.SlotAt(1).Sub(v.SlotAt(0))
	last := min(int(max(at.Sub(v.Start), 0)/max(width, 1)), view.Slots-1)
	first := max(last-int(lately/max(width, 1)), 0)
	for i := range v.Flows {
		d := &v.Flows[i]
		var w Way
		for slot := first; slot <= last; slot++ {
			for class := 1; class < view.Classes; class++ {
				sent, lost := uint64(d.Sent[slot][class]), uint64(d.Missing[slot][class])
				if !slices.Contains(s.Coverage.Locals, d.To) {
					lost += uint64(d.Again[slot][class])
				}
				if class < 3 {
					w.Small, w.SmallLost = w.Small+sent, w.SmallLost+min(lost, sent)
				} else {
					w.Large, w.LargeLost = w.Large+sent, w.LargeLost+min(lost, sent)
				}
			}
		}
		a, b, way := d.From, d.To, 0
		if a > b {
			a, b, way = b, a, 1
		}
		k, ok := of[[2]string{a, b}]
		if !ok {
			k = len(s.Peers)
			of[[2]string{a, b}] = k
			s.Peers = append(s.Peers, Peer{A: a, B: b})
		}
		p := &s.Peers[k]
		p.Ways[way] = w
		s.Segments, s.Missing = s.Segments+w.Small+w.Large, s.Missing+w.SmallLost+w.LargeLost
		p.Worst = max(p.Worst, float64(w.SmallLost+w.LargeLost)/float64(max(w.Small+w.Large, 1)))
	}
	slices.SortStableFunc(s.Peers, func(a, b Peer) int { return cmp.Compare(b.Worst, a.Worst) })
	s.Peers = s.Peers[:min(len(s.Peers), maxRows)]
}

func (s *State) resolvers(v *view.View, now, from int) {
	var all [view.LatencySteps]uint64
	s.Names = Resolver{P50: -1, P95: -1, P99: -1}
	for i := range v.Resolvers {
		x := &v.Resolvers[i]
		r := Resolver{Client: x.Client, Server: x.Server, P50: -1, P95: -1, P99: -1, Answered: x.Answered.Sum(from, now),
			Unanswered: x.Unanswered.Sum(from, now), Again: x.Again.Sum(from, now)}
		r.Rate = float64(r.Answered+r.Unanswered) / span(v, from, now)
		var steps [view.LatencySteps]uint64
		for j := from; j < min(now, len(x.Latency)); j++ {
			for k, n := range x.Latency[j] {
				steps[k] += uint64(n)
				all[k] += uint64(n)
			}
		}
		r.latency(&steps)
		s.Resolvers = append(s.Resolvers, r)
		s.Names.Rate += r.Rate
		s.Names.Answered, s.Names.Unanswered, s.Names.Again = s.Names.Answered+r.Answered, s.Names.Unanswered+r.Unanswered, s.Names.Again+r.Again
	}
	s.Names.latency(&all)
}

func (r *Resolver) latency(steps *[view.LatencySteps]uint64) {
	quantile := func(q float64) time.Duration {
		total, sum := uint64(0), uint64(0)
		for _, n := range steps {
			total += n
		}
		for k, n := range steps {
			if sum += n; total > 0 && float64(sum) >= q*float64(total) {
				return view.StepLatency(k)
			}
		}
		return -1
	}
	r.P50, r.P95, r.P99 = quantile(0.5), quantile(0.95), quantile(0.99)
}
