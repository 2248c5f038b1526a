package detect

import "jindan/analyze"

// All returns a new instance of every detector, for one engine.
func All() []analyze.Detector {
	scan, refused, dead := newScan().(*scan), newConnectionRefused().(*connectionRefused), newDeadUpstream().(*deadUpstream)
	still, skew, gone := newStandstill().(*standstill), newBackendSkew().(*backendSkew), newDeadConnection().(*deadConnection)
	size, again := newSizeLoss().(*sizeLoss), newRetransmission().(*retransmission)
	unanswered, delay := newDNSUnanswered().(*dnsUnanswered), newDNSDelay().(*dnsDelay)
	slow := newSlowServer().(*slowServer)
	// What several of them read is followed once.
	calls := newDials()
	for _, d := range []interface{ share(calls *dials) }{unanswered, still, dead, refused, skew} {
		d.share(calls)
	}
	gone.dials, slow.dials = calls, calls
	again.ways = size.ways
	delay.lookups, slow.where.lookups, size.dns.lookups = unanswered.lookups, unanswered.lookups, unanswered.lookups
	refused.scanners, dead.scanners, still.scanners = scan.scanners, scan.scanners, scan.scanners
	closing, pool, load := newCloseWait().(*closeWait), newPoolExhausted().(*poolExhausted), newSurge().(*surge)
	pool.where = slow.where
	queue, limits := newAcceptQueue().(*acceptQueue), newExhaustion().(*exhaustion)
	sockets := newHostSockets()
	for _, of := range []**hostSockets{&again.resent.hostSockets, &dead.opening.hostSockets, &closing.sockets.hostSockets, &pool.socks.hostSockets,
		&load.sockets.hostSockets, &queue.hostSockets, &limits.hostSockets, &refused.sockets, &slow.sockets} {
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
