package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/capture"
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
	client, err := newAgentClient(cfg.HTTP.Listen)
	if err != nil {
		return false, nil //nolint:nilerr // it listens nowhere
	}
	last, news := capture.Instant(0), time.Now()
	poll := func() error {
		q := url.Values{"after": {strconv.FormatInt(int64(last), 10)}, "netns": cfg.Netns}
		resp, err := client.ask(ctx, http.MethodGet, "/states?"+q.Encode())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(said(resp))
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
		if quiet := time.Since(news); quiet > maxLate {
			return errors.New("it answers, but its analysis stands still")
		}
		return nil
	}
	if err := poll(); err != nil {
		return false, nil //nolint:nilerr // there is no agent, or another version of it: an engine of our own does it
	}
	t.remote.Store(true)
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
	cfg.Recorder.Enabled = false
	ns := ""
	if len(cfg.Netns) > 1 {
		return errors.New("top looks at one network namespace at a time")
	} else if len(cfg.Netns) == 1 {
		ns = cfg.Netns[0]
	}
	share := divide(cfg, 1)
	cli.LimitHeap(share.heap)
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
