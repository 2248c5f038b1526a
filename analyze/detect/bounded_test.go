package detect

import (
	"encoding/binary"
	"runtime"
	"strconv"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/rules"
)

// A flood from addresses that are never seen twice must not make the detectors grow: each caps its subjects.
func TestDetectorsAreBounded(t *testing.T) {
	const (
		rounds    = 16     // of a second each
		strangers = 10_000 // a round: half of them all are more than the largest cap, maxAttempts
	)
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	o := analyze.Options{Flow: flow.Options{MaxConns: 2000, MaxPaths: 1000}} // to leave the detectors alone with it
	e, err := analyze.New(set, All(), o, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var half uint64
	for r := range rounds {
		var n network
		for i := range strangers {
			stranger(&n, time.Duration(r)*sec+time.Duration(i)*50*time.Microsecond, uint32(r*strangers+i))
		}
		if err := e.Observe(&capture.Batch{Obs: n.obs, Until: begin.Add(time.Duration(r+1) * sec)}); err != nil {
			t.Fatal(err)
		}
		if r == rounds/2-1 {
			half = heap()
		}
	}
	full := heap()
	runtime.KeepAlive(e)
	t.Logf("%d kB after %d strangers, %d kB after %d", half>>10, rounds/2*strangers, full>>10, rounds*strangers)
	if full > half+half/10 {
		t.Errorf("%d kB after %d strangers, and %d kB after %d", half>>10, rounds/2*strangers, full>>10, rounds*strangers)
	}
}

// stranger shows every detector of packets something that it might remember.
func stranger(n *network, at time.Duration, i uint32) {
	c, s := capture.Endpoint{Port: 40_000}, capture.Endpoint{Port: uint16(1 + i%60_000)}
	for k, e := range []*capture.Endpoint{&c, &s} {
		copy(e.Addr[:], []byte{0x20, 0x01, 0x0d, 0xb8, byte(k)})
		binary.BigEndian.PutUint32(e.Addr[12:], i)
	}
	switch i % 4 {
	case 0: // the same request and answer twice, then half-closed
		n.tcp(at, c, s, capture.SYN, 0, 0, 0)
		n.tcp(at, s, c, capture.SYN|capture.ACK, 0, 1, 0)
		n.tcp(at, c, s, capture.ACK, 1, 1, 0)
		for range 2 {
			n.tcp(at, c, s, capture.ACK|capture.PSH, 1, 1, 1460)
			n.tcp(at, s, c, capture.ACK|capture.PSH, 1, 1461, 1460)
			at += 250 * ms
		}
		n.tcp(at, c, s, capture.ACK|capture.FIN, 1461, 1461, 0)
		n.tcp(at, s, c, capture.ACK, 1461, 1462, 0)
	case 1: // refused
		n.tcp(at, c, s, capture.SYN, 0, 0, 0)
		n.tcp(at, s, c, capture.RST|capture.ACK, 0, 1, 0)
	case 2: // a SYN twice, without an answer
		n.tcp(at, c, s, capture.SYN, 0, 0, 0)
		n.tcp(at+100*ms, c, s, capture.SYN, 0, 0, 0)
	case 3:
		s.Port = 53
		q := message(uint16(i), "name"+strconv.Itoa(int(i)), 0, 0)
		n.udp(at, c, s, q, len(q))
		if i%8 == 3 {
			a := message(uint16(i), "name"+strconv.Itoa(int(i)), 0x8180, 1)
			n.udp(at+300*ms, s, c, a, len(a))
		}
	}
}
