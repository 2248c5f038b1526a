package detect

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// Equal questions that nobody answers, far more of them than 16 bits count, end, and what a packet costs
// does not grow with their number.
func TestEqualQuestions(t *testing.T) {
	for _, c := range []struct {
		name      string
		questions int
		ports     int // 1: the same port and id each time, so that all are one transaction
		servers   int
	}{
		{"one more than 16 bits count", 1<<16 + 1, 1, 1},
		{"200,000", 200_000, 1, 1},
		{"200,000 from many ports", 200_000, 30_000, 1},
		{"200,000 at two servers in turn", 200_000, 30_000, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := rules.Load(Features())
			if err != nil {
				t.Fatal(err)
			}
			d := newDNSUnanswered().(*dnsUnanswered)
			e, err := analyze.New(set, []analyze.Detector{d}, analyze.Options{}, func(*analyze.Finding) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			p := capture.Packet{Proto: capture.ProtoUDP, TTL: 64, Data: message(7, "a.test", 0, 0)}
			p.Len = uint32(len(p.Data))
			p.IPLen = p.Len + 28
			var obs []capture.Observation
			for i := range c.questions {
				p.Src = capture.Endpoint{Addr: addr("192.0.2.1"), Port: uint16(20_000 + i%c.ports)}
				p.Dst = capture.Endpoint{Addr: addr("198.51.100." + itoa(53+i%c.servers)), Port: 53}
				p.IPID, p.Frame = uint16(i)|1, uint64(i+1)
				at := begin.Add(time.Duration(i) * 4 * sec / (1 << 16))
				if obs = append(obs, capture.Observation{At: at, Packet: p}); len(obs) == 256 || i == c.questions-1 {
					if err := e.Observe(&capture.Batch{Obs: obs, Until: at}); err != nil {
						t.Fatal(err)
					}
					obs = obs[:0]
				}
			}
			if _, err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if limit := uint64(2 * c.questions); d.lookups.Steps > limit {
				t.Errorf("%d steps along chains for %d questions", d.lookups.Steps, c.questions)
			}
			if _, all := d.gone.Of(); len(d.lookups.Pending.M) == 0 && all == 0 {
				t.Error("no lookup was followed")
			}
		})
	}
}
