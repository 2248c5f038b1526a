package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/capture"
)

// topAgent is how this host is watched.
type topAgent struct{ runFlags }

func (t *topAgent) rulesDir() string { return t.rules }

func topAgentFlags(c *cobra.Command, f *topFlags) { agentFlags(c, &f.agent.runFlags) }

// watchTop watches this host until ctx ends.
func (a *app) watchTop(ctx context.Context, f *topFlags, t *topFeed) error {
	cfg, err := f.agent.configuration()
	if err != nil {
		return err
	}
	cfg.Recorder.Enabled = false
	ns := ""
	if len(cfg.Netns) > 1 {
		return errors.New("top looks at one network namespace at a time")
	} else if len(cfg.Netns) == 1 {
		ns = cfg.Netns[0]
	}
	share := divide(cfg, 1)
	limitHeap(share.heap)
	w, err := openWatch(cfg, ns, share)
	if err != nil {
		return err
	}
	defer w.close() //nolint:errcheck // what was seen is told; the process ends
	w.watcher = t.view
	if err := w.prepare(t.set, cfg, func(*analyze.Finding) error { return nil }); err != nil {
		return err
	}
	// What more rights it keeps than it needs cannot be told here: the terminal is taken.
	_ = dropPrivileges(needed(ns != "", false))
	t.source, t.engine = w.describe(), func() *analyze.Engine { return w.engine }
	t.blind = w.blind
	d, err := w.run(ctx, func(b *capture.Batch) error {
		if len(b.Obs) > 0 {
			t.seen(b.Obs[0].At)
		} else if b.Until > 0 {
			t.seen(b.Until)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.take(d)
	return nil
}

// ackTop acknowledges a finding through the agent that runs on this host.
func (a *app) ackTop(ctx context.Context, f *topFlags, id string) error {
	cfg, err := f.agent.configuration()
	if err != nil {
		return err
	}
	return ack(ctx, cfg.HTTP.Listen, id)
}
