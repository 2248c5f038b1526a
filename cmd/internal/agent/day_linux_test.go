package agent

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/capture/sockets"
	"jindan/cmd/internal/diagnose"
)

// dayGrowth is what the memory of the engine and the flight recorder may gain from the sixth hour to the twenty-fourth, in %:
// maps and slices double at times; a leak of what one connection leaves behind would be several hundred.
const dayGrowth = 25

// TestDay shows the engine, with the agent's options, a day of a host that has one or two connections a second from ever new clients,
// the samples of every second, and in each hour a fault: listeners that refuse, and sockets in CLOSE_WAIT.
func TestDay(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a simulated day, under the race detector some minutes, and no goroutine is at work")
	}
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	o, err := diagnose.EngineOptions(recording.Meta{Local: "10.0.0.1", Sources: []string{"any", "sockets", "host"}})
	if err != nil {
		t.Fatal(err)
	}
	o.Causes = cause.New(set)
	states := map[analyze.State]int{}
	e, err := analyze.New(set, detect.All(), o, func(f *analyze.Finding) error {
		states[f.State]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ring := recording.NewRing(recording.RingOptions{Keep: 40 * time.Second, MaxBytes: 64 << 20})
	h := hostDay{r: rand.New(rand.NewPCG(1, 2)), at: 1_700_000_000_000_000_000}
	goroutines := runtime.NumGoroutine()
	hours := func(n int) uint64 {
		for range n * 3600 {
			b := h.second()
			ring.Add(b)
			if err := e.Observe(b); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	early := hours(6)
	opened := states[analyze.Open]
	late := hours(18)
	if opened < 6 || states[analyze.Open] < 4*opened-4 || states[analyze.Resolved] < 24 {
		t.Errorf("%d findings opened in six hours; in a day %v: the day is not what it should be", opened, states)
	}
	t.Logf("%d KiB after 6 hours, %d KiB after 24; %d goroutines, then %d; %v", early>>10, late>>10, goroutines, runtime.NumGoroutine(), states)
	if late*100 > early*(100+dayGrowth) {
		t.Errorf("%d KiB after 6 hours, %d KiB after 24", early>>10, late>>10)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, then %d", goroutines, n)
	}
	runtime.KeepAlive(ring)
	if _, err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// hostDay makes what a host at 10.0.0.1 sees, second by second.
type hostDay struct {
	r     *rand.Rand
	at    capture.Instant
	n     int // seconds so far
	batch capture.Batch
	host  capture.HostSample
}

func (h *hostDay) second() *capture.Batch {
	h.batch.Obs = h.batch.Obs[:0]
	trouble := h.n%3600 >= 1800 && h.n%3600 < 1860
	server := capture.Endpoint{Addr: v4(10, 0, 0, 1), Port: 8080}
	for range 1 + h.n%2 {
		c := h.client()
		if trouble {
			h.tcp(c, server, capture.SYN, 1000, 0, 0)
			h.tcp(server, c, capture.RST|capture.ACK, 0, 1001, 0)
			continue
		}
		h.tcp(c, server, capture.SYN, 1000, 0, 0)
		h.tcp(server, c, capture.SYN|capture.ACK, 5000, 1001, 0)
		h.tcp(c, server, capture.ACK, 1001, 5001, 0)
		h.tcp(c, server, capture.ACK|capture.PSH, 1001, 5001, 200)
		h.tcp(server, c, capture.ACK|capture.PSH, 5001, 1201, 900)
		h.tcp(c, server, capture.ACK|capture.FIN, 1201, 5901, 0)
		h.tcp(server, c, capture.ACK|capture.FIN, 5901, 1202, 0)
		h.tcp(c, server, capture.ACK, 1202, 5902, 0)
	}
	table := &capture.SocketTable{States: sockets.GateStates, Sockets: []capture.Socket{{State: capture.Listen, Local: server, SendQ: 128, Inode: 7, Cookie: 1}}}
	state, others := capture.CloseWait, 0
	if trouble {
		others = 40
	} else if h.n%15 == 0 {
		table.States, table.Info, state, others = capture.AllStates, true, capture.Established, 40
	}
	for i := range others {
		table.Sockets = append(table.Sockets, capture.Socket{State: state, Local: server, Remote: capture.Endpoint{Addr: v4(10, 0, 9, 9), Port: uint16(30000 + i)},
			RecvQ: 1, Inode: 100 + uint32(i), Cookie: uint64(h.n/3600*100 + i + 2)})
	}
	sample := h.host
	sample.Set(capture.OutSegs, uint64(h.n)*20)
	h.add(capture.Observation{Kind: capture.KindSample, Sample: &capture.Sample{Sockets: table}})
	h.add(capture.Observation{Kind: capture.KindSample, Sample: &capture.Sample{Host: &sample}})
	h.n++
	h.at = capture.Instant(1_700_000_000_000_000_000).Add(time.Duration(h.n) * time.Second)
	h.batch.Until = h.at
	return &h.batch
}

// client is one of 16 million addresses, with any port.
func (h *hostDay) client() capture.Endpoint {
	x := h.r.Uint32()
	return capture.Endpoint{Addr: v4(11, byte(x), byte(x>>8), byte(x>>16)), Port: uint16(1024 + h.r.IntN(60000))}
}

func (h *hostDay) tcp(from, to capture.Endpoint, flags uint8, seq, ack, size uint32) {
	h.add(capture.Observation{Packet: capture.Packet{Src: from, Dst: to, Proto: capture.ProtoTCP, Flags: flags, Seq: seq, Ack: ack, Len: size,
		IPLen: 40 + size, Window: 1000, TTL: 64, IPID: uint16(h.r.Uint32()) | 1}})
}

func (h *hostDay) add(o capture.Observation) {
	h.at = h.at.Add(time.Millisecond)
	o.At = h.at
	h.batch.Obs = append(h.batch.Obs, o)
}

func v4(a, b, c, d byte) capture.Addr {
	return capture.Addr{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d}
}
