package detect

import (
	"math"
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/capture"
)

// PathCut are the features of path-cut. Rates per second, times in seconds.
type PathCut struct {
	Peers       int     `json:"peers"`
	PeersTotal  int     `json:"peers_total"`
	OthersAlive int     `json:"others_alive"`
	Silent      float64 `json:"silent"`
	Sent        int     `json:"sent"`
	Received    int     `json:"received"`
	RateBefore  float64 `json:"rate_before"`
	Flows       int     `json:"flows"`
	Healed      bool    `json:"healed"`
	Chance      float64 `json:"chance"`
	Addresses   string  `json:"addresses"`
	Deaf        int     `json:"deaf"`
	Unheard     int     `json:"unheard"`
	Older       int     `json:"older"`
	OneWay      int     `json:"one_way"`
	Smallest    int     `json:"smallest"`
}

// pathCut looks for peers of a host that fall silent together while the host goes on asking them.
type pathCut struct {
	peers  measure.Subjects[peerKey, peerState]
	groups measure.Subjects[capture.Addr, cutGroup] // by host
	// Peers that were asked several times in vain: whether they are out of reach, or not there at all, only one that was
	// heard before can tell, or one to which there are connections that are older than the capture.
	vain measure.Subjects[peerKey, inVain]
	deaf deafPeers
}

// inVain is a peer that was asked in vain.
type inVain struct {
	first, last capture.Instant
	sent        uint32
	tcp, older  bool // older: data was repeated on a connection that is older than the capture
	ref         flow.Ref
	side        flow.Side // the peer's
	note        measure.Note
}

// cutGroup is an outage in progress: peers of one host that fell silent together.
type cutGroup struct {
	onset  capture.Instant
	peers  []capture.Addr
	before float64
	chance float64
	older  int
	last   PathCut
}

const (
	// together is the tolerance for what counts as the same time: routes converge, and
	// ports go down, within a second or two.
	together = 2 * time.Second
	// maxAddresses bounds how many of the silent peers a finding names.
	maxAddresses = 64
	// unasked ends an outage that nobody tests any more: longer than the pause between the fifth and
	// sixth SYN of one connection (RFC 6298 §5.5: 1 s doubled).
	unasked = 35 * time.Second
)

func newPathCut() analyze.Detector {
	return &pathCut{peers: measure.NewSubjects[peerKey, peerState](measure.MaxPerDetector), groups: measure.NewSubjects[capture.Addr, cutGroup](64),
		vain: measure.NewSubjects[peerKey, inVain](measure.MaxPerDetector), deaf: newDeafPeers()}
}

func (d *pathCut) Spec() analyze.Spec {
	return analyze.Spec{Rule: "path-cut", Features: PathCut{}, Events: flow.Of(flow.SynSent, flow.SynRepeat, flow.SynAckRepeat, flow.Retransmit,
		flow.DNSQuery, flow.DNSAnswer, flow.DNSRepeat, flow.DNSUnanswered, flow.DNSLate) | deafEvents}
}

func (d *pathCut) Event(e *flow.Event) {
	if e.DNS != nil {
		d.dns(e)
		return
	}
	c := e.Conn
	if c == nil {
		return
	}
	d.deaf.event(e)
	k := peerKey{c.Endpoint(e.Side).Addr, c.Endpoint(e.Side.Other()).Addr}
	switch {
	case e.Kind == flow.SynRepeat && e.N >= vainTries && !c.Closed() && !c.SynAnswered(),
		e.Kind == flow.Retransmit && !c.SynSeen() && c.Packets(e.Side.Other()) == 0:
		if v := d.inVain(k, e.At.Add(-e.Dur), e.At); v != nil {
			if !v.tcp {
				v.ref, v.side = c.Ref(), e.Side.Other()
				v.note = measure.NoteAt(e.At, c.Endpoint(e.Side), c.Endpoint(v.side), e.Frame, "sent again, nothing comes back")
			}
			v.tcp, v.older = true, v.older || e.Kind == flow.Retransmit
		}
	}
	st := d.peers.Peek(k)
	if st == nil {
		return
	}
	st.heardOn(e.Path, k)
	switch e.Kind {
	case flow.SynSent:
		if st.asked != 0 {
			st.sent++
		}
	case flow.SynRepeat:
		if !c.Closed() { // refused; some stacks try again all the same
			st.ask(e.At.Add(-e.Dur), e, 1)
		}
	case flow.SynAckRepeat:
		st.ask(e.At.Add(-e.Dur), e, e.N)
	case flow.Retransmit:
		if (e.Class == flow.RTO || e.Class == flow.Closing) && e.Proven && !c.Closed() {
			st.ask(e.At.Add(-e.Dur), e, e.N)
		}
	}
}

