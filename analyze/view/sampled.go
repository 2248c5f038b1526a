package view

import (
	"cmp"
	"slices"

	"jindan/analyze"
	"jindan/capture"
)

// maxSampled bounds the times of samples that are kept, at 16 bytes.
const maxSampled = 16_384

// sampleKind tells samples that show the same from those that show something else.
type sampleKind struct {
	host, processes bool
	states          uint32
}

// sampled is the time of a sample and that of the one of its kind before it.
type sampled struct{ at, before capture.Instant }

// remember keeps the times of samples. Where they are too many, each second one is forgotten: what began with it has no uncertainty that
// could be shown.
func (c *Collector) remember(at capture.Instant, s *capture.Sample) {
	k := sampleKind{host: s.Host != nil, processes: s.Processes != nil}
	if s.Sockets != nil {
		k.states = s.Sockets.States
	}
	before, ok := c.latest[k]
	c.latest[k] = at
	if !ok || before >= at {
		return
	}
	if len(c.sampled) == maxSampled {
		c.left["samples"] += maxSampled / 2
		for i := range maxSampled / 2 {
			c.sampled[i] = c.sampled[2*i]
		}
		c.sampled = c.sampled[:maxSampled/2]
	}
	c.sampled = append(c.sampled, sampled{at, before})
}

// since is the last sample before each finding that began with a sample. The times of packets do not equal those of samples, but by an
// accident in a billion.
func (c *Collector) since(fs []*analyze.Finding) map[string]capture.Instant {
	var m map[string]capture.Instant
	for _, f := range fs {
		i, ok := slices.BinarySearchFunc(c.sampled, f.Onset, func(s sampled, at capture.Instant) int { return cmp.Compare(s.at, at) })
		if !ok {
			continue
		}
		if m == nil {
			m = map[string]capture.Instant{}
		}
		m[f.ID] = c.sampled[i].before
	}
	return m
}
