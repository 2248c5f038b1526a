package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"jindan/capture"
	"jindan/capture/live"
	"jindan/cmd/internal/cli"
)

// packets is a capture that tells the engine, in the stream, when it cannot see packets any more, and when it can again.
type packets struct {
	*live.Source
	interfaces int    // captured on
	told       string // why there are no packets, as the engine knows; empty: there are
}

func newPackets(s *live.Source, interfaces []string) *packets {
	names := slices.Clone(interfaces)
	slices.Sort(names)
	return &packets{Source: s, interfaces: max(1, len(slices.Compact(names)))} // none: all, as one
}

// Read is that of the capture, with a marker behind what it saw. Its own end is told, too, for the agent goes on without it.
func (p *packets) Read(ctx context.Context, b *capture.Batch) error {
	err := p.Source.Read(ctx, b)
	why := ""
	switch st := p.Stats(); {
	case err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrClosed)):
		return err
	case err != nil:
		why = cli.OneLine(err)
	case len(st.Missing) == p.interfaces && st.LastError != nil:
		why = cli.OneLine(st.LastError)
	case len(st.Missing) == p.interfaces:
		why = fmt.Sprintf("capture on %s: the interface is gone", strings.Join(st.Missing, ", "))
	}
	if n := len(b.Obs); why != p.told && n < cap(b.Obs) { // else with the next batch
		at := b.Until
		if n > 0 {
			at = max(at, b.Obs[n-1].At)
		} else if err != nil {
			at = capture.Instant(time.Now().UnixNano()) // nothing may have set Until yet
		}
		b.Obs = append(b.Obs, noPackets(at, p.Name(), why))
		p.told = why
	}
	return err
}

// noPackets is the marker that what captures no packets from at on; an empty why ends that.
func noPackets(at capture.Instant, what, why string) capture.Observation {
	return capture.Observation{At: at, Kind: capture.KindSample, Sample: &capture.Sample{
		Change: &capture.Change{Kind: capture.ChangeCapture, What: what, Detail: why}}}
}

// unseen is what the engine is told first where nothing captures packets.
func (w *Watch) unseen() *capture.Batch {
	now := capture.Instant(time.Now().UnixNano())
	return &capture.Batch{Obs: []capture.Observation{noPackets(now, "packets", w.NoPackets)}, Until: now}
}
