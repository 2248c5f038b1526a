package measure

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
)

// What the detectors mean by the same word. It is defined once, since causes join what different detectors find: what is unanswered for one
// is so for the others.
const (
	// IgnoredAfter is for how long the SYN of an unanswered connection request has had no answer. By then the SYN has been sent again
	// after 1 s and once more after 2 s (RFC 6298 §2, §5.5), so that losing one or two packets on a path does not make a server look
	// dead; or the program has given up before.
	IgnoredAfter = 3 * time.Second
	// lookupDecided: a lookup is unanswered when its newest query is (flow.DNSTimeout), and in a window more nothing has come. In that
	// window a resolver whose time-out is as long asks again.
	lookupDecided = flow.DNSTimeout + analyze.WindowLength
	// BrokenOff tells giving up: a peer that closes gave up if it had waited for the answer, or for its next bytes, for that long. Whoever has the whole
	// answer closes at once; the shortest time-outs in use are 1 s, and TCP's first repetition comes after 0.2 s (TCP_RTO_MIN).
	BrokenOff = flow.GiveUp
	// StalledAfter tells standing still: a transfer stands still when what it lacks has been missing for three time-outs with back-off from TCP_RTO_MIN,
	// 0.2 + 0.4 + 0.8 s.
	StalledAfter = 1400 * time.Millisecond
	// ShortestTimeout is the least time-out after which a sender repeats itself (Linux TCP_RTO_MIN, include/net/tcp.h).
	ShortestTimeout = 200 * time.Millisecond
	// Lonely is how far back silences of single peers are counted: clients that go away do so one by one, and two of them within
	// two seconds may be chance.
	Lonely = time.Minute
	// Episode joins what comes and goes: what stops for less is one trouble that comes and goes. Findings are kept as long (keep_for of the rules).
	Episode = 60 * time.Second
	// IdleState is after how long a healthy subject without traffic is forgotten.
	IdleState = 10 * time.Minute
)

// DNSPatience are the time-outs that DNS clients use: how long after a query the caller waits is not visible, and a query that will never
// be answered has to stop counting as a call in flight at some time. The one that makes the level flattest is taken (resolv.conf(5): 5 s;
// systemd-resolved starts below 1 s; many programs 2 or 3 s).
var DNSPatience = [...]time.Duration{time.Second, 2 * time.Second, 3 * time.Second, flow.DNSTimeout}
