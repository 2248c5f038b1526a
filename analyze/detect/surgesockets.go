package detect

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// surgeSockets finds a surge from one source without packets. The host's counters say how many connections were requested: those that were
// accepted, those that were answered with a SYN cookie, and those that were dropped. The dumps of all sockets say who requested them: the
// source that has more sockets than before the rise.
type surgeSockets struct {
	*measure.HostSockets
	demand  counterDemand
	sources measure.Subjects[socketSource, sourceSockets]
	// Times of the dumps of all sockets: the newest, and the last two in which no rise was known.
	at, before, prior capture.Instant
	found             bool // a surge, in the last window
}

type socketSource struct {
	server capture.Endpoint
	client capture.Addr
}

// sourceSockets counts the sockets of a source at a listener in the dumps of surgeSockets.
type sourceSockets struct {
	now, before, prior sourceCount
	half               uint32 // in SYN_RECV, now
	peer               capture.Endpoint
}

// sourceCount counts sockets in TIME_WAIT (closed) apart from the others. Those in TIME_WAIT show the minute before; during a rise only those
// of the newest second count.
type sourceCount struct{ open, closed uint32 }

func (c sourceCount) all() uint32 { return c.open + c.closed }

// counterDemand finds a rise of the new connection requests per second in the counters.
type counterDemand struct {
	known bool
	blind bool            // the newest interval was too long
	at    capture.Instant // newest sample
	last  demandCounts
	// In the newest interval, per second:
	accepted, dropped, asking float64

	asked, span  float64               // until the rise, of requests and seconds
	turned, came [failuresLook]float64 // by interval, the newest last: turned away, of all
	high         int                   // intervals in a row with a higher rate
	low          int                   // in a row back in the middle
	onset        capture.Instant
	rates        [3]float64 // requests per second in the first intervals of the rise
	unanswered   float64    // in them
}

// demandCounts are cumulative.
type demandCounts struct{ accepted, cookies, dropped uint64 }

const (
	// minInterval and maxInterval bound the time between samples from which a rate can be computed: samples come every second, on a busy
	// host later, and SYNs are sent again after one (RFC 6298 §2). A shorter interval becomes part of the next.
	minInterval, maxInterval = 500 * time.Millisecond, 2 * time.Second
	// timeWait is how long sockets stay in TIME_WAIT: TCP_TIMEWAIT_LEN in include/net/tcp.h.
	timeWait = time.Minute
	// minGrown is how many more sockets than before a source must have to stand out from others: with 20, a share of
	// half has a standard error of 11 %.
	minGrown = 20
	// lookCloser is how long after a rise dumps of all sockets are asked for: as long as the patience of clients (3 to 10 s), after
	// which the sockets of a flood are all there. newNormal is when a rise without one source is no news any more.
	lookCloser, newNormal = 10 * time.Second, 2 * time.Minute
	// minSeen is the share of the connections accepted in the last second that must be among the new sockets: who opens
	// connections that are gone before the dump is not known.
	minSeen = 0.5
)

func newSurgeSockets() surgeSockets {
	return surgeSockets{HostSockets: measure.NewHostSockets(), sources: measure.NewSubjects[socketSource, sourceSockets](measure.MaxPerDetector)}
}

func (d *surgeSockets) sample(at capture.Instant, s *capture.Sample) {
	const all = 1<<capture.Established | 1<<capture.TimeWait | 1<<capture.Listen
	switch {
	case s.Host != nil:
		d.demand.sample(at, s.Host)
	case s.Sockets != nil && s.Sockets.States&all == all && !s.Sockets.Interrupted:
		d.dump(at, s.Sockets)
	}
}

func (d *surgeSockets) dump(at capture.Instant, t *capture.SocketTable) {
	calm := d.demand.high == 0 && !d.demand.blind
	if calm {
		d.prior, d.before = d.before, at
	}
	d.at = at
	d.sources.Each(func(_ socketSource, x *sourceSockets) bool {
		if calm {
			x.prior = x.before
		}
		x.now, x.half = sourceCount{}, 0
		return true
	})
	for i := range t.Sockets {
		s := &t.Sockets[i]
		if s.State == capture.Listen || !d.Listens(s.Local.Port) {
			continue
		}
		x := d.sources.Get(socketSource{s.Local, s.Remote.Addr})
		if x == nil {
			continue
		}
		switch {
		case s.State != capture.TimeWait:
			x.now.open++
			x.peer = s.Remote
		case calm || time.Duration(s.TimerLeft)*time.Millisecond > timeWait-analyze.WindowLength:
			x.now.closed++
			x.peer = s.Remote
		}
		if s.State == capture.SynRecv || s.State == capture.NewSynRecv {
			x.half++
		}
	}
	d.sources.Each(func(_ socketSource, x *sourceSockets) bool {
		if calm {
			x.before = x.now
		}
		return x.now.all()+x.before.all()+x.prior.all() > 0
	})
}

