package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"jindan/capture"
	"jindan/cmd/internal/agent"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/top"
)

// topAgent is how this host is watched.
type topAgent struct{ runFlags }

func (t *topAgent) rulesDir() string { return t.rules }

func topAgentFlags(c *cobra.Command, f *topFlags) { agentFlags(c, &f.agent.runFlags) }

// own reports whether the flags ask for an engine of our own.
func (t *topAgent) own() bool {
	return t.noCapture || len(t.ifaces)+len(t.local) > 0 || t.filter != "" || t.rules != ""
}

// agentTop shows what the agent that runs on this host sees, until ctx ends. False: there is none, or none that may be asked.
func (a *app) agentTop(ctx context.Context, f *topFlags, t *topFeed) (bool, error) {
	cfg, err := f.agent.configuration()
	if err != nil || len(cfg.Netns) > 1 {
		return false, err
	}
	client, err := agent.NewClient(cfg.HTTP.Listen)
	if err != nil {
		return false, nil //nolint:nilerr // it listens nowhere
	}
	last, news := capture.Instant(0), time.Now()
	poll := func() error {
		q := url.Values{"after": {strconv.FormatInt(int64(last), 10)}, "netns": cfg.Netns}
		resp, err := client.Ask(ctx, http.MethodGet, "/states?"+q.Encode())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(agent.Said(resp))
		}
		for d := json.NewDecoder(io.LimitReader(resp.Body, maxStates)); ; {
			s := new(top.State)
			if err := d.Decode(s); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			last, news = s.At, time.Now()
			t.send(s)
		}
		if quiet := time.Since(news); quiet > agent.MaxLate {
			return errors.New("it answers, but its analysis stands still")
		}
		return nil
	}
	if err := poll(); err != nil {
		return false, nil //nolint:nilerr // there is no agent, or another version of it: an engine of our own does it
	}
	t.remote.Store(true)
	debug.SetGCPercent(besideAgentGC)
	debug.FreeOSMemory() // what the start took
	for tick := time.NewTicker(top.Every); !f.once || last == 0; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return true, nil
		case <-tick.C:
		}
		if err := poll(); err != nil && t.gone != nil {
			if u := new(url.Error); errors.As(err, &u) {
				err = u.Err // the address of the request is ours
			}
			t.gone(top.Gone{Since: time.Since(news), Why: cli.OneLine(err)})
		}
	}
	return true, nil
}

// besideAgentGC: a view beside the agent takes a second's worth of work each second and keeps little, on a host that may be short of memory.
const besideAgentGC = 20

// maxStates bounds what is read of an answer: ten minutes of states of 150 kB, and more than enough.
const maxStates = 64 << 20

// watchTop watches this host until ctx ends: through its agent, or with an engine of our own.
func (a *app) watchTop(ctx context.Context, f *topFlags, t *topFeed) error {
	if !f.agent.own() {
		if served, err := a.agentTop(ctx, f, t); served || err != nil {
			return err
		}
	}
	cfg, err := f.agent.configuration()
	if err != nil {
		return err
	}
	if len(cfg.Netns) > 1 {
		return errors.New("top looks at one network namespace at a time")
	}
	set, err := t.catalogue()
	if err != nil {
		return err
	}
	w, err := agent.Look(cfg, set, t.view)
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // what was seen is told; the process ends
	// What more rights it keeps than it needs cannot be told here: the terminal is taken.
	_ = w.Confine()
	t.source, t.engine = w.Describe(), w.Engine
	t.blind = w.Blind
	d, err := w.Run(ctx, func(b *capture.Batch) error {
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
	return agent.Ack(ctx, cfg.HTTP.Listen, id)
}
