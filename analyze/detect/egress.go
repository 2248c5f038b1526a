package detect

import (
	"net/netip"
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// classOutbound: new connections of one host get no answer at many peers, which serve others of it meanwhile.
const classOutbound = "outbound"

// upstreamSymptom is what one upstream shows in a window.
type upstreamSymptom struct {
	k        measure.CallKey
	f        DeadUpstream
	onset    capture.Instant
	lastOK   capture.Instant
	evidence []analyze.Evidence
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
		f.Class, f.Peers = classOutbound, len(h.peers)
		f.Share = stat.Ratio(f.Failed, f.Attempts)
		emit(analyze.Symptom{Subject: analyze.Subject{Kind: analyze.SubjectPath, Host: host.String()}, Onset: h.first, Features: f, Evidence: h.evidence})
		return true
	})
	rest := list[:0]
	for i := range list {
		if x := &list[i]; hosts.Peek(x.k.Client) == nil || !x.partly() {
			rest = append(rest, *x)
		}
	}
	return rest
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
	f.SucceededBefore += x.f.SucceededBefore
	f.Wait, f.Spread, f.Lasting = max(f.Wait, x.f.Wait), max(f.Spread, x.f.Spread), max(f.Lasting, x.f.Lasting)
	f.ShareBefore, f.Baseline = max(f.ShareBefore, x.f.ShareBefore), min(f.Baseline, x.f.Baseline)
	if len(h.evidence) < analyze.MaxEvidence && len(x.evidence) > 0 {
		h.evidence = append(h.evidence, x.evidence[0])
	}
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