func (d *pathCut) dns(e *flow.Event) {
	k := peerKey{e.DNS.Client.Addr, e.DNS.Server.Addr}
	switch e.Kind {
	case flow.DNSAnswer:
		d.heardFrom(k.host, k.peer, e.At)
	case flow.DNSLate:
		if !e.Rejected() {
			d.heardFrom(k.host, k.peer, e.At)
		}
	default:
		if e.Kind == flow.DNSUnanswered {
			d.inVain(k, e.DNS.First, e.At)
		}
		st := d.peers.Peek(k)
		if st == nil {
			return
		}
		if e.Kind == flow.DNSQuery {
			if st.asked != 0 {
				st.sent++
			}
			return
		}
		st.askDNS(e)
	}
}

// vainTries is how often a SYN comes again before its peer counts as asked in vain: after 1 and 3 s (RFC 6298 §5.5).
const vainTries = 2

// inVain notes that a peer was asked in vain, first at first.
func (d *pathCut) inVain(k peerKey, first, at capture.Instant) *inVain {
	v := d.vain.Get(k)
	if v == nil {
		return nil
	}
	if st := d.peers.Peek(k); v.first == 0 || st != nil && st.heard >= v.first {
		*v = inVain{first: first}
	}
	v.last, v.sent = at, v.sent+1
	return v
}

// unheard counts the peers that were asked in vain and have not been heard since.
func (d *pathCut) unheard() (n int) {
	for k, v := range d.vain.All {
		if st := d.peers.Peek(k); st == nil || st.heard <= v.last {
			n++
		}
	}
	return n
}

// heardFrom notes a packet of peer to host.
func (d *pathCut) heardFrom(host, peer capture.Addr, at capture.Instant) {
	if st := d.peers.Get(peerKey{host, peer}); st != nil {
		st.hear(at)
		st.curHeard++
	}
}

// sinceBegin is how soon after the beginning of a capture a peer must be asked in vain to count as cut off before it: the first
// repetitions take 1 s (RFC 6298 §2), and callers take turns.
const sinceBegin = 5 * time.Second

// before opens the groups of peers that were cut off before the capture began: asked in vain from the first moments on and never
// heard, one of them at least on a connection that is older than the capture.
func (d *pathCut) before(w *analyze.Window) {
	if len(d.vain.Keys) < 2 {
		return
	}
	minSilent := w.Params.Duration("min_silent")
	var gone []peerKey
	for k, v := range d.vain.All {
		if st := d.peers.Peek(k); st != nil || !v.tcp || v.first.Sub(w.First) > sinceBegin || w.End.Sub(v.first) < minSilent || w.End.Sub(v.last) > unasked {
			continue
		}
		gone = append(gone, k)
	}
	for host, list := range byHost(gone) {
		older := 0
		for _, k := range list {
			older += measure.Count(d.vain.M[k].older)
		}
		if d.groups.Peek(host) != nil || len(list) < w.Params.Int("min_peers") || older == 0 {
			continue
		}
		g := d.groups.Get(host)
		if g == nil {
			continue
		}
		g.older = older
		for _, k := range list {
			if st := d.peers.Get(k); st != nil {
				v := d.vain.M[k]
				st.asked, st.last, st.fellAt, st.sent, st.tcp, st.counted, st.note = v.first, v.last, v.first, v.sent, true, true, v.note
				st.ref, st.side = v.ref, v.side
				st.heard = w.First.Add(-1) // when last, nobody knows
				g.add(w, k.peer, st)
			}
		}
		g.chance = d.chance(w, host, g)
	}
}

func (d *pathCut) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	d.roll(w)
	d.before(w)
	minSilent, minBefore := w.Params.Duration("min_silent"), w.Params.Float("min_before")
	var suspects []peerKey
	for k, st := range d.peers.All {
		if st.asked != 0 && w.End.Sub(st.last) > unasked {
			st.forget() // nobody asks any more
		}
		if st.asked != 0 && st.tcp && w.End.Sub(st.asked) >= minSilent {
			if c := w.Flows.Lookup(st.ref); c != nil && c.Packets(st.side) != st.seen {
				st.hear(w.End) // a mere acknowledgement
			}
		}
		if w.Local.Receives(k.peer) {
			continue // what was asked has arrived at this host: it keeps silent itself, or whom it passes it on to
		}
		if st.asked != 0 && w.End.Sub(st.asked) >= minSilent && (st.counted || st.rateBefore(w) >= minBefore) && !st.oversized(w, k) {
			suspects = append(suspects, k)
			st.fellAt = st.asked
		}
	}
	for host, mine := range byHost(d.acknowledged(w, d.several(suspects))) {
		d.gather(w, host, mine)
	}
	d.groups.Each(func(host capture.Addr, g *cutGroup) bool { return d.follow(w, host, g, emit) })
	d.deaf.judge(w, d, emit)
}

