// Package view collects what the pictures of a diagnosis are drawn from: series in at most 600 buckets of event time, counts by pair
// of hosts, and of each kind of fault one connection that shows it.
//
// It only looks on: it has no say in any verdict, and an engine without it writes the same records. What it keeps is bounded, and
// what did not fit is counted. The same observations give the same record.
package view

import (
	"jindan/analyze"
	"jindan/capture"
)

// Schema is the name of the record.
const Schema = "jindan.view/v1"

// View is the record of jindan.view/v1.
type View struct {
	Schema string          `json:"schema"`
	Start  capture.Instant `json:"start"` // of the first bucket
	Width  int64           `json:"width"` // of a bucket, in nanoseconds
	First  capture.Instant `json:"first"` // first and last observation
	Last   capture.Instant `json:"last"`

	Host      HostSeries  `json:"host"`
	Services  []Service   `json:"services"`  // those with most requests first
	Resolvers []Resolver  `json:"resolvers"` // those with most queries first
	Listeners []Listener  `json:"listeners"` // from socket samples: those with most CLOSE_WAIT first
	Flows     []Direction `json:"flows"`     // those with most segments first
	Changes   []Change    `json:"changes"`
	// Connections are examples, one for each finding that has one. Their segments come from a second reading (Tracer).
	Connections []Connection `json:"connections"`
	// Sampled is, by the id of a finding whose first affected event is a sample, the time of the last sample before it, which did not
	// show it yet: it began somewhere between the two.
	Sampled map[string]capture.Instant `json:"sampled,omitempty"`
	// Left counts what the caps turned away, by the cap's name.
	Left map[string]uint64 `json:"left,omitempty"`
}

// Count is a number of events in each bucket. When buckets merge, their counts add up.
type Count []uint32

// Level is the highest and lowest value that a gauge had in each bucket; Seen is false where nothing was measured. When buckets
// merge, the extremes of both remain.
type Level struct {
	Max  []uint32 `json:"max"`
	Min  []uint32 `json:"min"`
	Seen []bool   `json:"seen"`
}

// HostSeries are counts over all connections.
type HostSeries struct {
	// Before and After: segments that were lost before and after the capture point. SYN and SYNACK: connection requests and their
	// answers that were sent again.
	Before Count `json:"lost_before"`
	After  Count `json:"lost_after"`
	SYN    Count `json:"syn_again"`
	SYNACK Count `json:"syn_ack_again"`
	// Resets by class of flow.Class, without those that do no harm.
	Resets map[string]Count `json:"resets"`
}

// Service is a listener with what was asked of it, from packets.
type Service struct {
	Addr     string `json:"addr"`
	Port     uint16 `json:"port"`
	Requests Count  `json:"requests"`
	Answered Count  `json:"answered"` // at the time of the answer's first byte
	GaveUp   Count  `json:"gave_up"`  // requests that the client did not wait for
	Unopened Count  `json:"unopened"` // connections that were asked for and did not come about, at the time of the first SYN; those of which it is not yet known, too, if it had to be sent again
	Open     Level  `json:"open"`     // requests that wait for their answer
	Half     Level  `json:"half"`     // connections whose client has closed and whose server has not: CLOSE_WAIT, inferred
}

// Resolver is a DNS server with what one host asked it.
type Resolver struct {
	Client     string `json:"client"`
	Server     string `json:"server"`
	Answered   Count  `json:"answered"`   // at the time of the query
	Unanswered Count  `json:"unanswered"` // at the time of the query
	Again      Count  `json:"again"`
	// Latency counts answers by LatencyStep, bucket after bucket.
	Latency [][LatencySteps]uint16 `json:"latency"`
}

// Listener is a listening port of this host, from samples of its sockets.
type Listener struct {
	Port       uint16 `json:"port"`
	Queue      Level  `json:"queue"`      // connections that wait to be accepted
	Backlog    uint32 `json:"backlog"`    // the highest that was seen
	Unaccepted Level  `json:"unaccepted"` // CLOSE_WAIT that no process has taken
	Held       Level  `json:"held"`       // CLOSE_WAIT that a process holds
}

