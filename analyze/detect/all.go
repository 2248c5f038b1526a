package detect

import (
	"strconv"
	"strings"

	"jindan/analyze"
	"jindan/capture"
)

// All returns a new instance of every detector, for one engine.
func All() []analyze.Detector {
	scan, refused, dead := newScan().(*scan), newConnectionRefused().(*connectionRefused), newDeadUpstream().(*deadUpstream)
	still := newStandstill().(*standstill)
	size, again := newSizeLoss().(*sizeLoss), newRetransmission().(*retransmission)
	again.ways, again.shared = size.ways, true
	unanswered, delay := newDNSUnanswered().(*dnsUnanswered), newDNSDelay().(*dnsDelay)
	delay.lookups, delay.shared = &unanswered.lookups, true
	slow := newSlowServer().(*slowServer)
	slow.where.lookups = &unanswered.lookups
	refused.scanners, dead.scanners, still.scanners = scan.scanners, scan.scanners, scan.scanners
	return []analyze.Detector{
		scan, // first: it tells the others who scans
		newCaptureQuality(),
		size,
		again, // after size, whose ways it reads
		newPathCut(),
		newSurge(),
		unanswered,
		delay, // after unanswered, whose lookups it reads
		newDNSErrors(),
		newDeadConnection(),
		newStateMismatch(),
		still,
		dead,
		refused,
		newBackendSkew(),
		slow, // likewise
		newPoolExhausted(),
		newCloseWait(),
		newAcceptQueue(),
		newExhaustion(),
		newPortError(),
		newChange(),
		newAbnormalTermination(),
		newSlowReceiver(),
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

// serviceFilter is a Wireshark display filter for the connections of a listener.
func serviceFilter(k capture.Endpoint) string {
	field := "ip"
	if strings.Contains(k.Addr.String(), ":") {
		field = "ipv6"
	}
	return field + ".addr == " + k.Addr.String() + " && tcp.port == " + strconv.Itoa(int(k.Port))
}
