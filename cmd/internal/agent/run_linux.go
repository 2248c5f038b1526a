package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/privsep"
)

// errReload ends a run of the agent so that it begins anew with another configuration.
var errReload = errors.New("reload")

// Options are what an agent is started with.
type Options struct {
	*cli.App
	Load   func() (*config.Config, error) // reads the configuration, at the start and when it is to be read again
	Output string                         // format on standard output: text, ndjson or ecs; empty: as the sink says
	Record string                         // directory in which all that is observed is kept; empty: it is not
	// Divide lets Run begin the process anew, as a worker without capabilities beside a keeper that has them. Only a program that calls
	// privsep.Keep first may, not its tests.
	Divide bool

	keeper   *privsep.Keeper // nil: the agent is one process
	confined bool            // by Landlock
}

// Run watches this host until ctx ends.
func Run(ctx context.Context, o Options) error {
	debug.SetGCPercent(gcPercent)
	cfg, err := o.Load()
	if err != nil {
		return err
	}
	if o.Divide {
		if o.keeper, err = split(cfg, o.Record); err != nil {
			o.Log.Warn().Msgf("what reads packets keeps its capabilities: %s", cli.OneLine(err))
		}
	}
	began := writes(cfg, o.Record)
	defer o.LogAside()()
	defer o.EndWithin(ctx)()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	moved := make(chan os.Signal, 1)
	signal.Notify(moved, syscall.SIGUSR1)
	defer signal.Stop(moved)
	for {
		again := make(chan *config.Config, 1)
		turn, stop := context.WithCancelCause(ctx)
		var running atomic.Pointer[agent]
		var listening sync.WaitGroup
		listening.Go(func() {
			for {
				select {
				case <-turn.Done():
					return
				case <-hangup:
				}
				next, err := o.Load()
				if err == nil && o.confined {
					err = within(writes(next, o.Record), began)
				}
				ag := running.Load()
				if err == nil && ag != nil && watchesAlike(cfg, next) {
					if err = ag.reload(next); err == nil {
						cfg = next
						o.Log.Info().Msg("sinks and rules reloaded; what is open stays")
						continue
					}
				}
				if err != nil {
					o.Log.Error().Msg("the configuration is not reloaded, the old one stays: " + cli.OneLine(err))
					continue
				}
				again <- next
				stop(errReload)
				return
			}
		})
		err := o.watchOnce(turn, cfg, moved, &running)
		reload := errors.Is(context.Cause(turn), errReload)
		stop(nil)
		listening.Wait()
		if err != nil || !reload {
			return err
		}
		cfg = <-again
		o.Log.Info().Msg("configuration reloaded; what is watched has changed, and the analysis begins anew")
	}
}

// watchesAlike tells whether two configurations watch the same in the same way, and differ in sinks and rules alone.
func watchesAlike(a, b *config.Config) bool {
	x, y := *a, *b
	for _, c := range []*config.Config{&x, &y} {
		fresh := config.Default()
		c.Rules, c.Sinks, c.Spool, c.Heartbeat, c.Repeat, c.Read = "", nil, fresh.Spool, 0, 0, fresh.Read
	}
	return config.Equal(&x, &y)
}

// watchOnce runs the agent with one configuration; moved tells that files of sinks were moved away, and running is told of the agent.
func (o *Options) watchOnce(ctx context.Context, cfg *config.Config, moved <-chan os.Signal, running *atomic.Pointer[agent]) error {
	set, err := diagnose.Catalogue(cfg.Rules)
	if err != nil {
		return o.FailEach(err)
	}
	spaces, err := namespaces(cfg)
	if err != nil {
		return err
	}
	ag, err := newAgent(o.App, cfg, set, o.Output)
	if err != nil {
		return err
	}
	ag.renamed, ag.keeper = moved, o.keeper
	ag.share = divide(cfg, len(spaces))
	cli.LimitHeap(ag.share.heap)
	defer ag.close()
	for _, ns := range spaces {
		if err := ag.add(ns, o.Record); err != nil {
			if len(spaces) == 1 {
				return err
			}
			o.Log.Warn().Msg(cli.OneLine(err))
		}
	}
	if len(ag.watches) == 0 {
		return fmt.Errorf("there is nothing to watch")
	}
	if err := ag.serve(ctx); err != nil {
		o.Log.Warn().Msg(cli.OneLine(err))
	}
	if err := privsep.Drop(needed(o.keeper != nil, len(cfg.Netns) > 0, foreign(owned(cfg, o.Record)...))); err != nil {
		o.Log.Warn().Msgf("the agent keeps more rights than it needs: %s", cli.OneLine(err))
	}
	if o.keeper != nil && !o.confined {
		if o.confined, err = confine(cfg, o.Record); err != nil {
			o.Log.Warn().Msgf("the agent may open more files than it needs: %s", cli.OneLine(err))
		}
	}
	ag.banner()
	notify("READY=1\nSTATUS=watching")
	defer notify("STOPPING=1")
	running.Store(ag)
	defer running.Store(nil)
	return ag.run(ctx)
}
