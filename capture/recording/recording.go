// Package recording keeps what the agent observed, so that it can be diagnosed again elsewhere with
// the same result.
//
// A recording is a directory of two files. packets.pcapng holds the packets that a capture file can
// express, as any capture tool reads them: headers rebuilt from [capture.Packet], with payload left
// out but for DNS messages and what ICMP errors quote. samples.jsonl holds everything else, one JSON object a line, and
// for each line the number of packets before it, so that [Open] restores the one order of the whole.
//
// # samples.jsonl
//
// The first line is the [Meta] with the schema. Each further line has "n" (1, 2, 3…) and "after" (packets before
// it), and one of these:
//
//	"sample"            a capture.Sample, with "at" and "source"
//	"lost", "reason"    a capture.KindLoss, with "at" and "source"
//	"packet"            a packet that no capture file can express, whole, with "at" and "source"
//	"until"             the stream said here that nothing earlier will follow
//	"next"              the source and the frame number of the packet that follows in packets.pcapng, and of
//	                    those after it: the same source, and 0 or counting on
//	"end"               the last line: how many observations a limit left out. Without it the recording is cut short.
//
// Times are RFC 3339 with nanoseconds, UTC.
package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"jindan/capture"
)

// The files of a recording.
const (
	PacketsFile = "packets.pcapng"
	SamplesFile = "samples.jsonl"
)

const (
	schema = "jindan.recording/v1"
	// maxLine bounds a line of samples.jsonl: a dump of 70,000 sockets with tcp_info at 950 bytes each.
	maxLine = 64 << 20
	// maxElements bounds the sockets, processes and the like in a line, 272 bytes of memory each at most: twice 70,000.
	maxElements = 140_000
	// maxMeta bounds the first line, in bytes; that of today has 1,000.
	maxMeta = 1 << 20
	// maxInstant bounds times in ns before and after 1970, as capture/pcapfile does: durations can be added.
	maxInstant = 1 << 62
)

func possible(at capture.Instant) bool { return -maxInstant <= at && at <= maxInstant }

// Meta is what findings repeat of the agent that recorded, so that a replay says the same.
type Meta struct {
	Schema  string   `json:"schema"` // set by Create
	Host    string   `json:"host,omitempty"`
	Agent   string   `json:"agent,omitempty"`
	Local   string   `json:"local,omitempty"`   // address of the host, if it was told
	Netns   string   `json:"netns,omitempty"`   // network namespace, if it was not the agent's own
	Sources []string `json:"sources,omitempty"` // names, by Observation.Source
	// MaxConns and MaxPaths bounded what the agent followed at a time: a replay keeps to them.
	MaxConns int `json:"max_connections,omitempty"`
	MaxPaths int `json:"max_paths,omitempty"`
	// Counters are the names of HostSample.Counters, set by Create: positions differ between versions.
	Counters []string `json:"counters,omitempty"`
}

func counterNames() []string {
	names := make([]string, capture.CounterCount)
	for c := range names {
		names[c] = capture.Counter(c).String()
	}
	return names
}

// line is a line of samples.jsonl.
type line struct {
	N      uint64           `json:"n"`
	After  uint64           `json:"after"`
	At     *capture.Instant `json:"at"`
	Source uint16           `json:"source"`
	Sample *capture.Sample  `json:"sample"`
	Reason string           `json:"reason"`
	Lost   uint64           `json:"lost"`
	Packet *capture.Packet  `json:"packet"`
	Until  *capture.Instant `json:"until"`
	Next   *next            `json:"next"`
	End    *end             `json:"end"`
}

// next says which packet follows.
type next struct {
	Source uint16 `json:"source"`
	Frame  uint64 `json:"frame"`
}

// end closes a recording.
type end struct {
	LeftOut uint64 `json:"left_out"`
}

// follow is next for the packet after it.
func (x next) follow() next {
	if x.Frame != 0 {
		x.Frame++
	}
	return x
}

// IsRecording reports whether dir is a directory with a recording, whole or not.
func IsRecording(dir string) bool {
	fd, err := openSamples(dir)
	if err != nil {
		return false
	}
	defer fd.Close()
	_, err = readMeta(&lineReader{r: bufio.NewReader(fd)})
	return err == nil
}

// readMeta reads the first line.
func readMeta(r *lineReader) (*Meta, error) {
	b, err := r.next()
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, fmt.Errorf("%s is empty or cut short in its first line: it is no recording of jindan", SamplesFile)
	case err != nil:
		return nil, fmt.Errorf("the first line of %s: %w", SamplesFile, err)
	case len(b) > maxMeta:
		return nil, fmt.Errorf("the first line of %s has more than %d bytes: it is no recording of jindan", SamplesFile, maxMeta)
	}
	var m Meta
	if !bytes.HasPrefix(b, []byte("{")) || json.Unmarshal(b, &m) != nil || m.Schema == "" {
		return nil, fmt.Errorf("%s does not start with the description of a recording of jindan", SamplesFile)
	}
	if m.Schema != schema {
		return nil, fmt.Errorf("%s has the schema %q, and only %s is known: use the version of jindan that recorded it",
			SamplesFile, m.Schema, schema)
	}
	return &m, nil
}
