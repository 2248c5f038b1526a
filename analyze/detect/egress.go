package detect

import (
	"net/netip"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

const (
	// classOutbound: new connections of one host get no answer at many peers, which serve others of it meanwhile.
	classOutbound = "outbound"
	// classOffLink: no peer beyond its own network has ever answered a new connection of one address of this host.
	classOffLink = "off-link"
)

// upstreamSymptom is what one upstream shows in a window.
type upstreamSymptom struct {
	k             measure.CallKey
	f             DeadUpstream
	onset         capture.Instant
	lastOK        capture.Instant
	evidence      []analyze.Evidence
	lastTry, well capture.Instant
}

// partly reports whether the upstream ignores connection requests and is there all the same: it takes others, or is heard on open
// connections, as a peer is whose answers to some new connections do not come back.
func (x *upstreamSymptom) partly() bool {
	return x.f.SynUnanswered > 0 && x.f.Refused == 0 && (x.f.Class == classFull || x.lastOK > x.onset)
}

// outbound finds the hosts of which new connections get no answer at peers of several networks at once, each of which is there
// all the same. Listeners that have nothing to do with each other do not fill up together: what they share is the caller's side, a NAT without
// a free port, a full table of connections, a limit on new ones. It reports one finding for each such host in place of those of
// its peers, which it leaves out of the list that it returns.
func (d *deadUpstream) outbound(w *analyze.Window, list []upstreamSymptom, emit func(analyze.Symptom)) []upstreamSymptom {
	hosts := measure.NewSubjects[capture.Addr, outboundHost](measure.MaxPerDetector)
	for i := range list {
		if x := &list[i]; x.f.SynUnanswered > 0 {
			if h := hosts.Get(x.k.Client); h != nil {
				h.add(x)
			}
		}
	}
	hosts.Each(func(host capture.Addr, h *outboundHost) bool {
		f, minNets := h.f, w.Params.Int("min_nets")
		if len(h.nets) < minNets || h.silent > 0 || h.together() > outboundTogether || d.spared(host, h) >= len(h.peers) {
			return false
		}
		f.Class = classOutbound
		emit(h.symptom(host, f))
		return true
	})
	mute := offLink(w, list, emit)
	rest := list[:0]
	for i := range list {
		if x := &list[i]; (hosts.Peek(x.k.Client) == nil || !x.partly()) && (mute.Peek(x.k.Client) == nil || !x.never()) {
			rest = append(rest, *x)
		}
	}
	return rest
}

// never reports whether the upstream has never answered anything, by whatever means.
func (x *upstreamSymptom) never() bool {
	return x.f.Class == classSilent && x.lastOK == 0 && x.f.SucceededBefore == 0 && x.f.Looped+x.f.Expired == 0
}

// offLink finds the addresses of this host of which no peer beyond their own network has ever answered, though several of several networks
// were called: what these peers share is the way out, as of a host that was given an IPv6 address by a router that has no way for IPv6
// itself. An address is of one family, so that the other one tells nothing of it.
func offLink(w *analyze.Window, list []upstreamSymptom, emit func(analyze.Symptom)) measure.Subjects[capture.Addr, outboundHost] {
	hosts := measure.NewSubjects[capture.Addr, outboundHost](measure.MaxPerDetector)
	for i := range list {
		if x := &list[i]; x.never() && measure.NetOf(x.k.Server.Addr) != measure.NetOf(x.k.Client) {
			if h := hosts.Get(x.k.Client); h != nil {
				h.sum(x)
			}
		}
	}
	hosts.Each(func(host capture.Addr, h *outboundHost) bool {
		if len(h.nets) < w.Params.Int("min_nets") || reaches(w, host) {
			return false
		}
		f := h.f
		f.Class = classOffLink
		emit(h.symptom(host, f))
		return true
	})
	return hosts
}

// reaches reports whether anybody beyond its own network was ever heard by host.
func reaches(w *analyze.Window, host capture.Addr) (heard bool) {
	w.Flows.Paths(func(p *flow.Path) {
		for i := range p.Side {
			heard = heard || p.Host(i) == host && p.Heard[1-i] != 0 && measure.NetOf(p.Host(1-i)) != measure.NetOf(host)
		}
	})
	return heard
}

// outboundTogether is within what time all of it begins: connections to one peer may be rare.
const outboundTogether = time.Minute

// outboundHost sums up the peers that ignore connection requests of one host.
type outboundHost struct {
	f           DeadUpstream
	peers       map[capture.Addr]struct{}
	nets        map[netip.Prefix]struct{}
	silent      int // listeners that are not heard at all: dead, for all that is known
	first, last capture.Instant
	evidence    []analyze.Evidence
}

func (h *outboundHost) add(x *upstreamSymptom) {
	if !x.partly() {
		h.silent++
		return
	}
	h.sum(x)
}

func (h *outboundHost) sum(x *upstreamSymptom) {
	if h.peers == nil {
		h.peers, h.nets = make(map[capture.Addr]struct{}), make(map[netip.Prefix]struct{})
		h.first, h.last, h.f.Baseline = x.onset, x.onset, x.f.Baseline
	}
	h.peers[x.k.Server.Addr], h.nets[measure.NetOf(x.k.Server.Addr)] = struct{}{}, struct{}{}
	h.first, h.last = min(h.first, x.onset), max(h.last, x.onset)
	f := &h.f
	f.Attempts += x.f.Attempts
	f.Failed += x.f.SynUnanswered
	f.SynUnanswered += x.f.SynUnanswered
	f.SynRepeats += x.f.SynRepeats
	f.Unreached += x.f.Unreached
	f.Fallback += x.f.Fallback
	f.Small = x.f.Small
	f.SucceededBefore += x.f.SucceededBefore
	f.Wait, f.Spread, f.Lasting = max(f.Wait, x.f.Wait), max(f.Spread, x.f.Spread), max(f.Lasting, x.f.Lasting)
	f.ShareBefore, f.Baseline = max(f.ShareBefore, x.f.ShareBefore), min(f.Baseline, x.f.Baseline)
	if len(h.evidence) < analyze.MaxEvidence && len(x.evidence) > 0 {
		h.evidence = append(h.evidence, x.evidence[0])
	}
}

// symptom is what the peers of host show together.
func (h *outboundHost) symptom(host capture.Addr, f DeadUpstream) analyze.Symptom {
	f.Peers = len(h.peers)
	f.Share = stat.Ratio(f.Failed, f.Attempts)
	return analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: host.String()}, Onset: h.first, Features: f, Evidence: h.evidence}
}

func (h *outboundHost) together() time.Duration { return h.last.Sub(h.first) }

// sparedCalls is how many new connections without a failure clear a peer.
const sparedCalls = 5

// spared counts the other peers of host that take all its new connections meanwhile.
func (d *deadUpstream) spared(host capture.Addr, h *outboundHost) (n int) {
	good := make(map[capture.Addr]uint32)
	for k, st := range d.states.M { // sums do not depend on the order
		if _, ill := h.peers[k.Server.Addr]; k.Client != host || ill {
			continue
		}
		for _, p := range st.connects.Recent() {
			good[k.Server.Addr] += p.Total - min(p.Bad, p.Total)
		}
	}
	for _, k := range good {
		n += measure.Count(k >= sparedCalls)
	}
	return n
}