// follow reports a group until fewer than two of its peers are still silent.
func (d *pathCut) follow(w *analyze.Window, host capture.Addr, g *cutGroup, emit func(analyze.Symptom)) bool {
	f := PathCut{Peers: len(g.peers), RateBefore: g.before, Chance: g.chance, Addresses: " ", Older: g.older}
	var evidence []analyze.Evidence
	last, smallest := g.onset, uint32(math.MaxUint32)
	for i, p := range g.peers {
		if i < maxAddresses {
			f.Addresses += p.String() + " "
		}
		st := d.peers.Peek(peerKey{host, p})
		if st == nil || st.asked == 0 || st.heard > g.onset.Add(together) {
			f.Received++
			continue
		}
		last = max(last, st.last)
		f.Sent += int(st.sent)
		smallest = min(smallest, st.least)
		f.Flows += int(st.conns)
		if len(evidence) < analyze.MaxEvidence {
			evidence = append(evidence, st.note.Evidence())
		}
	}
	f.PeersTotal, f.OthersAlive = d.alive(w, host, g)
	s := analyze.Subject{Kind: analyze.SubjectPath, Host: host.String()}
	if f.Peers-f.Received < 2 {
		f.Healed = true
		if f.Sent = g.last.Sent; f.Flows == 0 {
			f.Flows = g.last.Flows
		}
		last, smallest = w.Start, uint32(g.last.Smallest)
	}
	f.Smallest = int(smallest)
	f.Silent = last.Sub(g.onset).Seconds()
	if w.End.Sub(last) > unasked {
		return false
	}
	if !f.Healed || g.last.Peers > 0 {
		emit(analyze.Symptom{Subject: s, Onset: g.onset, Features: f, Evidence: evidence, Filter: cutFilter(host, g.peers)})
	}
	g.last = f
	return !f.Healed
}

// cutFilter is a Wireshark display filter for the traffic between host and peers.
func cutFilter(host capture.Addr, peers []capture.Addr) string {
	s := measure.AddrFilter(host, "addr") + " && ("
	for i, p := range peers[:min(len(peers), 16)] {
		if i > 0 {
			s += " || "
		}
		s += measure.AddrFilter(p, "addr")
	}
	return s + ")"
}

// alive counts the peers of g and those that the host heard lately, and those of them outside of g that it hears since the
// group fell silent.
func (d *pathCut) alive(w *analyze.Window, host capture.Addr, g *cutGroup) (all, others int) {
	for k, st := range d.peers.All {
		if k.host != host {
			continue
		}
		in, heard := slices.Contains(g.peers, k.peer), st.heard
		if in || w.End.Sub(heard) < measure.Lonely {
			all++
		}
		if !in && w.End.Sub(heard) < measure.Lonely && heard > g.onset.Add(together) {
			others++
		}
	}
	return all, others
}

// deafAfter is how many repetitions of a SYN-ACK tell that its receiver does not get them: at 10 % of loss two more are lost once in 1,000.
const deafAfter = 2

func (d *pathCut) Assess(w *analyze.Window) analyze.Assessment {
	f := PathCut{}
	alive := measure.NewSubjects[capture.Addr, int](measure.MaxPerDetector) // by host, the peers that it heard lately
	for k, st := range d.peers.All {
		if w.End.Sub(st.heard) >= measure.Lonely || w.Local.By != analyze.LocalNone && !w.Local.Is(k.host) {
			continue
		}
		n := alive.Get(k.host) // there are no more hosts than peers
		*n++
		f.PeersTotal = max(f.PeersTotal, *n)
	}
	f.OthersAlive = f.PeersTotal
	f.Unheard = d.unheard()
	deaf := measure.NewSubjects[capture.Addr, struct{}](measure.MaxPerDetector)
	w.Flows.Live(func(c *flow.Conn) {
		if c.SynAckTries() >= deafAfter && !c.IsEstablished() {
			deaf.Get(c.Client.Addr)
		}
	})
	f.Deaf = len(deaf.Keys)
	return analyze.Assessment{Assessable: f.PeersTotal >= w.Params.Int("min_peers") || f.Unheard > 0, Features: f}
}
