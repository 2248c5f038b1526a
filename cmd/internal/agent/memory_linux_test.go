package agent

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
	"jindan/cmd/internal/diagnose"
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

// inundation is a flood as the engine and the flight recorder of one namespace get it: 100,000 packets a second.
type inundation struct {
	b    capture.Batch
	at   capture.Instant
	each func()
}

func (x *inundation) put(p capture.Packet) {
	x.at += 10_000
	p.TTL, p.IPLen, p.Window, p.Hash = 64, p.Len+40, 65535, capture.FlowHash(&p.Src, &p.Dst)
	x.b.Obs = append(x.b.Obs, capture.Observation{At: x.at, Kind: capture.KindPacket, Packet: p})
	if len(x.b.Obs) > 500 || len(x.b.Obs) > 0 && x.at.Sub(x.b.Until) > time.Minute {
		x.b.Until = x.at
		x.each()
		x.b.Obs = x.b.Obs[:0]
	}
}

func (x *inundation) tcp(src, dst capture.Endpoint, flags uint8, seq, ack, n uint32) {
	x.put(capture.Packet{Src: src, Dst: dst, Proto: capture.ProtoTCP, Flags: flags, Seq: seq, Ack: ack, Len: n})
}

// endpointIn is address number i of a network.
func endpointIn(net, i uint32, port uint16) (e capture.Endpoint) {
	e.Addr[10], e.Addr[11], e.Port = 0xff, 0xff, port
	binary.BigEndian.PutUint32(e.Addr[12:], net<<24+i)
	return e
}

// TestMemoryBudget: each flood stays within budget.memory and a tenth more, and what is dropped for it is counted.
func TestMemoryBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: floods of half a million items")
	}
	here := func(port uint16) capture.Endpoint { return endpointIn(192, 1, port) }
	question := []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04abcd\x04test\x00\x00\x01\x00\x01")
	for _, flood := range []struct {
		name  string
		n     uint32
		send  func(x *inundation, i uint32)
		drops bool // more than the tables hold
	}{
		{"connections from ever new addresses, each asks and is answered", 500_000, func(x *inundation, i uint32) {
			client := endpointIn(11, i, uint16(1024+i%60_000))
			x.tcp(client, here(80), capture.SYN, 100, 0, 0)
			x.tcp(here(80), client, capture.SYN|capture.ACK, 500, 101, 0)
			x.tcp(client, here(80), capture.ACK, 101, 501, 0)
			x.tcp(client, here(80), capture.ACK|capture.PSH, 101, 501, 20)
			x.tcp(here(80), client, capture.ACK|capture.PSH, 501, 121, 20)
		}, true},
		{"SYNs to closed ports", 300_000, func(x *inundation, i uint32) {
			client, port := endpointIn(11, i%12, uint16(1024+i%60_000)), here(uint16(2000+i%1200))
			x.tcp(client, port, capture.SYN, i*1000, 0, 0)
			x.tcp(port, client, capture.RST|capture.ACK, 0, i*1000+1, 0)
		}, true},
		{"calls to dead targets", 300_000, func(x *inundation, i uint32) {
			x.tcp(here(uint16(1024+i%60_000)), endpointIn(11, i, 80), capture.SYN, 1, 0, 0)
		}, true},
		{"askers of a silent resolver", 300_000, func(x *inundation, i uint32) {
			binary.BigEndian.PutUint16(question, uint16(i))
			binary.BigEndian.PutUint32(question[13:], 0x61616161+i%26+i/26%26<<8+i/676%26<<16+i/17576%26<<24)
			x.put(capture.Packet{Src: endpointIn(11, i, 40_000), Dst: here(53), Proto: capture.ProtoUDP, Len: uint32(len(question)), Data: question})
		}, true},
		{"connections with a gap", 200_000, func(x *inundation, i uint32) {
			client := endpointIn(11, i%5000, uint16(1024+i/5000))
			x.tcp(client, here(80), capture.ACK, 100, 500, 10)
			x.tcp(client, here(80), capture.ACK, 120, 500, 10)
			x.tcp(client, here(80), capture.ACK, 140, 500, 10)
		}, true},
		{"packets ten minutes apart", 300, func(x *inundation, i uint32) {
			x.at = x.at.Add(10 * time.Minute)
			x.tcp(endpointIn(11, i, 1024), here(80), capture.ACK, 100, 500, 10)
		}, false},
	} {
		t.Run(flood.name, func(t *testing.T) {
			cfg := config.Default()
			m := divide(cfg, 1)
			defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(m.heap))
			set, err := diagnose.Catalogue("")
			if err != nil {
				t.Fatal(err)
			}
			o, err := diagnose.EngineOptions(recording.Meta{MaxConns: m.conns, MaxPaths: m.paths})
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
			most, batches := uint64(0), 0
			x := &inundation{at: 1_700_000_000_000_000_000}
			x.each = func() {
				ring.Add(&x.b)
				if err := e.Observe(&x.b); err != nil {
					t.Fatal(err)
				}
				if batches++; batches%16 == 1 {
					var s runtime.MemStats
					runtime.ReadMemStats(&s)
					most = max(most, s.Sys-s.HeapReleased)
				}
			}
			for i := range flood.n {
				flood.send(x, i)
			}
			d, err := e.Close()
			if err != nil {
				t.Fatal(err)
			}
			runtime.KeepAlive(ring)
			if limit := uint64(cfg.Budget.Memory) * 11 / 10; most > limit || most == 0 {
				t.Errorf("%d MiB were resident, %d MiB are allowed with a tenth more", most>>20, limit>>20)
			}
			if flood.drops && d.Coverage.Evicted == 0 && len(d.Coverage.Refused) == 0 {
				t.Error("nothing says that something was dropped")
			}
			t.Logf("%d MiB, %d connections at most, %d dropped, %v", most>>20, m.conns, d.Coverage.Evicted, d.Coverage.Refused)
		})
	}
}
