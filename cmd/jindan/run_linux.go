package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
)

type runFlags struct {
	config    string
	noCapture bool
	ifaces    []string
	filter    string
	local     []string
	netns     []string
	rules     string
	output    string
	record    string
}

// agentFlags are the flags that run, check and record share.
func agentFlags(c *cobra.Command, f *runFlags) {
	configFlag(c, &f.config)
	c.Flags().BoolVar(&f.noCapture, "no-capture", false, "do not capture packets: sockets and counters only")
	c.Flags().StringSliceVarP(&f.ifaces, "interface", "i", nil, "`interface` to capture on, several with commas (default any)")
	c.Flags().StringVar(&f.filter, "filter", "", "capture `filter` in tcpdump's syntax (default TCP, DNS and ICMP errors)")
	c.Flags().StringSliceVar(&f.local, "local", nil, "`address` or prefix of this host, repeatable (default: found from its sockets)")
	c.Flags().StringSliceVar(&f.netns, "netns", nil, "network `namespace` to watch: names, process ids, or all (default the agent's own)")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
}

// configuration is that of the files, the environment and the flags.
func (f *runFlags) configuration() (*config.Config, error) {
	return loadConfigWith(f.config, false, func(o *config.Options) {
		if f.noCapture {
			o.Set("--no-capture", "capture.enabled", "false")
		}
		for _, s := range []struct {
			flag, key string
			value     string
		}{
			{"--interface", "capture.interfaces", strings.Join(f.ifaces, ",")}, {"--filter", "capture.filter", f.filter},
			{"--local", "local", strings.Join(f.local, ",")}, {"--netns", "netns", strings.Join(f.netns, ",")}, {"--rules", "rules", f.rules},
		} {
			if s.value != "" {
				o.Set(s.flag, s.key, s.value)
			}
		}
	})
}

func newRun(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Watch this host and diagnose it: the agent",
		Long: `Watches the packets, sockets and counters of this host, and tells what is wrong as it begins, changes and
ends. It reads only. Without root it says what it cannot see, and carries on with the rest.

SIGHUP reads the configuration again: sinks and rules are taken over, and what is open stays; if what is watched has changed, the
analysis begins anew. SIGUSR1 opens the files of sinks again (log rotation). SIGINT and SIGTERM end it with a diagnosis.`,
		Example: `  sudo jindan run
  sudo jindan run -i eth0 --filter 'port 443 or port 53'
  sudo jindan run -o ndjson | jq .summary.en
  jindan run --no-capture                    sockets and counters only, no root needed`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c.Context(), &f) },
	}
	agentFlags(c, &f)
	c.Flags().StringVarP(&f.output, "output", "o", "", "`format` of the findings on standard output: text, ndjson or ecs (default text on a terminal, otherwise the encoding of the stdout sink, native NDJSON)")
	c.Flags().StringVar(&f.record, "record", "", "also keep what is observed in `directory`, as 'jindan record' does")
	_ = c.MarkFlagDirname("record")
	fixed(c, "output", "text", "ndjson", "ecs")
	return c
}

// errReload ends a run of the agent so that it begins anew with another configuration.
var errReload = errors.New("reload")

func (a *app) run(ctx context.Context, f *runFlags) error {
	debug.SetGCPercent(gcPercent)
	if f.output == "" && cli.IsTerminal(os.Stdout) {
		f.output = "text"
	}
	if f.output != "" { // else as the sink says
		if err := cli.OneOf("--output", f.output, "text", "ndjson", "ecs"); err != nil {
			return err
		}
	}
	cfg, err := f.configuration()
	if err != nil {
		return err
	}
	defer a.LogAside()()
	defer a.EndWithin(ctx)()
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
				next, err := f.configuration()
				ag := running.Load()
				if err == nil && ag != nil && watchesAlike(cfg, next) {
					if err = ag.reload(next); err == nil {
						cfg = next
						a.Log.Info().Msg("sinks and rules reloaded; what is open stays")
						continue
					}
				}
				if err != nil {
					a.Log.Error().Msg("the configuration is not reloaded, the old one stays: " + cli.OneLine(err))
					continue
				}
				again <- next
				stop(errReload)
				return
			}
		})
		err := a.watchOnce(turn, cfg, f, moved, &running)
		reload := errors.Is(context.Cause(turn), errReload)
		stop(nil)
		listening.Wait()
		if err != nil || !reload {
			return err
		}
		cfg = <-again
		a.Log.Info().Msg("configuration reloaded; what is watched has changed, and the analysis begins anew")
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
func (a *app) watchOnce(ctx context.Context, cfg *config.Config, f *runFlags, moved <-chan os.Signal, running *atomic.Pointer[agent]) error {
	set, err := diagnose.Catalogue(cfg.Rules)
	if err != nil {
		return a.FailEach(err)
	}
	spaces, err := namespaces(cfg)
	if err != nil {
		return err
	}
	ag, err := newAgent(a, cfg, set, f.output)
	if err != nil {
		return err
	}
	ag.renamed = moved
	ag.share = divide(cfg, len(spaces))
	cli.LimitHeap(ag.share.heap)
	defer ag.close()
	for _, ns := range spaces {
		if err := ag.add(ns, f.record); err != nil {
			if len(spaces) == 1 {
				return err
			}
			a.Log.Warn().Msg(cli.OneLine(err))
		}
	}
	if len(ag.watches) == 0 {
		return fmt.Errorf("there is nothing to watch")
	}
	if err := ag.serve(ctx); err != nil {
		a.Log.Warn().Msg(cli.OneLine(err))
	}
	if err := dropPrivileges(needed(len(cfg.Netns) > 0, foreign(ag.writes()...))); err != nil {
		a.Log.Warn().Msgf("the agent keeps more rights than it needs: %s", cli.OneLine(err))
	}
	ag.banner()
	notify("READY=1\nSTATUS=watching")
	defer notify("STOPPING=1")
	running.Store(ag)
	defer running.Store(nil)
	return ag.run(ctx)
}
