// Package detect holds the diagnoses: one detector a file, each a pure function of
// flow events and windows. All lists them.
package detect

import (
	"jindan/analyze"
	"jindan/analyze/measure"
)

// All returns a new instance of every detector, for one engine.
func All() []analyze.Detector {
	scan, refused, dead := newScan().(*scan), newConnectionRefused().(*connectionRefused), newDeadUpstream().(*deadUpstream)
	still, skew, gone := newStandstill().(*standstill), newBackendSkew().(*backendSkew), newDeadConnection().(*deadConnection)
	size, again := newSizeLoss().(*sizeLoss), newRetransmission().(*retransmission)
	unanswered, delay := newDNSUnanswered().(*dnsUnanswered), newDNSDelay().(*dnsDelay)
	slow := newSlowServer().(*slowServer)
	// What several of them read is followed once.
	calls := measure.NewDials()
	for _, d := range []interface{ share(calls *measure.Dials) }{unanswered, still, dead, refused, skew} {
		d.share(calls)
	}
	gone.Dials, slow.Dials = calls, calls
	again.Ways = size.Ways
	delay.Lookups, slow.where.Lookups, size.dns.lookups = unanswered.lookups, unanswered.lookups, unanswered.lookups
	refused.scanners, dead.scanners, still.scanners = scan.scanners, scan.scanners, scan.scanners
	closing, pool, load := newCloseWait().(*closeWait), newPoolExhausted().(*poolExhausted), newSurge().(*surge)
	pool.where = slow.where
	queue, limits := newAcceptQueue().(*acceptQueue), newExhaustion().(*exhaustion)
	sockets := measure.NewHostSockets()
	for _, of := range []**measure.HostSockets{&again.resent.HostSockets, &dead.opening.HostSockets, &closing.sockets.HostSockets, &pool.socks.HostSockets,
		&load.sockets.HostSockets, &queue.HostSockets, &limits.HostSockets, &refused.sockets, &slow.sockets} {
		*of = sockets
	}
	return []analyze.Detector{
		scan, // first: the measures of the others, and they, ask who scans
		newCaptureQuality(),
		size,
		again,
		newPathCut(),
		load,
		unanswered,
		delay,
		newDNSErrors(),
		gone,
		newStateMismatch(),
		still,
		dead,
		refused,
		skew,
		slow,
		pool,
		closing,
		queue,
		limits,
		newPortError(),
		newChange(),
		newAbnormalTermination(),
		newSlowReceiver(),
		newNagle(),
		newSegments("segment-size-loss"),
		newSegments("segment-loss"),
		newSegments("segment-reset"),
		newSegments("segment-delay"),
		newSegments("segment-disorder"),
	}
}

// Features maps each rule to the zero value of its features, for loading the catalogue.
func Features() map[string]any {
	m := make(map[string]any)
	for _, d := range All() {
		s := d.Spec()
		m[s.Rule] = s.Features
	}
	return m
}