// Classes is the number of size classes of Direction: SYN and SYN-ACK, then IP packets of less than the sizes in ClassBelow.
const Classes = 8

// ClassBelow are the sizes in bytes below which a class ends; the last has no end. 576 is what every host takes (RFC 791 §3.1); 1,280
// is the least MTU of IPv6 (RFC 8200 §5); the classes of 64 bytes above it tell where a cliff below 1,500 lies.
var ClassBelow = [Classes]int{0, 576, 1280, 1344, 1408, 1472, 1536, 0}

// Slots is the number of time slots of a Direction: coarser than buckets, for there are many directions.
const Slots = 60

// Direction is what one host sent to another.
type Direction struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Sent, Missing and Again are segments by slot and size class. Sent are all that are known of, each once. Missing were lost before
	// the capture point; Again passed it and were sent again all the same: lost behind it, or not taken by the receiver.
	Sent    [Slots][Classes]uint32 `json:"sent"`
	Missing [Slots][Classes]uint32 `json:"missing"`
	Again   [Slots][Classes]uint32 `json:"again"`
}

// Change is a marker of something that was changed on the host.
type Change struct {
	At   capture.Instant `json:"at"`
	Kind string          `json:"kind"`
	What string          `json:"what"`
}

// Connection is an example of a finding.
type Connection struct {
	Finding string          `json:"finding"`
	Client  string          `json:"client"`
	Server  string          `json:"server"`
	Stream  uint32          `json:"stream"` // as Wireshark's tcp.stream
	First   capture.Instant `json:"first"`
	Trouble capture.Instant `json:"trouble"` // first event that shows the fault
	Last    capture.Instant `json:"last"`
	Rank    int             `json:"rank"` // 1-based: it is this one of Of, in the order of how much they show of the fault
	Of      int             `json:"of"`
	By      string          `json:"by"` // what they are ranked by: lost, reset, waited, half_closed or unopened
	// Segments are at most MaxSegments; Left is how many of its segments are not among them.
	Segments []Segment `json:"segments,omitempty"`
	Left     int       `json:"left,omitempty"`
	ends     [2]capture.Endpoint
	until    capture.Instant // of its last packet
}

// Segment is one packet of a Connection.
type Segment struct {
	At     capture.Instant `json:"at"`
	Frame  uint64          `json:"frame"`
	Server bool            `json:"server"` // sent by the server
	Flags  uint8           `json:"flags"`
	Seq    int64           `json:"seq"` // of the first byte, 0 being the first byte of the stream that was seen
	Len    uint32          `json:"len"`
	Ack    int64           `json:"ack"`    // acknowledged bytes of the other side; -1: none
	Window int64           `json:"window"` // bytes that its sender takes beyond Ack; -1: not known, as the handshake was not seen
	SACK   [][2]int64      `json:"sack,omitempty"`
	// Again: all of it was seen before. Fills: it brings what was missing behind a gap.
	Again bool `json:"again,omitempty"`
	Fills bool `json:"fills,omitempty"`
}

// At is the time at which bucket i begins.
func (v *View) At(i int) capture.Instant { return v.Start + capture.Instant(int64(i)*v.Width) }

// Bucket is the bucket that holds at, which may lie outside the series.
func (v *View) Bucket(at capture.Instant) int {
	if v.Width <= 0 || at < v.Start {
		return -1
	}
	return int(int64(at-v.Start) / v.Width)
}

// Buckets is how many buckets the observations take.
func (v *View) Buckets() int {
	if v.Last < v.Start || v.Width <= 0 {
		return 0
	}
	return min(int(int64(v.Last-v.Start)/v.Width)+1, MaxBuckets)
}

// SlotAt is the time at which slot i of a Direction begins.
func (v *View) SlotAt(i int) capture.Instant { return v.At(i * perSlot) }

// Example is the connection that shows a finding, nil if there is none.
func (v *View) Example(finding string) *Connection {
	for i := range v.Connections {
		if v.Connections[i].Finding == finding {
			return &v.Connections[i]
		}
	}
	return nil
}

var _ analyze.Watcher = (*Collector)(nil)
