package detect

import (
	"time"

	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// openings are how long connections of hosts that ask for names take to open. Where these take longer as well, to peers that have nothing
// to do with the names, what the host sends and receives waits on its way: a queue that is full.
type openings struct {
	hosts measure.Subjects[capture.Addr, []opening]
}

type opening struct {
	at   capture.Instant
	peer capture.Addr
	rtt  time.Duration
}

// maxOpenings bounds those that are remembered of each host.
const maxOpenings = 256

func newOpenings() openings {
	return openings{measure.NewSubjects[capture.Addr, []opening](maxListeners)}
}

// asks notes that a host asks for names.
func (o *openings) asks(host capture.Addr) { o.hosts.Get(host) }

// event takes a connection that has been opened at the first try.
func (o *openings) event(e *flow.Event) {
	c := e.Conn
	if list := o.hosts.Peek(c.Client.Addr); list != nil && c.HandshakeRTT > 0 && c.SynTries() == 0 {
		*list = stat.AppendBounded(*list, opening{e.At, c.Server.Addr, c.HandshakeRTT}, maxOpenings)
	}
}

// delay is how much longer connections of a host have taken to open since a time, in the median, than the quickest to the same peer, how
// many these are, and to how many peers other than one.
func (o *openings) delay(host, other capture.Addr, since capture.Instant) (d time.Duration, n, peers int) {
	list := o.hosts.Peek(host)
	if list == nil {
		return 0, 0, 0
	}
	least := make(map[capture.Addr]time.Duration)
	for _, x := range *list {
		if r, ok := least[x.peer]; !ok || x.rtt < r {
			least[x.peer] = x.rtt
		}
	}
	var more []float64
	seen := make(map[capture.Addr]bool)
	for _, x := range *list {
		if x.at >= since && x.peer != other {
			more = append(more, (x.rtt - least[x.peer]).Seconds())
			seen[x.peer] = true
		}
	}
	return time.Duration(stat.Median(more) * float64(time.Second)), len(more), len(seen)
}