func (d *counterDemand) sample(at capture.Instant, h *capture.HostSample) {
	if !h.Known(capture.PassiveOpens) || !h.Known(capture.ListenDrops) {
		d.known = false
		return
	}
	old, since, known := d.last, at.Sub(d.at), d.known
	now := demandCounts{h.Counters[capture.PassiveOpens], h.Counters[capture.SyncookiesSent], h.Counters[capture.ListenDrops]}
	if known = known && now.accepted >= old.accepted && now.cookies >= old.cookies && now.dropped >= old.dropped; known && since < minInterval {
		return
	}
	d.last, d.at, d.known, d.blind = now, at, true, known && since > maxInterval
	if !known {
		d.dropped = 0
		if !d.risen() {
			d.high = 0
		}
		return
	}
	rate := func(now, before uint64) float64 { return float64(now-before) / since.Seconds() }
	dropped := rate(d.last.dropped, old.dropped)
	if d.blind && (d.high == 0 || d.risen()) {
		d.dropped = dropped
		return
	}
	// A connection that a cookie brings about is counted as accepted, too. What was turned away a second ago is asked for again, so
	// that under pressure this is a lower bound, good in the first seconds of a rise.
	d.accepted = rate(d.last.accepted, old.accepted)
	came := max(d.accepted, rate(d.last.cookies, old.cookies)) + dropped
	fresh := max(came-d.dropped, 0)
	if d.blind { // who is turned away comes twice in it: all that it shows is that the rise goes on
		fresh = min(fresh, slices.Max(d.rates[:d.high]))
	}
	d.asking = came
	turned := max(dropped-d.dropped, 0)
	d.dropped = dropped
	if d.risen() {
		if d.low++; came > (d.rates[2]+d.usual())/2 {
			d.low = 0
		}
		if d.low >= stat.Recovered {
			d.high, d.low = 0, 0
		}
		return
	}
	if d.span > 0 && fresh >= stat.MinRate && fresh >= stat.MinRise*d.usual() {
		if d.high == 0 {
			d.onset, d.unanswered = at.Add(-since), 0
		}
		d.rates[d.high] = fresh
		d.unanswered += turned * since.Seconds()
		if d.high++; d.risen() {
			// It began within the first interval.
			part := min(d.rates[0]/d.rise(), 1)
			d.onset = d.onset.Add(time.Duration((1 - part) * float64(analyze.WindowLength)))
		}
		return
	}
	for ; d.high > 0; d.high-- { // a burst that is over
		d.asked, d.span = d.asked+d.rates[d.high-1], d.span+1
	}
	d.asked, d.span = d.asked+fresh*since.Seconds(), d.span+since.Seconds()
	copy(d.turned[:], d.turned[1:])
	copy(d.came[:], d.came[1:])
	d.turned[failuresLook-1], d.came[failuresLook-1] = dropped, came
}

// risen reports whether the rate is known to be higher than before.
func (d *counterDemand) risen() bool { return d.high == len(d.rates) }

// settle takes the higher rate as the usual one from now on.
func (d *counterDemand) settle() {
	d.asked, d.high, d.low = d.asking*d.span, 0, 0
}

// usual is the rate before.
func (d *counterDemand) usual() float64 { return d.asked / max(d.span, 1) }

// rise is the rate in the first whole intervals of the rise.
func (d *counterDemand) rise() float64 { return (d.rates[1] + d.rates[2]) / 2 }

func (d *surgeSockets) judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if !d.demand.risen() {
		return
	}
	found := d.found
	d.found = false
	if since := w.End.Sub(d.demand.onset); !found && since > newNormal {
		d.demand.settle()
		return
	} else if w.Ask != nil && (found || since < lookCloser) {
		w.Ask(analyze.Ask{Full: true})
	}
	if d.at <= d.demand.onset {
		return // the next dump will show who it is
	}
	var busiest socketSource
	var first, next, grown, old, sources, sourcesBefore uint32
	for k, x := range d.sources.All {
		before := d.past(x)
		if old += before.all(); before.all() > 0 {
			sourcesBefore++
		}
		if x.now.all() <= before.open {
			continue
		}
		n := x.now.all() - before.open
		sources++
		if grown += n; n > first {
			first, next, busiest = n, first, k
		} else if n > next {
			next = n
		}
	}
	if first < minGrown || float64(grown) < minSeen*d.demand.accepted || w.Local.Is(busiest.client) {
		return
	}
	x, r := d.sources.M[busiest], &d.demand
	span := w.End.Sub(r.onset).Seconds()
	f := Surge{Class: classSingle, Sampled: true, Share: stat.Ratio(first, grown), ShareBefore: stat.Ratio(d.past(x).all(), max(old, 1)), HalfOpen: int(x.half),
		RateBefore: r.usual(), // of all: sockets that come and go between two dumps may have been its own
		Baseline:   max(r.onset.Sub(w.First).Seconds(), 0), Sources: int(sources), SourcesBefore: int(sourcesBefore), Unanswered: int(r.unanswered)}
	if d.past(x).all() == 0 {
		f.NewShare = f.Share
	}
	f.Rate, f.RateNext = r.rise()*f.Share, r.rise()*stat.Ratio(next, grown)
	f.SYNs, f.TotalSYNs = int(f.Rate*span), int(r.rise()*span)
	var turned, came float64
	for i := range r.came {
		turned, came = turned+r.turned[i], came+r.came[i]
	}
	if came > 0 {
		f.FailedBefore = turned / came
	}
	if f.Share < w.Params.Float("min_share") || f.Share < 1.5*f.ShareBefore {
		return // of a rise that many share, or that comes through a proxy as ever, counters do not tell where it goes
	}
	// Whether it is worth a closer look, for as long as it lasts.
	d.found = f.Rate >= max(w.Params.Float("min_rate"), w.Params.Float("min_factor")*f.RateBefore)
	emit(analyze.Symptom{Onset: r.onset, Features: f,
		Subject:  analyze.Subject{Kind: analyze.SubjectSource, Host: busiest.server.Addr.String(), Port: busiest.server.Port, Peer: busiest.client.String()},
		Evidence: []analyze.Evidence{{At: d.at, Flow: x.peer.String() + " > " + busiest.server.String(), Note: "one of its sockets"}}})
}

// past are the sockets that x had before the rise.
func (d *surgeSockets) past(x *sourceSockets) sourceCount {
	if d.before <= d.demand.onset {
		return x.before
	}
	return x.prior
}
