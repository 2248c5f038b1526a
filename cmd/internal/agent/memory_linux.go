package agent

import (
	"unsafe"

	"jindan/capture"
	"jindan/cmd/internal/config"
)

const (
	// baseMemory is what the program takes before it follows anything: code, catalogue, runtime and the tables of the detectors,
	// which are bounded by themselves. Measured: 38 MB resident with 1,000 connections.
	baseMemory = 48 << 20
	// connMemory and pathMemory are what one connection and one path take in the flow table (analyze/flow: 488 bytes and 1.2
	// kB), with a quarter for garbage (gcPercent) and, of connections, another for what the table holds beyond its bound
	// until the window ends.
	connMemory = 488 * 5 / 4 * 5 / 4
	pathMemory = 1200 * 5 / 4
	// leastConns, leastPaths and leastSockets are what a small budget still buys; leastRecorder is of the flight recorder.
	leastConns, leastPaths, leastSockets = 4096, 1024, 1000
	leastRecorder                        = 1 << 20
)

// memory divides budget.memory among what grows with the traffic.
type memory struct {
	conns, paths int // of each namespace's flow table
	sockets      int // in a sample
	recorder     int // bytes of each namespace's flight recorder
	heap         int64
}

// divide is how cfg's budget is used while so many namespaces are watched: of what rings and the program leave, a third goes
// to the flight recorder, which takes as much again while it is written, a sixth to samples of sockets, and half to
// the flow table.
func divide(cfg *config.Config, namespaces int) memory {
	n := int64(max(namespaces, 1))
	all := int64(cfg.Budget.Memory)
	rings := int64(0)
	if cfg.Capture.Enabled {
		rings = int64(cfg.Capture.RingSize) * int64(max(cfg.Capture.Fanout, 1)) * int64(max(len(cfg.Capture.Interfaces), 1)) * n
	}
	rest := max(all-rings-baseMemory, 0) / n
	recorder := int64(0)
	if cfg.Recorder.Enabled {
		recorder = min(int64(cfg.Recorder.MaxBytes), max(rest/6, leastRecorder))
	}
	sockets := min(int64(cfg.Sockets.MaxSockets), max(rest/6/int64(unsafe.Sizeof(capture.Socket{})), leastSockets))
	table := rest - 2*recorder - rest/6
	return memory{
		conns:    int(max(table*5/6/connMemory, leastConns)),
		paths:    int(max(table/6/pathMemory, leastPaths)),
		sockets:  int(sockets),
		recorder: int(recorder),
		heap:     max(all-rings, baseMemory),
	}
}
