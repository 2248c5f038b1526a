package main

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
	"unsafe"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/cmd/internal/config"
)

func TestDivide(t *testing.T) {
	for _, mib := range []config.Size{64, 128, 256, 1024, 16384} {
		for _, namespaces := range []int{1, 4} {
			cfg := config.Default()
			cfg.Budget.Memory = mib * config.MiB
			m := divide(cfg, namespaces)
			took := baseMemory + namespaces*(int(cfg.Capture.RingSize)+m.conns*connMemory+m.paths*pathMemory+2*m.recorder+m.sockets*int(unsafe.Sizeof(capture.Socket{})))
			least := baseMemory + namespaces*(int(cfg.Capture.RingSize)+leastConns*connMemory+leastPaths*pathMemory+2*leastRecorder+leastSockets*int(unsafe.Sizeof(capture.Socket{})))
			if most := max(int(cfg.Budget.Memory), least); took > most*11/10 {
				t.Errorf("%d MiB for %d namespaces: %+v take %d MiB", mib, namespaces, m, took>>20)
			}
			if mib >= 256 && namespaces == 1 && m.conns < 50_000 {
				t.Errorf("%d MiB follow %d connections only", mib, m.conns)
			}
		}
	}
}

// TestMemoryBudget: a flood of connections from ever new addresses, each of which asks and is answered, stays within
// budget.memory, and what is dropped for it is counted.
func TestMemoryBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: half a million connections")
	}
	cfg := config.Default()
	m := divide(cfg, 1)
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(m.heap))
	set, err := catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	o, err := engineOptions(recording.Meta{MaxConns: m.conns, MaxPaths: m.paths})
	if err != nil {
		t.Fatal(err)
	}
	o.Causes = cause.New(set)
	e, err := analyze.New(set, detect.All(), o, func(*analyze.Finding) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ring := recording.NewRing(recording.RingOptions{Keep: 40 * time.Second, MaxBytes: m.recorder})
	debug.FreeOSMemory()
	resident := func() uint64 {
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.Sys - s.HeapReleased
	}
	at, server := capture.Instant(1_700_000_000_000_000_000), capture.Endpoint{Port: 80}
	server.Addr[15] = 1
	server.Addr[10], server.Addr[11] = 0xff, 0xff
	most := uint64(0)
	var b capture.Batch
	for i := range uint32(500_000) {
		client := capture.Endpoint{Port: uint16(1024 + i%60_000)}
		client.Addr[10], client.Addr[11] = 0xff, 0xff
		binary.BigEndian.PutUint32(client.Addr[12:], 0x0b000000+i)
		put := func(src, dst capture.Endpoint, seq, ack uint32, flags uint8, n uint16) {
			at += 2000 // 100,000 packets a second
			b.Obs = append(b.Obs, capture.Observation{At: at, Kind: capture.KindPacket, Packet: capture.Packet{Src: src, Dst: dst, Seq: seq, Ack: ack,
				Window: 65535, Flags: flags, Proto: 6, TTL: 64, Len: uint32(n), IPLen: uint32(n) + 40, Hash: capture.FlowHash(&src, &dst)}})
		}
		put(client, server, 100, 0, 2, 0)
		put(server, client, 500, 101, 0x12, 0)
		put(client, server, 101, 501, 0x10, 0)
		put(client, server, 101, 501, 0x18, 20)
		put(server, client, 501, 121, 0x18, 20)
		if len(b.Obs) > 500 {
			b.Until = at
			ring.Add(&b)
			if err := e.Observe(&b); err != nil {
				t.Fatal(err)
			}
			b.Obs = b.Obs[:0]
			if i%1000 < 101 {
				most = max(most, resident())
			}
		}
	}
	d, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(ring)
	if limit := uint64(cfg.Budget.Memory) * 11 / 10; most > limit {
		t.Errorf("%d MiB were resident, %d MiB are allowed with a tenth more", most>>20, limit>>20)
	}
	if d.Coverage.Evicted == 0 && len(d.Coverage.Refused) == 0 {
		t.Error("nothing says that connections were dropped")
	}
	t.Logf("%d MiB, %d connections at most, %d dropped, %v", most>>20, m.conns, d.Coverage.Evicted, d.Coverage.Refused)
}
